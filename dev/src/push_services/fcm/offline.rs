//! Messages that FCM keeps for devices that are offline.

use std::{collections::HashMap, sync::Mutex};

use crate::{push_services::book::Received, stand_in::lock};

/// Messages with different collapse keys that are kept for a device. The real one does not say which it discards; the
/// stand-in discards the oldest.
const COLLAPSE_KEYS_MAX: usize = 4;

/// The devices that are offline, with what is kept for each.
#[derive(Debug, Default)]
pub struct Offline(Mutex<HashMap<String, Vec<Received>>>);

impl Offline {
    /// Keeps what is sent to a device from now on.
    pub fn begin(&self, token: &str) {
        lock(&self.0).entry(token.to_owned()).or_default();
    }

    /// The messages that were kept, in the order of arrival. Later ones are not kept.
    pub fn end(&self, token: &str) -> Vec<Received> {
        lock(&self.0).remove(token).unwrap_or_default()
    }

    /// Keeps a message if its device is offline.
    pub fn keep(&self, received: &Received) {
        let mut devices = lock(&self.0);
        let Some(kept) = devices.get_mut(&received.token) else { return };
        if let Some(key) = &received.collapse_key {
            kept.retain(|other| other.collapse_key.as_ref() != Some(key));
            if kept.iter().filter(|other| other.collapse_key.is_some()).count() >= COLLAPSE_KEYS_MAX
                && let Some(oldest) = kept.iter().position(|other| other.collapse_key.is_some())
            {
                kept.remove(oldest);
            }
        }
        kept.push(received.clone());
    }
}
