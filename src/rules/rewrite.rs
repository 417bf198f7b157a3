//! Responses kept behind the prefix: `Location`, `Content-Location`, `Refresh`, `Link`, `Set-Cookie`.
//!
//! An upstream names its own URLs. A caller that followed one would leave the proxy and have no token. What
//! lies within the upstream of a route is named by the route's prefix instead; all else stays untouched.

use std::collections::HashMap;

use memchr::memchr;

use crate::config::model::{RouteSpec, Scheme, Upstream};

use super::{
    cookie,
    path::CanonicalPath,
    reference::Reference,
    table::{Table, decoded_prefix},
};

/// Upstream URLs → paths on this proxy, for all routes. `route` arguments are positions in the list that
/// [`Mappings::new`] got.
#[derive(Debug, Clone)]
pub struct Mappings {
    routes: Vec<Place>,
    prefixes: Table,
    sites: HashMap<Site, Bases>,
    sites_of: HashMap<(usize, Site), Bases>,
}

/// One route, as far as it matters here.
#[derive(Debug, Clone)]
struct Place {
    /// As it is written into a response.
    prefix: Box<[u8]>,
    site: Site,
    /// The base path as written, and as it is compared.
    base: Box<[u8]>,
    decoded_base: Box<[u8]>,
    /// Routes with the same credential have the same number.
    credential: usize,
}

/// Scheme, host, port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Site {
    scheme: Scheme,
    host: Box<[u8]>,
    port: u16,
}

/// The base paths on one site, and the first route for each.
#[derive(Debug, Clone)]
struct Bases {
    table: Table,
    routes: Vec<usize>,
}

impl Mappings {
    /// Compiles the routes.
    pub fn new(routes: &[RouteSpec]) -> Self {
        let mut credentials = HashMap::new();
        let places: Vec<_> = routes
            .iter()
            .map(|route| {
                let next = credentials.len();
                let credential = *credentials.entry(route.token.credential.name.as_str()).or_insert(next);
                Place::new(&route.prefix, &route.upstream, credential)
            })
            .collect();
        let mut by_site: HashMap<_, Vec<usize>> = HashMap::new();
        let mut by_credential: HashMap<_, Vec<usize>> = HashMap::new();
        for (index, place) in places.iter().enumerate() {
            by_site.entry(place.site.clone()).or_default().push(index);
            by_credential.entry((place.credential, place.site.clone())).or_default().push(index);
        }
        let bases = |members: Vec<usize>| {
            let paths: Vec<_> = members.iter().map(|&index| routes[index].upstream.base_path.as_str()).collect();
            Bases { table: Table::new(&paths), routes: members }
        };
        Self {
            prefixes: Table::new(&routes.iter().map(|route| route.prefix.as_str()).collect::<Vec<_>>()),
            sites: by_site.into_iter().map(|(site, members)| (site, bases(members))).collect(),
            sites_of: by_credential.into_iter().map(|(key, members)| (key, bases(members))).collect(),
            routes: places,
        }
    }

    /// A `Location` or `Content-Location`; `None` = leave it as it is.
    ///
    /// An absolute URL, `//host/…` or an absolute path that lies within the upstream of the route itself, else
    /// within that of another route (one with the same credential first, then the longest base path),
    /// becomes that route's prefix and the rest, byte for byte. References relative to the current path
    /// are right as they are, and another host never becomes ours.
    pub fn location(&self, value: &[u8], route: usize) -> Option<Vec<u8>> {
        let own = self.routes.get(route)?;
        let reference = Reference::parse(value)?;
        let site = own.site.resolve(&reference)?;
        let path = Compared::new(&reference.path);
        if site == own.site
            && let Some(rest) = below(path.decoded(), &own.decoded_base)
            && let Some(moved) = self.moved(route, &path, rest, reference.tail)
        {
            return Some(moved);
        }
        let key = (own.credential, site);
        [self.sites_of.get(&key), self.sites.get(&key.1)].into_iter().flatten().find_map(|bases| {
            let (member, rest) = bases.table.longest_prefix(path.decoded())?;
            self.moved(bases.routes[member], &path, rest, reference.tail)
        })
    }

    /// A `Link` header (RFC 8288): every `<target>` as in [`Mappings::location`]; `None` = no change.
    pub fn link(&self, value: &[u8], route: usize) -> Option<Vec<u8>> {
        if value.iter().any(|&byte| byte != b'\t' && byte.is_ascii_control()) {
            return None;
        }
        let mut rewritten = Vec::new();
        let mut copied = 0;
        let mut at = 0;
        while let Some(&byte) = value.get(at) {
            at = match byte {
                b'"' => end_of_quoted(value, at),
                b'<' => {
                    let Some(length) = memchr(b'>', &value[at + 1..]) else { break };
                    let end = at + 1 + length;
                    if let Some(target) = self.location(&value[at + 1..end], route) {
                        rewritten.extend_from_slice(&value[copied..=at]);
                        rewritten.extend_from_slice(&target);
                        copied = end;
                    }
                    end + 1
                }
                _ => at + 1,
            };
        }
        if copied == 0 {
            return None;
        }
        rewritten.extend_from_slice(&value[copied..]);
        Some(rewritten)
    }

