//! A gateway's lease: while it holds, its sessions count as live. When it runs out, whoever finds it settles what the
//! gateway left behind.

use std::time::Duration;

use redis::AsyncCommands;

use super::{InboxError, Inboxes, bounded, millis};
use crate::{
    ids::{GatewayId, UserId},
    limits,
};

/// How long a gateway that stopped counts as live: its clients are on their way to another one.
const FAREWELL: Duration = Duration::from_secs(8);
/// What a lease says: whether the gateway serves, or has said goodbye and only counts as live for a while.
const SERVING: u8 = 1;
const GOING: u8 = 0;

/// What became of a lease since the last renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// It held.
    Held,
    /// It was new or had gone. If it was not new, Redis has lost data or the gateway was away for too long, and
    /// its sessions may be gone too.
    Taken,
}

impl Inboxes {
    /// Renews the gateway's lease, or takes it.
    pub async fn renew_lease(&self, gateway_id: GatewayId) -> Result<Lease, InboxError> {
        let mut redis = self.redis.clone();
        let mut set = redis::cmd("SET");
        set.arg(self.lease_key(gateway_id)).arg(SERVING).arg("PX").arg(millis(limits::GATEWAY_LEASE)).arg("GET");
        let before: Option<u8> = bounded(set.query_async(&mut redis)).await?;
        // Each time, since whoever took it for gone may have forgotten it.
        let _is_new: bool = bounded(redis.sadd(self.gateways_key(), gateway_id.as_uuid().to_string())).await?;
        Ok(if before.is_some() { Lease::Held } else { Lease::Taken })
    }

    /// Whether the gateway's lease holds.
    pub async fn is_live(&self, gateway_id: GatewayId) -> Result<bool, InboxError> {
        Ok(self.live(std::iter::once(gateway_id)).await?.get(&gateway_id) == Some(&true))
    }

    /// Lets the lease run out soon; until then the gateway's sessions count as live, and nobody waits for the gateway itself.
    pub async fn release_lease(&self, gateway_id: GatewayId) -> Result<(), InboxError> {
        let mut redis = self.redis.clone();
        let mut set = redis::cmd("SET");
        set.arg(self.lease_key(gateway_id)).arg(GOING).arg("XX").arg("PX").arg(millis(FAREWELL));
        bounded(set.exec_async(&mut redis)).await
    }

    /// Notes that the gateway has a connection of the user, so that they are found if it dies.
    pub async fn attach(&self, gateway_id: GatewayId, user_id: UserId) -> Result<(), InboxError> {
        let mut redis = self.redis.clone();
        bounded(redis.sadd(self.users_key(gateway_id), user_id.as_uuid().to_string())).await
    }

    /// Notes that nothing of the user is left on the gateway to be settled.
    pub async fn detach(&self, gateway_id: GatewayId, user_ids: &[UserId]) -> Result<(), InboxError> {
        if user_ids.is_empty() {
            return Ok(());
        }
        let users: Vec<_> = user_ids.iter().map(|user_id| user_id.as_uuid().to_string()).collect();
        let mut redis = self.redis.clone();
        bounded(redis.srem(self.users_key(gateway_id), users)).await
    }

    /// The gateways whose leases hold and that have not said goodbye.
    pub async fn serving_gateways(&self) -> Result<Vec<GatewayId>, InboxError> {
        let known = self.known_gateways().await?;
        if known.is_empty() {
            return Ok(known);
        }
        let mut pipeline = redis::pipe();
        for gateway_id in &known {
            pipeline.cmd("GET").arg(self.lease_key(*gateway_id));
        }
        let mut redis = self.redis.clone();
        let leases: Vec<Option<u8>> = bounded(pipeline.query_async(&mut redis)).await?;
        let serving = known.into_iter().zip(leases).filter(|(_, lease)| *lease == Some(SERVING));
        Ok(serving.map(|(gateway_id, _)| gateway_id).collect())
    }

    /// The gateways whose leases have run out and that have not been forgotten.
    pub async fn departed(&self) -> Result<Vec<GatewayId>, InboxError> {
        let known = self.known_gateways().await?;
        let live = self.live(known.iter().copied()).await?;
        Ok(known.into_iter().filter(|gateway_id| live.get(gateway_id) == Some(&false)).collect())
    }

    /// The gateways that have not been forgotten.
    async fn known_gateways(&self) -> Result<Vec<GatewayId>, InboxError> {
        let mut redis = self.redis.clone();
        let known: Vec<String> = bounded(redis.smembers(self.gateways_key())).await?;
        Ok(known.iter().filter_map(|gateway_id| gateway_id.parse().ok()).collect())
    }

    /// Some of the users that a departed gateway left behind; none once all have been detached.
    pub async fn left_behind(&self, gateway_id: GatewayId, users_max: isize) -> Result<Vec<UserId>, InboxError> {
        let mut redis = self.redis.clone();
        let users: Vec<String> = bounded(redis.srandmember_multiple(self.users_key(gateway_id), users_max)).await?;
        users.iter().map(|user_id| user_id.parse().map_err(|_| super::unexpected_answer())).collect()
    }

    /// Forgets a departed gateway that has left nobody behind any more.
    pub async fn forget_gateway(&self, gateway_id: GatewayId) -> Result<(), InboxError> {
        let mut redis = self.redis.clone();
        bounded(redis.srem(self.gateways_key(), gateway_id.as_uuid().to_string())).await
    }

    pub(super) fn lease_key(&self, gateway_id: GatewayId) -> String {
        format!("{}:gateway:{}", self.namespace, gateway_id.as_uuid().simple())
    }

    fn users_key(&self, gateway_id: GatewayId) -> String {
        format!("{}:gateway:{}:users", self.namespace, gateway_id.as_uuid().simple())
    }

    fn gateways_key(&self) -> String {
        format!("{}:gateways", self.namespace)
    }
}
