//! A private key that signs: PEM or JWK in, signatures (RFC 7518, RFC 8037) and its public half out. No I/O.
//!
//! It stands here because a key that cannot be used is a mistake in the file, to be told by `check` with its place; whoever
//! signs reads the key again, from its source, by the very same code.

use aws_lc_rs::{
    digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest},
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{KeyPairComponents, PublicKeyComponents},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
        EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
        RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
    },
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Map, Value};
use zeroize::{Zeroize as _, Zeroizing};

use super::{model::Alg, secret::Secret};

/// Why nothing can be signed. The texts hold nothing of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Neither PEM nor JWK.
    #[error("key is neither a private key in PEM form (PKCS#8, PKCS#1 or SEC1, not encrypted) nor a private JWK")]
    Format,
    /// A kind of key that no algorithm here is for.
    #[error("key is of a kind that cannot be used: RSA (2048 bits or more), P-256, P-384, P-521 and Ed25519 can")]
    Kind,
    /// `alg` needs another kind of key.
    #[error("alg = {0:?} does not go with this kind of key")]
    Algorithm(&'static str),
    /// No PEM block of a certificate.
    #[error("key_cert holds no certificate in PEM form")]
    Certificate,
    /// The cipher failed; there is no reason why it should.
    #[error("signing failed")]
    Sign,
}

/// A private key with the one algorithm that it signs by. Its secret half is wiped on drop.
pub struct SigningKey {
    key: Key,
    alg: Alg,
    /// `kid` of a JWK, `private_key_id` of a service account's file.
    id: Option<String>,
}

enum Key {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    P521(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// What names the certificate of a key in the header of a JWT (RFC 7515 sections 4.1.7 and 4.1.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thumbprints {
    /// `x5t`, by SHA-1: older servers know no other. It protects nothing, it names.
    pub sha1: String,
    /// `x5t#S256`
    pub sha256: String,
}

impl Thumbprints {
    /// Of the first certificate in the text.
    pub fn of_pem(text: &str) -> Result<Self, KeyError> {
        let text = text.replace("\\n", "\n");
        let certificate = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::Certificate)?;
        let coded = |by| URL_SAFE_NO_PAD.encode(digest(by, &certificate));
        Ok(Self { sha1: coded(&SHA1_FOR_LEGACY_USE_ONLY), sha256: coded(&SHA256) })
    }
}

impl SigningKey {
    /// From its text; where no algorithm is given, the one that its kind is mostly used with.
    pub fn of_text(text: &Secret, alg: Option<Alg>) -> Result<Self, KeyError> {
        let text = text.expose().trim();
        let (key, id) = if text.starts_with('{') { of_jwk(text)? } else { (of_pem(text)?, None) };
        let usual = match key {
            Key::Rsa(_) => Alg::Rs256,
            Key::P256(_) => Alg::Es256,
            Key::P384(_) => Alg::Es384,
            Key::P521(_) => Alg::Es512,
            Key::Ed25519(_) => Alg::EdDsa,
        };
        let alg = alg.unwrap_or(usual);
        let is_rsa = matches!(key, Key::Rsa(_)) && matches!(alg, Alg::Rs384 | Alg::Rs512 | Alg::Ps256);
        if alg != usual && !is_rsa {
            return Err(KeyError::Algorithm(alg.as_str()));
        }
        Ok(Self { key, alg, id })
    }

