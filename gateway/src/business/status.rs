//! What agents say of themselves: available or away.

use chat_shared::{
    clock::Timestamp,
    ids::{BusinessId, UserId},
    wire::{ReleaseReason, SetStatus, StaffRole, StaffStatus, StaffedBusiness, StaffedBusinessList},
};

use super::{Businesses, decide::member, sql, store};
use crate::{conversations::stored_id, database::statement, refusal::Refusal};

/// Businesses of one user that are shown.
const BUSINESSES_MAX: i64 = 100;

impl Businesses {
    /// Sets whether the user takes cases of the business.
    pub async fn set_status(&self, by: UserId, business_id: BusinessId, request: SetStatus) -> Result<(), Refusal> {
        let SetStatus { status, until, gives_back } = request;
        let is_available = match status {
            StaffStatus::Available => true,
            StaffStatus::Away => false,
            StaffStatus::Unknown => return Err(Refusal::invalid("`status` is `available` or `away`")),
        };
        if until.is_some() && !is_available {
            return Err(Refusal::invalid("`until` goes with `available`"));
        }
        if gives_back && is_available {
            return Err(Refusal::invalid("`gives_back` goes with `away`"));
        }
        self.change(business_id, async |connection, business| {
            member(connection, business_id, by).await?.ok_or_else(Refusal::no_such_business)?;
            check_until(until, business.now)?;
            let setting = sqlx::query!(
                "update staff
                 set status = $3, status_at = $4, available_until = $5, missed_in_a_row = 0, unseen_since = null,
                     away_reason = case when $3 = 'away' then 'chosen' end
                 where business_id = $1 and user_id = $2",
                business_id.as_uuid(),
                by.as_uuid(),
                status.as_str(),
                sql(business.now),
                until.map(sql)
            );
            statement(setting.execute(&mut *connection)).await?;
            if !gives_back {
                return Ok(((), Vec::new()));
            }
            let own = store::of_agents(connection, business_id, &[by]).await?;
            let cases = store::cases(connection, &own).await?;
            Ok(((), cases.into_iter().map(|case| case.give_back(ReleaseReason::GivenBack)).collect()))
        })
        .await?;
        self.wake(business_id);
        Ok(())
    }

    /// The businesses of whose staff the user is.
    pub async fn staffed(&self, user_id: UserId) -> Result<StaffedBusinessList, Refusal> {
        let mut connection = self.database.connection().await?;
        let reading = sqlx::query!(
            r#"select s.business_id, s.role, s.status, s.available_until, coalesce(s.capacity, b.capacity) as "capacity!",
                   (
                       select count(*) from cases k
                       where k.business_id = s.business_id and k.agent_id = s.user_id and k.state = 'assigned'
                   ) as "load!",
                   (
                       select count(*) from cases k where k.business_id = s.business_id and k.state = 'waiting'
                   ) as "waiting!"
               from staff s join businesses b using (business_id)
               where s.user_id = $1
               order by s.business_id limit $2"#,
            user_id.as_uuid(),
            BUSINESSES_MAX
        );
        let rows = statement(reading.fetch_all(&mut *connection)).await?;
        let count = |count: i64| u32::try_from(count).unwrap_or(u32::MAX);
        let businesses = rows.into_iter().map(|row| {
            Ok(StaffedBusiness {
                business_id: stored_id(row.business_id)?,
                role: StaffRole::named(&row.role),
                status: StaffStatus::named(&row.status),
                available_until: row.available_until.map(Timestamp::from),
                load: count(row.load),
                capacity: row.capacity.unsigned_abs(),
                waiting: count(row.waiting),
            })
        });
        Ok(StaffedBusinessList { businesses: businesses.collect::<Result<_, Refusal>>()? })
    }
}

fn check_until(until: Option<Timestamp>, now: Timestamp) -> Result<(), Refusal> {
    let Some(until) = until else { return Ok(()) };
    if until <= now {
        return Err(Refusal::invalid("`until` has passed"));
    }
    // PostgreSQL has to take it.
    if Timestamp::from(sql(until)) != until {
        return Err(Refusal::invalid("`until` is after the year 9999; leave it out to be available without end"));
    }
    Ok(())
}
