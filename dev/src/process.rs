//! A child process that can be started, stopped, killed, frozen and started again.
//!
//! No child outlives this program: on Linux the kernel ends it when we die in
//! whatever way, and everywhere it is killed when its `Process` is dropped.

mod family;
mod log;
mod spawner;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::Pid;
pub use rustix::process::Signal;
use tokio::sync::watch;

use crate::{servers::account::Account, terminal::Prefix, wait};

pub use log::last_lines;

/// How long a child that got SIGKILL may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// How long a dropped child with children of its own may take to end them.
const QUIT_DEADLINE: Duration = Duration::from_secs(3);

/// How to start a child.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Unique within its fleet; prefix of its lines in the merged log.
    pub name: String,
    /// The program file.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Added to the environment of this program.
    pub env: Vec<(String, String)>,
    /// Where both of its output streams are appended.
    pub log: PathBuf,
    /// Files that it may open; as many as this program if none. Needs `prlimit` of util-linux.
    pub files_max: Option<u64>,
    /// Run as another user (only root can).
    pub account: Option<Account>,
    /// What asks it to end cleanly.
    pub stop_signal: Signal,
    /// Signals go to its own children too. For Postgres, whose backends leave
    /// the process group of their parent.
    pub has_family: bool,
    /// Also print its lines to the terminal.
    pub prefix: Option<Prefix>,
}

impl Launch {
    /// A program without arguments that ends on SIGTERM.
    pub fn new(name: &str, program: &Path, log: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            program: program.to_path_buf(),
            args: Vec::new(),
            env: Vec::new(),
            log,
            files_max: None,
            account: None,
            stop_signal: Signal::TERM,
            has_family: false,
            prefix: None,
        }
    }

    /// Appends arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_os_string()));
        self
    }
}

/// One child process through all its lives.
#[derive(Debug)]
pub struct Process {
    launch: Box<Launch>,
    /// Variables that its next lives have otherwise than its first one.
    changes: Mutex<BTreeMap<String, Option<String>>>,
    life: Mutex<Option<Life>>,
}

#[derive(Debug, Clone)]
struct Life {
    pid: Pid,
    /// The status, once the child is gone and reaped.
    exited: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Not started yet.
    pub fn new(launch: Launch) -> Self {
        Self { launch: Box::new(launch), changes: Mutex::default(), life: Mutex::new(None) }
    }

    /// The name given in `Launch`.
    pub fn name(&self) -> &str {
        &self.launch.name
    }

    /// Its arguments.
    pub fn args(&self) -> &[OsString] {
        &self.launch.args
    }

    /// What is added to its environment in its first life.
    pub fn env(&self) -> &[(String, String)] {
        &self.launch.env
    }

