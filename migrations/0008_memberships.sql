-- Read marks outlive a membership, and each participant has the number after which it takes part.

-- Messages after this number are sent to the participant.
alter table participants add column since_seq bigint not null default 0 check (since_seq >= 0);

-- Users who took part in a group and do not now. A user who comes back continues with the read mark.
create table former_participants (
    conversation_id uuid not null references conversations on delete cascade,
    user_id uuid not null,
    read_seq bigint not null check (read_seq >= 0),
    last_read_message_id uuid,
    -- Whether the user left; false if the owner removed the user.
    has_left boolean not null,
    primary key (conversation_id, user_id)
);

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
        returning user_id, read_seq, last_read_message_id
    )
    insert into former_participants (conversation_id, user_id, read_seq, last_read_message_id, has_left)
    select restored_id, user_id, read_seq, last_read_message_id, false from gone
    order by user_id;
    with back as (
        delete from former_participants where conversation_id = restored_id and user_id = any (user_ids)
        returning user_id, read_seq, last_read_message_id
    )
    insert into participants (conversation_id, user_id, role, joined_at, read_seq, last_read_message_id)
    select restored_id, member.user_id, member.role, restored_at, coalesce(back.read_seq, 0), back.last_read_message_id
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
