//! Where profiles come from.

use std::path::PathBuf;

use clap::Args;

/// How kaha-main-v3 is asked for profiles.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "kaha-main-v3")]
pub struct ProfileSettings {
    /// Base address of kaha-main-v3, such as `https://kaha.internal`.
    ///
    /// `/api/batch/profiles` is asked for names and pictures there. Without it everybody is called by a neutral name.
    #[arg(long, env = "CHAT_KAHA_URL", value_name = "URL")]
    pub kaha_url: Option<reqwest::Url>,
    /// What the tokens that this service shows to kaha-main-v3 say in `aud`.
    ///
    /// kaha-main-v3 refuses tokens that are meant for somebody else.
    #[arg(long, env = "CHAT_KAHA_AUDIENCE", default_value = "kaha-main-v3", value_name = "NAME")]
    pub kaha_audience: String,
    /// What those tokens say in `iss`.
    ///
    /// The name under which kaha-main-v3 knows the chat backend and its keys.
    #[arg(long, env = "CHAT_SERVICE_NAME", default_value = "chat-backend", value_name = "NAME")]
    pub service_name: String,
    /// File with the private key that signs those tokens: PEM (PKCS#8) of an EC P-256 or Ed25519 key. Required with the address.
    ///
    /// Its public half is at `/.well-known/jwks.json` of the internal port. Read once, when the service starts.
    #[arg(long, env = "CHAT_SERVICE_KEY_FILE", value_name = "FILE")]
    pub service_key_file: Option<PathBuf>,
    /// File with the private key that will sign next. Its public half is published now, and nothing is signed with it.
    ///
    /// So kaha-main-v3 knows the new key before it is used: docs/security.md says how keys are exchanged.
    #[arg(long, env = "CHAT_SERVICE_NEXT_KEY_FILE", value_name = "FILE")]
    pub service_next_key_file: Option<PathBuf>,
}
