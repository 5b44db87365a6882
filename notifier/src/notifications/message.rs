//! Notifies a user of a message or an assignment, if that is still called for.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use chat_shared::{
    ids::{DeviceId, UserId},
    inbox::{Claim, InboxError, Notice, Occasion},
    jobs::{AssignedJob, MessageJob},
    limits,
    log::Outcome,
    wire::NotificationAddress,
};
use futures_util::future::join_all;
use uuid::Uuid;

use super::{
    Office, Trouble, count,
    decide::{self, Conclusion, Step},
    facts::StoredDevice,
    failed,
    subject::Subject,
    text,
};
use crate::providers::{Kind, Notification, Recipient, Verdict};

/// Attempts to say in Redis how a claim ended. If all fail, the device isn't notified again.
const SETTLE_ATTEMPTS_MAX: u32 = 3;
const SETTLE_DELAY: Duration = Duration::from_millis(250);

/// What became of one device.
pub(super) enum DeviceOutcome {
    /// All that there is to do is done.
    Concluded(Conclusion),
    /// It was done before.
    Before,
    /// It was not notified, and can be after this.
    Later(Duration),
}

impl Office {
    /// Does what a message calls for now.
    pub(super) async fn message(&self, job: &MessageJob, attempt: u64) -> Result<Outcome, Trouble> {
        self.notify(&job.into(), Some(job), attempt).await
    }

    /// Does what an assignment calls for now. Its notification shows no text.
    pub(super) async fn assigned(&self, job: &AssignedJob, attempt: u64) -> Result<Outcome, Trouble> {
        self.notify(&job.into(), None, attempt).await
    }

    /// `message`: the one whose text is shown, if texts are.
    async fn notify(&self, subject: &Subject, message: Option<&MessageJob>, attempt: u64) -> Result<Outcome, Trouble> {
        let standing = self.inboxes.standing(subject.user_id).await?;
        if let Some(outcome) = early(decide::by_standing(subject, &standing, attempt)) {
            return Ok(outcome);
        }
        let Some(devices) = self.devices(subject.user_id).await? else { return Ok(Outcome::Done) };
        let concern = self.facts.concern(subject, self.clock.now()).await?;
        if let Some(outcome) = early(decide::by_membership(subject, concern.map(|concern| concern.membership), attempt))
        {
            return Ok(outcome);
        }
        let badge = concern.map_or(0, |concern| concern.badge);
        let text = match self.content.as_ref().zip(message) {
            Some((content, message)) => content.text(message, &self.facts, &self.master_keys).await,
            None => None,
        };
        let body = text.as_deref().map(text::excerpt).unwrap_or_default();
        let outcomes = join_all(devices.iter().map(async |device| {
            let Subject { user_id, occasion, sent_at, .. } = *subject;
            let notice = Notice { user_id, device_id: device.device_id, occasion, sent_at };
            self.notify_device(notice, device, &notification(subject, device, badge, &body), attempt).await
        }));
        let (is_sent, rest) = settle(&outcomes.await);
        // Without it, reading elsewhere leaves the number and the notification as they are until the next one.
        if is_sent && let Err(error) = self.note_shown(subject, badge).await {
            tracing::debug!(%error, "what devices show was not noted");
        }
        Ok(rest.map_or(Outcome::Done, failed))
    }

    /// The devices of a user; none if none is registered, which is counted.
    pub(super) async fn devices(&self, user_id: UserId) -> Result<Option<Vec<StoredDevice>>, Trouble> {
        let devices = self.facts.devices(user_id).await?;
        if devices.is_empty() {
            self.inboxes.note_devices(user_id, false).await?;
            count(Conclusion::NoDevice);
            return Ok(None);
        }
        Ok(Some(devices))
    }

    async fn note_shown(&self, subject: &Subject, badge: u64) -> Result<(), InboxError> {
        self.inboxes.note_badge(subject.user_id, badge).await?;
        self.inboxes.note_shown(subject.user_id, subject.conversation_id, subject.seq).await
    }

