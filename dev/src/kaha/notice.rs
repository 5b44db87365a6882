//! What kaha-main-v3 tells the chat by itself: that profiles have changed, and that somebody logged out.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use uuid::Uuid;

use super::service_tokens::{SCOPE_CLOSE, SCOPE_INVALIDATE, ServiceTokens};

/// Where a gateway is told that profiles have changed.
pub const INVALIDATE_PATH: &str = "/internal/v1/profiles/invalidate";

/// Where all gateways are told that profiles have changed; the namespace stands before it.
pub const CHANGED_SUBJECT: &str = "profiles.changed";

/// Where a gateway is told to close a user's connections.
pub const CLOSE_PATH: &str = "/internal/v1/sessions/close";

/// Something to tell a gateway.
#[derive(Debug)]
pub(super) struct Notice {
    path: &'static str,
    scope: &'static str,
    body: Value,
}

impl Notice {
    /// These profiles have changed.
    pub(super) fn profiles_changed(users: &[Uuid], businesses: &[Uuid]) -> Self {
        Self { path: INVALIDATE_PATH, scope: SCOPE_INVALIDATE, body: changed_profiles(users, businesses) }
    }

    /// A user logged out: from the login `sid`, or everywhere.
    pub(super) fn logged_out(user_id: Uuid, sid: Option<Uuid>) -> Self {
        let mut body = json!({ "user_id": user_id });
        if let Some(sid) = sid {
            body["sid"] = json!(sid);
        }
        Self { path: CLOSE_PATH, scope: SCOPE_CLOSE, body }
    }

    /// Tells a gateway, at its internal address.
    pub(super) async fn tell(&self, tokens: &ServiceTokens, internal_url: &str) -> Result<()> {
        let (url, token) = (format!("{internal_url}{}", self.path), tokens.token(&[self.scope])?);
        let answer = reqwest::Client::new().post(&url).bearer_auth(token).json(&self.body).send().await?;
        let status = answer.status();
        ensure!(status == reqwest::StatusCode::NO_CONTENT, "{url} answered {status}: {}", answer.text().await?);
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
