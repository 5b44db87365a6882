//! Days of the past, for a scenario in which days age out: their partitions and keys, conversations with messages of each
//! day, and rows of other tables that are as old.
//!
//! It is put into PostgreSQL as its owner, since no service writes a day of long ago, but as services would have left it:
//! numbers are dense, texts are sealed for their places by the keys of their days. One text, the canary, goes the whole way
//! through a real gateway whose clock is 98 days behind.

mod canary;
mod evidence;

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context, Result};
use chat_client::{
    clock::Timestamp,
    ids::{ConversationId, MessageId, UserId},
    positions::Seq,
    runs::Runs,
    wire::{ConversationKind, Participant, Role},
};
use chat_shared::{
    clock::Day,
    event::{Event, Fact, MessageSent, Participants},
    log::subject_of,
    position::StreamSeq,
    sealing::{AudienceTag, ContentKey, Envelope, MasterKey, Sealed, WrappedKey},
};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, types::time::Date};
use uuid::Uuid;

use self::canary::Canary;
use super::ground::Ground;
use crate::{
    audit::{GONE_FROM, Key, Room, stored},
    content_keys,
    copy::{Rows, copy},
    fleet::Fleet,
};

/// The days before today that get messages: those before and after each limit, and more that are due. Retention finds all
/// that are due at once, as after a long time without it.
pub const DAYS_AGO: [i32; 7] = [100, 99, 98, 97, 91, 90, 89];
/// The day among them of a message that comes late.
const LATE: usize = 3;
/// Messages of a day in each conversation of people.
const A_DAY: u64 = 4;
/// Conversations of people of which all days have messages, and in which they write now.
const BUSY: [&[usize]; 3] = [&[0, 1, 2, 3], &[2, 5, 6, 7], &[1, 4, 7]];
/// Conversations of people in which they write no more, and the days of their messages.
const QUIET: [(&[usize], &[i32]); 4] =
    [(&[0, 1, 6], &[100, 99, 98]), (&[2, 3], &[97, 91]), (&[4, 5, 7], &DAYS_AGO), (&[3, 6], &[90, 89])];
/// Rows of other tables: the table, the day, and the age from which on it is gone; none: it stays.
const ENTRIES: [(&str, i32, Option<i32>); 15] = [
    // They were written up to seven days after their message, so they go with the day seven days before.
    ("dead_letters", 100, Some(91)),
    ("dead_letters", 98, Some(91)),
    ("dead_letters", 91, Some(91)),
    ("dead_letters", 90, Some(91)),
    ("dead_letters", 89, Some(91)),
    ("assignments", 100, Some(98)),
    ("assignments", 98, Some(98)),
    ("assignments", 97, Some(98)),
    ("assignments", 90, Some(98)),
    // It has not ended.
    ("assignments", 101, None),
    ("staff_reads", 100, Some(98)),
    ("staff_reads", 98, Some(98)),
    ("staff_reads", 97, Some(98)),
    ("staff_reads", 90, Some(98)),
    ("staff_reads", 1, Some(98)),
];
/// Dead letters among them that have to stay.
pub const LETTERS_KEPT: u64 = 2;
const MS_PER_DAY: i64 = 86_400_000;

/// A message of the past.
#[derive(Debug, Clone)]
pub struct Old {
    key: Key,
    seq: Seq,
    sent_at: Timestamp,
    text: String,
    envelope: Envelope,
}

/// A row of another table.
#[derive(Debug, Clone, Copy)]
struct Entry {
    table: &'static str,
    days_ago: i32,
    gone_from: Option<i32>,
    /// Of the row alone.
    id: Uuid,
}

