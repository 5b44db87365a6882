//! Public keys from a URL, fetched now and then, and at once when a token names one that isn't known.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use chat_shared::{lifecycle::Tasks, telemetry::Latch};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse},
};
use parking_lot::RwLock;
use tokio::{sync::Notify, sync::watch};

use super::TokenError;

/// How often the keys are fetched.
const REFRESH_INTERVAL: Duration = Duration::from_mins(5);
/// How soon after a fetch the next one may follow, however many tokens ask for it.
const REFRESH_PAUSE: Duration = Duration::from_secs(2);
/// How long a token waits for the fetch that it asked for.
const FETCH_WAIT_MAX: Duration = Duration::from_secs(3);
/// Bytes of a key set.
const BYTES_MAX: usize = 256 * 1024;

/// The keys of a URL. Keys once fetched are used on while it is out of reach.
#[derive(Clone)]
pub(super) struct Jwks {
    keys: Arc<RwLock<Vec<Key>>>,
    wanted: Arc<Notify>,
    fetches: watch::Receiver<u64>,
}

pub(super) struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
}

impl Jwks {
    pub(super) fn start(url: reqwest::Url, task: &'static str, latch: Latch, tasks: &Tasks) -> anyhow::Result<Self> {
        let http = client()?;
        let (counter, fetches) = watch::channel(0);
        let jwks = Self { keys: Arc::default(), wanted: Arc::default(), fetches };
        let (keys, wanted, draining) = (jwks.keys.clone(), jwks.wanted.clone(), tasks.draining().clone());
        tasks.best_effort(task, async move {
            loop {
                match fetch(&http, &url).await {
                    Ok(set) => *keys.write() = set,
                    Err(error) => {
                        tracing::warn!(
                            what = task,
                            error = format!("{error:#}"),
                            "the key set can't be fetched, trying again"
                        );
                    }
                }
                let has_keys = !keys.read().is_empty();
                latch.set(has_keys);
                counter.send_modify(|count| *count += 1);
                let next = async {
                    tokio::time::sleep(REFRESH_PAUSE).await;
                    if has_keys {
                        // Either may be lost when the other comes first: the fetch that follows serves both.
                        let _either = tokio::time::timeout(REFRESH_INTERVAL, wanted.notified()).await;
                    }
                };
                if draining.run_until_cancelled(next).await.is_none() {
                    return;
                }
            }
        });
        Ok(jwks)
    }

    /// The key that a token names; without a name, the only one of its algorithm.
    pub(super) async fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<DecodingKey, TokenError> {
        if let Some(key) = self.known(id, algorithm) {
            return Ok(key);
        }
        let mut fetches = self.fetches.clone();
        fetches.mark_unchanged();
        self.wanted.notify_one();
        let _fetched = tokio::time::timeout(FETCH_WAIT_MAX, fetches.changed()).await;
        if self.keys.read().is_empty() {
            return Err(TokenError::NoKeys);
        }
        self.known(id, algorithm).ok_or(TokenError::Refused("it names a key that is not known"))
    }

    fn known(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let keys = self.keys.read();
        let mut matching =
            keys.iter().filter(|key| key.algorithm == algorithm && (id.is_none() || key.id.as_deref() == id));
        matching.next().filter(|_| id.is_some() || matching.next().is_none()).map(|key| key.decoding.clone())
    }
}

/// What key sets are fetched with.
pub(super) fn client() -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder()
        .timeout(FETCH_WAIT_MAX)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .context("starting the HTTP client for the key set")
}

/// Fetches the keys once.
pub(super) async fn fetch(http: &reqwest::Client, url: &reqwest::Url) -> anyhow::Result<Vec<Key>> {
    // Errors are without the address, which may hold a secret.
    let answered = http.get(url.clone()).send().await.and_then(reqwest::Response::error_for_status);
    let mut response = answered.map_err(reqwest::Error::without_url)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        anyhow::ensure!(body.len() + chunk.len() <= BYTES_MAX, "the key set has more than {BYTES_MAX} bytes");
        body.extend_from_slice(&chunk);
    }
    let set: JwkSet = serde_json::from_slice(&body).context("reading the key set")?;
    Ok(set.keys.iter().filter_map(usable).collect())
}

/// What can be used of a key set; it may hold keys for other purposes too.
fn usable(jwk: &Jwk) -> Option<Key> {
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        _ => return None,
    };
    Some(Key { id: jwk.common.key_id.clone(), algorithm, decoding: DecodingKey::from_jwk(jwk).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_goes_wrong_is_told_without_the_address() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys?secret", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let error = format!("{:#}", fetch(&client().unwrap(), &url).await.err().unwrap());
        assert!(!error.contains("secret"), "{error}");
    }
}
