//! Lowers the number that a user's devices show when they have read something on one of them, and says what was read, so
//! that the others take its notification down.

use std::time::Duration;

use chat_shared::{ids::UserId, jobs::ReadUpTo, limits, log::Outcome};
use futures_util::future::join_all;
use uuid::Uuid;

use super::{Office, Trouble, decide, failed, message::collapse_key};
use crate::providers::{Kind, Notification, Verdict};

/// Until what was read, and the messages before it, are surely stored, unless the persister is behind.
const STORED_AFTER: Duration = Duration::from_secs(2);

impl Office {
    /// Tells the devices what was read and how much is unread, if they show a notification of it or a larger number.
    pub(super) async fn read_elsewhere(
        &self,
        user_id: UserId,
        read: Option<ReadUpTo>,
        attempt: u64,
    ) -> Result<Outcome, Trouble> {
        // Noted before the wait: so each job counts as read what the others do, and none raises the number again.
        let known = match read {
            Some(read) => self.inboxes.note_read(user_id, read).await?,
            None => Vec::new(),
        };
        if attempt <= 1 {
            return Ok(Outcome::RetryAfter(STORED_AFTER));
        }
        let shown_badge = self.inboxes.badge(user_id).await?.unwrap_or_default();
        let notified = self.still_notified(user_id, read).await?;
        if shown_badge == 0 && notified.is_none() {
            return Ok(Outcome::Done);
        }
        let badge = self.facts.badge(user_id, &known).await?;
        if badge >= shown_badge && notified.is_none() {
            return Ok(Outcome::Done);
        }
        let notification = Notification {
            kind: Kind::Badge { read },
            badge,
            // What was read in another conversation must not be replaced.
            collapse_key: read.map_or_else(
                || "badge".to_owned(),
                |read| format!("read-{}", collapse_key(read.conversation_id.as_uuid())),
            ),
            expires_at: self.clock.now().after(limits::NOTIFICATION_TTL),
            notification_id: Uuid::new_v4(),
        };
        let devices = self.facts.devices(user_id).await?;
        let sending = devices.iter().filter_map(|device| {
            let address = self.address(user_id, device)?;
            let notification = &notification;
            Some(async move { (address.platform(), self.send(user_id, device, &address, notification).await) })
        });
        let verdicts = join_all(sending).await;
        // It shows nothing, so those that were told may be told again.
        let rest = verdicts.iter().filter_map(|(platform, verdict)| match verdict {
            Verdict::Later(asked_for) => Some(decide::rest(*platform, attempt, *asked_for, rand::random())),
            Verdict::Sent | Verdict::Gone { .. } | Verdict::Refused(_) | Verdict::Unknown => None,
        });
        if let Some(rest) = rest.max() {
            return Ok(failed(rest));
        }
        self.inboxes.note_badge(user_id, badge).await?;
        if let Some(read) = notified {
            self.inboxes.forget_shown(user_id, read.conversation_id).await?;
        }
        Ok(Outcome::Done)
    }

    /// What was read, if the devices show a notification of it.
    async fn still_notified(&self, user_id: UserId, read: Option<ReadUpTo>) -> Result<Option<ReadUpTo>, Trouble> {
        let Some(read) = read else { return Ok(None) };
        let shown = self.inboxes.shown(user_id, read.conversation_id).await?;
        Ok(shown.filter(|seq| *seq <= read.read_seq).map(|_| read))
    }
}
