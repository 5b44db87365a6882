//! Tests with a real PostgreSQL: right data is found right, whatever its age, and wrong data wrong.

use chat_dev::{servers::Login, test_servers::TestServers};
use chat_shared::{
    clock::{Day, Timestamp},
    ids::UserId,
    postgres,
    settings::PostgresSettings,
};
use time::{Date, OffsetDateTime};

use super::*;

const TODAY: Day = Day(20_500);

struct Scene {
    /// The superuser's.
    pool: PgPool,
    audit: UnreadAudit,
}

fn noon(days_ago: i32) -> OffsetDateTime {
    Timestamp(TODAY.plus(-days_ago).start().0 + 43_200_000).into()
}

impl Scene {
    async fn set() -> Self {
        let urls = TestServers::from_env().unwrap().isolated().await.unwrap();
        let connect = |url| postgres::connect(&PostgresSettings::new(url, 4), "test").unwrap();
        let pool = connect(urls.postgres.clone());
        let audit = UnreadAudit::new(connect(urls.of(Login::Retention).postgres), Clock::fixed(noon(0).into()));
        Self { pool, audit: UnreadAudit { after: Uuid::nil(), ..audit } }
    }

    /// A conversation of two, with a message so many days ago each.
    async fn talk(&self, days_ago: &[i32]) -> Uuid {
        let conversation_id = ConversationId::random().as_uuid();
        let sent_at: Vec<OffsetDateTime> = days_ago.iter().map(|days| noon(*days)).collect();
        for days in days_ago {
            let day = Date::from(TODAY.plus(-days));
            sqlx::query!("select make_message_partition($1)", day).fetch_one(&self.pool).await.unwrap();
        }
        sqlx::query!(
            "insert into conversations (conversation_id, kind, last_seq, last_message_at, created_at, last_activity_at)
             values ($1, 'group', $2, $3, $4, $4)",
            conversation_id,
            i64::try_from(days_ago.len()).unwrap(),
            sent_at.last().copied(),
            noon(98),
        )
        .execute(&self.pool)
        .await
        .unwrap();
        for _ in 0..2 {
            sqlx::query!(
                "insert into participants (conversation_id, user_id, role, joined_at) values ($1, $2, 'member', $3)",
                conversation_id,
                UserId::random().as_uuid(),
                noon(98),
            )
            .execute(&self.pool)
            .await
            .unwrap();
        }
        sqlx::query!(
            "insert into messages (conversation_id, seq, sent_at, message_id, sender_id, envelope)
             select $1, seq, sent_at, gen_random_uuid(), gen_random_uuid(), ''
             from unnest($2::timestamptz[]) with ordinality as message (sent_at, seq)",
            conversation_id,
            &sent_at,
        )
        .execute(&self.pool)
        .await
        .unwrap();
        conversation_id
    }

    /// Marks everything up to a message as read, by one of the two.
    async fn read(&self, conversation_id: Uuid, read_seq: i64) {
        sqlx::query!(
            "update participants set read_seq = $2
             where conversation_id = $1
               and user_id = (select min(user_id::text)::uuid from participants where conversation_id = $1)",
            conversation_id,
            read_seq,
        )
        .execute(&self.pool)
        .await
        .unwrap();
    }

