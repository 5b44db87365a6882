//! Looks at cases as time passes: agents that answer too late, silent customers, agents that are gone, cases that wait. Every
//! gateway runs it; whichever holds the row of `case_sweeps` looks, and one that dies lets the row go.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use chat_shared::{
    clock::Timestamp,
    event::{Event, Fact},
    ids::{BusinessId, ConversationId, UserId},
    jobs::Jobs,
    lifecycle::Tasks,
    limits,
    position::Seq,
    wire::{CaseState, ReleaseReason, Role},
};
use futures_util::{StreamExt, stream};
use sqlx::{Acquire, PgConnection};
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Businesses,
    case::{CaseRow, Move},
    decide::reset_missed,
    due::{AssignedCase, Clocks, Due, Missed, due},
    sql,
    store::{self, Business},
};
use crate::{
    conversations::stored_id,
    database::{bounded, statement},
    refusal::Refusal,
};

/// How often, give or take half of it, so that gateways take turns.
const INTERVAL: Duration = Duration::from_secs(2);
/// Rows of each kind in one pass.
const ROWS_MAX: i64 = 200;
/// A pause between two passes after which the clocks of cases begin anew: no agent could answer, or no answer could be stored.
const PAUSE_MIN: Duration = Duration::from_secs(10);
/// How often it is looked for agents that are gone, and for customers that wait while no agent is there.
const GONE_INTERVAL: Duration = Duration::from_secs(15);
/// How long an agent without a connection and without a device keeps its cases.
const GONE_AFTER: Duration = Duration::from_mins(1);
/// How long a pass waits for the log.
const NEWEST_WAIT_MAX: Duration = Duration::from_secs(2);
/// Questions to the log at a time.
const NEWEST_TOGETHER_MAX: usize = 16;
/// A notifier that has sent no beacon for this long delivers nothing: three beacons are missing.
const NOTIFIER_SILENT_MAX: Duration = Duration::from_secs(15);
/// Cases in a row that an agent may miss before the router gives it no more.
const MISSED_MAX: i32 = 2;
/// How long a message may take to be stored.
const STORING_MAX: Duration = Duration::from_mins(10);

/// The newest events of conversations.
type Newest = HashMap<ConversationId, Event>;

/// Starts the task, until the gateway drains. Notifications go to `jobs`.
pub fn start(businesses: Businesses, jobs: Jobs, tasks: &Tasks) {
    let draining = tasks.draining().clone();
    tasks.essential("case_sweep", async move {
        let mut gone_at = Instant::now();
        loop {
            let pause = INTERVAL.mul_f64(rand::random_range(0.5..1.5));
            // Cancel safe: it only waits.
            if draining.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(());
            }
            let looks_for_gone = gone_at.elapsed() >= GONE_INTERVAL;
            if looks_for_gone {
                gone_at = Instant::now();
            }
            // Cancel safe: each change is a transaction of its own.
            match draining.run_until_cancelled(businesses.sweep(&jobs, looks_for_gone)).await {
                None => return Ok(()),
                Some(Ok(())) => {}
                Some(Err(refusal)) => tracing::warn!(%refusal, "not all cases could be looked at, trying again"),
            }
        }
    });
}

