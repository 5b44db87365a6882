//! The metrics of this service, by name.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

/// Messages stored that were not there before.
pub const ROWS_TOTAL: &str = "chat_persister_rows_total";
/// How often a participant's place was raised, by their own message or because they read.
pub const READS_TOTAL: &str = "chat_persister_reads_total";
/// Transactions committed.
pub const BATCHES_TOTAL: &str = "chat_persister_batches_total";
/// Entries of a transaction.
pub const BATCH_EVENTS: &str = "chat_persister_batch_events";
/// From the begin of a transaction to its commit.
pub const COMMIT_SECONDS: &str = "chat_persister_commit_seconds";
/// Alert when it keeps growing.
pub const LAG_EVENTS: &str = "chat_persister_lag_events";
/// Alert above a minute: history is served from the log alone for that long.
pub const STORED_AGE_SECONDS: &str = "chat_persister_stored_age_seconds";
/// Rises while a later version writes beside this one; what it means for PostgreSQL is not stored.
pub const UNKNOWN_FACTS_TOTAL: &str = "chat_persister_unknown_facts_total";
/// Alert on any increase: an accepted message is not in the history.
pub const DEAD_LETTERS_TOTAL: &str = "chat_persister_dead_letters_total";
/// Alert while it rises: the schema may be at fault, and messages are not stored.
pub const HELD_TOTAL: &str = "chat_persister_held_total";
/// Alert above zero.
pub const DEAD_LETTERS: &str = "chat_persister_dead_letters";
/// Attempts that were repeated because the database did not take a batch.
pub const RETRIES_TOTAL: &str = "chat_persister_retries_total";
/// Alert on any increase: retention is not running.
pub const PARTITIONS_MADE_TOTAL: &str = "chat_persister_partitions_made_total";
/// Above zero after PostgreSQL has been started again, until what it may lack is stored once more.
pub const GAP_EVENTS: &str = "chat_persister_gap_events";
/// Alert above zero: neither PostgreSQL nor the log has these.
pub const GAP_LOST_EVENTS: &str = "chat_persister_gap_lost_events";
/// Alert on any increase: PostgreSQL came back older.
pub const REPAIRED_TOTAL: &str = "chat_persister_repaired_total";
/// Conversations that PostgreSQL lacked or had in an older version.
pub const REBUILT_TOTAL: &str = "chat_persister_rebuilt_total";
/// Alert on any increase: a pair has two direct conversations, and PostgreSQL shows one.
pub const NOT_REBUILT_TOTAL: &str = "chat_persister_not_rebuilt_total";

/// Bytes of the log. Alert long before it reaches `LOG_BYTES_MAX`.
pub const LOG_BYTES: &str = "chat_persister_log_bytes";
/// Bytes that the log may have; infinite without a limit.
pub const LOG_BYTES_MAX: &str = "chat_persister_log_bytes_max";
/// Entries removed from the log before their age, because it was filling up.
pub const RECLAIMED_TOTAL: &str = "chat_persister_reclaimed_total";

/// Describes all of them and sets them to zero.
pub fn describe() {
    let counters = [
        (ROWS_TOTAL, "Messages stored that were not there before"),
        (READS_TOTAL, "Participants' read marks raised, by a message of their own or by reading"),
        (BATCHES_TOTAL, "Transactions committed"),
        (UNKNOWN_FACTS_TOTAL, "Entries of a kind that only a later version knows, passed over"),
        (DEAD_LETTERS_TOTAL, "Entries of the log that could not be stored and were kept as dead letters"),
        (
            HELD_TOTAL,
            "Times that refused entries were put back to wait, since no other of their kind was stored after them",
        ),
        (REPAIRED_TOTAL, "Messages stored again that had been acknowledged and that PostgreSQL came back without"),
        (REBUILT_TOTAL, "Conversations rebuilt from the log that PostgreSQL lacked or had in an older version"),
        (NOT_REBUILT_TOTAL, "Direct conversations not rebuilt since their pair has made another one"),
        (RETRIES_TOTAL, "Attempts to store that were repeated because PostgreSQL was away or busy"),
        (RECLAIMED_TOTAL, "Entries removed from the log before their age because it was filling up"),
        (PARTITIONS_MADE_TOTAL, "Partitions that were missing and made while storing; retention should have made them"),
    ];
    for (name, description) in counters {
        describe_counter!(name, Unit::Count, description);
        counter!(name).absolute(0);
    }
    let gauges = [
        (LAG_EVENTS, Unit::Count, "Entries between the last one stored and the end of the log"),
        (STORED_AGE_SECONDS, Unit::Seconds, "Age of the newest stored event when it was stored; 0 when none waits"),
        (GAP_EVENTS, Unit::Count, "Entries that PostgreSQL may lack and that have yet to be stored again"),
        (GAP_LOST_EVENTS, Unit::Count, "Entries that PostgreSQL may lack and that the log has lost too"),
        (LOG_BYTES, Unit::Bytes, "Bytes of the log"),
        (LOG_BYTES_MAX, Unit::Bytes, "Bytes that the log may have"),
        (DEAD_LETTERS, Unit::Count, "Dead letters in the table"),
    ];
    for (name, unit, description) in gauges {
        describe_gauge!(name, unit, description);
        gauge!(name).set(0);
    }
    describe_histogram!(BATCH_EVENTS, Unit::Count, "Entries of a transaction");
    describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "From the begin of a transaction to its commit");
}
