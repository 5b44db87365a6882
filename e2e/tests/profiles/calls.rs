//! R11.1, R11.2, R11.4: how seldom kaha-main-v3 is asked.

use std::{collections::HashSet, time::Duration};

use anyhow::{Context, Result};
use chat_dev::kaha::{Behaviour, IDS_MAX};
use chat_e2e::{Person, Setup, TestFleet, database, eventually, on_own_fleet, said};
use chat_shared::{
    ids::UserId,
    limits,
    wire::{ConversationPage, ProfileState},
};

use crate::view;

/// Rows of a page of the conversation list.
const ROWS: usize = 50;

/// What a page of the conversation list may ask of PostgreSQL: its rows, and their last messages.
const STATEMENTS_MAX: u64 = 2;

/// Longer than an answer waits for profiles, and far less than a call may take.
const SLOW: Duration = Duration::from_millis(400);

#[test]
fn r11_1_a_cold_list_of_fifty_costs_one_call_and_a_warm_one_none() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let viewer = fleet.person()?;
        let others: Vec<Person> = (0..ROWS).map(|_| fleet.person()).collect::<Result<_>>()?;
        for other in &others {
            fleet.direct(other, &viewer).await?;
        }
        let ids: Vec<UserId> = others.iter().map(|other| other.id).collect();
        // The first gateway made the conversations and knows their names; the second has nothing but Redis.
        view::known(&fleet.api(&viewer, 0), &ids).await?;
        view::discard_stored(fleet).await?;
        let before = view::calls_for(fleet, &ids);
        let page = view::list(&fleet.api(&viewer, 1), ROWS).await?;
        assert_eq!(page.conversations.len(), ROWS);
        let names: HashSet<_> = page.conversations.into_iter().map(|row| row.name.text).collect();
        let expected: HashSet<_> = ids.iter().map(|id| view::name_of(fleet, *id)).collect::<Result<_>>()?;
        assert_eq!(names, expected);
        view::check_calls(fleet, &ids, before + 1).await.context("one call for all rows")?;

        let cold = view::calls_for(fleet, &ids);
        for gateway in [1, 0, 1] {
            view::list(&fleet.api(&viewer, gateway), ROWS).await?;
        }
        assert_eq!(view::calls_for(fleet, &ids), cold, "none for what is known");
        Ok(())
    })
}

/// Asks the second gateway for a page of the conversation list, once, and counts what it asks of PostgreSQL for that.
async fn list_and_count(fleet: &TestFleet, viewer: &Person) -> Result<u64> {
    let gateway = fleet.gateway(1);
    let before = gateway.value("chat_gateway_sql_statements_total").await?;
    let page: ConversationPage = fleet.api(viewer, 1).get(&format!("conversations?limit={ROWS}")).await?.ok()?;
    let after = gateway.value("chat_gateway_sql_statements_total").await?;
    assert_eq!(page.conversations.len(), ROWS);
    assert!(page.conversations.iter().all(|row| row.last_message.is_some()), "last messages are asked for too");
    Ok(after - before)
}

#[test]
fn r11_1_a_list_of_fifty_costs_two_statements_cold_and_warm() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let viewer = fleet.person()?;
        let mut ids = Vec::with_capacity(ROWS);
        // The first gateway does all of it; the second has nothing to do but what it is asked for.
        for number in 0..ROWS {
            let other = fleet.person()?;
            let conversation_id = fleet.direct(&other, &viewer).await?;
            fleet.api(&other, 0).say(conversation_id, &said(number)).await?;
            database::wait_until_stored(&fleet.urls().postgres, conversation_id, 1).await?;
            ids.push(other.id);
        }
        view::known(&fleet.api(&viewer, 0), &ids).await?;
        view::discard_stored(fleet).await?;
        let cold = list_and_count(fleet, &viewer).await?;
        assert!((1..=STATEMENTS_MAX).contains(&cold), "{cold} statements when no name is known");
        view::list(&fleet.api(&viewer, 1), ROWS).await?;
        for _ in 0..3 {
            let warm = list_and_count(fleet, &viewer).await?;
            assert!((1..=STATEMENTS_MAX).contains(&warm), "{warm} statements when all names are known");
        }
        Ok(())
    })
}

