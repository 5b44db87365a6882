//! Devices that notifications are sent to.

use serde::{Deserialize, Serialize};

use crate::{clock::Timestamp, ids::DeviceId};

/// Where a device's notifications go: what its platform gave it to be reached by.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "platform", rename_all = "snake_case")]
pub enum NotificationAddress {
    /// Firebase Cloud Messaging: Android, and whatever else uses it.
    Fcm {
        /// The registration token.
        token: String,
    },
    /// Apple Push Notification service. `app_id` is the app's bundle id.
    Apns {
        /// The device token, in hexadecimal.
        token: String,
    },
    /// A browser: the fields of its `PushSubscription`.
    WebPush {
        /// The push service's URL for this subscription.
        endpoint: String,
        /// The subscription's public key, in base64url.
        p256dh: String,
        /// The subscription's secret, in base64url.
        auth: String,
    },
    /// The platform's own sender, by its webhook.
    Webhook {
        /// What the sender knows the device by.
        token: String,
    },
}

impl NotificationAddress {
    /// The kind of address.
    pub const fn platform(&self) -> Platform {
        match self {
            Self::Fcm { .. } => Platform::Fcm,
            Self::Apns { .. } => Platform::Apns,
            Self::WebPush { .. } => Platform::WebPush,
            Self::Webhook { .. } => Platform::Webhook,
        }
    }

    /// What two registrations of the same device of the same platform have in common.
    pub fn identity(&self) -> Vec<u8> {
        let token = match self {
            Self::Fcm { token } | Self::Webhook { token } => token.clone(),
            // Hexadecimal in either case is the same token.
            Self::Apns { token } => token.to_ascii_lowercase(),
            Self::WebPush { endpoint, .. } => endpoint.clone(),
        };
        format!("{}:{token}", self.platform().as_str()).into_bytes()
    }
}

impl std::fmt::Debug for NotificationAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NotificationAddress({})", self.platform().as_str())
    }
}

/// Who brings notifications to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Platform {
    /// Firebase Cloud Messaging.
    Fcm,
    /// Apple Push Notification service.
    Apns,
    /// The browser's push service.
    WebPush,
    /// The platform's own sender.
    Webhook,
}

impl Platform {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Fcm, Self::Apns, Self::WebPush, Self::Webhook];

    /// Its name in the database and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fcm => "fcm",
            Self::Apns => "apns",
            Self::WebPush => "web_push",
            Self::Webhook => "webhook",
        }
    }
}

impl std::str::FromStr for Platform {
    type Err = super::UnknownName;

    fn from_str(name: &str) -> Result<Self, super::UnknownName> {
        Self::ALL.into_iter().find(|platform| platform.as_str() == name).ok_or(super::UnknownName)
    }
}

/// Registers a device for notifications, or changes its registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RegisterDevice {
    /// Where its notifications go.
    #[serde(flatten)]
    pub address: NotificationAddress,
    /// The app's id at its platform, such as `com.example.chat`: the topic of Apple's notifications.
    pub app_id: String,
    /// The language of its notifications, such as `en` or `ne-NP`; English if it isn't known here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
}

/// A device that is registered for notifications. Its token is never shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Device {
    /// Which.
    pub device_id: DeviceId,
    /// Who brings its notifications.
    pub platform: Platform,
    /// The app's id at its platform.
    pub app_id: String,
    /// The language of its notifications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// When it was last registered, in milliseconds since 1970.
    pub registered_at: Timestamp,
}

/// The devices of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeviceList {
    /// In the order of their registration.
    pub devices: Vec<Device>,
}
