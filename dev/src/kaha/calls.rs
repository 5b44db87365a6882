//! What was asked of kaha-main-v3: each call, what was wrong with it, and which ids were asked for twice at once.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex},
};

use tokio::time::Instant;
use uuid::Uuid;

use crate::stand_in::lock;

/// Calls kept; when there are more, the oldest is forgotten.
const CALLS_MAX: usize = 10_000;

/// Complaints kept; when there are more, the oldest is forgotten.
const COMPLAINTS_MAX: usize = 1000;

/// Ids whose calls are counted; with more, those that nobody waits for are forgotten.
const IDS_MAX: usize = 200_000;

/// A call that was in order.
#[derive(Debug, Clone)]
pub struct Call {
    /// The users asked for.
    pub user_ids: Vec<Uuid>,
    /// The businesses asked for.
    pub business_ids: Vec<Uuid>,
    /// When it came.
    pub at: Instant,
}

impl Call {
    /// Everything that it asks for.
    pub fn ids(&self) -> impl Iterator<Item = Uuid> {
        self.user_ids.iter().chain(&self.business_ids).copied()
    }
}

/// A call that was refused for what it was.
#[derive(Debug, Clone)]
pub struct Complaint {
    /// Status of the answer.
    pub status: u16,
    /// What was wrong, for people.
    pub reason: String,
}

/// All of them, in the order of their coming.
#[derive(Debug, Default)]
pub struct Calls {
    right: Mutex<VecDeque<Call>>,
    complaints: Mutex<VecDeque<Complaint>>,
    in_flight: Mutex<HashMap<Uuid, InFlight>>,
}

#[derive(Debug, Default)]
struct InFlight {
    now: usize,
    max: usize,
}

impl Calls {
    /// Those that were in order.
    pub fn all(&self) -> Vec<Call> {
        lock(&self.right).iter().cloned().collect()
    }

    /// Those that asked for at least one of these ids.
    pub fn for_any(&self, ids: &[Uuid]) -> Vec<Call> {
        let ids: HashSet<_> = ids.iter().collect();
        lock(&self.right).iter().filter(|call| call.ids().any(|id| ids.contains(&id))).cloned().collect()
    }

    /// Why calls were refused. A gateway never gives reason to.
    pub fn complaints(&self) -> Vec<Complaint> {
        lock(&self.complaints).iter().cloned().collect()
    }

    /// In how many calls at once an id was asked for, at most. A call whose caller has hung up counts until that is
    /// noticed.
    pub fn max_in_flight(&self, id: Uuid) -> usize {
        lock(&self.in_flight).get(&id).map_or(0, |in_flight| in_flight.max)
    }

    pub(super) fn complain(&self, complaint: Complaint) {
        push(&self.complaints, complaint, COMPLAINTS_MAX);
    }

    /// Notes a call, which is in flight until what this returns is dropped.
    pub(super) fn begin(self: &Arc<Self>, call: Call) -> Flight {
        let ids: Vec<_> = call.ids().collect();
        push(&self.right, call, CALLS_MAX);
        let mut in_flight = lock(&self.in_flight);
        if in_flight.len() + ids.len() > IDS_MAX {
            in_flight.retain(|_, in_flight| in_flight.now > 0);
        }
        for id in &ids {
            let in_flight = in_flight.entry(*id).or_default();
            in_flight.now += 1;
            in_flight.max = in_flight.max.max(in_flight.now);
        }
        drop(in_flight);
        Flight { calls: Arc::clone(self), ids }
    }
}

fn push<T>(list: &Mutex<VecDeque<T>>, item: T, max: usize) {
    let mut list = lock(list);
    if list.len() >= max {
        list.pop_front();
    }
    list.push_back(item);
}

/// A call that is being answered.
#[derive(Debug)]
pub(super) struct Flight {
    calls: Arc<Calls>,
    ids: Vec<Uuid>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut in_flight = lock(&self.calls.in_flight);
        for id in &self.ids {
            if let Some(in_flight) = in_flight.get_mut(id) {
                in_flight.now = in_flight.now.saturating_sub(1);
            }
        }
    }
}
