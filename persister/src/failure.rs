//! Tells failures apart: those that pass, and those that an entry causes whenever it is tried.
//!
//! **Invariant:** only what is surely the entry's own fault counts as such. With a broken schema, a full
//! disk or missing rights the persister waits; it does not bury messages.

use sqlx::error::DatabaseError;

/// What a failed transaction means for its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It may work later, with nothing changed.
    Transient,
    /// A day's partition is not there.
    MissingPartition,
    /// At least one of the entries can't be stored as it is.
    Data,
}

/// Classifies an error of the database or of the way to it.
pub fn classify(error: &sqlx::Error) -> Failure {
    match error {
        sqlx::Error::Database(error) => classify_code(error.code().as_deref(), error.constraint()),
        sqlx::Error::Encode(_) => Failure::Data,
        _ => Failure::Transient,
    }
}

/// The part of an error that matters, for one line of log or a dead letter.
pub fn reason(error: &sqlx::Error) -> String {
    let text = match error.as_database_error() {
        Some(error) => {
            format!("{} ({})", DatabaseError::message(error), error.code().as_deref().unwrap_or("no code"))
        }
        None => error.to_string(),
    };
    text.replace('\0', "\u{fffd}")
}

/// By SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn classify_code(code: Option<&str>, constraint: Option<&str>) -> Failure {
    match (code, constraint) {
        // A row without a partition is a check violation, but of no constraint with a name.
        (Some("23514"), None) => Failure::MissingPartition,
        // Cardinality, data, integrity, `raise` in a trigger, limits of the program such as the size of an index row.
        (Some(code), _) if ["21", "22", "23", "P0", "54"].iter().any(|class| code.starts_with(class)) => Failure::Data,
        _ => Failure::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_never_blamed_on_the_entries() {
        for code in [
            "08006", // connection failure
            "25006", // read-only transaction: a replica, or a switch-over
            "28P01", // wrong password
            "40001", // serialization
            "40P01", // deadlock
            "42501", // missing rights
            "42P01", // missing table
            "42703", // missing column
            "53100", // disk full
            "53300", // too many connections
            "55P03", // lock not available
            "57014", // statement time-out
            "57P01", // shutting down
            "57P03", // starting up
            "58030", // disk failure
            "XX000", // internal error
        ] {
            assert_eq!(classify_code(Some(code), None), Failure::Transient, "{code}");
        }
        assert_eq!(classify_code(None, None), Failure::Transient);
        for error in [sqlx::Error::PoolTimedOut, sqlx::Error::WorkerCrashed, sqlx::Error::Protocol(String::new())] {
            assert_eq!(classify(&error), Failure::Transient, "{error}");
        }
    }

    #[test]
    fn what_an_entry_causes_is_its_own() {
        for (code, constraint) in
            [("23514", Some("messages_seq_check")), ("23502", None), ("22008", None), ("54000", None), ("P0001", None)]
        {
            assert_eq!(classify_code(Some(code), constraint), Failure::Data, "{code}");
        }
        assert_eq!(classify(&sqlx::Error::Encode("too long".into())), Failure::Data);
    }

    #[test]
    fn a_missing_partition_is_told_from_a_failed_check() {
        assert_eq!(classify_code(Some("23514"), None), Failure::MissingPartition);
    }
}
