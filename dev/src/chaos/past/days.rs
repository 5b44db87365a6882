//! Days of the past with their partitions and keys, and messages of those days.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context, Result};
use chat_client::{clock::Timestamp, ids::MessageId, positions::Seq, runs::Runs};
use chat_shared::{
    clock::Day,
    sealing::{ContentKey, Envelope, MasterKey, Sealed, WrappedKey},
};
use sqlx::{AssertSqlSafe, Executor, PgConnection, types::time::Date};

use crate::{
    audit::{Key, Room, stored},
    chaos::ground::Ground,
    content_keys,
    copy::{Rows, copy},
};

/// Milliseconds of a day.
pub const MS_PER_DAY: i64 = 86_400_000;

/// A message of the past.
#[derive(Debug, Clone)]
pub struct Old {
    pub key: Key,
    pub seq: Seq,
    pub sent_at: Timestamp,
    pub text: String,
    pub envelope: Envelope,
}

impl Old {
    /// What its text is sealed for.
    pub const fn place(&self) -> Sealed {
        let Key { conversation_id, sender_id, message_id } = self.key;
        Sealed { conversation_id, message_id, sender_id }
    }
}

/// Days whose partitions and keys are there.
pub struct Days {
    /// By the clock of PostgreSQL.
    pub today: Day,
    pub master_key: MasterKey,
    /// As they were stored.
    pub wrapped: BTreeMap<Day, WrappedKey>,
    pub keys: BTreeMap<Day, ContentKey>,
}

impl Days {
    /// Makes partitions and keys. Gateways that run ask for new keys every five minutes only.
    pub async fn make(ground: &Ground, days_ago: &[i32]) -> Result<Self> {
        let mut postgres = ground.postgres().await?;
        let today = today(&mut postgres).await?;
        let master_key = MasterKey::parse(&std::fs::read_to_string(ground.fleet.dir().join("keys/master.key"))?)?;
        let (mut wrapped, mut keys) = (BTreeMap::new(), BTreeMap::new());
        for day in days_ago.iter().map(|days_ago| today.plus(-days_ago)) {
            make_day(&mut postgres, day).await?;
            let generated = master_key.generate(day)?;
            keys.insert(day, master_key.unwrap(&generated)?);
            wrapped.insert(day, generated);
        }
        content_keys::store(&mut postgres, wrapped.values()).await?;
        // As autovacuum does long before a key is destroyed.
        postgres.execute("analyze content_keys").await?;
        Ok(Self { today, master_key, wrapped, keys })
    }

    /// Messages of these days in a conversation: each day has one in its first millisecond, and one in its last if it has
    /// several.
    pub fn talk(&self, room: &Room, days_ago: &[i32], a_day: u64) -> Result<Vec<Old>> {
        let mut talk = Vec::new();
        for days_ago in days_ago {
            let day = self.today.plus(-days_ago);
            for number in 0..a_day {
                let last = if number + 1 == a_day && number > 0 { MS_PER_DAY - 1 } else { 0 };
                let sent_at = Timestamp(day.start().0 + last.max(number.cast_signed() * 3_600_000));
                let seq = Seq(talk.len() as u64 + 1);
                talk.push(self.old(room, seq, sent_at)?);
            }
        }
        Ok(talk)
    }

    /// A message of one of the participants, who take turns.
    pub fn old(&self, room: &Room, seq: Seq, sent_at: Timestamp) -> Result<Old> {
        let turn = usize::try_from(seq.0)? % room.members.len();
        let place = Sealed { conversation_id: room.id, message_id: MessageId::random(), sender_id: room.members[turn] };
        let days_ago = self.today.0 - sent_at.day().0;
        let text = format!("number {} of {days_ago} days ago {:032x}", seq.0, rand::random::<u128>());
        let key = self.keys.get(&sent_at.day()).context("a day has no key")?;
        let envelope = key.seal(&place, text.as_bytes())?;
        let Sealed { conversation_id, message_id, sender_id } = place;
        Ok(Old { key: Key { conversation_id, sender_id, message_id }, seq, sent_at, text, envelope })
    }
}

/// The day of PostgreSQL's clock.
pub async fn today(postgres: &mut PgConnection) -> Result<Day> {
    let statement = "select (message_today() - date '1970-01-01')::bigint".to_owned();
    Ok(Day(i32::try_from(stored::number(postgres, statement).await?)?))
}

