//! Old texts, for a scenario in which they move to an object store: days of two to three weeks ago, with conversations of
//! people who are not connected and read history by REST.
//!
//! It is put into PostgreSQL as its owner, since no service writes a day of long ago, but as services would have left it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use chat_client::{HistoryRange, ids::ConversationId, positions::Seq, wire::HistoryPage};
use chat_cold::{
    pack,
    store::{Purpose, Store},
};
use chat_shared::sealing::Envelope;
use futures_util::TryStreamExt;
use memchr::memmem;
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row as _};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    ground::Ground,
    past::days::{Days, Old, date, mark, partition, store, store_messages, today},
};
use crate::{
    audit::{ColdDay, ColdEvidence, ColdMessage, ColdObject, ColdPack, Reader, Room, TextPlace, history, stored},
    fleet::Service,
    person::Person,
    servers::seaweedfs,
};

/// The days before today that get messages, all of them due to move.
pub const DAYS_AGO: [i32; 6] = [20, 19, 18, 17, 16, 15];
/// Messages of a day in each conversation.
const A_DAY: u64 = 12;
/// Messages of a page: those of a day and a half.
const PAGE: usize = 18;
/// Conversations: their people, and the days of their messages. Each has people at both gateways.
const ROOMS: [(&[usize], &[i32]); 5] = [
    (&[0, 1], &DAYS_AGO),
    (&[0, 1, 2], &DAYS_AGO),
    (&[2, 3], &[20, 19, 18]),
    (&[1, 2, 3], &[17, 15]),
    (&[0, 3], &[16]),
];
/// People, at each gateway in turn.
const PEOPLE: usize = 4;
/// Messages that come while their day moves: the conversation and the day. None is the newest of its conversation.
const LATE: [(usize, i32); 3] = [(0, 20), (1, 18), (0, 16)];

/// A text as it is found in PostgreSQL or in a pack, by conversation and number.
type Bodies = BTreeMap<(Uuid, u64), Envelope>;

/// Everything that was put there.
pub struct OldTexts {
    days: Days,
    /// Each with the one gateway that it asks.
    readers: Vec<Reader>,
    /// Each with its messages, by number.
    talks: Vec<(Room, Vec<Old>)>,
    /// Those that have not come yet.
    late: Vec<Old>,
    /// All that come late.
    late_places: BTreeSet<(ConversationId, Seq)>,
}

impl OldTexts {
    /// Makes days, people and conversations. The worker that moves texts is killed, and gateways are started again, since
    /// they ask for new keys every five minutes only.
    pub async fn prepare(ground: &Ground) -> Result<Self> {
        let fleet = &ground.fleet;
        fleet.cold().context("the fleet has no cold worker")?.kill().await?;
        let days = Days::make(ground, &DAYS_AGO).await?;
        let mut postgres = ground.postgres().await?;
        postgres.execute("select record_message_days()").await?;
        for gateway in fleet.gateways() {
            gateway.stop().await?;
            gateway.start_ready().await?;
        }
        let mut readers = Vec::new();
        for (number, gateway) in (1..=PEOPLE).zip(fleet.gateways().iter().cycle()) {
            let mut person =
                Person::appear(&format!("reader-{number}"), fleet.kaha(), vec![Service::url(gateway)]).await?;
            readers.push(Reader { user_id: person.user_id, rest: person.rest()?.clone() });
            person.leave().await?;
        }
        let mut talks = Vec::new();
        for (members, days_ago) in ROOMS {
            let members = members.iter().map(|index| readers[*index].user_id).collect();
            let room = Room { id: ConversationId::random(), members };
            let talk = days.talk(&room, days_ago, A_DAY)?;
            talks.push((room, talk));
        }
        let mut late = Vec::new();
        for (room, days_ago) in LATE {
            let day = days.today.plus(-days_ago);
            let of_day: Vec<_> = talks[room].1.iter().filter(|message| message.sent_at.day() == day).collect();
            late.push((*of_day.get(of_day.len() / 2).context("a day has no message")?).clone());
        }
        let late_places: BTreeSet<_> = late.iter().map(place_of).collect();
        let is_there = |message: &&Old| !late_places.contains(&place_of(message));
        let stored: Vec<Vec<Old>> =
            talks.iter().map(|(_, talk)| talk.iter().filter(is_there).cloned().collect()).collect();
        store(&mut postgres, talks.iter().map(|(room, _)| room), &stored).await?;
        for (room, talk) in &talks {
            mark(&mut postgres, room, talk, talk.len() as u64 / 2).await?;
        }
        Ok(Self { days, readers, talks, late, late_places })
    }

