//! Calls of kaha-main-v3: one request for up to two hundred ids, with a token of this service, a deadline, one repeat, and a
//! circuit breaker for the time when it is out of reach.
//!
//! Each endpoint has a client of its own, so that a call for one thing neither waits for calls for another nor stops them.
//!
//! **Invariant:** an answer of any content causes no more than a call that counts as failed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use chat_shared::{
    breaker::{Breaker, Rules},
    clock::{Clock, Timestamp},
};
use parking_lot::Mutex;
use reqwest::{StatusCode, Url, header};
use serde::Serialize;

use crate::auth::Signer;

/// How long one attempt may take, its body included.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);
/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Attempts of one call.
const ATTEMPTS: u32 = 2;
/// How long the second attempt waits at the least, and at the most.
const PAUSE_MS: std::ops::Range<u64> = 50..150;
/// How long a token is used: half of its life.
const TOKEN_USED: Duration = Duration::from_secs(30);
/// How long no request is sent at the most because kaha-main-v3 wishes so.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);
/// How often a fault of ours is logged at the most.
const LOGGED_EVERY: Duration = Duration::from_mins(1);
/// Opens after three failures in a row, for a second at first.
const RULES: Rules = Rules { failures_max: 3, rest_min: Duration::from_secs(1), rest_max: Duration::from_secs(30) };

/// An answer of another form than was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not what was agreed on: {0}")]
pub struct Unreadable(pub &'static str);

/// What is asked for at one address.
#[derive(Debug)]
pub struct Endpoint {
    /// The path under the base address.
    pub path: &'static str,
    /// The scope of the tokens.
    pub scope: &'static str,
    /// Bytes of an answer.
    pub answer_bytes_max: usize,
    /// The metrics.
    pub metrics: Metrics,
    /// What follows from failed calls, for the log.
    pub consequence: &'static str,
    /// What follows from refused calls, for the log.
    pub refused: &'static str,
}

/// Names of metrics.
#[derive(Debug)]
pub struct Metrics {
    /// Attempts, by `outcome`.
    pub calls_total: &'static str,
    /// Seconds of an attempt.
    pub call_seconds: &'static str,
    /// 1 while no call is sent because calls failed.
    pub breaker_open: &'static str,
}

/// Why kaha-main-v3 did not answer. No text of these holds anything of an answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It is left alone for a while.
    #[error("kaha-main-v3 is left alone for a while")]
    Resting,
    /// It was not reached, or the connection broke.
    #[error("kaha-main-v3 is not reached: {0}")]
    Unreachable(reqwest::Error),
    /// It did not answer in time.
    #[error("kaha-main-v3 did not answer in time")]
    TimedOut,
    /// It answers with another status than 200.
    #[error("kaha-main-v3 answers with {0}")]
    Failed(StatusCode),
    /// It wants to be left alone for so long.
    #[error("kaha-main-v3 wants to be left alone, with {0}")]
    Busy(StatusCode, Duration),
    /// It does not take our token.
    #[error(
        "kaha-main-v3 does not take our token, with {0}: does it know our key, does it allow the scope, and are the clocks right?"
    )]
    TokenRefused(StatusCode),
    /// It does not take the request, which is a fault of ours or of what was agreed on.
    #[error("kaha-main-v3 does not take our request, with {0}: docs/kaha.md says what was agreed on")]
    RequestRefused(StatusCode),
    /// The answer is too long.
    #[error("kaha-main-v3 answers with more than {0} bytes")]
    TooLong(usize),
    /// The answer can't be read.
    #[error("what kaha-main-v3 answers can't be read: {0}")]
    Unreadable(#[from] Unreadable),
}

impl CallError {
    /// Its name in metrics.
    const fn outcome(&self) -> &'static str {
        match self {
            Self::Resting => "resting",
            Self::Unreachable(_) => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Failed(_) => "failed",
            Self::Busy(..) => "busy",
            Self::TokenRefused(_) => "token_refused",
            Self::RequestRefused(_) => "request_refused",
            Self::TooLong(_) | Self::Unreadable(_) => "unreadable",
        }
    }

    /// Whether the same request may do better at once.
    const fn is_worth_a_repeat(&self) -> bool {
        !matches!(self, Self::Resting | Self::Busy(..) | Self::RequestRefused(_))
    }
}

