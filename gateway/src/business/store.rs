//! The statements on businesses, cases and assignments.

use std::{collections::HashMap, time::Duration};

use chat_shared::{
    clock::Timestamp,
    event::{Event, Fact},
    ids::{BusinessId, ConversationId, UserId},
    position::{Seq, StreamSeq},
    wire::{BusinessSettings, CaseState, Clocks, ConversationKind, Hours, Role, StaffRole, Strategy},
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    case::{CaseRow, Contact, Move},
    hours::{Opening, Schedule},
    route::Reach,
    sql,
};
use crate::{conversations::stored_id, database::statement, refusal::Refusal};

/// A business whose row is locked.
#[derive(Debug, Clone)]
#[expect(clippy::struct_field_names, reason = "ids are named as everywhere else")]
pub(super) struct Business {
    pub business_id: BusinessId,
    /// Whether it takes conversations.
    pub is_open: bool,
    pub staff_version: u64,
    pub settings: BusinessSettings,
    /// When the row was locked, by the clock of PostgreSQL.
    pub now: Timestamp,
}

impl Business {
    /// Whether cases are assigned by the router now, as far as the hours are concerned.
    pub fn is_routing(&self) -> bool {
        !self.settings.hours.is_enforced || self.opening().is_open
    }

    /// Whether the hours say that it is open now.
    pub fn opening(&self) -> Opening {
        // Hours are checked before they are stored. Unreadable ones hold up no customer.
        let always = Opening { is_open: true, changes_at: None };
        Schedule::new(&self.settings.hours).map_or(always, |schedule| schedule.at(self.now))
    }

    /// How an agent is reached, and when the sweep looks first at a case that the agent gets now.
    pub fn contact(&self, is_online: bool) -> Contact {
        let Clocks { answer_max_s, notified_max_s, reply_max_s, quiet_max_s, .. } = self.settings.clocks;
        let first = if is_online { answer_max_s } else { notified_max_s };
        let due_after = Duration::from_secs(first.min(reply_max_s).min(quiet_max_s).into());
        Contact { is_online, due_after }
    }

    /// How long after it was resolved a case prefers its last agent.
    pub fn affinity(&self) -> Duration {
        Duration::from_secs(self.settings.clocks.affinity_s.into())
    }
}

/// Locks the row of a business. None if there is no such business.
pub(super) async fn lock(connection: &mut PgConnection, business_id: BusinessId) -> Result<Option<Business>, Refusal> {
    let locking = sqlx::query!(
        "select business_id from businesses where business_id = $1 for no key update",
        business_id.as_uuid()
    );
    if statement(locking.fetch_optional(&mut *connection)).await?.is_none() {
        return Ok(None);
    }
    read(connection, business_id).await
}

/// The business as it is. After a wait for its lock, a statement of its own sees what was committed meanwhile.
pub(super) async fn read(connection: &mut PgConnection, business_id: BusinessId) -> Result<Option<Business>, Refusal> {
    businesses(connection, &[business_id]).await?.pop().transpose()
}

/// Those of the businesses that exist. One that can't be read harms no other.
pub(super) async fn businesses(
    connection: &mut PgConnection,
    business_ids: &[BusinessId],
) -> Result<Vec<Result<Business, Refusal>>, Refusal> {
    let ids: Vec<_> = business_ids.iter().map(|id| id.as_uuid()).collect();
    let reading = sqlx::query!(
        r#"select business_id, is_open, staff_version, strategy, capacity, answer_max_s, notified_max_s, reply_max_s,
               quiet_max_s, affinity_s, hours::text, settings_version, clock_timestamp() as "now!"
           from businesses where business_id = any($1)"#,
        &ids
    );
    let rows = statement(reading.fetch_all(connection)).await?.into_iter();
    let read = rows.map(|row| {
        let hours = row.hours.map(|hours| serde_json::from_str::<Hours>(&hours)).transpose();
        let settings = BusinessSettings {
            settings_version: row.settings_version.unsigned_abs(),
            strategy: Strategy::named(&row.strategy),
            capacity: row.capacity.unsigned_abs(),
            clocks: Clocks {
                answer_max_s: row.answer_max_s.unsigned_abs(),
                notified_max_s: row.notified_max_s.unsigned_abs(),
                reply_max_s: row.reply_max_s.unsigned_abs(),
                quiet_max_s: row.quiet_max_s.unsigned_abs(),
                affinity_s: row.affinity_s.unsigned_abs(),
            },
            hours: hours.map_err(|error| Refusal::internal(&error))?.unwrap_or_default(),
        };
        Ok(Business {
            business_id: stored_id(row.business_id)?,
            is_open: row.is_open,
            staff_version: row.staff_version.unsigned_abs(),
            settings,
            now: row.now.into(),
        })
    });
    Ok(read.collect())
}

