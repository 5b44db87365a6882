//! R2.5: what conversations are called, in lists and in pushes; R10.1 and R10.3: users and businesses by their ids.

use anyhow::{Context, Result};
use chat_e2e::{Api, Person, TestFleet, on_shared_fleet};
use chat_shared::{
    ids::{BusinessId, ConversationId, UserId},
    wire::{Conversation, ConversationPage, Encoding, ProfileState},
};
use serde_json::json;

use crate::view;

async fn listed(api: &Api, conversation_id: ConversationId) -> Result<Conversation> {
    let page: ConversationPage = view::list(api, 50).await?;
    let mut conversations = page.conversations.into_iter();
    conversations.find(|it| it.conversation_id == conversation_id).context("the list has the conversation")
}

fn picture_of(fleet: &TestFleet, person: &Person) -> Result<Option<String>> {
    Ok(fleet.kaha().profiles().user(person.id.as_uuid()).context("kaha-main-v3 knows them")?.avatar_url)
}

#[test]
fn r2_5_a_direct_conversation_is_called_as_the_other_one() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        for (viewer, other, gateway) in [(&asha, &bikram, 0), (&bikram, &asha, 1)] {
            let seen = listed(&fleet.api(viewer, gateway), conversation_id).await?;
            assert_eq!(seen.name.text, view::name_of(fleet, other.id)?);
            assert_eq!(seen.name.avatar_url, picture_of(fleet, other)?);
            assert_eq!((seen.name.more, seen.name.is_fallback), (0, false));
            let ids = |ids: &mut dyn Iterator<Item = UserId>| ids.collect::<Vec<_>>();
            let participants = ids(&mut seen.participants.iter().map(|participant| participant.user_id));
            assert_eq!(ids(&mut seen.profiles.iter().map(|profile| profile.user_id)), participants);
        }
        Ok(())
    })
}

#[test]
fn r2_5_a_group_is_called_as_its_first_three_participants_and_says_how_many_more() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, chandra, deepa, ekta] = fleet.people()?;
        for (others, more) in [(&[&bikram][..], 0), (&[&bikram, &chandra], 0), (&[&bikram, &chandra, &deepa, &ekta], 2)]
        {
            let group = fleet.group(&asha, others).await?;
            let seen = listed(&fleet.api(&bikram, 1), group).await?;
            let first = seen.participants.iter().take(3).map(|participant| view::name_of(fleet, participant.user_id));
            assert_eq!(seen.name.text, first.collect::<Result<Vec<_>>>()?.join(", "));
            assert_eq!((seen.name.more, seen.name.avatar_url), (more, None));
            assert_eq!(seen.profiles.len(), others.len() + 1, "all of them have their pictures");
            let pictured = seen.profiles.iter().all(|profile| profile.avatar_url.is_some());
            assert!(pictured && !seen.name.is_fallback);
        }
        Ok(())
    })
}

#[test]
fn r2_5_a_push_of_a_conversation_carries_its_name_and_pictures() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, chandra] = fleet.people()?;
        // What the gateway remembers is in the push; what it doesn't may come after it.
        view::known(&fleet.api(&bikram, 1), &[asha.id, bikram.id, chandra.id]).await?;
        for encoding in Encoding::ALL {
            let mut socket = fleet.ready_socket(&bikram, 1, encoding).await?;
            let group = fleet.group(&asha, &[&bikram, &chandra]).await?;
            let frame = socket.frame_where(|frame| frame["type"] == "conversation").await?;
            let pushed = &frame["conversation"];
            let text = pushed["name"]["text"].as_str().context("a name")?;
            for person in [&asha, &bikram, &chandra] {
                let name = view::name_of(fleet, person.id)?;
                assert!(text.contains(&name), "{text} lacks {name}");
            }
            assert_eq!(pushed["profiles"].as_array().map(Vec::len), Some(3));
            assert_eq!(pushed["profiles"][0]["state"], json!(ProfileState::Current));
            assert_eq!(listed(&fleet.api(&bikram, 1), group).await?.name.text, text, "the list says the same");
        }
        Ok(())
    })
}

#[test]
fn r10_1_r10_3_users_and_businesses_are_looked_up_by_id_in_one_batch() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let business = BusinessId::random();
        let nobody = UserId::random();
        let kaha = fleet.kaha();
        kaha.profiles().set_business(business.as_uuid(), "Himal Tea House", None);
        kaha.profiles().forget(nobody.as_uuid());
        let api = fleet.api(&asha, 0);
        let users = [bikram.id, nobody, asha.id];
        let seen = chat_e2e::eventually("all profiles", || async {
            let seen = view::shown(&api, &users, &[business]).await?;
            let is_known = seen.users.iter().all(|user| user.state != ProfileState::Unavailable)
                && seen.businesses.iter().all(|business| business.state != ProfileState::Unavailable);
            Ok(Some(seen).filter(|_| is_known))
        })
        .await?;
        assert_eq!(seen.users.iter().map(|user| user.user_id).collect::<Vec<_>>(), users, "in the order asked for");
        assert_eq!(seen.users[0].name, view::name_of(fleet, bikram.id)?);
        assert_eq!((seen.users[1].state, seen.users[1].avatar_url.clone()), (ProfileState::Unknown, None));
        assert_eq!(
            (seen.businesses[0].name.as_str(), seen.businesses[0].state),
            ("Himal Tea House", ProfileState::Current)
        );
        let calls = kaha.calls().for_any(&[business.as_uuid()]);
        // Other requests of the same moment may be in it too.
        let asked: Vec<_> = calls.first().context("a call")?.ids().collect();
        let wanted = users.map(UserId::as_uuid).into_iter().chain([business.as_uuid()]);
        assert!(wanted.clone().all(|id| asked.contains(&id)), "all of them by one call");
        Ok(())
    })
}
