//! What a user does about their own connections and about others: tickets and blocks.

use serde::{Deserialize, Serialize};

use crate::{clock::Timestamp, ids::UserId};

/// The right to open one WebSocket, for clients that can set neither a header nor a subprotocol.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Ticket {
    /// Goes into the address: `/v1/ws?ticket=…`. Any gateway takes it, once.
    pub ticket: String,
    /// For how many seconds.
    pub expires_in_s: u64,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ticket")
    }
}

/// A user whom the asking user has blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Block {
    /// Who.
    pub user_id: UserId,
    /// Since when, in milliseconds since 1970.
    pub blocked_at: Timestamp,
}

/// Whom the asking user has blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BlockList {
    /// The latest first.
    pub blocks: Vec<Block>,
}
