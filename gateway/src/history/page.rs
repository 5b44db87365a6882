//! Makes a page of history out of PostgreSQL's rows and the log's tail, from whichever of the two is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use chat_shared::{
    breaker::Breaker,
    customer_view::CustomerView,
    event::{Event, Fact},
    ids::{ConversationId, UserId},
    limits,
    log::AppendError,
    position::Seq,
    sealing::Envelope,
    wire::{ErrorCode, HistoryPage},
};
use sqlx::{Postgres, pool::PoolConnection};

use super::{
    cold::{self, Bodies, ColdBodies, ColdPlace},
    range::{Extent, Place, Range},
    stored::{self, RowsError, Search, StoredMessage},
    tail::{End, Tail, TailError},
    times::Times,
};
use crate::{
    content::Content,
    conversations::{Membership, membership},
    database::{Database, DatabaseError, Lent, ReadFrom},
    refusal::Refusal,
    telemetry,
};

/// How long a page waits for the newest event. After it the log counts as out of reach.
const NEWEST_WAIT_MAX: Duration = Duration::from_secs(1);

/// Reads conversations' messages.
#[derive(Clone)]
pub struct History {
    pub(super) database: Database,
    tail: Tail,
    log_breaker: Arc<Breaker>,
    pub(super) content: Content,
    cold: ColdBodies,
    times: Times,
}

/// As what a user reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// The newest event says whether the user takes part.
    Participant,
    /// The staff of the business was asked before.
    Staff,
    /// The user's data is exported: texts of others are never read, and their messages are left out unless the user takes part.
    Export,
}

/// A page as it was found, with its texts still sealed.
pub(super) struct Part {
    place: Place,
    extent: Extent,
    /// The numbers that the page covers; none if there are none.
    pub(super) shown: Option<Range>,
    pub(super) found: Found,
    /// Messages whose texts the object store has lost. `found` has them as deleted ones.
    pub(super) lost: Vec<StoredMessage>,
    /// How the user sees it, if that is the customer of a business.
    pub(super) customer: Option<CustomerView>,
    /// Whether it is known that `extent` has the last message.
    is_current: bool,
    is_participant: bool,
}

/// Where a page reads what is stored: all of it from one server, since a fresher number beside staler rows would show holes.
enum Source {
    /// Whose connections are not held while the log is asked.
    Primary(Database),
    Replica(PoolConnection<Postgres>, Lent),
}

/// Why a page was not made.
#[derive(Debug)]
enum NotMade {
    Refused(Refusal),
    /// A replica does not suffice for it.
    OnReplica(ReadFrom),
}

/// What was found of a page so far; a deleted message without itself.
type Found = BTreeMap<Seq, Option<StoredMessage>>;

/// What is known of a conversation from each side.
struct Sides {
    /// The newest event; `None` if the log holds none.
    log: Result<Option<Event>, LogAway>,
    /// How far it is stored; `None` if there is no such conversation.
    postgres: Result<Option<Membership>, DatabaseError>,
}

/// The log can't be read now.
#[derive(Debug, thiserror::Error)]
#[error("the log is out of reach")]
struct LogAway;

/// The object store has the beginning of the page, and can't be read now.
#[derive(Debug, thiserror::Error)]
#[error("the object store, which has the texts of old messages, is out of reach or not configured")]
struct ColdAway;

/// Neither side has the beginning of the page within reach.
#[derive(Debug, thiserror::Error)]
#[error("the page is out of reach: PostgreSQL or the log is missing, or it is too far back in the log")]
struct OutOfReach;

impl History {
    /// Over both sides; a text is opened as it is shown.
    pub fn new(database: Database, tail: Tail, content: Content, cold: ColdBodies) -> Self {
        Self { database, tail, log_breaker: Arc::default(), content, cold, times: Times::default() }
    }

    /// A page of a conversation that the user takes part in. It may be shorter than asked when a side is missing, but
    /// never has a hole because of that.
    pub async fn page(
        &self,
        user_id: UserId,
        conversation_id: ConversationId,
        place: Place,
        limit: usize,
    ) -> Result<HistoryPage, Refusal> {
        self.open(conversation_id, self.read(user_id, conversation_id, place, limit, Reader::Participant).await?)
    }

    /// As `page`, for a user that `businesses.check_reader` has let pass.
    pub async fn page_for_staff(
        &self,
        user_id: UserId,
        conversation_id: ConversationId,
        place: Place,
        limit: usize,
    ) -> Result<HistoryPage, Refusal> {
        self.open(conversation_id, self.read(user_id, conversation_id, place, limit, Reader::Staff).await?)
    }

