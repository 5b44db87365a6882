//! The application's handle: sends, asks, closes.

use std::{sync::Arc, time::Duration};

use chat_shared::{
    ids::{BusinessId, ConversationId, MessageId, UserId},
    limits::{PRESENCE_USERS_MAX, TEXT_BYTES_MAX, WATCHED_BUSINESSES_MAX},
    position::Seq,
    wire::{Accepted, Command, ErrorCode, MarkRead, SendMessage, SetTyping, WatchBusinesses, WatchPresence},
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    error::{CommandError, ConnectError, SendError},
    events::Events,
    limits::{CLOSING_WAIT_MAX, COMMANDS_IN_FLIGHT_MAX, SENDS_IN_FLIGHT_MAX},
    options::ClientOptions,
    position::Position,
    progress::SharedProgress,
    rest::Rest,
    session::{self, Ask, Asking, Sending, Status},
    state::ConnectionState,
    unread::SharedUnread,
};

/// Longer waits are as good as this one, and can't be counted everywhere.
const WAIT_MAX: Duration = Duration::from_hours(365 * 24);

/// A connection to the chat backend that keeps itself alive. Clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    asks: mpsc::Sender<Ask>,
    room: Arc<Semaphore>,
    command_room: Arc<Semaphore>,
    status: watch::Receiver<Status>,
    progress: Arc<SharedProgress>,
    unread: Arc<SharedUnread>,
    rest: Rest,
    send_wait_max: Duration,
}

/// A message to send, with everything that can be chosen about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to.
    pub conversation_id: ConversationId,
    /// New for each message, and the same for each repeat of it.
    pub message_id: MessageId,
    /// The text, 1 byte to 8 KiB.
    pub text: String,
    /// True if this id may have been sent before, by an earlier call or run of the application.
    pub is_repeat: bool,
    /// The last message of the conversation that the user had been shown when writing this one: the user has read it and those
    /// before it. Without it the user has read nothing by sending.
    pub seen_seq: Option<Seq>,
    /// How long to repeat it; the client's own setting if absent.
    pub wait_max: Option<Duration>,
}

impl Outgoing {
    /// A new message with a random id.
    pub fn new(conversation_id: ConversationId, text: impl Into<String>) -> Self {
        let message_id = MessageId::random();
        Self { conversation_id, message_id, text: text.into(), is_repeat: false, seen_seq: None, wait_max: None }
    }
}

impl Client {
    /// Connects, and waits until the connection stands and the conversation list is loaded or the
    /// position resumed. From then on every message that is accepted will be handed over.
    pub async fn connect(options: ClientOptions) -> Result<(Self, Events), ConnectError> {
        let wait = options.connect_wait_max;
        let (client, events) = Self::start(options)?;
        let mut status = client.status.clone();
        let is_settled = |status: &Status| status.is_loaded || matches!(status.state, ConnectionState::Stopped { .. });
        let Ok(waited) = timeout(wait, status.wait_for(is_settled)).await else {
            return Err(ConnectError::TimedOut { last_failure: client.status.borrow().last_failure.clone() });
        };
        match waited.map(|status| status.state.clone()) {
            Ok(ConnectionState::Stopped { reason }) => Err(reason.into()),
            Ok(_) => Ok((client, events)),
            Err(_) => Err(crate::StopReason::Closed.into()),
        }
    }

    /// Begins to connect and does not wait. Sends wait for the connection, up to their deadlines.
    pub fn start(options: ClientOptions) -> Result<(Self, Events), ConnectError> {
        let send_wait_max = options.send_wait_max;
        let started = session::start(options)?;
        let client = Self {
            asks: started.asks,
            room: Arc::new(Semaphore::new(SENDS_IN_FLIGHT_MAX)),
            command_room: Arc::new(Semaphore::new(COMMANDS_IN_FLIGHT_MAX)),
            status: started.status,
            progress: Arc::clone(&started.progress),
            unread: started.unread,
            rest: started.rest,
            send_wait_max,
        };
        Ok((client, Events { events: started.events, progress: started.progress }))
    }

    /// Sends a new message and repeats it until a gateway has accepted or refused it, or the deadline
    /// passes. Two sends that run at the same time may be accepted in either order; wait for the first to
    /// keep theirs.
    pub async fn send(&self, conversation_id: ConversationId, text: impl Into<String>) -> Result<Accepted, SendError> {
        self.send_message(Outgoing::new(conversation_id, text)).await
    }

    /// Like [`send`](Self::send), with an id and a deadline of the application's.
    ///
    /// A call that is dropped before its end may or may not have sent the message.
    pub async fn send_message(&self, outgoing: Outgoing) -> Result<Accepted, SendError> {
        let Outgoing { conversation_id, message_id, text, is_repeat, seen_seq, wait_max } = outgoing;
        let bytes = text.len();
        if bytes == 0 || bytes > TEXT_BYTES_MAX {
            return Err(SendError::InvalidText { bytes, bytes_max: TEXT_BYTES_MAX });
        }
        let wait_max = wait_max.unwrap_or(self.send_wait_max).min(WAIT_MAX);
        let deadline = Instant::now() + wait_max;
        let not_sent = SendError::NotSent { message_id };
        let Ok(Ok(room)) = timeout_at(deadline, Arc::clone(&self.room).acquire_owned()).await else {
            return Err(not_sent);
        };
        let (answer, answered) = oneshot::channel();
        let command = SendMessage { conversation_id, message_id, text, is_repeat, seen_seq };
        let ask = Ask::Send(Sending { command, deadline, answer, room });
        if !matches!(timeout_at(deadline, self.asks.send(ask)).await, Ok(Ok(()))) {
            return Err(not_sent);
        }
        // The session answers at the deadline at the latest; it alone knows whether the message went out.
        answered.await.unwrap_or(Err(SendError::OutcomeUnknown { message_id }))
    }