/// How many of the businesses exist.
pub(super) async fn count(connection: &mut PgConnection, business_ids: &[BusinessId]) -> Result<usize, Refusal> {
    let ids: Vec<_> = business_ids.iter().map(|id| id.as_uuid()).collect();
    let counting =
        sqlx::query_scalar!(r#"select count(*) as "count!" from businesses where business_id = any($1)"#, &ids);
    Ok(usize::try_from(statement(counting.fetch_one(connection)).await?).unwrap_or_default())
}

/// A row of `cases` with the columns of its conversation.
struct Row {
    conversation_id: Uuid,
    business_id: Uuid,
    customer_id: Uuid,
    version: i64,
    customer_seq: i64,
    agent_seq: i64,
    resolved_seq: i64,
    case_number: i32,
    state: String,
    agent_id: Option<Uuid>,
    last_agent_id: Option<Uuid>,
    opened_at: OffsetDateTime,
    waiting_since: OffsetDateTime,
    assigned_at: Option<OffsetDateTime>,
    accepted_at: Option<OffsetDateTime>,
    resolved_at: Option<OffsetDateTime>,
    was_online: bool,
    due_at: Option<OffsetDateTime>,
    clock_from: Option<OffsetDateTime>,
    missed_by: Vec<Uuid>,
    given_back: i16,
}

impl TryFrom<Row> for CaseRow {
    type Error = Refusal;

    fn try_from(row: Row) -> Result<Self, Refusal> {
        Ok(Self {
            conversation_id: stored_id(row.conversation_id)?,
            business_id: stored_id(row.business_id)?,
            customer_id: stored_id(row.customer_id)?,
            version: row.version.unsigned_abs(),
            customer_seq: Seq::from_sql(row.customer_seq),
            agent_seq: Seq::from_sql(row.agent_seq),
            resolved_seq: Seq::from_sql(row.resolved_seq),
            number: row.case_number.unsigned_abs(),
            state: CaseState::named(&row.state),
            agent_id: row.agent_id.map(stored_id).transpose()?,
            last_agent_id: row.last_agent_id.map(stored_id).transpose()?,
            opened_at: row.opened_at.into(),
            waiting_since: row.waiting_since.into(),
            assigned_at: row.assigned_at.map(Timestamp::from),
            accepted_at: row.accepted_at.map(Timestamp::from),
            resolved_at: row.resolved_at.map(Timestamp::from),
            was_online: row.was_online,
            due_at: row.due_at.map(Timestamp::from),
            clock_from: row.clock_from.map(Timestamp::from),
            missed_by: row.missed_by.into_iter().map(stored_id).collect::<Result<_, _>>()?,
            given_back: u32::from(row.given_back.unsigned_abs()),
        })
    }
}

/// The cases of these conversations, in the order given.
pub(super) async fn cases(
    connection: &mut PgConnection,
    conversations: &[ConversationId],
) -> Result<Vec<CaseRow>, Refusal> {
    let ids: Vec<_> = conversations.iter().map(|id| id.as_uuid()).collect();
    let reading = sqlx::query_as!(
        Row,
        r#"select k.conversation_id, k.business_id, k.customer_id, c.version, c.customer_seq, c.agent_seq, c.resolved_seq,
               k.case_number, k.state, k.agent_id, k.last_agent_id, k.opened_at, k.waiting_since, k.assigned_at,
               k.accepted_at, k.resolved_at, k.was_online, k.due_at, k.clock_from, k.missed_by, k.given_back
           from unnest($1::uuid[]) with ordinality as wanted (conversation_id, place)
           join cases k on k.conversation_id = wanted.conversation_id
           join conversations c on c.conversation_id = wanted.conversation_id
           order by wanted.place"#,
        &ids
    );
    let rows = statement(reading.fetch_all(connection)).await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// The business of a conversation; none if the conversation does not exist or is none with a business.
pub(super) async fn business_of(
    connection: &mut PgConnection,
    conversation_id: ConversationId,
) -> Result<Option<BusinessId>, Refusal> {
    let finding = sqlx::query_scalar!(
        "select business_id from conversations where conversation_id = $1",
        conversation_id.as_uuid()
    );
    let found = statement(finding.fetch_optional(connection)).await?.flatten();
    Ok(found.map(stored_id).transpose()?)
}

/// The conversations whose cases wait, the oldest first.
pub(super) async fn waiting(
    connection: &mut PgConnection,
    business_id: BusinessId,
    rows_max: i64,
) -> Result<Vec<ConversationId>, Refusal> {
    let reading = sqlx::query_scalar!(
        "select conversation_id from cases where business_id = $1 and state = 'waiting'
         order by waiting_since, conversation_id limit $2",
        business_id.as_uuid(),
        rows_max
    );
    ids(statement(reading.fetch_all(connection)).await?)
}

/// The waiting cases of a business.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Queue {
    pub waiting: u32,
    pub oldest_waiting_since: Option<Timestamp>,
}

/// The waiting cases of these businesses; a business without any is left out.
pub(super) async fn queues(
    connection: &mut PgConnection,
    business_ids: &[BusinessId],
) -> Result<HashMap<BusinessId, Queue>, Refusal> {
    let ids: Vec<_> = business_ids.iter().map(|id| id.as_uuid()).collect();
    let counting = sqlx::query!(
        r#"select business_id, count(*) as "waiting!", min(waiting_since) as oldest
           from cases where business_id = any($1) and state = 'waiting' group by business_id"#,
        &ids
    );
    let rows = statement(counting.fetch_all(connection)).await?;
    rows.into_iter()
        .map(|row| {
            let waiting = u32::try_from(row.waiting).unwrap_or(u32::MAX);
            let queue = Queue { waiting, oldest_waiting_since: row.oldest.map(Timestamp::from) };
            Ok((stored_id(row.business_id)?, queue))
        })
        .collect()
}

/// The conversations whose customers have written after their cases were resolved.
pub(super) async fn reopened(
    connection: &mut PgConnection,
    business_id: BusinessId,
    rows_max: i64,
) -> Result<Vec<ConversationId>, Refusal> {
    let reading = sqlx::query_scalar!(
        "select c.conversation_id from conversations c join cases k using (conversation_id)
         where c.business_id = $1 and c.customer_seq > c.resolved_seq and k.state = 'resolved' limit $2",
        business_id.as_uuid(),
        rows_max
    );
    ids(statement(reading.fetch_all(connection)).await?)
}

/// The conversations that an agent has.
pub(super) async fn of_agents(
    connection: &mut PgConnection,
    business_id: BusinessId,
    agents: &[UserId],
) -> Result<Vec<ConversationId>, Refusal> {
    let agents: Vec<_> = agents.iter().map(|agent| agent.as_uuid()).collect();
    let reading = sqlx::query_scalar!(
        "select conversation_id from cases where business_id = $1 and state = 'assigned' and agent_id = any($2)",
        business_id.as_uuid(),
        &agents
    );
    ids(statement(reading.fetch_all(connection)).await?)
}

/// Conversations in a column.
pub(super) fn ids(ids: Vec<Uuid>) -> Result<Vec<ConversationId>, Refusal> {
    ids.into_iter().map(|id| Ok(stored_id(id)?)).collect()
}

/// A member of the staff, as far as routing and decisions are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    pub user_id: UserId,
    pub role: StaffRole,
    pub is_available: bool,
    /// Cases that it may have.
    pub capacity: u32,
    /// Cases that it has.
    pub load: u32,
    pub last_assigned_at: Option<Timestamp>,
    /// Whether a device of its is registered for notifications.
    pub has_device: bool,
}

