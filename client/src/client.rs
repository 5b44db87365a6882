//! The application's handle: sends, asks, closes.

use std::{sync::Arc, time::Duration};

use chat_shared::{
    ids::{ConversationId, MessageId},
    limits::TEXT_BYTES_MAX,
    wire::{Accepted, SendMessage},
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    error::{ConnectError, SendError},
    events::Events,
    limits::{CLOSING_WAIT_MAX, SENDS_IN_FLIGHT_MAX},
    options::ClientOptions,
    position::Position,
    progress::SharedProgress,
    rest::Rest,
    session::{self, Ask, Sending, Status},
    state::ConnectionState,
};

/// Longer waits are as good as this one, and can't be counted everywhere.
const WAIT_MAX: Duration = Duration::from_hours(365 * 24);

/// A connection to the chat backend that keeps itself alive. Clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    asks: mpsc::Sender<Ask>,
    room: Arc<Semaphore>,
    status: watch::Receiver<Status>,
    progress: Arc<SharedProgress>,
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
    /// How long to repeat it; the client's own setting if absent.
    pub wait_max: Option<Duration>,
}

impl Outgoing {
    /// A new message with a random id.
    pub fn new(conversation_id: ConversationId, text: impl Into<String>) -> Self {
        Self { conversation_id, message_id: MessageId::random(), text: text.into(), is_repeat: false, wait_max: None }
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
            status: started.status,
            progress: Arc::clone(&started.progress),
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
        let Outgoing { conversation_id, message_id, text, is_repeat, wait_max } = outgoing;
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
        let command = SendMessage { conversation_id, message_id, text, is_repeat };
        let ask = Ask::Send(Sending { command, deadline, answer, room });
        if !matches!(timeout_at(deadline, self.asks.send(ask)).await, Ok(Ok(()))) {
            return Err(not_sent);
        }
        // The session answers at the deadline at the latest; it alone knows whether the message went out.
        answered.await.unwrap_or(Err(SendError::OutcomeUnknown { message_id }))
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
        self.progress.lock().position()
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
