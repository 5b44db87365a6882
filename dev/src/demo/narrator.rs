//! Tells the story on standard output, and counts which promises held.

use std::{
    fmt::Display,
    io::IsTerminal,
    sync::{Mutex, PoisonError},
};

use anyhow::Result;

use crate::paths;

/// What the backend promises, and this story tries to break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    AcceptedMeansKept,
    OneIdOneMessage,
    OneOrder,
    ResumeIsComplete,
    HistoryNeverLags,
    NotYours,
    UnreadIsItsDefinition,
    OneNotification,
    Ciphertext,
    LosingAHelper,
    ShownOnce,
    ShownAtOnce,
    CasesGoOn,
    MaskedIds,
    NoPanic,
}

impl Promise {
    /// As people read it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::AcceptedMeansKept => "accepted means kept",
            Self::OneIdOneMessage => "one id, one message",
            Self::OneOrder => "one order",
            Self::ResumeIsComplete => "resume is complete or says so",
            Self::HistoryNeverLags => "history never lags behind accepted",
            Self::NotYours => "nobody sees what is not theirs",
            Self::UnreadIsItsDefinition => "unread is its definition",
            Self::OneNotification => "no notification after reading",
            Self::Ciphertext => "content at rest is ciphertext",
            Self::LosingAHelper => "losing a helper costs its feature, not the chat",
            Self::ShownOnce => "shown exactly once",
            Self::ShownAtOnce => "shown at once",
            Self::CasesGoOn => "a case goes on without its agent",
            Self::MaskedIds => "no id in a log",
            Self::NoPanic => "no service panics",
        }
    }
}

/// What has been told so far.
#[derive(Debug, Default)]
struct Tally {
    scenes: u32,
    checked: u32,
    faults: u32,
    broken: Vec<String>,
}

/// Prints and counts.
#[derive(Debug)]
pub struct Narrator {
    is_coloured: bool,
    tally: Mutex<Tally>,
}

impl Narrator {
    /// Colours only a terminal, and not where `NO_COLOR` is set.
    pub fn new() -> Self {
        let is_coloured = std::io::stdout().is_terminal() && paths::environment("NO_COLOR").is_none();
        Self { is_coloured, tally: Mutex::default() }
    }

    /// The first line.
    pub fn title(&self, text: &str, aside: &str) {
        println!("\n  {}   {}", self.paint("1", text), self.paint("2", aside));
    }

    /// Plays a scene under its heading. One that can't be played to its end breaks the promise it is about.
    pub async fn scene(&self, heading: &str, about: Promise, scene: impl Future<Output = Result<()>>) -> bool {
        let number = {
            let mut tally = self.tally();
            tally.scenes += 1;
            tally.scenes
        };
        println!("\n {}  {}", self.paint("2", &format!("{number:>2}")), self.paint("1", heading));
        let played = scene.await;
        let is_played = played.is_ok();
        if let Err(error) = played {
            self.check::<&str>(about, Err(error.context("the scene could not be played to its end")));
        }
        is_played
    }

    /// One line of what happens.
    pub fn tell(&self, text: &str) {
        println!("      {}", self.paint("2", text));
    }

    /// Somebody says something: `seq` is the number it was accepted under.
    pub fn says(&self, name: &str, gateway: &str, seq: u64, words: &str) {
        let place = self.paint("2", &format!("{gateway:<9} {seq:>4}"));
        println!("      {} {place}  {words}", self.paint("36", &format!("{name:<8}")));
    }

    /// Something is broken on purpose.
    pub fn fault(&self, text: &str) {
        self.tally().faults += 1;
        println!("    {} {}", self.paint("33", "⚡"), self.paint("33", text));
    }

    /// A promise was put to the test. `Ok` says what was proven.
    pub fn check<T: Display>(&self, promise: Promise, outcome: Result<T>) {
        self.tally().checked += 1;
        match outcome {
            Ok(proof) => println!("    {} {}: {proof}", self.paint("32", "✓"), promise.title()),
            Err(error) => {
                let text = format!("{}: {error:#}", promise.title());
                println!("    {}", self.paint("1;31", &format!("✗ broken — {text}")));
                self.tally().broken.push(text);
            }
        }
    }

    /// The last words for people.
    pub fn end(&self, summary: &str) {
        let (checked, broken) = self.counts();
        println!("\n  {summary}");
        if broken.is_empty() {
            println!("  {}", self.paint("1;32", &format!("Every promise held, in all {checked} checks.")));
        } else {
            println!(
                "  {}",
                self.paint("1;31", &format!("{} of {checked} checks found a promise broken:", broken.len()))
            );
            for text in broken {
                println!("    {} {text}", self.paint("31", "✗"));
            }
        }
        println!();
    }

    /// How many checks there were, and what was found broken.
    pub fn counts(&self) -> (u32, Vec<String>) {
        let tally = self.tally();
        (tally.checked, tally.broken.clone())
    }

    /// How much was broken on purpose.
    pub fn faults(&self) -> u32 {
        self.tally().faults
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.is_coloured { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
