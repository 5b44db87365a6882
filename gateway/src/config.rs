//! The gateway's settings.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use anyhow::bail;
use chat_cold::store::StoreSettings;
use chat_shared::settings::{
    CheckSettings, MasterKeySettings, NamespaceSettings, NatsSettings, PostgresSettings, RedisSettings,
    TelemetrySettings,
};
use clap::{Args, Parser};

use crate::{
    auth::{KeySource, VerifierSettings},
    database::ReplicaSettings,
    edge::EdgeSettings,
    internal::InternalSettings,
    profiles::ProfileSettings,
    quota::QuotaSettings,
};

/// Kubernetes sets it in every container.
const ORCHESTRATED: &str = "KUBERNETES_SERVICE_HOST";
/// How long Kubernetes takes at the most to send no new connections, in most clusters.
const ORCHESTRATED_PAUSE: Duration = Duration::from_secs(5);

/// The chat gateway: clients connect to it by WebSocket and ask it by REST.
///
/// It keeps nothing of its own: any number of gateways stand side by side, and any client may use any of them. Every setting is
/// an option and an environment variable.
#[derive(Debug, Parser)]
#[command(name = "chat-gateway", version, max_term_width = 100)]
pub struct Config {
    #[command(flatten)]
    pub check: CheckSettings,
    /// Address and port for clients: /v1/ws, /v1/…, /openapi.json.
    ///
    /// TLS ends before it, so it must not be reached from outside but through what ends TLS.
    #[arg(long, env = "CHAT_LISTEN", default_value = "0.0.0.0:8080", value_name = "ADDRESS:PORT")]
    #[arg(help_heading = "Clients")]
    pub listen: SocketAddr,
    /// Milliseconds between SIGTERM and the end of the clients' port. Optional: 5000 in Kubernetes, else 0.
    ///
    /// Meanwhile /readyz answers 503 and everything else works on, so that load balancers turn to other gateways before
    /// connections are refused. A second signal ends the pause.
    #[arg(long, env = "CHAT_SHUTDOWN_PAUSE_MS", help_heading = "Clients", value_name = "MILLISECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(..=60_000))]
    pub shutdown_pause_ms: Option<u64>,
    /// Takes browsers' subscriptions whose push service is this machine, by http too. Development only.
    ///
    /// Users could have the notifier ask what listens beside it. Off unless it is set.
    #[arg(long, env = "CHAT_ALLOW_LOOPBACK_ENDPOINTS", help_heading = "Clients")]
    pub allow_loopback_endpoints: bool,
    #[command(flatten)]
    pub tokens: TokenSettings,
    #[command(flatten)]
    pub edge: EdgeSettings,
    #[command(flatten)]
    pub quotas: QuotaSettings,
    #[command(flatten)]
    pub internal: InternalSettings,
    #[command(flatten)]
    pub profiles: ProfileSettings,
    #[command(flatten)]
    pub namespace: NamespaceSettings,
    #[command(flatten)]
    pub postgres: PostgresSettings,
    #[command(flatten)]
    pub replicas: ReplicaSettings,
    #[command(flatten)]
    pub nats: NatsSettings,
    #[command(flatten)]
    pub redis: RedisSettings,
    #[command(flatten)]
    pub master_key: MasterKeySettings,
    #[command(flatten)]
    pub cold_store: StoreSettings,
    #[command(flatten)]
    pub telemetry: TelemetrySettings,
}

impl Config {
    /// Refuses ports that would close every connection.
    pub fn check_proxies(&self) -> anyhow::Result<()> {
        let proxies = &self.edge.trusted_proxies;
        self.edge.proxy_protocol.check("CHAT_PROXY_PROTOCOL", proxies)?;
        self.internal.internal_proxy_protocol.check("CHAT_INTERNAL_PROXY_PROTOCOL", proxies)
    }

    /// The pause between SIGTERM and draining.
    pub fn shutdown_pause(&self) -> Duration {
        let is_orchestrated = || std::env::var_os(ORCHESTRATED).is_some();
        self.shutdown_pause_ms
            .map_or_else(|| if is_orchestrated() { ORCHESTRATED_PAUSE } else { Duration::ZERO }, Duration::from_millis)
    }
}

