//! Who is there: what this gateway announces of its users, and what its connections watch of others.
//!
//! **Invariant:** watchers learn of changes from announcements alone, those of their own gateway included; Redis is read
//! when a watch begins and when announcements may have been lost.

mod announce;
mod authorise;
mod departures;
mod lists;
mod watch;

pub use announce::Announcer;
pub use departures::{Departures, EndedSession, Parting};
pub use watch::{Watches, presence_of};

use chat_shared::{clock::Timestamp, delivery::PresenceChange, ids::UserId, wire::Presence};

use crate::state::AppState;

/// Starts what announces, settles and watches.
pub fn start(state: &AppState) {
    let tasks = &state.tasks;
    // Connections end while the gateway drains, and what they set going is settled after them.
    tasks.lasting("presence_announcer", announce::announce(state.clone()));
    tasks.lasting("departures", departures::settle(state.clone()));
    tasks.best_effort("presence_authoriser", watch::keep_authorised(state.clone()));
    tasks.best_effort("presence_reader", watch::keep_fresh(state.clone()));
}

/// A user has come.
pub const fn came(user_id: UserId, at: Timestamp) -> PresenceChange {
    PresenceChange { presence: Presence { user_id, is_online: true, last_seen_at: None }, at }
}
