//! The output of a child: into its log file, and if wanted to the terminal.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, PipeReader, Read, Seek, SeekFrom, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result};

use super::Launch;
use crate::terminal::Prefix;

/// How much of a log's end is looked at for its last lines.
const TAIL_BYTES: u64 = 16 * 1024;

/// Connects both output streams of `command`.
///
/// Without a terminal the child writes to the file itself, so not a byte is
/// lost or delayed by this program.
pub fn connect(command: &mut Command, launch: &Launch) -> Result<Option<Mirror>> {
    if let Some(directory) = launch.log.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&launch.log)
        .with_context(|| format!("cannot write {}", launch.log.display()))?;
    command.stdin(Stdio::null());
    let Some(prefix) = launch.prefix.clone() else {
        command.stdout(file.try_clone()?).stderr(file);
        return Ok(None);
    };
    let (lines, output) = std::io::pipe().context("cannot make a pipe")?;
    command.stdout(output.try_clone()?).stderr(output);
    Ok(Some(Mirror { lines, file, prefix }))
}

/// Copies lines from a child's pipe to its log file and the terminal.
#[derive(Debug)]
pub struct Mirror {
    lines: PipeReader,
    file: File,
    prefix: Prefix,
}

impl Mirror {
    /// Copies until the child and all who inherited its output have closed it.
    pub fn run(self) {
        let Self { lines, mut file, prefix } = self;
        thread::spawn(move || {
            for line in BufReader::new(lines).split(b'\n') {
                let Ok(line) = line else { break };
                let text = String::from_utf8_lossy(&line);
                prefix.print(&text);
                _ = writeln!(file, "{text}");
            }
        });
    }
}

/// The last lines of a log file, for a message about a child that died.
pub fn last_lines(log: &Path, count: usize) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_else(|error| format!("(no log: {error})"));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
