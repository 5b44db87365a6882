-- Staff lists are compared with those of kaha-main-v3 once an hour.

-- When the list was last compared. A claim sets it to less than an hour ago, so that a comparison that does not end is due again
-- some minutes later. At first a random moment of the last hour: businesses that are added together are not due together.
alter table businesses
    add column checked_at timestamptz not null default clock_timestamp() - random() * interval '1 hour';
create index businesses_checked on businesses (checked_at);
