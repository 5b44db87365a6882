//! The place in an export after which the next page begins, as the caller carries it: opaque text.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chat_shared::{ids::ConversationId, position::Seq};
use uuid::Uuid;

use crate::refusal::Refusal;

/// A conversation whose own line is exported, and its last exported message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportCursor {
    /// Which conversation.
    pub conversation_id: ConversationId,
    /// Messages up to here are exported.
    pub seq: Seq,
}

impl ExportCursor {
    /// Of a conversation of which all is exported. No message has this number.
    const DONE: Seq = Seq(i64::MAX.unsigned_abs());

    /// The beginning of a conversation.
    pub const fn beginning_of(conversation_id: ConversationId) -> Self {
        Self { conversation_id, seq: Seq::ZERO }
    }

    /// The end of a conversation.
    pub const fn end_of(conversation_id: ConversationId) -> Self {
        Self { conversation_id, seq: Self::DONE }
    }

    /// The lowest id that the next conversation may have.
    pub fn next_id(self) -> Uuid {
        let id = self.conversation_id.as_uuid().as_u128();
        Uuid::from_u128(if self.seq == Self::DONE { id.saturating_add(1) } else { id })
    }

    /// The text that callers carry.
    pub fn encode(self) -> String {
        URL_SAFE_NO_PAD.encode([self.conversation_id.as_uuid().as_bytes(), &self.seq.0.to_be_bytes()[..]].concat())
    }

    /// The place that a caller's text means.
    pub fn decode(text: &str) -> Result<Self, Refusal> {
        Self::read(text).ok_or_else(|| Refusal::invalid("`cursor` is not one that a page of an export gave"))
    }

    fn read(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (id, seq) = bytes.split_first_chunk()?;
        let conversation_id = Uuid::from_bytes(*id).try_into().ok()?;
        let seq = Seq(u64::from_be_bytes(seq.try_into().ok()?));
        (seq <= Self::DONE).then_some(Self { conversation_id, seq })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::tests::mutation::{apply, changes};

    proptest! {
        #[test]
        fn a_cursor_survives_the_caller(seq in 0..=i64::MAX.unsigned_abs()) {
            let cursor = ExportCursor { conversation_id: ConversationId::random(), seq: Seq(seq) };
            prop_assert_eq!(ExportCursor::decode(&cursor.encode()), Ok(cursor));
        }

        #[test]
        fn fuzz_a_changed_cursor_is_refused_or_another_that_a_page_could_have_given(
            id in any::<[u8; 16]>(), seq in any::<u64>(), changes in vec(changes(), 0..3)
        ) {
            let mut bytes = URL_SAFE_NO_PAD.encode([&id[..], &seq.to_be_bytes()].concat()).into_bytes();
            apply(&changes, &mut bytes);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Ok(cursor) = ExportCursor::decode(&text) {
                prop_assert!(cursor.seq.to_sql() >= 0, "PostgreSQL must be able to take it");
                prop_assert_eq!(cursor.encode(), text, "one place has one text");
            }
        }

        #[test]
        fn garbage_is_refused_or_means_what_it_says(text in "\\PC{0,40}") {
            if let Ok(cursor) = ExportCursor::decode(&text) {
                prop_assert_eq!(cursor.encode(), text);
            }
        }
    }

    #[test]
    fn a_cut_cursor_is_refused() {
        let text = ExportCursor::beginning_of(ConversationId::random()).encode();
        for cut in ["", &text[1..], &text[..text.len() - 1], "AAAA", "%00", "\0"] {
            assert!(ExportCursor::decode(cut).is_err(), "{cut:?}");
        }
    }

    #[test]
    fn the_conversation_itself_is_next_until_it_is_done() {
        let id = ConversationId::random();
        let next = |cursor: ExportCursor| cursor.next_id().as_u128() - id.as_uuid().as_u128();
        assert_eq!(next(ExportCursor::beginning_of(id)), 0);
        assert_eq!(next(ExportCursor { conversation_id: id, seq: Seq(7) }), 0);
        assert_eq!(next(ExportCursor::end_of(id)), 1);
    }
}
