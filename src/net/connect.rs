//! Name → address → TCP → TLS, under one deadline.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustix::io::Errno;
use rustls::{ClientConfig, pki_types::ServerName};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::{Stream, tls, tunnel};
use crate::config::{
    identity::Identity,
    model::{EgressProxy, IpFamily, NetSpec, Scheme, Upstream},
};

/// Where a connection goes.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Plain or TLS.
    pub scheme: Scheme,
    /// DNS name or address literal.
    pub host: &'a str,
    /// Port.
    pub port: u16,
    /// Plain text may leave this host (`insecure_http`); else a plain target must be a loopback address.
    pub insecure: bool,
}

impl<'a> Target<'a> {
    /// The target of an upstream or token endpoint.
    pub fn of(upstream: &'a Upstream) -> Self {
        let Upstream { scheme, host, port, insecure, .. } = upstream;
        Self { scheme: *scheme, host, port: *port, insecure: *insecure }
    }
}

/// Why there is no connection. The text names the server and never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name does not resolve, or to no address of the wanted family.
    #[error("cannot resolve {host}: {why}")]
    Name {
        /// The name.
        host: String,
        /// Why.
        why: String,
    },
    /// No address accepted the connection.
    #[error("cannot connect to {host}:{port}: {source}")]
    Tcp {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The last address's error.
        source: io::Error,
    },
    /// The handshake failed: certificate, name, version.
    #[error("TLS with {host}:{port} failed: {source}")]
    Tls {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// The server does not take our certificate, or wants one.
    #[error("{}", certificate_refused(host, *port, *presented, alert))]
    Certificate {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// Whether we presented one.
        presented: bool,
        /// The server's word, as RFC 8446 names it.
        alert: &'static str,
    },
    /// Not connected within the timeout.
    #[error("no connection to {host}:{port} within {timeout:?}")]
    Timeout {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The timeout.
        timeout: Duration,
    },
    /// The egress proxy cannot be reached, or made no tunnel.
    #[error("no way through the egress proxy {proxy}: {why}")]
    Proxy {
        /// Its host and port.
        proxy: String,
        /// Why.
        why: String,
    },
    /// Plain text to an address that is not loopback.
    #[error("{host} is not a loopback address and plain http to it is not allowed")]
    NotLoopback {
        /// The host.
        host: String,
    },
}

impl ConnectError {
    /// What has run out here, if that is why: no fault of the server's.
    pub fn shortage(&self) -> Option<&io::Error> {
        match self {
            Self::Tcp { source, .. } if is_shortage(source) => Some(source),
            _ => None,
        }
    }
}

/// Whether descriptors have run out: tells by trying to get one. For failures whose own words don't say so.
pub fn shortage() -> Option<io::Error> {
    Socket::new(Domain::UNIX, Type::STREAM, None).err().filter(is_shortage)
}

/// Descriptors, local ports or buffers have run out here.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| shortages.iter().any(|e| e.raw_os_error() == code))
}

/// In words for people; [`ConnectError::Certificate`], or the same where it comes with the first read.
pub fn certificate_refused(host: &str, port: u16, presented: bool, alert: &str) -> String {
    if presented {
        format!("{host}:{port} refused our client certificate (TLS alert {alert})")
    } else {
        format!("{host}:{port} wants a client certificate, and this credential has no client_cert (TLS alert {alert})")
    }
}

/// Which versions of HTTP are offered in the TLS handshake (ALPN, RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// HTTP/1.1 alone.
    H1,
    /// HTTP/2 alone: a server without it ends the handshake.
    H2,
    /// Both, HTTP/2 first; [`Stream::speaks_h2`] says which it is.
    Both,
}

/// One TLS configuration for each [`Offer`]; they share one store of sessions to resume.
#[derive(Debug)]
struct Offering {
    h1: Arc<ClientConfig>,
    h2: Arc<ClientConfig>,
    both: Arc<ClientConfig>,
}

impl Offering {
    fn new(tls: &ClientConfig) -> Self {
        let offering = |protocols: &[&[u8]]| {
            let mut tls = tls.clone();
            tls.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
            Arc::new(tls)
        };
        Self { h1: offering(&[b"http/1.1"]), h2: offering(&[b"h2"]), both: offering(&[b"h2", b"http/1.1"]) }
    }

    fn of(&self, offer: Offer) -> &Arc<ClientConfig> {
        match offer {
            Offer::H1 => &self.h1,
            Offer::H2 => &self.h2,
            Offer::Both => &self.both,
        }
    }
}

/// Makes connections by the rules of one [`NetSpec`], and presents one [`Identity`] or none.
#[derive(Debug, Clone)]
pub struct Connector {
    spec: Arc<NetSpec>,
    tls: Arc<Offering>,
    presents: bool,
}

impl Connector {
    /// Reads the roots. The error names the file that is to blame.
    pub fn new(spec: Arc<NetSpec>) -> Result<Self, String> {
        let tls = tls::client_config(&spec)?;
        Ok(Self { spec, tls: Arc::new(Offering::new(&tls)), presents: false })
    }