/// Everything that was put there.
pub struct Past {
    /// By the clock of PostgreSQL.
    today: Day,
    master_key: MasterKey,
    /// As they were stored.
    wrapped: BTreeMap<Day, WrappedKey>,
    keys: BTreeMap<Day, ContentKey>,
    canary: Canary,
    /// Conversations of people who write there now.
    pub busy: Vec<Room>,
    /// Conversations of people in which nothing is sent any more.
    pub quiet: Vec<Room>,
    /// Conversations of users who are not there.
    strangers: Vec<Room>,
    messages: Vec<Old>,
    /// The last message of the first conversation of strangers, which could not be stored in its time.
    late: Option<Old>,
    entries: Vec<Entry>,
    /// The conversation of the entries.
    entries_of: ConversationId,
}

impl Past {
    /// Makes the days, and lets a gateway of 98 days ago take a text. Retention is stopped, and gateways are started again,
    /// since they ask for new keys every five minutes only.
    pub async fn prepare(ground: &Ground) -> Result<Self> {
        let fleet = &ground.fleet;
        fleet.retention().stop().await?;
        let mut postgres = ground.postgres().await?;
        let today = today(&mut postgres).await?;
        let master_key = MasterKey::parse(&std::fs::read_to_string(fleet.dir().join("keys/master.key"))?)?;
        let (mut wrapped, mut keys) = (BTreeMap::new(), BTreeMap::new());
        for day in DAYS_AGO.map(|days_ago| today.plus(-days_ago)) {
            make_day(&mut postgres, day).await?;
            let generated = master_key.generate(day)?;
            keys.insert(day, master_key.unwrap(&generated)?);
            wrapped.insert(day, generated);
        }
        content_keys::store(&mut postgres, wrapped.values()).await?;
        // As autovacuum does long before a key is destroyed.
        postgres.execute("analyze content_keys").await?;
        let canary = Canary::send(ground, today.plus(-GONE_FROM)).await.context("a gateway of 98 days ago")?;
        for gateway in fleet.gateways() {
            gateway.stop().await?;
            gateway.start_ready().await?;
        }
        let entries_of = ConversationId::random();
        let entry = |(table, days_ago, gone_from)| Entry { table, days_ago, gone_from, id: Uuid::new_v4() };
        let entries = ENTRIES.map(entry).to_vec();
        store_entries(&mut postgres, today, entries_of, &entries).await?;
        postgres.execute("select record_message_days()").await?;
        let messages = vec![canary.message.clone()];
        let (busy, quiet, strangers) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self {
            today,
            master_key,
            wrapped,
            keys,
            canary,
            busy,
            quiet,
            strangers,
            messages,
            late: None,
            entries,
            entries_of,
        })
    }

    /// Makes conversations of these people, and so many of others. The people are not connected yet: they find the
    /// conversations in their lists.
    pub async fn remember(&mut self, fleet: &Fleet, people: &[UserId], strangers: usize) -> Result<()> {
        let room = |members: &[usize]| Room {
            id: ConversationId::random(),
            members: members.iter().map(|index| people[*index]).collect(),
        };
        let mut talks = Vec::new();
        for members in BUSY {
            let room = room(members);
            talks.push(self.talk(&room, &DAYS_AGO, A_DAY)?);
            self.busy.push(room);
        }
        for (members, days_ago) in QUIET {
            let room = room(members);
            talks.push(self.talk(&room, days_ago, A_DAY)?);
            self.quiet.push(room);
        }
        for number in 0..strangers {
            let room = Room {
                id: ConversationId::random(),
                members: vec![UserId::random(), UserId::random(), UserId::random()],
            };
            // Some go on after the days that are due.
            let days_ago = match number {
                0 => &DAYS_AGO[..=LATE],
                _ if number % 4 == 1 => &DAYS_AGO[..],
                _ => &DAYS_AGO[..5],
            };
            let mut talk = self.talk(&room, days_ago, 2)?;
            if number == 0 {
                self.late = talk.pop();
            }
            talks.push(talk);
            self.strangers.push(room);
        }
        let mut postgres = PgConnection::connect(&fleet.urls().postgres).await?;
        let rooms = self.busy.iter().chain(&self.quiet).chain(&self.strangers);
        store(&mut postgres, rooms, &talks).await?;
        for (room, talk) in self.busy.iter().zip(&talks) {
            mark(&mut postgres, room, talk, 0).await?;
        }
        for (room, talk) in self.quiet.iter().zip(&talks[self.busy.len()..]) {
            mark(&mut postgres, room, talk, talk.len() as u64 / 2).await?;
        }
        self.messages.extend(talks.into_iter().flatten());
        Ok(())
    }

    /// Messages of these days in a conversation: each day has one in its first millisecond, and one in its last if it has
    /// several.
    fn talk(&self, room: &Room, days_ago: &[i32], a_day: u64) -> Result<Vec<Old>> {
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
    fn old(&self, room: &Room, seq: Seq, sent_at: Timestamp) -> Result<Old> {
        let turn = usize::try_from(seq.0)? % room.members.len();
        let place = Sealed { conversation_id: room.id, message_id: MessageId::random(), sender_id: room.members[turn] };
        let text = format!("number {} of {} days ago", seq.0, self.today.0 - sent_at.day().0);
        let key = self.keys.get(&sent_at.day()).context("a day has no key")?;
        let envelope = key.seal(&place, text.as_bytes())?;
        let Sealed { conversation_id, message_id, sender_id } = place;
        Ok(Old { key: Key { conversation_id, sender_id, message_id }, seq, sent_at, text, envelope })
    }

    /// Puts the message that could not be stored in its time where persisters put such: it is a dead letter.
    pub async fn bury_late_one(&mut self, ground: &Ground) -> Result<()> {
        let (room, late) = self.strangers.first().zip(self.late.take()).context("no message is late")?;
        let member = |user_id: &UserId| Participant { user_id: *user_id, role: Role::Member };
        let event = Event {
            conversation_id: room.id,
            kind: ConversationKind::Group,
            seq: late.seq,
            sent_at: late.sent_at,
            previous: StreamSeq::ZERO,
            participants: Participants {
                version: 1,
                list: room.members.iter().map(member).collect(),
                ..Participants::default()
            },
            fact: Fact::MessageSent(MessageSent {
                message_id: late.key.message_id,
                sender_id: late.key.sender_id,
                envelope: late.envelope.clone(),
                seen_seq: Seq::ZERO,
                audience: AudienceTag::default(),
            }),
        };
        let subject = subject_of(ground.fleet.namespace(), &event);
        let statement = format!(
            "insert into dead_letters (stream_name, stream_seq, subject, payload, reason, created_at) \
             values ('late {}', 1, '{subject}', {}, 'it could not be stored', now())",
            late.key.message_id.as_uuid(),
            bytea(&event.encode()),
        );
        ground.postgres().await?.execute(AssertSqlSafe(statement)).await?;
        self.messages.push(late);
        Ok(())
    }

    /// The name of the partition of a day.
    pub fn partition(&self, days_ago: i32) -> String {
        partition(self.today.plus(-days_ago))
    }

    /// Messages of conversations of these people, each with its conversation.
    pub fn shown(&self, user_id: UserId) -> impl Iterator<Item = (ConversationId, MessageId)> {
        let rooms = self.busy.iter().chain(&self.quiet).filter(move |room| room.members.contains(&user_id));
        let ids: Vec<_> = rooms.map(|room| room.id).collect();
        let keys = self.messages.iter().map(|message| message.key);
        keys.filter(move |key| ids.contains(&key.conversation_id)).map(|key| (key.conversation_id, key.message_id))
    }

    /// How often the sealed canary stands in the servers' files, and how many copies of it were read.
    pub fn copies(&self) -> (usize, usize) {
        (self.canary.in_files, self.canary.copies.len())
    }
}

