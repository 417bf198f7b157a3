//! 3+4 route and guard — canonical path → route → host, origin, caller, policy. Synchronous and without
//! side effects; what it approves are the very bytes that are forwarded.

use std::{net::IpAddr, ops::Range};

use aws_lc_rs::digest;

use super::error::{Code, ProxyError};
use crate::{
    config::model::{CallerSpec, Scheme},
    rules::{
        caller::{self, Identified},
        glob::Loose,
        origin::{Hosts, is_preflight},
        path::CanonicalPath,
        policy::{self, Asked, Denial, DenialCode, Verdict},
    },
    snapshot::Snapshot,
    wire::{Kind, RequestHead},
};

/// What a request may do.
#[derive(Debug)]
pub(super) struct Approved<'s> {
    /// Position of its route.
    pub(super) route: usize,
    /// Where the bytes to forward (path and query below the prefix) lie in the request target.
    pub(super) rest: Range<usize>,
    /// Who asked, if known.
    pub(super) caller: Option<&'s CallerSpec>,
    /// What was said to it.
    pub(super) verdict: Verdict<'s>,
}

/// A refusal, and the route and caller that it concerns once they are known.
#[derive(Debug)]
pub(super) struct Refused<'s> {
    pub(super) error: ProxyError,
    pub(super) route: Option<usize>,
    pub(super) caller: Option<&'s CallerSpec>,
    /// The denial, where it was one of callers and policy.
    pub(super) denial: Option<Denial<'s>>,
}

impl From<ProxyError> for Refused<'_> {
    fn from(error: ProxyError) -> Self {
        Self { error, route: None, caller: None, denial: None }
    }
}

/// What a request identifies itself with.
#[derive(Debug)]
pub(super) struct Marks {
    /// Its peer's address.
    pub(super) peer: IpAddr,
    /// SHA-256 of every API key that it presents.
    pub(super) keys: Vec<[u8; 32]>,
}

/// Judges a request head.
pub(super) fn judge<'s>(
    snapshot: &'s Snapshot,
    hosts: &Hosts,
    peer: IpAddr,
    head: &RequestHead,
    bytes: &[u8],
) -> Result<Approved<'s>, Refused<'s>> {
    judge_marked(snapshot, hosts, || Marks { peer, keys: keys(snapshot, head, bytes) }, head, bytes)
}

/// The same with other marks than the head's own: so `explain` can ask for a caller whose key it does not know.
pub(super) fn judge_marked<'s>(
    snapshot: &'s Snapshot,
    hosts: &Hosts,
    marks: impl FnOnce() -> Marks,
    head: &RequestHead,
    bytes: &[u8],
) -> Result<Approved<'s>, Refused<'s>> {
    let method = head.method(bytes);
    hosts.check(head.host(bytes)).map_err(|e| ProxyError::new(Code::Misdirected, e.to_string()))?;
    check_browser(snapshot, method, head, bytes)?;
    if matches!(method, "CONNECT" | "TRACE") {
        return Err(ProxyError::new(Code::MethodRefused, format!("{method} is never forwarded")).into());
    }
    let target = origin_form(head.target(bytes), head.host(bytes), hosts.scheme())?;
    let path = CanonicalPath::parse(target).map_err(|e| ProxyError::new(Code::BadPath, e.to_string()))?;
    let Some(found) = snapshot.table.lookup(&path) else {
        return Err(no_route(snapshot).into());
    };
    let index = found.index;
    let blame = |error, denial, caller| Refused { error, route: Some(index), caller, denial };
    // A server that drops path parameters (`/admin;v=1`) would read a path of another route.
    let loosely = Loose::of(path.decoded());
    if loosely.differs()
        && snapshot.table.longest_prefix(loosely.reading(path.decoded())).map(|(at, _)| at) != Some(index)
    {
        let text = "as a lenient server might read it (path parameters `;…` left out, `//` as one slash), this path belongs to another route";
        return Err(blame(ProxyError::new(Code::BadPath, text), None, None));
    }
    let route = &snapshot.routes[index].spec;
    if path.has_empty_segments() && !route.allow_empty_segments {
        let text = "the path has an empty segment (//); a route may allow it with allow_empty_segments";
        return Err(blame(ProxyError::new(Code::BadPath, text), None, None));
    }
    let no = |denial: Denial<'s>, caller| Err(blame(denied(&denial), Some(denial), caller));
    let marks = marks();
    let caller = match caller::identify(&snapshot.config.callers, &marks.keys, Some(marks.peer)) {
        Identified::None => None,
        Identified::One(at) => snapshot.config.callers.get(at),
        Identified::Conflict => return no(Denial::two_identities(), None),
    };
    let asked = Asked {
        method,
        path: path.decoded(),
        rest_at: found.rest_decoded_offset,
        caller,
        callers_defined: !snapshot.config.callers.is_empty(),
        peer_is_local: caller::is_local(marks.peer),
    };
    let verdict = policy::decide(route, &asked);
    if let Some(denial) = verdict.denied() {
        return no(denial, caller);
    }
    if let Verdict::Allowed { reported: Some(denial), .. } = verdict {
        tracing::warn!(route = route.prefix, method, "policy would deny: {denial}");
    }
    let start = head.target(bytes).len() - target.len();
    let rest = start + found.rest_raw_offset..head.target(bytes).len();
    Ok(Approved { route: index, rest, caller, verdict })
}

