//! `cargo dev prepare`: writes what is checked in about SQL: the metadata in
//! `.sqlx/`, with which the services compile without a database, and
//! `migrations/schema.sql`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use anyhow::{Context, Result, ensure};

use super::schema::Migrated;
use crate::{cargo, paths, terminal};

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
    let wanted = metadata(&migrated.url(), Pass::Check)?;
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

/// How the workspace is compiled against the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// It has to compile.
    Check,
    /// Every lint has to hold too.
    Lint,
}

/// Compiles every statement of the workspace against the database at `url`.
///
/// # Errors
/// If the workspace does not compile, or a lint complains; the compiler's messages go to standard error.
pub fn metadata(url: &str, pass: Pass) -> Result<Metadata> {
    let root = paths::workspace_root()?;
    let _touched = Touched::sources(&root)?;
    let directory = tempfile::tempdir()?;
    let mut command = cargo::command()?;
    match pass {
        Pass::Check => command.args(["check", "--quiet", "--workspace", "--all-targets"]),
        Pass::Lint => command.args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    };
    let status = command
        .env("DATABASE_URL", url)
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", directory.path())
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the workspace does not compile against the migrated schema, or a lint complains");
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

/// Files that look as if they had changed just now, until this is dropped.
///
/// The macros write metadata only when they are compiled. Afterwards the files get their times back, since every other
/// build would compile them again too.
struct Touched {
    now: SystemTime,
    /// Each with the time of its last change.
    files: Vec<(PathBuf, SystemTime)>,
}

impl Touched {
    /// All sources with statements.
    fn sources(root: &Path) -> Result<Self> {
        // The file system's own idea of now, which is what cargo compares with.
        let now = tempfile::tempfile_in(root)?.metadata()?.modified()?;
        let mut touched = Self { now, files: Vec::new() };
        for path in sources(root)? {
            let text = fs::read_to_string(&path)?;
            if MACROS.iter().any(|name| text.contains(name)) {
                let file = File::options().append(true).open(&path)?;
                touched.files.push((path, file.metadata()?.modified()?));
                file.set_modified(now)?;
            }
        }
        Ok(touched)
    }
}

impl Drop for Touched {
    fn drop(&mut self) {
        for (path, modified) in &self.files {
            let Ok(file) = File::options().append(true).open(path) else { continue };
            // A file that was edited meanwhile has changed in truth.
            if file.metadata().and_then(|metadata| metadata.modified()).is_ok_and(|at| at == self.now) {
                _ = file.set_modified(*modified);
            }
        }
    }
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
