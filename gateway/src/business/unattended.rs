//! Businesses whose customers wait while no agent is there: their supervisors and admins are notified.

use chat_shared::{
    ids::{BusinessId, UserId},
    jobs::{Added, JOBS_TOGETHER_MAX, Job, Jobs, WaitingJob},
    limits,
    wire::{Availability, StaffLoad},
};
use rand::seq::SliceRandom;

use super::{Businesses, look::Look};
use crate::{conversations::stored_id, database::bounded, refusal::Refusal};

/// Businesses of one look. Others follow in the next ones.
const BUSINESSES_MAX: i64 = 200;

/// A business with a case that waits for too long.
struct Late {
    business_id: BusinessId,
    /// The customer, if one case alone waits for too long.
    only_customer: Option<UserId>,
}

impl Businesses {
    /// Files a job for each supervisor and admin to be notified of customers that wait. If the queue does not take them, the next
    /// look finds the same.
    pub(super) async fn notify_of_unattended(&self, jobs: &Jobs) -> Result<(), Refusal> {
        let found = self.unattended().await?;
        match jobs.add(&found).await {
            Ok(Added::All) => {}
            Ok(Added::Dropped(dropped)) => {
                tracing::warn!(
                    dropped,
                    "the queue of notifications is full: supervisors are not notified that customers wait"
                );
            }
            Err(error) => {
                tracing::warn!(%error, "supervisors can't be notified that customers wait; it is tried again");
            }
        }
        Ok(())
    }

    /// The jobs that are called for now. While Redis is away all agents that are available count as connected.
    async fn unattended(&self) -> Result<Vec<Job>, Refusal> {
        let late = self.late().await?;
        if late.is_empty() {
            return Ok(Vec::new());
        }
        let looks = self.look(&late.iter().map(|late| late.business_id).collect::<Vec<_>>()).await?;
        let jobs = late.iter().filter_map(|late| Some((late, looks.get(&late.business_id)?))).flat_map(jobs_of);
        let mut jobs: Vec<_> = jobs.collect();
        // As many as one write takes, so that a queue that is away holds up the sweep no longer than that.
        jobs.shuffle(&mut rand::rng());
        jobs.truncate(JOBS_TOGETHER_MAX);
        Ok(jobs)
    }

    /// Some open businesses, other ones each time, with cases that have waited for too long. Without those of which an agent is
    /// reachable by a device, since nothing more has to be asked of them.
    async fn late(&self) -> Result<Vec<Late>, Refusal> {
        let mut connection = self.database.connection().await?;
        let rows = bounded(
            sqlx::query!(
                r#"select late.business_id as "business_id!", late.only_customer
                   from (
                       select business_id, case when count(*) = 1 then (array_agg(customer_id))[1] end as only_customer
                       from cases
                       where state = 'waiting' and waiting_since < clock_timestamp() - make_interval(secs => $1)
                       group by business_id
                   ) as late
                   join businesses b using (business_id)
                   where b.is_open
                       and not exists (
                           select from staff s
                           where s.business_id = b.business_id and s.status = 'available'
                               and coalesce(s.capacity, b.capacity) > 0
                               and exists (select from notification_devices d where d.user_id = s.user_id)
                       )
                   order by random() limit $2"#,
                limits::WAITING_NOTIFIED_AFTER.as_secs_f64(),
                BUSINESSES_MAX
            )
            .fetch_all(&mut *connection),
        )
        .await?;
        rows.into_iter()
            .map(|row| {
                let only_customer = row.only_customer.map(stored_id).transpose()?;
                Ok(Late { business_id: stored_id(row.business_id)?, only_customer })
            })
            .collect()
    }
}

/// A job for each supervisor and admin that can be notified, if no agent is there.
fn jobs_of((late, look): (&Late, &Look)) -> Vec<Job> {
    if look.availability.state != Availability::Away {
        return Vec::new();
    }
    let is_notified =
        |member: &&StaffLoad| member.role.leads() && member.is_reachable && Some(member.user_id) != late.only_customer;
    let job = |member: &StaffLoad| {
        Job::Waiting(WaitingJob { user_id: member.user_id, business_id: late.business_id, found_at: look.at })
    };
    look.staff.iter().filter(is_notified).map(job).collect()
}
