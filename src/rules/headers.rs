//! Which header fields go on, which are dropped, and which are set, in both directions.
//!
//! The order is the point: hop-by-hop fields (RFC 9110 section 7.6.1) and everything that `Connection`
//! names are left out *first*, the caller's credentials with them; our own fields come after; the token is
//! written last. So no spelling of `Connection: authorization` can cost us our header.

use std::{ops::Range, time::SystemTime};

use crate::{
    config::model::{HostPolicy, RouteSpec, Upstream},
    wire::{
        self, Framing, HeadError, Kind, RequestHead, ResponseHead, Version,
        field::{Field, list},
    },
};

/// Fields that speak of one connection only, in either direction.
const fn is_hop_by_hop(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Connection
            | Kind::Http2Settings
            | Kind::KeepAlive
            | Kind::ProxyAuthenticate
            | Kind::ProxyAuthenticationInfo
            | Kind::ProxyAuthorization
            | Kind::ProxyConnection
            | Kind::Te
            | Kind::TransferEncoding
            | Kind::Upgrade
    )
}

/// Fields of a request that are ours to write, or that a caller could use to be someone or something else.
const fn is_ours(kind: Kind) -> bool {
    matches!(
        kind,
        // Framing and target: written anew from what was judged.
        Kind::Host | Kind::ContentLength | Kind::Expect
        // The caller's own credentials never go on.
            | Kind::Authorization | Kind::XApiKey | Kind::Dpop
        // Where the request came from is ours to say.
            | Kind::Forwarded | Kind::XForwardedFor | Kind::XForwardedHost | Kind::XForwardedPort
            | Kind::XForwardedPrefix | Kind::XForwardedProto | Kind::XForwardedServer | Kind::XForwardedSsl
            | Kind::XRealIp | Kind::XRequestId | Kind::Via
        // A second method or path beside the one that policy judged.
            | Kind::XHttpMethodOverride | Kind::XHttpMethod | Kind::XMethodOverride | Kind::XOriginalUrl
            | Kind::XRewriteUrl
    )
}

/// The names that `Connection` options give, other than the two that mean persistence.
fn connection_options<'a>(connection: impl Iterator<Item = &'a [u8]>) -> Vec<&'a [u8]> {
    let is_close = |option: &[u8]| option.eq_ignore_ascii_case(b"close");
    let is_keep = |option: &[u8]| option.eq_ignore_ascii_case(b"keep-alive");
    let mut named = Vec::new();
    // What most say that say anything is no list to be taken apart.
    for value in connection.filter(|value| !is_keep(value)) {
        named.extend(list(value).filter(|option| !is_close(option) && !is_keep(option)));
    }
    named
}

fn is_named(names: &[&[u8]], name: &[u8]) -> bool {
    names.iter().any(|n| n.eq_ignore_ascii_case(name))
}

/// Appends one piece after the other. What is written literally costs no call: its length is known.
macro_rules! append {
    ($out:expr, $($piece:expr),+) => {
        $($out.extend_from_slice($piece);)+
    };
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    append!(out, name, b": ", value, b"\r\n");
}

/// Copies lines as they are, those that follow each other in one go.
struct Lines<'a> {
    bytes: &'a [u8],
    run: Range<usize>,
}

impl<'a> Lines<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, run: 0..0 }
    }

    /// Appends the line of `field`, at the latest with [`Self::end`].
    fn field(&mut self, out: &mut Vec<u8>, field: Field) {
        match field.plain_line(self.bytes) {
            Some(line) if line.start == self.run.end => self.run.end = line.end,
            plain => {
                self.end(out);
                match plain {
                    Some(line) => self.run = line,
                    None => line(out, field.name(self.bytes), field.value(self.bytes)),
                }
            }
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[std::mem::take(&mut self.run)]);
    }
}

