//! Requests to services outside: where they may go, how long they take, and what of an answer is read.
//!
//! **Invariant:** a client for addresses that others name connects only to addresses that it has checked.

use std::{
    error::Error,
    fmt::Write,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use chat_shared::{
    clock::{Clock, Timestamp},
    outbound::is_public,
};
use reqwest::{
    Client, ClientBuilder, RequestBuilder, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{HeaderMap, RETRY_AFTER},
    redirect::Policy,
};
use tokio::time::Instant;

use super::{Verdict, line::Outcome};

/// How long a send may take, with all that it needs.
const SEND_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long it may take until a connection is there, its address and TLS included.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(3);
/// How long an idle connection is kept.
const IDLE_MAX: Duration = Duration::from_mins(1);
/// How often a connection of HTTP/2 shows that it is alive, so that no notification is lost to one that isn't.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Silence after which such a connection is given up.
const PING_WAIT_MAX: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read; what it says beyond them doesn't matter.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// A longer wait that a service asks for is cut to this.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// When a send has to be over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Instant);

/// What a service answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// How long it wants to be left alone.
    pub(super) retry_after: Option<Duration>,
    /// The beginning of what it said.
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// The request was not sent.
    NotSent(String),
    /// The request was not sent, because its host has no public address.
    NotPublic,
    /// The request may have been sent.
    NoAnswer(String),
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent(why) => Self::Failed(Verdict::Later(None), why),
            Failure::NotPublic => Self::Failed(Verdict::Later(None), NoPublicAddress.to_string()),
            Failure::NoAnswer(why) => Self::Failed(Verdict::Unknown, why),
        }
    }
}

impl Deadline {
    /// The deadline of a send that begins now.
    pub(super) fn new() -> Self {
        Self(Instant::now() + SEND_WAIT_MAX)
    }

    /// What comes of `wait`, or nothing if that takes too long.
    pub(super) async fn bound<T>(self, wait: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout_at(self.0, wait).await.ok()
    }

    /// The time that is left for a request. It has to be enough to connect, or nobody could tell whether the request
    /// was sent.
    fn left(self) -> Result<Duration, Failure> {
        let left = self.0.saturating_duration_since(Instant::now());
        if left > CONNECT_WAIT_MAX { Ok(left) } else { Err(Failure::NotSent("too little time is left".to_owned())) }
    }
}

/// What all clients have in common.
pub(super) fn client(allow_loopback: bool) -> ClientBuilder {
    Client::builder()
        .https_only(!allow_loopback)
        .redirect(Policy::none())
        .referer(false)
        .no_proxy()
        .connect_timeout(CONNECT_WAIT_MAX)
        .pool_idle_timeout(IDLE_MAX)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_WAIT_MAX)
        .http2_keep_alive_while_idle(true)
}

/// A client for addresses that others name. Hosts that are IP addresses are not resolved: check them first, with
/// `check_url`.
pub(super) fn public_client(allow_loopback: bool) -> ClientBuilder {
    client(allow_loopback).dns_resolver(Arc::new(PublicAddresses { allow_loopback }))
}

/// Builds a client.
pub(super) fn build(client: ClientBuilder) -> anyhow::Result<Client> {
    client.build().context("starting an HTTP client; it needs the system's root certificates, such as ca-certificates")
}

/// Resolves names to their public addresses.
struct PublicAddresses {
    allow_loopback: bool,
}

/// A name that has addresses, none of them public.
#[derive(Debug, thiserror::Error)]
#[error("the host has no public address")]
struct NoPublicAddress;

