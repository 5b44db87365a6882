//! Customers: each writes, waits until it is answered or its case is resolved, and writes again. It never goes on without: what
//! is lost stays so until the audit.

use std::{ops::Range, sync::Arc, time::Duration};

use chat_client::{
    HistoryRange, Rest,
    ids::{BusinessId, ConversationId},
    positions::Seq,
};
use rand::{RngExt, rngs::StdRng};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Place, board::Board};
use crate::{audit::Diary, chaos::load::Voice};

/// Between an answer and the next message.
const PACE_MS: Range<u64> = 300..2500;
/// Messages at a time.
const MESSAGES: Range<usize> = 1..4;
/// How often a customer reads everything by requests.
const LOOK_CHANCE: f64 = 0.3;

/// A customer in one conversation.
#[derive(Debug)]
pub struct Caller {
    conversation_id: ConversationId,
    business_id: BusinessId,
    voice: Voice,
    rest: Rest,
    diary: watch::Receiver<Diary>,
    board: Arc<Board>,
}

impl Caller {
    pub fn new(place: &Place, voice: Voice, rest: Rest, diary: watch::Receiver<Diary>, board: &Arc<Board>) -> Self {
        let (conversation_id, business_id) = (place.room.id, place.business_id);
        Self { conversation_id, business_id, voice, rest, diary, board: Arc::clone(board) }
    }

    /// Writes until the end.
    pub async fn converse(mut self, mut rng: StdRng, stop: CancellationToken) {
        let (id, board) = (self.conversation_id, Arc::clone(&self.board));
        let resolving = board.resolving(id);
        let mut is_race = false;
        loop {
            let mut last = Seq::ZERO;
            for number in 0..rng.random_range(MESSAGES) {
                let text = format!("{number} {:016x} do you have tea?", rng.random::<u64>());
                if let Some(accepted) = self.voice.clone().send(id, text).await {
                    last = accepted.seq;
                    if is_race {
                        board.note_race();
                    }
                }
                is_race = false;
            }
            if rng.random_bool(LOOK_CHANCE) {
                self.look().await;
            }
            // Cancel safe: all three only wait.
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.answered(last) => {}
                () = board.until_resolved(id, last) => {}
            }
            let pause = Duration::from_millis(rng.random_range(PACE_MS));
            // Cancel safe: all three only wait.
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
                () = resolving.notified() => is_race = true,
            }
        }
    }

    /// Waits until the business has written after a message.
    async fn answered(&mut self, seq: Seq) {
        let (id, business) = (self.conversation_id, self.business_id.into());
        let is_answer = |diary: &Diary| {
            diary.messages(id).iter().rev().take_while(|it| it.seq > seq).any(|it| it.sender_id == business)
        };
        if self.diary.wait_for(is_answer).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// All requests whose answers may name who wrote. What comes of them is nothing to wait for.
    async fn look(&self) {
        let id = self.conversation_id;
        let looks = async {
            _ = self.rest.conversation(id).await;
            _ = self.rest.list_conversations(Some(100), None).await;
            _ = self.rest.history(id, HistoryRange::Newest, Some(50)).await;
            _ = self.rest.availability(self.business_id).await;
        };
        _ = timeout(Duration::from_secs(5), looks).await;
    }
}
