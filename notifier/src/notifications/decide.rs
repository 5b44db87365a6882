//! Decides whether a user is notified, by what is true now. Pure.

use std::time::Duration;

use chat_shared::{clock::Timestamp, inbox::Standing, jobs::WaitingJob, limits, position::Seq, wire::Platform};

use super::subject::Subject;
use crate::providers::Verdict;

/// Attempts for which a session that is there may take to confirm the message. It is new, or it would have got the message
/// by itself.
const LIVE_ATTEMPTS_MAX: u64 = 2;
/// The same while no device has confirmed anything of the inbox: their users are loading what they missed. After a loss of
/// Redis gateways spread that over half a minute.
const LOADING_ATTEMPTS_MAX: u64 = 15;
/// How long each of the first attempts waits for the message to be stored.
const STORING_WAITS: [Duration; 3] =
    [Duration::from_millis(150), Duration::from_millis(350), Duration::from_millis(500)];
/// The first rest after a failure; doubles with each attempt.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The same for FCM where it doesn't say when to come back: its documentation asks for ten seconds at least.
const FCM_RETRY_MIN: Duration = Duration::from_secs(10);
/// The longest rest that isn't asked for by a provider.
const RETRY_MAX: Duration = Duration::from_mins(5);
/// The longest rest when the fault is our own.
const TROUBLE_RETRY_MAX: Duration = Duration::from_secs(15);

/// What became of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// A provider has it.
    Sent,
    /// Its device can't be reached any more and was removed.
    Gone,
    /// Its provider refuses it for good.
    Refused,
    /// Nobody knows whether it was sent, so it is not sent again.
    Unknown,
    /// The user has read the message.
    Read,
    /// The user wants no notifications of the conversation.
    Muted,
    /// One of the two has blocked the other.
    Blocked,
    /// A device of theirs has confirmed the message, or that it has loaded everything since it came.
    Delivered,
    /// They have no device that is registered.
    NoDevice,
    /// They don't take part any more.
    Left,
    /// No case of the business has waited for long any more.
    NotWaiting,
    /// The message is too old.
    Expired,
}

impl Conclusion {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Sent,
        Self::Gone,
        Self::Refused,
        Self::Unknown,
        Self::Read,
        Self::Muted,
        Self::Blocked,
        Self::Delivered,
        Self::NoDevice,
        Self::Left,
        Self::NotWaiting,
        Self::Expired,
    ];

    /// Its name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Gone => "gone",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Read => "read",
            Self::Muted => "muted",
            Self::Blocked => "blocked",
            Self::Delivered => "delivered",
            Self::NoDevice => "no_device",
            Self::Left => "left",
            Self::NotWaiting => "not_waiting",
            Self::Expired => "expired",
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Notify, unless something else speaks against it.
    Notify,
    /// Look again after this.
    Wait(Duration),
    /// Nothing more.
    Conclude(Conclusion),
}

/// A participant's view of their conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// Up to here they have read, or the messages are gone.
    pub read_seq: Seq,
    /// Whether they want no notifications of it.
    pub is_muted: bool,
    /// Whether it is a direct conversation and one of the two has blocked the other.
    pub is_blocked: bool,
    /// Whether the message is stored. Then others that came before it most likely are too, and the badge is right.
    pub is_stored: bool,
}

/// What waits in a business, as one who supervises it is concerned: cases of other customers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// How many wait.
    pub waiting: u64,
    /// Whether one of them has waited for longer than [`limits::WAITING_NOTIFIED_AFTER`].
    pub is_late: bool,
}

/// By what waits in a business; none if the user does not supervise it.
pub fn by_queue(job: &WaitingJob, queue: Option<Queue>, now: Timestamp) -> Step {
    match queue {
        _ if now >= job.found_at.after(limits::WAITING_NOTIFIED_INTERVAL) => Step::Conclude(Conclusion::Expired),
        None => Step::Conclude(Conclusion::Left),
        Some(queue) if !queue.is_late => Step::Conclude(Conclusion::NotWaiting),
        Some(_) => Step::Notify,
    }
}

