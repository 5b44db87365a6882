//! The router: gives waiting cases to agents. Nothing else assigns by itself.

use std::collections::HashMap;

use chat_shared::{
    ids::{BusinessId, ConversationId, UserId},
    position::Seq,
    wire::{AssignmentReason, CaseState},
};
use sqlx::{Acquire, PgConnection};

use super::{
    Businesses,
    case::{CaseRow, Move, NewAssignment},
    pairing::{Candidate, WaitingCase, pair},
    store::{self, Business, Member},
};
use crate::{database::bounded, refusal::Refusal, telemetry};

/// Waiting cases of one pass. The next pass follows at once while there are more.
const CASES_MAX: i64 = 64;
/// Cases that the sweep opens in one pass.
const REOPENED_MAX: i64 = 200;

/// What one pass of the router found.
pub struct Pass {
    /// Whether another pass at once may assign more.
    pub has_more: bool,
}

/// Whether each of some agents is connected. Without Redis it counts what agents said alone.
pub(super) struct Reach(Option<HashMap<UserId, bool>>);

impl Reach {
    /// Whether the agent is connected; true while that is not known.
    pub fn is_online(&self, user_id: UserId) -> bool {
        self.0.as_ref().is_none_or(|online| online.get(&user_id).copied().unwrap_or_default())
    }

    /// Whether it is known.
    pub const fn is_known(&self) -> bool {
        self.0.is_some()
    }
}

impl Businesses {
    /// Whether each of the users is connected, by one question to Redis.
    pub(super) async fn reach(&self, users: &[UserId]) -> Reach {
        if users.is_empty() {
            return Reach(Some(HashMap::new()));
        }
        match self.inboxes.presence(users).await {
            Ok(seen) => Reach(Some(seen.iter().map(|seen| (seen.presence.user_id, seen.presence.is_online)).collect())),
            Err(error) => {
                tracing::debug!(%error, "cases are assigned by what agents said alone");
                Reach(None)
            }
        }
    }

    /// Opens the cases of customers whose messages are stored and whose case is resolved, and gives waiting cases to agents. Wakes
    /// name the customers who have written; this finds those of a gateway that has died before.
    pub(super) async fn route_stored(&self, business_id: BusinessId) -> Result<Pass, Refusal> {
        let mut connection = self.database.connection().await?;
        let reopened = store::reopened(&mut connection, business_id, REOPENED_MAX).await?;
        drop(connection);
        let written: Vec<_> = reopened.into_iter().map(|conversation_id| (conversation_id, Seq::ZERO)).collect();
        self.route(business_id, &written).await
    }

    /// Opens the cases of customers who have written, and gives waiting cases to agents.
    pub async fn route(&self, business_id: BusinessId, written: &[(ConversationId, Seq)]) -> Result<Pass, Refusal> {
        let started = std::time::Instant::now();
        let turn = self.turn(business_id).await?;
        let mut connection = self.database.connection().await?;
        // Redis is asked while no row is locked.
        let available = store::available(&mut connection, business_id).await?;
        let reach = self.reach(&available).await;
        let mut transaction = bounded(connection.begin()).await?;
        let Some(business) = store::lock(&mut transaction, business_id).await? else {
            return Ok(Pass { has_more: false });
        };
        let (moves, has_more) = plan(&mut transaction, &business, &reach, written).await?;
        store::apply(&mut transaction, &business, &moves).await?;
        bounded(transaction.commit()).await?;
        drop((connection, turn));
        metrics::histogram!(telemetry::ROUTE_SECONDS).record(started.elapsed());
        for change in moves.iter().filter(|change| change.added().is_some()) {
            let waited = business.now.0.saturating_sub(change.after.waiting_since.0).max(0);
            metrics::histogram!(telemetry::ASSIGNMENT_WAIT_SECONDS)
                .record(std::time::Duration::from_millis(waited.unsigned_abs()));
        }
        if !moves.is_empty() {
            self.note_moves(business_id, &moves).await;
        }
        self.publish(&moves).await;
        Ok(Pass { has_more })
    }
}

