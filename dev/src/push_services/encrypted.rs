//! Opens what was encrypted for a browser's subscription (RFC 8291 over RFC 8188), independently of how the notifier
//! seals it.

use std::fmt;

use anyhow::{Result, anyhow};
use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree},
    hkdf::{HKDF_SHA256, KeyType, Salt},
};

/// Bytes of a subscription's secret.
pub const AUTH_BYTES: usize = 16;

/// Salt, size of a record, length of the sender's key.
const SALT_BYTES: usize = 16;
const HEADER_BYTES: usize = SALT_BYTES + 4 + 1;

/// Bytes of an uncompressed point.
const POINT_BYTES: usize = 65;

/// Ends the text of the last record; zeros may follow.
const LAST_RECORD: u8 = 2;

/// The keys of a subscription, of which a real push service knows none.
pub struct Keys {
    private: PrivateKey,
    public: Vec<u8>,
    auth: [u8; AUTH_BYTES],
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Keys {
    /// New ones.
    pub fn generate() -> Result<Self> {
        let private = PrivateKey::generate(&ECDH_P256).map_err(|_| anyhow!("cannot make a key"))?;
        Self::of(private, rand::random())
    }

    fn of(private: PrivateKey, auth: [u8; AUTH_BYTES]) -> Result<Self> {
        let public = private.compute_public_key().map_err(|_| anyhow!("the key has no public half"))?;
        Ok(Self { public: public.as_ref().to_vec(), private, auth })
    }

    /// Uncompressed point, to which senders encrypt.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The secret that senders know besides.
    pub fn auth(&self) -> &[u8; AUTH_BYTES] {
        &self.auth
    }

    /// Opens a body, which is one record.
    pub fn open(&self, body: &[u8]) -> Result<Vec<u8>, &'static str> {
        let (header, rest) = body.split_at_checked(HEADER_BYTES).ok_or("the body is shorter than its header")?;
        let (salt, numbers) = header.split_at(SALT_BYTES);
        if usize::from(numbers[4]) != POINT_BYTES {
            return Err("the sender's key isn't an uncompressed point");
        }
        let record_bytes = u32::from_be_bytes([numbers[0], numbers[1], numbers[2], numbers[3]]);
        let (sender, sealed) = rest.split_at_checked(POINT_BYTES).ok_or("the body is shorter than its header")?;
        if sealed.len() > usize::try_from(record_bytes).unwrap_or(usize::MAX) {
            return Err("the body has more than one record");
        }
        let secret = self.shared_secret(sender)?;
        let key = derive::<16>(salt, &secret, b"Content-Encoding: aes128gcm\0")?;
        let nonce = derive::<12>(salt, &secret, b"Content-Encoding: nonce\0")?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).map_err(|_| FAILED)?);
        let mut text = sealed.to_vec();
        let opened = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut text);
        let opened = opened.map_err(|_| "the body doesn't open with the subscription's keys")?;
        let end = opened.iter().rposition(|byte| *byte != 0).ok_or("the record has no end")?;
        if opened[end] != LAST_RECORD {
            return Err("the record isn't marked as the last");
        }
        Ok(opened[..end].to_vec())
    }

    /// What sender and browser have in common, bound to both their keys.
    fn shared_secret(&self, sender: &[u8]) -> Result<[u8; 32], &'static str> {
        let info = [b"WebPush: info\0".as_slice(), &self.public, sender].concat();
        let sender = UnparsedPublicKey::new(&ECDH_P256, sender);
        agree(&self.private, sender, "the sender's key isn't on the curve", |secret| {
            derive::<32>(&self.auth, secret, &info)
        })
    }
}

const FAILED: &str = "keys can't be derived";

fn derive<const N: usize>(salt: &[u8], secret: &[u8], info: &[u8]) -> Result<[u8; N], &'static str> {
    struct Bytes<const N: usize>;
    impl<const N: usize> KeyType for Bytes<N> {
        fn len(&self) -> usize {
            N
        }
    }
    let mut derived = [0; N];
    let key = Salt::new(HKDF_SHA256, salt).extract(secret);
    key.expand(&[info], Bytes::<N>).and_then(|derivation| derivation.fill(&mut derived)).map_err(|_| FAILED)?;
    Ok(derived)
}

#[cfg(test)]
pub mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};

    use super::*;

    /// The keys and the body of RFC 8291, appendix A.
    fn example() -> (Keys, Vec<u8>) {
        let private = BASE64.decode("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94").unwrap();
        let auth = BASE64.decode("BTBZMqHH6r4Tts7J_aSIgg").unwrap().try_into().unwrap();
        let body = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6Tlz\
                    AC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";
        let keys = Keys::of(PrivateKey::from_private_key(&ECDH_P256, &private).unwrap(), auth).unwrap();
        (keys, BASE64.decode(body).unwrap())
    }

    /// Encrypts for a subscription with a key that is used once.
    pub fn seal(public: &[u8], auth: &[u8], text: &[u8]) -> Vec<u8> {
        let sender = PrivateKey::generate(&ECDH_P256).unwrap();
        let sender_public = sender.compute_public_key().unwrap();
        let info = [b"WebPush: info\0".as_slice(), public, sender_public.as_ref()].concat();
        let receiver = UnparsedPublicKey::new(&ECDH_P256, public);
        let secret = agree(&sender, receiver, "", |secret| derive::<32>(auth, secret, &info)).unwrap();
        let salt: [u8; SALT_BYTES] = rand::random();
        let key = derive::<16>(&salt, &secret, b"Content-Encoding: aes128gcm\0").unwrap();
        let nonce = derive::<12>(&salt, &secret, b"Content-Encoding: nonce\0").unwrap();
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).unwrap());
        let mut record = [text, &[LAST_RECORD]].concat();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut record).unwrap();
        let header = [salt.as_slice(), &4096_u32.to_be_bytes(), &[65], sender_public.as_ref()].concat();
        [header, record].concat()
    }

    #[test]
    fn the_standards_example_opens() {
        let (keys, body) = example();
        assert_eq!(keys.open(&body).unwrap(), b"When I grow up, I want to be a watermelon");
    }

    #[test]
    fn a_changed_or_cut_body_or_other_keys_open_nothing() {
        let (keys, body) = example();
        for at in 0..body.len() {
            let mut changed = body.clone();
            changed[at] ^= 1;
            // Bytes 16 to 19 say how large a record may be.
            assert!(keys.open(&changed).is_err() || (16..20).contains(&at), "byte {at}");
            assert!(keys.open(&body[..at]).is_err(), "cut at {at}");
        }
        assert!(Keys::generate().unwrap().open(&body).is_err());
    }
}
