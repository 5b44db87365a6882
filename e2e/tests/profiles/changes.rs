//! R3.4 and R10.2: a profile that changes is right everywhere, soon, by either way of telling.

use anyhow::Result;
use chat_dev::{kaha::announce_profiles, servers::Login};
use chat_e2e::{Api, Person, Socket, TestFleet, eventually, on_shared_fleet};
use chat_shared::{
    ids::{BusinessId, UserId},
    wire::{ConversationPage, Encoding, ProfileState},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::view;

/// By which way the chat is told.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// The internal endpoint of this gateway.
    Http(usize),
    /// The subject in NATS, with kaha-main-v3's own login.
    Nats,
}

const WAYS: [Way; 3] = [Way::Http(0), Way::Http(1), Way::Nats];

impl Way {
    async fn tell(self, fleet: &TestFleet, users: &[Uuid], businesses: &[Uuid]) -> Result<()> {
        match self {
            Self::Http(gateway) => fleet.change_profiles(gateway, users, businesses).await,
            Self::Nats => {
                let nats = fleet.urls().of(Login::Kaha).nats;
                announce_profiles(&nats, fleet.namespace(), users, businesses).await
            }
        }
    }
}

/// A gateway shows the user by this name no more, unless it says that the name may be an old one: neither in its answer to
/// who asks for profiles, nor in the list of conversations.
async fn assert_not_current(api: &Api, id: UserId, name: &str) -> Result<()> {
    let page: ConversationPage = api.get("conversations").await?.ok()?;
    let listed: Vec<_> = page.conversations.into_iter().flat_map(|row| row.profiles).collect();
    assert!(listed.iter().any(|profile| profile.user_id == id), "the user is in the list");
    for profile in listed.iter().chain([&view::user(api, id).await?]).filter(|profile| profile.user_id == id) {
        assert!(profile.state != ProfileState::Current || profile.name != name, "{profile:?}");
    }
    Ok(())
}

/// Waits until nothing that Redis keeps has a text in it, and something has another one.
async fn replaced_in_redis(fleet: &TestFleet, old: &str, new: &str) -> Result<()> {
    eventually("the new profile in Redis", || async {
        let stored = view::stored(fleet).await?;
        let has = |text: &str| stored.iter().any(|(_, value)| value.contains(text));
        Ok((!has(old) && has(new)).then_some(()))
    })
    .await
}

#[test]
fn r3_4_r10_2_a_new_name_reaches_all_gateways_and_redis_by_either_way() -> Result<()> {
    on_shared_fleet(async |fleet| {
        for way in WAYS {
            let [asha, bikram] = fleet.people()?;
            let apis = [fleet.api(&asha, 0), fleet.api(&asha, 1)];
            for api in &apis {
                view::known(api, &[bikram.id]).await?;
            }
            let old = view::name_of(fleet, bikram.id)?;
            let new = format!("Bikram {}", Uuid::new_v4().simple());
            let id = bikram.id.as_uuid();
            fleet.kaha().profiles().set_user(id, &new, Some("https://images.example.com/new.jpg"));
            way.tell(fleet, &[id], &[]).await?;
            for api in &apis {
                view::user_named(api, bikram.id, &new).await?;
                let seen = view::user(api, bikram.id).await?;
                assert_eq!(seen.avatar_url.as_deref(), Some("https://images.example.com/new.jpg"), "{way:?}");
            }
            replaced_in_redis(fleet, &old, &new).await?;
        }
        Ok(())
    })
}

#[test]
fn r10_2_once_the_endpoint_has_answered_no_gateway_shows_the_old_name() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        fleet.direct(&asha, &bikram).await?;
        let apis = [fleet.api(&asha, 0), fleet.api(&asha, 1)];
        for round in 0..6 {
            let (old, new) = (view::name_of(fleet, bikram.id)?, format!("Bikram, the {round}."));
            for api in &apis {
                view::user_named(api, bikram.id, &old).await?;
            }
            let id = bikram.id.as_uuid();
            fleet.kaha().profiles().set_user(id, &new, None);
            Way::Http(round % 2).tell(fleet, &[id], &[]).await?;
            // The gateway that wasn't told first: it knew the name, and would know it for a minute.
            for api in [&apis[1 - round % 2], &apis[round % 2]] {
                assert_not_current(api, bikram.id, &old).await?;
            }
            for api in &apis {
                view::user_named(api, bikram.id, &new).await?;
                let page = view::list(api, 1).await?;
                assert_eq!(page.conversations[0].name.text, new);
                assert_not_current(api, bikram.id, &old).await?;
            }
        }
        Ok(())
    })
}