    /// A new one for ES256, which never leaves this process.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| KeyError::Sign)?;
        Ok(Self { key: Key::P256(pair), alg: Alg::Es256, id: None })
    }

    /// What it signs by.
    pub fn alg(&self) -> Alg {
        self.alg
    }

    /// `kid` of a JWK.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The signature as JOSE writes it, before base64. May be called from several threads at once.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
            Key::P256(key) | Key::P384(key) | Key::P521(key) => {
                Ok(key.sign(&random, message).map_err(|_| KeyError::Sign)?.as_ref().to_vec())
            }
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                let encoding: &'static dyn RsaEncoding = match self.alg {
                    Alg::Ps256 => &RSA_PSS_SHA256,
                    Alg::Rs384 => &RSA_PKCS1_SHA384,
                    Alg::Rs512 => &RSA_PKCS1_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                key.sign(encoding, &random, message, &mut signature).map_err(|_| KeyError::Sign)?;
                Ok(signature)
            }
        }
    }

    /// `SHA256:` and base64 of the digest of its public half (DER, `SubjectPublicKeyInfo`), for RSA.
    pub fn fingerprint(&self) -> Result<String, KeyError> {
        let Key::Rsa(key) = &self.key else { return Err(KeyError::Algorithm(self.alg.as_str())) };
        let der = AsDer::<PublicKeyX509Der<'_>>::as_der(key.public_key()).map_err(|_| KeyError::Kind)?;
        Ok(format!("SHA256:{}", STANDARD.encode(digest(&SHA256, der.as_ref()))))
    }

    /// Its public half: only the members that RFC 7638 hashes, in its order, so that the thumbprint is the digest of this.
    pub fn public_jwk(&self) -> String {
        let coded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let ec = |curve: &str, pair: &EcdsaKeyPair| {
            let point = pair.public_key().as_ref(); // uncompressed: 4, x, y
            let (x, y) = point[1..].split_at(point.len() / 2);
            format!(r#"{{"crv":"{curve}","kty":"EC","x":"{}","y":"{}"}}"#, coded(x), coded(y))
        };
        match &self.key {
            Key::P256(pair) => ec("P-256", pair),
            Key::P384(pair) => ec("P-384", pair),
            Key::P521(pair) => ec("P-521", pair),
            Key::Ed25519(pair) => {
                format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, coded(pair.public_key().as_ref()))
            }
            Key::Rsa(pair) => {
                let (n, e) = rsa_numbers(pair.public_key().as_ref());
                format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, coded(e), coded(n))
            }
        }
    }
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017 appendix A.1.1: a DER sequence of two integers), without the zero that
/// keeps them positive.
fn rsa_numbers(der: &[u8]) -> (&[u8], &[u8]) {
    let (sequence, _) = der_value(der);
    let (modulus, rest) = der_value(sequence);
    let (exponent, _) = der_value(rest);
    let bare = |number: &'_ [u8]| number.iter().take_while(|&&byte| byte == 0).count();
    (&modulus[bare(modulus)..], &exponent[bare(exponent)..])
}

/// The content of the first DER value, and what follows it. Empty where there is none: the cipher wrote it, it is well formed.
fn der_value(der: &[u8]) -> (&[u8], &[u8]) {
    let short = usize::from(der.get(1).copied().unwrap_or_default());
    let (start, length) = if short < 0x80 {
        (2, short)
    } else {
        let digits = der.get(2..2 + (short & 0x7f)).unwrap_or_default();
        (2 + digits.len(), digits.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)))
    };
    der.get(start..).and_then(|rest| rest.split_at_checked(length)).unwrap_or_default()
}

fn of_pem(text: &str) -> Result<Key, KeyError> {
    // An environment variable has one line, mostly, and the line breaks are written out.
    let text = Zeroizing::new(text.replace("\\n", "\n"));
    let key = Zeroizing::new(PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::Format)?);
    let der = key.secret_der();
    let rsa = match &*key {
        PrivateKeyDer::Pkcs1(_) => RsaKeyPair::from_der(der),
        _ => RsaKeyPair::from_pkcs8(der),
    };
    if let Ok(rsa) = rsa {
        return usable(rsa);
    }
    let p256 = || EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map(Key::P256);
    let p384 = || EcdsaKeyPair::from_private_key_der(&ECDSA_P384_SHA384_FIXED_SIGNING, der).map(Key::P384);
    let p521 = || EcdsaKeyPair::from_private_key_der(&ECDSA_P521_SHA512_FIXED_SIGNING, der).map(Key::P521);
    let ed25519 = || Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Key::Ed25519);
    p256().or_else(|_| p384()).or_else(|_| p521()).or_else(|_| ed25519()).map_err(|_| KeyError::Kind)
}

fn usable(key: RsaKeyPair) -> Result<Key, KeyError> {
    if key.public_modulus_len() < 256 { Err(KeyError::Kind) } else { Ok(Key::Rsa(key)) }
}

/// The members of a JWK, wiped on drop.
struct Members(Map<String, Value>);

impl Drop for Members {
    fn drop(&mut self) {
        for member in self.0.values_mut() {
            if let Value::String(text) = member {
                text.zeroize();
            }
        }
    }
}

