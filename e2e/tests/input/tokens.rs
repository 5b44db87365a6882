//! Tokens that are no good, at the door and later.

use std::time::Duration;

use anyhow::Result;
use chat_e2e::{Api, Person, TestFleet, http, on_shared_fleet};
use chat_shared::wire::Encoding;
use serde_json::json;

/// Every token that must not let this user in.
fn bad_tokens(fleet: &TestFleet, person: &Person) -> Result<Vec<(&'static str, String)>> {
    let (tokens, id) = (fleet.kaha().tokens(), person.id.as_uuid());
    let far = 4_102_444_800_u64;
    let good = &person.token;
    let (unsigned_part, signature) = good.rsplit_once('.').unwrap_or_default();
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    Ok(vec![
        ("garbage", "garbage".to_owned()),
        ("three parts of garbage", "a.b.c".to_owned()),
        ("forged", tokens.forged(id)?),
        ("algorithm none", tokens.unsigned(id)),
        ("another algorithm, with the public key as its secret", tokens.confused(id)?),
        ("without its signature", format!("{unsigned_part}.")),
        ("with another signature", format!("{unsigned_part}.{flipped}{}", &signature[1..])),
        ("expired", tokens.with_claims(id, &json!({ "exp": 1 }))?),
        ("without an expiry", tokens.with_claims(id, &json!({ "exp": null }))?),
        ("not valid yet", tokens.with_claims(id, &json!({ "nbf": far, "exp": far + 1 }))?),
        ("for another audience", tokens.with_claims(id, &json!({ "aud": "shop" }))?),
        ("for no audience", tokens.with_claims(id, &json!({ "aud": null }))?),
        ("from another issuer", tokens.with_claims(id, &json!({ "iss": "somebody" }))?),
        ("from no issuer", tokens.with_claims(id, &json!({ "iss": null }))?),
        ("of nobody", tokens.with_claims(id, &json!({ "sub": null }))?),
        ("of a name", tokens.with_claims(id, &json!({ "sub": "asha" }))?),
        ("of an id of another version", tokens.with_claims(id, &json!({ "sub": uuid::Uuid::nil() }))?),
        ("too long", tokens.with_claims(id, &json!({ "padding": "x".repeat(5000) }))?),
    ])
}

#[test]
fn r6_4_no_bad_token_comes_in() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let person = fleet.person()?;
        let address = fleet.gateway(0).address();
        for (name, token) in bad_tokens(fleet, &person)? {
            let authorization = format!("Bearer {token}");
            let entries = format!("chat.v1.json, bearer.{token}");
            let by_header = [("Sec-WebSocket-Protocol", "chat.v1.json"), ("Authorization", authorization.as_str())];
            let by_entry = [("Sec-WebSocket-Protocol", entries.as_str())];
            for headers in [&by_header[..], &by_entry[..]] {
                let refused = http::shake_hands(&address, headers).await?;
                assert_eq!(refused.code(), "401 unauthenticated", "{name}");
                assert!(!refused.body.to_string().contains(&token), "{name}: the answer repeats the token");
            }
            let api = Api::new(fleet.gateway(0).url(), Some(token));
            assert_eq!(api.get("conversations").await?.code(), "401 unauthenticated", "{name}");
        }
        for headers in [
            &[("Sec-WebSocket-Protocol", "chat.v1.json")][..],
            &[("Sec-WebSocket-Protocol", "chat.v1.json"), ("Authorization", "Basic YTpi")],
        ] {
            assert_eq!(http::shake_hands(&address, headers).await?.code(), "401 unauthenticated");
        }
        Ok(())
    })
}

#[test]
fn a_token_is_renewed_by_its_own_user_only() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        for encoding in Encoding::ALL {
            let mut socket = fleet.ready_socket(&asha, 0, encoding).await?;
            let renew = |token: &str| json!({ "type": "renew_token", "token": token });
            assert_eq!(socket.ask(renew(&asha.token)).await?["type"], "done");
            assert_eq!(socket.ask(renew(&bikram.token)).await?["code"], "forbidden");
            for (name, token) in bad_tokens(fleet, &asha)? {
                assert_eq!(socket.ask(renew(&token)).await?["code"], "unauthenticated", "{name}");
            }
            let reply = socket.ask(json!({ "type": "heartbeat" })).await?;
            assert_eq!(reply["type"], "done", "a refused renewal leaves the connection as it was");
        }
        Ok(())
    })
}

#[test]
fn a_connection_ends_with_its_token_unless_that_was_renewed() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let mut person = fleet.person()?;
        let lasting = person.token.clone();
        person.token = fleet.kaha().tokens().user(person.id.as_uuid(), None, Duration::from_secs(3))?;
        let mut renewed = fleet.ready_socket(&person, 0, Encoding::Json).await?;
        let mut expiring = fleet.ready_socket(&person, 0, Encoding::MessagePack).await?;
        assert_eq!(renewed.ask(json!({ "type": "renew_token", "token": lasting })).await?["type"], "done");
        assert_eq!(expiring.close_code().await?, (4504, "token_expired".to_owned()));
        assert_eq!(renewed.ask(json!({ "type": "heartbeat" })).await?["type"], "done");
        Ok(())
    })
}
