//! The line to a service that brings notifications to devices: not too many sends at once, and none for a while when
//! it doesn't work.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use chat_shared::{
    breaker::{Breaker, Rules},
    wire::Platform,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Verdict, telemetry};

/// When a service is left alone, and for how long.
const RULES: Rules = Rules { failures_max: 5, rest_min: Duration::from_secs(1), rest_max: Duration::from_mins(1) };
/// When to come back when too much is on its way.
const CROWDED_REST: Duration = Duration::from_secs(1);

/// What came of an attempt, and what it says about the service.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The service works, whatever it says to this notification.
    Answered(Verdict),
    /// The service was not asked: what it would be sent is no good.
    NotAsked(Verdict),
    /// The service doesn't work, or the operator's access to it: nothing about this notification. The text says why.
    Failed(Verdict, String),
}

impl Outcome {
    /// What nobody needs any more is not sent.
    pub(super) fn late() -> Self {
        Self::NotAsked(Verdict::Refused("it is too late".to_owned()))
    }
}

/// Nothing was sent, and nothing is before this has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeldBack(pub(super) Duration);

/// The way to one service.
pub(super) struct Line {
    platform: Platform,
    room: Semaphore,
    breaker: Breaker,
}

impl Line {
    /// With `sends_max` sends at once.
    pub(super) fn new(platform: Platform, sends_max: usize) -> Self {
        Self { platform, room: Semaphore::new(sends_max), breaker: Breaker::new(RULES) }
    }

    /// Room for one send as long as the permit lives, if there is any.
    pub(super) fn room(&self) -> Result<SemaphorePermit<'_>, HeldBack> {
        self.room.try_acquire().map_err(|_| HeldBack(CROWDED_REST))
    }

    /// Makes an attempt, if there is room and the service isn't left alone.
    pub(super) async fn pass(&self, attempt: impl Future<Output = Outcome>) -> Result<Verdict, HeldBack> {
        let _room = self.room()?;
        let asked_at = Instant::now();
        if !self.breaker.permits(asked_at) {
            return Err(HeldBack(self.breaker.rest(asked_at)));
        }
        let outcome = attempt.await;
        let now = Instant::now();
        let verdict = match outcome {
            Outcome::Answered(verdict) => {
                if self.breaker.close(now) {
                    self.gauge().decrement(1);
                    tracing::info!(provider = self.platform.as_str(), "notifications are sent again");
                }
                verdict
            }
            Outcome::NotAsked(verdict) => verdict,
            Outcome::Failed(verdict, why) => {
                if self.breaker.fail(asked_at, now) {
                    self.gauge().increment(1);
                    tracing::warn!(
                        provider = self.platform.as_str(),
                        why,
                        "notifications can't be sent; it is tried now and then"
                    );
                }
                verdict
            }
        };
        telemetry::count(self.platform, &verdict, now.saturating_duration_since(asked_at));
        Ok(verdict)
    }

    fn gauge(&self) -> metrics::Gauge {
        metrics::gauge!(telemetry::OPEN, "provider" => self.platform.as_str())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.breaker.is_open() {
            self.gauge().decrement(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    fn failed() -> Outcome {
        Outcome::Failed(Verdict::Later(None), "it is a test".to_owned())
    }

    #[tokio::test]
    async fn a_service_that_fails_five_times_in_a_row_is_left_alone() {
        let line = Line::new(Platform::Fcm, 1);
        for outcome in [failed(), failed(), failed(), failed(), Outcome::Answered(Verdict::Gone), failed()] {
            assert!(line.pass(ready(outcome)).await.is_ok());
        }
        for _ in 0..4 {
            assert!(line.pass(ready(failed())).await.is_ok(), "the answer in between has set it back");
        }
        let HeldBack(rest) = line.pass(ready(Outcome::Answered(Verdict::Sent))).await.unwrap_err();
        assert!(rest <= RULES.rest_min);
    }

    #[tokio::test]
    async fn one_send_too_many_is_held_back() {
        let line = Line::new(Platform::Apns, 2);
        let one = line.room().unwrap();
        let _other = line.room().unwrap();
        let sent = || ready(Outcome::Answered(Verdict::Sent));
        assert_eq!(line.pass(sent()).await, Err(HeldBack(CROWDED_REST)));
        drop(one);
        assert_eq!(line.pass(sent()).await, Ok(Verdict::Sent));
    }
}
