//! Whether a business answers now, as customers are shown it (R7.3, R7.4): aggregated from its hours and its agents, when it is
//! asked for.

use std::time::Duration;

use chat_shared::{
    ids::BusinessId,
    wire::{Availability, BusinessAvailability},
};
use moka::sync::Cache;

use super::{
    Businesses,
    route::Reach,
    store::{self, Business, Member},
};
use crate::refusal::Refusal;

/// How long an answer is given again.
const REMEMBERED_FOR: Duration = Duration::from_secs(5);
/// Businesses whose answers are remembered.
const REMEMBERED_MAX: u64 = 10_000;

/// The answers of the last seconds.
pub(super) type Remembered = Cache<BusinessId, BusinessAvailability>;

/// No answer yet.
pub(super) fn remembered() -> Remembered {
    Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(REMEMBERED_FOR).build()
}

impl Businesses {
    /// Whether a business answers now. At most five seconds old.
    pub async fn availability(&self, business_id: BusinessId) -> Result<BusinessAvailability, Refusal> {
        if let Some(known) = self.availabilities.get(&business_id) {
            return Ok(known);
        }
        let mut connection = self.database.connection().await?;
        let business = store::read(&mut connection, business_id).await?.ok_or_else(Refusal::no_such_business)?;
        let staff = store::staff(&mut connection, business_id, None).await?;
        let waiting = store::count_waiting(&mut connection, business_id).await?;
        drop(connection);
        let available: Vec<_> =
            staff.iter().filter(|member| member.is_available).map(|member| member.user_id).collect();
        let reach = self.reach(&available).await;
        let found = aggregate(&business, &staff, &reach, waiting);
        self.availabilities.insert(business_id, found);
        Ok(found)
    }
}

/// The availability of a business by its hours and its staff.
fn aggregate(business: &Business, staff: &[Member], reach: &Reach, waiting: u32) -> BusinessAvailability {
    let hours = &business.settings.hours;
    let opening = business.opening();
    let mut reachable = staff.iter().filter(|member| is_reachable(member, reach)).peekable();
    let state = if !business.is_open || (hours.is_enforced && !opening.is_open) {
        Availability::Closed
    } else if reachable.peek().is_none() {
        Availability::Away
    } else if reachable.all(|member| member.load >= member.capacity) {
        Availability::Busy
    } else {
        Availability::Available
    };
    BusinessAvailability {
        business_id: business.business_id,
        state,
        opens_at: opening.changes_at.filter(|_| business.is_open && !opening.is_open),
        closes_at: opening.changes_at.filter(|_| business.is_open && opening.is_open),
        waiting: (state == Availability::Busy).then_some(waiting),
    }
}

/// Whether a member of the staff is there for customers, however many cases it has.
pub(super) fn is_reachable(member: &Member, reach: &Reach) -> bool {
    member.is_available && member.capacity > 0 && (reach.is_online(member.user_id) || member.has_device)
}

#[cfg(test)]
mod tests {
    use chat_shared::{
        clock::Timestamp,
        ids::UserId,
        wire::{BusinessSettings, Clocks, Hours, StaffRole, Strategy, Weekday, WeeklySpans},
    };

    use super::*;

    fn business(is_enforced: bool) -> Business {
        let clocks = Clocks { answer_max_s: 1, notified_max_s: 1, reply_max_s: 1, quiet_max_s: 1, affinity_s: 1 };
        // Of 1970-01-01 in UTC, a Thursday.
        let weekly = WeeklySpans { days: vec![Weekday::Thu], opens: "10:00".into(), closes: "18:00".into() };
        let hours = Hours { zone: "UTC".into(), is_enforced, weekly: vec![weekly], exceptions: Vec::new() };
        Business {
            business_id: BusinessId::random(),
            is_open: true,
            staff_version: 1,
            settings: BusinessSettings {
                settings_version: 1,
                strategy: Strategy::LeastBusy,
                capacity: 2,
                clocks,
                hours,
            },
            now: Timestamp(11 * 3_600_000),
        }
    }

    fn agent(is_available: bool, has_device: bool, load: u32) -> Member {
        let (user_id, role, capacity) = (UserId::random(), StaffRole::Agent, 2);
        Member { user_id, role, is_available, capacity, load, last_assigned_at: None, has_device }
    }

    #[test]
    fn the_availability_of_a_business_is_that_of_its_agents_r7_3() {
        let nobody_online = Reach::of([]);
        let table = [
            (vec![], Availability::Away),
            (vec![agent(false, true, 0)], Availability::Away),
            (vec![agent(true, false, 0)], Availability::Away),
            (vec![agent(true, true, 2), agent(false, true, 0)], Availability::Busy),
            (vec![agent(true, true, 2), agent(true, true, 1)], Availability::Available),
        ];
        for (staff, expected) in table {
            let shown = aggregate(&business(true), &staff, &nobody_online, 7);
            assert_eq!(shown.state, expected, "{staff:?}");
            assert_eq!(shown.waiting, (expected == Availability::Busy).then_some(7));
        }
        let online = agent(true, false, 0);
        let shown = aggregate(&business(true), &[online], &Reach::of([online.user_id]), 0);
        assert_eq!(shown.state, Availability::Available, "a connection is enough");
    }

    #[test]
    fn hours_close_a_business_if_they_are_enforced_and_are_shown_in_any_case_r7_4() {
        let staff = [agent(true, true, 0)];
        let shown = |is_enforced, hour: i64| {
            let business = Business { now: Timestamp(hour * 3_600_000), ..business(is_enforced) };
            let shown = aggregate(&business, &staff, &Reach::of([]), 0);
            let hours = |at: Option<Timestamp>| at.map(|at| at.0 / 3_600_000);
            (shown.state, hours(shown.opens_at), hours(shown.closes_at))
        };
        assert_eq!(shown(true, 11), (Availability::Available, None, Some(18)));
        assert_eq!(shown(true, 18), (Availability::Closed, Some(7 * 24 + 10), None));
        assert_eq!(shown(false, 18), (Availability::Available, Some(7 * 24 + 10), None));
        let closed = Business { is_open: false, ..business(false) };
        let shown = aggregate(&closed, &staff, &Reach::of([]), 0);
        assert_eq!((shown.state, shown.closes_at), (Availability::Closed, None));
    }
}
