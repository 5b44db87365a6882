//! Looks into files from outside: for bytes that must not be there, and for ids in logs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use memchr::memmem::Finder;

/// What a search through the bytes of a directory found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub files: usize,
    pub bytes: u64,
    /// How often the needle is there.
    pub hits: usize,
}

/// Searches all files under `directory`. One that goes away meanwhile, as those of servers do, is passed over.
pub fn bytes_in(directory: &Path, needle: &[u8]) -> Result<Found> {
    let finder = Finder::new(needle);
    let mut found = Found::default();
    for file in files_under(directory)? {
        let Ok(content) = fs::read(&file) else { continue };
        found.files += 1;
        found.bytes += content.len() as u64;
        found.hits += finder.find_iter(&content).count();
    }
    Ok(found)
}

/// What a search through logs found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Logs {
    pub files: usize,
    pub lines: usize,
    /// Lines with a whole UUID, each with its file.
    pub with_id: Vec<String>,
    /// Lines of a panic, each with its file.
    pub panics: Vec<String>,
}

/// How programs in Rust, programs in Go, and PostgreSQL say that they panic.
const PANICS: [&str; 3] = ["panicked at", "panic: ", "PANIC:"];

/// Reads every `.log` file under `directory`.
pub fn logs_in(directory: &Path) -> Result<Logs> {
    let mut found = Logs::default();
    for file in files_under(directory)?.into_iter().filter(|file| file.extension().is_some_and(|end| end == "log")) {
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.files += 1;
        for line in String::from_utf8_lossy(&content).lines() {
            found.lines += 1;
            if has_uuid(line) {
                found.with_id.push(format!("{name}: {line}"));
            }
            if PANICS.iter().any(|panic| line.contains(panic)) {
                found.panics.push(format!("{name}: {line}"));
            }
        }
    }
    Ok(found)
}

/// How many lines the `.log` files under `directory` have, and those with one of some texts, each with its file.
pub fn lines_with(directory: &Path, texts: &[&str]) -> Result<(usize, Vec<String>)> {
    let (mut count, mut found) = (0, Vec::new());
    for file in files_under(directory)?.into_iter().filter(|file| file.extension().is_some_and(|end| end == "log")) {
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for line in String::from_utf8_lossy(&content).lines() {
            count += 1;
            if texts.iter().any(|text| line.contains(text)) {
                found.push(format!("{name}: {line}"));
            }
        }
    }
    Ok((count, found))
}

/// Whether a whole UUID stands in the line, with hyphens or without.
pub fn has_uuid(line: &str) -> bool {
    let is_part = |character: char| character.is_ascii_hexdigit() || character == '-';
    line.split(|character| !is_part(character)).any(|run| {
        let parts: Vec<_> = run.split('-').map(str::len).collect();
        let is_simple = parts.contains(&32);
        // Hexadecimal digits may touch both ends, as in `key-<uuid>`.
        let is_hyphenated =
            parts.windows(5).any(|window| window[0] >= 8 && window[1..4] == [4, 4, 4] && window[4] >= 12);
        is_simple || is_hyphenated
    })
}

fn files_under(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(next) = directories.pop() {
        let entries = match fs::read_dir(&next) {
            Ok(entries) => entries,
            Err(_) if next != directory => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot list {}", next.display())),
        };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_ids_are_found_in_both_forms_and_their_parts_are_not() {
        for line in [
            "user 936da01f-9abd-4d9d-80c7-02af85c822a8 connected",
            "{\"id\":\"936DA01F-9ABD-4D9D-80C7-02AF85C822A8\"}",
            "chat.3.message.936da01f9abd4d9d80c702af85c822a8",
            "a-936da01f-9abd-4d9d-80c7-02af85c822a8-b",
        ] {
            assert!(has_uuid(line), "{line}");
        }
        for line in [
            "user:936da01f9abd connected",
            "936da01f-9abd-4d9d-80c7",
            "2026-11-22T11:02:03.123456Z",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "",
        ] {
            assert!(!has_uuid(line), "{line}");
        }
    }

    #[test]
    fn panics_of_services_and_servers_are_found_in_logs() {
        let directory = tempfile::tempdir().unwrap();
        let panics = [
            "thread 'main' (7) panicked at src/main.rs:1:2:",
            "panic: runtime error: index out of range",
            "2026-11-22 11:02:03.123 UTC [7] PANIC:  could not write to file",
        ];
        fs::write(directory.path().join("some.log"), format!("started\n{}\nended\n", panics.join("\n"))).unwrap();
        fs::write(directory.path().join("other"), panics[0]).unwrap();
        let found = logs_in(directory.path()).unwrap();
        assert_eq!((found.files, found.lines), (1, 5));
        assert_eq!(found.panics, panics.map(|line| format!("some.log: {line}")));
        let of_go = lines_with(directory.path(), &["runtime error", "nothing"]).unwrap();
        assert_eq!(of_go, (5, vec![format!("some.log: {}", panics[1])]));
    }

    #[test]
    fn bytes_are_found_in_files_of_directories_below() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("below")).unwrap();
        fs::write(directory.path().join("below/file"), b"..needle..needle").unwrap();
        fs::write(directory.path().join("other"), b"hay").unwrap();
        let found = bytes_in(directory.path(), b"needle").unwrap();
        assert_eq!(found, Found { files: 2, bytes: 19, hits: 2 });
    }
}
