//! Identifiers: one type for each thing that has an id, all of them UUID v4.
//!
//! Their `Debug` form is masked, so an id can't reach a log by accident. The real one is taken with
//! `as_uuid`, or travels by serde: a string in human-readable formats, 16 bytes elsewhere. As text an id has one spelling, so
//! that all who compare ids as texts agree.

use std::{fmt, marker::PhantomData, str::FromStr};

use aws_lc_rs::digest;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, Visitor},
};
use uuid::Uuid;

use crate::mask::Masked;

/// Text that was meant to be an id and isn't one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id must be a UUID of version 4: 8-4-4-4-12 hexadecimal digits in lower case")]
pub struct InvalidId;

/// Reads an id from its spelling.
struct Spelled<T>(PhantomData<T>);

impl<T: FromStr<Err = InvalidId>> Visitor<'_> for Spelled<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id as text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

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

            /// The id in a key of Redis or a subject of NATS, which leave out the hyphens.
            pub fn from_key(text: &str) -> Option<Self> {
                Uuid::try_parse(text).ok()?.try_into().ok()
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
                let uuid = Uuid::try_parse(text).map_err(|_| InvalidId)?;
                let mut spelling = Uuid::encode_buffer();
                if uuid.hyphenated().encode_lower(&mut spelling) == text { uuid.try_into() } else { Err(InvalidId) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    return deserializer.deserialize_str(Spelled(PhantomData));
                }
                Uuid::deserialize(deserializer)?.try_into().map_err(Error::custom)
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
/// A customer is shown a business where others are shown users.
impl From<BusinessId> for UserId {
    fn from(BusinessId(id): BusinessId) -> Self {
        Self(id)
    }
}

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
    fn only_version_4_is_an_id_and_it_has_one_spelling_r1_3() {
        let right = "936da01f-9abd-4d9d-80c7-02af85c822a8";
        assert!(right.parse::<UserId>().is_ok());
        assert!(serde_json::from_value::<UserId>(right.into()).is_ok());
        for wrong in [
            "",
            "936da01f",
            "00000000-0000-0000-0000-000000000000",
            "936da01f-9abd-1d9d-80c7-02af85c822a8",
            "936DA01F-9ABD-4D9D-80C7-02AF85C822A8",
            "936da01f-9abd-4d9d-80c7-02af85c822A8",
            "936da01f9abd4d9d80c702af85c822a8",
            "{936da01f-9abd-4d9d-80c7-02af85c822a8}",
            "urn:uuid:936da01f-9abd-4d9d-80c7-02af85c822a8",
            " 936da01f-9abd-4d9d-80c7-02af85c822a8",
        ] {
            assert_eq!(wrong.parse::<UserId>(), Err(InvalidId), "{wrong}");
            assert!(serde_json::from_value::<UserId>(wrong.into()).is_err(), "{wrong}");
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
