//! What an operator runs by hand for one day: `verify` and `warm`.

use anyhow::{Context, ensure};
use chat_cold::{
    pack::{self, chunk_of},
    store::Store,
};
use chat_shared::command_line::say;
use sqlx::PgPool;
use time::Date;

use super::{name, read_equal, steps};

/// Bodies of one statement.
const BATCH_MAX: usize = 1000;

/// Reads every pack of a day and compares it with what is recorded of it.
///
/// # Errors
/// If a pack is missing, differs or can't be read as one; after all packs were looked at.
pub async fn verify(pool: &PgPool, store: &Store, day: Date) -> anyhow::Result<()> {
    let packs = steps::packs(pool, day).await?;
    ensure!(!packs.is_empty(), "there are no packs of {day}: its bodies are in PostgreSQL, or the day is gone");
    let (mut messages, mut damaged) = (0, 0);
    for row in &packs {
        let found = async {
            let bytes = read_equal(store, &row.object, &row.sha256).await?;
            let mut count = 0;
            for (place, length) in steps::chunks(pool, day, row.number).await? {
                count += pack::entries(chunk_of(&bytes, place, length)?)?.len();
            }
            let expected = usize::try_from(row.messages).unwrap_or_default();
            ensure!(count == expected, "its chunks have {count} messages of {expected}");
            anyhow::Ok(row.messages)
        };
        match found.await {
            Ok(count) => messages += count,
            Err(error) => {
                damaged += 1;
                say(format_args!("{}: {error:#}", name(day, row)));
            }
        }
    }
    ensure!(
        damaged == 0,
        "{damaged} of {} packs of {day} can't be used: restore them from a copy or a version of the bucket",
        packs.len()
    );
    say(format_args!("all {} packs of {day} are as they were stored, with {messages} messages", packs.len()));
    Ok(())
}

/// Puts the bodies of a day back into PostgreSQL. Its packs stay until the day ages out, and it is not packed again.
///
/// # Errors
/// If a pack can't be read, or rows are left without bodies. Running it again does the rest.
pub async fn warm(pool: &PgPool, store: &Store, day: Date) -> anyhow::Result<()> {
    let packs = steps::packs(pool, day).await?;
    ensure!(!packs.is_empty(), "there are no packs of {day}: its bodies are in PostgreSQL, or the day is gone");
    let mut filled = 0;
    for (count, row) in (1..).zip(&packs) {
        let bytes = read_equal(store, &row.object, &row.sha256).await.with_context(|| name(day, row))?;
        for (place, length) in steps::chunks(pool, day, row.number).await? {
            let bodies: Vec<_> = pack::entries(chunk_of(&bytes, place, length)?)?
                .into_iter()
                .map(|entry| (entry.key, entry.body))
                .collect();
            for batch in bodies.chunks(BATCH_MAX) {
                filled += steps::warm(pool, day, batch).await?;
            }
        }
        say(format_args!("{count} of {} packs: {filled} bodies are back", packs.len()));
    }
    let missing = steps::without_bodies(pool, day).await?;
    ensure!(missing == 0, "{missing} messages of {day} are in no pack: look for them in a backup of PostgreSQL");
    say(format_args!("all bodies of {day} are in PostgreSQL"));
    Ok(())
}