    async fn raise_floor(&self, conversation_id: Uuid, floor_seq: i64) {
        sqlx::query!("update conversations set floor_seq = $2 where conversation_id = $1", conversation_id, floor_seq)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// Deletes messages as the end of their time does.
    async fn delete(&self, conversation_id: Uuid, up_to: i64) {
        sqlx::query!(
            "update messages set deleted_at = sent_at where conversation_id = $1 and seq <= $2",
            conversation_id,
            up_to
        )
        .execute(&self.pool)
        .await
        .unwrap();
    }

    /// A pass whose two looks see the same.
    async fn drifting(&mut self) -> usize {
        let suspects = self.audit.look().await.unwrap();
        self.audit.look_again(suspects).await.unwrap()
    }
}

#[tokio::test]
async fn right_data_of_any_age_does_not_drift_r5_1() {
    let mut scene = Scene::set().await;
    scene.talk(&[]).await;
    scene.talk(&[0, 0, 0]).await;
    scene.talk(&[90, 60, 40, 9, 3, 0]).await;
    scene.talk(&[400, 245, 120, 0]).await;
    scene.talk(&[300, 250]).await;
    let idle = scene.talk(&[80, 70]).await;
    scene.read(idle, 1).await;
    let read = scene.talk(&[5, 1, 0]).await;
    scene.read(read, 3).await;
    // Aged out: gone from lists and rows alike.
    let aged = scene.talk(&[95, 92, 50, 2]).await;
    scene.raise_floor(aged, 2).await;
    scene.delete(aged, 2).await;
    assert_eq!(scene.drifting().await, 0);
}

#[tokio::test]
async fn whatever_lists_show_wrongly_drifts_until_it_is_mended() {
    let mut scene = Scene::set().await;
    let (too_far, lost, deleted) =
        (scene.talk(&[3, 2, 1]).await, scene.talk(&[50, 20, 1]).await, scene.talk(&[9, 1]).await);
    scene.talk(&[4, 0]).await;
    assert_eq!(scene.drifting().await, 0);
    scene.read(too_far, 4).await;
    assert_eq!(scene.drifting().await, 1, "nobody has read what isn't there");
    sqlx::query!("delete from messages where conversation_id = $1 and seq = 2", lost)
        .execute(&scene.pool)
        .await
        .unwrap();
    assert_eq!(scene.drifting().await, 3, "both don't see a message that counts");
    scene.delete(deleted, 1).await;
    assert_eq!(scene.drifting().await, 5, "deleted, and the floor not raised");
    let record = async |soft_deleted_at: Option<OffsetDateTime>| {
        sqlx::query!(
            "insert into message_days (day, soft_deleted_at) values ($1, $2)
             on conflict (day) do update set soft_deleted_at = $2",
            noon(9).date(),
            soft_deleted_at
        )
        .execute(&scene.pool)
        .await
        .unwrap();
    };
    record(Some(noon(0))).await;
    assert_eq!(scene.audit.look().await.unwrap().len(), 5, "the same");
    record(None).await;
    assert_eq!(scene.audit.look().await.unwrap().len(), 3, "a tombstone of an erased user keeps its number");
    record(Some(noon(0))).await;
    scene.raise_floor(deleted, 1).await;
    scene.read(too_far, 3).await;
    assert_eq!(scene.drifting().await, 2);
    scene.raise_floor(lost, 2).await;
    assert_eq!(scene.drifting().await, 0);
    sqlx::query!("update conversations set last_activity_at = $2 where conversation_id = $1", lost, noon(0))
        .execute(&scene.pool)
        .await
        .unwrap();
    assert_eq!(scene.drifting().await, 2, "both have it too far down their lists");
}

#[tokio::test]
async fn a_message_that_was_only_late_does_not_count() {
    let mut scene = Scene::set().await;
    let talk = scene.talk(&[0, 0]).await;
    // The second message's persister has committed, the first one's not yet.
    let first =
        sqlx::query_scalar!("delete from messages where conversation_id = $1 and seq = 1 returning sent_at", talk)
            .fetch_one(&scene.pool)
            .await
            .unwrap();
    let suspects = scene.audit.look().await.unwrap();
    assert_eq!(suspects.len(), 2);
    sqlx::query!(
        "insert into messages (conversation_id, seq, sent_at, message_id, sender_id, envelope)
         values ($1, 1, $2, gen_random_uuid(), gen_random_uuid(), '')",
        talk,
        first,
    )
    .execute(&scene.pool)
    .await
    .unwrap();
    assert_eq!(scene.audit.look_again(suspects).await.unwrap(), 0);
}

#[tokio::test]
async fn a_pass_takes_some_conversations_and_all_have_their_turn() {
    let mut scene = Scene::set().await;
    scene.audit.conversations_max = 2;
    scene.audit.after = ConversationId::random().as_uuid();
    for _ in 0..5 {
        scene.talk(&[1]).await;
    }
    let wrong = scene.talk(&[1]).await;
    scene.read(wrong, 2).await;
    let mut found = Vec::new();
    for _ in 0..8 {
        found.push(scene.drifting().await);
    }
    // Four passes reach everybody wherever they begin, and what has been found stays found.
    assert!(found.is_sorted(), "{found:?}");
    assert_eq!(found[3..], [1; 5]);
}

#[tokio::test]
async fn of_very_many_unread_messages_the_last_thousand_are_compared() {
    let mut scene = Scene::set().await;
    let talk = scene.talk(&[0; 1500]).await;
    assert_eq!(scene.drifting().await, 0);
    sqlx::query!("delete from messages where conversation_id = $1 and seq = 1499", talk)
        .execute(&scene.pool)
        .await
        .unwrap();
    assert_eq!(scene.drifting().await, 2);
}

#[tokio::test]
async fn days_that_hold_nothing_unread_are_not_touched() {
    let mut scene = Scene::set().await;
    let talk = scene.talk(&[30, 9, 0]).await;
    scene.raise_floor(talk, 2).await;
    // Whoever touches these partitions waits until the statement is given up.
    let mut locked = scene.pool.begin().await.unwrap();
    for lock in ["lock table messages_20260117", "lock table messages_20260207"] {
        sqlx::raw_sql(lock).execute(&mut *locked).await.unwrap();
    }
    assert_eq!(scene.drifting().await, 0);
    locked.rollback().await.unwrap();
}
