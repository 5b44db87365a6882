//! The process that reads pages.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use chat_load::pages::{Pages, PagesLine, PagesPlan};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout},
    time::timeout,
};

use crate::load::{client_process, subject::Watched};

/// How much longer than planned it may take until everything is answered.
const PATIENCE: Duration = Duration::from_mins(1);

/// Readers at work. Dropping them ends them.
#[derive(Debug)]
pub struct Readers {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    length: Duration,
}

impl Readers {
    /// Starts them, and waits until what they do counts. The plan is written to `directory`.
    ///
    /// # Errors
    /// If the process doesn't start, or ends.
    pub async fn start(program: &Path, directory: &Path, plan: &PagesPlan) -> Result<Self> {
        let mut child = client_process::spawn(program, "pages", directory, "pages", plan)?;
        let output = child.stdout.take().context("the readers have no output")?;
        let mut readers = Self { child, lines: BufReader::new(output).lines(), length: plan.length };
        match readers.next(plan.warm_up).await? {
            PagesLine::Warm => Ok(readers),
            PagesLine::Done(_) => bail!("the readers ended before they were warm"),
        }
    }

    /// The process, to be counted apart from what it loads.
    ///
    /// # Errors
    /// If it has ended.
    pub fn process(&self) -> Result<Watched> {
        let pid = self.child.id().context("the readers have ended")?;
        Ok(Watched { name: "readers".to_owned(), pid, has_family: false, counts_syncs: false })
    }

    /// What came of it, once all of it has been done.
    ///
    /// # Errors
    /// If the process ends without having said it.
    pub async fn done(&mut self) -> Result<Pages> {
        match self.next(self.length).await? {
            PagesLine::Done(pages) => Ok(*pages),
            PagesLine::Warm => bail!("the readers were warm twice"),
        }
    }

    async fn next(&mut self, after: Duration) -> Result<PagesLine> {
        let line = timeout(after + PATIENCE, self.lines.next_line()).await.context("the readers take too long")??;
        ensure!(line.is_some(), "the readers ended without having said what came of it");
        serde_json::from_str(&line.unwrap_or_default()).context("the readers can't be understood")
    }
}
