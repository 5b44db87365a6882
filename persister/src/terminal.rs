//! Lines for the person who runs a one-off command. The service itself writes logs instead.

use std::io::Write;

/// Prints one line on standard output.
pub fn say(line: impl std::fmt::Display) {
    // Whoever closed the terminal doesn't want to read it.
    let _closed = writeln!(std::io::stdout().lock(), "{line}");
}
