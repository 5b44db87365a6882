-- Conversations of customers with businesses: staff, cases, assignments. Written by the gateway, but for the numbers of
-- conversations, which the persister raises. Only ids, roles, numbers and times are stored; names belong to kaha-main-v3.

create table businesses (
    business_id uuid primary key,
    -- Of the staff list of kaha-main-v3; an older list is refused.
    staff_version bigint not null default 0 check (staff_version >= 0),
    -- Whether it takes conversations at all.
    is_open boolean not null default true,
    strategy text not null default 'least_busy' check (strategy in ('least_busy', 'round_robin', 'manual')),
    -- Cases that an agent has at a time, unless the row of the agent says otherwise.
    capacity integer not null default 5 check (capacity between 1 and 50),
    -- Seconds: for the first answer of an agent who is online, of one who has to be notified, for later answers; silence of the
    -- customer after which a case is resolved; how long a reopened case prefers its last agent.
    answer_max_s integer not null default 120 check (answer_max_s between 10 and 86400),
    notified_max_s integer not null default 600 check (notified_max_s between 10 and 86400),
    reply_max_s integer not null default 900 check (reply_max_s between 10 and 86400),
    quiet_max_s integer not null default 1800 check (quiet_max_s between 60 and 604800),
    affinity_s integer not null default 86400 check (affinity_s between 0 and 2592000),
    -- Opening hours as clients give them; null: always open.
    hours jsonb check (pg_column_size(hours) < 65536),
    settings_version bigint not null default 1 check (settings_version > 0)
);

create table staff (
    business_id uuid not null references businesses on delete cascade,
    user_id uuid not null,
    role text not null check (role in ('agent', 'supervisor', 'admin')),
    -- 0: is given nothing.
    capacity integer check (capacity between 0 and 50),
    status text not null default 'away' check (status in ('available', 'away')),
    status_at timestamptz not null,
    available_until timestamptz,
    away_reason text check (away_reason in ('chosen', 'until', 'missed', 'gone')),
    last_assigned_at timestamptz,
    missed_in_a_row smallint not null default 0,
    -- Since when the agent is neither online nor has a device, as the sweep found it.
    unseen_since timestamptz,
    primary key (business_id, user_id)
);
create index staff_by_user on staff (user_id);

alter table conversations
    add column business_id uuid references businesses,
    add column customer_id uuid,
    -- The last message of the customer and of the staff; raised by the persister, never lowered.
    add column customer_seq bigint not null default 0 check (customer_seq >= 0),
    add column agent_seq bigint not null default 0 check (agent_seq >= 0),
    -- Messages up to this one need no answer any more; never lowered.
    add column resolved_seq bigint not null default 0 check (resolved_seq >= 0),
    add constraint conversations_business_has_both check (
        (kind = 'business') = (business_id is not null) and (kind = 'business') = (customer_id is not null)
    ),
    drop constraint conversations_kind_check,
    add constraint conversations_kind_check check (kind in ('direct', 'group', 'business')),
    drop constraint conversations_participants_max,
    add constraint conversations_participants_max check (participant_count <= case kind when 'group' then 8 else 2 end);
-- One conversation for a customer and a business.
create unique index conversations_business_customer on conversations (business_id, customer_id) where business_id is not null;
-- Business conversations with messages after the last resolved one. The predicate names no column that a private message
-- changes, so that updates of private conversations stay within their pages.
create index conversations_unresolved on conversations (business_id)
    where business_id is not null and customer_seq > resolved_seq;

alter table participants
    drop constraint participants_role_check,
    add constraint participants_role_check check (role in ('member', 'owner', 'customer', 'agent'));
create unique index participants_one_agent on participants (conversation_id) where role = 'agent';
create unique index participants_one_customer on participants (conversation_id) where role = 'customer';

-- One row for each business conversation: its current or last case.
create table cases (
    conversation_id uuid primary key references conversations on delete cascade,
    business_id uuid not null references businesses on delete cascade,
    customer_id uuid not null,
    state text not null check (state in ('waiting', 'assigned', 'resolved')),
    -- Grows by one each time a case opens.
    case_number integer not null default 1 check (case_number > 0),
    agent_id uuid,
    last_agent_id uuid,
    opened_at timestamptz not null,
    -- The age of the case in the queue: kept when the case is given back.
    waiting_since timestamptz not null,
    assigned_at timestamptz,
    accepted_at timestamptz,
    resolved_at timestamptz,
    -- Whether the agent was online when the case was assigned.
    was_online boolean not null default false,
    -- When the sweep looks at the case next.
    due_at timestamptz,
    -- The clocks of the case run from here on, if that is later than what they run from else: before it no agent could answer.
    clock_from timestamptz,
    -- Whether the participants in the log say that the business is closed.
    is_closed boolean not null default false,
    -- Agents who let the case wait too long.
    missed_by uuid[] not null default '{}',
    given_back smallint not null default 0,
    constraint cases_agent check ((state = 'assigned') = (agent_id is not null)),
    constraint cases_due check ((state = 'assigned') = (due_at is not null)),
    constraint cases_not_own check (agent_id is distinct from customer_id)
);
create index cases_waiting on cases (business_id, waiting_since, conversation_id) where state = 'waiting';
create index cases_of_agent on cases (business_id, agent_id) where state = 'assigned';
create index cases_resolved on cases (business_id, resolved_at desc, conversation_id) where state = 'resolved';
create index cases_due on cases (due_at) where state = 'assigned';

