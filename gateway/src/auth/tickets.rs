//! One-time tickets: the right to open one WebSocket, for clients that can set neither a header nor a subprotocol.
//!
//! **Invariant:** of all gateways one takes a ticket, once, within [`limits::TICKET_LIFE`]. Redis knows it by its hash only,
//! in which is the run of the server: one that was used can't come back with older data.

use aws_lc_rs::{digest, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use chat_shared::{
    limits, packed,
    redis::{Redis, bounded},
    wire::Ticket,
};

use super::Identity;
use crate::refusal::Refusal;

/// How each ticket begins, so that one is recognised wherever it turns up: by people, and by scanners for secrets.
const PREFIX: &str = "ct1_";
/// Bytes of chance in a ticket.
const BYTES: usize = 32;

/// Issues and takes tickets.
#[derive(Clone)]
pub struct Tickets {
    redis: Redis,
}

impl Tickets {
    /// Tickets that are kept in Redis.
    pub const fn new(redis: Redis) -> Self {
        Self { redis }
    }

    /// A ticket for whoever has just shown a token.
    pub async fn issue(&self, identity: Identity) -> Result<Ticket, Refusal> {
        let mut bytes = [0; BYTES];
        rand::fill(&mut bytes).map_err(|error| Refusal::internal(&error))?;
        let ticket = format!("{PREFIX}{}", BASE64.encode(bytes));
        let kept = rmp_serde::to_vec_named(&identity).map_err(|error| Refusal::internal(&error))?;
        let life_ms = u64::try_from(limits::TICKET_LIFE.as_millis()).unwrap_or(u64::MAX);
        let mut connection = self.redis.link().await.map_err(|error| Refusal::unavailable("Redis", &error))?;
        let set = redis::cmd("SET").arg(self.key(&bytes, connection.run())).arg(kept).arg("PX").arg(life_ms).to_owned();
        bounded(set.exec_async(&mut connection)).await.map_err(|error| Refusal::unavailable("Redis", &error))?;
        Ok(Ticket { ticket, expires_in_s: limits::TICKET_LIFE.as_secs() })
    }

    /// Whose ticket it is, if it is one. It is used up by this, whatever comes of it.
    pub async fn take(&self, ticket: &str) -> Result<Option<Identity>, Refusal> {
        let bytes = ticket.strip_prefix(PREFIX).and_then(|chance| BASE64.decode(chance).ok()?.try_into().ok());
        let Some(bytes) = bytes else { return Ok(None) };
        let mut connection = self.redis.link().await.map_err(|error| Refusal::unavailable("Redis", &error))?;
        let take = redis::cmd("GETDEL").arg(self.key(&bytes, connection.run())).to_owned();
        let kept: Option<Vec<u8>> =
            bounded(take.query_async(&mut connection)).await.map_err(|error| Refusal::unavailable("Redis", &error))?;
        kept.map(|kept| packed::read(&kept)).transpose().map_err(|error| Refusal::internal(&error))
    }

    fn key(&self, ticket: &[u8; BYTES], run: &str) -> String {
        let hash = digest::digest(&digest::SHA256, &[&ticket[..], run.as_bytes()].concat());
        format!("{}:ticket:{}", self.redis.namespace(), BASE64.encode(hash))
    }
}