    /// Says that the user has read a conversation up to a message, and repeats it until a gateway has answered or
    /// [`ClientOptions::send_wait_max`] has passed. A message before the last one read changes nothing.
    ///
    /// Of marks of one conversation that wait, for instance for a connection, only the furthest is sent, and its answer is
    /// the answer to all. Of messages that did not come lately the client doesn't know which is further; of those it takes
    /// the mark given last.
    pub async fn mark_read(&self, conversation_id: ConversationId, message_id: MessageId) -> Result<(), CommandError> {
        self.command(Command::MarkRead(MarkRead { conversation_id, message_id, seq: None })).await
    }

    /// Says whose presence the application wants to know, instead of those it named before: at most 100, each in some
    /// conversation with the user; none ends it. How all of them are follows as [`Event::Presence`](crate::Event::Presence),
    /// and then what changes, over reconnects too.
    pub async fn watch_presence(&self, user_ids: Vec<UserId>) -> Result<(), CommandError> {
        if user_ids.len() > PRESENCE_USERS_MAX {
            let message = format!("at most {PRESENCE_USERS_MAX} users can be watched, and not {}", user_ids.len());
            return Err(CommandError::Rejected { code: ErrorCode::Invalid, message });
        }
        self.command(Command::WatchPresence(WatchPresence { user_ids })).await
    }

    /// Replaces the list of businesses that the application watches: at most 20; an empty list ends it. The availability of
    /// each follows as [`Event::Businesses`](crate::Event::Businesses), to its staff with its queue, and then each change, over
    /// reconnects too.
    pub async fn watch_businesses(&self, business_ids: Vec<BusinessId>) -> Result<(), CommandError> {
        if business_ids.len() > WATCHED_BUSINESSES_MAX {
            let message =
                format!("at most {WATCHED_BUSINESSES_MAX} businesses can be watched, and not {}", business_ids.len());
            return Err(CommandError::Rejected { code: ErrorCode::Invalid, message });
        }
        self.command(Command::WatchBusinesses(WatchBusinesses { business_ids })).await
    }

    /// Says that the user writes, or has stopped before sending. Call it with every key: the gateway is told when it begins
    /// and every 3 seconds while it lasts, and 5 seconds after the last time it ends by itself, as it does when the message
    /// is sent. Without a connection nothing happens.
    pub fn set_typing(&self, conversation_id: ConversationId, is_typing: bool) {
        // Without room it is dropped like without a connection; the next key comes soon.
        let _is_taken = self.asks.try_send(Ask::Typing(SetTyping { conversation_id, is_typing }));
    }

    /// Messages of a conversation that the user hasn't read. `None` while that isn't known, or if they don't take part.
    ///
    /// The list that a new client loads is a moment behind; what was accepted in that moment counts from the next message of
    /// the conversation on.
    pub fn unread(&self, conversation_id: ConversationId) -> Option<u64> {
        self.unread.lock().of(conversation_id)
    }

    /// Messages of all conversations that the user hasn't read.
    pub fn unread_total(&self) -> u64 {
        self.unread.lock().total()
    }

    async fn command(&self, command: Command) -> Result<(), CommandError> {
        let deadline = Instant::now() + self.send_wait_max.min(WAIT_MAX);
        let Ok(Ok(room)) = timeout_at(deadline, Arc::clone(&self.command_room).acquire_owned()).await else {
            return Err(CommandError::NotAnswered);
        };
        let (answer, answered) = oneshot::channel();
        let ask = Ask::Command(Asking { command, deadline, answer, room });
        if !matches!(timeout_at(deadline, self.asks.send(ask)).await, Ok(Ok(()))) {
            return Err(CommandError::NotAnswered);
        }
        // The session answers at the deadline at the latest.
        answered.await.unwrap_or(Err(CommandError::NotAnswered))
    }

    /// The REST interface, with this client's gateways and token.
    pub const fn rest(&self) -> &Rest {
        &self.rest
    }

    /// The state of the connection now.
    pub fn state(&self) -> ConnectionState {
        self.status.borrow().state.clone()
    }

    /// Waits until the state fulfils a condition. The last state before the end is [`ConnectionState::Stopped`].
    pub async fn wait_for_state(&self, mut is_wanted: impl FnMut(&ConnectionState) -> bool) -> ConnectionState {
        let mut status = self.status.clone();
        match status.wait_for(|status| is_wanted(&status.state)).await {
            Ok(status) => status.state.clone(),
            Err(_) => self.state(),
        }
    }

    /// How far the application has come by taking events.
    pub fn position(&self) -> Position {
        let position = self.progress.lock().position();
        Position { reads: self.unread.lock().marks(), ..position }
    }

    /// Confirms what was taken, closes the connection and ends the client. Sends that wait end with
    /// [`SendError::NotSent`] or [`SendError::OutcomeUnknown`]; events that are there can still be taken.
    pub async fn close(&self) -> Position {
        let closing = async {
            if self.asks.send(Ask::Close).await.is_ok() {
                self.wait_for_state(|state| matches!(state, ConnectionState::Stopped { .. })).await;
                self.asks.closed().await;
            }
        };
        if timeout(CLOSING_WAIT_MAX * 2, closing).await.is_err() {
            tracing::warn!("the chat client took too long to close");
        }
        self.position()
    }
}
