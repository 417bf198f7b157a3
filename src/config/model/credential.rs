//! `[credentials.NAME]`: what we hold, and how we ask.

use std::{sync::Arc, time::Duration};

use super::{
    client::{Alg, Assertion, ClientAuth},
    grant::Grant,
    net::NetSpec,
    request::{ExpiresUnit, Param, TokenBody, TokenMethod},
    upstream::Upstream,
};
use crate::config::secret::SecretSource;

/// One `[credentials.NAME]`: what we hold and how we ask, profile defaults filled in.
#[derive(Debug, Clone)]
pub struct CredentialSpec {
    /// NAME.
    pub name: String,
    /// The profile it came from.
    pub provider: Option<String>,
    /// The client's id at the provider; no secret. Empty where there is none to send.
    pub client_id: String,
    /// Where the client secret comes from; `None` where [`ClientAuth`] needs none.
    pub client_secret: Option<SecretSource>,
    /// Further entries of a `client_secret` list, for rotation: tried in turn when the provider refuses.
    pub more_secrets: Vec<SecretSource>,
    /// How we ask.
    pub grant: Grant,
    /// The `grant_type` parameter as sent; `None` = not sent (some providers want none).
    pub grant_type: Option<String>,
    /// The token endpoint; [`Upstream::nowhere`] where the grant asks nobody, and the issuer itself as long as the
    /// endpoint has to be discovered ([`Self::is_discovered`]).
    pub token_url: Upstream,
    /// Path and query of the token endpoint as sent in the request line (origin-form).
    pub token_target: String,
    /// What `cupbearer login` needs; of use to its grants only.
    pub login: LoginSpec,
    /// `issuer`, and so perhaps where the endpoints come from.
    pub issuer: Option<Arc<Issuer>>,
    /// `refresh_url`: path and query, at the host of `token_url`, where the refresh token of a login is turned into
    /// the next token; what is refused there is followed by a new login.
    pub refresh_target: Option<String>,
    /// How we prove who we are; exactly one method, never probed.
    pub client_auth: ClientAuth,
    /// `GET` only with [`TokenBody::Query`].
    pub method: TokenMethod,
    /// How parameters are encoded.
    pub body: TokenBody,
    /// `scopes`, in file order.
    pub scopes: Vec<String>,
    /// Joins `scopes` into one parameter.
    pub scope_separator: String,
    /// `audience`, if any.
    pub audience: Option<String>,
    /// RFC 8707 `resource`, one parameter each.
    pub resource: Vec<String>,
    /// Further parameters of the token request.
    pub params: Vec<(String, Param)>,
    /// Further headers of the token request: lower-case legal names.
    pub headers: Vec<(String, Param)>,
    /// Name of the id parameter.
    pub id_param: String,
    /// Name of the secret parameter.
    pub secret_param: String,
    /// JSON pointer (RFC 6901) to the token; the empty pointer means that the whole body is the token.
    pub token_field: String,
    /// JSON pointer to the lifetime.
    pub expires_field: String,
    /// Unit of that lifetime.
    pub expires_unit: ExpiresUnit,
    /// Lifetime where the answer tells none.
    pub default_ttl: Duration,
    /// What the lifetime counts from.
    pub expiry: Expiry,
    /// When the first token is fetched.
    pub warm: Warm,
    /// Whether the token may go to a shared store.
    pub share: bool,
    /// How connections to provider *and* upstream leave this host.
    pub net: Arc<NetSpec>,
    /// The whole token call.
    pub timeout: Duration,
    /// How many token requests the provider grants; no input of the token's key.
    pub budget: Option<Budget>,
    /// Private key, PEM or JWK, re-read for every request; there wherever something is signed with one.
    pub key: Option<SecretSource>,
    /// The certificate of `key`, PEM: its thumbprint stands in the header of what is signed (RFC 7515 section 4.1.8).
    pub key_cert: Option<SecretSource>,
    /// `kid` of what is signed.
    pub key_id: Option<String>,
    /// `None` = by the kind of key.
    pub alg: Option<Alg>,
    /// What is signed, or ready.
    pub assertion: Assertion,
    /// `dpop` (RFC 9449): tokens are bound to a key, `key` or one of this process, and each request proves that we hold it.
    pub dpop: bool,
}

