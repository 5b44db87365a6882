//! The staff lists that kaha-main-v3 pushes, and businesses that open and close.

use std::{collections::HashSet, time::Duration};

use chat_shared::{
    delivery::Delivery,
    ids::{BusinessId, UserId},
    wire::{CaseState, ReleaseReason, StaffRole},
};
use serde::Deserialize;
use sqlx::{Acquire, PgConnection};
use utoipa::ToSchema;

use super::{
    Businesses,
    case::{CaseRow, Move},
    sql,
    store::{self, Business},
};
use crate::{
    conversations::stored_id,
    database::{bounded, statement},
    refusal::Refusal,
    telemetry,
};

/// Members of the staff of one business.
pub const STAFF_MAX: usize = 500;
/// How long after a staff list its repeat tells the gateways again.
const REPEATED_WITHIN: Duration = Duration::from_mins(10);
/// Cases of which it does, the latest first.
const REPEATED_MAX: i64 = 2000;
/// Cases that one change of the staff moves in one transaction.
const MOVES_MAX: usize = 200;

/// A gateway has not confirmed that it pushes nothing more to a former agent.
#[derive(Debug, thiserror::Error)]
#[error("not every gateway has confirmed which agents take part no longer")]
pub(super) struct NotConfirmed;

/// The whole staff of a business, as of a version.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StaffList {
    /// Grows with each change of the staff. An older version than the stored one is a `conflict`.
    pub version: u64,
    /// All members; 500 at the most, each user once.
    pub staff: Vec<StaffMember>,
}

/// A member of the staff.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StaffMember {
    /// The user.
    pub user_id: UserId,
    /// The role.
    pub role: StaffRole,
    /// Cases that the agent may have at a time, 0 to 50; without it the capacity of the business.
    #[serde(default)]
    pub capacity: Option<u32>,
}

impl StaffList {
    fn check(&self) -> Result<(), Refusal> {
        if self.staff.len() > STAFF_MAX {
            return Err(Refusal::invalid(format!("`staff` has more than {STAFF_MAX} members")));
        }
        if i64::try_from(self.version).is_err() || self.version == 0 {
            return Err(Refusal::invalid("`version` is a whole number from 1"));
        }
        let mut seen = HashSet::with_capacity(self.staff.len());
        if !self.staff.iter().all(|member| seen.insert(member.user_id)) {
            return Err(Refusal::invalid("`staff` has a user twice"));
        }
        if self.staff.iter().any(|member| member.role == StaffRole::Unknown) {
            return Err(Refusal::invalid("`role` is `agent`, `supervisor` or `admin`"));
        }
        if self.staff.iter().any(|member| member.capacity.is_some_and(|capacity| capacity > 50)) {
            return Err(Refusal::invalid("`capacity` is a whole number from 0 to 50"));
        }
        Ok(())
    }
}

/// What became of a list of kaha-main-v3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListOutcome {
    /// Pushed, and stored.
    Pushed,
    /// Pushed, and this version was stored before.
    Repeated,
    /// Asked for, and the same as the stored one.
    ComparedEqual,
    /// Asked for, and other than the stored one, which it replaces.
    ComparedDiffers,
    /// Older than the stored one; nothing has changed.
    Outdated,
    /// Not a list that may be stored; nothing has changed.
    Invalid,
    /// Asked for, and kaha-main-v3 does not name the business; nothing has changed.
    Unknown,
    /// It could not be stored or compared.
    Failed,
}

impl ListOutcome {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Pushed,
        Self::Repeated,
        Self::ComparedEqual,
        Self::ComparedDiffers,
        Self::Outdated,
        Self::Invalid,
        Self::Unknown,
        Self::Failed,
    ];

    /// Its name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pushed => "pushed",
            Self::Repeated => "repeated",
            Self::ComparedEqual => "compared_equal",
            Self::ComparedDiffers => "compared_differs",
            Self::Outdated => "outdated",
            Self::Invalid => "invalid",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
        }
    }

    /// Counts a list.
    pub(super) fn count(self) {
        metrics::counter!(telemetry::STAFF_LISTS_TOTAL, "outcome" => self.as_str()).increment(1);
    }
}

