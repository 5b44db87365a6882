//! Opens the text of messages, for notifications that show it.

use std::{sync::Arc, time::Duration};

use chat_shared::{
    clock::Day,
    jobs::MessageJob,
    sealing::{ContentKey, MasterKeys, Sealed, SealingError},
};
use moka::future::Cache;

use super::facts::{Facts, OutOfReach};
use crate::occasionally::Occasionally;

/// Keys held at once; messages are at most a day old.
const KEYS_MAX: u64 = 4;
/// How long a key is held. So one that was destroyed is soon gone from here too.
const KEY_KEPT: Duration = Duration::from_mins(5);

/// Opens content with the days' keys.
pub struct Content {
    keys: Cache<Day, Arc<ContentKey>>,
    failures: Occasionally,
}

#[derive(Debug, Clone, thiserror::Error)]
enum Closed {
    #[error(transparent)]
    OutOfReach(#[from] OutOfReach),
    #[error("the day's content key is not there")]
    NoKey,
    #[error(transparent)]
    Sealed(#[from] SealingError),
    #[error("it is no text")]
    NoText,
}

impl Content {
    /// With no keys yet.
    pub fn new() -> Self {
        let keys = Cache::builder().max_capacity(KEYS_MAX).time_to_live(KEY_KEPT).build();
        Self { keys, failures: Occasionally::default() }
    }

    /// The message's text; none if it can't be opened, which is logged.
    pub async fn text(&self, job: &MessageJob, facts: &Facts, master_keys: &MasterKeys) -> Option<String> {
        let opened = self.open(job, facts, master_keys).await;
        if let Err(error) = &opened
            && self.failures.is_due()
        {
            tracing::warn!(%error, "a message can't be opened, its notification shows no text");
        }
        opened.ok()
    }

    async fn open(&self, job: &MessageJob, facts: &Facts, master_keys: &MasterKeys) -> Result<String, Closed> {
        let envelope = job.envelope.as_ref().ok_or(Closed::NoText)?;
        let day = envelope.day().ok_or(SealingError::Malformed)?;
        let fetching = async {
            let wrapped = facts.content_key(day).await?.ok_or(Closed::NoKey)?;
            Ok(Arc::new(master_keys.unwrap(&wrapped)?))
        };
        let key = self.keys.try_get_with(day, fetching).await.map_err(|error: Arc<Closed>| (*error).clone())?;
        let place =
            Sealed { conversation_id: job.conversation_id, message_id: job.message_id, sender_id: job.sender_id };
        String::from_utf8(key.open(&place, envelope)?).map_err(|_| Closed::NoText)
    }
}
