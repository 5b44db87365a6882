-- Validates the checks on the days' partitions. A migration of its own: reading the rows takes long, and holds nothing up.

do $$
declare
    partition text;
begin
    for partition in
        select p.partition_name from message_partitions() p where not p.is_checked and p.day is not null order by p.day
    loop
        execute format('alter table %I validate constraint %I', partition, partition || '_day');
    end loop;
end
$$;
