//! Paths and URLs, parsed strictly by hand: what is accepted here decides where a token may go.

use std::net::{IpAddr, Ipv6Addr};

use super::model::{Issuer, Scheme, Upstream};

/// Why a URL or path is refused: a sentence's end ("has a query"), and perhaps what to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) why: String,
    pub(super) hint: Option<String>,
}

fn refuse<T>(why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { why: why.into(), hint: None })
}

fn refuse_with<T>(why: impl Into<String>, hint: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { why: why.into(), hint: Some(hint.into()) })
}

/// `scheme://host[:port][/base]`, without user info, query and fragment.
pub(super) fn upstream(text: &str) -> Result<Upstream, Refused> {
    let (scheme, authority, rest) = split(text)?;
    if rest.contains('?') {
        return refuse("has a query; only scheme, host, port and base path are possible");
    }
    if rest.contains('#') {
        return refuse("has a fragment");
    }
    assemble(scheme, authority, canonical_path(rest)?)
}

impl Upstream {
    /// An endpoint that a provider names: as strict as what the file names, and `http://` only to this machine. The
    /// error completes "its `token_endpoint` …".
    pub fn endpoint(text: &str) -> Result<(Self, String), String> {
        let found = endpoint(text).map_err(|reason| reason.why)?;
        if found.0.scheme == Scheme::Http && !is_loopback(&found.0.host) {
            return Err("is plain http to another host".to_owned());
        }
        Ok(found)
    }

    /// The path of `endpoint` below this base, decoded; `None` where this upstream does not cover it. As a guard has to see
    /// it: another name of the same host is the same place, and so is another scheme at the same port, or with both at
    /// their usual ones.
    pub fn path_below(&self, endpoint: &Self) -> Option<String> {
        let is_usual = |place: &Self| place.port == place.scheme.default_port();
        let same_port = self.port == endpoint.port || (is_usual(self) && is_usual(endpoint));
        let same_place = same_port && is_same_host(&self.host, &endpoint.host);
        let path = decoded(&endpoint.base_path);
        let below = path.strip_prefix(&decoded(&self.base_path))?;
        (same_place && (below.is_empty() || below.starts_with('/'))).then(|| below.to_owned())
    }

    /// Another endpoint at the very same place. `target`: its path, and perhaps a query.
    pub(super) fn with_target(&self, target: &str) -> Self {
        let path = target.split('?').next().unwrap_or_default();
        Self { base_path: path.trim_end_matches('/').to_owned(), ..self.clone() }
    }
}

impl Issuer {
    /// Whether an endpoint of it that is yet to be discovered may turn out to stand on this host, under any of its names.
    pub fn may_stand_at(&self, host: &str) -> bool {
        let mut hosts = self.hosts.iter().chain([&self.url.host]);
        hosts.any(|own| is_same_host(own, host))
    }
}

/// `scheme://host[:port]/path[?query]`: the endpoint, and its request target (origin-form).
pub(super) fn endpoint(text: &str) -> Result<(Upstream, String), Refused> {
    let (scheme, authority, rest) = split(text)?;
    if rest.contains('#') {
        return refuse("has a fragment");
    }
    let (path, query) = rest.split_once('?').map_or((rest, None), |(p, q)| (p, Some(q)));
    if query.is_some_and(|q| !q.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b))) {
        return refuse("has characters in its query that must be percent-encoded");
    }
    let base = canonical_path(path)?;
    let target = match (path, query) {
        ("", None) => "/".to_owned(),
        ("", Some(query)) => format!("/?{query}"),
        _ => rest.to_owned(),
    };
    Ok((assemble(scheme, authority, base)?, target))
}

fn split(text: &str) -> Result<(Scheme, &str, &str), Refused> {
    if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return refuse("holds white space or control characters");
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return refuse_with("is not a URL", "start it with https://");
    };
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        _ => return refuse("is neither https:// nor http://"),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if authority.contains('@') {
        return refuse_with("holds a user name or password", "credentials belong into [credentials.NAME]");
    }
    Ok((scheme, authority, rest))
}

fn assemble(scheme: Scheme, authority: &str, base_path: String) -> Result<Upstream, Refused> {
    let (host, port) = host_and_port(authority)?;
    let port = port.unwrap_or(scheme.default_port());
    let mut authority = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    if port != scheme.default_port() {
        authority = format!("{authority}:{port}");
    }
    Ok(Upstream { scheme, host, port, authority, insecure: false, base_path })
}

