-- The export of a user's data finds the groups that the user has left or was removed from.
create index former_participants_of_user on former_participants (user_id);
