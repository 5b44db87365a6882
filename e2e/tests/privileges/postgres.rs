//! What each service may do in PostgreSQL.

use anyhow::{Context, Result};
use chat_dev::servers::Login::{self, Cold, Gateway, Notifier, Persister, Retention, TextNotifier};
use chat_e2e::{Setup, TestFleet, database, on_own_fleet, said};
use chat_shared::wire::StaffRole;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use crate::assert_as_stated;

/// Those that PostgreSQL knows; the owner of the tables is none of the services.
const SERVICES: [Login; 6] = [Gateway, Persister, Notifier, TextNotifier, Retention, Cold];
/// PostgreSQL's code for what somebody has no right to.
const NO_RIGHT: &str = "42501";

const ALL: &[Login] = &SERVICES;
const ALL_BUT_COLD: &[Login] = &[Gateway, Persister, Notifier, TextNotifier, Retention];
const NOBODY: &[Login] = &[];
const OF_GATEWAY: &[Login] = &[Gateway];
const OF_PERSISTER: &[Login] = &[Persister];
const OF_RETENTION: &[Login] = &[Retention];
const OF_COLD: &[Login] = &[Cold];

/// A statement, and who may carry it out. `{partition}` is one that holds messages; `{conversation}` is the id of a business
/// conversation, and `{business}` that of its business.
type Line = (&'static str, &'static [Login]);

const MESSAGES: &[Line] = &[
    ("select envelope from messages", &[Gateway, Cold]),
    ("select sender_id from messages", OF_GATEWAY),
    ("select count(*) from messages where seq > 0 and deleted_at is null", &[Gateway, Retention, Cold]),
    ("select envelope from {partition}", NOBODY),
    (
        "insert into messages select conversation_id, 99, now(), gen_random_uuid(), gen_random_uuid(), '' from conversations",
        OF_PERSISTER,
    ),
    ("update messages set envelope = ''", NOBODY),
    ("update messages set deleted_at = now()", NOBODY),
    ("delete from messages", NOBODY),
    ("truncate messages", NOBODY),
    ("select make_message_partition('2001-01-01')", &[Persister, Retention]),
    ("create table messages_of_mine (like messages)", NOBODY),
    ("drop table {partition}", NOBODY),
    ("alter table messages detach partition {partition}", NOBODY),
];

const KEYS: &[Line] = &[
    ("select wrapped from content_keys", &[Gateway, TextNotifier, Retention]),
    ("insert into content_keys values ('2001-01-01', '', '', now())", OF_RETENTION),
    ("update content_keys set wrapped = ''", NOBODY),
    ("delete from content_keys", NOBODY),
];

/// Nothing is done here. The functions refuse a day that is not due: `retention/src/ageing/tests.rs`.
const AGEING: &[Line] = &[
    ("select state from message_days", OF_RETENTION),
    ("select day from message_days for update", NOBODY),
    ("insert into message_days (day) values ('2001-01-01')", NOBODY),
    ("update message_days set soft_deleted_at = now() - interval '7 days'", NOBODY),
    ("delete from message_days", NOBODY),
    ("select record_message_days()", OF_RETENTION),
    ("select due_day_steps()", OF_RETENTION),
    ("select message_partition_faults()", OF_RETENTION),
    ("select begin_day_deletion(current_date) where false", OF_RETENTION),
    ("select raise_day_floors(current_date, 1) where false", OF_RETENTION),
    ("select soft_delete_day(current_date) where false", OF_RETENTION),
    ("select destroy_day_key(current_date) where false", OF_RETENTION),
    ("select rewrite_content_keys(current_date) where false", OF_RETENTION),
    ("select detach_day(current_date) where false", OF_RETENTION),
    ("select drop_day(current_date) where false", OF_RETENTION),
    ("select forget_day(current_date, 1) where false", OF_RETENTION),
    ("select claim_day(current_date, '') where false", NOBODY),
    ("select day_partition(current_date)", NOBODY),
    ("select message_partitions()", NOBODY),
    ("select message_today()", NOBODY),
    ("alter table {partition} drop column deleted_at", NOBODY),
    ("cluster content_keys using content_keys_pkey", NOBODY),
];