/// Whose tokens are taken.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tokens")]
pub struct TokenSettings {
    /// URL of the JSON Web Key Set that users' tokens are checked with: EC P-256, Ed25519 or RSA.
    ///
    /// Fetched every five minutes, and when a token names an unknown key. Either this or one of the two files that follow is
    /// required. While it is out of reach the keys that were fetched last are used on.
    #[arg(long, env = "CHAT_JWKS_URL", hide_env_values = true, value_name = "URL")]
    pub jwks_url: Option<reqwest::Url>,
    /// File with one public key (PEM: EC P-256, Ed25519 or RSA), instead of a key set.
    ///
    /// Read once, when the service starts: another key needs a restart of all gateways.
    #[arg(long, env = "CHAT_JWT_PUBLIC_KEY_FILE", value_name = "FILE")]
    pub jwt_public_key_file: Option<PathBuf>,
    /// File with a secret of 32 bytes or more that is shared with the issuer, instead of public keys. Development only.
    ///
    /// Whoever has it can be anyone.
    #[arg(long, env = "CHAT_JWT_SECRET_FILE", value_name = "FILE")]
    pub jwt_secret_file: Option<PathBuf>,
    /// What a token's `aud` must contain.
    ///
    /// A token that is meant for another service is refused, also if its key is known.
    #[arg(long, env = "CHAT_JWT_AUDIENCE", default_value = "chat", value_name = "NAME")]
    pub jwt_audience: String,
    /// What a token's `iss` must be. Optional.
    ///
    /// Without it any issuer whose key is trusted is accepted.
    #[arg(long, env = "CHAT_JWT_ISSUER", value_name = "NAME")]
    pub jwt_issuer: Option<String>,
    /// Seconds that a token may live, from now to its `exp`.
    ///
    /// One that lives longer is refused. What a logout revokes is remembered for as long, and no longer.
    #[arg(long, env = "CHAT_TOKEN_LIFETIME_MAX_S", default_value = "86400", value_name = "SECONDS")]
    pub token_lifetime_max_s: NonZeroU32,
}

impl TokenSettings {
    /// What is asked of users' tokens.
    pub fn verifier(&self) -> anyhow::Result<VerifierSettings> {
        let keys = match (&self.jwks_url, &self.jwt_public_key_file, &self.jwt_secret_file) {
            (Some(url), None, None) => KeySource::Jwks(url.clone()),
            (None, Some(path), None) => KeySource::PublicKeys(vec![path.clone()]),
            (None, None, Some(path)) => KeySource::Secret(path.clone()),
            _ => bail!("give exactly one of CHAT_JWKS_URL, CHAT_JWT_PUBLIC_KEY_FILE and CHAT_JWT_SECRET_FILE"),
        };
        Ok(VerifierSettings {
            keys,
            audience: self.jwt_audience.clone(),
            issuer: self.jwt_issuer.clone(),
            lifetime_max: Duration::from_secs(self.token_lifetime_max_s.get().into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_setting_is_described_with_default_unit_and_consequence() {
        chat_dev::help_page::assert_complete(Config::command());
    }

    #[test]
    fn proxy_headers_are_off_on_each_port_and_required_only_of_trusted_networks() {
        let check = |options: &[&str]| Config::try_parse_from(options).unwrap().check_proxies();
        let (clients, services) = ("--proxy-protocol=required", "--internal-proxy-protocol=required");
        assert!(check(&["chat-gateway"]).is_ok());
        for (option, variable) in [(clients, "CHAT_PROXY_PROTOCOL"), (services, "CHAT_INTERNAL_PROXY_PROTOCOL")] {
            let error = check(&["chat-gateway", option]).unwrap_err().to_string();
            assert!(error.starts_with(variable) && error.contains("CHAT_TRUSTED_PROXIES"), "{error}");
            assert!(check(&["chat-gateway", option, "--trusted-proxies=10.0.0.0/8"]).is_ok());
        }
    }
}
