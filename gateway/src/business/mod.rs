//! Conversations of customers with businesses: the staff, the queue of cases, and which agent a case goes to.
//!
//! A conversation exists once for a customer and a business. Within it cases open and are resolved. The customer and at most one
//! agent take part; an assignment is a change of participants, so that the log refuses whatever a former agent sends.
//!
//! **Invariants:** whoever writes `cases`, `assignments` or the participants of a business conversation holds the row of the
//! business, so decisions of one business follow each other; only after a pause the sweep sets `clock_from` of all cases
//! without it. Rows are locked in the order business, conversations by id, participants. All times are those of PostgreSQL, so gateways whose clocks differ decide alike.

mod availability;
mod case;
mod compare;
mod create;
mod decide;
mod due;
mod erase;
mod hours;
mod inbox;
mod ledger;
mod look;
mod measure;
mod pairing;
mod reads;
mod rights;
mod route;
mod settings;
mod staff;
mod status;
mod store;
mod sweep;
mod unattended;
mod wakes;
mod watch;

#[cfg(test)]
pub use compare::Comparison;
pub use compare::start as start_comparison;
pub use inbox::InboxQuery;
pub use staff::{ListOutcome, StaffList};
pub use sweep::start as start_sweep;
pub use wakes::run as run_wakes;
#[cfg(test)]
pub use watch::announce_changed;
pub use watch::run as run_watches;

use std::sync::Arc;

