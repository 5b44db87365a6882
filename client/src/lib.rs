//! The Rust client of the chat backend: connects, resumes, repeats sends, keeps order.
//!
//! An application gives a list of gateways and a source of tokens, and gets two halves: a [`Client`] to send
//! and ask with, and [`Events`] to take what happens from. Connections come and go underneath.
//!
//! ```no_run
//! use chat_client::{Client, ClientOptions, Event};
//!
//! # async fn run(token: &str, other: chat_client::ids::UserId) -> Result<(), Box<dyn std::error::Error>> {
//! let (client, mut events) = Client::connect(ClientOptions::new(["http://127.0.0.1:8080"], token)).await?;
//! let conversation = client.rest().create_direct(other).await?;
//! let accepted = client.send(conversation.conversation_id, "Hello!").await?;
//! println!("it is message {} of the conversation", accepted.seq.0);
//! while let Some(event) = events.next().await {
//!     match event {
//!         Event::Message(message) => {
//!             println!("{}: {}", message.seq.0, message.text);
//!             client.mark_read(message.conversation_id, message.message_id).await?;
//!         }
//!         Event::Typing(typing) if typing.is_typing => println!("somebody writes"),
//!         Event::Unread { total, .. } => println!("{total} messages are unread"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - **Messages come once and in order** of `seq` within each conversation, the user's own included. Gaps are
//!   filled from history before anything later is handed over. What can't be had any more, because it was aged
//!   out, is named by [`Event::Skipped`].
//! - **A send ends with a known outcome** or says that it is unknown: [`Client::send`] repeats under the same
//!   `message_id` over lost connections and unavailable gateways until its deadline, and a repeat never makes a
//!   second message.
//! - **Nothing is missed.** After a lost connection the client resumes where it was; if the gateway can't, the
//!   client loads the conversation list ([`Event::Reloaded`]) and fills what is missing.
//! - **Towards the application: at least once.** Only what was taken from [`Events`] is confirmed. To go on
//!   after a restart, keep [`Client::position`] with what was taken, and give it back in
//!   [`ClientOptions::resume_from`]; if both are kept in one transaction, it is exactly once.
//! - **What is told besides messages is the latest**: receipts only go forward, typing ends by itself, presence is told of
//!   those that are watched and told anew after a reconnect, and what is unread is derived from what is known of each
//!   conversation, so it agrees with the list. Of what changes while the application is busy, it is told the last.
//! - **Everything is bounded**, by the constants in [`limits`]. What finds no room is fetched again later.
//!
//! It reconnects with exponential back-off and full jitter, to the next gateway of the list, and minds
//! `going_away`, `Retry-After` and the close codes. A token from [`TokenSource::callback`] is renewed before it
//! expires. When coming back can't help, the last event is [`ConnectionState::Stopped`].
//!
//! # How it is built
//!
//! One task owns the state of a client and meets the world in turns. What it decides with is pure and tested
//! by itself: the order of messages, the book of sends, what may be confirmed, the back-off, and what follows
//! from each way in which a connection ends.

mod backoff;
mod book;
mod client;
mod connection;
mod error;
mod events;
mod expiry;
mod latest;
pub mod limits;
mod line;
mod load;
mod notices;
mod numbers;
mod options;
mod order;
mod position;
mod progress;
mod receipts;
mod rest;
mod session;
mod state;
mod token;
mod typing;
mod unread;
mod verdict;
mod watch;

pub use chat_shared::{clock, ids, position as positions, runs, wire};

pub use client::{Client, Outgoing};
pub use error::{CommandError, ConnectError, RestError, SendError, TokenError};
pub use events::{Event, Events, WatchList};
pub use options::{ClientOptions, Start};
pub use position::{Position, ReadMark};
pub use rest::{HistoryRange, Rest};
pub use state::{ConnectionState, StopReason};
pub use token::TokenSource;
