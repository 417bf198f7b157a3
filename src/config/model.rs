//! What may run: configuration types that cannot be wrong.
//!
//! [`super::resolve`] is the only place that makes them from a file; everything behind it may rely on
//! what the types say (a prefix is canonical, an upstream has no user info, a header name is legal).

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use super::secret::SecretSource;

/// A whole configuration, resolved and consistent.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[admin]`; `None` = no admin listener.
    pub admin: Option<SocketAddr>,
    /// `[tokens]`
    pub tokens: Tokens,
    /// `[vault]` and its variables; there wherever a secret comes from Vault.
    pub vault: Option<VaultSpec>,
    /// `[credentials.*]`, in file order.
    pub credentials: Vec<Arc<CredentialSpec>>,
    /// `[callers.*]`, in file order. Empty = callers need not identify themselves.
    pub callers: Vec<CallerSpec>,
    /// `[[routes]]`, in file order. No two prefixes are equal.
    pub routes: Vec<RouteSpec>,
    /// `[log]`
    pub log: Log,
}

/// `[server]`: where callers connect and what is refused before anything else.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where callers connect.
    pub listen: Vec<Listen>,
    /// Worker threads; never 0 here (the file's 0 became the number of cores).
    pub workers: usize,
    /// Further `Host` values that pass: lower case, `name` (any port) or `name:port`.
    pub allowed_hosts: Vec<String>,
    /// Browser origins that pass: lower case, `scheme://host[:port]`.
    pub allowed_origins: Vec<String>,
    /// From the first byte of a request head to its end.
    pub header_timeout: Duration,
    /// How long a keep-alive connection may stand idle.
    pub idle_timeout: Duration,
    /// How long running requests may take to finish at shutdown.
    pub drain_timeout: Duration,
    /// Caller connections, over all workers.
    pub max_connections: usize,
    /// Size of a request head: request line and fields.
    pub max_header_bytes: usize,
}

/// One entry of `listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// TCP address.
    pub address: SocketAddr,
    /// `None` = plain HTTP.
    pub tls: Option<ListenTls>,
}

impl Listen {
    /// What callers write before its address.
    pub fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::Https } else { Scheme::Http }
    }
}

/// `tls` of a listener: files that are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenTls {
    /// `cert`: the chain, in PEM form, its own certificate first.
    pub cert: PathBuf,
    /// `key`: the private key, in PEM form.
    pub key: PathBuf,
}

/// `[tokens]`: where tokens outlive the process.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// `store`
    pub store: StoreSpec,
    /// `seal_key`: 32 bytes in base64. Needed by every store but memory.
    pub seal_key: Option<SecretSource>,
}

/// `tokens.store`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StoreSpec {
    /// In this process alone.
    #[default]
    Memory,
    /// In sealed files of this directory.
    File(PathBuf),
    /// In a Redis or Valkey that several replicas share, sealed too.
    Redis(RedisSpec),
}

/// `tokens.store = { redis = "redis://HOST:PORT/DATABASE", … }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSpec {
    /// `https` for `rediss://`.
    pub scheme: Scheme,
    /// `ca_file`.
    pub net: Arc<NetSpec>,
    /// DNS name or address literal, IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Number of the database.
    pub database: u32,
    /// Of an ACL user; `None` = the default user.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<SecretSource>,
}

/// `[vault]`: the server that `{ vault = … }` secrets come from.
#[derive(Debug, Clone)]
pub struct VaultSpec {
    /// Its address; plain http only to this machine.
    pub address: Upstream,
    /// How we log in.
    pub login: VaultLogin,
    /// Sent as `X-Vault-Namespace`.
    pub namespace: Option<String>,
    /// How connections to it leave.
    pub net: Arc<NetSpec>,
}

