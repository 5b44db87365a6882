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
                let keys = jwks::fetch(&jwks::client()?, url).await?.len();
                ensure!(keys > 0, "the key set holds no key that tokens can be checked with: EC P-256, Ed25519 or RSA");
                Ok(format!("{keys} in the key set"))
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
