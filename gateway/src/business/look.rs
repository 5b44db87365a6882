//! The state of businesses now: what customers are shown, what staff see of the queue, and what operators have to know.

use std::{collections::HashMap, time::Duration};

use chat_shared::{
    clock::Timestamp,
    ids::{BusinessId, UserId},
    wire::{BusinessAvailability, BusinessQueue, StaffLoad, StaffStatus, Strategy, WatchedBusiness},
};

use super::{
    Businesses,
    availability::aggregate,
    route::Reach,
    store::{self, Business, Member, Queue},
};
use crate::refusal::Refusal;

/// The state of a business.
pub(super) struct Look {
    pub availability: BusinessAvailability,
    pub queue: Queue,
    /// When it was looked at, by the clock of PostgreSQL.
    pub at: Timestamp,
    /// Sorted by id.
    pub staff: Vec<StaffLoad>,
    /// Whether the router gives its cases to agents now.
    pub is_routing: bool,
    /// How long until its hours begin or end.
    pub changes_in: Option<Duration>,
}

impl Businesses {
    /// The state of businesses, by three statements and one question to Redis; those that do not exist are left out.
    pub(super) async fn look(&self, business_ids: &[BusinessId]) -> Result<HashMap<BusinessId, Look>, Refusal> {
        let mut connection = self.database.connection().await?;
        let businesses = store::businesses(&mut connection, business_ids).await?;
        let mut staff: HashMap<BusinessId, Vec<Member>> = HashMap::new();
        for (business_id, member) in store::staff_of(&mut connection, business_ids, None).await? {
            staff.entry(business_id).or_default().push(member);
        }
        let mut queues = store::queues(&mut connection, business_ids).await?;
        drop(connection);
        let users: Vec<_> = staff.values().flatten().map(|member| member.user_id).collect();
        let reach = self.reach(&users).await;
        // Without those whose hours can't be read, which is logged.
        let looks = businesses.into_iter().flatten().map(|business| {
            let business_id = business.business_id;
            let staff = staff.remove(&business_id).unwrap_or_default();
            let queue = queues.remove(&business_id).unwrap_or_default();
            (business_id, Look::new(&business, &staff, &reach, queue))
        });
        Ok(looks.collect())
    }
}

impl Look {
    fn new(business: &Business, staff: &[Member], reach: &Reach, queue: Queue) -> Self {
        let until = |at: Timestamp| Duration::from_millis(at.0.saturating_sub(business.now.0).max(0).unsigned_abs());
        Self {
            availability: aggregate(business, staff, reach, queue.waiting),
            queue,
            at: business.now,
            staff: staff.iter().map(|member| load(member, reach)).collect(),
            is_routing: business.is_open && business.is_routing() && business.settings.strategy != Strategy::Manual,
            changes_in: business.opening().changes_at.map(until),
        }
    }

    /// The state as a user is shown it: members of the staff see the queue, supervisors the staff.
    pub fn shown_to(&self, user_id: UserId) -> WatchedBusiness {
        let own = self.staff.iter().find(|member| member.user_id == user_id);
        let queue = own.map(|own| BusinessQueue {
            waiting: self.queue.waiting,
            oldest_waiting_since: self.queue.oldest_waiting_since,
            mine: own.load,
            staff: own.role.leads().then(|| self.staff.clone()),
        });
        WatchedBusiness { availability: self.availability, queue }
    }
}

fn load(member: &Member, reach: &Reach) -> StaffLoad {
    StaffLoad {
        user_id: member.user_id,
        role: member.role,
        status: if member.is_available { StaffStatus::Available } else { StaffStatus::Away },
        is_reachable: member.is_reachable(reach),
        load: member.load,
        capacity: member.capacity,
    }
}
