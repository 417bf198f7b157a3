//! The sections of proxy.toml as written: every key typed and placed, nothing decided yet.

use std::time::Duration;

use super::{
    header::{self, Holds},
    model::{
        Alg, Assertion, Budget, ClientAuth, ExpiresUnit, Expiry, HostPolicy, HttpVersion, IpFamily, LogFormat,
        PolicyMode, TokenBody, TokenMethod, Warm,
    },
    reader::{At, Entry, Kind, Limit, Table},
    secret::SecretSource,
    source,
};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// A parameter or header of the token request.
#[derive(Debug, Clone)]
pub(super) enum RawParam {
    Plain(At<String>),
    Secret(At<SecretSource>),
}

/// `grant`, without what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GrantName {
    ClientCredentials,
    Static,
    Password,
    RefreshToken,
    AuthorizationCode,
    DeviceCode,
    JwtBearer,
    SelfSigned,
    TokenExchange,
}

impl GrantName {
    /// Whether a user has to log in once.
    pub(super) fn is_login(self) -> bool {
        matches!(self, Self::AuthorizationCode | Self::DeviceCode)
    }
}

/// NAME = text or secret source.
pub(super) type RawParams = Vec<(At<String>, RawParam)>;

/// `[credentials.NAME]`, and the `[credential]` of a profile.
#[derive(Debug, Default)]
pub(super) struct RawCredential {
    pub(super) client_id: Option<At<String>>,
    pub(super) client_secret: Option<At<SecretSource>>,
    /// The rest of a list.
    pub(super) more_secrets: Option<Vec<SecretSource>>,
    /// There is a `client_secret`, perhaps a wrong one.
    pub(super) has_secret: bool,
    pub(super) grant: Option<GrantName>,
    pub(super) grant_type: Option<At<String>>,
    pub(super) token: Option<At<SecretSource>>,
    pub(super) username: Option<At<String>>,
    pub(super) password: Option<At<SecretSource>>,
    pub(super) refresh_token: Option<At<SecretSource>>,
    pub(super) refresh_url: Option<At<String>>,
    pub(super) subject_token: Option<At<SecretSource>>,
    pub(super) subject_token_type: Option<At<String>>,
    pub(super) requested_token_type: Option<At<String>>,
    pub(super) key: Option<At<SecretSource>>,
    pub(super) key_cert: Option<At<SecretSource>>,
    pub(super) key_id: Option<At<String>>,
    pub(super) alg: Option<Alg>,
    pub(super) assertion: Option<Assertion>,
    pub(super) authorize_url: Option<At<String>>,
    pub(super) device_url: Option<At<String>>,
    pub(super) redirect_port: Option<u16>,
    pub(super) authorize_params: Option<Vec<(At<String>, At<String>)>>,
    pub(super) issuer: Option<At<String>>,
    pub(super) endpoint_hosts: Option<At<Vec<At<String>>>>,
    pub(super) dpop: Option<bool>,
    pub(super) token_url: Option<At<String>>,
    /// There is a `token_url`, perhaps a wrong one.
    pub(super) has_token_url: bool,
    pub(super) client_auth: Option<ClientAuth>,
    pub(super) method: Option<TokenMethod>,
    pub(super) body: Option<TokenBody>,
    pub(super) scopes: Option<At<Vec<At<String>>>>,
    pub(super) scope_separator: Option<At<String>>,
    pub(super) audience: Option<At<String>>,
    pub(super) resource: Option<At<Vec<At<String>>>>,
    pub(super) params: Option<RawParams>,
    pub(super) headers: Option<RawParams>,
    pub(super) id_param: Option<At<String>>,
    pub(super) secret_param: Option<At<String>>,
    pub(super) token_field: Option<At<String>>,
    pub(super) expires_field: Option<At<String>>,
    pub(super) expires_unit: Option<ExpiresUnit>,
    pub(super) default_ttl: Option<Duration>,
    pub(super) expiry: Option<Expiry>,
    pub(super) warm: Option<Warm>,
    pub(super) share: Option<bool>,
    pub(super) net: RawNet,
    pub(super) client_cert: Option<At<String>>,
    pub(super) client_key: Option<At<SecretSource>>,
    pub(super) timeout: Option<Duration>,
    pub(super) budget: Option<Budget>,
}