/// Whether an element of `TE` asks for trailers, whatever its parameters.
fn is_trailers(element: &[u8]) -> bool {
    element.split(|&b| b == b';').next().is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// The only protocol that is switched to.
const UPGRADE: &[u8] = b"Connection: Upgrade\r\nUpgrade: websocket\r\n";

/// What is asked for: never empty.
fn target(out: &mut Vec<u8>, base_path: &[u8], rest: &[u8]) {
    out.extend_from_slice(base_path);
    if base_path.is_empty() && !rest.starts_with(b"/") {
        out.push(b'/');
    }
    out.extend_from_slice(rest);
}

fn framing_line(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Length(n) => {
            out.extend_from_slice(b"Content-Length: ");
            wire::number(out, n);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::None | Framing::UntilClose => {}
    }
}

/// Whether a field may stand in a trailer section: nothing that frames, routes, authenticates or modifies a
/// message may come after it (RFC 9110 section 6.5.1), and nothing that any rule of ours speaks of.
fn is_fit_for_trailers(kind: Kind, name: &[u8]) -> bool {
    const UNFIT: [&str; 20] = [
        "age",
        "authentication-info",
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-range",
        "content-type",
        "date",
        "expires",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "max-forwards",
        "pragma",
        "range",
        "server",
        "vary",
        "warning",
    ];
    kind == Kind::Other && !UNFIT.iter().any(|unfit| name.eq_ignore_ascii_case(unfit.as_bytes()))
}

/// Whether a `Trailer` field goes on: a body follows that can have trailers, and all that it announces may stand there.
fn announces_trailers(framing: Framing, value: &[u8], fits: impl Fn(&[u8]) -> bool) -> bool {
    matches!(framing, Framing::Chunked | Framing::UntilClose) && list(value).all(fits)
}

fn fitting_trailers(
    out: &mut Vec<u8>,
    section: &[u8],
    underscores: bool,
    fits: impl Fn(Kind, &[u8]) -> bool,
) -> Result<(), HeadError> {
    for field in wire::fields::trailers(section, underscores)? {
        if fits(field.kind, field.name(section)) {
            line(out, field.name(section), field.value(section));
        }
    }
    Ok(())
}

/// Appends those lines of a response's trailer section that go on to the caller. As in its head, underscores in names are the
/// upstream's own affair.
pub fn write_response_trailers(out: &mut Vec<u8>, section: &[u8]) -> Result<(), HeadError> {
    fitting_trailers(out, section, true, is_fit_for_trailers)
}

/// What one route does to the head of each request, worked out once.
#[derive(Debug)]
pub struct RequestRules {
    /// Lower-case names that are left out beyond the rules for every route.
    dropped: Vec<Vec<u8>>,
    /// Ready lines of `set_headers`.
    set: Vec<u8>,
    /// `None` = what the caller sent.
    host: Option<Vec<u8>>,
    /// `Authorization: Bearer `
    inject: Vec<u8>,
    inject_end: Vec<u8>,
}

/// What differs from request to request.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// The upstream's base path.
    pub base_path: &'a [u8],
    /// The approved bytes below it: path and query.
    pub rest: &'a [u8],
    /// The caller's address, if it has one.
    pub peer: &'a [u8],
    /// Asks the upstream to switch to WebSocket.
    pub websocket: bool,
    /// `http` or `https`: how the caller reached us.
    pub scheme: &'a [u8],
    /// The request's id.
    pub request_id: &'a [u8],
    /// The token.
    pub token: &'a str,
    /// The proof that the token's key is ours; empty = it is bound to none.
    pub proof: &'a str,
}

impl RequestRules {
    /// Works out the rules of `route`.
    pub fn new(route: &RouteSpec) -> Self {
        let mut dropped: Vec<Vec<u8>> = route.remove_headers.iter().map(|name| name.clone().into_bytes()).collect();
        dropped.extend(route.set_headers.iter().map(|(name, _)| name.clone().into_bytes()));
        if route.inject.name != "authorization" {
            dropped.push(route.inject.name.clone().into_bytes());
        }
        let mut set = Vec::new();
        for (name, value) in &route.set_headers {
            line(&mut set, name.as_bytes(), value.as_bytes());
        }
        let name = if route.inject.name == "authorization" { "Authorization" } else { &route.inject.name };
        Self {
            dropped,
            set,
            host: (route.host == HostPolicy::Upstream).then(|| route.upstream.authority.clone().into_bytes()),
            inject: format!("{name}: {}", route.inject.prefix).into_bytes(),
            inject_end: format!("{}\r\n\r\n", route.inject.suffix).into_bytes(),
        }
    }

