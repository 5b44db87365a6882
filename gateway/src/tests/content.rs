//! Content keys with faults of their own: each costs its day only. The keys while the master key is exchanged.

use std::sync::Arc;

use chat_shared::{
    clock::{Clock, Day},
    ids::{ConversationId, MessageId, UserId},
    sealing::{MasterKey, MasterKeys, Sealed, WrappedKey},
    telemetry::Latch,
    wire::ErrorCode,
};

use super::place::{Place, master_key, store_key, until};
use crate::content::Content;

fn sealed() -> Sealed {
    Sealed { conversation_id: ConversationId::random(), message_id: MessageId::random(), sender_id: UserId::random() }
}

fn damaged(day: Day) -> WrappedKey {
    let mut key = master_key().generate(day).unwrap();
    key.bytes[20] ^= 1;
    key
}

#[tokio::test]
async fn a_key_that_does_not_open_costs_its_day_only() {
    let (place, today) = (Place::new().await, Clock::System.now().day());
    let other = MasterKey::parse("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=").unwrap();
    store_key(&place.pool, &other.generate(today.plus(-1)).unwrap()).await;
    store_key(&place.pool, &damaged(today.plus(2))).await;
    store_key(&place.pool, &master_key().generate(today.plus(1)).unwrap()).await;

    let latch = Latch::default();
    let content =
        Content::start(place.pool.clone(), Arc::new(master_key().into()), Clock::System, latch.clone(), &place.tasks);
    until("today's key", async || latch.is_set()).await;
    let at = sealed();
    let envelope = content.seal(&at, "today").unwrap();
    assert_eq!(content.open(&at, &envelope).unwrap(), "today");
    let yesterday = other.unwrap(&other.generate(today.plus(-1)).unwrap()).unwrap();
    let refusal = content.open(&at, &yesterday.seal(&at, b"yesterday").unwrap()).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::Unavailable, "as with a key that is missing");
    assert_eq!(content.days_ahead(), 1, "tomorrow's opens, the next day's does not");
}

#[tokio::test]
async fn without_todays_key_a_gateway_is_not_ready() {
    let (place, today) = (Place::new().await, Clock::System.now().day());
    sqlx::raw_sql("delete from content_keys").execute(&place.pool).await.unwrap();
    store_key(&place.pool, &damaged(today)).await;
    let latch = Latch::default();
    let content =
        Content::start(place.pool.clone(), Arc::new(master_key().into()), Clock::System, latch.clone(), &place.tasks);
    let tomorrow = master_key().generate(today.plus(1)).unwrap();
    store_key(&place.pool, &tomorrow).await;
    until("tomorrow's key", async || content.days_ahead() == 1).await;
    assert!(!latch.is_set());
    assert_eq!(content.seal(&sealed(), "today").unwrap_err().code, ErrorCode::Unavailable);
}

#[tokio::test]
async fn an_empty_answer_leaves_the_keys_as_they_are_and_a_day_that_is_gone_is_forgotten_r1_6() {
    let (place, today) = (Place::new().await, Clock::System.now().day());
    let (at, content) = (sealed(), &place.content);
    let envelope = content.seal(&at, "before").unwrap();
    sqlx::raw_sql("create table kept as table content_keys; delete from content_keys")
        .execute(&place.pool)
        .await
        .unwrap();
    let error = content.fetch(&place.pool).await.unwrap_err();
    assert!(error.to_string().contains("content_keys is empty"), "{error}");
    assert_eq!(content.open(&at, &envelope).unwrap(), "before");
    content.seal(&at, "still").unwrap();
    store_key(&place.pool, &master_key().generate(today.plus(1)).unwrap()).await;
    content.fetch(&place.pool).await.unwrap();
    assert_eq!(content.open(&at, &envelope).unwrap_err().code, ErrorCode::Unavailable, "its key was destroyed");
    assert_eq!(content.seal(&at, "too late").unwrap_err().code, ErrorCode::Unavailable);
    sqlx::raw_sql("insert into content_keys table kept").execute(&place.pool).await.unwrap();
    content.fetch(&place.pool).await.unwrap();
    assert_eq!(content.open(&at, &envelope).unwrap(), "before", "it was restored");
}

#[tokio::test]
async fn while_the_master_key_is_exchanged_a_gateway_with_the_old_one_alone_keeps_what_it_has_opened_r1_5() {
    let (place, today) = (Place::new().await, Clock::System.now().day());
    let new = || MasterKey::parse("AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=").unwrap();
    let both = MasterKeys::new(new(), Some(master_key())).unwrap();
    let start = async |keys: MasterKeys| {
        let latch = Latch::default();
        let content = Content::start(place.pool.clone(), Arc::new(keys), Clock::System, latch.clone(), &place.tasks);
        (content, latch)
    };
    let at = sealed();
    let envelope = place.content.seal(&at, "before").unwrap();
    // As `chat-retention rewrap` does, and retention that has both keys makes the next day's.
    let row = sqlx::query!("select master_key_id, wrapped from content_keys").fetch_one(&place.pool).await.unwrap();
    let wrapped = WrappedKey { day: today, master_key_id: row.master_key_id, bytes: row.wrapped };
    let anew = both.rewrap(&wrapped).unwrap().unwrap();
    sqlx::raw_sql("delete from content_keys").execute(&place.pool).await.unwrap();
    store_key(&place.pool, &anew).await;
    store_key(&place.pool, &new().generate(today.plus(1)).unwrap()).await;
    place.content.fetch(&place.pool).await.unwrap();
    assert_eq!(place.content.open(&at, &envelope).unwrap(), "before");
    assert_eq!(place.content.days_ahead(), 0, "keys that the new one wrapped meanwhile do not open");
    for keys in [both, new().into()] {
        let (content, latch) = start(keys).await;
        until("today's key", async || latch.is_set()).await;
        assert_eq!((content.open(&at, &envelope).unwrap().as_str(), content.days_ahead()), ("before", 1));
    }
    let (content, latch) = start(master_key().into()).await;
    assert_eq!(content.fetch(&place.pool).await.unwrap().len(), 2, "started again, it opens none of them");
    assert!(!latch.is_set());
}
