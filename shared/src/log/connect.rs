//! Connects to NATS, with the name and the password that the addresses hold.

use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr, ServerError};
use percent_encoding::percent_decode_str;

use crate::limits;

/// Messages of a subscription that wait to be taken. One more is dropped, and reported as a slow consumer. The largest are
/// deliveries of 64 KiB, so one subscription holds 128 MiB at the most.
const SUBSCRIPTION_MESSAGES_MAX: usize = 2048;

/// NATS didn't let us in, or isn't there.
#[derive(Debug, thiserror::Error)]
#[error("NATS is out of reach or refused: {0}; {advice}", advice = advice(.0.kind()))]
pub struct NotConnected(async_nats::ConnectError);

impl NotConnected {
    /// Whether it may pass without anybody doing something about it.
    pub fn is_transient(&self) -> bool {
        use ConnectErrorKind::{Authentication, AuthorizationViolation, ServerParse};
        !matches!(self.0.kind(), ServerParse | Authentication | AuthorizationViolation)
    }
}

fn advice(kind: ConnectErrorKind) -> &'static str {
    match kind {
        ConnectErrorKind::ServerParse => "the address is written like nats://user:password@host:4222",
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            "check user and password in the address"
        }
        ConnectErrorKind::Tls => "check the server's certificate",
        _ => "is it running, and is the address right?",
    }
}

/// Connects to NATS and keeps trying after a disconnection, at most two seconds apart. `urls` are the addresses of one
/// server or, separated by commas, of several of its cluster: whichever answers first. The user's name and password are
/// those of the first address that has them, and count for all servers, also for those that the cluster tells of.
pub async fn connect(
    urls: &str,
    name: &str,
    events: impl Fn(Event) + Send + Sync + Clone + 'static,
) -> Result<Client, NotConnected> {
    let addresses: Vec<ServerAddr> = urls
        .split(',')
        .map(|url| url.trim().parse())
        .collect::<Result<_, std::io::Error>>()
        .map_err(|_| NotConnected(ConnectErrorKind::ServerParse.into()))?;
    let options = ConnectOptions::new()
        .name(name)
        .connection_timeout(Duration::from_secs(3))
        .request_timeout(Some(limits::APPEND_WAIT_MAX))
        .ping_interval(Duration::from_secs(5))
        .subscription_capacity(SUBSCRIPTION_MESSAGES_MAX)
        .reconnect_delay_callback(|attempt| {
            Duration::from_millis(100)
                .saturating_mul(u32::try_from(attempt).unwrap_or(u32::MAX))
                .min(Duration::from_secs(2))
        })
        .event_callback(move |event| {
            note_refusal(&event);
            let events = events.clone();
            async move { events(event) }
        });
    as_user(options, &addresses).connect(addresses).await.map_err(NotConnected)
}

/// Answers are heard under a prefix of the user's own, so that no user needs the right to hear those of others.
fn as_user(options: ConnectOptions, addresses: &[ServerAddr]) -> ConnectOptions {
    let Some(address) = addresses.iter().find(|address| address.has_user_pass()) else { return options };
    let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
    let user = decoded(address.username().unwrap_or_default());
    let password = decoded(address.password().unwrap_or_default());
    options.custom_inbox_prefix(inbox_prefix(&user)).user_and_password(user, password)
}

/// Where a user hears answers: named in `permissions/nats.conf`.
pub fn inbox_prefix(user: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    let user: String = user.chars().map(|letter| if is_plain(letter) { letter } else { '_' }).collect();
    format!("_INBOX_{user}")
}

/// NATS doesn't answer what it refuses, so the request only seems to be lost.
fn note_refusal(event: &Event) {
    if let Event::ServerError(ServerError::Other(error)) = event
        && error.to_ascii_lowercase().contains("permissions violation")
    {
        tracing::error!(error, "NATS doesn't let its user do this; compare its rights with permissions/nats.conf");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_hears_answers_in_one_place_of_its_own() {
        assert_eq!(inbox_prefix("chat_gateway"), "_INBOX_chat_gateway");
        assert_eq!(inbox_prefix("a.b>c*d e"), "_INBOX_a_b_c_d_e");
    }
}
