//! A phone that is registered for notifications, and what its provider took for it.

use anyhow::{Context, Result, ensure};
use chat_dev::push_services::{APP_IDS, Received};
use chat_e2e::{Api, TestFleet, eventually};
use chat_shared::{
    ids::{DeviceId, MessageId},
    wire::{Device, DeviceList, NotificationAddress, Platform, RegisterDevice},
};

/// Whether one notification of a fleet, and no more, has come to this end.
pub async fn is_one_concluded(fleet: &TestFleet, outcome: &str) -> Result<bool> {
    let metrics = fleet.notifier().metrics().await?;
    let line = format!("chat_notifier_notifications_total{{outcome=\"{outcome}\"}} 1");
    Ok(metrics.lines().any(|found| found == line))
}

/// See the module.
pub struct Phone {
    pub device_id: DeviceId,
    pub platform: Platform,
    /// What its provider knows it by.
    pub token: String,
}

impl Phone {
    /// Registers a new one.
    pub async fn register(fleet: &TestFleet, api: &Api, platform: Platform) -> Result<Self> {
        let (token, address) = address(fleet, platform)?;
        let device_id = DeviceId::random();
        let device = RegisterDevice { address, app_id: APP_IDS[0].to_owned(), locale: Some("en".to_owned()) };
        let path = format!("devices/{}", device_id.as_uuid());
        let registered: Device = api.put(&path, &device).await?.ok()?;
        ensure!((registered.device_id, registered.platform) == (device_id, platform), "{registered:?}");
        Ok(Self { device_id, platform, token })
    }

    /// What its provider took for it so far.
    pub fn received(&self, fleet: &TestFleet) -> Vec<Received> {
        let received = fleet.push_services().received(self.platform).into_iter();
        received.filter(|received| received.token == self.token).collect()
    }

    /// The messages it showed so far, in the order of their arrival, as texts of their ids.
    pub fn shown(&self, fleet: &TestFleet) -> Vec<String> {
        self.received(fleet).into_iter().filter(|it| it.is_alert).filter_map(|it| it.message_id).collect()
    }

    /// Waits until it shows a message; what was sent for it.
    pub async fn shows(&self, fleet: &TestFleet, message_id: MessageId) -> Result<Received> {
        let what = format!("a notification by {}", self.platform.as_str());
        let wanted = message_id.as_uuid().to_string();
        let is_it = |received: &Received| {
            received.token == self.token && received.message_id.as_ref() == Some(&wanted) && received.is_alert
        };
        let waiting = fleet.push_services().wait_for(&what, |all| all.iter().find(|it| is_it(it)).cloned());
        waiting.await.with_context(|| format!("of {wanted}; it showed {:?}", self.shown(fleet)))
    }

    /// Waits until it is told a number for the app's icon and shows nothing.
    pub async fn badge(&self, fleet: &TestFleet, badge: u64) -> Result<()> {
        let is_it =
            |received: &Received| received.token == self.token && !received.is_alert && received.badge == Some(badge);
        let what = format!("badge {badge} by {}", self.platform.as_str());
        fleet.push_services().wait_for(&what, |all| all.iter().find(|it| is_it(it)).map(drop)).await
    }

    /// Waits until it isn't registered any more.
    pub async fn is_forgotten(&self, api: &Api) -> Result<()> {
        eventually("the end of a registration", || async {
            let list: DeviceList = api.get("devices").await?.ok()?;
            Ok(list.devices.iter().all(|device| device.device_id != self.device_id).then_some(()))
        })
        .await
    }
}

/// Of a device that nobody else has.
pub fn address(fleet: &TestFleet, platform: Platform) -> Result<(String, NotificationAddress)> {
    let token = format!("{0}{0}", DeviceId::random().as_uuid().simple());
    Ok(match platform {
        Platform::Fcm => (token.clone(), NotificationAddress::Fcm { token }),
        Platform::Apns => (token.clone(), NotificationAddress::Apns { token }),
        Platform::Webhook => (token.clone(), NotificationAddress::Webhook { token }),
        Platform::WebPush => {
            let subscription = fleet.push_services().subscribe()?;
            let (endpoint, p256dh, auth) = (subscription.endpoint, subscription.p256dh, subscription.auth);
            (endpoint.clone(), NotificationAddress::WebPush { endpoint, p256dh, auth })
        }
    })
}
