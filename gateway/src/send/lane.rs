//! One lane a conversation: this gateway appends one event at a time to it, and remembers its head.

use std::{sync::Arc, time::Duration};

use chat_shared::{
    clock::Timestamp,
    event::{Event, Fact},
    ids::ConversationId,
    log::{AppendError, Appended, Appender, Head, Log, Newest},
    position::{Seq, StreamSeq},
};
use moka::{policy::EvictionPolicy, sync::Cache};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{conversations, database::Database, refusal::Refusal};

/// Conversations whose heads are remembered; the least used goes first and is read again when it is needed.
const LANES_MAX: u64 = 100_000;
/// A head that nobody used for this long is forgotten.
const LANE_IDLE: Duration = Duration::from_mins(30);

/// The lanes of all conversations.
#[derive(Clone)]
pub struct Lanes {
    log: Log,
    appender: Appender,
    database: Database,
    known: Cache<ConversationId, Arc<Known>>,
}

/// What is known of one conversation.
#[derive(Default)]
struct Known {
    /// Its head, for whose turn it is.
    head: Arc<Mutex<Option<Head>>>,
    /// What was learned last while it was somebody's turn.
    learned: parking_lot::Mutex<Option<Learned>>,
    newest: Newest,
}

/// What a delivered event says of where its conversation stands.
struct Learned {
    /// After which head.
    previous: StreamSeq,
    head: Head,
}

/// The right to append to one conversation.
pub struct Lane {
    log: Log,
    appender: Appender,
    database: Database,
    conversation_id: ConversationId,
    known: Arc<Known>,
    head: OwnedMutexGuard<Option<Head>>,
}

impl Lanes {
    pub(super) fn new(log: Log, appender: Appender, database: Database) -> Self {
        let known = Cache::builder()
            .max_capacity(LANES_MAX)
            .time_to_idle(LANE_IDLE)
            // Whoever writes now is remembered, so that a conversation has one lane.
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { log, appender, database, known }
    }

    /// Waits for the lane, in the order of asking.
    pub(super) async fn enter(&self, conversation_id: ConversationId) -> Lane {
        let known = self.known.get_with(conversation_id, Arc::default);
        let head = Arc::clone(&known.head).lock_owned().await;
        self.lane(conversation_id, known, head)
    }

    fn lane(&self, conversation_id: ConversationId, known: Arc<Known>, head: OwnedMutexGuard<Option<Head>>) -> Lane {
        let (log, appender, database) = (self.log.clone(), self.appender.clone(), self.database.clone());
        let mut lane = Lane { log, appender, database, conversation_id, known, head };
        lane.take_learned();
        lane
    }

    /// The head of a conversation as this gateway knows it, if it passes a check. Does not wait for the lane.
    pub(super) async fn head_that(
        &self,
        conversation_id: ConversationId,
        passes: impl Fn(&Head) -> Result<(), Refusal>,
    ) -> Result<Head, Refusal> {
        let known = self.known.get_with(conversation_id, Arc::default);
        if let Ok(head) = Arc::clone(&known.head).try_lock_owned() {
            return self.lane(conversation_id, known, head).head_that(passes).await;
        }
        read_head_that(&self.log, &self.database, conversation_id, passes).await
    }

    /// Forgets where a conversation stands: somebody may not take part any more who is remembered to.
    pub fn forget(&self, conversation_id: ConversationId) {
        self.known.invalidate(&conversation_id);
    }

    /// Forgets where all conversations stand.
    pub fn forget_all(&self) {
        self.known.invalidate_all();
    }

    /// Learns from a delivered event where its conversation stands, if this gateway writes to it too: else its next
    /// append would fail and ask.
    pub fn learn(&self, event: &Event, at: StreamSeq) {
        // Nothing follows a receipt, and an unknown kind may be one.
        if let Fact::ReadAdvanced(_) | Fact::DeliveredAdvanced(_) | Fact::Unknown = event.fact {
            return;
        }
        let Some(known) = self.known.get(&event.conversation_id) else { return };
        if !known.newest.raise(at) {
            return;
        }
        let learned = Learned { previous: event.previous, head: Head::after(event.clone(), at) };
        match known.head.try_lock() {
            Ok(mut head) => follow(&mut head, learned),
            Err(_) => *known.learned.lock() = Some(learned),
        }
    }
}

