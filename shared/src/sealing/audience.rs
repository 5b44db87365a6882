//! Binds a message to those it was accepted for, so that nobody who carries it on can have it opened for anybody else.

use aws_lc_rs::{
    hkdf::{KeyType, Prk},
    hmac,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

use super::{ContentKey, Sealed, SealingError};
use crate::wire::Participant;

/// Sets this key apart from that of the conversation's texts.
const PURPOSE: &[u8] = b"audience";

/// An authenticator of a message's participants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AudienceTag(ByteBuf);

struct KeyBytes;

impl KeyType for KeyBytes {
    fn len(&self) -> usize {
        32
    }
}

impl ContentKey {
    /// The tag of a message that these may read.
    pub fn tag_audience(&self, place: &Sealed, participants: &[Participant]) -> Result<AudienceTag, SealingError> {
        let key = self.audience_key(place)?;
        Ok(AudienceTag(ByteBuf::from(hmac::sign(&key, &audience(place, participants)).as_ref())))
    }

    /// Refuses a tag that was made for others.
    pub fn check_audience(
        &self,
        place: &Sealed,
        participants: &[Participant],
        tag: &AudienceTag,
    ) -> Result<(), SealingError> {
        let key = self.audience_key(place)?;
        hmac::verify(&key, &audience(place, participants), &tag.0).map_err(|_| SealingError::Refused)
    }

    fn audience_key(&self, place: &Sealed) -> Result<hmac::Key, SealingError> {
        let conversation = place.conversation_id.as_uuid().into_bytes();
        derived(self.secret(), &[&conversation, PURPOSE])
    }
}

fn derived(secret: &Prk, info: &[&[u8]]) -> Result<hmac::Key, SealingError> {
    let mut key = Zeroizing::new([0; 32]);
    let filled = secret.expand(info, KeyBytes).and_then(|expanded| expanded.fill(&mut *key));
    filled.map_err(|_| SealingError::Refused)?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &*key))
}

fn audience(place: &Sealed, participants: &[Participant]) -> Vec<u8> {
    let users = participants.iter().map(|participant| participant.user_id.as_uuid().into_bytes());
    place.bytes().into_iter().chain(users.flatten()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Day,
        ids::{ConversationId, MessageId, UserId},
        wire::Role,
    };

    #[test]
    fn a_tag_holds_for_its_message_and_its_participants_alone() {
        let key = ContentKey::new(Day(1), &[7; 32]);
        let place = Sealed {
            conversation_id: ConversationId::random(),
            message_id: MessageId::random(),
            sender_id: UserId::random(),
        };
        let user = |user_id| Participant { user_id, role: Role::Member };
        let participants = [user(place.sender_id), user(UserId::random())];
        let tag = key.tag_audience(&place, &participants).unwrap();
        assert_eq!(key.check_audience(&place, &participants, &tag), Ok(()));
        let more = [&participants[..], &[user(UserId::random())]].concat();
        let elsewhere = Sealed { conversation_id: ConversationId::random(), ..place };
        let other_key = ContentKey::new(Day(1), &[8; 32]);
        for (key, place, participants, tag) in [
            (&key, &place, &more[..], &tag),
            (&key, &place, &participants[..1], &tag),
            (&key, &elsewhere, &participants[..], &tag),
            (&other_key, &place, &participants[..], &tag),
            (&key, &place, &participants[..], &AudienceTag::default()),
        ] {
            assert_eq!(key.check_audience(place, participants, tag), Err(SealingError::Refused));
        }
    }
}
