//! Leases of agents: what ends them, and what does not.

use chat_shared::{
    ids::{ConversationId, UserId},
    wire::{SetStatus, StaffStatus},
};

use super::Shop;
use crate::tests::place::until;

/// A case of a customer who has written one message, which is stored, with the first of two agents. The other one is available.
/// The message is older than the assignment, so the clock runs from there.
async fn assigned() -> (Shop, UserId, ConversationId) {
    let (shop, customer) = (Shop::new(2).await, UserId::random());
    let id = shop.converse(customer).await.unwrap().conversation_id;
    shop.write(customer, id).await.unwrap();
    shop.store(id).await;
    shop.available(&shop.agents[..1]).await;
    shop.route().await;
    shop.available(&shop.agents[1..]).await;
    assert_eq!(shop.case(id).await.2, Some(shop.agents[0]));
    (shop, customer, id)
}

/// The reasons for which leases ended, the oldest first.
async fn released(shop: &Shop) -> Vec<Option<String>> {
    let reasons = sqlx::query_scalar!("select release_reason from assignments order by assignment_id");
    reasons.fetch_all(&shop.place.pool).await.unwrap()
}

#[tokio::test]
async fn an_agent_that_does_not_answer_loses_the_case_which_keeps_its_age() {
    let (shop, _, id) = assigned().await;
    let since = async || {
        let since = sqlx::query_scalar!("select waiting_since from cases where conversation_id = $1", super::key(id));
        since.fetch_one(&shop.place.pool).await.unwrap()
    };
    let before = since().await;
    shop.pass(id, 500).await;
    shop.sweep().await;
    assert_eq!(shop.case(id).await.2, Some(shop.agents[0]), "ten minutes, since it has to be notified");
    shop.pass(id, 150).await;
    shop.sweep().await;
    assert_eq!(shop.case(id).await, ("assigned".to_owned(), 1, Some(shop.agents[1])));
    assert_eq!(since().await, before);
    assert_eq!(released(&shop).await, [Some("answer_missed".to_owned()), None]);
    let missed = sqlx::query_scalar!("select missed_by from cases where conversation_id = $1", super::key(id));
    assert_eq!(missed.fetch_one(&shop.place.pool).await.unwrap(), [shop.agents[0].as_uuid()]);
}

