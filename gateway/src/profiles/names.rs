//! What a conversation is called (R2.5). Pure.

use chat_shared::{
    ids::UserId,
    wire::{ConversationKind, ConversationName, ProfileState, UserProfile},
};

/// Participants whose names make up a group's.
const NAMES_MAX: usize = 3;

/// The name of a conversation with these participants, in the order they joined, as one of them sees it.
pub fn name_of(kind: ConversationKind, participants: &[UserProfile], viewer: UserId) -> ConversationName {
    let (named, more): (Vec<_>, _) = match kind {
        ConversationKind::Direct => (participants.iter().filter(|profile| profile.user_id != viewer).collect(), 0),
        ConversationKind::Group => {
            (participants.iter().take(NAMES_MAX).collect(), participants.len().saturating_sub(NAMES_MAX))
        }
    };
    let names: Vec<_> = named.iter().map(|profile| profile.name.as_str()).collect();
    ConversationName {
        text: names.join(", "),
        more,
        avatar_url: match (kind, named.first()) {
            (ConversationKind::Direct, Some(other)) => other.avatar_url.clone(),
            _ => None,
        },
        is_fallback: named
            .iter()
            .any(|profile| matches!(profile.state, ProfileState::Unknown | ProfileState::Unavailable)),
    }
}
