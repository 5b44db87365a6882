//! The life of cases: opened, assigned, resolved, opened again.

use chat_shared::{
    ids::{BusinessId, ConversationId, UserId},
    position::Seq,
    wire::{CaseState, ErrorCode, Role, StaffStatus},
};
use futures_util::{StreamExt, future::join_all, stream};

use super::Shop;
use crate::{history::Place as PageOf, tests::place::users};

#[tokio::test]
async fn a_customer_and_a_business_have_one_conversation_however_many_starts_come_at_once_r2_3() {
    let shop = Shop::new(2).await;
    shop.available(&shop.agents).await;
    let customer = UserId::random();
    let starts: Vec<_> = join_all((0..50).map(|_| shop.converse(customer))).await;
    let ids: Vec<_> = starts.into_iter().map(|start| start.unwrap().conversation_id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
    let count = sqlx::query!(
        r#"select (select count(*) from conversations) as "conversations!", (select count(*) from cases) as "cases!",
               (select count(*) from assignments) as "assignments!""#
    );
    let count = count.fetch_one(&shop.place.pool).await.unwrap();
    assert_eq!((count.conversations, count.cases, count.assignments), (1, 1, 1));
}

#[tokio::test]
async fn an_available_agent_is_the_third_party_of_a_new_conversation_r7_2() {
    let shop = Shop::new(1).await;
    let (agent, customer) = (shop.agents[0], UserId::random());
    shop.available(&[agent]).await;
    let shown = shop.converse(customer).await.unwrap();
    let id = shown.conversation_id;
    // To the customer the business is the other participant.
    let business = UserId::from(shop.business_id);
    let parties: Vec<_> = shown.participants.iter().map(|party| (party.user_id, party.role)).collect();
    assert_eq!(parties, [(customer, Role::Customer), (business, Role::Business)]);
    assert_eq!(shown.case.map(|case| (case.number, case.state)), Some((1, CaseState::Assigned)));
    assert_eq!(shown.business.map(|business| business.business_id), Some(shop.business_id));
    assert_eq!(shop.participants(id).await, [customer, agent]);
    let to_agent = shop.place.conversations.get(agent, id).await.unwrap();
    let parties: Vec<_> = to_agent.participants.iter().map(|party| (party.user_id, party.role)).collect();
    assert_eq!(parties, [(customer, Role::Customer), (agent, Role::Agent)]);
}

#[tokio::test]
async fn a_customer_sees_the_business_as_the_sender_and_an_agent_all_messages_from_the_first_r7_5() {
    let shop = Shop::new(2).await;
    let ([first, second], customer) = ([shop.agents[0], shop.agents[1]], UserId::random());
    shop.available(&[first]).await;
    let id = shop.converse(customer).await.unwrap().conversation_id;
    shop.write(customer, id).await.unwrap();
    shop.write(first, id).await.unwrap();
    shop.store(id).await;
    shop.resolve(first, id, 2).await.unwrap();
    shop.set_status(first, StaffStatus::Away).await.unwrap();
    shop.available(&[second]).await;
    shop.write(customer, id).await.unwrap();
    assert_eq!(shop.case(id).await, ("assigned".to_owned(), 2, Some(second)));
    shop.write(second, id).await.unwrap();

    let (page, business) =
        (async |user| shop.place.history.page(user, id, PageOf::Newest, 10).await, UserId::from(shop.business_id));
    let senders: Vec<_> = page(customer).await.unwrap().messages.iter().map(|message| message.sender_id).collect();
    assert_eq!(senders, [customer, business, customer, business]);
    let senders: Vec<_> = page(second).await.unwrap().messages.iter().map(|message| message.sender_id).collect();
    assert_eq!(senders, [customer, first, customer, second]);
    assert_eq!(page(first).await.unwrap_err().code, ErrorCode::NotFound, "the agent takes part no longer");
    let listed = shop.place.conversations.get(customer, id).await.unwrap();
    assert_eq!(listed.last_message.unwrap().sender_id, business, "as stored: the answer of the first agent");
}

#[tokio::test]
async fn a_new_agent_has_unread_what_waits_for_an_answer_and_nothing_else_r5_1() {
    let shop = Shop::new(2).await;
    let ([first, second], customer) = ([shop.agents[0], shop.agents[1]], UserId::random());
    shop.available(&[first]).await;
    let id = shop.converse(customer).await.unwrap().conversation_id;
    shop.write(customer, id).await.unwrap();
    shop.write(first, id).await.unwrap();
    shop.write(customer, id).await.unwrap();
    shop.write(customer, id).await.unwrap();
    shop.store(id).await;
    let version = shop.version(id).await;
    shop.available(&[second]).await;
    let transfer = chat_shared::wire::SetAgent { user_id: second, version, force: false };
    shop.businesses().set_agent(first, id, transfer).await.unwrap();
    let listed = shop.place.conversations.get(second, id).await.unwrap();
    assert_eq!((listed.read_seq, listed.unread), (Seq(2), 2));
    let (_, event) = shop.place.log.newest(id).await.unwrap().unwrap();
    let chat_shared::event::Fact::ParticipantsChanged(change) = event.fact else { panic!("{event:?}") };
    assert_eq!((change.added, change.removed, change.returned), (vec![second], vec![first], vec![second]));
}

#[tokio::test]
async fn without_a_free_agent_a_case_waits_and_the_oldest_is_first_r7_2() {
    let shop = Shop::new(1).await;
    shop.sql("update businesses set capacity = 1").await;
    let (agent, customers): (_, [UserId; 3]) = (shop.agents[0], users());
    let mut ids = Vec::new();
    for customer in customers {
        let conversation = shop.converse(customer).await.unwrap();
        assert_eq!(conversation.case.unwrap().state, CaseState::Waiting);
        ids.push(conversation.conversation_id);
    }
    shop.available(&[agent]).await;
    for (index, id) in ids.iter().enumerate() {
        shop.route().await;
        assert_eq!(shop.case(*id).await, ("assigned".to_owned(), 1, Some(agent)), "case {index}");
        shop.resolve(agent, *id, 0).await.unwrap();
    }
}

#[tokio::test]
async fn a_case_that_opens_now_overtakes_no_older_one_however_many_wait_r7_2() {
    let shop = Shop::new(2).await;
    shop.sql("update businesses set capacity = 50").await;
    let customer = UserId::random();
    let id = shop.converse(customer).await.unwrap().conversation_id;
    shop.write(customer, id).await.unwrap();
    shop.resolve(shop.supervisor, id, 1).await.unwrap();
    // One more than a pass reads.
    for _ in 0..65 {
        shop.converse(UserId::random()).await.unwrap();
    }
    shop.available(&shop.agents).await;
    shop.write(customer, id).await.unwrap();
    assert_eq!(shop.case(id).await, ("waiting".to_owned(), 2, None), "an older one waits too");
    shop.route().await;
    assert_eq!(shop.case(id).await.0, "assigned");
}

#[tokio::test]
async fn a_message_that_races_a_resolve_opens_the_next_case_by_its_number() {
    let shop = Shop::new(1).await;
    let (agent, customer) = (shop.agents[0], UserId::random());
    shop.available(&[agent]).await;
    let id = shop.converse(customer).await.unwrap().conversation_id;
    shop.write(customer, id).await.unwrap();
    // The second message is accepted, and not stored, before the agent resolves what it has seen.
    assert_eq!(shop.write(customer, id).await.unwrap().opens_case, None);
    shop.resolve(agent, id, 1).await.unwrap();
    assert_eq!(shop.case(id).await, ("resolved".to_owned(), 1, None));
    shop.store(id).await;
    shop.sweep().await;
    assert_eq!(shop.case(id).await, ("assigned".to_owned(), 2, Some(agent)));
    let after_all = shop.resolve(agent, id, 3).await.unwrap_err();
    assert_eq!(after_all.code, ErrorCode::Invalid, "there is no message 3");
    shop.resolve(agent, id, 2).await.unwrap();
    shop.sweep().await;
    assert_eq!(shop.case(id).await, ("resolved".to_owned(), 2, None));
    assert_eq!(shop.resolve(shop.supervisor, id, 2).await, Ok(()), "a repeat changes nothing");
}

#[tokio::test]
async fn resolves_race_messages_and_no_customer_is_forgotten() {
    let shop = Shop::new(2).await;
    shop.sql("update businesses set capacity = 50").await;
    let (agents, customers): (_, [UserId; 50]) = (&shop.agents, users());
    shop.available(agents).await;
    let mut ids = Vec::new();
    for customer in customers {
        ids.push((customer, shop.converse(customer).await.unwrap().conversation_id));
    }
    for _ in 0..20 {
        let races = ids.iter().map(async |(customer, id)| {
            let last = shop.place.log.newest(*id).await.unwrap().unwrap().1.seq;
            let agent = shop.case(*id).await.2.unwrap_or(shop.supervisor);
            let (written, resolved) = tokio::join!(shop.write(*customer, *id), shop.resolve(agent, *id, last.0));
            resolved.unwrap();
            (*id, written.unwrap().seq)
        });
        let written: Vec<_> = stream::iter(races).buffer_unordered(4).collect().await;
        for (id, seq) in written {
            // What the persister raises.
            let raising = sqlx::query!(
                "update conversations set customer_seq = $2, last_seq = $2 where conversation_id = $1",
                id.as_uuid(),
                seq.to_sql()
            );
            raising.execute(&shop.place.pool).await.unwrap();
        }
        while !shop.reopened().await.is_empty() {
            shop.sweep().await;
        }
        let states = sqlx::query_scalar!("select distinct state from cases").fetch_all(&shop.place.pool).await.unwrap();
        assert_eq!(states, ["assigned"], "each last message came after what was resolved");
    }
}

#[tokio::test]
async fn an_agent_that_is_only_notifiable_is_not_preferred_when_a_case_opens_again() {
    let shop = Shop::new(2).await;
    let ([first, second], customer) = ([shop.agents[0], shop.agents[1]], UserId::random());
    shop.sql("update staff set last_assigned_at = now()").await;
    shop.available(&[first]).await;
    let id = shop.converse(customer).await.unwrap().conversation_id;
    shop.available(&[second]).await;
    shop.write(customer, id).await.unwrap();
    shop.resolve(first, id, 1).await.unwrap();
    shop.write(customer, id).await.unwrap();
    assert_eq!(shop.case(id).await.2, Some(second), "the longest without a case");
}

#[tokio::test]
async fn a_business_that_does_not_exist_or_is_closed_is_refused_r7_1() {
    let shop = Shop::new(1).await;
    let (agent, customer) = (shop.agents[0], UserId::random());
    shop.available(&[agent]).await;
    let quotas = &shop.place.quotas;
    let unknown = shop.businesses().converse(quotas, customer, BusinessId::random()).await;
    assert_eq!(unknown.unwrap_err().code, ErrorCode::NotFound);
    let id = shop.converse(customer).await.unwrap().conversation_id;
    shop.write(customer, id).await.unwrap();
    shop.businesses().set_open(shop.business_id, false).await.unwrap();
    assert_eq!(shop.case(id).await, ("resolved".to_owned(), 1, None));
    assert_eq!(shop.write(customer, id).await.unwrap_err().code, ErrorCode::Conflict);
    assert_eq!(shop.write(agent, id).await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(shop.converse(UserId::random()).await.unwrap_err().code, ErrorCode::Conflict);
    assert!(shop.place.history.page(customer, id, PageOf::Newest, 10).await.is_ok(), "history stays");
    shop.businesses().set_open(shop.business_id, true).await.unwrap();
    assert!(shop.write(customer, id).await.is_ok());
    assert_eq!(shop.case(id).await.0, "assigned");
}

#[tokio::test]
async fn outside_enforced_hours_a_case_waits_and_staff_may_claim_it_r7_4() {
    let shop = Shop::new(1).await;
    let agent = shop.agents[0];
    shop.available(&[agent]).await;
    shop.sql(r#"update businesses set hours = '{"zone": "UTC", "is_enforced": true, "weekly": [], "exceptions": []}'"#)
        .await;
    let id = shop.converse(UserId::random()).await.unwrap().conversation_id;
    shop.sweep().await;
    assert_eq!(shop.case(id).await, ("waiting".to_owned(), 1, None));
    assert_eq!(shop.businesses().claim(agent, shop.business_id).await, Ok(Some(id)));
    let other = shop.converse(UserId::random()).await.unwrap().conversation_id;
    shop.sql("update businesses set hours = null").await;
    shop.sweep().await;
    assert_eq!(shop.case(other).await, ("assigned".to_owned(), 1, Some(agent)), "it has opened");
}

#[tokio::test]
async fn a_customer_who_is_on_the_staff_never_gets_the_own_case() {
    let shop = Shop::new(2).await;
    let [customer, other] = [shop.agents[0], shop.agents[1]];
    shop.available(&[customer]).await;
    let id = shop.converse(customer).await.unwrap().conversation_id;
    assert_eq!(shop.case(id).await.0, "waiting");
    assert_eq!(shop.businesses().claim(customer, shop.business_id).await, Ok(None));
    let version = shop.version(id).await;
    let own = chat_shared::wire::SetAgent { user_id: customer, version, force: false };
    assert_eq!(shop.businesses().set_agent(customer, id, own).await.unwrap_err().code, ErrorCode::NotFound);
    let to_customer = chat_shared::wire::SetAgent { user_id: customer, version, force: true };
    let refused = shop.businesses().set_agent(shop.supervisor, id, to_customer).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::Conflict);
    shop.available(&[other]).await;
    shop.route().await;
    assert_eq!(shop.case(id).await.2, Some(other));
}

#[tokio::test]
async fn both_strategies_share_cases_evenly_r2_4() {
    for strategy in ["least_busy", "round_robin"] {
        let shop = Shop::new(4).await;
        shop.sql(&format!("update businesses set strategy = '{strategy}', capacity = 50")).await;
        shop.available(&shop.agents).await;
        let mut ids: Vec<ConversationId> = Vec::new();
        for _ in 0..40 {
            ids.push(shop.converse(UserId::random()).await.unwrap().conversation_id);
        }
        let counts = sqlx::query_scalar!(r#"select count(*) as "count!" from assignments group by agent_id"#);
        let counts = counts.fetch_all(&shop.place.pool).await.unwrap();
        assert_eq!(counts, [10; 4], "{strategy}");
    }
}
