//! Every bound that a client or another process can meet, with what happens there.

use std::time::Duration;

/// Bytes of a WebSocket frame from a client. Over it the connection is closed with 4501.
pub const FRAME_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a message's text in UTF-8. Over it the message is refused as `too_large`.
pub const TEXT_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a REST request's body. Over it the request is refused with 413.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes that wait to be written to one connection. Over it the connection is closed with 4001.
pub const OUTBOX_BYTES_MAX: usize = 256 * 1024;
/// Commands and requests of one user a second, over a longer time. Over it `rate_limited`.
pub const COMMANDS_PER_SECOND_MAX: u32 = 50;
/// Commands and requests of one user at once.
pub const COMMANDS_BURST_MAX: u32 = 200;
/// Connections of one user on one gateway. Over it the handshake is refused with 429.
pub const CONNECTIONS_PER_USER_MAX: usize = 16;
/// Participants of a group.
pub const GROUP_PARTICIPANTS_MAX: usize = 8;
/// Participants a group needs when it is made.
pub const GROUP_PARTICIPANTS_MIN: usize = 2;
/// Rows of a page, unless the request names fewer.
pub const PAGE_ROWS_DEFAULT: usize = 50;
/// Rows of a page. A request for more gets this many.
pub const PAGE_ROWS_MAX: usize = 100;
/// Longer than any clock of a case.
pub const CASE_CLOCK_MAX: Duration = Duration::from_hours(8 * 24);
/// How far the activity by which a participant finds a conversation may lie behind the conversation's own: within that time
/// messages raise the conversation's alone.
pub const LIST_LAG_MAX: Duration = Duration::from_secs(10);
/// Conversations over which what is unread is summed, for the badge and `GET /v1/unread`: those with the latest activity.
/// Older ones are left out of the sum.
pub const UNREAD_CONVERSATIONS_MAX: i64 = 1000;
/// Entries of an inbox. The oldest goes first; whoever needed it is told `resumed: false`.
pub const INBOX_ENTRIES_MAX: usize = 256;
/// Bytes of an inbox' entries beside the oldest one, as they stand in the log. The oldest goes first, as above.
pub const INBOX_BYTES_MAX: usize = 256 * 1024;
/// An inbox whose user has not been there for this long is dropped, however much enters it.
pub const INBOX_IDLE_MAX: Duration = Duration::from_hours(14 * 24);
/// How often client and gateway show that they are there (R8.1).
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);
/// Silence that ends a connection with 4002 (R8.2).
pub const HEARTBEAT_SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long a fresh connection may take to say `hello`. After it 4503.
pub const HELLO_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long an append may take until its outcome counts as unknown and the sender is told `unavailable`.
pub const APPEND_WAIT_MAX: Duration = Duration::from_secs(5);
/// Attempts to append one message against others that write to the same conversation. Each takes a millisecond or more,
/// so that [`APPEND_WAIT_MAX`] ends most of them before.
pub const APPEND_ATTEMPTS_MAX: u32 = 1000;
/// How long the gateway waits for Redis before it goes on without.
pub const REDIS_WAIT_MAX: Duration = Duration::from_millis(1500);
/// How long a statement may run in PostgreSQL.
pub const STATEMENT_WAIT_MAX: Duration = Duration::from_secs(5);
/// A gateway's lease in Redis lasts this long without renewal. With the time until notifiers notice it, users of a gateway
/// that died are offline within 30 s.
pub const GATEWAY_LEASE: Duration = Duration::from_secs(20);
/// How often a gateway renews its lease.
pub const GATEWAY_LEASE_RENEWAL: Duration = Duration::from_secs(5);
/// Steps back along the log that one page of history, or one look for an earlier copy of a message, takes at the most.
pub const TAIL_STEPS_MAX: usize = 1000;
/// How long the log remembers message ids, and recognises a repeat by itself.
pub const DUPLICATE_WINDOW: Duration = Duration::from_mins(10);
/// How long the log keeps events.
pub const LOG_AGE_MAX: Duration = Duration::from_hours(7 * 24);
/// Users whose presence one connection watches, or one request asks for. More are refused as `invalid`.
pub const PRESENCE_USERS_MAX: usize = 100;
/// Businesses that one connection watches.
pub const WATCHED_BUSINESSES_MAX: usize = 20;
/// How long a user whose connection broke counts as online, so that a quick return isn't seen. A client that says goodbye
/// is offline at once.
pub const PRESENCE_GRACE: Duration = Duration::from_secs(5);
/// How long somebody counts as writing without saying so again (R8.4).
pub const TYPING_EXPIRY: Duration = Duration::from_secs(5);
/// `set_typing` commands of one user a second, over a longer time. Over it `rate_limited`.
pub const TYPING_PER_SECOND_MAX: u32 = 3;
/// `set_typing` commands of one user at once.
pub const TYPING_BURST_MAX: u32 = 10;
/// How long receipts are gathered before they are written and pushed: several of one user and conversation become one.
pub const RECEIPTS_GATHER: Duration = Duration::from_millis(100);
/// Devices of one user that are registered for notifications. The one that was registered first goes.
pub const NOTIFICATION_DEVICES_MAX: usize = 20;
/// How long a notification is worth sending, and how long providers keep it for a device that is off.
pub const NOTIFICATION_TTL: Duration = Duration::from_hours(24);
/// Users with no live session are not notified for this long after their last one ended: most come back.
pub const NOTIFICATION_GRACE: Duration = Duration::from_secs(3);
/// How long a case waits while no agent is there until supervisors are notified of it.
pub const WAITING_NOTIFIED_AFTER: Duration = Duration::from_mins(1);
/// A device is notified at most once in this time that customers of a business wait. The notification is worth as long.
pub const WAITING_NOTIFIED_INTERVAL: Duration = Duration::from_mins(10);
/// Profiles that one request asks for. More are refused as `invalid`.
pub const PROFILES_MAX: usize = 100;
/// Ids of one call to kaha-main-v3.
pub const KAHA_CALL_IDS_MAX: usize = 200;
/// How long an answer waits for profiles that have to be asked for. After it comes what is known, and a `profile` push later.
pub const PROFILE_WAIT_MAX: Duration = Duration::from_millis(40);
/// How long a profile is taken as current (R11.1, R11.2).
pub const PROFILE_FRESH: Duration = Duration::from_hours(24);
/// How much longer it is kept for the time when kaha-main-v3 can't be asked (R3.3).
pub const PROFILE_STALE: Duration = Duration::from_hours(30 * 24);
/// How long a ticket for a WebSocket is good for.
pub const TICKET_LIFE: Duration = Duration::from_secs(30);
/// Users whom one user blocks. One more is refused as `conflict`.
pub const BLOCKS_MAX: usize = 1000;
/// Users or businesses of one internal request. More are refused as `invalid`.
pub const INTERNAL_IDS_MAX: usize = 200;
/// Frames of one connection a second, over a longer time, of the sort that no command limit counts: heartbeats,
/// confirmations, pings. Over it the connection is closed with 4004.
pub const FRAMES_PER_SECOND_MAX: u32 = 50;
/// Runs of own messages after a user's read mark that are kept. Messages of earlier runs count as unread.
pub const OWN_RUNS_MAX: usize = 32;
/// Frames of one connection at once.
pub const FRAMES_BURST_MAX: u32 = 500;
