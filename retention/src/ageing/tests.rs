//! Tests with a real PostgreSQL: exactly what is due ages out, whatever fails meanwhile. The days are those before
//! today, since PostgreSQL decides by its own clock.

use chat_dev::{
    servers::{Login, Urls, postgres::copy_database},
    test_servers::{TestServers, unique_namespace},
    wait,
};
use chat_shared::{
    clock::Clock,
    ids::ConversationId,
    postgres::{self, MIGRATOR},
    settings::PostgresSettings,
};
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row, types::Uuid};
use tokio::task::JoinSet;

use super::*;
use crate::{migrate::migrate, unread_audit::UnreadAudit};

const DEADLINE: Duration = Duration::from_mins(1);
/// The days before today that have a partition.
const DAYS_AGO: [i32; 7] = [0, 89, 90, 91, 97, 98, 99];
/// Those among them that are more than 90 days old.
const DUE: [i32; 4] = [91, 97, 98, 99];
/// Those whose keys are left once all that is due is done.
const DAYS_LEFT: [i32; 5] = [0, 89, 90, 91, 97];
/// PostgreSQL's code for a day that is not due, or a step out of turn.
const NOT_DUE: &str = "55000";

struct Scene {
    urls: Urls,
    /// The superuser's.
    pool: PgPool,
    /// Retention's.
    retention: PgPool,
    ageing: Ageing,
    today: Date,
}

fn connect(url: String) -> PgPool {
    postgres::connect(&PostgresSettings::new(url, 4), "test").unwrap()
}

