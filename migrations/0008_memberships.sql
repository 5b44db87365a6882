-- Read marks outlive a membership, a user who sends has not read what others wrote before, and each participant has the number
-- after which it takes part.

alter table participants
    -- Messages after this number are sent to the participant.
    add column since_seq bigint not null default 0 check (since_seq >= 0),
    -- Messages of the user's own after the read mark, as runs of numbers: they are not unread.
    add column own_runs int8multirange not null default '{}';

-- Users who took part in a group and do not now. A user who comes back continues with the read mark.
create table former_participants (
    conversation_id uuid not null references conversations on delete cascade,
    user_id uuid not null,
    read_seq bigint not null check (read_seq >= 0),
    last_read_message_id uuid,
    own_runs int8multirange not null default '{}',
    -- Whether the user left; false if the owner removed the user.
    has_left boolean not null,
    primary key (conversation_id, user_id)
);

-- The read mark and runs when the runs up to the mark are gone. The mark moves to the end of a run that follows it at once. Of
-- more than 32 runs the last ones stay (OWN_RUNS_MAX of the services).
create function settle_read(inout read_seq bigint, inout own_runs int8multirange)
language plpgsql immutable parallel safe
as $$
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
revoke all on function settle_read (bigint, int8multirange) from public;

-- How many numbers of the runs are larger.
create function own_after(own_runs int8multirange, seq bigint) returns bigint
language sql immutable parallel safe
as $$
    select coalesce(sum(upper(run) - lower(run)), 0)::bigint
    from unnest(own_runs * int8multirange(int8range(seq + 1, null))) as run
$$;
revoke all on function own_after (int8multirange, bigint) from public;

-- How many messages a participant has not read. Without a subquery, so that it is inlined.
create function unread_count(last_seq bigint, floor_seq bigint, read_seq bigint, own_runs int8multirange) returns bigint
language sql immutable parallel safe
as $$
    select greatest(
        last_seq - greatest(read_seq, floor_seq)
            - case when isempty(own_runs) then 0 else own_after(own_runs, greatest(read_seq, floor_seq)) end,
        0
    )
$$;
revoke all on function unread_count (bigint, bigint, bigint, int8multirange) from public;

-- As before, and keeps the read marks of participants that it removes. The log does not say whether they left, so the owner
-- may add them again.
create or replace function restore_conversation(
    restored_id uuid, restored_kind text, restored_version bigint, user_ids uuid[], roles text[], blocker_ids uuid[],
    restored_at timestamptz
) returns boolean
language plpgsql security definer set search_path = public, pg_temp
as $$
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
