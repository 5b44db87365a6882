//! The audits at the end: what Postgres has, what people were shown, what lies in files.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use chat_client::{clock::Timestamp, ids::ConversationId, positions::Seq};
use serde::Serialize;
use sqlx::{Connection, Executor, PgConnection, Row};
use uuid::Uuid;

use super::{
    ledger::{Kept, is_one_order, is_shown},
    narrator::{Narrator, Promise},
    search::{Found, bytes_in, logs_in},
    stage::{FIRST, Stage},
};

/// Found in files and tables.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    pub in_postgres: usize,
    pub delivered: usize,
    pub bytes_searched: u64,
    pub log_lines_searched: usize,
}

/// A row of `messages`, without its content.
#[derive(Debug, PartialEq, Eq)]
struct Stored {
    conversation_id: Uuid,
    seq: i64,
    sent_at_ms: i64,
    message_id: Uuid,
    sender_id: Uuid,
}

/// Every accepted message is in Postgres exactly once, in order, and nothing else is.
pub async fn postgres(stage: &Stage, told: &Narrator, figures: &mut Figures) -> Result<()> {
    let outcome = async {
        // What is missing then is found by comparing.
        _ = stage.until_stored().await;
        let mut connection = PgConnection::connect(&stage.fleet.urls().postgres).await?;
        let rows = read_messages(&mut connection).await?;
        figures.in_postgres = rows.len();
        let mut wanted = Vec::new();
        for room in &stage.rooms {
            let kept = stage.ledger.of(room.id);
            is_one_order(&kept).with_context(|| format!("the {} conversation", room.name))?;
            wanted.extend(kept.iter().map(as_stored));
        }
        let missing: Vec<_> = wanted.iter().filter(|wanted| !rows.contains(wanted)).map(|row| row.seq).collect();
        let others = rows.iter().filter(|row| !wanted.contains(row)).count();
        ensure!(
            missing.is_empty() && others == 0,
            "{} of {} accepted messages are not in Postgres, such as number {}; {others} rows are none of them",
            missing.len(),
            wanted.len(),
            missing.first().unwrap_or(&0),
        );
        // Twice the same would be equal in all columns but the place in the table.
        ensure!(wanted.len() == rows.len(), "{} messages lie in {} rows", wanted.len(), rows.len());
        let letters = one_number(&mut connection, "select count(*) from dead_letters").await?;
        ensure!(letters == 0, "{letters} dead letters");
        let drifted = "select count(*) from conversations c where last_seq <> \
                       (select coalesce(max(seq), 0) from messages m where m.conversation_id = c.conversation_id)";
        let drifted = one_number(&mut connection, drifted).await?;
        ensure!(drifted == 0, "{drifted} conversations do not know their last message");
        connection.close().await?;
        Ok(rows.len())
    };
    let outcome: Result<usize> = outcome.await;
    let count = stage.ledger.count();
    told.check(
        Promise::AcceptedMeansKept,
        outcome.map(|rows| {
            format!("{rows} of {count} accepted messages are in Postgres, each once; 0 other rows, 0 dead letters")
        }),
    );
    let ordered: Result<()> = stage.rooms.iter().try_for_each(|room| is_one_order(&stage.ledger.of(room.id)));
    told.check(
        Promise::OneOrder,
        ordered.map(|()| {
            format!(
                "numbers run 1, 2, 3 … in {} of {} conversations, and time backwards at 0 of {count} messages",
                stage.rooms.len(),
                stage.rooms.len()
            )
        }),
    );
    Ok(())
}

fn as_stored(kept: &Kept) -> Stored {
    let Kept { conversation_id, message_id, sender_id, seq: Seq(seq), sent_at: Timestamp(sent_at_ms), .. } = kept;
    Stored {
        conversation_id: conversation_id.as_uuid(),
        seq: seq.cast_signed(),
        sent_at_ms: *sent_at_ms,
        message_id: message_id.as_uuid(),
        sender_id: sender_id.as_uuid(),
    }
}

async fn read_messages(connection: &mut PgConnection) -> Result<Vec<Stored>> {
    let rows = sqlx::raw_sql(
        "select conversation_id, seq, (extract(epoch from sent_at) * 1000)::bigint as sent_at_ms, message_id, sender_id \
         from messages order by conversation_id, seq, sent_at",
    )
    .fetch_all(connection)
    .await?;
    let stored = |row: sqlx::postgres::PgRow| -> Result<Stored> {
        Ok(Stored {
            conversation_id: row.try_get(0)?,
            seq: row.try_get(1)?,
            sent_at_ms: row.try_get(2)?,
            message_id: row.try_get(3)?,
            sender_id: row.try_get(4)?,
        })
    };
    rows.into_iter().map(stored).collect()
}

