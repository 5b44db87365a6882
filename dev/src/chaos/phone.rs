//! A device that is registered for notifications, and what its provider has taken for it.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use chat_client::{
    Rest,
    ids::{ConversationId, DeviceId, MessageId, UserId},
    wire::{NotificationAddress, Platform, RegisterDevice},
};
use tokio::time::Instant;

use super::claims::Claimed;
use crate::{
    audit::AwayDevice,
    push_services::{APP_IDS, PushServices, Received},
};

/// A registered device.
#[derive(Debug)]
pub struct Phone {
    pub name: String,
    pub user_id: UserId,
    pub device_id: DeviceId,
    pub platform: Platform,
    /// What its provider knows it by.
    token: String,
}

/// What its provider took for it.
#[derive(Debug, Clone, Copy)]
pub struct Notified {
    pub conversation_id: ConversationId,
    pub message_id: MessageId,
    pub at: Instant,
}

impl Phone {
    /// Registers one on every platform.
    pub async fn register_all(name: &str, user_id: UserId, rest: &Rest, services: &PushServices) -> Result<Vec<Self>> {
        let mut phones = Vec::with_capacity(Platform::ALL.len());
        for platform in Platform::ALL {
            let (token, address) = address(platform, services)?;
            let device_id = DeviceId::random();
            let device = RegisterDevice { address, app_id: APP_IDS[0].to_owned(), locale: None };
            rest.register_device(device_id, &device).await.with_context(|| format!("a device of {name}"))?;
            phones.push(Self { name: format!("{name}-{}", platform.as_str()), user_id, device_id, platform, token });
        }
        Ok(phones)
    }

    /// The messages that it was notified of, in the order of their arrival. A number on the app's icon is none, and neither is an
    /// assignment.
    pub fn notified(&self, services: &PushServices) -> Vec<Notified> {
        self.alerts(services).filter_map(notified).collect()
    }

    /// The conversations of the messages and assignments that it was notified of. An assignment names no message.
    pub fn notified_of(&self, services: &PushServices) -> Vec<(ConversationId, Instant)> {
        let of = |received: Received| Some((received.conversation_id?.parse().ok()?, received.at));
        self.alerts(services).filter_map(of).collect()
    }

    fn alerts(&self, services: &PushServices) -> impl Iterator<Item = Received> {
        let taken = services.received(self.platform).into_iter();
        taken.filter(|received| received.token == self.token && received.is_alert)
    }

    /// As evidence; `claimed` is what was on its way as a notifier died.
    pub fn record(&self, services: &PushServices, claimed: &BTreeSet<Claimed>) -> AwayDevice {
        AwayDevice {
            name: self.name.clone(),
            user_id: self.user_id,
            notified: self.notified(services).iter().map(|it| (it.conversation_id, it.message_id)).collect(),
            unknown: claimed.iter().filter_map(|claimed| claimed.message_for(self.user_id, self.device_id)).collect(),
        }
    }
}

fn notified(received: Received) -> Option<Notified> {
    Some(Notified {
        conversation_id: received.conversation_id?.parse().ok()?,
        message_id: received.message_id?.parse().ok()?,
        at: received.at,
    })
}

/// Of a device that nobody else has.
fn address(platform: Platform, services: &PushServices) -> Result<(String, NotificationAddress)> {
    let token = format!("{:064x}", rand::random::<u128>());
    Ok(match platform {
        Platform::Fcm => (token.clone(), NotificationAddress::Fcm { token }),
        Platform::Apns => (token.clone(), NotificationAddress::Apns { token }),
        Platform::Webhook => (token.clone(), NotificationAddress::Webhook { token }),
        Platform::WebPush => {
            let subscription = services.subscribe()?;
            let (endpoint, p256dh, auth) = (subscription.endpoint, subscription.p256dh, subscription.auth);
            (endpoint.clone(), NotificationAddress::WebPush { endpoint, p256dh, auth })
        }
    })
}