    fn passes(&self, field: Field, bytes: &[u8], named: &[&[u8]]) -> bool {
        if field.kind != Kind::Other && (is_hop_by_hop(field.kind) || is_ours(field.kind)) {
            return false;
        }
        let name = field.name(bytes);
        !is_named(named, name) && self.passes_name(name)
    }

    fn passes_name(&self, name: &[u8]) -> bool {
        !self.dropped.iter().any(|d| name.eq_ignore_ascii_case(d))
            && !name.get(..12).is_some_and(|start| start.eq_ignore_ascii_case(b"x-forwarded-"))
    }

    /// Appends those lines of a request's trailer section that go on to the upstream.
    pub fn write_trailers(&self, out: &mut Vec<u8>, section: &[u8]) -> Result<(), HeadError> {
        fitting_trailers(out, section, false, |kind, name| is_fit_for_trailers(kind, name) && self.passes_name(name))
    }

    /// The names of `request`'s fields that are not passed on, for `explain`.
    pub fn left_out<'a>(&self, request: &'a RequestHead, bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let named = connection_options(request.values(bytes, Kind::Connection));
        request.fields.iter().filter(|f| !self.passes(**f, bytes, &named)).map(|f| f.name(bytes)).collect()
    }

    /// A `Trailer` field only before a body that may have some.
    fn is_told(&self, field: Field, framing: Framing, bytes: &[u8]) -> bool {
        let fits = |name: &[u8]| is_fit_for_trailers(Kind::of(name), name) && self.passes_name(name);
        field.kind != Kind::Trailer || announces_trailers(framing, field.value(bytes), fits)
    }

    /// Appends the URL that [`Self::write`] asks `upstream` for, without its query: as the upstream sees it, hence with the host
    /// that is sent (RFC 9110 section 7.1).
    pub fn url(&self, out: &mut Vec<u8>, upstream: &Upstream, request: &RequestHead, bytes: &[u8], rest: &[u8]) {
        out.extend_from_slice(upstream.scheme.as_str().as_bytes());
        out.extend_from_slice(b"://");
        out.extend_from_slice(self.host.as_deref().unwrap_or_else(|| request.host(bytes)));
        let path = rest.split(|&byte| byte == b'?').next().unwrap_or_default();
        target(out, upstream.base_path.as_bytes(), path);
    }

    /// Appends the whole upstream head to `out`, the token as its very last field.
    pub fn write(&self, out: &mut Vec<u8>, request: &RequestHead, bytes: &[u8], facts: RequestFacts<'_>) {
        append!(out, request.method(bytes).as_bytes(), b" ");
        target(out, facts.base_path, facts.rest);
        append!(out, b" HTTP/1.1\r\nHost: ", self.host.as_deref().unwrap_or_else(|| request.host(bytes)), b"\r\n");

        let named = connection_options(request.values(bytes, Kind::Connection));
        let mut copy = Lines::of(bytes);
        for field in &request.fields {
            if self.passes(*field, bytes, &named) && self.is_told(*field, request.framing, bytes) {
                copy.field(out, *field);
            }
        }
        copy.end(out);
        framing_line(out, request.framing);
        if facts.websocket {
            out.extend_from_slice(UPGRADE);
        } else if request.values(bytes, Kind::Te).flat_map(list).any(is_trailers) {
            // It says that trailers reach whoever asked; a field of one hop, so it has to be asked for anew.
            out.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n");
        }
        if request.expects_continue {
            line(out, b"Expect", b"100-continue");
        }
        if !facts.peer.is_empty() {
            append!(out, b"X-Forwarded-For: ", facts.peer, b"\r\n");
        }
        append!(out, b"X-Forwarded-Proto: ", facts.scheme, b"\r\nX-Forwarded-Host: ", request.host(bytes));
        append!(out, b"\r\nVia: ");
        for via in request.values(bytes, Kind::Via) {
            append!(out, via, b", ");
        }
        out.extend_from_slice(match request.version {
            Version::H10 => b"1.0 cupbearer\r\n",
            Version::H11 => b"1.1 cupbearer\r\n",
            Version::H2 => b"2 cupbearer\r\n",
        });
        append!(out, b"X-Request-Id: ", facts.request_id, b"\r\n", &self.set);
        if !facts.proof.is_empty() {
            line(out, b"DPoP", facts.proof.as_bytes());
        }

        append!(out, &self.inject, facts.token.as_bytes(), &self.inject_end);
    }
}

