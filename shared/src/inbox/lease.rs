//! A gateway's lease: while it holds, its sessions count as live.

use super::{InboxError, Inboxes, bounded, millis};
use crate::{ids::GatewayId, limits};

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
        set.arg(self.lease_key(gateway_id)).arg(1).arg("PX").arg(millis(limits::GATEWAY_LEASE)).arg("GET");
        let before: Option<u8> = bounded(set.query_async(&mut redis)).await?;
        Ok(if before.is_some() { Lease::Held } else { Lease::Taken })
    }

    /// Gives the lease back.
    pub async fn release_lease(&self, gateway_id: GatewayId) -> Result<(), InboxError> {
        let mut redis = self.redis.clone();
        bounded(redis::cmd("DEL").arg(self.lease_key(gateway_id)).query_async(&mut redis)).await
    }

    fn lease_key(&self, gateway_id: GatewayId) -> String {
        format!("{}:gateway:{}", self.namespace, gateway_id.as_uuid().simple())
    }
}
