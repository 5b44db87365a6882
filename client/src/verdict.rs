//! What to do after a connection failed: come back, with another token, or stop. Pure.

use std::time::Duration;

use chat_shared::wire::{CloseCode, ErrorBody};

use crate::{backoff::Hint, error::TokenError, state::StopReason};

/// How a connection, or the attempt to open one, ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ending {
    #[error("the connection failed: {0}")]
    Transport(String),
    #[error("the handshake was answered with {status}")]
    Handshake { status: u16, body: Option<ErrorBody>, retry_after: Option<Duration> },
    #[error("the gateway closed the connection with {code} {reason}")]
    Closed { code: u16, reason: String },
    #[error("the gateway said something unexpected: {0}")]
    Protocol(String),
    #[error("the gateway was not ready in time")]
    OpeningTimedOut,
    #[error("nothing was heard from the gateway for two heartbeats")]
    Silence,
    #[error("pushes were missing")]
    PushesMissing,
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// What follows from an ending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Try again, at the next gateway.
    ComeBack(Option<Hint>),
    /// Try again with another token.
    NewToken(StopReason),
    /// Don't try again.
    Stop(StopReason),
}

impl Ending {
    /// What follows.
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::Handshake { status, body, retry_after } => handshake_verdict(*status, body.as_ref(), *retry_after),
            Self::Closed { code, reason } if *code == CloseCode::TokenExpired.code() => {
                Verdict::NewToken(StopReason::TokenRefused(reason.clone()))
            }
            Self::Closed { code, reason } if !CloseCode::is_come_back(*code) => {
                Verdict::Stop(StopReason::ClosedByGateway { code: *code, reason: reason.clone() })
            }
            _ => Verdict::ComeBack(None),
        }
    }
}

fn handshake_verdict(status: u16, body: Option<&ErrorBody>, retry_after: Option<Duration>) -> Verdict {
    let message = body.map(|body| body.message.clone()).unwrap_or_default();
    let retry_after = body.and_then(|body| body.retry_after_ms).map(Duration::from_millis).or(retry_after);
    match status {
        401 => Verdict::NewToken(StopReason::TokenRefused(message)),
        408 | 425 | 429 => Verdict::ComeBack(Hint::common(retry_after)),
        400..=499 => Verdict::Stop(StopReason::Refused { status, code: body.map(|body| body.code), message }),
        _ => Verdict::ComeBack(Hint::common(retry_after)),
    }
}

#[cfg(test)]
mod tests {
    use chat_shared::wire::ErrorCode;

    use super::*;

    fn closed(code: u16) -> Verdict {
        Ending::Closed { code, reason: String::new() }.verdict()
    }

    fn refused(status: u16) -> Verdict {
        let body = ErrorBody { code: ErrorCode::Unavailable, message: String::new(), retry_after_ms: None };
        Ending::Handshake { status, body: Some(body), retry_after: Some(Duration::from_secs(2)) }.verdict()
    }

    #[test]
    fn close_codes_say_whether_to_come_back() {
        for code in CloseCode::ALL {
            let verdict = closed(code.code());
            match code {
                CloseCode::GoingAway
                | CloseCode::SlowConsumer
                | CloseCode::HeartbeatMissed
                | CloseCode::InboxLost
                | CloseCode::TooManyFrames => {
                    assert_eq!(verdict, Verdict::ComeBack(None), "{code:?}");
                }
                CloseCode::TokenExpired => assert!(matches!(verdict, Verdict::NewToken(_))),
                _ => assert!(matches!(verdict, Verdict::Stop(_)), "{code:?}"),
            }
        }
        for code in [1000, 1001, 1006, 1011, 4499, 5000] {
            assert_eq!(closed(code), Verdict::ComeBack(None), "{code}");
        }
        assert!(matches!(closed(4999), Verdict::Stop(_)), "a code that isn't known yet");
    }

    #[test]
    fn handshakes_are_repeated_only_where_that_can_help() {
        let hint = Some(Hint::Common(Duration::from_secs(2)));
        for status in [429, 500, 502, 503] {
            assert_eq!(refused(status), Verdict::ComeBack(hint), "{status}");
        }
        assert!(matches!(refused(401), Verdict::NewToken(_)));
        for status in [400, 403, 404] {
            assert!(matches!(refused(status), Verdict::Stop(_)), "{status}");
        }
    }
}
