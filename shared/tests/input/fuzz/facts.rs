//! What services tell each other: events, deliveries and jobs survive their encoding, and changed ones don't panic.

use chat_shared::{
    clock::Timestamp,
    delivery::{Delivery, NumberedEvent, PresenceChange, Recipient, Revocation},
    event::{
        BlocksChanged, BusinessPart, DeliveredAdvanced, Event, Fact, MessageSent, Participants, ParticipantsChanged,
        ReadAdvanced,
    },
    ids::LoginId,
    jobs::{AssignedJob, Job, MessageJob, ReadUpTo, WaitingJob},
    position::{Cursor, Lsn, Seq, StreamSeq},
    sealing::{AudienceTag, Envelope},
    wire::{ConversationKind, Participant, Presence, Role, Typing},
};
use proptest::{collection::vec, option, prelude::*};
use serde_bytes::ByteBuf;

use super::{
    mutation::{id, mutated, numbers, texts},
    pushes::{cases, profile_lists},
};

/// Memory for what claims to be long: a list gets room for a megabyte in advance, and a few stand within each other.
const COST_MAX: u64 = 5 * 1024 * 1024;

fn envelopes() -> impl Strategy<Value = Envelope> {
    vec(any::<u8>(), 0..60).prop_map(Envelope::from_bytes)
}

fn times() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp)
}

fn lsns() -> impl Strategy<Value = Option<Lsn>> {
    option::of(any::<u64>().prop_map(Lsn))
}

fn facts() -> impl Strategy<Value = Fact> {
    prop_oneof![
        (id(), id(), envelopes(), numbers()).prop_map(|(message_id, sender_id, envelope, seen)| {
            let (audience, seen_seq) = (AudienceTag::default(), Seq(seen));
            Fact::MessageSent(MessageSent { message_id, sender_id, envelope, seen_seq, audience })
        }),
        (vec(id(), 0..4), vec(id(), 0..4), vec(id(), 0..2), lsns()).prop_map(|(added, removed, returned, lsn)| {
            Fact::ParticipantsChanged(ParticipantsChanged { added, removed, returned, lsn })
        }),
        (id(), lsns()).prop_map(|(user_id, lsn)| Fact::BlocksChanged(BlocksChanged { user_id, lsn })),
        (id(), id(), numbers()).prop_map(|(user_id, message_id, seq)| {
            Fact::ReadAdvanced(ReadAdvanced { user_id, message_id, read_seq: Seq(seq) })
        }),
        (id(), numbers()).prop_map(|(user_id, seq)| {
            Fact::DeliveredAdvanced(DeliveredAdvanced { user_id, delivered_seq: Seq(seq) })
        }),
    ]
}

fn events() -> impl Strategy<Value = Event> {
    let participant = (id(), any::<bool>()).prop_map(|(user_id, is_owner)| {
        let role = if is_owner { Role::Owner } else { Role::Member };
        Participant { user_id, role }
    });
    let business = (id(), cases(), any::<bool>()).prop_map(|(business_id, case, is_closed)| BusinessPart {
        business_id,
        case,
        is_closed,
    });
    let participants = (numbers(), vec(participant, 0..4), vec(id(), 0..3), option::of(business))
        .prop_map(|(version, list, blocked_by, business)| Participants { version, list, blocked_by, business });
    (id(), any::<bool>(), numbers(), times(), numbers(), participants, facts()).prop_map(
        |(conversation_id, is_group, seq, sent_at, previous, participants, fact)| Event {
            conversation_id,
            kind: if is_group { ConversationKind::Group } else { ConversationKind::Direct },
            seq: Seq(seq),
            sent_at,
            previous: StreamSeq(previous),
            participants,
            fact,
        },
    )
}

