//! Appends of many conversations, taken together: what waits while the log is busy goes in one write.
//!
//! The log syncs its disk for each write, and every write costs the server the same whether it holds one event or a
//! hundred. So few appends wait at a time, and what comes meanwhile is the next round: when there is little to do an
//! append goes at once and alone; the busier the log, the larger the rounds.
//!
//! **Invariant:** each append is answered by itself. A round that the server refuses as a whole, because one of its
//! appends has lost its race or is a repeat, is taken apart and asked again one by one.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{AppendError, Appended, Log, append::Append};
use crate::{event::Event, lifecycle::Tasks, position::StreamSeq};

/// Appends that wait for their round; one more waits for room, within the time of its request.
const WAITING_MAX: usize = 4096;
/// Rounds on their way at the same time: one that the server works on, and one that is there when it is done.
const ROUNDS_MAX: usize = 2;
/// A round that has no answer for so long doesn't hold up the next one any more.
const ROUND_WAIT_MAX: Duration = Duration::from_millis(250);
/// Appends of a round. The server takes up to 1,000 in a write; the answer to the first waits for the last.
const ROUND_MAX: usize = 256;
/// Writing many together has a price of its own at the server, about that of 24 writes of one.
const TOGETHER_MIN: usize = 32;
/// Bytes of the events of one write, below what a connection to NATS takes without waiting for long.
const TOGETHER_BYTES_MAX: usize = 512 * 1024;

/// Rounds, by `way`: `alone` if its appends went one by one, `together` if in one write, `apart` if that was refused.
const ROUNDS_TOTAL: &str = "chat_log_rounds_total";
/// Appends of a round.
const ROUND_APPENDS: &str = "chat_log_round_appends";

/// Appends events of any number of conversations, in rounds.
#[derive(Debug, Clone)]
pub struct Appender {
    waiting: mpsc::Sender<Waiting>,
}

/// An append that waits for its answer.
struct Waiting {
    append: Append,
    answer: oneshot::Sender<Result<Appended, AppendError>>,
}

impl Log {
    /// An appender that works until the process stops.
    pub fn appender(&self, tasks: &Tasks) -> Appender {
        metrics::describe_counter!(ROUNDS_TOTAL, "Rounds of appends to the log");
        metrics::describe_histogram!(ROUND_APPENDS, metrics::Unit::Count, "Appends of a round");
        let (waiting, queue) = mpsc::channel(WAITING_MAX);
        tasks.lasting("appends", take_rounds(self.clone(), queue, tasks.clone()));
        Appender { waiting }
    }
}

impl Appender {
    /// Appends `event` if its conversation's last event stands at `event.previous`, and at most once for an
    /// `append_id` within the duplicate window. Whoever stops waiting doesn't know whether it was appended.
    pub async fn append(&self, log: &Log, event: &Event, append_id: &str) -> Result<Appended, AppendError> {
        let (answer, answered) = oneshot::channel();
        let append = Append::new(log, event, append_id);
        let is_ending = |_| AppendError::Refused("the process is ending".to_owned());
        self.waiting.send(Waiting { append, answer }).await.map_err(is_ending)?;
        answered.await.unwrap_or(Err(AppendError::Unknown))
    }
}

async fn take_rounds(log: Log, mut queue: mpsc::Receiver<Waiting>, tasks: Tasks) {
    let free = Arc::new(Semaphore::new(ROUNDS_MAX));
    loop {
        let permit = Arc::clone(&free).acquire_owned().await.expect("this semaphore is never closed");
        let mut round = Vec::new();
        // Cancel safe: what was not appended was not answered either.
        match tasks.stopping().run_until_cancelled(queue.recv_many(&mut round, ROUND_MAX)).await {
            None | Some(0) => return,
            Some(_) => tasks.best_effort("round", hold_up(permit, go(log.clone(), round))),
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

async fn go(log: Log, mut round: Vec<Waiting>) {
    // Who doesn't wait any more has been told that the outcome is unknown; better that it is not appended.
    round.retain(|waiting| !waiting.answer.is_closed());
    metrics::histogram!(ROUND_APPENDS).record(u32::try_from(round.len()).unwrap_or(u32::MAX));
    while !round.is_empty() {
        let rest = round.split_off(fitting(&round));
        let way = write(&log, round).await;
        metrics::counter!(ROUNDS_TOTAL, "way" => way).increment(1);
        round = rest;
    }
}

/// How many of a round go in one write.
fn fitting(round: &[Waiting]) -> usize {
    let mut bytes = 0;
    let is_within = |waiting: &&Waiting| {
        bytes += waiting.append.payload.len();
        bytes <= TOGETHER_BYTES_MAX
    };
    round.iter().take_while(is_within).count().max(1)
}

async fn write(log: &Log, round: Vec<Waiting>) -> &'static str {
    if !log.takes_batches || round.len() < TOGETHER_MIN {
        one_by_one(log, round).await;
        return "alone";
    }
    let (appends, answers): (Vec<_>, Vec<_>) =
        round.into_iter().map(|Waiting { append, answer }| (append, answer)).unzip();
    let outcome = log.append_together(&appends).await;
    let count = appends.len() as u64;
    match outcome {
        Ok(last) => {
            for (at, answer) in (last.0 + 1 - count..).zip(answers) {
                _ = answer.send(Ok(Appended::At(StreamSeq(at))));
            }
            "together"
        }
        Err(AppendError::Unknown) => {
            for answer in answers {
                _ = answer.send(Err(AppendError::Unknown));
            }
            "together"
        }
        Err(_) => {
            let round = appends.into_iter().zip(answers).map(|(append, answer)| Waiting { append, answer });
            one_by_one(log, round.collect()).await;
            "apart"
        }
    }
}

/// All at once, but each for itself.
async fn one_by_one(log: &Log, round: Vec<Waiting>) {
    let each = async |Waiting { append, answer }: Waiting| _ = answer.send(log.append_alone(append).await);
    join_all(round.into_iter().map(each)).await;
}
