//! The master keys of a process: the current one, and the old one while the master key is exchanged.
//!
//! **Invariant:** nothing new is sealed with the old key.

use super::{ContentKey, MasterKey, SealingError, WrappedKey};
use crate::{
    ids::{DeviceId, UserId},
    wire::NotificationAddress,
};

/// Seals with the current master key, opens with the current or the old one.
pub struct MasterKeys {
    current: MasterKey,
    old: Option<MasterKey>,
}

/// Two keys that rows could not tell apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the old master key has the same id as the current one, {0}: give another key, or none if no key is exchanged")]
pub struct SameMasterKey(String);

/// The address of a device as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedAddress {
    /// The address: nonce, ciphertext and tag.
    pub address: Vec<u8>,
    /// The same for equal addresses, as long as the master key is the same.
    pub fingerprint: Vec<u8>,
}

impl From<MasterKey> for MasterKeys {
    fn from(current: MasterKey) -> Self {
        Self { current, old: None }
    }
}

impl MasterKeys {
    /// `current` seals and opens, `old` only opens. An error if both have the same id.
    pub fn new(current: MasterKey, old: Option<MasterKey>) -> Result<Self, SameMasterKey> {
        match &old {
            Some(old) if old.id() == current.id() => Err(SameMasterKey(current.id().to_owned())),
            _ => Ok(Self { current, old }),
        }
    }

    /// The key that seals.
    pub const fn current(&self) -> &MasterKey {
        &self.current
    }

    /// The key that only opens.
    pub const fn old(&self) -> Option<&MasterKey> {
        self.old.as_ref()
    }

    /// Both, the current one first.
    fn all(&self) -> impl Iterator<Item = &MasterKey> {
        std::iter::once(&self.current).chain(&self.old)
    }

    /// Whether one of them has this id.
    pub fn has(&self, id: &str) -> bool {
        self.all().any(|key| key.id() == id)
    }

    /// The key that a row names; the current one if the row names neither.
    fn named(&self, id: &str) -> &MasterKey {
        self.all().find(|key| key.id() == id).unwrap_or(&self.current)
    }

    /// The content key in `wrapped`.
    pub fn unwrap(&self, wrapped: &WrappedKey) -> Result<ContentKey, SealingError> {
        self.named(&wrapped.master_key_id).unwrap(wrapped)
    }

    /// The same content key, wrapped by the current master key; none if it is already.
    pub fn rewrap(&self, wrapped: &WrappedKey) -> Result<Option<WrappedKey>, SealingError> {
        let key = self.named(&wrapped.master_key_id).open(wrapped)?;
        if wrapped.master_key_id == self.current.id() {
            return Ok(None);
        }
        let anew = self.current.wrap(wrapped.day, &key)?;
        // The caller replaces the only copy by it.
        if self.current.open(&anew)? == key { Ok(Some(anew)) } else { Err(SealingError::Refused) }
    }

    /// Seals the address of a user's device.
    pub fn seal_address(
        &self,
        user_id: UserId,
        device_id: DeviceId,
        address: &NotificationAddress,
    ) -> Result<SealedAddress, SealingError> {
        let key = self.current.addresses();
        let bytes = serde_json::to_vec(address).map_err(|_| SealingError::Malformed)?;
        let fingerprint = key.fingerprint(&address.identity());
        Ok(SealedAddress { address: key.seal(user_id, device_id, &bytes)?, fingerprint })
    }

    /// The address that was sealed for that device of that user. Rows don't name the key of an address, so each is tried.
    pub fn open_address(
        &self,
        user_id: UserId,
        device_id: DeviceId,
        sealed: &[u8],
    ) -> Result<NotificationAddress, SealingError> {
        let opened = self.all().find_map(|key| key.addresses().open(user_id, device_id, sealed).ok());
        serde_json::from_slice(&opened.ok_or(SealingError::Refused)?).map_err(|_| SealingError::Malformed)
    }

    /// The same address, sealed with the current master key; none if it is already.
    pub fn reseal_address(
        &self,
        user_id: UserId,
        device_id: DeviceId,
        sealed: &[u8],
    ) -> Result<Option<SealedAddress>, SealingError> {
        if self.current.addresses().open(user_id, device_id, sealed).is_ok() {
            return Ok(None);
        }
        let address = self.open_address(user_id, device_id, sealed)?;
        self.seal_address(user_id, device_id, &address).map(Some)
    }