impl Scene {
    /// Each of [`DAYS_AGO`] has a partition, a key, and a conversation with messages in it and in no other.
    async fn set() -> Self {
        let urls = TestServers::from_env().unwrap().isolated().await.unwrap();
        let pool = connect(urls.postgres.clone());
        let today = sqlx::query_scalar!(r#"select message_today() as "today!""#).fetch_one(&pool).await.unwrap();
        let scene = Self::of(urls, today);
        for days_ago in DAYS_AGO {
            let day = scene.day(days_ago);
            sqlx::query!("select make_message_partition($1)", day).fetch_one(&scene.pool).await.unwrap();
            sqlx::query!("insert into content_keys values ($1, 'test', $2, now())", day, key(days_ago))
                .execute(&scene.pool)
                .await
                .unwrap();
            scene.talk(&[days_ago, days_ago]).await;
        }
        steps::record_days(&scene.retention).await.unwrap();
        scene
    }

    /// A copy of the database; its name.
    async fn backup(&mut self) -> String {
        let servers = TestServers::from_env().unwrap();
        let (backup, urls) = (unique_namespace(), self.urls.clone());
        let (_, name) = urls.postgres.rsplit_once('/').unwrap();
        self.pool.close().await;
        self.retention.close().await;
        copy_database(&servers.postgres_url, name, &backup).await.unwrap();
        *self = Self::of(urls, self.today);
        backup
    }

    /// The database that was copied, as it was then.
    fn restored(&self, backup: &str) -> Self {
        let (server, _) = self.urls.postgres.rsplit_once('/').unwrap();
        Self::of(Urls { postgres: format!("{server}/{backup}"), ..self.urls.clone() }, self.today)
    }

    fn of(urls: Urls, today: Date) -> Self {
        let (pool, retention) = (connect(urls.postgres.clone()), connect(urls.of(Login::Retention).postgres));
        Self { urls, pool, ageing: Ageing::new(retention.clone()), retention, today }
    }

    /// The stored keys, those of the youngest days first.
    async fn keys(&self) -> Vec<Vec<u8>> {
        let statement = sqlx::raw_sql("select wrapped from content_keys order by day desc");
        statement.fetch_all(&self.pool).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    fn day(&self, days_ago: i32) -> Date {
        self.today - time::Duration::days(days_ago.into())
    }

    fn partition(&self, days_ago: i32) -> String {
        let day = self.day(days_ago);
        format!("messages_{}{:02}{:02}", day.year(), u8::from(day.month()), day.day())
    }

    /// A conversation of two, with a message so many days ago each.
    async fn talk(&self, days_ago: &[i32]) -> Uuid {
        let conversation_id = ConversationId::random().as_uuid();
        sqlx::query!(
            "insert into conversations (conversation_id, kind, created_at, last_activity_at)
             values ($1, 'group', now() - interval '99 days', now() - interval '99 days')",
            conversation_id
        )
        .execute(&self.pool)
        .await
        .unwrap();
        for days_ago in days_ago {
            self.say(conversation_id, *days_ago).await.unwrap();
        }
        for _ in 0..2 {
            sqlx::query!(
                "insert into participants (conversation_id, user_id, role, joined_at)
                 values ($1, gen_random_uuid(), 'member', now())",
                conversation_id
            )
            .execute(&self.pool)
            .await
            .unwrap();
        }
        conversation_id
    }

    /// Stores the next message as persisters do.
    async fn say(&self, conversation_id: Uuid, days_ago: i32) -> sqlx::Result<()> {
        let mut transaction = self.pool.begin().await?;
        let sent_at = self.day(days_ago).midnight().assume_utc();
        sqlx::query!(
            "insert into messages (conversation_id, seq, sent_at, message_id, sender_id, envelope)
             select $1, last_seq + 1, $2, gen_random_uuid(), gen_random_uuid(), 'sealed'
             from conversations where conversation_id = $1",
            conversation_id,
            sent_at,
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!(
            "update conversations set last_seq = last_seq + 1, last_message_at = $2, last_activity_at = $2
             where conversation_id = $1",
            conversation_id,
            sent_at,
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    async fn pass(&mut self) -> Pass {
        self.ageing.pass().await.unwrap()
    }

    /// Passes until nothing is due. It may take some: a key's bytes are kept while transactions run that began before,
    /// also those of other tests.
    async fn age(&self) {
        wait::until("ageing out", DEADLINE, async || {
            let pass = Ageing::new(self.retention.clone()).pass().await?;
            assert_eq!((pass.failures, pass.faults), (0, 0));
            Ok((!self.are_steps_left().await).then_some(()))
        })
        .await
        .unwrap();
    }

    /// As if a week had passed since days were soft-deleted.
    async fn pass_a_week(&self) {
        sqlx::query!("update message_days set soft_deleted_at = soft_deleted_at - interval '7 days'")
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// The days of messages with a `deleted_at` and of those without, each as how long ago it is.
    async fn messages(&self) -> (Vec<i32>, Vec<i32>) {
        let days = sqlx::query!(
            r#"select message_today() - (sent_at at time zone 'UTC')::date as "days_ago!",
                   deleted_at is not null as "is_deleted!"
               from messages order by 1"#
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let of = |is_deleted| days.iter().filter(|day| day.is_deleted == is_deleted).map(|day| day.days_ago).collect();
        (of(true), of(false))
    }

    async fn floor(&self, conversation_id: Uuid) -> i64 {
        sqlx::query_scalar!("select floor_seq from conversations where conversation_id = $1", conversation_id)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    async fn unread(&self, conversation_id: Uuid) -> Vec<i64> {
        sqlx::query_scalar!(
            r#"select unread_count(last_seq, floor_seq, read_seq, own_runs) as "unread!"
               from conversations join participants using (conversation_id) where conversation_id = $1"#,
            conversation_id
        )
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    async fn state(&self, days_ago: i32) -> String {
        sqlx::query_scalar!("select state from message_days where day = $1", self.day(days_ago))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Everything in the database that has the day in its name or its key.
    async fn traces(&self, days_ago: i32) -> i64 {
        let like = format!("{}%", self.partition(days_ago));
        sqlx::query_scalar!(
            r#"select (select count(*) from pg_class where relname like $1)
                   + (select count(*) from pg_type where typname like $1)
                   + (select count(*) from content_keys where day = $2) as "traces!""#,
            like,
            self.day(days_ago),
        )
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }

    /// Fails if 91 days and more are not soft-deleted, or 98 days and more not gone, or anything else is.
    async fn assert_aged(&self) {
        assert_eq!(self.messages().await, (vec![91, 91, 97, 97], vec![0, 0, 89, 89, 90, 90]));
        for (days_ago, state) in DAYS_AGO.into_iter().zip(["hot", "hot", "hot", "deleted", "deleted", "gone", "gone"]) {
            assert_eq!(self.state(days_ago).await, state, "{days_ago}");
            assert_eq!(self.traces(days_ago).await == 0, state == "gone", "{days_ago}");
        }
    }

    /// Whether anything is due, or is as soon as transactions have ended.
    async fn are_steps_left(&self) -> bool {
        let is_retiring = sqlx::query_scalar!("select day from message_days where state = 'retiring'");
        let retiring = is_retiring.fetch_all(&self.pool).await.unwrap();
        !retiring.is_empty() || !steps::due_days(&self.retention).await.unwrap().is_empty()
    }
}

/// The stored key of a day.
fn key(days_ago: i32) -> Vec<u8> {
    format!("the wrapped key of {days_ago} days ago").into_bytes()
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(Into::into)
}

#[tokio::test]
async fn r1_5_r1_6_exactly_the_days_that_are_due_are_soft_deleted_and_a_week_later_removed() {
    let mut scene = Scene::set().await;
    let pass = scene.pass().await;
    assert_eq!((pass.failures, pass.faults), (0, 0));
    let due = vec![91, 91, 97, 97, 98, 98, 99, 99];
    assert_eq!(scene.messages().await, (due.clone(), vec![0, 0, 89, 89, 90, 90]));
    for days_ago in DAYS_AGO {
        let state = if DUE.contains(&days_ago) { "deleted" } else { "hot" };
        assert_eq!(scene.state(days_ago).await, state, "{days_ago}");
        assert!(scene.traces(days_ago).await > 0, "{days_ago}");
    }
    // However old they are, they stay for a week after they were soft-deleted.
    assert_eq!(scene.pass().await, Pass::default());
    assert_eq!(scene.messages().await.0, due);
    scene.pass_a_week().await;
    scene.age().await;
    scene.assert_aged().await;
    assert_eq!(scene.pass().await, Pass::default());
}

#[tokio::test]
async fn r1_5_what_has_aged_out_is_neither_counted_nor_shown() {
    let mut scene = Scene::set().await;
    let through = scene.talk(&[99, 98, 97, 91, 91, 90, 89, 0]).await;
    let over = scene.talk(&[98, 91]).await;
    // One has sent the fourth and the sixth, the other one has read the fifth.
    sqlx::query!(
        "update participants set own_runs = '{[4,5),[6,7)}'
         where conversation_id = $1
             and user_id = (select min(user_id::text)::uuid from participants where conversation_id = $1)",
        through
    )
    .execute(&scene.pool)
    .await
    .unwrap();
    assert_eq!(scene.unread(over).await, [2, 2]);
    scene.pass().await;
    assert_eq!((scene.floor(through).await, scene.floor(over).await), (5, 2));
    let mut unread = scene.unread(through).await;
    unread.sort_unstable();
    assert_eq!((unread, scene.unread(over).await), (vec![2, 3], vec![0, 0]));
    // The list of unread messages is compared with the rows; own messages are not counted there.
    sqlx::query!("update participants set own_runs = '{}'").execute(&scene.pool).await.unwrap();
    let mut audit = UnreadAudit::new(scene.retention.clone(), Clock::System);
    assert_eq!(audit.pass().await.unwrap(), 0);
    scene.pass_a_week().await;
    scene.age().await;
    assert_eq!(audit.pass().await.unwrap(), 0);
    assert_eq!(scene.unread(over).await, [0, 0]);
    // The conversation goes on with the numbers that it had.
    scene.say(over, 0).await.unwrap();
    assert_eq!(scene.unread(over).await, [1, 1]);
}

#[tokio::test]
async fn r1_6_dead_letters_and_ledgers_of_that_age_go_and_open_assignments_stay() {
    let mut scene = Scene::set().await;
    scene
        .pool
        .execute(
            "insert into businesses (business_id) values ('8d5ff1f5-4d4f-4b8f-8e0f-6f1b3a1f0001');
             insert into dead_letters (stream_name, stream_seq, subject, payload, reason, created_at)
             select 'log', n, '', '', '', now() - n * interval '1 day' from unnest(array[1, 89, 92, 98, 99]) n;
             insert into staff_reads
             select message_today() - n, gen_random_uuid(), (select min(conversation_id::text)::uuid from conversations)
             from unnest(array[1, 97, 98, 99, 400]) n;
             insert into assignments (conversation_id, business_id, case_number, agent_id, assigned_by, reason, strategy,
                 waited_ms, candidates, assigned_at, released_at, release_reason)
             select conversation_id, '8d5ff1f5-4d4f-4b8f-8e0f-6f1b3a1f0001', 1, gen_random_uuid(), gen_random_uuid(),
                 'claimed', 'manual', 0, '[]', now() - interval '400 days', now() - n * interval '1 day',
                 case when n is not null then 'resolved' end
             from (select conversation_id from conversations limit 1) c, unnest(array[1, 96, 99, 399, null]) n;",
        )
        .await
        .unwrap();
    scene.pass().await;
    scene.pass_a_week().await;
    scene.age().await;
    let left = sqlx::query!(
        r#"select array(select stream_seq from dead_letters order by 1) as "letters!",
               array(select message_today() - day from staff_reads order by 1) as "reads!",
               (select count(*) from assignments where released_at is null) as "open!",
               (select count(*) from assignments where released_at is not null) as "released!""#
    )
    .fetch_one(&scene.pool)
    .await
    .unwrap();
    assert_eq!((left.letters, left.reads), (vec![1, 89], vec![1, 97]));
    assert_eq!((left.open, left.released), (1, 2));
}

#[tokio::test]
async fn r1_6_no_byte_of_a_destroyed_key_stays_in_its_table() {
    let scene = Scene::set().await;
    let has_bytes = async |days_ago: i32| {
        scene.pool.execute("checkpoint").await.unwrap();
        sqlx::query_scalar!(
            r#"select position($1 in pg_read_binary_file(pg_relation_filepath('content_keys'))) > 0 as "has!""#,
            key(days_ago)
        )
        .fetch_one(&scene.pool)
        .await
        .unwrap()
    };
    assert!(has_bytes(98).await && has_bytes(97).await);
    scene.age().await;
    scene.pass_a_week().await;
    // The bytes are kept for a transaction that began before.
    let mut running = scene.pool.begin().await.unwrap();
    running.execute("select pg_current_xact_id()").await.unwrap();
    assert_eq!(Ageing::new(scene.retention.clone()).pass().await.unwrap().failures, 0);
    assert_eq!(scene.state(98).await, "retiring");
    assert!(has_bytes(98).await);
    running.rollback().await.unwrap();
    scene.age().await;
    assert!(!has_bytes(98).await && !has_bytes(99).await && has_bytes(97).await);
}

#[tokio::test]
async fn floors_are_raised_some_conversations_at_a_time_and_none_is_left_out() {
    let scene = Scene::set().await;
    let mut talks = Vec::new();
    for _ in 0..5 {
        talks.push(scene.talk(&[99, 91, 91, 0]).await);
    }
    let day = scene.day(91);
    steps::perform(&scene.retention, day, Step::Begin, BATCH_MAX).await.unwrap();
    let mut raised = Vec::new();
    while steps::next(&scene.retention, day).await.unwrap() == Some(Step::RaiseFloors) {
        let batch =
            sqlx::query_scalar!("select raise_day_floors($1, 2)", day).fetch_one(&scene.retention).await.unwrap();
        raised.extend(batch);
    }
    assert_eq!(raised, [2, 2, 2, 0]);
    for talk in talks {
        assert_eq!((scene.floor(talk).await, scene.unread(talk).await), (3, vec![1, 1]));
    }
}

#[tokio::test]
async fn several_instances_at_once_do_everything_once() {
    let mut scene = Scene::set().await;
    for _ in 0..30 {
        scene.talk(&[91, 98]).await;
    }
    let mut others = [Ageing::new(scene.retention.clone()), Ageing::new(scene.retention.clone())];
    for _ in 0..2 {
        let [first, second] = &mut others;
        let (one, two, three) = tokio::try_join!(first.pass(), second.pass(), scene.ageing.pass()).unwrap();
        assert_eq!(one.failures + two.failures + three.failures, 0);
        // An instance leaves a day that another one is at.
        scene.age().await;
        scene.pass_a_week().await;
    }
    assert_eq!(scene.state(98).await, "gone");
    assert_eq!(scene.traces(98).await, 0);
    let floors =
        sqlx::query_scalar!(r#"select floor_seq as "floor" from conversations where last_seq > 1 and floor_seq = 2"#);
    assert_eq!(floors.fetch_all(&scene.pool).await.unwrap().len(), 30 + DUE.len());
}

#[tokio::test]
async fn an_instance_that_ends_after_any_step_leaves_the_rest_to_another() {
    let scene = Scene::set().await;
    let mut done = 0;
    for _ in 0..2 {
        while scene.are_steps_left().await {
            let next_day = async || Ok(steps::due_days(&scene.retention).await?.first().copied());
            let day = wait::until("a day that is due", DEADLINE, next_day).await.unwrap();
            // Each step by an instance of its own, which knows nothing of the one before; the last one before it died
            // half-way.
            let instance = connect(scene.urls.of(Login::Retention).postgres);
            let step = steps::next(&instance, day).await.unwrap().unwrap();
            let mut cut_off = scene.pool.begin().await.unwrap();
            sqlx::query!("select day from message_days where day = $1 for update", day)
                .fetch_one(&mut *cut_off)
                .await
                .unwrap();
            assert_eq!(steps::perform(&instance, day, step, BATCH_MAX).await.unwrap(), None, "another one is at it");
            cut_off.rollback().await.unwrap();
            assert!(steps::perform(&instance, day, step, BATCH_MAX).await.unwrap().is_some());
            instance.close().await;
            done += 1;
        }
        scene.pass_a_week().await;
    }
    // Begin, two of floors, soft deletion; key, rewriting, detaching, dropping, one of ledgers.
    assert_eq!(done, DUE.len() * 4 + 2 * 5);
    scene.assert_aged().await;
}

#[tokio::test]
async fn a_reader_that_holds_all_days_delays_only_what_needs_their_lock() {
    let mut scene = Scene::set().await;
    let mut reader = scene.pool.begin().await.unwrap();
    sqlx::query!("select count(*) from messages").fetch_one(&mut *reader).await.unwrap();
    let pass = scene.pass().await;
    assert_eq!(pass.failures, 0);
    assert_eq!(
        pass.refusals, REFUSALS_MAX,
        "a pass gives up for all days, so that messages aren't held up again and again"
    );
    let talk = scene.talk(&[0]).await;
    scene.say(talk, 0).await.unwrap();
    for days_ago in DUE {
        assert_eq!(scene.state(days_ago).await, "deleting", "floors are raised");
    }
    assert!(scene.messages().await.0.is_empty());
    reader.rollback().await.unwrap();
    scene.pass().await;
    assert_eq!(scene.messages().await.0.len(), 2 * DUE.len());
}

#[tokio::test]
async fn a_reader_that_holds_one_day_delays_no_other_day() {
    let mut scene = Scene::set().await;
    let mut reader = scene.pool.begin().await.unwrap();
    let read = format!("select count(*) from {}", scene.partition(97));
    reader.execute(AssertSqlSafe(read)).await.unwrap();
    let pass = scene.pass().await;
    assert_eq!((pass.refusals, pass.failures), (ATTEMPTS_MAX, 0));
    for (days_ago, state) in [(97, "deleting"), (91, "deleted"), (98, "deleted"), (99, "deleted")] {
        assert_eq!(scene.state(days_ago).await, state, "{days_ago}");
    }
    reader.rollback().await.unwrap();
    scene.pass().await;
    assert_eq!(scene.state(97).await, "deleted");
}

#[tokio::test]
async fn a_writer_that_holds_a_conversation_delays_only_its_days() {
    let mut scene = Scene::set().await;
    let talk = scene.talk(&[97, 0]).await;
    let mut writer = scene.pool.begin().await.unwrap();
    sqlx::query!("select version from conversations where conversation_id = $1 for update", talk)
        .fetch_one(&mut *writer)
        .await
        .unwrap();
    let pass = scene.pass().await;
    assert_eq!((pass.refusals, pass.failures), (ATTEMPTS_MAX, 0));
    for (days_ago, state) in [(97, "deleting"), (91, "deleted"), (98, "deleted"), (99, "deleted")] {
        assert_eq!(scene.state(days_ago).await, state, "{days_ago}");
    }
    writer.rollback().await.unwrap();
    scene.pass().await;
    assert_eq!((scene.state(97).await.as_str(), scene.floor(talk).await), ("deleted", 1));
}

#[tokio::test]
async fn partitions_that_others_have_made_are_reported_and_nothing_ages_out_until_they_are_mended() {
    let mut scene = Scene::set().await;
    let before = scene.messages().await;
    let by_hand = [
        // Another name, other bounds, no check, named like one and detached, of the rest.
        "create table old_messages partition of messages for values from ('2001-01-01') to ('2002-01-01')",
        "create table messages_20010101 partition of messages for values from ('2001-01-01') to ('2002-01-01')",
        "create table messages_20010101 partition of messages for values from ('2001-01-01') to ('2001-01-02')",
        "create table messages_20010101 (like messages)",
        "create table messages_rest partition of messages default",
    ];
    for (count, statement) in by_hand.into_iter().enumerate() {
        scene.pool.execute(statement).await.unwrap();
        let name = statement.split(' ').nth(2).unwrap();
        let fill = format!(
            "insert into {name} (conversation_id, seq, sent_at, message_id, sender_id, envelope)
             values (gen_random_uuid(), 1, '2001-01-01 12:00+00', gen_random_uuid(), gen_random_uuid(), '')"
        );
        scene.pool.execute(AssertSqlSafe(fill)).await.unwrap();
        let pass = scene.pass().await;
        assert_eq!(pass, Pass { faults: 1, ..Pass::default() }, "{statement}");
        assert!(scene.ageing.faults[0].contains(name), "{:?}", scene.ageing.faults);
        let left = sqlx::raw_sql(AssertSqlSafe(format!("delete from {name} where deleted_at is null")));
        assert_eq!(left.execute(&scene.pool).await.unwrap().rows_affected(), 1);
        assert_eq!(scene.messages().await, before, "{count}");
        scene.pool.execute(AssertSqlSafe(format!("drop table {name}"))).await.unwrap();
    }
    scene.pass().await;
    assert_eq!(scene.messages().await.0.len(), 2 * DUE.len());
}

#[tokio::test]
async fn a_pending_detach_is_reported_with_its_remedy() {
    let mut scene = Scene::set().await;
    let mut reader = scene.pool.begin().await.unwrap();
    sqlx::query!("select count(*) from messages").fetch_one(&mut *reader).await.unwrap();
    let mut operator = scene.pool.acquire().await.unwrap();
    operator.execute("set statement_timeout = '100ms'").await.unwrap();
    let detach = format!("alter table messages detach partition {} concurrently", scene.partition(98));
    operator.execute(AssertSqlSafe(detach)).await.unwrap_err();
    operator.execute("reset statement_timeout").await.unwrap();
    reader.rollback().await.unwrap();
    assert_eq!(scene.pass().await, Pass { faults: 1, ..Pass::default() });
    let fault = scene.ageing.faults[0].clone();
    let (_, remedy) = fault.split_once('`').unwrap();
    operator.execute(AssertSqlSafe(remedy.trim_end_matches('`').to_owned())).await.unwrap();
    // Detached by hand it is no partition any more: the operator decides what becomes of it.
    assert_eq!(scene.pass().await.faults, 1);
    operator.execute(AssertSqlSafe(format!("alter table {} rename to kept", scene.partition(98)))).await.unwrap();
    scene.pass().await;
    assert_eq!(scene.messages().await.0, [91, 91, 97, 97, 99, 99]);
    let kept = sqlx::raw_sql("delete from kept where deleted_at is null").execute(&scene.pool).await.unwrap();
    assert_eq!(kept.rows_affected(), 2);
}

#[tokio::test]
async fn messages_are_stored_meanwhile_without_an_error() {
    let scene = Scene::set().await;
    let talk = scene.talk(&[0]).await;
    let (draining, mut tasks) = (CancellationToken::new(), JoinSet::new());
    for _ in 0..2 {
        let (persister, draining) = (connect(scene.urls.of(Login::Persister).postgres), draining.clone());
        let sent_at = scene.today.midnight().assume_utc();
        tasks.spawn(async move {
            let mut stored: u64 = 0;
            while !draining.is_cancelled() {
                let inserted = sqlx::query!(
                    "insert into messages (conversation_id, seq, sent_at, message_id, sender_id, envelope)
                     values ($1, (random() * 1e15)::bigint + 9, $2, gen_random_uuid(), gen_random_uuid(), '')",
                    talk,
                    sent_at,
                )
                .execute(&persister)
                .await?;
                stored += inserted.rows_affected();
            }
            Ok::<u64, sqlx::Error>(stored)
        });
    }
    for _ in 0..2 {
        scene.age().await;
        scene.pass_a_week().await;
    }
    draining.cancel();
    let mut stored = 0;
    while let Some(ended) = tasks.join_next().await {
        stored += ended.unwrap().unwrap();
    }
    let (deleted, others) = scene.messages().await;
    assert_eq!(deleted, [91, 91, 97, 97]);
    assert_eq!(others.len() as u64, 2 + 1 + 4 + stored);
}

#[tokio::test]
async fn r1_5_a_message_that_comes_after_its_day_was_deleted_is_deleted_too() {
    let mut scene = Scene::set().await;
    let talk = scene.talk(&[99, 91]).await;
    scene.pass().await;
    scene.say(talk, 91).await.unwrap();
    let (deleted, others) = scene.messages().await;
    assert_eq!(deleted.iter().filter(|days_ago| **days_ago == 91).count(), 4);
    assert_eq!(others, [0, 0, 89, 89, 90, 90]);
    assert_eq!((scene.floor(talk).await, scene.unread(talk).await), (3, vec![0, 0]));
}

#[tokio::test]
async fn a_day_that_was_gone_and_has_a_partition_again_ages_out_again() {
    let mut scene = Scene::set().await;
    scene.pass().await;
    scene.pass_a_week().await;
    scene.age().await;
    assert_eq!(scene.state(98).await, "gone");
    sqlx::query!("select make_message_partition($1)", scene.day(98)).fetch_one(&scene.pool).await.unwrap();
    scene.talk(&[98]).await;
    scene.pass().await;
    assert_eq!(scene.state(98).await, "deleted");
    scene.pass_a_week().await;
    scene.age().await;
    scene.assert_aged().await;
}

#[tokio::test]
async fn r1_6_a_key_that_was_destroyed_after_a_backup_is_destroyed_again_by_the_first_pass_on_the_backup() {
    let mut scene = Scene::set().await;
    scene.pass().await;
    scene.pass_a_week().await;
    let backup = scene.backup().await;
    scene.age().await;
    scene.assert_aged().await;
    let mut restored = scene.restored(&backup);
    assert_eq!(restored.keys().await, DAYS_AGO.map(key), "the backup has the keys of its time");
    // One pass, as a retention makes that starts after the restore.
    let pass = restored.pass().await;
    assert_eq!((pass.failures, pass.faults), (0, 0));
    assert_eq!(restored.keys().await, DAYS_LEFT.map(key));
    restored.age().await;
    restored.assert_aged().await;
}

#[tokio::test]
async fn r1_6_the_documented_statements_bring_no_destroyed_key_back_whatever_the_age_of_the_backup() {
    const DOCUMENT: &str = include_str!("../../../docs/operations.md");
    const DESTROY: &str = "delete from content_keys where day + 98 <= (now() at time zone 'UTC')::date";
    const LOAD: &str = "insert into content_keys select * from copy where day > (select max(day) from content_keys)";
    assert!(DOCUMENT.contains(DESTROY) && DOCUMENT.contains(LOAD));
    // Days that were hot in the backup are soft-deleted first, and stay for a week.
    let mut restored = Scene::set().await;
    let owner = connect(restored.urls.of(Login::Owner).postgres);
    let mut session = owner.acquire().await.unwrap();
    let copy = "create temporary table copy (like content_keys);
         insert into copy select * from content_keys;
         delete from content_keys where day = message_today()";
    for statements in [copy, DESTROY, LOAD] {
        sqlx::raw_sql(statements).execute(&mut *session).await.unwrap();
    }
    assert_eq!(restored.keys().await, DAYS_LEFT.map(key));
    restored.pass().await;
    assert_eq!(restored.messages().await.0, [91, 91, 97, 97, 98, 98, 99, 99]);
    restored.pass_a_week().await;
    restored.age().await;
    restored.assert_aged().await;
}

#[tokio::test]
async fn r1_5_r1_6_with_retentions_credential_nothing_goes_that_is_not_due() {
    let scene = Scene::set().await;
    // One connection: PostgreSQL gives an error away before it lets go of the row, and another connection would find it
    // locked.
    let thief = PostgresSettings::new(scene.urls.of(Login::Retention).postgres, 1);
    let thief = postgres::connect(&thief, "test").unwrap();
    let all = [
        Step::Begin,
        Step::RaiseFloors,
        Step::SoftDelete,
        Step::DestroyKey,
        Step::RewriteKeys,
        Step::Detach,
        Step::Drop,
        Step::Forget,
    ];
    let refused = async |days_ago: i32, steps: &[Step]| {
        for step in steps {
            let error = steps::perform(&thief, scene.day(days_ago), *step, BATCH_MAX).await.unwrap_err();
            assert_eq!(code(&error).as_deref(), Some(NOT_DUE), "{step:?} of {days_ago} days ago: {error}");
        }
    };
    for days_ago in [-1, 0, 1, 89, 90] {
        refused(days_ago, &all).await;
    }
    // Old enough, but out of turn.
    for days_ago in [91, 97, 98, 99] {
        refused(days_ago, &all[1..]).await;
    }
    assert!(scene.messages().await.0.is_empty());
    Ageing::new(scene.retention.clone()).pass().await.unwrap();
    let deleted = scene.messages().await;
    for days_ago in [91, 97, 98, 99] {
        refused(days_ago, &all[3..]).await;
    }
    scene.pass_a_week().await;
    refused(91, &all[3..]).await;
    refused(97, &all[3..]).await;
    refused(98, &all[4..]).await;
    assert_eq!(scene.messages().await, deleted);
    for step in all {
        let unknown = Date::from_calendar_date(1999, time::Month::January, 1).unwrap();
        assert_eq!(steps::perform(&thief, unknown, step, BATCH_MAX).await.unwrap(), None, "{step:?}");
    }
}

#[tokio::test]
async fn ageing_waits_for_a_database_that_comes_later_and_ends_when_told() {
    let servers = TestServers::from_env().unwrap();
    let name = unique_namespace();
    let (server, _) = servers.postgres_url.rsplit_once('/').unwrap();
    let pool = connect(format!("{server}/{name}"));
    let (draining, mut tasks) = (CancellationToken::new(), JoinSet::new());
    tasks.spawn(Ageing::new(pool.clone()).run(draining.clone()));
    copy_database(&servers.postgres_url, &servers.postgres_template, &name).await.unwrap();
    pool.execute("select make_message_partition(message_today() - 91)").await.unwrap();
    wait::until("soft deletion", DEADLINE, async || {
        let deleted = sqlx::query_scalar!("select day from message_days where state = 'deleted'").fetch_optional(&pool);
        Ok(deleted.await?)
    })
    .await
    .unwrap();
    draining.cancel();
    tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn partitions_of_an_older_version_get_their_checks_so_that_attaching_them_reads_no_rows() {
    let servers = TestServers::from_env().unwrap();
    let name = unique_namespace();
    copy_database(&servers.postgres_url, "template1", &name).await.unwrap();
    let (server, _) = servers.postgres_url.rsplit_once('/').unwrap();
    let settings = PostgresSettings::new(format!("{server}/{name}"), 4);
    let pool = postgres::connect(&settings, "test").unwrap();
    // The last migration before days aged out.
    MIGRATOR.run_to(10, &pool).await.unwrap();
    let fill = "select make_message_partition((now() at time zone 'UTC')::date - 91);
         insert into messages (conversation_id, seq, sent_at, message_id, sender_id, envelope)
         select gen_random_uuid(), n, date_trunc('day', now(), 'UTC') - interval '91 days', gen_random_uuid(), gen_random_uuid(), ''
         from generate_series(1, 100) n";
    pool.execute(fill).await.unwrap();
    migrate(&pool, &settings).await.unwrap();
    assert!(steps::faults(&pool).await.unwrap().is_empty());
    steps::record_days(&pool).await.unwrap();
    let day = steps::due_days(&pool).await.unwrap()[0];
    for step in [Step::Begin, Step::RaiseFloors, Step::RaiseFloors] {
        steps::perform(&pool, day, step, BATCH_MAX).await.unwrap();
    }
    let mut transaction = pool.begin().await.unwrap();
    // The count has the scans of earlier transactions of the connection until PostgreSQL has reported them.
    let scans = async |connection: &mut PgConnection| {
        let scans = sqlx::query_scalar!(
            r#"select pg_stat_get_xact_numscans(inhrelid) as "scans!" from pg_inherits where inhparent = 'messages'::regclass"#
        );
        scans.fetch_one(connection).await.unwrap()
    };
    let before = scans(&mut transaction).await;
    sqlx::query!("select soft_delete_day($1)", day).fetch_one(&mut *transaction).await.unwrap();
    assert_eq!(scans(&mut transaction).await - before, 0);
    transaction.commit().await.unwrap();
    let deleted = sqlx::query_scalar!(r#"select count(*) as "count!" from messages where deleted_at is not null"#);
    assert_eq!(deleted.fetch_one(&pool).await.unwrap(), 100);
}
