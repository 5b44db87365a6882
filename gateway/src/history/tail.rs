//! Reads a conversation backwards along the log, from its newest event, within each user's bound.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use chat_shared::{
    event::{Event, Fact},
    ids::{ConversationId, UserId},
    limits,
    log::{AppendError, Log},
    position::{Seq, StreamSeq},
};
use tokio::sync::Semaphore;

use super::backwards::Backwards;
use crate::{rate::RateLimits, refusal::Refusal, telemetry};

/// Questions for several events that are open at a time, since their answers are held in memory. One more waits.
const QUESTIONS_MAX: usize = 8;

/// Reads of the log for history.
#[derive(Clone)]
pub struct Tail {
    log: Log,
    rate: RateLimits,
    questions: Arc<Semaphore>,
}

/// Why the tail can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum TailError {
    /// The log can't be read.
    #[error(transparent)]
    Log(#[from] AppendError),
    /// The user has had as many events read as one may.
    #[error("the user has had too many events of the log read")]
    TooMany(Duration),
}

impl From<TailError> for Refusal {
    fn from(error: TailError) -> Self {
        match error {
            TailError::Log(error) => error.into(),
            TailError::TooMany(wait) => Self::rate_limited(wait),
        }
    }
}

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

impl Tail {
    /// Reads `log`, for each user as much as `rate` lets them.
    pub fn new(log: Log, rate: RateLimits) -> Self {
        Self { log, rate, questions: Arc::new(Semaphore::new(QUESTIONS_MAX)) }
    }

    /// The log that is read.
    pub const fn log(&self) -> &Log {
        &self.log
    }

    /// The events after the message numbered `down_to`, ascending; `from` is the position of the conversation's newest
    /// event. Events that the log no longer holds are left out.
    pub async fn read(&self, user_id: UserId, from: StreamSeq, down_to: Seq) -> Result<Vec<Event>, Refusal> {
        if from == StreamSeq::ZERO {
            return Ok(Vec::new());
        }
        let mut events = Vec::new();
        let walk = async {
            let Some(newest) = self.one(user_id, from).await? else { return Ok(End::LogEnded) };
            self.walk_back(user_id, newest, down_to, |event| events.push(event)).await
        };
        let end = tokio::time::timeout(limits::APPEND_WAIT_MAX, walk).await;
        match end.unwrap_or(Err(TailError::Log(AppendError::Unknown)))? {
            End::StepsSpent => Err(Refusal::unavailable("this far back in the log", &TooFar)),
            End::Reached | End::LogEnded => {
                events.reverse();
                Ok(events)
            }
        }
    }

    /// Walks from `newest` along `previous` to the message after `down_to`, and takes each event, newest first.
    pub(super) async fn walk_back(
        &self,
        user_id: UserId,
        newest: Event,
        down_to: Seq,
        mut take: impl FnMut(Event) + Send,
    ) -> Result<End, TailError> {
        let mut backwards = Backwards::from(self, user_id, &newest);
        let mut next = Some(newest);
        for steps in 1..=limits::TAIL_STEPS_MAX {
            let Some(event) = next else { return Ok(End::LogEnded) };
            if event.seq <= down_to {
                return Ok(End::Reached);
            }
            let is_lowest = matches!(event.fact, Fact::MessageSent(_)) && event.seq == down_to.next();
            let wanted = usize::try_from(event.seq.0 - down_to.0).unwrap_or(usize::MAX);
            take(event);
            if is_lowest {
                return Ok(End::Reached);
            }
            next = backwards.next(wanted.min(limits::TAIL_STEPS_MAX + 1 - steps)).await?;
        }
        Ok(if next.is_none() { End::LogEnded } else { End::StepsSpent })
    }

    /// The event at a position, as the log's leader knows it.
    pub(super) async fn one(&self, user_id: UserId, at: StreamSeq) -> Result<Option<Event>, TailError> {
        self.charge(user_id, 1)?;
        metrics::counter!(telemetry::LOG_READS_TOTAL, "way" => "one").increment(1);
        Ok(self.log.get(at).await?)
    }

    /// Events from a position on, ascending, as some replica knows them.
    pub(super) async fn many(
        &self,
        user_id: UserId,
        conversation_id: ConversationId,
        from: StreamSeq,
        events_max: usize,
    ) -> Result<Vec<(StreamSeq, Event)>, TailError> {
        self.charge(user_id, events_max)?;
        let _question = self.questions.acquire().await.map_err(|_| AppendError::Unknown)?;
        metrics::counter!(telemetry::LOG_READS_TOTAL, "way" => "many").increment(1);
        Ok(self.log.read_from(conversation_id, from, events_max).await?)
    }

    fn charge(&self, user_id: UserId, events: usize) -> Result<(), TailError> {
        let events = u32::try_from(events).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        self.rate.check_log_reads(user_id, events).map_err(|wait| {
            metrics::counter!(telemetry::LOG_READS_BOUNDED_TOTAL).increment(1);
            TailError::TooMany(wait)
        })
    }
}
