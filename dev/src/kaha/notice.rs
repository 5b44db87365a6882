//! Requests that kaha-main-v3 sends to the chat: changed profiles, logouts, and the staff of a business.

use anyhow::{Context, Result, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    service_tokens::{SCOPE_BUSINESSES, SCOPE_CLOSE, SCOPE_INVALIDATE, ServiceTokens},
    staff::Member,
};

/// Where a gateway is told that profiles have changed.
pub const INVALIDATE_PATH: &str = "/internal/v1/profiles/invalidate";

/// Where all gateways are told that profiles have changed; the namespace stands before it.
pub const CHANGED_SUBJECT: &str = "profiles.changed";

/// Where a gateway is told to close a user's connections.
pub const CLOSE_PATH: &str = "/internal/v1/sessions/close";

/// Where a gateway is given the staff of a business.
pub fn staff_path(business_id: Uuid) -> String {
    format!("/internal/v1/businesses/{business_id}/staff")
}

/// Something to tell a gateway.
#[derive(Debug)]
pub(super) struct Notice {
    method: Method,
    path: String,
    scope: &'static str,
    body: Value,
    /// Whether it is in order that the chat knows something newer.
    may_be_old: bool,
}

impl Notice {
    /// These profiles have changed.
    pub(super) fn profiles_changed(users: &[Uuid], businesses: &[Uuid]) -> Self {
        Self::post(INVALIDATE_PATH, SCOPE_INVALIDATE, changed_profiles(users, businesses))
    }

    /// A user logged out: from the login `sid`, or everywhere.
    pub(super) fn logged_out(user_id: Uuid, sid: Option<Uuid>) -> Self {
        let mut body = json!({ "user_id": user_id });
        if let Some(sid) = sid {
            body["sid"] = json!(sid);
        }
        Self::post(CLOSE_PATH, SCOPE_CLOSE, body)
    }

    /// The whole staff of a business, as of a version.
    pub(super) fn staff(business_id: Uuid, version: u64, staff: &[impl Into<Member> + Copy]) -> Self {
        let staff: Vec<Member> = staff.iter().map(|member| (*member).into()).collect();
        Self {
            method: Method::PUT,
            path: staff_path(business_id),
            scope: SCOPE_BUSINESSES,
            body: json!({ "version": version, "staff": staff }),
            may_be_old: false,
        }
    }

    /// The same; that the chat knows something newer is no failure.
    pub(super) fn unless_newer(self) -> Self {
        Self { may_be_old: true, ..self }
    }

    fn post(path: &str, scope: &'static str, body: Value) -> Self {
        Self { method: Method::POST, path: path.to_owned(), scope, body, may_be_old: false }
    }

    /// Tells a gateway, at its internal address.
    pub(super) async fn tell(&self, tokens: &ServiceTokens, internal_url: &str) -> Result<()> {
        let (url, token) = (format!("{internal_url}{}", self.path), tokens.token(&[self.scope])?);
        let request = reqwest::Client::new().request(self.method.clone(), &url).bearer_auth(token).json(&self.body);
        let answer = request.send().await?;
        let status = answer.status();
        let is_taken = status == StatusCode::NO_CONTENT || (self.may_be_old && status == StatusCode::CONFLICT);
        ensure!(is_taken, "{url} answered {status}: {}", answer.text().await?);
        Ok(())
    }
}

/// Tells all gateways by NATS that these profiles have changed. The URL carries the credential.
///
/// # Errors
/// If NATS is out of reach.
pub async fn announce_profiles(nats_url: &str, namespace: &str, users: &[Uuid], businesses: &[Uuid]) -> Result<()> {
    let nats = chat_shared::log::connect(nats_url, "kaha-main-v3", |_| ()).await.context("connecting to NATS")?;
    let body = changed_profiles(users, businesses).to_string();
    nats.publish(format!("{namespace}.{CHANGED_SUBJECT}"), body.into()).await?;
    nats.flush().await?;
    Ok(())
}

/// The body of both ways.
fn changed_profiles(users: &[Uuid], businesses: &[Uuid]) -> Value {
    json!({ "user_ids": users, "business_ids": businesses })
}