/// How a list came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Pushed,
    AskedFor,
}

/// How a list relates to the stored one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It has replaced the stored one.
    Replaced,
    /// It is stored already.
    Same,
    /// A newer one is stored, which has this version.
    Older(u64),
}

impl Businesses {
    /// Replaces the staff of a business, which is made if it is new. Once it returns, users who are on the staff no more are
    /// pushed nothing of its conversations, on any gateway. The same version again changes nothing.
    pub async fn set_staff(&self, business_id: BusinessId, list: &StaffList) -> Result<(), Refusal> {
        list.check().inspect_err(|_| ListOutcome::Invalid.count())?;
        let found = self.replace_staff(business_id, list, Source::Pushed).await;
        match found.inspect_err(|_| ListOutcome::Failed.count())? {
            Found::Replaced => {
                ListOutcome::Pushed.count();
                self.settle_staff(business_id, true).await
            }
            Found::Same => {
                ListOutcome::Repeated.count();
                self.settle_staff(business_id, false).await
            }
            Found::Older(stored) => {
                ListOutcome::Outdated.count();
                Err(Refusal::conflict(format!(
                    "`version` is older than the stored one, which is {stored}; push the present staff"
                )))
            }
        }
    }

    /// As `set_staff`, for a list that was asked for: the stored version with another content replaces the stored list.
    pub(super) async fn compare_staff(
        &self,
        business_id: BusinessId,
        list: &StaffList,
    ) -> Result<ListOutcome, Refusal> {
        if let Err(refusal) = list.check() {
            tracing::warn!(?business_id, %refusal, "the staff list of kaha-main-v3 is not valid");
            return Ok(ListOutcome::Invalid);
        }
        Ok(match self.replace_staff(business_id, list, Source::AskedFor).await? {
            Found::Older(_) => ListOutcome::Outdated,
            Found::Same => ListOutcome::ComparedEqual,
            Found::Replaced => {
                let version = list.version;
                tracing::warn!(?business_id, version, "a push of this staff list was lost: it is stored only now");
                // As a push is repeated. What is left then is given back by the sweep.
                if self.settle_staff(business_id, true).await.is_err()
                    && let Err(refusal) = self.settle_staff(business_id, false).await
                {
                    tracing::warn!(?business_id, %refusal, "the cases of removed agents are left to the sweep");
                }
                ListOutcome::ComparedDiffers
            }
        })
    }

    /// Gives back the cases of agents that are on the stored list no more.
    async fn settle_staff(&self, business_id: BusinessId, is_new: bool) -> Result<(), Refusal> {
        // Also for a repeat: the gateway that took the list first may have died before it gave back all cases.
        self.give_back_strays(business_id).await?;
        self.announce_staff(business_id).await?;
        if is_new {
            self.wake(business_id);
            return Ok(());
        }
        self.tell_of_strays(business_id).await
    }

    /// Tells all gateways once more which agents have lost cases with the staff list: a repeat follows a list that one of them
    /// may not have taken in.
    async fn tell_of_strays(&self, business_id: BusinessId) -> Result<(), Refusal> {
        let mut connection = self.database.connection().await?;
        let rows = sqlx::query!(
            "select a.conversation_id, a.agent_id, c.version from assignments a join conversations c using (conversation_id)
             where a.business_id = $1 and a.release_reason = 'left_staff'
                 and a.released_at > clock_timestamp() - make_interval(secs => $2)
                 and not exists (
                     select from participants p where p.conversation_id = a.conversation_id and p.user_id = a.agent_id
                 )
             order by a.released_at desc limit $3",
            business_id.as_uuid(),
            REPEATED_WITHIN.as_secs_f64(),
            REPEATED_MAX
        );
        let rows = statement(rows.fetch_all(&mut *connection)).await?;
        drop(connection);
        for row in rows {
            let (conversation_id, user_id) = (stored_id(row.conversation_id)?, stored_id(row.agent_id)?);
            let version = row.version.unsigned_abs();
            let removal = Delivery::ParticipantRemoved { conversation_id, user_id, version };
            if !self.gateways.tell(&removal).await {
                return Err(Refusal::unavailable("a gateway", &NotConfirmed));
            }
        }
        Ok(())
    }

