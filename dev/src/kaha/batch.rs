//! `POST /api/batch/profiles` and `POST /api/batch/staff`: checks the caller and the request, and answers as it was told to.

use std::{
    collections::HashSet,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::post,
};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    behaviour::{Behaviour, Fault},
    caller::CallerKeys,
    calls::{Call, Calls, Complaint},
    profiles::{PROFILE_MARK, Profile, Profiles},
    staff::StaffLists,
};
use crate::stand_in::lock;

/// Where profiles are asked for.
pub const PATH: &str = "/api/batch/profiles";

/// Where staff lists are asked for.
pub const STAFF_PATH: &str = "/api/batch/staff";

/// What a token must allow to ask for profiles.
const SCOPE_PROFILES: &str = "profiles:read";

/// What a token must allow to ask for staff lists.
const SCOPE_STAFF: &str = "staff:read";

/// Ids of a request, users and businesses together.
pub const IDS_MAX: usize = 200;

/// Bytes of a request. Two hundred ids take less than eight thousand.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// White space in front of an answer that is too long.
static SPACES: [u8; 64 * 1024] = [b' '; 64 * 1024];
const SPACES_REPEATS: usize = 1024;

/// What the endpoints answer from.
#[derive(Debug)]
pub struct Api {
    pub callers: CallerKeys,
    pub profiles: Arc<Profiles>,
    pub staff: Arc<StaffLists>,
    /// Those for profiles, and all complaints.
    pub calls: Arc<Calls>,
    pub staff_calls: Arc<Calls>,
    pub behaviour: Mutex<Behaviour>,
}

/// The endpoints.
pub fn router(api: Arc<Api>) -> Router {
    let router = Router::new().route(PATH, post(answer_profiles)).route(STAFF_PATH, post(answer_staff));
    router.fallback(nothing_here).with_state(api)
}

/// What is asked of profiles.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedProfiles {
    user_ids: Vec<String>,
    business_ids: Vec<String>,
}

/// What is asked of staff.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedStaff {
    business_ids: Vec<String>,
}

impl From<AskedStaff> for AskedProfiles {
    fn from(AskedStaff { business_ids }: AskedStaff) -> Self {
        Self { user_ids: Vec::new(), business_ids }
    }
}

async fn answer_profiles(State(api): State<Arc<Api>>, request: Request) -> Response {
    let call = match check::<AskedProfiles>(&api, request, SCOPE_PROFILES).await {
        Ok(call) => call,
        Err((status, reason)) => return refuse(&api.calls, status, reason),
    };
    let _in_flight = api.calls.begin(call.clone());
    answer(&api, || Answer::of_profiles(&call, &api.profiles)).await
}

async fn answer_staff(State(api): State<Arc<Api>>, request: Request) -> Response {
    let call = match check::<AskedStaff>(&api, request, SCOPE_STAFF).await {
        Ok(call) => call,
        Err((status, reason)) => return refuse(&api.calls, status, reason),
    };
    let _in_flight = api.staff_calls.begin(call.clone());
    // Read before any delay: a late answer may be older than a push.
    let right = Answer::of_staff(&call, &api.staff);
    answer(&api, || right).await
}

async fn answer(api: &Api, right: impl FnOnce() -> Answer) -> Response {
    let behaviour = lock(&api.behaviour).clone();
    match behaviour {
        // Down, its connections are being cut.
        Behaviour::BlackHole | Behaviour::Down => std::future::pending().await,
        Behaviour::Slow(duration) => sleep(duration).await,
        Behaviour::Normal | Behaviour::Failing { .. } | Behaviour::Wrong(_) => {}
    }
    let right = right();
    match behaviour {
        Behaviour::Failing { status, retry_after } => fail(status, retry_after),
        Behaviour::Wrong(fault) => right.spoiled(fault),
        Behaviour::Normal | Behaviour::Down | Behaviour::BlackHole | Behaviour::Slow(_) => right.into_response(),
    }
}

async fn check<T: DeserializeOwned + Into<AskedProfiles>>(
    api: &Api,
    request: Request,
    scope: &str,
) -> Result<Call, (StatusCode, String)> {
    let (head, body) = request.into_parts();
    api.callers.check(text_of(&head.headers, header::AUTHORIZATION), scope)?;
    let bad = |reason: String| (StatusCode::BAD_REQUEST, reason);
    let media_type = text_of(&head.headers, header::CONTENT_TYPE).unwrap_or_default();
    if media_type.split(';').next().is_none_or(|essence| essence.trim() != "application/json") {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body isn't called application/json".to_owned()));
    }
    let body = to_bytes(body, BODY_BYTES_MAX)
        .await
        .map_err(|_| (StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {BODY_BYTES_MAX} bytes")))?;
    let asked: T =
        serde_json::from_slice(&body).map_err(|error| bad(format!("the body isn't what it has to be: {error}")))?;
    let asked: AskedProfiles = asked.into();
    let count = asked.user_ids.len() + asked.business_ids.len();
    if count > IDS_MAX {
        return Err((StatusCode::PAYLOAD_TOO_LARGE, format!("{count} ids are more than {IDS_MAX}")));
    }
    if count == 0 {
        return Err(bad("it asks for nothing".to_owned()));
    }
    let user_ids = ids("user_ids", &asked.user_ids).map_err(bad)?;
    let business_ids = ids("business_ids", &asked.business_ids).map_err(bad)?;
    Ok(Call { user_ids, business_ids, at: Instant::now() })
}

/// The text of a header; `None` if there is none or it isn't text.
fn text_of(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn ids(list: &str, texts: &[String]) -> Result<Vec<Uuid>, String> {
    let mut seen = HashSet::new();
    let ids = texts.iter().enumerate().map(|(index, text)| {
        let id = Uuid::try_parse(text)
            .ok()
            .filter(|id| id.get_version_num() == 4 && id.hyphenated().to_string() == *text)
            .ok_or_else(|| format!("{list}[{index}] isn't a UUID of version 4 in small letters and with hyphens"))?;
        if seen.insert(id) { Ok(id) } else { Err(format!("{list}[{index}] was in the list before")) }
    });
    ids.collect()
}

fn refuse(calls: &Calls, status: StatusCode, reason: String) -> Response {
    let body = json!({ "error": { "status": status.as_u16(), "message": reason } });
    calls.complain(Complaint { status: status.as_u16(), reason });
    (status, Json(body)).into_response()
}

fn fail(status: u16, retry_after: Option<Duration>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = json!({ "error": { "status": status.as_u16(), "message": "this is how it was told to act" } });
    let mut response = (status, Json(body)).into_response();
    if let Some(retry_after) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after.as_secs()));
    }
    response
}

