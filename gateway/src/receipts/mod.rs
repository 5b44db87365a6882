//! How far participants have got: what they have read, through the log; and what has reached a device of theirs, which
//! is told to the sender alone and never kept.
//!
//! Both are gathered for a moment, so that a burst becomes one receipt, and nothing here waits for another's request.

mod deliveries;
mod marks;
mod numbers;
mod searches;

use std::sync::Arc;

use chat_shared::{
    clock::Clock,
    event::{Event, Fact},
    ids::{ConversationId, MessageId},
    position::Seq,
};
use tokio::sync::Semaphore;

use self::{deliveries::Deliveries, marks::Marks, numbers::Numbers, searches::Searches};
use crate::{database::Database, history::Tail, send::Sender, state::AppState};

/// Marks that wait for their answer. One more is refused as unavailable.
const WAITING_MAX: usize = 10_000;

/// Takes what users have read and what has reached them.
pub struct Receipts {
    tail: Tail,
    sender: Sender,
    database: Database,
    clock: Clock,
    numbers: Numbers,
    marks: Marks,
    deliveries: Deliveries,
    waiting: Arc<Semaphore>,
    searches: Searches,
}

impl Receipts {
    /// Receipts that go to the log whose tail is given once [`start`] has been called.
    pub fn new(tail: Tail, sender: Sender, database: Database, clock: Clock) -> Self {
        Self {
            tail,
            sender,
            database,
            clock,
            numbers: Numbers::default(),
            marks: Marks::default(),
            deliveries: Deliveries::default(),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            searches: Searches::default(),
        }
    }

    /// Remembers the number of a message that somebody has been shown, since they will say that they have read it.
    pub fn remember(&self, conversation_id: ConversationId, message_id: MessageId, seq: Seq) {
        self.numbers.remember(conversation_id, message_id, seq);
    }

    /// Learns from an event that is delivered to somebody here.
    pub fn learn(&self, event: &Event) {
        match &event.fact {
            Fact::MessageSent(message) => self.remember(event.conversation_id, message.message_id, event.seq),
            Fact::ReadAdvanced(read) => self.marks.note(read.user_id, event.conversation_id, read.read_seq),
            Fact::ParticipantsChanged(_) | Fact::BlocksChanged(_) | Fact::DeliveredAdvanced(_) | Fact::Unknown => {}
        }
    }
}

/// Starts the tasks that write and tell what has gathered, until everything else has ended.
pub fn start(state: &AppState) {
    let (marking, telling) = (state.clone(), state.clone());
    state.tasks.lasting("read_receipts", async move {
        // Cut short only when nobody waits any more.
        marking.tasks.stopping().run_until_cancelled(marking.receipts.write_marks()).await;
    });
    state.tasks.lasting("delivered_receipts", async move {
        telling.tasks.stopping().run_until_cancelled(deliveries::tell(&telling)).await;
    });
}
