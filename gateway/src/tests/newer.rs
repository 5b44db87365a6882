//! Events that only a newer version knows, written by gateways that run beside this one during an upgrade.

use chat_shared::{
    event::{BlocksChanged, Event, Fact},
    ids::ConversationId,
    position::Seq,
};

use super::place::{Place, users};
use crate::history::Place as PageOf;

/// Appends an event of a kind that this version doesn't know, with a number of its own.
async fn append_newer(place: &Place, conversation_id: ConversationId) {
    let (previous, event) = place.log.newest(conversation_id).await.unwrap().unwrap();
    let fact = Fact::BlocksChanged(BlocksChanged { user_id: event.participants.list[0].user_id });
    let known = Event { previous, seq: event.seq.next(), fact, ..event }.encode();
    let name = b"BlocksChanged";
    let at = known.windows(name.len()).position(|bytes| bytes == name).unwrap();
    let newer = [&known[..at], b"PinnedMessage", &known[at + name.len()..]].concat();
    let jetstream = async_nats::jetstream::new(place.operator.clone());
    jetstream.publish(place.log.subject(conversation_id), newer.into()).await.unwrap().await.unwrap();
}

#[tokio::test]
async fn a_conversation_goes_on_after_an_unknown_kind() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let id = place.direct(ana, ben).await.conversation_id;
    place.send_many(ana, id, 1).await;
    append_newer(&place, id).await;
    let (at, newer) = place.log.newest(id).await.unwrap().unwrap();
    assert_eq!((newer.fact.clone(), newer.seq), (Fact::Unknown, Seq(2)));
    // As if a newer notifier had delivered it.
    place.sender.learn(&newer, at);
    assert_eq!(place.send(ben, id, "3").await.unwrap().seq, Seq(3), "its number is taken");
    assert_eq!(place.page(ana, id, PageOf::Newest, 10).await.unwrap(), (vec![1, 3], false));
}
