//! The session's connection: when it is opened, what keeps it alive, and what follows when it ends.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use chat_shared::{
    position::Cursor,
    wire::{Command, CommandFrame, Confirm, Heartbeat, Hello, RenewToken},
};
use tokio::{task::JoinSet, time::Instant};

use super::{Session, Turn};
use crate::{
    backoff::{Hint, chance},
    connection::{self, Connection, Opening, Outbound},
    events::Event,
    expiry::{renewal_delay, subject},
    limits::{CONFIRM_DELAY, CONFIRM_PUSHES, TOKEN_REFUSALS_MAX},
    state::{ConnectionState, StopReason},
    verdict::{Ending, Verdict},
};

/// What comes of an attempt; with a failure, the token it was made with.
pub(super) type Opened = Result<Connection, (Ending, Option<Arc<str>>)>;

/// A connection that stood this long starts the back-off over when it ends.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// Bounds of what a gateway may ask for as its heartbeat interval.
const HEARTBEAT_INTERVALS: std::ops::RangeInclusive<u64> = 1_000..=120_000;

/// The connection, or the way to the next one.
pub(super) enum Link {
    /// The next attempt starts at this moment.
    Idle { until: Instant },
    /// An attempt is running. The set has that one task, and ends it when dropped.
    Opening(JoinSet<Opened>),
    /// It stands.
    Live(Box<Live>),
}

/// A connection that stands.
pub(super) struct Live {
    pub(super) connection: Connection,
    pub(super) last_heard: Instant,
    pub(super) going_away: Option<Duration>,
    opened: Instant,
    heartbeat_interval: Duration,
    /// The last cursor that was confirmed on this connection.
    confirmed: Option<Cursor>,
    confirm_due: Instant,
    renewal_due: Option<Instant>,
}

impl Link {
    /// The next thing that happens to the connection. Cancel safe.
    pub(super) async fn next_turn(&mut self, has_unsent: bool) -> Turn {
        match self {
            Self::Idle { .. } => std::future::pending().await,
            Self::Opening(attempt) => Turn::Opened(Box::new(match attempt.join_next().await {
                Some(Ok(opened)) => opened,
                _ => Err((Ending::Transport("the attempt to connect broke off".into()), None)),
            })),
            Self::Live(live) => {
                let Connection { inbound, outbox, .. } = &mut live.connection;
                tokio::select! {
                    // Receiving is cancel safe.
                    received = inbound.recv() => Turn::Received(received),
                    // The place is given back at once; only the reader's pongs could take it meanwhile. If the
                    // writer has ended, the reader says so, and nothing is written until then.
                    Ok(_room) = outbox.reserve(), if has_unsent => Turn::OutboxHasRoom,
                }
            }
        }
    }

    pub(super) fn live(&mut self) -> Option<&mut Live> {
        match self {
            Self::Live(live) => Some(live),
            _ => None,
        }
    }

    pub(super) const fn is_live(&self) -> bool {
        matches!(self, Self::Live(_))
    }
}

impl Live {
    /// Whether the inbox is within reach, so that pushes have cursors and those can be confirmed.
    const fn is_numbered(&self) -> bool {
        self.connection.ready.epoch.is_some()
    }
}

impl Session {
    pub(super) fn next_link_tick(&self) -> Option<Instant> {
        match &self.link {
            Link::Idle { until } => Some(*until),
            Link::Opening(_) => None,
            Link::Live(live) => {
                let silence = live.last_heard + live.heartbeat_interval * 2;
                let is_confirmed = !live.is_numbered() || self.progress.lock().received_up_to() <= live.confirmed;
                let confirm_due = Some(live.confirm_due).filter(|_| !is_confirmed);
                let moments = [Some(silence), confirm_due, live.renewal_due];
                moments.into_iter().flatten().min()
            }
        }
    }

