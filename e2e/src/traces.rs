//! What tests leave behind: nobody may find a whole id, a token or a text in a log, nor a text in a file at rest.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::MARK;

/// How a JSON Web Token begins: `{"` in base64.
const TOKEN_START: &str = "eyJ";

/// Lines that are shown of each service when a test fails.
const WARNINGS_MAX: usize = 12;

/// Checks that no log holds a whole UUID, a token, a text, a panic or a fault of ours; but for faults with one of the
/// texts in `expected`.
pub fn check_logs(logs: &[PathBuf], expected: &[&str]) -> Result<()> {
    ensure!(!logs.is_empty(), "there are no logs to check");
    for log in logs {
        let text = String::from_utf8_lossy(&std::fs::read(log)?).into_owned();
        for line in text.lines() {
            let shown = || format!("{} says: {line}", log.display());
            ensure!(!has_uuid(line), "a whole UUID is in a log: {}", shown());
            ensure!(!line.contains(TOKEN_START), "a token is in a log: {}", shown());
            ensure!(!line.contains(MARK), "the text of a message is in a log: {}", shown());
            ensure!(!line.contains("panicked"), "something panicked: {}", shown());
            ensure!(!line.contains("did not finish in time"), "a stop took too long: {}", shown());
            let is_expected = expected.iter().any(|text| line.contains(text));
            ensure!(is_expected || !line.contains(r#""level":"ERROR""#), "a fault is in a log: {}", shown());
        }
    }
    Ok(())
}

/// The last warnings of each log.
pub fn warnings(logs: &[PathBuf]) -> String {
    let mut shown = vec!["the services' last warnings:".to_owned()];
    for log in logs {
        let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<_> = text.lines().filter(|line| !line.contains(r#""level":"INFO""#)).collect();
        let last = &lines[lines.len().saturating_sub(WARNINGS_MAX)..];
        let name = log.file_stem().unwrap_or_default().display();
        shown.extend(last.iter().map(|line| format!("    {name}: {line}")));
    }
    shown.join("\n")
}

/// The files under `directory` that hold these bytes.
pub fn files_with(directory: &Path, wanted: &[u8]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(directory) = pending.pop() {
        let entries = std::fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
            } else if has_bytes(&path, wanted) {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// A file that vanishes meanwhile holds nothing.
fn has_bytes(path: &Path, wanted: &[u8]) -> bool {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    read.is_ok() && bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// Whether a UUID stands in a line, with hyphens or, by itself, without: a longer row of digits is something else.
fn has_uuid(line: &str) -> bool {
    let is_uuid = |text: &[u8]| uuid::Uuid::try_parse_ascii(text).is_ok();
    let mut words = line.as_bytes().split(|byte| !byte.is_ascii_hexdigit());
    line.as_bytes().windows(36).any(is_uuid) || words.any(is_uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_found_in_lines() {
        let uuid = uuid::Uuid::new_v4();
        assert!(has_uuid(&format!("user={uuid}, gone")));
        assert!(has_uuid(&format!("chat.7.message.{}", uuid.simple())));
        assert!(!has_uuid("/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library"));
        assert!(!has_uuid("user:0123456789ab at 2026-01-01T00:00:00.000000Z"));
    }
}
