//! Pairs of users writing to each other: flat out with a bounded window, or at a fixed pace whatever the answers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use chat_client::{
    ids::{ConversationId, MessageId},
    positions::Cursor,
    wire::{Command, Confirm, Heartbeat, SendMessage},
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, interval, sleep_until},
};

use super::{
    machine::cpu_seconds,
    socket::{self, Heard, Reader, Writer},
    users::Users,
};
use crate::{fleet::Fleet, wait};

/// Not measured, so that caches and pools are as they stay.
const WARM_UP: Duration = Duration::from_secs(3);
/// How long the last messages may take to arrive.
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Pushes that are confirmed together, as the Rust client does.
const CONFIRM_PUSHES: u64 = 32;
/// Confirmations that wait to be written; one more waits for the next push.
const CONFIRMS_MAX: usize = 4;
/// Sends at a fixed pace have no window.
const NO_WINDOW: usize = Semaphore::MAX_PERMITS;
/// Makes a text of about 100 bytes.
const PADDING: &str = "The mountains are out today, all of them, and nobody at the office has looked up yet.";

/// How to load.
#[derive(Debug)]
pub struct Plan {
    /// Between two sends of one connection.
    pub interval: Duration,
    /// Sends without an answer, at the most. None: sends keep their times whatever happens, and latencies count from
    /// those times.
    pub window: Option<usize>,
    /// Both of a pair write to their conversation at the same time, from two gateways; else only the first does.
    pub do_both_write: bool,
    pub length: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Measured {
    pub seconds: f64,
    pub accepted: u64,
    pub delivered: u64,
    /// Sends that were rejected in the whole run, by what the gateway said.
    pub rejected: BTreeMap<String, u64>,
    /// Why connections ended before their time.
    pub ended: BTreeMap<String, u64>,
    /// Accepted and never delivered, in the whole run. Negative: delivered, though the answer was that the outcome is
    /// unknown.
    pub missing: i64,
    /// Sorted, in microseconds.
    pub accept_us: Vec<u32>,
    /// Sorted, in microseconds.
    pub deliver_us: Vec<u32>,
    /// Processor seconds of each process.
    pub cpu: BTreeMap<String, f64>,
}

/// What all connections share.
struct Run {
    began: Instant,
    interval: Duration,
    is_open_loop: bool,
    do_both_write: bool,
    from: Instant,
    until: Instant,
    accepted_ever: AtomicU64,
    delivered_ever: AtomicU64,
}

#[derive(Default)]
struct Stats {
    accepted: u64,
    delivered: u64,
    rejected: BTreeMap<String, u64>,
    accept_us: Vec<u32>,
    deliver_us: Vec<u32>,
}

/// Connects everybody, lets them write, and measures.
pub async fn run(fleet: &Fleet, users: &Users, plan: &Plan) -> Result<Measured> {
    let mut sockets = Vec::with_capacity(users.0.len());
    for seat in &users.0 {
        let address = fleet.gateway(seat.gateway).address();
        let (reader, writer, _) = socket::open(&address, &seat.user.token, seat.user.device_id, None).await?;
        sockets.push((reader, writer, seat.conversation_id));
    }
    let began = Instant::now();
    let from = began + WARM_UP;
    let run = Arc::new(Run {
        began,
        interval: plan.interval,
        is_open_loop: plan.window.is_none(),
        do_both_write: plan.do_both_write,
        from,
        until: from + plan.length,
        accepted_ever: AtomicU64::new(0),
        delivered_ever: AtomicU64::new(0),
    });
    let count = u32::try_from(sockets.len())?;
    let mut tasks = JoinSet::new();
    let mut all_stats = Vec::new();
    for (me, (reader, writer, conversation_id)) in (0..count).zip(sockets) {
        let stats = Arc::new(Mutex::new(Stats::default()));
        let window = Arc::new(Semaphore::new(plan.window.unwrap_or(NO_WINDOW)));
        let (confirm, confirms) = mpsc::channel(CONFIRMS_MAX);
        all_stats.push(Arc::clone(&stats));
        tasks.spawn(read(reader, me, Arc::clone(&run), stats, Arc::clone(&window), confirm));
        let first = began + plan.interval * me / count;
        tasks.spawn(write(writer, me, Arc::clone(&run), window, confirms, conversation_id, first));
    }
    // The length of the measurement is what is waited for here, not a condition.
    sleep_until(run.from).await;
    let before = cpu_seconds(fleet)?;
    sleep_until(run.until).await;
    let after = cpu_seconds(fleet)?;
    let ended = drain(&run, &mut tasks).await;
    let mut measured = Measured { seconds: plan.length.as_secs_f64(), ended, ..Measured::default() };
    for stats in all_stats {
        let mut stats = stats.lock().unwrap_or_else(PoisonError::into_inner);
        measured.accepted += stats.accepted;
        measured.delivered += stats.delivered;
        for (problem, count) in std::mem::take(&mut stats.rejected) {
            *measured.rejected.entry(problem).or_default() += count;
        }
        measured.accept_us.append(&mut stats.accept_us);
        measured.deliver_us.append(&mut stats.deliver_us);
    }
    measured.accept_us.sort_unstable();
    measured.deliver_us.sort_unstable();
    measured.missing = run.missing();
    measured.cpu =
        after.into_iter().map(|(name, seconds)| (name.clone(), seconds - before.get(&name).unwrap_or(&0.0))).collect();
    Ok(measured)
}

/// Waits for the last messages, ends the connections, and gives the reasons of those that had ended by themselves.
/// Whether all messages came is part of what is measured.
async fn drain(run: &Run, tasks: &mut JoinSet<Result<()>>) -> BTreeMap<String, u64> {
    let drained = wait::until("the last messages", DRAIN_DEADLINE, || async { Ok((run.missing() <= 0).then_some(())) });
    _ = drained.await;
    let mut reasons = BTreeMap::new();
    while let Some(ended) = tasks.try_join_next() {
        let reason = match ended {
            Ok(Ok(())) => "without a reason".to_owned(),
            Ok(Err(error)) => format!("{error:#}"),
            Err(error) => error.to_string(),
        };
        *reasons.entry(reason).or_default() += 1;
    }
    tasks.shutdown().await;
    reasons
}

impl Run {
    fn missing(&self) -> i64 {
        self.accepted_ever.load(Ordering::Relaxed).cast_signed()
            - self.delivered_ever.load(Ordering::Relaxed).cast_signed()
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from((at - self.began).as_micros()).unwrap_or(u64::MAX)
    }

