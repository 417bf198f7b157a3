//! How connections leave this host.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use crate::config::secret::SecretSource;

/// How connections leave this host. Connections with different specs are never shared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct NetSpec {
    /// Source address.
    pub local_address: Option<IpAddr>,
    /// Which family of a name's addresses may be used.
    pub ip_family: IpFamily,
    /// Roots in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// Everything goes through this proxy, as a tunnel; the other rules hold for the way to it.
    pub egress_proxy: Option<EgressProxy>,
    /// Presented wherever a server asks for one.
    pub client_cert: Option<ClientCert>,
    /// `[server] resolver`: name servers; empty = the system's resolver.
    pub resolver: Vec<SocketAddr>,
}

impl NetSpec {
    /// Whether the other side sees both come from the same address, as far as can be told from here.
    pub fn has_same_source(&self, other: &Self) -> bool {
        if self.egress_proxy.is_some() || other.egress_proxy.is_some() {
            return self.egress_proxy == other.egress_proxy;
        }
        let family = |net: &Self| net.local_address.is_none().then_some(net.ip_family);
        (self.local_address, family(self)) == (other.local_address, family(other))
    }
}

impl fmt::Display for NetSpec {
    /// In words, without certificate and resolver: `directly, by IPv4 only`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.egress_proxy {
            Some(proxy) => write!(f, "through {proxy}")?,
            None => f.write_str("directly")?,
        }
        if let Some(address) = self.local_address {
            write!(f, ", from {address}")?;
        }
        match self.ip_family {
            IpFamily::Any => {}
            family => write!(f, ", by IP{} only", family.as_str())?,
        }
        match &self.ca_file {
            Some(path) => write!(f, ", trusting {} too", path.display()),
            None => Ok(()),
        }
    }
}

/// `client_cert` and `client_key`: re-read for every token request, and when they change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientCert {
    /// The chain, in PEM form. A file, and no secret, but read and watched like one.
    pub chain: SecretSource,
    /// The private key of its first certificate, in PEM form.
    pub key: SecretSource,
}

/// `egress_proxy = "http://HOST:PORT"` or `"socks5://HOST:PORT"`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EgressProxy {
    /// What it speaks.
    pub kind: EgressKind,
    /// DNS name or address literal, IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for EgressProxy {
    /// As a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            EgressKind::Http => "http",
            EgressKind::Socks5 => "socks5",
        };
        let Self { host, port, .. } = self;
        if host.contains(':') { write!(f, "{scheme}://[{host}]:{port}") } else { write!(f, "{scheme}://{host}:{port}") }
    }
}

/// What an egress proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EgressKind {
    /// HTTP CONNECT.
    Http,
    /// SOCKS5; names are resolved by the proxy.
    Socks5,
}

/// `ip_family`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum IpFamily {
    /// Both.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

impl IpFamily {
    /// As written in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }

    /// Whether an address may be used.
    pub fn admits(self, ip: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
        }
    }
}
