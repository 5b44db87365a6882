//! The edge over real sockets: who is slow, who asks too much, who comes from where they shouldn't.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    routing::{get, post},
};
use chat_shared::{
    ids::UserId,
    lifecycle::Tasks,
    wire::{ErrorBody, ErrorCode},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Notify,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    gateway::{Gateway, generous, token},
    place::until,
};
use crate::edge::{self, BAD_ORIGINS, Edge, EdgeSettings, Waits};

const DEADLINE: Duration = Duration::from_secs(30);
/// For waits that a test has to sit through.
pub const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_hours(1);
const ORIGIN: &str = "https://app.example";

/// Nothing is waited for in vain, and nothing takes long.
pub const PATIENT: Waits = Waits { head_max: LONG, body_max: LONG, request_max: LONG, idle_max: LONG };

/// An edge before a few routes.
pub struct Stand {
    pub address: SocketAddr,
    pub edge: Arc<Edge>,
    pub tasks: Tasks,
}

impl Stand {
    pub async fn start(settings: EdgeSettings, waits: Waits) -> Self {
        Self::before(Router::new(), settings, waits).await
    }

    /// Before more routes.
    pub async fn before(router: Router, settings: EdgeSettings, waits: Waits) -> Self {
        let router = router
            .route("/", get(async || "here").post(async |body: Bytes| body))
            .route("/never", get(std::future::pending::<()>))
            .route("/much", get(async || vec![b'x'; 32 * 1024 * 1024]));
        let tasks = Tasks::default();
        let edge = Edge::start(&settings, waits, &tasks);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (router, door) = (edge.protect(router), Arc::clone(&edge.door));
        tasks.essential("http", edge::serve(listener, router, door, tasks.clone()));
        Self { address, edge, tasks }
    }

    async fn connect(&self) -> Raw {
        Raw::connect(self.address, 1).await
    }

    async fn ask(&self, request: &str) -> Answer {
        let mut raw = self.connect().await;
        raw.say(request).await;
        raw.answer().await
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.tasks.draining().cancel();
    }
}

/// A client that may be as slow and wrong as it likes.
pub struct Raw(pub TcpStream);

impl Raw {
    /// From the address 127.0.0.`host`.
    pub async fn connect(to: SocketAddr, host: u8) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, host), 0).into()).unwrap();
        Self(socket.connect(to).await.unwrap())
    }

    pub async fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next answer on this connection.
    pub async fn answer(&mut self) -> Answer {
        let reading = async {
            let mut bytes = Vec::new();
            let end = loop {
                if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                    break end;
                }
                assert!(self.0.read_buf(&mut bytes).await.unwrap() > 0, "it was closed instead");
            };
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let mut body = bytes.split_off(end + 4);
            while body.len() < length.unwrap_or(0) {
                assert!(self.0.read_buf(&mut body).await.unwrap() > 0, "the answer is cut off");
            }
            Answer { head, body: String::from_utf8(body).unwrap() }
        };
        timeout(DEADLINE, reading).await.expect("an answer comes")
    }

    /// Waits until the gateway has closed the connection without another word.
    pub async fn until_closed(mut self) {
        let mut bytes = [0; 1];
        let read = timeout(DEADLINE, self.0.read(&mut bytes)).await.expect("it is closed");
        assert!(matches!(read, Ok(0) | Err(_)), "there is something to read");
    }
}

pub struct Answer {
    /// In lower case.
    head: String,
    pub body: String,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&prefix))
    }

    /// Its status and code, if it is a refusal as documented.
    pub fn refusal(&self) -> (u16, ErrorCode) {
        let body: ErrorBody = serde_json::from_str(&self.body).expect("every refusal is an ErrorBody");
        let is_to_come_back = matches!(body.code, ErrorCode::RateLimited | ErrorCode::Unavailable);
        assert_eq!(self.header("retry-after").is_some(), is_to_come_back, "{}", self.head);
        assert_eq!(body.retry_after_ms.is_some(), is_to_come_back);
        (self.status(), body.code)
    }
}

pub fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: chat.example\r\n{headers}\r\n")
}

pub fn limited(limit: impl FnOnce(&mut EdgeSettings)) -> EdgeSettings {
    let mut settings = generous();
    limit(&mut settings);
    settings
}