    fn is_measured(&self, at: Instant) -> bool {
        (self.from..self.until).contains(&at)
    }

    /// The latency of something that was meant to be sent at `intended_us`, if that is measured.
    fn latency(&self, intended_us: u64, now: Instant) -> Option<u32> {
        let intended = self.began + Duration::from_micros(intended_us);
        self.is_measured(intended).then(|| u32::try_from((now - intended).as_micros()).unwrap_or(u32::MAX))
    }
}

async fn read(
    mut reader: Reader,
    me: u32,
    run: Arc<Run>,
    stats: Arc<Mutex<Stats>>,
    window: Arc<Semaphore>,
    confirm: mpsc::Sender<Cursor>,
) -> Result<()> {
    let mut confirmed = 0;
    loop {
        let heard = reader.next().await?;
        let now = Instant::now();
        if let Some(cursor) = heard.cursor
            && heard.text().is_some()
            && cursor.0 >= confirmed + CONFIRM_PUSHES
            && confirm.try_send(cursor).is_ok()
        {
            confirmed = cursor.0;
        }
        note(&heard, me, now, &run, &stats, &window);
    }
}

fn note(heard: &Heard, me: u32, now: Instant, run: &Run, stats: &Mutex<Stats>, window: &Semaphore) {
    let is_measured = run.is_measured(now);
    let mut stats = stats.lock().unwrap_or_else(PoisonError::into_inner);
    match (heard.name.as_str(), heard.reference, heard.text()) {
        ("accepted", Some(intended_us), _) => {
            window.add_permits(usize::from(!run.is_open_loop));
            run.accepted_ever.fetch_add(1, Ordering::Relaxed);
            stats.accepted += u64::from(is_measured);
            stats.accept_us.extend(run.latency(intended_us, now));
        }
        ("rejected", ..) => {
            window.add_permits(usize::from(!run.is_open_loop));
            let problem = heard.problem().unwrap_or_default().to_owned();
            *stats.rejected.entry(problem).or_default() += 1;
        }
        ("message", _, Some(text)) => {
            let mut parts = text.split(' ').map(str::parse);
            let (Some(Ok(sender)), Some(Ok(intended_us))) = (parts.next(), parts.next()) else { return };
            if sender != u64::from(me) {
                run.delivered_ever.fetch_add(1, Ordering::Relaxed);
                stats.delivered += u64::from(is_measured);
                stats.deliver_us.extend(run.latency(intended_us, now));
            }
        }
        _ => {}
    }
}

async fn write(
    mut writer: Writer,
    me: u32,
    run: Arc<Run>,
    window: Arc<Semaphore>,
    mut confirms: mpsc::Receiver<Cursor>,
    conversation_id: ConversationId,
    first: Instant,
) -> Result<()> {
    let is_writer = run.do_both_write || me.is_multiple_of(2);
    let mut due = first;
    let mut beat = interval(HEARTBEAT);
    loop {
        let is_sending = is_writer && due < run.until;
        // Cancel safe: receiving and ticking take nothing until they are done, and a permit is taken last.
        tokio::select! {
            cursor = confirms.recv() => {
                let cursor = cursor.context("the reader has ended")?;
                writer.write(None, Command::Confirm(Confirm { cursor })).await?;
            }
            _ = beat.tick() => writer.write(None, Command::Heartbeat(Heartbeat { cursor: None })).await?,
            () = room(due, &window), if is_sending => {
                if !run.is_open_loop {
                    due = due.max(Instant::now());
                }
                let intended_us = run.micros(due);
                let text = format!("{me} {intended_us} {PADDING}");
                let command = SendMessage { conversation_id, message_id: MessageId::random(), text, is_repeat: false };
                writer.write(Some(intended_us), Command::SendMessage(command)).await?;
                due += run.interval;
            }
        }
    }
}

async fn room(due: Instant, window: &Semaphore) {
    sleep_until(due).await;
    if let Ok(permit) = window.acquire().await {
        permit.forget();
    }
}
