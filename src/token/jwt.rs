//! 2 … signing of JSON Web Tokens (RFC 7515, RFC 7518, RFC 8037) with keys as PEM or JWK. No I/O.

use aws_lc_rs::{
    digest::{SHA256, digest},
    encoding::{AsDer, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    rsa::{KeyPairComponents, PublicKeyComponents},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
        RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
    },
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::config::{model::Alg, secret::Secret};

/// Why nothing can be signed. The texts hold nothing of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Neither PEM nor JWK.
    #[error("key is neither a private key in PEM form (PKCS#8, PKCS#1 or SEC1, not encrypted) nor a private JWK")]
    Format,
    /// A kind of key that no algorithm here is for.
    #[error("key is of a kind that cannot be used: RSA (2048 bits or more), P-256, P-384 and Ed25519 can")]
    Kind,
    /// `alg` needs another kind of key.
    #[error("alg = {0:?} does not go with this kind of key")]
    Algorithm(&'static str),
    /// The cipher failed; there is no reason why it should.
    #[error("signing failed")]
    Sign,
}

/// Signs with one key and one algorithm.
pub struct Signer {
    key: Key,
    alg: Alg,
    /// `kid` of a JWK.
    id: Option<String>,
}

enum Key {
    Hmac(Box<hmac::Key>),
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    /// With a shared secret; HS256 where no algorithm is given.
    pub fn with_secret(secret: &Secret, alg: Option<Alg>) -> Result<Self, JwtError> {
        let alg = alg.unwrap_or(Alg::Hs256);
        let hash = match alg {
            Alg::Hs256 => hmac::HMAC_SHA256,
            Alg::Hs384 => hmac::HMAC_SHA384,
            Alg::Hs512 => hmac::HMAC_SHA512,
            other => return Err(JwtError::Algorithm(other.as_str())),
        };
        Ok(Self { key: Key::Hmac(Box::new(hmac::Key::new(hash, secret.expose().as_bytes()))), alg, id: None })
    }

    /// With a private key; where no algorithm is given, the one that its kind is mostly used with.
    pub fn with_key(text: &Secret, alg: Option<Alg>) -> Result<Self, JwtError> {
        let text = text.expose().trim();
        let (key, id) = if text.starts_with('{') { of_jwk(text)? } else { (of_pem(text)?, None) };
        let usual = match key {
            Key::Hmac(_) | Key::Rsa(_) => Alg::Rs256,
            Key::P256(_) => Alg::Es256,
            Key::P384(_) => Alg::Es384,
            Key::Ed25519(_) => Alg::EdDsa,
        };
        let alg = alg.unwrap_or(usual);
        if alg != usual && (usual, alg) != (Alg::Rs256, Alg::Ps256) {
            return Err(JwtError::Algorithm(alg.as_str()));
        }
        Ok(Self { key, alg, id })
    }

    /// The token in compact form. `id` is the header's `kid`; without one that of the JWK.
    pub fn sign(&self, id: Option<&str>, claims: &Map<String, Value>) -> Result<Secret, JwtError> {
        let mut head = json!({ "alg": self.alg.as_str(), "typ": "JWT" });
        if let Some(id) = id.or(self.id.as_deref()) {
            head["kid"] = id.into();
        }
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let payload = serde_json::to_vec(claims).map_err(|_| JwtError::Sign)?;
        let signed = format!("{}.{}", part(head.to_string().as_bytes()), part(&payload));
        let signature = self.signature(signed.as_bytes())?;
        Ok(Secret::new(format!("{signed}.{}", part(&signature))))
    }

    /// `SHA256:` and base64 of the digest of the public key (DER, `SubjectPublicKeyInfo`), as Snowflake writes it.
    pub fn key_fingerprint(&self) -> Result<String, JwtError> {
        let Key::Rsa(key) = &self.key else { return Err(JwtError::Algorithm(self.alg.as_str())) };
        let der = AsDer::<PublicKeyX509Der<'_>>::as_der(key.public_key()).map_err(|_| JwtError::Kind)?;
        Ok(format!("SHA256:{}", STANDARD.encode(digest(&SHA256, der.as_ref()))))
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, JwtError> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Hmac(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Key::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
            Key::P256(key) | Key::P384(key) => {
                Ok(key.sign(&random, message).map_err(|_| JwtError::Sign)?.as_ref().to_vec())
            }
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                let encoding = if self.alg == Alg::Ps256 { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                key.sign(encoding, &random, message, &mut signature).map_err(|_| JwtError::Sign)?;
                Ok(signature)
            }
        }
    }
}

fn of_pem(text: &str) -> Result<Key, JwtError> {
    // An environment variable has one line, mostly, and the line breaks are written out.
    let text = Zeroizing::new(text.replace("\\n", "\n"));
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| JwtError::Format)?;
    let der = key.secret_der();
    let rsa = match &key {
        PrivateKeyDer::Pkcs1(_) => RsaKeyPair::from_der(der),
        _ => RsaKeyPair::from_pkcs8(der),
    };
    if let Ok(rsa) = rsa {
        return usable(rsa);
    }
    let p256 = || EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map(Key::P256);
    let p384 = || EcdsaKeyPair::from_private_key_der(&ECDSA_P384_SHA384_FIXED_SIGNING, der).map(Key::P384);
    let ed25519 = || Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Key::Ed25519);
    p256().or_else(|_| p384()).or_else(|_| ed25519()).map_err(|_| JwtError::Kind)
}

fn usable(key: RsaKeyPair) -> Result<Key, JwtError> {
    if key.public_modulus_len() < 256 { Err(JwtError::Kind) } else { Ok(Key::Rsa(key)) }
}

