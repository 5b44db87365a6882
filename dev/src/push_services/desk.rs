//! Where every stand-in takes or refuses what it is sent, as it was told to act.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::get,
};
use chat_shared::{
    clock::{Clock, Timestamp},
    wire::Platform,
};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    behaviour::Behaviour,
    book::{Book, Received, Refused},
};
use crate::stand_in::{lock, server::Cut};

/// A notification that is in order, and the answer to it.
#[derive(Debug)]
pub struct Taken {
    pub received: Received,
    pub answer: Response,
}

/// A refusal in the provider's own form.
#[derive(Debug)]
pub struct Objection {
    pub status: StatusCode,
    /// For people, in the records.
    pub reason: String,
    /// Body of the answer.
    pub body: Value,
}

/// One stand-in's part of the book, its orders and its dead tokens.
#[derive(Debug)]
pub struct Desk {
    platform: Platform,
    behaviour: Mutex<Behaviour>,
    /// As many as were killed.
    dead: Mutex<HashMap<String, Timestamp>>,
    /// As many as were disowned.
    foreign: Mutex<HashSet<String>>,
    book: Arc<Book>,
}

impl Desk {
    pub fn new(platform: Platform, book: Arc<Book>) -> Self {
        Self { platform, behaviour: Mutex::default(), dead: Mutex::default(), foreign: Mutex::default(), book }
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *lock(&self.behaviour) = behaviour;
    }

    pub fn kill(&self, token: &str) {
        lock(&self.dead).insert(token.to_owned(), Clock::System.now());
    }

    pub fn disown(&self, token: &str) {
        lock(&self.foreign).insert(token.to_owned());
    }

    /// Whether a token was given out for other credentials.
    pub fn is_foreign(&self, token: &str) -> bool {
        lock(&self.foreign).contains(token)
    }

    /// Since when a token is dead.
    pub fn dead_since(&self, token: &str) -> Option<Timestamp> {
        lock(&self.dead).get(token).copied()
    }

    /// Where the last notifications that were taken are listed, for people who try things.
    pub fn listing(&self) -> Router {
        let (platform, book) = (self.platform, Arc::clone(&self.book));
        Router::new().route("/", get(move || async move { Json(book.last_received(platform)) }))
    }

    /// Answers a notification: what `judge` says of it, unless this stand-in was told otherwise. `fail` puts a
    /// failure of this status into the provider's form.
    pub async fn answer(
        &self,
        cut: &Cut,
        token: Option<&str>,
        judge: impl FnOnce() -> Result<Taken, Objection>,
        fail: impl FnOnce(StatusCode) -> Objection,
    ) -> Response {
        let behaviour = *lock(&self.behaviour);
        if let Behaviour::Failing { status, retry_after } = behaviour {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return self.refuse(token, fail(status), retry_after);
        }
        let Taken { received, answer } = match judge() {
            Ok(notification) => notification,
            Err(objection) => return self.refuse(token, objection, None),
        };
        self.book.take(received);
        match behaviour {
            Behaviour::Slow(duration) => sleep(duration).await,
            Behaviour::SilentAfterTaking => cut.cut().await,
            Behaviour::Normal | Behaviour::Failing { .. } | Behaviour::Down => {}
        }
        answer
    }

    /// Notes an objection and puts it into an answer.
    pub fn refuse(&self, token: Option<&str>, objection: Objection, retry_after: Option<Duration>) -> Response {
        let Objection { status, reason, body } = objection;
        let token = token.map(str::to_owned);
        let at = Instant::now();
        self.book.refuse(Refused { platform: self.platform, token, status: status.as_u16(), reason, at });
        let mut answer = (status, Json(body)).into_response();
        if let Some(retry_after) = retry_after {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after.as_secs()));
        }
        answer
    }
}

/// The text of a header; `None` if there is none or it isn't text.
pub fn header<'a>(headers: &'a axum::http::HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Seconds since 1970.
pub fn now_s() -> i64 {
    Clock::System.now().0 / 1000
}
