-- A database that comes back older than what was acknowledged, from a backup or as a promoted standby, lacks rows that the
-- log still has. It is noticed by its incarnation, and what it may lack is recorded and stored again.

-- incarnation: the run of the server for which missing entries have been recorded. Until they have, nothing is stored.
-- acked_stream_seq: all entries up to it were stored, or stand in log_gaps, when this row was written.
alter table log_checkpoints
    add column incarnation text,
    add column acked_stream_seq bigint check (acked_stream_seq >= 0);

-- Entries of the log that may be missing here, from next_stream_seq to last_stream_seq. was_acked: all of them had been
-- stored once, so what is missing was lost. Those that the log itself has lost stay as is_lost until an operator accepts it.
create table log_gaps (
    gap_id bigint generated always as identity primary key,
    stream_name text not null,
    next_stream_seq bigint not null check (next_stream_seq > 0),
    last_stream_seq bigint not null,
    was_acked boolean not null,
    is_lost boolean not null default false,
    found_at timestamptz not null,
    constraint log_gaps_range check (next_stream_seq <= last_stream_seq)
);

-- Differs after each start of the server, on each server, and once the tables are made anew from a dump.
create function database_incarnation() returns text
language sql stable set search_path = public, pg_temp as $$
    select extract(epoch from pg_postmaster_start_time()) || ' ' || pg_relation_filenode('log_checkpoints')
$$;

-- Brings a conversation to a version that the log has and the database lacks: its row, participants and blocks. False if
-- the pair of a direct conversation has another one by now. Read marks and mutes of those who stay are kept.
create function restore_conversation(
    restored_id uuid, restored_kind text, restored_version bigint, user_ids uuid[], roles text[], blocker_ids uuid[],
    restored_at timestamptz
) returns boolean
language plpgsql security definer set search_path = public, pg_temp as $$
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
    delete from participants where conversation_id = restored_id and user_id <> all (user_ids);
    insert into participants (conversation_id, user_id, role, joined_at)
    select restored_id, member.user_id, member.role, restored_at
    from unnest(user_ids, roles) with ordinality as member (user_id, role, place)
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
revoke all on function restore_conversation (uuid, text, bigint, uuid[], text[], uuid[], timestamptz) from public;