/// As PostgreSQL writes it.
pub fn date(day: Day) -> String {
    Date::from(day).to_string()
}

/// The name of a day's partition.
pub fn partition(day: Day) -> String {
    format!("messages_{}", date(day).replace('-', ""))
}

/// A literal of SQL.
pub fn bytea(bytes: &[u8]) -> String {
    let mut text = "'\\x".to_owned();
    for byte in bytes {
        _ = write!(text, "{byte:02x}");
    }
    text + "'"
}

/// Makes an empty partition, and removes the traces of the day that an earlier run on the same fleet has left.
async fn make_day(postgres: &mut PgConnection, day: Day) -> Result<()> {
    let (partition, date) = (partition(day), date(day));
    let statements = format!(
        "drop table if exists {partition}, {partition}_retired, {partition}_cold, {partition}_warm; \
         delete from cold_chunks where day = '{date}'; delete from cold_packs where day = '{date}'; \
         delete from cold_changes where day = '{date}'; delete from cold_days where day = '{date}'; \
         delete from content_keys where day = '{date}'; delete from message_days where day = '{date}'; \
         select make_message_partition('{date}')"
    );
    postgres.execute(AssertSqlSafe(statements)).await.with_context(|| partition)?;
    Ok(())
}

/// Conversations and their messages, each in the state in which persisters leave it after its last message.
pub async fn store(postgres: &mut PgConnection, rooms: impl Iterator<Item = &Room>, talks: &[Vec<Old>]) -> Result<()> {
    let (mut conversations, mut participants) = (Rows::new(), Rows::new());
    for (Room { id, members }, talk) in rooms.zip(talks) {
        let (first, last) = talk.first().zip(talk.last()).context("a conversation is empty")?;
        conversations.row(7).uuid(id.as_uuid()).bytes(b"group").bigint(last.seq.0.cast_signed());
        conversations.uuid(last.key.message_id.as_uuid()).time(last.sent_at).time(first.sent_at).time(last.sent_at);
        for user_id in members {
            participants.row(4).uuid(id.as_uuid()).uuid(user_id.as_uuid()).bytes(b"member").time(first.sent_at);
        }
    }
    let columns = "conversations (conversation_id, kind, last_seq, last_message_id, last_message_at, created_at, \
                   last_activity_at)";
    copy(postgres, columns, conversations).await?;
    copy(postgres, "participants (conversation_id, user_id, role, joined_at)", participants).await?;
    store_messages(postgres, talks.iter().flatten()).await
}

/// Rows of messages alone.
pub async fn store_messages(postgres: &mut PgConnection, messages: impl Iterator<Item = &Old>) -> Result<()> {
    let mut rows = Rows::new();
    for Old { key, seq, sent_at, envelope, .. } in messages {
        rows.row(6).uuid(key.conversation_id.as_uuid()).bigint(seq.0.cast_signed()).time(*sent_at);
        rows.uuid(key.message_id.as_uuid()).uuid(key.sender_id.as_uuid()).bytes(envelope.as_bytes());
    }
    copy(postgres, "messages (conversation_id, seq, sent_at, message_id, sender_id, envelope)", rows).await
}

/// Read marks: the first participant has read up to a number, the others nothing but what they wrote.
pub async fn mark(postgres: &mut PgConnection, room: &Room, talk: &[Old], read: u64) -> Result<()> {
    let mut statements = String::new();
    for (turn, user_id) in room.members.iter().enumerate() {
        let own = talk.iter().filter(|message| message.key.sender_id == *user_id);
        let mut runs = Runs::of(own.map(|message| (message.seq, message.seq)));
        let read = runs.settle(Seq(if turn == 0 { read } else { 0 }));
        let runs = talk.iter().filter(|message| message.key.sender_id == *user_id && message.seq > read);
        let runs: Vec<_> = runs.map(|message| format!("[{0},{0}]", message.seq.0)).collect();
        _ = write!(
            statements,
            "update participants set read_seq = {}, own_runs = '{{{}}}' \
             where conversation_id = '{}' and user_id = '{}';",
            read.0,
            runs.join(","),
            room.id.as_uuid(),
            user_id.as_uuid()
        );
    }
    postgres.execute(AssertSqlSafe(statements)).await?;
    Ok(())
}
