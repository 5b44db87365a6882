//! The connections of this gateway, by user.

use std::sync::Arc;

use chat_shared::{
    ids::{ConversationId, SessionId, UserId},
    limits,
    wire::CloseCode,
};
use dashmap::{DashMap, mapref::entry::Entry};

use super::{Connection, Removals};
use crate::telemetry;

/// Who is connected.
#[derive(Clone, Default)]
pub struct Registry {
    users: Arc<DashMap<UserId, User>>,
    removals: Arc<Removals>,
}

#[derive(Default)]
struct User {
    /// Connections admitted, those included that have not said hello yet.
    admitted: usize,
    connections: Vec<Arc<Connection>>,
}

/// The right to one connection of a user, given back when it is dropped.
pub struct Admission {
    registry: Registry,
    user_id: UserId,
}

impl Registry {
    /// Admits one more connection of the user, unless they have too many.
    pub fn admit(&self, user_id: UserId) -> Option<Admission> {
        let mut user = self.users.entry(user_id).or_default();
        if user.admitted >= limits::CONNECTIONS_PER_USER_MAX {
            return None;
        }
        user.admitted += 1;
        metrics::gauge!(telemetry::CONNECTIONS).increment(1);
        Some(Admission { registry: self.clone(), user_id })
    }

    /// Shows a connection to those who deliver.
    pub fn add(&self, connection: Arc<Connection>) {
        self.users.entry(connection.user_id).or_default().connections.push(connection);
    }

    /// Hides a connection from those who deliver.
    pub fn remove(&self, connection: &Connection) {
        if let Some(mut user) = self.users.get_mut(&connection.user_id) {
            user.connections.retain(|other| other.session_id != connection.session_id);
        }
    }

    /// The user's connections.
    pub fn of(&self, user_id: UserId) -> Vec<Arc<Connection>> {
        self.users.get(&user_id).map(|user| user.connections.clone()).unwrap_or_default()
    }

    /// All connections, as of now.
    pub fn all(&self) -> Vec<Arc<Connection>> {
        self.users.iter().flat_map(|user| user.connections.clone()).collect()
    }

    /// Takes in that a user takes part in a conversation no longer: nothing more of it is pushed to them, and what waits to
    /// be written is taken back.
    pub fn removed(&self, user_id: UserId, conversation_id: ConversationId, version: u64) {
        self.removals.note(user_id, conversation_id, version);
        for connection in self.of(user_id) {
            connection.take_back(conversation_id, version);
        }
    }

    /// What this gateway knows of removals.
    pub fn removals(&self) -> Arc<Removals> {
        Arc::clone(&self.removals)
    }

    /// Ends the connection of a session.
    pub fn close(&self, user_id: UserId, session_id: SessionId, code: CloseCode) {
        for connection in self.of(user_id) {
            if connection.session_id == session_id {
                connection.close(code);
            }
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        metrics::gauge!(telemetry::CONNECTIONS).decrement(1);
        if let Entry::Occupied(mut user) = self.registry.users.entry(self.user_id) {
            user.get_mut().admitted -= 1;
            if user.get().admitted == 0 {
                user.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_so_many_connections_and_no_more() {
        let registry = Registry::default();
        let user_id = UserId::random();
        let mut admissions: Vec<_> =
            (0..limits::CONNECTIONS_PER_USER_MAX).map(|_| registry.admit(user_id).unwrap()).collect();
        assert!(registry.admit(user_id).is_none());
        assert!(registry.admit(UserId::random()).is_some());
        admissions.pop();
        assert!(registry.admit(user_id).is_some());
        drop(admissions);
        assert!(registry.users.is_empty(), "nothing is kept of who is gone");
    }
}