impl Businesses {
    /// One pass, unless another gateway makes one.
    pub async fn sweep(&self, jobs: &Jobs, looks_for_gone: bool) -> Result<(), Refusal> {
        let mut connection = self.database.connection().await?;
        let mut transaction = bounded(connection.begin()).await?;
        let swept = bounded(
            sqlx::query!(r#"select swept_at, clock_timestamp() as "now!" from case_sweeps for update skip locked"#)
                .fetch_optional(&mut *transaction),
        )
        .await?;
        let Some(swept) = swept else { return Ok(()) };
        let pause = swept.now - swept.swept_at;
        if pause > PAUSE_MIN {
            // On a connection of its own: the cases are changed while the row of the sweep is held.
            begin_all_anew(&mut *self.database.connection().await?, swept.now, pause).await?;
        }
        let all = self.sweep_all(jobs, looks_for_gone).await;
        let noting = sqlx::query!("update case_sweeps set swept_at = clock_timestamp()").execute(&mut *transaction);
        bounded(noting).await?;
        bounded(transaction.commit()).await?;
        all
    }

    async fn sweep_all(&self, jobs: &Jobs, looks_for_gone: bool) -> Result<(), Refusal> {
        self.end_availability().await?;
        let mut outcome = Ok(());
        // One business that fails holds up no other.
        let mut note = |result: Result<(), Refusal>| outcome = std::mem::replace(&mut outcome, Ok(())).and(result);
        if looks_for_gone {
            note(self.release_gone().await);
            for business_id in self.with_strays().await? {
                note(self.give_back_strays(business_id).await);
            }
        }
        let due = self.due().await?;
        let newest = self.newest(due.values().flatten().copied()).await;
        for (business_id, conversations) in due {
            note(self.settle(business_id, &conversations, newest.as_ref()).await);
        }
        for business_id in self.with_work().await? {
            note(self.route_stored(business_id).await.map(drop));
        }
        if looks_for_gone {
            note(self.notify_of_unattended(jobs).await);
            note(self.measure_starved().await);
        }
        note(self.measure().await);
        outcome
    }

    /// The newest event of each conversation, asked for before any row is locked. None if the log does not answer in time.
    async fn newest(&self, conversations: impl Iterator<Item = ConversationId>) -> Option<Newest> {
        let asking = conversations.map(async |id| self.log.newest(id).await.map(|newest| (id, newest)));
        let asking = stream::iter(asking.collect::<Vec<_>>()).buffer_unordered(NEWEST_TOGETHER_MAX).collect::<Vec<_>>();
        let answers = tokio::time::timeout(NEWEST_WAIT_MAX, asking).await.ok()?;
        let newest = answers.into_iter().collect::<Result<Vec<_>, _>>().ok()?;
        Some(newest.into_iter().filter_map(|(id, newest)| Some((id, newest?.1))).collect())
    }

    /// Businesses with cases of agents that are not on the staff: the gateway that took their list died before it gave them
    /// back.
    async fn with_strays(&self) -> Result<Vec<BusinessId>, Refusal> {
        let mut connection = self.database.connection().await?;
        let found = bounded(
            sqlx::query_scalar!(
                "select distinct business_id from cases k
                 where state = 'assigned'
                     and not exists (
                         select from staff s where s.business_id = k.business_id and s.user_id = k.agent_id
                     )
                 limit $1",
                ROWS_MAX
            )
            .fetch_all(&mut *connection),
        )
        .await?;
        found.into_iter().map(|id| Ok(stored_id(id)?)).collect()
    }

    /// Sets agents away whose time of availability has passed.
    async fn end_availability(&self) -> Result<(), Refusal> {
        let mut connection = self.database.connection().await?;
        let ending = sqlx::query_scalar!(
            "update staff set status = 'away', away_reason = 'until', available_until = null, status_at = clock_timestamp()
             where status = 'available' and available_until <= clock_timestamp()
             returning business_id"
        );
        for business_id in bounded(ending.fetch_all(&mut *connection)).await? {
            self.note_changed(stored_id(business_id)?);
        }
        Ok(())
    }

    /// Cases whose time has come, by business. The clock is that of PostgreSQL.
    async fn due(&self) -> Result<BTreeMap<BusinessId, Vec<ConversationId>>, Refusal> {
        let mut connection = self.database.connection().await?;
        let rows = bounded(
            sqlx::query!(
                "select business_id, conversation_id from cases
                 where state = 'assigned' and due_at <= clock_timestamp() order by due_at limit $1",
                ROWS_MAX
            )
            .fetch_all(&mut *connection),
        )
        .await?;
        let mut due: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for row in rows {
            due.entry(stored_id(row.business_id)?).or_default().push(stored_id(row.conversation_id)?);
        }
        Ok(due)
    }

    /// Gives back or resolves due cases, or sets when to look again.
    async fn settle(
        &self,
        business_id: BusinessId,
        conversations: &[ConversationId],
        newest: Option<&Newest>,
    ) -> Result<(), Refusal> {
        self.change(business_id, async |connection, business| {
            let cases = store::cases(connection, conversations).await?;
            let mut moves = Vec::new();
            for case in cases.into_iter().filter(|case| case.state == CaseState::Assigned) {
                moves.extend(self.settle_one(connection, business, case, newest).await?);
            }
            Ok(((), moves))
        })
        .await
    }

    async fn settle_one(
        &self,
        connection: &mut PgConnection,
        business: &Business,
        case: CaseRow,
        newest: Option<&Newest>,
    ) -> Result<Option<Move>, Refusal> {
        let Some(agent_id) = case.agent_id else { return Ok(None) };
        let assigned = assigned_case(connection, &case, agent_id).await?;
        if assigned.agent_seq > assigned.since_seq {
            reset_missed(connection, business.business_id, agent_id).await?;
        }
        let verdict = due(&assigned, &clocks(business), business.now);
        if let Due::Later(at) = verdict {
            look_again(connection, case.conversation_id, at).await?;
            return Ok(None);
        }
        // An agent that is pushed nothing, or whose answers are not accepted, is not late: its clock begins anew.
        let Some(newest) = newest.filter(|_| !matches!(verdict, Due::GiveBack(_)) || self.has_notifier()) else {
            begin_anew(connection, case.conversation_id, business.now).await?;
            return Ok(None);
        };
        // The agent may have answered what is not stored yet.
        let newest = newest.get(&case.conversation_id);
        if newest.is_some_and(|newest| is_ahead(newest, &assigned, verdict))
            || lacks_messages(connection, &case, &assigned, business.now).await?
        {
            look_again(connection, case.conversation_id, business.now.after(INTERVAL)).await?;
            return Ok(None);
        }
        Ok(match verdict {
            Due::Later(_) => None,
            Due::Resolve(seq) => Some(case.resolve(seq, ReleaseReason::Quiet, business.now)),
            Due::GiveBack(missed) => {
                if missed == Missed::Answer {
                    note_missed(connection, business, agent_id).await?;
                }
                Some(case.give_back(match missed {
                    Missed::Answer => ReleaseReason::AnswerMissed,
                    Missed::Reply => ReleaseReason::ReplyMissed,
                }))
            }
        })
    }

    /// Whether agents are pushed and notified of what they are assigned. While they are not, none is late.
    fn has_notifier(&self) -> bool {
        self.notifier_at.lock().is_some_and(|at| at.elapsed() < NOTIFIER_SILENT_MAX)
    }

    /// Gives back the cases of agents that have been neither connected nor reachable by a device for a while.
    async fn release_gone(&self) -> Result<(), Refusal> {
        let mut connection = self.database.connection().await?;
        let rows = bounded(
            sqlx::query!(
                r#"select s.business_id, s.user_id, s.unseen_since, clock_timestamp() as "now!"
                   from staff s
                   where exists (
                           select from cases k
                           where k.business_id = s.business_id and k.agent_id = s.user_id and k.state = 'assigned'
                       )
                       and not exists (select from notification_devices d where d.user_id = s.user_id)
                   order by random() limit $1"#,
                ROWS_MAX * 10
            )
            .fetch_all(&mut *connection),
        )
        .await?;
        let users = rows.iter().map(|row| stored_id(row.user_id)).collect::<Result<Vec<_>, _>>()?;
        let reach = self.reach(&users).await;
        if !reach.is_known() {
            return Ok(());
        }
        let mut gone: BTreeMap<BusinessId, Vec<UserId>> = BTreeMap::new();
        for (row, user_id) in rows.iter().zip(users) {
            let is_online = reach.is_online(user_id);
            match row.unseen_since {
                None if is_online => {}
                Some(since) if !is_online && row.now - since < GONE_AFTER => {}
                Some(_) if !is_online => gone.entry(stored_id(row.business_id)?).or_default().push(user_id),
                _ => {
                    note_unseen(&mut connection, row.business_id, row.user_id, (!is_online).then_some(row.now)).await?;
                }
            }
        }
        drop(connection);
        let mut outcome = Ok(());
        for (business_id, users) in gone {
            let released = self.change(business_id, async |connection, business| {
                let ids: Vec<_> = users.iter().map(|user_id| user_id.as_uuid()).collect();
                let setting = sqlx::query!(
                    "update staff set status = 'away', away_reason = 'gone', status_at = $3, unseen_since = null
                     where business_id = $1 and user_id = any($2) and unseen_since is not null
                     returning user_id",
                    business_id.as_uuid(),
                    &ids,
                    sql(business.now)
                );
                // An agent may have come back since, and said so.
                let gone = statement(setting.fetch_all(&mut *connection)).await?;
                let is_gone = |user_id: &&UserId| gone.iter().any(|row| row.user_id == user_id.as_uuid());
                let users: Vec<_> = users.iter().filter(is_gone).copied().collect();
                let theirs = store::of_agents(connection, business_id, &users).await?;
                let cases = store::cases(connection, &theirs).await?;
                Ok(((), cases.into_iter().map(|case| case.give_back(ReleaseReason::Gone)).collect()))
            });
            outcome = outcome.and(released.await);
        }
        outcome
    }

    /// Some businesses, other ones each time, with cases that wait or with customers who have written after their cases were resolved.
    async fn with_work(&self) -> Result<Vec<BusinessId>, Refusal> {
        let mut connection = self.database.connection().await?;
        let found = bounded(
            sqlx::query_scalar!(
                r#"select business_id as "business_id!" from (
                       select distinct business_id from cases where state = 'waiting'
                       union
                       select c.business_id from conversations c join cases k using (conversation_id)
                       where c.business_id is not null and c.customer_seq > c.resolved_seq and k.state = 'resolved'
                   ) as of_any
                   order by random() limit $1"#,
                ROWS_MAX
            )
            .fetch_all(&mut *connection),
        )
        .await?;
        found.into_iter().map(|id| Ok(stored_id(id)?)).collect()
    }
}

