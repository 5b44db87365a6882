//! The line to a service that brings notifications to devices: not too many sends at once, and none for a while when
//! it doesn't work.

use std::{
    future::Future,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use chat_shared::{
    breaker::{Breaker, Rules},
    wire::Platform,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Verdict, removals::Removals, telemetry};
use crate::occasionally::Occasionally;

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
    /// The service doesn't work: nothing about this notification. The text says why.
    Failed(Verdict, String),
    /// The service doesn't accept the operator's credentials, whatever the device; when it wants to be asked again. The
    /// text says why.
    Denied(Option<Duration>, String),
    /// The device belongs to other credentials, another environment or another app. Which of the two is wrong the answer
    /// doesn't say. The text says why.
    Mismatched(String),
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
    /// Whether it has taken a notification, so that the credentials are right.
    is_proven: AtomicBool,
    removals: Removals,
    complaints: Occasionally,
}

impl Line {
    /// With `sends_max` sends at once.
    pub(super) fn new(platform: Platform, sends_max: usize) -> Self {
        Self {
            platform,
            room: Semaphore::new(sends_max),
            breaker: Breaker::new(RULES),
            is_proven: AtomicBool::default(),
            removals: Removals::default(),
            complaints: Occasionally::default(),
        }
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
                self.close(now);
                self.removable(verdict)
            }
            Outcome::NotAsked(verdict) => verdict,
            Outcome::Failed(verdict, why) => {
                self.fail(asked_at, now, &why);
                verdict
            }
            Outcome::Denied(rest, why) => {
                self.deny(&why);
                self.fail(asked_at, now, &why);
                Verdict::Later(rest)
            }
            // Clients choose tokens and app ids. Once the credentials are proven, one that fits nothing keeps no others back.
            Outcome::Mismatched(why) if self.is_proven.load(Ordering::Relaxed) => {
                self.deny(&why);
                self.close(now);
                Verdict::Refused(why)
            }
            Outcome::Mismatched(why) => {
                self.deny(&why);
                self.fail(asked_at, now, &why);
                Verdict::Later(None)
            }
        };
        telemetry::count(self.platform, &verdict, now.saturating_duration_since(asked_at));
        Ok(verdict)
    }

    fn close(&self, now: Instant) {
        if self.breaker.close(now) {
            self.gauge().decrement(1);
            tracing::info!(provider = self.platform.as_str(), "notifications are sent again");
        }
    }

    fn fail(&self, asked_at: Instant, now: Instant, why: &str) {
        if self.breaker.fail(asked_at, now) {
            self.gauge().increment(1);
            tracing::warn!(
                provider = self.platform.as_str(),
                why,
                "notifications can't be sent; it is tried now and then"
            );
        }
    }

    fn deny(&self, why: &str) {
        telemetry::count_denied(self.platform);
        if self.complaints.is_due() {
            tracing::error!(
                provider = self.platform.as_str(),
                why,
                "the provider doesn't accept the credentials for a device: one of the two is of another project, environment \
                 or app"
            );
        }
    }

    /// The verdict on an answer, which removes a device only if not too many are said to be gone.
    fn removable(&self, verdict: Verdict) -> Verdict {
        if verdict == Verdict::Sent {
            self.is_proven.store(true, Ordering::Relaxed);
        }
        let is_gone = matches!(verdict, Verdict::Gone { .. });
        if self.removals.permits(is_gone) || !is_gone {
            return verdict;
        }
        telemetry::count_removal_held_back(self.platform);
        if self.complaints.is_due() {
            tracing::error!(
                provider = self.platform.as_str(),
                "the provider says of too many devices that they are gone: they are not removed"
            );
        }
        Verdict::Refused("too many devices are said to be gone".to_owned())
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
        let gone = Outcome::Answered(Verdict::Gone { since: None });
        for outcome in [failed(), failed(), failed(), failed(), gone, failed()] {
            assert!(line.pass(ready(outcome)).await.is_ok());
        }
        for _ in 0..4 {
            assert!(line.pass(ready(failed())).await.is_ok(), "the answer in between has set it back");
        }
        let HeldBack(rest) = line.pass(ready(Outcome::Answered(Verdict::Sent))).await.unwrap_err();
        assert!(rest <= RULES.rest_min);
    }

    #[tokio::test]
    async fn refused_credentials_keep_everything_back_and_refuse_nothing_for_good() {
        let line = Line::new(Platform::Fcm, 1);
        for _ in 0..4 {
            let denied = Outcome::Denied(None, "it is a test".to_owned());
            assert_eq!(line.pass(ready(denied)).await, Ok(Verdict::Later(None)));
        }
        let mismatched = Outcome::Mismatched("it is a test".to_owned());
        assert_eq!(line.pass(ready(mismatched)).await, Ok(Verdict::Later(None)));
        assert!(line.pass(ready(Outcome::Answered(Verdict::Sent))).await.is_err());
    }

    #[tokio::test]
    async fn a_device_of_others_keeps_nothing_back_where_notifications_are_taken() {
        let line = Line::new(Platform::Apns, 1);
        assert_eq!(line.pass(ready(Outcome::Answered(Verdict::Sent))).await, Ok(Verdict::Sent));
        for _ in 0..10 {
            let mismatched = Outcome::Mismatched("it is a test".to_owned());
            assert_eq!(line.pass(ready(mismatched)).await, Ok(Verdict::Refused("it is a test".to_owned())));
        }
        assert_eq!(line.pass(ready(Outcome::Answered(Verdict::Sent))).await, Ok(Verdict::Sent));
    }

    #[tokio::test]
    async fn of_many_devices_that_are_said_to_be_gone_most_are_kept() {
        let line = Line::new(Platform::Apns, 1);
        let gone = Verdict::Gone { since: None };
        let mut removed = 0;
        for _ in 0..200 {
            let verdict = line.pass(ready(Outcome::Answered(gone.clone()))).await.unwrap();
            removed += usize::from(verdict == gone);
        }
        assert_eq!(removed, 10);
        for _ in 0..50 {
            assert_eq!(line.pass(ready(Outcome::Answered(Verdict::Sent))).await, Ok(Verdict::Sent));
        }
        assert_eq!(line.pass(ready(Outcome::Answered(gone.clone()))).await, Ok(gone));
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
