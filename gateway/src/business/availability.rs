//! Whether a business answers now, as customers are shown it (R7.3, R7.4): aggregated from its hours and its agents, when it is
//! asked for.

use std::time::Duration;

use chat_shared::{
    ids::BusinessId,
    wire::{Availability, BusinessAvailability, StaffLoad, StaffStatus},
};
use moka::sync::Cache;

use super::{Businesses, store::Business};
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
        let look = self.look(&[business_id]).await?.remove(&business_id).ok_or_else(Refusal::no_such_business)?;
        self.availabilities.insert(business_id, look.availability);
        Ok(look.availability)
    }
}

/// The availability of a business by its hours and its staff.
pub(super) fn aggregate(business: &Business, staff: &[StaffLoad], waiting: u32) -> BusinessAvailability {
    let hours = &business.settings.hours;
    let opening = business.opening();
    let mut reachable = staff.iter().filter(|member| is_there(member)).peekable();
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

/// Whether a member of the staff is available and reachable, however many cases it has.
pub(super) fn is_there(member: &StaffLoad) -> bool {
    member.status == StaffStatus::Available && member.is_reachable && member.capacity > 0
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

    fn agent(is_available: bool, is_reachable: bool, load: u32) -> StaffLoad {
        let status = if is_available { StaffStatus::Available } else { StaffStatus::Away };
        StaffLoad { user_id: UserId::random(), role: StaffRole::Agent, status, is_reachable, load, capacity: 2 }
    }

    #[test]
    fn the_availability_of_a_business_is_that_of_its_agents_r7_3() {
        let table = [
            (vec![], Availability::Away),
            (vec![agent(false, true, 0)], Availability::Away),
            (vec![agent(true, false, 0)], Availability::Away),
            (vec![agent(true, true, 2), agent(false, true, 0)], Availability::Busy),
            (vec![agent(true, true, 2), agent(true, true, 1)], Availability::Available),
        ];
        for (staff, expected) in table {
            let shown = aggregate(&business(true), &staff, 7);
            assert_eq!(shown.state, expected, "{staff:?}");
            assert_eq!(shown.waiting, (expected == Availability::Busy).then_some(7));
        }
    }

    #[test]
    fn hours_close_a_business_if_they_are_enforced_and_are_shown_in_any_case_r7_4() {
        let staff = [agent(true, true, 0)];
        let shown = |is_enforced, hour: i64| {
            let business = Business { now: Timestamp(hour * 3_600_000), ..business(is_enforced) };
            let shown = aggregate(&business, &staff, 0);
            let hours = |at: Option<Timestamp>| at.map(|at| at.0 / 3_600_000);
            (shown.state, hours(shown.opens_at), hours(shown.closes_at))
        };
        assert_eq!(shown(true, 11), (Availability::Available, None, Some(18)));
        assert_eq!(shown(true, 18), (Availability::Closed, Some(7 * 24 + 10), None));
        assert_eq!(shown(false, 18), (Availability::Available, Some(7 * 24 + 10), None));
        let closed = Business { is_open: false, ..business(false) };
        let shown = aggregate(&closed, &staff, 0);
        assert_eq!((shown.state, shown.closes_at), (Availability::Closed, None));
    }
}
