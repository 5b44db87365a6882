//! REST requests that are wrong: each is refused with its status and code, in the one form that errors have.

use anyhow::Result;
use chat_e2e::{Answer, on_shared_fleet, said};
use chat_shared::{
    ids::{MessageId, UserId},
    limits::{BODY_BYTES_MAX, TEXT_BYTES_MAX},
};
use reqwest::Method;
use serde_json::json;

use crate::witness::Witness;

fn assert_refused(answer: &Answer, code: &str, name: &str) {
    assert_eq!(answer.code(), code, "{name}");
    let message = answer.body["message"].as_str().unwrap_or_default();
    assert!(!message.is_empty(), "{name} is refused without a word");
    for inside in [".rs", "sqlx", "postgres", "select ", "SELECT "] {
        assert!(!message.contains(inside), "{name} shows our inside: {message}");
    }
}

#[test]
fn absurd_pages_and_bad_ids_are_refused() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let id = fleet.direct(&asha, &bikram).await?.as_uuid();
        let api = fleet.api(&asha, 0);
        let mut witness = Witness::of(fleet).await?;
        let mut paths = Vec::new();
        for list in ["conversations".to_owned(), format!("conversations/{id}/messages")] {
            for limit in ["0", "-1", "ten", "1.5", "", "1e9", "%00", "1%2000"] {
                paths.push(format!("{list}?limit={limit}"));
            }
        }
        for cursor in ["x", "%00", "AAAA", "..", "%F0%9F%98%80"] {
            paths.push(format!("conversations?cursor={cursor}"));
        }
        for place in ["x", "-1", "1.5", "", "99999999999999999999", "0x10"] {
            paths.push(format!("conversations/{id}/messages?before={place}"));
            paths.push(format!("conversations/{id}/messages?after={place}"));
        }
        paths.push(format!("conversations/{id}/messages?before=1&after=1"));
        for wrong in ["x", "1", "%00", "00000000-0000-0000-0000-000000000000", "936da01f-9abd-1d9d-80c7-02af85c822a8"] {
            paths.push(format!("conversations/{wrong}"));
            paths.push(format!("conversations/{wrong}/messages"));
        }
        for path in paths {
            assert_refused(&api.get(&path).await?, "400 invalid", &path);
        }
        for limit in ["101", "18446744073709551615", "99999999999999999999999999"] {
            for list in ["conversations".to_owned(), format!("conversations/{id}/messages")] {
                assert_eq!(api.get(&format!("{list}?limit={limit}")).await?.status, 200, "{limit}");
            }
        }
        for place in ["before=18446744073709551615", "after=18446744073709551615", "before=9223372036854775808"] {
            assert_eq!(api.get(&format!("conversations/{id}/messages?{place}")).await?.status, 200, "{place}");
        }
        witness.is_undisturbed(fleet).await
    })
}

#[test]
fn bad_bodies_are_refused() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let id = fleet.direct(&asha, &bikram).await?.as_uuid();
        let group = fleet.group(&asha, &[&bikram]).await?.as_uuid();
        let api = fleet.api(&asha, 0);
        let mut witness = Witness::of(fleet).await?;
        let (messages, participants) =
            (format!("conversations/{id}/messages"), format!("conversations/{group}/participants"));
        for path in ["conversations", &messages, &participants] {
            for body in ["", "{", "null", "[]", "\"x\"", "{}", "{\"kind\":7}", "{} {}", "\u{feff}{}", "nul"] {
                let answer = api.ask(Method::POST, path, Some(body.into())).await?;
                assert_refused(&answer, "400 invalid", &format!("{path} {body}"));
            }
            for body in [&b"\xff\xfe"[..], &[0; 100], &[b'['; 10_000], b"{\"kind\":\"\xff\"}"] {
                assert_refused(&api.ask(Method::POST, path, Some(body.into())).await?, "400 invalid", path);
            }
            let huge = vec![b' '; BODY_BYTES_MAX + 1];
            assert_refused(&api.ask(Method::POST, path, Some(huge)).await?, "413 too_large", path);
        }
        let many: Vec<_> = (0..1000).map(|_| UserId::random()).collect();
        for (path, body, code) in [
            ("conversations", json!({ "kind": "party", "user_ids": [] }), "400 invalid"),
            ("conversations", json!({ "kind": "direct" }), "400 invalid"),
            ("conversations", json!({ "kind": "direct", "user_id": [bikram.id] }), "400 invalid"),
            ("conversations", json!({ "kind": "group", "user_ids": bikram.id }), "400 invalid"),
            ("conversations", json!({ "kind": "group", "user_ids": [] }), "400 invalid"),
            ("conversations", json!({ "kind": "group", "user_ids": ["x"] }), "400 invalid"),
            ("conversations", json!({ "kind": "group", "user_ids": many }), "400 invalid"),
            (&participants, json!({ "user_ids": [] }), "400 invalid"),
            (&participants, json!({ "user_ids": many }), "409 conflict"),
            (&messages, json!({ "message_id": MessageId::random(), "text": "" }), "400 invalid"),
            (&messages, json!({ "message_id": MessageId::random(), "text": said("a\0b") }), "400 invalid"),
            (&messages, json!({ "message_id": MessageId::random(), "text": 7 }), "400 invalid"),
            (&messages, json!({ "message_id": "x", "text": said("x") }), "400 invalid"),
            (
                &messages,
                json!({ "message_id": MessageId::random(), "text": "z".repeat(TEXT_BYTES_MAX + 1) }),
                "413 too_large",
            ),
        ] {
            assert_refused(&api.post(path, &body).await?, code, &format!("{path} {}", body["kind"]));
        }
        witness.is_undisturbed(fleet).await
    })
}

#[test]
fn there_is_nothing_where_nothing_is_documented() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let person = fleet.person()?;
        let api = fleet.api(&person, 0);
        for path in ["", "nothing", "conversations/", "conversations/x/y/z", "../v1", "users", "%2e%2e/metrics"] {
            assert_refused(&api.get(path).await?, "404 not_found", path);
        }
        for path in ["metrics", "readyz", "livez", "internal/v1", "dev/tokens"] {
            let status = reqwest::get(format!("{}/{path}", fleet.gateway(0).url())).await?.status().as_u16();
            assert_eq!(status, 404, "{path} is not for clients");
        }
        let wrong_method = api.ask(Method::PUT, "conversations", None).await?;
        assert_refused(&wrong_method, "405 invalid", "PUT conversations");
        let openapi = reqwest::get(format!("{}/openapi.json", fleet.gateway(0).url())).await?;
        assert_eq!(openapi.status().as_u16(), 200);
        Ok(())
    })
}
