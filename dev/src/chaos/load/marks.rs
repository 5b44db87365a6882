//! Somebody who reads: marks the last message that a device was shown, again and again.

use std::{ops::Range, sync::Arc, time::Duration};

use anyhow::Result;
use chat_client::{
    Client,
    ids::{ConversationId, UserId},
};
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::{Actions, Diary},
    chaos::crowd::Device,
};

/// Between two marks of one person.
const PACE_MS: Range<u64> = 500..2500;

/// A person's device, and where what it marks is written down.
#[derive(Debug)]
pub struct Reader {
    user_id: UserId,
    client: Client,
    diary: watch::Receiver<Diary>,
    rooms: Vec<ConversationId>,
    actions: Arc<Actions>,
}

impl Reader {
    pub fn new(device: &Device, rooms: Vec<ConversationId>, actions: &Arc<Actions>) -> Result<Self> {
        let (client, _) = device.client()?;
        let (user_id, diary) = (device.person.user_id, device.person.follow());
        Ok(Self { user_id, client, diary, rooms, actions: Arc::clone(actions) })
    }

    /// Marks until the end. The client repeats a mark until it is answered.
    pub async fn mark(self, mut rng: StdRng, stop: CancellationToken) {
        loop {
            let pause = Duration::from_millis(rng.random_range(PACE_MS));
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
            let Some(room) = self.rooms.choose(&mut rng).copied() else { return };
            let last = self.diary.borrow().messages(room).last().map(|message| (message.message_id, message.seq));
            let Some((message_id, seq)) = last else { continue };
            self.actions.try_mark(room, self.user_id, seq);
            if self.client.mark_read(room, message_id).await.is_ok() {
                self.actions.mark(room, self.user_id, seq);
            }
        }
    }
}
