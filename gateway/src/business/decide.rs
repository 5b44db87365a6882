//! Decisions of staff about cases: claim, transfer, give back, accept, resolve, reopen.

use chat_shared::{
    ids::{BusinessId, ConversationId, UserId},
    position::Seq,
    wire::{AssignmentReason, CaseState, ReleaseReason, ResolveCase, SetAgent},
};
use sqlx::PgConnection;

use super::{
    Businesses,
    case::{CaseRow, Move, NewAssignment},
    rights::{self, Action},
    route::Reach,
    sql,
    store::{self, Business, Member},
};
use crate::{
    conversations,
    database::{DatabaseError, statement},
    refusal::Refusal,
};

/// A case that a member of staff asks about, under the lock of the business.
struct Asked<'a> {
    business: &'a Business,
    case: CaseRow,
    by: Member,
}

impl Businesses {
    /// Gives a case to an agent, by a decision that is based on a version of the conversation.
    pub async fn set_agent(
        &self,
        by: UserId,
        conversation_id: ConversationId,
        request: SetAgent,
    ) -> Result<(), Refusal> {
        let reach = self.reach(&[request.user_id]).await;
        self.change_case(by, conversation_id, async |connection, asked| {
            set_agent(connection, &asked, request, &reach).await
        })
        .await
        .map(drop)
    }

    /// Gives the oldest waiting case that the user may take to the user. None if no case waits.
    pub async fn claim(&self, by: UserId, business_id: BusinessId) -> Result<Option<ConversationId>, Refusal> {
        self.change(business_id, async |connection, business| {
            let member = member(connection, business_id, by).await?.ok_or_else(Refusal::no_such_business)?;
            check_room(&member, false)?;
            let waiting = store::waiting(connection, business_id, CLAIMABLE_MAX).await?;
            let cases = store::cases(connection, &waiting).await?;
            let Some(case) = cases.into_iter().find(|case| case.customer_id != by) else {
                return Ok((None, Vec::new()));
            };
            let (conversation_id, new) = (case.conversation_id, NewAssignment::by(by, AssignmentReason::Claimed));
            Ok((Some(conversation_id), vec![case.assign(by, business.contact(true), new, business.now)]))
        })
        .await
    }

    /// Puts a case back in the queue, with its old age.
    pub async fn give_back(&self, by: UserId, conversation_id: ConversationId) -> Result<(), Refusal> {
        let change = self.change_case(by, conversation_id, async |_, asked| {
            asked.check(Action::GiveBack)?;
            Ok(match asked.case.state {
                CaseState::Assigned => Some(asked.case.give_back(ReleaseReason::GivenBack)),
                _ => None,
            })
        });
        let business_id = change.await?;
        self.wake(business_id);
        Ok(())
    }

    /// Confirms that the agent answers soon: its clock is that of later answers from now on.
    pub async fn accept(&self, by: UserId, conversation_id: ConversationId) -> Result<(), Refusal> {
        self.change_case(by, conversation_id, async |connection, asked| {
            asked.check(Action::Accept)?;
            let accepting = sqlx::query!(
                "update cases set accepted_at = coalesce(accepted_at, $2) where conversation_id = $1",
                conversation_id.as_uuid(),
                sql(asked.business.now)
            );
            statement(accepting.execute(&mut *connection)).await?;
            reset_missed(connection, asked.business.business_id, by).await?;
            Ok(None)
        })
        .await
        .map(drop)
    }

    /// Closes a case up to a message. A later message of the customer opens the next case.
    pub async fn resolve(
        &self,
        by: UserId,
        conversation_id: ConversationId,
        ResolveCase { seq }: ResolveCase,
    ) -> Result<(), Refusal> {
        let newest = conversations::newest_head(&self.log, &self.database, conversation_id).await?;
        let last_seq = newest.map_or(Seq::ZERO, |head| head.seq);
        let change = self.change_case(by, conversation_id, async |connection, asked| {
            asked.check(Action::Resolve)?;
            if seq > last_seq {
                return Err(Refusal::invalid("`seq` is after the last message of the conversation"));
            }
            if asked.case.state == CaseState::Resolved {
                return Ok(None);
            }
            if asked.case.agent_id == Some(by) {
                reset_missed(connection, asked.business.business_id, by).await?;
            }
            Ok(Some(asked.case.resolve(seq, ReleaseReason::Resolved, asked.business.now)))
        });
        let business_id = change.await?;
        self.wake(business_id);
        Ok(())
    }

    /// Opens a resolved case again, for the user who asks.
    pub async fn reopen(&self, by: UserId, conversation_id: ConversationId) -> Result<(), Refusal> {
        self.change_case(by, conversation_id, async |_, asked| {
            asked.check(Action::Reopen)?;
            if asked.case.state != CaseState::Resolved {
                return if asked.case.agent_id == Some(by) { Ok(None) } else { Err(not_resolved()) };
            }
            if !asked.business.is_open {
                return Err(Refusal::business_closed());
            }
            check_room(&asked.by, asked.leads())?;
            let (business, new) = (asked.business, NewAssignment::by(by, AssignmentReason::Reopened));
            let assign = |case: CaseRow| case.assign(by, business.contact(true), new, business.now);
            Ok(Some(asked.case.open(business.now).then(assign)))
        })
        .await
        .map(drop)
    }

