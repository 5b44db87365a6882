//! What a client has confirmed, and what of it is recorded in Redis. No I/O.
//!
//! **Invariant:** a client that has to reload has confirmed nothing until it confirms the place where its connection began,
//! or a later one: what came before may not have reached it.

use chat_shared::position::Cursor;

/// What the client of a connection has confirmed.
#[derive(Debug, Default)]
pub struct Confirmations {
    /// Where the connection began.
    begun: Cursor,
    confirmed: Option<Cursor>,
    /// What of it is recorded in Redis.
    recorded: Option<Cursor>,
    /// Up to here a notification may wait for the confirmation, which is then recorded at once.
    awaited: Option<Cursor>,
}

impl Confirmations {
    /// Of a connection that begins here. A resume confirms its cursor, and Redis has recorded that.
    pub fn begin(&mut self, begun: Cursor, is_resumed: bool) {
        self.begun = begun;
        self.confirmed = Some(begun).filter(|_| is_resumed);
        self.recorded = self.confirmed;
    }

    /// Whether the client has confirmed anything.
    pub const fn is_any(&self) -> bool {
        self.confirmed.is_some()
    }

    /// The last cursor that was confirmed, or where the connection began.
    pub fn place(&self) -> Cursor {
        self.confirmed.unwrap_or(self.begun)
    }

    /// Notes a confirmation; true if it is to be recorded now, because `unrecorded_max` have gathered or a notification may
    /// wait for it.
    pub fn note(&mut self, cursor: Cursor, unrecorded_max: u64) -> bool {
        self.confirmed = Some(cursor).filter(|cursor| *cursor >= self.begun).max(self.confirmed);
        let unrecorded = self.place().0.saturating_sub(self.recorded.unwrap_or(self.begun).0);
        unrecorded >= unrecorded_max || self.recorded < self.awaited.min(self.confirmed)
    }

    /// Notes that a notification may wait until the client confirms what comes up to `cursor`.
    pub fn await_up_to(&mut self, cursor: Cursor) {
        self.awaited = Some(cursor).max(self.awaited);
    }

    /// What was recorded, and what is to be recorded now; from here on that counts as recorded.
    pub const fn record(&mut self) -> (Option<Cursor>, Option<Cursor>) {
        (std::mem::replace(&mut self.recorded, self.confirmed), self.confirmed)
    }

    /// Notes that only this is recorded.
    pub const fn give_back(&mut self, recorded: Option<Cursor>) {
        self.recorded = recorded;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(cursor: u64, is_resumed: bool) -> Confirmations {
        let mut confirmations = Confirmations::default();
        confirmations.begin(Cursor(cursor), is_resumed);
        confirmations.await_up_to(Cursor(cursor));
        confirmations
    }

    #[test]
    fn promise_7_a_reload_is_confirmed_by_the_place_where_it_began_and_that_is_recorded_at_once() {
        for cursor in [0, 5] {
            let mut reloads = begun(cursor, false);
            assert_eq!(reloads.record(), (None, None));
            assert!(cursor == 0 || !reloads.note(Cursor(cursor - 1), 32), "a place from before the reload");
            assert!(!reloads.is_any());
            assert!(reloads.note(Cursor(cursor), 32));
            assert_eq!(reloads.record(), (None, Some(Cursor(cursor))));
            assert!(!reloads.note(Cursor(cursor + 31), 32), "no notification waits for these");
            assert!(reloads.note(Cursor(cursor + 32), 32));
        }
    }

    #[test]
    fn a_resume_has_confirmed_its_place() {
        let mut resumes = begun(5, true);
        assert!(resumes.is_any() && !resumes.note(Cursor(5), 32));
        assert_eq!(resumes.record(), (Some(Cursor(5)), Some(Cursor(5))));
        resumes.await_up_to(Cursor(7));
        assert!(resumes.note(Cursor(6), 32), "a notification may wait for it");
        let (before, confirmed) = resumes.record();
        assert_eq!((before, confirmed), (Some(Cursor(5)), Some(Cursor(6))));
        resumes.give_back(before);
        assert!(resumes.note(Cursor(6), 32), "it was not recorded");
        resumes.note(Cursor(4), 32);
        assert_eq!(resumes.place(), Cursor(6), "nothing goes back");
    }
}
