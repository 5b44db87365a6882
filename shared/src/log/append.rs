//! Appends with compare-and-set, and reads single events and heads.

use std::{collections::HashMap, time::Duration};

use async_nats::{
    HeaderMap, HeaderValue, header,
    jetstream::{
        ErrorCode,
        context::{PublishError, PublishErrorKind},
        message::{PublishMessage, StreamMessage},
        publish::PublishAck,
        stream::{DirectGetErrorKind, LastRawMessageError, LastRawMessageErrorKind},
    },
};
use bytes::Bytes;

use super::{
    Log, subject_of,
    together::{NotTogether, Part, publish_together},
};
use crate::{
    clock::Timestamp,
    event::{Event, Fact, Participants, has_known_names},
    ids::{ConversationId, UserId},
    position::{Seq, StreamSeq},
    wire::ConversationKind,
};

/// JetStream's answer while another append to the subject is being replicated.
const IN_FLIGHT: u64 = 10164;

/// How long a question for several events may take. Each of them can be read by itself, too.
const READ_WAIT_MAX: Duration = Duration::from_secs(1);

/// Facts of one write.
const FACTS_TOGETHER_MAX: usize = 256;

/// An event on its way to the log.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) subject: String,
    pub(super) payload: Bytes,
    /// Where the conversation's last event has to stand; zero in an event that follows none.
    pub(super) expected: StreamSeq,
    /// Unique within the duplicate window; none for an event that does no harm when it comes twice, and follows none.
    id: Option<String>,
    /// The sender of a message.
    pub(super) sender_id: Option<UserId>,
}

/// Why nothing of a batch was kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum BatchError {
    /// At least one of its conversations has moved on, or has an append in flight.
    #[error("a conversation of the batch has moved on")]
    HeadMoved,
    /// At least one of its append ids is a repeat.
    #[error("the batch contains a repeat")]
    Repeat,
    /// It failed for a reason that concerns all of it.
    #[error(transparent)]
    Whole(#[from] AppendError),
}

impl From<BatchError> for AppendError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::HeadMoved => Self::HeadMoved,
            BatchError::Repeat => refused(&error),
            BatchError::Whole(error) => error,
        }
    }
}

impl Append {
    pub(super) fn new(log: &Log, event: &Event, append_id: &str) -> Self {
        let sender_id = match &event.fact {
            Fact::MessageSent(message) => Some(message.sender_id),
            _ => None,
        };
        Self {
            subject: subject_of(&log.namespace, event),
            payload: event.encode().into(),
            expected: event.previous,
            id: Some(append_id.to_owned()),
            sender_id,
        }
    }

    /// A fact that nothing follows, on its slot's subject.
    fn of_fact(log: &Log, event: &Event) -> Self {
        let subject = subject_of(&log.namespace, event);
        Self { subject, payload: event.encode().into(), expected: StreamSeq::ZERO, id: None, sender_id: None }
    }

    #[cfg(test)]
    pub(super) fn for_test(subject: &str, bytes: usize) -> Self {
        let payload = vec![0; bytes].into();
        Self { subject: subject.to_owned(), payload, expected: StreamSeq::ZERO, id: None, sender_id: None }
    }

    fn headers(&self, stream: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_EXPECTED_STREAM, stream);
        if let Some(id) = &self.id {
            headers.insert(header::NATS_MESSAGE_ID, id.as_str());
            headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(self.expected.0));
        }
        headers
    }
}

