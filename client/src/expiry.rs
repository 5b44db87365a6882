//! Whose a token is and when it expires, as far as it says so itself. It is read, not checked: that is the gateway's part.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chat_shared::{
    clock::{Clock, Timestamp},
    ids::UserId,
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::limits::TOKEN_RENEWAL_LEAD;

/// How long from now until the token should be renewed. `None` if it doesn't say.
pub(crate) fn renewal_delay(token: &str) -> Option<Duration> {
    Some(delay_until_renewal(expiry(token)?, Clock::System.now()))
}

/// The `exp` claim of a JWT.
fn expiry(token: &str) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Claims {
        exp: i64,
    }
    Some(Timestamp(claims::<Claims>(token)?.exp.checked_mul(1000)?))
}

/// The `sub` claim of a JWT: whose it is.
pub(crate) fn subject(token: &str) -> Option<UserId> {
    #[derive(Deserialize)]
    struct Claims {
        sub: UserId,
    }
    Some(claims::<Claims>(token)?.sub)
}

fn claims<T: DeserializeOwned>(token: &str) -> Option<T> {
    let mut parts = token.split('.');
    let (_header, claims, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

/// The lead before the expiry, or half the time that is left if that is more.
fn delay_until_renewal(expiry: Timestamp, now: Timestamp) -> Duration {
    let left = Duration::from_millis(u64::try_from(expiry.0.saturating_sub(now.0)).unwrap_or(0));
    // Years are as good as for ever, and a moment that far off can't be counted everywhere.
    left.saturating_sub(TOKEN_RENEWAL_LEAD).max(left / 2).clamp(RENEWAL_DELAY_MIN, RENEWAL_DELAY_MAX)
}

/// Keeps a source of tokens that have expired already from being asked in a tight loop.
const RENEWAL_DELAY_MIN: Duration = Duration::from_secs(1);
const RENEWAL_DELAY_MAX: Duration = Duration::from_hours(365 * 24);

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn the_expiry_is_read_from_the_claims() {
        assert_eq!(expiry(&token(r#"{"sub":"x","exp":1767225600}"#)), Some(Timestamp(1_767_225_600_000)));
        for other in ["", "opaque", "a.b.c", &token("{}"), &token("[]"), &token(r#"{"exp":9223372036854775807}"#)] {
            assert_eq!(expiry(other), None, "{other}");
        }
    }

    #[test]
    fn the_user_is_read_from_the_claims() {
        let user_id = UserId::random();
        assert_eq!(subject(&token(&format!(r#"{{"sub":"{}"}}"#, user_id.as_uuid()))), Some(user_id));
        for other in ["opaque", &token(r#"{"sub":"x","exp":1}"#), &token(r#"{"exp":1}"#)] {
            assert_eq!(subject(other), None, "{other}");
        }
    }

    #[test]
    fn a_token_is_renewed_before_it_expires() {
        let delay = |left_s: i64| delay_until_renewal(Timestamp(left_s * 1000), Timestamp(0)).as_secs();
        assert_eq!(delay(3600), 3540);
        assert_eq!(delay(60), 30);
        assert_eq!(delay(-5), 1);
    }
}
