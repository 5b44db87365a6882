//! Appends of many conversations, taken together: what waits while the log is busy goes in one write.
//!
//! The log syncs its disk for each write, and every write costs the server the same whether it holds one event or a
//! hundred. So few appends wait at a time, and what comes meanwhile is the next round: when there is little to do an
//! append goes at once and alone; the busier the log, the larger the rounds.
//!
//! **Invariant:** each append is answered by itself. A write that the server refuses as a whole, because one of its
//! appends has lost its race or is a repeat, is written again without those of conversations that have moved on, or in
//! halves; and the sender or conversation to blame is left out of shared writes for a while ([`Suspects`]).

use std::{
    collections::HashSet,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{
    AppendError, Appended, Log,
    append::{Append, BatchError},
    stall::Stall,
    suspects::{SET_APART_TOTAL, Suspects},
};
use crate::{event::Event, lifecycle::Tasks, position::StreamSeq};

/// Appends that wait for their round; one more waits for room, within the time of its request.
const WAITING_MAX: usize = 4096;
/// Rounds on their way at the same time: one that the server works on, and one that is there when it is done.
const ROUNDS_MAX: usize = 2;
/// A round that has no answer for so long doesn't hold up the next one any more.
const ROUND_WAIT_MAX: Duration = Duration::from_millis(250);
/// Appends of a round. The server takes up to 1,000 in a write; the answer to the first waits for the last.
const ROUND_MAX: usize = 256;
/// Writing many together has a price of its own at the server, about that of two dozen writes of one.
const TOGETHER_MIN: usize = 24;
/// Appends that go one by one at the same time. The server takes one after the other, and what waits here instead can
/// still learn that its conversation has moved on.
const ALONE_MAX: usize = 24;
/// Bytes of the events of one write, below what a connection to NATS takes without waiting for long.
const TOGETHER_BYTES_MAX: usize = 512 * 1024;

/// Writes, by `way`: `together`; `refused` (as a whole, then in parts); `unknown`; `alone` (some, one by one).
const WRITES_TOTAL: &str = "chat_gateway_append_writes_total";
/// Appends of a round.
const ROUND_EVENTS: &str = "chat_gateway_append_round_events";

/// Appends events of any number of conversations, in rounds.
#[derive(Debug, Clone)]
pub struct Appender {
    waiting: mpsc::Sender<Waiting>,
}

/// The position of the last event of a conversation that was heard of. An append that waits and is behind it has lost
/// its race already, so it isn't sent.
#[derive(Debug, Clone, Default)]
pub struct Newest(Arc<AtomicU64>);

/// An append that waits for its answer.
pub(super) struct Waiting {
    pub(super) append: Append,
    newest: Newest,
    answer: oneshot::Sender<Result<Appended, AppendError>>,
}

impl Newest {
    /// What was read of the log counts, also if it is behind what was heard of: then the log itself will say so.
    pub fn set(&self, at: StreamSeq) {
        self.0.store(at.0, Ordering::Relaxed);
    }

    /// Notes an event's position; false if that one or a later one was known.
    pub fn raise(&self, at: StreamSeq) -> bool {
        self.0.fetch_max(at.0, Ordering::Relaxed) < at.0
    }

    fn is_past(&self, expected: StreamSeq) -> bool {
        self.0.load(Ordering::Relaxed) > expected.0
    }
}

impl Waiting {
    fn answer(self, outcome: Result<Appended, AppendError>) {
        // Who has stopped waiting has been told that the outcome is unknown.
        _ = self.answer.send(outcome);
    }
}

impl Log {
    /// An appender that works until the process stops.
    pub fn appender(&self, tasks: &Tasks) -> Appender {
        metrics::describe_counter!(WRITES_TOTAL, "Writes of appends to the log, by how they went");
        metrics::describe_counter!(
            SET_APART_TOTAL,
            "Appends left out of shared writes after one that spoiled such a write"
        );
        metrics::counter!(SET_APART_TOTAL).absolute(0);
        metrics::describe_histogram!(ROUND_EVENTS, metrics::Unit::Count, "Appends of a round");
        Stall::describe();
        let (waiting, queue) = mpsc::channel(WAITING_MAX);
        tasks.lasting("appends", take_rounds(self.clone(), queue, tasks.clone()));
        Appender { waiting }
    }
}

impl Appender {
    /// Appends `event` if its conversation's last event stands at `event.previous`, and at most once for an
    /// `append_id` within the duplicate window. Whoever stops waiting doesn't know whether it was appended.
    pub async fn append(
        &self,
        log: &Log,
        event: &Event,
        append_id: &str,
        newest: &Newest,
    ) -> Result<Appended, AppendError> {
        let (answer, answered) = oneshot::channel();
        let append = Append::new(log, event, append_id);
        let is_ending = |_| AppendError::Refused("the process is ending".to_owned());
        self.waiting.send(Waiting { append, newest: newest.clone(), answer }).await.map_err(is_ending)?;
        answered.await.unwrap_or(Err(AppendError::Unknown))
    }
}

async fn take_rounds(log: Log, mut queue: mpsc::Receiver<Waiting>, tasks: Tasks) {
    let free = Arc::new(Semaphore::new(ROUNDS_MAX));
    let suspects = Arc::new(Suspects::default());
    let size_max = if log.takes_batches { ROUND_MAX } else { ALONE_MAX };
    loop {
        let permit = Arc::clone(&free).acquire_owned().await.expect("this semaphore is never closed");
        let mut round = Vec::new();
        // Cancel safe: what was not appended was not answered either.
        match tasks.stopping().run_until_cancelled(queue.recv_many(&mut round, size_max)).await {
            None | Some(0) => return,
            Some(_) => {
                tasks.best_effort("round", hold_up(permit, go(log.clone(), round, Arc::clone(&suspects))));
            }
        }
    }
}

/// Keeps the next round waiting until this one is done, or for as long as is reasonable.
async fn hold_up(permit: OwnedSemaphorePermit, round: impl Future<Output = ()>) {
    tokio::pin!(round);
    if tokio::time::timeout(ROUND_WAIT_MAX, &mut round).await.is_err() {
        drop(permit);
        round.await;
    }
}

async fn go(log: Log, round: Vec<Waiting>, suspects: Arc<Suspects>) {
    let round = still_good(round);
    if !round.is_empty() {
        metrics::histogram!(ROUND_EVENTS).record(u32::try_from(round.len()).unwrap_or(u32::MAX));
    }
    if !log.takes_batches || round.len() < TOGETHER_MIN {
        return one_by_one(&log, round, &suspects).await;
    }
    let (apart, mut round) = suspects.set_apart(round);
    let shared = async {
        while !round.is_empty() {
            let rest = round.split_off(fitting(&round));
            together(&log, round, &suspects).await;
            round = still_good(rest);
        }
    };
    tokio::join!(shared, one_by_one(&log, apart, &suspects));
}

/// Without those that nobody waits for, who have been told that the outcome is unknown, and those that are known to have
/// lost their race.
fn still_good(round: Vec<Waiting>) -> Vec<Waiting> {
    let waited_for = round.into_iter().filter(|waiting| !waiting.answer.is_closed());
    let (moved, good) = waited_for.partition(|waiting| waiting.newest.is_past(waiting.append.expected));
    answer_all(moved, || AppendError::HeadMoved);
    good
}

fn answer_all(round: Vec<Waiting>, error: fn() -> AppendError) {
    for waiting in round {
        waiting.answer(Err(error()));
    }
}

/// How many of a round go in one write: not too many bytes, and no conversation twice, since both would follow the same
/// event.
fn fitting(round: &[Waiting]) -> usize {
    let (mut bytes, mut subjects) = (0, HashSet::with_capacity(round.len()));
    let mut fits = |append: &Append| {
        bytes += append.payload.len();
        bytes <= TOGETHER_BYTES_MAX && subjects.insert(append.subject.clone())
    };
    round.iter().take_while(|waiting| fits(&waiting.append)).count().max(1)
}

/// In one write, or in as few as leave out those that the server refuses.
async fn together(log: &Log, part: Vec<Waiting>, suspects: &Suspects) {
    let mut parts = vec![part];
    while let Some(part) = parts.pop() {
        let mut part = still_good(part);
        if part.len() < TOGETHER_MIN {
            one_by_one(log, part, suspects).await;
            continue;
        }
        let appends: Vec<_> = part.iter().map(|waiting| &waiting.append).collect();
        match log.append_together(&appends).await {
            Ok(last) => {
                count("together");
                for (at, waiting) in (last.0 + 1 - part.len() as u64..).zip(part) {
                    waiting.answer(Ok(Appended::At(StreamSeq(at))));
                }
            }
            Err(BatchError::Whole(AppendError::Unknown)) => {
                count("unknown");
                answer_all(part, || AppendError::Unknown);
            }
            Err(BatchError::Whole(_)) => {
                count("refused");
                // There may be room for some of them.
                one_by_one(log, part, suspects).await;
            }
            Err(error @ (BatchError::HeadMoved | BatchError::Repeat)) => {
                count("refused");
                let before = part.len();
                if matches!(error, BatchError::HeadMoved) {
                    part = sift(log, part, suspects).await;
                }
                // Without any that has visibly moved on, each refusal halves the part with the one to blame.
                let rest = if part.len() == before { part.split_off(before / 2) } else { Vec::new() };
                parts.extend([rest, part]);
            }
        }
    }
}

fn count(way: &'static str) {
    metrics::counter!(WRITES_TOTAL, "way" => way).increment(1);
}

/// Answers those whose conversations have moved on, and gives the others.
async fn sift(log: &Log, round: Vec<Waiting>, suspects: &Suspects) -> Vec<Waiting> {
    let subjects: Vec<_> = round.iter().map(|waiting| waiting.append.subject.as_str()).collect();
    let Ok(positions) = log.positions(&subjects).await else { return round };
    let has_moved = |waiting: &Waiting| {
        positions.get(waiting.append.subject.as_str()).is_some_and(|at| *at > waiting.append.expected)
    };
    let (moved, rest): (Vec<_>, _) = round.into_iter().partition(has_moved);
    for waiting in &moved {
        suspects.note_race(&waiting.append);
    }
    answer_all(moved, || AppendError::HeadMoved);
    rest
}

/// Each for itself, some at a time.
async fn one_by_one(log: &Log, mut round: Vec<Waiting>, suspects: &Suspects) {
    while !round.is_empty() {
        let rest = round.split_off(round.len().min(ALONE_MAX));
        let good = still_good(round);
        if !good.is_empty() {
            count("alone");
            join_all(good.into_iter().map(|waiting| alone(log, waiting, suspects))).await;
        }
        round = rest;
    }
}

async fn alone(log: &Log, waiting: Waiting, suspects: &Suspects) {
    let outcome = log.append_alone(&waiting.append).await;
    match &outcome {
        Ok(Appended::Duplicate(_)) => suspects.note_repeat(&waiting.append),
        Err(AppendError::HeadMoved | AppendError::InFlight) => suspects.note_race(&waiting.append),
        _ => {}
    }
    waiting.answer(outcome);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(subject: &str, bytes: usize) -> Waiting {
        Waiting { append: Append::for_test(subject, bytes), newest: Newest::default(), answer: oneshot::channel().0 }
    }

    #[test]
    fn a_write_takes_no_conversation_twice_and_not_too_many_bytes() {
        assert_eq!(fitting(&[waiting("a", 1), waiting("b", 1), waiting("a", 1), waiting("c", 1)]), 2);
        assert_eq!(fitting(&[waiting("a", TOGETHER_BYTES_MAX), waiting("b", 1)]), 1);
        assert_eq!(fitting(&[waiting("a", TOGETHER_BYTES_MAX + 1), waiting("b", 1)]), 1, "alone it has to go");
    }
}
