//! Texts of erased users leave the packs, and no other text does.

use chat_cold::store::{Purpose, StoreSettings};
use chat_shared::ids::UserId;

use super::*;
use crate::erasure::Erasing;

impl Scene {
    /// Every third message is from now on of one user.
    async fn give(&self) -> Uuid {
        let user_id = UserId::random().as_uuid();
        sqlx::query!("update messages set sender_id = $1 where seq % 3 = 0", user_id)
            .execute(&self.pool)
            .await
            .unwrap();
        user_id
    }

    /// Removes the texts of a user from the rows.
    async fn erase(&self, user_id: Uuid) {
        sqlx::query!("select request_erasure($1)", user_id).fetch_one(&self.pool).await.unwrap();
        sqlx::query!("select finish_account_erasure($1)", user_id).fetch_one(&self.pool).await.unwrap();
        Erasing::new(connect(self.urls.of(Login::Retention).postgres)).pass().await.unwrap();
    }

    /// Texts that have yet to go from packs.
    async fn left(&self) -> i64 {
        let counting = sqlx::query_scalar!(r#"select count(*) as "count!" from cold_erasures"#);
        counting.fetch_one(&self.pool).await.unwrap()
    }

    /// How many texts of a user are in objects. A text is the conversation and the number of its message.
    async fn texts_in_objects(&self, user_id: Uuid) -> usize {
        let rows = sqlx::query!("select conversation_id, seq from messages where sender_id = $1", user_id);
        let rows = rows.fetch_all(&self.pool).await.unwrap();
        let conversations: HashSet<Uuid> = rows.iter().map(|row| row.conversation_id).collect();
        let texts: HashSet<String> = rows.iter().map(|row| format!("{}/{}", row.conversation_id, row.seq)).collect();
        let mut found = 0;
        for object in self.objects().await {
            let bytes = self.store.read(&object).await.unwrap();
            let object = String::from_utf8_lossy(&bytes);
            for conversation_id in &conversations {
                for (at, begin) in object.match_indices(&format!("{conversation_id}/")) {
                    let digits = object[at + begin.len()..].bytes().take_while(u8::is_ascii_digit).count();
                    found += usize::from(texts.contains(&object[at..at + begin.len() + digits]));
                }
            }
        }
        found
    }

    /// Packs of the old day with their objects.
    async fn packs(&self) -> Vec<PackRow> {
        steps::packs(&self.own, self.day(OLD)).await.unwrap()
    }
}

#[tokio::test]
async fn r12_3_packs_lose_the_texts_of_an_erased_user_and_no_other() {
    let mut scene = Scene::set().await;
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}/", directory.path().display()).parse().unwrap();
    let settings = StoreSettings { cold_store_url: Some(url), ..StoreSettings::default() };
    scene.store = Store::open(&settings, Purpose::Writing).unwrap().unwrap();
    scene.fill(OLD, 3 * ROWS_MAX).await;
    let user_id = scene.give().await;
    let mut worker = scene.worker();
    worker.pass().await.unwrap();
    let (packs, bodies) = (scene.packs().await, scene.assert_bodies().await);
    assert!(packs.len() > 2 && scene.texts_in_objects(user_id).await > 1000);
    scene.erase(user_id).await;
    assert!(scene.left().await > 1000);
    let own_in_rows = bodies - scene.assert_bodies().await;
    assert!(own_in_rows > 0, "the texts of young days went from their rows");
    assert_eq!(worker.pass().await.unwrap(), Pass { done: 1, failures: 0 });
    assert_eq!((scene.left().await, scene.texts_in_objects(user_id).await), (0, 0));
    scene.assert_bodies().await;
    verify(&scene.own, &scene.store, scene.day(OLD)).await.unwrap();
    let rewritten = scene.packs().await;
    assert!(packs.iter().zip(&rewritten).all(|(old, new)| old.number == new.number && old.object != new.object));
    assert_eq!(scene.objects().await.len(), rewritten.len(), "the old objects are deleted");
    assert_eq!(worker.pass().await.unwrap(), Pass::default());
    scene.pass_a_day().await;
    assert_eq!(worker.pass().await.unwrap(), Pass { done: 1, failures: 0 }, "the rows with bodies go as ever");
    warm(&scene.own, &scene.store, scene.day(OLD)).await.unwrap();
    let texts = sqlx::query_scalar!(
        r#"select count(*) as "count!" from messages where sender_id = $1 and envelope is not null"#,
        user_id
    );
    assert_eq!(texts.fetch_one(&scene.pool).await.unwrap(), 0, "no tombstone is filled");
}

