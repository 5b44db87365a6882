//! *Send message*, the central operation: validate → authorise → seal → append.
//!
//! **Invariant:** only this room appends what is ordered within a conversation, and nothing is answered `accepted` before
//! the log has it.

mod lane;
mod repeat;
mod validate;

pub use lane::Lanes;

use chat_shared::{
    clock::{Clock, Timestamp},
    customer_view::CustomerView,
    event::{Event, Fact, MessageSent, Participants},
    ids::{BusinessId, ConversationId, MessageId, UserId},
    lifecycle::Tasks,
    limits,
    log::{AppendError, Appended, Head},
    position::{Seq, StreamSeq},
    sealing::{Envelope, Sealed},
    wire::{CaseState, SendMessage},
};

use crate::{
    content::Content,
    database::Database,
    history::Tail,
    quota::{EVENT_BYTES, Quotas, Resource},
    refusal::Refusal,
    telemetry,
};

/// Attempts after a lost race that follow at once; further ones rest a moment.
const QUICK_ATTEMPTS: u32 = 4;

/// Appends messages and changes of conversations.
#[derive(Clone)]
pub struct Sender {
    tail: Tail,
    lanes: Lanes,
    database: Database,
    content: Content,
    clock: Clock,
    quotas: Quotas,
}

/// An accepted message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acceptance {
    /// Its number.
    pub seq: Seq,
    /// When it was accepted, the first time.
    pub sent_at: Timestamp,
    /// Whether it had been accepted before.
    pub is_repeat: bool,
    /// The business, if the message is one of a customer whose case is resolved: it opens the next case.
    pub opens_case: Option<BusinessId>,
}

/// What was asked for, checked.
struct Request {
    user_id: UserId,
    command: SendMessage,
    place: Sealed,
    append_id: String,
}

impl Sender {
    /// A sender that appends to the log whose tail is given.
    pub fn new(tail: Tail, database: Database, content: Content, clock: Clock, quotas: Quotas, tasks: &Tasks) -> Self {
        let log = tail.log();
        let lanes = Lanes::new(log.clone(), log.appender(tasks), database.clone());
        Self { tail, lanes, database, content, clock, quotas }
    }

    /// What counts the messages that it appends.
    pub const fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Sends a message as `user_id`; a repeat gets the first answer.
    pub async fn send(&self, user_id: UserId, command: SendMessage) -> Result<Acceptance, Refusal> {
        let started = std::time::Instant::now();
        validate::text(&command.text)?;
        let SendMessage { conversation_id, message_id, .. } = command;
        let request = Request {
            user_id,
            place: Sealed { conversation_id, message_id, sender_id: user_id },
            append_id: append_id(conversation_id, message_id),
            command,
        };
        let sent = tokio::time::timeout(limits::APPEND_WAIT_MAX, self.append_message(&request))
            .await
            .map_err(|_| AppendError::Unknown)??;
        if !sent.is_repeat {
            let bytes = EVENT_BYTES + request.command.text.len() as u64;
            self.quotas.count(user_id, Resource::LogBytes, bytes);
        }
        metrics::histogram!(telemetry::ACCEPT_SECONDS).record(started.elapsed());
        metrics::counter!(if sent.is_repeat { telemetry::REPEATS_TOTAL } else { telemetry::ACCEPTED_TOTAL })
            .increment(1);
        Ok(sent)
    }

    /// Appends, again with a fresh head for as long as others are faster.
    async fn append_message(&self, request: &Request) -> Result<Acceptance, Refusal> {
        if request.command.is_repeat
            && let Some(earlier) = self.find_earlier(request).await?
        {
            return Ok(earlier);
        }
        self.quotas.check(request.user_id, Resource::LogBytes)?;
        let mut lane = self.lanes.enter(request.command.conversation_id).await;
        let mut envelope: Option<Envelope> = None;
        for attempt in 0..limits::APPEND_ATTEMPTS_MAX {
            let head = lane.head_that(|head| may_send(head, request.user_id)).await?;
            let sealed = match &envelope {
                Some(sealed) => sealed.clone(),
                None => envelope.insert(self.content.seal(&request.place, &request.command.text)?).clone(),
            };
            let event = self.message_event(request, &head, sealed)?;
            // By the time of the answer the lane may know of later events.
            let opens_case = opens_case(&event.participants, request.user_id);
            let accepted = Acceptance { seq: event.seq, sent_at: event.sent_at, is_repeat: false, opens_case };
            match lane.append(event, &request.append_id).await {
                Ok(Appended::At(_)) => return Ok(accepted),
                Ok(Appended::Duplicate(at)) => return self.compare_with(request, at).await,
                // A replica that is behind may give the same old head again.
                Err(AppendError::HeadMoved) if attempt >= QUICK_ATTEMPTS => lane::pause(attempt).await,
                Err(AppendError::HeadMoved) => {}
                Err(AppendError::InFlight) => lane::pause(attempt).await,
                Err(error) => return Err(error.into()),
            }
            metrics::counter!(telemetry::APPEND_RETRIES_TOTAL).increment(1);
        }
        Err(AppendError::HeadMoved.into())
    }

