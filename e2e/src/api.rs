//! People, and what they ask by REST.

use anyhow::{Context, Result, bail, ensure};
use chat_shared::{
    ids::{ConversationId, MessageId, UserId},
    wire::{Accepted, Conversation, HistoryPage},
};
use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::traces;

/// Where the people of tests connect from, by their own account: a network that belongs to nobody.
pub const ADDRESSES: &str = "203.0.113.";

/// A user with a token.
#[derive(Debug, Clone)]
pub struct Person {
    /// Who.
    pub id: UserId,
    /// Valid for an hour.
    pub token: String,
}

/// REST at one gateway.
#[derive(Debug, Clone)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// What a gateway answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Seconds of the `Retry-After` header.
    pub retry_after: Option<u64>,
    /// The body; null if it is not JSON.
    pub body: Value,
    /// The headers and the body as they came.
    pub received: Vec<u8>,
}

impl Answer {
    /// The body of a success.
    ///
    /// # Errors
    /// If it was none, or the body is something else.
    pub fn ok<T: DeserializeOwned>(self) -> Result<T> {
        if !(200..300).contains(&self.status) {
            bail!("the gateway answered {} {}", self.status, self.body);
        }
        serde_json::from_value(self.body).context("reading the body")
    }

    /// Status and error code, as `404 not_found`; `200` for a success.
    pub fn code(&self) -> String {
        match self.body["code"].as_str() {
            Some(code) => format!("{} {code}", self.status),
            None => self.status.to_string(),
        }
    }
}

impl Api {
    /// At a gateway's base URL, with a token or without.
    pub fn new(base: String, token: Option<String>) -> Self {
        Self { http: reqwest::Client::new(), base, token }
    }

    /// Any request; `path` comes after `/v1/`.
    pub async fn ask(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Answer> {
        let mut request = self.http.request(method, format!("{}/v1/{path}", self.base)).timeout(crate::DEADLINE);
        request = request.header("x-forwarded-for", format!("{ADDRESSES}7"));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let mut received = format!("{:?}", response.headers()).into_bytes();
        let bytes = response.bytes().await?;
        received.extend_from_slice(&bytes);
        if status >= 400 {
            let text = String::from_utf8_lossy(&bytes);
            ensure!(traces::secret_in(&text).is_none(), "an error answer tells too much: {text}");
        }
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(Answer { status, retry_after, body, received })
    }

    /// GET
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.ask(Method::GET, path, None).await
    }

    /// POST with a JSON body.
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Answer> {
        self.ask(Method::POST, path, Some(serde_json::to_vec(body)?)).await
    }

    /// DELETE
    pub async fn delete(&self, path: &str) -> Result<Answer> {
        self.ask(Method::DELETE, path, None).await
    }

    /// PUT with a JSON body.
    pub async fn put(&self, path: &str, body: &impl Serialize) -> Result<Answer> {
        self.ask(Method::PUT, path, Some(serde_json::to_vec(body)?)).await
    }

    /// A conversation as the list shows it.
    pub async fn listed(&self, conversation_id: ConversationId) -> Result<Conversation> {
        self.get(&format!("conversations/{}", conversation_id.as_uuid())).await?.ok()
    }

    /// Marks a message as read.
    pub async fn mark_read(&self, conversation_id: ConversationId, message_id: MessageId) -> Result<Answer> {
        let path = format!("conversations/{}/read", conversation_id.as_uuid());
        self.post(&path, &json!({ "message_id": message_id })).await
    }

    /// Sends a message, once.
    pub async fn send(&self, conversation_id: ConversationId, message_id: MessageId, text: &str) -> Result<Answer> {
        let body = json!({ "message_id": message_id, "text": text });
        self.post(&format!("conversations/{}/messages", conversation_id.as_uuid()), &body).await
    }

    /// Sends a new message that has to be accepted.
    pub async fn say(&self, conversation_id: ConversationId, text: &str) -> Result<Accepted> {
        self.send(conversation_id, MessageId::random(), text).await?.ok()
    }

    /// A page of history; `query` as in `before=7&limit=2`.
    pub async fn history(&self, conversation_id: ConversationId, query: &str) -> Result<HistoryPage> {
        self.get(&format!("conversations/{}/messages?{query}", conversation_id.as_uuid())).await?.ok()
    }
}
