//! The state of businesses now: what customers are shown, what staff see of the queue, and what operators have to know.

use std::{collections::HashMap, time::Duration};

use chat_shared::{
    clock::Timestamp,
    ids::{BusinessId, UserId},
    wire::{Availability, BusinessAvailability, BusinessQueue, StaffLoad, StaffStatus, Strategy, WatchedBusiness},
};

use super::{
    Businesses,
    availability::{aggregate, is_there},
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
    /// Those that are available and reachable first, then others that are available.
    pub staff: Vec<StaffLoad>,
    /// Whether Redis has answered which of the staff are connected. If not, all count as connected.
    pub is_reach_known: bool,
    /// Whether the router gives its cases to agents now.
    pub is_routing: bool,
}

/// Businesses of three statements and one question to Redis.
pub(super) const LOOKED_AT_TOGETHER_MAX: usize = 64;
/// Members of the staff that one push shows: those that are available first.
const SHOWN_MAX: usize = 50;

impl Businesses {
    /// The state of businesses. Left out: those that do not exist, and those whose hours can't be read, which is logged.
    pub(super) async fn look(&self, business_ids: &[BusinessId]) -> Result<HashMap<BusinessId, Look>, Refusal> {
        let mut looks = HashMap::with_capacity(business_ids.len());
        for some in business_ids.chunks(LOOKED_AT_TOGETHER_MAX) {
            looks.extend(self.look_at_some(some).await?);
        }
        Ok(looks)
    }

    async fn look_at_some(&self, business_ids: &[BusinessId]) -> Result<Vec<(BusinessId, Look)>, Refusal> {
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
        let mut staff: Vec<_> = staff.iter().map(|member| load(member, reach)).collect();
        staff.sort_by_key(|member| (!is_there(member), member.status != StaffStatus::Available, member.user_id));
        let availability = aggregate(business, &staff, queue.waiting);
        let is_closed = availability.state == Availability::Closed;
        Self {
            availability,
            queue,
            at: business.now,
            staff,
            is_reach_known: reach.is_known(),
            is_routing: !is_closed && business.settings.strategy != Strategy::Manual,
        }
    }

    /// How long until its hours begin or end, if they do.
    pub fn changes_in(&self) -> Option<Duration> {
        let at = self.availability.opens_at.or(self.availability.closes_at)?;
        Some(Duration::from_millis(at.0.saturating_sub(self.at.0).max(0).unsigned_abs()))
    }

    /// The state as a user is shown it: members of the staff see the queue, supervisors the staff.
    pub fn shown_to(&self, user_id: UserId) -> WatchedBusiness {
        let own = self.staff.iter().find(|member| member.user_id == user_id);
        let queue = own.map(|own| BusinessQueue {
            waiting: self.queue.waiting,
            oldest_waiting_since: self.queue.oldest_waiting_since,
            mine: own.load,
            staff: own.role.leads().then(|| self.staff.iter().take(SHOWN_MAX).copied().collect()),
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
