//! Content keys with faults of their own: each costs its day only.

use std::sync::Arc;

use chat_shared::{
    clock::{Clock, Day},
    ids::{ConversationId, MessageId, UserId},
    sealing::{MasterKey, Sealed, WrappedKey},
    telemetry::Latch,
    wire::ErrorCode,
};

use super::place::{Place, master_key, until};
use crate::content::Content;

async fn store(place: &Place, key: WrappedKey) {
    sqlx::query!(
        "insert into content_keys (day, master_key_id, wrapped, created_at) values ($1, $2, $3, now())",
        time::Date::from(key.day),
        key.master_key_id,
        key.bytes
    )
    .execute(&place.pool)
    .await
    .unwrap();
}

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
    store(&place, other.generate(today.plus(-1)).unwrap()).await;
    store(&place, damaged(today.plus(2))).await;
    store(&place, master_key().generate(today.plus(1)).unwrap()).await;

    let latch = Latch::default();
    let content =
        Content::start(place.pool.clone(), Arc::new(master_key()), Clock::System, latch.clone(), &place.tasks);
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
    store(&place, damaged(today)).await;
    let latch = Latch::default();
    let content =
        Content::start(place.pool.clone(), Arc::new(master_key()), Clock::System, latch.clone(), &place.tasks);
    let tomorrow = master_key().generate(today.plus(1)).unwrap();
    store(&place, tomorrow).await;
    until("tomorrow's key", async || content.days_ahead() == 1).await;
    assert!(!latch.is_set());
    assert_eq!(content.seal(&sealed(), "today").unwrap_err().code, ErrorCode::Unavailable);
}