impl RawCredential {
    /// Reads the keys that a profile may also give. `provider` and `environment` are read by the caller.
    pub(super) fn read(t: &Table<'_>) -> Self {
        let mut secrets = source::read_list(t, "client_secret").into_iter();
        Self {
            client_id: t.word("client_id"),
            client_secret: secrets.next(),
            more_secrets: Some(secrets.map(|at| at.value).collect::<Vec<_>>()).filter(|more| !more.is_empty()),
            has_secret: t.has("client_secret"),
            grant: t.choice(
                "grant",
                &[
                    ("client_credentials", GrantName::ClientCredentials),
                    ("static", GrantName::Static),
                    ("password", GrantName::Password),
                    ("refresh_token", GrantName::RefreshToken),
                    ("authorization_code", GrantName::AuthorizationCode),
                    ("device_code", GrantName::DeviceCode),
                    ("jwt_bearer", GrantName::JwtBearer),
                    ("self_signed", GrantName::SelfSigned),
                    ("token_exchange", GrantName::TokenExchange),
                ],
            ),
            token: source::read(t, "token"),
            username: t.word("username"),
            password: source::read(t, "password"),
            refresh_token: source::read(t, "refresh_token"),
            refresh_url: t.word("refresh_url"),
            subject_token: source::read(t, "subject_token"),
            subject_token_type: t.word("subject_token_type"),
            requested_token_type: t.word("requested_token_type"),
            key: source::read_text(t, "key"),
            key_cert: source::read_text(t, "key_cert"),
            key_id: t.word("key_id"),
            alg: t.choice("alg", &ALGORITHMS.map(|alg| (alg.as_str(), alg))),
            assertion: assertion(t),
            dpop: t.boolean("dpop").map(|at| at.value),
            grant_type: t.string("grant_type"),
            authorize_url: t.word("authorize_url"),
            device_url: t.word("device_url"),
            redirect_port: t.integer("redirect_port", 0, 65_535).and_then(|at| u16::try_from(at.value).ok()),
            authorize_params: texts(t, "authorize_params"),
            issuer: t.word("issuer"),
            endpoint_hosts: t.strings("endpoint_hosts"),
            token_url: t.word("token_url"),
            has_token_url: t.has("token_url"),
            client_auth: t.choice(
                "client_auth",
                &[
                    ("basic", ClientAuth::Basic),
                    ("basic_raw", ClientAuth::BasicRaw),
                    ("post", ClientAuth::Post),
                    ("private_key_jwt", ClientAuth::PrivateKeyJwt),
                    ("client_secret_jwt", ClientAuth::ClientSecretJwt),
                    ("mtls", ClientAuth::Mtls),
                    ("none", ClientAuth::None),
                ],
            ),
            method: t.choice("method", &[("POST", TokenMethod::Post), ("GET", TokenMethod::Get)]),
            body: t
                .choice("body", &[("form", TokenBody::Form), ("json", TokenBody::Json), ("query", TokenBody::Query)]),
            scopes: t.strings("scopes"),
            scope_separator: t.string("scope_separator"),
            audience: t.word("audience"),
            resource: t.strings("resource"),
            params: params(t, "params"),
            headers: params(t, "headers"),
            id_param: t.string("id_param"),
            secret_param: t.word("secret_param"),
            token_field: t.string("token_field"),
            expires_field: t.string("expires_field"),
            expires_unit: t.choice("expires_unit", &[("s", ExpiresUnit::Seconds), ("ms", ExpiresUnit::Millis)]),
            default_ttl: t.duration("default_ttl", Duration::from_secs(1), 366 * DAY),
            expiry: t.choice("expiry", &[("fixed", Expiry::Fixed), ("sliding", Expiry::Sliding)]),
            warm: t.choice("warm", &[("on_use", Warm::OnUse), ("always", Warm::Always)]),
            share: t.boolean("share").map(|at| at.value),
            net: RawNet::read(t),
            client_cert: t.word("client_cert"),
            client_key: source::read_text(t, "client_key"),
            timeout: t.duration("timeout", 100 * MS, HOUR),
            budget: t.budget("budget"),
        }
    }

