//! `Host`, `Origin` and Fetch Metadata: a web page must not be able to use the caller's own proxy.
//!
//! A listener on loopback is reachable from every page in the user's browser. Two ways lead in: a name
//! that the attacker re-points to 127.0.0.1 (DNS rebinding), against which the `Host` is checked; and a
//! plain cross-site request, which the browser marks with `Origin` and `Sec-Fetch-Site`.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use crate::config::model::Scheme;

/// The `Host` values that pass on one TCP listener. Made once; a check compares a few bytes.
#[derive(Debug, Clone)]
pub struct Hosts {
    allowed: Vec<AllowedHost>,
    scheme: Scheme,
}

#[derive(Debug, Clone)]
struct AllowedHost {
    /// Without port; IPv6 in brackets.
    name: Box<[u8]>,
    /// `None` = any.
    port: Option<u16>,
}

/// A `Host` that stands for another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misdirected {
    host: String,
}

impl fmt::Display for Misdirected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the Host `{}` is no name of this proxy; if it should be, list it in server.allowed_hosts", self.host)
    }
}

impl std::error::Error for Misdirected {}

impl Hosts {
    /// `listen` is the bound address (its port the real one, not 0), `scheme` what is spoken there; `allowed` is `server.allowed_hosts`.
    ///
    /// Loopback names and the listen address pass with the listener's port. A wildcard address is no name:
    /// `0.0.0.0` reaches loopback in browsers, so letting it pass would let pages in.
    pub fn new(listen: SocketAddr, scheme: Scheme, allowed: &[String]) -> Self {
        let local = |name: &str| AllowedHost { name: name.as_bytes().into(), port: Some(listen.port()) };
        let mut hosts = vec![local("127.0.0.1"), local("localhost"), local("[::1]")];
        let address = listen.ip().to_canonical();
        if !address.is_unspecified() {
            hosts.push(local(&bracketed(address)));
        }
        hosts.extend(allowed.iter().map(|entry| AllowedHost::parse(entry)));
        Self { allowed: hosts, scheme }
    }

    /// What the listener speaks.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Checks a `Host` value. A missing port is that of the listener's scheme.
    pub fn check(&self, host: &[u8]) -> Result<(), Misdirected> {
        let passes = split_port(host).is_some_and(|(name, port)| {
            let port = port.unwrap_or(self.scheme.default_port());
            self.allowed
                .iter()
                .any(|known| known.port.is_none_or(|wanted| wanted == port) && known.name.eq_ignore_ascii_case(name))
        });
        if passes { Ok(()) } else { Err(Misdirected { host: shown(host) }) }
    }
}

impl AllowedHost {
    fn parse(entry: &str) -> Self {
        if let Ok(address) = entry.parse::<IpAddr>() {
            return Self { name: bracketed(address).into_bytes().into(), port: None };
        }
        // An entry that is no host matches nothing: a request's `Host` is split in the same way.
        let (name, port) = split_port(entry.as_bytes()).unwrap_or((entry.as_bytes(), None));
        Self { name: name.into(), port }
    }
}

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// `name[:port]`; `None` where the port is not a plain number from 1 to 65535.
fn split_port(host: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let name_end = if host.first() == Some(&b'[') {
        host.iter().position(|&byte| byte == b']')? + 1
    } else {
        host.iter().position(|&byte| byte == b':').unwrap_or(host.len())
    };
    match &host[name_end..] {
        [] => Some((host, None)),
        [b':', digits @ ..] => Some((&host[..name_end], Some(plain_port(digits)?))),
        _ => None,
    }
}

fn plain_port(digits: &[u8]) -> Option<u16> {
    if digits.first() == Some(&b'0') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// For a message: escaped, and not too long.
fn shown(text: &[u8]) -> String {
    const MOST: usize = 100;
    let dots = if text.len() > MOST { "…" } else { "" };
    format!("{}{dots}", text[..text.len().min(MOST)].escape_ascii())
}

/// The browser origins that pass, `server.allowed_origins`. Empty = none.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    allowed: Vec<Box<[u8]>>,
}

/// A request that a web page made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginRefused {
    /// `Origin` is there and not listed.
    #[error("a web page of origin `{0}` made this request; if it may, list it in server.allowed_origins")]
    Origin(String),
    /// `Sec-Fetch-Site` says that another site made the request.
    #[error("a web page of another site made this request (Sec-Fetch-Site: {0})")]
    FetchSite(String),
    /// A CORS preflight.
    #[error(
        "a web page asks in advance (CORS preflight), and that is refused in any case, whatever server.allowed_origins lists"
    )]
    Preflight,
}

impl Origins {
    /// `allowed` as the model has it: lower case `scheme://host[:port]`.
    pub fn new(allowed: &[String]) -> Self {
        Self { allowed: allowed.iter().map(|origin| without_default_port(origin).as_bytes().into()).collect() }
    }

    /// Checks every `Origin` and every `Sec-Fetch-Site` line of a request.
    ///
    /// - Any `Origin` that is not listed is refused, also `null`, also a list, also this proxy's own: a page
    ///   that an upstream serves through this proxy is as foreign as any other until the operator says
    ///   otherwise.
    /// - Without an `Origin` (a navigation, an image), `Sec-Fetch-Site` must be `none` (typed by the user)
    ///   or `same-origin`; values that we don't know are refused. With a listed `Origin` it says nothing new.
    /// - A preflight is refused even for a listed `Origin`: to forward it would spend a token on a request
    ///   that no caller made, and would let the upstream, which does not know who sits in front of this
    ///   proxy, open it to pages. To answer it here would be to invent CORS headers.
    ///
    /// `preflight`: see [`is_preflight`]. No header at all (curl, a legacy application) passes.
    pub fn check<'a>(
        &self,
        origins: impl IntoIterator<Item = &'a [u8]>,
        fetch_sites: impl IntoIterator<Item = &'a [u8]>,
        preflight: bool,
    ) -> Result<(), OriginRefused> {
        if preflight {
            return Err(OriginRefused::Preflight);
        }
        let mut from_listed = false;
        for origin in origins {
            if !self.allowed.iter().any(|known| known.eq_ignore_ascii_case(origin)) {
                return Err(OriginRefused::Origin(shown(origin)));
            }
            from_listed = true;
        }
        for site in fetch_sites {
            if !from_listed && !matches!(site, b"none" | b"same-origin") {
                return Err(OriginRefused::FetchSite(shown(site)));
            }
        }
        Ok(())
    }
}

/// Whether a request is a CORS preflight (Fetch standard, section 3.2.2).
pub fn is_preflight(method: &str, has_access_control_request_method: bool) -> bool {
    method == "OPTIONS" && has_access_control_request_method
}

/// Browsers never write the default port of an origin.
fn without_default_port(origin: &str) -> &str {
    match origin.split_once("://") {
        Some(("http", _)) => origin.strip_suffix(":80").unwrap_or(origin),
        Some(("https", _)) => origin.strip_suffix(":443").unwrap_or(origin),
        _ => origin,
    }
}

#[cfg(test)]
mod tests;
