//! The section "Sizing" of docs/operations.md: its constants, and what is calculated with them.

use anyhow::{Context, Result, ensure};

const DOCUMENT: &str = include_str!("../../../docs/operations.md");

/// How far a measurement may lie from its constant.
const TOLERANCE: f64 = 0.25;

/// The bytes that the document states for a name, in a row as "| `name` | 123 | … |".
pub fn constant(name: &str) -> Result<f64> {
    let start = format!("| `{name}` | ");
    let mut rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix(&start));
    let row = rows.next().with_context(|| format!("docs/operations.md states no constant {name}"))?;
    ensure!(rows.next().is_none(), "docs/operations.md states {name} twice");
    let (bytes, _) = row.split_once(" |").with_context(|| format!("the row of {name} has no bytes"))?;
    bytes.replace(',', "").parse().with_context(|| format!("the bytes of {name} are no number: {bytes}"))
}

/// Fails if what was measured is another number of bytes than what is expected from the document.
pub fn assert_near(what: &str, measured: f64, expected: f64) -> Result<()> {
    let ratio = measured / expected;
    ensure!(
        (1.0 - TOLERANCE..=1.0 + TOLERANCE).contains(&ratio),
        "{what}: {measured:.0} bytes measured, and {expected:.0} expected by docs/operations.md: correct its table, and \
         what is calculated with it"
    );
    Ok(())
}

/// The gigabytes of a row of the worked table, for each number of users.
fn worked(name: &str) -> Result<Vec<f64>> {
    let start = format!("| {name} | ");
    let row = DOCUMENT.lines().find_map(|line| line.strip_prefix(&start)).with_context(|| format!("no row {name}"))?;
    let cells = row.trim_end_matches(" |").split(" | ");
    cells.map(|cell| cell.trim_end_matches(" GB").parse().with_context(|| format!("{name}: {cell}"))).collect()
}

#[test]
fn the_worked_table_follows_from_the_constants() -> Result<()> {
    let text = 100.0;
    let message = |name| Ok::<_, anyhow::Error>(constant(name)? + text);
    // For each user: 20 messages a day, half a mark for each, 5 conversations of two, a full inbox.
    let log = 20.0 * 7.0 * (message("log_message")? + 0.5 * constant("log_read")?);
    let inbox = 256.0 * message("redis_entry")?;
    let redis = constant("redis_user")? + inbox + constant("redis_profile")? + 20.0 * 45.0;
    let rows = 5.0 * constant("postgres_conversation")? + 10.0 * constant("postgres_participant")?;
    let postgres = 20.0 * 98.0 * message("postgres_message")? + 2.0 * rows;
    for (name, bytes) in [
        ("log of 7 days, of each NATS server", log),
        ("Redis, all inboxes full", redis),
        ("PostgreSQL, after 98 days", postgres),
    ] {
        let stated = worked(name)?;
        let calculated = [50e3, 100e3, 500e3, 1e6].map(|users| users * bytes / 1e9);
        ensure!(stated.len() == calculated.len(), "{name}: {stated:?}");
        for (stated, calculated) in stated.iter().zip(calculated) {
            ensure!((stated / calculated - 1.0).abs() < 0.02, "{name}: {stated} GB stated, {calculated:.1} calculated");
        }
    }
    Ok(())
}
