//! The one task that owns a client's state: it takes turns between what the application asks, what the
//! connection brings, what REST answers, and time. Its parts are pure; this is where they meet.

mod delivery;
mod frames;
#[cfg(test)]
mod fuzz;
mod link;
mod realtime;

use std::{ops::ControlFlow, sync::Arc};

use chat_shared::{
    ids::DeviceId,
    limits::{FRAME_BYTES_MAX, TEXT_BYTES_MAX},
    wire::{Accepted, Command, Encoding, SendMessage, SetTyping},
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use self::{delivery::Loading, link::Link, realtime::Realtime};
use crate::{
    backoff::Backoff,
    book::{Book, Expired},
    connection::Inbound,
    error::{CommandError, ConnectError, SendError},
    events::{Envelope, Event},
    latest::Latest,
    limits::{ASKS_MAX, CLOSING_WAIT_MAX, EVENTS_MAX, REST_WAIT_MAX},
    load::Loaded,
    notices::Notices,
    options::ClientOptions,
    order::Order,
    position::Position,
    progress::{Progress, SharedProgress},
    rest::{Gateways, Rest},
    state::{ConnectionState, StopReason},
    token::Tokens,
    unread::SharedUnread,
    verdict::Ending,
};

/// What a `Client` handle asks of the session.
#[derive(Debug)]
pub(crate) enum Ask {
    Send(Sending),
    Command(Asking),
    /// Is dropped if it can't be written at once.
    Typing(SetTyping),
    Close,
}

/// A message to send, and who waits for it.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) command: SendMessage,
    pub(crate) deadline: Instant,
    pub(crate) answer: oneshot::Sender<Result<Accepted, SendError>>,
    /// Bounds the sends in flight; given back with the answer.
    pub(crate) room: OwnedSemaphorePermit,
}

/// A command of which only the latest counts, and who waits for it.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) command: Command,
    pub(crate) deadline: Instant,
    pub(crate) answer: oneshot::Sender<Result<(), CommandError>>,
    /// Bounds the commands in flight; given back with the answer.
    pub(crate) room: OwnedSemaphorePermit,
}

/// Whoever waits for a send.
#[derive(Debug)]
struct Waiter {
    answer: oneshot::Sender<Result<Accepted, SendError>>,
    room: OwnedSemaphorePermit,
}

impl Waiter {
    fn answer(self, outcome: Result<Accepted, SendError>) {
        let Self { answer, room } = self;
        // The caller may have given up; then nobody needs the answer.
        let _is_heard = answer.send(outcome);
        drop(room);
    }
}

/// What handles can see of the session at any time.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) state: ConnectionState,
    /// The first connection stands, and is loaded or resumed.
    pub(crate) is_loaded: bool,
    pub(crate) last_failure: String,
}

/// The ends of a session that the application's halves hold.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) asks: mpsc::Sender<Ask>,
    pub(crate) events: mpsc::Receiver<Envelope>,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) progress: Arc<SharedProgress>,
    pub(crate) unread: Arc<SharedUnread>,
    pub(crate) rest: Rest,
}

/// See the module.
struct Session {
    rest: Rest,
    encoding: Encoding,
    device_id: DeviceId,
    link: Link,
    backoff: Backoff,
    refused_token: Option<Arc<str>>,
    token_refusals: u32,
    book: Book<Waiter>,
    latest: Latest<realtime::Asker>,
    realtime: Realtime,
    order: Order,
    notices: Notices,
    progress: Arc<SharedProgress>,
    loading: Loading,
    jobs: JoinSet<Loaded>,
    asks: mpsc::Receiver<Ask>,
    has_asker: bool,
    events: mpsc::Sender<Envelope>,
    has_taker: bool,
    status: watch::Sender<Status>,
    /// Where pushes were found missing last. Twice at the same place means that resuming doesn't help.
    missing_at: Option<chat_shared::position::Cursor>,
}

/// What happened.
enum Turn {
    Asked(Option<Ask>),
    Opened(Box<link::Opened>),
    Received(Option<Inbound>),
    OutboxHasRoom,
    EventsHaveRoom,
    TakerIsGone,
    Loaded(Loaded),
    TimePassed,
}

/// Starts a session in a task of its own, which ends when the application closes it or drops both halves.
pub(crate) fn start(options: ClientOptions) -> Result<Started, ConnectError> {
    let (session, started) = prepare(options)?;
    #[expect(
        clippy::disallowed_methods,
        reason = "the client has this one task; all others belong to it and end with it"
    )]
    drop(tokio::spawn(session.run()));
    Ok(started)
}