    /// The participants of a conversation in which a user takes part, as this gateway knows them.
    pub async fn participants_with(
        &self,
        user_id: UserId,
        conversation_id: ConversationId,
    ) -> Result<Participants, Refusal> {
        let head = self.lanes.head_that(conversation_id, |head| takes_part(head, user_id)).await?;
        Ok(head.participants)
    }

    /// Refuses a user who doesn't take part in a conversation, and a number that none of its messages has yet.
    pub async fn check_number(
        &self,
        user_id: UserId,
        conversation_id: ConversationId,
        seq: Seq,
    ) -> Result<(), Refusal> {
        let has_number = |head: &Head| {
            takes_part(head, user_id)?;
            if (Seq(1)..=head.seq).contains(&seq) { Ok(()) } else { Err(Refusal::no_such_message()) }
        };
        self.lanes.head_that(conversation_id, has_number).await.map(drop)
    }

    /// Forgets where a conversation stands, since its participants or their blocks have changed unseen.
    pub fn forget(&self, conversation_id: ConversationId) {
        self.lanes.forget(conversation_id);
    }

    /// Forgets where all conversations stand, since changes may have gone unheard.
    pub fn forget_all(&self) {
        self.lanes.forget_all();
    }

    /// Learns from a delivered event where its conversation stands.
    pub fn learn(&self, event: &Event, at: StreamSeq) {
        self.lanes.learn(event, at);
    }

    fn message_event(&self, request: &Request, head: &Head, envelope: Envelope) -> Result<Event, Refusal> {
        let audience = self.content.tag(&request.place, &envelope, &head.participants.list)?;
        let (message_id, sender_id) = (request.command.message_id, request.user_id);
        // A device can't have shown more than there is.
        let seen_seq = request.command.seen_seq.unwrap_or_default().min(head.seq);
        Ok(Event {
            conversation_id: request.command.conversation_id,
            kind: head.kind,
            seq: head.seq.next(),
            sent_at: self.clock.now().max(head.sent_at),
            previous: head.stream_seq,
            participants: head.participants.clone(),
            fact: Fact::MessageSent(MessageSent { message_id, sender_id, envelope, seen_seq, audience }),
        })
    }

    /// Appends a change of participants that PostgreSQL has committed. If the log is past it, who came and went is told
    /// all the same, but the participants stay as the log has them.
    pub async fn append_change(&self, mut change: Event) -> Result<(), Refusal> {
        let append_id = format!("{}:change:{}", change.conversation_id.as_uuid().simple(), change.participants.version);
        let (committed_at, version) = (change.sent_at, change.participants.version);
        let mut lane = self.lanes.enter(change.conversation_id).await;
        for attempt in 0..limits::APPEND_ATTEMPTS_MAX {
            let head = lane.head_for_change(&change).await?;
            // The log may have had the change already, and messages since: those are unread for the users who were added.
            if head.stream_seq > StreamSeq::ZERO
                && head.participants.version >= version
                && let Fact::ParticipantsChanged(change) = &mut change.fact
            {
                change.returned.clone_from(&change.added);
            }
            if head.participants.version > version {
                change.participants = head.participants.clone();
            }
            change.seq = head.seq;
            change.sent_at = committed_at.max(head.sent_at);
            change.previous = head.stream_seq;
            match lane.append(change.clone(), &append_id).await {
                Ok(_) => return Ok(()),
                Err(AppendError::HeadMoved) => {}
                Err(AppendError::InFlight) => lane::pause(attempt).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(AppendError::HeadMoved.into())
    }
}

/// Who takes part reads; who reads may send, unless one of a pair has blocked the other.
fn may_send(head: &Head, user_id: UserId) -> Result<(), Refusal> {
    takes_part(head, user_id)?;
    if !head.is_writable() {
        return Err(Refusal::later_version());
    }
    if head.participants.business.as_ref().is_some_and(|business| business.is_closed) {
        return Err(Refusal::business_closed());
    }
    if head.participants.is_blocked() { Err(Refusal::blocked()) } else { Ok(()) }
}

fn opens_case(participants: &Participants, sender_id: UserId) -> Option<BusinessId> {
    let customer = CustomerView::of(participants, sender_id)?;
    let is_resolved = participants.business.as_ref()?.case.state == CaseState::Resolved;
    is_resolved.then(|| customer.business_id())
}

fn takes_part(head: &Head, user_id: UserId) -> Result<(), Refusal> {
    head.participants.find(user_id).map(drop).ok_or_else(Refusal::no_such_conversation)
}

/// One message of a conversation has one. No other participant knows a message's id before the message is in the log.
fn append_id(conversation_id: ConversationId, message_id: MessageId) -> String {
    format!("{}:{}", conversation_id.as_uuid().simple(), message_id.as_uuid().simple())
}