/// How we log in to Vault.
#[derive(Debug, Clone)]
pub enum VaultLogin {
    /// With a token, re-read for each request: an agent may renew it.
    Token(SecretSource),
    /// By `AppRole`.
    AppRole {
        /// Where the method is mounted below `auth/`.
        mount: String,
        /// `role_id`; no secret.
        role_id: String,
        /// `secret_id`; some roles need none.
        secret_id: Option<SecretSource>,
    },
}

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
    /// `kid` of what is signed.
    pub key_id: Option<String>,
    /// `None` = by the kind of key.
    pub alg: Option<Alg>,
    /// What is signed, or ready.
    pub assertion: Assertion,
    /// `dpop` (RFC 9449): tokens are bound to a key, `key` or one of this process, and each request proves that we hold it.
    pub dpop: bool,
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

/// A parameter or header of the token request: plain text, or a secret.
#[derive(Debug, Clone)]
pub enum Param {
    /// Written in the file.
    Plain(String),
    /// The value of a header, holding `{client_id}`, `{client_secret}`, `{basic}` (base64 of `id:secret`) or
    /// `{assertion}` (a JWT signed with `key`).
    Template(String),
    /// Read from a secret source at each token request.
    Secret(SecretSource),
}

/// `grant`, with what it alone needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// RFC 6749 section 4.4.
    ClientCredentials,
    /// No token request: the token itself comes from a secret source.
    Static {
        /// `token`
        token: SecretSource,
    },
    /// RFC 6749 section 4.3.
    Password {
        /// `username`
        username: String,
        /// `password`
        password: SecretSource,
    },
    /// RFC 6749 section 6, with rotation.
    RefreshToken {
        /// `refresh_token`: the first one; the rotated ones live in the store.
        first: Option<SecretSource>,
    },
    /// RFC 6749 section 4.1, by `cupbearer login`; from then on as [`Grant::RefreshToken`].
    AuthorizationCode,
    /// RFC 8628, likewise.
    DeviceCode,
    /// RFC 7523 section 2.1: with the credential's assertion.
    JwtBearer,
    /// No token request: the token is a JWT of our own, signed with `key`, for providers that take it as a bearer.
    SelfSigned,
    /// RFC 8693.
    TokenExchange {
        /// `subject_token`
        subject_token: SecretSource,
        /// `subject_token_type`, a URI.
        subject_token_type: String,
        /// `requested_token_type`, a URI.
        requested_token_type: Option<String>,
    },
}

impl Grant {
    /// As the file names it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::Static { .. } => "static",
            Self::Password { .. } => "password",
            Self::RefreshToken { .. } => "refresh_token",
            Self::AuthorizationCode => "authorization_code",
            Self::DeviceCode => "device_code",
            Self::JwtBearer => "jwt_bearer",
            Self::SelfSigned => "self_signed",
            Self::TokenExchange { .. } => "token_exchange",
        }
    }

    /// Whether a user has to log in once, by `cupbearer login`.
    pub fn is_login(&self) -> bool {
        matches!(self, Self::AuthorizationCode | Self::DeviceCode)
    }

    /// Its `grant_type` where nothing else is configured.
    pub fn grant_type(&self) -> &'static str {
        match self {
            Self::JwtBearer => "urn:ietf:params:oauth:grant-type:jwt-bearer",
            Self::DeviceCode => "urn:ietf:params:oauth:grant-type:device_code",
            Self::TokenExchange { .. } => "urn:ietf:params:oauth:grant-type:token-exchange",
            other => other.as_str(),
        }
    }

    /// Whether the token is here already, and nobody is asked.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Static { .. } | Self::SelfSigned)
    }

    /// The secret that the grant itself brings.
    pub fn source(&self) -> Option<&SecretSource> {
        match self {
            Self::ClientCredentials
            | Self::AuthorizationCode
            | Self::DeviceCode
            | Self::JwtBearer
            | Self::SelfSigned => None,
            Self::TokenExchange { subject_token, .. } => Some(subject_token),
            Self::Static { token } => Some(token),
            Self::Password { password, .. } => Some(password),
            Self::RefreshToken { first } => first.as_ref(),
        }
    }
}

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
    /// RSA, PSS
    Ps256,
    /// P-256
    Es256,
    /// P-384
    Es384,
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
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
        }
    }
}

