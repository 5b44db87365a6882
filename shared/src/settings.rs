//! Settings that several services have; each is an option and an environment variable.
//!
//! The first paragraph of each is what `-h` shows; the second, for `--help`, says what follows from it.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};

use crate::{
    limits,
    sealing::{InvalidMasterKey, MasterKey, MasterKeys, SameMasterKey},
    secret::{Secret, SecretError, SecretSource},
};

/// What is done instead of running.
#[derive(Debug, Clone, Copy, Args)]
pub struct CheckSettings {
    /// Only check the settings: read every file, try every connection, say what is wrong, then exit.
    ///
    /// Prints a line for each thing, `ok`, `note` or `wrong`, and exits with 0 if nothing is wrong and else with 1. It changes
    /// nothing, and may run beside a running service.
    #[arg(long)]
    pub check_config: bool,
}

/// What ties the processes of one installation together.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Installation")]
pub struct NamespaceSettings {
    /// Prefix of the log's stream and subjects, and of all Redis keys.
    ///
    /// Every service of an installation has the same one; with another it sees none of the others' messages, inboxes or
    /// sessions.
    #[arg(long, env = "CHAT_NAMESPACE", default_value = "chat", value_name = "NAME")]
    pub namespace: String,
}

/// Bytes of the log that a message takes with its read marks: `cargo dev load seed` measures 1,092.
const LOG_BYTES_PER_MESSAGE: i64 = 1_100;

/// Where NATS is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "NATS")]
pub struct NatsSettings {
    /// Address of NATS 2.12.9 or later with JetStream, such as `nats://user:password@nats:4222`. This or the file is required.
    ///
    /// For a cluster those of its servers, separated by commas, so that a service also starts while one of them is down. An
    /// option is seen by everybody on the machine: give secrets by the environment or a file.
    #[arg(long, env = "CHAT_NATS_URL", hide_env_values = true, value_name = "URL")]
    pub nats_url: Option<Secret>,
    /// File that holds the address of NATS, instead of the address itself.
    ///
    /// Read once, when the service starts. A newline at its end doesn't count.
    #[arg(long, env = "CHAT_NATS_URL_FILE", value_name = "FILE")]
    pub nats_url_file: Option<PathBuf>,
    /// NATS servers that hold a copy of the log: 1 or 3.
    ///
    /// With 1, losing that server's disk loses what PostgreSQL hasn't stored yet. Counts when the log is made; a log that is
    /// there is left as it is.
    #[arg(long, env = "CHAT_LOG_REPLICAS", default_value_t = 1, value_name = "SERVERS")]
    pub log_replicas: usize,
    /// Messages a second that are expected over a week, by which the log is sized.
    ///
    /// Each takes about 1,100 bytes with its read marks, for seven days. `--check-config` says how long a log that is there
    /// lasts at this rate. Counts when the log is made.
    #[arg(long, env = "CHAT_LOG_MESSAGES_PER_S", default_value_t = 25, value_name = "MESSAGES/S")]
    pub log_messages_per_s: u32,
    /// Bytes of the log at the most, set aside on the disk of each NATS server that holds a copy. Optional.
    ///
    /// Without it 1,100 bytes × 604,800 s × the expected messages a second: 16.6 GB for 25. Over 80 % persisters remove what is
    /// stored and delivered; a full log refuses messages. Counts when the log is made; a log that is there is left as it is.
    #[arg(long, env = "CHAT_LOG_BYTES_MAX", value_name = "BYTES")]
    pub log_bytes_max: Option<i64>,
}

impl NatsSettings {
    /// The addresses of its servers, separated by commas.
    pub fn url(&self) -> Result<Secret, SecretError> {
        let (value, file) = (self.nats_url.as_ref(), self.nats_url_file.as_ref());
        SecretSource { what: "the address of NATS", variable: "CHAT_NATS_URL", value, file }.required()
    }

    /// The log's copies and size.
    pub fn replicas(&self) -> crate::log::Replicas {
        let bytes_max = self.log_bytes_max.unwrap_or_else(|| self.log_bytes_expected());
        crate::log::Replicas { count: self.log_replicas, bytes_max }
    }

    /// Bytes that the expected messages of the log's age take.
    pub fn log_bytes_expected(&self) -> i64 {
        let seconds = i64::try_from(limits::LOG_AGE_MAX.as_secs()).unwrap_or(i64::MAX);
        LOG_BYTES_PER_MESSAGE.saturating_mul(seconds).saturating_mul(self.log_messages_per_s.max(1).into())
    }
}

