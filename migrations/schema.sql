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

CREATE FUNCTION public.begin_day_deletion(wanted date) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET lock_timeout TO '50ms'
    AS $$
declare
    partition text;
begin
    if claim_day(wanted, 'begin_day_deletion') is null then
        return null;
    end if;
    partition := day_partition(wanted);
    if partition is not null then
        execute format(
            'create trigger messages_late before insert on %I for each row execute function messages_late()', partition
        );
    end if;
    update message_days set state = 'deleting' where day = wanted;
    return 1;
end
$$;

CREATE TABLE public.message_days (
    day date NOT NULL,
    state text DEFAULT 'hot'::text NOT NULL,
    floor_after uuid,
    floors_raised_at timestamp with time zone,
    soft_deleted_at timestamp with time zone,
    key_destroyed_at timestamp with time zone,
    key_destroyed_by xid8,
    keys_rewritten_at timestamp with time zone,
    detached_at timestamp with time zone,
    dropped_at timestamp with time zone,
    gone_at timestamp with time zone,
    CONSTRAINT message_days_state_check CHECK ((state = ANY (ARRAY['hot'::text, 'deleting'::text, 'deleted'::text, 'retiring'::text, 'gone'::text])))
);

CREATE FUNCTION public.can_rewrite_keys(retiring public.message_days) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
    select retiring.key_destroyed_by < pg_snapshot_xmin(pg_current_snapshot())
        or retiring.key_destroyed_at < now() - interval '1 day'
$$;

CREATE FUNCTION public.claim_day(wanted date, wanted_step text) RETURNS public.message_days
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
declare
    steps constant text[] := array[
        'begin_day_deletion', 'raise_day_floors', 'soft_delete_day', 'destroy_day_key', 'rewrite_content_keys',
        'detach_day', 'drop_day', 'forget_day'
    ];
    place constant integer := array_position(steps, wanted_step);
    age constant integer := case when place <= 3 then 91 else 98 end;
    claimed message_days;
    done integer;
begin
    if wanted + age > message_today() then
        raise exception 'messages of % are not due before %', wanted, wanted + age
            using errcode = 'object_not_in_prerequisite_state';
    end if;
    select * into claimed from message_days where day = wanted for update skip locked;
    if not found then
        return null;
    end if;
    done := case
        when claimed.gone_at is not null then 8
        when claimed.dropped_at is not null then 7
        when claimed.detached_at is not null then 6
        when claimed.keys_rewritten_at is not null then 5
        when claimed.key_destroyed_at is not null then 4
        when claimed.soft_deleted_at is not null then 3
        when claimed.floors_raised_at is not null then 2
        when claimed.state = 'deleting' then 1
        else 0
    end;
    if done >= place then
        return null;
    end if;
    if done < place - 1 then
        raise exception 'the messages of % are not ready for %, but for %', wanted, wanted_step, steps[done + 1]
            using errcode = 'object_not_in_prerequisite_state';
    end if;
    if place = 4 and (claimed.soft_deleted_at at time zone 'UTC')::date + 7 > message_today() then
        raise exception 'messages of % were soft-deleted less than seven days ago', wanted
            using errcode = 'object_not_in_prerequisite_state';
    end if;
    return claimed;
end
$$;

CREATE FUNCTION public.cold_age_min() RETURNS integer
    LANGUAGE sql IMMUTABLE
    AS $$ select 9 $$;

CREATE FUNCTION public.cold_change_recorded() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $$
begin
    if tg_op <> 'INSERT' then
        insert into cold_changes values (old.sent_at::date, old.conversation_id, old.seq) on conflict do nothing;
    end if;
    if tg_op <> 'DELETE' then
        insert into cold_changes values (new.sent_at::date, new.conversation_id, new.seq) on conflict do nothing;
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

CREATE FUNCTION public.copy_cold_day(wanted date, wanted_holder uuid) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
declare
    held cold_days;
    partition text;
    copy text;
    packed bigint;
    left_out bigint;