/// Nothing is done here. The functions refuse a day that is not due: `retention/src/cold/tests.rs`.
const COLD: &[Line] = &[
    ("select object from cold_packs", &[Gateway, Cold]),
    ("select place from cold_chunks", &[Gateway, Cold]),
    ("select day from cold_days", NOBODY),
    ("select seq from cold_changes", NOBODY),
    ("update cold_packs set object = ''", NOBODY),
    ("delete from cold_packs", NOBODY),
    ("delete from cold_chunks", NOBODY),
    ("update cold_days set packed_at = now()", NOBODY),
    ("select due_cold_steps(14)", OF_COLD),
    ("select hold_cold_day(current_date, gen_random_uuid()) where false", OF_COLD),
    ("select finish_cold_packs(current_date, gen_random_uuid()) where false", OF_COLD),
    ("select copy_cold_day(current_date, gen_random_uuid()) where false", OF_COLD),
    ("select swap_cold_day(current_date, gen_random_uuid()) where false", OF_COLD),
    ("select drop_warm_day(current_date, gen_random_uuid()) where false", OF_COLD),
    ("select warm_messages(current_date, '{}', '{}', '{}') where false", OF_COLD),
    ("select forget_cold_packs(current_date) where false", OF_COLD),
    ("select held_cold_day(current_date, gen_random_uuid()) where false", NOBODY),
];

/// Nothing is done here. The functions remove no text but those of erased users: `retention/src/erasure/tests.rs`.
const ERASURE: &[Line] = &[
    ("select user_id from erasures", OF_GATEWAY),
    ("select requested_at, erased_at from erasures", &[Gateway, Retention]),
    ("select in_pass from erasures", NOBODY),
    ("insert into erasures (user_id) values (gen_random_uuid())", NOBODY),
    ("update erasures set erased_at = now()", NOBODY),
    ("delete from erasures", NOBODY),
    ("select day from erasure_passes", NOBODY),
    ("update erasure_passes set day = current_date", NOBODY),
    ("select user_id from cold_erasures", OF_GATEWAY),
    ("select conversation_id, seq from cold_erasures", OF_COLD),
    ("insert into cold_erasures values (current_date, gen_random_uuid(), 1, gen_random_uuid())", NOBODY),
    ("delete from cold_erasures", NOBODY),
    ("select request_erasure(gen_random_uuid()) where false", OF_GATEWAY),
    ("select finish_account_erasure(gen_random_uuid()) where false", OF_GATEWAY),
    ("select erase_messages(1) where false", OF_RETENTION),
    ("select begin_erasure_pass() where false", NOBODY),
    ("select leave_unread_out('{}', '{}') where false", NOBODY),
    (
        "select replace_cold_pack(current_date, gen_random_uuid(), 1, null, null, null, null, '{}', '{}', '{}', '{}', '{}', '{}')
         where false",
        OF_COLD,
    ),
];

const CONVERSATIONS: &[Line] = &[
    ("select created_at from conversations", OF_GATEWAY),
    ("select direct_low from conversations", &[Gateway, Notifier, TextNotifier]),
    ("select last_seq from conversations", ALL_BUT_COLD),
    (
        "insert into conversations (conversation_id, kind, created_at, last_activity_at)
         values (gen_random_uuid(), 'group', now(), now())",
        OF_GATEWAY,
    ),
    ("update conversations set version = version + 1", OF_GATEWAY),
    ("update conversations set last_seq = last_seq + 1", OF_PERSISTER),
    ("update conversations set floor_seq = 1", NOBODY),
    ("update conversations set participant_count = 1", NOBODY),
    ("select customer_id from conversations", OF_GATEWAY),
    ("select resolved_seq from conversations", OF_GATEWAY),
    ("select customer_seq, agent_seq from conversations", &[Gateway, Persister]),
    (
        "insert into conversations (conversation_id, kind, business_id, customer_id, created_at, last_activity_at)
         select gen_random_uuid(), 'business', {business}, gen_random_uuid(), now(), now()",
        OF_GATEWAY,
    ),
    ("update conversations set resolved_seq = 1", OF_GATEWAY),
    ("update conversations set customer_seq = 1, agent_seq = 1", OF_PERSISTER),
    ("update conversations set business_id = null, customer_id = null where kind = 'business'", NOBODY),
    ("delete from conversations", NOBODY),
    ("select role from participants", OF_GATEWAY),
    ("select user_id from participants", ALL_BUT_COLD),
    ("select muted_until from participants", &[Gateway, Notifier, TextNotifier]),
    (
        "insert into participants (conversation_id, user_id, role, joined_at)
         select conversation_id, gen_random_uuid(), 'member', now() from conversations where kind = 'group'",
        OF_GATEWAY,
    ),
    ("select listed_at from participants", ALL_BUT_COLD),
    ("update participants set listed_at = now()", OF_PERSISTER),
    ("update participants set muted_until = now()", OF_GATEWAY),
    ("update participants set role = 'owner'", OF_GATEWAY),
    ("update participants set read_seq = 0", OF_PERSISTER),
    ("update participants set user_id = gen_random_uuid()", NOBODY),
    ("delete from participants where user_id = gen_random_uuid()", OF_GATEWAY),
    ("select has_left from former_participants", OF_GATEWAY),
    (
        "insert into former_participants (conversation_id, user_id, read_seq, has_left)
         select conversation_id, gen_random_uuid(), 0, true from conversations where false",
        OF_GATEWAY,
    ),
    ("delete from former_participants where user_id = gen_random_uuid()", OF_GATEWAY),
    ("update former_participants set has_left = true", OF_GATEWAY),
    ("update former_participants set read_seq = 0", OF_PERSISTER),
    ("select blocked_id from blocks", &[Gateway, Notifier, TextNotifier]),
    ("insert into blocks values (gen_random_uuid(), gen_random_uuid(), now())", OF_GATEWAY),
    ("delete from blocks where blocker_id = gen_random_uuid()", OF_GATEWAY),
];