/// A session that waits for its first turn.
fn prepare(options: ClientOptions) -> Result<(Session, Started), ConnectError> {
    let rest = rest(&options)?;
    let (ask, asks) = mpsc::channel(ASKS_MAX);
    let (events, taker) = mpsc::channel(EVENTS_MAX);
    let state = ConnectionState::Connecting { gateway: rest.gateways.current().to_string() };
    let (status, watcher) =
        watch::channel(Status { state, is_loaded: false, last_failure: "none, the first attempt is running".into() });
    let earlier_run = options.resume_from.as_ref().filter(|position| **position != Position::default());
    let handed = earlier_run.map(|position| position.seqs.clone());
    let reads = earlier_run.map(|position| position.reads.clone());
    let realtime = Realtime::new(reads.unwrap_or_default());
    let unread = Arc::clone(&realtime.unread);
    let progress = Arc::new(SharedProgress::new(Progress::new(options.resume_from)));
    let session = Session {
        rest: rest.clone(),
        encoding: options.encoding,
        device_id: options.device_id,
        link: Link::Idle { until: Instant::now() },
        backoff: Backoff::default(),
        refused_token: None,
        token_refusals: 0,
        book: Book::default(),
        latest: Latest::default(),
        realtime,
        order: Order::new(options.start, handed),
        notices: Notices::default(),
        progress: Arc::clone(&progress),
        loading: Loading::default(),
        jobs: JoinSet::new(),
        asks,
        has_asker: true,
        events,
        has_taker: true,
        status,
        missing_at: None,
    };
    Ok((session, Started { asks: ask, events: taker, status: watcher, progress, unread, rest }))
}

