//! How connections leave this host.

use std::{
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
    /// Whether an address may be used.
    pub fn admits(self, ip: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
        }
    }
}
