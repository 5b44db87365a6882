//! Appends with compare-and-set, and reads single events and heads.

use async_nats::jetstream::{
    ErrorCode,
    context::PublishErrorKind,
    message::{PublishMessage, StreamMessage},
    stream::{DirectGetErrorKind, LastRawMessageError, LastRawMessageErrorKind},
};

use super::Log;
use crate::{
    clock::Timestamp,
    event::{Event, Participants},
    ids::ConversationId,
    position::{Seq, StreamSeq},
    wire::ConversationKind,
};

/// JetStream's answer while another append to the subject is being replicated.
const IN_FLIGHT: u64 = 10164;

/// Where a conversation stands: what the next event has to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The log position of the last event; zero if the log holds none.
    pub stream_seq: StreamSeq,
    /// Direct or group.
    pub kind: ConversationKind,
    /// The number of the last message.
    pub seq: Seq,
    /// When the last event was accepted.
    pub sent_at: Timestamp,
    /// Who takes part.
    pub participants: Participants,
}

impl Head {
    /// The head that `event` makes when it stands at `stream_seq`.
    pub fn after(event: Event, stream_seq: StreamSeq) -> Self {
        Self { stream_seq, kind: event.kind, seq: event.seq, sent_at: event.sent_at, participants: event.participants }
    }
}

/// The log's answer to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// The event stands in the log, durably.
    At(StreamSeq),
    /// An event with the same append id stands there already.
    Duplicate(StreamSeq),
}

/// Why an append or a read failed.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Somebody else appended to the conversation. Read the head again and repeat.
    #[error("the conversation has moved on")]
    HeadMoved,
    /// Another append to the conversation is being replicated. Repeat as it is, after a moment.
    #[error("another append to the conversation is in flight")]
    InFlight,
    /// The log refuses: full, without a leader, or out of reach. Nothing was kept.
    #[error("the log does not take events now: {0}")]
    Refused(String),
    /// No answer came in time. The event may stand in the log or come to stand there; repeat with the same id.
    #[error("the log did not answer in time; the outcome is unknown")]
    Unknown,
    /// What stands in the log can't be read.
    #[error(transparent)]
    Unreadable(#[from] crate::event::UnreadableEvent),
}

impl Log {
    /// Appends `event` if its conversation's last event stands at `event.previous`, and at most once for an
    /// `append_id` within the duplicate window.
    pub async fn append(&self, event: &Event, append_id: &str) -> Result<Appended, AppendError> {
        let publish = PublishMessage::build()
            .payload(event.encode().into())
            .message_id(append_id)
            .expected_stream(&self.name)
            .expected_last_subject_sequence(event.previous.0);
        let acknowledged =
            async { self.context.send_publish(self.subject(event.conversation_id), publish).await?.await };
        match acknowledged.await {
            Ok(ack) if ack.duplicate => Ok(Appended::Duplicate(StreamSeq(ack.sequence))),
            Ok(ack) => Ok(Appended::At(StreamSeq(ack.sequence))),
            Err(error) => Err(match error.kind() {
                PublishErrorKind::WrongLastSequence => AppendError::HeadMoved,
                PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => AppendError::Unknown,
                _ if error_code(&error).is_some_and(|code| code.0 == IN_FLIGHT) => AppendError::InFlight,
                _ => AppendError::Refused(error.to_string()),
            }),
        }
    }

    /// The conversation's last event; none if the log holds none any more. Any replica answers, and one that is behind
    /// may answer with an older event: an append after that is refused as moved.
    pub async fn last(&self, conversation_id: ConversationId) -> Result<Option<(StreamSeq, Event)>, AppendError> {
        match self.stream.direct_get_last_for_subject(self.subject(conversation_id)).await {
            Ok(message) => decode(&message).map(Some),
            Err(error) => match error.kind() {
                DirectGetErrorKind::NotFound => Ok(None),
                DirectGetErrorKind::TimedOut => Err(AppendError::Unknown),
                _ => Err(AppendError::Refused(error.to_string())),
            },
        }
    }

    /// The conversation's last event as the log's leader knows it: everything accepted before the question is in it.
    pub async fn newest(&self, conversation_id: ConversationId) -> Result<Option<(StreamSeq, Event)>, AppendError> {
        answered(self.stream.get_last_raw_message_by_subject(&self.subject(conversation_id)).await)
    }

    /// The event at a position, as the log's leader knows it; none if it has been aged out.
    pub async fn get(&self, at: StreamSeq) -> Result<Option<Event>, AppendError> {
        Ok(answered(self.stream.get_raw_message(at.0).await)?.map(|(_, event)| event))
    }
}

fn answered(answer: Result<StreamMessage, LastRawMessageError>) -> Result<Option<(StreamSeq, Event)>, AppendError> {
    match answer {
        Ok(message) => decode(&message).map(Some),
        Err(error) => match error.kind() {
            LastRawMessageErrorKind::NoMessageFound => Ok(None),
            _ => Err(AppendError::Refused(error.to_string())),
        },
    }
}

fn decode(message: &StreamMessage) -> Result<(StreamSeq, Event), AppendError> {
    Ok((StreamSeq(message.sequence), Event::decode(&message.payload)?))
}

fn error_code(error: &async_nats::jetstream::context::PublishError) -> Option<ErrorCode> {
    let source = std::error::Error::source(error)?;
    Some(source.downcast_ref::<async_nats::jetstream::Error>()?.error_code())
}