/// By what the user's sessions and devices have done.
pub fn by_standing(subject: &Subject, standing: &Standing, attempt: u64) -> Step {
    if standing.now >= subject.sent_at.after(limits::NOTIFICATION_TTL) {
        return Step::Conclude(Conclusion::Expired);
    }
    let is_delivered = match (standing.epoch, subject.place) {
        (None, _) => false,
        (Some(now), Some((then, cursor))) if now == then => standing.confirmed >= Some(cursor),
        // The inbox was made after the message came. A device confirms something of it once it has loaded everything.
        (Some(_), _) => standing.confirmed.is_some(),
    };
    if is_delivered {
        return Step::Conclude(Conclusion::Delivered);
    }
    let is_loading = standing.epoch.is_some() && standing.confirmed.is_none();
    let live_attempts_max = if is_loading { LOADING_ATTEMPTS_MAX } else { LIVE_ATTEMPTS_MAX };
    match standing.last_seen_at {
        Some(last_seen_at) => rest_of_grace(last_seen_at, standing.now, attempt).map_or(Step::Notify, Step::Wait),
        // They are there; or were until Redis lost its data, and come back now; or have never been.
        None if attempt <= live_attempts_max => Step::Wait(limits::NOTIFICATION_GRACE),
        None => Step::Notify,
    }
}

fn rest_of_grace(last_seen_at: Timestamp, now: Timestamp, attempt: u64) -> Option<Duration> {
    let Ok(away_ms) = u64::try_from(now.0.saturating_sub(last_seen_at.0)) else {
        // The clock has been set back since, so it does not show how much is left: the whole grace, once.
        return Some(limits::NOTIFICATION_GRACE).filter(|_| attempt <= 1);
    };
    limits::NOTIFICATION_GRACE.checked_sub(Duration::from_millis(away_ms)).filter(|left| !left.is_zero())
}

/// By what PostgreSQL knows; `membership` is none if they don't take part. An assignment without a message before it counts as
/// read once any message is.
pub fn by_membership(subject: &Subject, membership: Option<Membership>, attempt: u64) -> Step {
    match membership {
        None => Step::Conclude(Conclusion::Left),
        Some(membership) if membership.read_seq >= subject.seq.max(Seq(1)) => Step::Conclude(Conclusion::Read),
        Some(membership) if membership.is_blocked => Step::Conclude(Conclusion::Blocked),
        Some(membership) if membership.is_muted => Step::Conclude(Conclusion::Muted),
        Some(membership) if !membership.is_stored => {
            let wait = usize::try_from(attempt).ok().and_then(|attempt| STORING_WAITS.get(attempt.saturating_sub(1)));
            wait.copied().map_or(Step::Notify, Step::Wait)
        }
        Some(_) => Step::Notify,
    }
}

/// What a provider's verdict means for a device.
pub const fn by_verdict(verdict: &Verdict) -> Result<Conclusion, Option<Duration>> {
    match verdict {
        Verdict::Sent => Ok(Conclusion::Sent),
        Verdict::Gone { .. } => Ok(Conclusion::Gone),
        Verdict::Refused(_) => Ok(Conclusion::Refused),
        Verdict::Unknown => Ok(Conclusion::Unknown),
        Verdict::Later(rest) => Err(*rest),
    }
}

/// How long a job rests when its `attempt`-th attempt has failed at a provider: longer each time, but for the first ones,
/// which may have been waits, and not less than asked for. `jitter` is between 0 and 1, and spreads what failed together.
pub fn rest(provider: Platform, attempt: u64, asked_for: Option<Duration>, jitter: f64) -> Duration {
    let first = match (provider, asked_for) {
        (Platform::Fcm, None) => FCM_RETRY_MIN,
        _ => RETRY_MIN,
    };
    bounded_rest(attempt, first, RETRY_MAX, asked_for, jitter)
}

/// The same when it is PostgreSQL, Redis or NATS that fails: nobody pays for another attempt, and all notifications wait.
pub fn rest_in_trouble(attempt: u64, asked_for: Option<Duration>, jitter: f64) -> Duration {
    bounded_rest(attempt, RETRY_MIN, TROUBLE_RETRY_MAX, asked_for, jitter)
}

fn bounded_rest(
    attempt: u64,
    first: Duration,
    longest: Duration,
    asked_for: Option<Duration>,
    jitter: f64,
) -> Duration {
    let failures = attempt.saturating_sub(STORING_WAITS.len() as u64);
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    let own = (first * 2_u32.pow(doublings)).min(longest);
    asked_for.unwrap_or_default().max(own).mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 4.0)
}

