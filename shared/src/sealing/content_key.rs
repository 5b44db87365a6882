//! A day's content key, from which each conversation's key is derived.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf, rand,
};

use super::{Envelope, Sealed, SealingError};
use crate::{clock::Day, ids::ConversationId};

/// A content key as it stands in the database.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// The day it is for.
    pub day: Day,
    /// Which master key opens it.
    pub master_key_id: String,
    /// Nonce, ciphertext and tag.
    pub bytes: Vec<u8>,
}

/// A day's key, ready to seal and open.
pub struct ContentKey {
    day: Day,
    secret: hkdf::Prk,
}

impl ContentKey {
    pub(super) fn new(day: Day, key: &[u8]) -> Self {
        Self { day, secret: hkdf::Salt::new(hkdf::HKDF_SHA256, b"chat content v1").extract(key) }
    }

    /// What other keys of the day come from.
    pub(super) const fn secret(&self) -> &hkdf::Prk {
        &self.secret
    }

    /// The day it is for.
    pub const fn day(&self) -> Day {
        self.day
    }

    /// Seals `text` for one place: it opens nowhere else.
    pub fn seal(&self, place: &Sealed, text: &[u8]) -> Result<Envelope, SealingError> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| SealingError::NoRandomness)?;
        let mut bytes = text.to_vec();
        self.conversation_key(place.conversation_id)?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place.bytes()), &mut bytes)
            .map_err(|_| SealingError::Refused)?;
        Ok(Envelope::new(self.day, &nonce, &bytes))
    }

    /// Opens an envelope of this key's day.
    pub fn open(&self, place: &Sealed, envelope: &Envelope) -> Result<Vec<u8>, SealingError> {
        let (nonce, sealed) = envelope.parts().ok_or(SealingError::Malformed)?;
        // The day isn't sealed with the text, so it is compared.
        if envelope.day() != Some(self.day) {
            return Err(SealingError::Refused);
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealingError::Malformed)?;
        let mut bytes = sealed.to_vec();
        let length = self
            .conversation_key(place.conversation_id)?
            .open_in_place(nonce, Aad::from(place.bytes()), &mut bytes)
            .map_err(|_| SealingError::Refused)?
            .len();
        bytes.truncate(length);
        Ok(bytes)
    }

    fn conversation_key(&self, conversation_id: ConversationId) -> Result<LessSafeKey, SealingError> {
        let info = [conversation_id.as_uuid().into_bytes()];
        let info = info.each_ref().map(|id| &id[..]);
        let key = self.secret.expand(&info, &AES_256_GCM).map_err(|_| SealingError::Refused)?;
        Ok(LessSafeKey::new(UnboundKey::from(key)))
    }
}
