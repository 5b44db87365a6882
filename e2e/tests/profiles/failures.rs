//! R3.3 and R3.5: kaha-main-v3 is down, slow or wrong, and nobody's request fails for it.

use std::time::Duration;

use anyhow::{Context, Result};
use chat_dev::kaha::{Behaviour, Fault};
use chat_e2e::{Setup, TestFleet, on_own_fleet, said};
use chat_shared::{
    ids::UserId,
    wire::{ConversationPage, Encoding, ProfileState},
};

use crate::view;

/// Longer than an answer waits for profiles.
const SLOW: Duration = Duration::from_millis(500);

/// What the gateway logs when its token or its request is not taken: whoever set it up has to act.
const REFUSED: &str = "profiles can't be asked for";

fn failures() -> Vec<Behaviour> {
    let failing = |status, retry_after| Behaviour::Failing { status, retry_after };
    vec![
        Behaviour::Down,
        Behaviour::BlackHole,
        Behaviour::Slow(Duration::from_secs(5)),
        failing(500, None),
        failing(503, Some(Duration::from_secs(1))),
        failing(429, Some(Duration::from_secs(1))),
        failing(401, None),
        failing(301, None),
        failing(404, None),
        Behaviour::Wrong(Fault::BrokenJson),
        Behaviour::Wrong(Fault::Huge),
        Behaviour::Wrong(Fault::CutShort),
        Behaviour::Wrong(Fault::Body(String::new())),
        Behaviour::Wrong(Fault::Body("null".to_owned())),
        Behaviour::Wrong(Fault::Body(r#"{"users":{},"businesses":7}"#.to_owned())),
        Behaviour::Wrong(Fault::Body(r#"{"users":[{"id":1,"name":[]}],"businesses":[]}"#.to_owned())),
    ]
}

#[test]
fn r3_3_r3_5_whatever_kaha_does_lists_are_answered_with_neutral_names_that_say_so() -> Result<()> {
    on_own_fleet(Setup::default().with_fault(REFUSED), async |fleet| {
        for behaviour in failures() {
            let [asha, bikram] = fleet.people()?;
            fleet.kaha().behave(behaviour.clone());
            let told = || format!("{behaviour:?}");
            let conversation_id = fleet.direct(&asha, &bikram).await.with_context(told)?;
            for gateway in [0, 1] {
                let api = fleet.api(&asha, gateway);
                let page: ConversationPage = api.get("conversations").await?.ok().with_context(told)?;
                let row = page.conversations.into_iter().next().context("the list has the conversation")?;
                assert_eq!((row.name.text.as_str(), row.name.is_fallback), ("User", true), "{behaviour:?}");
                let states: Vec<_> = row.profiles.iter().map(|profile| profile.state).collect();
                assert_eq!(states, [ProfileState::Unavailable; 2], "{behaviour:?}");
                let profile = view::user(&api, bikram.id).await.with_context(told)?;
                assert_eq!((profile.name.as_str(), profile.avatar_url), ("User", None), "{behaviour:?}");
                api.say(conversation_id, &said("and all the rest goes on")).await.with_context(told)?;
            }
            fleet.kaha().behave(Behaviour::Normal);
            for gateway in [0, 1] {
                let name = view::name_of(fleet, bikram.id)?;
                view::user_named(&fleet.api(&asha, gateway), bikram.id, &name).await.with_context(told)?;
            }
        }
        Ok(())
    })
}

/// Everybody's profile is known and has changed since, which kaha-main-v3 said before it failed.
async fn made_stale(fleet: &TestFleet, behaviour: Behaviour, asker: &chat_e2e::Person, id: UserId) -> Result<String> {
    for gateway in [0, 1] {
        view::user_in(&fleet.api(asker, gateway), id, ProfileState::Current).await?;
    }
    fleet.kaha().behave(behaviour);
    fleet.change_profiles(0, &[id.as_uuid()], &[]).await?;
    view::name_of(fleet, id)
}

#[test]
fn r3_3_what_was_known_is_shown_as_stale_while_kaha_can_not_be_asked() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        for behaviour in [Behaviour::Down, Behaviour::BlackHole, Behaviour::Wrong(Fault::BrokenJson)] {
            let [asha, bikram] = fleet.people()?;
            let conversation_id = fleet.direct(&asha, &bikram).await?;
            let name = made_stale(fleet, behaviour, &asha, bikram.id).await?;
            for gateway in [0, 1] {
                let api = fleet.api(&asha, gateway);
                let profile = view::user_in(&api, bikram.id, ProfileState::Stale).await?;
                assert_eq!(profile.name, name);
                let row = api.listed(conversation_id).await?;
                assert_eq!((row.name.text, row.name.is_fallback), (name.clone(), false));
            }
            fleet.kaha().profiles().set_user(bikram.id.as_uuid(), "Bikram, again", None);
            fleet.kaha().behave(Behaviour::Normal);
            for gateway in [0, 1] {
                view::user_named(&fleet.api(&asha, gateway), bikram.id, "Bikram, again").await?;
            }
        }
        Ok(())
    })
}

#[test]
fn r3_5_a_name_that_comes_late_is_pushed_to_who_asked() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let [asha, bikram] = fleet.people()?;
        fleet.direct(&asha, &bikram).await?;
        for (gateway, encoding) in [(0, Encoding::Json), (1, Encoding::MessagePack)] {
            let [other] = fleet.people()?;
            let mut socket = fleet.ready_socket(&asha, gateway, encoding).await?;
            fleet.kaha().behave(Behaviour::Slow(SLOW));
            let shown = view::user(&fleet.api(&asha, gateway), other.id).await?;
            assert_eq!(shown.state, ProfileState::Unavailable);
            let pushed = view::pushed(&mut socket, other.id).await?;
            assert_eq!((pushed.name, pushed.state), (view::name_of(fleet, other.id)?, ProfileState::Current));
            fleet.kaha().behave(Behaviour::Normal);
        }
        Ok(())
    })
}

#[test]
fn r3_5_parts_of_an_answer_that_are_wrong_spoil_nothing_else() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let asker = fleet.person()?;
        let api = fleet.api(&asker, 0);
        fleet.kaha().behave(Behaviour::Wrong(Fault::Unasked));
        let wanted: Vec<UserId> = (0..3).map(|_| UserId::random()).collect();
        for id in &wanted {
            view::user_named(&api, *id, &view::name_of(fleet, *id)?).await?;
        }
        let kept = view::stored(fleet).await?;
        assert!(!kept.iter().any(|(_, value)| value.contains("Stranger")), "whom nobody asked for is not kept");

        // The first of two entries has a number for a name.
        fleet.kaha().behave(Behaviour::Wrong(Fault::DamagedEntries));
        let [whole, damaged] = [UserId::random(), UserId::random()];
        chat_e2e::eventually("the entry that is whole", || async {
            let seen = view::shown(&api, &[whole, damaged], &[]).await?.users;
            assert_ne!(seen[1].state, ProfileState::Unknown, "who has a damaged entry isn't gone");
            Ok((seen[0].state == ProfileState::Current).then_some(()))
        })
        .await?;
        fleet.kaha().behave(Behaviour::Normal);
        view::user_named(&api, damaged, &view::name_of(fleet, damaged)?).await
    })
}
