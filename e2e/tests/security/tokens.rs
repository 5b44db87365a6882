//! Tokens that are no good, at the door and later.

use std::time::Duration;

use anyhow::Result;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use chat_e2e::{Api, Person, TestFleet, http, on_shared_fleet};
use chat_shared::wire::Encoding;
use serde_json::{Value, json};

/// Later than any token may be valid.
const FAR: u64 = 4_102_444_800;

/// Every token that must not let this user in.
fn bad_tokens(fleet: &TestFleet, person: &Person) -> Result<Vec<(String, String)>> {
    let mut bad = misshapen(&person.token);
    bad.extend(missigned(fleet, person)?);
    for (name, changes) in wrong_claims(person) {
        bad.push((name.to_owned(), fleet.kaha().tokens().with_claims(person.id.as_uuid(), &changes)?));
    }
    Ok(bad)
}

/// What is no token at all, or one that was damaged.
fn misshapen(good: &str) -> Vec<(String, String)> {
    let [header, claims, signature] = parts(good);
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let bad = [
        ("garbage", "garbage".to_owned()),
        ("dots", "..".to_owned()),
        ("three parts of garbage", "a.b.c".to_owned()),
        ("two parts", format!("{header}.{claims}")),
        ("four parts", format!("{good}.{signature}")),
        ("an encrypted token's five parts", format!("{good}.{claims}.{signature}")),
        ("without its signature", format!("{header}.{claims}.")),
        ("without its claims", format!("{header}..{signature}")),
        ("without its header", format!(".{claims}.{signature}")),
        ("with another signature", format!("{header}.{claims}.{flipped}{}", &signature[1..])),
        ("with a shorter signature", format!("{header}.{claims}.{}", &signature[..signature.len() - 4])),
        ("with a longer signature", format!("{header}.{claims}.{signature}AAAA")),
        ("with padding", format!("{header}.{claims}.{signature}==")),
        ("with its parts exchanged", format!("{claims}.{header}.{signature}")),
        ("with white space within", format!("{header}. {claims}.{signature}")),
        ("in upper case", good.to_uppercase()),
        ("a header that is no object", format!("{}.{claims}.{signature}", BASE64.encode("[]"))),
        ("claims that are no object", format!("{header}.{}.{signature}", BASE64.encode("7"))),
    ];
    bad.into_iter().map(|(name, token)| (name.to_owned(), token)).collect()
}

/// What nobody signed whom we trust, or not this.
fn missigned(fleet: &TestFleet, person: &Person) -> Result<Vec<(String, String)>> {
    let (tokens, id) = (fleet.kaha().tokens(), person.id.as_uuid());
    let [header, claims, signature] = parts(&person.token);
    let with_header = |changes: Value| -> Result<String> {
        let mut changed: Value = serde_json::from_slice(&BASE64.decode(header)?)?;
        for (name, value) in changes.as_object().into_iter().flatten() {
            changed[name] = value.clone();
        }
        Ok(format!("{}.{claims}.{signature}", BASE64.encode(changed.to_string())))
    };
    let of_another = tokens.user(uuid::Uuid::new_v4(), None, Duration::from_mins(5))?;
    let [_, _, others] = parts(&of_another);
    let bad = [
        ("forged", tokens.forged(id)?),
        ("algorithm none", tokens.unsigned(id)),
        ("algorithm none, with a signature", with_header(json!({ "alg": "none" }))?),
        ("algorithm NONE", with_header(json!({ "alg": "NONE" }))?),
        ("an algorithm that nobody knows", with_header(json!({ "alg": "XS256" }))?),
        ("another curve", with_header(json!({ "alg": "ES384" }))?),
        ("another algorithm, with the public key as its secret", tokens.confused(id)?),
        ("the key set's other algorithms", with_header(json!({ "alg": "RS256" }))?),
        ("a key that is not known", with_header(json!({ "kid": "somebody's" }))?),
        ("a key by its path", with_header(json!({ "kid": "../../dev/null" }))?),
        ("a key that it brings along", with_header(json!({ "jwk": { "kty": "oct", "k": "AAAA" } }))?),
        ("a header that was changed", with_header(json!({ "typ": "at+jwt" }))?),
        ("with what must be understood", with_header(json!({ "crit": ["exp"] }))?),
        ("with another's signature", format!("{header}.{claims}.{others}")),
        ("a service's", fleet.kaha().service_tokens().token(&["profiles:invalidate", "sessions:close"])?),
    ];
    Ok(bad.into_iter().map(|(name, token)| (name.to_owned(), token)).collect())
}

/// Claims that are missing, wrong or odd, well signed.
fn wrong_claims(person: &Person) -> Vec<(&'static str, Value)> {
    let id = person.id.as_uuid();
    vec![
        ("expired", json!({ "exp": 1 })),
        ("without an expiry", json!({ "exp": null })),
        ("an expiry in words", json!({ "exp": "tomorrow" })),
        ("a negative expiry", json!({ "exp": -1 })),
        ("an expiry beyond all numbers", json!({ "exp": u64::MAX })),
        ("valid for years", json!({ "exp": FAR })),
        ("not valid yet", json!({ "nbf": FAR, "exp": FAR + 1 })),
        ("for another audience", json!({ "aud": "shop" })),
        ("for other audiences", json!({ "aud": ["shop", "chats", "Chat"] })),
        ("for no audience", json!({ "aud": null })),
        ("for an audience that is no text", json!({ "aud": { "chat": true } })),
        ("for services", json!({ "aud": "chat-internal" })),
        ("from another issuer", json!({ "iss": "somebody" })),
        ("from an issuer with another case", json!({ "iss": "KAHA-MAIN-V3" })),
        ("from no issuer", json!({ "iss": null })),
        ("of nobody", json!({ "sub": null })),
        ("of a number", json!({ "sub": 7 })),
        ("of a name", json!({ "sub": "asha" })),
        ("of two", json!({ "sub": [id, id] })),
        ("of an id of another version", json!({ "sub": uuid::Uuid::nil() })),
        ("of an id and more", json!({ "sub": format!("{id} ") })),
        ("of a login that is no text", json!({ "sid": 7 })),
        ("of a login with a very long name", json!({ "sid": "x".repeat(500) })),
        ("too long", json!({ "padding": "x".repeat(5000) })),
    ]
}

fn parts(token: &str) -> [&str; 3] {
    let mut parts = token.split('.');
    [(); 3].map(|()| parts.next().unwrap_or_default())
}

#[test]
fn r6_4_no_bad_token_comes_in() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let person = fleet.person()?;
        let address = fleet.gateway(0).address();
        let bad = bad_tokens(fleet, &person)?;
        assert!(bad.len() >= 40, "{}", bad.len());
        for (name, token) in bad {
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

#[test]
fn r6_4_what_is_unusual_about_a_token_and_not_wrong_keeps_nobody_out() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let person = fleet.person()?;
        for (name, changes) in [
            ("several audiences", json!({ "aud": ["shop", "chat"] })),
            ("without a login", json!({ "sid": null })),
            ("without a start", json!({ "nbf": null, "iat": null })),
            ("with claims that nobody knows", json!({ "roles": ["admin"], "exp2": 1 })),
        ] {
            let token = fleet.kaha().tokens().with_claims(person.id.as_uuid(), &changes)?;
            let api = Api::new(fleet.gateway(0).url(), Some(token));
            assert_eq!(api.get("unread").await?.code(), "200", "{name}");
        }
        Ok(())
    })
}
