//! Tests with a real PostgreSQL and a store in memory: each body is in the database or in a pack, whatever fails
//! meanwhile. The days are those before today, since PostgreSQL decides by its own clock.

mod erasure;

use std::collections::{BTreeSet, HashMap, HashSet};

use chat_cold::pack::{Key, entries};
use chat_dev::{
    servers::{Login, Urls},
    test_servers::TestServers,
};
use chat_shared::{clock::Clock, ids::ConversationId, postgres, settings::PostgresSettings};
use futures_util::TryStreamExt;
use sqlx::Executor;
use time::OffsetDateTime;

use super::*;
use crate::ageing::Ageing;

/// More than the days after which bodies move.
const OLD: i32 = 15;
/// Messages of an old day.
const MESSAGES: i64 = 60;
/// PostgreSQL's codes for a day that is not due or a step out of turn, for the lease of another, and for a missing right.
const NOT_DUE: &str = "55000";
const HELD: &str = "55006";
const NOT_ALLOWED: &str = "42501";

struct Scene {
    urls: Urls,
    /// The superuser's.
    pool: PgPool,
    /// The cold worker's.
    own: PgPool,
    store: Store,
    today: Date,
}

fn connect(url: String) -> PgPool {
    postgres::connect(&PostgresSettings::new(url, 4), "test").unwrap()
}

fn code<T: std::fmt::Debug>(outcome: sqlx::Result<T>) -> String {
    outcome.unwrap_err().as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap().into_owned()
}