#[cfg(test)]
mod tests {
    use chat_shared::{
        ids::{BusinessId, ConversationId, Epoch, MessageId, UserId},
        inbox::Occasion,
        position::Cursor,
    };

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn subject(place: Option<(Epoch, Cursor)>) -> Subject {
        Subject {
            user_id: UserId::random(),
            conversation_id: ConversationId::random(),
            occasion: Occasion::Message(MessageId::random()),
            seq: Seq(7),
            sender_id: UserId::random(),
            sent_at: Timestamp(NOW),
            place,
        }
    }

    fn standing(epoch: Option<Epoch>, confirmed: impl Into<Option<u64>>, away_ms: Option<i64>) -> Standing {
        let last_seen_at = away_ms.map(|away_ms| Timestamp(NOW - away_ms));
        Standing { epoch, confirmed: confirmed.into().map(Cursor), last_seen_at, now: Timestamp(NOW) }
    }

    #[test]
    fn by_what_sessions_and_devices_did() {
        let (epoch, other) = (Epoch::random(), Epoch::random());
        let (wait, long) = (|ms| Step::Wait(Duration::from_millis(ms)), Some(60_000));
        let delivered = Step::Conclude(Conclusion::Delivered);
        let at_5 = Some((epoch, Cursor(5)));
        let table = [
            ("away, nothing confirmed", at_5, standing(Some(epoch), 4, long), 1, Step::Notify),
            ("away, confirmed", at_5, standing(Some(epoch), 5, long), 1, delivered),
            ("there, confirmed", at_5, standing(Some(epoch), 6, None), 1, delivered),
            ("away, no device has reloaded", at_5, standing(Some(epoch), None, long), 1, Step::Notify),
            ("the inbox was just lost", at_5, standing(None, None, None), 1, wait(3000)),
            ("the inbox was lost", at_5, standing(None, None, None), 3, Step::Notify),
            ("and a device loads everything", at_5, standing(Some(other), None, None), 15, wait(3000)),
            ("and a device has not loaded everything", at_5, standing(Some(other), None, None), 16, Step::Notify),
            ("and a device was gone before it had", at_5, standing(Some(other), None, long), 1, Step::Notify),
            ("and a device has loaded everything since", at_5, standing(Some(other), 0, long), 1, delivered),
            ("never connected", None, standing(None, None, None), 3, Step::Notify),
            ("connected since for the first time", None, standing(Some(epoch), None, None), 1, wait(3000)),
            ("and has loaded everything", None, standing(Some(epoch), 0, None), 1, delivered),
            ("and gone again", None, standing(Some(epoch), 0, Some(1)), 1, delivered),
            ("and gone before", None, standing(Some(epoch), None, Some(1)), 1, wait(2999)),
            ("just gone", at_5, standing(Some(epoch), 4, Some(1)), 1, wait(2999)),
            ("almost long gone", at_5, standing(Some(epoch), 4, Some(2999)), 9, wait(1)),
            ("long gone", at_5, standing(Some(epoch), 4, Some(3000)), 1, Step::Notify),
            ("gone before the clock went back", at_5, standing(Some(epoch), 4, Some(-600_000)), 1, wait(3000)),
            ("and the grace is over", at_5, standing(Some(epoch), 4, Some(-597_000)), 2, Step::Notify),
            ("there, not yet confirmed", at_5, standing(Some(epoch), 4, None), 2, wait(3000)),
            ("there, and doesn't confirm", at_5, standing(Some(epoch), 4, None), 3, Step::Notify),
        ];
        for (what, place, standing, attempt, expected) in table {
            assert_eq!(by_standing(&subject(place), &standing, attempt), expected, "{what}");
        }
        let mut late = standing(Some(epoch), 4, long);
        late.now = Timestamp(NOW).after(limits::NOTIFICATION_TTL);
        assert_eq!(by_standing(&subject(at_5), &late, 1), Step::Conclude(Conclusion::Expired));
    }

