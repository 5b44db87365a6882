//! Facts and names of a later version, written by gateways that run beside this one during an upgrade.

use chat_shared::{
    event::{BlocksChanged, Event, Fact},
    ids::{ConversationId, MessageId},
    position::Seq,
    wire::{ConversationKind, ErrorCode, MarkRead, Role},
};

use super::place::{Place, users};
use crate::history::Place as PageOf;

/// Appends an event with a number of its own, and with `later` in place of the name `known`.
async fn append_newer(place: &Place, conversation_id: ConversationId, [known, later]: [&[u8]; 2]) {
    let (previous, event) = place.log.newest(conversation_id).await.unwrap().unwrap();
    let fact = Fact::BlocksChanged(BlocksChanged { user_id: event.participants.list[0].user_id, lsn: None });
    let bytes = Event { previous, seq: event.seq.next(), fact, ..event }.encode();
    let at = bytes.windows(known.len()).position(|bytes| bytes == known).unwrap();
    let newer = [&bytes[..at], later, &bytes[at + known.len()..]].concat();
    let jetstream = async_nats::jetstream::new(place.operator.clone());
    jetstream.publish(place.log.subject(conversation_id), newer.into()).await.unwrap().await.unwrap();
}

#[tokio::test]
async fn a_conversation_goes_on_after_an_unknown_kind() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let id = place.direct(ana, ben).await.conversation_id;
    place.send_many(ana, id, 1).await;
    append_newer(&place, id, [b"BlocksChanged", b"PinnedMessage"]).await;
    let (at, newer) = place.log.newest(id).await.unwrap().unwrap();
    assert_eq!((newer.fact.clone(), newer.seq), (Fact::Unknown, Seq(2)));
    // As if a newer notifier had delivered it.
    place.sender.learn(&newer, at);
    assert_eq!(place.send(ben, id, "3").await.unwrap().seq, Seq(3), "its number is taken");
    assert_eq!(place.page(ana, id, PageOf::Newest, 10).await.unwrap(), (vec![1, 3], false));
}

#[tokio::test]
async fn a_conversation_with_names_of_a_later_version_is_read_and_left_to_later_gateways() {
    for names in [[&b"direct"[..], b"server"], [b"member", b"leader"]] {
        let (place, [ana, ben]) = (Place::new().await, users());
        let id = place.direct(ana, ben).await.conversation_id;
        place.send_many(ana, id, 1).await;
        append_newer(&place, id, names).await;
        let (at, newer) = place.log.newest(id).await.unwrap().unwrap();
        assert!(!newer.is_writable());
        let refusal = place.send(ben, id, "3").await.unwrap_err();
        assert_eq!((refusal.code, refusal.retry_after.is_some()), (ErrorCode::Unavailable, true));
        let (receipts, message_id) = (place.receipts(), MessageId::random());
        receipts.remember(id, message_id, Seq(1));
        let mark = receipts.mark_read(ben, MarkRead { conversation_id: id, message_id, seq: None }).unwrap().await;
        assert_eq!(mark.unwrap_err().code, ErrorCode::Unavailable);
        assert_eq!(place.log.newest(id).await.unwrap().unwrap().0, at, "nothing was written");
        assert_eq!(place.page(ana, id, PageOf::Newest, 10).await.unwrap(), (vec![1], false));
    }
}

#[tokio::test]
async fn a_list_shows_rows_with_names_of_a_later_version() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let id = place.group(ana, &[ben]).await.conversation_id;
    for later in [
        "alter table conversations drop constraint conversations_kind_check",
        "alter table participants drop constraint participants_role_check",
        "update conversations set kind = 'support'",
        "update participants set role = 'guide' where role = 'owner'",
    ] {
        sqlx::raw_sql(later).execute(&place.pool).await.unwrap();
    }
    let page = place.conversations.list(ana, 10, None).await.unwrap();
    assert_eq!((page.conversations.len(), page.conversations[0].kind), (1, ConversationKind::Unknown));
    assert_eq!(
        page.conversations[0].participants.iter().map(|participant| participant.role).collect::<Vec<_>>(),
        [Role::Unknown, Role::Member]
    );
    let change = place.conversations.add(ana, id, &users::<1>()).await;
    assert_eq!(change.unwrap_err().code, ErrorCode::Unavailable);
}