impl Member {
    /// Whether it is connected, or has a device that is registered for notifications.
    pub fn is_reachable(&self, reach: &Reach) -> bool {
        reach.is_online(self.user_id) || self.has_device
    }
}

/// The staff of a business that takes cases.
pub(super) async fn available(connection: &mut PgConnection, business_id: BusinessId) -> Result<Vec<UserId>, Refusal> {
    let reading = sqlx::query_scalar!(
        "select user_id from staff where business_id = $1 and status = 'available'",
        business_id.as_uuid()
    );
    let users = statement(reading.fetch_all(connection)).await?;
    users.into_iter().map(|user_id| Ok(stored_id(user_id)?)).collect()
}

/// The staff of a business: all of it, or those named.
pub(super) async fn staff(
    connection: &mut PgConnection,
    business_id: BusinessId,
    only: Option<&[UserId]>,
) -> Result<Vec<Member>, Refusal> {
    let found = staff_of(connection, &[business_id], only).await?;
    Ok(found.into_iter().map(|(_, member)| member).collect())
}

/// The staff of these businesses, each with its business: all of it, or the users named.
pub(super) async fn staff_of(
    connection: &mut PgConnection,
    business_ids: &[BusinessId],
    only: Option<&[UserId]>,
) -> Result<Vec<(BusinessId, Member)>, Refusal> {
    let ids: Vec<_> = business_ids.iter().map(|id| id.as_uuid()).collect();
    let only: Option<Vec<_>> = only.map(|users| users.iter().map(|user_id| user_id.as_uuid()).collect());
    let reading = sqlx::query!(
        r#"select s.business_id, s.user_id, s.role, s.status = 'available' as "is_available!",
               coalesce(s.capacity, b.capacity) as "capacity!", s.last_assigned_at,
               (
                   select count(*) from cases k
                   where k.business_id = s.business_id and k.agent_id = s.user_id and k.state = 'assigned'
               ) as "load!",
               exists (select from notification_devices d where d.user_id = s.user_id) as "has_device!"
           from staff s join businesses b using (business_id)
           where s.business_id = any($1) and ($2::uuid[] is null or s.user_id = any($2))
           order by s.business_id, s.user_id"#,
        &ids,
        only.as_deref()
    );
    let rows = statement(reading.fetch_all(connection)).await?;
    rows.into_iter()
        .map(|row| {
            let member = Member {
                user_id: stored_id(row.user_id)?,
                role: StaffRole::named(&row.role),
                is_available: row.is_available,
                capacity: row.capacity.unsigned_abs(),
                load: u32::try_from(row.load).unwrap_or(u32::MAX),
                last_assigned_at: row.last_assigned_at.map(Timestamp::from),
                has_device: row.has_device,
            };
            Ok((stored_id(row.business_id)?, member))
        })
        .collect()
}

