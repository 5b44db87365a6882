//! The process of clients that break the rules.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use chat_load::{
    plan::Seat,
    rude::{Couple, RudeDone, RudePlan, Rudeness},
};
use tokio::{
    io::{AsyncReadExt, BufReader},
    process::Child,
    time::timeout,
};

use super::{
    client_process, cost,
    subject::{Subject, Watched},
};

/// Addresses of their own, away from those of the measured clients.
const SOURCES: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 1, 2), Ipv4Addr::new(127, 0, 1, 3)];
/// How long they may take to say what came of it.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// Rude clients, at work until they are ended or dropped.
#[derive(Debug)]
pub struct Rude {
    child: Child,
}

/// What came of them.
#[derive(Debug)]
pub struct RudeOutcome {
    /// What they did, and how servers answered.
    pub done: RudeDone,
    /// Processor time that they took.
    pub cpu_seconds: f64,
}

impl Rude {
    /// Lets clients loose on a subject: two seats a couple, every kind of rudeness in turns. `foreign` is a conversation
    /// of others. The plan is written to `directory`.
    ///
    /// # Errors
    /// If the process doesn't start.
    pub fn start<S: Subject>(
        subject: &S,
        program: &Path,
        directory: &Path,
        seats: &[Seat],
        foreign: &str,
        deeds_per_second: f64,
    ) -> Result<Self> {
        let couples = seats.as_chunks::<2>().0.iter().zip(Rudeness::ALL.into_iter().cycle());
        let couple = |(seats, rudeness): (&[Seat; 2], Rudeness)| Couple {
            rudeness,
            seats: seats.clone(),
            foreign: foreign.to_owned(),
        };
        let plan = RudePlan {
            addresses: subject.addresses(),
            sources: SOURCES.map(Into::into).to_vec(),
            couples: couples.map(couple).collect(),
            deeds_per_second,
        };
        let child = client_process::spawn(program, "rude", directory, "rude", &plan)?;
        Ok(Self { child })
    }

    /// Ends them.
    ///
    /// # Errors
    /// If they have ended before, or don't say what came of it.
    pub async fn end(mut self) -> Result<RudeOutcome> {
        let pid = self.child.id().context("the rude clients have ended by themselves")?;
        let watched = Watched { name: "rude clients".to_owned(), pid, has_family: false, counts_syncs: false };
        let cpu_seconds = cost::cpu_seconds(&watched)?;
        drop(self.child.stdin.take());
        let output = self.child.stdout.take().context("the rude clients have no output")?;
        let mut said = String::new();
        let read = timeout(END_DEADLINE, BufReader::new(output).read_to_string(&mut said)).await;
        ensure!(read.context("the rude clients don't end")?? > 0, "the rude clients said nothing");
        Ok(RudeOutcome { done: serde_json::from_str(&said)?, cpu_seconds })
    }
}
