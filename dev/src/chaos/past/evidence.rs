//! The evidence of days that have aged: rows, keys, files, lists and history.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::{Result, ensure};
use chat_client::{ids::ConversationId, positions::Seq};
use chat_shared::{
    clock::Day,
    sealing::{ContentKey, Envelope, WrappedKey},
};
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row as _, postgres::PgRow};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::{
    DAYS_AGO, Past,
    days::{Old, date, partition, today},
};
use crate::{
    audit::{
        AgedCopy, AgedDay, AgedEntry, AgedFloor, AgedListing, AgedMessage, AgedRow, AgedSearch, AgeingEvidence,
        Attempt, DELETED_FROM, Evidence, Fate, GONE_FROM, Key, Listed, Place, ReadMark, Reader, Room, history,
        search::bytes_in, stored,
    },
    chaos::ground::Ground,
    content_keys,
};

/// Texts that keys are tried on. The canary is the first one.
const TRIED_MAX: usize = 500;

impl Past {
    /// The messages that devices of the people may have been shown. Those of days that are due may be there or not, as far as
    /// other checks are concerned; so may those where nothing is sent any more.
    pub fn attempts(&self) -> Vec<Attempt> {
        let ids = |rooms: &[Room]| rooms.iter().map(|room| room.id).collect::<BTreeSet<_>>();
        let (busy, quiet) = (ids(&self.busy), ids(&self.quiet));
        let attempt = |message: &Old| {
            let Old { key, seq, sent_at, text, .. } = message;
            let place = Place { seq: *seq, sent_at: *sent_at };
            let is_kept = self.days_ago(message) < DELETED_FROM && busy.contains(&key.conversation_id);
            let fate = if is_kept { Fate::Accepted(place) } else { Fate::Unknown };
            Attempt { key: *key, text: text.clone(), fate, answers: if is_kept { vec![place] } else { Vec::new() } }
        };
        let is_theirs = |message: &&Old| {
            let id = message.key.conversation_id;
            busy.contains(&id) || quiet.contains(&id)
        };
        self.messages.iter().filter(is_theirs).map(attempt).collect()
    }

    /// Reads everything that is left, and tries every key that is left on what must not be readable. `gathered` has lists of
    /// all people, and the history of the conversations where they write.
    pub async fn evidence(&self, ground: &Ground, readers: &[Reader], gathered: &Evidence) -> Result<AgeingEvidence> {
        let mut postgres = ground.postgres().await?;
        let is_same_day = today(&mut postgres).await? == self.days.today;
        ensure!(
            is_same_day,
            "midnight (UTC) has passed since the days were made, and others are due now: play it again"
        );
        let wrapped = content_keys::stored(&mut postgres).await?;
        let keys: BTreeMap<Day, ContentKey> =
            wrapped.iter().filter_map(|key| Some((key.day, self.days.master_key.unwrap(key).ok()?))).collect();
        let rows = rows(&mut postgres, self.days.today.plus(-DAYS_AGO[0]), self.days.today).await?;
        let mut read: BTreeSet<Key> = gathered.history.iter().map(key_of).collect();
        for room in &self.quiet {
            let reader = readers.iter().find(|reader| room.members.contains(&reader.user_id));
            if let Some(reader) = reader {
                read.extend(history(&reader.rest, room.id).await?.iter().map(key_of));
            }
        }
        let asked: BTreeSet<_> = self.busy.iter().chain(&self.quiet).map(|room| room.id).collect();
        let messages = self.messages.iter().map(|message| {
            let Key { conversation_id, sender_id, .. } = message.key;
            let row = rows.get(&(conversation_id, message.seq)).map(|(is_deleted, envelope)| {
                let opened = keys.get(&message.sent_at.day()).and_then(|key| key.open(&message.place(), envelope).ok());
                AgedRow {
                    is_deleted: *is_deleted,
                    is_opened: opened.is_some_and(|text| text == message.text.as_bytes()),
                }
            });
            let is_in_history = asked.contains(&conversation_id).then(|| read.contains(&message.key));
            let days_ago = self.days_ago(message);
            AgedMessage { conversation_id, seq: message.seq, sender_id, days_ago, row, is_in_history }
        });
        let messages = messages.collect();
        let days = self.days(&mut postgres, &wrapped).await?;
        let entries = self.entries(&mut postgres).await?;
        let floors = self.floors(&mut postgres).await?;
        let listings = self.listings(&mut postgres, gathered).await?;
        let searches = self.searches(ground, &mut postgres).await?;
        Ok(AgeingEvidence { messages, days, entries, floors, listings, copies: self.tries(&keys), searches })
    }

