//! Business conversations: each side's numbers, and cases after a restore of the database.

use chat_shared::{
    event::{BusinessPart, Event, Fact, Participants, ParticipantsChanged},
    ids::{BusinessId, UserId},
    position::Seq,
    wire::{Case, CaseState, ConversationKind, Participant, Role},
};

use super::place::{Place, Talk, items, now};
use crate::{
    batch::Batch,
    rebuild::{Roster, rebuild},
};

/// The participants of a business conversation as of a version.
fn participants(
    version: u64,
    business_id: BusinessId,
    customer: UserId,
    agent: Option<UserId>,
    state: CaseState,
) -> Participants {
    let agent = agent.map(|user_id| Participant { user_id, role: Role::Agent });
    let list = [Some(Participant { user_id: customer, role: Role::Customer }), agent].into_iter().flatten().collect();
    let case = Case { number: 2, state, waiting_since: now() };
    let business = Some(BusinessPart { business_id, case, is_closed: false });
    Participants { version, list, business, ..Participants::default() }
}

fn change(talk: &Talk, participants: Participants) -> Event {
    let fact = Fact::ParticipantsChanged(ParticipantsChanged::default());
    Event { kind: ConversationKind::Business, participants, fact, ..talk.unnumbered(talk.events.len() as u64, now()) }
}

/// The numbers of a conversation's last message, of the customer's and of the staff's.
async fn numbers(place: &Place, talk: &Talk) -> (i64, i64, i64) {
    let row = sqlx::query!(
        "select last_seq, customer_seq, agent_seq from conversations where conversation_id = $1",
        talk.conversation_id.as_uuid()
    );
    let row = row.fetch_one(&place.pool).await.unwrap();
    (row.last_seq, row.customer_seq, row.agent_seq)
}

#[tokio::test]
async fn each_side_of_a_business_conversation_is_raised_by_its_own_number_in_any_order_of_storing() {
    let (place, mut talk) = (Place::new().await, Talk::new());
    // Odd messages are of the second user, even ones of the first.
    let ([agent, customer], business_id) = ([talk.users[0], talk.users[1]], BusinessId::random());
    let part = participants(1, business_id, customer, Some(agent), CaseState::Assigned);
    assert_eq!(rebuild(&place.own_pool, &Roster::newest([change(&talk, part.clone())])).await.unwrap(), (1, 0));
    for _ in 0..5 {
        talk.message(now());
    }
    for event in &mut talk.events {
        event.kind = ConversationKind::Business;
        event.participants = part.clone();
    }
    let all = items(1, &talk.events);
    let store = async |indices: &[usize]| {
        let items: Vec<_> = indices.iter().map(|index| all[*index].clone()).collect();
        place.store().store(&Batch::of(&items), None).await.unwrap().unwrap();
    };
    store(&[0, 2, 4]).await;
    assert_eq!(numbers(&place, &talk).await, (5, 5, 0));
    store(&[3]).await;
    assert_eq!(numbers(&place, &talk).await, (5, 5, 4));
    store(&[1, 0, 3]).await;
    assert_eq!(numbers(&place, &talk).await, (5, 5, 4), "nothing is lowered");
}

#[tokio::test]
async fn a_restored_business_conversation_has_its_case_and_its_agent() {
    let (place, talk) = (Place::new().await, Talk::new());
    let ([customer, first], business_id) = ([talk.users[0], talk.users[1]], BusinessId::random());
    let second = UserId::random();
    let restore = async |version, agent, state| {
        let event = change(&talk, participants(version, business_id, customer, agent, state));
        rebuild(&place.own_pool, &Roster::newest([event])).await.unwrap()
    };
    let case = async || {
        let row = sqlx::query!(
            r#"select k.state, k.case_number, k.agent_id, array(
                   select agent_id from assignments a where a.conversation_id = k.conversation_id and released_at is null
               ) as "leases!",
               array(select user_id from participants p where p.conversation_id = k.conversation_id order by position)
                   as "users!"
               from cases k where conversation_id = $1"#,
            talk.conversation_id.as_uuid()
        );
        let row = row.fetch_one(&place.pool).await.unwrap();
        (row.state, row.case_number, row.agent_id, row.leases, row.users)
    };
    let [c, f, s] = [customer, first, second].map(UserId::as_uuid);
    assert_eq!(restore(3, Some(first), CaseState::Assigned).await, (1, 0));
    assert_eq!(case().await, ("assigned".to_owned(), 2, Some(f), vec![f], vec![c, f]));
    assert_eq!(restore(4, Some(second), CaseState::Assigned).await, (1, 0));
    assert_eq!(case().await, ("assigned".to_owned(), 2, Some(s), vec![s], vec![c, s]));
    assert_eq!(restore(5, None, CaseState::Resolved).await, (1, 0));
    assert_eq!(case().await, ("resolved".to_owned(), 2, None, vec![], vec![c]));
    assert_eq!(restore(4, Some(first), CaseState::Assigned).await, (0, 0), "no version goes back");
    let seqs = sqlx::query!("select customer_seq, agent_seq from conversations").fetch_one(&place.pool).await.unwrap();
    assert_eq!((Seq::from_sql(seqs.customer_seq), Seq::from_sql(seqs.agent_seq)), (Seq::ZERO, Seq::ZERO));
}