fn rest(options: &ClientOptions) -> Result<Rest, ConnectError> {
    let invalid = |problem: String| ConnectError::InvalidOptions(problem);
    let mut urls = Vec::with_capacity(options.gateways.len());
    for gateway in &options.gateways {
        let url: reqwest::Url = gateway.parse().map_err(|error| invalid(format!("{gateway} is no URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
            return Err(invalid(format!("{gateway} must begin with http:// or https://")));
        }
        urls.push(url);
    }
    if urls.is_empty() {
        return Err(invalid("at least one gateway is needed".into()));
    }
    let mut http = reqwest::Client::builder();
    if urls.iter().all(|url| url.scheme() == "http") {
        // Without TLS no roots are needed, and reading the system's takes time and fails where there are none.
        http = http.tls_certs_only([]);
    }
    let http = http
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(REST_WAIT_MAX)
        .build()
        .map_err(|error| invalid(format!("no HTTP client can be made: {error}")))?;
    let tokens = Arc::new(Tokens::new(options.token.clone()));
    Ok(Rest { http, tokens, gateways: Arc::new(Gateways::new(urls)) })
}

impl Session {
    async fn run(mut self) {
        let reason = loop {
            self.start_jobs();
            let turn = self.next_turn().await;
            if let ControlFlow::Break(reason) = self.take(turn) {
                break reason;
            }
        };
        self.end(reason).await;
    }

    /// Waits for the next thing to happen. Every branch is cancel safe: receiving, joining, waiting for room
    /// and sleeping take nothing until they are done.
    async fn next_turn(&mut self) -> Turn {
        let tick = self.next_tick();
        let has_unsent = self.book.has_unsent() || self.latest.has_unsent();
        let has_news = !self.notices.is_empty() || self.realtime.has_news() || self.order.has_ready();
        let has_events = self.has_taker && has_news;
        let Self { asks, link, events, jobs, has_asker, has_taker, .. } = self;
        tokio::select! {
            ask = asks.recv(), if *has_asker => Turn::Asked(ask),
            turn = link.next_turn(has_unsent) => turn,
            room = events.reserve(), if has_events => if room.is_ok() { Turn::EventsHaveRoom } else { Turn::TakerIsGone },
            () = events.closed(), if *has_taker && !has_events => Turn::TakerIsGone,
            Some(Ok(loaded)) = jobs.join_next(), if !jobs.is_empty() => Turn::Loaded(loaded),
            () = sleep_until(tick) => Turn::TimePassed,
        }
    }

    fn take(&mut self, turn: Turn) -> ControlFlow<StopReason> {
        match turn {
            Turn::Asked(Some(Ask::Send(sending))) => {
                let Sending { command, deadline, answer, room } = sending;
                if self.fits_a_frame(&command) {
                    self.realtime.own_typing.sent(command.conversation_id);
                    self.book.add(command, deadline, Waiter { answer, room });
                } else {
                    let bytes = command.text.len();
                    let refused = SendError::InvalidText { bytes, bytes_max: TEXT_BYTES_MAX };
                    Waiter { answer, room }.answer(Err(refused));
                }
            }
            Turn::Asked(Some(Ask::Command(asking))) => self.asked(asking),
            Turn::Asked(Some(Ask::Typing(typing))) => self.type_on(typing),
            Turn::Asked(Some(Ask::Close)) => return ControlFlow::Break(StopReason::Closed),
            Turn::Asked(None) => {
                self.has_asker = false;
                return self.stop_if_abandoned();
            }
            Turn::TakerIsGone => {
                self.has_taker = false;
                return self.stop_if_abandoned();
            }
            Turn::Opened(opened) => return self.opened(*opened),
            Turn::Received(Some(Inbound::End(ending))) => return self.lost(&ending),
            Turn::Received(None) => return self.lost(&Ending::Transport("the connection ended".into())),
            Turn::Received(Some(inbound)) => return self.received(inbound),
            Turn::OutboxHasRoom => {
                self.write_sends();
                self.write_latest();
            }
            Turn::EventsHaveRoom => self.deliver(),
            Turn::Loaded(loaded) => self.loaded(loaded),
            Turn::TimePassed => return self.tick(),
        }
        ControlFlow::Continue(())
    }

    /// Whether a command stays under the bound on frames, over which the gateway closes the connection. Only
    /// JSON can make a long text of control characters longer than that.
    fn fits_a_frame(&self, command: &SendMessage) -> bool {
        const SAFE_TEXT_BYTES: usize = (FRAME_BYTES_MAX - 1024) / ESCAPED_BYTES_MAX;
        /// Bytes of `\u0001`.
        const ESCAPED_BYTES_MAX: usize = 6;
        command.text.len() <= SAFE_TEXT_BYTES
            || self.encoding.encode(command).is_ok_and(|bytes| bytes.len() <= FRAME_BYTES_MAX - 1024)
    }

    fn stop_if_abandoned(&self) -> ControlFlow<StopReason> {
        if self.has_asker || self.has_taker {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(StopReason::Closed)
        }
    }

    /// When something is due without anything else happening.
    fn next_tick(&self) -> Instant {
        let moments =
            [self.book.next_tick(), self.next_realtime_tick(), self.next_link_tick(), self.next_loading_tick()];
        moments.into_iter().flatten().min().unwrap_or_else(|| Instant::now() + REST_WAIT_MAX)
    }

    fn tick(&mut self) -> ControlFlow<StopReason> {
        let now = Instant::now();
        for expired in self.book.tick(now, |waiter| waiter.answer.is_closed()) {
            give_up(expired);
        }
        self.realtime_tick(now);
        self.link_tick(now)
    }

    fn set_state(&mut self, state: ConnectionState) {
        self.status.send_modify(|status| {
            if let ConnectionState::Disconnected { reason, .. } = &state {
                status.last_failure.clone_from(reason);
            }
            status.state = state.clone();
        });
        self.notify(Event::State(state));
    }

    async fn end(mut self, reason: StopReason) {
        for expired in self.book.drain() {
            give_up(expired);
        }
        for asker in self.latest.drain() {
            asker.answer(Err(CommandError::NotAnswered));
        }
        self.deliver();
        self.confirm_last();
        if let Link::Live(live) = std::mem::replace(&mut self.link, Link::Idle { until: Instant::now() })
            && timeout(CLOSING_WAIT_MAX, live.connection.close()).await.is_err()
        {
            tracing::debug!("the gateway did not answer the close in time");
        }
        self.asks.close();
        while let Ok(ask) = self.asks.try_recv() {
            if let Ask::Send(Sending { command, answer, .. }) = ask {
                let _is_heard = answer.send(Err(SendError::NotSent { message_id: command.message_id }));
            }
        }
        self.set_state(ConnectionState::Stopped { reason });
        self.deliver();
    }
}

fn give_up(expired: Expired<Waiter>) {
    let Expired { command: SendMessage { message_id, .. }, waiter, may_be_kept } = expired;
    waiter.answer(Err(if may_be_kept {
        SendError::OutcomeUnknown { message_id }
    } else {
        SendError::NotSent { message_id }
    }));
}
