//! Identifiers: one type for each thing that has an id, all of them UUID v4.
//!
//! Their `Debug` form is masked, so an id can't reach a log by accident. The real one is taken with
//! `as_uuid`, or travels by serde: a string in human-readable formats, 16 bytes elsewhere.

use std::{fmt, str::FromStr};

use aws_lc_rs::digest;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::mask::Masked;

/// Text that was meant to be an id and isn't one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id must be a UUID of version 4: 8-4-4-4-12 hexadecimal digits")]
pub struct InvalidId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = Uuid)]
        pub struct $name(Uuid);

        impl $name {
            /// A random id.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }

            /// The id as it is, unmasked.
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl TryFrom<Uuid> for $name {
            type Error = InvalidId;

            fn try_from(uuid: Uuid) -> Result<Self, InvalidId> {
                if uuid.get_version_num() == 4 { Ok(Self(uuid)) } else { Err(InvalidId) }
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::try_parse(text).map_err(|_| InvalidId)?.try_into()
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Uuid::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, ":{}"), Masked(self.0))
            }
        }
    };
}

id!(
    /// A user of the platform; the same id that kaha-main-v3 knows them by.
    UserId,
    "user"
);
id!(
    /// A business of the platform; the same id that kaha-main-v3 knows it by.
    BusinessId,
    "business"
);
id!(
    /// A conversation.
    ConversationId,
    "conversation"
);
id!(
    /// A message; chosen by the client that sends it, so that a repeat is recognised.
    MessageId,
    "message"
);
id!(
    /// A client installation.
    DeviceId,
    "device"
);
id!(
    /// The registration of one connection in Redis.
    SessionId,
    "session"
);
id!(
    /// One running gateway; new at every start.
    GatewayId,
    "gateway"
);
id!(
    /// One lifetime of an inbox. Another epoch means that cursors from before mean nothing.
    Epoch,
    "epoch"
);

/// One login of a user at kaha-main-v3: the start of the SHA-256 of a token's `sid`. It names the login to those who have
/// the `sid`, and tells it to nobody.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LoginId([u8; 16]);

impl LoginId {
    /// Of a token's `sid`.
    pub fn of(sid: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, sid.as_bytes());
        Self(digest.as_ref().first_chunk().copied().unwrap_or_default())
    }
}

impl fmt::Display for LoginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for LoginId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        u128::from_str_radix(text, 16).map(|number| Self(number.to_be_bytes())).map_err(|_| InvalidId)
    }
}

impl fmt::Debug for LoginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("login")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_version_4_is_an_id_r1_3() {
        assert!("936da01f-9abd-4d9d-80c7-02af85c822a8".parse::<UserId>().is_ok());
        for wrong in ["", "936da01f", "00000000-0000-0000-0000-000000000000", "936da01f-9abd-1d9d-80c7-02af85c822a8"] {
            assert_eq!(wrong.parse::<UserId>(), Err(InvalidId), "{wrong}");
        }
    }

    #[test]
    fn debug_hides_the_id_r6_2() {
        let id = MessageId::random();
        let shown = format!("{id:?}");
        assert!(shown.starts_with("message:"));
        assert!(!shown.contains(&id.as_uuid().to_string()[..8]));
        assert_eq!(shown, format!("{id:?}"), "one id masks to one text, so log lines correlate");
    }
}
