//! The place in a user's list after which the next page begins, as clients carry it: opaque text.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chat_shared::{clock::Timestamp, ids::ConversationId};
use time::OffsetDateTime;
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
        let last_activity_at = Timestamp(i64::from_be_bytes(*at));
        // A page gives no other, and PostgreSQL would take no time from long before.
        let is_ours = last_activity_at >= Timestamp(0)
            && Timestamp::from(OffsetDateTime::from(last_activity_at)) == last_activity_at;
        is_ours.then_some(Self { last_activity_at, conversation_id })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::tests::mutation::{apply, changes};

    /// The last millisecond of the year 9999.
    const LAST: i64 = 253_402_300_799_999;

    proptest! {
        #[test]
        fn a_cursor_survives_the_client(at in 0..=LAST) {
            let cursor = ListCursor { last_activity_at: Timestamp(at), conversation_id: ConversationId::random() };
            prop_assert_eq!(ListCursor::decode(&cursor.encode()), Ok(cursor));
        }

        #[test]
        fn fuzz_a_changed_cursor_is_refused_or_another_that_a_page_could_have_given(
            at in prop_oneof![0..=LAST, any::<i64>()], id in any::<[u8; 16]>(), changes in vec(changes(), 0..3)
        ) {
            let mut bytes = URL_SAFE_NO_PAD.encode([&at.to_be_bytes()[..], &id].concat()).into_bytes();
            apply(&changes, &mut bytes);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Ok(cursor) = ListCursor::decode(&text) {
                prop_assert!((0..=LAST).contains(&cursor.last_activity_at.0), "PostgreSQL must be able to take it");
                prop_assert_eq!(cursor.encode(), text, "one place has one text");
            }
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