    /// Whether there has to be a `client_id`. An empty `id_param` says that the provider knows none.
    pub(super) fn needs_id(&self, client_auth: ClientAuth) -> bool {
        let knows_none = self.id_param.as_ref().is_some_and(|at| at.value.is_empty());
        let own = |grant| matches!(grant, GrantName::ClientCredentials | GrantName::RefreshToken);
        let asks_for_itself = self.grant.is_none_or(|grant| own(grant) || grant.is_login());
        !knows_none && (client_auth != ClientAuth::None || asks_for_itself)
    }

    /// Whether a header of the token request holds this.
    pub(super) fn has_template(&self, holds: Holds) -> bool {
        self.headers.iter().flatten().any(|(_, value)| match value {
            RawParam::Plain(text) => header::template(&text.value) == Ok(Some(holds)),
            RawParam::Secret(_) => false,
        })
    }

    /// What is not given comes from the profile; maps are joined, our own entries first.
    pub(super) fn or(self, profile: Self) -> Self {
        macro_rules! first {
            ($($field:ident)*) => {
                Self {
                    has_secret: self.has_secret,
                    has_token_url: self.has_token_url || profile.has_token_url,
                    params: Some(joined(self.params, profile.params)),
                    headers: Some(joined(self.headers, profile.headers)),
                    net: self.net.or(profile.net),
                    $($field: self.$field.or(profile.$field),)*
                }
            };
        }
        first!(client_id client_secret more_secrets grant grant_type token username password refresh_token refresh_url
            authorize_url device_url redirect_port authorize_params issuer endpoint_hosts subject_token subject_token_type requested_token_type key key_cert key_id alg assertion dpop token_url client_auth method body scopes scope_separator audience
            resource id_param secret_param token_field expires_field expires_unit default_ttl expiry warm share
            client_cert client_key timeout budget)
    }
}

/// How connections leave: of a credential, or of a route.
#[derive(Debug, Default)]
pub(super) struct RawNet {
    pub(super) local_address: Option<At<String>>,
    pub(super) ip_family: Option<IpFamily>,
    pub(super) ca_file: Option<At<String>>,
    pub(super) egress_proxy: Option<At<String>>,
}

impl RawNet {
    fn read(t: &Table<'_>) -> Self {
        Self {
            local_address: t.word("local_address"),
            ip_family: t.choice("ip_family", &[("any", IpFamily::Any), ("v4", IpFamily::V4), ("v6", IpFamily::V6)]),
            ca_file: t.word("ca_file"),
            egress_proxy: t.word("egress_proxy"),
        }
    }

    pub(super) fn says_anything(&self) -> bool {
        let texts = [&self.local_address, &self.ca_file, &self.egress_proxy];
        self.ip_family.is_some() || texts.iter().any(|text| text.is_some())
    }

    fn or(self, profile: Self) -> Self {
        Self {
            local_address: self.local_address.or(profile.local_address),
            ip_family: self.ip_family.or(profile.ip_family),
            ca_file: self.ca_file.or(profile.ca_file),
            egress_proxy: self.egress_proxy.or(profile.egress_proxy),
        }
    }
}

fn joined(ours: Option<RawParams>, profile: Option<RawParams>) -> RawParams {
    let mut ours = ours.unwrap_or_default();
    for (name, value) in profile.unwrap_or_default() {
        if !ours.iter().any(|(n, _)| n.value.eq_ignore_ascii_case(&name.value)) {
            ours.push((name, value));
        }
    }
    ours
}