    /// Sets a variable of its environment, or removes it, from its next start on.
    pub fn set(&self, name: &str, value: Option<&str>) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.insert(name.to_owned(), value.map(str::to_owned));
    }

    /// The same program in a process of its own, with more arguments, other values of some variables, and its log in the
    /// same directory. Not started yet.
    #[must_use]
    pub fn beside(&self, name: &str, args: &[&str], changes: &[(&str, &str)]) -> Self {
        let mut launch = Launch::clone(&self.launch).args(args);
        name.clone_into(&mut launch.name);
        launch.log.set_file_name(format!("{name}.log"));
        let beside = Self::new(launch);
        for (variable, value) in changes {
            beside.set(variable, Some(*value));
        }
        beside
    }

    /// How it is started next.
    fn next_launch(&self) -> Launch {
        let mut launch = Launch::clone(&self.launch);
        for (name, value) in &*self.changes.lock().unwrap_or_else(PoisonError::into_inner) {
            launch.env.retain(|(given, _)| given != name);
            launch.env.extend(value.clone().map(|value| (name.clone(), value)));
        }
        launch
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.launch.log
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.living().map(|life| life.pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Whether it runs (a frozen child does).
    pub fn is_running(&self) -> bool {
        self.living().is_some()
    }

    /// Starts it. Its readiness is the caller's business.
    pub fn start(&self) -> Result<()> {
        let mut life = self.lock();
        if life.as_ref().is_some_and(|life| life.exited.borrow().is_none()) {
            bail!("{} is running already", self.launch.name);
        }
        *life = Some(spawner::spawn(&self.next_launch())?);
        Ok(())
    }

    /// Waits for its end, however it comes. Cancel safe.
    ///
    /// # Errors
    /// If it was never started.
    pub async fn exited(&self) -> Result<ExitStatus> {
        let life = self.lock().clone();
        let mut exited = life.with_context(|| format!("{} was never started", self.launch.name))?.exited;
        let status = exited.wait_for(Option::is_some).await?;
        status.with_context(|| format!("{} left no exit status", self.launch.name))
    }

    /// Asks it to end cleanly and waits; kills it and fails when `deadline` passes.
    /// Nothing happens if it is not running.
    pub async fn stop(&self, deadline: Duration) -> Result<()> {
        let Some(life) = self.living() else {
            return Ok(());
        };
        let name = &self.launch.name;
        send(life.pid, self.launch.stop_signal);
        // A frozen child gets the signal only once it is thawed.
        self.signal_all(&life, Signal::CONT);
        if tokio::time::timeout(deadline, self.exited()).await.is_err() {
            self.kill().await?;
            bail!("{name} did not stop within {deadline:?} and was killed");
        }
        Ok(())
    }

    /// SIGKILL, then waits until it is gone. Nothing happens if it is not running.
    pub async fn kill(&self) -> Result<()> {
        let Some(life) = self.living() else {
            return Ok(());
        };
        let name = &self.launch.name;
        let family = self.signal_all(&life, Signal::KILL);
        tokio::time::timeout(KILL_DEADLINE, self.exited()).await.map_err(|_| anyhow!("{name} survived SIGKILL"))??;
        // What they share with their parent's successor must be free.
        wait::until(&format!("the end of the children of {name}"), KILL_DEADLINE, || async {
            Ok(family.iter().all(|child| family::is_gone(*child)).then_some(()))
        })
        .await
    }

    /// Freezes it with SIGSTOP: connections stay open and nobody answers.
    pub fn pause(&self) -> Result<()> {
        self.signal_living(Signal::STOP)
    }

    /// Thaws it with SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.signal_living(Signal::CONT)
    }

    fn signal_living(&self, signal: Signal) -> Result<()> {
        let life = self.living().with_context(|| format!("{} is not running", self.launch.name))?;
        self.signal_all(&life, signal);
        Ok(())
    }

    /// Signals the child and its family, which is returned.
    fn signal_all(&self, life: &Life, signal: Signal) -> Vec<Pid> {
        let mut family = Vec::new();
        if self.launch.has_family {
            if signal != Signal::CONT {
                // A frozen parent bears no more children while they are counted.
                send(life.pid, Signal::STOP);
                family::wait_frozen(life.pid);
            }
            family = family::children_of(life.pid);
        }
        for child in &family {
            send(*child, signal);
        }
        send(life.pid, signal);
        if signal == Signal::STOP {
            family.iter().chain([&life.pid]).for_each(|pid| family::wait_frozen(*pid));
        }
        family
    }

    fn living(&self) -> Option<Life> {
        self.lock().clone().filter(|life| life.exited.borrow().is_none())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Life>> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(life) = self.living() else {
            return;
        };
        if self.launch.has_family {
            // Gives it the chance to bury its children: an immediate shutdown of Postgres.
            send(life.pid, Signal::QUIT);
            self.signal_all(&life, Signal::CONT);
            life.wait(QUIT_DEADLINE);
        }
        if life.exited.borrow().is_none() {
            self.signal_all(&life, Signal::KILL);
        }
        // Its port and files must be free when the owner goes on.
        life.wait(KILL_DEADLINE);
    }
}

impl Life {
    /// For `drop`, where nothing can be awaited.
    fn wait(&self, deadline: Duration) {
        let end = Instant::now() + deadline;
        while self.exited.borrow().is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A process that is already gone needs no signal, so failures are ignored.
fn send(pid: Pid, signal: Signal) {
    _ = rustix::process::kill_process(pid, signal);
}
