//! What a person sees: progress lines, and the merged logs of many processes.

use std::io::{IsTerminal, Write};

/// ANSI colours, one after the other, of processes in the merged log.
const COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "31"];

/// One line about what is being done, on standard error.
pub fn progress(text: &str) {
    eprintln!("{} {text}", paint("2", "·"));
}

/// Why a command failed, on standard error.
pub fn failure(text: &str) {
    eprintln!("{} {text}", paint("1;31", "error:"));
}

/// A heading in the output of a command.
pub fn heading(text: &str) {
    eprintln!("\n{}", paint("1", text));
}

/// `text` in an ANSI style if standard error is a terminal.
pub fn paint(style: &str, text: &str) -> String {
    if std::io::stderr().is_terminal() { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Prefix of one process' lines in the merged log.
#[derive(Debug, Clone)]
pub struct Prefix {
    name: String,
    colour: &'static str,
}

impl Prefix {
    /// `position` among the processes chooses the colour.
    pub fn new(name: &str, position: usize) -> Self {
        Self { name: name.to_owned(), colour: COLOURS[position % COLOURS.len()] }
    }

    /// Writes one line of the process to standard output.
    ///
    /// A terminal that went away is no reason to lose the process, so failures are ignored.
    pub fn print(&self, line: &str) {
        let mut out = std::io::stdout().lock();
        let label = format!("{:<11}", self.name);
        let label =
            if std::io::stdout().is_terminal() { format!("\x1b[{}m{label}\x1b[0m", self.colour) } else { label };
        _ = writeln!(out, "{label}│ {line}");
    }
}
