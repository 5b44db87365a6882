//! Two people write to each other, each at their own gateway.
//!
//! `cargo run -p chat-client --example two_people -- GATEWAY_A TOKEN_A GATEWAY_B TOKEN_B USER_ID_B`
#![expect(clippy::print_stdout, reason = "it is an example for people to watch")]

use std::error::Error;

use chat_client::{
    Client, ClientOptions, ConnectionState, Event, Events,
    ids::{ConversationId, UserId},
    wire::Message,
};

const USAGE: &str = "give GATEWAY_A TOKEN_A GATEWAY_B TOKEN_B USER_ID_B";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: [String; 5] = std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| USAGE)?;
    let [gateway_a, token_a, gateway_b, token_b, user_b] = arguments;
    let user_b: UserId = user_b.parse()?;

    // Each lists both gateways: their own first, the other one for when it is gone.
    let options_a = ClientOptions::new([&gateway_a, &gateway_b], token_a);
    let options_b = ClientOptions::new([&gateway_b, &gateway_a], token_b);
    let (alice, mut alices_events) = Client::connect(options_a).await?;
    let (bob, mut bobs_events) = Client::connect(options_b).await?;

    let conversation = alice.rest().create_direct(user_b).await?.conversation_id;
    for (sender, text) in [(&alice, "Hello, Bob!"), (&bob, "Hello, Alice!"), (&alice, "How are you?")] {
        let accepted = sender.send(conversation, text).await?;
        println!("accepted as number {}: {text}", accepted.seq.0);
    }

    for (name, events) in [("Alice", &mut alices_events), ("Bob", &mut bobs_events)] {
        for _ in 0..3 {
            let message = next_message(events, conversation).await.ok_or("the client stopped")?;
            println!("{name} sees number {}: {}", message.seq.0, message.text);
        }
    }
    alice.close().await;
    bob.close().await;
    Ok(())
}

/// The next message of a conversation. An application would do something with the other events too.
async fn next_message(events: &mut Events, conversation: ConversationId) -> Option<Message> {
    loop {
        match events.next().await? {
            Event::Message(message) if message.conversation_id == conversation => return Some(message),
            Event::State(ConnectionState::Disconnected { reason, retry_after }) => {
                println!("the connection is gone ({reason}) and comes back in {retry_after:?}");
            }
            _ => {}
        }
    }
}
