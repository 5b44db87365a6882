//! Starts children from one thread that lives as long as this program.
//!
//! Linux can end a child when its parent dies, but takes "parent" to be the
//! *thread* that started it. Threads of a tokio runtime come and go, so they
//! must not be the ones.

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command},
    sync::{LazyLock, mpsc},
    thread,
};

use anyhow::{Context, Result, anyhow};
use rustix::process::Pid;
use tokio::sync::watch;

use super::{Launch, Life, log};
use crate::paths;

/// Requests that may wait for the thread; more callers than this block.
const REQUESTS_MAX: usize = 64;

struct Request {
    command: Command,
    answer: mpsc::SyncSender<io::Result<Child>>,
}

static SPAWNER: LazyLock<mpsc::SyncSender<Request>> = LazyLock::new(|| {
    let (requests, inbox) = mpsc::sync_channel::<Request>(REQUESTS_MAX);
    thread::spawn(move || {
        for mut request in inbox {
            _ = request.answer.send(request.command.spawn());
        }
    });
    requests
});

/// `setpriv` of util-linux, which every Debian has. Elsewhere children of a
/// killed parent stay.
static SETPRIV: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| cfg!(target_os = "linux").then(|| paths::on_path("setpriv")).flatten());

/// Starts the child in a process group of its own, so that Ctrl-C in the
/// terminal reaches only this program, which then stops things in order.
pub fn spawn(launch: &Launch) -> Result<Life> {
    // Each program replaces itself by the next one.
    let mut words: Vec<OsString> = Vec::new();
    if let Some(files_max) = launch.files_max {
        words.extend(["prlimit".into(), format!("--nofile={files_max}:{files_max}").into()]);
    }
    if let Some(setpriv) = &*SETPRIV {
        words.extend([setpriv.into(), "--pdeathsig".into(), "KILL".into(), "--".into()]);
    }
    words.push(launch.program.clone().into());
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .args(&launch.args)
        .envs(launch.env.iter().map(|(name, value)| (name, value)))
        .process_group(0);
    if let Some(account) = &launch.account {
        command.uid(account.uid).gid(account.gid).current_dir("/");
    }
    let mirror = log::connect(&mut command, launch)?;
    let child =
        on_spawner(command).with_context(|| format!("cannot start {} ({})", launch.name, launch.program.display()))?;
    if let Some(mirror) = mirror {
        mirror.run();
    }
    reap(child)
}

fn on_spawner(command: Command) -> Result<Child> {
    let (answer, reply) = mpsc::sync_channel(1);
    SPAWNER.send(Request { command, answer }).map_err(|_| anyhow!("the thread that starts children is gone"))?;
    Ok(reply.recv()??)
}

/// One thread per child waits for its end.
fn reap(mut child: Child) -> Result<Life> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("the child has no process id")?;
    let (status, exited) = watch::channel(None);
    thread::spawn(move || {
        if let Ok(exit) = child.wait() {
            _ = status.send(Some(exit));
        }
    });
    Ok(Life { pid, exited })
}
