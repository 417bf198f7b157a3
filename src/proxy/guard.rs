//! 3+4 route and guard — canonical path → route → host, origin, caller, policy. Synchronous and without
//! side effects; what it approves are the very bytes that are forwarded.

use std::{net::IpAddr, ops::Range};

use aws_lc_rs::digest;

use super::error::{Code, ProxyError};
use crate::{
    rules::{
        caller::{self, Identified},
        origin::{Hosts, is_preflight},
        path::CanonicalPath,
        policy::{self, Asked, Denial, DenialCode},
    },
    snapshot::Snapshot,
    wire::{Kind, RequestHead},
};

/// What a request may do.
#[derive(Debug)]
pub(super) struct Approved {
    /// Position of its route.
    pub(super) route: usize,
    /// Where the bytes to forward (path and query below the prefix) lie in the request target.
    pub(super) rest: Range<usize>,
}

/// A refusal, and the route that it concerns once that is known.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) error: ProxyError,
    pub(super) route: Option<usize>,
}

impl From<ProxyError> for Refused {
    fn from(error: ProxyError) -> Self {
        Self { error, route: None }
    }
}

/// Judges a request head.
pub(super) fn judge(
    snapshot: &Snapshot,
    hosts: &Hosts,
    peer: IpAddr,
    head: &RequestHead,
    bytes: &[u8],
) -> Result<Approved, Refused> {
    let method = head.method(bytes);
    hosts.check(head.host(bytes)).map_err(|e| ProxyError::new(Code::Misdirected, e.to_string()))?;
    check_browser(snapshot, method, head, bytes)?;
    if matches!(method, "CONNECT" | "TRACE") {
        return Err(ProxyError::new(Code::MethodRefused, format!("{method} is never forwarded")).into());
    }
    let target = origin_form(head.target(bytes), head.host(bytes))?;
    let path = CanonicalPath::parse(target).map_err(|e| ProxyError::new(Code::BadPath, e.to_string()))?;
    let Some(found) = snapshot.table.lookup(&path) else {
        return Err(no_route(snapshot).into());
    };
    let index = found.index;
    let blame = |error| Refused { error, route: Some(index) };
    let route = &snapshot.routes[index].spec;
    if path.has_empty_segments() && !route.allow_empty_segments {
        let text = "the path has an empty segment (//); a route may allow it with allow_empty_segments";
        return Err(blame(ProxyError::new(Code::BadPath, text)));
    }
    let caller = match identify(snapshot, peer, head, bytes) {
        Identified::None => None,
        Identified::One(at) => snapshot.config.callers.get(at),
        Identified::Conflict => return Err(blame(denied(&Denial::two_identities()))),
    };
    let asked = Asked {
        method,
        path: path.decoded(),
        rest_at: found.rest_decoded_offset,
        caller,
        callers_defined: !snapshot.config.callers.is_empty(),
        peer_is_local: caller::is_local(peer),
    };
    let verdict = policy::decide(route, &asked);
    if let Some(denial) = verdict.denied() {
        return Err(blame(denied(&denial)));
    }
    if let policy::Verdict::Allowed { reported: Some(denial), .. } = verdict {
        tracing::warn!(route = route.prefix, method, "policy would deny: {denial}");
    }
    let start = head.target(bytes).len() - target.len();
    Ok(Approved { route: index, rest: start + found.rest_raw_offset..head.target(bytes).len() })
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
fn origin_form<'a>(target: &'a [u8], host: &[u8]) -> Result<&'a [u8], ProxyError> {
    if target.starts_with(b"/") {
        return Ok(target);
    }
    let scheme_ends = target.windows(3).position(|w| w == b"://");
    let Some(at) = scheme_ends.filter(|&at| target[..at].eq_ignore_ascii_case(b"http")) else {
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

fn identify(snapshot: &Snapshot, peer: IpAddr, head: &RequestHead, bytes: &[u8]) -> Identified {
    if snapshot.config.callers.is_empty() {
        return Identified::None;
    }
    let mut presented = Vec::new();
    if snapshot.has_api_keys {
        let bearer = head.values(bytes, Kind::Authorization).filter_map(|value| {
            let (scheme, key) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
        });
        for key in head.values(bytes, Kind::XApiKey).chain(bearer) {
            let mut hash = [0; 32];
            hash.copy_from_slice(digest::digest(&digest::SHA256, key).as_ref());
            presented.push(hash);
        }
    }
    caller::identify(&snapshot.config.callers, &presented, Some(peer))
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