/// Where PostgreSQL is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "PostgreSQL")]
pub struct PostgresSettings {
    /// Address of PostgreSQL 15 or later, such as `postgres://chat:password@postgres/chat`. This or the file is required.
    ///
    /// With `?sslmode=verify-full&sslrootcert=FILE` the server has to prove who it is. An option is seen by everybody on the
    /// machine: give secrets by the environment or a file.
    #[arg(long, env = "CHAT_POSTGRES_URL", hide_env_values = true, value_name = "URL")]
    pub postgres_url: Option<Secret>,
    /// File that holds the address of PostgreSQL, instead of the address itself.
    ///
    /// Read once, when the service starts. A newline at its end doesn't count.
    #[arg(long, env = "CHAT_POSTGRES_URL_FILE", value_name = "FILE")]
    pub postgres_url_file: Option<PathBuf>,
    /// Connections that this process opens at the most.
    ///
    /// Who finds none free waits; a client's request for a second, then it is answered `unavailable`. Those of all processes
    /// together have to be fewer than the server's `max_connections`. A persister needs two or more: one is held while it
    /// stores entries again after a restore.
    #[arg(long, env = "CHAT_POSTGRES_CONNECTIONS_MAX", default_value_t = 8, value_name = "CONNECTIONS")]
    pub postgres_connections_max: u32,
}

impl PostgresSettings {
    /// The settings for an address that is known already.
    pub fn new(url: impl Into<String>, connections_max: u32) -> Self {
        Self {
            postgres_url: Some(url.into().into()),
            postgres_url_file: None,
            postgres_connections_max: connections_max,
        }
    }

    /// Its address.
    pub fn url(&self) -> Result<Secret, SecretError> {
        let (value, file) = (self.postgres_url.as_ref(), self.postgres_url_file.as_ref());
        SecretSource { what: "the address of PostgreSQL", variable: "CHAT_POSTGRES_URL", value, file }.required()
    }
}

/// Where Redis is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Redis")]
pub struct RedisSettings {
    /// Address of Redis 6.2 or later, such as `redis://user:password@redis:6379`. This or the file is required.
    ///
    /// One server, without TLS, with 256 MB or more. While it is out of reach chat goes on, but nobody can resume. An option is
    /// seen by everybody on the machine: give secrets by the environment or a file.
    #[arg(long, env = "CHAT_REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: Option<Secret>,
    /// File that holds the address of Redis, instead of the address itself.
    ///
    /// Read once, when the service starts. A newline at its end doesn't count.
    #[arg(long, env = "CHAT_REDIS_URL_FILE", value_name = "FILE")]
    pub redis_url_file: Option<PathBuf>,
}

impl RedisSettings {
    /// Its address.
    pub fn url(&self) -> Result<Secret, SecretError> {
        let (value, file) = (self.redis_url.as_ref(), self.redis_url_file.as_ref());
        SecretSource { what: "the address of Redis", variable: "CHAT_REDIS_URL", value, file }.required()
    }
}

/// Where the master key is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Keys")]
pub struct MasterKeySettings {
    /// The master key: 32 random bytes in base64, as `head -c 32 /dev/urandom | base64` makes them. This or the file is required.
    ///
    /// The same for gateways, notifiers and retention. Without it no content can be read, so keep a copy elsewhere, apart from
    /// the backups of the database. An option is seen by everybody on the machine: give it by the environment or a file.
    #[arg(long, env = "CHAT_MASTER_KEY", hide_env_values = true, value_name = "BASE64")]
    pub master_key: Option<Secret>,
    /// File that holds the master key, instead of the key itself.
    ///
    /// Read once, when the service starts. A newline at its end doesn't count.
    #[arg(long, env = "CHAT_MASTER_KEY_FILE", value_name = "FILE")]
    pub master_key_file: Option<PathBuf>,
    /// The old master key, while it is exchanged: opens the keys and addresses that it sealed, and seals nothing new. Optional.
    ///
    /// Remove it when `chat-retention rewrap` reports that it is not needed. An option is seen by everybody on the machine: give
    /// it by the environment or a file.
    #[arg(long, env = "CHAT_MASTER_KEY_OLD", hide_env_values = true, value_name = "BASE64")]
    pub master_key_old: Option<Secret>,
    /// File that holds the old master key, instead of the key itself. Optional.
    ///
    /// Read once, when the service starts. A newline at its end doesn't count.
    #[arg(long, env = "CHAT_MASTER_KEY_OLD_FILE", value_name = "FILE")]
    pub master_key_old_file: Option<PathBuf>,
}

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// It isn't given, or its file can't be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// It is something else.
    #[error("{variable}: {reason}")]
    Invalid {
        /// Where it came from.
        variable: String,
        /// What is wrong with it.
        reason: InvalidMasterKey,
    },
    /// The old one is the current one.
    #[error("CHAT_MASTER_KEY_OLD, or its file: {0}")]
    Same(#[from] SameMasterKey),
}

