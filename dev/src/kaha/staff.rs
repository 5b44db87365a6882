//! The staff of businesses, as kaha-main-v3 keeps them.

use std::{collections::HashMap, sync::Mutex};

use chat_shared::wire::StaffRole;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::stand_in::lock;

/// Businesses whose staff is kept; with more, all lists are forgotten.
const BUSINESSES_MAX: usize = 100_000;

/// A member of a staff list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The user.
    pub user_id: Uuid,
    /// The role in the business.
    pub role: StaffRole,
    /// Cases that the member may have at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
}

impl From<(Uuid, StaffRole)> for Member {
    fn from((user_id, role): (Uuid, StaffRole)) -> Self {
        Self { user_id, role, capacity: None }
    }
}

/// The whole staff of a business, as of a version.
#[derive(Debug, Clone, Default)]
pub struct StaffList {
    /// Grows with each change.
    pub version: u64,
    /// All members.
    pub staff: Vec<Member>,
}

/// The lists of all businesses. Changing one pushes nothing to the chat.
#[derive(Debug, Default)]
pub struct StaffLists(Mutex<HashMap<Uuid, StaffList>>);

impl StaffLists {
    /// That of a business; `None` if the business is not known.
    pub fn get(&self, business_id: Uuid) -> Option<StaffList> {
        lock(&self.0).get(&business_id).cloned()
    }

    /// Replaces the list of a business, whatever its version.
    pub fn set(&self, business_id: Uuid, version: u64, staff: &[impl Into<Member> + Copy]) {
        let mut lists = lock(&self.0);
        if lists.len() >= BUSINESSES_MAX {
            lists.clear();
        }
        let staff = staff.iter().map(|member| (*member).into()).collect();
        lists.insert(business_id, StaffList { version, staff });
    }

    /// As `set`, unless the list of the business has that version or a newer one.
    pub fn advance(&self, business_id: Uuid, version: u64, staff: &[impl Into<Member> + Copy]) {
        if self.get(business_id).is_none_or(|list| list.version < version) {
            self.set(business_id, version, staff);
        }
    }

    /// From now on the business is not known.
    pub fn forget(&self, business_id: Uuid) {
        lock(&self.0).remove(&business_id);
    }

    /// The entry of a business in an answer, with fields that were not agreed on.
    pub(super) fn entry(&self, business_id: Uuid) -> Option<Value> {
        let StaffList { version, staff } = self.get(business_id)?;
        Some(json!({ "business_id": business_id, "version": version, "staff": staff, "plan": { "name": "tea" } }))
    }
}
