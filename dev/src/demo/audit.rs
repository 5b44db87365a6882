//! The audits at the end: what Postgres has, what people were shown, what lies in files.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use chat_client::ids::ConversationId;
use serde::Serialize;
use sqlx::{Connection, Executor, PgConnection};

use super::{
    narrator::{Narrator, Promise},
    stage::{FIRST, Stage},
};
use crate::audit::{
    self, Check, Evidence, Finding, Reader, audit, ensure_held, gather,
    search::{Found, bytes_in, logs_in},
    shown_exactly, stored,
};

/// Found in files and tables.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    pub in_postgres: usize,
    pub delivered: usize,
    pub bytes_searched: u64,
    pub log_lines_searched: usize,
}

/// Every accepted message is in Postgres exactly once, in order, and nothing else is.
pub async fn postgres(stage: &mut Stage, told: &Narrator, figures: &mut Figures) -> Result<()> {
    // What is missing then is found by comparing.
    _ = stage.until_stored().await;
    let evidence = evidence(stage).await?;
    figures.in_postgres = stage.stored().await?;
    let findings = audit(&evidence);
    let (kept, order) = (
        ensure_of(&findings, &[Check::NotStored, Check::NotInHistory, Check::Doubled, Check::DeadLetters]),
        ensure_of(&findings, &[Check::Holes, Check::TimeBackwards, Check::Moved]),
    );
    let (count, rows) = (stage.ledger.count(), evidence.rows.len());
    let others = figures.in_postgres.abs_diff(rows);
    told.check(
        Promise::AcceptedMeansKept,
        kept.and_then(|()| {
            ensure!(others == 0, "{others} rows are of conversations that nobody made");
            Ok(format!("{rows} of {count} accepted messages are in Postgres, each once; 0 other rows, 0 dead letters"))
        }),
    );
    let rooms = evidence.rooms.len();
    told.check(
        Promise::OneOrder,
        order.map(|()| {
            format!(
                "numbers run 1, 2, 3 … in {rooms} of {rooms} conversations, and time backwards at 0 of {count} messages"
            )
        }),
    );
    let lists = ensure_of(&findings, &[Check::UnreadWrong, Check::Phantoms]);
    told.check(
        Promise::AcceptedMeansKept,
        lists.map(|()| {
            format!("{0} of {0} entries of conversation lists count as Postgres does", evidence.listed.len())
        }),
    );
    Ok(())
}

async fn evidence(stage: &mut Stage) -> Result<Evidence> {
    let rooms: Vec<_> =
        stage.rooms.iter().map(|room| audit::Room { id: room.id, members: room.members.clone() }).collect();
    let readers = stage.people().map(|person| Ok(Reader { user_id: person.user_id, rest: person.rest()?.clone() }));
    let readers = readers.into_iter().collect::<Result<Vec<_>>>()?;
    let devices = stage.people().map(|person| person.diary().record(&person.name, person.user_id));
    let (url, attempts) = (stage.fleet.urls().postgres.clone(), stage.ledger.attempts());
    let mut evidence = gather(&url, &rooms, attempts, &readers, devices.to_vec(), 0).await?;
    let gateways = stage.gateways_from(FIRST);
    if let Some(case) = &mut stage.case {
        case.supervisor.arrive(gateways).await?;
        let mut connection = PgConnection::connect(&url).await?;
        evidence.rows.extend(stored::rows(&mut connection, &[case.id]).await?);
        evidence.heads.extend(stored::heads(&mut connection, &[case.id]).await?);
        connection.close().await?;
        evidence.history.extend(audit::history(case.supervisor.rest()?, case.id).await?);
        // Nobody takes part of those whose lists are compared.
        evidence.rooms.push(audit::Room { id: case.id, members: Vec::new() });
        case.supervisor.leave().await?;
    }
    Ok(evidence)
}

fn ensure_of(findings: &[Finding], wanted: &[Check]) -> Result<()> {
    let findings: Vec<_> = findings.iter().filter(|finding| wanted.contains(&finding.check)).cloned().collect();
    ensure_held(&findings)
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
                shown_exactly(&kept, diary.messages(room.id))
                    .with_context(|| format!("the {} conversation", room.name))?;
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
