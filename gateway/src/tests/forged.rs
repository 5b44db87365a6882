//! What somebody who may write to inboxes and speak to gateways, as notifiers may, can have gateways do for an account of
//! their own: nothing.

use chat_shared::{
    clock::Clock,
    delivery::{Delivery, NumberedEvent, Recipient, all_gateways_subject, gateway_subject},
    event::Event,
    ids::{MessageId, UserId},
    inbox::{Routed, Routing},
    position::StreamSeq,
    wire::{Participant, Push, Role, SendMessage},
};

use super::{
    place::{Place, users},
    presence::start,
    receipts::notify,
};
use crate::{connection::simulated::Client, refusal::Refusal, send::Sender};

/// Puts an event in a user's inbox and hands it to their gateways, whoever it is for.
async fn hand_on(place: &Place, at: StreamSeq, event: &Event, to: UserId) {
    let bytes = event.encode();
    let routing = Routing { user_id: to, event: &bytes, delivered: None, lsn: None };
    let Routed::At { epoch, cursor, gateways, .. } = place.inboxes.route(&[routing]).await.unwrap().remove(0) else {
        panic!("the user has an inbox")
    };
    for gateway_id in gateways {
        let recipients = vec![Recipient { user_id: to, epoch, cursor }];
        let event = NumberedEvent { event: bytes.clone().into(), stream_seq: at, recipients };
        let subject = gateway_subject(&place.namespace, gateway_id);
        place.nats.publish(subject, Delivery::Numbered(vec![event]).encode().into()).await.unwrap();
    }
}

fn with(mut event: Event, user_id: UserId) -> Event {
    event.participants.list.push(Participant { user_id, role: Role::Member });
    event
}

/// The next message, and nothing before it but what is passed over.
async fn next_message(client: &mut Client) -> String {
    loop {
        match client.push().await {
            Push::Skipped { .. } => {}
            Push::Message { message, .. } => return message.text,
            other => panic!("{other:?} is for somebody else"),
        }
    }
}

#[tokio::test]
async fn nobody_has_a_message_opened_that_was_not_accepted_for_them_r6_4() {
    let (place, [ana, ben, mallory]) = (Place::new().await, users());
    let here = start(&place).await;
    let theirs = place.direct(ana, ben).await.conversation_id;
    let own = place.direct(ana, mallory).await.conversation_id;
    place.send(ana, theirs, "between us").await.unwrap();
    let (at, event) = place.log.newest(theirs).await.unwrap().unwrap();
    let mut client = Client::connect(&here, mallory).await;
    for forged in [event.clone(), with(event.clone(), mallory)] {
        hand_on(&place, at, &forged, mallory).await;
        let everywhere = Delivery::Unnumbered(vec![forged.encode().into()]).encode();
        place.nats.publish(all_gateways_subject(&place.namespace), everywhere.into()).await.unwrap();
    }
    place.send(ana, own, "for you").await.unwrap();
    let (at, event) = place.log.newest(own).await.unwrap().unwrap();
    notify(&place, at, &event).await;
    assert_eq!(next_message(&mut client).await, "for you");
}

#[tokio::test]
async fn nobody_takes_part_because_a_delivery_says_so_r6_4() {
    let (place, [ana, ben, mallory]) = (Place::new().await, users());
    let here = start(&place).await;
    let theirs = place.direct(ana, ben).await.conversation_id;
    let own = place.direct(ana, mallory).await.conversation_id;
    let mut client = Client::connect(&here, mallory).await;
    let intrude = async || {
        let message_id = MessageId::random();
        let text = "let me in".to_owned();
        here.sender
            .send(mallory, SendMessage { conversation_id: theirs, message_id, text, is_repeat: false, seen_seq: None })
            .await
    };
    assert_eq!(intrude().await, Err(Refusal::no_such_conversation()), "now the gateway remembers where it stands");
    // By another gateway, so that this one has to learn of it.
    let (tail, database, content) = (place.tail.clone(), place.database.clone(), place.content.clone());
    let there = Sender::new(tail, database, content, Clock::System, place.quotas.clone(), &place.tasks);
    let (message_id, text) = (MessageId::random(), "between us".to_owned());
    let command = SendMessage { conversation_id: theirs, message_id, text, is_repeat: false, seen_seq: None };
    there.send(ana, command).await.unwrap();
    let (at, event) = place.log.newest(theirs).await.unwrap().unwrap();
    hand_on(&place, at, &with(event, mallory), mallory).await;
    // What comes after it has been taken in after it.
    place.send(ana, own, "for you").await.unwrap();
    let (at, event) = place.log.newest(own).await.unwrap().unwrap();
    notify(&place, at, &event).await;
    assert_eq!(next_message(&mut client).await, "for you");
    assert_eq!(intrude().await, Err(Refusal::no_such_conversation()));
}
