//! Content at rest is ciphertext: one content key a day, wrapped by a master key, and envelopes.
//!
//! Destroying a day's key makes everything sealed on that day unreadable in every copy.

mod address_key;
mod audience;
mod content_key;
mod envelope;
mod master_key;
mod master_keys;

pub use address_key::AddressKey;
pub use audience::AudienceTag;
pub use content_key::{ContentKey, WrappedKey};
pub use envelope::{Envelope, Sealed};
pub use master_key::{InvalidMasterKey, MasterKey};
pub use master_keys::{MasterKeys, SameMasterKey, SealedAddress};

/// Why something can't be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealingError {
    /// The bytes are no envelope.
    #[error("the bytes are no envelope")]
    Malformed,
    /// Another key, another place, or changed bytes.
    #[error("the envelope does not open with this key at this place")]
    Refused,
    /// The operating system gave no randomness.
    #[error("no randomness is available")]
    NoRandomness,
}