/// Whether the newest event holds more of the conversation than is stored. One more message of the customer changes nothing for
/// an agent that has not answered.
fn is_ahead(newest: &Event, assigned: &AssignedCase, verdict: Due) -> bool {
    let stored = assigned.agent_seq.max(assigned.customer_seq);
    match &newest.fact {
        Fact::MessageSent(message) if matches!(verdict, Due::GiveBack(_)) => {
            let sender = newest.participants.find(message.sender_id).map(|participant| participant.role);
            newest.seq > stored && (sender == Some(Role::Agent) || newest.seq > stored.next())
        }
        _ => newest.seq > stored,
    }
}

/// Whether a message between those that are stored is not: it may be the agent's. Entries that the log has lost are never stored,
/// so it is not waited for long.
async fn lacks_messages(
    connection: &mut PgConnection,
    case: &CaseRow,
    assigned: &AssignedCase,
    now: Timestamp,
) -> Result<bool, Refusal> {
    let answered = case.agent_seq.max(case.resolved_seq);
    let Some(last_message_at) = assigned.last_message_at.filter(|at| at.after(STORING_MAX) > now) else {
        return Ok(false);
    };
    let counting = sqlx::query_scalar!(
        r#"select count(distinct seq) as "count!" from messages
           where conversation_id = $1 and seq > $2 and seq <= $3 and sent_at > $4 and sent_at <= $5"#,
        case.conversation_id.as_uuid(),
        answered.to_sql(),
        case.customer_seq.to_sql(),
        sql(last_message_at.before(limits::CASE_CLOCK_MAX)),
        sql(last_message_at)
    );
    let stored = statement(counting.fetch_one(connection)).await?.unsigned_abs();
    Ok(stored < case.customer_seq.0.saturating_sub(answered.0))
}