    #[test]
    fn by_what_the_participant_wants_and_what_is_stored_r5_3() {
        let of = |read_seq, is_muted, is_stored, attempt| {
            let membership = Membership { read_seq: Seq(read_seq), is_muted, is_blocked: false, is_stored };
            by_membership(&subject(None), Some(membership), attempt)
        };
        assert_eq!(of(6, false, true, 1), Step::Notify);
        for is_stored in [true, false] {
            assert_eq!(of(7, false, is_stored, 1), Step::Conclude(Conclusion::Read));
            assert_eq!(of(8, true, is_stored, 1), Step::Conclude(Conclusion::Read));
            assert_eq!(of(6, true, is_stored, 1), Step::Conclude(Conclusion::Muted));
        }
        let waits: Vec<_> = (1..=5).map(|attempt| of(6, false, false, attempt)).collect();
        let wait = |ms| Step::Wait(Duration::from_millis(ms));
        assert_eq!(waits, [wait(150), wait(350), wait(500), Step::Notify, Step::Notify]);
        assert_eq!(by_membership(&subject(None), None, 1), Step::Conclude(Conclusion::Left));
    }

    #[test]
    fn an_assignment_without_a_message_before_it_is_read_once_a_later_message_is_r7_2() {
        let of = |read_seq| {
            let membership =
                Membership { read_seq: Seq(read_seq), is_muted: false, is_blocked: false, is_stored: true };
            by_membership(&Subject { seq: Seq::ZERO, ..subject(None) }, Some(membership), 1)
        };
        assert_eq!([of(0), of(1)], [Step::Notify, Step::Conclude(Conclusion::Read)]);
    }

    #[test]
    fn customers_that_wait_are_told_of_while_they_do_and_the_user_supervises_r7_2() {
        let job = WaitingJob { user_id: UserId::random(), business_id: BusinessId::random(), found_at: Timestamp(NOW) };
        let of = |queue, after_ms| by_queue(&job, queue, Timestamp(NOW + after_ms));
        let (late, early) = (Queue { waiting: 1, is_late: true }, Queue { waiting: 2, is_late: false });
        assert_eq!(of(Some(late), 599_999), Step::Notify);
        assert_eq!(of(Some(late), 600_000), Step::Conclude(Conclusion::Expired));
        assert_eq!(of(Some(early), 0), Step::Conclude(Conclusion::NotWaiting));
        assert_eq!(of(None, 0), Step::Conclude(Conclusion::Left));
    }

    #[test]
    fn only_what_was_surely_not_taken_is_sent_again() {
        let rest = Some(Duration::from_secs(9));
        assert_eq!(by_verdict(&Verdict::Sent), Ok(Conclusion::Sent));
        assert_eq!(by_verdict(&Verdict::Gone { since: None }), Ok(Conclusion::Gone));
        assert_eq!(by_verdict(&Verdict::Refused(String::new())), Ok(Conclusion::Refused));
        assert_eq!(by_verdict(&Verdict::Unknown), Ok(Conclusion::Unknown));
        assert_eq!(by_verdict(&Verdict::Later(rest)), Err(rest));
        assert_eq!(by_verdict(&Verdict::Later(None)), Err(None));
    }

    #[test]
    fn the_rest_grows_and_is_never_shorter_than_asked_for() {
        let of = |provider, attempt, asked: Option<u64>, jitter| {
            rest(provider, attempt, asked.map(Duration::from_secs), jitter).as_secs_f64()
        };
        let seconds = |attempt, asked, jitter| of(Platform::Apns, attempt, asked, jitter);
        assert!((seconds(1, None, 0.0) - 1.0).abs() < 1e-6);
        assert!((seconds(4, None, 0.0) - 1.0).abs() < 1e-6);
        assert!((seconds(7, None, 0.0) - 8.0).abs() < 1e-6);
        assert!((seconds(7, Some(20), 0.0) - 20.0).abs() < 1e-6);
        assert!((seconds(7, Some(3), 1.0) - 10.0).abs() < 1e-6);
        assert!((seconds(u64::MAX, None, 0.0) - 300.0).abs() < 1e-6);
        for (attempt, expected) in [(1, 10.0), (4, 10.0), (5, 20.0), (6, 40.0), (u64::MAX, 300.0)] {
            assert!((of(Platform::Fcm, attempt, None, 0.0) - expected).abs() < 1e-6, "{attempt}");
        }
        assert!((of(Platform::Fcm, 4, None, 1.0) - 12.5).abs() < 1e-6);
        assert!((of(Platform::Fcm, 4, Some(2), 0.0) - 2.0).abs() < 1e-6, "FCM says when");
        assert_eq!(rest_in_trouble(u64::MAX, None, 0.0), TROUBLE_RETRY_MAX);
    }
}