    /// Changes one case under the lock of its business, as `decide` says. Returns the business.
    async fn change_case(
        &self,
        by: UserId,
        conversation_id: ConversationId,
        decide: impl AsyncFnOnce(&mut PgConnection, Asked<'_>) -> Result<Option<Move>, Refusal>,
    ) -> Result<BusinessId, Refusal> {
        let business_id = self.business_of(conversation_id).await?;
        self.change(business_id, async |connection, business| {
            let by = member(connection, business_id, by).await?.ok_or_else(Refusal::no_such_conversation)?;
            let case = store::cases(connection, &[conversation_id]).await?.into_iter().next();
            let case = case.ok_or_else(Refusal::no_such_conversation)?;
            let change = decide(connection, Asked { business, case, by }).await?;
            Ok((business_id, change.into_iter().collect()))
        })
        .await
    }

    /// The business of a conversation; the same refusal as for one that does not exist if there is none.
    async fn business_of(&self, conversation_id: ConversationId) -> Result<BusinessId, Refusal> {
        let mut connection = self.database.connection().await?;
        store::business_of(&mut connection, conversation_id).await?.ok_or_else(Refusal::no_such_conversation)
    }
}

/// Waiting cases among which a claim looks for one that is not the user's own.
const CLAIMABLE_MAX: i64 = 16;

impl Asked<'_> {
    fn check(&self, action: Action) -> Result<(), Refusal> {
        rights::check(self.by.user_id, self.by.role, &self.case, action, self.business.now)
    }

    fn leads(&self) -> bool {
        self.by.role.leads()
    }
}

async fn set_agent(
    connection: &mut PgConnection,
    asked: &Asked<'_>,
    request: SetAgent,
    reach: &Reach,
) -> Result<Option<Move>, Refusal> {
    let is_claim = request.user_id == asked.by.user_id;
    asked.check(if is_claim { Action::Claim } else { Action::Transfer })?;
    if request.force && !asked.leads() {
        return Err(Refusal::forbidden("only supervisors assign cases with `force`"));
    }
    if asked.case.agent_id == Some(request.user_id) {
        return Ok(None);
    }
    if asked.case.version != request.version {
        return Err(Refusal::conflict(format!(
            "the conversation has changed since: its version is {}; read it again and decide anew",
            asked.case.version
        )));
    }
    if asked.case.state == CaseState::Resolved {
        return Err(Refusal::conflict("the case is resolved; reopen it first"));
    }
    if request.user_id == asked.case.customer_id {
        return Err(Refusal::conflict("a case is not given to its own customer"));
    }
    let target = if is_claim {
        asked.by
    } else {
        member(connection, asked.business.business_id, request.user_id).await?.ok_or_else(Refusal::no_such_agent)?
    };
    if !is_claim && !request.force {
        let is_reachable = reach.is_online(target.user_id) || target.has_device;
        if !target.is_available || !is_reachable {
            return Err(Refusal::conflict("this agent is away; a supervisor may assign the case with `force`"));
        }
    }
    check_room(&target, request.force)?;
    let is_online = is_claim || reach.is_online(target.user_id);
    let reason = match (is_claim, asked.case.agent_id == Some(asked.by.user_id)) {
        (true, _) => AssignmentReason::Claimed,
        (false, true) => AssignmentReason::Transferred,
        (false, false) => AssignmentReason::Assigned,
    };
    let new = NewAssignment::by(asked.by.user_id, reason);
    let contact = asked.business.contact(is_online);
    Ok(Some(asked.case.clone().assign(target.user_id, contact, new, asked.business.now)))
}

/// Refuses a case that is one more than the agent may have.
fn check_room(member: &Member, is_forced: bool) -> Result<(), Refusal> {
    if is_forced || member.load < member.capacity {
        return Ok(());
    }
    Err(Refusal::conflict(format!("the agent has {} cases, which is as many as the capacity allows", member.load)))
}

fn not_resolved() -> Refusal {
    Refusal::conflict("the case is open; claim it instead")
}

pub(super) async fn member(
    connection: &mut PgConnection,
    business_id: BusinessId,
    user_id: UserId,
) -> Result<Option<Member>, Refusal> {
    Ok(store::staff(connection, business_id, Some(&[user_id])).await?.into_iter().next())
}

/// An agent that answers, accepts or resolves has not missed its last case.
pub(super) async fn reset_missed(
    connection: &mut PgConnection,
    business_id: BusinessId,
    user_id: UserId,
) -> Result<(), DatabaseError> {
    let resetting = sqlx::query!(
        "update staff set missed_in_a_row = 0 where business_id = $1 and user_id = $2 and missed_in_a_row > 0",
        business_id.as_uuid(),
        user_id.as_uuid()
    );
    statement(resetting.execute(connection)).await?;
    Ok(())
}
