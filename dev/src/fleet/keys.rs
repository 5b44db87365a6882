//! The secrets of a fleet, made once and kept in its directory.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use pem::Pem;
use rand::Rng;

use crate::stand_in::write_secret;

/// Files with secrets.
#[derive(Debug)]
pub struct Keys {
    /// Wraps the content keys that are kept in Postgres. 32 random bytes in base64.
    pub master: PathBuf,
    /// Masks ids in logs, so that lines of several processes can be correlated. 32 random bytes in base64.
    pub mask: PathBuf,
    /// Signs the tokens with which gateways call kaha-main-v3. PKCS #8 in PEM.
    pub service: PathBuf,
    /// The key that comes after that one.
    pub next_service: PathBuf,
}

impl Keys {
    /// Makes those which are not there yet.
    pub fn ensure(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self {
            master: ensure_key(directory.join("master.key"))?,
            mask: ensure_key(directory.join("mask.key"))?,
            service: ensure_signing_key(directory.join("service-key.pem"))?,
            next_service: ensure_signing_key(directory.join("next-service-key.pem"))?,
        })
    }
}

fn ensure_key(file: PathBuf) -> Result<PathBuf> {
    if file.is_file() {
        return Ok(file);
    }
    let mut key = [0; 32];
    rand::rng().fill_bytes(&mut key);
    write_secret(&file, format!("{}\n", STANDARD.encode(key)).as_bytes())?;
    Ok(file)
}

/// An EC key on the curve P-256.
fn ensure_signing_key(file: PathBuf) -> Result<PathBuf> {
    if file.is_file() {
        return Ok(file);
    }
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
        .map_err(|_| anyhow!("cannot make a signing key"))?;
    write_secret(&file, pem::encode(&Pem::new("PRIVATE KEY", pkcs8.as_ref())).as_bytes())?;
    Ok(file)
}
