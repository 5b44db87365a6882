//! Which replicas of PostgreSQL are read from.

use std::{path::PathBuf, time::Duration};

use chat_shared::{
    inbox::LSN_MIN_AGE_MAX,
    secret::{Secret, SecretError, SecretSource},
};
use clap::Args;

/// Milliseconds that a replica may be behind at the most.
const LAG_MAX_MS: u64 = 30_000;
/// A replica that is read from is surely past a minimum LSN before that is forgotten.
const _: () = assert!(2 * LAG_MAX_MS as u128 <= LSN_MIN_AGE_MAX.as_millis());

/// Where the replicas are.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "PostgreSQL")]
pub struct ReplicaSettings {
    /// Addresses of streaming replicas of PostgreSQL, separated by commas, to read lists and history from. Optional.
    ///
    /// Written like that of PostgreSQL, one for each replica, with the same user. A replica that fails or lacks what the user
    /// has changed or was pushed costs no request: the primary answers. The same for all gateways: each sets what the others
    /// need. An option is seen by everybody on the machine: give secrets by the environment or a file.
    #[arg(long, env = "CHAT_POSTGRES_REPLICA_URLS", hide_env_values = true, value_name = "URL")]
    pub postgres_replica_urls: Option<Secret>,
    /// File that holds the addresses of the replicas, instead of the addresses themselves. Optional.
    ///
    /// Read once, when the service starts. A newline at its end doesn't count.
    #[arg(long, env = "CHAT_POSTGRES_REPLICA_URLS_FILE", value_name = "FILE")]
    pub postgres_replica_urls_file: Option<PathBuf>,
    /// Milliseconds that a replica may be behind the primary to be read from, 500 to 30000.
    ///
    /// So old may be what users are shown of others' changes that they were not pushed. A replica that is further behind is
    /// left alone until it has caught up.
    #[arg(long, env = "CHAT_REPLICA_LAG_MAX_MS", default_value = "5000", value_name = "MILLISECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(500..=LAG_MAX_MS))]
    pub replica_lag_max_ms: u64,
}

impl ReplicaSettings {
    /// The addresses.
    pub fn urls(&self) -> Result<Vec<Secret>, SecretError> {
        let (value, file) = (self.postgres_replica_urls.as_ref(), self.postgres_replica_urls_file.as_ref());
        let (what, variable) = ("the addresses of the replicas of PostgreSQL", "CHAT_POSTGRES_REPLICA_URLS");
        let all = SecretSource { what, variable, value, file }.optional()?;
        let urls = all.iter().flat_map(|all| all.expose().split(','));
        Ok(urls.map(str::trim).filter(|url| !url.is_empty()).map(|url| url.to_owned().into()).collect())
    }

    /// How far a replica may be behind.
    pub const fn lag_max(&self) -> Duration {
        Duration::from_millis(self.replica_lag_max_ms)
    }
}