#[tokio::test]
async fn two_missed_cases_in_a_row_make_an_agent_away_and_an_answer_between_them_does_not() {
    let status = async |shop: &Shop| {
        let status = sqlx::query!("select status, away_reason from staff where user_id = $1", shop.agents[0].as_uuid());
        let row = status.fetch_one(&shop.place.pool).await.unwrap();
        (row.status, row.away_reason)
    };
    for answers_between in [false, true] {
        let shop = Shop::new(1).await;
        shop.available(&shop.agents).await;
        for turn in 0..2 {
            let customer = UserId::random();
            shop.sql("update businesses set strategy = 'manual'").await;
            let id = shop.converse(customer).await.unwrap().conversation_id;
            shop.write(customer, id).await.unwrap();
            shop.store(id).await;
            shop.sql("update businesses set strategy = 'least_busy'").await;
            shop.route().await;
            if answers_between && turn == 1 {
                shop.businesses().accept(shop.agents[0], id).await.unwrap();
                shop.sql("update cases set accepted_at = null").await;
            }
            shop.pass(id, 3600).await;
            // Without another agent the case comes back to the one who missed it, so it is resolved first.
            shop.sweep().await;
            shop.resolve(shop.supervisor, id, 1).await.unwrap();
        }
        let expected = if answers_between { ("available", None) } else { ("away", Some("missed".to_owned())) };
        assert_eq!(status(&shop).await, (expected.0.to_owned(), expected.1), "answers between: {answers_between}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_stored_yet_keeps_the_case() {
    let (shop, customer, id) = assigned().await;
    shop.write(shop.agents[0], id).await.unwrap();
    shop.pass(id, 3600).await;
    shop.sweep().await;
    assert_eq!(shop.case(id).await.2, Some(shop.agents[0]), "the log has the answer");
    // Also behind a later message of the customer, which is stored before it.
    shop.write(customer, id).await.unwrap();
    shop.place.store(id, 3, &[2]).await;
    shop.pass(id, 1).await;
    shop.sweep().await;
    assert_eq!(shop.case(id).await.2, Some(shop.agents[0]), "number 2 is missing");
}

#[tokio::test]
async fn accepting_a_case_gives_the_time_of_later_answers_and_ends_none() {
    let (shop, _, id) = assigned().await;
    shop.businesses().accept(shop.agents[0], id).await.unwrap();
    shop.pass(id, 800).await;
    shop.sweep().await;
    assert_eq!(shop.case(id).await.2, Some(shop.agents[0]));
    shop.businesses().accept(shop.agents[0], id).await.unwrap();
    shop.pass(id, 150).await;
    shop.sweep().await;
    assert_eq!(shop.case(id).await.2, Some(shop.agents[1]), "a second acceptance gives no more time");
    assert_eq!(released(&shop).await, [Some("reply_missed".to_owned()), None]);
}

#[tokio::test]
async fn a_silent_customer_frees_the_agent() {
    let (shop, _, id) = assigned().await;
    shop.write(shop.agents[0], id).await.unwrap();
    shop.store(id).await;
    shop.pass(id, 1700).await;
    shop.sweep().await;
    assert_eq!(shop.case(id).await.0, "assigned");
    shop.pass(id, 150).await;
    shop.sweep().await;
    assert_eq!(shop.case(id).await, ("resolved".to_owned(), 1, None));
    assert_eq!(released(&shop).await, [Some("quiet".to_owned())]);
}

#[tokio::test]
async fn a_pause_of_the_sweep_costs_no_agent_a_case() {
    let (shop, _, id) = assigned().await;
    shop.pass(id, 3600).await;
    shop.sql("update case_sweeps set swept_at = now() - interval '5 minutes'").await;
    shop.sweep_only().await;
    assert_eq!(shop.case(id).await.2, Some(shop.agents[0]), "nothing was looked at for five minutes");
    shop.pass(id, 500).await;
    shop.sweep().await;
    assert_eq!(shop.case(id).await.2, Some(shop.agents[0]), "the clock began after the pause");
    shop.pass(id, 150).await;
    shop.sweep().await;
    assert_eq!(shop.case(id).await.2, Some(shop.agents[1]));
}

#[tokio::test]
async fn while_no_notifier_runs_no_case_is_given_back() {
    let (shop, _, id) = assigned().await;
    shop.pass(id, 3600).await;
    shop.sql("update case_sweeps set swept_at = now()").await;
    // A gateway that has heard no notifier since it started.
    let gateway = shop.place.conversations.businesses(shop.place.log.clone());
    let jobs = shop.place.jobs().await;
    until("a sweep", async || gateway.sweep(&jobs, true).await.is_ok()).await;
    shop.pass(id, 500).await;
    shop.sweep().await;
    assert_eq!(shop.case(id).await.2, Some(shop.agents[0]), "the clock began with the first beacon");
    shop.pass(id, 150).await;
    shop.sweep().await;
    assert_eq!(shop.case(id).await.2, Some(shop.agents[1]));
}

#[tokio::test]
async fn a_business_that_fails_holds_up_no_other_and_strays_are_given_back() {
    let (shop, _, id) = assigned().await;
    // Of another business, whose hours can't be read.
    shop.sql(
        "insert into businesses (business_id, hours) values ('00000000-0000-4000-8000-000000000000', '{}');
         insert into conversations (conversation_id, kind, business_id, customer_id, created_at, last_activity_at)
         values ('00000000-0000-4000-8000-000000000001', 'business', '00000000-0000-4000-8000-000000000000',
             '00000000-0000-4000-8000-000000000002', now(), now());
         insert into cases (conversation_id, business_id, customer_id, state, opened_at, waiting_since)
         values ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000000',
             '00000000-0000-4000-8000-000000000002', 'waiting', now(), now())",
    )
    .await;
    shop.sql(&format!("delete from staff where user_id = '{}'", shop.agents[0].as_uuid())).await;
    shop.businesses().note_notifier();
    let jobs = shop.place.jobs().await;
    until("the other business", async || {
        let failed = shop.businesses().sweep(&jobs, true).await.is_err();
        failed && shop.case(id).await.2 == Some(shop.agents[1])
    })
    .await;
    assert_eq!(released(&shop).await[0].as_deref(), Some("left_staff"));
}

#[tokio::test]
async fn one_gateway_sweeps_at_a_time() {
    let (shop, _, id) = assigned().await;
    shop.pass(id, 3600).await;
    let mut other = shop.place.pool.begin().await.unwrap();
    sqlx::query!("update case_sweeps set swept_at = now() returning swept_at").fetch_one(&mut *other).await.unwrap();
    shop.sweep_only().await;
    assert_eq!(shop.case(id).await.2, Some(shop.agents[0]), "the other gateway sweeps");
    other.commit().await.unwrap();
    shop.sweep().await;
    assert_eq!(shop.case(id).await.2, Some(shop.agents[1]));
}

#[tokio::test]
async fn an_agent_that_is_gone_for_a_minute_keeps_no_case() {
    let (shop, _, id) = assigned().await;
    shop.take_devices().await;
    shop.give_device(shop.agents[1]).await;
    shop.sweep().await;
    shop.sql("update staff set unseen_since = unseen_since - interval '59 seconds'").await;
    shop.sweep().await;
    assert_eq!(shop.case(id).await.2, Some(shop.agents[0]));
    shop.sql("update staff set unseen_since = unseen_since - interval '2 seconds'").await;
    shop.sweep().await;
    assert_eq!(shop.case(id).await.2, Some(shop.agents[1]));
    assert_eq!(released(&shop).await, [Some("gone".to_owned()), None]);
}

#[tokio::test]
async fn an_agent_goes_away_with_or_without_its_cases() {
    let (shop, _, id) = assigned().await;
    shop.set_status(shop.agents[0], StaffStatus::Away).await.unwrap();
    shop.route().await;
    assert_eq!(shop.case(id).await.2, Some(shop.agents[0]), "it keeps what it has");
    let request = SetStatus { status: StaffStatus::Away, until: None, gives_back: true };
    shop.businesses().set_status(shop.agents[0], shop.business_id, request).await.unwrap();
    shop.route().await;
    assert_eq!(shop.case(id).await.2, Some(shop.agents[1]));
    assert_eq!(released(&shop).await, [Some("given_back".to_owned()), None]);
}

#[tokio::test]
async fn availability_ends_at_the_time_that_the_agent_gave() {
    let shop = Shop::new(1).await;
    let until = Some(chat_shared::clock::Clock::System.now().after(std::time::Duration::from_mins(1)));
    let request = SetStatus { status: StaffStatus::Available, until, gives_back: false };
    shop.businesses().set_status(shop.agents[0], shop.business_id, request).await.unwrap();
    shop.sweep().await;
    let first = shop.converse(UserId::random()).await.unwrap().conversation_id;
    assert_eq!(shop.case(first).await.0, "assigned");
    shop.sql("update staff set available_until = now() where available_until is not null").await;
    shop.sweep().await;
    let second = shop.converse(UserId::random()).await.unwrap().conversation_id;
    assert_eq!(shop.case(second).await.0, "waiting");
}

#[tokio::test]
async fn a_case_of_an_agent_that_left_the_staff_waits_and_nothing_of_it_is_accepted_from_the_agent() {
    let (shop, _, id) = assigned().await;
    shop.set_staff(2, &shop.agents[1..]).await.unwrap();
    assert!(shop.write(shop.agents[0], id).await.is_err());
    shop.route().await;
    assert_eq!(shop.case(id).await.2, Some(shop.agents[1]));
    assert_eq!(released(&shop).await, [Some("left_staff".to_owned()), None]);
    let older = shop.set_staff(1, &shop.agents).await.unwrap_err();
    assert_eq!(older.code, chat_shared::wire::ErrorCode::Conflict);
    assert_eq!(shop.set_staff(2, &shop.agents).await, Ok(()), "the same version again changes nothing");
    let count = sqlx::query_scalar!(r#"select count(*) as "count!" from staff where role = 'agent'"#);
    assert_eq!(count.fetch_one(&shop.place.pool).await.unwrap(), 1);
}
