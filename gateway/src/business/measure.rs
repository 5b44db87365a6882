//! The gauges that operators see of cases, of the whole installation.

use std::time::Duration;

use chat_shared::{
    ids::{BusinessId, UserId},
    wire::StaffLoad,
};

use super::{Businesses, availability::is_there};
use crate::{conversations::stored_id, database::bounded, refusal::Refusal, telemetry};

/// Times that a case is given back before supervisors have to look at it. The router goes on.
const GIVEN_BACK_MAX: i16 = 5;
/// How long a case may wait although an agent could take it.
const STARVED_AFTER: Duration = Duration::from_mins(1);
/// Waiting cases that are compared with the staff in one pass, the oldest first.
const COMPARED_MAX: i64 = 500;

/// A case that has been waiting for long.
struct LongWaiting {
    business_id: BusinessId,
    customer_id: UserId,
    missed_by: Vec<UserId>,
}

impl Businesses {
    /// Sets the gauges.
    pub(super) async fn measure(&self) -> Result<(), Refusal> {
        let mut connection = self.database.connection().await?;
        let row = bounded(
            sqlx::query!(
                r#"select count(*) as "waiting!", coalesce(extract(epoch from clock_timestamp() - min(waiting_since)), 0)::float8
                       as "oldest!",
                       count(*) filter (where given_back >= $1) as "bounced!"
                   from cases where state = 'waiting'"#,
                GIVEN_BACK_MAX
            )
            .fetch_one(&mut *connection),
        )
        .await?;
        let available = bounded(
            sqlx::query_scalar!(r#"select count(*) as "count!" from staff where status = 'available'"#)
                .fetch_one(&mut *connection),
        )
        .await?;
        drop(connection);
        metrics::gauge!(telemetry::CASES_WAITING).set(telemetry::as_gauge(row.waiting));
        metrics::gauge!(telemetry::CASES_WAITING_OLDEST_SECONDS).set(row.oldest.max(0.0));
        metrics::gauge!(telemetry::CASES_BOUNCED).set(telemetry::as_gauge(row.bounced));
        metrics::gauge!(telemetry::STAFF_AVAILABLE).set(telemetry::as_gauge(available));
        Ok(())
    }

    /// Counts the cases that wait although an agent could take them. While Redis is away the count stays as it is.
    pub(super) async fn measure_starved(&self) -> Result<(), Refusal> {
        let mut connection = self.database.connection().await?;
        let rows = bounded(
            sqlx::query!(
                "select k.business_id, k.customer_id, k.missed_by from cases k join businesses b using (business_id)
                 where k.state = 'waiting' and k.waiting_since < clock_timestamp() - make_interval(secs => $1)
                     and b.is_open and b.strategy <> 'manual'
                     and exists (select from staff s where s.business_id = k.business_id and s.status = 'available')
                 order by k.waiting_since limit $2",
                STARVED_AFTER.as_secs_f64(),
                COMPARED_MAX
            )
            .fetch_all(&mut *connection),
        )
        .await?;
        drop(connection);
        let cases = rows.into_iter().map(|row| {
            Ok(LongWaiting {
                business_id: stored_id(row.business_id)?,
                customer_id: stored_id(row.customer_id)?,
                missed_by: row.missed_by.into_iter().map(stored_id).collect::<Result<_, _>>()?,
            })
        });
        let cases = cases.collect::<Result<Vec<_>, Refusal>>()?;
        let mut businesses: Vec<_> = cases.iter().map(|case| case.business_id).collect();
        businesses.sort_unstable();
        businesses.dedup();
        let looks = self.look(&businesses).await?;
        if looks.values().any(|look| !look.is_reach_known) {
            return Ok(());
        }
        let starved = cases.iter().filter(|case| {
            let look = looks.get(&case.business_id).filter(|look| look.is_routing);
            look.is_some_and(|look| is_starved(case, &look.staff))
        });
        let starved = i64::try_from(starved.count()).unwrap_or(i64::MAX);
        metrics::gauge!(telemetry::CASES_STARVED).set(telemetry::as_gauge(starved));
        Ok(())
    }
}

/// Whether an agent could take the case. An agent that has missed the case takes it only if no other one is reachable, so it
/// does not count.
fn is_starved(case: &LongWaiting, staff: &[StaffLoad]) -> bool {
    staff.iter().any(|agent| {
        let has_room = is_there(agent) && agent.load < agent.capacity;
        has_room && agent.user_id != case.customer_id && !case.missed_by.contains(&agent.user_id)
    })
}

#[cfg(test)]
mod tests {
    use chat_shared::wire::{StaffRole, StaffStatus};

    use super::*;

    #[test]
    fn a_case_is_starved_if_an_agent_could_take_it() {
        let agent = StaffLoad {
            user_id: UserId::random(),
            role: StaffRole::Agent,
            status: StaffStatus::Available,
            is_reachable: true,
            load: 1,
            capacity: 2,
        };
        let case = LongWaiting { business_id: BusinessId::random(), customer_id: UserId::random(), missed_by: vec![] };
        assert!(is_starved(&case, &[agent]));
        assert!(!is_starved(&LongWaiting { missed_by: vec![agent.user_id], ..case }, &[agent]));
        let case = LongWaiting { business_id: BusinessId::random(), customer_id: UserId::random(), missed_by: vec![] };
        for agent in [
            StaffLoad { status: StaffStatus::Away, ..agent },
            StaffLoad { is_reachable: false, ..agent },
            StaffLoad { load: 2, ..agent },
            StaffLoad { user_id: case.customer_id, ..agent },
        ] {
            assert!(!is_starved(&case, &[agent]), "{agent:?}");
        }
        assert!(!is_starved(&case, &[]));
    }
}