    /// Stores the next message that is late. Its day is to be moving, and not moved.
    pub async fn come_late(&mut self, ground: &Ground) -> Result<i32> {
        ensure!(!self.late.is_empty(), "no message is late");
        let late = self.late.remove(0);
        let mut postgres = ground.postgres().await?;
        let moving =
            format!("select count(*) from cold_days where day = '{}' and swapped_at is null", date(late.sent_at.day()));
        ensure!(stored::number(&mut postgres, moving).await? == 1, "the day of a late message is not moving");
        store_messages(&mut postgres, [&late].into_iter()).await?;
        Ok(self.days_ago(&late))
    }

    /// Reads one page of the oldest day at the first gateway, which keeps its texts in memory.
    pub async fn read_oldest_day(&self) -> Result<()> {
        let range = HistoryRange::After(Seq::ZERO);
        let (room, talk) = &self.talks[0];
        let page = self.readers[0].rest.history(room.id, range, Some(usize::try_from(A_DAY)?)).await?;
        check(&page, range, talk).map_err(anyhow::Error::msg)
    }

    /// Asks for pages of all conversations in the name of all people, again and again until then. Each asks for one at least.
    pub async fn page_through(&self, until: Instant) -> Paged {
        let walks = self.readers.iter().map(|reader| self.page_through_as(reader, until));
        futures_util::future::join_all(walks).await.into_iter().fold(Paged::default(), Paged::and)
    }

    async fn page_through_as(&self, reader: &Reader, until: Instant) -> Paged {
        let mut paged = Paged::default();
        let talks = self.talks.iter().filter(|(room, _)| room.members.contains(&reader.user_id));
        let requests: Vec<_> =
            talks.flat_map(|(room, talk)| ranges(talk).map(move |range| (room, talk, range))).collect();
        for (room, talk, range) in requests.into_iter().cycle() {
            match reader.rest.history(room.id, range, Some(PAGE)).await {
                Ok(page) => {
                    paged.answered += 1;
                    paged.shorter += usize::from(page.has_more && page.messages.len() < PAGE);
                    paged.wrong.extend(check(&page, range, talk).err());
                }
                Err(error) if error.retry_after().is_some() => paged.refused += 1,
                Err(error) => paged.wrong.push(format!("{range:?}: {error}")),
            }
            if Instant::now() >= until {
                break;
            }
        }
        paged
    }