/// Applies changes that were decided by what the locked business showed, and leaves them in the outbox.
pub(super) async fn apply(connection: &mut PgConnection, business: &Business, moves: &[Move]) -> Result<(), Refusal> {
    if moves.is_empty() {
        return Ok(());
    }
    raise_versions(connection, moves).await?;
    change_participants(connection, moves, business.now).await?;
    insert_events(connection, business, moves).await?;
    update_cases(connection, business, moves).await?;
    release(connection, moves, business.now).await?;
    assign(connection, business, moves).await
}

/// Two changes of one version can't be told apart in the log.
#[derive(Debug, thiserror::Error)]
#[error("the version of a business conversation changed while its business was locked")]
struct VersionMoved;

async fn raise_versions(connection: &mut PgConnection, moves: &[Move]) -> Result<(), Refusal> {
    let (ids, resolved): (Vec<_>, Vec<_>) =
        moves.iter().map(|change| (change.after.conversation_id.as_uuid(), change.after.resolved_seq.to_sql())).unzip();
    let versions: Vec<_> = moves.iter().map(|change| change.before.version.cast_signed()).collect();
    // An update takes its rows in any order, hence the sorted lock before it.
    let raising = sqlx::query!(
        "with locked as materialized (
             select conversation_id from conversations where conversation_id = any($1)
             order by conversation_id for no key update
         )
         update conversations c
         set version = c.version + 1, resolved_seq = greatest(c.resolved_seq, m.resolved_seq)
         from unnest($1::uuid[], $2::bigint[], $3::bigint[]) as m (conversation_id, resolved_seq, version)
         join locked using (conversation_id)
         where c.conversation_id = m.conversation_id and c.version = m.version",
        &ids,
        &resolved,
        &versions
    );
    let raised = statement(raising.execute(connection)).await?.rows_affected();
    if usize::try_from(raised) == Ok(moves.len()) { Ok(()) } else { Err(Refusal::internal(&VersionMoved)) }
}

