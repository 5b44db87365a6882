//! Settings that several services have; each is an option and an environment variable.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};

/// What ties the processes of one installation together.
#[derive(Debug, Clone, Args)]
pub struct NamespaceSettings {
    /// Prefix of the log's stream and subjects and of all Redis keys. Every service of an installation has the same one.
    #[arg(long, env = "CHAT_NAMESPACE", default_value = "chat")]
    pub namespace: String,
}

/// Where NATS is.
#[derive(Debug, Clone, Args)]
pub struct NatsSettings {
    /// Address of NATS, such as `nats://nats:4222`; for a cluster those of its servers, separated by commas, so that a service
    /// also starts while one of them is down. The servers must be 2.12.9 or later, with JetStream.
    #[arg(long, env = "CHAT_NATS_URL", hide_env_values = true)]
    pub nats_url: String,
    /// NATS servers that hold a copy of the log: 1 or 3. With 1, losing that server's disk loses what PostgreSQL hasn't
    /// stored yet. Counts when the log is made; a log that is there is left as it is.
    #[arg(long, env = "CHAT_LOG_REPLICAS", default_value_t = 1)]
    pub log_replicas: usize,
    /// Bytes of the log. A full log refuses messages until old events are aged out. Counts when the log is made; a log
    /// that is there is left as it is.
    #[arg(long, env = "CHAT_LOG_BYTES_MAX", default_value_t = 16 * 1024 * 1024 * 1024)]
    pub log_bytes_max: i64,
}

impl NatsSettings {
    /// The log's copies and size.
    pub const fn replicas(&self) -> crate::log::Replicas {
        crate::log::Replicas { count: self.log_replicas, bytes_max: self.log_bytes_max }
    }
}

/// Where PostgreSQL is.
#[derive(Debug, Clone, Args)]
pub struct PostgresSettings {
    /// Address of PostgreSQL 15 or later, such as `postgres://chat:password@postgres/chat`.
    #[arg(long, env = "CHAT_POSTGRES_URL", hide_env_values = true)]
    pub postgres_url: String,
    /// Connections that this process opens at the most. Who finds none free waits; a client's request for a second, then it
    /// is answered `unavailable`.
    #[arg(long, env = "CHAT_POSTGRES_CONNECTIONS_MAX", default_value_t = 8)]
    pub postgres_connections_max: u32,
}

/// Where Redis is.
#[derive(Debug, Clone, Args)]
pub struct RedisSettings {
    /// Address of Redis 6.2 or later, such as `redis://redis:6379`: one server, without TLS.
    #[arg(long, env = "CHAT_REDIS_URL", hide_env_values = true)]
    pub redis_url: String,
}

/// Where the master key is.
#[derive(Debug, Clone, Args)]
pub struct MasterKeySettings {
    /// File with the master key: 32 random bytes in base64. Without it no content can be read, so keep a copy elsewhere.
    #[arg(long, env = "CHAT_MASTER_KEY_FILE")]
    pub master_key_file: PathBuf,
}

/// What the process says about itself.
#[derive(Debug, Clone, Args)]
pub struct TelemetrySettings {
    /// How log lines are written.
    #[arg(long, env = "CHAT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
    /// Which log lines are written, such as `info` or `info,chat_gateway=debug`.
    #[arg(long, env = "CHAT_LOG", default_value = "info")]
    pub log: String,
    /// File with any secret of 16 bytes or more, the same for all services: ids are masked with it in logs, so that lines of
    /// different services correlate. Without it each process masks in its own way.
    #[arg(long, env = "CHAT_MASK_KEY_FILE")]
    pub mask_key_file: Option<PathBuf>,
    /// Address for /metrics, /livez and /readyz. Keep it inside the cluster.
    #[arg(long, env = "CHAT_METRICS_LISTEN", default_value = "0.0.0.0:9600")]
    pub metrics_listen: SocketAddr,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}
