//! How kaha-main-v3 can be told to act where it is asked for profiles and staff lists.

use std::time::Duration;

/// What it does with a request for profiles or staff lists. Sign-in and public keys are served whatever it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// What the real one does.
    #[default]
    Normal,
    /// Refuses connections, and cuts those it has.
    Down,
    /// Takes connections and requests, and never answers.
    BlackHole,
    /// Answers after this long.
    Slow(Duration),
    /// Answers with this status, whatever was asked: 500, 503, 401, 429 …
    Failing {
        /// The status.
        status: u16,
        /// Told in `Retry-After`, in whole seconds.
        retry_after: Option<Duration>,
    },
    /// Answers with 200 and something that is wrong.
    Wrong(Fault),
}

/// What can be wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The body breaks off in the middle of the JSON.
    BrokenJson,
    /// This text is the body.
    Body(String),
    /// The right answer, behind 64 MiB of white space.
    Huge,
    /// Every other entry is missing.
    Missing,
    /// There are entries that nobody asked for.
    Unasked,
    /// Every other entry has no content, content of a wrong type, or no id.
    DamagedEntries,
    /// The connection is cut in the middle of the answer's body.
    CutShort,
}
