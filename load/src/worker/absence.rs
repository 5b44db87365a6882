//! Clients that lose their connections on purpose: who is cut when, and when they try to come back. And when those that
//! read everything together do so.

use std::{cmp::Reverse, collections::BinaryHeap, rc::Rc};

use rand::RngExt;

use super::Worker;
use crate::{
    plan::{Absence, Reads},
    target::{Protocol, Target},
};

/// A change of one client's or one crowd's connections or reading; the earliest is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change(Reverse<u64>, What);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// The client's connection is cut.
    Cut(usize),
    /// The client begins to come back.
    Back(usize),
    /// Many are cut.
    CutCrowd(usize),
    /// They begin to come back.
    CrowdBack(usize),
    /// All mark as read what they were shown.
    CrowdReads(usize),
}

impl Change {
    /// When, in microseconds of the monotonic clock.
    pub fn at_us(&self) -> u64 {
        self.0.0
    }
}

impl<T: Target> Worker<T> {
    /// The first changes; those of single clients bring about others.
    pub(super) fn absences(&self) -> Vec<Change> {
        let start_us = self.start_us.get();
        let mut changes = Vec::new();
        for (crowd, seats) in self.first_seats.windows(2).enumerate() {
            match self.plan.crowds[crowd].absence {
                Some(Absence::Once { at_us, away_us }) => changes.extend([
                    Change(Reverse(start_us + at_us), What::CutCrowd(crowd)),
                    Change(Reverse(start_us + at_us + away_us), What::CrowdBack(crowd)),
                ]),
                Some(Absence::Often { online_us, from_us, first_stays, .. }) => {
                    let size = self.plan.crowds[crowd].conversation_size;
                    let leaving =
                        (seats[0]..seats[1]).filter(|seat| !first_stays || !(seat - seats[0]).is_multiple_of(size));
                    changes.extend(leaving.map(|seat| {
                        // As if it had been going on before.
                        let at_us = start_us + from_us + rand::rng().random_range(0..=online_us);
                        Change(Reverse(at_us), What::Cut(seat))
                    }));
                }
                None => {}
            }
            if let Some(Reads::Together { at_us }) = self.plan.crowds[crowd].manners.reads {
                changes.push(Change(Reverse(start_us + at_us), What::CrowdReads(crowd)));
            }
        }
        changes
    }

    /// Does what is next.
    pub(super) fn change(self: &Rc<Self>, changes: &mut BinaryHeap<Change>) {
        let Some(Change(Reverse(at_us), what)) = changes.pop() else { return };
        match what {
            What::CutCrowd(crowd) => {
                for seat in self.leaving(crowd) {
                    self.cut(seat);
                }
            }
            What::CrowdBack(crowd) => {
                for seat in self.leaving(crowd) {
                    tokio::task::spawn_local(Rc::clone(self).come_back(seat));
                }
            }
            What::CrowdReads(crowd) => {
                for seat in self.first_seats[crowd]..self.first_seats[crowd + 1] {
                    self.mark_read(seat, at_us);
                }
            }
            What::Cut(seat) => self.cut_often(seat, at_us, changes),
            What::Back(seat) => {
                tokio::task::spawn_local(Rc::clone(self).come_back(seat));
            }
        }
    }

    /// All but those who write.
    fn leaving(&self, crowd: usize) -> impl Iterator<Item = usize> {
        let size = self.plan.crowds[crowd].conversation_size;
        let first = self.first_seats[crowd];
        (first..self.first_seats[crowd + 1]).filter(move |seat| !(seat - first).is_multiple_of(size))
    }

    fn cut_often(self: &Rc<Self>, seat: usize, at_us: u64, changes: &mut BinaryHeap<Change>) {
        let crowd = self.clients[seat].borrow().crowd;
        let Some(Absence::Often { online_us, away_us, until_us, says_goodbye, .. }) = self.plan.crowds[crowd].absence
        else {
            return;
        };
        let back_us = at_us + around(away_us);
        let until_us = self.start_us.get() + until_us;
        if back_us >= until_us {
            return;
        }
        // Who isn't back yet from the last time is not cut again.
        let has_gone = if says_goodbye { self.leave(seat) } else { self.cut(seat) };
        if has_gone {
            changes.push(Change(Reverse(back_us), What::Back(seat)));
        }
        changes.push(Change(Reverse(back_us + around(online_us)), What::Cut(seat)));
    }

    /// Ends a connection without a word, as a network does that is gone. False if there is none.
    fn cut(&self, seat: usize) -> bool {
        let Some(line) = self.clients[seat].borrow_mut().disconnected() else { return false };
        // With a reset, so that no port of ours is kept for a minute. A failure costs no more than such a port.
        _ = line.write.as_ref().as_ref().set_zero_linger();
        true
    }

    /// Closes a connection as users do who leave. False if there is none.
    fn leave(&self, seat: usize) -> bool {
        let Some(mut line) = self.clients[seat].borrow_mut().disconnected() else { return false };
        let mut output = self.output.borrow_mut();
        output.clear();
        line.protocol.goodbye(&mut output);
        // Should the kernel have no room for it, the connection ends without a goodbye.
        line.write(&output);
        true
    }
}

/// A random time from half of `mean_us` to one and a half.
fn around(mean_us: u64) -> u64 {
    rand::rng().random_range(mean_us / 2..=mean_us + mean_us / 2)
}
