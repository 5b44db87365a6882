-- What needs the owner of the tables is done by functions in the owner's name, so that no service owns anything. Who may
-- call them and what else each service may do is in permissions/grants.sql.

alter function make_message_partition (date) security definer set search_path = public, pg_temp;
revoke all on function make_message_partition (date) from public;

-- Whoever lets somebody in or out needs no right to the count of participants.
alter function participants_count () security definer set search_path = public, pg_temp;
revoke all on function participants_count () from public;

alter function conversations_direct_has_two () security definer set search_path = public, pg_temp;
revoke all on function conversations_direct_has_two () from public;