const ALGORITHMS: [Alg; 11] = [
    Alg::Rs256,
    Alg::Rs384,
    Alg::Rs512,
    Alg::Ps256,
    Alg::Es256,
    Alg::Es384,
    Alg::Es512,
    Alg::EdDsa,
    Alg::Hs256,
    Alg::Hs384,
    Alg::Hs512,
];

/// Claims that every assertion gets anew.
const OWN_CLAIMS: [&str; 4] = ["iat", "nbf", "exp", "jti"];

fn assertion(t: &Table<'_>) -> Option<Assertion> {
    let map = t.map("assertion")?;
    let mut out = Assertion::default();
    for entry in map.entries() {
        if entry.key == "file" {
            let path = map.word("file")?;
            out.ready = Some(SecretSource::File(t.context.dir.join(path.value)));
        } else if OWN_CLAIMS.contains(&entry.key) {
            t.context.error(&entry.key_span, format!("`{}` of an assertion is set for each request", entry.key));
        } else {
            out.claims.push((entry.key.to_owned(), map.entry_text(entry)?.value));
        }
    }
    if out.ready.is_some() && !out.claims.is_empty() {
        let place = t.key_place("assertion");
        t.context.error(&place, "an assertion is either a `file`, which is ready, or has claims to be signed");
    }
    Some(out)
}

fn params(t: &Table<'_>, key: &'static str) -> Option<RawParams> {
    t.learn(key, || Kind::Params);
    let map = t.map(key)?;
    let mut out = Vec::new();
    for entry in map.entries() {
        let value = if entry.value.is_table() {
            source::of_entry(&map, entry).map(RawParam::Secret)
        } else {
            map.entry_text(entry).map(RawParam::Plain)
        };
        let name = At { value: entry.key.to_owned(), span: entry.key_span.clone() };
        out.extend(value.map(|value| (name, value)));
    }
    Some(out)
}

/// `[callers.NAME]` without its identity.
#[derive(Debug)]
pub(super) struct RawCaller {
    pub(super) cidr: Option<At<Vec<At<String>>>>,
    pub(super) routes: Option<At<Vec<At<String>>>>,
    pub(super) allow: Option<At<Vec<At<String>>>>,
}

impl RawCaller {
    pub(super) fn read(t: &Table<'_>) -> Self {
        Self { cidr: t.strings("cidr"), routes: t.strings("routes"), allow: t.strings("allow") }
    }
}

/// `[[routes]]`
pub(super) struct RawRoute<'t> {
    pub(super) table: Table<'t>,
    pub(super) prefix: Option<At<String>>,
    pub(super) api: Option<At<String>>,
    pub(super) upstream: Option<At<String>>,
    pub(super) credential: Option<At<String>>,
    pub(super) scopes: Option<At<Vec<At<String>>>>,
    pub(super) audience: Option<At<String>>,
    pub(super) resource: Option<At<Vec<At<String>>>>,
    pub(super) allow: Option<At<Vec<At<String>>>>,
    pub(super) deny: Option<At<Vec<At<String>>>>,
    pub(super) callers: Option<At<Vec<At<String>>>>,
    pub(super) mode: Option<PolicyMode>,
    pub(super) inject: Option<At<String>>,
    pub(super) set_headers: Vec<(At<String>, At<String>)>,
    pub(super) remove_headers: Option<At<Vec<At<String>>>>,
    pub(super) host: Option<HostPolicy>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) response_timeout: Option<Duration>,
    pub(super) body_idle_timeout: Option<Duration>,
    pub(super) max_body: Option<Limit>,
    pub(super) replay_buffer: Option<Limit>,
    pub(super) retry_on: Option<Vec<u16>>,
    pub(super) max_in_flight: Option<u64>,
    pub(super) insecure_http: bool,
    pub(super) http: Option<HttpVersion>,
    pub(super) allow_empty_segments: bool,
    pub(super) preconnect: Option<u64>,
    pub(super) net: RawNet,
}

