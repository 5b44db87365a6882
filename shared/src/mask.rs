//! Masks ids for logs: a keyed hash, so that lines about one thing correlate and nobody gets the id back.

use std::{fmt, sync::OnceLock};

use aws_lc_rs::{hmac, rand};
use uuid::Uuid;

static KEY: OnceLock<hmac::Key> = OnceLock::new();

/// Sets the key of this process' masks. Processes with the same key mask an id to the same text.
/// Without it a random key is taken at the first mask. The first call wins.
pub fn set_key(key: &[u8]) {
    KEY.get_or_init(|| hmac::Key::new(hmac::HMAC_SHA256, key));
}

fn key() -> &'static hmac::Key {
    KEY.get_or_init(|| {
        let mut bytes = [0; 32];
        // Without randomness the mask is still one-way; it would only be the same in every process.
        if rand::fill(&mut bytes).is_err() {
            bytes.fill(0);
        }
        hmac::Key::new(hmac::HMAC_SHA256, &bytes)
    })
}

/// Shows an id as the first 48 bits of its keyed hash.
#[derive(Clone, Copy)]
pub struct Masked(pub Uuid);

impl fmt::Display for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tag = hmac::sign(key(), self.0.as_bytes());
        tag.as_ref().iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