begin
    held := held_cold_day(wanted, wanted_holder);
    if held.packed_at is null or held.swapped_at is not null then
        raise exception 'the bodies of % are not packed', wanted using errcode = 'object_not_in_prerequisite_state';
    end if;
    partition := day_partition(wanted);
    copy := partition || '_cold';
    execute format('drop table if exists %I', copy);
    execute format('create table %I (like %I including defaults including constraints)', copy, partition);
    execute format(
        'insert into %I (conversation_id, seq, sent_at, message_id, sender_id, deleted_at, envelope)
         select m.conversation_id, m.seq, m.sent_at, m.message_id, m.sender_id, m.deleted_at,
             case when m.deleted_at is null and (c.last_seq is not distinct from m.seq or g.seq is not null)
                 then m.envelope end
         from %I m
         left join conversations c using (conversation_id)
         left join cold_changes g on g.day = %L and g.conversation_id = m.conversation_id and g.seq = m.seq',
        copy, partition, wanted
    );
    -- A body that is in no pack must not go, whatever the worker says.
    select coalesce(sum(p.messages), 0) into packed from cold_packs p where p.day = wanted;
    execute format('select count(*) from %I where envelope is null and deleted_at is null', copy) into left_out;
    if left_out > packed then
        raise exception 'the packs of % have % messages of %', wanted, packed, left_out
            using errcode = 'object_not_in_prerequisite_state';
    end if;
    execute format('alter table %I add primary key (conversation_id, seq, sent_at)', copy);
    execute format('create index on %I (conversation_id, message_id)', copy);
    update cold_days set copied_at = now() where day = wanted;
    return left_out;
end
$$;

CREATE FUNCTION public.database_incarnation() RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'public', 'pg_temp'
    AS $$
    select extract(epoch from pg_postmaster_start_time()) || ' ' || pg_relation_filenode('log_checkpoints')
$$;

CREATE FUNCTION public.day_partition(wanted date) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'public', 'pg_temp'
    AS $$
declare
    wanted_name constant text := 'messages_' || to_char(wanted, 'YYYYMMDD');
begin
    if to_regclass(wanted_name) is null then
        return null;
    end if;
    if not exists (
        select from message_partitions() p
        where p.partition_name = wanted_name and p.day = wanted and not p.is_pending and p.is_checked
    ) then
        raise exception '% is not the partition of %', wanted_name, wanted
            using errcode = 'object_not_in_prerequisite_state', hint = 'See message_partition_faults().';
    end if;
    return wanted_name;
end
$$;

CREATE FUNCTION public.destroy_day_key(wanted date) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
declare
    destroyed bigint;
begin
    if claim_day(wanted, 'destroy_day_key') is null then
        return null;
    end if;
    delete from content_keys where day = wanted;
    get diagnostics destroyed = row_count;
    update message_days
    set state = 'retiring', key_destroyed_at = now(), key_destroyed_by = pg_current_xact_id()
    where day = wanted;
    return destroyed;
end
$$;

CREATE FUNCTION public.detach_day(wanted date) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET lock_timeout TO '50ms'
    AS $$
declare
    partition text;
begin
    if claim_day(wanted, 'detach_day') is null then
        return null;
    end if;
    partition := day_partition(wanted);
    if partition is not null then
        lock table only messages in access exclusive mode;
        execute format('alter table messages detach partition %I', partition);
        execute format('alter table %I rename to %I', partition, partition || '_retired');
    end if;
    update message_days set detached_at = now() where day = wanted;
    return 1;
end
$$;

CREATE FUNCTION public.drop_day(wanted date) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET lock_timeout TO '50ms'
    AS $$
declare
    partition constant text := 'messages_' || to_char(wanted, 'YYYYMMDD');
    suffix text;
begin
    if claim_day(wanted, 'drop_day') is null then
        return null;
    end if;
    foreach suffix in array array['_retired', '_cold', '_warm'] loop
        execute format('drop table if exists %I', partition || suffix);
    end loop;
    update message_days set dropped_at = now() where day = wanted;
    return 1;
end
$$;

