//! Frames of the gateway: both encodings say the same, and changed ones don't panic.

use chat_shared::{
    clock::Timestamp,
    position::{Cursor, Seq},
    wire::{
        Accepted, BusinessProfile, Case, CaseState, ChangedConversation, Connected, ConversationKind, ConversationName,
        Encoding, ErrorCode, Message, Participant, Presence, ProfileList, ProfileState, Push, Receipt, ReceiptKind,
        Rejected, Reply, Role, ServerFrame, Typing, UserProfile, WireLimits,
    },
};
use proptest::{collection::vec, option, prelude::*};

use super::{
    commands::cost_max,
    mutation::{id, mutated, numbers, texts},
};

const CODES: [ErrorCode; 11] = [
    ErrorCode::Invalid,
    ErrorCode::UnknownCommand,
    ErrorCode::HelloRequired,
    ErrorCode::Unauthenticated,
    ErrorCode::Forbidden,
    ErrorCode::NotFound,
    ErrorCode::Conflict,
    ErrorCode::TooLarge,
    ErrorCode::RateLimited,
    ErrorCode::Unavailable,
    ErrorCode::Internal,
];

fn cursors() -> impl Strategy<Value = Cursor> {
    numbers().prop_map(Cursor)
}

fn times() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp)
}

fn replies() -> impl Strategy<Value = Reply> {
    let codes = proptest::sample::select(&CODES[..]);
    prop_oneof![
        (option::of(numbers()), id(), id(), numbers(), times()).prop_map(
            |(reference, conversation_id, message_id, seq, sent_at)| {
                Reply::Accepted(Accepted { reference, conversation_id, message_id, seq: Seq(seq), sent_at })
            }
        ),
        numbers().prop_map(|reference| Reply::Done { reference }),
        (option::of(numbers()), codes, texts(), option::of(numbers())).prop_map(
            |(reference, code, message, retry_after_ms)| {
                Reply::Rejected(Rejected { reference, code, message, retry_after_ms })
            }
        ),
    ]
}

fn messages() -> impl Strategy<Value = Message> {
    (id(), id(), id(), numbers(), times(), texts()).prop_map(
        |(conversation_id, message_id, sender_id, seq, sent_at, text)| Message {
            conversation_id,
            message_id,
            sender_id,
            seq: Seq(seq),
            sent_at,
            text,
        },
    )
}

fn conversations() -> impl Strategy<Value = ChangedConversation> {
    let participant = (id(), any::<bool>()).prop_map(|(user_id, is_owner)| {
        let role = if is_owner { Role::Owner } else { Role::Member };
        Participant { user_id, role }
    });
    let name = (texts(), 0..9_usize, option::of(texts()), any::<bool>())
        .prop_map(|(text, more, avatar_url, is_fallback)| ConversationName { text, more, avatar_url, is_fallback });
    let shown = (
        name,
        vec(user_profiles(), 0..3),
        option::of(business_profiles().prop_map(Box::new)),
        option::of(cases()),
        any::<bool>(),
    );
    let changed = (vec(participant, 0..4), vec(id(), 0..3), vec(id(), 0..3), vec(id(), 0..2));
    (id(), any::<bool>(), numbers(), shown, changed, numbers(), times()).prop_map(
        |(conversation_id, is_group, version, shown, changed, last_seq, changed_at)| {
            let (name, profiles, business, case, is_blocked) = shown;
            let (participants, added, removed, returned) = changed;
            ChangedConversation {
                conversation_id,
                kind: if is_group { ConversationKind::Group } else { ConversationKind::Direct },
                version,
                name,
                participants,
                profiles,
                business,
                case,
                is_blocked,
                added,
                removed,
                returned,
                last_seq: Seq(last_seq),
                changed_at,
            }
        },
    )
}

fn states() -> impl Strategy<Value = ProfileState> {
    use ProfileState::{Current, Stale, Unavailable, Unknown};
    proptest::sample::select(vec![Current, Stale, Unknown, Unavailable])
}

fn user_profiles() -> impl Strategy<Value = UserProfile> {
    (id(), texts(), option::of(texts()), states()).prop_map(|(user_id, name, avatar_url, state)| UserProfile {
        user_id,
        name,
        avatar_url,
        state,
    })
}

/// Profiles of users and businesses.
pub fn profile_lists() -> impl Strategy<Value = ProfileList> {
    (vec(user_profiles(), 0..3), vec(business_profiles(), 0..3))
        .prop_map(|(users, businesses)| ProfileList { users, businesses })
}

