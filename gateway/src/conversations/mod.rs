//! Conversations and who takes part in them, as PostgreSQL has them.
//!
//! A change is one transaction that raises the version and leaves a row in the outbox; the log hears of it afterwards.
//! **Invariant:** a user who doesn't take part gets the same answer as for a conversation that doesn't exist.

mod changes;
mod create;
mod cursor;
mod list;
mod record;
mod rules;

pub use record::{Membership, head, membership};

use chat_shared::clock::Clock;

use crate::{content::Content, database::Database, outbox::Outbox, send::Sender};

/// Makes, shows and changes conversations.
#[derive(Clone)]
pub struct Conversations {
    database: Database,
    outbox: Outbox,
    content: Content,
    clock: Clock,
}

impl Conversations {
    /// Over the database that has them; changes reach the log through `sender`.
    pub fn new(database: Database, sender: Sender, content: Content, clock: Clock) -> Self {
        let outbox = Outbox::new(database.clone(), sender);
        Self { database, outbox, content, clock }
    }
}
