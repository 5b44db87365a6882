//! The form that sealed content has everywhere: in the log, in inboxes, in the table.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{
    clock::Day,
    ids::{ConversationId, MessageId, UserId},
};

const VERSION: u8 = 1;
const HEADER_LEN: usize = 5;
const NONCE_LEN: usize = 12;

/// Sealed content: version, day, nonce, ciphertext and tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Envelope(ByteBuf);

/// Where content belongs. Sealed for one place, it opens at no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// The message.
    pub message_id: MessageId,
    /// Its sender.
    pub sender_id: UserId,
}

impl Sealed {
    pub(super) fn bytes(&self) -> [u8; 48] {
        let mut bytes = [0; 48];
        bytes[..16].copy_from_slice(self.conversation_id.as_uuid().as_bytes());
        bytes[16..32].copy_from_slice(self.message_id.as_uuid().as_bytes());
        bytes[32..].copy_from_slice(self.sender_id.as_uuid().as_bytes());
        bytes
    }
}

impl Envelope {
    pub(super) fn new(day: Day, nonce: &[u8], sealed: &[u8]) -> Self {
        Self(ByteBuf::from([&[VERSION][..], &day.0.to_be_bytes(), nonce, sealed].concat()))
    }

    /// The envelope in stored bytes; checked when it is opened.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(ByteBuf::from(bytes))
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The day whose key opens it; none if it is no envelope.
    pub fn day(&self) -> Option<Day> {
        match self.0.get(..HEADER_LEN)? {
            [VERSION, day @ ..] => Some(Day(i32::from_be_bytes(day.try_into().ok()?))),
            _ => None,
        }
    }

    pub(super) fn parts(&self) -> Option<(&[u8], &[u8])> {
        self.day()?;
        self.0.get(HEADER_LEN..)?.split_at_checked(NONCE_LEN)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sealing::{ContentKey, MasterKey, SealingError};

    fn master_key(byte: u8) -> MasterKey {
        use base64::{Engine, engine::general_purpose::STANDARD};
        MasterKey::parse(&STANDARD.encode([byte; 32])).unwrap()
    }

    fn content_key() -> ContentKey {
        let master_key = master_key(1);
        master_key.unwrap(&master_key.generate(Day(20_000)).unwrap()).unwrap()
    }

    fn place() -> Sealed {
        Sealed {
            conversation_id: ConversationId::random(),
            message_id: MessageId::random(),
            sender_id: UserId::random(),
        }
    }

    #[test]
    fn content_opens_only_where_it_was_sealed_r6_1() {
        let (key, here) = (content_key(), place());
        let envelope = key.seal(&here, b"secret words").unwrap();
        assert_eq!(envelope.day(), Some(Day(20_000)));
        assert!(!envelope.as_bytes().windows(6).any(|window| window == b"secret"));
        assert_eq!(key.open(&here, &envelope).unwrap(), b"secret words");
        for elsewhere in [
            Sealed { conversation_id: ConversationId::random(), ..here },
            Sealed { message_id: MessageId::random(), ..here },
            Sealed { sender_id: UserId::random(), ..here },
        ] {
            assert_eq!(key.open(&elsewhere, &envelope), Err(SealingError::Refused));
        }
        assert_eq!(content_key().open(&here, &envelope), Err(SealingError::Refused), "another key");
    }

    #[test]
    fn a_wrapped_key_opens_only_with_its_master_key_and_day() {
        let wrapped = master_key(1).generate(Day(7)).unwrap();
        assert!(master_key(1).unwrap(&wrapped).is_ok());
        assert!(master_key(2).unwrap(&wrapped).is_err());
        assert!(master_key(1).unwrap(&crate::sealing::WrappedKey { day: Day(8), ..wrapped }).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_opening_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let envelope = Envelope::from_bytes(bytes);
            prop_assert!(content_key().open(&place(), &envelope).is_err());
        }
    }
}
