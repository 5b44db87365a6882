//! Notifies a supervisor or admin that customers of a business wait while no agent is there, if that is still so.

use chat_shared::{
    inbox::{Notice, Occasion},
    jobs::WaitingJob,
    limits,
    log::Outcome,
};
use futures_util::future::join_all;

use super::{
    Office, Trouble, decide,
    facts::StoredDevice,
    failed,
    message::{collapse_key, early, notification_id, settle},
    text,
};
use crate::providers::{Kind, Notification};

impl Office {
    /// Does what customers that wait call for now. The user is notified whether connected or not, and the badge stays as it is.
    pub(super) async fn waiting(&self, job: &WaitingJob, attempt: u64) -> Result<Outcome, Trouble> {
        // By the clock of Redis, which holds the claims.
        let now = self.inboxes.standing(job.user_id).await?.now;
        let queue = self.facts.queue(job.user_id, job.business_id).await?;
        if let Some(outcome) = early(decide::by_queue(job, queue, now)) {
            return Ok(outcome);
        }
        let Some(devices) = self.devices(job.user_id).await? else { return Ok(Outcome::Done) };
        let waiting = queue.map_or(0, |queue| queue.waiting);
        let outcomes = join_all(devices.iter().map(async |device| {
            let occasion = Occasion::Waiting(job.business_id);
            let notice = Notice { user_id: job.user_id, device_id: device.device_id, occasion, sent_at: now };
            self.notify_device(notice, device, &notification(job, device, waiting), attempt).await
        }));
        let (_, rest) = settle(&outcomes.await);
        Ok(rest.map_or(Outcome::Done, failed))
    }
}

fn notification(job: &WaitingJob, device: &StoredDevice, waiting: u64) -> Notification {
    let WaitingJob { user_id, business_id, found_at } = *job;
    let occasion = business_id.as_uuid().as_u128() ^ u128::from(found_at.0.unsigned_abs());
    Notification {
        kind: Kind::Waiting { business_id, waiting, title: text::waiting(device.locale.as_deref()).to_owned() },
        badge: 0,
        collapse_key: collapse_key(business_id.as_uuid()),
        expires_at: found_at.after(limits::WAITING_NOTIFIED_INTERVAL),
        notification_id: notification_id(occasion, user_id, device.device_id),
    }
}