#[tokio::test]
async fn r12_3_a_user_who_is_erased_while_a_day_moves_leaves_no_text() {
    for erased_before in [Step::Pack, Step::Copy, Step::Swap] {
        let scene = Scene::set().await;
        let (day, worker, user_id) = (scene.day(OLD), scene.worker(), scene.give().await);
        for step in [Step::Pack, Step::Copy, Step::Swap] {
            if step == erased_before {
                assert!(steps::hold(&scene.own, day, worker.holder).await.unwrap());
                scene.erase(user_id).await;
                assert!(scene.left().await > 0);
            }
            assert_eq!(steps::next(&scene.own, 14, day).await.unwrap(), Some(step), "nothing is rewritten meanwhile");
            assert!(worker.perform(day, step).await.unwrap());
        }
        scene.pass().await;
        assert_eq!((scene.left().await, scene.texts_in_objects(user_id).await), (0, 0), "{erased_before:?}");
        scene.assert_bodies().await;
        let texts = sqlx::query_scalar!(
            r#"select count(*) as "count!" from messages where sender_id = $1 and (envelope is not null or deleted_at is null)"#,
            user_id
        );
        assert_eq!(texts.fetch_one(&scene.pool).await.unwrap(), 0, "{erased_before:?}");
    }
}

#[tokio::test]
async fn r12_3_a_rewrite_that_ends_anywhere_loses_no_body_and_leaves_no_text() {
    let scene = Scene::set().await;
    scene.fill(OLD, 3 * ROWS_MAX).await;
    let user_id = scene.give().await;
    scene.pass().await;
    scene.erase(user_id).await;
    let (day, worker, packs) = (scene.day(OLD), scene.worker(), scene.packs().await);
    assert!(steps::hold(&scene.own, day, worker.holder).await.unwrap());
    // Ends after the new pack was stored.
    let erased: BTreeSet<Key> = steps::erasures(&scene.own, day, 10_000).await.unwrap().into_iter().collect();
    let (first, _) = worker.without(day, &packs[0], &erased).await.unwrap();
    worker.put(day, packs[0].number, &first.unwrap()).await.unwrap();
    scene.assert_bodies().await;
    // Ends after the new pack was recorded, before the old one is deleted.
    let (second, dropped) = worker.without(day, &packs[1], &erased).await.unwrap();
    let second = second.unwrap();
    let object = worker.put(day, packs[1].number, &second).await.unwrap();
    let keys = keys_of(&scene, &packs[1], &erased).await;
    assert_eq!(dropped, u64::try_from(keys.len()).unwrap());
    let new = Some((object.as_str(), &second));
    // Other bodies are not left out.
    let few = steps::replace(&scene.own, day, worker.holder, Some(packs[1].number), new, &keys[1..]).await;
    assert_eq!(code(few), NOT_DUE);
    let other = steps::replace(&scene.own, day, Uuid::new_v4(), Some(packs[1].number), new, &keys).await;
    assert_eq!(code(other), HELD);
    steps::replace(&scene.own, day, worker.holder, Some(packs[1].number), new, &keys).await.unwrap();
    scene.assert_bodies().await;
    scene.pool.execute("update cold_days set held_until = now() - interval '1 second'").await.unwrap();
    assert_eq!(scene.pass().await, Pass { done: 1, failures: 0 });
    scene.assert_bodies().await;
    assert_eq!(scene.left().await, 0);
    let tomorrow = OffsetDateTime::from(Clock::System.now()) + time::Duration::hours(25);
    let swept = sweep::sweep_at(&scene.own, &scene.store, tomorrow).await.unwrap();
    assert_eq!(swept, sweep::Swept { orphans: 2, missing: 0 });
    assert_eq!(scene.texts_in_objects(user_id).await, 0);
    scene.assert_bodies().await;
    verify(&scene.own, &scene.store, day).await.unwrap();
}

