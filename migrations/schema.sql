-- The schema after all migrations. Written by: cargo dev prepare

CREATE FUNCTION public.conversations_direct_has_two() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
begin
    if exists (
        select from conversations
        where conversation_id = new.conversation_id and kind = 'direct' and participant_count <> 2
    ) then
        raise exception 'a direct conversation has exactly two participants'
            using errcode = 'check_violation', constraint = 'conversations_direct_has_two';
    end if;
    return null;
end
$$;

CREATE FUNCTION public.database_incarnation() RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'public', 'pg_temp'
    AS $$
    select extract(epoch from pg_postmaster_start_time()) || ' ' || pg_relation_filenode('log_checkpoints')
$$;

CREATE FUNCTION public.make_message_partition(day date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
declare
    partition text := 'messages_' || to_char(day, 'YYYYMMDD');
begin
    if to_regclass(partition) is not null then
        return false;
    end if;
    -- What attaching takes anyway; taken first, whoever comes second sees what the first has made.
    lock table messages in share update exclusive mode;
    if to_regclass(partition) is not null then
        return false;
    end if;
    execute format('create table %I (like messages including defaults including constraints)', partition);
    execute format(
        'alter table messages attach partition %I for values from (%L) to (%L)',
        partition, day::text || ' 00:00:00+00', (day + 1)::text || ' 00:00:00+00'
    );
    return true;
end
$$;

CREATE FUNCTION public.own_after(own_runs int8multirange, seq bigint) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    select coalesce(sum(upper(run) - lower(run)), 0)::bigint
    from unnest(own_runs * int8multirange(int8range(seq + 1, null))) as run
$$;

CREATE FUNCTION public.participants_count() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
begin
    if tg_op = 'INSERT' then
        update conversations set participant_count = participant_count + 1 where conversation_id = new.conversation_id;
    else
        update conversations set participant_count = participant_count - 1 where conversation_id = old.conversation_id;
    end if;
    return null;
end
$$;

CREATE FUNCTION public.participants_listed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
begin
    new.listed_at := coalesce(
        (select last_activity_at from conversations where conversation_id = new.conversation_id), new.joined_at
    );
    return new;
end
$$;

CREATE FUNCTION public.restore_conversation(restored_id uuid, restored_kind text, restored_version bigint, user_ids uuid[], roles text[], blocker_ids uuid[], restored_at timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
declare
    pair_low uuid;
    pair_high uuid;
    found_version bigint;
    is_new boolean;
begin
    if restored_kind = 'direct' then
        pair_low := least(user_ids[1], user_ids[2]);
        pair_high := greatest(user_ids[1], user_ids[2]);
    end if;
    insert into conversations (conversation_id, kind, direct_low, direct_high, version, created_at, last_activity_at)
    values (restored_id, restored_kind, pair_low, pair_high, restored_version, restored_at, restored_at)
    on conflict do nothing;
    is_new := found;
    select version into found_version from conversations where conversation_id = restored_id for no key update;
    if not found then
        return false;
    end if;
    if not is_new and found_version >= restored_version then
        return true;
    end if;
    update conversations set version = restored_version where conversation_id = restored_id;
    if is_new then
        -- Messages of later entries may have been stored while the conversation was missing.
        update conversations c
        set last_seq = newest.seq, last_message_at = newest.sent_at, last_message_id = newest.message_id,
            last_activity_at = greatest(c.last_activity_at, newest.sent_at)
        from (
            select seq, sent_at, message_id from messages where conversation_id = restored_id order by seq desc limit 1
        ) newest
        where c.conversation_id = restored_id;
    end if;
    -- In the order in which read marks lock them.
    perform from participants where conversation_id = restored_id order by user_id for update;
    with gone as (
        delete from participants where conversation_id = restored_id and user_id <> all (user_ids)
        returning user_id, read_seq, last_read_message_id, own_runs
    )
    insert into former_participants (conversation_id, user_id, read_seq, last_read_message_id, own_runs, has_left)
    select restored_id, user_id, read_seq, last_read_message_id, own_runs, false from gone
    order by user_id
    on conflict (conversation_id, user_id) do update
    set read_seq = excluded.read_seq, last_read_message_id = excluded.last_read_message_id, own_runs = excluded.own_runs,
        has_left = false;
    perform from former_participants where conversation_id = restored_id order by user_id for update;
    with back as (
        delete from former_participants where conversation_id = restored_id and user_id = any (user_ids)
        returning user_id, read_seq, last_read_message_id, own_runs
    )
    insert into participants (conversation_id, user_id, role, joined_at, read_seq, last_read_message_id, own_runs)
    select restored_id, member.user_id, member.role, restored_at, coalesce(back.read_seq, 0), back.last_read_message_id,
        coalesce(back.own_runs, '{}')
    from unnest(user_ids, roles) with ordinality as member (user_id, role, place)
    left join back using (user_id)
    order by member.place
    on conflict (conversation_id, user_id) do update set role = excluded.role;
    if restored_kind = 'direct' then
        delete from blocks
        where (blocker_id, blocked_id) in ((pair_low, pair_high), (pair_high, pair_low))
            and blocker_id <> all (blocker_ids);
        insert into blocks (blocker_id, blocked_id, created_at)
        select blocker_id, case blocker_id when pair_low then pair_high else pair_low end, restored_at
        from unnest(blocker_ids) as blocker_id
        where blocker_id in (pair_low, pair_high)
        on conflict do nothing;
    end if;
    return true;
end
$$;

CREATE FUNCTION public.settle_read(INOUT read_seq bigint, INOUT own_runs int8multirange) RETURNS record
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
begin
    if isempty(own_runs) then
        return;
    end if;
    own_runs := own_runs * int8multirange(int8range(read_seq + 1, null));
    if lower(own_runs) = read_seq + 1 then
        read_seq := (select upper(run) - 1 from unnest(own_runs) as run order by run limit 1);
        own_runs := own_runs * int8multirange(int8range(read_seq + 1, null));
    end if;
    if (select count(*) from unnest(own_runs)) > 32 then
        own_runs := (
            select range_agg(run) from (select run from unnest(own_runs) as run order by run desc limit 32) as newest
        );
    end if;
end
$$;

CREATE FUNCTION public.unread_count(last_seq bigint, floor_seq bigint, read_seq bigint, own_runs int8multirange) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    select greatest(
        last_seq - greatest(read_seq, floor_seq)
            - case when isempty(own_runs) then 0 else own_after(own_runs, greatest(read_seq, floor_seq)) end,
        0
    )
$$;

CREATE TABLE public.blocks (
    blocker_id uuid NOT NULL,
    blocked_id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT blocks_somebody_else CHECK ((blocker_id <> blocked_id))
);

CREATE TABLE public.content_keys (
    day date NOT NULL,
    master_key_id text NOT NULL,
    wrapped bytea NOT NULL,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE public.conversations (
    conversation_id uuid NOT NULL,
    kind text NOT NULL,
    direct_low uuid,
    direct_high uuid,
    version bigint DEFAULT 1 NOT NULL,
    participant_count integer DEFAULT 0 NOT NULL,
    last_seq bigint DEFAULT 0 NOT NULL,
    floor_seq bigint DEFAULT 0 NOT NULL,
    last_message_id uuid,
    last_message_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    last_activity_at timestamp with time zone NOT NULL,
    CONSTRAINT conversations_direct_has_pair CHECK (
CASE kind
    WHEN 'direct'::text THEN ((direct_low IS NOT NULL) AND (direct_high IS NOT NULL) AND (direct_low < direct_high))
    ELSE ((direct_low IS NULL) AND (direct_high IS NULL))
END),
    CONSTRAINT conversations_floor_seq_check CHECK ((floor_seq >= 0)),
    CONSTRAINT conversations_kind_check CHECK ((kind = ANY (ARRAY['direct'::text, 'group'::text]))),
    CONSTRAINT conversations_last_seq_check CHECK ((last_seq >= 0)),
    CONSTRAINT conversations_participant_count_check CHECK ((participant_count >= 0)),
    CONSTRAINT conversations_participants_max CHECK ((participant_count <=
CASE kind
    WHEN 'direct'::text THEN 2
    ELSE 8
END)),
    CONSTRAINT conversations_version_check CHECK ((version > 0))
);

CREATE TABLE public.dead_letters (
    dead_letter_id bigint NOT NULL,
    stream_name text NOT NULL,
    stream_seq bigint NOT NULL,
    subject text NOT NULL,
    payload bytea NOT NULL,
    reason text NOT NULL,
    created_at timestamp with time zone NOT NULL
);

ALTER TABLE public.dead_letters ALTER COLUMN dead_letter_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.dead_letters_dead_letter_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.former_participants (
    conversation_id uuid NOT NULL,
    user_id uuid NOT NULL,
    read_seq bigint NOT NULL,
    last_read_message_id uuid,
    own_runs int8multirange DEFAULT '{}'::int8multirange NOT NULL,
    has_left boolean NOT NULL,
    CONSTRAINT former_participants_read_seq_check CHECK ((read_seq >= 0))
);

CREATE TABLE public.log_checkpoints (
    stream_name text NOT NULL,
    stream_created_at timestamp with time zone NOT NULL,
    last_stream_seq bigint NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    incarnation text,
    acked_stream_seq bigint,
    CONSTRAINT log_checkpoints_acked_stream_seq_check CHECK ((acked_stream_seq >= 0)),
    CONSTRAINT log_checkpoints_last_stream_seq_check CHECK ((last_stream_seq >= 0))
);

CREATE TABLE public.log_gaps (
    gap_id bigint NOT NULL,
    stream_name text NOT NULL,
    next_stream_seq bigint NOT NULL,
    last_stream_seq bigint NOT NULL,
    was_acked boolean NOT NULL,
    is_lost boolean DEFAULT false NOT NULL,
    found_at timestamp with time zone NOT NULL,
    CONSTRAINT log_gaps_next_stream_seq_check CHECK ((next_stream_seq > 0)),
    CONSTRAINT log_gaps_range CHECK ((next_stream_seq <= last_stream_seq))
);

ALTER TABLE public.log_gaps ALTER COLUMN gap_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.log_gaps_gap_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.messages (
    conversation_id uuid NOT NULL,
    seq bigint NOT NULL,
    sent_at timestamp with time zone NOT NULL,
    message_id uuid NOT NULL,
    sender_id uuid NOT NULL,
    envelope bytea NOT NULL,
    deleted_at timestamp with time zone,
    CONSTRAINT messages_seq_check CHECK ((seq > 0))
)
PARTITION BY RANGE (sent_at);

CREATE TABLE public.notification_devices (
    user_id uuid NOT NULL,
    device_id uuid NOT NULL,
    platform text NOT NULL,
    app_id text NOT NULL,
    locale text,
    address bytea NOT NULL,
    fingerprint bytea NOT NULL,
    registered_at timestamp with time zone NOT NULL,
    CONSTRAINT notification_devices_platform_check CHECK ((platform = ANY (ARRAY['fcm'::text, 'apns'::text, 'web_push'::text, 'webhook'::text])))
);

CREATE TABLE public.outbox (
    outbox_id bigint NOT NULL,
    conversation_id uuid NOT NULL,
    version bigint NOT NULL,
    event bytea NOT NULL,
    created_at timestamp with time zone NOT NULL
);

ALTER TABLE public.outbox ALTER COLUMN outbox_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.outbox_outbox_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.participants (
    conversation_id uuid NOT NULL,
    user_id uuid NOT NULL,
    role text NOT NULL,
    "position" bigint NOT NULL,
    joined_at timestamp with time zone NOT NULL,
    read_seq bigint DEFAULT 0 NOT NULL,
    last_read_message_id uuid,
    muted_until timestamp with time zone,
    listed_at timestamp with time zone NOT NULL,
    since_seq bigint DEFAULT 0 NOT NULL,
    own_runs int8multirange DEFAULT '{}'::int8multirange NOT NULL,
    CONSTRAINT participants_read_seq_check CHECK ((read_seq >= 0)),
    CONSTRAINT participants_role_check CHECK ((role = ANY (ARRAY['member'::text, 'owner'::text]))),
    CONSTRAINT participants_since_seq_check CHECK ((since_seq >= 0))
);

ALTER TABLE public.participants ALTER COLUMN "position" ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.participants_position_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY public.blocks
    ADD CONSTRAINT blocks_pkey PRIMARY KEY (blocker_id, blocked_id);

ALTER TABLE ONLY public.content_keys
    ADD CONSTRAINT content_keys_pkey PRIMARY KEY (day);

ALTER TABLE ONLY public.conversations
    ADD CONSTRAINT conversations_direct_pair UNIQUE (direct_low, direct_high);

ALTER TABLE ONLY public.conversations
    ADD CONSTRAINT conversations_pkey PRIMARY KEY (conversation_id);

ALTER TABLE ONLY public.dead_letters
    ADD CONSTRAINT dead_letters_entry UNIQUE (stream_name, stream_seq);

ALTER TABLE ONLY public.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (dead_letter_id);

ALTER TABLE ONLY public.former_participants
    ADD CONSTRAINT former_participants_pkey PRIMARY KEY (conversation_id, user_id);

ALTER TABLE ONLY public.log_checkpoints
    ADD CONSTRAINT log_checkpoints_pkey PRIMARY KEY (stream_name);

ALTER TABLE ONLY public.log_gaps
    ADD CONSTRAINT log_gaps_pkey PRIMARY KEY (gap_id);

ALTER TABLE ONLY public.messages
    ADD CONSTRAINT messages_pkey PRIMARY KEY (conversation_id, seq, sent_at);

ALTER TABLE ONLY public.notification_devices
    ADD CONSTRAINT notification_devices_address UNIQUE (fingerprint);

ALTER TABLE ONLY public.notification_devices
    ADD CONSTRAINT notification_devices_pkey PRIMARY KEY (user_id, device_id);

ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_conversation_version UNIQUE (conversation_id, version);

ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (outbox_id);

ALTER TABLE ONLY public.participants
    ADD CONSTRAINT participants_pkey PRIMARY KEY (conversation_id, user_id);

CREATE INDEX blocks_by_blocked ON public.blocks USING btree (blocked_id);

CREATE INDEX messages_by_message ON ONLY public.messages USING btree (conversation_id, message_id);

CREATE INDEX participants_listed ON public.participants USING btree (user_id, listed_at DESC);

CREATE CONSTRAINT TRIGGER conversations_direct_has_two AFTER INSERT OR UPDATE OF participant_count ON public.conversations DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.conversations_direct_has_two();

CREATE TRIGGER participants_count AFTER INSERT OR DELETE ON public.participants FOR EACH ROW EXECUTE FUNCTION public.participants_count();

CREATE TRIGGER participants_listed BEFORE INSERT ON public.participants FOR EACH ROW EXECUTE FUNCTION public.participants_listed();

ALTER TABLE ONLY public.former_participants
    ADD CONSTRAINT former_participants_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES public.conversations(conversation_id) ON DELETE CASCADE;

ALTER TABLE ONLY public.participants
    ADD CONSTRAINT participants_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES public.conversations(conversation_id) ON DELETE CASCADE;