async fn change_participants(connection: &mut PgConnection, moves: &[Move], now: Timestamp) -> Result<(), Refusal> {
    let pairs = |agent: fn(&Move) -> Option<UserId>| -> (Vec<Uuid>, Vec<Uuid>) {
        let pairs = moves.iter().filter_map(|change| Some((change.after.conversation_id, agent(change)?)));
        pairs.map(|(conversation_id, user_id)| (conversation_id.as_uuid(), user_id.as_uuid())).unzip()
    };
    let (conversations, removed) = pairs(Move::removed);
    if !removed.is_empty() {
        // In the order in which the persister locks them.
        let removing = sqlx::query!(
            "with gone as materialized (
                 select p.conversation_id, p.user_id
                 from participants p join unnest($1::uuid[], $2::uuid[]) as m (conversation_id, user_id)
                     using (conversation_id, user_id)
                 order by p.conversation_id, p.user_id for update of p
             )
             delete from participants p using gone
             where p.conversation_id = gone.conversation_id and p.user_id = gone.user_id",
            &conversations,
            &removed
        );
        statement(removing.execute(&mut *connection)).await?;
    }
    let (conversations, added) = pairs(Move::added);
    if !added.is_empty() {
        // Messages that were answered or resolved are read, those that wait for an answer are not.
        let adding = sqlx::query!(
            "insert into participants (conversation_id, user_id, role, joined_at, read_seq, since_seq)
             select c.conversation_id, joining.user_id, $3, $4, greatest(c.agent_seq, c.resolved_seq), c.last_seq
             from unnest($1::uuid[], $2::uuid[]) as joining (conversation_id, user_id)
             join conversations c using (conversation_id)
             order by c.conversation_id",
            &conversations,
            &added,
            Role::Agent.as_str(),
            sql(now)
        );
        statement(adding.execute(connection)).await?;
    }
    Ok(())
}

async fn insert_events(connection: &mut PgConnection, business: &Business, moves: &[Move]) -> Result<(), Refusal> {
    let events = moves.iter().map(|change| {
        let participants = change.after.participants(!business.is_open);
        let (conversation_id, version) = (change.after.conversation_id, participants.version.cast_signed());
        let event = Event {
            conversation_id,
            kind: ConversationKind::Business,
            seq: Seq::ZERO,
            sent_at: business.now,
            previous: StreamSeq::ZERO,
            participants,
            fact: Fact::ParticipantsChanged(change.fact()),
        };
        ((conversation_id.as_uuid(), version), event.encode())
    });
    let (places, events): (Vec<_>, Vec<_>) = events.unzip();
    let (conversations, versions): (Vec<_>, Vec<_>) = places.into_iter().unzip();
    let inserting = sqlx::query!(
        "insert into outbox (conversation_id, version, event, created_at)
         select conversation_id, version, event, $4
         from unnest($1::uuid[], $2::bigint[], $3::bytea[]) as change (conversation_id, version, event)",
        &conversations,
        &versions,
        &events,
        sql(business.now)
    );
    statement(inserting.execute(connection)).await?;
    Ok(())
}