/// The head of a conversation if it passes a check. The replica that answers the first read may be behind, so only the
/// leader's head leads to a refusal.
async fn read_head_that(
    log: &Log,
    database: &Database,
    conversation_id: ConversationId,
    passes: impl Fn(&Head) -> Result<(), Refusal>,
) -> Result<Head, Refusal> {
    if let Some(head) = conversations::head(log, database, conversation_id).await?
        && passes(&head).is_ok()
    {
        return Ok(head);
    }
    let newest = conversations::newest_head(log, database, conversation_id).await?;
    let head = newest.ok_or_else(Refusal::no_such_conversation)?;
    passes(&head).map(|()| head)
}

/// Moves a remembered head on to one that follows it at once, by a message among the same participants. By anything else
/// it is forgotten, and read from the log when it is needed: who takes part is never believed of what is only delivered.
fn follow(known: &mut Option<Head>, learned: Learned) {
    let Some(head) = &*known else { return };
    let Learned { previous, head: next } = learned;
    if next.stream_seq <= head.stream_seq {
        return;
    }
    let is_next = previous == head.stream_seq
        && (next.kind, next.seq) == (head.kind, head.seq.next())
        && next.participants == head.participants;
    *known = is_next.then_some(next);
}

impl Lane {
    /// The head as this gateway knows it, if it passes a check; an append finds out whether the head has moved. A
    /// remembered head that fails the check is read again: no append would find out that the user was added since.
    ///
    /// A head from PostgreSQL is not remembered: the log takes an append after it whenever it holds nothing of the
    /// conversation, so also after later events have come, been stored and been removed from the log.
    pub(super) async fn head_that(&mut self, passes: impl Fn(&Head) -> Result<(), Refusal>) -> Result<Head, Refusal> {
        if let Some(head) = self.head.as_ref().filter(|head| passes(head).is_ok()) {
            return Ok(head.clone());
        }
        *self.head = None;
        let head = read_head_that(&self.log, &self.database, self.conversation_id, passes).await?;
        self.known.newest.set(head.stream_seq);
        *self.head = Some(&head).filter(|head| head.stream_seq > StreamSeq::ZERO).cloned();
        Ok(head)
    }

    /// As `head`, for a change of the conversation: what PostgreSQL says of its participants is the change itself.
    pub(super) async fn head_for_change(&mut self, change: &Event) -> Result<Head, Refusal> {
        if change.participants.version > 1 {
            return self.head_that(|_| Ok(())).await;
        }
        // A new conversation: its first event, unless it was appended before.
        let head = if let Some((at, event)) = self.log.last(self.conversation_id).await? {
            Head::after(event, at)
        } else {
            // Messages may have been stored and removed from the log since: their numbers are taken.
            let stored = conversations::stored_head(&self.database, self.conversation_id).await?;
            let (seq, sent_at) = stored.map_or((Seq::ZERO, Timestamp::default()), |head| (head.seq, head.sent_at));
            let (kind, participants) = (change.kind, change.participants.clone());
            Head { stream_seq: StreamSeq::ZERO, kind, seq, sent_at, participants }
        };
        self.known.newest.set(head.stream_seq);
        Ok(head)
    }

    fn take_learned(&mut self) {
        if let Some(learned) = self.known.learned.lock().take() {
            follow(&mut self.head, learned);
        }
    }

