//! `[[routes]]`: where a request goes, and with which token.

use std::{sync::Arc, time::Duration};

use super::{
    access::{PolicyMode, RouteCallers, Rule},
    credential::CredentialSpec,
    net::NetSpec,
    upstream::Upstream,
};

/// One `[[routes]]`.
#[derive(Debug, Clone)]
pub struct RouteSpec {
    /// Canonical prefix: empty (everything) or `/…` without a trailing slash.
    pub prefix: String,
    /// Where it leads.
    pub upstream: Upstream,
    /// How connections to it leave: the credential's way, but for what the route says itself. The certificate is the
    /// credential's.
    pub net: Arc<NetSpec>,
    /// The token it needs. There is no route without one.
    pub token: Arc<TokenSpec>,
    /// Paths (decoded, canonical, below the upstream's base) that are never forwarded: the token, refresh and device
    /// endpoints of providers.
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
    /// `preconnect`: connections that each core keeps ready.
    pub preconnect: usize,
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

impl TokenSpec {
    /// Whether it is the same need of the very same credential. Where it is not, the keys may still be equal.
    pub fn is_same(&self, other: &Self) -> bool {
        let Self { credential, scopes, audience, resource } = self;
        Arc::ptr_eq(credential, &other.credential)
            && *scopes == other.scopes
            && *audience == other.audience
            && *resource == other.resource
    }
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
