//! A client against a gateway that does what the protocol allows, at inconvenient moments.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod businesses;
mod fake;
mod messages;
mod realtime;

use chat_client::{Client, ClientOptions, Event, Events, ids::Epoch, wire::Message};
use fake::{DEADLINE, FakeGateway, Socket};
use tokio::time::timeout;

/// A client that is connected and has loaded an empty list.
async fn connected(gateway: &mut FakeGateway, options: ClientOptions) -> (Client, Events, Socket, Epoch) {
    let epoch = Epoch::random();
    let (client, socket) = tokio::join!(Client::connect(options), async {
        let mut socket = gateway.accept().await;
        assert_eq!(socket.hello.resume, None);
        socket.ready(Some(epoch), 10, false).await;
        socket
    });
    let (client, events) = client.unwrap();
    (client, events, socket, epoch)
}

async fn next_message(events: &mut Events) -> Message {
    loop {
        match timeout(DEADLINE, events.next()).await.expect("an event in time").expect("the client runs") {
            Event::Message(message) => return message,
            Event::Skipped { .. } => panic!("nothing may be skipped"),
            _ => {}
        }
    }
}

/// The next event that is told, whatever it is.
async fn next_event(events: &mut Events) -> Event {
    timeout(DEADLINE, events.next()).await.expect("an event in time").expect("the client runs")
}