    /// A part of a conversation, with the sealed texts that the object store has.
    pub(super) async fn read(
        &self,
        user_id: UserId,
        conversation_id: ConversationId,
        place: Place,
        limit: usize,
        reader: Reader,
    ) -> Result<Part, Refusal> {
        let mut part = self.find(user_id, conversation_id, place, limit, reader).await?;
        if reader == Reader::Export {
            part.leave_out_others(user_id);
        }
        self.add_cold(conversation_id, &mut part).await?;
        self.times.remember(conversation_id, part.found.values().flatten());
        Ok(part)
    }

    async fn find(
        &self,
        user_id: UserId,
        conversation_id: ConversationId,
        place: Place,
        limit: usize,
        reader: Reader,
    ) -> Result<Part, Refusal> {
        if let Some((connection, lent)) = self.database.lend(&[]).await {
            let mut source = Source::Replica(connection, lent);
            match self.find_on(&mut source, user_id, conversation_id, place, limit, reader).await {
                Ok(part) => {
                    ReadFrom::Replica.count(1);
                    return Ok(part);
                }
                Err(NotMade::OnReplica(from)) => from.count(1),
                Err(NotMade::Refused(_)) => ReadFrom::Failed.count(1),
            }
        }
        let mut source = Source::Primary(self.database.clone());
        let part = self.find_on(&mut source, user_id, conversation_id, place, limit, reader).await;
        part.map_err(|not_made| match not_made {
            NotMade::Refused(refusal) => refusal,
            NotMade::OnReplica(_) => Refusal::unavailable("this part of the history", &OutOfReach),
        })
    }

    async fn find_on(
        &self,
        source: &mut Source,
        user_id: UserId,
        conversation_id: ConversationId,
        place: Place,
        limit: usize,
        reader: Reader,
    ) -> Result<Part, NotMade> {
        let membership = source.membership(conversation_id, user_id);
        let (log, postgres) = tokio::join!(self.newest(conversation_id), membership);
        let mut sides = Sides { log: log?, postgres };
        // Without an event in the log, or without the log, the primary of PostgreSQL decides who takes part. For an
        // export a replica that is seconds behind may decide it.
        let has_rights = reader == Reader::Export || matches!(sides.log, Ok(Some(_)));
        source.suffices_if(has_rights, ReadFrom::Rights)?;
        source.suffices_if(sides.postgres.is_ok(), ReadFrom::Failed)?;
        if sides.is_log_behind() {
            // Between the two questions somebody sent and it was stored. Whoever may not see that must not.
            sides.log = self.newest(conversation_id).await?;
        }
        let is_participant = match reader {
            Reader::Participant | Reader::Export => sides.is_participant(user_id)?,
            Reader::Staff => false,
        };
        if reader == Reader::Participant && !is_participant {
            return Err(Refusal::no_such_conversation().into());
        }
        let extent = sides.extent();
        let (mut shown, mut found) = (None, Found::new());
        if let Some(wanted) = extent.page(place, limit) {
            found = self.stored(source, conversation_id, place, wanted, &mut sides).await?;
            source.suffices_if(sides.postgres.is_ok(), ReadFrom::Failed)?;
            let tail = self.add_tail(user_id, wanted, &sides, &mut found).await?;
            let is_whole = wanted.numbers().all(|seq| found.contains_key(&seq));
            source.suffices_if(is_whole, ReadFrom::Behind)?;
            let covered = show(wanted, place, &found, tail)?;
            found.retain(|seq, _| covered.contains(*seq));
            shown = Some(covered);
        }
        // Without the log nobody knows whether there are later ones, and a client that fills a gap must not think so.
        let is_current = sides.log.is_ok() || !matches!(place, Place::After(_));
        if !is_current && shown.is_none() {
            return Err(Refusal::unavailable("the end of the history", &LogAway).into());
        }
        let (customer, lost) = (sides.customer(user_id), Vec::new());
        Ok(Part { place, extent, shown, found, lost, customer, is_current, is_participant })
    }

