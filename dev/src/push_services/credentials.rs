//! What the notifier proves itself with, made once and kept in files as the providers hand them out.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use pem::Pem;
use rand::Rng;
use serde_json::{Value, json};

use crate::stand_in::write_secret;

/// Name of the notifier's key at Apple.
pub const APNS_KEY_ID: &str = "STANDIN001";

/// Name of the team at Apple whose apps these are.
pub const APNS_TEAM_ID: &str = "EXAMPLE001";

/// Name of the project at Google.
const FCM_PROJECT: &str = "chat-stand-in";

/// Tag of a private key in a PEM file.
const PRIVATE_KEY: &str = "PRIVATE KEY";

/// Bytes of the webhook's secret, before they are written in base64.
const WEBHOOK_SECRET_BYTES: usize = 32;

/// All of them.
#[derive(Debug)]
pub struct Credentials {
    pub fcm: ServiceAccount,
    pub apns: EcKey,
    pub web_push: EcKey,
    pub webhook: Secret,
}

/// A service account at Google.
#[derive(Debug, Clone)]
pub struct ServiceAccount {
    pub file: PathBuf,
    pub email: String,
    pub project: String,
    pub token_url: String,
    pub key_id: String,
    /// Modulus and exponent in DER.
    pub public: Vec<u8>,
}

/// A key pair on the curve P-256.
#[derive(Debug)]
pub struct EcKey {
    pub file: PathBuf,
    /// Uncompressed point: 4, then x, then y.
    pub public: Vec<u8>,
}

/// A secret shared with a webhook.
#[derive(Debug)]
pub struct Secret {
    pub file: PathBuf,
    /// The file's text without white space around it.
    pub secret: String,
}

impl Credentials {
    /// Uses those in `directory`, and makes the missing ones.
    pub fn kept_in(directory: &Path, token_url: &str) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self {
            fcm: service_account(directory.join("fcm-service-account.json"), token_url)?,
            apns: ec_key(directory.join(format!("AuthKey_{APNS_KEY_ID}.p8")))?,
            web_push: ec_key(directory.join("vapid-private-key.pem"))?,
            webhook: secret(directory.join("webhook.secret"))?,
        })
    }
}

/// Written anew at each start, since the address of the token endpoint may be another.
fn service_account(file: PathBuf, token_url: &str) -> Result<ServiceAccount> {
    let kept = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let kept = kept.as_ref().and_then(|account| account["private_key"].as_str());
    let pkcs8 = match kept {
        Some(text) => pem::parse(text).with_context(|| format!("{} is damaged", file.display()))?.into_contents(),
        None => new_rsa_key()?,
    };
    let pair = RsaKeyPair::from_pkcs8(&pkcs8).map_err(|error| anyhow!("{} is damaged: {error}", file.display()))?;
    let public = pair.public_key().as_ref().to_vec();
    let account = ServiceAccount {
        email: format!("notifier@{FCM_PROJECT}.iam.gserviceaccount.com"),
        project: FCM_PROJECT.to_owned(),
        token_url: token_url.to_owned(),
        key_id: BASE64.encode(&public[16..36]),
        public,
        file,
    };
    let text = json!({
        "type": "service_account",
        "project_id": account.project,
        "private_key_id": account.key_id,
        "private_key": pem::encode(&Pem::new(PRIVATE_KEY, pkcs8)),
        "client_email": account.email,
        "client_id": "100000000000000000001",
        "token_uri": account.token_url,
    });
    write_secret(&account.file, &serde_json::to_vec_pretty(&text)?)?;
    Ok(account)
}

fn new_rsa_key() -> Result<Vec<u8>> {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| anyhow!("cannot make an RSA key"))?;
    let der: Pkcs8V1Der = pair.as_der().map_err(|_| anyhow!("cannot write an RSA key"))?;
    Ok(der.as_ref().to_vec())
}

fn ec_key(file: PathBuf) -> Result<EcKey> {
    let pkcs8 = if file.is_file() {
        pem::parse(std::fs::read(&file)?).with_context(|| format!("{} is damaged", file.display()))?.into_contents()
    } else {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| anyhow!("cannot make a signing key"))?
            .as_ref()
            .to_vec();
        write_secret(&file, pem::encode(&Pem::new(PRIVATE_KEY, pkcs8.as_slice())).as_bytes())?;
        pkcs8
    };
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8)
        .map_err(|error| anyhow!("{} is damaged: {error}", file.display()))?;
    Ok(EcKey { public: pair.public_key().as_ref().to_vec(), file })
}

fn secret(file: PathBuf) -> Result<Secret> {
    if let Ok(text) = std::fs::read_to_string(&file) {
        return Ok(Secret { secret: text.trim().to_owned(), file });
    }
    let mut bytes = [0; WEBHOOK_SECRET_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    let secret = BASE64.encode(bytes);
    write_secret(&file, format!("{secret}\n").as_bytes())?;
    Ok(Secret { file, secret })
}
