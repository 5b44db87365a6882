//! `cargo dev prepare`: writes what is checked in about SQL: the metadata in
//! `.sqlx/`, with which the services compile without a database, and
//! `migrations/schema.sql`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};

use super::schema::Migrated;
use crate::{fleet::programs, paths, terminal};

/// Contents of the metadata files by name.
pub type Metadata = BTreeMap<String, String>;

/// The macros whose SQL is checked when compiling.
const MACROS: [&str; 3] = ["query!", "query_as!", "query_scalar!"];

/// Writes both.
///
/// # Errors
/// If the migrations fail or a statement does not fit the schema.
pub async fn run() -> Result<ExitCode> {
    let migrated = Migrated::start().await?;
    let root = paths::workspace_root()?;
    let wanted = metadata(&migrated.url())?;
    let directory = root.join(".sqlx");
    let found = read(&directory)?;
    fs::create_dir_all(&directory)?;
    for name in found.keys().filter(|name| !wanted.contains_key(*name)) {
        fs::remove_file(directory.join(name))?;
        terminal::progress(&format!("removed .sqlx/{name}"));
    }
    for (name, text) in wanted.iter().filter(|(name, text)| found.get(*name) != Some(*text)) {
        fs::write(directory.join(name), text)?;
        terminal::progress(&format!("wrote .sqlx/{name}"));
    }
    fs::write(schema_file(&root), migrated.dump()?)?;
    terminal::progress(&format!("{} statements in .sqlx/, migrations/schema.sql written", wanted.len()));
    Ok(ExitCode::SUCCESS)
}

/// The checked-in dump.
pub fn schema_file(root: &Path) -> PathBuf {
    root.join("migrations/schema.sql")
}

/// Compiles every statement of the workspace against the database at `url`.
///
/// # Errors
/// If the workspace does not compile; the compiler's messages go to standard error.
pub fn metadata(url: &str) -> Result<Metadata> {
    let root = paths::workspace_root()?;
    touch_sources(&root)?;
    let directory = tempfile::tempdir()?;
    let status = programs::cargo()?
        .args(["check", "--quiet", "--workspace", "--all-targets"])
        .env("DATABASE_URL", url)
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", directory.path())
        .status()
        .context("cannot run cargo check")?;
    ensure!(status.success(), "the workspace does not compile against the migrated schema");
    read(directory.path())
}

/// The metadata files in a directory; none if there is no such directory.
pub fn read(directory: &Path) -> Result<Metadata> {
    if !directory.is_dir() {
        return Ok(Metadata::new());
    }
    let mut files = Metadata::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("query-") {
            files.insert(name, fs::read_to_string(entry.path())?);
        }
    }
    Ok(files)
}

/// The macros write metadata only when they are compiled, so files with
/// statements must look as if they had changed just now.
fn touch_sources(root: &Path) -> Result<()> {
    // The file system's own idea of now, which is what cargo compares with.
    let now = tempfile::tempfile_in(root)?.metadata()?.modified()?;
    for file in sources(root)? {
        let text = fs::read_to_string(&file)?;
        if MACROS.iter().any(|name| text.contains(name)) {
            let file = File::options().append(true).open(&file)?;
            file.set_modified(now)?;
        }
    }
    Ok(())
}

/// All Rust files of the workspace's packages.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut pending: Vec<PathBuf> = fs::read_dir(root)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("Cargo.toml").is_file())
        .collect();
    let mut files = Vec::new();
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    Ok(files)
}
