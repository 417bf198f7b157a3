//! What may run: configuration types that cannot be wrong.
//!
//! [`super::resolve`] is the only place that makes them from a file; everything behind it may rely on
//! what the types say (a prefix is canonical, an upstream has no user info, a header name is legal).

mod access;
mod client;
mod credential;
mod grant;
mod log;
mod net;
mod request;
mod route;
mod server;
mod store;
mod upstream;
mod vault;

use std::{net::SocketAddr, sync::Arc};

pub use self::{
    access::{CallerIdentity, CallerSpec, GlobSegment, PolicyMode, RouteCallers, Rule},
    client::{Alg, Assertion, ClientAuth},
    credential::{Budget, CredentialSpec, Expiry, Issuer, LoginSpec, UNTIL_REPLACED, Warm},
    grant::Grant,
    log::{AccessLog, Log, LogFormat},
    net::{ClientCert, EgressKind, EgressProxy, IpFamily, NetSpec},
    request::{ExpiresUnit, Param, TokenBody, TokenMethod},
    route::{HostPolicy, HttpVersion, Inject, RouteSpec, TokenSpec},
    server::{Listen, ListenTls, Server},
    store::{RedisSpec, StoreSpec, Tokens},
    upstream::{Scheme, Upstream},
    vault::{VaultLogin, VaultSpec},
};

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
    /// Whether a secret comes from there.
    pub uses_vault: bool,
    /// `[credentials.*]`, in file order.
    pub credentials: Vec<Arc<CredentialSpec>>,
    /// `[callers.*]`, in file order. Empty = callers need not identify themselves.
    pub callers: Vec<CallerSpec>,
    /// `[[routes]]`, in file order. No two prefixes are equal.
    pub routes: Vec<RouteSpec>,
    /// `[log]`
    pub log: Log,
}