impl MasterKeySettings {
    /// The key that seals, and the old one if it is given.
    pub fn read(&self) -> Result<MasterKeys, MasterKeyError> {
        let (value, file) = (self.master_key.as_ref(), self.master_key_file.as_ref());
        let source = SecretSource { what: "the master key", variable: "CHAT_MASTER_KEY", value, file };
        let current = parse(&source.required()?, source)?;
        let (value, file) = (self.master_key_old.as_ref(), self.master_key_old_file.as_ref());
        let source = SecretSource { what: "the old master key", variable: "CHAT_MASTER_KEY_OLD", value, file };
        let old = source.optional()?.map(|text| parse(&text, source)).transpose()?;
        Ok(MasterKeys::new(current, old)?)
    }
}

fn parse(text: &Secret, source: SecretSource<'_>) -> Result<MasterKey, MasterKeyError> {
    MasterKey::parse(text.expose())
        .map_err(|reason| MasterKeyError::Invalid { variable: source.variable_given(), reason })
}

/// What the process says about itself.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs and metrics")]
pub struct TelemetrySettings {
    /// How log lines are written, on standard output.
    ///
    /// Both hold the same. What collects logs reads `json`.
    #[arg(long, env = "CHAT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// Which log lines are written, such as `info` or `info,chat_gateway=debug`.
    ///
    /// `debug` and `trace` cost much on a busy service. No level shows texts, tokens or whole ids.
    #[arg(long, env = "CHAT_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// Key that ids are masked with in logs: any text of 16 bytes or more. Optional.
    ///
    /// The same for all services, so that lines of different services correlate. Without it each process masks in its own way.
    /// Whoever has it can tell whether a line is about an id that they know. An option is seen by everybody on the machine:
    /// give it by the environment or a file.
    #[arg(long, env = "CHAT_MASK_KEY", hide_env_values = true, value_name = "TEXT")]
    pub mask_key: Option<Secret>,
    /// File that holds the mask key, instead of the key itself. Optional.
    ///
    /// Read once, when the service starts. A newline at its end doesn't count.
    #[arg(long, env = "CHAT_MASK_KEY_FILE", value_name = "FILE")]
    pub mask_key_file: Option<PathBuf>,
    /// Address and port for /metrics, /livez and /readyz.
    ///
    /// Whoever reaches it sees how busy the service is: keep it inside the cluster.
    #[arg(long, env = "CHAT_METRICS_LISTEN", default_value = "0.0.0.0:9600", value_name = "ADDRESS:PORT")]
    pub metrics_listen: SocketAddr,
}

/// A shorter mask key could be guessed, and the ids with it.
const MASK_KEY_BYTES_MIN: usize = 16;

/// Why there is no mask key.
#[derive(Debug, thiserror::Error)]
pub enum MaskKeyError {
    /// Its file can't be read, or there are two of it.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// It could be guessed.
    #[error("the mask key has fewer than {MASK_KEY_BYTES_MIN} bytes; make one with `head -c 32 /dev/urandom | base64`")]
    Short,
}

impl TelemetrySettings {
    /// The mask key, if there is one.
    pub fn mask_key(&self) -> Result<Option<Secret>, MaskKeyError> {
        let (value, file) = (self.mask_key.as_ref(), self.mask_key_file.as_ref());
        let key = SecretSource { what: "the mask key", variable: "CHAT_MASK_KEY", value, file }.optional()?;
        match key {
            Some(key) if key.expose().len() < MASK_KEY_BYTES_MIN => Err(MaskKeyError::Short),
            key => Ok(key),
        }
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}
