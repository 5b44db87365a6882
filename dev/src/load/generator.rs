//! The client processes: started with their plans, let loose together, and listened to.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use chat_load::{
    clock,
    plan::{Done, Line, Plan, Second, Start},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    task::JoinSet,
    time::timeout,
};

use super::{client_process, subject::Watched};

/// How long opening all connections may take.
const CONNECT_DEADLINE: Duration = Duration::from_mins(4);
/// Between the last process being told the common start, and the start.
const LEAD: Duration = Duration::from_millis(200);

/// Connected clients that wait for their start.
#[derive(Debug)]
pub struct Generator {
    children: Vec<Child>,
    inputs: Vec<ChildStdin>,
    outputs: Vec<Lines<BufReader<ChildStdout>>>,
    /// How long the slowest process took to connect.
    pub connect_seconds: f64,
}

impl Generator {
    /// Starts a process for each plan, and waits until all clients are connected. Plans are written to `directory`.
    ///
    /// # Errors
    /// If one does not start, or its clients can't connect.
    pub async fn start(program: &Path, directory: &Path, plans: &[Plan]) -> Result<Self> {
        let mut generator = Self { children: vec![], inputs: vec![], outputs: vec![], connect_seconds: 0.0 };
        for (number, plan) in plans.iter().enumerate() {
            let mut child =
                client_process::spawn(program, "clients", directory, &format!("plan-{}", number + 1), plan)?;
            generator.inputs.push(child.stdin.take().context("a client process has no input")?);
            let output = child.stdout.take().context("a client process has no output")?;
            generator.outputs.push(BufReader::new(output).lines());
            generator.children.push(child);
        }
        for output in &mut generator.outputs {
            let line = timeout(CONNECT_DEADLINE, next(output)).await.context("connecting took too long")??;
            let Line::Connected { seconds, .. } = line else { bail!("a client process began before it was told to") };
            generator.connect_seconds = generator.connect_seconds.max(seconds);
        }
        Ok(generator)
    }

    /// The processes, to be counted apart from what they load.
    pub fn processes(&self) -> Vec<Watched> {
        let pids = self.children.iter().enumerate().filter_map(|(number, child)| Some((number, child.id()?)));
        pids.map(|(number, pid)| Watched {
            name: format!("clients-{}", number + 1),
            pid,
            has_family: false,
            counts_syncs: false,
        })
        .collect()
    }

    /// Lets them all begin at the same moment.
    pub async fn begin(mut self) -> Result<Playing> {
        let at_us = clock::now_us() + u64::try_from(LEAD.as_micros())?;
        let start = serde_json::to_string(&Start { at_us })? + "\n";
        for input in &mut self.inputs {
            input.write_all(start.as_bytes()).await.context("a client process has ended")?;
        }
        let seconds = Seconds::default();
        let mut listening = JoinSet::new();
        for output in self.outputs {
            listening.spawn(listen(output, seconds.clone()));
        }
        Ok(Playing { start_us: at_us, seconds, listening, _children: self.children, _inputs: self.inputs })
    }
}

/// Clients that do what they are to do.
#[derive(Debug)]
pub struct Playing {
    /// When they began, in microseconds of the monotonic clock.
    pub start_us: u64,
    /// What they have said so far.
    pub seconds: Seconds,
    listening: JoinSet<Result<Done>>,
    _children: Vec<Child>,
    /// They end when these are closed.
    _inputs: Vec<ChildStdin>,
}

impl Playing {
    /// Sleeps until so long after the start.
    pub async fn reach(&self, after: Duration) {
        let now_us = clock::now_us();
        let until_us = self.start_us + u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        // The length of a load is what is waited for here, not a condition.
        tokio::time::sleep(Duration::from_micros(until_us.saturating_sub(now_us))).await;
    }

    /// Waits for their end, and adds up what came of it.
    ///
    /// # Errors
    /// If a process ends without having said it.
    pub async fn done(mut self) -> Result<Done> {
        let mut sum: Option<Done> = None;
        while let Some(done) = self.listening.join_next().await {
            let done = done??;
            match &mut sum {
                Some(sum) => sum.add(&done),
                None => sum = Some(done),
            }
        }
        sum.context("there was no client process")
    }
}

/// What the processes say second by second, added up; shared with whoever shows it.
#[derive(Debug, Clone, Default)]
pub struct Seconds(Arc<Mutex<BTreeMap<u64, Second>>>);

impl Seconds {
    /// By whole seconds after the start.
    pub fn all(&self) -> Vec<Second> {
        self.lock().values().cloned().collect()
    }

    /// The last one that can be whole.
    pub fn last(&self) -> Option<Second> {
        self.lock().values().next_back().cloned()
    }

    fn add(&self, second: Second) {
        let mut seconds = self.lock();
        match seconds.get_mut(&second.at) {
            Some(sum) => sum.add(&second),
            None => _ = seconds.insert(second.at, second),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Second>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn listen(mut output: Lines<BufReader<ChildStdout>>, seconds: Seconds) -> Result<Done> {
    loop {
        match next(&mut output).await? {
            Line::Second(second) => seconds.add(second),
            Line::Done(done) => return Ok(done),
            Line::Connected { .. } => bail!("a client process said twice that it is connected"),
        }
    }
}

async fn next(output: &mut Lines<BufReader<ChildStdout>>) -> Result<Line> {
    let line = output.next_line().await?;
    ensure!(line.is_some(), "a client process ended without having said what came of it");
    serde_json::from_str(&line.unwrap_or_default()).context("a client process can't be understood")
}
