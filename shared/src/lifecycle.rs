//! The life of a process: tasks with names and kinds, and a stop in two stages.
//!
//! First `draining`: take no new work, finish what is begun. Then `stopping`: end now. Before both there may be a pause, in
//! which the process says that it is not ready and works on, so that a load balancer turns to others before anything fails.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Starts tasks and stops them.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    lasting: TaskTracker,
    /// Cancelled with `draining`, or before it.
    leaving: CancellationToken,
    draining: CancellationToken,
    stopping: CancellationToken,
    failure: Arc<Mutex<Option<anyhow::Error>>>,
}

impl Default for Tasks {
    fn default() -> Self {
        let draining = CancellationToken::new();
        Self {
            tracker: TaskTracker::new(),
            lasting: TaskTracker::new(),
            leaving: draining.child_token(),
            draining,
            stopping: CancellationToken::new(),
            failure: Arc::default(),
        }
    }
}

impl Tasks {
    /// Starts a task that the process can't do without: if it fails, panics or ends before the process drains,
    /// the process stops and reports it.
    pub fn essential(&self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let tasks = self.clone();
        spawn(&self.tracker, async move {
            let failure = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(Ok(())) if tasks.draining.is_cancelled() => return,
                Ok(Ok(())) => anyhow!("the task ended"),
                Ok(Err(error)) => error,
                Err(_) => anyhow!("the task panicked"),
            };
            tasks.failure.lock().get_or_insert(failure.context(format!("essential task {name}")));
            tasks.draining.cancel();
        });
    }

    /// Starts a task whose end concerns nobody else; a panic is logged.
    pub fn best_effort(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        spawn(&self.tracker, contained(name, task));
    }

    /// As `best_effort`, for a task that serves the others until `stopping`: draining does not wait for it.
    pub fn lasting(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        spawn(&self.lasting, contained(name, task));
    }

    /// Cancelled when the process is about to stop: it says that it is not ready.
    pub const fn leaving(&self) -> &CancellationToken {
        &self.leaving
    }

    /// Cancelled when no new work is to be taken.
    pub const fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Cancelled when everything is to end at once.
    pub const fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Waits for SIGTERM, SIGINT or the end of an essential task, then stops in two stages: `drain_max` to finish,
    /// and a second to end.
    pub async fn run(self, drain_max: Duration) -> anyhow::Result<()> {
        self.run_with_pause(Duration::ZERO, drain_max).await
    }

    /// As `run`, with a pause between SIGTERM and draining. Another signal ends it.
    pub async fn run_with_pause(self, pause: Duration, drain_max: Duration) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        // Cancel safe: each branch only waits.
        tokio::select! {
            _ = terminate.recv() => {
                let again = async {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                };
                self.pause(pause, again).await;
            }
            _ = interrupt.recv() => {}
            () = self.draining.cancelled() => {}
        }
        self.stop(drain_max).await
    }

    /// Works on, and says that it is not ready.
    async fn pause(&self, pause: Duration, is_cut_short: impl Future<Output = ()>) {
        self.leaving.cancel();
        if !pause.is_zero() {
            tracing::info!(pause_ms = pause.as_millis(), "stopping after a pause");
            // Cancel safe: each branch only waits.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = is_cut_short => {}
                () = self.draining.cancelled() => {}
            }
        }
    }

    async fn stop(self, drain_max: Duration) -> anyhow::Result<()> {
        tracing::info!(drain_max_ms = drain_max.as_millis(), "stopping");
        self.draining.cancel();
        self.tracker.close();
        if tokio::time::timeout(drain_max, self.tracker.wait()).await.is_err() {
            tracing::warn!(tasks = self.tracker.len(), "tasks did not finish in time and are ended");
        }
        self.stopping.cancel();
        self.lasting.close();
        let all = async { tokio::join!(self.tracker.wait(), self.lasting.wait()) };
        let _ended = tokio::time::timeout(Duration::from_secs(1), all).await;
        let failure = self.failure.lock().take();
        failure.map_or(Ok(()), Err)
    }
}

/// The work on one item panicked; it is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it panicked")]
pub struct Panicked;

/// Works on one item of many, so that one whose content leads to a panic does not stop the others.
pub fn isolated<T>(what: &'static str, work: impl FnOnce() -> T) -> Result<T, Panicked> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).map_err(|_| noted(what))
}

/// The same for work that waits.
pub fn isolated_async<T>(
    what: &'static str,
    work: impl Future<Output = T>,
) -> impl Future<Output = Result<T, Panicked>> {
    AssertUnwindSafe(work).catch_unwind().map(move |outcome| outcome.map_err(|_| noted(what)))
}

fn noted(what: &'static str) -> Panicked {
    tracing::error!(what, "work on one item panicked; the item is passed over");
    Panicked
}

fn contained(name: &'static str, task: impl Future<Output = ()>) -> impl Future<Output = ()> {
    // Combinators instead of an `async` block, which would hold the task twice; every connection pays for it.
    AssertUnwindSafe(task).catch_unwind().map(move |outcome| {
        if outcome.is_err() {
            tracing::error!(task = name, "a task panicked");
        }
    })
}

#[expect(clippy::disallowed_methods, reason = "this is where tasks get their name and kind")]
fn spawn(tracker: &TaskTracker, task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(tracker.track_future(task));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_an_essential_task_stops_the_process_with_its_error() {
        let tasks = Tasks::default();
        tasks.essential("doomed", async { Err(anyhow!("out of luck")) });
        let error = tasks.run(Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "essential task doomed: out of luck");
    }

    #[tokio::test]
    async fn a_panic_in_a_best_effort_task_stays_there() {
        let tasks = Tasks::default();
        tasks.best_effort("clumsy", async { panic!("on purpose") });
        let drains = tasks.clone();
        tasks.essential("tidy", async move {
            drains.draining().cancelled().await;
            Ok(())
        });
        tasks.draining().cancel();
        assert!(tasks.run(Duration::from_secs(5)).await.is_ok());
    }

    #[tokio::test]
    async fn a_panic_over_one_item_leaves_the_others() {
        let work = |item: i32| move || if item == 2 { panic!("on purpose") } else { item };
        let worked: Vec<_> = (1..=3).map(|item| isolated("item", work(item))).collect();
        assert_eq!(worked, [Ok(1), Err(Panicked), Ok(3)]);
        let waited = isolated_async("item", async { work(2)() }).await;
        assert_eq!(waited, Err(Panicked));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_pauses_is_not_ready_and_takes_work() {
        let tasks = Tasks::default();
        let mut pausing = std::pin::pin!(tasks.pause(Duration::from_secs(5), std::future::pending()));
        assert!((&mut pausing).now_or_never().is_none());
        assert!(tasks.leaving().is_cancelled() && !tasks.draining().is_cancelled());
        let began = tokio::time::Instant::now();
        pausing.await;
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        tasks.pause(Duration::from_secs(5), std::future::ready(())).await;
        assert_eq!(began.elapsed(), Duration::from_secs(5), "another signal ends the pause");
        let failed = Tasks::default();
        failed.draining().cancel();
        assert!(failed.leaving().is_cancelled(), "a process that drains is leaving");
    }

    #[tokio::test]
    async fn draining_does_not_wait_for_what_lasts_until_the_stop() {
        let tasks = Tasks::default();
        let stopping = tasks.stopping().clone();
        tasks.lasting("metrics", async move { stopping.cancelled().await });
        tasks.draining().cancel();
        let stopped = tokio::time::timeout(Duration::from_secs(20), tasks.run(Duration::from_mins(1))).await;
        assert!(stopped.expect("it stops at once").is_ok());
    }
}
