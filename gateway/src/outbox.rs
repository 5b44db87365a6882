//! Brings committed changes of conversations into the log: at once by whoever made them, else by the sweeper.
//!
//! Repeating it does no harm: the log knows a change by its append id, and its participants never go back.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chat_shared::{
    clock::{Clock, Timestamp},
    event::Event,
    ids::{ConversationId, InvalidId},
    lifecycle::Tasks,
    mask,
    position::Lsn,
};
use futures_util::{StreamExt, stream};
use sqlx::{Connection, PgConnection};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::{
    database::{Database, DatabaseError, bounded, statement},
    refusal::Refusal,
    send::Sender,
    telemetry,
};

/// How long the maker of a change waits for the log. After it the sweeper takes over.
const PUBLISH_WAIT_MAX: Duration = Duration::from_secs(3);
/// Publishers at once; the others wait for their turn as long as they would for the log.
const PUBLISHERS_MAX: usize = 3;
/// Conversations whose changes one publisher appends at a time.
const APPENDED_TOGETHER_MAX: usize = 8;
/// How often the outbox is swept, give or take half of it, so that gateways take turns.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How old a row is before it is swept: whoever made it goes first.
const SWEEP_AGE_MIN: Duration = Duration::from_millis(500);
/// Conversations of one sweep; the next one goes on after them.
const SWEEP_CONVERSATIONS_MAX: i64 = 64;
/// How long one sweep may take before the next begins, so that what is pending is measured also while publishing fails.
const SWEEP_WAIT_MAX: Duration = Duration::from_secs(10);

/// Publishes changes of conversations.
#[derive(Clone)]
pub struct Outbox {
    database: Database,
    sender: Sender,
    /// A publisher holds a connection while it waits for the log; without it the log's outage would use them all up.
    publishers: Arc<Semaphore>,
}

impl Outbox {
    /// From the database's outbox to the log.
    pub fn new(database: Database, sender: Sender) -> Self {
        Self { database, sender, publishers: Arc::new(Semaphore::new(PUBLISHERS_MAX)) }
    }

    /// Publishes all pending changes of one conversation, oldest version first. Changes that fail are left to the sweeper.
    pub async fn publish(&self, conversation_id: ConversationId) {
        self.publish_all(&[conversation_id]).await;
    }

    /// As `publish`, of several conversations by one transaction.
    pub async fn publish_all(&self, conversations: &[ConversationId]) {
        let publishing = async {
            let _permit = self.publishers.acquire().await;
            publish_pending(&self.database, &self.sender, conversations, WhenLocked::Wait).await
        };
        let failed = match tokio::time::timeout(PUBLISH_WAIT_MAX, publishing).await {
            Ok(Ok(failed)) => failed,
            Ok(Err(error)) => return tracing::info!(%error, "changes are left to the sweeper"),
            Err(_) => return tracing::info!("changes took too long to publish and are left to the sweeper"),
        };
        for (conversation_id, error) in failed {
            tracing::info!(?conversation_id, %error, "a change is left to the sweeper");
        }
    }
}

/// What to do while another publishes changes of one of the conversations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WhenLocked {
    Wait,
    /// Never rows alone: a later version must not overtake an earlier one.
    Skip,
}

