-- What each service may do in the database of an installation. Applied by `chat-retention migrate`, as the owner of the
-- tables, in one transaction: everything that was granted is taken back first, so that this file is all there is.

revoke all on table
    conversations, participants, former_participants, outbox, messages, content_keys, dead_letters, log_checkpoints,
    notification_devices, blocks, log_gaps, businesses, staff, cases, assignments, staff_reads, case_sweeps,
    message_days, cold_days, cold_packs, cold_chunks, cold_changes, erasures, erasure_passes, cold_erasures,
    _sqlx_migrations
    from public, chat_gateway, chat_persister, chat_notifier, chat_notifier_text, chat_retention, chat_retention_cold;
revoke all on function
    make_message_partition (date), participants_count (), participants_listed (), conversations_direct_has_two (),
    database_incarnation (), restore_conversation (
        uuid, text, bigint, uuid[], text[], uuid[], timestamptz, uuid, integer, text, timestamptz
    ), assignments_within_capacity (),
    settle_read (bigint, int8multirange), own_after (int8multirange, bigint),
    unread_count (bigint, bigint, bigint, int8multirange),
    message_partitions (), message_partition_faults (), record_message_days (), message_today (),
    can_rewrite_keys (message_days), due_day_steps (), claim_day (date, text), day_partition (date), messages_late (), begin_day_deletion (date), raise_day_floors (date, integer),
    soft_delete_day (date), destroy_day_key (date), rewrite_content_keys (date), detach_day (date), drop_day (date),
    forget_day (date, integer), cold_age_min (), cold_change_recorded (), due_cold_steps (integer), hold_cold_day (date, uuid),
    held_cold_day (date, uuid),
    record_cold_pack (date, uuid, integer, text, bigint, bigint, bytea, uuid, bigint, uuid[], bigint[], integer[], integer[]),
    finish_cold_packs (date, uuid), copy_cold_day (date, uuid), swap_cold_day (date, uuid), drop_warm_day (date, uuid),
    warm_messages (date, uuid[], bigint[], bytea[]), forget_cold_packs (date), request_erasure (uuid),
    finish_account_erasure (uuid), erasure_late_max (), erased_until (erasures), begin_erasure_pass (),
    leave_unread_out (uuid[], bigint[]), erase_messages (integer),
    replace_cold_pack (
        date, uuid, integer, text, bigint, bigint, bytea, uuid[], bigint[], integer[], integer[], uuid[], bigint[]
    )
    from public, chat_gateway, chat_persister, chat_notifier, chat_notifier_text, chat_retention, chat_retention_cold;

-- Every service compares the schema with the one it was built for.
grant select on table _sqlx_migrations to chat_gateway, chat_persister, chat_notifier, chat_retention, chat_retention_cold;

-- The gateway reads what users read. Of a conversation it writes the participants, a read mark only with a new one; neither
-- messages nor the number of participants, which the database counts by itself.
grant select on table
    conversations, participants, former_participants, outbox, messages, content_keys, log_checkpoints, notification_devices, blocks,
    businesses, staff, cases, assignments, case_sweeps, cold_packs, cold_chunks
    to chat_gateway;
grant insert (conversation_id, kind, direct_low, direct_high, business_id, customer_id, created_at, last_activity_at),
    update (version, resolved_seq)
    on table conversations to chat_gateway;
-- Of businesses it writes everything, but the ledger: that grows, and an assignment in it ends once.
grant insert, update on table businesses to chat_gateway;
grant insert, update, delete on table staff to chat_gateway;
grant insert, update on table cases to chat_gateway;
grant insert (
        conversation_id, business_id, case_number, agent_id, assigned_by, reason, strategy, waited_ms, candidates, assigned_at
    ), update (released_at, release_reason)
    on table assignments to chat_gateway;
grant insert on table staff_reads to chat_gateway;
grant update (swept_at) on table case_sweeps to chat_gateway;
grant insert (conversation_id, user_id, role, joined_at, read_seq, last_read_message_id, own_runs, since_seq),
    update (role, muted_until), delete
    on table participants to chat_gateway;
grant insert, update (has_left), delete on table former_participants to chat_gateway;
grant execute on function own_after (int8multirange, bigint), unread_count (bigint, bigint, bigint, int8multirange)
    to chat_gateway, chat_notifier;
-- Locking rows needs the right to change a column; this one takes no value that isn't generated.
grant insert (conversation_id, version, event, created_at), update (outbox_id), delete on table outbox to chat_gateway;
grant insert, update, delete on table notification_devices to chat_gateway;
grant insert, delete on table blocks to chat_gateway;
-- It requests the erasure of a user and ends what the account has. How far the texts are it reads, and says nothing of it.
grant execute on function request_erasure (uuid), finish_account_erasure (uuid) to chat_gateway;
grant select (user_id, requested_at, account_erased_at, swept_at, erased_at) on table erasures to chat_gateway;
grant select (user_id) on table cold_erasures to chat_gateway;

