-- Erasure of users. The gateway requests it and ends what the account has; then retention removes the texts of the user's
-- messages. Their rows stay as tombstones: `envelope` is null and `deleted_at` is set. So numbers stay dense, repeats are
-- recognised, and an entry of the log that is stored again meets its row.

create table erasures (
    user_id uuid primary key,
    requested_at timestamptz not null default now(),
    -- When logins, devices, blocks, groups and open cases had ended. Messages up to then are erased.
    account_erased_at timestamptz,
    -- Whether the pass that runs removes the user's texts.
    in_pass boolean not null default false,
    -- The beginning of the last pass that removed the user's texts: of messages that were stored before, none is left.
    swept_at timestamptz,
    -- No text is left in PostgreSQL or in packs, and the log can bring none any more.
    erased_at timestamptz
);
create index erasures_pending on erasures (requested_at) where erased_at is null;
create index erasures_in_pass on erasures (user_id) where in_pass;

-- One row: how far the pass is that removes texts, from the latest day to the first.
create table erasure_passes (
    only_one boolean primary key default true check (only_one),
    started_at timestamptz,
    -- The day that is read, or the one before it that has a partition; null between passes.
    day date,
    first_day date,
    -- The table of the day, and its first block that is not read yet. Another table is read from its beginning.
    partition_id oid,
    next_block bigint not null default 0
);
insert into erasure_passes default values;

-- Tombstones whose texts are, or may be, in a pack. Without a reference to the day, whose row is locked while it is copied.
create table cold_erasures (
    day date not null,
    conversation_id uuid not null,
    seq bigint not null,
    user_id uuid not null,
    primary key (day, conversation_id, seq)
);
create index cold_erasures_of_user on cold_erasures (user_id);

-- Erasure and export find the groups that a user has left without reading the table.
create index former_participants_by_user on former_participants (user_id);

-- Requests the erasure of a user, once: a repeat changes nothing before it has ended, and begins another one after that.
create function request_erasure(wanted uuid) returns void
language sql security definer set search_path = public, pg_temp as $$
    insert into erasures (user_id) values (wanted)
    on conflict (user_id) do update
    set requested_at = now(), account_erased_at = null, swept_at = null, erased_at = null
    where erasures.erased_at is not null
$$;

create function finish_account_erasure(wanted uuid) returns void
language sql security definer set search_path = public, pg_temp as $$
    update erasures set account_erased_at = now() where user_id = wanted and account_erased_at is null
$$;

-- How long after an erasure a message from before it may still be stored: a day longer than the log keeps entries.
create function erasure_late_max() returns interval language sql immutable as $$ select interval '8 days' $$;

-- Up to when messages are erased. Their times are those of gateways, whose clocks may be ahead.
create function erased_until(erasure erasures) returns timestamptz
language sql stable as $$ select erasure.account_erased_at + interval '1 minute' $$;

-- Ends erasures of which nothing is left, then begins a pass over those that are due: each once at first, and once more
-- when the log can bring nothing from before it. False if none is due.
create function begin_erasure_pass() returns boolean
language plpgsql set search_path = public, pg_temp set timezone = 'UTC' as $$
declare
    first date;
    last date;
begin
    delete from cold_erasures c where not exists (select from cold_days d where d.day = c.day);
    update erasures set erased_at = now()
    where erased_at is null and swept_at >= account_erased_at + erasure_late_max()
        and not exists (select from cold_erasures c where c.user_id = erasures.user_id);
    update erasures e set in_pass = true
    from (
        select user_id from erasures
        where erased_at is null and account_erased_at is not null
            and (
                swept_at is null
                or swept_at < account_erased_at + erasure_late_max() and now() >= account_erased_at + erasure_late_max()
            )
        order by requested_at limit 10000
    ) due
    where e.user_id = due.user_id;
    if not found then
        return false;
    end if;
    -- What is stored late was sent while the log kept it.
    select min(case when swept_at is null then '-infinity' else (account_erased_at - erasure_late_max())::date end),
        max(erased_until(e)::date)
    into first, last
    from erasures e where in_pass;
    update erasure_passes
    set started_at = now(), day = last, first_day = first, partition_id = null, next_block = 0;
    return true;
end
$$;