    fn days_ago(&self, message: &Old) -> i32 {
        self.days.today.0 - message.sent_at.day().0
    }

    async fn days(&self, postgres: &mut PgConnection, keys: &[WrappedKey]) -> Result<Vec<AgedDay>> {
        let mut days = Vec::new();
        for days_ago in DAYS_AGO {
            let day = self.days.today.plus(-days_ago);
            let (partition, date) = (partition(day), date(day));
            let relations = format!(
                "select (select count(*) from pg_class where relname like '{partition}%') \
                 + (select count(*) from pg_type where typname like '{partition}%')"
            );
            let attached = format!("select count(*) from message_partitions() where day = '{date}' and not is_pending");
            days.push(AgedDay {
                days_ago,
                has_key: keys.iter().any(|key| key.day == day),
                is_attached: stored::number(postgres, attached).await? == 1,
                relations: stored::number(postgres, relations).await?,
            });
        }
        Ok(days)
    }

    async fn entries(&self, postgres: &mut PgConnection) -> Result<Vec<AgedEntry>> {
        let of = self.entries_of.as_uuid();
        let statement = format!(
            "select substr(stream_name, 6)::uuid from dead_letters where stream_name like 'past %' \
             union all select agent_id from assignments where conversation_id = '{of}' \
             union all select user_id from staff_reads where conversation_id = '{of}'"
        );
        let rows = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(postgres).await?;
        let ids = rows.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<BTreeSet<Uuid>>>()?;
        let entries = self.entries.iter().map(|entry| AgedEntry {
            table: entry.table,
            days_ago: entry.days_ago,
            gone_from: entry.gone_from,
            is_there: ids.contains(&entry.id),
        });
        Ok(entries.collect())
    }

    async fn floors(&self, postgres: &mut PgConnection) -> Result<Vec<AgedFloor>> {
        let rooms = self.busy.iter().chain(&self.quiet).chain(&self.strangers).map(|room| room.id);
        let ids: Vec<_> = rooms.chain([self.canary.message.key.conversation_id]).collect();
        let heads = stored::heads(postgres, &ids).await?;
        let floor = |id: &ConversationId| {
            let head = heads.iter().find(|head| head.conversation_id == *id);
            AgedFloor { conversation_id: *id, floor_seq: head.map_or(Seq::ZERO, |head| head.floor_seq) }
        };
        Ok(ids.iter().map(floor).collect())
    }

    async fn listings(&self, postgres: &mut PgConnection, gathered: &Evidence) -> Result<Vec<AgedListing>> {
        let ids: Vec<_> = self.quiet.iter().map(|room| room.id).collect();
        let marks = stored::reads(postgres, &ids).await?;
        let listing = |mark: &ReadMark| {
            let (conversation_id, user_id) = (mark.conversation_id, mark.user_id);
            let is_it = |listed: &&Listed| (listed.conversation_id, listed.user_id) == (conversation_id, user_id);
            let unread = gathered.listed.iter().find(is_it).map(|listed| listed.unread);
            AgedListing { conversation_id, user_id, read_seq: mark.read_seq, unread }
        };
        Ok(marks.iter().map(listing).collect())
    }