impl From<reqwest::Error> for CallError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() { Self::TimedOut } else { Self::Unreachable(error.without_url()) }
    }
}

/// One endpoint of kaha-main-v3.
pub struct Client {
    endpoint: &'static Endpoint,
    http: reqwest::Client,
    url: Url,
    audience: String,
    signer: Arc<Signer>,
    clock: Clock,
    token: Mutex<Option<(String, Timestamp)>>,
    breaker: Breaker,
    left_alone_until: Mutex<Option<Instant>>,
    logged_at: Mutex<Option<Instant>>,
}

impl Client {
    /// Of `endpoint` under the base address `base`, with tokens of `signer` for `audience`.
    pub fn new(
        endpoint: &'static Endpoint,
        base: &Url,
        audience: &str,
        signer: Arc<Signer>,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(ATTEMPT_MAX)
            .connect_timeout(CONNECT_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("starting the HTTP client for kaha-main-v3")?;
        metrics::gauge!(endpoint.metrics.breaker_open).set(0);
        Ok(Self {
            endpoint,
            http,
            url: url_of(base, endpoint.path)?,
            audience: audience.to_owned(),
            signer,
            clock,
            token: Mutex::default(),
            breaker: Breaker::new(RULES),
            left_alone_until: Mutex::default(),
            logged_at: Mutex::default(),
        })
    }

    /// Whether a call would end before it began.
    pub fn is_resting(&self) -> bool {
        let now = Instant::now();
        !self.breaker.rest(now).is_zero() || self.is_left_alone(now)
    }

    /// Whether it failed of late, so that no request should wait for it.
    pub fn has_failed(&self) -> bool {
        self.breaker.is_open() || self.is_left_alone(Instant::now())
    }

    /// The answer to a request, as `read` reads it.
    pub async fn ask<T>(
        &self,
        request: &(impl Serialize + Sync),
        read: impl Fn(&[u8]) -> Result<T, Unreadable> + Sync,
    ) -> Result<T, CallError> {
        let mut attempt = 1;
        loop {
            match self.attempt(request, &read).await {
                Err(error) if attempt < ATTEMPTS && error.is_worth_a_repeat() => attempt += 1,
                outcome => return outcome,
            }
            tokio::time::sleep(Duration::from_millis(rand::random_range(PAUSE_MS))).await;
        }
    }

    async fn attempt<T>(
        &self,
        request: &(impl Serialize + Sync),
        read: &(impl Fn(&[u8]) -> Result<T, Unreadable> + Sync),
    ) -> Result<T, CallError> {
        let asked_at = Instant::now();
        if self.is_left_alone(asked_at) || !self.breaker.permits(asked_at) {
            return Err(CallError::Resting);
        }
        let outcome = self.exchange(request, read).await;
        let name = outcome.as_ref().err().map_or("answered", CallError::outcome);
        metrics::counter!(self.endpoint.metrics.calls_total, "outcome" => name).increment(1);
        metrics::histogram!(self.endpoint.metrics.call_seconds).record(asked_at.elapsed());
        self.note(asked_at, outcome.as_ref().err());
        outcome
    }

    async fn exchange<T>(
        &self,
        request: &(impl Serialize + Sync),
        read: &(impl Fn(&[u8]) -> Result<T, Unreadable> + Sync),
    ) -> Result<T, CallError> {
        let request = self.http.post(self.url.clone()).bearer_auth(self.token()).json(request);
        let mut response = request.header(header::ACCEPT, "application/json").send().await?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(refusal(status, response.headers()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > self.endpoint.answer_bytes_max {
                return Err(CallError::TooLong(self.endpoint.answer_bytes_max));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(read(&body)?)
    }

    /// A token that is good for a while; signing one costs more than all the rest of a call.
    fn token(&self) -> String {
        let now = self.clock.now();
        let mut held = self.token.lock();
        if let Some((token, until)) = &*held
            && now < *until
            && now.after(TOKEN_USED) >= *until
        {
            return token.clone();
        }
        let token = self.signer.token(&self.audience, self.endpoint.scope, now);
        *held = Some((token.clone(), now.after(TOKEN_USED)));
        token
    }

    /// Draws the conclusions of one attempt.
    fn note(&self, asked_at: Instant, error: Option<&CallError>) {
        let now = Instant::now();
        match error {
            // Refusing what we ask, it is there.
            None | Some(CallError::RequestRefused(_)) => {
                if self.breaker.close(now) {
                    tracing::info!(path = self.endpoint.path, "kaha-main-v3 is back");
                }
            }
            Some(error @ CallError::Busy(_, wait)) => {
                if self.may_log(now) {
                    tracing::warn!(%error, path = self.endpoint.path, "{}", self.endpoint.consequence);
                }
                *self.left_alone_until.lock() = Some(now + *wait);
                self.breaker.close(now);
            }
            Some(error) => {
                if self.breaker.fail(asked_at, now) {
                    tracing::warn!(%error, path = self.endpoint.path, "{}", self.endpoint.consequence);
                }
            }
        }
        if let Some(CallError::TokenRefused(_)) = error {
            *self.token.lock() = None;
        }
        if let Some(error @ (CallError::TokenRefused(_) | CallError::RequestRefused(_))) = error
            && self.may_log(now)
        {
            tracing::error!(%error, scope = self.endpoint.scope, "{}", self.endpoint.refused);
        }
        metrics::gauge!(self.endpoint.metrics.breaker_open).set(i32::from(self.has_failed()));
    }

    fn is_left_alone(&self, now: Instant) -> bool {
        self.left_alone_until.lock().is_some_and(|until| now < until)
    }

    fn may_log(&self, now: Instant) -> bool {
        let mut logged_at = self.logged_at.lock();
        let may = logged_at.is_none_or(|logged_at| now >= logged_at + LOGGED_EVERY);
        if may {
            *logged_at = Some(now);
        }
        may
    }
}

/// What a status other than 200 means.
fn refusal(status: StatusCode, headers: &header::HeaderMap) -> CallError {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => CallError::TokenRefused(status),
        StatusCode::TOO_MANY_REQUESTS => CallError::Busy(status, retry_after(headers).unwrap_or(RULES.rest_min)),
        StatusCode::SERVICE_UNAVAILABLE => match retry_after(headers) {
            Some(wait) => CallError::Busy(status, wait),
            None => CallError::Failed(status),
        },
        status if status.is_client_error() => CallError::RequestRefused(status),
        // No status of a redirection or success but 200 was agreed on.
        status => CallError::Failed(status),
    }
}

/// `Retry-After` in seconds, within bounds.
fn retry_after(headers: &header::HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).clamp(RULES.rest_min, RETRY_AFTER_MAX))
}

/// The address of an endpoint under a base address, which may have a path of its own.
fn url_of(base: &Url, path: &str) -> anyhow::Result<Url> {
    let mut base = base.clone();
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    base.join(path).context("CHAT_KAHA_URL is no base address")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_stands_under_the_base_address_r10_1() {
        let endpoint = |base: &str| url_of(&base.parse().unwrap(), "api/batch/profiles").unwrap().to_string();
        assert_eq!(endpoint("https://kaha.internal"), "https://kaha.internal/api/batch/profiles");
        assert_eq!(endpoint("https://kaha.internal/v3"), "https://kaha.internal/v3/api/batch/profiles");
        assert_eq!(endpoint("http://127.0.0.1:9/v3/"), "http://127.0.0.1:9/v3/api/batch/profiles");
    }

    #[test]
    fn a_status_says_whose_fault_it_is_and_how_long_to_wait() {
        let of = |status: u16, retry_after: Option<&str>| {
            let mut headers = header::HeaderMap::new();
            retry_after.map(|value| headers.insert(header::RETRY_AFTER, value.parse().unwrap()));
            refusal(StatusCode::from_u16(status).unwrap(), &headers)
        };
        let wait = |error| match error {
            CallError::Busy(_, wait) => Some(wait.as_secs()),
            _ => None,
        };
        assert_eq!(wait(of(429, None)), Some(1));
        assert_eq!(wait(of(429, Some("7"))), Some(7));
        assert_eq!(wait(of(503, Some("0"))), Some(1));
        assert_eq!(wait(of(503, Some("99999999"))), Some(60));
        assert_eq!(wait(of(429, Some("soon"))), Some(1));
        for (status, outcome) in [
            (503, "failed"),
            (500, "failed"),
            (302, "failed"),
            (204, "failed"),
            (400, "request_refused"),
            (404, "request_refused"),
            (413, "request_refused"),
            (401, "token_refused"),
            (403, "token_refused"),
        ] {
            assert_eq!(of(status, None).outcome(), outcome, "{status}");
        }
    }
}
