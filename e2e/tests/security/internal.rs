//! The internal interface: services only, each with the scopes that its token names, on a port of its own (R6.3).

use anyhow::Result;
use chat_dev::kaha::{
    CLOSE_PATH, INVALIDATE_PATH, SCOPE_BUSINESSES, SCOPE_CLOSE, SCOPE_EXPORT, SCOPE_INVALIDATE, staff_path,
};
use chat_e2e::{Setup, TestFleet, on_own_fleet, on_shared_fleet, traces};
use chat_shared::ids::{BusinessId, UserId};
use reqwest::Method;
use serde_json::{Value, json};

/// Every endpoint, with the scope that it asks for and a body that it takes; none in a request that only reads.
fn endpoints() -> [(String, &'static str, Value); 5] {
    let (user_id, business_id) = (UserId::random(), BusinessId::random().as_uuid());
    let staff = json!({ "version": 1, "staff": [{ "user_id": user_id, "role": "agent" }] });
    [
        (INVALIDATE_PATH.to_owned(), SCOPE_INVALIDATE, json!({ "user_ids": [user_id] })),
        (CLOSE_PATH.to_owned(), SCOPE_CLOSE, json!({ "user_id": user_id })),
        (staff_path(business_id), SCOPE_BUSINESSES, staff),
        (format!("/internal/v1/businesses/{business_id}"), SCOPE_BUSINESSES, json!({ "is_open": true })),
        (format!("/internal/v1/users/{}/export", user_id.as_uuid()), SCOPE_EXPORT, Value::Null),
    ]
}

async fn call(base: &str, path: &str, token: Option<&str>, body: &Value) -> Result<String> {
    // Those about one business replace something.
    let method = match body {
        Value::Null => Method::GET,
        _ if path.contains("/businesses/") => Method::PUT,
        _ => Method::POST,
    };
    let mut request = reqwest::Client::new().request(method, format!("{base}{path}")).json(body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await?;
    let (status, text) = (answer.status().as_u16(), answer.text().await?);
    // An export names the user; a refusal names nothing.
    if status != 200 {
        assert_eq!(traces::secret_in(&text), None, "{text}");
    }
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    Ok(body["code"].as_str().map_or_else(|| status.to_string(), |code| format!("{status} {code}")))
}

#[test]
fn r6_3_only_services_with_the_scope_are_let_in() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let (base, tokens) = (fleet.gateway(0).internal_url(), fleet.kaha().service_tokens());
        let person = fleet.person()?;
        for (path, scope, body) in endpoints() {
            let success = if body.is_null() { "200" } else { "204" };
            assert_eq!(call(&base, &path, Some(&tokens.token(&[scope])?), &body).await?, success);
            assert_eq!(call(&base, &path, Some(&tokens.token(&["other", scope])?), &body).await?, success);
            assert_eq!(call(&base, &path, None, &body).await?, "401 unauthenticated");
            assert_eq!(call(&base, &path, Some(&person.token), &body).await?, "401 unauthenticated", "a user's token");
            for (name, token) in tokens.bad(&[scope])? {
                assert_eq!(call(&base, &path, Some(&token), &body).await?, "401 unauthenticated", "{name}");
            }
            let others: Vec<_> =
                endpoints().iter().map(|(_, other, _)| *other).filter(|other| *other != scope).collect();
            for scopes in [&others[..], &[], &["*"], &["profiles"], &[&format!("{scope}x")]] {
                assert_eq!(
                    call(&base, &path, Some(&tokens.token(scopes)?), &body).await?,
                    "403 forbidden",
                    "{scopes:?}"
                );
            }
        }
        Ok(())
    })
}

#[test]
fn r6_3_bad_bodies_get_a_clear_error() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let (base, tokens) = (fleet.gateway(0).internal_url(), fleet.kaha().service_tokens());
        let token = tokens.token(&[SCOPE_INVALIDATE, SCOPE_CLOSE, SCOPE_BUSINESSES])?;
        let many: Vec<_> = (0..201).map(|_| UserId::random()).collect();
        let staff = staff_path(BusinessId::random().as_uuid());
        let member = json!({ "user_id": UserId::random(), "role": "agent" });
        for (path, body) in [
            (staff.as_str(), json!({ "staff": [] })),
            (&staff, json!({ "version": 0, "staff": [] })),
            (&staff, json!({ "version": 1, "staff": [{ "user_id": UserId::random(), "role": "owner" }] })),
            (&staff, json!({ "version": 1, "staff": [member, member] })),
            (&staff, json!({ "version": 1, "staff": [], "more": true })),
            (INVALIDATE_PATH, json!([])),
            (INVALIDATE_PATH, json!({ "user_ids": "all" })),
            (INVALIDATE_PATH, json!({ "user_ids": ["asha"] })),
            (INVALIDATE_PATH, json!({ "user_ids": many })),
            (CLOSE_PATH, json!({})),
            (CLOSE_PATH, json!({ "user_id": "asha" })),
            (CLOSE_PATH, json!({ "user_id": UserId::random(), "sid": 7 })),
        ] {
            assert_eq!(call(&base, path, Some(&token), &body).await?, "400 invalid", "{path}");
        }
        Ok(())
    })
}

#[test]
fn r6_3_each_port_serves_its_own_side_only() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let (public, internal) = (fleet.gateway(0).url(), fleet.gateway(0).internal_url());
        let (tokens, person) = (fleet.kaha().service_tokens(), fleet.person()?);
        for (path, scope, body) in endpoints() {
            assert_eq!(call(&public, &path, Some(&tokens.token(&[scope])?), &body).await?, "404 not_found");
        }
        for path in ["/v1/unread", "/v1/conversations", "/v1/ws", "/metrics"] {
            let answer =
                reqwest::Client::new().get(format!("{internal}{path}")).bearer_auth(&person.token).send().await?;
            assert_eq!(answer.status().as_u16(), 404, "{path}");
        }
        Ok(())
    })
}

#[test]
fn r6_3_service_keys_are_exchanged_without_a_refused_call() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet: &TestFleet| {
        let tokens = fleet.kaha().service_tokens();
        let base = fleet.gateway(1).internal_url();
        let (path, scope, body) = endpoints()[0].clone();
        let oldest = tokens.of_previous_key(&[scope])?;
        assert_eq!(call(&base, &path, Some(&oldest), &body).await?, "204", "two keys are valid at once");
        tokens.rotate()?;
        // The new key isn't known yet: the gateway fetches the set because a token names it.
        chat_e2e::eventually("the new key's token", || async {
            let answer = call(&base, &path, Some(&tokens.token(&[scope])?), &body).await?;
            Ok((answer == "204").then_some(()))
        })
        .await?;
        assert_eq!(call(&base, &path, Some(&tokens.of_previous_key(&[scope])?), &body).await?, "204");
        assert_eq!(call(&base, &path, Some(&oldest), &body).await?, "401 unauthenticated", "the key before is gone");
        Ok(())
    })
}