    pub(super) fn link_tick(&mut self, now: Instant) -> ControlFlow<StopReason> {
        match &mut self.link {
            Link::Idle { until } if *until <= now => self.open(),
            Link::Idle { .. } | Link::Opening(_) => {}
            Link::Live(live) => {
                if live.last_heard + live.heartbeat_interval * 2 <= now {
                    return self.lost(&Ending::Silence);
                }
                if live.renewal_due.is_some_and(|due| due <= now) {
                    live.renewal_due = None;
                    let stale = Arc::clone(&live.connection.token);
                    self.start_renewal(stale);
                }
                self.confirm(now);
            }
        }
        ControlFlow::Continue(())
    }

    fn open(&mut self) {
        let gateway = self.rest.gateways.current().clone();
        let opening = Opening {
            http: self.rest.http.clone(),
            tokens: Arc::clone(&self.rest.tokens),
            refused_token: self.refused_token.clone(),
            gateway: gateway.clone(),
            encoding: self.encoding,
            hello: Hello { device_id: self.device_id, resume: self.progress.lock().resume() },
        };
        let mut attempt = JoinSet::new();
        attempt.spawn(connection::open(opening));
        self.link = Link::Opening(attempt);
        self.set_state(ConnectionState::Connecting { gateway: gateway.into() });
    }

    pub(super) fn opened(&mut self, opened: Opened) -> ControlFlow<StopReason> {
        let mut connection = match opened {
            Ok(connection) => connection,
            Err((ending, token)) => return self.failed(&ending, token, None),
        };
        self.token_refusals = 0;
        self.refused_token = None;
        let now = Instant::now();
        let resumed = {
            let mut progress = self.progress.lock();
            let ready = &mut connection.ready;
            // An answer to another question than ours would leave a hole; reloading never does.
            ready.resumed &= ready.epoch.is_some() && ready.epoch == progress.epoch();
            progress.connected(ready);
            ready.resumed
        };
        if !resumed {
            self.request_load();
        }
        self.realtime.me = subject(&connection.token).or(self.realtime.me);
        let gateway = self.rest.gateways.current().to_string();
        let session_id = connection.ready.session_id;
        let interval = connection.ready.heartbeat_interval_ms;
        let interval = interval.clamp(*HEARTBEAT_INTERVALS.start(), *HEARTBEAT_INTERVALS.end());
        let heartbeat_interval = Duration::from_millis(interval);
        self.link = Link::Live(Box::new(Live {
            last_heard: now,
            going_away: None,
            opened: now,
            heartbeat_interval,
            confirmed: None,
            confirm_due: now + CONFIRM_DELAY,
            renewal_due: self.renewal_due(&connection.token),
            connection,
        }));
        self.watch_again();
        self.set_state(ConnectionState::Connected { gateway, session_id, resumed });
        // Last, because whoever waits for `connect` may ask for the state at once.
        if resumed {
            self.is_up_to_date();
        }
        ControlFlow::Continue(())
    }

    /// The connection that stood has ended.
    pub(super) fn lost(&mut self, ending: &Ending) -> ControlFlow<StopReason> {
        let Link::Live(live) = std::mem::replace(&mut self.link, Link::Idle { until: Instant::now() }) else {
            return ControlFlow::Continue(());
        };
        if live.opened.elapsed() >= STABLE_AFTER {
            self.backoff.reset();
        }
        self.failed(ending, Some(live.connection.token), live.going_away.map(Hint::Own))
    }

    fn failed(
        &mut self,
        ending: &Ending,
        token: Option<Arc<str>>,
        going_away: Option<Hint>,
    ) -> ControlFlow<StopReason> {
        self.book.connection_lost();
        self.latest.connection_lost();
        self.realtime.own_typing.connection_lost();
        self.realtime.users.connection_lost();
        self.realtime.businesses.connection_lost();
        let hint = match ending.verdict() {
            Verdict::Stop(reason) => return ControlFlow::Break(reason),
            Verdict::NewToken(reason) => {
                self.token_refusals += 1;
                if !self.rest.tokens.is_renewable() || self.token_refusals > TOKEN_REFUSALS_MAX {
                    return ControlFlow::Break(reason);
                }
                self.refused_token = token;
                None
            }
            Verdict::ComeBack(hint) => {
                self.rest.gateways.turn();
                hint.or(going_away)
            }
        };
        let retry_after = self.backoff.next(hint, chance());
        tracing::debug!(%ending, ?retry_after, "the chat connection ended and will be opened again");
        self.link = Link::Idle { until: Instant::now() + retry_after };
        self.set_state(ConnectionState::Disconnected { reason: ending.to_string(), retry_after });
        ControlFlow::Continue(())
    }

