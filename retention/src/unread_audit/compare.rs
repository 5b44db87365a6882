//! One look: what lists show, beside the messages that are there, of some conversations.
//!
//! **Invariant:** every statement on `messages` gives a window of time, so that few partitions are touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chat_shared::{clock::Clock, limits};
use sqlx::{PgConnection, PgPool, types::Uuid};
use time::OffsetDateTime;

/// Of more unread messages of a participant only the last so many are compared: a look at somebody who never reads has to
/// end, too.
const COMPARED_MAX: i64 = 1000;
/// The span of the first window in which messages are counted; each further window is as long as all before it.
const WINDOW_MIN: Duration = Duration::from_hours(24);
/// The windows with a span, the longest 32 days. One more window holds all that remains, however old.
const WINDOWS_MAX: usize = 7;
/// Earlier than any message.
const BEGINNING: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
/// How far a clock may have been ahead for its messages to be stored.
const AHEAD_MAX: Duration = Duration::from_hours(7 * 24);

/// A participant of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The conversation.
    pub conversation_id: Uuid,
    /// The user.
    pub user_id: Uuid,
}

/// What a look found.
#[derive(Debug, Default)]
pub struct Look {
    /// Participants that were compared.
    pub audited: u64,
    /// Those of whom lists show something else than there is.
    pub drifting: BTreeSet<Place>,
}

/// What lists know of a participant.
#[derive(Debug, Clone, Copy)]
struct Listing {
    last_seq: i64,
    read_seq: i64,
    floor_seq: i64,
    last_message_at: Option<OffsetDateTime>,
    /// Whether the list finds the conversation at another time than that of its activity.
    is_misplaced: bool,
    /// Messages that were found to be unread.
    counted: i64,
    is_looked_at: bool,
}

impl Listing {
    /// Messages after it are compared.
    fn after(&self) -> i64 {
        self.read_seq.max(self.floor_seq).max(self.last_seq.saturating_sub(COMPARED_MAX))
    }

    /// What lists show, of the messages that are compared.
    fn listed(&self) -> i64 {
        self.last_seq.saturating_sub(self.after()).max(0)
    }

    /// Whether messages after `begin` and not after the end of the windows before may tell more.
    fn wants(&self, begin: OffsetDateTime) -> bool {
        let begins_there = self.last_message_at.is_none_or(|last| last > begin);
        begins_there && self.last_seq > 0 && (!self.is_looked_at || self.counted < self.listed())
    }

    fn drifts(&self) -> bool {
        self.is_misplaced || self.read_seq > self.last_seq || self.counted != self.listed()
    }
}

/// The conversations that come after one.
pub async fn next_conversations(pool: &PgPool, after: Uuid, count: i64) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "select conversation_id from conversations where conversation_id > $1 order by conversation_id limit $2",
        after,
        count,
    )
    .fetch_all(pool)
    .await
}

/// Compares all participants of `conversations`.
pub async fn compare(pool: &PgPool, clock: &Clock, conversations: &[Uuid]) -> sqlx::Result<Look> {
    // All statements see the same moment, so that only what persisters have committed out of order seems to differ.
    let mut snapshot = pool.begin_with("begin isolation level repeatable read, read only").await?;
    let mut places = listings(&mut snapshot, conversations).await?;
    for (begin, end) in windows(clock.now().into()) {
        let wanted: Vec<Place> =
            places.iter().filter(|(_, listing)| listing.wants(begin)).map(|(place, _)| *place).collect();
        if wanted.is_empty() {
            continue;
        }
        count(&mut snapshot, &mut places, &wanted, (begin, end)).await?;
    }
    snapshot.rollback().await?;
    let drifting = places.iter().filter(|(_, listing)| listing.drifts()).map(|(place, _)| *place).collect();
    Ok(Look { audited: places.len() as u64, drifting })
}

/// One window after the other, back from `now`: after `.0` and up to `.1`.
fn windows(now: OffsetDateTime) -> impl Iterator<Item = (OffsetDateTime, OffsetDateTime)> {
    let spans = std::iter::successors(Some(WINDOW_MIN), |span| Some(*span * 2)).take(WINDOWS_MAX);
    let mut end = now + AHEAD_MAX;
    spans.map(move |span| now - span).chain([BEGINNING]).map(move |begin| (begin, std::mem::replace(&mut end, begin)))
}

async fn listings(snapshot: &mut PgConnection, conversations: &[Uuid]) -> sqlx::Result<BTreeMap<Place, Listing>> {
    let rows = sqlx::query!(
        r#"select conversation_id, user_id, last_seq, read_seq, floor_seq, last_message_at,
               p.listed_at not between c.last_activity_at - make_interval(secs => $2) and c.last_activity_at
                   as "is_misplaced!"
           from conversations c join participants p using (conversation_id)
           where conversation_id = any($1)"#,
        conversations,
        limits::LIST_LAG_MAX.as_secs_f64(),
    )
    .fetch_all(snapshot)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let listing = Listing {
                last_seq: row.last_seq,
                read_seq: row.read_seq,
                floor_seq: row.floor_seq,
                last_message_at: row.last_message_at,
                is_misplaced: row.is_misplaced,
                counted: 0,
                is_looked_at: false,
            };
            (Place { conversation_id: row.conversation_id, user_id: row.user_id }, listing)
        })
        .collect())
}

/// Adds the messages of a window to what has been counted of `wanted`.
async fn count(
    snapshot: &mut PgConnection,
    places: &mut BTreeMap<Place, Listing>,
    wanted: &[Place],
    (begin, end): (OffsetDateTime, OffsetDateTime),
) -> sqlx::Result<()> {
    let conversations: Vec<Uuid> = wanted.iter().map(|place| place.conversation_id).collect();
    let after: Vec<i64> = wanted.iter().map(|place| places[place].after()).collect();
    // In the order asked.
    let counts = sqlx::query_scalar!(
        r#"select (
               select count(*) from messages
               where messages.conversation_id = wanted.conversation_id and seq > wanted.after
                 and sent_at > $3 and sent_at <= $4
                 -- A tombstone of an erased user counts, a message of a day that is soft-deleted does not.
                 and (deleted_at is null or exists (
                     select from message_days
                     where day = (sent_at at time zone 'UTC')::date and soft_deleted_at is null
                 ))
           ) as "count!"
           from unnest($1::uuid[], $2::bigint[]) with ordinality as wanted (conversation_id, after, place)
           order by wanted.place"#,
        &conversations,
        &after,
        begin,
        end,
    )
    .fetch_all(snapshot)
    .await?;
    for (place, count) in wanted.iter().zip(counts) {
        if let Some(listing) = places.get_mut(place) {
            listing.counted += count;
            listing.is_looked_at = true;
        }
    }
    Ok(())
}