-- The persister stores what it can't open: it has no content keys.
grant insert on table messages to chat_persister;
grant select (conversation_id, last_seq, last_message_id, last_message_at, last_activity_at, version, customer_seq, agent_seq),
    update (last_seq, last_message_id, last_message_at, last_activity_at, customer_seq, agent_seq)
    on table conversations to chat_persister;
grant select (conversation_id, user_id, read_seq, last_read_message_id, own_runs, since_seq, listed_at),
    update (read_seq, last_read_message_id, own_runs, since_seq, listed_at)
    on table participants to chat_persister;
grant select (conversation_id, user_id, read_seq, last_read_message_id, own_runs),
    update (read_seq, last_read_message_id, own_runs)
    on table former_participants to chat_persister;
grant execute on function settle_read (bigint, int8multirange) to chat_persister;
grant select, insert, delete on table dead_letters to chat_persister;
grant select, insert, update (last_stream_seq, updated_at, incarnation, acked_stream_seq), delete
    on table log_checkpoints to chat_persister;
grant select, insert, update, delete on table log_gaps to chat_persister;
-- After a restore of the database it rebuilds conversations from the log.
grant execute on function make_message_partition (date), database_incarnation (),
    restore_conversation (
        uuid, text, bigint, uuid[], text[], uuid[], timestamptz, uuid, integer, text, timestamptz
    )
    to chat_persister;

-- The notifier looks who is to be notified of what, and where. It reads no message and no content key.
grant select (conversation_id, last_seq, floor_seq, direct_low, direct_high) on table conversations to chat_notifier;
grant select (conversation_id, user_id, read_seq, own_runs, muted_until, listed_at) on table participants
    to chat_notifier;
grant select (user_id, device_id, app_id, locale, address, fingerprint, registered_at), delete
    on table notification_devices to chat_notifier;
grant select (blocker_id, blocked_id) on table blocks to chat_notifier;
-- The supervisors of a business whose customers wait.
grant select (business_id, user_id, role) on table staff to chat_notifier;
grant select (business_id, customer_id, state, waiting_since) on table cases to chat_notifier;

-- Where notifications show text, they open it.
grant select (day, master_key_id, wrapped) on table content_keys to chat_notifier_text;

-- Retention makes partitions and keys, and counts messages without reading what is in them.
grant execute on function make_message_partition (date) to chat_retention;
-- It deletes nothing itself: it calls the steps of ageing out, which refuse a day that is not due.
grant execute on function message_partition_faults (), record_message_days (), due_day_steps (), begin_day_deletion (date),
    raise_day_floors (date, integer), soft_delete_day (date), destroy_day_key (date), rewrite_content_keys (date),
    detach_day (date), drop_day (date), forget_day (date, integer)
    to chat_retention;
grant select on table message_days to chat_retention;
-- The same with texts of users who are erased: the function removes those alone.
grant execute on function erase_messages (integer) to chat_retention;
grant select (requested_at, erased_at) on table erasures to chat_retention;
grant select, insert on table content_keys to chat_retention;
grant select (conversation_id, last_seq, floor_seq, last_message_at, last_activity_at) on table conversations
    to chat_retention;
grant select (conversation_id, user_id, read_seq, listed_at) on table participants to chat_retention;
grant select (conversation_id, seq, sent_at, deleted_at) on table messages to chat_retention;

-- The cold worker moves bodies that it can't open: it has no content keys. Rows change by the functions alone, which refuse
-- a day that is young, and a body that is in no pack.
grant select (conversation_id, seq, sent_at, envelope, deleted_at) on table messages to chat_retention_cold;
grant select on table cold_packs, cold_chunks to chat_retention_cold;
grant select (day, conversation_id, seq) on table cold_erasures to chat_retention_cold;
grant execute on function due_cold_steps (integer), hold_cold_day (date, uuid),
    record_cold_pack (date, uuid, integer, text, bigint, bigint, bytea, uuid, bigint, uuid[], bigint[], integer[], integer[]),
    finish_cold_packs (date, uuid), copy_cold_day (date, uuid), swap_cold_day (date, uuid), drop_warm_day (date, uuid),
    warm_messages (date, uuid[], bigint[], bytea[]), forget_cold_packs (date),
    replace_cold_pack (
        date, uuid, integer, text, bigint, bigint, bytea, uuid[], bigint[], integer[], integer[], uuid[], bigint[]
    )
    to chat_retention_cold;
