//! After a load in which users read: whether what they marked is in the database.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use chat_load::{
    plan::{Done, RealtimeDone},
    report::Run,
};
use tokio::time::{Instant, sleep};

use super::{
    chat::Chat,
    run::{figure, number},
};

/// How long the database may take to get further with what it doesn't have yet.
const STANDSTILL_MAX: Duration = Duration::from_secs(20);
/// Between two looks at how much it has.
const PAUSE: Duration = Duration::from_millis(100);

/// All crowds together.
pub fn realtime(done: &Done) -> RealtimeDone {
    let mut sum = RealtimeDone::default();
    for crowd in &done.crowds {
        sum.add(&crowd.realtime);
    }
    sum
}

/// How many of the users have read in the database as far as they marked. It gets time for that as long as it gets
/// further.
pub async fn stored(chat: &Chat, furthest: &BTreeMap<String, u64>) -> Result<u64> {
    let (mut stored, mut moved) = (count(chat, furthest).await?, Instant::now());
    while stored < furthest.len() as u64 && moved.elapsed() < STANDSTILL_MAX {
        sleep(PAUSE).await;
        let now = count(chat, furthest).await?;
        if now > stored {
            (stored, moved) = (now, Instant::now());
        }
    }
    Ok(stored)
}

async fn count(chat: &Chat, furthest: &BTreeMap<String, u64>) -> Result<u64> {
    let read = chat.read().await?;
    let is_stored = |(user, marked): &(&String, &u64)| read.get(*user).is_some_and(|read| read >= *marked);
    Ok(furthest.iter().filter(is_stored).count() as u64)
}

/// What of it is no good.
pub fn problems(done: &RealtimeDone, stored: u64) -> Vec<String> {
    let (marks, answered) = (done.marks, done.marks_done + done.marks_refused);
    let users = done.furthest.len() as u64;
    super::run::those([
        (marks == 0, "nobody has marked anything as read".to_owned()),
        (done.marks_refused > 0, format!("{} of {marks} read marks were refused", done.marks_refused)),
        (answered < marks, format!("{} of {marks} read marks were not answered", marks - answered)),
        (
            stored < users,
            format!("{} of {users} users have not read in the database as far as they marked", users - stored),
        ),
        (
            done.receipts_shown < done.expected_receipts,
            format!(
                "{} times of {} somebody was not shown how far another has read",
                done.expected_receipts - done.receipts_shown,
                done.expected_receipts
            ),
        ),
    ])
}

/// What it came to.
pub fn put_into(run: &mut Run, done: &RealtimeDone, stored: u64) {
    let figures = [
        ("read marks", number(done.marks), "", "How often a client said that its user has read."),
        (
            "read mark done p50",
            done.done.percentile_ms(50.0),
            "ms",
            "From when it was due until the log had it, half of them. Gateways gather marks for 100 ms.",
        ),
        ("read mark done p99", done.done.percentile_ms(99.0), "ms", "The same, 99 of 100."),
        (
            "receipt shown p50",
            done.shown.percentile_ms(50.0),
            "ms",
            "From when a mark was due until another participant was shown it, half of them.",
        ),
        ("receipt shown p99", done.shown.percentile_ms(99.0), "ms", "The same, 99 of 100."),
        (
            "read marks in PostgreSQL",
            number(stored),
            "",
            "Users who have read in the database as far as they marked; all of them have to.",
        ),
        (
            "receipts shown",
            number(done.receipts_shown),
            "",
            "How often a participant knew in the end how far another one has read; all have to know it of all.",
        ),
    ];
    for (name, value, unit, meaning) in figures {
        figure(run, name, value, unit, meaning);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_is_lost_anywhere_makes_a_problem() {
        let furthest = BTreeMap::from([("somebody".to_owned(), 3)]);
        let good = RealtimeDone {
            marks: 2,
            marks_done: 2,
            furthest,
            expected_receipts: 1,
            receipts_shown: 1,
            ..RealtimeDone::default()
        };
        assert!(problems(&good, 1).is_empty());
        assert_eq!(problems(&good, 0).len(), 1);
        assert_eq!(problems(&RealtimeDone { marks_done: 1, ..good.clone() }, 1).len(), 1);
        assert_eq!(problems(&RealtimeDone { marks_done: 1, marks_refused: 1, ..good.clone() }, 1).len(), 1);
        assert_eq!(problems(&RealtimeDone { receipts_shown: 0, ..good }, 1).len(), 1);
        assert_eq!(problems(&RealtimeDone::default(), 0).len(), 1);
    }
}
