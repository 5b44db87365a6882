//! After a load: whether everything that was accepted is in the database, and was shown to everybody.

use std::time::Duration;

use anyhow::Result;
use chat_load::{
    message::message_id,
    plan::{Done, Tally},
    report::Proof,
};
use tokio::time::{Instant, sleep};

use super::subject::Subject;

/// How long the database may take to get further with what it doesn't have yet.
const STANDSTILL_MAX: Duration = Duration::from_secs(20);
/// Between two looks at how much it has.
const PAUSE: Duration = Duration::from_millis(100);
/// Before the load, for clocks that differ.
const MARGIN: Duration = Duration::from_mins(1);

/// What the database had before a load.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    stored: u64,
    at: Instant,
}

/// What was found.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// For the report.
    pub proof: Proof,
    /// How long after the load's end the database had everything.
    pub stored_after: Duration,
}

impl Before {
    /// Now.
    pub async fn load<S: Subject>(subject: &S) -> Result<Self> {
        Ok(Self { stored: subject.stored().await?, at: Instant::now() })
    }

    /// Compares what clients saw with what the database has, for which it gets time as long as it gets further.
    pub async fn prove<S: Subject>(&self, subject: &S, run: u64, done: &Done) -> Result<Found> {
        let tally = done.tally();
        let began = Instant::now();
        let wanted = self.stored + tally.accepted;
        let (mut stored, mut moved) = (subject.stored().await?, Instant::now());
        while stored < wanted && moved.elapsed() < STANDSTILL_MAX {
            sleep(PAUSE).await;
            let now = subject.stored().await?;
            if now > stored {
                (stored, moved) = (now, Instant::now());
            }
        }
        let mut kept = self.kept(subject, run, &tally).await?;
        // Messages of others, as those of agents, were counted above too.
        while kept < tally.accepted && moved.elapsed() < STANDSTILL_MAX {
            sleep(PAUSE).await;
            let now = self.kept(subject, run, &tally).await?;
            if now > kept {
                (kept, moved) = (now, Instant::now());
            }
        }
        Ok(Found { proof: proof(&tally, kept), stored_after: began.elapsed() })
    }

    /// How many of the accepted messages the database has.
    async fn kept<S: Subject>(&self, subject: &S, run: u64, tally: &Tally) -> Result<u64> {
        let ids = subject.stored_ids(self.at.elapsed() + MARGIN).await?;
        let kept = tally.accepted_messages().filter(|(seat, number)| ids.contains(&message_id(run, *seat, *number)));
        Ok(kept.count() as u64)
    }
}

fn proof(tally: &Tally, kept: u64) -> Proof {
    Proof {
        accepted: tally.accepted,
        kept,
        expected_shows: tally.expected_shows,
        shown: tally.shown,
        lost: (tally.accepted - kept) + (tally.expected_shows - tally.shown),
        repeated: tally.repeated,
        unanswered: tally.unanswered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_is_what_is_not_kept_and_what_is_not_shown() {
        let tally = Tally { accepted: 10, expected_shows: 70, shown: 68, ..Tally::default() };
        assert_eq!(proof(&tally, 9).lost, 3);
        assert_eq!(proof(&Tally { shown: 70, ..tally }, 10).lost, 0);
    }
}