fn clocks(business: &Business) -> Clocks {
    let clocks = business.settings.clocks;
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    Clocks {
        answer_max: seconds(clocks.answer_max_s),
        notified_max: seconds(clocks.notified_max_s),
        reply_max: seconds(clocks.reply_max_s),
        quiet_max: seconds(clocks.quiet_max_s),
    }
}

/// What decides whether a case is due, beside its own row.
async fn assigned_case(
    connection: &mut PgConnection,
    case: &CaseRow,
    agent_id: UserId,
) -> Result<AssignedCase, Refusal> {
    let answered = case.agent_seq.max(case.resolved_seq);
    let reading = sqlx::query!(
        r#"select c.last_message_at, coalesce(p.since_seq, 0) as "since_seq!",
               (
                   select m.sent_at from messages m
                   where m.conversation_id = c.conversation_id and m.seq = $3
                       and m.sent_at > c.last_message_at - make_interval(secs => $4) and m.sent_at <= c.last_message_at
                   order by m.sent_at limit 1
               ) as waiting_at
           from conversations c
           left join participants p on p.conversation_id = c.conversation_id and p.user_id = $2
           where c.conversation_id = $1"#,
        case.conversation_id.as_uuid(),
        agent_id.as_uuid(),
        answered.next().to_sql(),
        // Older than that it is overdue by any setting.
        limits::CASE_CLOCK_MAX.as_secs_f64()
    );
    let row = statement(reading.fetch_one(connection)).await?;
    Ok(AssignedCase {
        assigned_at: case.assigned_at.unwrap_or(case.opened_at).max(case.clock_from.unwrap_or_default()),
        accepted_at: case.accepted_at,
        was_online: case.was_online,
        customer_seq: case.customer_seq,
        waiting_at: row.waiting_at.map(Timestamp::from),
        agent_seq: case.agent_seq,
        last_message_at: row.last_message_at.map(Timestamp::from),
        since_seq: Seq::from_sql(row.since_seq),
        resolved_seq: case.resolved_seq,
    })
}