impl CredentialSpec {
    /// Whether the token endpoint is yet to be discovered.
    pub fn is_discovered(&self) -> bool {
        self.issuer.as_ref().is_some_and(|issuer| issuer.tells_token_url)
    }

    /// Whether it needs no refresh token, because its own secrets log in at any time (IX-API).
    pub fn logs_itself_in(&self) -> bool {
        !matches!(self.grant, Grant::RefreshToken { .. }) && !self.grant.is_login()
    }

    /// Whether refresh tokens that come with an answer are kept and used.
    pub fn keeps_refresh_token(&self) -> bool {
        matches!(self.grant, Grant::RefreshToken { .. }) || self.grant.is_login() || self.refresh_target.is_some()
    }

    /// Whether a TLS client certificate is presented, to the provider and to upstreams.
    pub fn presents_certificate(&self) -> bool {
        self.net.client_cert.is_some()
    }

    /// Whether its tokens are of no use to any other process: bound to a key that only this one has.
    pub fn is_bound_to_this_process(&self) -> bool {
        self.dpop && self.key.is_none()
    }

    /// Whether anything in its token requests is signed, and so dated.
    pub fn signs(&self) -> bool {
        let asserts = matches!(self.client_auth, ClientAuth::PrivateKeyJwt | ClientAuth::ClientSecretJwt);
        let in_header = |(_, value): &_| matches!(value, Param::Template(text) if text.contains("{assertion}"));
        self.dpop || asserts || matches!(self.grant, Grant::JwtBearer) || self.headers.iter().any(in_header)
    }

    /// What `key` signs by; `None` = by its kind. An algorithm of the client secret is not meant.
    pub fn key_alg(&self) -> Option<Alg> {
        self.alg.filter(|alg| !alg.is_symmetric())
    }
}

/// `budget`: at most `limit` token requests in any `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Never 0.
    pub limit: u32,
    /// Never zero.
    pub window: Duration,
}

impl Budget {
    /// Requests per second, to tell the stricter of two.
    pub fn rate(&self) -> f64 {
        f64::from(self.limit) / self.window.as_secs_f64()
    }
}

/// The `default_ttl` of a static token whose source is watched: it is used until it is replaced there.
pub const UNTIL_REPLACED: Duration = Duration::from_secs(366 * 86_400);

/// Where and how a user logs in; what is `None` is discovered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoginSpec {
    /// `authorize_url`: where the browser goes, and the target there, perhaps with a query.
    pub authorize_url: Option<(Upstream, String)>,
    /// `device_url`: the device authorization endpoint (RFC 8628 section 3.1), and its target.
    pub device_url: Option<(Upstream, String)>,
    /// `redirect_port`: where the browser comes back to on this machine; 0 = any free port.
    pub redirect_port: u16,
    /// `authorize_params`: further parameters of the authorization request.
    pub authorize_params: Vec<(String, String)>,
}

/// `issuer`: who the provider says it is (RFC 8414 section 2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Issuer {
    /// As written; the provider's own document must say the very same.
    pub identifier: String,
    /// The same as a place; where its documents are found.
    pub url: Upstream,
    /// `endpoint_hosts`: where its endpoints may be, beside the issuer's own host. Lower case.
    pub hosts: Vec<String>,
    /// Nobody wrote down a `token_url`: it has to be discovered.
    pub tells_token_url: bool,
}

impl Issuer {
    /// The endpoints of a provider get the client's secret: they stand on its own host, or on one that is listed.
    pub fn may_have_endpoints_at(&self, host: &str) -> bool {
        self.url.host == host || self.hosts.iter().any(|listed| listed == host)
    }
}

/// `expiry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// From issue.
    Fixed,
    /// From the last use (Mythic Beasts).
    Sliding,
}

/// `warm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warm {
    /// The first request fetches; kept fresh while it is used.
    OnUse,
    /// Fetched at start and kept fresh.
    Always,
}
