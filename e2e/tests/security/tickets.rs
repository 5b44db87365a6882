//! Tickets: for clients that can set neither a header nor a subprotocol.

use anyhow::{Context, Result};
use chat_e2e::{Answer, Person, TestFleet, http, on_shared_fleet, traces::secret_in};
use chat_shared::{ids::DeviceId, wire::Encoding, wire::Ticket};
use serde_json::json;

const HEADERS: [(&str, &str); 1] = [("Sec-WebSocket-Protocol", "chat.v1.json")];

async fn ticket(fleet: &TestFleet, person: &Person, gateway: usize) -> Result<Ticket> {
    fleet.api(person, gateway).post("tickets", &json!({})).await?.ok()
}

async fn open(fleet: &TestFleet, gateway: usize, ticket: &str) -> Result<http::Handshake> {
    let path = format!("/v1/ws?ticket={ticket}");
    http::shake_hands_at(&fleet.gateway(gateway).address(), &path, &HEADERS).await
}

#[test]
fn r6_4_a_ticket_opens_one_websocket_on_any_gateway_once() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let person = fleet.person()?;
        let ticket = ticket(fleet, &person, 0).await?;
        assert_eq!(ticket.expires_in_s, 30);
        // Else none would be found in a log or an answer.
        assert_eq!(secret_in(&ticket.ticket), Some("a ticket"));
        let mut socket = open(fleet, 1, &ticket.ticket).await?.into_socket(Encoding::Json)?;
        socket.hello(DeviceId::random(), None).await?;
        assert_eq!(socket.ask(json!({ "type": "heartbeat" })).await?["type"], "done");
        for gateway in [0, 1] {
            assert_eq!(open(fleet, gateway, &ticket.ticket).await?.code(), "401 unauthenticated");
        }
        Ok(())
    })
}

#[test]
fn r6_4_of_many_who_show_one_ticket_at_once_one_comes_in() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let person = fleet.person()?;
        for _ in 0..5 {
            let ticket = ticket(fleet, &person, 1).await?.ticket;
            let opened = tokio::try_join!(
                open(fleet, 0, &ticket),
                open(fleet, 1, &ticket),
                open(fleet, 0, &ticket),
                open(fleet, 1, &ticket),
            )?;
            let codes = [opened.0, opened.1, opened.2, opened.3].map(|handshake| handshake.code());
            assert_eq!(codes.iter().filter(|code| *code == "101").count(), 1, "{codes:?}");
            assert_eq!(codes.iter().filter(|code| *code == "401 unauthenticated").count(), 3, "{codes:?}");
        }
        Ok(())
    })
}

#[test]
fn r6_4_made_up_tickets_open_nothing_and_nobody_gets_one_without_a_token() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let person = fleet.person()?;
        let good = ticket(fleet, &person, 0).await?.ticket;
        let (shorter, bare) = (&good[..good.len() - 1], good.strip_prefix("ct1_").context("how tickets begin")?);
        let (longer, capitals) = (format!("{good}A"), format!("ct1_{}", bare.to_uppercase()));
        let like_one = [shorter, bare, &longer, &capitals, &good.to_uppercase()];
        for bad in ["", "a", "null", "..%2f..", "ct1_", &person.token].into_iter().chain(like_one) {
            assert_eq!(open(fleet, 0, bad).await?.code(), "401 unauthenticated");
        }
        assert_eq!(open(fleet, 0, &"a".repeat(5000)).await?.code(), "401 unauthenticated");
        let nobody: Answer = chat_e2e::Api::new(fleet.gateway(0).url(), None).post("tickets", &json!({})).await?;
        assert_eq!(nobody.code(), "401 unauthenticated");
        assert_eq!(open(fleet, 0, &good).await?.code(), "101", "what was tried with others did not use it up");
        Ok(())
    })
}
