//! Whether Redis can be reached, as far as this process knows.
//!
//! A batch that fails says no, and then nobody waits for Redis until a probe in the background says yes.

use std::time::Duration;

use chat_shared::{
    inbox::{Inboxes, RedisProblem, RedisUnfit},
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
    pub fn clear(&self, error: &impl std::error::Error) {
        if self.0.send_replace(false) {
            tracing::warn!(%error, "events go to all gateways now, and enter the inboxes when Redis is back");
        }
    }

    async fn probe(&self, inboxes: Inboxes) {
        let mut watched = self.0.subscribe();
        let mut told = None;
        loop {
            self.examine(&inboxes, &mut told).await;
            // The sender is this flag itself, so the wait can't fail.
            if watched.wait_for(|is_reachable| !is_reachable).await.is_err() {
                return;
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }

    /// Says what is wrong with Redis once, not at every probe.
    async fn examine(&self, inboxes: &Inboxes, told: &mut Option<RedisProblem>) {
        let problem = match inboxes.check().await {
            Err(RedisUnfit::Unreachable(error)) => return self.clear(&error),
            Err(RedisUnfit::Problem(problem)) => Some(problem),
            Ok(()) => None,
        };
        if let Some(problem) = problem.as_ref().filter(|problem| told.as_ref() != Some(problem)) {
            tracing::error!(%problem, "Redis has to be set up differently");
        }
        *told = problem;
        match told {
            Some(problem @ (RedisProblem::Full { .. } | RedisProblem::Replica)) => self.clear(problem),
            _ if !self.0.send_replace(true) => tracing::info!("Redis can be reached again"),
            _ => {}
        }
    }
}
