//! Lines for people while scenarios run; those of two that run at the same time are told apart by their names.

use std::{io::IsTerminal, time::Instant};

use crate::paths;

/// Prints the lines of one scenario.
#[derive(Debug, Clone)]
pub struct Told {
    name: &'static str,
    began: Instant,
    is_quiet: bool,
}

impl Told {
    /// With its name before each line; a quiet one prints nothing.
    pub fn new(name: &'static str, is_quiet: bool) -> Self {
        Self { name, began: Instant::now(), is_quiet }
    }

    /// What is going on.
    pub fn line(&self, text: &str) {
        self.print("2", " ", text);
    }

    /// Something is broken on purpose.
    pub fn fault(&self, text: &str) {
        self.print("33", "⚡", text);
    }

    /// Something held, or a fault was felt.
    pub fn good(&self, text: &str) {
        self.print("32", "✓", text);
    }

    /// A promise is broken, or a fault was not felt.
    pub fn bad(&self, text: &str) {
        self.print("1;31", "✗", text);
    }

    fn print(&self, style: &str, mark: &str, text: &str) {
        if !self.is_quiet {
            let seconds = self.began.elapsed().as_secs_f64();
            println!("{:<16} {seconds:>6.1} s  {}", self.name, paint(style, &format!("{mark} {text}")));
        }
    }
}

/// Colours only a terminal, and not where `NO_COLOR` is set.
pub fn paint(style: &str, text: &str) -> String {
    let is_coloured = std::io::stdout().is_terminal() && paths::environment("NO_COLOR").is_none();
    if is_coloured { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}
