//! Logging out: what kaha-main-v3 ends, ends on every gateway, though tokens would be valid for longer.
//!
//! Once a logout is answered for, every gateway has taken it in. So what it ends is looked at right after the answer, before
//! anything is waited for: what gateways read from Redis every half minute comes too late to pass for it.

use std::time::Duration;

use anyhow::Result;
use chat_e2e::{Person, Setup, Socket, TestFleet, eventually, http, on_own_fleet, on_shared_fleet};
use chat_shared::{ids::DeviceId, ids::UserId, wire::Encoding};
use serde_json::json;
use uuid::Uuid;

const TTL: Duration = Duration::from_hours(1);
const LOGGED_OUT: (u16, &str) = (4506, "logged_out");

/// Somebody, by a login of their own.
fn login(fleet: &TestFleet, id: UserId) -> Result<(Person, Uuid)> {
    let sid = Uuid::new_v4();
    Ok((Person { id, token: fleet.kaha().tokens().user_in_session(id.as_uuid(), sid, TTL)? }, sid))
}

/// Whether a gateway takes the person's token, by REST and by WebSocket; the two have to agree.
async fn is_let_in(fleet: &TestFleet, person: &Person, gateway: usize) -> Result<bool> {
    let asked = fleet.api(person, gateway).get("unread").await?.code();
    let authorization = format!("Bearer {}", person.token);
    let headers = [("Authorization", authorization.as_str()), ("Sec-WebSocket-Protocol", "chat.v1.json")];
    let opened = http::shake_hands(&fleet.gateway(gateway).address(), &headers).await?.code();
    match (asked.as_str(), opened.as_str()) {
        ("200", "101") => Ok(true),
        ("401 unauthenticated", "401 unauthenticated") => Ok(false),
        other => anyhow::bail!("a gateway answers {other:?}"),
    }
}

/// No gateway takes the person's token.
async fn assert_shut_out(fleet: &TestFleet, person: &Person) -> Result<()> {
    for gateway in [1, 0] {
        assert!(!is_let_in(fleet, person, gateway).await?, "gateway {gateway} takes a revoked token");
    }
    Ok(())
}

/// A gateway has closed the connection because of the logout.
async fn assert_closed(socket: &mut Socket) -> Result<()> {
    let (code, reason) = socket.close_code().await?;
    assert_eq!((code, reason.as_str()), LOGGED_OUT);
    Ok(())
}

/// A new login's token is taken, at the latest when the second of the logout is over.
async fn comes_back(fleet: &TestFleet, id: UserId) -> Result<()> {
    for gateway in [0, 1] {
        eventually("a new login's token", || async {
            let (again, _) = login(fleet, id)?;
            Ok(is_let_in(fleet, &again, gateway).await?.then_some(()))
        })
        .await?;
    }
    Ok(())
}

#[test]
fn r6_4_who_is_logged_out_everywhere_loses_connections_and_tokens_on_every_gateway() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let (person, _) = login(fleet, UserId::random())?;
        let (elsewhere, _) = login(fleet, person.id)?;
        let bystander = fleet.person()?;
        let device = DeviceId::random().as_uuid();
        let registration = json!({ "platform": "webhook", "token": "somewhere", "app_id": "com.example.chat" });
        fleet.api(&person, 0).put(&format!("devices/{device}"), &registration).await?;
        let mut sockets = [
            fleet.ready_socket(&person, 0, Encoding::Json).await?,
            fleet.ready_socket(&person, 1, Encoding::MessagePack).await?,
            fleet.ready_socket(&elsewhere, 1, Encoding::Json).await?,
        ];
        let mut unconcerned = fleet.ready_socket(&bystander, 0, Encoding::Json).await?;

        fleet.log_out(0, person.id, None).await?;
        assert_shut_out(fleet, &person).await?;
        assert_shut_out(fleet, &elsewhere).await?;
        for socket in &mut sockets {
            assert_closed(socket).await?;
        }
        for gateway in [0, 1] {
            assert!(is_let_in(fleet, &bystander, gateway).await?);
        }
        assert_eq!(unconcerned.ask(json!({ "type": "heartbeat" })).await?["type"], "done");
        comes_back(fleet, person.id).await?;
        eventually("a new login that finds no device registered", || async {
            let answer = fleet.api(&login(fleet, person.id)?.0, 1).get("devices").await?;
            Ok((answer.body == json!({ "devices": [] })).then_some(()))
        })
        .await
    })
}

#[test]
fn r6_4_who_logs_out_on_one_device_stays_logged_in_on_the_others() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let (phone, sid) = login(fleet, UserId::random())?;
        let (browser, _) = login(fleet, phone.id)?;
        let mut phones = fleet.ready_socket(&phone, 0, Encoding::Json).await?;
        let mut browsers = fleet.ready_socket(&browser, 0, Encoding::Json).await?;
        // A connection belongs to the login of the token that it was renewed with.
        let mut renewed = fleet.ready_socket(&browser, 1, Encoding::Json).await?;
        assert_eq!(renewed.ask(json!({ "type": "renew_token", "token": phone.token })).await?["type"], "done");

        fleet.log_out(1, phone.id, Some(sid)).await?;
        let renewing = browsers.ask(json!({ "type": "renew_token", "token": phone.token })).await?;
        assert_eq!(renewing["code"], "unauthenticated");
        assert_shut_out(fleet, &phone).await?;
        for socket in [&mut phones, &mut renewed] {
            assert_closed(socket).await?;
        }
        for gateway in [0, 1] {
            assert!(is_let_in(fleet, &browser, gateway).await?);
        }
        assert_eq!(browsers.ask(json!({ "type": "heartbeat" })).await?["type"], "done");
        Ok(())
    })
}

#[test]
fn r6_4_once_a_logout_is_answered_no_gateway_takes_the_login_whichever_was_told() -> Result<()> {
    on_shared_fleet(async |fleet| {
        for round in 0..6 {
            let (person, sid) = login(fleet, UserId::random())?;
            let mut sockets = [
                fleet.ready_socket(&person, 0, Encoding::Json).await?,
                fleet.ready_socket(&person, 1, Encoding::Json).await?,
            ];
            fleet.log_out(round % 2, person.id, Some(sid).filter(|_| round < 3)).await?;
            // The one that wasn't told first: nothing but what it heard can have ended the login there.
            assert!(!is_let_in(fleet, &person, 1 - round % 2).await?, "round {round}");
            assert_shut_out(fleet, &person).await?;
            for socket in &mut sockets {
                assert_closed(socket).await?;
            }
        }
        Ok(())
    })
}

#[test]
fn r6_4_a_gateway_that_starts_later_knows_who_was_logged_out() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let (person, _) = login(fleet, UserId::random())?;
        fleet.gateway(1).process().kill().await?;
        // Answered once the lease of the gateway that is gone has run out.
        fleet.log_out(0, person.id, None).await?;
        fleet.gateway(1).start_ready().await?;
        assert!(!is_let_in(fleet, &person, 1).await?);
        Ok(())
    })
}
