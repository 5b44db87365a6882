-- Lists begin with the latest activity. Each participant's row repeats when that was, so that an index gives a page without
-- a look at the user's other conversations. To spare an update with each message it may lie some seconds behind the
-- conversation's own last_activity_at (`LIST_LAG_MAX`), and never ahead. Raised by the persister.

-- No activity is raised between the copy and the first statement that sees the column.
lock table conversations in share row exclusive mode;

alter table participants add column listed_at timestamptz;

update participants p set listed_at = c.last_activity_at
from conversations c where c.conversation_id = p.conversation_id;

alter table participants alter column listed_at set not null;

create index participants_listed on participants (user_id, listed_at desc);
drop index participants_by_user;

-- A new participant finds the conversation in its place. The transaction that adds participants holds the conversation's
-- row, so that no activity is raised in between.
create function participants_listed() returns trigger language plpgsql
    security definer set search_path = public, pg_temp as $$
begin
    new.listed_at := coalesce(
        (select last_activity_at from conversations where conversation_id = new.conversation_id), new.joined_at
    );
    return new;
end
$$;

revoke all on function participants_listed () from public;

create trigger participants_listed before insert on participants
    for each row execute function participants_listed();
