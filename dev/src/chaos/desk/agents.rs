//! Agents: they set themselves available, and do something with each message of their customers. Most are answered; some cases
//! are transferred, given back, resolved or left alone.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use chat_client::{
    Client, Rest,
    ids::{BusinessId, ConversationId},
    positions::Seq,
    wire::{Message, SetAgent, SetStatus, StaffStatus},
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::board::Board;
use crate::{
    audit::{Diary, Ledger},
    chaos::load::{Samples, Voice},
    person::Person,
};

/// Between two looks at what is to be done.
const PACE_MS: Range<u64> = 50..250;
/// How often an agent says that it is available.
const STATUS_PACE: Duration = Duration::from_secs(3);
/// How long a request may hold up an agent.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// Between an answer and its resolve.
const RESOLVE_MS: Range<u64> = 50..500;
/// Between the signal to the customer that a resolve follows, and the resolve.
const RACE_MS: Range<u64> = 0..12;
/// How long the agent with the phone has the app open, and closed.
const OPEN_MS: Range<u64> = 3000..8000;
const CLOSED_MS: Range<u64> = 3000..12_000;

/// The decision of an agent about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Answer,
    Transfer,
    GiveBack,
    /// Without an answer.
    Resolve,
    /// Until its time is over.
    Nothing,
}

impl Deed {
    fn any(rng: &mut StdRng) -> Self {
        match rng.random_range(0..100) {
            0..62 => Self::Answer,
            62..80 => Self::Transfer,
            80..88 => Self::GiveBack,
            88..94 => Self::Resolve,
            _ => Self::Nothing,
        }
    }
}

/// A connected agent.
#[derive(Debug)]
pub struct Agent {
    voice: Voice,
    client: Client,
    diary: watch::Receiver<Diary>,
    board: Arc<Board>,
    /// The last message of each conversation that something was done with, and the version of the participants then.
    done: BTreeMap<ConversationId, (Seq, u64)>,
}

/// A case of an agent.
struct Mine {
    conversation_id: ConversationId,
    version: u64,
    last: Message,
}

impl Agent {
    pub fn new(voice: Voice, client: Client, diary: watch::Receiver<Diary>, board: &Arc<Board>) -> Self {
        Self { voice, client, diary, board: Arc::clone(board), done: BTreeMap::new() }
    }

    /// Works until the end.
    pub async fn work(mut self, mut rng: StdRng, stop: CancellationToken) {
        let employers: Vec<_> = self.board.employers(self.voice.user_id).collect();
        let mut said_at: Option<Instant> = None;
        while !stop.is_cancelled() {
            if said_at.is_none_or(|at| at.elapsed() >= STATUS_PACE) {
                said_at = Some(Instant::now());
                set_available(self.client.rest(), &employers, &self.board).await;
            }
            for mine in self.cases() {
                if stop.is_cancelled() {
                    return;
                }
                self.see_to(&mine, &mut rng).await;
            }
            let pause = Duration::from_millis(rng.random_range(PACE_MS));
            // Cancel safe: it only waits.
            stop.run_until_cancelled(sleep(pause)).await;
        }
    }

    /// Those with a message.
    fn cases(&self) -> Vec<Mine> {
        let diary = self.diary.borrow();
        let mine = diary.taken_part_in(self.voice.user_id).filter_map(|(conversation_id, version)| {
            Some(Mine { conversation_id, version, last: diary.messages(conversation_id).last()?.clone() })
        });
        mine.collect()
    }

    async fn see_to(&mut self, mine: &Mine, rng: &mut StdRng) {
        let Mine { conversation_id, version, last } = mine;
        if Some(last.sender_id) != self.board.customer(*conversation_id) {
            return;
        }
        let asked = (last.seq, *version);
        if self.done.insert(*conversation_id, asked) == Some(asked) {
            return;
        }
        let deed = Deed::any(rng);
        if deed != Deed::Nothing {
            // The receipt names the agent.
            _ = timeout(REQUEST_MAX, self.client.mark_read(*conversation_id, last.message_id)).await;
        }
        match deed {
            Deed::Answer => {
                if !self.answer(*conversation_id, rng).await {
                    self.done.remove(conversation_id);
                }
            }
            Deed::Transfer => self.transfer(*conversation_id, *version, rng).await,
            Deed::GiveBack => _ = self.ask(self.client.rest().give_back(*conversation_id)).await,
            Deed::Resolve => self.resolve(*conversation_id, rng).await,
            Deed::Nothing => {}
        }
    }

