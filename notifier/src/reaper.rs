//! Settles what gateways leave behind that were stopped or died: users who aren't back elsewhere are offline, and what was
//! pushed to them and not confirmed is notified.
//!
//! A user stays in the gateway's list until all is done, so what fails half-way is done again, by this or another instance.

use std::time::Duration;

use anyhow::Context;
use chat_shared::{
    delivery::{Delivery, PresenceChange},
    ids::{GatewayId, UserId},
    inbox::{Departure, Ended, InboxError, Inboxes},
    jobs::Job,
};
use futures_util::future::join_all;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::{mender::Mender, notifications::Intake, publisher::Publisher, reachable::Reachable, telemetry};

/// Between two looks. Together with a gateway's lease it bounds how long its users seem to be online after its death.
const INTERVAL: Duration = Duration::from_secs(2);
/// Users that are settled at once.
const PAGE_USERS: isize = 100;

/// Settles what is left behind.
pub struct Reaper {
    /// Sessions and leases.
    pub inboxes: Inboxes,
    /// Whether they are worth asking for.
    pub reachable: Reachable,
    /// To tell all gateways who is offline now.
    pub publisher: Publisher,
    /// Resets inboxes that can't be used.
    pub mender: Mender,
    /// To notify of what is unconfirmed; none if nobody is notified.
    pub intake: Option<Intake>,
}

impl Reaper {
    /// Looks again and again until `draining`.
    pub async fn run(self, draining: CancellationToken) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Cancel safe: it only waits.
        while draining.run_until_cancelled(ticks.tick()).await.is_some() {
            if self.reachable.is_set()
                && let Err(error) = self.look(&draining).await
            {
                tracing::warn!(error = format!("{error:#}"), "what gateways left behind is settled later");
            }
        }
    }

    async fn look(&self, draining: &CancellationToken) -> anyhow::Result<()> {
        for gateway_id in self.inboxes.departed().await? {
            let mut settled = 0;
            // One that was away for longer than its lease may come back meanwhile; then its clients are, too.
            while !draining.is_cancelled() && self.inboxes.is_departed(gateway_id).await? {
                let page = self.settle_some(gateway_id).await?;
                if page == 0 {
                    self.inboxes.forget_gateway(gateway_id).await?;
                    tracing::info!(?gateway_id, left_behind = settled, "a gateway is gone");
                    metrics::counter!(telemetry::GATEWAYS_GONE_TOTAL).increment(1);
                    break;
                }
                settled += page;
            }
        }
        Ok(())
    }

    /// Settles some users, each by themselves if one of them can't be; how many. None if nobody is left.
    async fn settle_some(&self, gateway_id: GatewayId) -> anyhow::Result<usize> {
        let user_ids = self.inboxes.left_behind(gateway_id, PAGE_USERS).await?;
        if user_ids.is_empty() {
            return Ok(0);
        }
        match self.settle(gateway_id, &user_ids).await {
            Err(error) if is_of_user(&error) => {
                for user_id in &user_ids {
                    self.settle_one(gateway_id, *user_id).await?;
                }
            }
            settled => settled?,
        }
        metrics::counter!(telemetry::LEFT_BEHIND_TOTAL).increment(user_ids.len() as u64);
        Ok(user_ids.len())
    }

    /// One whose inbox can't be used has it reset: then there is nothing to be settled but that they are offline.
    async fn settle_one(&self, gateway_id: GatewayId, user_id: UserId) -> anyhow::Result<()> {
        match self.settle(gateway_id, &[user_id]).await {
            Err(error) if is_of_user(&error) => {
                self.mender.reset(user_id).await?;
                self.settle(gateway_id, &[user_id]).await
            }
            settled => settled,
        }
    }

    async fn settle(&self, gateway_id: GatewayId, user_ids: &[UserId]) -> anyhow::Result<()> {
        let ending = user_ids.iter().map(|user_id| self.inboxes.unregister(*user_id, Ended::Gateway(gateway_id)));
        let departures = join_all(ending).await.into_iter().collect::<Result<Vec<_>, InboxError>>()?;
        if let Some(intake) = &self.intake {
            intake.file(self.jobs(user_ids, &departures).await?).await;
        }
        self.announce(user_ids).await?;
        self.inboxes.detach(gateway_id, user_ids).await?;
        Ok(())
    }

    async fn announce(&self, user_ids: &[UserId]) -> anyhow::Result<()> {
        let seen = self.inboxes.presence(user_ids).await?;
        let changes = seen.into_iter().map(|seen| PresenceChange { presence: seen.presence, at: seen.at }).collect();
        let delivery = Delivery::PresenceChanged(changes).encode();
        self.publisher.to_all(delivery).await.context("telling who is offline")
    }

    async fn jobs(&self, user_ids: &[UserId], departures: &[Departure]) -> anyhow::Result<Vec<Job>> {
        let users = || user_ids.iter().copied().zip(departures);
        // Whoever removed these sessions may have ended before anybody was to be notified.
        let before: Vec<_> =
            users().filter(|(_, departure)| departure.removed == 0).map(|(user_id, _)| user_id).collect();
        let others = before.iter().copied().zip(self.inboxes.unconfirmed(&before).await?);
        let unconfirmed = users().map(|(user_id, departure)| (user_id, departure.unconfirmed)).chain(others);
        Ok(unconfirmed.filter_map(|(user_id, unconfirmed)| Some(Job::session_ended(user_id, unconfirmed?))).collect())
    }
}

fn is_of_user(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(InboxError::is_of_user)
}
