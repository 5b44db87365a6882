//! Tries once where keys come from, for whoever wants to know before the first token does.

use anyhow::ensure;

use super::{
    KeySource, jwks,
    keys::{read_public_key, read_secret},
};

impl KeySource {
    /// What there is, in words.
    pub async fn try_once(&self) -> anyhow::Result<String> {
        match self {
            Self::Jwks(url) => {
                let jwks::KeySet { keys, skipped } = jwks::fetch(&jwks::client()?, url).await?;
                ensure!(
                    skipped == 0,
                    "{skipped} entries of the key set can't be read; tokens signed with them are refused"
                );
                Ok(format!("{} in the key set", keys.len()))
            }
            Self::PublicKeys(paths) => {
                for path in paths {
                    read_public_key(path)?;
                }
                Ok(format!("{} in files", paths.len()))
            }
            Self::Secret(path) => {
                read_secret(path)?;
                Ok("a shared secret, for development only".to_owned())
            }
        }
    }
}
