//! The keys that tokens are checked with: of a key set at a URL, of files, or a shared secret.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use chat_shared::{lifecycle::Tasks, telemetry::Latch};
use jsonwebtoken::{Algorithm, DecodingKey};

use super::{TokenError, jwks::Jwks};

/// Bytes of a shared secret, at the least.
const SECRET_BYTES_MIN: usize = 32;
/// Files with public keys. A token that names none of them is tried with each.
const FILES_MAX: usize = 8;

/// Where the keys come from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A URL that serves a JSON Web Key Set.
    Jwks(reqwest::Url),
    /// Files with one public key each, in PEM: EC P-256, Ed25519 or RSA. All are valid at once.
    PublicKeys(Vec<PathBuf>),
    /// A file with a secret shared with the issuer; for development.
    Secret(PathBuf),
}

/// The keys of a source.
#[derive(Clone)]
pub(super) enum Keys {
    Fetched(Jwks),
    Fixed(Arc<[(Algorithm, DecodingKey)]>),
}

impl Keys {
    /// Reads or begins to fetch them; `latch` shows whether there are any. `task` is the name of what fetches.
    pub(super) fn start(source: KeySource, task: &'static str, latch: Latch, tasks: &Tasks) -> anyhow::Result<Self> {
        let fixed = match source {
            KeySource::Jwks(url) => return Ok(Self::Fetched(Jwks::start(url, task, latch, tasks)?)),
            KeySource::PublicKeys(paths) => {
                anyhow::ensure!(!paths.is_empty(), "no file with a public key is given");
                anyhow::ensure!(paths.len() <= FILES_MAX, "more than {FILES_MAX} files with public keys are given");
                paths.iter().map(|path| read_public_key(path)).collect::<anyhow::Result<_>>()?
            }
            KeySource::Secret(path) => Arc::from([(Algorithm::HS256, read_secret(&path)?)]),
        };
        latch.set(true);
        Ok(Self::Fixed(fixed))
    }

    /// Whether a token may be signed with this algorithm.
    pub(super) fn allow(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Fetched(_) => matches!(algorithm, Algorithm::ES256 | Algorithm::EdDSA | Algorithm::RS256),
            Self::Fixed(keys) => keys.iter().any(|(of_key, _)| *of_key == algorithm),
        }
    }

    /// The keys that may have signed a token which names `id`, never none. Keys from files have no names, so that those of
    /// the algorithm are tried.
    pub(super) async fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Vec<DecodingKey>, TokenError> {
        match self {
            Self::Fetched(jwks) => Ok(vec![jwks.find(id, algorithm).await?]),
            Self::Fixed(keys) => Ok(keys
                .iter()
                .filter(|(of_key, _)| *of_key == algorithm)
                .map(|(_, decoding)| decoding.clone())
                .collect()),
        }
    }
}

/// The public key of a file, and what it signs with.
pub(super) fn read_public_key(path: &Path) -> anyhow::Result<(Algorithm, DecodingKey)> {
    let pem = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    DecodingKey::from_ec_pem(&pem)
        .map(|key| (Algorithm::ES256, key))
        .or_else(|_| DecodingKey::from_ed_pem(&pem).map(|key| (Algorithm::EdDSA, key)))
        .or_else(|_| DecodingKey::from_rsa_pem(&pem).map(|key| (Algorithm::RS256, key)))
        .with_context(|| format!("{} is no public key in PEM of EC P-256, Ed25519 or RSA", path.display()))
}

/// The shared secret of a file.
pub(super) fn read_secret(path: &Path) -> anyhow::Result<DecodingKey> {
    let secret = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    anyhow::ensure!(secret.len() >= SECRET_BYTES_MIN, "the shared secret has fewer than {SECRET_BYTES_MIN} bytes");
    Ok(DecodingKey::from_secret(&secret))
}
