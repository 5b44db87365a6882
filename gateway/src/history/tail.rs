//! Reads a conversation backwards along the log, from its newest event.

use chat_shared::{
    event::{Event, Fact},
    limits,
    log::{AppendError, Log},
    position::{Seq, StreamSeq},
};

use crate::refusal::Refusal;

/// Where a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// At the number asked for.
    Reached,
    /// At the oldest event of this conversation that the log holds.
    LogEnded,
    /// At the bound of steps.
    StepsSpent,
}

/// The number asked for is too far from the log's end.
#[derive(Debug, thiserror::Error)]
#[error("it is more than {} events back in the log", limits::TAIL_STEPS_MAX)]
struct TooFar;

/// The events after the message numbered `down_to`, ascending; `from` is the position of the conversation's newest
/// event. Events that the log no longer holds are left out.
pub async fn read_tail(log: &Log, from: StreamSeq, down_to: Seq) -> Result<Vec<Event>, Refusal> {
    if from == StreamSeq::ZERO {
        return Ok(Vec::new());
    }
    let mut events = Vec::new();
    let walk = async {
        let Some(newest) = log.get(from).await? else { return Ok(End::LogEnded) };
        walk_back(log, newest, down_to, |event| events.push(event)).await
    };
    match tokio::time::timeout(limits::APPEND_WAIT_MAX, walk).await.unwrap_or(Err(AppendError::Unknown))? {
        End::StepsSpent => Err(Refusal::unavailable("this far back in the log", &TooFar)),
        End::Reached | End::LogEnded => {
            events.reverse();
            Ok(events)
        }
    }
}

/// Walks from `newest` along `previous` to the message after `down_to`, and takes each event, newest first.
pub(super) async fn walk_back(
    log: &Log,
    newest: Event,
    down_to: Seq,
    mut take: impl FnMut(Event) + Send,
) -> Result<End, AppendError> {
    let mut next = Some(newest);
    for _ in 0..limits::TAIL_STEPS_MAX {
        let Some(event) = next else { return Ok(End::LogEnded) };
        if event.seq <= down_to {
            return Ok(End::Reached);
        }
        let previous = event.previous;
        let is_lowest = matches!(event.fact, Fact::MessageSent(_)) && event.seq == down_to.next();
        take(event);
        if is_lowest {
            return Ok(End::Reached);
        }
        next = if previous == StreamSeq::ZERO { None } else { log.get(previous).await? };
    }
    Ok(if next.is_none() { End::LogEnded } else { End::StepsSpent })
}