    /// The same way, presenting a certificate. TLS sessions are not shared with `self`.
    #[must_use]
    pub fn presenting(&self, identity: &Identity) -> Self {
        let tls = Offering::new(&tls::presenting(&self.tls.h1, identity));
        Self { spec: Arc::clone(&self.spec), tls: Arc::new(tls), presents: true }
    }

    /// Whether a certificate is presented to servers that ask for one.
    pub fn presents(&self) -> bool {
        self.presents
    }

    /// Connects for HTTP/1.1, TLS included, within `timeout`. `TCP_NODELAY` is set.
    pub async fn connect(&self, target: Target<'_>, timeout: Duration) -> Result<Stream, ConnectError> {
        self.offer(target, timeout, Offer::H1).await
    }

    /// The same for what the server chooses of `offer`.
    pub async fn offer(&self, target: Target<'_>, timeout: Duration, offer: Offer) -> Result<Stream, ConnectError> {
        let late = || ConnectError::Timeout { host: target.host.to_owned(), port: target.port, timeout };
        tokio::time::timeout(timeout, self.connect_now(target, offer)).await.map_err(|_| late())?
    }

    async fn connect_now(&self, target: Target<'_>, offer: Offer) -> Result<Stream, ConnectError> {
        let plain = target.scheme == Scheme::Http && !target.insecure;
        let tcp = match &self.spec.egress_proxy {
            None => self.reach(target.host, target.port, plain).await?,
            Some(proxy) => self.through(proxy, target, plain).await?,
        };
        let (host, port) = (target.host.to_owned(), target.port);
        match target.scheme {
            Scheme::Http => Ok(Stream::Plain(tcp)),
            Scheme::Https => match self.handshake(target.host, tcp, offer).await {
                Ok(stream) => Ok(stream),
                Err(source) => Err(match tls::certificate_alert(&source, self.presents) {
                    Some(alert) => ConnectError::Certificate { host, port, presented: self.presents, alert },
                    None => ConnectError::Tls { host, port, source },
                }),
            },
        }
    }

    /// A connection to the first address that accepts one; with `loopback_only` to none but loopback addresses.
    async fn reach(&self, host: &str, port: u16, loopback_only: bool) -> Result<TcpStream, ConnectError> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in self.resolve(host, port).await? {
            if loopback_only && !address.ip().is_loopback() {
                return Err(ConnectError::NotLoopback { host: host.to_owned() });
            }
            match self.dial(address).await {
                Ok(tcp) => return Ok(tcp),
                Err(e) => last = e,
            }
        }
        Err(ConnectError::Tcp { host: host.to_owned(), port, source: last })
    }

    /// A tunnel through `proxy`. Plain text stays on this host also with a proxy: target and proxy must be here.
    async fn through(
        &self,
        proxy: &EgressProxy,
        target: Target<'_>,
        loopback_only: bool,
    ) -> Result<TcpStream, ConnectError> {
        let here = target.host == "localhost" || target.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if loopback_only && !here {
            return Err(ConnectError::NotLoopback { host: target.host.to_owned() });
        }
        let refused = |why: String| ConnectError::Proxy { proxy: format!("{}:{}", proxy.host, proxy.port), why };
        let unreached = |e: ConnectError| if e.shortage().is_some() { e } else { refused(e.to_string()) };
        let mut tcp = self.reach(&proxy.host, proxy.port, loopback_only).await.map_err(unreached)?;
        tunnel::open(&mut tcp, proxy, target.host, target.port).await.map_err(refused)?;
        Ok(tcp)
    }

    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
        let unresolved = |why: String| ConnectError::Name { host: host.to_owned(), why };
        let mut addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_) => match tokio::net::lookup_host((host, port)).await {
                Ok(addresses) => addresses.collect(),
                // The resolver says "temporary failure" or worse where it got no descriptor.
                Err(e) => match shortage() {
                    Some(source) => return Err(ConnectError::Tcp { host: host.to_owned(), port, source }),
                    None => return Err(unresolved(e.to_string())),
                },
            },
        };
        addresses.retain(|a| match self.spec.ip_family {
            IpFamily::Any => true,
            IpFamily::V4 => a.is_ipv4(),
            IpFamily::V6 => a.is_ipv6(),
        });
        if let Some(local) = self.spec.local_address {
            addresses.retain(|a| a.is_ipv4() == local.is_ipv4());
        }
        if addresses.is_empty() {
            return Err(unresolved("no address of the wanted family".to_owned()));
        }
        Ok(addresses)
    }

    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(local) = self.spec.local_address {
            let bound = socket.bind(&SocketAddr::new(local, 0).into());
            bound.map_err(|e| match e.kind() {
                // Said here, where it is no lack of ports.
                io::ErrorKind::AddrNotAvailable => {
                    io::Error::new(e.kind(), format!("local_address {local} is no address of this host"))
                }
                _ => e,
            })?;
        }
        TcpSocket::from_std_stream(socket.into()).connect(address).await
    }

    async fn handshake(&self, host: &str, tcp: TcpStream, offer: Offer) -> io::Result<Stream> {
        let config = self.tls.of(offer);
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let tls = tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?;
        Ok(Stream::Tls(Box::new(tls)))
    }
}