async fn update_cases(connection: &mut PgConnection, business: &Business, moves: &[Move]) -> Result<(), Refusal> {
    let rows: Vec<_> = moves.iter().map(|change| &change.after).collect();
    let of_each = |at: fn(&CaseRow) -> Option<Timestamp>| -> Vec<Option<OffsetDateTime>> {
        rows.iter().map(|row| at(row).map(OffsetDateTime::from)).collect()
    };
    let ids: Vec<_> = rows.iter().map(|row| row.conversation_id.as_uuid()).collect();
    let states: Vec<_> = rows.iter().map(|row| row.state.as_str().to_owned()).collect();
    let numbers: Vec<_> = rows.iter().map(|row| row.number.cast_signed()).collect();
    let agents: Vec<_> = rows.iter().map(|row| row.agent_id.map(UserId::as_uuid)).collect();
    let last_agents: Vec<_> = rows.iter().map(|row| row.last_agent_id.map(UserId::as_uuid)).collect();
    let opened: Vec<_> = rows.iter().map(|row| sql(row.opened_at)).collect();
    let waiting: Vec<_> = rows.iter().map(|row| sql(row.waiting_since)).collect();
    let online: Vec<_> = rows.iter().map(|row| row.was_online).collect();
    // As text: PostgreSQL has no arrays of arrays of different lengths.
    let missed: Vec<_> = rows.iter().map(|row| uuid_array(&row.missed_by)).collect();
    let given_back: Vec<_> = rows.iter().map(|row| i16::try_from(row.given_back).unwrap_or(i16::MAX)).collect();
    let updating = sqlx::query!(
        "update cases k
         set state = m.state, case_number = m.case_number, agent_id = m.agent_id, last_agent_id = m.last_agent_id,
             opened_at = m.opened_at, waiting_since = m.waiting_since, assigned_at = m.assigned_at,
             accepted_at = m.accepted_at, resolved_at = m.resolved_at, was_online = m.was_online, due_at = m.due_at,
             missed_by = m.missed_by::uuid[], given_back = m.given_back, is_closed = $15
         from unnest(
             $1::uuid[], $2::text[], $3::integer[], $4::uuid[], $5::uuid[], $6::timestamptz[], $7::timestamptz[],
             $8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::boolean[], $12::timestamptz[], $13::text[],
             $14::smallint[]
         ) as m (
             conversation_id, state, case_number, agent_id, last_agent_id, opened_at, waiting_since, assigned_at,
             accepted_at, resolved_at, was_online, due_at, missed_by, given_back
         )
         where k.conversation_id = m.conversation_id",
        &ids,
        &states,
        &numbers,
        &agents as &[Option<Uuid>],
        &last_agents as &[Option<Uuid>],
        &opened,
        &waiting,
        &of_each(|row| row.assigned_at) as &[Option<OffsetDateTime>],
        &of_each(|row| row.accepted_at) as &[Option<OffsetDateTime>],
        &of_each(|row| row.resolved_at) as &[Option<OffsetDateTime>],
        &online,
        &of_each(|row| row.due_at) as &[Option<OffsetDateTime>],
        &missed,
        &given_back,
        !business.is_open
    );
    statement(updating.execute(connection)).await?;
    Ok(())
}

/// In PostgreSQL's notation of arrays.
fn uuid_array(users: &[UserId]) -> String {
    let ids: Vec<_> = users.iter().map(|user_id| user_id.as_uuid().to_string()).collect();
    format!("{{{}}}", ids.join(","))
}

