//! What goes on while things break: everybody writes in their conversations, single messages are whispered into
//! conversations where nothing follows, and single attempts are made that nobody repeats.

mod changes;
mod marks;
mod probe;
mod samples;
mod voice;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use chat_client::ids::ConversationId;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{changes::Changes, marks::Reader};
pub use self::{
    probe::{Probe, ProbeOutcome},
    samples::Samples,
    voice::{Voice, is_for_good},
};
use super::crowd::Crowd;
use crate::{
    audit::{Actions, Ledger, Room},
    fleet::{Fleet, Service},
};

/// Sends of one person without an answer; one more waits.
const AT_ONCE_MAX: usize = 8;
/// Between two messages of one person.
const PACE_MS: std::ops::Range<u64> = 40..360;
/// Between two whispers.
const WHISPER_PACE_MS: std::ops::Range<u64> = 1000..3000;
/// Between two single attempts.
const PROBE_PACE: Duration = Duration::from_millis(200);

/// How long everything that changes may take to change once, before anything breaks.
const CHANGED_DEADLINE: Duration = Duration::from_secs(30);

/// Whispers that wait to be sent; more are not asked for.
const WHISPERS_ASKED_MAX: usize = 64;

/// Running writers.
#[derive(Debug)]
pub struct Load {
    pub ledger: Arc<Ledger>,
    pub actions: Arc<Actions>,
    pub samples: Arc<Samples>,
    pub probe: Arc<Probe>,
    whisper: mpsc::Sender<()>,
    /// First rounds of changes that have ended.
    first_rounds: watch::Receiver<usize>,
    stop_changes: CancellationToken,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Load {
    /// Begins to write.
    pub fn start(fleet: &Fleet, crowd: &Crowd, seed: u64) -> Result<Self> {
        let ledger = Arc::new(Ledger::default());
        let gateways = fleet.gateways().iter().map(Service::url).collect();
        let probe = Arc::new(Probe::new(gateways, &crowd.people()[0].person, crowd.probing.id, &ledger));
        let mut load = Self {
            ledger,
            actions: Arc::default(),
            samples: Arc::default(),
            probe,
            whisper: mpsc::channel(WHISPERS_ASKED_MAX).0,
            first_rounds: watch::channel(0).1,
            stop_changes: CancellationToken::new(),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        };
        load.begin(fleet, crowd, seed)?;
        Ok(load)
    }

    /// Begins to write, again once it was stopped.
    pub fn begin(&mut self, fleet: &Fleet, crowd: &Crowd, seed: u64) -> Result<()> {
        let (ledger, actions, samples, tasks) = (&self.ledger, &self.actions, &self.samples, &mut self.tasks);
        let stop = CancellationToken::new();
        let voices = crowd
            .people()
            .iter()
            .map(|device| Ok(Voice::new(device.person.user_id, device.client()?.0, ledger, samples)))
            .collect::<Result<Vec<_>>>()?;
        let voice_of = |room: &Room, turn: usize| {
            let here: Vec<_> = voices.iter().filter(|voice| room.members.contains(&voice.user_id)).collect();
            here.get(turn % here.len().max(1)).copied().cloned()
        };
        let unused = crowd.whispers.iter().enumerate().filter(|(_, room)| ledger.of(room.id).is_empty());
        let unused = unused.filter_map(|(turn, room)| Some((room.id, voice_of(room, turn)?))).collect();
        let (asking, asked) = mpsc::channel(WHISPERS_ASKED_MAX);
        let stop_changes = stop.child_token();
        let changes = Changes {
            actions: Arc::clone(actions),
            samples: Arc::clone(samples),
            postgres: fleet.urls().postgres.clone(),
            stop: stop_changes.clone(),
        };
        let first_rounds = changes.start(tasks, crowd, ledger)?;
        for (number, device) in (1..).zip(crowd.people()) {
            let is_in = |room: &&Room| room.members.contains(&device.person.user_id);
            let rooms = crowd.busy.iter().filter(is_in).map(|room| room.id).collect();
            let reader = Reader::new(device, rooms, actions)?;
            tasks.spawn(reader.mark(StdRng::seed_from_u64(seed.wrapping_mul(number)), stop.clone()));
        }
        for (number, voice) in (1..).zip(voices) {
            let is_in = |room: &&Room| room.members.contains(&voice.user_id);
            let rooms: Vec<_> = crowd.busy.iter().filter(is_in).map(|room| room.id).collect();
            let rng = StdRng::seed_from_u64(seed.wrapping_add(number));
            tasks.spawn(write(voice, rooms, rng, stop.clone()));
        }
        tasks.spawn(whisper(unused, asked, StdRng::seed_from_u64(seed), stop.clone()));
        tasks.spawn(try_once(Arc::clone(&self.probe), stop.clone()));
        (self.whisper, self.first_rounds, self.stop_changes, self.stop) = (asking, first_rounds, stop_changes, stop);
        Ok(())
    }

    /// Waits until everything that changes has changed once.
    pub async fn until_changed(&self) -> Result<()> {
        let mut ended = self.first_rounds.clone();
        timeout(CHANGED_DEADLINE, ended.wait_for(|ended| *ended >= Changes::KINDS))
            .await
            .with_context(|| format!("participants, blocks and mutes did not change within {CHANGED_DEADLINE:?}"))??;
        Ok(())
    }

    /// Changes no participants, blocks and mutes any more, and waits until the changes that have begun are answered.
    pub async fn end_changes(&self) {
        self.stop_changes.cancel();
        let mut rounds = self.first_rounds.clone();
        // It fails once the last task of changes has ended.
        while rounds.changed().await.is_ok() {}
    }

    /// Sends one message into a conversation where nothing will follow, if one is left.
    pub fn whisper(&self) {
        // When so many wait already, one more makes no difference.
        _ = self.whisper.try_send(());
    }

    /// Begins no further message; those that have no outcome yet are repeated.
    pub fn end(&self) {
        self.stop.cancel();
    }

    /// Sends nothing more and waits until what was sent has an outcome. What has none then is unknown, as for a client
    /// that is turned off.
    pub async fn stop(&mut self, deadline: Duration) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        _ = timeout(deadline, ended).await;
        self.tasks.shutdown().await;
    }
}