use chat_shared::{
    clock::Timestamp,
    delivery::Delivery,
    ids::{BusinessId, ConversationId, UserId},
    inbox::Inboxes,
    log::Log,
    position::Seq,
};
use moka::sync::Cache;
use sqlx::{Acquire, PgConnection};
use tokio::{
    sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use self::{case::Move, store::Business, wakes::Wakes, watch::Watches};
use crate::{
    conversations::Conversations,
    database::{Database, bounded},
    delivery::Gateways,
    outbox::Outbox,
    profiles::Profiles,
    refusal::Refusal,
};

/// Transactions of businesses at a time, so that a burst at one business leaves connections to PostgreSQL for all else.
const TRANSACTIONS_MAX: usize = 3;
/// Conversations whose changes are brought to the log by one transaction.
const PUBLISHED_TOGETHER_MAX: usize = 64;
/// Businesses whose turns are remembered.
const TURNS_MAX: u64 = 10_000;

/// Everything about businesses. Clones share their state.
#[derive(Clone)]
pub struct Businesses {
    database: Database,
    inboxes: Inboxes,
    outbox: Outbox,
    gateways: Gateways,
    log: Log,
    conversations: Conversations,
    profiles: Profiles,
    turns: Cache<BusinessId, Arc<Mutex<()>>>,
    transactions: Arc<Semaphore>,
    wakes: Arc<Wakes>,
    watches: Arc<Watches>,
    availabilities: availability::Remembered,
    /// When a notifier was last known to run.
    notifier_at: Arc<parking_lot::Mutex<Option<Instant>>>,
}

/// The right to change one business from this gateway.
struct Turn {
    _business: OwnedMutexGuard<()>,
    _transaction: OwnedSemaphorePermit,
}

impl Businesses {
    /// Over the database that has them. Changes reach the log through `outbox`; `conversations` show what was changed.
    pub fn new(
        database: Database,
        inboxes: Inboxes,
        outbox: Outbox,
        gateways: Gateways,
        log: Log,
        conversations: Conversations,
        profiles: Profiles,
    ) -> Self {
        Self {
            database,
            inboxes,
            outbox,
            gateways,
            log,
            conversations,
            profiles,
            turns: Cache::new(TURNS_MAX),
            transactions: Arc::new(Semaphore::new(TRANSACTIONS_MAX)),
            wakes: Arc::default(),
            watches: Arc::default(),
            availabilities: availability::remembered(),
            notifier_at: Arc::default(),
        }
    }

    /// Waits until no other request of this gateway changes the business, before a connection to PostgreSQL is taken.
    async fn turn(&self, business_id: BusinessId) -> Result<Turn, Refusal> {
        let business = self.turns.get_with(business_id, Arc::default).lock_owned().await;
        let transaction = Arc::clone(&self.transactions).acquire_owned().await;
        Ok(Turn { _business: business, _transaction: transaction.map_err(|error| Refusal::internal(&error))? })
    }

    /// Locks the business, lets `decide` find what is to change by what PostgreSQL has, and changes it. Returns what `decide`
    /// returns beside the changes, once they are in the log.
    async fn change<T>(
        &self,
        business_id: BusinessId,
        decide: impl AsyncFnOnce(&mut PgConnection, &Business) -> Result<(T, Vec<Move>), Refusal>,
    ) -> Result<T, Refusal> {
        self.change_everywhere(business_id, decide).await.map(|(found, _)| found)
    }

    /// As `change`, and whether every gateway has taken in which agents take part no longer.
    async fn change_everywhere<T>(
        &self,
        business_id: BusinessId,
        decide: impl AsyncFnOnce(&mut PgConnection, &Business) -> Result<(T, Vec<Move>), Refusal>,
    ) -> Result<(T, bool), Refusal> {
        let turn = self.turn(business_id).await?;
        let mut connection = self.database.connection().await?;
        let mut transaction = bounded(connection.begin()).await?;
        let business = store::lock(&mut transaction, business_id).await?.ok_or_else(Refusal::no_such_business)?;
        let (found, moves) = decide(&mut transaction, &business).await?;
        store::apply(&mut transaction, &business, &moves).await?;
        bounded(transaction.commit()).await?;
        drop(connection);
        drop(turn);
        self.note_moves(business_id, &moves).await;
        let is_heard = self.publish(&moves).await;
        Ok((found, is_heard))
    }

    /// Notes that the staff of the business and whoever a change concerns have to see what was committed.
    async fn note_moves(&self, business_id: BusinessId, moves: &[Move]) {
        let of_move = |change: &Move| [Some(change.after.customer_id), change.after.agent_id, change.removed()];
        let users = moves.iter().flat_map(of_move).flatten().map(UserId::as_uuid);
        self.database.note_change(&users.chain([business_id.as_uuid()]).collect::<Vec<_>>()).await;
    }

    /// Brings changes to the log, and waits until nothing more is pushed to agents that take part no longer. False if a gateway
    /// has not confirmed that in time.
    async fn publish(&self, moves: &[Move]) -> bool {
        if let Some(first) = moves.first() {
            self.note_changed(first.after.business_id);
        }
        for some in moves.chunks(PUBLISHED_TOGETHER_MAX) {
            let conversations: Vec<_> = some.iter().map(|change| change.after.conversation_id).collect();
            self.outbox.publish_all(&conversations).await;
        }
        let telling = moves.iter().filter_map(|change| {
            let (conversation_id, version) = (change.after.conversation_id, change.after.version);
            Some(Delivery::ParticipantRemoved { conversation_id, user_id: change.removed()?, version })
        });
        let telling = telling.map(async |delivery| self.gateways.tell(&delivery).await);
        futures_util::future::join_all(telling).await.into_iter().all(|is_heard| is_heard)
    }

    /// Notes that a notifier runs: agents are pushed what they are assigned.
    pub fn note_notifier(&self) {
        *self.notifier_at.lock() = Some(Instant::now());
    }

    /// Lets the router look at a business soon: an agent has room, or a case waits.
    pub fn wake(&self, business_id: BusinessId) {
        self.note_changed(business_id);
        self.wakes.add(business_id, None);
    }

    /// As `wake`, after a customer's message in a conversation whose case is resolved.
    pub fn wake_for(&self, business_id: BusinessId, conversation_id: ConversationId, seq: Seq) {
        self.wakes.add(business_id, Some((conversation_id, seq)));
    }
}

/// A moment as PostgreSQL takes it.
fn sql(at: Timestamp) -> time::OffsetDateTime {
    at.into()
}