    /// The fingerprints under which an address may be stored, one for each master key.
    pub fn fingerprints(&self, address: &NotificationAddress) -> Vec<Vec<u8>> {
        let identity = address.identity();
        self.all().map(|key| key.addresses().fingerprint(&identity)).collect()
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::*;
    use crate::clock::Day;

    const DAY: Day = Day(20_000);

    fn key(byte: u8) -> MasterKey {
        MasterKey::parse(&STANDARD.encode([byte; 32])).unwrap()
    }

    fn both() -> MasterKeys {
        MasterKeys::new(key(2), Some(key(1))).unwrap()
    }

    #[test]
    fn both_keys_open_and_the_current_one_seals_r1_5() {
        let (old, new) = (MasterKeys::from(key(1)), MasterKeys::from(key(2)));
        let (user_id, device_id) = (UserId::random(), DeviceId::random());
        let address = NotificationAddress::Fcm { token: "token".to_owned() };
        let [before, after] = [&old, &new].map(|keys| keys.seal_address(user_id, device_id, &address).unwrap());
        for sealed in [&before, &after] {
            assert!(both().open_address(user_id, device_id, &sealed.address).unwrap() == address);
            assert!(both().fingerprints(&address).contains(&sealed.fingerprint));
        }
        let sealed = both().seal_address(user_id, device_id, &address).unwrap();
        assert_eq!(sealed.fingerprint, after.fingerprint);
        assert!(old.open_address(user_id, device_id, &sealed.address).is_err());
        for wrapped in [key(1).generate(DAY).unwrap(), key(2).generate(DAY).unwrap()] {
            assert!(both().unwrap(&wrapped).is_ok());
        }
        assert!(both().unwrap(&key(3).generate(DAY).unwrap()).is_err());
    }

    #[test]
    fn rewrapped_keys_and_addresses_open_with_the_current_key_alone_r1_5() {
        let (old, new) = (MasterKeys::from(key(1)), MasterKeys::from(key(2)));
        let place = crate::sealing::Sealed {
            conversation_id: crate::ids::ConversationId::random(),
            message_id: crate::ids::MessageId::random(),
            sender_id: UserId::random(),
        };
        let wrapped = key(1).generate(DAY).unwrap();
        let envelope = old.unwrap(&wrapped).unwrap().seal(&place, b"text").unwrap();
        let anew = both().rewrap(&wrapped).unwrap().unwrap();
        assert_eq!((anew.day, anew.master_key_id.as_str()), (DAY, key(2).id()));
        assert_eq!(new.unwrap(&anew).unwrap().open(&place, &envelope).unwrap(), b"text");
        assert!(old.unwrap(&anew).is_err());
        assert!(both().rewrap(&anew).unwrap().is_none(), "it is there already");

        let (user_id, device_id) = (UserId::random(), DeviceId::random());
        let address = NotificationAddress::Apns { token: "0A".to_owned() };
        let sealed = old.seal_address(user_id, device_id, &address).unwrap();
        let anew = both().reseal_address(user_id, device_id, &sealed.address).unwrap().unwrap();
        assert!(new.open_address(user_id, device_id, &anew.address).unwrap() == address);
        assert_eq!(vec![anew.fingerprint], new.fingerprints(&address));
        assert_eq!(both().reseal_address(user_id, device_id, &anew.address), Ok(None));
    }

    #[test]
    fn keys_and_addresses_that_do_not_open_are_not_rewrapped() {
        let other = key(3).generate(DAY).unwrap();
        let mut damaged = key(1).generate(DAY).unwrap();
        damaged.bytes[20] ^= 1;
        for wrapped in [other, damaged] {
            assert!(both().rewrap(&wrapped).is_err());
        }
        assert_eq!(both().reseal_address(UserId::random(), DeviceId::random(), &[7; 50]), Err(SealingError::Refused));
    }

    #[test]
    fn two_keys_of_one_id_are_refused() {
        let error = MasterKeys::new(key(1), Some(key(1))).err().unwrap();
        assert!(error.to_string().contains(key(1).id()));
    }
}
