//! What clients are shown of users and businesses, what kaha-main-v3 knows of them, and what Redis keeps.

use anyhow::{Context, Result, ensure};
use chat_e2e::{Api, Socket, TestFleet, eventually};
use chat_shared::{
    ids::{BusinessId, UserId},
    limits,
    wire::{ConversationPage, ProfileList, ProfileState, UserProfile},
};
use serde_json::Value;

/// The gateways' counter of calls to kaha-main-v3, by outcome.
const CALLS: &str = "chat_gateway_profile_calls_total";

/// Profiles as a gateway shows them at this moment.
pub async fn shown(api: &Api, users: &[UserId], businesses: &[BusinessId]) -> Result<ProfileList> {
    let listed = |ids: Vec<uuid::Uuid>| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut query = Vec::new();
    if !users.is_empty() {
        query.push(format!("user_ids={}", listed(users.iter().map(|id| id.as_uuid()).collect())));
    }
    if !businesses.is_empty() {
        query.push(format!("business_ids={}", listed(businesses.iter().map(|id| id.as_uuid()).collect())));
    }
    let path = format!("profiles?{}", query.join("&"));
    // Ids of a user are counted, and these tests ask for many.
    eventually("an answer within the limits", || async {
        let answer = api.get(&path).await?;
        if answer.code() == "429 rate_limited" { Ok(None) } else { answer.ok().map(Some) }
    })
    .await
}

/// The same of one user.
pub async fn user(api: &Api, id: UserId) -> Result<UserProfile> {
    shown(api, &[id], &[]).await?.users.pop().context("an answer has everybody who was asked for")
}

/// Waits until a gateway shows a user in this state.
pub async fn user_in(api: &Api, id: UserId, state: ProfileState) -> Result<UserProfile> {
    eventually(&format!("a user who is {state:?}"), || async {
        Ok(Some(user(api, id).await?).filter(|profile| profile.state == state))
    })
    .await
}

/// Waits until a gateway shows a user by this name, as current.
pub async fn user_named(api: &Api, id: UserId, name: &str) -> Result<()> {
    eventually(&format!("a user called {name}"), || async {
        let profile = user(api, id).await?;
        Ok((profile.state == ProfileState::Current && profile.name == name).then_some(()))
    })
    .await
}

/// Waits until a gateway knows all of these users.
pub async fn known(api: &Api, ids: &[UserId]) -> Result<()> {
    for page in ids.chunks(limits::PROFILES_MAX) {
        eventually("names of all users", || async {
            let seen = shown(api, page, &[]).await?.users;
            Ok(seen.iter().all(|user| user.state == ProfileState::Current).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// The asker's conversations, once all names in them are known.
pub async fn list(api: &Api, limit: usize) -> Result<ConversationPage> {
    eventually("a list with all names", || async {
        let page: ConversationPage = api.get(&format!("conversations?limit={limit}")).await?.ok()?;
        let is_known = |profile: &UserProfile| profile.state == ProfileState::Current;
        let all_known = page.conversations.iter().all(|it| !it.name.is_fallback && it.profiles.iter().all(is_known));
        Ok(Some(page).filter(|_| all_known))
    })
    .await
}

/// The name by which kaha-main-v3 knows a user.
pub fn name_of(fleet: &TestFleet, id: UserId) -> Result<String> {
    Ok(fleet.kaha().profiles().user(id.as_uuid()).context("kaha-main-v3 knows the user")?.name)
}

/// In how many calls kaha-main-v3 was asked for any of these users.
pub fn calls_for(fleet: &TestFleet, ids: &[UserId]) -> usize {
    let ids: Vec<_> = ids.iter().map(|id| id.as_uuid()).collect();
    fleet.kaha().calls().for_any(&ids).len()
}

/// Repeats of calls that are right: for profiles that may have changed while they were fetched, as a gateway assumes when it
/// has just connected to NATS, and after calls that failed, as on a machine that is too slow for their time-out.
pub async fn repeats(fleet: &TestFleet) -> Result<usize> {
    let mut repeats = 0;
    for gateway in fleet.gateways() {
        repeats += gateway.value("chat_gateway_profiles_overtaken_total").await?;
        repeats += gateway.counter(CALLS, "").await? - gateway.counter(CALLS, "outcome=\"answered\"").await?;
    }
    Ok(usize::try_from(repeats)?)
}

/// Checks that kaha-main-v3 was asked for these users in so many calls and in no more.
pub async fn check_calls(fleet: &TestFleet, ids: &[UserId], expected: usize) -> Result<()> {
    let calls = calls_for(fleet, ids);
    let repeats = repeats(fleet).await?;
    ensure!((expected..=expected + repeats).contains(&calls), "{calls} calls, {repeats} repeats, and not {expected}");
    Ok(())
}

/// Passes over frames until one tells of this user's profile.
pub async fn pushed(socket: &mut Socket, id: UserId) -> Result<UserProfile> {
    let of_user = |frame: &Value| {
        let mut profiles = frame["profiles"]["users"].as_array().into_iter().flatten();
        profiles.find(|profile| profile["user_id"] == serde_json::json!(id.as_uuid())).cloned()
    };
    let is_it = |frame: &Value| frame["type"] == "profile" && of_user(frame).is_some();
    let frame = socket.frame_where(is_it).await.context("a profile")?;
    Ok(serde_json::from_value(of_user(&frame).context("the frame has it")?)?)
}

/// What Redis keeps of profiles: keys and values.
pub async fn stored(fleet: &TestFleet) -> Result<Vec<(String, String)>> {
    let mut redis = redis(fleet).await?;
    let mut stored = Vec::new();
    for key in keys(fleet, &mut redis).await? {
        // One that expires meanwhile isn't kept.
        if let Some(value) = redis::cmd("GET").arg(&key).query_async::<Option<String>>(&mut redis).await? {
            stored.push((key, value));
        }
    }
    Ok(stored)
}

/// Throws away what Redis keeps of profiles.
pub async fn discard_stored(fleet: &TestFleet) -> Result<()> {
    let mut redis = redis(fleet).await?;
    let keys = keys(fleet, &mut redis).await?;
    ensure!(!keys.is_empty(), "Redis kept no profile that could be thrown away");
    Ok(redis::cmd("DEL").arg(keys).exec_async(&mut redis).await?)
}

async fn redis(fleet: &TestFleet) -> Result<redis::aio::MultiplexedConnection> {
    let client = redis::Client::open(fleet.urls().redis.as_str())?;
    Ok(client.get_multiplexed_async_connection().await?)
}

async fn keys(fleet: &TestFleet, redis: &mut redis::aio::MultiplexedConnection) -> Result<Vec<String>> {
    let pattern = format!("{}:profile:*", fleet.namespace());
    Ok(redis::cmd("KEYS").arg(pattern).query_async(redis).await?)
}
