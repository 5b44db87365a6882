-- What a chat on Socket.IO keeps. The statement in server.js that stores a message relies on these keys.

create table conversations (
    conversation_id uuid primary key,
    last_seq        bigint not null default 0
);

create table participants (
    conversation_id uuid not null references conversations on delete cascade,
    user_id         uuid not null,
    primary key (conversation_id, user_id)
);

-- Asked once for each connection: which rooms to join.
create index participants_by_user on participants (user_id);

create table messages (
    conversation_id uuid not null references conversations on delete cascade,
    seq             bigint not null,
    message_id      uuid not null,
    sender_id       uuid not null,
    sent_at         timestamptz not null default now(),
    text            text not null,
    primary key (conversation_id, seq),
    -- One id, one message: a repeat finds the first.
    unique (conversation_id, message_id)
);
