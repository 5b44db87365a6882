//! Facts of the programs, permissions and documents, with which the manifests are compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use chat_dev::{fleet::Programs, paths, test_servers::TestServers};

/// The programs and their commands that run in pods.
const COMMANDS: [&[&str]; 6] = [
    &["chat-gateway"],
    &["chat-persister"],
    &["chat-notifier"],
    &["chat-retention"],
    &["chat-retention", "cold"],
    &["chat-retention", "migrate"],
];
/// Directories of sources that name metrics.
const SOURCES: [&str; 5] = ["gateway/src", "persister/src", "notifier/src", "retention/src", "shared/src"];
/// Seconds in "and a few seconds".
const A_FEW: u64 = 3;

/// A setting as `--help` describes it.
#[derive(Debug, Clone)]
pub struct Setting {
    pub variable: String,
    pub description: String,
}

impl Setting {
    /// The default value.
    pub fn default(&self) -> Option<&str> {
        self.description.split_once("[default: ")?.1.split_once(']').map(|(value, _)| value)
    }
}

/// A row of the table of secrets.
#[derive(Debug, Clone)]
pub struct SecretRow {
    /// Variables; one that ends with `…` stands for all that begin so.
    pub variables: Vec<String>,
    /// `gateways`, `the cold worker`, `all`, …
    pub services: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Facts {
    /// The settings of each command, in the order of `--help`.
    pub settings: BTreeMap<Vec<String>, Vec<Setting>>,
    pub secrets: Vec<SecretRow>,
    /// Seconds that a stop takes, by the row of the table.
    pub stops: BTreeMap<String, u64>,
    /// Workloads that have a user on a server, by `postgres`, `nats` and `redis`.
    pub users: BTreeMap<&'static str, BTreeSet<String>>,
    /// Paths of the port for metrics and health.
    pub probes: BTreeSet<String>,
    pub metrics: BTreeSet<String>,
    /// Names of metrics in the table of alerts, without the prefix of the program.
    pub alerts: BTreeSet<String>,
}

impl Facts {
    pub fn gather() -> Result<Self> {
        let root = paths::workspace_root()?;
        let read = |file: &str| fs::read_to_string(root.join(file)).with_context(|| file.to_owned());
        let programs = TestServers::from_env()?.programs;
        let operations = read("docs/operations.md")?;
        let mut metrics = BTreeSet::new();
        for directory in SOURCES {
            metrics_in(&root.join(directory), &mut metrics)?;
        }
        let mut settings = BTreeMap::new();
        for command in COMMANDS {
            let page = help(&programs, command)?;
            settings.insert(command.iter().map(ToString::to_string).collect(), settings_of(&page));
        }
        let server = read("shared/src/telemetry/server.rs")?;
        Ok(Self {
            settings,
            secrets: secrets(&operations)?,
            stops: stops(&operations)?,
            users: users(
                &read("permissions/postgres.sql")?,
                &read("permissions/nats.conf")?,
                &read("permissions/redis.acl")?,
            )?,
            probes: between(&server, ".route(\"", "\"").map(str::to_owned).collect(),
            metrics,
            alerts: alerts(&operations)?,
        })
    }
}

fn help(programs: &Programs, command: &[&str]) -> Result<String> {
    let output = Command::new(programs.of_package(command[0])?).args(&command[1..]).arg("--help").output()?;
    ensure!(output.status.success(), "{command:?} --help: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// The settings of a long help page: each begins with its option, and names its variable.
fn settings_of(page: &str) -> Vec<Setting> {
    let mut settings = Vec::new();
    for block in page.split("\n      --").skip(1) {
        if let Some(variable) = between(block, "[env: ", "]").next() {
            let variable = variable.split('=').next().unwrap_or(variable).to_owned();
            let description = block.split_whitespace().collect::<Vec<_>>().join(" ");
            settings.push(Setting { variable, description });
        }
    }
    settings
}

/// The first and last cells of the rows of the first table whose head begins so, with what is between them.
fn table<'a>(document: &'a str, head: &str) -> Result<Vec<(&'a str, &'a str, &'a str)>> {
    let lines = document.lines().skip_while(|line| !line.starts_with(head)).skip(2);
    let rows = lines.take_while(|line| line.starts_with('|')).map(|line| {
        let (first, rest) = line.trim_matches('|').split_once(" | ").context("a row has one cell")?;
        let (between, last) = rest.rsplit_once(" | ").unwrap_or(("", rest));
        Ok((first.trim(), between.trim(), last.trim()))
    });
    let rows: Vec<_> = rows.collect::<Result<_>>()?;
    ensure!(!rows.is_empty(), "docs/operations.md has no table {head}");
    Ok(rows)
}

fn secrets(operations: &str) -> Result<Vec<SecretRow>> {
    let row = |(_, variables, services)| SecretRow {
        variables: quoted(variables, '`').into_iter().map(str::to_owned).collect(),
        services: str::split(services, ", ").map(str::to_owned).collect(),
    };
    Ok(table(operations, "| secret | variable |")?.into_iter().map(row).collect())
}

fn stops(operations: &str) -> Result<BTreeMap<String, u64>> {
    let mut stops = BTreeMap::new();
    for (service, _, wait) in table(operations, "| SIGTERM to |")? {
        let words: Vec<_> = wait.split([' ', ',']).collect();
        let number = words.windows(2).find(|pair| pair[1] == "s").map(|pair| pair[0].parse::<u64>());
        let seconds = number.with_context(|| format!("no seconds in {wait}"))??;
        stops.insert(service.to_owned(), if wait.contains("a few") { seconds + A_FEW } else { seconds });
    }
    Ok(stops)
}

/// The workloads that may reach a server: the services that have a user there, and the owner of the tables.
fn users(postgres: &str, nats: &str, redis: &str) -> Result<BTreeMap<&'static str, BTreeSet<String>>> {
    // No services: a second role of the notifier, the operator, kaha-main-v3, the default user.
    let is_service = |user: &&str| !matches!(*user, "chat_notifier_text" | "chat_admin" | "kaha" | "default");
    let workloads = |users: Vec<&str>| {
        users.into_iter().filter(is_service).map(|user| user.replace('_', "-")).collect::<BTreeSet<_>>()
    };
    let mut of_postgres = workloads(quoted(between(postgres, "array array[", "]").next().context("no roles")?, '\''));
    of_postgres.insert("chat-migrate".to_owned());
    let of_nats = nats.lines().filter_map(|line| line.trim().strip_prefix("user: ")).collect();
    let of_redis = redis.lines().filter_map(|line| line.strip_prefix("user ")?.split(' ').next()).collect();
    Ok(BTreeMap::from([("postgres", of_postgres), ("nats", workloads(of_nats)), ("redis", workloads(of_redis))]))
}

fn alerts(operations: &str) -> Result<BTreeSet<String>> {
    let rows = table(operations, "| when | it means |")?.into_iter();
    let words = rows.flat_map(|(when, _, _)| quoted(when, '`')).flat_map(names);
    Ok(words.filter(|name| name.contains('_') && *name != "predict_linear").map(str::to_owned).collect())
}

/// The names in an expression, without what stands in braces and brackets.
pub fn names(expression: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut depth = 0_usize;
    let mut begin = None;
    for (place, character) in expression.char_indices().chain([(expression.len(), ' ')]) {
        let is_name = character.is_ascii_alphanumeric() || character == '_';
        if is_name && depth == 0 {
            begin = begin.or(Some(place));
        } else if let Some(start) = begin.take() {
            found.push(&expression[start..place]);
        }
        match character {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    found
}

/// The texts between pairs of a mark.
fn quoted(text: &str, mark: char) -> Vec<&str> {
    text.split(mark).skip(1).step_by(2).collect()
}

fn between<'a>(text: &'a str, begin: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(begin).skip(1).filter_map(move |rest| rest.split_once(end).map(|(found, _)| found))
}

/// The names of metrics in sources: literals with the prefix of a program.
fn metrics_in(directory: &Path, metrics: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            metrics_in(&path, metrics)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path)?;
            let is_name = |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            let found = between(&source, "\"chat_", "\"").filter(is_name);
            metrics.extend(found.map(|name| format!("chat_{name}")));
        }
    }
    Ok(())
}