/// Ends the leases of agents that have their cases no more.
async fn release(connection: &mut PgConnection, moves: &[Move], now: Timestamp) -> Result<(), Refusal> {
    let released = moves.iter().filter_map(|change| Some((change.after.conversation_id.as_uuid(), change.release?)));
    let (ids, reasons): (Vec<_>, Vec<_>) = released.map(|(id, reason)| (id, reason.as_str().to_owned())).unzip();
    if ids.is_empty() {
        return Ok(());
    }
    let releasing = sqlx::query!(
        "update assignments a set released_at = $3, release_reason = m.reason
         from unnest($1::uuid[], $2::text[]) as m (conversation_id, reason)
         where a.conversation_id = m.conversation_id and a.released_at is null",
        &ids,
        &reasons,
        sql(now)
    );
    statement(releasing.execute(connection)).await?;
    for reason in reasons {
        metrics::counter!(crate::telemetry::ASSIGNMENTS_RELEASED_TOTAL, "reason" => reason).increment(1);
    }
    Ok(())
}

/// Adds the leases of agents that have cases from now on to the ledger.
async fn assign(connection: &mut PgConnection, business: &Business, moves: &[Move]) -> Result<(), Refusal> {
    let assigned: Vec<_> = moves
        .iter()
        .filter_map(|change| Some((&change.after, change.assignment.as_ref()?, change.after.agent_id?)))
        .collect();
    if assigned.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = assigned.iter().map(|(case, ..)| case.conversation_id.as_uuid()).collect();
    let numbers: Vec<_> = assigned.iter().map(|(case, ..)| case.number.cast_signed()).collect();
    let agents: Vec<_> = assigned.iter().map(|(.., agent_id)| agent_id.as_uuid()).collect();
    let deciders: Vec<_> = assigned.iter().map(|(_, new, _)| new.assigned_by.map(UserId::as_uuid)).collect();
    let reasons: Vec<_> = assigned.iter().map(|(_, new, _)| new.reason.as_str().to_owned()).collect();
    let waited: Vec<_> = assigned.iter().map(|(case, ..)| (business.now.0 - case.waiting_since.0).max(0)).collect();
    let considered =
        assigned.iter().map(|(_, new, _)| serde_json::to_string(&new.considered)).collect::<Result<_, _>>();
    let considered: Vec<String> = considered.map_err(|error| Refusal::internal(&error))?;
    let inserting = sqlx::query!(
        "insert into assignments (
             conversation_id, business_id, case_number, agent_id, assigned_by, reason, strategy, waited_ms, candidates,
             assigned_at
         )
         select conversation_id, $8, case_number, agent_id, assigned_by, reason, $9, waited_ms, candidates::jsonb, $10
         from unnest(
             $1::uuid[], $2::integer[], $3::uuid[], $4::uuid[], $5::text[], $6::bigint[], $7::text[]
         ) as new (conversation_id, case_number, agent_id, assigned_by, reason, waited_ms, candidates)",
        &ids,
        &numbers,
        &agents,
        &deciders as &[Option<Uuid>],
        &reasons,
        &waited,
        &considered,
        business.business_id.as_uuid(),
        business.settings.strategy.as_str(),
        sql(business.now)
    );
    statement(inserting.execute(&mut *connection)).await?;
    // One millisecond apart and later than all before, so that agents take turns in the order of their assignments.
    let noting = sqlx::query!(
        "update staff s
         set last_assigned_at = greatest($3::timestamptz, latest.at) + m.place * interval '1 millisecond',
             unseen_since = null
         from (select max(last_assigned_at) as at from staff where business_id = $1) latest, (
             select user_id, max(place) as place from unnest($2::uuid[]) with ordinality as new (user_id, place)
             group by user_id
         ) m
         where s.business_id = $1 and s.user_id = m.user_id",
        business.business_id.as_uuid(),
        &agents,
        sql(business.now)
    );
    statement(noting.execute(connection)).await?;
    for (_, new, _) in &assigned {
        metrics::counter!(crate::telemetry::ASSIGNMENTS_TOTAL, "reason" => new.reason.as_str()).increment(1);
    }
    Ok(())
}
