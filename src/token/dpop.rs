//! 2 … proof of possession (`DPoP`, RFC 9449): with each request, a JWT of its own that is signed with the key which the token is
//! bound to. Whoever steals the token alone cannot use it.
//!
//! [`ProofKey`] signs, for the token endpoint and for upstreams alike. [`Prover`] is what an upstream's request needs; it is
//! published together with its token, so that the two always match. [`Terms`] is what a server has told of itself.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{clock, credential::Material};
use crate::config::{
    model::CredentialSpec,
    signing_key::{KeyError, SigningKey},
};

/// The header of a request that carries the proof.
pub const PROOF: &str = "dpop";

/// The header of an answer that gives the nonce for the next proofs (RFC 9449 section 8).
pub const NONCE: &str = "dpop-nonce";

/// A longer nonce would not fit into anybody's header.
const NONCE_CAP: usize = 2048;

/// A key that proofs are signed with. May be used by several threads at once; its secret half is wiped on drop.
pub struct ProofKey {
    key: SigningKey,
    /// The whole JOSE header in base64url: the same for every proof.
    head: String,
    thumbprint: String,
}

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProofKey({})", self.thumbprint)
    }
}

/// What one proof says.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// `htm`: the request's method.
    pub method: &'a str,
    /// `htu`: where it goes, without query and fragment. Visible ASCII.
    pub url: &'a [u8],
    /// `iat`: now, by the clock of whoever judges it.
    pub at: SystemTime,
    /// `nonce`, where the server wants one.
    pub nonce: Option<&'a str>,
}

impl ProofKey {
    /// From a key that can sign.
    pub fn new(key: SigningKey) -> Self {
        let jwk = key.public_jwk();
        let coded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let head = format!(r#"{{"typ":"dpop+jwt","alg":"{}","jwk":{jwk}}}"#, key.alg().as_str());
        let thumbprint = coded(digest(&SHA256, jwk.as_bytes()).as_ref());
        Self { key, head: coded(head.as_bytes()), thumbprint }
    }

    /// A new one for ES256, which only this process will ever have.
    pub fn generate() -> Result<Self, KeyError> {
        SigningKey::generate().map(Self::new)
    }

    /// The key that `credential` binds its tokens to: the configured one as it was just read, else `own`. `None` where it
    /// binds none.
    pub fn of(
        credential: &CredentialSpec,
        material: &Material,
        own: Option<&Arc<Self>>,
    ) -> Result<Option<Arc<Self>>, KeyError> {
        if !credential.dpop {
            return Ok(None);
        }
        match &material.key {
            Some(text) => Ok(Some(Arc::new(Self::new(SigningKey::of_text(text, credential.key_alg())?)))),
            None => own.cloned().map(Some).ok_or(KeyError::Format),
        }
    }

    /// `jkt`: the SHA-256 of its public half (RFC 7638), by which servers name it.
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// Appends a new proof to `out`. Costs one signature: some 30 µs with ES256, a millisecond with RSA.
    pub fn prove(&self, facts: &Facts<'_>, out: &mut String) -> Result<(), KeyError> {
        self.write(facts, None, out)
    }

    fn write(&self, facts: &Facts<'_>, token_hash: Option<&str>, out: &mut String) -> Result<(), KeyError> {
        let start = out.len();
        out.push_str(&self.head);
        out.push('.');
        URL_SAFE_NO_PAD.encode_string(claims(facts, token_hash)?, out);
        let signature = self.key.sign(&out.as_bytes()[start..])?;
        out.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, out);
        Ok(())
    }
}

/// RFC 9449 section 4.2, as JSON.
fn claims(facts: &Facts<'_>, token_hash: Option<&str>) -> Result<Vec<u8>, KeyError> {
    // 128 random bits: a server remembers them and takes no proof twice.
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| KeyError::Sign)?;
    let at = facts.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut json = Vec::with_capacity(256 + facts.url.len());
    let mut member = |name: &str, value: &[u8]| {
        json.extend_from_slice(if json.is_empty() { b"{\"" } else { b",\"" });
        json.extend_from_slice(name.as_bytes());
        json.extend_from_slice(b"\":\"");
        for &byte in value {
            if matches!(byte, b'"' | b'\\') {
                json.push(b'\\');
            }
            json.push(byte);
        }
        json.push(b'"');
    };
    member("jti", URL_SAFE_NO_PAD.encode(id).as_bytes());
    member("htm", facts.method.as_bytes());
    member("htu", facts.url);
    if let Some(hash) = token_hash {
        member("ath", hash.as_bytes());
    }
    if let Some(nonce) = facts.nonce {
        member("nonce", nonce.as_bytes());
    }
    json.extend_from_slice(format!(",\"iat\":{at}}}").as_bytes());
    Ok(json)
}

/// Proves to upstreams that the holder of one token holds its key too.
#[derive(Clone)]
pub struct Prover {
    key: Arc<ProofKey>,
    /// `ath`: the SHA-256 of the token.
    token_hash: String,
    skew: i64,
}

impl fmt::Debug for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

impl Prover {
    /// For `token`, which is bound to `key`, from a provider whose clock is `skew` seconds ahead of ours.
    pub fn new(key: Arc<ProofKey>, token: &str, skew: i64) -> Self {
        let token_hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes()));
        Self { key, token_hash, skew }
    }

    /// By how many seconds the provider's clock is ahead of ours: the best guess for an upstream that told nothing.
    pub fn skew(&self) -> i64 {
        self.skew
    }

    /// The key's name.
    pub fn thumbprint(&self) -> &str {
        self.key.thumbprint()
    }

    /// Appends a new proof for a request that carries the token. Costs one signature; takes no lock.
    pub fn prove(&self, facts: &Facts<'_>, out: &mut String) -> Result<(), KeyError> {
        self.key.write(facts, Some(&self.token_hash), out)
    }
}

/// What a server has told of itself, as far as proofs depend on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// The nonce that it gave last.
    pub nonce: Option<String>,
    /// By how many seconds its clock is ahead of ours.
    pub skew: Option<i64>,
}

/// The value of a `DPoP-Nonce`, if it may stand in a proof (RFC 9449 section 8.1).
pub(super) fn nonce(value: &[u8]) -> Option<String> {
    let legal = |byte: &u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    let good = (1..=NONCE_CAP).contains(&value.len()) && value.iter().all(legal);
    String::from_utf8(value.to_vec()).ok().filter(|_| good)
}

impl Terms {
    /// These terms with the nonce that an answer brings; `None` where it brings no other one.
    pub fn with_nonce(&self, value: &[u8]) -> Option<Self> {
        let known = self.nonce.as_ref().is_some_and(|nonce| nonce.as_bytes() == value);
        if known { None } else { Some(Self { nonce: Some(nonce(value)?), skew: self.skew }) }
    }

    /// These terms with the clock that an answer's `Date` shows; `None` where that is no other one than `used`.
    pub fn with_clock(&self, date: &[u8], sent: SystemTime, received: SystemTime, used: i64) -> Option<Self> {
        let date = clock::http_date(std::str::from_utf8(date).ok()?)?;
        let skew = clock::skew(date, sent, received);
        clock::differ(skew, used).then(|| Self { skew: Some(skew), nonce: self.nonce.clone() })
    }
}

/// `now` by a clock that is `skew` seconds ahead.
pub fn shifted(now: SystemTime, skew: i64) -> SystemTime {
    let by = Duration::from_secs(skew.unsigned_abs());
    let there = if skew < 0 { now.checked_sub(by) } else { now.checked_add(by) };
    there.unwrap_or(now)
}
