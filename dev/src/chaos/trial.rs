//! One run of a scenario as its faults see it: the fleet, the crowd, the load, chance, and what has bitten.

use std::{collections::BTreeSet, ops::Range, time::Duration};

use anyhow::{Context, Result};
use chat_client::ids::MessageId;
use rand::{RngExt, rngs::StdRng, seq::IteratorRandom};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{
    claims::{Claimed, on_their_way},
    crowd::{Crowd, Device},
    ground::Ground,
    load::{Load, Voice},
    loss::Loss,
    old_texts::OldTexts,
    past::Past,
    told::Told,
};
use crate::audit::{Check, Finding, Room};

/// How much of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// As long as it takes to be sure.
    Full,
    /// Everything once, shortly.
    Quick,
}

impl Scale {
    /// One of two.
    pub fn of<T>(self, full: T, quick: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }

    /// So many seconds, or so many.
    pub fn seconds(self, full: u64, quick: u64) -> Duration {
        Duration::from_secs(self.of(full, quick))
    }
}

/// Evidence that a fault was felt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bite {
    /// What was seen.
    pub evidence: String,
    /// Whether that is enough. If one isn't, the run proves nothing.
    pub is_felt: bool,
}

/// A message that was accepted.
#[derive(Debug, Clone, Copy)]
pub struct Said {
    pub message_id: MessageId,
    pub at: Instant,
}

/// Everything that a fault works with.
pub struct Trial<'a> {
    pub ground: &'a Ground,
    pub crowd: &'a Crowd,
    pub load: &'a Load,
    pub scale: Scale,
    pub rng: StdRng,
    pub told: Told,
    /// Days of the past, in the scenario in which days age out.
    pub past: Option<&'a mut Past>,
    /// Texts of the past, in the scenario in which they move to an object store.
    pub old_texts: Option<&'a mut OldTexts>,
    pub bites: Vec<Bite>,
    /// Findings of the scenario's own.
    pub findings: Vec<Finding>,
    /// Entries of the log that have to be set aside.
    pub dead_letters_expected: u64,
    /// Notifications that were on their way as a notifier died, and may be lost.
    pub claimed: BTreeSet<Claimed>,
    /// What all servers together have lost, in the scenario in which they do.
    pub loss: Option<Loss>,
}

impl Trial<'_> {
    /// Waits for a random time.
    pub async fn pause(&mut self, ms: Range<u64>) {
        let pause = self.rng.random_range(ms);
        // A fault comes at any moment; there is no condition to wait for.
        sleep(Duration::from_millis(pause)).await;
    }

    /// How long a fault lasts is what is tested.
    pub async fn last(&self, time: Duration) {
        sleep(time).await;
    }

    /// Breaks something: says so, and sends single messages while it is broken.
    pub fn fault(&self, what: &str) {
        self.told.fault(what);
        for _ in 0..2 {
            self.load.whisper();
        }
    }

    /// Kills the notifier, and notes which notifications were on their way.
    pub async fn kill_notifier(&mut self) -> Result<BTreeSet<Claimed>> {
        self.ground.fleet.notifier().kill().await?;
        let claimed = on_their_way(self.ground).await?;
        self.claimed.extend(&claimed);
        Ok(claimed)
    }

    /// Lets one of the people in a conversation say something there.
    pub async fn say(&mut self, room: &Room) -> Result<Said> {
        let is_in = |device: &&Device| room.members.contains(&device.person.user_id);
        let speaker = self.crowd.people().iter().filter(is_in).choose(&mut self.rng).context("nobody is in there")?;
        let voice = Voice::new(speaker.person.user_id, speaker.client()?.0, &self.load.ledger, &self.load.samples);
        let text = format!("{:016x}", self.rng.random::<u64>());
        let accepted = voice.send(room.id, text).await.context("a message has no outcome")?;
        Ok(Said { message_id: accepted.message_id, at: Instant::now() })
    }

    /// Notes whether a fault was felt.
    pub fn bite(&mut self, is_felt: bool, evidence: impl Into<String>) {
        self.bites.push(Bite { evidence: evidence.into(), is_felt });
    }

    /// Notes what a promise of this scenario came to.
    pub fn promise(&mut self, check: Check, violations: usize, of: usize, first: Option<String>) {
        self.findings.push(Finding { check, violations: violations as u64, of: of as u64, first });
    }
}