/// `assertion`: of the grant with [`Grant::JwtBearer`], else of the client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assertion {
    /// Claims that are not the usual ones. The value `{scopes}` stands for the scopes, `{key_fingerprint}` within a value
    /// for the public key's; an empty value leaves the claim out.
    pub claims: Vec<(String, String)>,
    /// `file`: a ready assertion, re-read for every request.
    pub ready: Option<SecretSource>,
}

/// `body`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenBody {
    /// `application/x-www-form-urlencoded`
    Form,
    /// `application/json`, one object; names that are JSON pointers make it a deep one.
    Json,
    /// In the query of the request target, without a body.
    Query,
}

/// `method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenMethod {
    /// POST
    Post,
    /// GET
    Get,
}

/// `expires_unit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiresUnit {
    /// s
    Seconds,
    /// ms
    Millis,
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

/// What one route needs of its credential. Routes whose needs lead to equal keys share one token.
#[derive(Debug, Clone)]
pub struct TokenSpec {
    /// Who asks.
    pub credential: Arc<CredentialSpec>,
    /// What for: the route's own `scopes`, else the API's, else the credential's.
    pub scopes: Vec<String>,
    /// `audience`, the same way.
    pub audience: Option<String>,
    /// `resource`, the same way.
    pub resource: Vec<String>,
}

/// How connections leave this host. Connections with different specs are never shared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct NetSpec {
    /// Source address.
    pub local_address: Option<IpAddr>,
    /// Which family of a name's addresses may be used.
    pub ip_family: IpFamily,
    /// Roots in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// Everything goes through this proxy, as a tunnel; the other rules hold for the way to it.
    pub egress_proxy: Option<EgressProxy>,
    /// Presented wherever a server asks for one.
    pub client_cert: Option<ClientCert>,
}

/// `client_cert` and `client_key`: re-read for every token request, and when they change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientCert {
    /// The chain, in PEM form. A file, and no secret, but read and watched like one.
    pub chain: SecretSource,
    /// The private key of its first certificate, in PEM form.
    pub key: SecretSource,
}

/// `egress_proxy = "http://HOST:PORT"` or `"socks5://HOST:PORT"`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EgressProxy {
    /// What it speaks.
    pub kind: EgressKind,
    /// DNS name or address literal, IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// What an egress proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EgressKind {
    /// HTTP CONNECT.
    Http,
    /// SOCKS5; names are resolved by the proxy.
    Socks5,
}

/// `ip_family`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum IpFamily {
    /// Both.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain text; only to loopback unless the route says `insecure_http`.
    Http,
    /// TLS 1.2 or 1.3.
    Https,
}

impl Scheme {
    /// As written in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that goes without saying.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Scheme, host, port and base path: the only place where a token of a route may go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// Scheme.
    pub scheme: Scheme,
    /// Lower-case DNS name or address literal, IPv6 *without* brackets.
    pub host: String,
    /// Port, always explicit here.
    pub port: u16,
    /// What `Host` says: brackets around IPv6, the port only where it is not the default.
    pub authority: String,
    /// Plain text may leave this host (`insecure_http`); checked again on the address at each connection.
    pub insecure: bool,
    /// Base path: empty, or `/…` without a trailing slash; canonical (no dot segments, no query).
    pub base_path: String,
}

impl Upstream {
    /// A place that does not exist (RFC 2606 section 2), for what never connects.
    pub fn nowhere() -> Self {
        let host = "nowhere.invalid".to_owned();
        let (scheme, authority) = (Scheme::Https, host.clone());
        Self { scheme, host, port: 443, authority, insecure: false, base_path: String::new() }
    }
}

impl fmt::Display for Upstream {
    /// As a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority, self.base_path)
    }
}

/// One `[callers.NAME]`.
#[derive(Debug, Clone)]
pub struct CallerSpec {
    /// NAME.
    pub name: String,
    /// How it is recognised.
    pub identity: CallerIdentity,
    /// Prefixes it may use; `None` = all.
    pub routes: Option<Vec<String>>,
    /// Allow-rules on top of the route's own; empty = everything that the route allows.
    pub allow: Vec<Rule>,
}

