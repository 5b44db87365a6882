//! Every bound of the client, with what happens there.

use std::time::Duration;

/// Sends without an answer. Over it `send` waits for room, up to its own deadline.
pub const SENDS_IN_FLIGHT_MAX: usize = 256;
/// Commands without an answer, other than sends. Over it the caller waits for room, up to their deadline.
pub const COMMANDS_IN_FLIGHT_MAX: usize = 256;
/// Messages whose numbers are remembered, so that of two marks that wait the further one is sent. Of older ones the mark
/// given last is.
pub const NUMBERS_MAX: usize = 1024;
/// Others that write at the same time. Over it those who begin are not shown.
pub const TYPISTS_MAX: usize = 256;
/// Conversations that the user writes in at the same time. Over it the gateway is not told of more.
pub const OWN_TYPING_MAX: usize = 16;
/// How often the gateway is told that the user still writes.
pub const TYPING_REPEAT: Duration = Duration::from_secs(3);
/// Events that wait for the application. Over it messages are put off and fetched again from history.
pub const EVENTS_MAX: usize = 1024;
/// Events other than messages that wait behind those. Over it the conversation list is loaded again.
pub const NOTICES_MAX: usize = 256;
/// Messages of one conversation that wait for their turn. Over it the latest is dropped and fetched again.
pub const HELD_PER_CONVERSATION_MAX: usize = 256;
/// Messages of all conversations that wait for their turn. Over it new ones are dropped and fetched again.
pub const HELD_MAX: usize = 4096;
/// History pages that are fetched at once.
pub const FETCHES_MAX: usize = 4;
/// Rows of a history page that the client asks for first. It counts as one command.
pub const SHORT_PAGE_ROWS: usize = 20;
/// Rows of a history page or a list page that the client asks for.
pub const PAGE_ROWS: usize = 100;
/// Fetches in a row that bring a conversation no further; then the gap is skipped with `Event::Skipped`.
pub const STALLED_FETCHES_MAX: u32 = 8;
/// Pushes that were received and not yet taken by the application, as far as confirming is concerned.
/// Over it confirming pauses until the application has caught up.
pub const LEDGER_MAX: usize = 4096;
/// Frames that wait to be written to the connection. Over it sends stay in the book.
pub const OUTBOX_FRAMES_MAX: usize = 256;
/// Frames that were read from the connection and wait to be looked at. Over it reading pauses.
pub const INBOUND_FRAMES_MAX: usize = 64;
/// Requests of `Client` handles that wait for the session. Over it the caller waits.
pub const ASKS_MAX: usize = 64;
/// Bytes of a frame from the gateway. Over it the connection is dropped and resumed.
pub const SERVER_FRAME_BYTES_MAX: usize = 512 * 1024;
/// How long a connection may take from the first packet to `ready`. After it the next gateway is tried.
pub const OPENING_WAIT_MAX: Duration = Duration::from_secs(15);
/// How long one REST request may take.
pub const REST_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a token callback may take.
pub const TOKEN_WAIT_MAX: Duration = Duration::from_secs(30);
/// Tokens in a row that may be refused before the client gives up.
pub const TOKEN_REFUSALS_MAX: u32 = 3;
/// A token with an expiry is renewed this long before it.
pub const TOKEN_RENEWAL_LEAD: Duration = Duration::from_mins(1);
/// How long `close` waits for the last frames to be written.
pub const CLOSING_WAIT_MAX: Duration = Duration::from_secs(2);
/// The largest delay that a server's hint can cause.
pub const HINT_MAX: Duration = Duration::from_mins(2);
/// The range that the first delay of a back-off is drawn from.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// The range that no delay of a back-off goes beyond.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How long the client waits at most, after the application took an event, before it confirms.
pub const CONFIRM_DELAY: Duration = Duration::from_secs(1);
/// Pushes taken by the application that are confirmed without waiting for the delay.
pub const CONFIRM_PUSHES: u64 = 32;
