//! How a stand-in can be told to act.

use std::time::Duration;

/// What a stand-in does with what it is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// What the real one does.
    #[default]
    Normal,
    /// Takes nothing and answers with this status to all notifications.
    Failing {
        /// Such as 503 or 429.
        status: u16,
        /// Told in `Retry-After`, in whole seconds.
        retry_after: Option<Duration>,
    },
    /// Refuses connections, and cuts those it has.
    Down,
    /// Takes a notification and answers after this long.
    Slow(Duration),
    /// Takes a notification and cuts the connection instead of answering.
    SilentAfterTaking,
}