    /// Stores the list, unless it is stored already or a newer one is.
    async fn replace_staff(&self, business_id: BusinessId, list: &StaffList, source: Source) -> Result<Found, Refusal> {
        let _turn = self.turn(business_id).await?;
        let mut connection = self.database.connection().await?;
        let mut transaction = bounded(connection.begin()).await?;
        let business = lock_or_make(&mut transaction, business_id).await?;
        if list.version < business.staff_version {
            return Ok(Found::Older(business.staff_version));
        }
        if list.version == business.staff_version
            && (source == Source::Pushed || is_stored(&mut transaction, business_id, list).await?)
        {
            return Ok(Found::Same);
        }
        let ids: Vec<_> = list.staff.iter().map(|member| member.user_id.as_uuid()).collect();
        let roles: Vec<_> = list.staff.iter().map(|member| member.role.as_str().to_owned()).collect();
        let capacities: Vec<_> = list.staff.iter().map(|member| member.capacity.map(u32::cast_signed)).collect();
        let removing = sqlx::query!(
            "delete from staff where business_id = $1 and user_id <> all($2)",
            business_id.as_uuid(),
            &ids
        );
        statement(removing.execute(&mut *transaction)).await?;
        let adding = sqlx::query!(
            "insert into staff (business_id, user_id, role, capacity, status_at)
             select $1, user_id, role, capacity, $5
             from unnest($2::uuid[], $3::text[], $4::integer[]) as member (user_id, role, capacity)
             on conflict (business_id, user_id) do update set role = excluded.role, capacity = excluded.capacity
             where (staff.role, staff.capacity) is distinct from (excluded.role, excluded.capacity)",
            business_id.as_uuid(),
            &ids,
            &roles,
            &capacities as &[Option<i32>],
            sql(business.now)
        );
        statement(adding.execute(&mut *transaction)).await?;
        let noting = sqlx::query!(
            "update businesses set staff_version = $2 where business_id = $1",
            business_id.as_uuid(),
            list.version.cast_signed()
        );
        statement(noting.execute(&mut *transaction)).await?;
        bounded(transaction.commit()).await?;
        drop(connection);
        self.database.note_change(&[business_id.as_uuid()]).await;
        Ok(Found::Replaced)
    }

    /// Gives back the cases of agents that are not on the staff.
    pub(super) async fn give_back_strays(&self, business_id: BusinessId) -> Result<(), Refusal> {
        loop {
            let (count, is_heard) = self
                .change_everywhere(business_id, async |connection, _| {
                    let strays = sqlx::query_scalar!(
                        "select conversation_id from cases k
                         where business_id = $1 and state = 'assigned'
                             and not exists (
                                 select from staff s where s.business_id = k.business_id and s.user_id = k.agent_id
                             )
                         limit $2",
                        business_id.as_uuid(),
                        i64::try_from(MOVES_MAX).unwrap_or(i64::MAX)
                    );
                    let strays = store::ids(statement(strays.fetch_all(&mut *connection)).await?)?;
                    let cases = store::cases(connection, &strays).await?;
                    let moves: Vec<_> =
                        cases.into_iter().map(|case| case.give_back(ReleaseReason::LeftStaff)).collect();
                    Ok((moves.len(), moves))
                })
                .await?;
            if !is_heard {
                return Err(Refusal::unavailable("a gateway", &NotConfirmed));
            }
            if count < MOVES_MAX {
                return Ok(());
            }
        }
    }