#[test]
fn r3_4_those_in_the_same_conversations_are_told_and_nobody_else() -> Result<()> {
    on_shared_fleet(async |fleet| {
        for way in WAYS {
            let [changed, direct, grouped, stranger] = fleet.people()?;
            fleet.direct(&changed, &direct).await?;
            fleet.group(&grouped, &[&changed]).await?;
            let connect = async |person: &Person, gateway: usize| -> Result<Socket> {
                fleet.ready_socket(person, gateway, Encoding::Json).await
            };
            let mut concerned = [
                connect(&direct, 0).await?,
                connect(&direct, 1).await?,
                connect(&grouped, 1).await?,
                connect(&changed, 0).await?,
            ];
            let mut unconcerned = connect(&stranger, 0).await?;
            let new = format!("Chandra {}", Uuid::new_v4().simple());
            let id = changed.id.as_uuid();
            fleet.kaha().profiles().set_user(id, &new, None);
            way.tell(fleet, &[id], &[]).await?;
            for socket in &mut concerned {
                loop {
                    let pushed = view::pushed(socket, changed.id).await?;
                    assert_eq!(pushed.avatar_url.is_none(), pushed.name == new, "{way:?}");
                    if pushed.name == new {
                        break;
                    }
                }
            }
            // A push of its own comes after whatever was pushed before.
            fleet.direct(&stranger, &grouped).await?;
            let frame = unconcerned
                .frame_where(|frame| matches!(frame["type"].as_str(), Some("profile" | "conversation")))
                .await?;
            assert_ne!(frame["profiles"]["users"][0]["user_id"], json!(id), "{way:?}");
        }
        Ok(())
    })
}

#[test]
fn r3_4_r10_3_a_business_changes_too() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let asker = fleet.person()?;
        for way in WAYS {
            let business = BusinessId::random();
            let named = async |name: String| {
                for gateway in [0, 1] {
                    let api = fleet.api(&asker, gateway);
                    eventually(&format!("a business called {name}"), || async {
                        let seen = view::shown(&api, &[], &[business]).await?.businesses;
                        Ok((seen[0].name == name && seen[0].state == ProfileState::Current).then_some(()))
                    })
                    .await?;
                }
                anyhow::Ok(())
            };
            let profiles = fleet.kaha().profiles();
            profiles.set_business(business.as_uuid(), "Old Tea House", None);
            named("Old Tea House".to_owned()).await?;
            profiles.set_business(business.as_uuid(), "New Tea House", None);
            way.tell(fleet, &[], &[business.as_uuid()]).await?;
            named("New Tea House".to_owned()).await?;
        }
        Ok(())
    })
}

#[test]
fn r3_4_whoever_was_deleted_is_gone_from_redis_and_every_answer() -> Result<()> {
    on_shared_fleet(async |fleet| {
        for way in WAYS {
            let [asha, bikram] = fleet.people()?;
            fleet.direct(&asha, &bikram).await?;
            let name = format!("Forget me {}", Uuid::new_v4().simple());
            let id = bikram.id.as_uuid();
            fleet.kaha().profiles().set_user(id, &name, None);
            // Making the conversation may have asked before.
            way.tell(fleet, &[id], &[]).await?;
            for gateway in [0, 1] {
                view::user_named(&fleet.api(&asha, gateway), bikram.id, &name).await?;
            }
            fleet.kaha().profiles().forget(id);
            way.tell(fleet, &[id], &[]).await?;
            if let Way::Http(told) = way {
                for gateway in [1 - told, told] {
                    assert_not_current(&fleet.api(&asha, gateway), bikram.id, &name).await?;
                }
            }
            for gateway in [0, 1] {
                let seen = view::user_in(&fleet.api(&asha, gateway), bikram.id, ProfileState::Unknown).await?;
                assert_eq!(seen.name, "User");
            }
            eventually("a Redis without the name", || async {
                Ok((!view::stored(fleet).await?.iter().any(|(_, value)| value.contains(&name))).then_some(()))
            })
            .await?;
        }
        Ok(())
    })
}

#[test]
fn what_is_changed_by_hand_is_told_as_kaha_would() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let api = fleet.api(&asha, 1);
        view::known(&api, &[bikram.id]).await?;
        let mut socket = fleet.ready_socket(&bikram, 0, Encoding::Json).await?;
        let post = async |path: &str, body: Value| {
            let url = format!("{}/dev/{path}", fleet.kaha().url());
            anyhow::Ok(reqwest::Client::new().post(url).json(&body).send().await?.status().as_u16())
        };
        assert_eq!(post("profiles", json!({ "user_id": bikram.id, "name": "Bikram, by hand" })).await?, 204);
        view::user_named(&api, bikram.id, "Bikram, by hand").await?;
        assert_eq!(post("logout", json!({ "user_id": bikram.id })).await?, 204);
        assert_eq!(socket.close_code().await?.0, 4506);
        Ok(())
    })
}