/// How a caller is recognised.
#[derive(Debug, Clone)]
pub enum CallerIdentity {
    /// SHA-256 of its API key.
    ApiKey([u8; 32]),
    /// An address range, as (network, prefix length).
    Cidr(Vec<(IpAddr, u8)>),
}

/// `METHOD[,METHOD] GLOB`, below the route's prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The rule as written, for messages.
    pub text: String,
    /// Upper-case methods; empty = any (`*`). `GET` covers `HEAD`.
    pub methods: Vec<String>,
    /// The glob's segments.
    pub segments: Vec<GlobSegment>,
}

/// One segment of a glob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GlobSegment {
    /// `**`: any number of segments, also none.
    AnyDepth,
    /// Literal text with `*` wildcards inside one segment: the parts between the stars
    /// (`["a"]` = exactly `a`; `["", ""]` = `*`, one segment of any text).
    Parts(Vec<String>),
}

/// Who may use a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteCallers {
    /// Any known caller; anyone where no caller is defined.
    Known,
    /// Only these.
    Named(Vec<String>),
    /// `["*"]`: anyone, on loopback only.
    Anyone,
}

/// `mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyMode {
    /// Denials are denials.
    Enforce,
    /// Denials are only logged.
    Report,
}

/// One `[[routes]]`.
#[derive(Debug, Clone)]
pub struct RouteSpec {
    /// Canonical prefix: empty (everything) or `/…` without a trailing slash.
    pub prefix: String,
    /// Where it leads.
    pub upstream: Upstream,
    /// The token it needs. There is no route without one.
    pub token: Arc<TokenSpec>,
    /// Paths (decoded, canonical, below the upstream's base) that are never forwarded: the provider's own token endpoint.
    pub forbidden_paths: Vec<String>,
    /// A provider whose token endpoint is yet to be discovered stands on this very host: until its path is known,
    /// every path that looks like one is forbidden.
    pub unknown_endpoint: bool,
    /// `allow`
    pub allow: Vec<Rule>,
    /// `deny`
    pub deny: Vec<Rule>,
    /// `callers`
    pub callers: RouteCallers,
    /// `mode`
    pub mode: PolicyMode,
    /// `inject`
    pub inject: Inject,
    /// `set_headers`: lower-case legal names and values.
    pub set_headers: Vec<(String, String)>,
    /// `remove_headers`: lower-case names.
    pub remove_headers: Vec<String>,
    /// `host`
    pub host: HostPolicy,
    /// `connect_timeout`
    pub connect_timeout: Duration,
    /// `response_timeout`: from the request's last byte to the response head.
    pub response_timeout: Duration,
    /// `body_idle_timeout`
    pub body_idle_timeout: Duration,
    /// `max_body`
    pub max_body: Option<u64>,
    /// `replay_buffer`
    pub replay_buffer: usize,
    /// `retry_on`: statuses that mean "this token is no good".
    pub retry_on: Vec<u16>,
    /// `max_in_flight`
    pub max_in_flight: usize,
    /// `http`
    pub http: HttpVersion,
    /// `allow_empty_segments`
    pub allow_empty_segments: bool,
}

/// `http`: what is spoken with the upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// What ALPN gives; HTTP/1.1 without TLS.
    #[default]
    Auto,
    /// HTTP/1.1.
    H1,
    /// HTTP/2; without TLS by prior knowledge (RFC 9113 section 3.3).
    H2,
}

/// `inject`: `NAME: PREFIX{token}SUFFIX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inject {
    /// Lower-case header name.
    pub name: String,
    /// Before the token.
    pub prefix: String,
    /// After the token.
    pub suffix: String,
}

/// `host`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPolicy {
    /// The upstream's own name.
    Upstream,
    /// What the caller sent.
    Preserve,
}

/// `[log]`
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// `format`
    pub format: LogFormat,
    /// `access`
    pub access: AccessLog,
}

/// `log.format`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// `log.access`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// No access line.
    #[default]
    Off,
    /// To standard output.
    Stdout,
    /// To standard error.
    Stderr,
    /// Appended to a file.
    File(PathBuf),
}
