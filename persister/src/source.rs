//! The log as PostgreSQL is compared with it, so that a database that has come back older is noticed.

use chat_shared::log::{Log, LogState};

use crate::{checkpoint::Verified, store::Store, worker::CONSUMER};

/// Where the entries come from.
#[derive(Debug, Clone)]
pub struct Source {
    /// The log.
    pub log: Log,
    /// Which stream it was when this process started.
    pub state: LogState,
}

/// Why the database may not be written.
#[derive(Debug, thiserror::Error)]
pub enum Unverified {
    /// PostgreSQL did not answer.
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
    /// NATS did not answer.
    #[error(transparent)]
    Log(#[from] chat_shared::log::LogError),
    /// The checkpoint is that of another stream of the same name. The watch of the log ends the process.
    #[error("the checkpoint in PostgreSQL is that of another log of the same name")]
    OtherLog,
}

impl Source {
    /// Notes in the checkpoint how far the log is acknowledged, and verifies the database if it may have come back older.
    pub async fn look(&self, store: &Store) -> Result<(), Unverified> {
        // Before the checkpoint is read: entries are acknowledged after they have been stored.
        let acked = self.log.settled_by(CONSUMER).await?;
        if store.note_acked(&self.state, acked).await? { Ok(()) } else { self.verify(store).await }
    }

    /// Compares the database with the log, and records what it may lack. After that it may be written.
    pub async fn verify(&self, store: &Store) -> Result<(), Unverified> {
        let acked = self.log.settled_by(CONSUMER).await?;
        // All that was ever stored had been in the log by now, also what others are about to acknowledge.
        let last = self.log.state().await?.last;
        match store.verify(&self.state, acked, last).await? {
            Verified::Known => Ok(()),
            Verified::OtherLog => Err(Unverified::OtherLog),
            Verified::Recorded { first, last, is_older: false } => {
                tracing::info!(
                    first = first.0,
                    last = last.0,
                    "PostgreSQL was started again: what was stored shortly before is stored once more, in case it is missing"
                );
                Ok(())
            }
            Verified::Recorded { first, last, is_older: true } => {
                tracing::error!(
                    first = first.0,
                    last = last.0,
                    acked = acked.0,
                    "PostgreSQL is older than what was acknowledged: entries of the log are missing, and are stored again"
                );
                Ok(())
            }
        }
    }
}