pub(super) fn refused(why: &dyn std::fmt::Display) -> AppendError {
    AppendError::Refused(why.to_string())
}

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

    /// Whether an event after it can be written without losing a name of a later version.
    pub fn is_writable(&self) -> bool {
        has_known_names(self.kind, &self.participants.list)
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
        self.append_alone(&Append::new(self, event, append_id)).await
    }

    /// Appends facts that nothing follows, such as receipts: all of them, or an error after which each may or may not
    /// stand there. In one write if the log takes that.
    pub async fn append_facts(&self, events: &[Event]) -> Result<(), AppendError> {
        let appends: Vec<_> = events.iter().map(|event| Append::of_fact(self, event)).collect();
        for part in appends.chunks(FACTS_TOGETHER_MAX) {
            if self.takes_batches && part.len() > 1 {
                self.append_together(&part.iter().collect::<Vec<_>>()).await?;
            } else {
                for append in part {
                    self.append_alone(append).await?;
                }
            }
        }
        Ok(())
    }

    pub(super) async fn append_alone(&self, append: &Append) -> Result<Appended, AppendError> {
        let publish = PublishMessage::build().headers(append.headers(&self.name)).payload(append.payload.clone());
        let ack = self.stall.watch(self.acknowledged(append.subject.clone(), publish)).await?;
        let at = StreamSeq(ack.sequence);
        Ok(if ack.duplicate { Appended::Duplicate(at) } else { Appended::At(at) })
    }

    /// Appends all or none, one after the other, in one write of the server; gives the position of the last. After any
    /// error but `Unknown` nothing was kept. The server doesn't name the append that was to blame.
    pub(super) async fn append_together(&self, appends: &[&Append]) -> Result<StreamSeq, BatchError> {
        let parts = appends.iter().map(|append| Part {
            subject: append.subject.clone(),
            headers: append.headers(&self.name),
            payload: append.payload.clone(),
        });
        let publishing = async {
            let published = publish_together(&self.client, &self.context, parts).await.map_err(|error| match error {
                NotTogether::NotSent(why) => BatchError::Whole(AppendError::Refused(why)),
                NotTogether::Answer(error)
                    if error_code(&error) == Some(ErrorCode::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE) =>
                {
                    BatchError::Repeat
                }
                NotTogether::Answer(error) => match not_appended(&error) {
                    AppendError::HeadMoved | AppendError::InFlight => BatchError::HeadMoved,
                    error => BatchError::Whole(error),
                },
            });
            match published {
                Err(BatchError::Whole(error)) => Err(error),
                outcome => Ok(outcome),
            }
        };
        let ack = self.stall.watch(publishing).await.map_err(BatchError::Whole)??;
        // The server refuses a batch with a repeat in it, so this isn't one of its answers.
        if ack.duplicate { Err(AppendError::Unknown.into()) } else { Ok(StreamSeq(ack.sequence)) }
    }

    async fn acknowledged(&self, subject: String, publish: PublishMessage) -> Result<PublishAck, AppendError> {
        let acknowledged = async { self.context.send_publish(subject, publish).await?.await };
        acknowledged.await.map_err(|error| not_appended(&error))
    }

    /// The conversation's last event; none if the log holds none any more. Any replica answers, and one that is behind
    /// may answer with an older event: an append after that is refused as moved.
    pub async fn last(&self, conversation_id: ConversationId) -> Result<Option<(StreamSeq, Event)>, AppendError> {
        match self.stream.direct_get_last_for_subject(self.subject(conversation_id)).await {
            Ok(message) => decode(&message).map(Some),
            Err(error) => match error.kind() {
                DirectGetErrorKind::NotFound => Ok(None),
                DirectGetErrorKind::TimedOut => Err(AppendError::Unknown),
                _ => Err(refused(&error)),
            },
        }
    }

    /// Where the last events of `subjects` stand, in one question. A subject without any is missing.
    pub(super) async fn positions(&self, subjects: &[&str]) -> Result<HashMap<String, StreamSeq>, AppendError> {
        let question = serde_json::json!({ "multi_last": subjects, "batch": subjects.len() });
        // An event that is missing in the answer is looked for alone.
        let answers = self.ask_directly(&question, subjects.len(), READ_WAIT_MAX).await?;
        Ok(answers.into_iter().map(|entry| (entry.subject, entry.stream_seq)).collect())
    }

    /// The conversation's events from position `from` on, ascending, at most `events_max` of them, in one question. Any
    /// replica answers, and one that is behind lacks the last ones; positions and `previous` show that.
    pub async fn read_from(
        &self,
        conversation_id: ConversationId,
        from: StreamSeq,
        events_max: usize,
    ) -> Result<Vec<(StreamSeq, Event)>, AppendError> {
        let subject = self.subject(conversation_id);
        let question = serde_json::json!({ "seq": from.0, "next_by_subj": subject, "batch": events_max });
        let entries = self.ask_directly(&question, events_max, READ_WAIT_MAX).await?;
        entries.into_iter().map(|entry| Ok((entry.stream_seq, Event::decode(&entry.payload)?))).collect()
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
            _ => Err(refused(&error)),
        },
    }
}

fn decode(message: &StreamMessage) -> Result<(StreamSeq, Event), AppendError> {
    Ok((StreamSeq(message.sequence), Event::decode(&message.payload)?))
}

fn not_appended(error: &PublishError) -> AppendError {
    match error.kind() {
        PublishErrorKind::WrongLastSequence => AppendError::HeadMoved,
        PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => AppendError::Unknown,
        _ if error_code(error).is_some_and(|code| code.0 == IN_FLIGHT) => AppendError::InFlight,
        _ => refused(error),
    }
}

fn error_code(error: &PublishError) -> Option<ErrorCode> {
    let source = std::error::Error::source(error)?;
    Some(source.downcast_ref::<async_nats::jetstream::Error>()?.error_code())
}