    /// Appends after the head, and moves the head on. Whatever goes wrong, the head is read from the log next time: one
    /// that was learned meanwhile may be as far behind as deliveries are, and would lose the next race too.
    pub(super) async fn append(&mut self, event: Event, append_id: &str) -> Result<Appended, AppendError> {
        let known = self.head.take();
        let outcome = self.appender.append(&self.log, &event, append_id, &self.known.newest).await;
        *self.head = match &outcome {
            Ok(Appended::At(at)) => {
                self.known.newest.raise(*at);
                Some(Head::after(event, *at))
            }
            // The expectation may or may not have been checked before the duplicate was found.
            Ok(Appended::Duplicate(_))
            | Err(
                AppendError::HeadMoved | AppendError::Refused(_) | AppendError::Unknown | AppendError::Unreadable(_),
            ) => None,
            Err(AppendError::InFlight) => known,
        };
        if outcome.is_ok() {
            self.take_learned();
        } else {
            *self.known.learned.lock() = None;
        }
        outcome
    }
}

/// Waits 1 to 5 ms, for whoever is in flight to land.
pub(super) async fn pause(attempt: u32) {
    let longest_us = 1000 + 250 * u64::from(attempt.min(16));
    tokio::time::sleep(Duration::from_micros(rand::random_range(1000..=longest_us))).await;
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use chat_shared::ids::UserId;

    use super::*;
    use crate::{
        send::takes_part,
        tests::place::{Place, users},
    };

    #[tokio::test]
    async fn who_lost_a_race_asks_the_log_though_deliveries_that_are_behind_tell_of_newer_heads() {
        let (place, [ana, ben]) = (Place::new().await, users());
        let conversation_id = place.direct(ana, ben).await.conversation_id;
        let other = Lanes::new(place.log.clone(), place.log.appender(&place.tasks), place.database.clone());
        let mut lane = other.enter(conversation_id).await;
        let before = lane.head_that(|_| Ok(())).await.unwrap();
        place.send_many(ana, conversation_id, 3).await;
        let (at, newest) = place.log.newest(conversation_id).await.unwrap().unwrap();

        let second = newest.previous;
        other.learn(&place.log.get(second).await.unwrap().unwrap(), second);
        let event = Event { previous: before.stream_seq, ..newest.clone() };
        assert!(matches!(event.fact, Fact::MessageSent(_)));
        assert!(matches!(lane.append(event, "late").await, Err(AppendError::HeadMoved)));
        assert_eq!(lane.head_that(|_| Ok(())).await.unwrap().stream_seq, at, "not {second:?}, which would lose again");
    }

    #[tokio::test]
    async fn a_user_is_refused_by_the_leader_of_the_log_alone() {
        let (place, [ana, ben]) = (Place::new().await, users());
        let conversation_id = place.direct(ana, ben).await.conversation_id;
        let lanes = Lanes::new(place.log.clone(), place.log.appender(&place.tasks), place.database.clone());
        let mut lane = lanes.enter(conversation_id).await;
        let reads = Cell::new(0);
        // The first head is judged as that of a replica which lacks the change that added the user.
        let behind_once = |_: &Head| {
            reads.set(reads.get() + 1);
            if reads.get() == 1 { Err(Refusal::no_such_conversation()) } else { Ok(()) }
        };
        assert!(lane.head_that(behind_once).await.is_ok(), "the leader has the user");
        assert!(lane.head_that(|head| takes_part(head, UserId::random())).await.is_err());
    }

    #[tokio::test]
    async fn numbers_go_on_after_a_first_change_that_is_published_late() {
        let (place, [ana, ben]) = (Place::new().await, users());
        let conversation_id = place.group(ana, &[ben]).await.conversation_id;
        let (_, first) = place.log.newest(conversation_id).await.unwrap().unwrap();
        place.send_many(ana, conversation_id, 3).await;
        place.store(conversation_id, 3, &[]).await;
        let stream = async_nats::jetstream::new(place.operator.clone()).get_stream(place.log.name()).await.unwrap();
        stream.purge().await.unwrap();
        let lanes = Lanes::new(place.log.clone(), place.log.appender(&place.tasks), place.database.clone());
        let mut lane = lanes.enter(conversation_id).await;
        assert_eq!(lane.head_for_change(&first).await.unwrap().seq, Seq(3));
    }
}