/// The erased messages that a pack has.
async fn keys_of(scene: &Scene, row: &PackRow, erased: &BTreeSet<Key>) -> Vec<Key> {
    let bytes = scene.store.read(&row.object).await.unwrap();
    let mut keys = Vec::new();
    for (place, length) in steps::chunks(&scene.own, scene.day(OLD), row.number).await.unwrap() {
        let chunk = chat_cold::pack::chunk_of(&bytes, place, length).unwrap();
        keys.extend(entries(chunk).unwrap().iter().map(|entry| entry.key).filter(|key| erased.contains(key)));
    }
    keys
}

#[tokio::test]
async fn r12_3_a_damaged_pack_is_not_rewritten_and_one_without_other_texts_goes() {
    let scene = Scene::set().await;
    let user_id = UserId::random().as_uuid();
    sqlx::query!("update messages set sender_id = $1", user_id).execute(&scene.pool).await.unwrap();
    let mut worker = scene.worker();
    worker.pass().await.unwrap();
    let (packs, objects) = (scene.packs().await, scene.objects().await);
    scene.erase(user_id).await;
    let whole = scene.store.read(&packs[0].object).await.unwrap();
    let mut damaged = whole.to_vec();
    damaged[20] ^= 1;
    scene.store.delete(&packs[0].object).await.unwrap();
    scene.store.put_new(&packs[0].object, damaged.into()).await.unwrap();
    assert_eq!(worker.pass().await.unwrap(), Pass { done: 0, failures: 1 });
    assert_eq!(scene.objects().await, objects);
    scene.store.delete(&packs[0].object).await.unwrap();
    scene.store.put_new(&packs[0].object, whole).await.unwrap();
    assert_eq!(worker.pass().await.unwrap(), Pass { done: 1, failures: 0 });
    assert!(scene.objects().await.is_empty() && scene.packs().await.is_empty());
    assert_eq!(scene.left().await, 0);
    scene.pass_a_day().await;
    assert_eq!(worker.pass().await.unwrap(), Pass { done: 1, failures: 0 });
    scene.assert_bodies().await;
}

#[tokio::test]
async fn r12_3_bodies_that_come_back_by_hand_behind_a_pass_go_too() {
    let scene = Scene::set().await;
    let user_id = scene.give().await;
    scene.pass().await;
    sqlx::query!("select request_erasure($1)", user_id).fetch_one(&scene.pool).await.unwrap();
    sqlx::query!("select finish_account_erasure($1)", user_id).fetch_one(&scene.pool).await.unwrap();
    let retention = connect(scene.urls.of(Login::Retention).postgres);
    let mut is_behind = false;
    // The pass begins, and reads the days up to the old one.
    while !is_behind {
        sqlx::query!("select erase_messages(1024)").fetch_one(&retention).await.unwrap();
        let behind = sqlx::query_scalar!(r#"select day < $1 as "is_behind!" from erasure_passes"#, scene.day(OLD));
        is_behind = behind.fetch_one(&scene.pool).await.unwrap();
    }
    warm(&scene.own, &scene.store, scene.day(OLD)).await.unwrap();
    let day = sqlx::query_scalar!("select day from erasure_passes").fetch_one(&scene.pool).await.unwrap();
    assert_eq!(day, Some(scene.day(OLD)), "the day is read again");
    Erasing::new(retention).pass().await.unwrap();
    let texts = sqlx::query_scalar!(
        r#"select count(*) as "count!" from messages where sender_id = $1 and envelope is not null"#,
        user_id
    );
    assert_eq!(texts.fetch_one(&scene.pool).await.unwrap(), 0);
}