-- The ledger: one row for each time that an agent had a case.
create table assignments (
    assignment_id bigint generated always as identity primary key,
    conversation_id uuid not null references conversations on delete cascade,
    business_id uuid not null references businesses on delete cascade,
    case_number integer not null,
    agent_id uuid not null,
    -- The member of staff who decided; null: the router.
    assigned_by uuid,
    reason text not null check (reason in ('routed', 'claimed', 'transferred', 'assigned', 'reopened')),
    strategy text not null,
    waited_ms bigint not null,
    -- The agents that the router compared, and the verdict on each; at most 32.
    candidates jsonb not null,
    assigned_at timestamptz not null,
    released_at timestamptz,
    release_reason text check (release_reason in (
        'resolved', 'quiet', 'transferred', 'given_back', 'answer_missed', 'reply_missed', 'gone', 'left_staff',
        'business_closed'
    )),
    constraint assignments_released check ((released_at is null) = (release_reason is null))
);
create unique index assignments_open on assignments (conversation_id) where released_at is null;
create index assignments_of_agent on assignments (business_id, agent_id) where released_at is null;
create index assignments_of_conversation on assignments (conversation_id, assignment_id desc);

-- The router gives nobody more cases than the capacity. Exact, since whoever assigns holds the row of the business.
create function assignments_within_capacity() returns trigger language plpgsql as $$
declare
    capacity_max integer;
begin
    select coalesce(s.capacity, b.capacity) into capacity_max
    from businesses b join staff s on s.business_id = b.business_id and s.user_id = new.agent_id
    where b.business_id = new.business_id;
    if (
        select count(*) from assignments
        where business_id = new.business_id and agent_id = new.agent_id and released_at is null
    ) > coalesce(capacity_max, 0) then
        raise exception 'the agent has as many cases as the capacity allows'
            using errcode = 'check_violation', constraint = 'assignments_within_capacity';
    end if;
    return null;
end
$$;
create constraint trigger assignments_within_capacity after insert on assignments
    for each row when (new.assigned_by is null) execute function assignments_within_capacity();

-- One row for each day, member of staff and conversation that was read without taking part in it.
create table staff_reads (
    day date not null,
    user_id uuid not null,
    conversation_id uuid not null references conversations on delete cascade,
    primary key (day, user_id, conversation_id)
);

-- As before, and rebuilds business conversations with their cases. What was resolved after the backup may be opened again: the
-- log does not hold up to which message.
drop function restore_conversation (uuid, text, bigint, uuid[], text[], uuid[], timestamptz);
create function restore_conversation(
    restored_id uuid, restored_kind text, restored_version bigint, user_ids uuid[], roles text[], blocker_ids uuid[],
    restored_at timestamptz, restored_business uuid default null, restored_case integer default null,
    restored_state text default null, restored_waiting timestamptz default null
) returns boolean
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
    pair_low uuid;
    pair_high uuid;
    customer uuid;
    agent uuid;
    found_version bigint;
    is_new boolean;
begin
    if restored_kind = 'direct' then
        pair_low := least(user_ids[1], user_ids[2]);
        pair_high := greatest(user_ids[1], user_ids[2]);
    elsif restored_kind = 'business' then
        customer := user_ids[array_position(roles, 'customer')];
        agent := user_ids[array_position(roles, 'agent')];
        insert into businesses (business_id) values (restored_business) on conflict do nothing;
    end if;
    insert into conversations (
        conversation_id, kind, direct_low, direct_high, business_id, customer_id, version, created_at, last_activity_at
    )
    values (
        restored_id, restored_kind, pair_low, pair_high, restored_business, customer, restored_version, restored_at,
        restored_at
    )
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
        update conversations c
        set customer_seq = coalesce((
                select max(seq) from messages where conversation_id = restored_id and sender_id = customer
            ), 0),
            agent_seq = coalesce((
                select max(seq) from messages where conversation_id = restored_id and sender_id <> customer
            ), 0)
        where c.conversation_id = restored_id and customer is not null;
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
    if restored_kind = 'business' then
        insert into cases (
            conversation_id, business_id, customer_id, state, case_number, agent_id, last_agent_id, opened_at, waiting_since,
            assigned_at, resolved_at, due_at
        )
        values (
            restored_id, restored_business, customer,
            case when agent is not null then 'assigned' when restored_state = 'resolved' then 'resolved' else 'waiting' end,
            restored_case, agent, agent, restored_waiting, restored_waiting,
            case when agent is not null then restored_at end, case when restored_state = 'resolved' then restored_at end,
            case when agent is not null then restored_at end
        )
        on conflict (conversation_id) do update
        set state = excluded.state, case_number = excluded.case_number, agent_id = excluded.agent_id,
            last_agent_id = coalesce(excluded.last_agent_id, cases.last_agent_id), waiting_since = excluded.waiting_since,
            assigned_at = excluded.assigned_at, accepted_at = null,
            resolved_at = coalesce(excluded.resolved_at, cases.resolved_at), due_at = excluded.due_at;
        update assignments set released_at = restored_at, release_reason = 'given_back'
        where conversation_id = restored_id and released_at is null and agent_id is distinct from agent;
        if agent is not null then
            -- With the agent as the one who decided: the capacity was checked when the case was assigned.
            insert into assignments (
                conversation_id, business_id, case_number, agent_id, assigned_by, reason, strategy, waited_ms, candidates,
                assigned_at
            )
            values (
                restored_id, restored_business, restored_case, agent, agent, 'claimed', 'manual', 0, '[]', restored_at
            )
            on conflict do nothing;
        end if;
    end if;
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
revoke all on function restore_conversation (
    uuid, text, bigint, uuid[], text[], uuid[], timestamptz, uuid, integer, text, timestamptz
) from public;
revoke all on function assignments_within_capacity () from public;

-- One row: when the cases were looked at last. Whichever gateway holds it looks; after a pause, as in an outage, the clocks of
-- cases begin anew.
create table case_sweeps (
    only_one boolean primary key default true check (only_one),
    swept_at timestamptz not null default now()
);
insert into case_sweeps default values;