-- Tombstones that a participant has not read are left out of what is unread, as own messages are: nothing of them is shown
-- that could be read. Rows are locked in the order in which the persister locks them.
create function leave_unread_out(conversation_ids uuid[], seqs bigint[]) returns void
language sql set search_path = public, pg_temp as $$
    with erased as materialized (
        select * from unnest(conversation_ids, seqs) as erased (conversation_id, seq)
    ),
    locked as materialized (
        select p.conversation_id, p.user_id, p.read_seq, p.own_runs from participants p
        where p.conversation_id = any (conversation_ids)
            and exists (select from erased e where e.conversation_id = p.conversation_id and e.seq > p.read_seq)
        order by p.conversation_id, p.user_id for no key update
    ),
    known as (
        select conversation_id, user_id, read_seq, own_runs, range_agg(int8range(seq, seq + 1)) as left_out
        from locked join erased using (conversation_id)
        group by conversation_id, user_id, read_seq, own_runs
    )
    update participants p
    set read_seq = settled.read_seq, own_runs = settled.own_runs,
        last_read_message_id = case when settled.read_seq = known.read_seq then p.last_read_message_id end
    from known
    cross join lateral settle_read(known.read_seq, known.own_runs + known.left_out) as settled
    where p.conversation_id = known.conversation_id and p.user_id = known.user_id
$$;

-- The next step of the pass: removes the texts in the next blocks of a day, at most so many of 8 KiB; how many. Begins a
-- pass if none runs. Null if nothing is due, or another instance is at it.
create function erase_messages(blocks_max integer) returns bigint
language plpgsql security definer set search_path = public, pg_temp set timezone = 'UTC' set lock_timeout = '500ms' as $$
declare
    pass erasure_passes;
    next_day date;
    partition text;
    blocks bigint;
    until_block bigint;
    erased_ids uuid[];
    erased_seqs bigint[];
begin
    select * into pass from erasure_passes for update skip locked;
    if not found then
        return null;
    end if;
    if pass.day is null then
        return case when begin_erasure_pass() then 0 end;
    end if;
    -- Before the partition, in the order of all other statements. Until the transaction ends the table of the day stays
    -- the same, and no move of its bodies begins: what is asked of `cold_days` below is true for all rows.
    lock table only messages in row exclusive mode;
    select p.day, p.partition_name into next_day, partition from message_partitions() p
    where p.day between pass.first_day and pass.day and not p.is_pending
    order by p.day desc limit 1;
    if next_day is null then
        update erasures set in_pass = false, swept_at = pass.started_at where in_pass;
        update erasure_passes set day = null, started_at = null, first_day = null, partition_id = null, next_block = 0;
        return 0;
    end if;
    execute format('lock table %I in row exclusive mode', partition);
    if pass.partition_id is distinct from partition::regclass::oid then
        pass.next_block := 0;
    end if;
    blocks := pg_relation_size(partition::regclass) / current_setting('block_size')::bigint;
    until_block := pass.next_block + least(greatest(blocks_max, 1), 1024);
    -- A day that is soft-deleted has its packs until its key is destroyed; only the texts in its rows are removed.
    execute format($statement$
        with erased as (
            update only %I m set envelope = null, deleted_at = coalesce(m.deleted_at, now())
            from erasures e
            where m.ctid >= $1::tid and m.ctid < $2::tid
                and e.in_pass and m.sender_id = e.user_id and m.sent_at <= erased_until(e)
                and (m.envelope is not null or m.deleted_at is null)
            returning m.conversation_id, m.seq, m.sender_id
        ),
        packed as (
            insert into cold_erasures (day, conversation_id, seq, user_id)
            select $3, conversation_id, seq, sender_id from erased
            where exists (select from cold_days where day = $3)
            on conflict do nothing
        )
        select array_agg(conversation_id), array_agg(seq) from erased
    $statement$, partition)
    into erased_ids, erased_seqs
    using format('(%s,0)', pass.next_block), format('(%s,0)', until_block), next_day;
    if erased_ids is not null then
        perform leave_unread_out(erased_ids, erased_seqs);
    end if;
    update erasure_passes
    set day = case when until_block < blocks then next_day else next_day - 1 end,
        partition_id = case when until_block < blocks then partition::regclass::oid end,
        next_block = case when until_block < blocks then until_block else 0 end;
    return coalesce(cardinality(erased_ids), 0);
end
$$;

-- As before. A row that gets its body back may move to a block that a pass has read already, so the pass reads the day
-- again. It is locked before the rows, as by the pass.
create or replace function warm_messages(wanted date, conversation_ids uuid[], seqs bigint[], envelopes bytea[])
returns bigint
language plpgsql security definer set search_path = public, pg_temp set timezone = 'UTC' as $$
declare
    filled bigint;
