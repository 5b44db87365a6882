//! Tells all gateways what must be true everywhere before a request is answered, and waits until each has taken it in.

use std::{collections::HashSet, time::Duration};

use async_nats::{Client, Subject};
use chat_shared::{
    delivery::{Delivery, all_gateways_subject, gateway_subject},
    ids::GatewayId,
    inbox::Inboxes,
};
use futures_util::StreamExt;

use super::{PUBLISH_WAIT_MAX, publish_on};
use crate::{state::AppState, telemetry};

/// How long a request waits for the gateways. Those that are in order answer within milliseconds; one that died keeps its
/// lease for a while, and nobody is pushed anything by it. One that stops in order is not waited for.
const HEARD_WAIT_MAX: Duration = Duration::from_millis(500);

/// The way to all gateways, the own one included.
#[derive(Clone)]
pub struct Gateways {
    nats: Client,
    namespace: String,
    inboxes: Inboxes,
}

/// NATS doesn't take it.
#[derive(Debug, thiserror::Error)]
enum NotTold {
    #[error(transparent)]
    Subscribe(#[from] async_nats::SubscribeError),
    #[error(transparent)]
    Publish(#[from] async_nats::PublishError),
    #[error("the connection ended")]
    Ended,
}

impl Gateways {
    /// Of this installation; `inboxes` know whose leases hold.
    pub const fn new(nats: Client, namespace: String, inboxes: Inboxes) -> Self {
        Self { nats, namespace, inboxes }
    }

    /// Tells them without waiting for anybody; false if NATS is known not to take it.
    pub async fn announce(&self, delivery: &Delivery) -> bool {
        publish_on(&self.nats, all_gateways_subject(&self.namespace), delivery).await
    }

    /// Returns once every gateway that serves has taken it in, or after half a second, which is logged and counted;
    /// whether all of them have.
    pub async fn tell(&self, delivery: &Delivery) -> bool {
        let told = tokio::time::timeout(HEARD_WAIT_MAX, Box::pin(self.tell_all(delivery))).await;
        let error = match told {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "not all of them answered in time".to_owned(),
        };
        metrics::counter!(telemetry::UNHEARD_TOTAL).increment(1);
        tracing::warn!(error, "some gateway may not have heard of a removal, a block, a logout or a changed profile");
        false
    }

    async fn tell_all(&self, delivery: &Delivery) -> Result<(), NotTold> {
        // Where gateways may speak to each other.
        let answers_to = gateway_subject(&self.namespace, GatewayId::random());
        let mut answers = self.nats.subscribe(answers_to.clone()).await?;
        let subject = all_gateways_subject(&self.namespace);
        self.nats.publish_with_reply(subject, answers_to, delivery.encode().into()).await?;
        // Without Redis nobody knows how many there are: they have all the time that there is.
        let Ok(serving) = self.inboxes.serving_gateways().await else { return std::future::pending().await };
        let mut missing: HashSet<GatewayId> = serving.into_iter().collect();
        while !missing.is_empty() {
            let answer = answers.next().await.ok_or(NotTold::Ended)?;
            let heard = std::str::from_utf8(&answer.payload).ok().and_then(|id| id.parse().ok());
            missing.retain(|gateway_id| Some(*gateway_id) != heard);
        }
        Ok(())
    }
}

/// Says to whoever asked that this gateway has taken it in. Only gateways are answered, where only they listen: else whoever
/// may publish to gateways could have them publish anywhere.
pub(super) async fn answer(state: &AppState, asker: Subject) {
    if !is_gateway(&state.namespace, &asker) {
        return;
    }
    let gateway_id = state.gateway_id.as_uuid().to_string();
    // If it is lost, whoever asked waits for as long as they do, and goes on.
    let _lost = tokio::time::timeout(PUBLISH_WAIT_MAX, state.nats.publish(asker, gateway_id.into())).await;
}

/// Whether a subject is one gateway's.
fn is_gateway(namespace: &str, subject: &str) -> bool {
    let id = subject.rsplit('.').next().and_then(GatewayId::from_key);
    id.is_some_and(|id| subject == gateway_subject(namespace, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_but_gateways_is_answered() {
        let gateway_id = GatewayId::random();
        assert!(is_gateway("chat", &gateway_subject("chat", gateway_id)));
        let id = gateway_id.as_uuid().simple();
        for other in [
            format!("chat.7.message.{id}"),
            "chat.7.fact".to_owned(),
            "chat.gateways".to_owned(),
            "chat.notifications".to_owned(),
            format!("other.gateway.{id}"),
            format!("chat.gateway.{id}.more"),
            format!("chat.gateway.{}", gateway_id.as_uuid()),
            "chat.gateway.".to_owned(),
            String::new(),
        ] {
            assert!(!is_gateway("chat", &other), "{other}");
        }
    }
}