    /// The page in clear.
    fn open(&self, conversation_id: ConversationId, part: Part) -> Result<HistoryPage, Refusal> {
        let has_more = part.has_more();
        let Part { extent, found, customer, .. } = part;
        let messages = found
            .into_values()
            .flatten()
            .filter_map(|stored: StoredMessage| match self.content.open_message(conversation_id, &stored.message) {
                Ok(text) => {
                    let message = stored.into_message(conversation_id, text);
                    Some(Ok(match &customer {
                        Some(customer) => customer.message(message),
                        None => message,
                    }))
                }
                // Its text is in no pack, or other bytes are there than were stored: the other messages are shown.
                Err(refusal)
                    if (stored.cold.is_some() || stored.lacks_text()) && refusal.code == ErrorCode::Internal =>
                {
                    cold::count_unreadable(1);
                    None
                }
                Err(refusal) => Some(Err(refusal)),
            })
            .collect::<Result<_, Refusal>>()?;
        Ok(HistoryPage { messages, has_more, last_seq: extent.last, floor_seq: extent.floor })
    }

    /// The newest event, or that the log is away; at once while that is known.
    async fn newest(&self, conversation_id: ConversationId) -> Result<Result<Option<Event>, LogAway>, Refusal> {
        let asked_at = Instant::now();
        if !self.log_breaker.permits(asked_at) {
            return Ok(Err(LogAway));
        }
        let newest = tokio::time::timeout(NEWEST_WAIT_MAX, self.tail.log().newest(conversation_id)).await;
        match newest.unwrap_or(Err(AppendError::Unknown)) {
            Ok(newest) => {
                self.log_breaker.close(Instant::now());
                Ok(Ok(newest.map(|(_, event)| event)))
            }
            Err(error @ AppendError::Unreadable(_)) => Err(error.into()),
            Err(error) => {
                if self.log_breaker.fail(asked_at, Instant::now()) {
                    tracing::warn!(%error, "the log is out of reach, history comes from PostgreSQL alone");
                }
                Ok(Err(LogAway))
            }
        }
    }

    /// What PostgreSQL has of the range. If it goes away meanwhile, that is noted.
    async fn stored(
        &self,
        source: &mut Source,
        conversation_id: ConversationId,
        place: Place,
        wanted: Range,
        sides: &mut Sides,
    ) -> Result<Found, Refusal> {
        let Ok(Some(Membership { last_seq, last_message_at: Some(last_message_at), .. })) = sides.postgres else {
            return Ok(Found::new());
        };
        let Some(wanted) = wanted.up_to(last_seq) else { return Ok(Found::new()) };
        let search = self.times.search(conversation_id, place, last_message_at);
        match source.rows(conversation_id, wanted, search).await {
            Ok(rows) => Ok(rows.into_iter().collect()),
            Err(RowsError::Unreadable(error)) => Err(Refusal::internal(&error)),
            Err(RowsError::Database(error)) => {
                sides.postgres = Err(error);
                Ok(Found::new())
            }
        }
    }

    /// Adds the texts that only the object store has. What can't be read now ends the page.
    async fn add_cold(&self, conversation_id: ConversationId, part: &mut Part) -> Result<(), Refusal> {
        let Part { place, shown: Some(shown), found, lost, .. } = part else { return Ok(()) };
        let cold = found.iter().filter_map(|(seq, message)| Some((*seq, message.as_ref()?.cold.clone()?)));
        let mut wanted: Vec<_> = cold.collect();
        if wanted.is_empty() {
            return Ok(());
        }
        if !matches!(place, Place::After(_)) {
            wanted.reverse();
        }
        let mut bodies = self.cold.read(conversation_id, &wanted).await;
        self.read_moved(conversation_id, &wanted, found, &mut bodies).await;
        let gone = bodies.values().filter(|body| body.is_none()).count();
        if gone > 0 {
            cold::count_unreadable(gone);
        }
        let mut unread = BTreeSet::new();
        for (seq, _) in wanted {
            let Some(message) = found.get_mut(&seq) else { continue };
            match (bodies.remove(&seq), message.as_mut()) {
                (Some(Some(envelope)), Some(stored)) => stored.message.envelope = envelope,
                (Some(_), _) => lost.extend(message.take()),
                (None, _) => _ = unread.insert(seq),
            }
        }
        if unread.is_empty() {
            return Ok(());
        }
        let read = shown.unbroken(*place, |seq| !unread.contains(&seq)).filter(|read| has_messages(found, *read));
        *shown = read.ok_or_else(|| Refusal::unavailable("this part of the history", &ColdAway))?;
        found.retain(|seq, _| shown.contains(*seq));
        lost.retain(|message| shown.contains(message.seq));
        Ok(())
    }

