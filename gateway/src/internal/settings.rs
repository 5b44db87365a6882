//! Who may call the internal interface.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{bail, ensure};
use chat_shared::{lifecycle::Tasks, telemetry::Latch};
use clap::Args;

use crate::{
    auth::{KeySource, ServiceVerifier},
    edge::ProxyProtocol,
};

/// Where the internal interface listens, and whose tokens it takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Internal API")]
pub struct InternalSettings {
    /// Address for the platform's other services: /internal/v1/…, /.well-known/jwks.json.
    ///
    /// Keep it inside the cluster. It is served only if one of the two settings that follow, or `CHAT_SERVICE_KEY_FILE`, is set.
    #[arg(long, env = "CHAT_INTERNAL_LISTEN", default_value = "0.0.0.0:8081", value_name = "ADDRESS:PORT")]
    pub internal_listen: SocketAddr,
    /// Whether connections to `CHAT_INTERNAL_LISTEN` begin with a PROXY header, of version 1 or 2.
    ///
    /// As `CHAT_PROXY_PROTOCOL`, for the load balancer before this port. No limit of this port is for an address, so that
    /// the header is checked and nothing else follows from it.
    #[arg(long, env = "CHAT_INTERNAL_PROXY_PROTOCOL", value_enum, default_value_t = ProxyProtocol::Off)]
    #[arg(value_name = "MODE")]
    pub internal_proxy_protocol: ProxyProtocol,
    /// Address of the JSON Web Key Set that services' tokens are checked with: EC P-256, Ed25519 or RSA. Optional.
    ///
    /// Without it and without files nobody may call the interface. Fetched every five minutes, and when a token names an unknown key. As many keys as are in it are valid at once.
    #[arg(long, env = "CHAT_SERVICE_JWKS_URL", hide_env_values = true, value_name = "URL")]
    pub service_jwks_url: Option<reqwest::Url>,
    /// Files with one public key each (PEM), separated by commas, instead of a key set.
    ///
    /// Give two while keys are exchanged: both are valid. Read once, when the service starts.
    #[arg(long, env = "CHAT_SERVICE_PUBLIC_KEY_FILES", value_delimiter = ',', value_name = "FILES")]
    pub service_public_key_files: Vec<PathBuf>,
    /// What a service's token must say in `iss`.
    ///
    /// Tokens of any other issuer are refused, also if their key is known.
    #[arg(long, env = "CHAT_SERVICE_ISSUER", default_value = "kaha-main-v3", value_name = "NAME")]
    pub service_issuer: String,
    /// What a service's token must contain in `aud`. It has to differ from that of users' tokens.
    ///
    /// So no user's token opens this interface, even if the same keys sign both.
    #[arg(long, env = "CHAT_SERVICE_AUDIENCE", default_value = "chat-internal", value_name = "NAME")]
    pub service_audience: String,
}

impl InternalSettings {
    /// Where the keys of other services come from; none if no service may call.
    pub fn keys(&self) -> anyhow::Result<Option<KeySource>> {
        match (&self.service_jwks_url, self.service_public_key_files.as_slice()) {
            (None, []) => Ok(None),
            (Some(url), []) => Ok(Some(KeySource::Jwks(url.clone()))),
            (None, paths) => Ok(Some(KeySource::PublicKeys(paths.to_vec()))),
            (Some(_), _) => bail!("give CHAT_SERVICE_JWKS_URL or CHAT_SERVICE_PUBLIC_KEY_FILES, not both"),
        }
    }

    /// What checks their tokens; none if no service may call.
    pub fn verifier(&self, user_audience: &str, tasks: &Tasks) -> anyhow::Result<Option<ServiceVerifier>> {
        ensure!(
            self.service_audience != user_audience,
            "CHAT_SERVICE_AUDIENCE is the same as CHAT_JWT_AUDIENCE, so that users' tokens would be taken for services'"
        );
        let Some(keys) = self.keys()? else { return Ok(None) };
        let (issuer, audience) = (self.service_issuer.clone(), self.service_audience.clone());
        // Users are served while these keys are out of reach, so no latch of this gateway's readiness.
        ServiceVerifier::start(keys, issuer, audience, Latch::default(), tasks).map(Some)
    }
}
