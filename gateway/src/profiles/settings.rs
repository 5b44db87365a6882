//! Where profiles come from.

use std::{path::PathBuf, sync::Arc};

use anyhow::ensure;
use clap::Args;
use reqwest::Url;

use crate::auth::Signer;

/// How kaha-main-v3 is asked for profiles and staff lists.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "kaha-main-v3")]
pub struct ProfileSettings {
    /// Base address of kaha-main-v3, such as `https://kaha.internal`.
    ///
    /// `/api/batch/profiles` is asked for names and pictures there, and `/api/batch/staff` for staff lists. Without it everybody is called by a neutral name, and staff lists are not compared.
    #[arg(long, env = "CHAT_KAHA_URL", hide_env_values = true, value_name = "URL")]
    pub kaha_url: Option<Url>,
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
    /// File with the private key that will sign next. Optional.
    ///
    /// Its public half is published now, and nothing is signed with it, so that kaha-main-v3 knows it before it is used: docs/security.md says how keys are exchanged.
    #[arg(long, env = "CHAT_SERVICE_NEXT_KEY_FILE", value_name = "FILE")]
    pub service_next_key_file: Option<PathBuf>,
}

impl ProfileSettings {
    /// Looks whether the address makes sense, and reads the keys that sign our tokens, if there are any.
    pub fn signer(&self) -> anyhow::Result<Option<Arc<Signer>>> {
        self.kaha_url.as_ref().map_or(Ok(()), check_address)?;
        let next = self.service_next_key_file.as_deref();
        if let Some(key) = &self.service_key_file {
            return Ok(Some(Arc::new(Signer::read(key, next, &self.service_name)?)));
        }
        ensure!(
            self.kaha_url.is_none(),
            "CHAT_KAHA_URL needs CHAT_SERVICE_KEY_FILE beside it, which signs what kaha-main-v3 is shown"
        );
        ensure!(next.is_none(), "CHAT_SERVICE_NEXT_KEY_FILE needs CHAT_SERVICE_KEY_FILE beside it");
        Ok(None)
    }

    /// Those of a gateway without kaha-main-v3.
    #[cfg(test)]
    pub fn none() -> Self {
        Self {
            kaha_url: None,
            kaha_audience: "kaha-main-v3".to_owned(),
            service_name: "chat-backend".to_owned(),
            service_key_file: None,
            service_next_key_file: None,
        }
    }
}

fn check_address(url: &Url) -> anyhow::Result<()> {
    let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
    ensure!(is_web, "CHAT_KAHA_URL must begin with https:// or http:// and name a host");
    ensure!(
        url.username().is_empty() && url.password().is_none(),
        "CHAT_KAHA_URL must hold no user name and no password: kaha-main-v3 is shown tokens"
    );
    ensure!(url.query().is_none() && url.fragment().is_none(), "CHAT_KAHA_URL must end with its path");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_key_or_with_what_does_not_belong_there_is_refused() {
        let problem = |url: &str| {
            let settings = ProfileSettings { kaha_url: Some(url.parse().unwrap()), ..ProfileSettings::none() };
            settings.signer().unwrap_err().to_string()
        };
        assert!(problem("https://kaha.internal").contains("CHAT_SERVICE_KEY_FILE"));
        assert!(problem("ftp://kaha.internal").contains("https://"));
        assert!(problem("https://me:secret@kaha.internal").contains("password"));
        assert!(!problem("https://me:secret@kaha.internal").contains("secret"));
        assert!(problem("https://kaha.internal/?v=3").contains("path"));
        assert!(ProfileSettings::none().signer().unwrap().is_none());
        let next = ProfileSettings { service_next_key_file: Some("next.pem".into()), ..ProfileSettings::none() };
        assert!(next.signer().unwrap_err().to_string().contains("CHAT_SERVICE_KEY_FILE"));
    }
}
