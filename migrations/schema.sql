-- The schema after all migrations. Written by: cargo dev prepare

CREATE FUNCTION public.assignments_within_capacity() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
declare
    capacity_max integer;
begin
    select coalesce(s.capacity, b.capacity) into capacity_max
    from businesses b join staff s on s.business_id = b.business_id and s.user_id = new.agent_id
    where b.business_id = new.business_id;
    if (
        select count(*) from assignments
        where business_id = new.business_id and agent_id = new.agent_id and released_at is null
    ) > coalesce(capacity_max, 0) then
        raise exception 'the agent has as many cases as the capacity allows'
            using errcode = 'check_violation', constraint = 'assignments_within_capacity';
    end if;
    return null;
end
$$;

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

CREATE FUNCTION public.restore_conversation(restored_id uuid, restored_kind text, restored_version bigint, user_ids uuid[], roles text[], blocker_ids uuid[], restored_at timestamp with time zone, restored_business uuid DEFAULT NULL::uuid, restored_case integer DEFAULT NULL::integer, restored_state text DEFAULT NULL::text, restored_waiting timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
declare
    pair_low uuid;
    pair_high uuid;
    customer uuid;
    agent uuid;
    found_version bigint;
    is_new boolean;
begin
    if restored_kind = 'direct' then
        pair_low := least(user_ids[1], user_ids[2]);
        pair_high := greatest(user_ids[1], user_ids[2]);
    elsif restored_kind = 'business' then
        customer := user_ids[array_position(roles, 'customer')];
        agent := user_ids[array_position(roles, 'agent')];
        insert into businesses (business_id) values (restored_business) on conflict do nothing;
    end if;
    insert into conversations (
        conversation_id, kind, direct_low, direct_high, business_id, customer_id, version, created_at, last_activity_at
    )
    values (
        restored_id, restored_kind, pair_low, pair_high, restored_business, customer, restored_version, restored_at,
        restored_at
    )
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
        update conversations c
        set customer_seq = coalesce((
                select max(seq) from messages where conversation_id = restored_id and sender_id = customer
            ), 0),
            agent_seq = coalesce((
                select max(seq) from messages where conversation_id = restored_id and sender_id <> customer
            ), 0)
        where c.conversation_id = restored_id and customer is not null;
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
    if restored_kind = 'business' then
        insert into cases (
            conversation_id, business_id, customer_id, state, case_number, agent_id, last_agent_id, opened_at, waiting_since,
            assigned_at, resolved_at, due_at
        )
        values (
            restored_id, restored_business, customer,
            case when agent is not null then 'assigned' when restored_state = 'resolved' then 'resolved' else 'waiting' end,
            restored_case, agent, agent, restored_waiting, restored_waiting,
            case when agent is not null then restored_at end, case when restored_state = 'resolved' then restored_at end,
            case when agent is not null then restored_at end
        )
        on conflict (conversation_id) do update
        set state = excluded.state, case_number = excluded.case_number, agent_id = excluded.agent_id,
            last_agent_id = coalesce(excluded.last_agent_id, cases.last_agent_id), waiting_since = excluded.waiting_since,
            assigned_at = excluded.assigned_at, accepted_at = null,
            resolved_at = coalesce(excluded.resolved_at, cases.resolved_at), due_at = excluded.due_at;
        update assignments set released_at = restored_at, release_reason = 'given_back'
        where conversation_id = restored_id and released_at is null and agent_id is distinct from agent;
        if agent is not null then
            -- With the agent as the one who decided: the capacity was checked when the case was assigned.
            insert into assignments (
                conversation_id, business_id, case_number, agent_id, assigned_by, reason, strategy, waited_ms, candidates,
                assigned_at
            )
            values (
                restored_id, restored_business, restored_case, agent, agent, 'claimed', 'manual', 0, '[]', restored_at
            )
            on conflict do nothing;
        end if;
    end if;
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

CREATE TABLE public.assignments (
    assignment_id bigint NOT NULL,
    conversation_id uuid NOT NULL,
    business_id uuid NOT NULL,
    case_number integer NOT NULL,
    agent_id uuid NOT NULL,
    assigned_by uuid,
    reason text NOT NULL,
    strategy text NOT NULL,
    waited_ms bigint NOT NULL,
    candidates jsonb NOT NULL,
    assigned_at timestamp with time zone NOT NULL,
    released_at timestamp with time zone,
    release_reason text,
    CONSTRAINT assignments_reason_check CHECK ((reason = ANY (ARRAY['routed'::text, 'claimed'::text, 'transferred'::text, 'assigned'::text, 'reopened'::text]))),
    CONSTRAINT assignments_release_reason_check CHECK ((release_reason = ANY (ARRAY['resolved'::text, 'quiet'::text, 'transferred'::text, 'given_back'::text, 'answer_missed'::text, 'reply_missed'::text, 'gone'::text, 'left_staff'::text, 'business_closed'::text]))),
    CONSTRAINT assignments_released CHECK (((released_at IS NULL) = (release_reason IS NULL)))
);

ALTER TABLE public.assignments ALTER COLUMN assignment_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.assignments_assignment_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.blocks (
    blocker_id uuid NOT NULL,
    blocked_id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT blocks_somebody_else CHECK ((blocker_id <> blocked_id))
);

CREATE TABLE public.businesses (
    business_id uuid NOT NULL,
    staff_version bigint DEFAULT 0 NOT NULL,
    is_open boolean DEFAULT true NOT NULL,
    strategy text DEFAULT 'least_busy'::text NOT NULL,
    capacity integer DEFAULT 5 NOT NULL,
    answer_max_s integer DEFAULT 120 NOT NULL,
    notified_max_s integer DEFAULT 600 NOT NULL,
    reply_max_s integer DEFAULT 900 NOT NULL,
    quiet_max_s integer DEFAULT 1800 NOT NULL,
    affinity_s integer DEFAULT 86400 NOT NULL,
    hours jsonb,
    settings_version bigint DEFAULT 1 NOT NULL,
    checked_at timestamp with time zone DEFAULT (clock_timestamp() - (random() * '01:00:00'::interval)) NOT NULL,
    CONSTRAINT businesses_affinity_s_check CHECK (((affinity_s >= 0) AND (affinity_s <= 2592000))),
    CONSTRAINT businesses_answer_max_s_check CHECK (((answer_max_s >= 10) AND (answer_max_s <= 86400))),
    CONSTRAINT businesses_capacity_check CHECK (((capacity >= 1) AND (capacity <= 50))),
    CONSTRAINT businesses_hours_check CHECK ((pg_column_size(hours) < 65536)),
    CONSTRAINT businesses_notified_max_s_check CHECK (((notified_max_s >= 10) AND (notified_max_s <= 86400))),
    CONSTRAINT businesses_quiet_max_s_check CHECK (((quiet_max_s >= 60) AND (quiet_max_s <= 604800))),
    CONSTRAINT businesses_reply_max_s_check CHECK (((reply_max_s >= 10) AND (reply_max_s <= 86400))),
    CONSTRAINT businesses_settings_version_check CHECK ((settings_version > 0)),
    CONSTRAINT businesses_staff_version_check CHECK ((staff_version >= 0)),
    CONSTRAINT businesses_strategy_check CHECK ((strategy = ANY (ARRAY['least_busy'::text, 'round_robin'::text, 'manual'::text])))
);

CREATE TABLE public.case_sweeps (
    only_one boolean DEFAULT true NOT NULL,
    swept_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT case_sweeps_only_one_check CHECK (only_one)
);

CREATE TABLE public.cases (
    conversation_id uuid NOT NULL,
    business_id uuid NOT NULL,
    customer_id uuid NOT NULL,
    state text NOT NULL,
    case_number integer DEFAULT 1 NOT NULL,
    agent_id uuid,
    last_agent_id uuid,
    opened_at timestamp with time zone NOT NULL,
    waiting_since timestamp with time zone NOT NULL,
    assigned_at timestamp with time zone,
    accepted_at timestamp with time zone,
    resolved_at timestamp with time zone,
    was_online boolean DEFAULT false NOT NULL,
    due_at timestamp with time zone,
    clock_from timestamp with time zone,
    is_closed boolean DEFAULT false NOT NULL,
    missed_by uuid[] DEFAULT '{}'::uuid[] NOT NULL,
    given_back smallint DEFAULT 0 NOT NULL,
    CONSTRAINT cases_agent CHECK (((state = 'assigned'::text) = (agent_id IS NOT NULL))),
    CONSTRAINT cases_case_number_check CHECK ((case_number > 0)),
    CONSTRAINT cases_due CHECK (((state = 'assigned'::text) = (due_at IS NOT NULL))),
    CONSTRAINT cases_not_own CHECK ((agent_id IS DISTINCT FROM customer_id)),
    CONSTRAINT cases_state_check CHECK ((state = ANY (ARRAY['waiting'::text, 'assigned'::text, 'resolved'::text])))
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
    business_id uuid,
    customer_id uuid,
    customer_seq bigint DEFAULT 0 NOT NULL,
    agent_seq bigint DEFAULT 0 NOT NULL,
    resolved_seq bigint DEFAULT 0 NOT NULL,
    CONSTRAINT conversations_agent_seq_check CHECK ((agent_seq >= 0)),
    CONSTRAINT conversations_business_has_both CHECK ((((kind = 'business'::text) = (business_id IS NOT NULL)) AND ((kind = 'business'::text) = (customer_id IS NOT NULL)))),
    CONSTRAINT conversations_customer_seq_check CHECK ((customer_seq >= 0)),
    CONSTRAINT conversations_direct_has_pair CHECK (
CASE kind
    WHEN 'direct'::text THEN ((direct_low IS NOT NULL) AND (direct_high IS NOT NULL) AND (direct_low < direct_high))
    ELSE ((direct_low IS NULL) AND (direct_high IS NULL))
END),
    CONSTRAINT conversations_floor_seq_check CHECK ((floor_seq >= 0)),
    CONSTRAINT conversations_kind_check CHECK ((kind = ANY (ARRAY['direct'::text, 'group'::text, 'business'::text]))),
    CONSTRAINT conversations_last_seq_check CHECK ((last_seq >= 0)),
    CONSTRAINT conversations_participant_count_check CHECK ((participant_count >= 0)),
    CONSTRAINT conversations_participants_max CHECK ((participant_count <=
CASE kind
    WHEN 'group'::text THEN 8
    ELSE 2
END)),
    CONSTRAINT conversations_resolved_seq_check CHECK ((resolved_seq >= 0)),
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
    CONSTRAINT participants_role_check CHECK ((role = ANY (ARRAY['member'::text, 'owner'::text, 'customer'::text, 'agent'::text]))),
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

CREATE TABLE public.staff (
    business_id uuid NOT NULL,
    user_id uuid NOT NULL,
    role text NOT NULL,
    capacity integer,
    status text DEFAULT 'away'::text NOT NULL,
    status_at timestamp with time zone NOT NULL,
    available_until timestamp with time zone,
    away_reason text,
    last_assigned_at timestamp with time zone,
    missed_in_a_row smallint DEFAULT 0 NOT NULL,
    unseen_since timestamp with time zone,
    CONSTRAINT staff_away_reason_check CHECK ((away_reason = ANY (ARRAY['chosen'::text, 'until'::text, 'missed'::text, 'gone'::text]))),
    CONSTRAINT staff_capacity_check CHECK (((capacity >= 0) AND (capacity <= 50))),
    CONSTRAINT staff_role_check CHECK ((role = ANY (ARRAY['agent'::text, 'supervisor'::text, 'admin'::text]))),
    CONSTRAINT staff_status_check CHECK ((status = ANY (ARRAY['available'::text, 'away'::text])))
);

CREATE TABLE public.staff_reads (
    day date NOT NULL,
    user_id uuid NOT NULL,
    conversation_id uuid NOT NULL
);

ALTER TABLE ONLY public.assignments
    ADD CONSTRAINT assignments_pkey PRIMARY KEY (assignment_id);

ALTER TABLE ONLY public.blocks
    ADD CONSTRAINT blocks_pkey PRIMARY KEY (blocker_id, blocked_id);

ALTER TABLE ONLY public.businesses
    ADD CONSTRAINT businesses_pkey PRIMARY KEY (business_id);

ALTER TABLE ONLY public.case_sweeps
    ADD CONSTRAINT case_sweeps_pkey PRIMARY KEY (only_one);

ALTER TABLE ONLY public.cases
    ADD CONSTRAINT cases_pkey PRIMARY KEY (conversation_id);

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

ALTER TABLE ONLY public.staff
    ADD CONSTRAINT staff_pkey PRIMARY KEY (business_id, user_id);

ALTER TABLE ONLY public.staff_reads
    ADD CONSTRAINT staff_reads_pkey PRIMARY KEY (day, user_id, conversation_id);

CREATE INDEX assignments_of_agent ON public.assignments USING btree (business_id, agent_id) WHERE (released_at IS NULL);

CREATE INDEX assignments_of_conversation ON public.assignments USING btree (conversation_id, assignment_id DESC);

CREATE UNIQUE INDEX assignments_open ON public.assignments USING btree (conversation_id) WHERE (released_at IS NULL);

CREATE INDEX blocks_by_blocked ON public.blocks USING btree (blocked_id);

CREATE INDEX businesses_checked ON public.businesses USING btree (checked_at);

CREATE INDEX cases_due ON public.cases USING btree (due_at) WHERE (state = 'assigned'::text);

CREATE INDEX cases_of_agent ON public.cases USING btree (business_id, agent_id) WHERE (state = 'assigned'::text);

CREATE INDEX cases_resolved ON public.cases USING btree (business_id, resolved_at DESC, conversation_id) WHERE (state = 'resolved'::text);

CREATE INDEX cases_waiting ON public.cases USING btree (business_id, waiting_since, conversation_id) WHERE (state = 'waiting'::text);

CREATE UNIQUE INDEX conversations_business_customer ON public.conversations USING btree (business_id, customer_id) WHERE (business_id IS NOT NULL);

CREATE INDEX conversations_unresolved ON public.conversations USING btree (business_id) WHERE ((business_id IS NOT NULL) AND (customer_seq > resolved_seq));

CREATE INDEX messages_by_message ON ONLY public.messages USING btree (conversation_id, message_id);

CREATE INDEX participants_listed ON public.participants USING btree (user_id, listed_at DESC);

CREATE UNIQUE INDEX participants_one_agent ON public.participants USING btree (conversation_id) WHERE (role = 'agent'::text);

CREATE UNIQUE INDEX participants_one_customer ON public.participants USING btree (conversation_id) WHERE (role = 'customer'::text);

CREATE INDEX staff_by_user ON public.staff USING btree (user_id);

CREATE CONSTRAINT TRIGGER assignments_within_capacity AFTER INSERT ON public.assignments NOT DEFERRABLE INITIALLY IMMEDIATE FOR EACH ROW WHEN ((new.assigned_by IS NULL)) EXECUTE FUNCTION public.assignments_within_capacity();

CREATE CONSTRAINT TRIGGER conversations_direct_has_two AFTER INSERT OR UPDATE OF participant_count ON public.conversations DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.conversations_direct_has_two();

CREATE TRIGGER participants_count AFTER INSERT OR DELETE ON public.participants FOR EACH ROW EXECUTE FUNCTION public.participants_count();

CREATE TRIGGER participants_listed BEFORE INSERT ON public.participants FOR EACH ROW EXECUTE FUNCTION public.participants_listed();

ALTER TABLE ONLY public.assignments
    ADD CONSTRAINT assignments_business_id_fkey FOREIGN KEY (business_id) REFERENCES public.businesses(business_id) ON DELETE CASCADE;

ALTER TABLE ONLY public.assignments
    ADD CONSTRAINT assignments_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES public.conversations(conversation_id) ON DELETE CASCADE;

ALTER TABLE ONLY public.cases
    ADD CONSTRAINT cases_business_id_fkey FOREIGN KEY (business_id) REFERENCES public.businesses(business_id) ON DELETE CASCADE;

ALTER TABLE ONLY public.cases
    ADD CONSTRAINT cases_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES public.conversations(conversation_id) ON DELETE CASCADE;

ALTER TABLE ONLY public.conversations
    ADD CONSTRAINT conversations_business_id_fkey FOREIGN KEY (business_id) REFERENCES public.businesses(business_id);

ALTER TABLE ONLY public.former_participants
    ADD CONSTRAINT former_participants_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES public.conversations(conversation_id) ON DELETE CASCADE;

ALTER TABLE ONLY public.participants
    ADD CONSTRAINT participants_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES public.conversations(conversation_id) ON DELETE CASCADE;

ALTER TABLE ONLY public.staff
    ADD CONSTRAINT staff_business_id_fkey FOREIGN KEY (business_id) REFERENCES public.businesses(business_id) ON DELETE CASCADE;

ALTER TABLE ONLY public.staff_reads
    ADD CONSTRAINT staff_reads_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES public.conversations(conversation_id) ON DELETE CASCADE;