    /// Every key that is left, tried on texts whose days are gone, as they were stored, and on the other copies of the canary.
    fn tries(&self, keys: &BTreeMap<Day, ContentKey>) -> Vec<AgedCopy> {
        let rows = self.messages.iter().filter(|message| self.days_ago(message) >= GONE_FROM).take(TRIED_MAX);
        let rows = rows.map(|message| (message, "in its row", &message.envelope));
        let copies = self.canary.copies.iter().map(|(found, envelope)| (&self.canary.message, *found, envelope));
        let tried = rows.chain(copies).map(|(message, found, envelope)| {
            let opens = |key: &&ContentKey| key.open(&message.place(), &as_of(envelope, key.day())).is_ok();
            AgedCopy {
                name: format!("a text of {} days ago, {found}", self.days_ago(message)),
                keys: keys.len() as u64,
                opened: keys.values().filter(opens).count() as u64,
            }
        });
        tried.collect()
    }

    /// The canary's text in all files of servers and services, and the keys of days that are gone in the tables. A transaction
    /// that only reads may keep the last one of these until the key of the next day goes, so that one is not searched. The
    /// write-ahead log has the keys for as long as it is kept, as a backup has.
    async fn searches(&self, ground: &Ground, postgres: &mut PgConnection) -> Result<Vec<AgedSearch>> {
        // Writes PostgreSQL's buffers to the files, and removes the files of tables that were rewritten.
        postgres.execute("checkpoint").await?;
        let data = ground.servers()?.postgres.data_dir().to_path_buf();
        let text = self.canary.message.text.clone().into_bytes();
        let mut wanted = vec![
            ("the canary in files of the fleet".to_owned(), ground.fleet.dir().to_path_buf(), text.clone()),
            ("the canary in files of PostgreSQL".to_owned(), data.clone(), text),
        ];
        for (day, key) in self.days.wrapped.iter().filter(|(day, _)| self.days.today.0 - day.0 > GONE_FROM) {
            let name = format!("the key of {} days ago in tables of PostgreSQL", self.days.today.0 - day.0);
            wanted.push((name, data.join("base"), key.bytes.clone()));
        }
        let search = |(name, directory, needle): (String, PathBuf, Vec<u8>)| -> Result<AgedSearch> {
            let found = bytes_in(&directory, &needle)?;
            Ok(AgedSearch { name, files: found.files as u64, hits: found.hits as u64 })
        };
        spawn_blocking(move || wanted.into_iter().map(search).collect::<Result<_>>()).await?
    }
}

fn key_of(message: &chat_client::wire::Message) -> Key {
    let (conversation_id, sender_id, message_id) = (message.conversation_id, message.sender_id, message.message_id);
    Key { conversation_id, sender_id, message_id }
}

/// The same content under the name of another day, whose key is refused otherwise before it is tried.
fn as_of(envelope: &Envelope, day: Day) -> Envelope {
    let mut bytes = envelope.as_bytes().to_vec();
    bytes.splice(1..5, day.0.to_be_bytes());
    Envelope::from_bytes(bytes)
}

/// The rows of a time, with whether they are deleted and what is sealed in them.
async fn rows(
    postgres: &mut PgConnection,
    from: Day,
    until: Day,
) -> Result<BTreeMap<(ConversationId, Seq), (bool, Envelope)>> {
    let statement = format!(
        "select conversation_id, seq, deleted_at is not null, envelope from messages \
         where sent_at >= '{} 00:00:00+00' and sent_at < '{} 00:00:00+00'",
        date(from),
        date(until)
    );
    let row = |row: &PgRow| {
        let place = (row.try_get::<Uuid, _>(0)?.try_into()?, Seq(row.try_get::<i64, _>(1)?.unsigned_abs()));
        Ok((place, (row.try_get(2)?, Envelope::from_bytes(row.try_get(3)?))))
    };
    sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(postgres).await?.iter().map(row).collect()
}
