//! Programs that are started with settings of a test's own, on the servers that all tests share.

use std::{collections::BTreeMap, path::PathBuf, process::Output};

use anyhow::{Context, Result};
use chat_dev::{
    fleet::Role,
    ports,
    servers::{Login, Urls},
    test_servers::{TestServers, unique_namespace},
};
use chat_e2e::in_time;
use tokio::process::Command;

/// Stands in every secret of a scene, so that none can hide.
pub const HUSHED: &str = "hush-hush";

/// A master key, and another one.
pub const MASTER_KEY: &str = "aHVzaC1odXNoIGh1c2gtaHVzaCBodXNoLWh1c2ggISE=";
pub const OTHER_MASTER_KEY: &str = "aHVzaC1odXNoIGh1c2gtaHVzaCBodXNoLWh1c2ggPz8=";

/// A database of its own, a namespace, and a directory for files.
pub struct Scene {
    pub servers: TestServers,
    pub urls: Urls,
    pub namespace: String,
    directory: PathBuf,
}

/// What a program said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// A change of the settings: a variable, and its value or nothing.
pub type Change<'a> = (&'a str, Option<&'a str>);

impl Scene {
    pub async fn set() -> Result<Self> {
        let servers = TestServers::from_env()?;
        let namespace = unique_namespace();
        let directory = servers.scratch.join(&namespace);
        std::fs::create_dir_all(&directory)?;
        Ok(Self { urls: servers.isolated().await?, servers, namespace, directory })
    }

    /// A file with a text; its path.
    pub fn file(&self, name: &str, text: &str) -> Result<String> {
        let path = self.directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path.display().to_string())
    }

    /// Settings with which a program of a role starts.
    pub fn settings(&self, role: Role) -> Result<BTreeMap<String, String>> {
        let login = match role {
            Role::Gateway => Login::Gateway,
            Role::Persister => Login::Persister,
            Role::Notifier => Login::Notifier,
            Role::Retention => Login::Retention,
            Role::Cold => Login::Cold,
        };
        let urls = self.urls.of(login);
        let local = || ports::free().map(|port| format!("127.0.0.1:{port}"));
        let mut settings = vec![
            ("CHAT_POSTGRES_URL", urls.postgres),
            ("CHAT_METRICS_LISTEN", local()?),
            ("CHAT_MASK_KEY", format!("{HUSHED} mask key")),
        ];
        if !matches!(role, Role::Retention | Role::Cold) {
            settings.extend([("CHAT_NATS_URL", urls.nats), ("CHAT_NAMESPACE", self.namespace.clone())]);
        }
        if !matches!(role, Role::Persister | Role::Cold) {
            settings.push(("CHAT_MASTER_KEY", MASTER_KEY.to_owned()));
        }
        if matches!(role, Role::Gateway | Role::Notifier) {
            settings.push(("CHAT_REDIS_URL", urls.redis));
        }
        if role == Role::Gateway {
            let secret = self.file("token.secret", &HUSHED.repeat(5))?;
            settings.extend([
                ("CHAT_LISTEN", local()?),
                ("CHAT_INTERNAL_LISTEN", local()?),
                ("CHAT_JWT_SECRET_FILE", secret),
            ]);
        }
        if role == Role::Notifier {
            let secret = self.file("webhook.secret", HUSHED.repeat(3).as_str())?;
            settings.extend([
                ("CHAT_WEBHOOK_URL", format!("https://1.1.1.1/{HUSHED}")),
                ("CHAT_WEBHOOK_SECRET_FILE", secret),
            ]);
        }
        Ok(settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// Runs a program with changed settings, until it ends.
    pub async fn run(&self, role: Role, arguments: &[&str], changes: &[Change<'_>]) -> Result<Said> {
        let mut settings = self.settings(role)?;
        for (name, value) in changes {
            match value {
                Some(value) => settings.insert((*name).to_owned(), (*value).to_owned()),
                None => settings.remove(*name),
            };
        }
        run(&self.servers, role, arguments, settings).await
    }
}

/// Runs a program with nothing but these settings, until it ends.
pub async fn run(
    servers: &TestServers,
    role: Role,
    arguments: &[&str],
    settings: impl IntoIterator<Item = (String, String)>,
) -> Result<Said> {
    let mut command = Command::new(servers.programs.of(role));
    command.args(role.arguments()).args(arguments).env_clear().envs(settings).kill_on_drop(true);
    let what = format!("the end of {} {arguments:?}", role.package());
    let Output { status, stdout, stderr } = in_time(&what, command.output()).await??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { code: status.code(), out: text(&stdout), err: text(&stderr) })
}

impl Said {
    /// Everything.
    pub fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}
