-- Bodies of old messages move to packs in an object store; the rows stay, without their envelopes (R12.3). The cold
-- worker says when to try; the functions here, in the owner's name, decide by the database's clock and the state of the
-- day what is allowed.

-- Null: the envelope is in the chunk of cold_chunks that covers the message.
alter table messages alter column envelope drop not null;

-- One row for each day whose bodies move or have moved.
create table cold_days (
    day date primary key,
    -- The worker that works on the day, until its lease ends.
    holder uuid,
    held_until timestamptz,
    -- All bodies of the day are in packs.
    packed_at timestamptz,
    -- The rows are copied without bodies.
    copied_at timestamptz,
    -- The copy has taken the place of the partition, which is kept for a day under another name.
    swapped_at timestamptz,
    -- The partition of before is dropped.
    dropped_at timestamptz
);

-- An object in the store. Immutable: another content has another name.
create table cold_packs (
    day date not null references cold_days,
    number integer not null check (number > 0),
    object text not null unique,
    bytes bigint not null,
    messages bigint not null,
    sha256 bytea not null,
    -- The last message in it; the next pack begins after it.
    last_conversation_id uuid not null,
    last_seq bigint not null,
    primary key (day, number)
);

-- Parts of packs, in the order of conversations and numbers. A message is in the last chunk that does not begin after it.
create table cold_chunks (
    day date not null,
    conversation_id uuid not null,
    first_seq bigint not null,
    number integer not null,
    place integer not null,
    length integer not null,
    primary key (day, conversation_id, first_seq),
    foreign key (day, number) references cold_packs
);

-- Messages of a day that were added or changed since its packing began: their rows keep their envelopes.
create table cold_changes (
    day date not null references cold_days,
    conversation_id uuid not null,
    seq bigint not null,
    primary key (day, conversation_id, seq)
);

-- Days that are younger than this never move: repeats of eight days are compared by text, and the log may bring messages
-- of seven.
create function cold_age_min() returns integer language sql immutable as $$ select 9 $$;

create function cold_change_recorded() returns trigger
language plpgsql security definer set search_path = public, pg_temp set timezone = 'UTC' as $$
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

-- The next step of each day whose bodies are due to move, the oldest day first. A day that ages out is left alone but for
-- its packs, which go after its key.
create function due_cold_steps(after_days integer) returns table (day date, step text)
language sql stable security definer set search_path = public, pg_temp as $$
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

-- Takes or renews the lease of a day for five minutes, and begins its packing if that has not begun; false if another
-- worker has the lease.
create function hold_cold_day(wanted date, wanted_holder uuid) returns boolean
language plpgsql security definer set search_path = public, pg_temp set lock_timeout = '50ms' as $$
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

-- The row of a day, locked. Refuses a worker without the lease.
create function held_cold_day(wanted date, wanted_holder uuid) returns cold_days
language plpgsql set search_path = public, pg_temp as $$
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

-- Records a pack that is stored and was read back, with its chunks.
create function record_cold_pack(
    wanted date, wanted_holder uuid, number integer, object text, bytes bigint, messages bigint, sha256 bytea,
    last_conversation_id uuid, last_seq bigint, chunk_conversations uuid[], chunk_seqs bigint[], chunk_places integer[],
    chunk_lengths integer[]
) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
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

create function finish_cold_packs(wanted date, wanted_holder uuid) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    perform held_cold_day(wanted, wanted_holder);
    update cold_days set packed_at = coalesce(packed_at, now()) where day = wanted;
end
$$;

-- Copies the rows of a day, with the envelopes of those alone that no pack has: of changed messages, and of the newest of
-- each conversation, which lists show. Reads and writes go on meanwhile.
create function copy_cold_day(wanted date, wanted_holder uuid) returns bigint
language plpgsql security definer set search_path = public, pg_temp as $$
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

-- Puts the copy in the partition's place. `messages` is locked before the partition, in the order of all other statements.
create function swap_cold_day(wanted date, wanted_holder uuid) returns void
language plpgsql security definer set search_path = public, pg_temp set timezone = 'UTC' set lock_timeout = '50ms' as $$
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

-- Drops the rows with bodies, a day after they were replaced.
create function drop_warm_day(wanted date, wanted_holder uuid) returns void
language plpgsql security definer set search_path = public, pg_temp set lock_timeout = '50ms' as $$
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

-- Puts bodies back into rows that have none, at most one message of each number and conversation; how many. Other rows are
-- left as they are.
create function warm_messages(wanted date, conversation_ids uuid[], seqs bigint[], envelopes bytea[]) returns bigint
language plpgsql security definer set search_path = public, pg_temp set timezone = 'UTC' as $$
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

-- Forgets the packs of a day that ages out, after the worker has deleted their objects.
create function forget_cold_packs(wanted date) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    if (select state from message_days where day = wanted) not in ('retiring', 'gone') then
        raise exception 'the key of % is not destroyed', wanted using errcode = 'object_not_in_prerequisite_state';
    end if;
    delete from cold_chunks where day = wanted;
    delete from cold_packs where day = wanted;
end
$$;

-- As before, with the tables that a move of bodies leaves.
create or replace function drop_day(wanted date) returns bigint
language plpgsql security definer set search_path = public, pg_temp set lock_timeout = '50ms' as $$
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

-- As before. Null also while the day has packs, which the cold worker deletes.
create or replace function forget_day(wanted date, rows_max integer) returns bigint
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

revoke all on function cold_age_min (), cold_change_recorded (), due_cold_steps (integer), hold_cold_day (date, uuid),
    held_cold_day (date, uuid),
    record_cold_pack (date, uuid, integer, text, bigint, bigint, bytea, uuid, bigint, uuid[], bigint[], integer[], integer[]),
    finish_cold_packs (date, uuid), copy_cold_day (date, uuid), swap_cold_day (date, uuid), drop_warm_day (date, uuid),
    warm_messages (date, uuid[], bigint[], bytea[]), forget_cold_packs (date)
    from public;