#[test]
fn r11_2_what_one_gateway_was_told_the_others_have_from_redis() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let [asha, bikram] = fleet.people()?;
        view::user_in(&fleet.api(&asha, 0), bikram.id, ProfileState::Current).await?;
        eventually("its profile in Redis", || async {
            let key = bikram.id.as_uuid().simple().to_string();
            Ok(view::stored(fleet).await?.iter().any(|(found, _)| found.ends_with(&key)).then_some(()))
        })
        .await?;
        let seen = view::user_in(&fleet.api(&asha, 1), bikram.id, ProfileState::Current).await?;
        assert_eq!(seen.name, view::name_of(fleet, bikram.id)?);
        view::check_calls(fleet, &[bikram.id], 1).await
    })
}

#[test]
fn r11_2_concurrent_requests_share_one_call_and_nobody_is_asked_for_twice_at_once() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let kaha = fleet.kaha();
        let asker = fleet.person()?;
        let api = fleet.api(&asker, 0);
        // A connection to kaha-main-v3 is there, and its answer is slow enough that all requests come before it.
        view::user_in(&api, asker.id, ProfileState::Current).await?;
        kaha.behave(Behaviour::Slow(SLOW));
        let ids: Vec<UserId> = (0..limits::PROFILES_MAX).map(|_| UserId::random()).collect();
        let requests = (0..8).map(|_| async { view::shown(&api, &ids, &[]).await });
        let answers = futures_util::future::try_join_all(requests).await?;
        for answer in answers {
            let unavailable = answer.users.iter().filter(|user| user.state == ProfileState::Unavailable).count();
            assert_eq!(unavailable, ids.len(), "nobody waits for a slow call");
        }
        view::known(&api, &ids).await?;
        for id in &ids {
            assert_eq!(kaha.calls().max_in_flight(id.as_uuid()), 1);
        }
        view::check_calls(fleet, &ids, 1).await.context("the calls of all requests were gathered into one")?;

        // More than a call holds, asked for at once.
        let crowds: Vec<Vec<UserId>> =
            (0..5).map(|_| (0..limits::PROFILES_MAX).map(|_| UserId::random()).collect()).collect();
        let requests = crowds.iter().map(|crowd| view::shown(&api, crowd, &[]));
        futures_util::future::try_join_all(requests).await?;
        let everybody: Vec<UserId> = crowds.concat();
        view::known(&api, &everybody).await?;
        let calls = kaha.calls().for_any(&everybody.iter().map(|id| id.as_uuid()).collect::<Vec<_>>());
        let asked_for: usize = calls.iter().map(|call| call.ids().count()).sum();
        // A call that is repeated asks for as many ids as it has.
        let repeated = view::repeats(fleet).await? * IDS_MAX;
        assert!((everybody.len()..=everybody.len() + repeated).contains(&asked_for), "{asked_for}");
        assert!(calls.iter().all(|call| call.ids().count() <= IDS_MAX));
        Ok(())
    })
}

#[test]
fn r11_4_whom_kaha_does_not_know_is_not_asked_for_again_and_again() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let asker = fleet.person()?;
        let nobody = UserId::random();
        fleet.kaha().profiles().forget(nobody.as_uuid());
        for gateway in [0, 1, 0, 1] {
            let api = fleet.api(&asker, gateway);
            let seen = view::user_in(&api, nobody, ProfileState::Unknown).await?;
            assert_eq!((seen.name.as_str(), seen.avatar_url), ("User", None));
        }
        let key = nobody.as_uuid().simple().to_string();
        let is_stored = view::stored(fleet).await?.iter().any(|(found, _)| found.ends_with(&key));
        assert!(!is_stored, "ids that nobody has must not fill Redis");
        view::check_calls(fleet, &[nobody], 2).await.context("each gateway remembers it for a minute")
    })
}