    /// Reads everything: rows, packs, history at both gateways, and all objects.
    pub async fn evidence(&self, ground: &Ground) -> Result<ColdEvidence> {
        let mut postgres = ground.postgres().await?;
        ensure!(
            today(&mut postgres).await? == self.days.today,
            "midnight (UTC) has passed since the days were made: play it again"
        );
        let url = ground.fleet.urls().store.as_deref().context("the servers have no object store")?;
        let store = seaweedfs::open(url, Purpose::Reading)?;
        let (packs, packed) = self.packs(&mut postgres, &store).await?;
        let rows = self.rows(&mut postgres).await?;
        let mut read = BTreeMap::new();
        let mut asked = BTreeMap::new();
        for reader in &self.readers {
            for (room, _) in self.talks.iter().filter(|(room, _)| room.members.contains(&reader.user_id)) {
                *asked.entry(room.id).or_insert(0) += 1;
                for message in history(&reader.rest, room.id).await.context("reading old history")? {
                    *read.entry((room.id, message.seq, message.text)).or_insert(0) += 1;
                }
            }
        }
        let mut messages = Vec::new();
        for (room, talk) in &self.talks {
            for old in talk {
                let key = (room.id.as_uuid(), old.seq.0);
                let in_row = rows.get(&key).cloned().flatten();
                let place = match (&in_row, packed.get(&key)) {
                    _ if !rows.contains_key(&key) => TextPlace::Nowhere,
                    (Some(envelope), _) if self.opens(old, envelope) => TextPlace::Row,
                    (None, Some(envelope)) if self.opens(old, envelope) => TextPlace::Pack,
                    _ => TextPlace::Nowhere,
                };
                messages.push(ColdMessage {
                    conversation_id: room.id,
                    seq: old.seq,
                    days_ago: self.days_ago(old),
                    place,
                    stays: old.seq.0 == talk.len() as u64 || self.late_places.contains(&place_of(old)),
                    read: read.get(&(room.id, old.seq, old.text.clone())).copied().unwrap_or_default(),
                    asked: asked.get(&room.id).copied().unwrap_or_default(),
                });
            }
        }
        let mut days = Vec::new();
        for days_ago in DAYS_AGO {
            let day = self.days.today.plus(-days_ago);
            let statement = format!(
                "select count(*) from cold_days where day = '{}' and dropped_at is not null \
                 and not exists (select from pg_class where relname = '{}_warm')",
                date(day),
                partition(day)
            );
            days.push(ColdDay { days_ago, is_moved: stored::number(&mut postgres, statement).await? == 1 });
        }
        Ok(ColdEvidence { messages, packs, days, objects: self.objects(&store).await? })
    }

    /// The packs of the days, and what is in those that the store has as they were recorded.
    async fn packs(&self, postgres: &mut PgConnection, store: &Store) -> Result<(Vec<ColdPack>, Bodies)> {
        let statement = format!(
            "select p.object, p.sha256, c.place, c.length from cold_packs p join cold_chunks c using (day, number) \
             where p.day >= '{}' order by p.object, c.place",
            date(self.days.today.plus(-DAYS_AGO[0]))
        );
        let chunks = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(postgres).await?;
        let (mut objects, mut bodies) = (BTreeMap::new(), Bodies::new());
        for chunk in &chunks {
            let (name, sha256): (String, Vec<u8>) = (chunk.try_get(0)?, chunk.try_get(1)?);
            let (place, length) = (chunk.try_get::<i32, _>(2)?, chunk.try_get::<i32, _>(3)?);
            if !objects.contains_key(&name) {
                let bytes = store.read(&name).await.ok().filter(|bytes| pack::sha256(bytes) == sha256);
                objects.insert(name.clone(), bytes);
            }
            let Some(Some(bytes)) = objects.get(&name) else { continue };
            for entry in pack::entries(pack::chunk_of(bytes, place.unsigned_abs(), length.unsigned_abs())?)? {
                let key = (entry.key.conversation_id, entry.key.seq);
                bodies.insert(key, Envelope::from_bytes(entry.body.to_vec()));
            }
        }
        let packs = objects.into_iter().map(|(name, bytes)| ColdPack { name, is_whole: bytes.is_some() }).collect();
        Ok((packs, bodies))
    }

    /// The rows of the conversations, with their texts if they have them.
    async fn rows(&self, postgres: &mut PgConnection) -> Result<BTreeMap<(Uuid, u64), Option<Envelope>>> {
        let ids: Vec<_> = self.talks.iter().map(|(room, _)| format!("'{}'", room.id.as_uuid())).collect();
        let statement = format!(
            "select conversation_id, seq, envelope from messages where conversation_id in ({}) and deleted_at is null",
            ids.join(",")
        );
        let rows = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(postgres).await?;
        let row = |row: &sqlx::postgres::PgRow| {
            let key = (row.try_get(0)?, row.try_get::<i64, _>(1)?.unsigned_abs());
            Ok((key, row.try_get::<Option<Vec<u8>>, _>(2)?.map(Envelope::from_bytes)))
        };
        rows.iter().map(row).collect()
    }