    /// To the first of the others, in any order, that has room.
    async fn transfer(&self, conversation_id: ConversationId, version: u64, rng: &mut StdRng) {
        let mut others: Vec<_> = self.board.colleagues(conversation_id, self.voice.user_id).collect();
        others.shuffle(rng);
        for user_id in others {
            let agent = SetAgent { user_id, version, force: false };
            if self.ask(self.client.rest().set_agent(conversation_id, &agent)).await {
                return;
            }
        }
    }

    /// Writes, and in most cases resolves after it. Whether the message was accepted.
    async fn answer(&self, conversation_id: ConversationId, rng: &mut StdRng) -> bool {
        self.client.set_typing(conversation_id, true);
        let text = format!("{:016x} we do", rng.random::<u64>());
        let is_accepted = self.voice.try_send(conversation_id, text).await.is_some();
        if is_accepted && rng.random_bool(0.6) {
            sleep(Duration::from_millis(rng.random_range(RESOLVE_MS))).await;
            self.resolve(conversation_id, rng).await;
        }
        is_accepted
    }

    /// Up to the last message that was shown. The customer gets a signal first, and may write in the same moment.
    async fn resolve(&self, conversation_id: ConversationId, rng: &mut StdRng) {
        let seen = self.diary.borrow().messages(conversation_id).last().map(|message| message.seq);
        let Some(seq) = seen else { return };
        self.board.resolving(conversation_id).notify_waiters();
        sleep(Duration::from_millis(rng.random_range(RACE_MS))).await;
        self.board.note_resolve(conversation_id, seq, false);
        if self.ask(self.client.rest().resolve(conversation_id, seq)).await {
            self.board.note_resolve(conversation_id, seq, true);
        }
    }

    /// Whether a request was carried out in time.
    async fn ask<T>(&self, request: impl Future<Output = Result<T, chat_client::RestError>>) -> bool {
        timeout(REQUEST_MAX, request).await.is_ok_and(|outcome| self.board.is_done(outcome))
    }
}

async fn set_available(rest: &Rest, employers: &[BusinessId], board: &Board) {
    let status = SetStatus { status: StaffStatus::Available, until: None, gives_back: false };
    for business_id in employers {
        if let Ok(outcome) = timeout(REQUEST_MAX, rest.set_status(*business_id, &status)).await {
            board.is_done(outcome);
        }
    }
}

/// An agent that has the app open for a moment again and again, and else only a registered device.
#[derive(Debug)]
pub struct Pocket {
    pub person: Person,
    pub gateways: Vec<String>,
    /// Also while the app is closed.
    pub rest: Rest,
    pub ledger: Arc<Ledger>,
    pub samples: Arc<Samples>,
    pub board: Arc<Board>,
}

impl Pocket {
    /// Works until the end, and leaves the app closed.
    pub async fn work(mut self, mut rng: StdRng, stop: CancellationToken) {
        let user_id = self.person.user_id;
        let employers: Vec<_> = self.board.employers(user_id).collect();
        loop {
            set_available(&self.rest, &employers, &self.board).await;
            let closed = Duration::from_millis(rng.random_range(CLOSED_MS));
            // Cancel safe: it only waits.
            if stop.run_until_cancelled(sleep(closed)).await.is_none() {
                return;
            }
            // Without a gateway it is tried again later.
            self.gateways.rotate_left(1);
            if self.person.arrive(self.gateways.clone()).await.is_ok()
                && let Ok(client) = self.person.client()
            {
                let voice = Voice::new(user_id, client.clone(), &self.ledger, &self.samples);
                let agent = Agent::new(voice, client.clone(), self.person.follow(), &self.board);
                let closing = stop.child_token();
                let open = Duration::from_millis(rng.random_range(OPEN_MS));
                let work = agent.work(StdRng::from_rng(&mut rng), closing.clone());
                // Cancel safe: the first only waits, and then the second is waited for.
                tokio::join!(work, async {
                    stop.run_until_cancelled(sleep(open)).await;
                    closing.cancel();
                });
            }
            _ = self.person.leave().await;
        }
    }
}
