-- Days age out: soft-deleted at the start (UTC) of the 91st day after them, so that every message had 90 full days, and
-- removed for good at the start of the 98th. Retention says when to try; the functions here, in the owner's name,
-- decide by the database's clock and the state of the day whether it is due. None of them does anything twice.

-- No partition is attached, and no reader holds one of them and waits for the next, while all of them are changed.
lock table only messages in access exclusive mode;

-- The partitions of messages; day is null for one with another name or other bounds than make_message_partition gives,
-- or that is itself partitioned. is_checked: attaching it reads no rows.
create function message_partitions()
    returns table (partition_name text, day date, is_default boolean, is_pending boolean, is_checked boolean)
language sql stable set search_path = public, pg_temp set timezone = 'UTC' set datestyle = 'ISO, YMD' as $$
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

-- Attaching a partition reads all its rows unless a check says what it may hold. Validated by the next migration, which
-- holds nothing up.
do $$
declare
    partition record;
begin
    for partition in
        select p.partition_name as relname, p.day from message_partitions() p where p.day is not null order by p.day
    loop
        execute format(
            'alter table %I add constraint %I check (sent_at >= %L and sent_at < %L) not valid',
            partition.relname, partition.relname || '_day',
            partition.day::text || ' 00:00:00+00', (partition.day + 1)::text || ' 00:00:00+00'
        );
    end loop;
end
$$;

-- As before, with the check. Only the table itself is locked: a vacuum of some partition holds nothing up.
create or replace function make_message_partition(day date) returns boolean language plpgsql
    security definer set search_path = public, pg_temp as $$
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

-- One row for each day that has or had a partition, and when each step was done.
--   hot       nothing yet
--   deleting  floors are being raised, conversation after conversation
--   deleted   soft-deleted: each row has its deleted_at, and nothing of the day is shown or counted
--   retiring  the content key is destroyed; the rows go
--   gone      nothing of the day is left
create table message_days (
    day date primary key,
    state text not null default 'hot' check (state in ('hot', 'deleting', 'deleted', 'retiring', 'gone')),
    -- The last conversation whose floor was raised.
    floor_after uuid,
    floors_raised_at timestamptz,
    soft_deleted_at timestamptz,
    key_destroyed_at timestamptz,
    key_destroyed_by xid8,
    keys_rewritten_at timestamptz,
    detached_at timestamptz,
    dropped_at timestamptz,
    gone_at timestamptz
);

create index assignments_released on assignments (released_at) where released_at is not null;

-- Faults that keep days from ageing out until an operator has mended them, each with its remedy.
create function message_partition_faults() returns setof text
language sql stable security definer set search_path = public, pg_temp as $$
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
$$;

-- Gives each partition its row, and a new one to a day that was gone and has a partition again; how many were missing.
create function record_message_days() returns bigint
language plpgsql security definer set search_path = public, pg_temp as $$
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

-- Today, by the clock of the database and in UTC.
create function message_today() returns date language sql stable as $$ select (now() at time zone 'UTC')::date $$;

-- Whether rewriting the keys leaves out the one of this day. The row is kept as long as a transaction writes that began
-- before it was deleted, for a day at the most. For one that only reads it is kept too, until the key of the next day
-- goes.
create function can_rewrite_keys(retiring message_days) returns boolean language sql stable as $$
    select retiring.key_destroyed_by < pg_snapshot_xmin(pg_current_snapshot())
        or retiring.key_destroyed_at < now() - interval '1 day'
$$;

-- The next step of each day that is due, as the name of its function, the oldest day first. The second limit counts
-- from the soft deletion too: a day that was late is still there for a week.
create function due_day_steps() returns table (day date, step text)
language sql stable security definer set search_path = public, pg_temp as $$
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

-- The row of a day, locked, for one of its steps. Refuses a day that is younger than the step wants, and a step out of
-- turn. Null if another instance has the row, if there is none, and if the step was done before.
create function claim_day(wanted date, wanted_step text) returns message_days
language plpgsql set search_path = public, pg_temp as $$
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

-- The name of a day's partition; null if there is none. Refuses a table of that name that is not the partition of the
-- day.
create function day_partition(wanted date) returns text
language plpgsql stable set search_path = public, pg_temp as $$
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

-- A message that comes 90 days late, such as a dead letter, is deleted at once and raises the floor by itself.
create function messages_late() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    update conversations set floor_seq = new.seq where conversation_id = new.conversation_id and floor_seq < new.seq;
    new.deleted_at := now();
    return new;
end
$$;

-- First step: messages that are added to the day from here on are deleted, so that the steps after it miss none.
create function begin_day_deletion(wanted date) returns bigint
language plpgsql security definer set search_path = public, pg_temp set lock_timeout = '50ms' as $$
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

-- Raises the floors of the next conversations of the day, at most 1,000; how many rose. Numbers and times of a
-- conversation grow together, so that all messages up to the last one of the day are due.
create function raise_day_floors(wanted date, conversations_max integer) returns bigint
language plpgsql security definer set search_path = public, pg_temp set lock_timeout = '500ms' as $$
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
$$;

-- Gives every row of the day its deleted_at without writing one: the column is replaced by one whose default is kept in
-- the catalog. `messages` is locked before the partition, in the order of all other statements.
create function soft_delete_day(wanted date) returns bigint
language plpgsql security definer set search_path = public, pg_temp set timezone = 'UTC' set lock_timeout = '50ms' as $$
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

-- From here on no copy of the day's messages can be opened, but with a backup of this database.
create function destroy_day_key(wanted date) returns bigint
language plpgsql security definer set search_path = public, pg_temp as $$
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

-- A deleted row stays in the table's file until its place is used again, and in every backup of the file. A step of its
-- own, because the rows that its own transaction has deleted are kept. Null also if it has to be done again later.
create function rewrite_content_keys(wanted date) returns bigint
language plpgsql security definer set search_path = public, pg_temp set lock_timeout = '50ms' as $$
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

-- Takes the day out of the table, under a name of its own: a partition that were made anew is not in its way.
create function detach_day(wanted date) returns bigint
language plpgsql security definer set search_path = public, pg_temp set lock_timeout = '50ms' as $$
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

create function drop_day(wanted date) returns bigint
language plpgsql security definer set search_path = public, pg_temp set lock_timeout = '50ms' as $$
begin
    if claim_day(wanted, 'drop_day') is null then
        return null;
    end if;
    execute format('drop table if exists %I', 'messages_' || to_char(wanted, 'YYYYMMDD') || '_retired');
    update message_days set dropped_at = now() where day = wanted;
    return 1;
end
$$;

-- Last step: removes rows of other tables that are as old, at most so many of each sort; how many there were. When
-- there are no more, the day is gone. Dead letters of the day were written within the seven days that the log keeps it;
-- those that are removed with them are of messages that are 90 days old too. An assignment that has not ended stays,
-- whatever its age.
create function forget_day(wanted date, rows_max integer) returns bigint
language plpgsql security definer set search_path = public, pg_temp set timezone = 'UTC' as $$
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
        update message_days set state = 'gone', gone_at = now() where day = wanted;
    end if;
    return forgotten;
end
$$;

revoke all on function make_message_partition (date), message_partitions (), message_partition_faults (), record_message_days (),
    message_today (), can_rewrite_keys (message_days), due_day_steps (), claim_day (date, text), day_partition (date), messages_late (), begin_day_deletion (date),
    raise_day_floors (date, integer), soft_delete_day (date), destroy_day_key (date), rewrite_content_keys (date), detach_day (date),
    drop_day (date), forget_day (date, integer)
    from public;
