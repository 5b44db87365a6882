//! What an event means beyond its place in inboxes: whom to notify, whose badge may fall, which receipts are behind others.
//! Pure.

use std::collections::HashMap;

use chat_shared::{
    clock::Timestamp,
    customer_view::CustomerView,
    event::{Event, Fact, Participants, ParticipantsChanged},
    ids::{ConversationId, Epoch, MessageId, UserId},
    inbox::Routed,
    jobs::{AssignedJob, Job, MessageJob, ReadUpTo},
    position::{Cursor, Seq},
    sealing::Envelope,
    wire::Role,
};

use crate::deliverer::Delivering;

/// What an event tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A message came.
    Message(Message),
    /// A case was assigned; the job of its agent, without the place in the inbox.
    Assigned(AssignedJob),
    /// A participant has read further.
    Read {
        /// Who.
        user_id: UserId,
        /// Where, and how far.
        read: ReadUpTo,
    },
    /// Nothing that anybody is notified of.
    Other,
}

/// A message that somebody may have to be notified of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "they are named as everywhere else")]
pub struct Message {
    conversation_id: ConversationId,
    message_id: MessageId,
    seq: Seq,
    sender_id: UserId,
    /// Of a business conversation: how its customer sees it.
    customer_view: Option<CustomerView>,
    sent_at: Timestamp,
    envelope: Option<Envelope>,
}

impl News {
    /// What `event` tells; with the sealed text only if notifications show it.
    pub fn of(event: Event, shows_text: bool) -> Self {
        let Event { conversation_id, seq, sent_at, participants, fact, .. } = event;
        match fact {
            Fact::MessageSent(message) => Self::Message(Message {
                conversation_id,
                message_id: message.message_id,
                seq,
                sender_id: message.sender_id,
                customer_view: CustomerView::of_customer(&participants),
                sent_at,
                envelope: Some(message.envelope).filter(|_| shows_text),
            }),
            Fact::ReadAdvanced(read) => {
                Self::Read { user_id: read.user_id, read: ReadUpTo { conversation_id, read_seq: read.read_seq } }
            }
            Fact::ParticipantsChanged(change) => {
                let assigned = assigned(&participants, &change).map(|(user_id, customer_id)| {
                    let version = participants.version;
                    AssignedJob { user_id, conversation_id, version, seq, customer_id, sent_at, place: None }
                });
                assigned.map_or(Self::Other, Self::Assigned)
            }
            Fact::BlocksChanged(_) | Fact::DeliveredAdvanced(_) | Fact::Unknown => Self::Other,
        }
    }

    /// The job to notify a user of it, if it is a message of somebody else's, or an assignment to the user.
    pub fn job(&self, user_id: UserId, place: Option<(Epoch, Cursor)>) -> Option<Job> {
        match self {
            Self::Message(message) if message.sender_id != user_id => Some(Job::Message(message.job(user_id, place))),
            Self::Assigned(job) if job.user_id == user_id => Some(Job::Assigned(AssignedJob { place, ..*job })),
            Self::Message(_) | Self::Assigned(_) | Self::Read { .. } | Self::Other => None,
        }
    }
}

impl Message {
    fn job(&self, user_id: UserId, place: Option<(Epoch, Cursor)>) -> MessageJob {
        let Self { conversation_id, message_id, seq, sender_id, customer_view, sent_at, ref envelope } = *self;
        let customer_view = customer_view.filter(|view| view.is_of(user_id));
        MessageJob {
            user_id,
            conversation_id,
            message_id,
            seq,
            sender_id,
            shown_sender_id: customer_view.map(|view| view.id(sender_id)),
            sent_at,
            place,
            envelope: envelope.clone(),
        }
    }
}

/// The agent to whom a change assigns the case, and the customer.
fn assigned(participants: &Participants, change: &ParticipantsChanged) -> Option<(UserId, UserId)> {
    let customer_id = CustomerView::of_customer(participants)?.customer_id();
    let agent = participants.list.iter().find(|participant| participant.role == Role::Agent)?;
    change.added.contains(&agent.user_id).then_some((agent.user_id, customer_id))
}

/// The jobs for those whom nothing could be pushed to, from the inboxes' answers: one for each user of each event.
pub fn jobs(events: &[Delivering], routed: &[Routed]) -> Vec<Job> {
    let mut jobs = Vec::new();
    let mut routed = routed.iter();
    for Delivering { addressed, news, .. } in events {
        for (user_id, routed) in addressed.audience.iter().zip(&mut routed) {
            let place = match routed {
                Routed::NoInbox | Routed::Broken => None,
                Routed::At { epoch, cursor, gateways, may_notify: true } if gateways.is_empty() => {
                    Some((*epoch, *cursor))
                }
                Routed::At { .. } => continue,
            };
            jobs.extend(news.job(*user_id, place));
        }
    }
    jobs
}