begin
    if (select swapped_at from cold_days where day = wanted) is null then
        raise exception 'the bodies of % are in their rows', wanted using errcode = 'object_not_in_prerequisite_state';
    end if;
    update erasure_passes
    set day = greatest(day, wanted), first_day = least(first_day, wanted), partition_id = null, next_block = 0
    where day <= wanted;
    update messages m set envelope = body.envelope
    from unnest(conversation_ids, seqs, envelopes) as body (conversation_id, seq, envelope)
    where m.conversation_id = body.conversation_id and m.seq = body.seq and m.envelope is null and m.deleted_at is null
        and m.sent_at >= wanted::timestamp and m.sent_at < (wanted + 1)::timestamp;
    get diagnostics filled = row_count;
    return filled;
end
$$;

-- As before, and rewrites packs that have texts of tombstones, once nothing else is to be done with the day.
create or replace function due_cold_steps(after_days integer) returns table (day date, step text)
language sql stable security definer set search_path = public, pg_temp as $$
    select due.day, due.step
    from (
        select d.day, case
            when d.state in ('retiring', 'gone') then
                case when exists (select from cold_packs p where p.day = d.day) then 'delete_packs' end
            when d.state <> 'hot' or d.day + 91 <= message_today() then null
            when c.swapped_at is not null then
                case
                    when c.dropped_at is null and c.swapped_at < now() - interval '1 day' then 'drop_warm'
                    when exists (select from cold_erasures e where e.day = d.day) then 'rewrite'
                end
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

-- Puts a pack without the bodies of some tombstones in the place of the one that has them, or of one that is to have no
-- body left: then `object` is null. With neither object nor pack it only notes that no pack has these bodies. Refuses a
-- pack that lacks any other body.
create function replace_cold_pack(
    wanted date, wanted_holder uuid, wanted_number integer, new_object text, new_bytes bigint, new_messages bigint,
    new_sha256 bytea, chunk_conversations uuid[], chunk_seqs bigint[], chunk_places integer[], chunk_lengths integer[],
    erased_conversations uuid[], erased_seqs bigint[]
) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    held cold_days;
    erased bigint;
    old_messages bigint;
begin
    held := held_cold_day(wanted, wanted_holder);
    if held.swapped_at is null then
        raise exception 'the bodies of % are in their rows', wanted using errcode = 'object_not_in_prerequisite_state';
    end if;
    delete from cold_erasures e
    using unnest(erased_conversations, erased_seqs) as gone (conversation_id, seq)
    where e.day = wanted and e.conversation_id = gone.conversation_id and e.seq = gone.seq;
    get diagnostics erased = row_count;
    if wanted_number is null then
        return;
    end if;
    select messages into old_messages from cold_packs where day = wanted and number = wanted_number for update;
    if old_messages is null or coalesce(new_messages, 0) + erased < old_messages then
        raise exception 'pack % of % has bodies that are not erased', wanted_number, wanted
            using errcode = 'object_not_in_prerequisite_state';
    end if;
    delete from cold_chunks where day = wanted and number = wanted_number;
    if new_object is null then
        delete from cold_packs where day = wanted and number = wanted_number;
        return;
    end if;
    update cold_packs set object = new_object, bytes = new_bytes, messages = new_messages, sha256 = new_sha256
    where day = wanted and number = wanted_number;
    insert into cold_chunks (day, conversation_id, first_seq, number, place, length)
    select wanted, chunk.conversation_id, chunk.first_seq, wanted_number, chunk.place, chunk.length
    from unnest(chunk_conversations, chunk_seqs, chunk_places, chunk_lengths)
        as chunk (conversation_id, first_seq, place, length);
end
$$;

-- As before, with the erasures that its packs had.
create or replace function forget_cold_packs(wanted date) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    if (select state from message_days where day = wanted) not in ('retiring', 'gone') then
        raise exception 'the key of % is not destroyed', wanted using errcode = 'object_not_in_prerequisite_state';
    end if;
    delete from cold_erasures where day = wanted;
    delete from cold_chunks where day = wanted;
    delete from cold_packs where day = wanted;
end
$$;

revoke all on function request_erasure (uuid), finish_account_erasure (uuid), erasure_late_max (), erased_until (erasures),
    begin_erasure_pass (), leave_unread_out (uuid[], bigint[]), erase_messages (integer),
    replace_cold_pack (
        date, uuid, integer, text, bigint, bigint, bytea, uuid[], bigint[], integer[], integer[], uuid[], bigint[]
    )
    from public;
