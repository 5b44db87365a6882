//! Appends that the log does not answer. A server whose disk is full or fails answers no append, but everything else, until
//! it is started again; so what was appended lately says whether to wait for an answer at all.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, connection::State};
use tokio::time::Instant;

use super::AppendError;
use crate::breaker::{Breaker, Rules};

/// 1 while NATS is connected and answers no append.
const STALLED: &str = "chat_gateway_log_stalled";

/// Two appends without an answer, and none with one since; then one tries each second or two.
const RULES: Rules = Rules { failures_max: 2, rest_min: Duration::from_secs(1), rest_max: Duration::from_secs(2) };

/// Refuses appends while none is answered. Clones share what they know.
#[derive(Debug, Clone)]
pub(super) struct Stall {
    client: Client,
    breaker: Arc<Breaker>,
}

impl Stall {
    pub(super) fn of(client: Client) -> Self {
        Self { client, breaker: Arc::new(Breaker::new(RULES)) }
    }

    /// Shows that nothing is stalled, until something is.
    pub(super) fn describe() {
        metrics::describe_gauge!(STALLED, "1 while NATS is connected and answers no append");
        metrics::gauge!(STALLED).set(0);
    }

    /// Waits for the answer to an append, or refuses it because the last ones got none.
    pub(super) async fn watch<T>(
        &self,
        append: impl Future<Output = Result<T, AppendError>>,
    ) -> Result<T, AppendError> {
        let asked_at = Instant::now().into_std();
        if !self.breaker.permits(asked_at) {
            return Err(AppendError::Refused("it has not answered the last appends".to_owned()));
        }
        let outcome = append.await;
        let now = Instant::now().into_std();
        if !matches!(outcome, Err(AppendError::Unknown)) {
            if self.breaker.close(now) {
                metrics::gauge!(STALLED).set(0);
                tracing::info!("the log answers appends again");
            }
            return outcome;
        }
        let is_news = self.breaker.fail(asked_at, now);
        // Without a connection it is not the log that fails.
        let is_connected = self.client.connection_state() == State::Connected;
        metrics::gauge!(STALLED).set(f64::from(u8::from(is_connected && self.breaker.is_open())));
        if is_news && is_connected {
            tracing::error!(
                "NATS is connected and answers no append: the disk of the log's server is full or fails; see its log and \
                 /healthz, give it room, and restart it"
            );
        }
        outcome
    }
}
