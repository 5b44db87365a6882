//! What tests leave behind: nobody may find a whole id, a token, a ticket, a text, a name or somebody's address in a log, a
//! metric or an error answer, nor a text in a file at rest.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use chat_dev::kaha::PROFILE_MARK;

use crate::{MARK, api::ADDRESSES};

/// What stands in texts that nobody may find, and what it would be.
const SECRETS: [(&str, &str); 7] = [
    // `{"` in base64.
    ("eyJ", "a token"),
    // How the gateways' tickets begin.
    ("ct1_", "a ticket"),
    ("ya29.", "a token for a provider"),
    (MARK, "the text of a message"),
    (PROFILE_MARK, "a name or picture"),
    (ADDRESSES, "the address of a person"),
    ("198.51.100.", "the address of a person"),
];

/// Parts of the errors of NATS, Redis and PostgreSQL for a missing permission, in lower case.
const REFUSED_PERMISSIONS: [&str; 3] = ["permissions violation", "noperm", "permission denied"];

/// Lines that are shown of each service when a test fails.
const WARNINGS_MAX: usize = 12;

/// What stands in a text that must not: a whole UUID, a token, a ticket, a message's text, a name, the address of a person.
pub fn secret_in(text: &str) -> Option<&'static str> {
    let secret = SECRETS.into_iter().find(|(part, _)| text.contains(part)).map(|(_, what)| what);
    secret.or_else(|| has_uuid(text).then_some("a whole UUID"))
}

/// Checks that no log holds a secret, a panic, a refused permission or a fault of ours; but for faults with one of the texts in `expected`.
pub fn check_logs(logs: &[PathBuf], expected: &[&str]) -> Result<()> {
    ensure!(!logs.is_empty(), "there are no logs to check");
    for log in logs {
        let text = String::from_utf8_lossy(&std::fs::read(log)?).into_owned();
        for line in text.lines() {
            let shown = || format!("{} says: {line}", log.display());
            if let Some(secret) = secret_in(line) {
                bail!("{secret} is in a log: {}", shown());
            }
            let in_lower_case = line.to_ascii_lowercase();
            let is_refused = REFUSED_PERMISSIONS.iter().any(|refusal| in_lower_case.contains(refusal));
            ensure!(!is_refused, "a service lacks a permission: {}", shown());
            ensure!(!line.contains("panicked"), "something panicked: {}", shown());
            ensure!(!line.contains("did not finish in time"), "a stop took too long: {}", shown());
            let is_expected = expected.iter().any(|text| line.contains(text));
            ensure!(is_expected || !line.contains(r#""level":"ERROR""#), "a fault is in a log: {}", shown());
        }
    }
    Ok(())
}

/// Checks that nothing that a service measures is about a person.
pub fn check_metrics(service: &str, metrics: &str) -> Result<()> {
    for line in metrics.lines() {
        if let Some(secret) = secret_in(line) {
            bail!("{secret} is in a metric of {service}: {line}");
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

    #[test]
    fn every_secret_is_found_r6_2() {
        for secret in [
            "Bearer eyJhbGciOi",
            "token=ya29.abc",
            "/v1/ws?ticket=ct1_mJ3bqT0",
            MARK,
            PROFILE_MARK,
            "from 203.0.113.9",
            "198.51.100.1:80",
            "936da01f-9abd-4d9d-80c7-02af85c822a8",
        ] {
            assert!(secret_in(&format!("a line: {secret}")).is_some(), "{secret}");
        }
        assert_eq!(secret_in("a line about user:0123456789ab on 127.0.0.1:8080"), None);
    }
}