/// RFC 7518 section 6, RFC 8037 section 2; or the JSON file that Google gives a service account.
fn of_jwk(text: &str) -> Result<(Key, Option<String>), KeyError> {
    let jwk = Members(serde_json::from_str(text).map_err(|_| KeyError::Format)?);
    let word = |name: &str| jwk.0.get(name).and_then(Value::as_str);
    let bytes = |name: &str| {
        let coded = word(name).ok_or(KeyError::Format)?;
        URL_SAFE_NO_PAD.decode(coded.trim_end_matches('=')).map(Zeroizing::new).map_err(|_| KeyError::Format)
    };
    let point = || Ok([[4].as_slice(), &bytes("x")?, &bytes("y")?].concat());
    // Google's key files: the key is in PEM form within.
    if let (Some("service_account"), Some(pem)) = (word("type"), word("private_key")) {
        return Ok((of_pem(pem)?, word("private_key_id").map(str::to_owned)));
    }
    let key = match (word("kty"), word("crv")) {
        (Some("RSA"), _) => {
            let public_key = PublicKeyComponents { n: bytes("n")?.to_vec(), e: bytes("e")?.to_vec() };
            let components = KeyPairComponents {
                public_key,
                d: bytes("d")?,
                p: bytes("p")?,
                q: bytes("q")?,
                dP: bytes("dp")?,
                dQ: bytes("dq")?,
                qInv: bytes("qi")?,
            };
            usable(RsaKeyPair::from_components(&components).map_err(|_| KeyError::Kind)?)?
        }
        (Some("EC"), Some(curve @ ("P-256" | "P-384" | "P-521"))) => {
            let (d, point): (_, Vec<u8>) = (bytes("d")?, point()?);
            let (algorithm, key): (_, fn(EcdsaKeyPair) -> Key) = match curve {
                "P-256" => (&ECDSA_P256_SHA256_FIXED_SIGNING, Key::P256),
                "P-384" => (&ECDSA_P384_SHA384_FIXED_SIGNING, Key::P384),
                _ => (&ECDSA_P521_SHA512_FIXED_SIGNING, Key::P521),
            };
            let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &d, &point);
            key(pair.map_err(|_| KeyError::Kind)?)
        }
        (Some("OKP"), Some("Ed25519")) => {
            let pair = Ed25519KeyPair::from_seed_and_public_key(&bytes("d")?, &bytes("x")?);
            Key::Ed25519(pair.map_err(|_| KeyError::Kind)?)
        }
        (Some(_), _) => return Err(KeyError::Kind),
        (None, _) => return Err(KeyError::Format),
    };
    Ok((key, word("kid").map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use rcgen::{
        KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256,
    };

    use super::*;

    #[test]
    fn the_public_half_of_every_kind_of_key_is_the_one_that_belongs_to_it() {
        for kind in
            [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ECDSA_P521_SHA512, &PKCS_ED25519, &PKCS_RSA_SHA256]
        {
            let pair = KeyPair::generate_for(kind).unwrap();
            let key = SigningKey::of_text(&Secret::new(pair.serialize_pem()), None).unwrap();
            let jwk: Value = serde_json::from_str(&key.public_jwk()).unwrap();
            let member = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
            let public = pair.public_key_raw();
            match jwk["kty"].as_str().unwrap() {
                "EC" => assert_eq!([[4].as_slice(), &member("x"), &member("y")].concat(), public),
                "OKP" => assert_eq!(member("x"), public),
                _ => {
                    assert_eq!(member("e"), [1, 0, 1]);
                    assert_eq!(member("n").len(), 256);
                    assert!(public.windows(256).any(|window| window == member("n")));
                }
            }
        }
    }

    #[test]
    fn the_key_file_of_a_service_account_is_read_as_it_is() {
        let pair = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let file = serde_json::json!({
            "type": "service_account", "private_key_id": "k1", "private_key": pair.serialize_pem(),
            "client_email": "robot@project.iam.gserviceaccount.com",
        });
        let key = SigningKey::of_text(&Secret::new(file.to_string()), None).unwrap();
        assert_eq!((key.alg(), key.id()), (Alg::Rs256, Some("k1")));
        let broken = Secret::new(r#"{"type":"service_account"}"#.to_owned());
        assert_eq!(SigningKey::of_text(&broken, None).err(), Some(KeyError::Format));
    }

    #[test]
    fn the_thumbprint_is_over_the_members_of_rfc_7638_in_its_order() {
        let key = SigningKey::generate().unwrap();
        let jwk: Map<String, Value> = serde_json::from_str(&key.public_jwk()).unwrap();
        let text = |name: &str| jwk[name].as_str().unwrap();
        assert_eq!(
            key.public_jwk(),
            format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, text("x"), text("y"))
        );
    }
}
