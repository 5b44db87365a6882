-- The roles of the services. Run once in each PostgreSQL cluster, by a superuser or a role with CREATEROLE:
--
--     psql --file permissions/postgres.sql
--
-- Nobody logs in as one of them. A service logs in as a user that is in its role, for example
--
--     create role chat_gateway_1 login password '…' in role chat_gateway;
--
-- so that its password can be changed without an outage: make a second user, move the service to it, drop the first.
-- What the roles may do in a database is said in grants.sql, which `chat-retention migrate` applies.
-- chat_notifier_text is for notifiers that show the text of messages (CHAT_NOTIFICATION_CONTENT=text), besides chat_notifier.

do $$
declare
    service text;
begin
    foreach service in array array[
        'chat_gateway', 'chat_persister', 'chat_notifier', 'chat_notifier_text', 'chat_retention',
        'chat_retention_cold'
    ] loop
        begin
            execute format('create role %I nologin', service);
        exception
            when duplicate_object or unique_violation then null;
        end;
    end loop;
end
$$;