/// Why a change is still pending.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("the log did not take it: {0}")]
    Log(#[from] Refusal),
    #[error(transparent)]
    Unreadable(#[from] chat_shared::event::UnreadableEvent),
    #[error("only a gateway of a later version can publish it")]
    LaterVersion,
    #[error(transparent)]
    Id(#[from] InvalidId),
    #[error("it took too long")]
    TimedOut,
}

/// The conversations whose changes failed, each with the reason.
type Failed = Vec<(ConversationId, PublishError)>;

async fn publish_pending(
    database: &Database,
    sender: &Sender,
    conversations: &[ConversationId],
    when_locked: WhenLocked,
) -> Result<Failed, PublishError> {
    let mut connection = database.connection().await?;
    // The rows stay locked until they are deleted, so changes of one conversation are published one after another.
    let mut transaction = bounded(connection.begin()).await?;
    let asks_lsn = database.has_replicas();
    let pending = match lock(&mut transaction, conversations, when_locked, asks_lsn).await {
        Err(error) if error.is_locked() => return Ok(Vec::new()),
        other => other?,
    };
    let appending = pending.into_iter().map(async |(id, changes)| append(sender, id, &changes).await);
    let appending = stream::iter(appending.collect::<Vec<_>>());
    let appended: Vec<_> = appending.buffer_unordered(APPENDED_TOGETHER_MAX).collect().await;
    // Also after a failure: the changes before it are in the log.
    let published = appended.iter().filter_map(|(id, version, _)| Some((*id, version.as_ref().copied()?)));
    let (ids, versions): (Vec<_>, Vec<_>) = published.unzip();
    if !ids.is_empty() {
        let deleting = sqlx::query!(
            "delete from outbox o using unnest($1::uuid[], $2::bigint[]) as published (conversation_id, version)
             where o.conversation_id = published.conversation_id and o.version <= published.version",
            &ids,
            &versions
        );
        statement(deleting.execute(&mut *transaction)).await?;
    }
    bounded(transaction.commit()).await?;
    let failed =
        appended.into_iter().filter_map(|(id, _, failure)| Some((ConversationId::try_from(id).ok()?, failure?)));
    Ok(failed.collect())
}

/// Locks the pending changes of conversations: of each, oldest version first. With a place in PostgreSQL's log after them, if
/// that is asked for.
async fn lock(
    connection: &mut PgConnection,
    conversations: &[ConversationId],
    when_locked: WhenLocked,
    asks_lsn: bool,
) -> Result<BTreeMap<Uuid, Vec<Pending>>, DatabaseError> {
    let ids: Vec<_> = conversations.iter().map(|id| id.as_uuid()).collect();
    let rows = match when_locked {
        WhenLocked::Wait => {
            let rows = sqlx::query_as!(
                Pending,
                "select conversation_id, event, case when $2 then (pg_current_wal_lsn() - '0/0')::bigint end as lsn
                 from outbox where conversation_id = any($1)
                 order by conversation_id, version for update",
                &ids,
                asks_lsn
            );
            statement(rows.fetch_all(connection)).await?
        }
        WhenLocked::Skip => {
            let rows = sqlx::query_as!(
                Pending,
                "select conversation_id, event, case when $2 then (pg_current_wal_lsn() - '0/0')::bigint end as lsn
                 from outbox where conversation_id = any($1)
                 order by conversation_id, version for update nowait",
                &ids,
                asks_lsn
            );
            statement(rows.fetch_all(connection)).await?
        }
    };
    let mut pending: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in rows {
        pending.entry(row.conversation_id).or_default().push(row);
    }
    Ok(pending)
}

/// A row of the outbox.
struct Pending {
    conversation_id: Uuid,
    event: Vec<u8>,
    /// The row is read after its commit, so this is past it.
    lsn: Option<i64>,
}

/// Appends the changes of a conversation in their order, up to the first that fails: the last version that is in the log, and the
/// failure.
async fn append(sender: &Sender, id: Uuid, changes: &[Pending]) -> (Uuid, Option<i64>, Option<PublishError>) {
    let mut version = None;
    for pending in changes {
        match publish_change(sender, pending).await {
            Ok(published) => version = i64::try_from(published).ok(),
            Err(error) => return (id, version, Some(error)),
        }
    }
    (id, version, None)
}

/// Appends a change to the log; its version.
async fn publish_change(sender: &Sender, pending: &Pending) -> Result<u64, PublishError> {
    let mut change = Event::decode(&pending.event)?;
    change.set_lsn(pending.lsn.map(Lsn::from_sql));
    if !change.is_writable() {
        return Err(PublishError::LaterVersion);
    }
    let version = change.participants.version;
    sender.append_change(change).await?;
    Ok(version)
}

/// Starts the task that publishes what was left behind, for as long as the gateway takes work.
pub fn start_sweeper(database: Database, sender: Sender, clock: Clock, tasks: &Tasks) {
    let draining = tasks.draining().clone();
    let mut sweeper = Sweeper::new(database, sender);
    tasks.essential("outbox_sweeper", async move {
        loop {
            let pause = SWEEP_INTERVAL.mul_f64(rand::random_range(0.5..1.5));
            // Cancel safe: it only waits.
            if draining.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(());
            }
            if let Err(error) = sweeper.sweep(clock.now()).await {
                tracing::warn!(%error, "the outbox can't be swept, trying again");
            }
        }
    });
}

/// Publishes pending changes of all conversations, in turns: one that fails keeps its place and holds up no other.
pub(crate) struct Sweeper {
    database: Database,
    sender: Sender,
    /// The conversations of the next sweep have their first pending row after this one; zero for the oldest.
    after: i64,
}

impl Sweeper {
    /// Begins with the oldest.
    pub(crate) const fn new(database: Database, sender: Sender) -> Self {
        Self { database, sender, after: 0 }
    }

    /// Publishes what has been pending for a while, the oldest first, and measures what is pending.
    pub(crate) async fn sweep(&mut self, now: Timestamp) -> Result<(), PublishError> {
        let started = Instant::now();
        let conversations = self.pending(now).await?;
        let is_last = i64::try_from(conversations.len()).is_ok_and(|count| count < SWEEP_CONVERSATIONS_MAX);
        let mut failures = 0;
        for (conversation, first) in conversations {
            self.after = first;
            if let Err(error) = self.publish(conversation).await {
                metrics::counter!(telemetry::OUTBOX_FAILURES_TOTAL).increment(1);
                let conversation = mask::Masked(conversation);
                match error {
                    PublishError::Unreadable(_) | PublishError::LaterVersion | PublishError::Id(_) => {
                        tracing::error!(%conversation, %error, "a pending change can't be read, trying the others");
                    }
                    // While the log is away all fail alike, and one line is enough.
                    _ if failures == 0 => {
                        tracing::warn!(%conversation, %error, "a pending change can't be published, trying the others");
                    }
                    _ => {}
                }
                failures += 1;
            }
            if started.elapsed() > SWEEP_WAIT_MAX {
                return Ok(());
            }
        }
        if is_last {
            self.after = 0;
        }
        Ok(())
    }

    /// The next conversations with pending changes, each with its first row. Not counted as statements: no request makes
    /// them.
    async fn pending(&self, now: Timestamp) -> Result<Vec<(Uuid, i64)>, PublishError> {
        let mut connection = self.database.connection().await?;
        let pending = bounded(
            sqlx::query!(r#"select count(*) as "rows!", min(created_at) as oldest from outbox"#)
                .fetch_one(&mut *connection),
        )
        .await?;
        let oldest_age_ms = pending.oldest.map_or(0, |oldest| now.0.saturating_sub(Timestamp::from(oldest).0).max(0));
        metrics::gauge!(telemetry::OUTBOX_PENDING).set(telemetry::as_gauge(pending.rows));
        metrics::gauge!(telemetry::OUTBOX_OLDEST_SECONDS).set(telemetry::as_gauge(oldest_age_ms) / 1000.0);
        let made_before = Timestamp(now.0 - i64::try_from(SWEEP_AGE_MIN.as_millis()).unwrap_or(i64::MAX));
        let conversations = bounded(
            sqlx::query!(
                r#"select conversation_id, min(outbox_id) as "first!" from outbox where created_at <= $1
                   group by conversation_id having min(outbox_id) > $2 order by min(outbox_id) limit $3"#,
                time::OffsetDateTime::from(made_before),
                self.after,
                SWEEP_CONVERSATIONS_MAX
            )
            .fetch_all(&mut *connection),
        )
        .await?;
        Ok(conversations.into_iter().map(|row| (row.conversation_id, row.first)).collect())
    }

    async fn publish(&self, conversation: Uuid) -> Result<(), PublishError> {
        let conversation_id = ConversationId::try_from(conversation)?;
        let conversations = [conversation_id];
        let publishing = publish_pending(&self.database, &self.sender, &conversations, WhenLocked::Skip);
        let failed = tokio::time::timeout(PUBLISH_WAIT_MAX, publishing).await.unwrap_or(Err(PublishError::TimedOut))?;
        failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }
}
