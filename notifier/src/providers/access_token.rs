//! Access tokens of Google: fetched with a service account's key, once for all who need one, and kept until they end.

use std::{path::Path, time::Duration};

use anyhow::Context;
use chat_shared::clock::{Clock, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Client, Url, header::CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use tokio::{sync::Mutex, time::Instant};

use super::outbound::{self, Deadline, Failure};

/// How long before its end a token is changed for a new one.
const RENEWAL_LEAD: Duration = Duration::from_mins(5);
/// How long the claims hold for which a token is given. An hour is the most that Google takes.
const CLAIMS_LIFETIME_S: i64 = 3600;
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
const GRANT_TYPE: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";

/// The parts of a service account's file that are used.
#[derive(Deserialize)]
pub(super) struct ServiceAccount {
    pub(super) project_id: String,
    private_key_id: Option<String>,
    private_key: String,
    client_email: String,
    pub(super) token_uri: String,
}

impl ServiceAccount {
    /// The account in a file, as the Google Cloud console hands it out.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is not the JSON key file of a service account", path.display()))
    }
}

/// Gets access tokens.
pub(super) struct AccessTokens {
    http: Client,
    url: Url,
    header: Header,
    email: String,
    key: EncodingKey,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    failed: Option<(Instant, Failure)>,
}

struct Token {
    text: String,
    until: Timestamp,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

#[derive(Deserialize)]
struct Grant {
    access_token: String,
    expires_in: u64,
}

#[derive(Deserialize)]
struct Denial {
    error: String,
}

impl AccessTokens {
    /// For `account`, whose key is tried.
    pub(super) fn new(account: &ServiceAccount, http: Client, url: Url, clock: Clock) -> anyhow::Result<Self> {
        let key = EncodingKey::from_rsa_pem(account.private_key.as_bytes())
            .context("the service account's private_key is not an RSA key in PEM")?;
        let mut header = Header::new(Algorithm::RS256);
        header.kid.clone_from(&account.private_key_id);
        let email = account.client_email.clone();
        let tokens = Self { http, url, header, email, key, clock, state: Mutex::default() };
        tokens.assertion().context("the service account's private_key can't sign")?;
        Ok(tokens)
    }

    /// A token that holds.
    pub(super) async fn get(&self, deadline: Deadline) -> Result<String, Failure> {
        let asked_at = Instant::now();
        let Some(mut state) = deadline.bound(self.state.lock()).await else {
            return Err(Failure::NotSent("no access token came in time".to_owned()));
        };
        if let Some(token) = state.token.as_ref().filter(|token| self.clock.now() < token.until) {
            return Ok(token.text.clone());
        }
        // Whoever waited for another's fetch shares its failure too, instead of repeating it.
        if let Some((_, failure)) = state.failed.as_ref().filter(|(failed_at, _)| *failed_at >= asked_at) {
            return Err(failure.clone());
        }
        match self.fetch(deadline).await {
            Ok(token) => {
                let text = token.text.clone();
                *state = State { token: Some(token), failed: None };
                Ok(text)
            }
            Err(failure) => {
                state.failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    /// Drops a token that was refused, if no newer one has come.
    pub(super) async fn forget(&self, refused: &str) {
        let mut state = self.state.lock().await;
        if state.token.as_ref().is_some_and(|token| token.text == refused) {
            state.token = None;
        }
    }

    async fn fetch(&self, deadline: Deadline) -> Result<Token, Failure> {
        let not_sent = |why: String| Failure::NotSent(format!("getting an access token: {why}"));
        let assertion = self.assertion().map_err(|error| not_sent(error.to_string()))?;
        let request = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(format!("grant_type={GRANT_TYPE}&assertion={assertion}"));
        let answer = match outbound::send(request, deadline, &self.clock).await {
            Ok(answer) => answer,
            // The notification itself was not sent.
            Err(Failure::NotSent(why) | Failure::NoAnswer(why)) => return Err(not_sent(why)),
            Err(Failure::NotPublic) => return Err(Failure::NotPublic),
        };
        if !answer.status.is_success() {
            let denial = serde_json::from_slice::<Denial>(&answer.body).map(|denial| denial.error);
            let code = denial.ok().and_then(|code| super::code(&code).map(str::to_owned)).unwrap_or_default();
            return Err(not_sent(format!("Google answered {} {code}", answer.status.as_u16())));
        }
        let grant: Grant = serde_json::from_slice(&answer.body).map_err(|_| not_sent("there is none".to_owned()))?;
        let lifetime = Duration::from_secs(grant.expires_in);
        let until = self.clock.now().after(lifetime.saturating_sub(RENEWAL_LEAD.min(lifetime / 2)));
        Ok(Token { text: grant.access_token, until })
    }

    fn assertion(&self) -> jsonwebtoken::errors::Result<String> {
        let iat = self.clock.now().0 / 1000;
        let claims =
            Claims { iss: &self.email, scope: SCOPE, aud: self.url.as_str(), iat, exp: iat + CLAIMS_LIFETIME_S };
        jsonwebtoken::encode(&self.header, &claims, &self.key)
    }
}
