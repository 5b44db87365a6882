//! Tests with a real PostgreSQL: exactly the texts of erased users go, whatever fails meanwhile, and none comes back. The days
//! are those before today, since PostgreSQL decides by its own clock.

use chat_dev::{servers::Login, test_servers::TestServers};
use chat_shared::{
    ids::{ConversationId, UserId},
    postgres,
    settings::PostgresSettings,
};
use sqlx::{Connection, Executor};
use time::{Date, OffsetDateTime};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::*;
use crate::ageing::Ageing;

/// The days before today that have messages.
const DAYS_AGO: [i32; 5] = [0, 1, 7, 20, 89];
/// Messages of each user and day: some blocks of each day.
const MESSAGES: i64 = 60;

struct Scene {
    /// The superuser's.
    pool: PgPool,
    /// Retention's.
    own: PgPool,
    persister: PgPool,
    conversation_id: Uuid,
    today: Date,
}

/// A row of `messages`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    seq: i64,
    sent_at: OffsetDateTime,
    message_id: Uuid,
    sender_id: Uuid,
    envelope: Option<Vec<u8>>,
    is_deleted: bool,
}

impl Scene {
    /// A conversation of these users with messages of each of them on each of [`DAYS_AGO`].
    async fn set(users: &[Uuid]) -> Self {
        let urls = TestServers::from_env().unwrap().isolated().await.unwrap();
        let connect = |url| postgres::connect(&PostgresSettings::new(url, 4), "test").unwrap();
        let pool = connect(urls.postgres.clone());
        let (own, persister) =
            (connect(urls.of(Login::Retention).postgres), connect(urls.of(Login::Persister).postgres));
        let today = sqlx::query_scalar!(r#"select message_today() as "today!""#).fetch_one(&pool).await.unwrap();
        let conversation_id = ConversationId::random().as_uuid();
        let scene = Self { pool, own, persister, conversation_id, today };
        sqlx::query!(
            "insert into conversations (conversation_id, kind, created_at, last_activity_at)
             values ($1, 'group', now(), now())",
            conversation_id
        )
        .execute(&scene.pool)
        .await
        .unwrap();
        let mut first = 1;
        for days_ago in DAYS_AGO.into_iter().rev() {
            scene.make_partition(days_ago).await;
            let sent_at = scene.day(days_ago).midnight().assume_utc();
            first = scene.send(users, MESSAGES, first, sent_at).await;
        }
        sqlx::query!("select record_message_days()").fetch_one(&scene.pool).await.unwrap();
        scene
    }

    fn day(&self, days_ago: i32) -> Date {
        self.today - time::Duration::days(days_ago.into())
    }

    async fn make_partition(&self, days_ago: i32) {
        sqlx::query!("select make_message_partition($1)", self.day(days_ago)).fetch_one(&self.pool).await.unwrap();
    }

    /// Stores messages of the users in turn, numbered from `first`; the number after them.
    async fn send(&self, users: &[Uuid], of_each: i64, first: i64, sent_at: OffsetDateTime) -> i64 {
        let end = first + of_each * i64::try_from(users.len()).unwrap();
        sqlx::query!(
            "insert into messages (conversation_id, seq, sent_at, message_id, sender_id, envelope)
             select $1, n, $4, gen_random_uuid(), ($5::uuid[])[1 + n % cardinality($5)],
                 convert_to(repeat('text ', 40) || n, 'UTF8')
             from generate_series($2::bigint, $3) n",
            self.conversation_id,
            first,
            end - 1,
            sent_at,
            users
        )
        .execute(&self.pool)
        .await
        .unwrap();
        end
    }

    async fn rows(&self) -> Vec<Row> {
        sqlx::query_as!(
            Row,
            r#"select seq, sent_at, message_id, sender_id, envelope, deleted_at is not null as "is_deleted!"
               from messages order by seq"#
        )
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    async fn texts_of(&self, user_id: Uuid) -> usize {
        self.rows().await.iter().filter(|row| row.sender_id == user_id && row.envelope.is_some()).count()
    }

    /// Requests an erasure whose account has ended.
    async fn erase(&self, user_id: Uuid) {
        sqlx::query!("select request_erasure($1)", user_id).fetch_one(&self.pool).await.unwrap();
        sqlx::query!("select finish_account_erasure($1)", user_id).fetch_one(&self.pool).await.unwrap();
    }

    /// As if so many days had passed since everything that was erased so far.
    async fn pass_days(&self, days: i32) {
        sqlx::query!(
            "update erasures set requested_at = requested_at - make_interval(days => $1),
                 account_erased_at = account_erased_at - make_interval(days => $1),
                 swept_at = swept_at - make_interval(days => $1)",
            days
        )
        .execute(&self.pool)
        .await
        .unwrap();
    }

    async fn is_erased(&self, user_id: Uuid) -> bool {
        let erased_at = sqlx::query_scalar!("select erased_at from erasures where user_id = $1", user_id);
        erased_at.fetch_one(&self.pool).await.unwrap().is_some()
    }

    async fn pass(&self) -> u64 {
        Erasing::new(self.own.clone()).pass().await.unwrap()
    }

    /// An instance whose transactions read one block.
    fn slow(&self) -> Erasing {
        Erasing { blocks: Batch::new(1, 1), ..Erasing::new(self.own.clone()) }
    }

    /// Does what the persister does with entries of the log that it stores again.
    async fn replay(&self, rows: &[Row]) -> u64 {
        let mut inserted = 0;
        for row in rows {
            let insertion = sqlx::query!(
                "insert into messages (conversation_id, seq, sent_at, message_id, sender_id, envelope)
                 values ($1, $2, $3, $4, $5, $6) on conflict do nothing",
                self.conversation_id,
                row.seq,
                row.sent_at,
                row.message_id,
                row.sender_id,
                row.envelope
            );
            inserted += insertion.execute(&self.persister).await.unwrap().rows_affected();
        }
        inserted
    }
}

fn users<const N: usize>() -> [Uuid; N] {
    std::array::from_fn(|_| UserId::random().as_uuid())
}

/// The rows as they have to be after the texts of these users up to a moment are erased.
fn erased(rows: &[Row], users: &[Uuid], until: OffsetDateTime) -> Vec<Row> {
    let is_erased = |row: &Row| users.contains(&row.sender_id) && row.sent_at <= until;
    let after =
        |row: &Row| if is_erased(row) { Row { envelope: None, is_deleted: true, ..row.clone() } } else { row.clone() };
    rows.iter().map(after).collect()
}

#[tokio::test]
async fn exactly_the_texts_of_erased_users_go_and_a_replay_of_the_log_brings_none_back() {
    let [ana, ben, eve, kim] = users();
    let scene = Scene::set(&[ana, ben, eve, kim]).await;
    let now =
        scene.pool.fetch_one("select now()").await.map(|row| sqlx::Row::get::<OffsetDateTime, _>(&row, 0)).unwrap();
    let later = now + time::Duration::minutes(30);
    scene.make_partition(-1).await;
    scene.send(&[ana, ben], 2, 10_000, later).await;
    let before = scene.rows().await;
    scene.erase(ana).await;
    scene.erase(ben).await;
    // The account of this one has not ended.
    sqlx::query!("select request_erasure($1)", eve).fetch_one(&scene.pool).await.unwrap();
    let of_both = 2 * MESSAGES.unsigned_abs() * u64::try_from(DAYS_AGO.len()).unwrap();
    assert_eq!(scene.pass().await, of_both);
    let after = scene.rows().await;
    assert_eq!(after, erased(&before, &[ana, ben], now + time::Duration::minutes(5)));
    assert_eq!(after.iter().filter(|row| row.envelope.is_none()).count(), usize::try_from(of_both).unwrap());
    assert_eq!(scene.replay(&before).await, 0);
    assert_eq!(scene.rows().await, after);
    assert_eq!(scene.pass().await, 0, "nothing is due");
    assert!(!scene.is_erased(ana).await, "the log may still bring something");
}

#[tokio::test]
async fn a_message_that_is_stored_late_goes_before_an_erasure_ends() {
    let [ana, ben] = users();
    let scene = Scene::set(&[ana, ben]).await;
    scene.erase(ana).await;
    scene.pass().await;
    let late = scene.day(7).midnight().assume_utc() + time::Duration::HOUR;
    scene.send(&[ana, ben], 3, 20_000, late).await;
    scene.pass_days(7).await;
    assert_eq!(scene.pass().await, 0, "the log may bring more");
    assert_eq!((scene.texts_of(ana).await, scene.is_erased(ana).await), (3, false));
    scene.pass_days(1).await;
    // Eight days after the erasure the message is fifteen days old: as old as the log can make it.
    let sent_at = scene.day(15).midnight().assume_utc() + time::Duration::HOUR;
    scene.make_partition(15).await;
    scene.send(&[ana, ben], 3, 30_000, sent_at).await;
    sqlx::query!("update messages set sent_at = $1 where seq between 20000 and 29999", sent_at)
        .execute(&scene.pool)
        .await
        .unwrap();
    assert_eq!(scene.pass().await, 6);
    assert_eq!(scene.texts_of(ana).await, 0);
    scene.pass().await;
    assert!(scene.is_erased(ana).await);
    assert!(scene.texts_of(ben).await > 0);
    // A repeat after its end begins another one.
    scene.send(&[ana], 1, 40_000, sent_at).await;
    scene.erase(ana).await;
    assert_eq!((scene.is_erased(ana).await, scene.pass().await), (false, 1));
}

#[tokio::test]
async fn instances_that_end_anywhere_and_work_side_by_side_leave_no_text_and_touch_no_other() {
    let [ana, ben] = users();
    let scene = Scene::set(&[ana, ben]).await;
    let before = scene.rows().await;
    let now = before[before.len() - 1].sent_at;
    scene.erase(ana).await;
    let mut steps = 0;
    loop {
        // Ends in the middle of a transaction.
        let mut connection = scene.own.acquire().await.unwrap();
        let mut cut = connection.begin().await.unwrap();
        cut.execute("select erase_messages(1)").await.unwrap();
        if steps % 3 == 0 {
            assert_eq!(scene.slow().step().await.unwrap(), None, "another instance is at it");
        }
        cut.rollback().await.unwrap();
        drop(connection);
        // Ends after a transaction.
        if scene.slow().step().await.unwrap().is_none() || steps == 12 {
            break;
        }
        steps += 1;
    }
    assert_eq!(steps, 12, "a day has several blocks");
    assert!(scene.texts_of(ana).await > 0);
    let mut instances = JoinSet::new();
    for _ in 0..4 {
        let mut instance = scene.slow();
        instances.spawn(async move { instance.pass().await.unwrap() });
    }
    instances.join_all().await;
    // Those that found another one at it have ended.
    scene.pass().await;
    assert_eq!(scene.rows().await, erased(&before, &[ana], now));
}

#[tokio::test]
async fn a_day_whose_table_is_exchanged_meanwhile_is_read_from_its_beginning() {
    let [ana, ben] = users();
    let scene = Scene::set(&[ana, ben]).await;
    let before = scene.rows().await;
    scene.erase(ana).await;
    for _ in 0..3 {
        scene.slow().step().await.unwrap();
    }
    assert!(scene.texts_of(ana).await < usize::try_from(MESSAGES).unwrap() * DAYS_AGO.len(), "within the day");
    // The rows of the other table lie in another order.
    let day = scene.day(0);
    let name = format!("messages_{}{:02}{:02}", day.year(), u8::from(day.month()), day.day());
    let exchange = format!(
        "begin;
         alter table messages detach partition {name};
         create table other (like {name} including all);
         insert into other select * from {name} order by envelope is null, seq desc;
         drop table {name};
         alter table other rename to {name};
         do $$ begin
             execute format('alter table {name} owner to %I', (select tableowner from pg_tables where tablename = 'messages'));
         end $$;
         alter table messages attach partition {name} for values from ('{day} 00:00:00+00') to ('{next} 00:00:00+00');
         commit",
        next = scene.day(-1)
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(exchange)).execute(&scene.pool).await.unwrap();
    scene.pass().await;
    assert_eq!(scene.rows().await, erased(&before, &[ana], before[before.len() - 1].sent_at));
}

#[tokio::test]
async fn days_that_age_out_lose_the_texts_too_and_the_rest_goes_on() {
    let [ana, ben] = users();
    let scene = Scene::set(&[ana, ben]).await;
    scene.make_partition(92).await;
    scene.send(&[ana, ben], 5, 50_000, scene.day(92).midnight().assume_utc()).await;
    Ageing::new(scene.own.clone()).pass().await.unwrap();
    let state = sqlx::query_scalar!("select state from message_days where day = $1", scene.day(92));
    assert_eq!(state.fetch_one(&scene.pool).await.unwrap(), "deleted");
    scene.erase(ana).await;
    scene.pass().await;
    assert_eq!(scene.texts_of(ana).await, 0);
    let texts = scene.rows().await.iter().filter(|row| row.envelope.is_some()).count();
    assert_eq!(texts, usize::try_from(MESSAGES).unwrap() * DAYS_AGO.len() + 5);
}

#[tokio::test]
async fn retention_removes_texts_of_erased_users_alone() {
    let [ana, ben] = users();
    let scene = Scene::set(&[ana, ben]).await;
    assert_eq!(scene.pass().await, 0, "no user is erased");
    for statement in [
        "select request_erasure(gen_random_uuid())",
        "select finish_account_erasure(gen_random_uuid())",
        "select begin_erasure_pass()",
        "select user_id from erasures",
        "insert into erasures (user_id) values (gen_random_uuid())",
        "update erasures set account_erased_at = now()",
        "update erasure_passes set day = now()",
        "update messages set envelope = null",
        "select envelope from messages",
    ] {
        let error = scene.own.execute(statement).await.unwrap_err();
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap().into_owned();
        assert_eq!(code, "42501", "{statement}");
    }
}
