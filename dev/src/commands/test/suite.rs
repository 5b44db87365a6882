//! The test executables of a build, run side by side. Most tests wait for processes and time-outs, so several executables
//! fit on each processor.

use std::{
    cmp::Reverse,
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::process::Command;

use super::tally::{Tally, Total};
use crate::cargo::{self, Artifacts, Executable};

/// Executables that run at the same time.
const AT_ONCE: usize = 4;

/// Packages whose tests start processes and wait for them. They take longest, so they are started first.
const LONG: [&str; 4] = ["chat-e2e", "chat-gateway", "chat-notifier", "chat-dev"];

/// Whatever there is to run, in the order in which it is started.
#[derive(Debug)]
pub struct Suite {
    parts: Vec<Part>,
    /// Filters, and arguments for the test runner.
    arguments: Vec<OsString>,
}

/// One process.
#[derive(Debug)]
enum Part {
    Executable {
        executable: Executable,
        tests: usize,
    },
    /// Tests in the documents of libraries.
    Documents(Vec<String>),
}

impl Suite {
    /// The executables in which at least one test is selected. Filters select none of the tests in documents.
    ///
    /// # Errors
    /// If the runner refuses the arguments.
    pub async fn choose(artifacts: Artifacts, filters: &[String], runner: &[OsString]) -> Result<Self> {
        let arguments: Vec<_> = filters.iter().map(OsString::from).chain(runner.iter().cloned()).collect();
        let counted = stream::iter(artifacts.executables)
            .map(|executable| count(executable, &arguments))
            .buffered(AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        let mut parts: Vec<_> = counted.into_iter().filter(|(_, tests)| *tests > 0).collect();
        parts.sort_by_key(|(executable, tests)| (!LONG.contains(&executable.package.as_str()), Reverse(*tests)));
        let mut parts: Vec<_> =
            parts.into_iter().map(|(executable, tests)| Part::Executable { executable, tests }).collect();
        if filters.is_empty() && !artifacts.documented.is_empty() {
            parts.push(Part::Documents(artifacts.documented.into_iter().collect()));
        }
        Ok(Self { parts, arguments })
    }

    /// Whether nothing is selected.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Runs all parts, prints the output of each as a whole when it ends, and sums up. Gives whether all passed.
    ///
    /// Output is collected under `scratch`. That of a single part goes to the terminal while it runs.
    pub async fn run(&self, environment: &[(&'static str, String)], scratch: &Path) -> Result<bool> {
        let began = Instant::now();
        if let [part] = self.parts.as_slice() {
            println!("── {part}");
            let mut command = part.command(&self.arguments, environment)?;
            return Ok(command.status().await.with_context(|| format!("cannot run {part}"))?.success());
        }
        let mut running = stream::iter(self.parts.iter().enumerate())
            .map(|(number, part)| self.run_part(part, environment, scratch.join(format!("tests-{number}.log"))))
            .buffer_unordered(AT_ONCE);
        let mut total = Total::default();
        while let Some(ended) = running.next().await {
            let Ended { part, status, output, took } = ended?;
            let mut terminal = std::io::stdout().lock();
            writeln!(terminal, "\n── {part}, {:.1} s", took.as_secs_f64())?;
            terminal.write_all(&output)?;
            if !status.success() {
                writeln!(terminal, "{part} FAILED: {status}")?;
            }
            total.add(&part.to_string(), status, &Tally::of(&String::from_utf8_lossy(&output)));
        }
        println!("\n{}", total.summary(began.elapsed()));
        Ok(total.is_passed())
    }

    async fn run_part<'a>(
        &self,
        part: &'a Part,
        environment: &[(&'static str, String)],
        log: PathBuf,
    ) -> Result<Ended<'a>> {
        let began = Instant::now();
        let file = std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = part.command(&self.arguments, environment)?;
        // A backtrace of a debug build takes seconds of all processors: other tests would wait too. A single part shows it.
        command.env("RUST_BACKTRACE", "0");
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let status = command.status().await.with_context(|| format!("cannot run {part}"))?;
        let output = std::fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
        Ok(Ended { part, status, output, took: began.elapsed() })
    }
}

struct Ended<'a> {
    part: &'a Part,
    status: ExitStatus,
    output: Vec<u8>,
    took: Duration,
}

impl Part {
    fn command(&self, arguments: &[OsString], environment: &[(&'static str, String)]) -> Result<Command> {
        let mut command = match self {
            Self::Executable { executable, .. } => command(executable, arguments),
            Self::Documents(_) => {
                let mut command = Command::from(cargo::command()?);
                // Selects all: with fewer packages dependencies would get other features, and be compiled again.
                command.args(["test", "--quiet", "--doc", "--workspace", "--"]).args(arguments);
                command
            }
        };
        command.envs(environment.iter().map(|(name, value)| (name, value))).kill_on_drop(true);
        Ok(command)
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Executable { executable, tests } => {
                write!(f, "{} of {}, {tests} tests", executable.target, executable.package)
            }
            Self::Documents(packages) => write!(f, "documents of {}", packages.join(", ")),
        }
    }
}

/// A test executable as cargo would start it: in the directory of its package, with variables of that package only.
fn command(executable: &Executable, arguments: &[OsString]) -> Command {
    let mut command = Command::new(&executable.file);
    for name in cargo::variables_of_package() {
        command.env_remove(name);
    }
    command.current_dir(&executable.directory).env("CARGO_MANIFEST_DIR", &executable.directory).args(arguments);
    command
}

/// How many tests of an executable the arguments select.
async fn count(executable: Executable, arguments: &[OsString]) -> Result<(Executable, usize)> {
    let mut command = command(&executable, arguments);
    if !arguments.iter().any(|argument| argument == "--list") {
        command.arg("--list");
    }
    let output = command.kill_on_drop(true).output().await.context("cannot list tests")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    let tests = String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.ends_with(": test")).count();
    Ok((executable, tests))
}