impl Scene {
    /// Days with messages: today, 13 days ago and [`OLD`] days ago, of five conversations, whose newest messages are of the
    /// old day.
    async fn set() -> Self {
        let urls = TestServers::from_env().unwrap().isolated().await.unwrap();
        let (pool, own) = (connect(urls.postgres.clone()), connect(urls.of(Login::Cold).postgres));
        let today = sqlx::query_scalar!(r#"select message_today() as "today!""#).fetch_one(&pool).await.unwrap();
        let scene = Self { urls, pool, own, store: Store::in_memory(), today };
        for days_ago in [0, 13, OLD] {
            scene.fill(days_ago, MESSAGES).await;
        }
        scene
    }

    fn day(&self, days_ago: i32) -> Date {
        self.today - time::Duration::days(days_ago.into())
    }

    /// Adds a day with so many messages of five new conversations.
    async fn fill(&self, days_ago: i32, messages: i64) {
        let day = self.day(days_ago);
        sqlx::query!("select make_message_partition($1)", day).fetch_one(&self.pool).await.unwrap();
        for _ in 0..5 {
            let id = ConversationId::random().as_uuid();
            sqlx::query!(
                "insert into conversations (conversation_id, kind, created_at, last_activity_at, last_seq)
                 values ($1, 'group', now(), now(), $2)",
                id,
                messages / 5
            )
            .execute(&self.pool)
            .await
            .unwrap();
            self.insert(id, 1, messages / 5, days_ago).await;
        }
        sqlx::query!("select record_message_days()").fetch_one(&self.pool).await.unwrap();
    }

    /// Stores messages whose bodies name them.
    async fn insert(&self, conversation_id: Uuid, first: i64, last: i64, days_ago: i32) {
        sqlx::query!(
            "insert into messages (conversation_id, seq, sent_at, message_id, sender_id, envelope)
             select $1::uuid, n, $4, gen_random_uuid(), gen_random_uuid(), convert_to($1::uuid || '/' || n, 'UTF8')
             from generate_series($2::bigint, $3) n",
            conversation_id,
            first,
            last,
            self.day(days_ago).midnight().assume_utc()
        )
        .execute(&self.pool)
        .await
        .unwrap();
    }

    fn worker(&self) -> Cold {
        // Several packs a day.
        Cold { pack_bytes: 1, ..Cold::new(self.own.clone(), self.store.clone(), 14) }
    }

    async fn pass(&self) -> Pass {
        self.worker().pass().await.unwrap()
    }

    /// Fails unless every message has its body, in its row or in the chunk that the index names; how many rows have it.
    async fn assert_bodies(&self) -> i64 {
        let rows = sqlx::query!(
            r#"select m.conversation_id, m.seq, m.envelope, p.object as "object?", c.place as "place?",
                   c.length as "length?"
               from messages m
               left join lateral (
                   select * from cold_chunks c
                   where c.day = (m.sent_at at time zone 'UTC')::date
                       and (c.conversation_id, c.first_seq) <= (m.conversation_id, m.seq)
                   order by c.conversation_id desc, c.first_seq desc limit 1
               ) c on m.envelope is null
               left join cold_packs p using (day, number)
               where m.deleted_at is null"#
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let mut packs: HashMap<String, Bytes> = HashMap::new();
        let mut in_rows = 0;
        for row in rows {
            let expected = format!("{}/{}", row.conversation_id, row.seq).into_bytes();
            if let Some(envelope) = row.envelope {
                in_rows += 1;
                assert_eq!(envelope, expected);
                continue;
            }
            let (object, place, length) = (row.object.unwrap(), row.place.unwrap(), row.length.unwrap());
            let pack = match packs.get(&object) {
                Some(pack) => pack.clone(),
                None => packs.entry(object.clone()).or_insert(self.store.read(&object).await.unwrap()).clone(),
            };
            let chunk = chat_cold::pack::chunk_of(&pack, place.unsigned_abs(), length.unsigned_abs()).unwrap();
            let key = Key { conversation_id: row.conversation_id, seq: row.seq.unsigned_abs() };
            let found = entries(chunk).unwrap().into_iter().find(|entry| entry.key == key).unwrap();
            assert_eq!(found.body, expected);
        }
        in_rows
    }

    async fn objects(&self) -> Vec<String> {
        self.store.list("").map_ok(|object| object.name).try_collect().await.unwrap()
    }

    /// Tables of a day, its partition included.
    async fn tables(&self, days_ago: i32) -> Vec<String> {
        let day = self.day(days_ago);
        let like = format!("messages_{}{:02}{:02}%", day.year(), u8::from(day.month()), day.day());
        sqlx::query_scalar!(
            "select substring(relname::text from 18) as \"suffix!\" from pg_class where relkind = 'r' and relname like $1 order by 1",
            like
        )
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    async fn pass_a_day(&self) {
        self.pool.execute("update cold_days set swapped_at = swapped_at - interval '25 hours'").await.unwrap();
    }

    async fn any_conversation(&self, days_ago: i32) -> Uuid {
        sqlx::query_scalar!(
            "select conversation_id from messages where sent_at = $1 order by conversation_id limit 1",
            self.day(days_ago).midnight().assume_utc()
        )
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }
}

#[tokio::test]
async fn r12_3_bodies_of_old_days_move_and_the_newest_of_each_conversation_stays() {
    let scene = Scene::set().await;
    assert_eq!(scene.pass().await, Pass { done: 3, failures: 0 });
    let left = scene.assert_bodies().await;
    assert_eq!(left, 2 * MESSAGES + 5, "two young days, and the newest of five conversations");
    assert_eq!(scene.tables(OLD).await, ["", "_warm"]);
    assert_eq!(scene.pass().await, Pass::default(), "the rows with bodies stay for a day");
    scene.pass_a_day().await;
    assert_eq!(scene.pass().await, Pass { done: 1, failures: 0 });
    assert_eq!(scene.tables(OLD).await, [""]);
    assert_eq!(scene.assert_bodies().await, left);
    verify(&scene.own, &scene.store, scene.day(OLD)).await.unwrap();
    // An insert of a late message goes on as into any day.
    let late = ConversationId::random().as_uuid();
    scene.insert(late, 1, 1, OLD).await;
    assert_eq!(scene.assert_bodies().await, left + 1);
}

#[tokio::test]
async fn r12_3_a_worker_that_ends_anywhere_loses_no_body_and_the_next_one_goes_on() {
    let scene = Scene::set().await;
    scene.fill(OLD, 3 * ROWS_MAX).await;
    let day = scene.day(OLD);
    // Ends after a pack was stored and before it was recorded.
    scene.store.put_new(&format!("{}1-0.pack", prefix(day)), Bytes::from_static(b"half")).await.unwrap();
    for step in [Step::Pack, Step::Copy, Step::Swap] {
        assert_eq!(steps::next(&scene.own, 14, day).await.unwrap(), Some(step));
        let worker = scene.worker();
        if step == Step::Pack {
            // Ends after the first pack.
            assert!(steps::hold(&scene.own, day, worker.holder).await.unwrap());
            let mut draft = Draft::default();
            for body in steps::bodies(&scene.own, day, None, 100).await.unwrap() {
                draft.push(body.key, body.envelope);
            }
            worker.store_pack(day, 1, draft.finish().unwrap()).await.unwrap();
            scene.pool.execute("update cold_days set held_until = now() - interval '1 second'").await.unwrap();
        }
        let next = scene.worker();
        assert!(next.perform(day, step).await.unwrap());
        scene.assert_bodies().await;
        if step != Step::Swap {
            assert!(!scene.worker().perform(day, step).await.unwrap(), "the lease of another worker holds");
        }
        scene.pool.execute("update cold_days set held_until = now() - interval '1 second'").await.unwrap();
    }
    assert!(scene.objects().await.len() > 3);
    assert_eq!(scene.assert_bodies().await, 2 * MESSAGES + 10);
}

#[tokio::test]
async fn r12_3_messages_that_are_added_or_changed_while_their_day_moves_keep_their_bodies() {
    let scene = Scene::set().await;
    let (day, worker, changed) = (scene.day(OLD), scene.worker(), scene.any_conversation(OLD).await);
    let late = ConversationId::random().as_uuid();
    let mut count = 0;
    for step in [Step::Pack, Step::Copy, Step::Swap] {
        assert!(worker.perform(day, step).await.unwrap());
        if step == Step::Swap {
            break;
        }
        count += 1;
        scene.insert(late, count, count, OLD).await;
        sqlx::query!(
            "update messages set sender_id = gen_random_uuid() where conversation_id = $1 and seq = $2",
            changed,
            count
        )
        .execute(&scene.pool)
        .await
        .unwrap();
        sqlx::query!("delete from messages where conversation_id = $1 and seq = $2", changed, count + 5)
            .execute(&scene.pool)
            .await
            .unwrap();
    }
    assert_eq!(scene.assert_bodies().await, 2 * MESSAGES + 5 + 2 + 2);
    let rows = sqlx::query_scalar!(r#"select count(*) as "count!" from messages where conversation_id = $1"#, changed);
    assert_eq!(rows.fetch_one(&scene.pool).await.unwrap(), MESSAGES / 5 - 2);
}

#[tokio::test]
async fn r12_3_the_worker_can_neither_move_young_days_nor_drop_bodies_nor_open_them() {
    let scene = Scene::set().await;
    let (own, holder) = (&scene.own, Uuid::new_v4());
    for days_ago in [0, 1, 9] {
        assert_eq!(code(steps::hold(own, scene.day(days_ago), holder).await), NOT_DUE, "{days_ago}");
    }
    let day = scene.day(OLD);
    assert!(steps::hold(own, day, holder).await.unwrap());
    assert!(!steps::hold(own, day, Uuid::new_v4()).await.unwrap());
    assert_eq!(code(steps::finish_packs(own, day, Uuid::new_v4()).await), HELD);
    assert_eq!(code(steps::copy(own, day, holder).await), NOT_DUE, "nothing is packed");
    steps::finish_packs(own, day, holder).await.unwrap();
    assert_eq!(code(steps::copy(own, day, holder).await), NOT_DUE, "no pack has the bodies");
    assert_eq!(code(steps::swap(own, day, holder).await), NOT_DUE);
    assert_eq!(code(steps::drop_warm(own, day, holder).await), NOT_DUE);
    assert_eq!(code(steps::forget_packs(own, day).await), NOT_DUE);
    assert_eq!(code(steps::warm(own, day, &[]).await), NOT_DUE);
    for statement in [
        "select wrapped from content_keys",
        "update messages set envelope = null",
        "delete from messages",
        "delete from cold_packs",
        "update cold_days set swapped_at = now()",
        "select sender_id from messages",
        "select user_id from cold_erasures",
        "insert into cold_erasures values (now(), gen_random_uuid(), 1, gen_random_uuid())",
        "delete from cold_erasures",
    ] {
        assert_eq!(code(own.execute(statement).await), NOT_ALLOWED, "{statement}");
    }
    assert_eq!(scene.assert_bodies().await, 3 * MESSAGES);
}

#[tokio::test]
async fn r12_3_bodies_stay_in_postgresql_while_the_store_has_other_bytes_or_none() {
    let scene = Scene::set().await;
    let mut worker = scene.worker();
    worker.pass().await.unwrap();
    scene.pass_a_day().await;
    let (day, objects) = (scene.day(OLD), scene.objects().await);
    let taken = scene.store.read(&objects[0]).await.unwrap();
    scene.store.delete(&objects[0]).await.unwrap();
    assert_eq!(worker.pass().await.unwrap(), Pass { done: 0, failures: 1 });
    assert_eq!(sweep::sweep(&scene.own, &scene.store).await.unwrap(), sweep::Swept { orphans: 0, missing: 1 });
    let mut damaged = taken.to_vec();
    damaged[20] ^= 1;
    scene.store.put_new(&objects[0], damaged.into()).await.unwrap();
    assert_eq!(worker.pass().await.unwrap(), Pass { done: 0, failures: 1 });
    assert_eq!(scene.tables(OLD).await, ["", "_warm"]);
    assert!(verify(&scene.own, &scene.store, day).await.is_err());
    assert!(warm(&scene.own, &scene.store, day).await.is_err());
    scene.store.delete(&objects[0]).await.unwrap();
    scene.store.put_new(&objects[0], taken).await.unwrap();
    assert_eq!(worker.pass().await.unwrap(), Pass { done: 1, failures: 0 });
    scene.assert_bodies().await;
}

#[tokio::test]
async fn r12_3_the_bodies_of_a_day_come_back_by_hand() {
    let scene = Scene::set().await;
    scene.pass().await;
    scene.pass_a_day().await;
    scene.pass().await;
    for _ in 0..2 {
        warm(&scene.own, &scene.store, scene.day(OLD)).await.unwrap();
        assert_eq!(scene.assert_bodies().await, 3 * MESSAGES);
    }
    assert_eq!(scene.pass().await, Pass::default(), "the day is not moved again");
}

#[tokio::test]
async fn r1_6_r12_3_of_a_day_that_ages_out_no_pack_and_no_table_stays() {
    let scene = Scene::set().await;
    let retention = connect(scene.urls.of(Login::Retention).postgres);
    scene.pass().await;
    assert!(!scene.objects().await.is_empty());
    // As if the day had moved 98 days ago. Its name and its bounds say the same, so a day is made that is as old.
    scene.fill(98, MESSAGES).await;
    let (old, day) = (scene.day(OLD), scene.day(98));
    sqlx::query!("insert into cold_days select $2, holder, held_until, packed_at, copied_at, swapped_at from cold_days where day = $1", old, day)
        .execute(&scene.pool).await.unwrap();
    for (count, name) in (1..).zip(scene.objects().await) {
        let object = format!("{}{count}-0.pack", prefix(day));
        scene.store.put_new(&object, scene.store.read(&name).await.unwrap()).await.unwrap();
        sqlx::query!(
            "insert into cold_packs select $1, $2, $3, bytes, messages, sha256, last_conversation_id, last_seq
             from cold_packs where object = $4",
            day,
            count,
            object,
            name
        )
        .execute(&scene.pool)
        .await
        .unwrap();
    }
    let table = scene.day(98);
    let name = format!("messages_{}{:02}{:02}_warm", table.year(), u8::from(table.month()), table.day());
    scene.pool.execute(sqlx::AssertSqlSafe(format!("create table {name} ()"))).await.unwrap();
    scene.store.put_new(&format!("{}9-unrecorded.pack", prefix(day)), Bytes::from_static(b"half")).await.unwrap();

    Ageing::new(retention.clone()).pass().await.unwrap();
    sqlx::query!("update message_days set soft_deleted_at = soft_deleted_at - interval '7 days'")
        .execute(&scene.pool)
        .await
        .unwrap();
    chat_dev::wait::until("the rows are gone", Duration::from_mins(1), async || {
        Ageing::new(retention.clone()).pass().await?;
        Ok(scene.tables(98).await.is_empty().then_some(()))
    })
    .await
    .unwrap();
    let state = async || {
        sqlx::query_scalar!("select state from message_days where day = $1", day).fetch_one(&scene.pool).await.unwrap()
    };
    assert_eq!(state().await, "retiring", "its packs are left");
    scene.pass().await;
    assert!(scene.objects().await.iter().all(|object| object.starts_with(&prefix(old))));
    Ageing::new(retention).pass().await.unwrap();
    assert_eq!(state().await, "gone");
    let left = sqlx::query_scalar!(r#"select count(*) as "count!" from cold_days where day = $1"#, day);
    assert_eq!(left.fetch_one(&scene.pool).await.unwrap(), 0);
    scene.assert_bodies().await;
}

#[tokio::test]
async fn r12_3_objects_that_no_row_names_are_deleted_after_a_day() {
    let scene = Scene::set().await;
    scene.pass().await;
    let named = scene.objects().await.len();
    scene.store.put_new("2020/01/01/1-0.pack", Bytes::from_static(b"half")).await.unwrap();
    assert_eq!(
        sweep::sweep(&scene.own, &scene.store).await.unwrap(),
        sweep::Swept::default(),
        "it may be about to be recorded"
    );
    let tomorrow = OffsetDateTime::from(Clock::System.now()) + time::Duration::hours(25);
    assert_eq!(
        sweep::sweep_at(&scene.own, &scene.store, tomorrow).await.unwrap(),
        sweep::Swept { orphans: 1, missing: 0 }
    );
    assert_eq!(scene.objects().await.len(), named);
}
