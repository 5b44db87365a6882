//! Lowers the number that a user's devices show when they have read something on one of them.

use std::time::Duration;

use chat_shared::{ids::UserId, limits, log::Outcome};
use futures_util::future::join_all;
use uuid::Uuid;

use super::{Office, Trouble, decide, failed};
use crate::providers::{Kind, Notification, Verdict};

/// Until what was read is surely stored, unless the persister is behind.
const STORED_AFTER: Duration = Duration::from_secs(2);

impl Office {
    /// Tells the devices how much is unread, if that is less than they were told.
    pub(super) async fn read_elsewhere(&self, user_id: UserId, attempt: u64) -> Result<Outcome, Trouble> {
        if attempt <= 1 {
            return Ok(Outcome::RetryAfter(STORED_AFTER));
        }
        let Some(shown) = self.inboxes.badge(user_id).await?.filter(|shown| *shown > 0) else {
            return Ok(Outcome::Done);
        };
        let badge = self.facts.badge(user_id).await?;
        if badge >= shown {
            return Ok(Outcome::Done);
        }
        let notification = Notification {
            kind: Kind::Badge,
            badge,
            collapse_key: "badge".to_owned(),
            expires_at: self.clock.now().after(limits::NOTIFICATION_TTL),
            notification_id: Uuid::new_v4(),
        };
        let devices = self.facts.devices(user_id).await?;
        let sending = devices.iter().filter_map(|device| {
            let address = self.address(user_id, device)?;
            let notification = &notification;
            Some(async move { self.send(user_id, device, &address, notification).await })
        });
        let verdicts = join_all(sending).await;
        // It shows nothing, so those that were told may be told again.
        let rest = verdicts.iter().filter_map(|verdict| match verdict {
            Verdict::Later(asked_for) => Some(asked_for.unwrap_or_default()),
            Verdict::Sent | Verdict::Gone | Verdict::Refused(_) | Verdict::Unknown => None,
        });
        if let Some(asked_for) = rest.max() {
            return Ok(failed(decide::rest(attempt, Some(asked_for), rand::random())));
        }
        self.inboxes.note_badge(user_id, badge).await?;
        Ok(Outcome::Done)
    }
}