async fn one_number(connection: &mut PgConnection, statement: &'static str) -> Result<i64> {
    Ok(sqlx::raw_sql(statement).fetch_one(connection).await?.try_get(0)?)
}

/// Everybody was shown everything exactly once, from the first message on.
pub async fn people(stage: &mut Stage, told: &Narrator, figures: &mut Figures) -> Result<()> {
    let gateways = stage.gateways_from(FIRST);
    if !stage.chandra.is_there() {
        stage.chandra.arrive(gateways).await?;
    }
    let waited = stage.until_shown().await;
    for person in stage.people() {
        let outcome = || {
            let diary = person.diary();
            let mut count = 0;
            for room in stage.rooms.iter().filter(|room| room.members.contains(&person.user_id)) {
                let kept = stage.ledger.of(room.id);
                is_shown(&kept, diary.messages(room.id)).with_context(|| format!("the {} conversation", room.name))?;
                count += kept.len();
            }
            ensure!(diary.skipped().is_empty(), "{} parts were skipped", diary.skipped().len());
            ensure!(diary.count() == count, "{} messages were shown that nobody sent", diary.count() - count);
            let connections = diary.arrivals().len();
            Ok(format!(
                "{} was shown {count} of {count} messages, 0 of them twice, over {connections} connections",
                person.name
            ))
        };
        figures.delivered += person.diary().count();
        told.check(Promise::ShownOnce, outcome());
    }
    waited
}

/// No text lies in any file of the servers. Something that must be there is searched too, so that nothing found means
/// nothing there.
pub async fn files(stage: &Stage, told: &Narrator, figures: &mut Figures) -> Result<()> {
    make_files_complete(stage).await?;
    let servers = stage.servers()?;
    for (name, directory) in [
        ("Postgres", servers.postgres.data_dir()),
        ("NATS", servers.nats.data_dir()),
        ("Redis", servers.redis.data_dir()),
    ] {
        let outcome = search(directory, stage.words.mark(), stage.group()?).map(|(text, id)| {
            figures.bytes_searched += text.bytes;
            let kilobytes = text.bytes / 1000;
            format!(
                "0 of {} texts lie in the {} files of {name} ({kilobytes} KB; the group's id, searched the same way, {} times)",
                stage.ledger.count(), text.files, id.hits
            )
        });
        told.check(Promise::Ciphertext, outcome);
    }
    Ok(())
}

fn search(directory: &Path, mark: &str, known: ConversationId) -> Result<(Found, Found)> {
    let text = bytes_in(directory, mark.as_bytes())?;
    let id = bytes_in(directory, known.as_uuid().as_bytes())?;
    ensure!(text.hits == 0, "texts lie in the open {} times in {}", text.hits, directory.display());
    ensure!(id.hits > 0, "the search proves nothing: an id that must be there was not found in {} files", id.files);
    Ok((text, id))
}

/// Makes the servers write what they only have in memory, and without compressing it.
async fn make_files_complete(stage: &Stage) -> Result<()> {
    let mut postgres = PgConnection::connect(&stage.fleet.urls().postgres).await?;
    postgres.execute("checkpoint").await?;
    postgres.close().await?;
    let mut redis = redis::Client::open(stage.fleet.urls().redis.as_str())?.get_multiplexed_async_connection().await?;
    redis::cmd("CONFIG").arg(&["SET", "rdbcompression", "no"]).exec_async(&mut redis).await?;
    redis::cmd("SAVE").exec_async(&mut redis).await?;
    Ok(())
}

/// No whole id is in a log, and nothing panicked.
pub fn logs(directory: &Path, told: &Narrator, figures: &mut Figures) -> Result<()> {
    let found = logs_in(directory)?;
    figures.log_lines_searched = found.lines;
    let searched = format!("{} lines in {} files", found.lines, found.files);
    let first = |lines: &[String]| lines.first().cloned().unwrap_or_default();
    let ids = found.with_id.len();
    told.check(
        Promise::MaskedIds,
        if ids == 0 {
            Ok(format!("a whole UUID stands in 0 of {searched}"))
        } else {
            Err(anyhow::anyhow!("{ids} of {searched} have a whole UUID; the first: {}", first(&found.with_id)))
        },
    );
    let panics = found.panics.len();
    told.check(
        Promise::NoPanic,
        if panics == 0 {
            Ok(format!("0 of {searched} tell of one"))
        } else {
            Err(anyhow::anyhow!("{panics} of {searched} tell of one; the first: {}", first(&found.panics)))
        },
    );
    Ok(())
}