async fn today(postgres: &mut PgConnection) -> Result<Day> {
    let statement = "select (message_today() - date '1970-01-01')::bigint".to_owned();
    Ok(Day(i32::try_from(stored::number(postgres, statement).await?)?))
}

fn date(day: Day) -> String {
    Date::from(day).to_string()
}

fn partition(day: Day) -> String {
    format!("messages_{}", date(day).replace('-', ""))
}

fn bytea(bytes: &[u8]) -> String {
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
        "drop table if exists {partition}, {partition}_retired; delete from content_keys where day = '{date}'; \
         delete from message_days where day = '{date}'; select make_message_partition('{date}')"
    );
    postgres.execute(AssertSqlSafe(statements)).await.with_context(|| partition)?;
    Ok(())
}

async fn store_entries(
    postgres: &mut PgConnection,
    today: Day,
    entries_of: ConversationId,
    entries: &[Entry],
) -> Result<()> {
    let (conversation, business) = (entries_of.as_uuid(), Uuid::new_v4());
    let mut statements = format!(
        "insert into conversations (conversation_id, kind, created_at, last_activity_at) \
         values ('{conversation}', 'group', now() - interval '101 days', now() - interval '101 days'); \
         insert into businesses (business_id) values ('{business}');"
    );
    for Entry { table, days_ago, gone_from, id } in entries {
        let date = date(today.plus(-days_ago));
        // The last millisecond of the day, in which a limit that is off by a little would show.
        let at = format!("timestamptz '{date} 23:59:59.999+00'");
        _ = match *table {
            "dead_letters" => write!(
                statements,
                "insert into dead_letters (stream_name, stream_seq, subject, payload, reason, created_at) \
                 values ('past {id}', 1, 'none', 'none', 'it is no event', {at});"
            ),
            "assignments" => {
                let released = if gone_from.is_some() { format!("{at}, 'resolved'") } else { "null, null".to_owned() };
                write!(
                    statements,
                    "insert into assignments (conversation_id, business_id, case_number, agent_id, assigned_by, reason, \
                     strategy, waited_ms, candidates, assigned_at, released_at, release_reason) \
                     values ('{conversation}', '{business}', 1, '{id}', '{id}', 'claimed', 'manual', 0, '[]', \
                     {at} - interval '1 hour', {released});"
                )
            }
            _ => write!(
                statements,
                "insert into staff_reads (day, user_id, conversation_id) values ('{date}', '{id}', '{conversation}');"
            ),
        };
    }
    postgres.execute(AssertSqlSafe(statements)).await.context("rows of other tables")?;
    Ok(())
}

