-- Who wants nothing to do with whom. Written by the gateway.

create table blocks (
    blocker_id uuid not null,
    blocked_id uuid not null,
    created_at timestamptz not null,
    primary key (blocker_id, blocked_id),
    constraint blocks_somebody_else check (blocker_id <> blocked_id)
);

-- Finds by whom a user is blocked.
create index blocks_by_blocked on blocks (blocked_id);
