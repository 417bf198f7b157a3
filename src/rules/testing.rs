//! Model values for the tests of this floor.

use std::{sync::Arc, time::Duration};

use crate::config::model::{
    Assertion, CallerIdentity, CallerSpec, ClientAuth, CredentialSpec, ExpiresUnit, Expiry, GlobSegment, Grant,
    HostPolicy, HttpVersion, Inject, NetSpec, PolicyMode, RouteCallers, RouteSpec, Rule, Scheme, TokenBody,
    TokenMethod, TokenSpec, Upstream, Warm,
};

/// `https://host[:port][/base]`
pub(super) fn upstream(url: &str) -> Upstream {
    let (scheme, rest) = url.split_once("://").expect("a scheme");
    let scheme = if scheme == "http" { Scheme::Http } else { Scheme::Https };
    let (authority, base) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().expect("a port")),
        _ => (authority, scheme.default_port()),
    };
    Upstream {
        scheme,
        host: host.trim_matches(['[', ']']).to_owned(),
        port,
        authority: authority.to_owned(),
        insecure: false,
        base_path: base.to_owned(),
    }
}

fn credential(name: &str) -> CredentialSpec {
    CredentialSpec {
        name: name.to_owned(),
        provider: None,
        client_id: "an-id".to_owned(),
        client_secret: None,
        more_secrets: Vec::new(),
        grant: Grant::ClientCredentials,
        grant_type: None,
        token_url: upstream("https://login.example"),
        token_target: "/token".to_owned(),
        login: crate::config::model::LoginSpec::default(),
        issuer: None,
        refresh_target: None,
        client_auth: ClientAuth::None,
        method: TokenMethod::Post,
        body: TokenBody::Form,
        scopes: Vec::new(),
        scope_separator: " ".to_owned(),
        audience: None,
        resource: Vec::new(),
        params: Vec::new(),
        headers: Vec::new(),
        id_param: "client_id".to_owned(),
        secret_param: "client_secret".to_owned(),
        token_field: "/access_token".to_owned(),
        expires_field: "/expires_in".to_owned(),
        expires_unit: ExpiresUnit::Seconds,
        default_ttl: Duration::from_secs(300),
        expiry: Expiry::Fixed,
        warm: Warm::OnUse,
        share: true,
        net: Arc::new(NetSpec::default()),
        timeout: Duration::from_secs(10),
        budget: None,
        key: None,
        key_cert: None,
        key_id: None,
        alg: None,
        assertion: Assertion::default(),
        dpop: false,
    }
}

/// A route with the file's defaults.
pub(super) fn route(prefix: &str, upstream_url: &str, credential_name: &str) -> RouteSpec {
    let token = TokenSpec {
        credential: Arc::new(credential(credential_name)),
        scopes: Vec::new(),
        audience: None,
        resource: Vec::new(),
    };
    RouteSpec {
        prefix: prefix.to_owned(),
        upstream: upstream(upstream_url),
        net: Arc::clone(&token.credential.net),
        token: Arc::new(token),
        forbidden_paths: Vec::new(),
        unknown_endpoint: false,
        allow: Vec::new(),
        deny: Vec::new(),
        callers: RouteCallers::Known,
        mode: PolicyMode::Enforce,
        inject: Inject { name: "authorization".to_owned(), prefix: "Bearer ".to_owned(), suffix: String::new() },
        set_headers: Vec::new(),
        remove_headers: Vec::new(),
        host: HostPolicy::Upstream,
        connect_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(60),
        body_idle_timeout: Duration::from_secs(60),
        max_body: None,
        replay_buffer: 64 * 1024,
        retry_on: vec![401],
        max_in_flight: 1000,
        http: HttpVersion::Auto,
        allow_empty_segments: false,
        preconnect: 0,
    }
}

/// A caller that may use everything.
pub(super) fn caller(name: &str, identity: CallerIdentity) -> CallerSpec {
    CallerSpec { name: name.to_owned(), identity, routes: None, allow: Vec::new() }
}

/// `METHOD[,METHOD] GLOB`
pub(super) fn rule(text: &str) -> Rule {
    let (methods, glob) = text.split_once(' ').expect("a method and a glob");
    let methods = methods.split(',').filter(|method| *method != "*").map(str::to_owned).collect();
    Rule { text: text.to_owned(), methods, segments: glob_segments(glob) }
}

/// The segments of a glob that begins with `/`.
pub(super) fn glob_segments(glob: &str) -> Vec<GlobSegment> {
    let glob = glob.strip_prefix('/').expect("a glob begins with a slash");
    if glob.is_empty() {
        return Vec::new();
    }
    glob.split('/')
        .map(|segment| match segment {
            "**" => GlobSegment::AnyDepth,
            text => GlobSegment::Parts(text.split('*').map(str::to_owned).collect()),
        })
        .collect()
}