fn check_browser(snapshot: &Snapshot, method: &str, head: &RequestHead, bytes: &[u8]) -> Result<(), ProxyError> {
    let asks = head.values(bytes, Kind::AccessControlRequestMethod).next().is_some();
    snapshot
        .browser_origins
        .check(head.values(bytes, Kind::Origin), head.values(bytes, Kind::SecFetchSite), is_preflight(method, asks))
        .map_err(|e| ProxyError::new(Code::OriginRefused, e.to_string()))
}

/// Takes the absolute form (RFC 9112 section 3.2.2) only where it says the same as `Host`: anything else
/// is meant for another server, or for a forward proxy, which this is not.
fn origin_form<'a>(target: &'a [u8], host: &[u8], scheme: Scheme) -> Result<&'a [u8], ProxyError> {
    if target.starts_with(b"/") {
        return Ok(target);
    }
    let scheme_ends = target.windows(3).position(|w| w == b"://");
    let Some(at) = scheme_ends.filter(|&at| target[..at].eq_ignore_ascii_case(scheme.as_str().as_bytes())) else {
        let text = "the request target must be a path; this is a reverse proxy, not a forward proxy";
        return Err(ProxyError::new(Code::BadRequest, text));
    };
    let rest = &target[at + 3..];
    let slash = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    if !rest[..slash].eq_ignore_ascii_case(host) {
        let text = "the request target names another host than the Host header";
        return Err(ProxyError::new(Code::Misdirected, text));
    }
    if rest[slash..].starts_with(b"/") {
        Ok(&rest[slash..])
    } else {
        Err(ProxyError::new(Code::BadRequest, "an absolute request target needs a path"))
    }
}

/// Hashes of the API keys that a head presents: `X-Api-Key`, `Authorization: Bearer`.
fn keys(snapshot: &Snapshot, head: &RequestHead, bytes: &[u8]) -> Vec<[u8; 32]> {
    if !snapshot.has_api_keys {
        return Vec::new();
    }
    let bearer = head.values(bytes, Kind::Authorization).filter_map(|value| {
        let (scheme, key) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
    });
    let hashed = |key| {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, key).as_ref());
        hash
    };
    head.values(bytes, Kind::XApiKey).chain(bearer).map(hashed).collect()
}

fn denied(denial: &Denial<'_>) -> ProxyError {
    let code = match denial.code() {
        DenialCode::CallerUnknown => Code::CallerUnknown,
        DenialCode::CallerDenied => Code::CallerDenied,
        DenialCode::PolicyDenied => Code::PolicyDenied,
    };
    ProxyError::new(code, denial.to_string())
}

/// Names the prefixes only where anyone may know them: with callers defined, a stranger learns nothing.
fn no_route(snapshot: &Snapshot) -> ProxyError {
    const SHOWN: usize = 8;
    if !snapshot.config.callers.is_empty() {
        return ProxyError::new(Code::NoRoute, "no route's prefix covers this path");
    }
    let mut prefixes: Vec<&str> = snapshot.routes.iter().map(|r| r.spec.prefix.as_str()).take(SHOWN).collect();
    if snapshot.routes.len() > SHOWN {
        prefixes.push("…");
    }
    ProxyError::new(Code::NoRoute, format!("no route's prefix covers this path; there are: {}", prefixes.join(", ")))
}
