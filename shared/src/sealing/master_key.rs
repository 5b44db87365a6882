//! The master key, which is never in the database, wraps the days' content keys.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest, rand,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::{AddressKey, ContentKey, SealingError, WrappedKey};
use crate::clock::Day;

/// A file or setting that holds no master key.
#[derive(Debug, thiserror::Error)]
pub enum InvalidMasterKey {
    /// It isn't 32 bytes in base64.
    #[error("a master key is 32 random bytes in base64; make one with `head -c 32 /dev/urandom | base64`")]
    Malformed,
}

/// Wraps and unwraps content keys.
pub struct MasterKey {
    key: LessSafeKey,
    addresses: AddressKey,
    id: String,
}

impl MasterKey {
    /// The key in a text: 32 bytes in base64.
    pub fn parse(text: &str) -> Result<Self, InvalidMasterKey> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| InvalidMasterKey::Malformed)?);
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| InvalidMasterKey::Malformed)?;
        let fingerprint = digest::digest(&digest::SHA256, &bytes);
        let id = fingerprint.as_ref().first_chunk().map_or(0, |start| u32::from_be_bytes(*start));
        let addresses = AddressKey::derive(&bytes).map_err(|_| InvalidMasterKey::Malformed)?;
        Ok(Self { key: LessSafeKey::new(key), addresses, id: format!("{id:08x}") })
    }

    /// The start of the key's fingerprint, stored beside what it wraps.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key that seals the addresses of devices, which has no day.
    pub const fn addresses(&self) -> &AddressKey {
        &self.addresses
    }

    /// A new random content key for `day`, wrapped.
    pub fn generate(&self, day: Day) -> Result<WrappedKey, SealingError> {
        let mut key = Zeroizing::new([0; 32]);
        rand::fill(&mut *key).map_err(|_| SealingError::NoRandomness)?;
        self.wrap(day, &*key)
    }

    /// Wraps the content key of a day.
    pub(super) fn wrap(&self, day: Day, key: &[u8]) -> Result<WrappedKey, SealingError> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| SealingError::NoRandomness)?;
        let mut bytes = Zeroizing::new(key.to_vec());
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), place(day), &mut bytes)
            .map_err(|_| SealingError::Refused)?;
        Ok(WrappedKey { day, master_key_id: self.id.clone(), bytes: [&nonce[..], &bytes, tag.as_ref()].concat() })
    }

    /// The content key in `wrapped`.
    pub fn unwrap(&self, wrapped: &WrappedKey) -> Result<ContentKey, SealingError> {
        Ok(ContentKey::new(wrapped.day, &self.open(wrapped)?))
    }

    /// The bytes of the content key in `wrapped`.
    pub(super) fn open(&self, wrapped: &WrappedKey) -> Result<Zeroizing<Vec<u8>>, SealingError> {
        let (nonce, sealed) = wrapped.bytes.split_at_checked(NONCE_LEN).ok_or(SealingError::Malformed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealingError::Malformed)?;
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let length =
            self.key.open_in_place(nonce, place(wrapped.day), &mut bytes).map_err(|_| SealingError::Refused)?.len();
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// Binds a wrapped key to its day, so that rows can't be exchanged.
fn place(day: Day) -> Aad<[u8; 20]> {
    let mut place = *b"chat content key\0\0\0\0";
    place[16..].copy_from_slice(&day.0.to_be_bytes());
    Aad::from(place)
}
