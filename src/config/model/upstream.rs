//! Where a connection goes.

use std::fmt;

/// Scheme, host, port and base path: the only place where a token of a route may go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// Scheme.
    pub scheme: Scheme,
    /// Lower-case DNS name or address literal, IPv6 *without* brackets.
    pub host: String,
    /// Port, always explicit here.
    pub port: u16,
    /// What `Host` says: brackets around IPv6, the port only where it is not the default.
    pub authority: String,
    /// Plain text may leave this host (`insecure_http`); checked again on the address at each connection.
    pub insecure: bool,
    /// Base path: empty, or `/…` without a trailing slash; canonical (no dot segments, no query).
    pub base_path: String,
}

impl Upstream {
    /// A place that does not exist (RFC 2606 section 2), for what never connects.
    pub fn nowhere() -> Self {
        let host = "nowhere.invalid".to_owned();
        let (scheme, authority) = (Scheme::Https, host.clone());
        Self { scheme, host, port: 443, authority, insecure: false, base_path: String::new() }
    }
}

impl fmt::Display for Upstream {
    /// As a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority, self.base_path)
    }
}

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain text; only to loopback unless the route says `insecure_http`.
    Http,
    /// TLS 1.2 or 1.3.
    Https,
}

impl Scheme {
    /// As written in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that goes without saying.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}