/// What happens to one field of a response.
pub enum ResponseField {
    /// Passed on as it is.
    Keep,
    /// Left out.
    Drop,
    /// Passed on with this value.
    Replace(Vec<u8>),
}

/// How a response head is written for the caller.
#[derive(Debug, Clone, Copy)]
pub struct ResponseFacts<'a> {
    /// How the body goes to the caller.
    pub framing: Framing,
    /// In an answer without a body, the length that the upstream told (HEAD, 304).
    pub told_length: bool,
    /// The request's id.
    pub request_id: &'a [u8],
    /// What `Connection` says, empty = nothing.
    pub connection: &'a [u8],
    /// The connection switches to WebSocket.
    pub websocket: bool,
    /// A `Proxy-Status` of ours, empty = none.
    pub proxy_status: &'a [u8],
    /// When the answer came, for one that does not say when it was made (RFC 9110 section 6.6.1); an interim one need not.
    pub date: Option<SystemTime>,
}

/// Appends the caller's head for an upstream's answer to `out`; `rewrite` judges each field that passed.
pub fn write_response(
    out: &mut Vec<u8>,
    response: &ResponseHead,
    bytes: &[u8],
    facts: ResponseFacts<'_>,
    mut rewrite: impl FnMut(Kind, &[u8]) -> ResponseField,
) {
    append!(out, b"HTTP/1.1 ");
    wire::number(out, u64::from(response.status));
    append!(out, b" ", response.reason(bytes), b"\r\n");
    let named = connection_options(response.values(bytes, Kind::Connection));
    let mut copy = Lines::of(bytes);
    let mut date = facts.date;
    for field in &response.fields {
        let name = field.name(bytes);
        let dropped = match field.kind {
            Kind::Other => {
                if name.len() == 4 && name.eq_ignore_ascii_case(b"date") {
                    date = None;
                }
                is_named(&named, name)
            }
            Kind::ContentLength => !facts.told_length,
            Kind::Trailer => {
                let fits = |name: &[u8]| is_fit_for_trailers(Kind::of(name), name);
                is_named(&named, name) || !announces_trailers(facts.framing, field.value(bytes), fits)
            }
            // `Alt-Svc` speaks of the upstream's own address; taken for ours it would lead callers elsewhere.
            Kind::AltSvc => true,
            kind => is_hop_by_hop(kind) || is_named(&named, name),
        };
        if dropped {
            continue;
        }
        match (field.kind, field.value(bytes)) {
            (Kind::Other | Kind::ContentLength | Kind::Trailer, _) => copy.field(out, *field),
            // The caller gets the id that it can find in our log; the upstream's own is not lost.
            (Kind::XRequestId, value) if value == facts.request_id => {}
            (Kind::XRequestId, value) => {
                copy.end(out);
                line(out, b"X-Upstream-Request-Id", value);
            }
            (kind, value) => match rewrite(kind, value) {
                ResponseField::Keep => copy.field(out, *field),
                ResponseField::Drop => {}
                ResponseField::Replace(value) => {
                    copy.end(out);
                    line(out, name, &value);
                }
            },
        }
    }
    copy.end(out);
    framing_line(out, facts.framing);
    if let Some(now) = date {
        line(out, b"Date", httpdate::fmt_http_date(now).as_bytes());
    }
    if facts.websocket {
        out.extend_from_slice(UPGRADE);
    }
    if !facts.connection.is_empty() {
        line(out, b"Connection", facts.connection);
    }
    if !facts.proxy_status.is_empty() {
        line(out, b"Proxy-Status", facts.proxy_status);
    }
    append!(out, b"X-Request-Id: ", facts.request_id, b"\r\n\r\n");
}

/// Whether a caller's `X-Request-Id` may be used: short, and nothing that could break a log line.
pub fn is_usable_request_id(value: &[u8]) -> bool {
    (1..=128).contains(&value.len())
        && value
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/' | b'=' | b'+'))
}