    /// Reads once more what the store did not have where the rows said: a pack may have been replaced since they were read.
    async fn read_moved(
        &self,
        conversation_id: ConversationId,
        wanted: &[(Seq, ColdPlace)],
        found: &Found,
        bodies: &mut Bodies,
    ) {
        let lost = wanted.iter().filter(|(seq, _)| matches!(bodies.get(seq), Some(None)));
        let lost: Vec<_> =
            lost.filter_map(|(seq, place)| Some((*seq, found.get(seq)?.as_ref()?.sent_at, place))).collect();
        if lost.is_empty() {
            return;
        }
        let messages: Vec<_> = lost.iter().map(|(seq, sent_at, _)| (*seq, *sent_at)).collect();
        let Ok(mut connection) = self.database.connection().await else { return };
        let Ok(places) = stored::places(&mut connection, conversation_id, &messages).await else { return };
        drop(connection);
        let moved = lost.iter().zip(places).filter_map(|((seq, _, before), now)| {
            let now = now?;
            (now.object != before.object).then_some((*seq, now))
        });
        let moved: Vec<_> = moved.collect();
        if moved.is_empty() {
            return;
        }
        for (seq, _) in &moved {
            bodies.remove(seq);
        }
        bodies.extend(self.cold.read(conversation_id, &moved).await);
    }

    /// Adds what only the log has.
    async fn add_tail(
        &self,
        user_id: UserId,
        wanted: Range,
        sides: &Sides,
        found: &mut Found,
    ) -> Result<Added, Refusal> {
        let is_missing = |seq: &Seq| !found.contains_key(seq);
        let mut missing = wanted.numbers().filter(is_missing);
        let Some(lowest) = missing.next() else { return Ok(Added::Whole) };
        let missing = Range { first: lowest, last: missing.next_back().unwrap_or(lowest) };
        let Ok(newest) = &sides.log else { return Ok(Added::Part) };
        let Some(newest) = newest.clone() else { return Ok(Added::whole_if(sides.postgres.is_ok())) };
        let is_covered = newest.seq >= missing.last && sides.postgres.is_ok();
        let walk = self.tail.walk_back(user_id, newest, Seq(missing.first.0 - 1), |event| {
            if let Event { seq, sent_at, fact: Fact::MessageSent(message), .. } = event
                && missing.contains(seq)
            {
                found.entry(seq).or_insert(Some(StoredMessage { seq, sent_at, message, cold: None }));
            }
        });
        let end = tokio::time::timeout(limits::APPEND_WAIT_MAX, walk).await;
        match end.unwrap_or(Err(TailError::Log(AppendError::Unknown))) {
            Ok(End::Reached | End::LogEnded) => Ok(Added::whole_if(is_covered)),
            Err(TailError::Log(error @ AppendError::Unreadable(_))) => Err(error.into()),
            Err(TailError::TooMany(wait)) => Ok(Added::Bounded(wait)),
            Ok(End::StepsSpent) | Err(TailError::Log(_)) => Ok(Added::Part),
        }
    }
}

impl Source {
    /// Of a replica: refuses it unless it suffices. There is nothing behind the primary.
    fn suffices_if(&self, suffices: bool, otherwise: ReadFrom) -> Result<(), NotMade> {
        match self {
            Self::Replica(..) if !suffices => Err(NotMade::OnReplica(otherwise)),
            Self::Replica(..) | Self::Primary(_) => Ok(()),
        }
    }

    async fn membership(
        &mut self,
        conversation_id: ConversationId,
        user_id: UserId,
    ) -> Result<Option<Membership>, DatabaseError> {
        match self {
            Self::Primary(database) => membership(&mut *database.connection().await?, conversation_id, user_id).await,
            Self::Replica(connection, lent) => lent.bounded(membership(connection, conversation_id, user_id)).await,
        }
    }

    async fn rows(
        &mut self,
        conversation_id: ConversationId,
        wanted: Range,
        search: Search,
    ) -> Result<Vec<(Seq, Option<StoredMessage>)>, RowsError> {
        match self {
            Self::Primary(database) => {
                stored::rows(&mut *database.connection().await?, conversation_id, wanted, search).await
            }
            Self::Replica(connection, lent) => {
                lent.bounded(stored::rows(&mut *connection, conversation_id, wanted, search)).await
            }
        }
    }
}

impl Part {
    /// Whether there is more in the page's direction.
    pub(super) fn has_more(&self) -> bool {
        !self.is_current || self.shown.is_some_and(|shown| self.extent.has_more(self.place, shown))
    }

