//! Tells gateways that the way from here to them is open, so that one that has gone deaf notices.

use std::time::Duration;

use chat_shared::delivery::Delivery;
use tokio::time::MissedTickBehavior;

use crate::publisher::Publisher;

/// Between two beacons; gateways miss it well within one heartbeat.
const BEACON_INTERVAL: Duration = Duration::from_secs(5);

/// Sends beacons the way that deliveries go, for ever.
pub async fn send(publisher: Publisher) {
    let mut ticks = tokio::time::interval(BEACON_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let beacon = Delivery::Beacon.encode();
    loop {
        ticks.tick().await;
        if let Err(error) = publisher.to_all(beacon.clone()).await {
            tracing::warn!(%error, "a beacon was not sent");
        }
    }
}
