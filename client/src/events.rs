//! What the application is handed, and the record of what it has taken.

use std::sync::Arc;

use chat_shared::{
    ids::ConversationId,
    position::Seq,
    wire::{
        ChangedConversation, Conversation, ErrorCode, Message, Presence, ProfileList, Receipt, Typing, WatchedBusiness,
    },
};
use tokio::sync::mpsc;

use crate::{progress::SharedProgress, state::ConnectionState};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The state of the connection changed.
    State(ConnectionState),
    /// A message, the user's own included: once, and in the order of `seq` within its conversation.
    Message(Message),
    /// A conversation was made, or its participants changed. Changes come once and in order; some are
    /// left out if a later one replaces them before the application has taken them.
    Conversation(ChangedConversation),
    /// The conversation list was loaded: on the first connection, and whenever the gateway could not say
    /// what was missed. Missed messages follow as [`Event::Message`].
    Reloaded(Vec<Conversation>),
    /// Messages that will not be handed over: they have been aged out, or the user no longer sees them.
    Skipped {
        /// The conversation.
        conversation_id: ConversationId,
        /// The first one skipped.
        from: Seq,
        /// The last one skipped.
        to: Seq,
    },
    /// Somebody has got or read more, the user themself included. Receipts only go forward; some are left out if a later one
    /// replaces them before the application has taken them. How far everybody is already stands in [`Self::Reloaded`], and
    /// whoever writes a message has read up to it without a receipt.
    Receipt(Receipt),
    /// Somebody else begins to write, or has stopped: because they said so, because their message is there, or because
    /// nothing was heard of it for 5 seconds.
    Typing(Typing),
    /// Names or pictures of users or businesses have changed since they were last told, or are known at last.
    Profiles(ProfileList),
    /// Users that are watched: all of them after [`Client::watch_presence`](crate::Client::watch_presence), then those
    /// that changed. While there is no connection it may be otherwise; what changed meanwhile is told after it.
    Presence(Vec<Presence>),
    /// Businesses that are watched: all of them after [`Client::watch_businesses`](crate::Client::watch_businesses), then
    /// those that changed.
    Businesses(Vec<WatchedBusiness>),
    /// After a reconnect the gateway refused the list that the gateway before had agreed to. For users, most likely there is no
    /// conversation with one of them any more. Nothing of the list is watched until another one is given.
    WatchEnded {
        /// The list.
        list: WatchList,
        /// From the closed list.
        code: ErrorCode,
        /// What is wrong.
        message: String,
    },
    /// What is unread in a conversation is another number than the last one told, here or in [`Self::Reloaded`]. It counts
    /// what exists, which may be more than has been handed over.
    Unread {
        /// The conversation.
        conversation_id: ConversationId,
        /// Messages in it that the user hasn't read.
        unread: u64,
        /// The same of all conversations.
        total: u64,
    },
}

/// A list that a client watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchList {
    /// That of [`Client::watch_presence`](crate::Client::watch_presence).
    Users,
    /// That of [`Client::watch_businesses`](crate::Client::watch_businesses).
    Businesses,
}

/// An event on its way to the application.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) event: Event,
    /// The event's number among those that a cursor can stand for and that aren't messages.
    pub(crate) notice: Option<u64>,
}

/// The events of a client, in order.
///
/// Taking an event is what confirms it: the gateway is told, at the latest after a second, that this device
/// has it. An application that dies before it has taken an event gets it again after a restart with
/// [`ClientOptions::resume_from`](crate::ClientOptions::resume_from).
///
/// An application that doesn't take events loses none and blocks no sends. Up to
/// [`EVENTS_MAX`](crate::limits::EVENTS_MAX) wait; further messages are fetched from history later.
#[derive(Debug)]
pub struct Events {
    pub(crate) events: mpsc::Receiver<Envelope>,
    pub(crate) progress: Arc<SharedProgress>,
}

impl Events {
    /// The next event; waits for it. `None` after the client has stopped and everything was taken.
    ///
    /// It is cancel safe: a call that is dropped takes nothing.
    pub async fn next(&mut self) -> Option<Event> {
        let envelope = self.events.recv().await?;
        Some(self.take(envelope))
    }

    /// The next event if one is there.
    pub fn try_next(&mut self) -> Option<Event> {
        let envelope = self.events.try_recv().ok()?;
        Some(self.take(envelope))
    }

    fn take(&self, envelope: Envelope) -> Event {
        self.progress.lock().taken(&envelope);
        envelope.event
    }
}
