//! One-time tickets: the right to open one WebSocket, for clients that can set neither a header nor a subprotocol.
//!
//! **Invariant:** of all gateways one takes a ticket, once, within [`limits::TICKET_LIFE`].

use chat_shared::{limits, redis::Redis, wire::Ticket};

use super::Identity;
use crate::refusal::Refusal;

/// Issues and takes tickets.
#[derive(Clone)]
pub struct Tickets {
    _redis: Redis,
}

impl Tickets {
    /// Tickets that are kept in Redis.
    pub const fn new(redis: Redis) -> Self {
        Self { _redis: redis }
    }

    /// A ticket for whoever has just shown a token.
    pub async fn issue(&self, _identity: Identity) -> Result<Ticket, Refusal> {
        let _life = limits::TICKET_LIFE;
        Err(Refusal::invalid("tickets are not there yet"))
    }

    /// Whose ticket it is. It is used up by this.
    pub async fn take(&self, _ticket: &str) -> Result<Identity, Refusal> {
        Err(Refusal::unauthenticated("the ticket is unknown, used or expired; get a new one"))
    }
}