async fn write(voice: Voice, rooms: Vec<ConversationId>, mut rng: StdRng, stop: CancellationToken) {
    let mut sending = JoinSet::new();
    for number in 0_u64.. {
        if sending.len() >= AT_ONCE_MAX {
            sending.join_next().await;
        }
        if stop.is_cancelled() || rooms.is_empty() {
            break;
        }
        let room = rooms[rng.random_range(0..rooms.len())];
        let text = format!("{number} {:016x} {}", rng.random::<u64>(), "word ".repeat(rng.random_range(1..20)));
        sending.spawn(voice.clone().send(room, text));
        while sending.try_join_next().is_some() {}
        // Cancel safe: sleeping holds nothing.
        stop.run_until_cancelled(sleep(Duration::from_millis(rng.random_range(PACE_MS)))).await;
    }
    while sending.join_next().await.is_some() {}
}

async fn whisper(
    mut unused: VecDeque<(ConversationId, Voice)>,
    mut asked: mpsc::Receiver<()>,
    mut rng: StdRng,
    stop: CancellationToken,
) {
    let mut sending = JoinSet::new();
    loop {
        let pause = Duration::from_millis(rng.random_range(WHISPER_PACE_MS));
        // Cancel safe: nothing is taken but the wish to whisper.
        tokio::select! {
            () = sleep(pause) => {}
            wish = asked.recv() => if wish.is_none() { break },
            () = stop.cancelled() => break,
        }
        let Some((room, voice)) = unused.pop_front() else { break };
        sending.spawn(voice.send(room, format!("whisper {:016x}", rng.random::<u64>())));
    }
    while sending.join_next().await.is_some() {}
}

async fn try_once(probe: Arc<Probe>, stop: CancellationToken) {
    for turn in 0.. {
        let began = Instant::now();
        probe.send(turn).await;
        let rest = PROBE_PACE.saturating_sub(began.elapsed());
        if stop.run_until_cancelled(sleep(rest)).await.is_none() {
            return;
        }
    }
}
