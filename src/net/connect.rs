//! Who makes connections: the rules of one [`NetSpec`], ready to be used.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, pki_types::ServerName};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

use super::{ConnectError, Stream, attempt::Attempt, names::Names, tcp::Tcp, tls};
use crate::config::{
    identity::Identity,
    model::{IpFamily, NetSpec, Scheme, Upstream},
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
    pub(super) spec: Arc<NetSpec>,
    tls: Arc<Offering>,
    pub(super) names: Arc<Names>,
    presents: bool,
    roots: tls::Roots,
}

impl Connector {
    /// Reads the roots. The error names the file that is to blame.
    pub fn new(spec: Arc<NetSpec>) -> Result<Self, String> {
        let (tls, roots) = tls::client_config(&spec)?;
        let names = Names::of(&spec.resolver);
        Ok(Self { spec, tls: Arc::new(Offering::new(&tls)), names, presents: false, roots })
    }

    /// The same way, presenting a certificate. TLS sessions are not shared with `self`.
    #[must_use]
    pub fn presenting(&self, identity: &Identity) -> Self {
        let tls = Offering::new(&tls::presenting(&self.tls.h1, identity));
        Self { tls: Arc::new(tls), presents: true, ..self.clone() }
    }

    /// Whom it trusts beside the system's roots: equal where the `ca_file`s held the same certificates when they were read.
    pub fn roots(&self) -> [u8; 32] {
        self.roots
    }

    /// Whether it goes the same way and trusts the same servers.
    pub fn leads_like(&self, other: &Self) -> bool {
        self.spec == other.spec && self.roots == other.roots
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
    ///
    /// All addresses of a name have their turn: they race for the connection ([`race`]); one that breaks off before the
    /// TLS handshake is over, or holds it up, is followed by the next. What a server says in a handshake, its certificate
    /// or an alert, is its answer: no other address is asked.
    pub async fn offer(&self, target: Target<'_>, timeout: Duration, offer: Offer) -> Result<Stream, ConnectError> {
        let attempt = Attempt { connector: self, target, offer, timeout, began: Instant::now() };
        attempt.run().await
    }

    pub(super) fn family(&self) -> IpFamily {
        match self.spec.local_address {
            Some(IpAddr::V4(_)) => IpFamily::V4,
            Some(IpAddr::V6(_)) => IpFamily::V6,
            None => self.spec.ip_family,
        }
    }

    pub(super) async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
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

    pub(super) async fn handshake(&self, host: &str, tcp: TcpStream, offer: Offer) -> io::Result<TlsStream<Tcp>> {
        let config = self.tls.of(offer);
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, Tcp::new(tcp)).await
    }
}
