//! What a person sees while it takes: a bar on a terminal, plain lines elsewhere.

use std::{
    io::{IsTerminal, stderr},
    time::Duration,
};

use anyhow::Result;
use chat_load::plan::Second;
use indicatif::{ProgressBar, ProgressStyle};

use crate::terminal;

/// Of the bar.
const TEMPLATE: &str = "  {prefix} {wide_bar} {pos}/{len} s  {msg}";
/// Between two plain lines.
const LINE_SECONDS: u64 = 5;

/// The way of one load.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    name: String,
}

impl Progress {
    /// A load of such a length.
    pub fn begin(name: &str, length: Duration) -> Result<Self> {
        let bar = if stderr().is_terminal() {
            let bar = ProgressBar::new(length.as_secs()).with_style(ProgressStyle::with_template(TEMPLATE)?);
            bar.set_prefix(name.to_owned());
            Some(bar)
        } else {
            terminal::progress(&format!("{name}, for {} s", length.as_secs()));
            None
        };
        Ok(Self { bar, name: name.to_owned() })
    }

    /// Another second has passed.
    pub fn show(&self, elapsed: u64, last: Option<&Second>) {
        let Some(second) = last else { return };
        let said = if second.accept.count() + second.deliver.count() == 0 {
            format!("{} connections", second.connected)
        } else {
            let p99_ms = second.deliver.percentile_ms(99.0);
            format!("{} accepted/s, {} delivered/s, p99 {p99_ms:.1} ms", second.accepted, second.delivered)
        };
        if let Some(bar) = &self.bar {
            bar.set_position(elapsed);
            bar.set_message(said);
        } else if elapsed.is_multiple_of(LINE_SECONDS) {
            terminal::progress(&format!("{} after {elapsed} s: {said}", self.name));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
