//! 2 … signing of JSON Web Tokens (RFC 7515, RFC 7518, RFC 8037) with keys as PEM or JWK. No I/O.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use crate::config::{
    model::Alg,
    secret::Secret,
    signing_key::{KeyError, SigningKey, Thumbprints},
};

/// Signs with one key and one algorithm.
pub struct Signer {
    key: Key,
    alg: Alg,
}

enum Key {
    Shared(Box<hmac::Key>),
    Private(SigningKey),
}

impl Signer {
    /// With a shared secret; HS256 where no algorithm is given.
    pub fn with_secret(secret: &Secret, alg: Option<Alg>) -> Result<Self, KeyError> {
        let alg = alg.unwrap_or(Alg::Hs256);
        let hash = match alg {
            Alg::Hs256 => hmac::HMAC_SHA256,
            Alg::Hs384 => hmac::HMAC_SHA384,
            Alg::Hs512 => hmac::HMAC_SHA512,
            other => return Err(KeyError::Algorithm(other.as_str())),
        };
        Ok(Self { key: Key::Shared(Box::new(hmac::Key::new(hash, secret.expose().as_bytes()))), alg })
    }

    /// With a private key; where no algorithm is given, the one that its kind is mostly used with.
    pub fn with_key(text: &Secret, alg: Option<Alg>) -> Result<Self, KeyError> {
        let key = SigningKey::of_text(text, alg)?;
        Ok(Self { alg: key.alg(), key: Key::Private(key) })
    }

    /// The token in compact form. `id` is the header's `kid`; without one that of the JWK. The certificate is named by SHA-256,
    /// and beside RS256, which older servers want (AD FS), by SHA-1 too.
    pub fn sign(
        &self,
        id: Option<&str>,
        certificate: Option<&Thumbprints>,
        claims: &Map<String, Value>,
    ) -> Result<Secret, KeyError> {
        let mut head = json!({ "alg": self.alg.as_str(), "typ": "JWT" });
        if let Some(id) = id.or(self.own_id()) {
            head["kid"] = id.into();
        }
        if let Some(Thumbprints { sha1, sha256 }) = certificate {
            head["x5t#S256"] = sha256.as_str().into();
            if self.alg == Alg::Rs256 {
                head["x5t"] = sha1.as_str().into();
            }
        }
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let payload = serde_json::to_vec(claims).map_err(|_| KeyError::Sign)?;
        let signed = format!("{}.{}", part(head.to_string().as_bytes()), part(&payload));
        let signature = self.signature(signed.as_bytes())?;
        Ok(Secret::new(format!("{signed}.{}", part(&signature))))
    }

    /// `SHA256:` and base64 of the digest of the public key (DER, `SubjectPublicKeyInfo`), as Snowflake writes it.
    pub fn key_fingerprint(&self) -> Result<String, KeyError> {
        match &self.key {
            Key::Private(key) => key.fingerprint(),
            Key::Shared(_) => Err(KeyError::Algorithm(self.alg.as_str())),
        }
    }

    fn own_id(&self) -> Option<&str> {
        match &self.key {
            Key::Shared(_) => None,
            Key::Private(key) => key.id(),
        }
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.key {
            Key::Shared(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Key::Private(key) => key.sign(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsBigEndian as _, EcPrivateKeyBin};
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{
            ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED,
            ED25519, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
            RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
        },
    };
    use rcgen::{
        KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256,
    };

    use super::*;

    fn claims() -> Map<String, Value> {
        Map::from_iter([("iss".to_owned(), "me".into())])
    }

    /// Signs, and verifies by the public key.
    fn verified(text: &str, alg: Option<Alg>, by: &'static dyn VerificationAlgorithm, public: &[u8]) -> Value {
        let token = Signer::with_key(&Secret::new(text.to_owned()), alg).unwrap().sign(None, None, &claims()).unwrap();
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
        let cases: [(_, _, &str, &'static dyn VerificationAlgorithm); 8] = [
            (&PKCS_RSA_SHA256, None, "RS256", &RSA_PKCS1_2048_8192_SHA256),
            (&PKCS_RSA_SHA256, Some(Alg::Rs384), "RS384", &RSA_PKCS1_2048_8192_SHA384),
            (&PKCS_RSA_SHA256, Some(Alg::Rs512), "RS512", &RSA_PKCS1_2048_8192_SHA512),
            (&PKCS_RSA_SHA256, Some(Alg::Ps256), "PS256", &RSA_PSS_2048_8192_SHA256),
            (&PKCS_ECDSA_P256_SHA256, None, "ES256", &ECDSA_P256_SHA256_FIXED),
            (&PKCS_ECDSA_P384_SHA384, None, "ES384", &ECDSA_P384_SHA384_FIXED),
            (&PKCS_ECDSA_P521_SHA512, None, "ES512", &ECDSA_P521_SHA512_FIXED),
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
        let token = signer.sign(Some("k1"), None, &claims()).unwrap();
        let (message, signature) = token.expose().rsplit_once('.').unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA512, b"not-a-secret");
        hmac::verify(&key, message.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    }

    #[test]
    fn what_is_no_private_key_or_goes_with_another_algorithm_is_told_without_quoting_it() {
        let error = |text: &str, alg| Signer::with_key(&Secret::new(text.to_owned()), alg).err().unwrap();
        assert_eq!(error("not-a-key", None), KeyError::Format);
        assert_eq!(error("{\"kty\":\"oct\",\"k\":\"bm90\"}", None), KeyError::Kind);
        assert_eq!(error("{\"kty\":\"EC\",\"crv\":\"P-256\"}", None), KeyError::Format);
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        assert_eq!(error(&pair.serialize_pem(), Some(Alg::Es256)), KeyError::Algorithm("ES256"));
        assert_eq!(error(&pair.public_key_pem(), None), KeyError::Format);
        let hs = Signer::with_secret(&Secret::new("x".to_owned()), Some(Alg::Rs256));
        assert_eq!(hs.err(), Some(KeyError::Algorithm("RS256")));
    }
}
