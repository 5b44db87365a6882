-- Conversations and who takes part in them. Written by the gateway, but for the columns about the
-- last message, which the persister raises, and floor_seq, which retention raises.

create table conversations (
    conversation_id   uuid primary key,
    kind              text not null check (kind in ('direct', 'group')),
    -- The pair of a direct conversation, smaller id first: one conversation for a pair.
    direct_low        uuid,
    direct_high       uuid,
    version           bigint not null default 1 check (version > 0),
    participant_count integer not null default 0 check (participant_count >= 0),
    last_seq          bigint not null default 0 check (last_seq >= 0),
    floor_seq         bigint not null default 0 check (floor_seq >= 0),
    last_message_id   uuid,
    last_message_at   timestamptz,
    created_at        timestamptz not null,
    last_activity_at  timestamptz not null,
    constraint conversations_direct_pair unique (direct_low, direct_high),
    constraint conversations_direct_has_pair check (
        case kind
            when 'direct' then direct_low is not null and direct_high is not null and direct_low < direct_high
            else direct_low is null and direct_high is null
        end
    ),
    constraint conversations_participants_max check (participant_count <= case kind when 'direct' then 2 else 8 end)
);

create table participants (
    conversation_id uuid not null references conversations on delete cascade,
    user_id         uuid not null,
    role            text not null check (role in ('member', 'owner')),
    -- The order of joining.
    position        bigint generated always as identity,
    joined_at       timestamptz not null,
    read_seq        bigint not null default 0 check (read_seq >= 0),
    primary key (conversation_id, user_id)
);

create index participants_by_user on participants (user_id);

-- Counting on the conversation's row makes concurrent joins wait for each other, so the bound holds in a race.
create function participants_count() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        update conversations set participant_count = participant_count + 1 where conversation_id = new.conversation_id;
    else
        update conversations set participant_count = participant_count - 1 where conversation_id = old.conversation_id;
    end if;
    return null;
end
$$;

create trigger participants_count after insert or delete on participants
    for each row execute function participants_count();

-- A direct conversation has exactly two, seen at the end of the transaction that makes it.
create function conversations_direct_has_two() returns trigger language plpgsql as $$
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

create constraint trigger conversations_direct_has_two after insert or update of participant_count on conversations
    deferrable initially deferred
    for each row execute function conversations_direct_has_two();

-- Changes of conversations that the log has yet to hear of, in the order they were made.
create table outbox (
    outbox_id       bigint generated always as identity primary key,
    conversation_id uuid not null,
    version         bigint not null,
    event           bytea not null,
    created_at      timestamptz not null,
    constraint outbox_conversation_version unique (conversation_id, version)
);
