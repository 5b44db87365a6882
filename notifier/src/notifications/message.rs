//! Notifies a user of a message, if that is still called for.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use chat_shared::{
    ids::{ConversationId, DeviceId, UserId},
    inbox::{Claim, InboxError, Notice},
    jobs::MessageJob,
    limits,
    log::Outcome,
    sealing::AddressKey,
    wire::NotificationAddress,
};
use futures_util::future::join_all;
use uuid::Uuid;

use super::{
    Office, Trouble, count,
    decide::{self, Conclusion, Step},
    facts::StoredDevice,
    failed, text,
};
use crate::providers::{Kind, Notification, Recipient, Verdict};

/// Attempts to say in Redis how a claim ended. If all fail, the device isn't notified again.
const SETTLE_ATTEMPTS_MAX: u32 = 3;
const SETTLE_DELAY: Duration = Duration::from_millis(250);

/// What became of one device.
enum Told {
    /// All that there is to do is done.
    Concluded(Conclusion),
    /// It was done before.
    Before,
    /// It was not told, and can be after this.
    Later(Duration),
}

impl Office {
    /// Does what is called for now.
    pub(super) async fn message(&self, job: &MessageJob, attempt: u64) -> Result<Outcome, Trouble> {
        let standing = self.inboxes.standing(job.user_id).await?;
        if let Some(outcome) = early(decide::by_standing(job, &standing, attempt)) {
            return Ok(outcome);
        }
        let devices = self.facts.devices(job.user_id).await?;
        if devices.is_empty() {
            self.inboxes.note_devices(job.user_id, false).await?;
            count(Conclusion::NoDevice);
            return Ok(Outcome::Done);
        }
        let concern = self.facts.concern(job, self.clock.now()).await?;
        if let Some(outcome) = early(decide::by_membership(job, concern.map(|concern| concern.membership), attempt)) {
            return Ok(outcome);
        }
        let badge = concern.map_or(0, |concern| concern.badge);
        let text = match &self.content {
            Some(content) => content.text(job, &self.facts, &self.master_key).await,
            None => None,
        };
        let body = text.as_deref().map(text::excerpt).unwrap_or_default();
        let telling = devices.iter().map(|device| self.tell(job, device, badge, &body, attempt));
        Ok(self.conclude(job, badge, &join_all(telling).await).await)
    }

    async fn conclude(&self, job: &MessageJob, badge: u64, told: &[Told]) -> Outcome {
        let mut rest = None;
        let mut is_sent = false;
        for told in told {
            match told {
                Told::Concluded(conclusion) => {
                    count(*conclusion);
                    is_sent |= *conclusion == Conclusion::Sent;
                }
                Told::Before => {}
                Told::Later(after) => rest = rest.max(Some(*after)),
            }
        }
        // Without it, reading elsewhere leaves the number and the notification as they are until the next one.
        if is_sent && let Err(error) = self.note_shown(job, badge).await {
            tracing::debug!(%error, "what devices show was not noted");
        }
        rest.map_or(Outcome::Done, failed)
    }

    async fn note_shown(&self, job: &MessageJob, badge: u64) -> Result<(), InboxError> {
        self.inboxes.note_badge(job.user_id, badge).await?;
        self.inboxes.note_shown(job.user_id, job.conversation_id, job.seq).await
    }

    async fn tell(&self, job: &MessageJob, device: &StoredDevice, badge: u64, body: &str, attempt: u64) -> Told {
        let Some(address) = self.address(job.user_id, device) else {
            return Told::Concluded(Conclusion::Refused);
        };
        let MessageJob { user_id, message_id, sent_at, .. } = *job;
        let notice = Notice { user_id, device_id: device.device_id, message_id, sent_at };
        match self.inboxes.claim(notice).await {
            Ok(Claim::Taken) if self.claimed.add(notice) => {}
            Ok(Claim::Sent) => return Told::Before,
            // Taken for the second time, it was lost by Redis.
            Ok(Claim::Unknown | Claim::Taken) => {
                self.keep_claim(notice).await;
                return Told::Concluded(Conclusion::Unknown);
            }
            Err(error) => {
                tracing::debug!(%error, "a notification can't be claimed");
                return Told::Later(decide::rest_in_trouble(attempt, None, rand::random()));
            }
        }
        let notification = notification(job, device, badge, body);
        let verdict = self.send(job.user_id, device, &address, &notification).await;
        match decide::by_verdict(&verdict) {
            Ok(conclusion) => {
                self.keep_claim(notice).await;
                Told::Concluded(conclusion)
            }
            Err(asked_for) => {
                self.give_claim_back(notice).await;
                Told::Later(decide::rest(address.platform(), attempt, asked_for, rand::random()))
            }
        }
    }

