//! A JWT that a client signed, held against the description: the algorithm, the claims, the signature.

use std::sync::LazyLock;

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters, UnparsedPublicKey},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::sandbox::digest::sha256;

/// The one key that every client of a sandbox signs with; a new one in each process.
static KEY: LazyLock<Option<KeyPair>> = LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).ok());

/// That key's private half, as PEM: clients sign with it.
pub(in crate::sandbox) fn private_key() -> String {
    let der = KEY.as_ref().and_then(|key| AsDer::<Pkcs8V1Der<'_>>::as_der(key).ok());
    let text = der.map(|der| STANDARD.encode(der.as_ref())).unwrap_or_default();
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}

/// `SHA256:` and base64 of the digest of the public half (DER, `SubjectPublicKeyInfo`).
fn fingerprint() -> String {
    let der = KEY.as_ref().and_then(|key| AsDer::<PublicKeyX509Der<'_>>::as_der(key.public_key()).ok());
    format!("SHA256:{}", der.map(|der| STANDARD.encode(sha256(der.as_ref()))).unwrap_or_default())
}

/// What a JWT must be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rules {
    alg: String,
    /// `kid`
    key_id: Option<String>,
    /// Claims as they must be, `{client_id}`, `{token_url}` and `{key_fingerprint}` filled in; `{scopes}` may be any
    /// of the scopes. `exp` and `iat` are always needed.
    claims: Map<String, Value>,
    /// Claims that must not be there.
    #[serde(default)]
    without: Vec<String>,
    /// Seconds from `iat` to `exp` at most.
    longest: i64,
}

impl Rules {
    /// The claims of a JWT that is as it must be; else why not.
    pub(super) fn check(&self, jwt: &str, client_id: &str, token_url: &str) -> Result<Map<String, Value>, String> {
        let parts: Vec<&str> = jwt.split('.').collect();
        let [head, payload, signature] = parts[..] else { return Err("is not a JWT".to_owned()) };
        let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| "is not base64url".to_owned());
        let object =
            |part: &str| serde_json::from_slice::<Map<String, Value>>(&bytes(part)?).map_err(|e| e.to_string());
        let (head, claims) = (object(head)?, object(payload)?);
        if head.get("alg").and_then(Value::as_str) != Some(&self.alg) {
            return Err(format!("must be signed with {}", self.alg));
        }
        if self.key_id.as_deref() != head.get("kid").and_then(Value::as_str) {
            return Err(format!("must have the kid {:?}", self.key_id));
        }
        let parameters: &RsaParameters =
            if self.alg == "PS256" { &RSA_PSS_2048_8192_SHA256 } else { &RSA_PKCS1_2048_8192_SHA256 };
        let signed = &jwt.as_bytes()[..jwt.len() - signature.len() - 1];
        let key = KEY.as_ref().map(|key| UnparsedPublicKey::new(parameters, key.public_key().as_ref()));
        let signature = bytes(signature)?;
        if key.is_none_or(|key| key.verify(signed, &signature).is_err()) {
            return Err("has a signature of another key".to_owned());
        }
        self.check_claims(&claims, client_id, token_url)?;
        Ok(claims)
    }

    fn check_claims(&self, claims: &Map<String, Value>, client_id: &str, token_url: &str) -> Result<(), String> {
        for (name, wanted) in self.claims.iter().filter(|(_, wanted)| *wanted != "{scopes}") {
            let filled = wanted.as_str().map(|text| {
                let text = text.replace("{client_id}", client_id).replace("{token_url}", token_url);
                Value::from(text.replace("{key_fingerprint}", &fingerprint()))
            });
            if claims.get(name) != filled.as_ref() {
                return Err(format!("must have the claim {name} = {}", filled.unwrap_or_default()));
            }
        }
        if let Some(name) = self.without.iter().find(|name| claims.contains_key(*name)) {
            return Err(format!("must not have the claim {name}"));
        }
        let second = |name: &str| claims.get(name).and_then(Value::as_i64).ok_or_else(|| format!("has no {name}"));
        let (from, to, now) = (second("iat")?, second("exp")?, Timestamp::now().as_second());
        if from > now || to <= now || to - from > self.longest {
            return Err(format!("must live now, and for {} s at most", self.longest));
        }
        Ok(())
    }

    /// The claim that holds the scopes.
    pub(super) fn scope_claim(&self) -> Option<&String> {
        self.claims.iter().find(|(_, wanted)| *wanted == "{scopes}").map(|(name, _)| name)
    }
}