/// Those who have read something, and what.
pub fn readers(events: &[Delivering]) -> Vec<(UserId, ReadUpTo)> {
    events.iter().filter_map(reader).collect()
}

fn reader(event: &Delivering) -> Option<(UserId, ReadUpTo)> {
    match event.news {
        News::Read { user_id, read } => Some((user_id, read)),
        News::Message(_) | News::Assigned(_) | News::Other => None,
    }
}

/// The events without the receipts that another receipt of the same user and conversation goes beyond.
pub fn merged(mut events: Vec<Delivering>) -> Vec<Delivering> {
    if events.iter().filter_map(reader).nth(1).is_none() {
        return events;
    }
    let mut furthest = HashMap::new();
    for (index, event) in events.iter().enumerate() {
        if let News::Read { user_id, read } = event.news {
            let best = furthest.entry((read.conversation_id, user_id)).or_insert((read.read_seq, index));
            *best = (*best).max((read.read_seq, index));
        }
    }
    let mut index = 0;
    events.retain(|event| {
        let here = index;
        index += 1;
        match event.news {
            News::Read { user_id, read } => furthest[&(read.conversation_id, user_id)].1 == here,
            News::Message(_) | News::Assigned(_) | News::Other => true,
        }
    });
    events
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chat_shared::{
        event::{BusinessPart, MessageSent},
        ids::{BusinessId, GatewayId},
        position::StreamSeq,
        sealing::AudienceTag,
        wire::{Case, CaseState, ConversationKind, Participant},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::plan::Addressed;

    fn delivering(audience: &[UserId], news: News) -> Delivering {
        let addressed =
            Addressed { event: Bytes::new(), stream_seq: StreamSeq::ZERO, audience: audience.to_vec(), lsn: None };
        Delivering { addressed, news, sent_at: Timestamp(0), is_fresh: true }
    }

    fn message(sender_id: UserId) -> News {
        News::Message(Message {
            conversation_id: ConversationId::random(),
            message_id: MessageId::random(),
            seq: Seq(1),
            sender_id,
            customer_view: None,
            sent_at: Timestamp(0),
            envelope: None,
        })
    }

    /// An event of a business conversation, with the business.
    fn of_business(customer_id: UserId, agent_id: UserId, seq: u64, fact: Fact) -> (BusinessId, Event) {
        let business_id = BusinessId::random();
        let case = Case { number: 1, state: CaseState::Assigned, waiting_since: Timestamp(0) };
        let list = [(customer_id, Role::Customer), (agent_id, Role::Agent)];
        let event = Event {
            conversation_id: ConversationId::random(),
            kind: ConversationKind::Business,
            seq: Seq(seq),
            sent_at: Timestamp(9),
            previous: StreamSeq::ZERO,
            participants: Participants {
                version: 4,
                list: list.map(|(user_id, role)| Participant { user_id, role }).to_vec(),
                business: Some(BusinessPart { business_id, case, is_closed: false }),
                ..Participants::default()
            },
            fact,
        };
        (business_id, event)
    }

    fn at(cursor: u64, is_online: bool, may_notify: bool) -> Routed {
        let gateways = is_online.then(GatewayId::random).into_iter().collect();
        Routed::At { epoch: Epoch::random(), cursor: Cursor(cursor), gateways, may_notify }
    }

    #[test]
    fn who_has_no_session_is_notified_of_the_messages_of_others() {
        let [sender, online, offline, without_devices, new] = [(); 5].map(|()| UserId::random());
        let audience = [sender, online, offline, without_devices, new];
        let routed = [
            at(1, false, true),
            at(1, true, true),
            at(7, false, true),
            at(1, false, false),
            Routed::NoInbox,
            at(2, false, true),
            at(8, false, true),
        ];
        let events = [delivering(&audience, message(sender)), delivering(&[sender, offline], message(offline))];
        let Routed::At { epoch, .. } = routed[2] else { unreachable!() };
        let places: Vec<_> = jobs(&events, &routed)
            .into_iter()
            .map(|job| match job {
                Job::Message(job) => (job.user_id, job.place.map(|(epoch, cursor)| (epoch, cursor.0))),
                other => panic!("{other:?}"),
            })
            .collect();
        let Routed::At { epoch: senders, .. } = routed[5] else { unreachable!() };
        assert_eq!(places, [(offline, Some((epoch, 7))), (new, None), (sender, Some((senders, 2)))]);
        let other = [delivering(&[offline], News::Other)];
        assert_eq!(jobs(&other, &[at(1, false, true)]), []);
    }

    #[test]
    fn a_customer_is_shown_the_business_for_an_agent_and_an_agent_the_customer_r7_2() {
        let [customer_id, agent_id] = [(); 2].map(|()| UserId::random());
        for (sender_id, to) in [(agent_id, customer_id), (customer_id, agent_id)] {
            let message = MessageSent {
                message_id: MessageId::random(),
                sender_id,
                envelope: Envelope::from_bytes(vec![1]),
                seen_seq: Seq::ZERO,
                audience: AudienceTag::default(),
            };
            let (business_id, event) = of_business(customer_id, agent_id, 7, Fact::MessageSent(message));
            let news = News::of(event, true);
            assert_eq!(news.job(sender_id, None), None);
            let Some(Job::Message(job)) = news.job(to, None) else { panic!("{news:?}") };
            let shown = (to == customer_id).then(|| business_id.into());
            assert_eq!((job.sender_id, job.shown_sender_id), (sender_id, shown), "the text is sealed with the sender");
        }
    }

    #[test]
    fn the_agent_alone_is_notified_of_an_assignment_r7_2() {
        let [customer_id, agent_id, other] = [(); 3].map(|()| UserId::random());
        let of = |added: Vec<UserId>, removed: Vec<UserId>, seq| {
            let fact = ParticipantsChanged { added: added.clone(), removed, returned: added, lsn: None };
            of_business(customer_id, agent_id, seq, Fact::ParticipantsChanged(fact)).1
        };
        for seq in [0, 7] {
            let event = of(vec![agent_id], vec![other], seq);
            let expected = AssignedJob {
                user_id: agent_id,
                conversation_id: event.conversation_id,
                version: 4,
                seq: Seq(seq),
                customer_id,
                sent_at: Timestamp(9),
                place: None,
            };
            let audience: Vec<_> = event.audience().collect();
            assert_eq!(audience, [customer_id, agent_id, other]);
            let events = [delivering(&audience, News::of(event, true))];
            let routed = [at(1, false, true), at(2, false, true), at(3, false, true)];
            let Routed::At { epoch, .. } = routed[1] else { unreachable!() };
            let placed = AssignedJob { place: Some((epoch, Cursor(2))), ..expected };
            assert_eq!(jobs(&events, &routed), [Job::Assigned(placed)]);
            assert_eq!(jobs(&events, &[at(1, false, true), at(2, true, true), at(3, false, true)]), []);
            assert_eq!(jobs(&events, &[at(1, false, true), at(2, false, false), at(3, false, true)]), []);
            let routed = [Routed::NoInbox, Routed::NoInbox, Routed::NoInbox];
            assert_eq!(jobs(&events, &routed), [Job::Assigned(expected)]);
        }
        for event in [of(Vec::new(), Vec::new(), 7), of(vec![customer_id], Vec::new(), 7)] {
            assert_eq!(News::of(event, true), News::Other, "the agent had the case before");
        }
    }

    proptest! {
        #[test]
        fn of_several_receipts_of_a_user_and_conversation_the_furthest_stays_in_its_place_r8_6(
            receipts in proptest::collection::vec((0..3_usize, 0..2_usize, 0..5_u64), 0..20),
        ) {
            let (users, conversations) = ([(); 2].map(|()| UserId::random()), [(); 2].map(|()| ConversationId::random()));
            let news = |&(user, conversation, seq): &(usize, usize, u64)| match users.get(user) {
                Some(user_id) => News::Read {
                    user_id: *user_id,
                    read: ReadUpTo { conversation_id: conversations[conversation], read_seq: Seq(seq) },
                },
                None => News::Other,
            };
            let all: Vec<_> = receipts.iter().map(news).collect();
            let kept = merged(all.iter().map(|news| delivering(&[], news.clone())).collect());
            let kept: Vec<_> = kept.into_iter().map(|event| event.news).collect();
            // What was kept is a part of what came, in its order.
            let mut rest = all.iter();
            prop_assert!(kept.iter().all(|news| rest.any(|other| other == news)));
            let count = |news: &[News], wanted: &dyn Fn(&News) -> bool| news.iter().filter(|news| wanted(news)).count();
            prop_assert_eq!(count(&kept, &|news| *news == News::Other), count(&all, &|news| *news == News::Other));
            for user in users {
                for conversation in conversations {
                    let furthest = |news: &[News]| news.iter().filter_map(|news| match news {
                        News::Read { user_id, read }
                            if (read.conversation_id, *user_id) == (conversation, user) => Some(read.read_seq),
                        _ => None,
                    }).max();
                    let of_both = |news: &News| matches!(
                        news, News::Read { user_id, read } if (read.conversation_id, *user_id) == (conversation, user)
                    );
                    prop_assert_eq!(furthest(&kept), furthest(&all));
                    prop_assert!(count(&kept, &of_both) <= 1);
                }
            }
        }
    }
}