    /// Answers a heartbeat, which is all that shows a gateway that a quiet client is there.
    pub(super) fn beat(&mut self) {
        let cursor = self.link.live().filter(|live| live.is_numbered()).and_then(|_| self.progress.lock().settled());
        // When the outbox is full, what is in it shows as well that the client is there.
        if self.write(None, Command::Heartbeat(Heartbeat { cursor }))
            && let Some(live) = self.link.live()
        {
            live.confirmed = cursor.max(live.confirmed);
        }
    }

    /// Confirms what the application has taken: after a second, or at once if it is much.
    pub(super) fn confirm(&mut self, now: Instant) {
        self.notice_caught_up();
        let Link::Live(live) = &mut self.link else { return };
        let is_due = live.confirm_due <= now;
        if is_due {
            live.confirm_due = now + CONFIRM_DELAY;
        }
        let Some(cursor) = self.progress.lock().settled().filter(|_| live.is_numbered()) else { return };
        let pushes = cursor.0.saturating_sub(live.confirmed.unwrap_or_default().0);
        // The first time also if that is the place where the connection began: then all that a reload showed is taken.
        if pushes >= CONFIRM_PUSHES || (is_due && Some(cursor) > live.confirmed) {
            let confirmed = self.write(None, Command::Confirm(Confirm { cursor }));
            if let Some(live) = self.link.live().filter(|_| confirmed) {
                live.confirmed = Some(cursor);
            }
        }
    }

    /// Confirms what the application has taken, before the end.
    pub(super) fn confirm_last(&mut self) {
        if let Some(live) = self.link.live() {
            live.confirm_due = Instant::now();
            self.confirm(Instant::now());
        }
    }

    /// Gives a command to the writer. False if there is no connection or no room.
    pub(super) fn write(&mut self, reference: Option<u64>, command: Command) -> bool {
        let Some(live) = self.link.live() else { return false };
        match self.encoding.encode(&CommandFrame { reference, command }) {
            Ok(bytes) => live.connection.outbox.try_send(Outbound::Frame(bytes)).is_ok(),
            Err(error) => {
                tracing::error!(%error, "a command can't be encoded");
                false
            }
        }
    }

    /// A newer token for the connection that stands.
    pub(super) fn renew(&mut self, token: Arc<str>) {
        let reference = self.book.next_reference();
        if self.write(Some(reference), Command::RenewToken(RenewToken { token: token.to_string() })) {
            let renewal_due = self.renewal_due(&token);
            if let Some(live) = self.link.live() {
                live.connection.token = token;
                live.renewal_due = renewal_due;
            }
        }
    }

    fn renewal_due(&self, token: &str) -> Option<Instant> {
        let delay = renewal_delay(token).filter(|_| self.rest.tokens.is_renewable())?;
        Some(Instant::now() + delay)
    }

    /// Ends the connection because pushes are missing, and resumes; if that was tried already, reloads.
    pub(super) fn pushes_missing(&mut self) -> ControlFlow<StopReason> {
        let at = self.progress.lock().received_up_to();
        if self.missing_at == at {
            self.progress.lock().forget_inbox();
        }
        self.missing_at = at;
        self.lost(&Ending::PushesMissing)
    }

    pub(super) fn notify(&mut self, event: Event) {
        if self.has_taker && self.notices.push(event) == crate::notices::Room::Full {
            self.progress.lock().load_began();
            self.request_load();
        }
    }
}