    /// All objects of the store, recorded or not, with the texts that stand in them.
    async fn objects(&self, store: &Store) -> Result<Vec<ColdObject>> {
        let listed: Vec<_> = store.list("").try_collect().await?;
        let mut objects = Vec::new();
        for object in listed {
            let bytes = store.read(&object.name).await?;
            let texts = self.talks.iter().flat_map(|(_, talk)| talk);
            let found = texts.filter(|old| memmem::find(&bytes, old.text.as_bytes()).is_some()).count();
            objects.push(ColdObject { name: object.name, texts: found as u64 });
        }
        Ok(objects)
    }

    fn opens(&self, old: &Old, envelope: &Envelope) -> bool {
        let opened = self.days.keys.get(&old.sent_at.day()).map(|key| key.open(&old.place(), envelope));
        matches!(opened, Some(Ok(text)) if text == old.text.as_bytes())
    }

    fn days_ago(&self, old: &Old) -> i32 {
        self.days.today.0 - old.sent_at.day().0
    }
}

/// What came of asking for pages.
#[derive(Debug, Default)]
pub struct Paged {
    pub answered: usize,
    /// Those among them that end though there is more and fewer messages than asked for.
    pub shorter: usize,
    /// For now.
    pub refused: usize,
    /// What is wrong with pages, and what was refused for good.
    pub wrong: Vec<String>,
}

impl Paged {
    /// Both together.
    pub fn and(mut self, other: Self) -> Self {
        self.answered += other.answered;
        self.shorter += other.shorter;
        self.refused += other.refused;
        self.wrong.extend(other.wrong);
        self
    }
}

/// The pages of a conversation, forwards and backwards.
fn ranges(talk: &[Old]) -> impl Iterator<Item = HistoryRange> {
    let starts = (0..talk.len() as u64).step_by(PAGE).map(Seq);
    let both = starts.flat_map(|seq| [HistoryRange::After(seq), HistoryRange::Before(Seq(seq.0 + PAGE as u64 + 1))]);
    [HistoryRange::Newest].into_iter().chain(both)
}

/// A page begins where it was asked for, has no hole and the right texts, and its end is one or it says that there is more.
fn check(page: &HistoryPage, range: HistoryRange, talk: &[Old]) -> Result<(), String> {
    let texts: BTreeMap<u64, &str> = talk.iter().map(|old| (old.seq.0, old.text.as_str())).collect();
    let seqs: Vec<_> = page.messages.iter().map(|message| message.seq.0).collect();
    let wrong = |what: &str| Err(format!("{range:?} gives {seqs:?} and has more: {}: {what}", page.has_more));
    let (Some(first), Some(last)) = (seqs.first().copied(), seqs.last().copied()) else {
        return wrong("an empty page");
    };
    if seqs.windows(2).any(|pair| pair[0] + 1 != pair[1]) {
        return wrong("a hole");
    }
    let count = talk.len() as u64;
    let (begins, ends) = match range {
        HistoryRange::After(after) => (first == after.0 + 1, last == count),
        HistoryRange::Before(before) => (last == (before.0 - 1).min(count), first == 1),
        HistoryRange::Newest => (last == count, first == 1),
    };
    if !begins {
        return wrong("another beginning");
    }
    if ends == page.has_more {
        return wrong("another end");
    }
    match page.messages.iter().find(|message| texts.get(&message.seq.0) != Some(&message.text.as_str())) {
        Some(message) => wrong(&format!("another text of {}", message.seq.0)),
        None => Ok(()),
    }
}

const fn place_of(old: &Old) -> (ConversationId, Seq) {
    (old.key.conversation_id, old.seq)
}
