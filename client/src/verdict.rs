//! What to do after a connection failed: come back, with another token, or stop. Pure.

use std::time::Duration;

use chat_shared::wire::{CloseCode, ErrorBody, ErrorCode};

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

/// Only a gateway refuses for good. Without an error body of the service the answer is of a proxy, whose gateway may be
/// unreachable for the moment.
fn handshake_verdict(status: u16, body: Option<&ErrorBody>, retry_after: Option<Duration>) -> Verdict {
    let retry_after = body.and_then(|body| body.retry_after_ms).map(Duration::from_millis).or(retry_after);
    match body {
        Some(ErrorBody { code: ErrorCode::Unauthenticated, message, .. }) => {
            Verdict::NewToken(StopReason::TokenRefused(message.clone()))
        }
        Some(ErrorBody { code, message, .. }) if is_final(*code) => {
            Verdict::Stop(StopReason::Refused { status, code: *code, message: message.clone() })
        }
        _ => Verdict::ComeBack(Hint::common(retry_after)),
    }
}

/// Whether the same handshake would be refused by any gateway at any time.
const fn is_final(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Invalid
            | ErrorCode::UnknownCommand
            | ErrorCode::HelloRequired
            | ErrorCode::Forbidden
            | ErrorCode::NotFound
            | ErrorCode::Conflict
            | ErrorCode::TooLarge
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(code: u16) -> Verdict {
        Ending::Closed { code, reason: String::new() }.verdict()
    }

    fn refused(status: u16, code: Option<ErrorCode>) -> Verdict {
        let body = code.map(|code| ErrorBody { code, message: String::new(), retry_after_ms: None });
        Ending::Handshake { status, body, retry_after: Some(Duration::from_secs(2)) }.verdict()
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
        for (status, code) in [
            (408, ErrorCode::Unavailable),
            (429, ErrorCode::RateLimited),
            (500, ErrorCode::Internal),
            (503, ErrorCode::Unavailable),
        ] {
            assert_eq!(refused(status, Some(code)), Verdict::ComeBack(hint), "{status}");
        }
        assert!(matches!(refused(401, Some(ErrorCode::Unauthenticated)), Verdict::NewToken(_)));
        for (status, code) in [
            (400, ErrorCode::Invalid),
            (403, ErrorCode::Forbidden),
            (404, ErrorCode::NotFound),
            (431, ErrorCode::Invalid),
        ] {
            assert!(matches!(refused(status, Some(code)), Verdict::Stop(_)), "{status}");
        }
        for status in [200, 302, 400, 401, 403, 404, 429, 502] {
            assert_eq!(refused(status, None), Verdict::ComeBack(hint), "{status} of a proxy");
        }
    }
}
