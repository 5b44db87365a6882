//! What messages came to: noting what is heard, and at the end what was accepted and whom it was shown to.

use super::{Worker, client::Record, realtime::Unread};
use crate::{
    message::{Mark, message_id},
    plan::{Absence, Done, FOREIGN_SHOWN, RealtimeDone, Tally},
    target::{Heard, Target},
};

/// Who hears something, and when.
#[derive(Debug, Clone, Copy)]
pub struct Listener {
    pub crowd: usize,
    pub offset: usize,
    pub seat: usize,
    pub now_us: u64,
}

impl<T: Target> Worker<T> {
    /// Notes what a client heard.
    pub(super) fn note(&self, listener: &Listener, record: &mut Record, heard: Heard<'_>) {
        let start_us = self.start_us.get();
        self.note_realtime(listener, record, &heard);
        match heard {
            Heard::Accepted { reference } => {
                let Some(waiting) = record.answered(reference) else { return };
                record.accepted.insert(reference);
                let mut stats = self.stats.borrow_mut();
                stats.accepted(listener.crowd, waiting.due_us - start_us, listener.now_us - start_us);
            }
            Heard::Rejected { reference, reason } => {
                if reference.and_then(|reference| record.answered(reference)).is_some() {
                    record.rejected += 1;
                }
                self.stats.borrow_mut().error(&format!("rejected: {reason}"));
            }
            Heard::Message { sequence, text } => {
                // What an earlier run left is not counted.
                let Some(mark) = Mark::read(text).filter(|mark| mark.due_us >= start_us) else { return };
                if record.is_new(sequence) {
                    self.note_message(listener, record, mark, sequence);
                }
            }
            // Noted above.
            Heard::Done { .. } | Heard::Receipt { .. } | Heard::Typing | Heard::Presence { .. } => {}
        }
    }

    fn note_message(&self, listener: &Listener, record: &mut Record, mark: Mark, sequence: Option<u64>) {
        let mine = self.plan.first_seat as usize + listener.seat;
        let (first, sender) = (mine - listener.offset, mark.seat as usize);
        if sender == mine {
            record.reading.wrote(sequence.unwrap_or_default());
            return;
        }
        let mut stats = self.stats.borrow_mut();
        let Some(offset) = sender.checked_sub(first).filter(|offset| *offset < record.shown.len()) else {
            stats.error(FOREIGN_SHOWN);
            return;
        };
        if !record.show(offset, mark.number) {
            return;
        }
        if let Some(sequence) = sequence {
            let message_id = message_id(self.plan.run, mark.seat, mark.number);
            record.reading.see(Unread { sequence, message_id });
        }
        let start_us = self.start_us.get();
        let (due_us, now_us) = (mark.due_us - start_us, listener.now_us - start_us);
        stats.delivered(listener.crowd, due_us, now_us);
        if let Some(Absence::Once { at_us, away_us }) = self.plan.crowds[listener.crowd].absence
            && (at_us..at_us + away_us).contains(&due_us)
        {
            let after_us = now_us.saturating_sub(at_us + away_us);
            record.caught_up_us = Some(after_us);
            stats.done.crowds[listener.crowd].catch_up.record(after_us);
        }
    }

    /// Whether nothing is outstanding.
    pub(super) fn is_drained(&self) -> bool {
        let is_settled = self.clients.iter().all(|client| {
            let client = client.borrow();
            client.line.is_some() && client.record.waiting.is_empty() && client.record.reading.is_settled()
        });
        is_settled
            && self.tallies().iter().all(|tally| tally.shown >= tally.expected_shows)
            && self.readings().iter().all(|reading| reading.receipts_shown >= reading.expected_receipts)
    }

    /// Everything, for the last line.
    pub(super) fn done(&self) -> Done {
        let mut done = self.stats.borrow().done.clone();
        for (crowd, tally) in done.crowds.iter_mut().zip(self.tallies()) {
            crowd.tally = tally;
        }
        for (crowd, reading) in done.crowds.iter_mut().zip(self.readings()) {
            crowd.realtime.add(&reading);
        }
        for client in &self.clients {
            let client = client.borrow();
            if let Some(us) = client.record.caught_up_us {
                done.crowds[client.crowd].caught_up.record(us);
            }
        }
        done
    }

    /// What became of the messages of each crowd.
    fn tallies(&self) -> Vec<Tally> {
        let crowds = self.plan.crowds.iter().zip(self.first_seats.windows(2));
        crowds
            .map(|(crowd, seats)| {
                let mut tally = Tally::default();
                for seat in seats[0]..seats[1] {
                    self.add_seat(seat, crowd.conversation_size, &mut tally);
                }
                tally
            })
            .collect()
    }

    /// How far the users of each crowd have read, and to whom that was shown.
    fn readings(&self) -> Vec<RealtimeDone> {
        let crowds = self.first_seats.windows(2);
        crowds
            .map(|seats| {
                let mut done = RealtimeDone::default();
                for seat in seats[0]..seats[1] {
                    self.add_reading(seat, &mut done);
                }
                done
            })
            .collect()
    }

    fn add_seat(&self, seat: usize, conversation_size: usize, tally: &mut Tally) {
        let client = self.clients[seat].borrow();
        let record = &client.record;
        let accepted = record.accepted.len();
        tally.sent += record.sent;
        tally.accepted += accepted;
        tally.rejected += record.rejected;
        tally.unanswered += record.waiting.len() as u64;
        tally.expected_shows += accepted * (conversation_size as u64 - 1);
        tally.repeated_raw += record.repeated_raw;
        tally.repeated += record.repeated;
        tally.returned += record.returned;
        tally.not_resumed += record.not_resumed;
        tally.absent += u64::from(client.line.is_none());
        let first = seat - client.offset;
        for other in (first..first + conversation_size).filter(|other| *other != seat) {
            tally.shown += record.accepted.common(&self.clients[other].borrow().record.shown[client.offset]);
        }
        if accepted > 0 {
            let number = self.plan.first_seat + u32::try_from(seat).unwrap_or(u32::MAX);
            tally.accepted_ranges.insert(number, record.accepted.pairs().to_vec());
        }
    }
}