/// A lower-case DNS name or address literal (IPv6 in brackets, here without), and the port if there is one.
pub(super) fn host_and_port(authority: &str) -> Result<(String, Option<u16>), Refused> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let Some((literal, port)) = rest.split_once(']') else {
            return refuse("has `[` without `]` around an IPv6 address");
        };
        let Ok(address) = literal.parse::<Ipv6Addr>() else {
            return refuse("has brackets around something that is not an IPv6 address");
        };
        (address.to_string(), port)
    } else {
        let end = authority.find(':').unwrap_or(authority.len());
        let (host, port) = authority.split_at(end);
        if port.matches(':').count() > 1 {
            return refuse_with("has several colons in its host", "an IPv6 address stands in brackets: [::1]");
        }
        (dns_name(host)?, port)
    };
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, None)),
        None => refuse("has something other than a port behind its host"),
        Some(digits) => match digits.parse::<u16>() {
            Ok(number) if number > 0 && !digits.starts_with(['0', '+']) => Ok((host, Some(number))),
            _ => refuse("has a port that is not a number from 1 to 65535"),
        },
    }
}

fn dns_name(host: &str) -> Result<String, Refused> {
    if host.is_empty() {
        return refuse("has no host");
    }
    if !host.is_ascii() {
        return refuse_with("has a host with non-ASCII letters", "write its punycode form (xn--…)");
    }
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if host.len() > 253 || !host.split('.').all(label) {
        return refuse("has a host that is not a legal DNS name or address");
    }
    // A last label of digits (or 0x…) means an IPv4 address, and then only the usual form is clear.
    let last = host.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let numeric = last.bytes().all(|b| b.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    if numeric && host.parse::<std::net::Ipv4Addr>().is_err() {
        return refuse("has a host that is not a legal IPv4 address");
    }
    Ok(host.to_ascii_lowercase())
}

/// Whether two hosts are known to be one without asking for their addresses: all names and addresses of this machine are,
/// and an IPv4 address is the same in its IPv6 form (RFC 4291 section 2.5.5.2).
fn is_same_host(a: &str, b: &str) -> bool {
    let address = |host: &str| host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    // A connection to the unspecified address ends on this machine.
    let is_here = |host: &str, ip: Option<IpAddr>| {
        is_loopback(host) || ip.is_some_and(|ip| ip.is_loopback() || ip.is_unspecified())
    };
    let (at_a, at_b) = (address(a), address(b));
    a == b || (at_a.is_some() && at_a == at_b) || (is_here(a, at_a) && is_here(b, at_b))
}

/// Whether a host can only be this machine. A name is checked again when it is connected to.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A path in the one form that is accepted: empty, or `/…` without a trailing slash, dot segments, empty
/// segments, and escapes that need not or must not be (RFC 3986 section 6.2.2).
pub(super) fn canonical_path(path: &str) -> Result<String, Refused> {
    if path.is_empty() || path == "/" {
        return Ok(String::new());
    }
    let Some(segments) = path.strip_prefix('/') else {
        return refuse_with("does not start with a slash", format!("write \"/{path}\""));
    };
    let segments = segments.strip_suffix('/').unwrap_or(segments);
    for segment in segments.split('/') {
        canonical_segment(segment)?;
    }
    Ok(format!("/{segments}"))
}

fn canonical_segment(segment: &str) -> Result<(), Refused> {
    if segment.is_empty() {
        return refuse("has an empty segment (`//`)");
    }
    let mut decoded = Vec::with_capacity(segment.len());
    let mut rest = segment;
    while let Some(c) = rest.chars().next() {
        let used = if c == '%' { 3 } else { c.len_utf8() };
        decoded.push(path_char(c, &rest[c.len_utf8()..])?);
        rest = &rest[used..];
    }
    if decoded == b"." || decoded == b".." {
        return refuse("has a dot segment (`.` or `..`)");
    }
    Ok(())
}

/// One character of a segment, or what the escape that starts here stands for.
fn path_char(c: char, behind: &str) -> Result<u8, Refused> {
    match (u8::try_from(c), escaped(behind)) {
        (Ok(b'%'), None) => refuse("has a `%` that is not followed by two hex digits"),
        (Ok(b'%'), Some(b)) if is_unreserved(b) => {
            refuse_with(format!("has an escape that must not be one (%{b:02X})"), format!("write `{}`", char::from(b)))
        }
        (Ok(b'%'), Some(b)) if b < 0x20 || b == 0x7f || matches!(b, b'/' | b'\\' | b'%') => {
            refuse(format!("has the ambiguous escape %{b:02X}"))
        }
        (Ok(b'%'), Some(b)) => Ok(b),
        (Ok(b), _) if is_path_byte(b) => Ok(b),
        _ if c.is_ascii() => refuse(format!("holds `{}`, which is not a path character", c.escape_default())),
        _ => refuse("holds non-ASCII letters, which must be percent-encoded"),
    }
}

/// RFC 3986 `unreserved`.
fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~".contains(&b)
}

