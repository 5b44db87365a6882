//! A migrated throw-away database, and its dump.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{
    paths,
    ports::Ports,
    servers::{Binaries, Durability, Login, Postgres, logins, postgres},
};

/// Name of the migrated database; also the template that tests copy.
pub const TEMPLATE: &str = "chat_template";

/// A Postgres of its own with the schema that `migrations/` makes.
#[derive(Debug)]
pub struct Migrated {
    // Dropped before the directory its data is in.
    postgres: Postgres,
    _scratch: tempfile::TempDir,
}

impl Migrated {
    /// Starts it.
    pub async fn start() -> Result<Self> {
        let binaries = Binaries::find_or_fetch().await?;
        let scratch = paths::scratch("schema")?;
        let postgres = Postgres::start_in(&binaries, scratch.path(), Durability::ThrowAway, &Ports::fresh()).await?;
        migrate(&postgres).await?;
        Ok(Self { postgres, _scratch: scratch })
    }

    /// The migrated database.
    pub fn url(&self) -> String {
        self.postgres.database_url(TEMPLATE)
    }

    /// The schema as SQL text, the same for the same migrations.
    pub fn dump(&self) -> Result<String> {
        let output = Command::new(self.postgres.tools().join("pg_dump"))
            .args(["--schema-only", "--no-owner", "--no-privileges"])
            .args(["--exclude-table=_sqlx_migrations", "--dbname", &self.url()])
            .output()
            .context("cannot run pg_dump")?;
        ensure!(output.status.success(), "pg_dump failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(normalised(&String::from_utf8(output.stdout)?))
    }
}

/// Makes the database [`TEMPLATE`] with the schema of this checkout, and leaves it.
pub async fn migrate(postgres: &Postgres) -> Result<()> {
    postgres.ensure_database(TEMPLATE).await?;
    postgres::migrate(&logins::url_as(&postgres.database_url(TEMPLATE), Login::Owner)).await
}

/// Leaves out what differs between two dumps of the same schema: versions,
/// random guards, session settings and comments that repeat the statement.
fn normalised(dump: &str) -> String {
    let mut text = String::from("-- The schema after all migrations. Written by: cargo dev prepare\n");
    let mut is_gap = true;
    for line in dump.lines() {
        let is_noise = line.starts_with("--")
            || line.starts_with('\\')
            || line.starts_with("SET ")
            || line.starts_with("SELECT pg_catalog.set_config");
        if is_noise {
            continue;
        }
        if line.trim().is_empty() {
            is_gap = true;
            continue;
        }
        if is_gap {
            text.push('\n');
        }
        is_gap = false;
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::normalised;

    #[test]
    fn dumps_of_the_same_schema_are_the_same_text() {
        let dump = |guard: &str, version: &str| {
            format!(
                "--\n-- PostgreSQL database dump\n--\n\n\\restrict {guard}\n\n-- Dumped by {version}\n\n\
                 SET lock_timeout = 0;\nSELECT pg_catalog.set_config('search_path', '', false);\n\n\
                 --\n-- Name: a; Type: TABLE\n--\n\nCREATE TABLE public.a (\n    one integer\n);\n\n\n\
                 \\unrestrict {guard}\n"
            )
        };
        let text = normalised(&dump("abc", "18.1"));
        assert_eq!(text, normalised(&dump("xyz", "18.3")));
        assert!(text.ends_with("\n\nCREATE TABLE public.a (\n    one integer\n);\n"), "{text}");
    }
}
