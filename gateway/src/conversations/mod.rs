//! Conversations and who takes part in them, as PostgreSQL has them.
//!
//! A change is one transaction that raises the version and leaves a row in the outbox; the log hears of it afterwards.
//! **Invariant:** a user who doesn't take part gets the same answer as for a conversation that doesn't exist.

mod blocks;
mod changes;
mod create;
mod cursor;
mod list;
mod memberships;
mod mute;
mod record;
mod rules;

pub use blocks::blocked_among;
pub use changes::{insert_outbox, insert_participants};
pub use create::Created;
pub use memberships::ExportedConversation;
pub use record::{Membership, UnreadableRow, head, membership, newest_head, stored_head, stored_id};

use chat_shared::{clock::Clock, inbox::Inboxes, log::Log};

use crate::{
    business::Businesses, content::Content, database::Database, delivery::Gateways, outbox::Outbox, profiles::Profiles,
    quota::Quotas, send::Sender,
};

/// Makes, shows and changes conversations.
#[derive(Clone)]
pub struct Conversations {
    database: Database,
    inboxes: Inboxes,
    outbox: Outbox,
    content: Content,
    clock: Clock,
    profiles: Profiles,
    gateways: Gateways,
    quotas: Quotas,
}

impl Conversations {
    /// Over the database that has them; changes reach the log through `sender`, `inboxes` know what was
    /// delivered, `profiles` what everybody is called, and all `gateways` are told who has left.
    pub fn new(
        database: Database,
        inboxes: Inboxes,
        sender: Sender,
        content: Content,
        clock: Clock,
        profiles: Profiles,
        gateways: Gateways,
    ) -> Self {
        let quotas = sender.quotas().clone();
        let outbox = Outbox::new(database.clone(), sender);
        Self { database, inboxes, outbox, content, clock, profiles, gateways, quotas }
    }

    /// The businesses of the same database, over the same log.
    pub fn businesses(&self, log: Log) -> Businesses {
        let (database, outbox, gateways) = (self.database.clone(), self.outbox.clone(), self.gateways.clone());
        Businesses::new(database, self.inboxes.clone(), outbox, gateways, log, self.clone(), self.profiles.clone())
    }
}
