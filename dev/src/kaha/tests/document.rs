//! docs/kaha.md says what the stand-in does: its examples are taken, and what they are to look like is what it makes.

use jsonwebtoken::dangerous::insecure_decode;

use super::*;

const DOCUMENT: &str = include_str!("../../../../docs/kaha.md");

/// The example of this kind.
fn example(kind: &str) -> Value {
    let (_, rest) = DOCUMENT.split_once(&format!("```json {kind}\n")).unwrap_or_else(|| panic!("no example of {kind}"));
    serde_json::from_str(rest.split("```").next().unwrap()).unwrap_or_else(|error| panic!("{kind}: {error}"))
}

fn names_of(object: &Value) -> Vec<&str> {
    let mut names: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

fn id_in(value: &Value) -> Uuid {
    serde_json::from_value(value.clone()).unwrap()
}

#[tokio::test]
async fn the_documents_request_gets_the_documents_answer_r10_1() {
    let ground = Ground::new().await;
    let (request, answer) = (example("request"), example("answer"));
    let profiles = ground.kaha.profiles();
    profiles.know_everybody(false);
    let told =
        |entry: &Value| (entry["name"].as_str().unwrap().to_owned(), entry["avatar_url"].as_str().map(str::to_owned));
    for entry in answer["users"].as_array().unwrap() {
        let (name, avatar_url) = told(entry);
        profiles.set_user(id_in(&entry["id"]), &name, avatar_url.as_deref());
    }
    for entry in answer["businesses"].as_array().unwrap() {
        let (name, avatar_url) = told(entry);
        profiles.set_business(id_in(&entry["id"]), &name, avatar_url.as_deref());
    }
    let response = ground.ask_with(&ground.keys[0].sign(&with_times(example("token-of-chat"))), &request).await;
    assert_eq!(response.status(), StatusCode::OK);
    let given: Value = response.json().await.unwrap();
    for list in ["users", "businesses"] {
        let (given, promised) = (given[list].as_array().unwrap(), answer[list].as_array().unwrap());
        assert_eq!(given.len(), promised.len());
        for (given, promised) in given.iter().zip(promised) {
            for name in ["id", "name", "avatar_url"] {
                assert_eq!(given[name], promised[name], "{name} in {list}");
            }
        }
    }
}

#[tokio::test]
async fn the_documents_request_for_staff_gets_the_documents_answer_r10_1() {
    let ground = Ground::new().await;
    let (request, answer) = (example("staff-request"), example("staff-answer"));
    for entry in answer["businesses"].as_array().unwrap() {
        let staff: Vec<Member> = serde_json::from_value(entry["staff"].clone()).unwrap();
        ground.kaha.staff().set(id_in(&entry["business_id"]), entry["version"].as_u64().unwrap(), &staff);
    }
    let token = ground.keys[0].sign(&with(&json!({ "scope": "staff:read" })));
    let url = format!("{}{STAFF_PATH}", ground.kaha.api_url());
    let given = ground.http.post(url).bearer_auth(token).json(&request).send().await.unwrap();
    let given: Value = given.json().await.unwrap();
    let (given, promised) = (given["businesses"].as_array().unwrap(), answer["businesses"].as_array().unwrap());
    assert_eq!(given.len(), promised.len());
    for (given, promised) in given.iter().zip(promised) {
        for name in names_of(promised) {
            assert_eq!(given[name], promised[name], "{name}");
        }
    }
}

/// The same claims, issued now.
fn with_times(example: Value) -> Value {
    let now = get_current_timestamp();
    keys::changed(example, &json!({ "iat": now, "nbf": now, "exp": now + 60 }))
}

#[tokio::test]
async fn tokens_look_as_documented_r6_3_r6_4() {
    let ground = Ground::new().await;
    let claims = |token: &str| insecure_decode::<Value>(token).unwrap().claims;
    let made = claims(&ground.kaha.service_tokens().token(&[SCOPE_INVALIDATE, SCOPE_CLOSE]).unwrap());
    let documented = example("token-of-kaha");
    for name in ["iss", "aud", "sub", "scope"] {
        assert_eq!(made[name], documented[name], "{name} of a service's token");
    }
    let documented = example("user-token");
    let (user, sid) = (id_in(&documented["sub"]), id_in(&documented["sid"]));
    let made = claims(&ground.kaha.tokens().user_in_session(user, sid, TOKEN_TTL).unwrap());
    for name in ["iss", "aud", "sub", "sid"] {
        assert_eq!(made[name], documented[name], "{name} of a user's token");
    }
    assert_eq!(names_of(&example("token-of-chat")), names_of(&super::claims()));
}

#[test]
fn what_the_chat_is_told_is_documented() {
    assert_eq!(names_of(&example("changed")), ["business_ids", "user_ids"]);
    assert_eq!(names_of(&example("logout")), ["sid", "user_id"]);
    for promised in
        [PROFILES_PATH, STAFF_PATH, INVALIDATE_PATH, CLOSE_PATH, CHANGED_SUBJECT, SCOPE_CLOSE, SCOPE_INVALIDATE]
    {
        assert!(DOCUMENT.contains(promised), "{promised} isn't documented");
    }
    assert!(DOCUMENT.contains(&format!("1 to {IDS_MAX} ids")));
    for line in DOCUMENT.lines() {
        let Some((_, body)) = line.split_once("-d '") else { continue };
        let body = body.split('\'').next().unwrap();
        assert!(serde_json::from_str::<Value>(body).is_ok(), "{body} is no JSON");
    }
}
