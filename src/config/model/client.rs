//! `client_auth`: how we prove who we are.

use crate::config::secret::SecretSource;

/// `client_auth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// `Authorization: Basic`, id and secret form-encoded first (RFC 6749 section 2.3.1).
    Basic,
    /// `Authorization: Basic` of the raw bytes, as many servers wrongly expect.
    BasicRaw,
    /// Id and secret as parameters of the body (or of the query with `body = "query"`).
    Post,
    /// A JWT signed with `key`, or a ready one (RFC 7523 section 2.2).
    PrivateKeyJwt,
    /// A JWT signed with the client secret (OpenID Connect Core section 9).
    ClientSecretJwt,
    /// The certificate of `client_cert` (RFC 8705 section 2); the id as a parameter.
    Mtls,
    /// Only the id, as a parameter.
    None,
}

/// `alg` (RFC 7518 section 3.1, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alg {
    /// RSA, PKCS#1 v1.5
    Rs256,
    /// RSA, PKCS#1 v1.5
    Rs384,
    /// RSA, PKCS#1 v1.5
    Rs512,
    /// RSA, PSS
    Ps256,
    /// P-256
    Es256,
    /// P-384
    Es384,
    /// P-521
    Es512,
    /// Ed25519
    EdDsa,
    /// The client secret
    Hs256,
    /// The client secret
    Hs384,
    /// The client secret
    Hs512,
}

impl Alg {
    /// Whether it signs with a shared secret.
    pub fn is_symmetric(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }

    /// As JOSE names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
        }
    }
}

/// `assertion`: of the grant with [`super::Grant::JwtBearer`], else of the client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assertion {
    /// Claims that are not the usual ones. The value `{scopes}` stands for the scopes, `{key_fingerprint}` within a value
    /// for the public key's; an empty value leaves the claim out.
    pub claims: Vec<(String, String)>,
    /// `file`: a ready assertion, re-read for every request.
    pub ready: Option<SecretSource>,
}
