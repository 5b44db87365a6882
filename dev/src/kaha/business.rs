//! A business to try things with, whose ids stay the same in one data directory.

use chat_shared::wire::StaffRole;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::people::Person;

/// Its name.
const NAME: &str = "Himal Tea House";

/// Names and roles of its staff.
const STAFF: [(&str, StaffRole); 5] = [
    ("Indira", StaffRole::Agent),
    ("Jeevan", StaffRole::Agent),
    ("Kamala", StaffRole::Agent),
    ("Laxman", StaffRole::Supervisor),
    ("Maya", StaffRole::Admin),
];

/// A business and its staff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Business {
    /// The business id, a UUID v4.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Three agents, a supervisor and an admin.
    pub staff: Vec<StaffMember>,
}

/// A member of the staff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaffMember {
    /// The user.
    #[serde(flatten)]
    pub person: Person,
    /// The role in the business.
    pub role: StaffRole,
}

impl Business {
    /// A new one.
    pub(super) fn random() -> Self {
        let staff = STAFF
            .map(|(name, role)| StaffMember { person: Person { id: Uuid::new_v4(), name: name.to_owned() }, role });
        Self { id: Uuid::new_v4(), name: NAME.to_owned(), staff: staff.into() }
    }
}