CREATE FUNCTION public.drop_warm_day(wanted date, wanted_holder uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET lock_timeout TO '50ms'
    AS $$
declare
    held cold_days;
begin
    held := held_cold_day(wanted, wanted_holder);
    if held.swapped_at is null or held.swapped_at >= now() - interval '1 day' then
        raise exception 'the bodies of % were not moved a day ago', wanted using errcode = 'object_not_in_prerequisite_state';
    end if;
    execute format('drop table if exists %I', 'messages_' || to_char(wanted, 'YYYYMMDD') || '_warm');
    update cold_days set dropped_at = now(), holder = null where day = wanted;
end
$$;

CREATE FUNCTION public.due_cold_steps(after_days integer) RETURNS TABLE(day date, step text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
    select due.day, due.step
    from (
        select d.day, case
            when d.state in ('retiring', 'gone') then
                case when exists (select from cold_packs p where p.day = d.day) then 'delete_packs' end
            when d.state <> 'hot' or d.day + 91 <= message_today() then null
            when c.swapped_at is not null then
                case when c.dropped_at is null and c.swapped_at < now() - interval '1 day' then 'drop_warm' end
            when d.day + greatest(after_days, cold_age_min()) >= message_today() then null
            when c.packed_at is null then 'pack'
            when c.copied_at is null then 'copy'
            else 'swap'
        end as step
        from message_days d left join cold_days c using (day)
    ) due
    where due.step is not null
    order by due.day
$$;

CREATE FUNCTION public.due_day_steps() RETURNS TABLE(day date, step text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
    select d.day, due.step
    from message_days d
    cross join lateral (
        select case
            when d.day + 91 > message_today() then null
            when d.state = 'hot' then 'begin_day_deletion'
            when d.state = 'deleting' and d.floors_raised_at is null then 'raise_day_floors'
            when d.state = 'deleting' then 'soft_delete_day'
            when d.day + 98 > message_today() then null
            when d.state = 'deleted' then
                case when (d.soft_deleted_at at time zone 'UTC')::date + 7 <= message_today() then 'destroy_day_key' end
            when d.state <> 'retiring' then null
            when d.keys_rewritten_at is null then case when can_rewrite_keys(d) then 'rewrite_content_keys' end
            when d.detached_at is null then 'detach_day'
            when d.dropped_at is null then 'drop_day'
            else 'forget_day'
        end as step
    ) due
    where due.step is not null
    order by d.day
$$;

CREATE FUNCTION public.finish_cold_packs(wanted date, wanted_holder uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
begin
    perform held_cold_day(wanted, wanted_holder);
    update cold_days set packed_at = coalesce(packed_at, now()) where day = wanted;
end
$$;

CREATE FUNCTION public.forget_cold_packs(wanted date) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
begin
    if (select state from message_days where day = wanted) not in ('retiring', 'gone') then
        raise exception 'the key of % is not destroyed', wanted using errcode = 'object_not_in_prerequisite_state';
    end if;
    delete from cold_chunks where day = wanted;
    delete from cold_packs where day = wanted;
end
$$;

CREATE FUNCTION public.forget_day(wanted date, rows_max integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $$
declare
    batch constant integer := least(greatest(rows_max, 1), 1000);
    forgotten bigint := 0;
    removed bigint;
begin
    if claim_day(wanted, 'forget_day') is null then
        return null;
    end if;
    delete from dead_letters where dead_letter_id in (
        select dead_letter_id from dead_letters where created_at < wanted + 8 limit batch for update skip locked
    );
    get diagnostics removed = row_count;
    forgotten := forgotten + removed;
    delete from assignments where assignment_id in (
        select assignment_id from assignments where released_at < wanted + 1 order by released_at limit batch
        for update skip locked
    );
    get diagnostics removed = row_count;
    forgotten := forgotten + removed;
    delete from staff_reads where (day, user_id, conversation_id) in (
        select day, user_id, conversation_id from staff_reads where day <= wanted order by day limit batch
    );
    get diagnostics removed = row_count;
    forgotten := forgotten + removed;
    if forgotten = 0 then
        if exists (select from cold_packs where day = wanted) then
            return null;
        end if;
        delete from cold_changes where day = wanted;
        delete from cold_days where day = wanted;
        update message_days set state = 'gone', gone_at = now() where day = wanted;
    end if;
    return forgotten;
end
$$;

CREATE TABLE public.cold_days (
    day date NOT NULL,
    holder uuid,
    held_until timestamp with time zone,
    packed_at timestamp with time zone,
    copied_at timestamp with time zone,
    swapped_at timestamp with time zone,
    dropped_at timestamp with time zone
);

CREATE FUNCTION public.held_cold_day(wanted date, wanted_holder uuid) RETURNS public.cold_days
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
declare
    held cold_days;
begin
    select * into held from cold_days where day = wanted for update;
    if held.holder is distinct from wanted_holder or held.held_until < now() then
        raise exception 'another worker holds the bodies of %', wanted using errcode = 'object_in_use';
    end if;
    if (select state from message_days where day = wanted) is distinct from 'hot' then
        raise exception 'the messages of % age out', wanted using errcode = 'object_not_in_prerequisite_state';
    end if;
    update cold_days set held_until = now() + interval '5 minutes' where day = wanted;
    return held;
end
$$;

CREATE FUNCTION public.hold_cold_day(wanted date, wanted_holder uuid) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET lock_timeout TO '50ms'
    AS $$
declare
    is_new boolean;
    partition text;
begin
    if wanted + cold_age_min() >= message_today() then
        raise exception 'messages of % are not due before %', wanted, wanted + cold_age_min() + 1
            using errcode = 'object_not_in_prerequisite_state';
    end if;
    insert into cold_days (day, holder, held_until) values (wanted, wanted_holder, now() + interval '5 minutes')
    on conflict do nothing;
    is_new := found;
    if is_new then
        partition := day_partition(wanted);
        if partition is null then
            raise exception 'there are no messages of %', wanted using errcode = 'object_not_in_prerequisite_state';
        end if;
        -- Waits for transactions that write to the day, so that everything this trigger misses is seen by the packing.
        execute format(
            'create trigger messages_cold_change after insert or update or delete on %I
             for each row execute function cold_change_recorded()', partition
        );
        return true;
    end if;
    update cold_days set holder = wanted_holder, held_until = now() + interval '5 minutes'
    where day = wanted and (holder is null or holder = wanted_holder or held_until < now());
    return found;
end
$$;

CREATE FUNCTION public.make_message_partition(day date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
declare
    partition text := 'messages_' || to_char(day, 'YYYYMMDD');
    first text := day::text || ' 00:00:00+00';
    next text := (day + 1)::text || ' 00:00:00+00';
begin
    if to_regclass(partition) is not null then
        return false;
    end if;
    -- What attaching takes anyway; taken first, whoever comes second sees what the first has made.
    lock table only messages in share update exclusive mode;
    if to_regclass(partition) is not null then
        return false;
    end if;
    execute format('create table %I (like messages including defaults including constraints)', partition);
    execute format(
        'alter table %I add constraint %I check (sent_at >= %L and sent_at < %L)', partition, partition || '_day', first, next
    );
    execute format('alter table messages attach partition %I for values from (%L) to (%L)', partition, first, next);
    return true;
end
$$;

CREATE FUNCTION public.message_partition_faults() RETURNS SETOF text
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $_$
    select case
        when is_default then format(
            '%I is a default partition, which attaching any other one locks and reads: move its rows, then detach it', partition_name
        )
        when is_pending then format(
            'detaching %I did not end: run `alter table messages detach partition %I finalize`', partition_name, partition_name
        )
        when day is null then format(
            '%I was not made by make_message_partition, and has another name or other bounds than its partitions: move its '
                || 'rows, then detach it', partition_name
        )
        else format(
            '%I has no valid check %I: add it as make_message_partition does, `not valid`, then validate it', partition_name,
            partition_name || '_day'
        )
    end
    from message_partitions()
    where is_default or is_pending or day is null or not is_checked
    union all
    select format('%I is named like a partition of messages and is none: attach it again, or rename it', c.relname)
    from pg_class c
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'f') and c.relname ~ '^messages_\d{8}$'
        and not exists (select from pg_inherits i where i.inhrelid = c.oid and i.inhparent = 'messages'::regclass)
$_$;

CREATE FUNCTION public.message_partitions() RETURNS TABLE(partition_name text, day date, is_default boolean, is_pending boolean, is_checked boolean)
    LANGUAGE sql STABLE
    SET search_path TO 'public', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET "DateStyle" TO 'ISO, YMD'
    AS $$
    select c.relname::text,
        case
            when c.relkind = 'r'
                and c.relname = 'messages_' || to_char(bound.first, 'YYYYMMDD')
                and bound.text = format(
                    'FOR VALUES FROM (%L) TO (%L)', bound.first || ' 00:00:00+00', bound.first + 1 || ' 00:00:00+00'
                )
                then bound.first
        end,
        bound.text = 'DEFAULT',
        i.inhdetachpending,
        exists (select from pg_constraint where conrelid = c.oid and conname = c.relname || '_day' and convalidated)
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    cross join lateral (
        select pg_get_expr(c.relpartbound, c.oid) as text,
            substring(pg_get_expr(c.relpartbound, c.oid) from '^FOR VALUES FROM \(''(\d{4}-\d\d-\d\d) ')::date as first
    ) bound
    where i.inhparent = 'messages'::regclass
$$;

CREATE FUNCTION public.message_today() RETURNS date
    LANGUAGE sql STABLE
    AS $$ select (now() at time zone 'UTC')::date $$;

CREATE FUNCTION public.messages_late() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
begin
    update conversations set floor_seq = new.seq where conversation_id = new.conversation_id and floor_seq < new.seq;
    new.deleted_at := now();
    return new;
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

CREATE FUNCTION public.raise_day_floors(wanted date, conversations_max integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET lock_timeout TO '500ms'
    AS $_$
declare
    claimed message_days;
    partition text;
    last_id uuid;
    raised bigint := 0;
begin
    claimed := claim_day(wanted, 'raise_day_floors');
    if claimed is null then
        return null;
    end if;
    partition := day_partition(wanted);
    if partition is not null then
        -- From conversation to conversation along the index, whatever number of messages each has. Rows of
        -- conversations are locked in the order in which persisters lock them.
        execute format($statement$
            with recursive conversation (conversation_id) as (
                (select conversation_id from %1$I where conversation_id > $1 order by conversation_id limit 1)
                union all
                select (
                    select m.conversation_id from %1$I m where m.conversation_id > c.conversation_id
                    order by m.conversation_id limit 1
                )
                from conversation c where c.conversation_id is not null
            ),
            due as materialized (
                select next.conversation_id, newest.seq
                from (select conversation_id from conversation where conversation_id is not null limit $2) next
                cross join lateral (
                    select seq from %1$I m where m.conversation_id = next.conversation_id order by seq desc limit 1
                ) newest
            ),
            locked as materialized (
                select c.conversation_id, due.seq
                from due join conversations c using (conversation_id)
                where c.floor_seq < due.seq
                order by c.conversation_id
                for no key update of c
            ),
            risen as (
                update conversations c set floor_seq = greatest(c.floor_seq, locked.seq)
                from locked where c.conversation_id = locked.conversation_id
                returning 1
            )
            select (select conversation_id from due order by conversation_id desc limit 1), (select count(*) from risen)
        $statement$, partition)
        into last_id, raised
        using coalesce(claimed.floor_after, '00000000-0000-0000-0000-000000000000'),
            least(greatest(conversations_max, 1), 1000);
    end if;
    update message_days
    set floor_after = coalesce(last_id, floor_after), floors_raised_at = case when last_id is null then now() end
    where day = wanted;
    return raised;
end
$_$;

CREATE FUNCTION public.record_cold_pack(wanted date, wanted_holder uuid, number integer, object text, bytes bigint, messages bigint, sha256 bytea, last_conversation_id uuid, last_seq bigint, chunk_conversations uuid[], chunk_seqs bigint[], chunk_places integer[], chunk_lengths integer[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
declare
    held cold_days;
begin
    held := held_cold_day(wanted, wanted_holder);
    if held.packed_at is not null then
        raise exception 'the bodies of % are packed', wanted using errcode = 'object_not_in_prerequisite_state';
    end if;
    insert into cold_packs values (
        wanted, number, object, bytes, messages, sha256, last_conversation_id, last_seq
    );
    insert into cold_chunks (day, conversation_id, first_seq, number, place, length)
    select wanted, chunk.conversation_id, chunk.first_seq, number, chunk.place, chunk.length
    from unnest(chunk_conversations, chunk_seqs, chunk_places, chunk_lengths)
        as chunk (conversation_id, first_seq, place, length);
end
$$;

CREATE FUNCTION public.record_message_days() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
declare
    recorded bigint;
begin
    insert into message_days (day) select p.day from message_partitions() p where p.day is not null
    on conflict (day) do update
    set state = 'hot', floor_after = null, floors_raised_at = null, soft_deleted_at = null, key_destroyed_at = null,
        key_destroyed_by = null, keys_rewritten_at = null, detached_at = null, dropped_at = null, gone_at = null
    where message_days.state = 'gone';
    get diagnostics recorded = row_count;
    return recorded;
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

CREATE FUNCTION public.rewrite_content_keys(wanted date) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET lock_timeout TO '50ms'
    AS $$
declare
    claimed message_days;
begin
    claimed := claim_day(wanted, 'rewrite_content_keys');
    if claimed is null or not can_rewrite_keys(claimed) then
        return null;
    end if;
    execute 'cluster content_keys using content_keys_pkey';
    update message_days set keys_rewritten_at = now() where day = wanted;
    return 1;
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

CREATE FUNCTION public.soft_delete_day(wanted date) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET lock_timeout TO '50ms'
    AS $$
declare
    partition text;
begin
    if claim_day(wanted, 'soft_delete_day') is null then
        return null;
    end if;
    partition := day_partition(wanted);
    if partition is not null then
        lock table only messages in access exclusive mode;
        execute format('alter table messages detach partition %I', partition);
        execute format(
            'alter table %I drop column deleted_at, add column deleted_at timestamptz default %L', partition, now()
        );
        execute format(
            'alter table messages attach partition %I for values from (%L) to (%L)',
            partition, wanted::text || ' 00:00:00+00', (wanted + 1)::text || ' 00:00:00+00'
        );
    end if;
    update message_days set state = 'deleted', soft_deleted_at = now() where day = wanted;
    return 1;
end
$$;

CREATE FUNCTION public.swap_cold_day(wanted date, wanted_holder uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET lock_timeout TO '50ms'
    AS $$
declare
    held cold_days;
    partition text;
    copy text;
begin
    held := held_cold_day(wanted, wanted_holder);
    if held.copied_at is null or held.swapped_at is not null then
        raise exception 'the rows of % are not copied', wanted using errcode = 'object_not_in_prerequisite_state';
    end if;
    partition := day_partition(wanted);
    copy := partition || '_cold';
    lock table only messages in access exclusive mode;
    execute format('alter table messages detach partition %I', partition);
    execute format(
        'delete from %I c using cold_changes g
         where g.day = %L and c.conversation_id = g.conversation_id and c.seq = g.seq', copy, wanted
    );
    execute format(
        'insert into %I (conversation_id, seq, sent_at, message_id, sender_id, deleted_at, envelope)
         select m.conversation_id, m.seq, m.sent_at, m.message_id, m.sender_id, m.deleted_at, m.envelope
         from %I m join cold_changes g using (conversation_id, seq) where g.day = %L', copy, partition, wanted
    );
    execute format('alter table %I rename to %I', partition, partition || '_warm');
    execute format('alter table %I rename to %I', copy, partition);
    execute format(
        'alter table messages attach partition %I for values from (%L) to (%L)',
        partition, wanted::text || ' 00:00:00+00', (wanted + 1)::text || ' 00:00:00+00'
    );
    delete from cold_changes where day = wanted;
    update cold_days set swapped_at = now(), holder = null where day = wanted;
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

CREATE FUNCTION public.warm_messages(wanted date, conversation_ids uuid[], seqs bigint[], envelopes bytea[]) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $$
declare
    filled bigint;
begin
    if (select swapped_at from cold_days where day = wanted) is null then
        raise exception 'the bodies of % are in their rows', wanted using errcode = 'object_not_in_prerequisite_state';
    end if;
    update messages m set envelope = body.envelope
    from unnest(conversation_ids, seqs, envelopes) as body (conversation_id, seq, envelope)
    where m.conversation_id = body.conversation_id and m.seq = body.seq and m.envelope is null and m.deleted_at is null
        and m.sent_at >= wanted::timestamp and m.sent_at < (wanted + 1)::timestamp;
    get diagnostics filled = row_count;
    return filled;
end
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

CREATE TABLE public.cold_changes (
    day date NOT NULL,
    conversation_id uuid NOT NULL,
    seq bigint NOT NULL
);

CREATE TABLE public.cold_chunks (
    day date NOT NULL,
    conversation_id uuid NOT NULL,
    first_seq bigint NOT NULL,
    number integer NOT NULL,
    place integer NOT NULL,
    length integer NOT NULL
);

CREATE TABLE public.cold_packs (
    day date NOT NULL,
    number integer NOT NULL,
    object text NOT NULL,
    bytes bigint NOT NULL,
    messages bigint NOT NULL,
    sha256 bytea NOT NULL,
    last_conversation_id uuid NOT NULL,
    last_seq bigint NOT NULL,
    CONSTRAINT cold_packs_number_check CHECK ((number > 0))
);

CREATE TABLE public.content_keys (
    day date NOT NULL,
    master_key_id text NOT NULL,
    wrapped bytea NOT NULL,
    created_at timestamp with time zone NOT NULL
);
ALTER TABLE ONLY public.content_keys ALTER COLUMN wrapped SET STATISTICS 0;

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
    envelope bytea,
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

ALTER TABLE ONLY public.cold_changes
    ADD CONSTRAINT cold_changes_pkey PRIMARY KEY (day, conversation_id, seq);

ALTER TABLE ONLY public.cold_chunks
    ADD CONSTRAINT cold_chunks_pkey PRIMARY KEY (day, conversation_id, first_seq);

ALTER TABLE ONLY public.cold_days
    ADD CONSTRAINT cold_days_pkey PRIMARY KEY (day);

ALTER TABLE ONLY public.cold_packs
    ADD CONSTRAINT cold_packs_object_key UNIQUE (object);

ALTER TABLE ONLY public.cold_packs
    ADD CONSTRAINT cold_packs_pkey PRIMARY KEY (day, number);

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

ALTER TABLE ONLY public.message_days
    ADD CONSTRAINT message_days_pkey PRIMARY KEY (day);

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

CREATE INDEX assignments_released ON public.assignments USING btree (released_at) WHERE (released_at IS NOT NULL);

CREATE INDEX blocks_by_blocked ON public.blocks USING btree (blocked_id);

CREATE INDEX businesses_checked ON public.businesses USING btree (checked_at);

CREATE INDEX cases_due ON public.cases USING btree (due_at) WHERE (state = 'assigned'::text);

CREATE INDEX cases_of_agent ON public.cases USING btree (business_id, agent_id) WHERE (state = 'assigned'::text);

CREATE INDEX cases_resolved ON public.cases USING btree (business_id, resolved_at DESC, conversation_id) WHERE (state = 'resolved'::text);

CREATE INDEX cases_waiting ON public.cases USING btree (business_id, waiting_since, conversation_id) WHERE (state = 'waiting'::text);

CREATE UNIQUE INDEX conversations_business_customer ON public.conversations USING btree (business_id, customer_id) WHERE (business_id IS NOT NULL);

CREATE INDEX conversations_unresolved ON public.conversations USING btree (business_id) WHERE ((business_id IS NOT NULL) AND (customer_seq > resolved_seq));

CREATE INDEX former_participants_of_user ON public.former_participants USING btree (user_id);

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

ALTER TABLE ONLY public.cold_changes
    ADD CONSTRAINT cold_changes_day_fkey FOREIGN KEY (day) REFERENCES public.cold_days(day);

ALTER TABLE ONLY public.cold_chunks
    ADD CONSTRAINT cold_chunks_day_number_fkey FOREIGN KEY (day, number) REFERENCES public.cold_packs(day, number);

ALTER TABLE ONLY public.cold_packs
    ADD CONSTRAINT cold_packs_day_fkey FOREIGN KEY (day) REFERENCES public.cold_days(day);

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