async fn look_again(
    connection: &mut PgConnection,
    conversation_id: ConversationId,
    at: Timestamp,
) -> Result<(), Refusal> {
    let setting = sqlx::query!(
        "update cases set due_at = $2 where conversation_id = $1 and state = 'assigned'",
        conversation_id.as_uuid(),
        sql(at)
    );
    statement(setting.execute(connection)).await?;
    Ok(())
}

/// Lets the clocks of a case begin now, and looks at it again soon.
async fn begin_anew(
    connection: &mut PgConnection,
    conversation_id: ConversationId,
    now: Timestamp,
) -> Result<(), Refusal> {
    let setting = sqlx::query!(
        "update cases set clock_from = $2, due_at = $3 where conversation_id = $1 and state = 'assigned'",
        conversation_id.as_uuid(),
        sql(now),
        sql(now.after(INTERVAL))
    );
    statement(setting.execute(connection)).await?;
    Ok(())
}

/// Counts a missed case; after two in a row the router gives the agent no more.
async fn note_missed(connection: &mut PgConnection, business: &Business, agent_id: UserId) -> Result<(), Refusal> {
    let noting = sqlx::query!(
        "update staff
         set missed_in_a_row = missed_in_a_row + 1,
             status = case when missed_in_a_row + 1 >= $3 then 'away' else status end,
             away_reason = case when missed_in_a_row + 1 >= $3 then 'missed' else away_reason end,
             status_at = case when missed_in_a_row + 1 >= $3 then $4 else status_at end
         where business_id = $1 and user_id = $2",
        business.business_id.as_uuid(),
        agent_id.as_uuid(),
        MISSED_MAX,
        sql(business.now)
    );
    statement(noting.execute(connection)).await?;
    Ok(())
}

async fn note_unseen(
    connection: &mut PgConnection,
    business_id: Uuid,
    user_id: Uuid,
    since: Option<OffsetDateTime>,
) -> Result<(), Refusal> {
    let noting = sqlx::query!(
        "update staff set unseen_since = $3 where business_id = $1 and user_id = $2",
        business_id,
        user_id,
        since
    );
    bounded(noting.execute(connection)).await?;
    Ok(())
}

/// Nothing was looked at for a while: PostgreSQL was away, or all gateways were. No agent loses a case by that.
async fn begin_all_anew(
    connection: &mut PgConnection,
    now: OffsetDateTime,
    pause: time::Duration,
) -> Result<(), Refusal> {
    let moving = sqlx::query!("update cases set clock_from = $1 where state = 'assigned'", now);
    let moved = bounded(moving.execute(connection)).await?.rows_affected();
    if moved > 0 {
        tracing::warn!(
            cases = moved,
            pause_s = pause.whole_seconds(),
            "cases were not looked at for a while; their clocks begin anew"
        );
    }
    Ok(())
}
