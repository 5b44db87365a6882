//! The state of the connection, as the application sees it.

use std::time::Duration;

use chat_shared::{ids::SessionId, wire::ErrorCode};

/// What the client is doing about its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionState {
    /// It is being opened.
    Connecting {
        /// The gateway's base URL.
        gateway: String,
    },
    /// It stands, and the gateway has said `ready`.
    Connected {
        /// The gateway's base URL.
        gateway: String,
        /// The connection's registration.
        session_id: SessionId,
        /// True: everything missed follows. False: the client reloads, and [`Event::Reloaded`](crate::Event::Reloaded) follows.
        resumed: bool,
    },
    /// It broke or could not be opened, and will be tried again.
    Disconnected {
        /// What happened.
        reason: String,
        /// When the next attempt starts, from now.
        retry_after: Duration,
    },
    /// It will not be tried again.
    Stopped {
        /// Why.
        reason: StopReason,
    },
}

/// Why a client no longer tries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// The application closed it, or dropped both halves.
    #[error("the application closed it")]
    Closed,
    /// The gateway refuses the token, and there is no newer one.
    #[error("the gateway refuses the token: {0}")]
    TokenRefused(String),
    /// The gateway refused the handshake for good.
    #[error("the gateway refused the handshake with {status} {code:?}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// From the closed list.
        code: ErrorCode,
        /// What is wrong.
        message: String,
    },
    /// The gateway closed the connection with a code that says not to come back.
    #[error("the gateway closed the connection with {code} {reason}")]
    ClosedByGateway {
        /// 4500–4999.
        code: u16,
        /// The reason text.
        reason: String,
    },
}
