//! Days of the past, for a scenario in which days age out: their partitions and keys, conversations with messages of each
//! day, and rows of other tables that are as old.
//!
//! It is put into PostgreSQL as its owner, since no service writes a day of long ago, but as services would have left it:
//! numbers are dense, texts are sealed for their places by the keys of their days. One text, the canary, goes the whole way
//! through a real gateway whose clock is 98 days behind.

mod canary;
pub mod days;
mod evidence;

use std::fmt::Write as _;

use anyhow::{Context, Result};
use chat_client::{
    ids::{ConversationId, MessageId, UserId},
    positions::Seq,
    wire::{ConversationKind, Participant, Role},
};
use chat_shared::{
    clock::Day,
    event::{Event, Fact, MessageSent, Participants},
    log::subject_of,
    position::StreamSeq,
    sealing::AudienceTag,
};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use uuid::Uuid;

use self::{
    canary::Canary,
    days::{Days, Old, date, mark, partition, store},
};
use super::ground::Ground;
use crate::{
    audit::{GONE_FROM, Room},
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
    days: Days,
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
        let days = Days::make(ground, &DAYS_AGO).await?;
        let (today, mut postgres) = (days.today, ground.postgres().await?);
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
        Ok(Self { days, canary, busy, quiet, strangers, messages, late: None, entries, entries_of })
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
            talks.push(self.days.talk(&room, &DAYS_AGO, A_DAY)?);
            self.busy.push(room);
        }
        for (members, days_ago) in QUIET {
            let room = room(members);
            talks.push(self.days.talk(&room, days_ago, A_DAY)?);
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
            let mut talk = self.days.talk(&room, days_ago, 2)?;
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
            days::bytea(&event.encode()),
        );
        ground.postgres().await?.execute(AssertSqlSafe(statement)).await?;
        self.messages.push(late);
        Ok(())
    }

    /// The name of the partition of a day.
    pub fn partition(&self, days_ago: i32) -> String {
        partition(self.days.today.plus(-days_ago))
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
