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
