//! Publishes to gateways over core NATS, never waiting for long.

use std::time::Duration;

use chat_shared::{
    delivery::{all_gateways_subject, gateway_subject},
    ids::GatewayId,
};

use crate::telemetry;

/// How long a publish may wait. While NATS is away its client takes some, then makes us wait without limit.
const PUBLISH_WAIT_MAX: Duration = Duration::from_secs(1);

/// The way to the gateways.
#[derive(Debug, Clone)]
pub struct Publisher {
    client: async_nats::Client,
    namespace: String,
}

/// Why a delivery was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// NATS has been away for some time.
    #[error("NATS did not take the delivery in time")]
    TimedOut,
    /// The client refused.
    #[error("NATS did not take the delivery: {0}")]
    Refused(#[from] async_nats::PublishError),
}

impl Publisher {
    /// Publishes for the gateways of a namespace.
    pub const fn new(client: async_nats::Client, namespace: String) -> Self {
        Self { client, namespace }
    }

    /// To one gateway.
    pub async fn to_gateway(&self, gateway_id: GatewayId, payload: Vec<u8>) -> Result<(), PublishError> {
        self.publish(gateway_subject(&self.namespace, gateway_id), payload).await
    }

    /// To all gateways.
    pub async fn to_all(&self, payload: Vec<u8>) -> Result<(), PublishError> {
        self.publish(all_gateways_subject(&self.namespace), payload).await
    }

    async fn publish(&self, subject: String, payload: Vec<u8>) -> Result<(), PublishError> {
        let published = match tokio::time::timeout(PUBLISH_WAIT_MAX, self.client.publish(subject, payload.into())).await
        {
            Ok(published) => published.map_err(PublishError::from),
            Err(_) => Err(PublishError::TimedOut),
        };
        let name = if published.is_ok() { telemetry::DELIVERIES_TOTAL } else { telemetry::PUBLISH_FAILURES_TOTAL };
        metrics::counter!(name).increment(1);
        published
    }
}

#[cfg(test)]
mod tests {
    use chat_dev::{
        paths,
        ports::Ports,
        servers::Nats,
        test_servers::{TestServers, unique_namespace},
    };
    use chat_shared::log;

    use super::*;

    #[tokio::test]
    async fn when_nats_is_away_and_the_client_is_full_a_publish_fails_in_time() -> anyhow::Result<()> {
        let directory = paths::scratch("publisher-test")?;
        let nats = Nats::start_in(&TestServers::from_env()?.binaries, directory.path(), &Ports::fresh()).await?;
        let client = log::connect(&nats.url(), "publisher-test", |_| {}).await?;
        let publisher = Publisher::new(client, unique_namespace());
        publisher.to_all(Vec::new()).await?;
        nats.kill().await?;
        let mut taken = 0;
        while publisher.to_gateway(GatewayId::random(), Vec::new()).await.is_ok() {
            taken += 1;
            assert!(taken < 1_000_000, "it takes deliveries without end");
        }
        assert!(matches!(publisher.to_all(Vec::new()).await, Err(PublishError::TimedOut)));
        Ok(())
    }
}
