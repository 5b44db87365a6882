//! What can go wrong, as the application sees it.

use std::time::Duration;

use chat_shared::{ids::MessageId, wire::ErrorCode};

use crate::state::StopReason;

/// Why a client could not be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// An option can't be used.
    #[error("the options can't be used: {0}")]
    InvalidOptions(String),
    /// No connection with a complete load came about in time.
    #[error("no gateway could be reached and loaded from in time; the last failure was: {last_failure}")]
    TimedOut {
        /// What the last attempt ran into.
        last_failure: String,
    },
    /// Trying again would not help.
    #[error("the client was stopped: {0}")]
    Stopped(#[from] StopReason),
}

/// Why a message was not accepted, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// A gateway refused it for good. It is not kept, unless an earlier attempt was that nobody heard the answer to.
    #[error("the message was refused as {code:?}: {message}")]
    Rejected {
        /// From the closed list.
        code: ErrorCode,
        /// What is wrong.
        message: String,
    },
    /// The deadline passed after it had been given to a gateway. It may be kept, or still become so. Send
    /// it again with the same id and `is_repeat` to learn which.
    #[error("whether the message was accepted is unknown: the deadline passed without an answer")]
    OutcomeUnknown {
        /// Its id.
        message_id: MessageId,
    },
    /// The deadline passed, or the client stopped, before it was given to any gateway. It is not kept.
    #[error("the message was not sent: no gateway could be given it before the deadline")]
    NotSent {
        /// Its id.
        message_id: MessageId,
    },
    /// The text is empty or over its bound, or escapes in JSON to more than a frame holds.
    #[error("the text must have 1 to {bytes_max} bytes and fit a frame, and has {bytes}")]
    InvalidText {
        /// The bytes it has.
        bytes: usize,
        /// The bytes it may have.
        bytes_max: usize,
    },
}

/// Why a command was not carried out, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It was refused for good.
    #[error("the command was refused as {code:?}: {message}")]
    Rejected {
        /// From the closed list.
        code: ErrorCode,
        /// What is wrong.
        message: String,
    },
    /// The deadline passed, or the client stopped, without an answer. It may have been carried out; giving it again does no
    /// harm.
    #[error("the command was not answered before the deadline")]
    NotAnswered,
}

/// Why a REST call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestError {
    /// The gateway answered with an error.
    #[error("the gateway refused the request with {status} {code:?}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// From the closed list.
        code: ErrorCode,
        /// What is wrong.
        message: String,
        /// When to try again, where that can help.
        retry_after: Option<Duration>,
    },
    /// Something that isn't a gateway answered, or the answer can't be read.
    #[error("the answer with status {status} is not one of a gateway: {problem}")]
    Malformed {
        /// The HTTP status.
        status: u16,
        /// What is wrong with it.
        problem: String,
    },
    /// No gateway answered. A request that changes something may have been carried out.
    #[error("no gateway answered: {0}")]
    Unreachable(String),
    /// There is no token to ask with.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl RestError {
    /// The error code, if a gateway gave one.
    pub const fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// When to try again, if the gateway said so.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The application's token callback gave no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no token: {0}")]
pub struct TokenError(pub String);
