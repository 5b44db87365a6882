//! The door: subprotocols, origins, and requests that are no handshake.

use anyhow::Result;
use chat_e2e::{http, on_shared_fleet};
use chat_shared::wire::Encoding;

#[test]
fn a_handshake_without_a_known_subprotocol_is_refused() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let person = fleet.person()?;
        let authorization = format!("Bearer {}", person.token);
        let address = fleet.gateway(0).address();
        let refused = http::shake_hands(&address, &[("Authorization", &authorization)]).await?;
        assert_eq!(refused.code(), "400 invalid");
        for offered in ["", "chat.v2.json", "chat.v1", "json", "CHAT.V1.JSON", "chat.v1.json.x"] {
            let headers = [("Authorization", authorization.as_str()), ("Sec-WebSocket-Protocol", offered)];
            assert_eq!(http::shake_hands(&address, &headers).await?.code(), "400 invalid", "{offered}");
        }
        Ok(())
    })
}

#[test]
fn a_token_among_the_subprotocols_is_taken_and_not_echoed() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let person = fleet.person()?;
        for encoding in Encoding::ALL {
            let name = encoding.subprotocol();
            for offered in
                [format!("{name}, bearer.{}", person.token), format!("other,bearer.{} , {name}", person.token)]
            {
                let headers = [("Sec-WebSocket-Protocol", offered.as_str())];
                let opened = http::shake_hands(&fleet.gateway(0).address(), &headers).await?;
                assert_eq!(opened.status, 101);
                assert_eq!(opened.header("sec-websocket-protocol"), Some(name));
                assert!(opened.headers.iter().all(|(_, value)| !value.contains(&person.token)));
                opened.into_socket(encoding)?.hello(chat_shared::ids::DeviceId::random(), None).await?;
            }
        }
        Ok(())
    })
}

#[test]
fn an_ordinary_request_is_told_what_is_missing() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let answer = fleet.api(&fleet.person()?, 0).get("ws").await?;
        assert_eq!(answer.code(), "400 invalid");
        Ok(())
    })
}
