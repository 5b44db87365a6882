//! The place in a user's list after which the next page begins, as clients carry it: opaque text.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chat_shared::{clock::Timestamp, ids::ConversationId};
use uuid::Uuid;

use crate::refusal::Refusal;

/// The last conversation of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListCursor {
    /// Its latest activity.
    pub last_activity_at: Timestamp,
    /// Which one, among those with the same activity.
    pub conversation_id: ConversationId,
}

impl ListCursor {
    /// The text that clients carry.
    pub fn encode(self) -> String {
        let at = self.last_activity_at.0.to_be_bytes();
        URL_SAFE_NO_PAD.encode([&at[..], self.conversation_id.as_uuid().as_bytes()].concat())
    }

    /// The place that a client's text means.
    pub fn decode(text: &str) -> Result<Self, Refusal> {
        Self::read(text).ok_or_else(|| Refusal::invalid("`cursor` is not one that a page gave as `next_cursor`"))
    }

    fn read(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (at, id) = bytes.split_first_chunk()?;
        let conversation_id = Uuid::from_slice(id).ok()?.try_into().ok()?;
        Some(Self { last_activity_at: Timestamp(i64::from_be_bytes(*at)), conversation_id })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_survives_the_client(at in any::<i64>()) {
            let cursor = ListCursor { last_activity_at: Timestamp(at), conversation_id: ConversationId::random() };
            prop_assert_eq!(ListCursor::decode(&cursor.encode()), Ok(cursor));
        }

        #[test]
        fn garbage_is_refused_or_means_what_it_says(text in "\\PC{0,40}") {
            if let Ok(cursor) = ListCursor::decode(&text) {
                prop_assert_eq!(cursor.encode(), text);
            }
        }
    }

    #[test]
    fn a_cut_cursor_is_refused() {
        let cursor = ListCursor { last_activity_at: Timestamp(7), conversation_id: ConversationId::random() };
        let text = cursor.encode();
        for cut in ["", &text[1..], &text[..text.len() - 1], "AAAA", "%00", "\0"] {
            assert!(ListCursor::decode(cut).is_err(), "{cut:?}");
        }
    }
}
