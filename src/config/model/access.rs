//! `[callers.NAME]` and the rules of routes: who may do what.

use std::net::IpAddr;

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

/// `mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyMode {
    /// Denials are denials.
    Enforce,
    /// Denials are only logged.
    Report,
}
