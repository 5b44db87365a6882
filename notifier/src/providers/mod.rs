//! The services that bring notifications to phones and browsers: FCM, APNs, Web Push, and the platform's own sender.
//!
//! What is sent was sent once, or surely not at all, or nobody knows: then it is never sent again.
//! **Invariant:** no token, endpoint or text of a notification leaves this room but to its provider.

mod access_token;
mod apns;
mod fcm;
mod line;
mod notification;
mod outbound;
mod removals;
mod settings;
mod telemetry;
mod vapid;
mod web_push;
mod webhook;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use chat_shared::{
    clock::{Clock, Timestamp},
    wire::{NotificationAddress, Platform},
};

use self::{apns::Apns, fcm::Fcm, line::HeldBack, web_push::WebPush, webhook::Webhook};
pub use self::{
    notification::{Kind, Notification, Recipient},
    settings::ProviderSettings,
};

/// Sends at once to one provider.
const SENDS_MAX: usize = 32;
/// Characters of a provider's word for an error; what is longer is no such word.
const CODE_CHARS_MAX: usize = 64;

/// What came of a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The provider has it.
    Sent,
    /// The device can't be reached any more: its registration is to be removed, unless it was made after `since`.
    Gone {
        /// When the provider found that out, if it says so.
        since: Option<Timestamp>,
    },
    /// It is refused for good, and no registration is removed. The reason names no device.
    Refused(String),
    /// It was surely not taken, and may be sent again; not before the time has passed, if there is one.
    Later(Option<Duration>),
    /// There was no answer: it may have been taken, so it is never sent again.
    Unknown,
}

/// The providers that are set up. Clones share their connections and what they know of outages.
#[derive(Clone)]
pub struct Providers(Arc<Services>);

struct Services {
    fcm: Option<Fcm>,
    apns: Option<Apns>,
    web_push: Option<WebPush>,
    webhook: Option<Webhook>,
}

impl Providers {
    /// Those of the settings, whose files are read.
    pub fn open(settings: &ProviderSettings, clock: &Clock) -> anyhow::Result<Self> {
        telemetry::describe();
        let providers = Self(Arc::new(settings.open(clock)?));
        let set_up: Vec<_> =
            Platform::ALL.into_iter().filter(|platform| providers.supports(*platform)).map(Platform::as_str).collect();
        tracing::info!(providers = set_up.join(","), "notifications go to the providers that are set up");
        if settings.allow_loopback_endpoints {
            tracing::warn!(
                "notifications may go to this machine, as whoever registers a device says: development only"
            );
        }
        Ok(providers)
    }

    /// Whether a platform is set up. What is for another is refused.
    pub fn supports(&self, platform: Platform) -> bool {
        match platform {
            Platform::Fcm => self.0.fcm.is_some(),
            Platform::Apns => self.0.apns.is_some(),
            Platform::WebPush => self.0.web_push.is_some(),
            Platform::Webhook => self.0.webhook.is_some(),
        }
    }

    /// Sends a notification. Takes no longer than ten seconds and a little.
    pub async fn send(&self, to: Recipient<'_>, notification: &Notification) -> Verdict {
        let (platform, notification) = (to.address.platform(), notification.cut());
        match self.0.send(to, &notification).await {
            Some(Ok(verdict)) => verdict,
            Some(Err(HeldBack(rest))) => {
                telemetry::count_held_back(platform);
                Verdict::Later(Some(rest))
            }
            None => {
                tracing::debug!(provider = platform.as_str(), "the provider is not set up");
                Verdict::Refused(format!("{} is not set up", platform.as_str()))
            }
        }
    }
}

impl Services {
    async fn send(&self, to: Recipient<'_>, notification: &Notification) -> Option<Result<Verdict, HeldBack>> {
        Some(match to.address {
            NotificationAddress::Fcm { token } => self.fcm.as_ref()?.send(token, notification).await,
            NotificationAddress::Apns { token } => self.apns.as_ref()?.send(token, to.app_id, notification).await,
            NotificationAddress::WebPush { endpoint, p256dh, auth } => {
                let subscription = web_push::Subscription { endpoint, p256dh, auth };
                self.web_push.as_ref()?.send(subscription, notification).await
            }
            NotificationAddress::Webhook { token } => self.webhook.as_ref()?.send(token, to.app_id, notification).await,
        })
    }
}

/// A provider's word for an error, if the text is one: it goes into logs, so it must not be anything else.
fn code(text: &str) -> Option<&str> {
    let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    Some(text).filter(|text| text.len() <= CODE_CHARS_MAX && is_word(text))
}