    /// Sends to a device of the notice's user, unless the notice was claimed before.
    pub(super) async fn notify_device(
        &self,
        notice: Notice,
        device: &StoredDevice,
        notification: &Notification,
        attempt: u64,
    ) -> DeviceOutcome {
        let Some(address) = self.address(notice.user_id, device) else {
            return DeviceOutcome::Concluded(Conclusion::Refused);
        };
        match self.inboxes.claim(notice).await {
            Ok(Claim::Taken) if self.claimed.add(notice) => {}
            Ok(Claim::Sent) => return DeviceOutcome::Before,
            // Taken for the second time, it was lost by Redis.
            Ok(Claim::Unknown | Claim::Taken) => {
                self.keep_claim(notice).await;
                return DeviceOutcome::Concluded(Conclusion::Unknown);
            }
            Err(error) => {
                tracing::debug!(%error, "a notification can't be claimed");
                return DeviceOutcome::Later(decide::rest_in_trouble(attempt, None, rand::random()));
            }
        }
        let verdict = self.send(notice.user_id, device, &address, notification).await;
        match decide::by_verdict(&verdict) {
            Ok(conclusion) => {
                self.keep_claim(notice).await;
                DeviceOutcome::Concluded(conclusion)
            }
            Err(asked_for) => {
                self.give_claim_back(notice).await;
                DeviceOutcome::Later(decide::rest(address.platform(), attempt, asked_for, rand::random()))
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
        let address = self.master_keys.open_address(user_id, device.device_id, &device.address).ok();
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

/// Counts what became of devices: whether any was sent to, and after which rest the others are tried again.
pub(super) fn settle(outcomes: &[DeviceOutcome]) -> (bool, Option<Duration>) {
    let mut rest = None;
    let mut is_sent = false;
    for outcome in outcomes {
        match outcome {
            DeviceOutcome::Concluded(conclusion) => {
                count(*conclusion);
                is_sent |= *conclusion == Conclusion::Sent;
            }
            DeviceOutcome::Before => {}
            DeviceOutcome::Later(after) => rest = rest.max(Some(*after)),
        }
    }
    (is_sent, rest)
}

/// What to do instead of notifying, if anything.
pub(super) fn early(step: Step) -> Option<Outcome> {
    match step {
        Step::Notify => None,
        Step::Wait(rest) => Some(Outcome::RetryAfter(rest)),
        Step::Conclude(conclusion) => {
            count(conclusion);
            Some(Outcome::Done)
        }
    }
}

fn notification(subject: &Subject, device: &StoredDevice, badge: u64, body: &str) -> Notification {
    let (message_id, occasion) = match subject.occasion {
        Occasion::Message(message_id) => (Some(message_id), message_id.as_uuid().as_u128()),
        Occasion::Assignment { conversation_id, version } => {
            (None, conversation_id.as_uuid().as_u128() ^ u128::from(version))
        }
        Occasion::Waiting(business_id) => (None, business_id.as_uuid().as_u128()),
    };
    Notification {
        kind: Kind::Message {
            conversation_id: subject.conversation_id,
            message_id,
            seq: subject.seq,
            sender_id: subject.sender_id,
            title: text::title(device.locale.as_deref()).to_owned(),
            body: body.to_owned(),
        },
        badge,
        collapse_key: collapse_key(subject.conversation_id.as_uuid()),
        expires_at: subject.sent_at.after(limits::NOTIFICATION_TTL),
        notification_id: notification_id(occasion, subject.user_id, device.device_id),
    }
}

/// The same for all notifications of a conversation or business.
pub(super) fn collapse_key(id: Uuid) -> String {
    BASE64.encode(id)
}

/// The same for every attempt at this occasion, user and device.
pub(super) fn notification_id(occasion: u128, user_id: UserId, device_id: DeviceId) -> Uuid {
    let mixed = occasion ^ user_id.as_uuid().as_u128() ^ device_id.as_uuid().as_u128();
    uuid::Builder::from_random_bytes(mixed.to_be_bytes()).into_uuid()
}