/// Conversations and their messages, each in the state in which persisters leave it after its last message.
async fn store(postgres: &mut PgConnection, rooms: impl Iterator<Item = &Room>, talks: &[Vec<Old>]) -> Result<()> {
    let (mut conversations, mut participants, mut messages) = (Rows::new(), Rows::new(), Rows::new());
    for (Room { id, members }, talk) in rooms.zip(talks) {
        let (first, last) = talk.first().zip(talk.last()).context("a conversation is empty")?;
        conversations.row(7).uuid(id.as_uuid()).bytes(b"group").bigint(last.seq.0.cast_signed());
        conversations.uuid(last.key.message_id.as_uuid()).time(last.sent_at).time(first.sent_at).time(last.sent_at);
        for user_id in members {
            participants.row(4).uuid(id.as_uuid()).uuid(user_id.as_uuid()).bytes(b"member").time(first.sent_at);
        }
        for Old { key, seq, sent_at, envelope, .. } in talk {
            messages.row(6).uuid(id.as_uuid()).bigint(seq.0.cast_signed()).time(*sent_at);
            messages.uuid(key.message_id.as_uuid()).uuid(key.sender_id.as_uuid()).bytes(envelope.as_bytes());
        }
    }
    let columns = "conversations (conversation_id, kind, last_seq, last_message_id, last_message_at, created_at, \
                   last_activity_at)";
    copy(postgres, columns, conversations).await?;
    copy(postgres, "participants (conversation_id, user_id, role, joined_at)", participants).await?;
    copy(postgres, "messages (conversation_id, seq, sent_at, message_id, sender_id, envelope)", messages).await
}

/// Read marks: the first participant has read up to a number, the others nothing but what they wrote.
async fn mark(postgres: &mut PgConnection, room: &Room, talk: &[Old], read: u64) -> Result<()> {
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
