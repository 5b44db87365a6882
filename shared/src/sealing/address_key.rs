//! The key that seals the addresses of devices. It comes from the master key, since addresses outlive days.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    error::Unspecified,
    hkdf::{HKDF_SHA256, KeyType, Prk, Salt},
    hmac, rand,
};
use zeroize::Zeroizing;

use super::SealingError;
use crate::ids::{DeviceId, UserId};

/// Seals addresses, and makes fingerprints by which equal ones are found.
pub struct AddressKey {
    seal: LessSafeKey,
    fingerprint: hmac::Key,
}

/// The length of a derived key, in bytes.
struct KeyBytes;

impl KeyType for KeyBytes {
    fn len(&self) -> usize {
        32
    }
}

impl AddressKey {
    pub(super) fn derive(master: &[u8]) -> Result<Self, Unspecified> {
        let root = Salt::new(HKDF_SHA256, b"chat device addresses").extract(master);
        let seal = UnboundKey::new(&AES_256_GCM, &*derived(&root, b"seal")?)?;
        let fingerprint = hmac::Key::new(hmac::HMAC_SHA256, &*derived(&root, b"fingerprint")?);
        Ok(Self { seal: LessSafeKey::new(seal), fingerprint })
    }

    /// Seals the address of a user's device.
    pub fn seal(&self, user_id: UserId, device_id: DeviceId, address: &[u8]) -> Result<Vec<u8>, SealingError> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| SealingError::NoRandomness)?;
        let mut sealed = address.to_vec();
        self.seal
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place(user_id, device_id)),
                &mut sealed,
            )
            .map_err(|_| SealingError::Refused)?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// The address that was sealed for that device of that user.
    pub fn open(
        &self,
        user_id: UserId,
        device_id: DeviceId,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealingError> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN).ok_or(SealingError::Malformed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealingError::Malformed)?;
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let opened = self
            .seal
            .open_in_place(nonce, Aad::from(place(user_id, device_id)), &mut bytes)
            .map_err(|_| SealingError::Refused)?
            .len();
        bytes.truncate(opened);
        Ok(bytes)
    }

    /// The same for equal addresses, and of no use without the key.
    pub fn fingerprint(&self, address: &[u8]) -> Vec<u8> {
        hmac::sign(&self.fingerprint, address).as_ref().to_vec()
    }
}

fn derived(root: &Prk, purpose: &[u8]) -> Result<Zeroizing<[u8; 32]>, Unspecified> {
    let mut key = Zeroizing::new([0; 32]);
    root.expand(&[purpose], KeyBytes)?.fill(&mut *key)?;
    Ok(key)
}

/// Binds an address to its row, so that rows can't be exchanged.
fn place(user_id: UserId, device_id: DeviceId) -> [u8; 32] {
    let mut place = [0; 32];
    place[..16].copy_from_slice(user_id.as_uuid().as_bytes());
    place[16..].copy_from_slice(device_id.as_uuid().as_bytes());
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_opens_only_in_its_own_row_and_equal_ones_have_equal_fingerprints() {
        let key = AddressKey::derive(&[7; 32]).unwrap();
        let (user_id, device_id) = (UserId::random(), DeviceId::random());
        let sealed = key.seal(user_id, device_id, b"token").unwrap();
        assert!(!sealed.windows(5).any(|part| part == b"token"));
        assert_eq!(**key.open(user_id, device_id, &sealed).unwrap(), *b"token");
        assert!(key.open(UserId::random(), device_id, &sealed).is_err());
        assert!(key.open(user_id, DeviceId::random(), &sealed).is_err());
        assert!(AddressKey::derive(&[8; 32]).unwrap().open(user_id, device_id, &sealed).is_err());
        assert!(key.open(user_id, device_id, &sealed[..5]).is_err());
        assert_eq!(key.fingerprint(b"token"), key.fingerprint(b"token"));
        assert_ne!(key.fingerprint(b"token"), key.fingerprint(b"other"));
    }
}