/// What the locked business needs: cases opened, and assigned as far as agents have room.
async fn plan(
    connection: &mut PgConnection,
    business: &Business,
    reach: &Reach,
    written: &[(ConversationId, Seq)],
) -> Result<(Vec<Move>, bool), Refusal> {
    if !business.is_open {
        return Ok((Vec::new(), false));
    }
    let opened = opened(connection, business, written).await?;
    let waiting = store::waiting(connection, business.business_id, CASES_MAX).await?;
    let cases_max = usize::try_from(CASES_MAX).unwrap_or(usize::MAX);
    let (has_older, is_full_pass) = (waiting.len() >= cases_max, waiting.len() + opened.len() >= cases_max);
    if opened.is_empty() && waiting.is_empty() {
        return Ok((Vec::new(), false));
    }
    let waiting = store::cases(connection, &waiting).await?;
    let mut queue: Vec<(CaseRow, Option<Move>)> = waiting.into_iter().map(|case| (case, None)).collect();
    queue.extend(opened.into_iter().map(|change| (change.after.clone(), Some(change))));
    queue.sort_by_key(|(case, _)| (case.waiting_since, case.conversation_id));
    // As the staff is now that the business is locked.
    let staff = store::staff(connection, business.business_id, None).await?;
    let candidates: Vec<_> = staff.iter().filter_map(|member| candidate(member, reach)).collect();
    let strategy = business.settings.strategy;
    // While more cases wait than one pass reads, those that open now are younger than all of them.
    let is_in_turn = |opening: &Option<Move>| opening.is_none() || !has_older;
    let in_turn = queue.iter().filter(|(_, opening)| is_in_turn(opening));
    let cases: Vec<_> = in_turn.map(|(case, _)| waiting_case(case, business)).collect();
    let pairings = if business.is_routing() { pair(&cases, &candidates, strategy) } else { Vec::new() };
    let mut pairings: HashMap<_, _> = pairings.into_iter().map(|pairing| (pairing.conversation_id, pairing)).collect();
    let has_more = is_full_pass && !pairings.is_empty();
    let moves = queue.into_iter().filter_map(|(case, opening)| {
        let Some(pairing) = pairings.remove(&case.conversation_id) else { return opening };
        let contact = business.contact(reach.is_online(pairing.agent_id));
        let new = NewAssignment { assigned_by: None, reason: AssignmentReason::Routed, considered: pairing.considered };
        let assign = |case: CaseRow| case.assign(pairing.agent_id, contact, new, business.now);
        Some(match opening {
            Some(opening) => opening.then(assign),
            None => assign(case),
        })
    });
    Ok((moves.collect(), has_more))
}

/// Opens the cases of customers who have written since their case was resolved: as the gateway says that accepted the message,
/// or as is stored.
async fn opened(
    connection: &mut PgConnection,
    business: &Business,
    written: &[(ConversationId, Seq)],
) -> Result<Vec<Move>, Refusal> {
    let mut ids: Vec<_> = written.iter().map(|(conversation_id, _)| *conversation_id).collect();
    ids.sort_unstable();
    ids.dedup();
    let numbers: HashMap<_, _> = written.iter().copied().collect();
    let is_written = |case: &CaseRow| {
        let seq = numbers.get(&case.conversation_id).copied().unwrap_or_default().max(case.customer_seq);
        case.state == CaseState::Resolved && case.business_id == business.business_id && seq > case.resolved_seq
    };
    let cases = store::cases(connection, &ids).await?;
    Ok(cases.into_iter().filter(is_written).map(|case| case.open(business.now)).collect())
}

fn candidate(member: &Member, reach: &Reach) -> Option<Candidate> {
    let Member { user_id, capacity, load, last_assigned_at, has_device, .. } = *member;
    let is_online = reach.is_online(user_id);
    (member.is_available && capacity > 0).then_some(Candidate {
        user_id,
        is_online,
        has_device,
        capacity,
        load,
        last_assigned_at,
    })
}

fn waiting_case(case: &CaseRow, business: &Business) -> WaitingCase {
    let since = case.opened_at.before(business.affinity());
    // A case that was opened again prefers its last agent for a while, one that was given back does not.
    let is_preferred = case.given_back == 0 && case.resolved_at.is_some_and(|at| at >= since);
    WaitingCase {
        conversation_id: case.conversation_id,
        customer_id: case.customer_id,
        preferred: case.last_agent_id.filter(|_| is_preferred),
        missed_by: case.missed_by.clone(),
    }
}
