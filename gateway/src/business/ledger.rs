//! The ledger of a conversation: which agents had its cases, and why.

use chat_shared::{
    clock::Timestamp,
    ids::{ConversationId, UserId},
    wire::{Assignment, AssignmentList, AssignmentReason, Considered, ReleaseReason, Strategy},
};

use super::{
    Businesses,
    decide::member,
    rights::{self, Action},
    store,
};
use crate::{conversations::stored_id, database::statement, refusal::Refusal};

/// Assignments that are shown.
const ASSIGNMENTS_MAX: i64 = 100;

impl Businesses {
    /// The assignments of a conversation, the newest first: all of them to supervisors, to an agent its own ones.
    pub async fn assignments(&self, by: UserId, conversation_id: ConversationId) -> Result<AssignmentList, Refusal> {
        let mut connection = self.database.connection().await?;
        let case = store::cases(&mut connection, &[conversation_id]).await?.into_iter().next();
        let case = case.ok_or_else(Refusal::no_such_conversation)?;
        let member = member(&mut connection, case.business_id, by).await?.ok_or_else(Refusal::no_such_conversation)?;
        let is_all = rights::check(by, member.role, &case, Action::ReadLedger, Timestamp(0)).is_ok();
        let reading = sqlx::query!(
            r#"select assignment_id, case_number, agent_id, assigned_by, reason, strategy, waited_ms, candidates::text as "candidates!", assigned_at,
                   released_at, release_reason
               from assignments
               where conversation_id = $1 and ($2::uuid is null or agent_id = $2)
               order by assignment_id desc limit $3"#,
            conversation_id.as_uuid(),
            (!is_all).then(|| by.as_uuid()),
            ASSIGNMENTS_MAX
        );
        let rows = statement(reading.fetch_all(&mut *connection)).await?;
        if rows.is_empty() && !is_all {
            return Err(Refusal::no_such_conversation());
        }
        let assignments = rows.into_iter().map(|row| {
            let candidates: Vec<Considered> =
                serde_json::from_str(&row.candidates).map_err(|error| Refusal::internal(&error))?;
            Ok(Assignment {
                assignment_id: row.assignment_id.unsigned_abs(),
                case_number: row.case_number.unsigned_abs(),
                agent_id: stored_id(row.agent_id)?,
                assigned_by: row.assigned_by.map(stored_id).transpose()?,
                reason: AssignmentReason::named(&row.reason),
                strategy: Strategy::named(&row.strategy),
                waited_ms: row.waited_ms.unsigned_abs(),
                // The other agents are nothing that an agent is shown.
                candidates: if is_all { candidates } else { Vec::new() },
                assigned_at: row.assigned_at.into(),
                released_at: row.released_at.map(Timestamp::from),
                release_reason: row.release_reason.as_deref().map(ReleaseReason::named),
            })
        });
        Ok(AssignmentList { assignments: assignments.collect::<Result<_, Refusal>>()? })
    }
}
