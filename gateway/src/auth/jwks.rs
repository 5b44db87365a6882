//! Public keys from a URL, fetched now and then, and at once when a token names one that isn't known.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use chat_shared::{lifecycle::Tasks, telemetry::Latch};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, OtherKeyParameters, PublicKeyUse},
};
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::Value;
use tokio::{sync::Notify, sync::watch};

use super::TokenError;
use crate::telemetry;

/// How often the keys are fetched.
const REFRESH_INTERVAL: Duration = Duration::from_mins(5);
/// How soon after a fetch the next one may follow, however many tokens ask for it.
const REFRESH_PAUSE: Duration = Duration::from_secs(2);
/// How long a token waits for the fetch that it asked for.
const FETCH_WAIT_MAX: Duration = Duration::from_secs(3);
/// Bytes of a key set.
const BYTES_MAX: usize = 256 * 1024;

/// The keys of a URL. The last usable key set stays in use while the URL is out of reach or gives no usable key.
#[derive(Clone)]
pub(super) struct Jwks {
    keys: Arc<RwLock<Vec<Key>>>,
    wanted: Arc<Notify>,
    fetches: watch::Receiver<u64>,
}

/// The usable part of a key set.
pub(super) struct KeySet {
    pub(super) keys: Vec<Key>,
    /// Entries that can't be read: malformed, or of a type that is not known here.
    pub(super) skipped: usize,
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
        metrics::counter!(telemetry::KEY_SET_FAILURES_TOTAL, "set" => task).absolute(0);
        metrics::gauge!(telemetry::KEY_SET_SKIPPED, "set" => task).set(0);
        tasks.best_effort(task, async move {
            let mut skipped = 0;
            loop {
                match fetch(&http, &url).await {
                    Ok(set) => {
                        if set.skipped != skipped {
                            report_skipped(task, set.skipped);
                        }
                        skipped = set.skipped;
                        *keys.write() = set.keys;
                    }
                    Err(error) => {
                        metrics::counter!(telemetry::KEY_SET_FAILURES_TOTAL, "set" => task).increment(1);
                        tracing::warn!(
                            set = task,
                            error = format!("{error:#}"),
                            "no usable key set was fetched; the last one stays in use, trying again"
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

fn report_skipped(set: &'static str, skipped: usize) {
    metrics::gauge!(telemetry::KEY_SET_SKIPPED, "set" => set).set(u32::try_from(skipped).unwrap_or(u32::MAX));
    if skipped == 0 {
        tracing::info!(set, "all entries of the key set can be read");
    } else {
        tracing::error!(
            set,
            skipped,
            "the key set has entries that can't be read; tokens signed with them are refused"
        );
    }
}

/// Fetches the keys once: at least one, or an error.
pub(super) async fn fetch(http: &reqwest::Client, url: &reqwest::Url) -> anyhow::Result<KeySet> {
    // Errors are without the address, which may hold a secret.
    let answered = http.get(url.clone()).send().await.and_then(reqwest::Response::error_for_status);
    let mut response = answered.map_err(reqwest::Error::without_url)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        anyhow::ensure!(body.len() + chunk.len() <= BYTES_MAX, "the key set has more than {BYTES_MAX} bytes");
        body.extend_from_slice(&chunk);
    }
    read(&body)
}

/// The usable keys of a key set. An entry that can't be read costs only itself.
fn read(body: &[u8]) -> anyhow::Result<KeySet> {
    #[derive(Deserialize)]
    struct Entries {
        keys: Vec<Value>,
    }
    let Entries { keys: entries } = serde_json::from_slice(body).context("reading the key set")?;
    let (mut keys, mut skipped) = (Vec::new(), 0);
    for entry in entries {
        match serde_json::from_value::<Jwk>(entry).map_err(anyhow::Error::new).and_then(|jwk| usable(&jwk)) {
            Ok(key) => keys.extend(key),
            Err(_) => skipped += 1,
        }
    }
    anyhow::ensure!(
        !keys.is_empty(),
        "the key set holds no key that tokens can be checked with (EC P-256, Ed25519 or RSA), and {skipped} entries that \
         can't be read"
    );
    Ok(KeySet { keys, skipped })
}

/// The key of an entry; none if it is for another purpose or algorithm, which a key set may hold too.
fn usable(jwk: &Jwk) -> anyhow::Result<Option<Key>> {
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return Ok(None);
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::Other(other) => {
            anyhow::ensure!(!is_malformed(other), "it lacks what a key of its type has");
            return Ok(None);
        }
        _ => return Ok(None),
    };
    Ok(Some(Key { id: jwk.common.key_id.clone(), algorithm, decoding: DecodingKey::from_jwk(jwk)? }))
}

/// Whether an entry that isn't any of the library's keys claims to be one that tokens can be checked with.
fn is_malformed(entry: &OtherKeyParameters) -> bool {
    let text = |name| entry.fields.get(name).and_then(Value::as_str);
    match text("kty") {
        None | Some("RSA") => true,
        Some("EC") => matches!(text("crv"), None | Some("P-256")),
        Some("OKP") => matches!(text("crv"), None | Some("Ed25519")),
        Some(_) => false,
    }
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

    const EC: &str = r#"{"kty":"EC","crv":"P-256","kid":"ec","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    const ED: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    fn set(entries: &[&str]) -> String {
        format!(r#"{{"keys":[{}]}}"#, entries.join(","))
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_skipped() {
        for broken in [
            "7",
            "{}",
            r#"{"kty":"EC","crv":"P-256","x":"!","y":"!"}"#,
            r#"{"kty":"EC","crv":"P-256"}"#,
            r#"{"kty":"OKP"}"#,
            r#"{"kty":"RSA","n":3}"#,
        ] {
            let found = read(set(&[broken, EC, ED]).as_bytes()).unwrap();
            assert_eq!((found.keys.len(), found.skipped), (2, 1), "{broken}");
        }
        let for_encryption = ED.replacen('{', r#"{"use":"enc","#, 1);
        for other in [for_encryption.as_str(), r#"{"kty":"AKP","pub":"A"}"#, r#"{"kty":"OKP","crv":"X25519","x":"A"}"#]
        {
            let found = read(set(&[EC, other]).as_bytes()).unwrap();
            assert_eq!((found.keys.len(), found.skipped), (1, 0), "another purpose is no fault: {other}");
        }
    }

    #[test]
    fn a_set_without_a_usable_key_is_refused() {
        for empty in [set(&[]), set(&["{}"]), set(&["7", "7"])] {
            assert!(read(empty.as_bytes()).is_err(), "{empty}");
        }
    }

    /// Serves one key set after the other, a connection each; then closes.
    async fn serve(listener: tokio::net::TcpListener, bodies: Vec<String>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        for body in bodies {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _request = socket.read(&mut [0; 4096]).await.unwrap();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_empty_answer_keeps_the_last_keys_and_a_rotation_replaces_them() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap()).parse().unwrap();
        let tasks = Tasks::default();
        tasks.lasting("key_sets", serve(listener, vec![set(&[EC]), set(&[]), set(&["{}", ED])]));
        let jwks = Jwks::start(url, "token_keys", Latch::default(), &tasks).unwrap();
        assert!(jwks.find(Some("ec"), Algorithm::ES256).await.is_ok());
        // Each asks for one more fetch.
        assert!(jwks.find(Some("ed"), Algorithm::EdDSA).await.is_err(), "the answer was empty");
        assert!(jwks.find(Some("ec"), Algorithm::ES256).await.is_ok(), "and the last keys are used on");
        assert!(jwks.find(Some("ed"), Algorithm::EdDSA).await.is_ok());
        assert!(jwks.known(Some("ec"), Algorithm::ES256).is_none(), "it was taken out of the set");
        tasks.draining().cancel();
    }
}