/// RFC 7518 section 6, RFC 8037 section 2.
fn of_jwk(text: &str) -> Result<(Key, Option<String>), JwtError> {
    let jwk: Map<String, Value> = serde_json::from_str(text).map_err(|_| JwtError::Format)?;
    let word = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| {
        let coded = word(name).ok_or(JwtError::Format)?;
        URL_SAFE_NO_PAD.decode(coded.trim_end_matches('=')).map(Zeroizing::new).map_err(|_| JwtError::Format)
    };
    let point = || Ok([[4].as_slice(), &bytes("x")?, &bytes("y")?].concat());
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
            usable(RsaKeyPair::from_components(&components).map_err(|_| JwtError::Kind)?)?
        }
        (Some("EC"), Some(curve @ ("P-256" | "P-384"))) => {
            let (d, point): (_, Vec<u8>) = (bytes("d")?, point()?);
            let small = curve == "P-256";
            let algorithm = if small { &ECDSA_P256_SHA256_FIXED_SIGNING } else { &ECDSA_P384_SHA384_FIXED_SIGNING };
            let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &d, &point);
            let pair = pair.map_err(|_| JwtError::Kind)?;
            if small { Key::P256(pair) } else { Key::P384(pair) }
        }
        (Some("OKP"), Some("Ed25519")) => {
            let pair = Ed25519KeyPair::from_seed_and_public_key(&bytes("d")?, &bytes("x")?);
            Key::Ed25519(pair.map_err(|_| JwtError::Kind)?)
        }
        (Some(_), _) => return Err(JwtError::Kind),
        (None, _) => return Err(JwtError::Format),
    };
    Ok((key, word("kid").map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsBigEndian as _, EcPrivateKeyBin};
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, KeyPair as _, RSA_PKCS1_2048_8192_SHA256,
        RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
    };
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};

    use super::*;

    fn claims() -> Map<String, Value> {
        Map::from_iter([("iss".to_owned(), "me".into())])
    }

    /// Signs, and verifies by the public key.
    fn verified(text: &str, alg: Option<Alg>, by: &'static dyn VerificationAlgorithm, public: &[u8]) -> Value {
        let token = Signer::with_key(&Secret::new(text.to_owned()), alg).unwrap().sign(None, &claims()).unwrap();
        let parts: Vec<&str> = token.expose().split('.').collect();
        let [head, payload, signature] = parts[..] else { panic!("three parts") };
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
        let signed = format!("{head}.{payload}");
        UnparsedPublicKey::new(by, public).verify(signed.as_bytes(), &decode(signature)).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&decode(payload)).unwrap(), json!({ "iss": "me" }));
        serde_json::from_slice(&decode(head)).unwrap()
    }

    #[test]
    fn every_algorithm_verifies_from_pem() {
        let cases: [(_, _, &str, &'static dyn VerificationAlgorithm); 5] = [
            (&PKCS_RSA_SHA256, None, "RS256", &RSA_PKCS1_2048_8192_SHA256),
            (&PKCS_RSA_SHA256, Some(Alg::Ps256), "PS256", &RSA_PSS_2048_8192_SHA256),
            (&PKCS_ECDSA_P256_SHA256, None, "ES256", &ECDSA_P256_SHA256_FIXED),
            (&PKCS_ECDSA_P384_SHA384, None, "ES384", &ECDSA_P384_SHA384_FIXED),
            (&PKCS_ED25519, Some(Alg::EdDsa), "EdDSA", &ED25519),
        ];
        for (kind, alg, name, by) in cases {
            let pair = KeyPair::generate_for(kind).unwrap();
            let head = verified(&pair.serialize_pem(), alg, by, pair.public_key_raw());
            assert_eq!(head, json!({ "alg": name, "typ": "JWT" }));
            let one_line = pair.serialize_pem().replace('\n', "\\n");
            verified(&one_line, alg, by, pair.public_key_raw());
        }
    }

    #[test]
    fn a_jwk_signs_and_names_itself() {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref()).unwrap();
        let public = pair.public_key().as_ref();
        let d: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().unwrap();
        let coded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": "k7", "d": coded(d.as_ref()),
            "x": coded(&public[1..33]), "y": coded(&public[33..]) });
        let head = verified(&jwk.to_string(), None, &ECDSA_P256_SHA256_FIXED, public);
        assert_eq!(head["kid"], "k7");
    }

    #[test]
    fn a_shared_secret_signs_and_verifies() {
        let signer = Signer::with_secret(&Secret::new("not-a-secret".to_owned()), Some(Alg::Hs512)).unwrap();
        let token = signer.sign(Some("k1"), &claims()).unwrap();
        let (message, signature) = token.expose().rsplit_once('.').unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA512, b"not-a-secret");
        hmac::verify(&key, message.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    }

    #[test]
    fn what_is_no_private_key_or_goes_with_another_algorithm_is_told_without_quoting_it() {
        let error = |text: &str, alg| Signer::with_key(&Secret::new(text.to_owned()), alg).err().unwrap();
        assert_eq!(error("not-a-key", None), JwtError::Format);
        assert_eq!(error("{\"kty\":\"oct\",\"k\":\"bm90\"}", None), JwtError::Kind);
        assert_eq!(error("{\"kty\":\"EC\",\"crv\":\"P-256\"}", None), JwtError::Format);
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        assert_eq!(error(&pair.serialize_pem(), Some(Alg::Es256)), JwtError::Algorithm("ES256"));
        assert_eq!(error(&pair.public_key_pem(), None), JwtError::Format);
        let hs = Signer::with_secret(&Secret::new("x".to_owned()), Some(Alg::Rs256));
        assert_eq!(hs.err(), Some(JwtError::Algorithm("RS256")));
    }
}