    /// Drops the texts of others, and their messages too if the user does not take part.
    fn leave_out_others(&mut self, user_id: UserId) {
        for message in self.found.values_mut() {
            let Some(stored) = message.as_mut().filter(|stored| stored.message.sender_id != user_id) else { continue };
            if self.is_participant {
                (stored.message.envelope, stored.cold) = (Envelope::from_bytes(Vec::new()), None);
            } else {
                *message = None;
            }
        }
    }
}

impl From<Refusal> for NotMade {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Sides {
    /// Whether PostgreSQL shows more than the log's newest event, which then can't say who may see it.
    fn is_log_behind(&self) -> bool {
        matches!((&self.log, &self.postgres), (Ok(Some(newest)), Ok(Some(stored))) if newest.seq < stored.last_seq)
    }

    /// The log's newest event says who takes part; PostgreSQL does if the log is away or holds nothing any more.
    fn is_participant(&self, user_id: UserId) -> Result<bool, Refusal> {
        match (&self.log, &self.postgres) {
            (Ok(Some(newest)), _) => Ok(newest.participants.find(user_id).is_some()),
            (_, Ok(stored)) => Ok(stored.is_some_and(|stored| stored.is_participant)),
            (_, Err(error)) => Err(Refusal::unavailable("PostgreSQL", error)),
        }
    }

    /// How the user sees the conversation, if that is the customer of a business.
    fn customer(&self, user_id: UserId) -> Option<CustomerView> {
        match (&self.log, &self.postgres) {
            (Ok(Some(newest)), _) => CustomerView::of(&newest.participants, user_id),
            (_, Ok(stored)) => stored.and_then(|stored| stored.customer),
            (_, Err(_)) => None,
        }
    }

    fn extent(&self) -> Extent {
        let newest = self.log.as_ref().ok().and_then(Option::as_ref).map_or(Seq::ZERO, |newest| newest.seq);
        let stored = self.postgres.as_ref().ok().copied().flatten();
        let last = stored.map_or(newest, |stored| stored.last_seq.max(newest));
        Extent { floor: stored.map_or(Seq::ZERO, |stored| stored.floor_seq), last }
    }
}

/// How much of what a page wants both sides together gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Added {
    /// All they have, so that nothing is hidden elsewhere.
    Whole,
    /// As much as was within reach.
    Part,
    /// As much as the user may have read from the log now; more after the delay.
    Bounded(Duration),
}

impl Added {
    const fn whole_if(is_whole: bool) -> Self {
        if is_whole { Self::Whole } else { Self::Part }
    }
}

fn has_messages(found: &Found, shown: Range) -> bool {
    found.range(shown.first..=shown.last).any(|(_, message)| message.is_some())
}

/// The part of the page that can be shown.
fn show(wanted: Range, place: Place, found: &Found, added: Added) -> Result<Range, Refusal> {
    let is_there = |seq: Seq| found.contains_key(&seq);
    let holes = wanted.numbers().filter(|seq| !is_there(*seq)).count();
    if holes == 0 {
        return Ok(wanted);
    }
    if added == Added::Whole {
        // Waiting would not help. It must not happen, so whoever runs this is told.
        tracing::error!(messages = holes, "neither PostgreSQL nor the log has messages that a page should show");
        metrics::counter!(telemetry::HISTORY_HOLES_TOTAL).increment(u64::try_from(holes).unwrap_or(u64::MAX));
        return Ok(wanted);
    }
    // A page without messages passes over all that was asked for: a part of it that has none would hide the rest.
    wanted.unbroken(place, is_there).filter(|shown| has_messages(found, *shown)).ok_or_else(|| match added {
        Added::Bounded(wait) => Refusal::rate_limited(wait),
        Added::Whole | Added::Part => Refusal::unavailable("this part of the history", &OutOfReach),
    })
}

#[cfg(test)]
mod tests {
    use chat_shared::wire::ErrorCode;

    use super::*;

    #[test]
    fn a_part_of_a_page_that_has_no_messages_is_out_of_reach() {
        let (wanted, place) = (Range { first: Seq(2), last: Seq(5) }, Place::After(Seq(1)));
        let deleted: Found = [(Seq(2), None), (Seq(3), None)].into();
        assert_eq!(show(wanted, place, &deleted, Added::Part).unwrap_err().code, ErrorCode::Unavailable);
        let all: Found = (2..=5).map(|seq| (Seq(seq), None)).collect();
        assert_eq!(show(wanted, place, &all, Added::Part), Ok(wanted), "all of it is known to be gone");
    }
}