pub const ONE: NonZeroU32 = NonZeroU32::MIN;
pub const TWO: NonZeroU32 = ONE.saturating_add(1);

#[tokio::test]
async fn what_a_request_has_begun_is_done_though_its_client_hangs_up() {
    let (begun, go_on, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let notifies = [&begun, &go_on, &done].map(Arc::clone);
    let change = move || async move {
        let [begun, go_on, done] = notifies;
        begun.notify_one();
        go_on.notified().await;
        done.notify_one();
    };
    let router = Router::new().route("/change", post(change));
    let stand = Stand::before(router, generous(), PATIENT).await;
    let mut raw = stand.connect().await;
    raw.say("POST /change HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    timeout(DEADLINE, begun.notified()).await.expect("it begins");
    drop(raw);
    // The server has noticed once it lets somebody else have the place.
    until("the end of the connection", async || stand.edge.door.admission.open() == 0).await;
    go_on.notify_one();
    timeout(DEADLINE, done.notified()).await.expect("it is done");
}

#[tokio::test]
async fn what_never_ends_is_given_up_though_it_may_go_on_without_its_client() {
    let given_up = CancellationToken::new();
    let held = given_up.clone();
    let change = async move || {
        let _held = held.drop_guard();
        std::future::pending::<()>().await;
    };
    let router = Router::new().route("/change", post(change));
    let stand = Stand::before(router, generous(), Waits { request_max: SHORT, ..PATIENT }).await;
    let request = "POST /change HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(stand.ask(request).await.refusal(), (503, ErrorCode::Unavailable));
    timeout(DEADLINE, given_up.cancelled()).await.expect("it is given up");
}

#[tokio::test]
async fn who_opens_and_says_nothing_or_too_little_is_closed() {
    let stand = Stand::start(generous(), Waits { head_max: SHORT, ..PATIENT }).await;
    stand.connect().await.until_closed().await;
    let mut slow = stand.connect().await;
    // Each byte comes in time, but not the last.
    for byte in request("/", &format!("X-Slow: {}\r\n", "x".repeat(100_000))).bytes() {
        if slow.0.write_all(&[byte]).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    slow.until_closed().await;
    until("giving their places back", async || stand.edge.door.admission.open() == 0).await;
}

#[tokio::test]
async fn a_connection_may_rest_between_requests_but_not_within_one() {
    let stand = Stand::start(generous(), Waits { head_max: SHORT, ..PATIENT }).await;
    let mut rests = stand.connect().await;
    rests.say(&request("/", "")).await;
    assert_eq!(rests.answer().await.body, "here");
    // As long as a head may take.
    stand.connect().await.until_closed().await;
    rests.say(&request("/", "")).await;
    assert_eq!(rests.answer().await.body, "here");
    rests.say("GET / HT").await;
    rests.until_closed().await;

    let stand = Stand::start(generous(), Waits { idle_max: SHORT, ..PATIENT }).await;
    let mut rests = stand.connect().await;
    rests.say(&request("/", "")).await;
    assert_eq!(rests.answer().await.status(), 200);
    rests.until_closed().await;
    let mut reads_nothing = stand.connect().await;
    reads_nothing.say(&request("/much", "")).await;
    until("giving up on who doesn't take the answer", async || stand.edge.door.admission.open() == 0).await;
}

#[tokio::test]
async fn a_body_or_an_answer_that_takes_too_long_is_refused_as_documented() {
    let stand = Stand::start(generous(), Waits { body_max: SHORT, ..PATIENT }).await;
    let mut slow = stand.connect().await;
    slow.say("POST / HTTP/1.1\r\nHost: chat.example\r\nContent-Length: 10\r\n\r\nhalf").await;
    assert_eq!(slow.answer().await.refusal(), (408, ErrorCode::Unavailable));
    slow.until_closed().await;
    let whole = stand.ask("POST / HTTP/1.1\r\nHost: chat.example\r\nContent-Length: 5\r\n\r\nwhole").await;
    assert_eq!((whole.status(), whole.body.as_str()), (200, "whole"));

    let stand = Stand::start(generous(), Waits { request_max: SHORT, ..PATIENT }).await;
    assert_eq!(stand.ask(&request("/never", "")).await.refusal(), (503, ErrorCode::Unavailable));
    let endless = "POST / HTTP/1.1\r\nHost: chat.example\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
    assert_eq!(stand.ask(endless).await.refusal(), (503, ErrorCode::Unavailable));
}

#[tokio::test]
async fn heads_that_nobody_needs_are_refused() {
    let stand = Stand::start(generous(), PATIENT).await;
    let long = format!("/?{}", "x".repeat(8 * 1024));
    assert_eq!(stand.ask(&request(&long, "")).await.refusal(), (414, ErrorCode::Invalid));
    assert_eq!(stand.ask(&request("/", &"X-A: b\r\n".repeat(70))).await.refusal(), (431, ErrorCode::Invalid));
    let large = format!("X-Large: {}\r\n", "x".repeat(17 * 1024));
    assert_eq!(stand.ask(&request("/", &large)).await.refusal(), (431, ErrorCode::Invalid));
    // These are not even read to their end.
    assert_eq!(stand.ask(&request("/", &"X-A: b\r\n".repeat(200))).await.status(), 431);
    assert_eq!(stand.ask(&request("/", &format!("X-Huge: {}", "x".repeat(70 * 1024)))).await.status(), 431);
    // Nor waited for, so that a connection costs no more than this.
    let unfinished = format!("GET / HTTP/1.1\r\nX-Huge: {}", "x".repeat(33 * 1024));
    assert_eq!(stand.ask(&unfinished).await.status(), 431);
    assert_eq!(stand.ask("what?\r\n\r\n").await.status(), 400);
    assert_eq!(stand.ask(&request("/", "")).await.status(), 200);
}

#[tokio::test]
async fn one_more_connection_than_there_may_be_is_told_to_come_back_later() {
    let settings = limited(|settings| settings.connections_per_address_max = TWO);
    let stand = Stand::start(settings, PATIENT).await;
    let (first, _second) = (stand.connect().await, stand.connect().await);
    until("counting", async || stand.edge.door.admission.open() == 2).await;
    // Also one that says nothing.
    let mut third = stand.connect().await;
    assert_eq!(third.answer().await.refusal(), (503, ErrorCode::Unavailable));
    third.until_closed().await;
    let mut other = Raw::connect(stand.address, 2).await;
    other.say(&request("/", "")).await;
    assert_eq!(other.answer().await.status(), 200, "another address has places of its own");
    drop(first);
    until("having room again", async || {
        let mut again = stand.connect().await;
        again.say(&request("/", "")).await;
        again.answer().await.status() == 200
    })
    .await;

    let stand = Stand::start(limited(|settings| settings.connections_max = ONE), PATIENT).await;
    let _only = stand.connect().await;
    until("counting", async || stand.edge.door.admission.open() == 1).await;
    let mut more = Raw::connect(stand.address, 2).await;
    more.say(&request("/", "")).await;
    assert_eq!(more.answer().await.refusal(), (503, ErrorCode::Unavailable));
}

#[tokio::test]
async fn an_address_that_asks_too_much_is_refused_before_anything_is_looked_at_and_no_header_helps_it() {
    let settings = limited(|settings| {
        settings.requests_per_address_max = ONE;
        settings.trusted_proxies = "127.0.0.9".parse().unwrap();
    });
    let stand = Stand::start(settings, PATIENT).await;
    let statuses = async |host, forwarded: &str, count: u8| {
        let mut raw = Raw::connect(stand.address, host).await;
        let mut statuses = Vec::new();
        for number in 0..count {
            // What a client writes itself is another each time.
            raw.say(&request("/nowhere", &forwarded.replace('?', &number.to_string()))).await;
            let answer = raw.answer().await;
            if answer.status() == 429 {
                assert_eq!(answer.refusal(), (429, ErrorCode::RateLimited));
            }
            statuses.push(answer.status());
        }
        statuses
    };
    assert!(statuses(1, "X-Forwarded-For: 192.0.2.?\r\n", 12).await.ends_with(&[429]), "no proxy, not believed");
    assert_eq!(statuses(2, "", 1).await, [404], "others are not concerned");
    let behind = "X-Forwarded-For: 192.0.2.?\r\nX-Forwarded-For: 203.0.113.1, 198.51.100.7\r\n";
    assert!(statuses(9, behind, 12).await.ends_with(&[429]));
    assert_eq!(statuses(9, "X-Forwarded-For: 198.51.100.8\r\n", 1).await, [404], "the proxy itself isn't counted");
}

#[tokio::test]
async fn every_answer_is_kept_from_being_guessed_kept_or_framed() {
    let stand = Stand::start(limited(|settings| settings.requests_per_address_max = TWO), PATIENT).await;
    let mut statuses = Vec::new();
    let preflight = "OPTIONS / HTTP/1.1\r\nHost: chat.example\r\nOrigin: https://app.example\r\n\
                     Access-Control-Request-Method: POST\r\n\r\n";
    let others = [request("/", ""), request("/nowhere", ""), "PUT / HTTP/1.1\r\nHost: chat.example\r\n\r\n".to_owned()];
    let long = request(&format!("/{}", "x".repeat(9000)), "");
    for asked in [preflight.to_owned(), long].into_iter().chain(others).chain(vec![request("/", ""); 20]) {
        let answer = stand.ask(&asked).await;
        statuses.push(answer.status());
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{}", answer.head);
        }
        assert!(answer.header("server").is_none());
    }
    assert!(statuses.starts_with(&[200, 414, 200, 404, 405]) && statuses.contains(&429), "{statuses:?}");
}

#[tokio::test]
async fn browsers_are_told_of_listed_origins_and_of_no_others() {
    let stand = Stand::start(limited(|settings| settings.requests_per_address_max = TWO), PATIENT).await;
    let preflight = |origins: &[&str]| {
        let origins = origin_headers(origins);
        format!("OPTIONS / HTTP/1.1\r\nHost: chat.example\r\n{origins}Access-Control-Request-Method: PUT\r\n\r\n")
    };
    let allowed = stand.ask(&preflight(&[ORIGIN])).await;
    assert_eq!(allowed.status(), 200);
    for (name, value) in [
        ("access-control-allow-origin", ORIGIN),
        ("access-control-allow-methods", "get,post,put,delete"),
        ("access-control-allow-headers", "authorization,content-type"),
        ("access-control-max-age", "3600"),
    ] {
        assert_eq!(allowed.header(name), Some(value), "{}", allowed.head);
    }
    let is_secret = |answer: &Answer| {
        !answer.head.contains("access-control-allow-origin") && answer.head.contains("\r\nvary: origin")
    };
    for origin in BAD_ORIGINS {
        for origins in [&[origin][..], &[ORIGIN, origin], &[origin, ORIGIN]] {
            let answer = stand.ask(&preflight(origins)).await;
            assert!(is_secret(&answer), "{origins:?}: {}", answer.head);
        }
    }
    let mut refused = loop {
        let answer = stand.ask(&request("/", &format!("Origin: {ORIGIN}\r\n"))).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some(ORIGIN), "{}", answer.head);
        assert_eq!(answer.header("access-control-expose-headers"), Some("retry-after"));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        if answer.status() == 429 {
            break answer;
        }
    };
    assert_eq!(refused.refusal(), (429, ErrorCode::RateLimited), "scripts can read when to come back");
    refused = stand.ask(&request("/", "Origin: https://evil.example\r\n")).await;
    assert!(is_secret(&refused));
}

#[tokio::test]
async fn a_gateway_that_stops_finishes_what_it_has_begun_and_keeps_nobody_waiting() {
    let stand = Stand::start(generous(), PATIENT).await;
    let (silent, mut rests, mut busy) = (stand.connect().await, stand.connect().await, stand.connect().await);
    rests.say(&request("/", "")).await;
    assert_eq!(rests.answer().await.status(), 200);
    busy.say("POST / HTTP/1.1\r\nHost: chat.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(busy.answer().await.status(), 100, "it is being answered");
    stand.tasks.draining().cancel();
    silent.until_closed().await;
    rests.until_closed().await;
    busy.say("hello").await;
    let answer = busy.answer().await;
    assert_eq!((answer.body.as_str(), answer.header("connection")), ("hello", Some("close")));
    busy.until_closed().await;
}

fn origin_headers(origins: &[&str]) -> String {
    origins.iter().flat_map(|origin| ["Origin: ", origin, "\r\n"]).collect()
}

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat.v1.json";

/// A page's handshake, which has the token as a subprotocol.
pub fn handshake(headers: &str) -> String {
    let token = token(UserId::random(), &json!({}));
    request("/v1/ws", &format!("{HANDSHAKE}, bearer.{token}\r\n{headers}"))
}

/// An app's handshake, which has the token in a header that no page can set.
fn handshake_of_app(headers: &str) -> String {
    let token = token(UserId::random(), &json!({}));
    request("/v1/ws", &format!("{HANDSHAKE}\r\nAuthorization: Bearer {token}\r\n{headers}"))
}

#[tokio::test]
async fn no_page_of_another_origin_opens_a_socket_r6_4() {
    let gateway = Gateway::behind(generous(), PATIENT).await;
    let open = async |origins: &[&str]| {
        let origins = origin_headers(origins);
        let mut raw = Raw::connect(gateway.address, 1).await;
        raw.say(&handshake(&origins)).await;
        raw.answer().await
    };
    assert_eq!((open(&[]).await.status(), open(&[ORIGIN]).await.status()), (101, 101));
    for origin in BAD_ORIGINS {
        for origins in [&[origin][..], &[ORIGIN, origin], &[origin, ORIGIN]] {
            assert_eq!(open(origins).await.refusal(), (403, ErrorCode::Forbidden), "{origins:?}");
        }
    }
    let mut app = Raw::connect(gateway.address, 1).await;
    app.say(&handshake_of_app(&origin_headers(&["https://evil.example"]))).await;
    assert_eq!(app.answer().await.status(), 101);
}

#[tokio::test]
async fn behind_a_proxy_sockets_count_for_the_client_until_they_end() {
    let settings = limited(|settings| {
        settings.trusted_proxies = "127.0.0.0/8".parse().unwrap();
        settings.connections_per_address_max = TWO;
    });
    let gateway = Gateway::behind(settings, PATIENT).await;
    let open = async |client: &str| {
        let mut raw = Raw::connect(gateway.address, 1).await;
        raw.say(&handshake(&format!("X-Forwarded-For: 203.0.113.9, {client}\r\n"))).await;
        (raw.answer().await, raw)
    };
    let first = open("198.51.100.7").await;
    let second = open("198.51.100.7").await;
    assert_eq!((first.0.status(), second.0.status()), (101, 101));
    assert_eq!(open("198.51.100.7").await.0.refusal(), (503, ErrorCode::Unavailable));
    assert_eq!(open("198.51.100.8").await.0.status(), 101);
    drop(first);
    until("having room again", async || open("198.51.100.7").await.0.status() == 101).await;
}

#[tokio::test]
async fn an_address_with_many_bad_tokens_is_not_listened_to_for_a_while_r6_4() {
    let settings = limited(|settings| {
        settings.trusted_proxies = "127.0.0.0/8".parse().unwrap();
        settings.requests_per_address_max = NonZeroU32::new(100).unwrap();
    });
    let gateway = Gateway::behind(settings, PATIENT).await;
    let ask = async |client: &str, authorization: &str| {
        let mut raw = Raw::connect(gateway.address, 1).await;
        let headers = format!("X-Forwarded-For: {client}\r\n{authorization}");
        raw.say(&request("/v1/conversations", &headers)).await;
        raw.answer().await.refusal()
    };
    let bad = "Authorization: Bearer nonsense\r\n";
    let mut answers = Vec::new();
    while !answers.contains(&(429, ErrorCode::RateLimited)) {
        assert!(answers.len() < 400, "all are looked at");
        answers.push(ask("198.51.100.7", bad).await);
    }
    assert!(answers.len() > 50, "a few may be accidents");
    let mut raw = Raw::connect(gateway.address, 1).await;
    raw.say(&handshake("X-Forwarded-For: 198.51.100.7\r\n")).await;
    assert_eq!(raw.answer().await.refusal(), (429, ErrorCode::RateLimited), "not even a good one");
    assert_eq!(ask("198.51.100.8", bad).await, (401, ErrorCode::Unauthenticated), "others are not concerned");
    assert_eq!(ask("198.51.100.7", "").await, (401, ErrorCode::Unauthenticated), "who shows none costs nothing");
}
