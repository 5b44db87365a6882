//! Which subject an event stands on, and whether it stands there.
//!
//! **Invariant:** every event has one subject. An entry on another one was appended by nobody who may.

use super::{Log, Slot};
use crate::{
    event::{Event, Fact, UnreadableEvent},
    ids::ConversationId,
};

/// Why an entry of the log is none that anybody may have appended.
#[derive(Debug, thiserror::Error)]
pub enum NotAnEntry {
    /// The bytes are no event.
    #[error(transparent)]
    Unreadable(#[from] UnreadableEvent),
    /// It is an event, and stands where nobody looks for it.
    #[error("the event stands on a subject that is not its own")]
    Misplaced,
}

impl Log {
    /// The subject of everything that is ordered within a conversation.
    pub fn subject(&self, conversation_id: ConversationId) -> String {
        format!("{}.{}", self.namespace, ordered(conversation_id))
    }
}

/// The subject of `event` in the log of `namespace`.
pub fn subject_of(namespace: &str, event: &Event) -> String {
    format!("{namespace}.{}", within_namespace(event))
}

/// Reads the event that stands on `subject`, which is one of the log's: the stream takes its own namespace's alone, so
/// what comes after the namespace decides.
pub fn read(subject: &str, payload: &[u8]) -> Result<Event, NotAnEntry> {
    let event = Event::decode(payload)?;
    let is_on = |own: &str| subject.strip_suffix(own).is_some_and(|namespace| namespace.ends_with('.'));
    // A later version decides whether its fact is ordered.
    let is_placed =
        is_on(&within_namespace(&event)) || event.fact == Fact::Unknown && is_on(&unordered(event.conversation_id));
    if is_placed { Ok(event) } else { Err(NotAnEntry::Misplaced) }
}

fn within_namespace(event: &Event) -> String {
    match event.fact {
        Fact::MessageSent(_) | Fact::ParticipantsChanged(_) | Fact::BlocksChanged(_) | Fact::Unknown => {
            ordered(event.conversation_id)
        }
        Fact::ReadAdvanced(_) | Fact::DeliveredAdvanced(_) => unordered(event.conversation_id),
    }
}

fn ordered(conversation_id: ConversationId) -> String {
    format!("{}.message.{}", Slot::of(conversation_id), conversation_id.as_uuid().simple())
}

/// Of what is told of a conversation without an order.
fn unordered(conversation_id: ConversationId) -> String {
    format!("{}.fact", Slot::of(conversation_id))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        clock::Timestamp,
        event::{BlocksChanged, DeliveredAdvanced, Participants, ParticipantsChanged, ReadAdvanced},
        ids::{MessageId, UserId},
        position::{Seq, StreamSeq},
        wire::ConversationKind,
    };

    const ID: &str = "00000000000040008000000000004a0a";

    fn event(fact: Fact) -> Vec<u8> {
        let event = Event {
            conversation_id: Uuid::try_parse(ID).unwrap().try_into().unwrap(),
            kind: ConversationKind::Group,
            seq: Seq(1),
            sent_at: Timestamp(1),
            previous: StreamSeq::ZERO,
            participants: Participants::default(),
            fact,
        };
        event.encode()
    }

    #[test]
    fn an_event_is_read_on_its_own_subject_and_on_no_other() {
        let (user_id, message_id) = (UserId::random(), MessageId::random());
        let (in_order, alone) = (format!("chat.10.message.{ID}"), "chat.10.fact".to_owned());
        let facts = [
            (Fact::BlocksChanged(BlocksChanged { user_id, lsn: None }), &in_order),
            (Fact::ParticipantsChanged(ParticipantsChanged::default()), &in_order),
            (Fact::ReadAdvanced(ReadAdvanced { user_id, message_id, read_seq: Seq(1) }), &alone),
            (Fact::DeliveredAdvanced(DeliveredAdvanced { user_id, delivered_seq: Seq(1) }), &alone),
        ];
        let elsewhere = [
            "chat.gateway.fact".to_owned(),
            "chat.11.fact".to_owned(),
            "chat.110.fact".to_owned(),
            format!("chat.11.message.{ID}"),
            format!("chat.gateway.message.{ID}"),
            format!("chat.10.message.{}", ID.replace("4a", "4b")),
            "10.fact".to_owned(),
            String::new(),
        ];
        for (fact, own) in facts {
            let payload = event(fact);
            assert_eq!(&subject_of("chat", &read(own, &payload).unwrap()), own);
            for other in elsewhere.iter().chain([&in_order, &alone].into_iter().filter(|subject| *subject != own)) {
                assert!(matches!(read(other, &payload), Err(NotAnEntry::Misplaced)), "{other}");
            }
        }
    }

    #[test]
    fn a_fact_of_a_later_version_is_read_on_either_of_its_subjects() {
        let known = event(Fact::BlocksChanged(BlocksChanged { user_id: UserId::random(), lsn: None }));
        let name = b"BlocksChanged";
        let at = known.windows(name.len()).position(|bytes| bytes == name).unwrap();
        let newer = [&known[..at], b"PinnedMessage", &known[at + name.len()..]].concat();
        for subject in [format!("chat.10.message.{ID}"), "chat.10.fact".to_owned()] {
            assert_eq!(read(&subject, &newer).unwrap().fact, Fact::Unknown, "{subject}");
        }
        let elsewhere = format!("chat.11.message.{ID}");
        assert!(matches!(read(&elsewhere, &newer), Err(NotAnEntry::Misplaced)));
    }
}
