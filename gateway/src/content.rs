//! Seals text on the way in and opens it on the way out, with the days' keys from PostgreSQL held in memory.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use chat_shared::{
    clock::{Clock, Day},
    event::MessageSent,
    ids::ConversationId,
    lifecycle::Tasks,
    limits,
    sealing::{AudienceTag, ContentKey, Envelope, MasterKeys, Sealed, SealingError, WrappedKey},
    telemetry::Latch,
    wire::Participant,
};
use parking_lot::RwLock;
use sqlx::PgPool;
use time::Date;

use crate::{refusal::Refusal, telemetry};

/// How often keys that were made since are fetched. They are made days ahead.
const REFRESH_INTERVAL: Duration = Duration::from_mins(5);
/// How often it is tried until the first keys are there.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);

/// Opens and seals content.
#[derive(Clone)]
pub struct Content {
    keys: Arc<RwLock<HashMap<Day, Arc<ContentKey>>>>,
    master_keys: Arc<MasterKeys>,
    clock: Clock,
}

impl Content {
    /// Content that can be opened as soon as the keys are fetched, which `latch` shows.
    pub fn start(pool: PgPool, master_keys: Arc<MasterKeys>, clock: Clock, latch: Latch, tasks: &Tasks) -> Self {
        let content = Self { keys: Arc::default(), master_keys, clock };
        let refreshed = content.clone();
        let draining = tasks.draining().clone();
        tasks.best_effort("content_keys", async move {
            let mut unopened = Unopened::new();
            let mut was_empty = false;
            loop {
                let fetched = tokio::time::timeout(limits::STATEMENT_WAIT_MAX, refreshed.fetch(&pool)).await;
                match fetched.unwrap_or(Err(FetchError::TimedOut)) {
                    Ok(found) => {
                        if found != unopened {
                            refreshed.report(&found);
                        }
                        unopened = found;
                        was_empty = false;
                    }
                    Err(error) => {
                        metrics::counter!(telemetry::CONTENT_KEYS_FAILURES_TOTAL).increment(1);
                        let is_empty = matches!(error, FetchError::Empty);
                        if !is_empty {
                            tracing::warn!(%error, "content keys can't be fetched, trying again");
                        } else if !was_empty {
                            tracing::error!(%error, "there are no content keys; those that were fetched before stay in use");
                        }
                        was_empty = is_empty;
                    }
                }
                let has_today = refreshed.key(refreshed.clock.now().day()).is_some();
                latch.set(has_today);
                metrics::gauge!(telemetry::CONTENT_KEYS_AHEAD_DAYS).set(refreshed.days_ahead());
                let delay = if has_today { REFRESH_INTERVAL } else { FIRST_INTERVAL };
                // Cancel safe: it only waits.
                if draining.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
                    return;
                }
            }
        });
        content
    }

    /// Takes the keys that open, and gives those that don't: each costs the messages of its own day only.
    pub(crate) async fn fetch(&self, pool: &PgPool) -> Result<Unopened, FetchError> {
        let rows = sqlx::query!("select day, master_key_id, wrapped from content_keys").fetch_all(pool).await?;
        if rows.is_empty() {
            return Err(FetchError::Empty);
        }
        let (mut keys, mut unopened) = (HashMap::new(), Unopened::new());
        for row in rows {
            let wrapped = WrappedKey { day: row.day.into(), master_key_id: row.master_key_id, bytes: row.wrapped };
            match self.key(wrapped.day).map_or_else(|| self.master_keys.unwrap(&wrapped).map(Arc::new), Ok) {
                Ok(key) => _ = keys.insert(wrapped.day, key),
                Err(_) => _ = unopened.insert(wrapped.day, wrapped.master_key_id),
            }
        }
        // Keys that are no longer in the database have been destroyed, and go from memory too.
        *self.keys.write() = keys;
        Ok(unopened)
    }

    /// Logs which keys don't open, and the remedy.
    fn report(&self, unopened: &Unopened) {
        metrics::gauge!(telemetry::CONTENT_KEYS_UNOPENED).set(u32::try_from(unopened.len()).unwrap_or(u32::MAX));
        let (Some((first, id)), Some((last, _))) = (unopened.first_key_value(), unopened.last_key_value()) else {
            return tracing::info!("all content keys open");
        };
        let remedy = if self.master_keys.has(id) {
            "the row is damaged: restore it from a backup of content_keys"
        } else {
            "another master key wrapped it: give this gateway that one (CHAT_MASTER_KEY_FILE, or CHAT_MASTER_KEY_OLD_FILE while \
             it is exchanged)"
        };
        tracing::error!(
            keys = unopened.len(),
            first_day = %Date::from(*first),
            last_day = %Date::from(*last),
            wrapped_by = id,
            master_key = self.master_keys.current().id(),
            remedy,
            "content keys don't open; messages of their days can't be read, or sent"
        );
    }

    /// Days after today for which there is a key, without a gap.
    pub(crate) fn days_ahead(&self) -> i32 {
        let (keys, today) = (self.keys.read(), self.clock.now().day());
        let days_max = i32::try_from(keys.len()).unwrap_or(i32::MAX);
        (1..=days_max).take_while(|days| keys.contains_key(&today.plus(*days))).last().unwrap_or(0)
    }

    fn key(&self, day: Day) -> Option<Arc<ContentKey>> {
        self.keys.read().get(&day).cloned()
    }

    /// Whether there is a key that opens texts of this day.
    pub fn has_key(&self, day: Day) -> bool {
        self.key(day).is_some()
    }

    /// Seals a text with today's key, for one place.
    pub fn seal(&self, place: &Sealed, text: &str) -> Result<Envelope, Refusal> {
        let key =
            self.key(self.clock.now().day()).ok_or_else(|| Refusal::unavailable("today's content key", &NoKey))?;
        key.seal(place, text.as_bytes()).map_err(|error| Refusal::internal(&error))
    }

    /// Opens an envelope that was sealed for this place.
    pub fn open(&self, place: &Sealed, envelope: &Envelope) -> Result<String, Refusal> {
        let key = self.key_of(envelope)?;
        let text = key.open(place, envelope).map_err(|error| Refusal::internal(&error))?;
        String::from_utf8(text).map_err(|error| Refusal::internal(&error.utf8_error()))
    }

    /// Binds a sealed message to those who take part.
    pub fn tag(
        &self,
        place: &Sealed,
        envelope: &Envelope,
        participants: &[Participant],
    ) -> Result<AudienceTag, Refusal> {
        let key = self.key_of(envelope)?;
        key.tag_audience(place, participants).map_err(|error| Refusal::internal(&error))
    }

    /// Refuses a message that somebody on its way has made one for others than it was accepted for.
    pub fn check_audience(
        &self,
        conversation_id: ConversationId,
        message: &MessageSent,
        participants: &[Participant],
    ) -> Result<(), Refusal> {
        let place = Sealed { conversation_id, message_id: message.message_id, sender_id: message.sender_id };
        let key = self.key_of(&message.envelope)?;
        key.check_audience(&place, participants, &message.audience).map_err(|_| Refusal::internal(&NotForThem))
    }

    fn key_of(&self, envelope: &Envelope) -> Result<Arc<ContentKey>, Refusal> {
        let day = envelope.day().ok_or_else(|| Refusal::internal(&SealingError::Malformed))?;
        self.key(day).ok_or_else(|| Refusal::unavailable("the day's content key", &NoKey))
    }

    /// Opens an accepted message.
    pub fn open_message(&self, conversation_id: ConversationId, message: &MessageSent) -> Result<String, Refusal> {
        let place = Sealed { conversation_id, message_id: message.message_id, sender_id: message.sender_id };
        self.open(&place, &message.envelope)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the key is not there")]
struct NoKey;

#[derive(Debug, thiserror::Error)]
#[error("a message was handed on for others than it was accepted for")]
struct NotForThem;

/// Days whose keys don't open, each with the id of the master key that wrapped it.
pub(crate) type Unopened = BTreeMap<Day, String>;

/// Why the keys that are held stay as they are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("PostgreSQL did not answer in time")]
    TimedOut,
    /// Days end one by one, never all at once: the table was lost, or the database is another one.
    #[error(
        "the table content_keys is empty: if it was lost, restore it from a backup before `chat-retention` runs; in a new \
         installation run `chat-retention prepare`; else look whether the address leads to the right database"
    )]
    Empty,
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
}