impl Resolve for PublicAddresses {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_loopback = self.allow_loopback;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let is_allowed = |found: &SocketAddr| is_public(found.ip()) || (allow_loopback && found.ip().is_loopback());
            let allowed: Vec<_> = found.filter(is_allowed).collect();
            if allowed.is_empty() {
                return Err(NoPublicAddress.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Sends a request and reads the answer.
pub(super) async fn send(request: RequestBuilder, deadline: Deadline, clock: &Clock) -> Result<Answer, Failure> {
    let mut response = request.timeout(deadline.left()?).send().await.map_err(|error| failure(&error))?;
    let (status, retry_after) = (response.status(), retry_after(response.headers(), clock.now()));
    let mut body = Vec::new();
    // The status says what matters, so what breaks off afterwards is no failure.
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = ANSWER_BYTES_MAX - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() >= room {
            break;
        }
    }
    Ok(Answer { status, retry_after, body })
}

fn failure(error: &reqwest::Error) -> Failure {
    let causes = || std::iter::successors(error.source(), |&cause| cause.source());
    if causes().any(<dyn Error>::is::<NoPublicAddress>) {
        return Failure::NotPublic;
    }
    // The URL is part of the outermost error alone, and may hold a token.
    let why = causes().fold(String::from("the request failed"), |mut why, cause| {
        let _written = write!(why, ": {cause}");
        why
    });
    let was_cancelled = causes().filter_map(|cause| cause.downcast_ref()).any(hyper::Error::is_canceled);
    if error.is_connect() || error.is_builder() || was_cancelled {
        Failure::NotSent(why)
    } else {
        Failure::NoAnswer(why)
    }
}

fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let until = httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        until.saturating_sub(Duration::from_millis(u64::try_from(now.0).ok()?))
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn a_wait_is_seconds_or_a_date_and_has_a_bound() {
        let now = Timestamp(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT
        let wait = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("0"), Some(0));
        assert_eq!(wait(" 120 "), Some(120));
        assert_eq!(wait("86400"), Some(3600));
        assert_eq!(wait("99999999999999999999"), None);
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:07 GMT"), Some(30));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:00 GMT"), Some(0));
        assert_eq!(wait("Mon, 07 Nov 1994 08:49:37 GMT"), Some(3600));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("-1"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    /// A server that answers every connection's first bytes with `answer`, and closes it.
    async fn answering(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        chat_shared::lifecycle::Tasks::default().best_effort("answering", async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut asked = [0; 1024];
                let _read = connection.read(&mut asked).await;
                let _written = connection.write_all(answer).await;
            }
        });
        address
    }

    async fn asked(url: &str, allow_loopback: bool) -> Result<Answer, Failure> {
        let client = build(public_client(allow_loopback)).unwrap();
        send(client.post(url), Deadline::new(), &Clock::System).await
    }

    #[tokio::test]
    async fn what_was_surely_not_sent_is_told_from_what_may_have_been() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let refused = asked(&format!("http://127.0.0.1:{port}/"), true).await;
        assert!(matches!(refused, Err(Failure::NotSent(_))), "{refused:?}");
        let unknown_host = asked("https://nowhere.invalid/", false).await;
        assert!(matches!(unknown_host, Err(Failure::NotSent(_))), "{unknown_host:?}");
        let broken = answering(b"").await;
        let no_tls = asked(&format!("https://{broken}/"), true).await;
        assert!(matches!(no_tls, Err(Failure::NotSent(_))), "{no_tls:?}");
        let reset = asked(&format!("http://{broken}/secret-token"), true).await;
        let Err(Failure::NoAnswer(why)) = reset else { panic!("{reset:?}") };
        assert!(!why.contains("secret-token"), "{why}");
        assert!(!why.contains("127.0.0.1"), "{why}");
    }

    #[tokio::test]
    async fn names_of_this_machine_are_not_connected_to() {
        let address = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let private = asked(&format!("https://localhost:{}/", address.port()), false).await;
        assert!(matches!(private, Err(Failure::NotPublic)), "{private:?}");
        let allowed = asked(&format!("http://localhost:{}/", address.port()), true).await;
        assert!(allowed.is_ok(), "{allowed:?}");
    }

    #[tokio::test]
    async fn redirects_are_not_followed() {
        let address = answering(b"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n").await;
        let answer = asked(&format!("http://{address}/"), true).await.unwrap();
        assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
    }

    #[tokio::test]
    async fn of_a_long_answer_only_the_beginning_is_read() {
        let long: &'static [u8] =
            [b"HTTP/1.1 400 No\r\nretry-after: 7\r\n\r\n".as_slice(), &vec![b'a'; 100_000]].concat().leak();
        let address = answering(long).await;
        let answer = asked(&format!("http://{address}/"), true).await.unwrap();
        assert_eq!((answer.status, answer.retry_after), (StatusCode::BAD_REQUEST, Some(Duration::from_secs(7))));
        assert_eq!(answer.body.len(), ANSWER_BYTES_MAX);
    }
}