/// RFC 3986 `pchar` without the percent sign.
fn is_path_byte(b: u8) -> bool {
    is_unreserved(b) || b"!$&'()*+,;=:@".contains(&b)
}

/// A percent-decoded path; escapes are known to be legal.
pub(super) fn decoded(path: &str) -> String {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(&first) = rest.as_bytes().first() {
        let escape = rest.strip_prefix('%').and_then(escaped);
        out.push(escape.unwrap_or(first));
        rest = rest.split_at_checked(if escape.is_some() { 3 } else { 1 }).map_or("", |(_, rest)| rest);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The byte that two hex digits at the start of `text` stand for.
fn escaped(text: &str) -> Option<u8> {
    let hex = text.get(..2)?;
    // from_str_radix takes signs, too.
    let digits = hex.bytes().all(|b| b.is_ascii_hexdigit());
    u8::from_str_radix(hex, 16).ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_scheme_host_port_and_canonical_base() {
        let u = upstream("https://API.Example.com:443/a/b/").unwrap();
        assert_eq!((u.host.as_str(), u.port, u.authority.as_str()), ("api.example.com", 443, "api.example.com"));
        assert_eq!(u.base_path, "/a/b");
        let u = upstream("http://[::1]:8080").unwrap();
        assert_eq!((u.host.as_str(), u.authority.as_str(), u.base_path.as_str()), ("::1", "[::1]:8080", ""));
    }

    #[test]
    fn whatever_could_mean_another_host_is_refused() {
        for bad in [
            "",
            "example.com",
            "ftp://example.com",
            "https://",
            "https:///x",
            "https://user:pw@example.com",
            "https://a@b@c",
            "https://example.com:0",
            "https://example.com:65536",
            "https://example.com:0443",
            "https://example.com:+443",
            "https://example.com:",
            "https://::1/",
            "https://[::1",
            "https://[::1]x",
            "https://[1.2.3.4]",
            "https://127.1",
            "https://0x7f000001",
            "https://2130706433",
            "https://1.2.3.256",
            "https://-a.com",
            "https://a..b",
            "https://exämple.com",
            "https://example.com\\@evil.com",
            "https://example.com%2eevil.com",
            "https://example.com?x",
            "https://example.com#x",
            "https://example.com/a?b",
            "https://example.com/a/../b",
            "https://example.com/a/%2e%2e/b",
            "https://example.com/a%2Fb",
            "https://example.com/a%5cb",
            "https://example.com/a//b",
            "https://example.com/%zz",
            "https://example.com/%+4",
            "https://example.com/%4",
            "https://example.com/%",
            "https://example.com/ä%",
            "https://example.com/a b",
            "https://example.com/%41",
            "https://example.com/%252e",
        ] {
            assert!(upstream(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_endpoint_keeps_its_target_as_written() {
        let target = |text| endpoint(text).unwrap().1;
        assert_eq!(target("https://a.com"), "/");
        assert_eq!(target("https://a.com?x=1"), "/?x=1");
        assert_eq!(target("https://a.com/t/?x=1&y"), "/t/?x=1&y");
        assert_eq!(endpoint("https://a.com/t/").unwrap().0.base_path, "/t");
        assert!(endpoint("https://a.com/t#x").is_err());
        assert!(endpoint("https://a.com/t?x y").is_err());
    }

    #[test]
    fn a_guarded_endpoint_is_found_under_every_name_of_its_place() {
        let below = |route: &str, guarded: &str| upstream(route).unwrap().path_below(&endpoint(guarded).unwrap().0);
        for route in [
            "http://localhost:8080",
            "http://[::1]:8080",
            "http://[::ffff:127.0.0.1]:8080",
            "http://127.0.0.2:8080",
            "https://idp.localhost:8080",
            "https://0.0.0.0:8080",
        ] {
            assert_eq!(below(route, "http://127.0.0.1:8080/token").as_deref(), Some("/token"), "{route}");
        }
        assert_eq!(below("http://a.example", "https://a.example/token").as_deref(), Some("/token"));
        assert_eq!(below("https://[::ffff:192.0.2.1]", "https://192.0.2.1/token").as_deref(), Some("/token"));
        for other in ["http://localhost:8081", "https://b.example:8080", "http://192.0.2.1:8080"] {
            assert_eq!(below(other, "http://127.0.0.1:8080/token"), None, "{other}");
        }
        assert_eq!(below("https://a.example:8443", "https://a.example/token"), None, "another server");
    }

    #[test]
    fn loopback_is_known_by_name_and_address() {
        for host in ["localhost", "127.0.0.1", "127.8.9.1", "::1", "api.localhost"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["example.com", "0.0.0.0", "10.0.0.1", "localhost.example.com", "notlocalhost"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