fn deliveries() -> impl Strategy<Value = Delivery> {
    let event_bytes = || events().prop_map(|event| ByteBuf::from(event.encode()));
    let recipient = (id(), id(), numbers()).prop_map(|(user_id, epoch, cursor)| Recipient {
        user_id,
        epoch,
        cursor: Cursor(cursor),
    });
    let numbered = (event_bytes(), numbers(), vec(recipient, 0..3))
        .prop_map(|(event, seq, recipients)| NumberedEvent { event, stream_seq: StreamSeq(seq), recipients });
    let change =
        (id(), any::<bool>(), option::of(times()), times()).prop_map(|(user_id, is_online, last_seen_at, at)| {
            PresenceChange { presence: Presence { user_id, is_online, last_seen_at }, at }
        });
    let revocation = (id(), option::of(texts()), times()).prop_map(|(user_id, sid, at)| Revocation {
        user_id,
        login: sid.map(|sid| LoginId::of(&sid)),
        at,
    });
    prop_oneof![
        vec(numbered, 0..3).prop_map(Delivery::Numbered),
        vec(event_bytes(), 0..3).prop_map(Delivery::Unnumbered),
        (id(), id()).prop_map(|(user_id, session_id)| Delivery::SessionReplaced { user_id, session_id }),
        vec(change, 0..3).prop_map(Delivery::PresenceChanged),
        (id(), id(), any::<bool>(), numbers(), vec(id(), 0..3)).prop_map(
            |(conversation_id, user_id, is_typing, version, user_ids)| {
                Delivery::Typing { typing: Typing { conversation_id, user_id, is_typing }, version, user_ids }
            }
        ),
        (vec(id(), 0..3), vec(id(), 0..3))
            .prop_map(|(user_ids, business_ids)| Delivery::ProfilesChanged { user_ids, business_ids }),
        (profile_lists(), vec(id(), 0..3)).prop_map(|(profiles, user_ids)| Delivery::Profiles { profiles, user_ids }),
        vec(revocation, 0..3).prop_map(Delivery::Revoked),
        ([id(), id()], option::of(id()))
            .prop_map(|(pair, conversation_id)| Delivery::BlocksChanged { pair, conversation_id }),
        (id(), id(), numbers()).prop_map(|(conversation_id, user_id, version)| Delivery::ParticipantRemoved {
            conversation_id,
            user_id,
            version,
        }),
        Just(Delivery::Beacon),
    ]
}

fn jobs() -> impl Strategy<Value = Job> {
    let place = || option::of((id(), numbers().prop_map(Cursor)));
    let message = ((id(), id(), id(), id()), option::of(id()), numbers(), times(), place(), option::of(envelopes()))
        .prop_map(
            |((user_id, conversation_id, message_id, sender_id), shown_sender_id, seq, sent_at, place, envelope)| {
                Job::Message(MessageJob {
                    user_id,
                    conversation_id,
                    message_id,
                    seq: Seq(seq),
                    sender_id,
                    shown_sender_id,
                    sent_at,
                    place,
                    envelope,
                })
            },
        );
    let assigned = ((id(), id(), id()), numbers(), numbers(), times(), place()).prop_map(
        |((user_id, conversation_id, customer_id), version, seq, sent_at, place)| {
            let seq = Seq(seq);
            Job::Assigned(AssignedJob { user_id, conversation_id, version, seq, customer_id, sent_at, place })
        },
    );
    prop_oneof![
        message,
        assigned,
        (id(), id(), times()).prop_map(|(user_id, business_id, found_at)| {
            Job::Waiting(WaitingJob { user_id, business_id, found_at })
        }),
        (id(), id(), numbers(), numbers()).prop_map(|(user_id, epoch, after, up_to)| Job::SessionEnded {
            user_id,
            epoch,
            after: Cursor(after),
            up_to: Cursor(up_to),
        }),
        (id(), id(), numbers()).prop_map(|(user_id, conversation_id, read_seq)| Job::ReadElsewhere {
            user_id,
            read: Some(ReadUpTo { conversation_id, read_seq: Seq(read_seq) }),
        }),
    ]
}

/// A job's bytes, as its queue has them.
fn packed(job: &Job) -> Vec<u8> {
    rmp_serde::to_vec_named(job).unwrap()
}

proptest! {
    #[test]
    fn events_deliveries_and_jobs_survive(event in events(), delivery in deliveries(), job in jobs()) {
        prop_assert_eq!(Event::decode(&event.encode()).unwrap(), event);
        prop_assert_eq!(Delivery::decode(&delivery.encode()).unwrap(), delivery);
        prop_assert_eq!(Job::decode(&packed(&job)).unwrap(), job);
    }

    #[test]
    fn changed_ones_are_read_or_refused_within_bounds(
        event in mutated(events().prop_map(|event| event.encode())),
        delivery in mutated(deliveries().prop_map(|delivery| delivery.encode())),
        job in mutated(jobs().prop_map(|job| packed(&job))),
    ) {
        for bytes in [&event, &delivery, &job] {
            let cost = allocation_counter::measure(|| {
                if let Ok(event) = Event::decode(bytes) {
                    assert!(event.audience().count() < bytes.len());
                }
                if let Ok(job) = Job::decode(bytes) {
                    let _id = job.id();
                }
                let _delivery = Delivery::decode(bytes);
            });
            prop_assert!(cost.bytes_max <= COST_MAX, "{} bytes cost {}", bytes.len(), cost.bytes_max);
        }
    }
}
