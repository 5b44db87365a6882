-- Messages, one partition a day. Written by the persister alone; partitions are made and dropped by retention.

create table messages (
    conversation_id uuid not null,
    seq             bigint not null check (seq > 0),
    sent_at         timestamptz not null,
    message_id      uuid not null,
    sender_id       uuid not null,
    -- Sealed content: see the sealing room for its form.
    envelope        bytea not null,
    deleted_at      timestamptz,
    primary key (conversation_id, seq, sent_at)
) partition by range (sent_at);

-- Finds the earlier copy of a repeated message.
create index messages_by_message on messages (conversation_id, message_id);

-- Makes the partition of a day in UTC; says whether it was missing. Attached rather than made in place,
-- because that does not make readers and writers of the other days wait.
create function make_message_partition(day date) returns boolean language plpgsql as $$
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

-- The day's content keys, wrapped by a master key that is not in this database. Written by retention.
create table content_keys (
    day           date primary key,
    master_key_id text not null,
    wrapped       bytea not null,
    created_at    timestamptz not null
);

-- Entries of the log that could not be stored, whole and with the reason. Written by the persister.
create table dead_letters (
    dead_letter_id bigint generated always as identity primary key,
    stream_name    text not null,
    stream_seq     bigint not null,
    subject        text not null,
    payload        bytea not null,
    reason         text not null,
    created_at     timestamptz not null,
    constraint dead_letters_entry unique (stream_name, stream_seq)
);

-- How far the log has been stored, to notice a log that was lost or exchanged. Written by the persister.
create table log_checkpoints (
    stream_name       text primary key,
    stream_created_at timestamptz not null,
    last_stream_seq   bigint not null check (last_stream_seq >= 0),
    updated_at        timestamptz not null
);
