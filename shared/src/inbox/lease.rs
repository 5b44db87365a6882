//! A gateway's lease: while it holds, its sessions count as live. When it runs out, whoever finds it settles what the
//! gateway left behind.

use std::{collections::HashSet, time::Duration};

use redis::AsyncCommands;

use super::{InboxError, Inboxes, bounded, millis};
use crate::{
    ids::{GatewayId, UserId},
    limits,
};

/// How long a gateway that stopped counts as live: its clients are on their way to another one.
const FAREWELL: Duration = Duration::from_secs(8);
/// A lease is one of these and the run of the server that it was taken in: whether the gateway serves, or has said goodbye
/// and only counts as live for a while.
const SERVING: &str = "1";
const GOING: &str = "0";

/// What became of a lease since the last renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// It held.
    Held,
    /// It was new, had gone, or was of another run of the server. If it was not new, Redis has lost data or the gateway was
    /// away for too long, and its sessions may be gone too.
    Taken,
}

/// The run that a lease was taken in.
pub(super) fn run_of(lease: &str) -> Option<&str> {
    lease.split_once(' ').map(|(_, run)| run)
}

impl Inboxes {
    /// Renews the gateway's lease, or takes it.
    pub async fn renew_lease(&self, gateway_id: GatewayId) -> Result<Lease, InboxError> {
        let mut redis = self.redis.link().await?;
        let mut set = redis::cmd("SET");
        set.arg(self.lease_key(gateway_id)).arg(format!("{SERVING} {}", redis.run()));
        set.arg("PX").arg(millis(limits::GATEWAY_LEASE)).arg("GET");
        let before: Option<String> = bounded(set.query_async(&mut redis)).await?;
        // Each time, since whoever took it for gone may have forgotten it.
        let _is_new: bool = bounded(redis.sadd(self.gateways_key(), gateway_id.as_uuid().to_string())).await?;
        let is_held = before.is_some_and(|before| run_of(&before) == Some(redis.run()));
        Ok(if is_held { Lease::Held } else { Lease::Taken })
    }

    /// Whether the gateway's lease has run out. One of another run of the server has not yet: its gateway may be about to
    /// renew it.
    pub async fn is_departed(&self, gateway_id: GatewayId) -> Result<bool, InboxError> {
        Ok(self.leases(&[gateway_id]).await?.iter().all(Option::is_none))
    }

    /// Lets the lease run out soon; until then the gateway's sessions count as live, and nobody waits for the gateway itself.
    pub async fn release_lease(&self, gateway_id: GatewayId) -> Result<(), InboxError> {
        let mut redis = self.redis.link().await?;
        let mut set = redis::cmd("SET");
        set.arg(self.lease_key(gateway_id))
            .arg(format!("{GOING} {}", redis.run()))
            .arg("XX")
            .arg("PX")
            .arg(millis(FAREWELL));
        bounded(set.exec_async(&mut redis)).await
    }

    /// Notes that the gateway has a connection of the user, so that they are found if it dies.
    pub async fn attach(&self, gateway_id: GatewayId, user_id: UserId) -> Result<(), InboxError> {
        let mut redis = self.redis.link().await?;
        bounded(redis.sadd(self.users_key(gateway_id), user_id.as_uuid().to_string())).await
    }

    /// Notes that nothing of the user is left on the gateway to be settled.
    pub async fn detach(&self, gateway_id: GatewayId, user_ids: &[UserId]) -> Result<(), InboxError> {
        if user_ids.is_empty() {
            return Ok(());
        }
        let users: Vec<_> = user_ids.iter().map(|user_id| user_id.as_uuid().to_string()).collect();
        let mut redis = self.redis.link().await?;
        bounded(redis.srem(self.users_key(gateway_id), users)).await
    }

    /// The gateways whose leases have not run out and that have not said goodbye.
    pub async fn serving_gateways(&self) -> Result<Vec<GatewayId>, InboxError> {
        let known = self.known_gateways().await?;
        let leases = self.leases(&known).await?;
        let is_serving = |lease: Option<String>| lease.is_some_and(|lease| lease.starts_with(SERVING));
        let serving =
            known.into_iter().zip(leases).filter_map(|(gateway_id, lease)| is_serving(lease).then_some(gateway_id));
        Ok(serving.collect())
    }

    /// The gateways whose leases have run out and that have not been forgotten.
    pub async fn departed(&self) -> Result<Vec<GatewayId>, InboxError> {
        let known = self.known_gateways().await?;
        let leases = self.leases(&known).await?;
        Ok(known
            .into_iter()
            .zip(leases)
            .filter_map(|(gateway_id, lease)| lease.is_none().then_some(gateway_id))
            .collect())
    }

    /// Which of the gateways hold leases of this run of the server.
    pub(super) async fn live(
        &self,
        gateways: impl Iterator<Item = GatewayId>,
    ) -> Result<HashSet<GatewayId>, InboxError> {
        let gateways: Vec<GatewayId> = gateways.collect::<HashSet<_>>().into_iter().collect();
        let link = self.redis.link().await?;
        let leases = self.leases(&gateways).await?;
        // A lease without a run is of a gateway of an earlier version.
        let is_live = |lease: &Option<String>| {
            lease.as_deref().is_some_and(|lease| run_of(lease).is_none_or(|run| run == link.run()))
        };
        Ok(gateways
            .into_iter()
            .zip(leases)
            .filter(|(_, lease)| is_live(lease))
            .map(|(gateway_id, _)| gateway_id)
            .collect())
    }

    /// The leases of gateways, in the order given.
    async fn leases(&self, gateways: &[GatewayId]) -> Result<Vec<Option<String>>, InboxError> {
        if gateways.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for gateway_id in gateways {
            pipeline.cmd("GET").arg(self.lease_key(*gateway_id));
        }
        let mut redis = self.redis.link().await?;
        bounded(pipeline.query_async(&mut redis)).await
    }

    /// The gateways that have not been forgotten.
    async fn known_gateways(&self) -> Result<Vec<GatewayId>, InboxError> {
        let mut redis = self.redis.link().await?;
        let known: Vec<String> = bounded(redis.smembers(self.gateways_key())).await?;
        Ok(known.iter().filter_map(|gateway_id| gateway_id.parse().ok()).collect())
    }

    /// Some of the users that a departed gateway left behind; none once all have been detached.
    pub async fn left_behind(&self, gateway_id: GatewayId, users_max: isize) -> Result<Vec<UserId>, InboxError> {
        let mut redis = self.redis.link().await?;
        let users: Vec<String> = bounded(redis.srandmember_multiple(self.users_key(gateway_id), users_max)).await?;
        users.iter().map(|user_id| user_id.parse().map_err(|_| super::unexpected_answer())).collect()
    }

    /// Forgets a departed gateway that has left nobody behind any more.
    pub async fn forget_gateway(&self, gateway_id: GatewayId) -> Result<(), InboxError> {
        let mut redis = self.redis.link().await?;
        bounded(redis.srem(self.gateways_key(), gateway_id.as_uuid().to_string())).await
    }

    fn lease_key(&self, gateway_id: GatewayId) -> String {
        format!("{}:gateway:{}", self.redis.namespace(), gateway_id.as_uuid().simple())
    }

    fn users_key(&self, gateway_id: GatewayId) -> String {
        format!("{}:gateway:{}:users", self.redis.namespace(), gateway_id.as_uuid().simple())
    }

    fn gateways_key(&self) -> String {
        format!("{}:gateways", self.redis.namespace())
    }
}