impl<'t> RawRoute<'t> {
    pub(super) fn read(t: Table<'t>) -> Self {
        Self {
            prefix: t.string("prefix"),
            api: t.word("api"),
            upstream: t.word("upstream"),
            credential: t.word("credential"),
            scopes: t.strings("scopes"),
            audience: t.word("audience"),
            resource: t.strings("resource"),
            allow: t.strings("allow"),
            deny: t.strings("deny"),
            callers: t.strings("callers"),
            mode: t.choice("mode", &[("enforce", PolicyMode::Enforce), ("report", PolicyMode::Report)]),
            inject: t.word("inject"),
            set_headers: set_headers(&t),
            remove_headers: t.strings("remove_headers"),
            host: t.choice("host", &[("upstream", HostPolicy::Upstream), ("preserve", HostPolicy::Preserve)]),
            connect_timeout: t.duration("connect_timeout", MS, HOUR),
            response_timeout: t.duration("response_timeout", MS, DAY),
            body_idle_timeout: t.duration("body_idle_timeout", MS, DAY),
            max_body: t.size("max_body", 0, u64::MAX >> 1),
            replay_buffer: t.size("replay_buffer", 0, 16 << 20),
            retry_on: t.integers("retry_on", 400, 599),
            max_in_flight: t.integer("max_in_flight", 1, 1_000_000).map(|at| at.value),
            insecure_http: t.boolean("insecure_http").is_some_and(|at| at.value),
            http: t.choice("http", &[("auto", HttpVersion::Auto), ("h1", HttpVersion::H1), ("h2", HttpVersion::H2)]),
            allow_empty_segments: t.boolean("allow_empty_segments").is_some_and(|at| at.value),
            preconnect: t.integer("preconnect", 0, 64).map(|at| at.value),
            net: RawNet::read(&t),
            table: t,
        }
    }
}

/// `set_headers`, of a route or of a profile's `[route]`.
pub(super) fn set_headers(t: &Table<'_>) -> Vec<(At<String>, At<String>)> {
    texts(t, "set_headers").unwrap_or_default()
}

/// NAME = text.
fn texts(t: &Table<'_>, key: &'static str) -> Option<Vec<(At<String>, At<String>)>> {
    let map = t.map(key)?;
    let name = |e: &Entry<'_>| At { value: e.key.to_owned(), span: e.key_span.clone() };
    Some(map.entries().iter().filter_map(|e| Some((name(e), map.entry_text(e)?))).collect())
}

/// `[server]`
#[derive(Debug, Default)]
pub(super) struct RawServer {
    pub(super) workers: Option<u64>,
    pub(super) allowed_hosts: Option<At<Vec<At<String>>>>,
    pub(super) allowed_origins: Option<At<Vec<At<String>>>>,
    pub(super) header_timeout: Option<Duration>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) drain_timeout: Option<Duration>,
    pub(super) max_connections: Option<u64>,
    pub(super) max_connections_per_peer: Option<u64>,
    pub(super) max_header_bytes: Option<Limit>,
    pub(super) resolver: Option<At<Vec<At<String>>>>,
}

impl RawServer {
    /// All but `listen`.
    pub(super) fn read(t: &Table<'_>) -> Self {
        Self {
            workers: t.integer("workers", 0, 1024).map(|at| at.value),
            allowed_hosts: t.strings("allowed_hosts"),
            allowed_origins: t.strings("allowed_origins"),
            header_timeout: t.duration("header_timeout", 10 * MS, HOUR),
            idle_timeout: t.duration("idle_timeout", 10 * MS, DAY),
            drain_timeout: t.duration("drain_timeout", Duration::ZERO, HOUR),
            max_connections: t.integer("max_connections", 1, 1_000_000).map(|at| at.value),
            max_connections_per_peer: t.integer("max_connections_per_peer", 0, 1_000_000).map(|at| at.value),
            max_header_bytes: t.size("max_header_bytes", 1024, 1 << 20),
            resolver: t.strings("resolver"),
        }
    }
}

/// `[log]`
pub(super) fn log_format(t: &Table<'_>) -> Option<LogFormat> {
    t.choice("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)])
}
