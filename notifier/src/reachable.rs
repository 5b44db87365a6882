//! Whether Redis can be reached, as far as this process knows.
//!
//! A batch that fails says no, and then nobody waits for Redis until a probe in the background says yes.

use std::time::Duration;

use chat_shared::{
    inbox::{InboxError, Inboxes, RedisUnfit},
    lifecycle::Tasks,
};
use tokio::sync::watch;

/// Between two probes while it can't be reached.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// A flag that all workers share.
#[derive(Debug, Clone)]
pub struct Reachable(watch::Sender<bool>);

impl Reachable {
    /// Starts with yes, and probes whenever it is no.
    pub fn watch(inboxes: Inboxes, tasks: &Tasks) -> Self {
        let reachable = Self(watch::Sender::new(true));
        let probed = reachable.clone();
        let draining = tasks.draining().clone();
        tasks.essential("redis_probe", async move {
            // Cancel safe: the flag changes in one step.
            draining.run_until_cancelled(probed.probe(inboxes)).await;
            Ok(())
        });
        reachable
    }

    /// Whether it is worth asking Redis.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Redis failed.
    pub fn clear(&self, error: &InboxError) {
        if self.0.send_replace(false) {
            tracing::warn!(%error, "events go to all gateways now, and enter the inboxes when Redis is back");
        }
    }

    async fn probe(&self, inboxes: Inboxes) {
        self.examine(&inboxes).await;
        let mut watched = self.0.subscribe();
        // The sender is this flag itself, so the wait can't fail.
        while watched.wait_for(|is_reachable| !is_reachable).await.is_ok() {
            tokio::time::sleep(PROBE_INTERVAL).await;
            self.examine(&inboxes).await;
        }
    }

    async fn examine(&self, inboxes: &Inboxes) {
        match inboxes.check().await {
            Err(RedisUnfit::Unreachable(error)) => return self.clear(&error),
            Err(RedisUnfit::Problem(problem)) => tracing::error!(%problem, "Redis has to be set up differently"),
            Ok(()) => {}
        }
        if !self.0.send_replace(true) {
            tracing::info!("Redis can be reached again");
        }
    }
}