fn business_profiles() -> impl Strategy<Value = BusinessProfile> {
    (id(), texts(), option::of(texts()), states()).prop_map(|(business_id, name, avatar_url, state)| BusinessProfile {
        business_id,
        name,
        avatar_url,
        state,
    })
}

/// Cases of business conversations.
pub fn cases() -> impl Strategy<Value = Case> {
    let state = proptest::sample::select(CaseState::ALL);
    (any::<u32>(), state, times()).prop_map(|(number, state, waiting_since)| Case { number, state, waiting_since })
}

fn receipts() -> impl Strategy<Value = Receipt> {
    (id(), id(), any::<bool>(), numbers(), option::of(id()), option::of(numbers()), times()).prop_map(
        |(conversation_id, user_id, is_read, seq, message_id, unread, at)| Receipt {
            conversation_id,
            user_id,
            kind: if is_read { ReceiptKind::Read } else { ReceiptKind::Delivered },
            seq: Seq(seq),
            message_id,
            unread,
            at,
        },
    )
}

fn pushes() -> impl Strategy<Value = Push> {
    let ready = (id(), option::of(id()), cursors(), any::<bool>(), numbers()).prop_map(
        |(session_id, epoch, cursor, resumed, heartbeat_interval_ms)| {
            let limits = WireLimits::default();
            Push::Ready(Connected { session_id, epoch, cursor, resumed, heartbeat_interval_ms, limits })
        },
    );
    let presence = (id(), any::<bool>(), option::of(times())).prop_map(|(user_id, is_online, last_seen_at)| Presence {
        user_id,
        is_online,
        last_seen_at,
    });
    prop_oneof![
        ready,
        (option::of(cursors()), option::of(numbers()), messages()).prop_map(|(cursor, seen, message)| Push::Message {
            cursor,
            seen_seq: seen.map(Seq),
            message
        }),
        (option::of(cursors()), conversations())
            .prop_map(|(cursor, conversation)| Push::Conversation { cursor, conversation }),
        (option::of(cursors()), receipts()).prop_map(|(cursor, receipt)| Push::Receipt { cursor, receipt }),
        (id(), id(), any::<bool>()).prop_map(|(conversation_id, user_id, is_typing)| Push::Typing {
            typing: Typing { conversation_id, user_id, is_typing }
        }),
        vec(presence, 0..4).prop_map(|users| Push::Presence { users }),
        cursors().prop_map(|cursor| Push::Skipped { cursor }),
        profile_lists().prop_map(|profiles| Push::Profile { profiles }),
        cursors().prop_map(|cursor| Push::Heartbeat { cursor }),
        numbers().prop_map(|reconnect_after_ms| Push::GoingAway { reconnect_after_ms }),
    ]
}

fn frames() -> impl Strategy<Value = ServerFrame> {
    prop_oneof![replies().prop_map(ServerFrame::Reply), pushes().prop_map(ServerFrame::Push)]
}

fn encoded() -> impl Strategy<Value = (Encoding, Vec<u8>)> {
    (proptest::sample::select(&Encoding::ALL[..]), frames()).prop_map(|(encoding, frame)| {
        let bytes = encoding.encode(&frame).unwrap();
        (encoding, bytes)
    })
}

proptest! {
    #[test]
    fn every_frame_of_the_gateway_means_the_same_in_both_encodings(frame in frames()) {
        for encoding in Encoding::ALL {
            prop_assert_eq!(encoding.decode(&encoding.encode(&frame).unwrap()), Ok(frame.clone()));
        }
        // As maps they are the same too, whatever a client reads them with.
        let [json, packed] = Encoding::ALL.map(|encoding| {
            encoding.decode::<serde_json::Value>(&encoding.encode(&frame).unwrap()).unwrap()
        });
        prop_assert_eq!(json, packed);
    }

    #[test]
    fn changed_frames_of_the_gateway_are_read_or_refused_within_bounds(
        (encoding, bytes) in encoded().prop_flat_map(|(encoding, bytes)| (Just(encoding), mutated(Just(bytes))))
    ) {
        let mut decoded = None;
        let cost = allocation_counter::measure(|| decoded = Some(encoding.decode::<ServerFrame>(&bytes)));
        prop_assert!(cost.bytes_max <= cost_max(bytes.len()), "{} bytes cost {}", bytes.len(), cost.bytes_max);
        if let Some(Ok(frame)) = decoded {
            prop_assert_eq!(encoding.decode(&encoding.encode(&frame).unwrap()), Ok(frame));
        }
    }
}