    /// Sends to a device, and removes it if it is gone.
    pub(super) async fn send(
        &self,
        user_id: UserId,
        device: &StoredDevice,
        address: &NotificationAddress,
        notification: &Notification,
    ) -> Verdict {
        let verdict = self.providers.send(Recipient { address, app_id: &device.app_id }, notification).await;
        match &verdict {
            Verdict::Gone { since } => {
                // If it stays, the next notification finds it gone again.
                if let Err(error) = self.facts.remove(user_id, device, *since).await {
                    tracing::debug!(%error, "a device that is gone was not removed");
                }
            }
            Verdict::Refused(why) if self.complaints.is_due() => {
                tracing::warn!(provider = address.platform().as_str(), why, "a notification was refused");
            }
            Verdict::Sent | Verdict::Refused(_) | Verdict::Later(_) | Verdict::Unknown => {}
        }
        verdict
    }

    /// Where a device is; none if it can't be opened, which is logged.
    pub(super) fn address(&self, user_id: UserId, device: &StoredDevice) -> Option<NotificationAddress> {
        let address = address(self.master_key.addresses(), user_id, device);
        if address.is_none() && self.complaints.is_due() {
            tracing::error!(
                "the address of a device can't be opened: give the notifier the master key that gateways have"
            );
        }
        address
    }

    async fn keep_claim(&self, notice: Notice) {
        for _ in 0..SETTLE_ATTEMPTS_MAX {
            match self.inboxes.conclude_claim(notice).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "a claim was not concluded"),
            }
            tokio::time::sleep(SETTLE_DELAY).await;
        }
    }

    async fn give_claim_back(&self, notice: Notice) {
        self.claimed.forget(notice);
        for _ in 0..SETTLE_ATTEMPTS_MAX {
            match self.inboxes.give_claim_back(notice).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "a claim was not given back"),
            }
            tokio::time::sleep(SETTLE_DELAY).await;
        }
    }
}

/// What to do instead of notifying, if anything.
fn early(step: Step) -> Option<Outcome> {
    match step {
        Step::Notify => None,
        Step::Wait(rest) => Some(Outcome::RetryAfter(rest)),
        Step::Conclude(conclusion) => {
            count(conclusion);
            Some(Outcome::Done)
        }
    }
}

fn address(key: &AddressKey, user_id: UserId, device: &StoredDevice) -> Option<NotificationAddress> {
    let address = key.open(user_id, device.device_id, &device.address).ok()?;
    serde_json::from_slice(&address).ok()
}

fn notification(job: &MessageJob, device: &StoredDevice, badge: u64, body: &str) -> Notification {
    Notification {
        kind: Kind::Message {
            conversation_id: job.conversation_id,
            message_id: job.message_id,
            seq: job.seq,
            sender_id: job.sender_id,
            title: text::title(device.locale.as_deref()).to_owned(),
            body: body.to_owned(),
        },
        badge,
        collapse_key: collapse_key(job.conversation_id),
        expires_at: job.sent_at.after(limits::NOTIFICATION_TTL),
        notification_id: notification_id(job, device.device_id),
    }
}

/// The same for all messages of a conversation.
pub(super) fn collapse_key(conversation_id: ConversationId) -> String {
    BASE64.encode(conversation_id.as_uuid())
}

/// The same for every attempt at this message, user and device.
fn notification_id(job: &MessageJob, device_id: DeviceId) -> Uuid {
    let ids = [job.message_id.as_uuid(), job.user_id.as_uuid(), device_id.as_uuid()];
    let mixed = ids.iter().fold(0, |mixed, id| mixed ^ id.as_u128());
    uuid::Builder::from_random_bytes(mixed.to_be_bytes()).into_uuid()
}