    /// A `Refresh` header (`5; url=…`): not in any RFC, but browsers follow it like a redirect. `None` = no
    /// change.
    pub fn refresh(&self, value: &[u8], route: usize) -> Option<Vec<u8>> {
        let separator = value.iter().position(|byte| matches!(byte, b';' | b','))?;
        let parameter = value[separator + 1..].trim_ascii_start();
        let url = parameter.get(..4).filter(|name| name.eq_ignore_ascii_case(b"url=")).map(|_| &parameter[4..])?;
        let bare = url.trim_ascii();
        let bare = bare.strip_prefix(b"\"").and_then(|bare| bare.strip_suffix(b"\"")).unwrap_or(bare);
        let target = self.location(bare, route)?;
        let before = value.len() - url.len();
        let seconds = &value[..before];
        (!seconds.iter().any(u8::is_ascii_control)).then(|| [seconds, &target].concat())
    }

    /// A `Set-Cookie` header: see [`cookie::behind_prefix`].
    pub fn set_cookie(&self, value: &[u8], route: usize) -> Vec<u8> {
        let (prefix, base) = self.routes.get(route).map_or((&b""[..], &b""[..]), |own| (&own.prefix, &own.base));
        cookie::behind_prefix(value, prefix, base)
    }

    /// Prefix, rest and tail, if a request for that comes out at the same upstream URL: a longer prefix
    /// may stand in the way. Never `//…`, which would be another host.
    fn moved(&self, route: usize, path: &Compared<'_>, rest: usize, tail: &[u8]) -> Option<Vec<u8>> {
        let place = &self.routes[route];
        let rest = &path.raw[path.raw_offset(rest)..];
        let mut moved = Vec::with_capacity(place.prefix.len() + rest.len() + tail.len() + 1);
        moved.extend_from_slice(&place.prefix);
        moved.extend_from_slice(rest);
        if moved.is_empty() {
            moved.push(b'/');
        }
        if moved.starts_with(b"//") || !self.comes_out(&moved, place, path) {
            return None;
        }
        moved.extend_from_slice(tail);
        Some(moved)
    }

    fn comes_out(&self, moved: &[u8], place: &Place, path: &Compared<'_>) -> bool {
        let moved = Compared::new(moved);
        let Some((taken, rest)) = self.prefixes.longest_prefix(moved.decoded()) else { return false };
        let taken = &self.routes[taken];
        let rest = &moved.decoded()[rest..];
        taken.site == place.site
            && path
                .decoded()
                .strip_prefix(&*taken.decoded_base)
                .is_some_and(|wanted| wanted == rest || { wanted.is_empty() && rest == b"/" })
    }
}

impl Place {
    fn new(prefix: &str, upstream: &Upstream, credential: usize) -> Self {
        let host = upstream.host.to_ascii_lowercase().into_bytes().into();
        Self {
            prefix: encoded(prefix.as_bytes()).into(),
            site: Site { scheme: upstream.scheme, host, port: upstream.port },
            base: upstream.base_path.as_bytes().into(),
            decoded_base: decoded_prefix(upstream.base_path.as_bytes()),
            credential,
        }
    }
}

impl Site {
    /// Where a reference in a response from this site leads; `None` = nowhere that it says clearly.
    fn resolve(&self, reference: &Reference<'_>) -> Option<Self> {
        let Some((host, port)) = reference.authority else { return Some(self.clone()) };
        let scheme = reference.scheme.unwrap_or(self.scheme);
        let port = port.unwrap_or(scheme.default_port());
        (!host.is_empty()).then(|| Self { scheme, host: host.to_ascii_lowercase().into(), port })
    }
}

/// A path of a response as bases are compared with it: decoded where that is clear, else as it is.
struct Compared<'a> {
    raw: &'a [u8],
    canonical: Option<CanonicalPath<'a>>,
}

impl<'a> Compared<'a> {
    fn new(raw: &'a [u8]) -> Self {
        Self { raw, canonical: CanonicalPath::parse(raw).ok() }
    }

    fn decoded(&self) -> &[u8] {
        self.canonical.as_ref().map_or(self.raw, CanonicalPath::decoded)
    }

    fn raw_offset(&self, decoded: usize) -> usize {
        self.canonical.as_ref().map_or(decoded, |path| path.raw_offset(decoded))
    }
}

/// The length of `base`, if the path lies within it.
fn below(path: &[u8], base: &[u8]) -> Option<usize> {
    let rest = path.strip_prefix(base)?;
    (rest.is_empty() || rest.starts_with(b"/")).then_some(base.len())
}

/// The index after a quoted string that begins at `at` (RFC 9110 section 5.6.4).
fn end_of_quoted(value: &[u8], mut at: usize) -> usize {
    at += 1;
    while let Some(&byte) = value.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    value.len()
}

/// A prefix as it may stand in a URL, a `Link` and a cookie's `Path`; escapes that it has are kept.
fn encoded(prefix: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(prefix.len());
    for (at, &byte) in prefix.iter().enumerate() {
        let is_escape =
            byte == b'%' && prefix.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        if is_escape || byte.is_ascii_alphanumeric() || b"-._~!$&'()*+=:@/".contains(&byte) {
            encoded.push(byte);
        } else {
            encoded.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
