//! One connection, which watches the answers that it carries.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{
    Cmd, Pipeline, RedisFuture, RedisResult, ServerError, ServerErrorKind, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};

use super::Links;

/// A connection, as long as it is in use. Requests go through it one after the other, and so do answers.
///
/// It ends by itself on an answer that says that the server is the wrong one, and on silence: a request that was not
/// answered in time, after which nothing else was answered either. A slow server answers something.
#[derive(Clone)]
pub struct Link {
    line: Line,
    links: Arc<Links>,
}

/// What is known of a connection.
#[derive(Clone)]
pub(super) struct Line {
    connection: MultiplexedConnection,
    server: Arc<Server>,
}

struct Server {
    run: String,
    opened_at: Instant,
    /// Microseconds from the opening to the last answer.
    answered_at: AtomicU64,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It broke, or what comes over it can't be read.
    Broken,
    /// Nothing is answered.
    Silent,
    /// The server is a replica now.
    ReadOnly,
    /// The server reads its dump.
    Loading,
    /// The server is a replica that has lost its primary.
    MasterDown,
    /// The server has too few replicas to take writes: it may be an old primary that is cut off.
    NoReplicas,
}

impl Ending {
    pub(super) const ALL: [Self; 6] =
        [Self::Broken, Self::Silent, Self::ReadOnly, Self::Loading, Self::MasterDown, Self::NoReplicas];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Silent => "silent",
            Self::ReadOnly => "read_only",
            Self::Loading => "loading",
            Self::MasterDown => "master_down",
            Self::NoReplicas => "no_replicas",
        }
    }

    /// Whether the connection works.
    pub(super) const fn is_an_answer(self) -> bool {
        !matches!(self, Self::Broken | Self::Silent)
    }

    /// If an error says that the server is the wrong one.
    fn of(error: &ServerError) -> Option<Self> {
        match error.kind() {
            Some(ServerErrorKind::ReadOnly) => Some(Self::ReadOnly),
            Some(ServerErrorKind::BusyLoading) => Some(Self::Loading),
            Some(ServerErrorKind::MasterDown) => Some(Self::MasterDown),
            // Before version 7 the error of a script holds the command's in words.
            Some(ServerErrorKind::ResponseError) => {
                error.details().filter(|words| words.contains("-READONLY")).map(|_| Self::ReadOnly)
            }
            Some(_) => None,
            None => (error.code() == "NOREPLICAS").then_some(Self::NoReplicas),
        }
    }

    fn of_value(value: &Value) -> Option<Self> {
        match value {
            Value::ServerError(error) => Self::of(error),
            _ => None,
        }
    }
}

impl Line {
    pub(super) fn new(connection: MultiplexedConnection, run: String) -> Self {
        let server = Server { run, opened_at: Instant::now(), answered_at: AtomicU64::new(0) };
        Self { connection, server: Arc::new(server) }
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.server, &other.server)
    }

    pub(super) fn age(&self) -> Duration {
        self.server.opened_at.elapsed()
    }

    fn age_us(&self) -> u64 {
        u64::try_from(self.age().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Link {
    pub(super) const fn new(line: Line, links: Arc<Links>) -> Self {
        Self { line, links }
    }

    /// The run of the server that it leads to: another one after each start, and of each server. What was written in
    /// another run may lack later writes. Empty if the server hides it.
    pub fn run(&self) -> &str {
        &self.line.server.run
    }

    /// Takes in what came of a request that was sent at an age of the connection.
    fn judge(&self, sent_at: u64, answer: Result<Option<Ending>, &redis::RedisError>) {
        let answered_at = &self.line.server.answered_at;
        let ending = match answer {
            Err(error) if error.is_timeout() => {
                (answered_at.load(Ordering::Relaxed) < sent_at).then_some(Ending::Silent)
            }
            Err(error) if error.is_io_error() || error.is_unrecoverable_error() => Some(Ending::Broken),
            answer => {
                answered_at.fetch_max(self.line.age_us(), Ordering::Relaxed);
                answer.unwrap_or_else(|error| {
                    let errors = error.clone().into_server_errors()?;
                    errors.iter().find_map(|(_, error)| Ending::of(error))
                })
            }
        };
        if let Some(ending) = ending {
            self.links.end(&self.line, ending);
        }
    }

    async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        let sent_at = self.line.age_us();
        let answer = self.line.connection.send_packed_command(command).await;
        self.judge(sent_at, answer.as_ref().map(Ending::of_value));
        answer
    }

    async fn send_all(&mut self, pipeline: &Pipeline, offset: usize, count: usize) -> RedisResult<Vec<Value>> {
        let sent_at = self.line.age_us();
        let answer = self.line.connection.send_packed_commands(pipeline, offset, count).await;
        self.judge(sent_at, answer.as_ref().map(|values| values.iter().find_map(Ending::of_value)));
        answer
    }
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(self.send(command))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(self.send_all(pipeline, offset, count))
    }

    fn get_db(&self) -> i64 {
        self.line.connection.get_db()
    }
}
