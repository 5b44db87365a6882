//! Devices that users have registered for notifications. The notifier reads them; what it finds dead it removes.
//!
//! **Invariant:** an address is kept sealed, is never shown again, and belongs to one device of one user.

mod store;
mod validate;

use std::sync::Arc;

use chat_shared::{clock::Clock, inbox::Inboxes, sealing::MasterKeys};

use crate::database::Database;

/// Registers devices, shows and removes them.
#[derive(Clone)]
pub struct Devices {
    database: Database,
    inboxes: Inboxes,
    master_keys: Arc<MasterKeys>,
    clock: Clock,
    allows_loopback: bool,
}

impl Devices {
    /// Over the database that has them; `allows_loopback` lets browsers' subscriptions name this machine.
    pub const fn new(
        database: Database,
        inboxes: Inboxes,
        master_keys: Arc<MasterKeys>,
        clock: Clock,
        allows_loopback: bool,
    ) -> Self {
        Self { database, inboxes, master_keys, clock, allows_loopback }
    }
}
