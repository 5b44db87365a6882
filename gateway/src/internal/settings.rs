//! Who may call the internal interface.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

/// Where the internal interface listens, and whose tokens it takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Internal API")]
pub struct InternalSettings {
    /// Address for the platform's other services: /internal/v1/…, /.well-known/jwks.json.
    ///
    /// Keep it inside the cluster. It is served only if one of the two settings that follow says whose tokens are taken.
    #[arg(long, env = "CHAT_INTERNAL_LISTEN", default_value = "0.0.0.0:8081", value_name = "ADDRESS:PORT")]
    pub internal_listen: SocketAddr,
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