const BUSINESSES: &[Line] = &[
    ("select hours from businesses", OF_GATEWAY),
    ("insert into businesses (business_id) values (gen_random_uuid())", OF_GATEWAY),
    ("update businesses set staff_version = staff_version + 1", OF_GATEWAY),
    ("select checked_at from businesses for no key update skip locked", OF_GATEWAY),
    ("update businesses set checked_at = now()", OF_GATEWAY),
    ("delete from businesses where business_id = gen_random_uuid()", NOBODY),
    ("select role from staff", &[Gateway, Notifier, TextNotifier]),
    ("select status from staff", OF_GATEWAY),
    (
        "insert into staff (business_id, user_id, role, status_at) values ({business}, gen_random_uuid(), 'agent', now())",
        OF_GATEWAY,
    ),
    ("update staff set status = 'away'", OF_GATEWAY),
    ("delete from staff where user_id = gen_random_uuid()", OF_GATEWAY),
    ("select state, customer_id, waiting_since from cases", &[Gateway, Notifier, TextNotifier]),
    ("select agent_id from cases", OF_GATEWAY),
    ("select conversation_id from cases", OF_GATEWAY),
    (
        "insert into cases (conversation_id, business_id, customer_id, state, opened_at, waiting_since)
         values ({conversation}, {business}, gen_random_uuid(), 'waiting', now(), now()) on conflict do nothing",
        OF_GATEWAY,
    ),
    ("update cases set given_back = 1", OF_GATEWAY),
    ("delete from cases", NOBODY),
    ("select candidates from assignments", OF_GATEWAY),
    (
        "insert into assignments (conversation_id, business_id, case_number, agent_id, assigned_by, reason, strategy,
             waited_ms, candidates, assigned_at)
         values ({conversation}, {business}, 1, gen_random_uuid(), gen_random_uuid(), 'claimed', 'manual', 0, '[]', now())",
        OF_GATEWAY,
    ),
    ("update assignments set released_at = now(), release_reason = 'resolved'", OF_GATEWAY),
    ("update assignments set agent_id = gen_random_uuid()", NOBODY),
    ("update assignments set candidates = '[]'", NOBODY),
    ("delete from assignments", NOBODY),
    ("select assignments_within_capacity()", NOBODY),
    ("insert into staff_reads values (current_date, gen_random_uuid(), {conversation}) on conflict do nothing", OF_GATEWAY),
    ("select user_id from staff_reads", NOBODY),
    ("update staff_reads set day = current_date", NOBODY),
    ("delete from staff_reads", NOBODY),
    ("select swept_at from case_sweeps for update", OF_GATEWAY),
    ("update case_sweeps set swept_at = now()", OF_GATEWAY),
    ("update case_sweeps set only_one = true", NOBODY),
    ("insert into case_sweeps values (true, now()) on conflict do nothing", NOBODY),
    ("delete from case_sweeps", NOBODY),
];

