//! What a conversation is called (R2.5). Pure.

use chat_shared::{
    ids::UserId,
    wire::{ConversationKind, ConversationName, ProfileState, UserProfile},
};

/// Participants whose names make up a group's.
const NAMES_MAX: usize = 3;

/// What a group is called that nobody takes part in any more.
const NEUTRAL_GROUP: &str = "Group";

/// The name of a conversation with these participants, in the order they joined, as one of them sees it.
pub fn name_of(kind: ConversationKind, participants: &[UserProfile], viewer: UserId) -> ConversationName {
    let (shown, more): (Vec<_>, _) = match kind {
        ConversationKind::Direct => (participants.iter().filter(|profile| profile.user_id != viewer).collect(), 0),
        // The customer comes first, to whom alone the business is a participant.
        ConversationKind::Business => {
            (participants.iter().filter(|profile| profile.user_id != viewer).take(1).collect(), 0)
        }
        ConversationKind::Group | ConversationKind::Unknown => {
            (participants.iter().take(NAMES_MAX).collect(), participants.len().saturating_sub(NAMES_MAX))
        }
    };
    let names: Vec<_> = shown.iter().map(|profile| profile.name.as_str()).collect();
    ConversationName {
        text: if names.is_empty() { NEUTRAL_GROUP.to_owned() } else { names.join(", ") },
        more,
        avatar_url: match (kind, shown.first()) {
            (ConversationKind::Direct | ConversationKind::Business, Some(other)) => other.avatar_url.clone(),
            _ => None,
        },
        is_fallback: names.is_empty() || shown.iter().any(|profile| is_neutral(profile)),
    }
}

const fn is_neutral(profile: &UserProfile) -> bool {
    matches!(profile.state, ProfileState::Unknown | ProfileState::Unavailable)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn profile(name: &str, state: ProfileState) -> UserProfile {
        let avatar_url = Some(format!("https://example.com/{name}.jpg"));
        UserProfile { user_id: UserId::random(), name: name.to_owned(), avatar_url, state }
    }

    fn profiles(names: &[&str]) -> Vec<UserProfile> {
        names.iter().map(|name| profile(name, ProfileState::Current)).collect()
    }

    #[test]
    fn a_direct_conversation_is_called_after_the_other_one_r2_5() {
        let pair = profiles(&["Asha", "Bikram"]);
        for (viewer, other) in [(0, 1), (1, 0)] {
            let name = name_of(ConversationKind::Direct, &pair, pair[viewer].user_id);
            assert_eq!((&name.text, &name.avatar_url), (&pair[other].name, &pair[other].avatar_url));
            assert_eq!((name.more, name.is_fallback), (0, false));
        }
    }

    #[test]
    fn a_group_is_called_after_the_first_three_who_joined_r2_5() {
        let all = profiles(&["Asha", "Bikram", "Chandra", "Deepa", "Ekta"]);
        let expected = [("Asha", 0), ("Asha, Bikram", 0), ("Asha, Bikram, Chandra", 0), ("Asha, Bikram, Chandra", 1)];
        for (count, (text, more)) in (1..).zip(expected) {
            let name = name_of(ConversationKind::Group, &all[..count], all[0].user_id);
            assert_eq!((name.text.as_str(), name.more, name.avatar_url), (text, more, None));
        }
        assert_eq!(name_of(ConversationKind::Group, &all, all[4].user_id).more, 2, "the same for everybody");
        let nobody = name_of(ConversationKind::Group, &[], all[0].user_id);
        assert_eq!((nobody.text.as_str(), nobody.is_fallback), ("Group", true));
    }

    #[test]
    fn a_neutral_name_that_is_shown_is_said_to_be_one_r2_5() {
        let mut group = profiles(&["Asha", "Bikram", "Chandra"]);
        let is_fallback = |group: &[UserProfile]| name_of(ConversationKind::Group, group, group[0].user_id).is_fallback;
        group[1].state = ProfileState::Stale;
        assert!(!is_fallback(&group), "it is a name all the same");
        group.push(profile("User", ProfileState::Unavailable));
        assert!(!is_fallback(&group), "it isn't shown");
        group[2].state = ProfileState::Unknown;
        assert!(is_fallback(&group));
    }

    proptest! {
        #[test]
        fn every_participant_is_named_or_counted_r2_5(names in proptest::collection::vec("[A-Z][a-z]{1,8}", 0..9)) {
            let group: Vec<_> = names.iter().map(|name| profile(name, ProfileState::Current)).collect();
            let name = name_of(ConversationKind::Group, &group, UserId::random());
            let named = if group.is_empty() { 0 } else { name.text.split(", ").count() };
            prop_assert_eq!(named + name.more, group.len());
            prop_assert!(!name.text.is_empty());
        }
    }
}