    /// Opens a business to conversations, or closes it: then open cases are resolved and nothing is sent any more.
    pub async fn set_open(&self, business_id: BusinessId, is_open: bool) -> Result<(), Refusal> {
        {
            let _turn = self.turn(business_id).await?;
            let mut connection = self.database.connection().await?;
            let mut transaction = bounded(connection.begin()).await?;
            lock_or_make(&mut transaction, business_id).await?;
            let setting = sqlx::query!(
                "update businesses set is_open = $2 where business_id = $1 and is_open <> $2",
                business_id.as_uuid(),
                is_open
            );
            statement(setting.execute(&mut *transaction)).await?;
            bounded(transaction.commit()).await?;
        }
        self.announce_open(business_id, is_open).await?;
        self.wake(business_id);
        Ok(())
    }

    /// Makes the log of each conversation of the business know that the business is open, or closed, if it does not yet.
    async fn announce_open(&self, business_id: BusinessId, is_open: bool) -> Result<(), Refusal> {
        loop {
            let is_last = self
                .change(business_id, async |connection, business| {
                    if business.is_open != is_open {
                        // A later request has decided otherwise, and announces that.
                        return Ok((true, Vec::new()));
                    }
                    let page = sqlx::query_scalar!(
                        "select conversation_id from cases where business_id = $1 and is_closed = $2 limit $3",
                        business_id.as_uuid(),
                        is_open,
                        i64::try_from(MOVES_MAX).unwrap_or(i64::MAX)
                    );
                    let page = store::ids(statement(page.fetch_all(&mut *connection)).await?)?;
                    let cases = store::cases(connection, &page).await?;
                    let is_last = page.len() < MOVES_MAX;
                    Ok((is_last, cases.into_iter().map(|case| announced(case, business)).collect()))
                })
                .await?;
            if is_last {
                return Ok(());
            }
        }
    }
}

/// The change of a conversation whose business has opened or closed.
fn announced(case: CaseRow, business: &Business) -> Move {
    if business.is_open || case.state == CaseState::Resolved {
        return case.unchanged();
    }
    let seq = case.customer_seq.max(case.agent_seq);
    case.resolve(seq, ReleaseReason::BusinessClosed, business.now)
}

/// The business, whose row is made if it is missing.
async fn lock_or_make(connection: &mut PgConnection, business_id: BusinessId) -> Result<Business, Refusal> {
    let making =
        sqlx::query!("insert into businesses (business_id) values ($1) on conflict do nothing", business_id.as_uuid());
    statement(making.execute(&mut *connection)).await?;
    store::lock(connection, business_id).await?.ok_or_else(Refusal::no_such_business)
}

/// Whether the stored members are those of the list.
async fn is_stored(connection: &mut PgConnection, business_id: BusinessId, list: &StaffList) -> Result<bool, Refusal> {
    let reading =
        sqlx::query!("select user_id, role, capacity from staff where business_id = $1", business_id.as_uuid());
    let rows = statement(reading.fetch_all(connection)).await?;
    let stored: HashSet<_> = rows
        .iter()
        .map(|row| (row.user_id, StaffRole::named(&row.role), row.capacity.map(i32::unsigned_abs)))
        .collect();
    let listed = list.staff.iter().map(|member| (member.user_id.as_uuid(), member.role, member.capacity)).collect();
    Ok(stored == listed)
}

#[cfg(test)]
mod tests {
    use chat_shared::wire::ErrorCode;

    use super::*;

    fn list(version: u64, staff: Vec<StaffMember>) -> StaffList {
        StaffList { version, staff }
    }

    fn agent() -> StaffMember {
        StaffMember { user_id: UserId::random(), role: StaffRole::Agent, capacity: None }
    }

    #[test]
    fn a_staff_list_names_each_user_once_and_500_at_the_most() {
        let many: Vec<_> = std::iter::repeat_with(agent).take(STAFF_MAX + 1).collect();
        assert!(list(1, many[1..].to_vec()).check().is_ok());
        let twice = agent();
        for wrong in [
            list(1, many),
            list(1, vec![twice, twice]),
            list(0, vec![agent()]),
            list(u64::MAX, vec![agent()]),
            list(1, vec![StaffMember { capacity: Some(51), ..agent() }]),
            list(1, vec![StaffMember { role: StaffRole::Unknown, ..agent() }]),
        ] {
            assert_eq!(wrong.check().unwrap_err().code, ErrorCode::Invalid);
        }
    }
}
