//! What was sealed opens as it was sealed, where it was sealed, or not at all.

use base64::{Engine, engine::general_purpose::STANDARD};
use chat_shared::{
    clock::Day,
    ids::{DeviceId, UserId},
    sealing::{ContentKey, Envelope, MasterKey, Sealed, WrappedKey},
};
use proptest::{collection::vec, prelude::*};

use super::mutation::{apply, changes, id};

/// A version, a day, a nonce and a tag.
const ENVELOPE_BYTES_MIN: usize = 5 + 12 + 16;

fn master_key(byte: u8) -> MasterKey {
    MasterKey::parse(&STANDARD.encode([byte; 32])).unwrap()
}

fn content_key(day: Day) -> ContentKey {
    let master_key = master_key(1);
    master_key.unwrap(&master_key.generate(day).unwrap()).unwrap()
}

fn places() -> impl Strategy<Value = Sealed> {
    (id(), id(), id()).prop_map(|(conversation_id, message_id, sender_id)| Sealed {
        conversation_id,
        message_id,
        sender_id,
    })
}

proptest! {
    #[test]
    fn a_changed_envelope_does_not_open(
        day in any::<i32>(), place in places(), text in vec(any::<u8>(), 0..300), changes in vec(changes(), 0..4)
    ) {
        let key = content_key(Day(day));
        let envelope = key.seal(&place, &text).unwrap();
        prop_assert_eq!(envelope.day(), Some(Day(day)));
        prop_assert_eq!(envelope.as_bytes().len(), ENVELOPE_BYTES_MIN + text.len());
        let mut bytes = envelope.as_bytes().to_vec();
        apply(&changes, &mut bytes);
        let is_same = bytes == envelope.as_bytes();
        let opened = key.open(&place, &Envelope::from_bytes(bytes));
        prop_assert_eq!(opened.is_ok(), is_same);
        prop_assert!(opened.is_err() || opened == Ok(text));
    }

    #[test]
    fn an_envelope_opens_at_no_other_place(place in places(), other in places(), which in 1..8_u8) {
        let key = content_key(Day(7));
        let envelope = key.seal(&place, b"text").unwrap();
        let mut elsewhere = place;
        if which & 1 != 0 {
            elsewhere.conversation_id = other.conversation_id;
        }
        if which & 2 != 0 {
            elsewhere.message_id = other.message_id;
        }
        if which & 4 != 0 {
            elsewhere.sender_id = other.sender_id;
        }
        prop_assert_eq!(key.open(&elsewhere, &envelope).is_ok(), elsewhere == place);
    }

    #[test]
    fn any_bytes_are_no_envelope(bytes in vec(any::<u8>(), 0..300), place in places()) {
        prop_assert!(content_key(Day(7)).open(&place, &Envelope::from_bytes(bytes)).is_err());
    }

    #[test]
    fn a_changed_wrapped_key_does_not_unwrap(day in any::<i32>(), other in any::<i32>(), changes in vec(changes(), 0..4)) {
        let wrapped = master_key(1).generate(Day(day)).unwrap();
        let mut bytes = wrapped.bytes.clone();
        apply(&changes, &mut bytes);
        let is_same = bytes == wrapped.bytes;
        let unwrap = |day, bytes: &[u8]| {
            let wrapped = WrappedKey { day: Day(day), bytes: bytes.to_vec(), master_key_id: wrapped.master_key_id.clone() };
            (master_key(1).unwrap(&wrapped).is_ok(), master_key(2).unwrap(&wrapped).is_ok())
        };
        prop_assert_eq!(unwrap(day, &bytes), (is_same, false));
        prop_assert_eq!(unwrap(other, &wrapped.bytes), (other == day, false));
    }

    #[test]
    fn a_changed_address_does_not_open(
        user_id in id::<UserId>(), device_id in id::<DeviceId>(), other in id::<UserId>(),
        address in vec(any::<u8>(), 0..300), changes in vec(changes(), 0..4)
    ) {
        let master_key = master_key(1);
        let key = master_key.addresses();
        let sealed = key.seal(user_id, device_id, &address).unwrap();
        let mut bytes = sealed.clone();
        apply(&changes, &mut bytes);
        match key.open(user_id, device_id, &bytes) {
            Ok(opened) => prop_assert!(bytes == sealed && *opened == address),
            Err(_) => prop_assert!(bytes != sealed),
        }
        prop_assert!(other == user_id || key.open(other, device_id, &sealed).is_err());
    }
}
