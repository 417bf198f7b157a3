//! 2 … the JWT by which a client or a grant is vouched for (RFC 7521, RFC 7523): ready-made, or signed here,
//! a new one for every attempt.

use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value};

use super::{credential::Material, jwt::Signer};
use crate::config::{
    model::{ClientAuth, CredentialSpec, Grant, TokenSpec, Upstream},
    secret::Secret,
    signing_key::KeyError,
};

/// `client_assertion_type`, and `grant_type` of the grant (RFC 7523 section 2).
pub(super) const CLIENT_ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Seconds that an assertion may be used for. One request needs less; a clock that runs behind needs some.
const LIFE: u64 = 60;

/// A clock that is off by more seconds than this may be why one is refused.
pub(super) const LEEWAY: u64 = 30;

/// Seconds by which its beginning is dated back, for a provider whose clock runs behind ours.
const BACKDATED: u64 = 5;

/// Who the client is: `private_key_jwt` and `client_secret_jwt`.
pub(super) fn of_client(spec: &TokenSpec, material: &Material) -> Result<Secret, KeyError> {
    let credential = &*spec.credential;
    let is_grants = matches!(credential.grant, Grant::JwtBearer);
    let ready = material.assertion.as_ref().filter(|_| !is_grants);
    if let Some(ready) = ready.or(material.unsigned.as_ref().map(|(of_client, _)| of_client)) {
        return Ok(ready.clone());
    }
    let signer = match (credential.client_auth, &material.client_secret, &material.key) {
        (ClientAuth::ClientSecretJwt, Some(secret), _) => Signer::with_secret(secret, credential.alg)?,
        (_, _, Some(key)) => Signer::with_key(key, credential.alg)?,
        _ => return Err(KeyError::Format),
    };
    let written: &[(String, String)] = if is_grants { &[] } else { &credential.assertion.claims };
    let claims = claims(spec, written, &signer, (material.signed_at, LIFE))?;
    signer.sign(credential.key_id.as_deref(), material.key_cert.as_ref(), &claims)
}

/// What is asked with: `jwt_bearer`.
pub(super) fn of_grant(spec: &TokenSpec, material: &Material) -> Result<Secret, KeyError> {
    let credential = &*spec.credential;
    if let Some(ready) = material.assertion.as_ref().or(material.unsigned.as_ref().map(|(_, of_grant)| of_grant)) {
        return Ok(ready.clone());
    }
    let signer = Signer::with_key(material.key.as_ref().ok_or(KeyError::Format)?, credential.alg)?;
    let claims = claims(spec, &credential.assertion.claims, &signer, (material.signed_at, LIFE))?;
    signer.sign(credential.key_id.as_deref(), material.key_cert.as_ref(), &claims)
}

/// The token itself: `self_signed`. It lives for `default_ttl`; there is no endpoint that it could be meant for.
pub(super) fn of_self(spec: &TokenSpec, material: &Material) -> Result<Secret, KeyError> {
    let credential = &*spec.credential;
    let signer = Signer::with_key(material.key.as_ref().ok_or(KeyError::Format)?, credential.alg)?;
    let life = credential.default_ttl.as_secs().saturating_sub(BACKDATED).max(1);
    let mut claims = claims(spec, &credential.assertion.claims, &signer, (material.signed_at, life))?;
    if !credential.assertion.claims.iter().any(|(name, _)| name == "aud") {
        claims.remove("aud");
    }
    signer.sign(credential.key_id.as_deref(), material.key_cert.as_ref(), &claims)
}

/// Whether the scopes stand in the grant's assertion, and so not beside it (Google).
pub(super) fn holds_scopes(spec: &TokenSpec) -> bool {
    let credential = &*spec.credential;
    matches!(credential.grant, Grant::JwtBearer) && credential.assertion.claims.iter().any(|(_, v)| v == SCOPES)
}

/// Whether assertions that are signed here vouch for the client or the grant.
pub(super) fn vouches(credential: &CredentialSpec) -> bool {
    let by_client = matches!(credential.client_auth, ClientAuth::PrivateKeyJwt | ClientAuth::ClientSecretJwt);
    (by_client || credential.grant == Grant::JwtBearer) && credential.assertion.ready.is_none()
}

/// In a claim: the scopes that the route needs.
const SCOPES: &str = "{scopes}";

/// Within a claim: the fingerprint of the public key.
const FINGERPRINT: &str = "{key_fingerprint}";

/// In a claim: the token endpoint, for a provider that does not want its issuer as the audience.
const TOKEN_URL: &str = "{token_url}";

/// The written claims; where they say nothing, the client speaks of itself to the provider, by the name of its
/// issuer where that is known, else of the token endpoint. What is written as empty is left out.
fn claims(
    spec: &TokenSpec,
    written: &[(String, String)],
    signer: &Signer,
    (now, life): (SystemTime, u64),
) -> Result<Map<String, Value>, KeyError> {
    let credential = &*spec.credential;
    let mut claims = Map::new();
    for (name, value) in written {
        let scopes = || spec.scopes.join(&credential.scope_separator);
        let value = match value.as_str() {
            SCOPES => scopes(),
            TOKEN_URL => endpoint(credential),
            text if text.contains(FINGERPRINT) => text.replace(FINGERPRINT, &signer.key_fingerprint()?),
            text => text.to_owned(),
        };
        claims.insert(name.clone(), value.into());
    }
    let issuer = claims.get("iss").cloned().unwrap_or_else(|| credential.client_id.clone().into());
    let audience = credential.issuer.as_ref().map_or_else(|| endpoint(credential), |i| i.identifier.clone());
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let from = now.saturating_sub(BACKDATED);
    let usual: [(&str, Value); 7] = [
        ("iss", issuer.clone()),
        ("sub", issuer),
        ("aud", audience.into()),
        ("iat", from.into()),
        ("nbf", from.into()),
        ("exp", (now + life).into()),
        ("jti", random_id().into()),
    ];
    for (name, value) in usual {
        claims.entry(name).or_insert(value);
    }
    claims.retain(|_, value| value != "");
    Ok(claims)
}

fn endpoint(credential: &CredentialSpec) -> String {
    let Upstream { scheme, authority, .. } = &credential.token_url;
    format!("{}://{authority}{}", scheme.as_str(), credential.token_target)
}

/// 128 random bits: a provider remembers it and refuses the assertion a second time.
fn random_id() -> String {
    let mut bytes = [0; 16];
    // Without random numbers TLS would not work either; an empty one is refused by the provider at most.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