const REST: &[Line] = &[
    ("select event from outbox", OF_GATEWAY),
    (
        "insert into outbox (conversation_id, version, event, created_at) values (gen_random_uuid(), 1, '', now())",
        OF_GATEWAY,
    ),
    ("select event from outbox for update", OF_GATEWAY),
    ("update outbox set event = ''", NOBODY),
    ("delete from outbox where version = 0", OF_GATEWAY),
    ("select address from notification_devices", &[Gateway, Notifier, TextNotifier]),
    ("update notification_devices set address = ''", OF_GATEWAY),
    ("delete from notification_devices where user_id = gen_random_uuid()", &[Gateway, Notifier, TextNotifier]),
    (
        "insert into notification_devices
         values (gen_random_uuid(), gen_random_uuid(), 'fcm', '', null, '', '', now())",
        OF_GATEWAY,
    ),
    ("select payload from dead_letters", OF_PERSISTER),
    (
        "insert into dead_letters (stream_name, stream_seq, subject, payload, reason, created_at)
         values ('none', 1, '', '', '', now())",
        OF_PERSISTER,
    ),
    ("delete from dead_letters where stream_name = 'none'", OF_PERSISTER),
    ("select last_stream_seq from log_checkpoints", &[Gateway, Persister]),
    ("update log_checkpoints set incarnation = database_incarnation()", OF_PERSISTER),
    ("update log_checkpoints set stream_created_at = now()", NOBODY),
    ("delete from log_checkpoints where stream_name = 'none'", OF_PERSISTER),
    ("select next_stream_seq from log_gaps", OF_PERSISTER),
    (
        "insert into log_gaps (stream_name, next_stream_seq, last_stream_seq, was_acked, found_at)
         values ('none', 1, 1, true, now())",
        OF_PERSISTER,
    ),
    (
        "select restore_conversation(gen_random_uuid(), 'group', 1, array[gen_random_uuid()], '{owner}', '{}', now())",
        OF_PERSISTER,
    ),
    (
        "select restore_conversation(gen_random_uuid(), 'business', 1, array[gen_random_uuid()], '{customer}', '{}', now(),
             gen_random_uuid(), 1, 'waiting', now())",
        OF_PERSISTER,
    ),
    ("select version from _sqlx_migrations", ALL),
    ("delete from _sqlx_migrations", NOBODY),
];

const SERVER: &[Line] = &[
    ("create table mine (one integer)", NOBODY),
    ("create function mine() returns integer language sql as 'select 1'", NOBODY),
    ("create schema mine", NOBODY),
    ("create role mine", NOBODY),
    ("set role postgres", NOBODY),
    ("set role chat_owner", NOBODY),
    ("set role chat_gateway", OF_GATEWAY),
    ("set role chat_notifier_text", &[TextNotifier]),
    ("grant chat_retention to chat_gateway", NOBODY),
    ("alter role chat_gateway superuser", NOBODY),
    ("select rolpassword from pg_authid", NOBODY),
    ("select pg_read_file('/etc/passwd')", NOBODY),
    ("copy (select 1) to program 'true'", NOBODY),
];

#[test]
fn r6_4_each_service_does_in_postgres_what_it_needs_and_nothing_else() -> Result<()> {
    on_own_fleet(Setup::default().with_own_servers(), async |fleet| {
        let Filled { partition, conversation, business } = fill(fleet).await?;
        let mut found = Vec::new();
        for login in SERVICES {
            let mut connection = PgConnection::connect(&fleet.urls().of(login).postgres).await?;
            let lines = [MESSAGES, KEYS, AGEING, COLD, ERASURE, CONVERSATIONS, BUSINESSES, REST, SERVER];
            for (statement, allowed) in lines.into_iter().flatten() {
                let tried = statement
                    .replace("{partition}", &partition)
                    .replace("{conversation}", &conversation)
                    .replace("{business}", &business);
                let could = try_it(&mut connection, &tried).await.with_context(|| format!("{login:?}: {tried}"))?;
                found.push((*statement, login, allowed.contains(&login), could));
            }
            connection.close().await?;
        }
        assert_as_stated(&found)
    })
}

/// Whether it may be done. What was done is undone.
async fn try_it(connection: &mut PgConnection, statement: &str) -> Result<bool> {
    let mut transaction = connection.begin().await?;
    let outcome = transaction.execute(AssertSqlSafe(statement.to_owned())).await;
    transaction.rollback().await?;
    match outcome {
        Ok(_) => Ok(true),
        Err(error) => {
            let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
            if code.as_deref() == Some(NO_RIGHT) { Ok(false) } else { Err(error.into()) }
        }
    }
}

/// The rows that the statements name.
struct Filled {
    /// A table.
    partition: String,
    /// A quoted id.
    conversation: String,
    /// A quoted id.
    business: String,
}

/// Makes a stored message in a direct conversation, a group, and a business conversation whose case waits.
async fn fill(fleet: &TestFleet) -> Result<Filled> {
    let [asha, bikram, agent] = fleet.people()?;
    let conversation_id = fleet.direct(&asha, &bikram).await?;
    fleet.group(&asha, &[&bikram]).await?;
    let business_id = fleet.business(&[(&agent, StaffRole::Agent)]).await?;
    let case_of = fleet.business_conversation(&asha, business_id).await?;
    fleet.api(&asha, 0).say(conversation_id, &said(1)).await?;
    let url = &fleet.urls().postgres;
    database::wait_until_stored(url, conversation_id, 1).await?;
    let mut connection = PgConnection::connect(url).await?;
    let row = connection.fetch_one("select tableoid::regclass::text from messages").await?;
    connection.close().await?;
    Ok(Filled {
        partition: row.try_get(0)?,
        conversation: format!("'{}'", case_of.as_uuid()),
        business: format!("'{}'", business_id.as_uuid()),
    })
}