async fn nothing_here(State(api): State<Arc<Api>>, uri: Uri) -> Response {
    refuse(&api.calls, StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
}

/// The right answer, before it is spoiled.
#[derive(Debug)]
struct Answer {
    lists: Vec<List>,
    /// The fields of an entry that are its id and its content.
    fields: [&'static str; 2],
}

/// A list of an answer.
#[derive(Debug)]
struct List {
    name: &'static str,
    entries: Vec<Value>,
    /// One that was not asked for.
    unasked: Value,
}

impl Answer {
    /// In another order than asked, and with fields that nobody was promised.
    fn of_profiles(call: &Call, profiles: &Profiles) -> Self {
        let users = call.user_ids.iter().rev().filter_map(|id| Some(user(*id, &profiles.user(*id)?)));
        let businesses = call.business_ids.iter().rev().filter_map(|id| Some(business(*id, &profiles.business(*id)?)));
        let stranger = Profile { name: format!("{PROFILE_MARK} Stranger"), avatar_url: None };
        Self {
            lists: vec![
                List { name: "users", entries: users.collect(), unasked: user(Uuid::new_v4(), &stranger) },
                List {
                    name: "businesses",
                    entries: businesses.collect(),
                    unasked: business(Uuid::new_v4(), &stranger),
                },
            ],
            fields: ["id", "name"],
        }
    }

    /// As `of_profiles`.
    fn of_staff(call: &Call, staff: &StaffLists) -> Self {
        let entries = call.business_ids.iter().rev().filter_map(|id| staff.entry(*id)).collect();
        let unasked = json!({ "business_id": Uuid::new_v4(), "version": 1, "staff": [] });
        Self { lists: vec![List { name: "businesses", entries, unasked }], fields: ["business_id", "staff"] }
    }

    fn body(&self) -> Value {
        let lists = self.lists.iter().map(|list| (list.name.to_owned(), json!(list.entries)));
        lists.chain([("generated_by".to_owned(), json!({ "service": "batch" }))]).collect()
    }

    fn spoiled(mut self, fault: Fault) -> Response {
        match fault {
            Fault::BrokenJson => {
                let mut text = self.body().to_string();
                // All of it is ASCII but names that tests set; a cut through one of those is as broken.
                text.truncate(text.floor_char_boundary(text.len() / 2));
                json_text(text)
            }
            Fault::Body(text) => json_text(text),
            Fault::Huge => {
                let spaces = (0..SPACES_REPEATS).map(|_| Ok::<_, io::Error>(SPACES.to_vec()));
                let chunks = spaces.chain([Ok(self.body().to_string().into_bytes())]);
                json_body(Body::from_stream(stream::iter(chunks)))
            }
            Fault::Missing => {
                self.each(|List { entries, .. }| {
                    let mut index = 0;
                    entries.retain(|_| {
                        index += 1;
                        index % 2 == 0
                    });
                });
                self.into_response()
            }
            Fault::Unasked => {
                self.each(|List { entries, unasked, .. }| entries.push(unasked.take()));
                self.into_response()
            }
            Fault::DamagedEntries => {
                let [id, content] = self.fields;
                self.each(|List { entries, .. }| {
                    for (index, entry) in entries.iter_mut().enumerate().step_by(2) {
                        match index % 6 {
                            0 => entry[content] = json!(7),
                            2 => entry[content] = Value::Null,
                            _ => entry[id] = json!("somebody"),
                        }
                    }
                });
                self.into_response()
            }
            Fault::CutShort => {
                let mut text = self.body().to_string();
                text.truncate(text.floor_char_boundary(text.len() / 2));
                let end = async {
                    // The server writes what it has when there is no more at once.
                    tokio::task::yield_now().await;
                    Err(io::Error::other("the connection is cut here"))
                };
                json_body(Body::from_stream(stream::iter([Ok(text)]).chain(stream::once(end))))
            }
        }
    }

    fn each(&mut self, spoil: impl FnMut(&mut List)) {
        self.lists.iter_mut().for_each(spoil);
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        Json(self.body()).into_response()
    }
}

fn user(id: Uuid, profile: &Profile) -> Value {
    json!({ "id": id, "name": profile.name, "avatar_url": profile.avatar_url, "is_verified": true })
}

/// Without a field for an avatar if there is none, where users have `null`: both are allowed.
fn business(id: Uuid, profile: &Profile) -> Value {
    let mut entry = json!({ "id": id, "name": profile.name, "category": { "name": "tea" } });
    if let Some(avatar_url) = &profile.avatar_url {
        entry["avatar_url"] = json!(avatar_url);
    }
    entry
}

fn json_text(text: String) -> Response {
    json_body(Body::from(text))
}

fn json_body(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
