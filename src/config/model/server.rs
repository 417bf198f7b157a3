//! `[server]`: where callers connect.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::upstream::Scheme;

/// `[server]`: where callers connect and what is refused before anything else.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where callers connect.
    pub listen: Vec<Listen>,
    /// Worker threads; never 0 here (the file's 0 became the number of cores).
    pub workers: usize,
    /// Further `Host` values that pass: lower case, `name` (any port) or `name:port`.
    pub allowed_hosts: Vec<String>,
    /// Browser origins that pass: lower case, `scheme://host[:port]`.
    pub allowed_origins: Vec<String>,
    /// From the first byte of a request head to its end.
    pub header_timeout: Duration,
    /// How long a keep-alive connection may stand idle.
    pub idle_timeout: Duration,
    /// How long running requests may take to finish at shutdown.
    pub drain_timeout: Duration,
    /// Caller connections, over all workers.
    pub max_connections: usize,
    /// Those of one address; `None`: half of them all, but any number from this host. See [`Self::connections_of`].
    pub max_connections_per_peer: Option<usize>,
    /// Size of a request head: request line and fields.
    pub max_header_bytes: usize,
}

impl Server {
    /// How many connections this address may have.
    ///
    /// Unless the file says otherwise nobody else can take all places, and whoever calls from this host may: there all callers have one
    /// address.
    pub fn connections_of(&self, peer: IpAddr) -> usize {
        match self.max_connections_per_peer {
            Some(most) => most,
            None if peer.to_canonical().is_loopback() => usize::MAX,
            None => self.max_connections.div_ceil(2),
        }
    }
}

/// One entry of `listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// TCP address.
    pub address: SocketAddr,
    /// `None` = plain HTTP.
    pub tls: Option<ListenTls>,
}

impl Listen {
    /// What callers write before its address.
    pub fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::Https } else { Scheme::Http }
    }
}

/// `tls` of a listener: files that are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenTls {
    /// `cert`: the chain, in PEM form, its own certificate first.
    pub cert: PathBuf,
    /// `key`: the private key, in PEM form.
    pub key: PathBuf,
}
