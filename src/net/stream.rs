//! One byte stream to a server, plain or TLS.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use rustls::HandshakeKind;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::{names::Place, tcp::Tcp};

/// A connection takes no new requests after so long: behind a load balancer, an anycast address or an egress proxy, a name may
/// lead elsewhere without its addresses telling.
const MAX_AGE: Duration = Duration::from_secs(300);
/// Up to so many seconds earlier, by chance: connections that were made together do not all end together.
const SPREAD: u64 = 64;

/// A connection to a server.
#[derive(Debug)]
pub struct Stream {
    io: Io,
    /// The address it leads to, where that is one of a name.
    place: Option<Arc<Place>>,
    retires: Instant,
}

#[derive(Debug)]
pub(super) enum Io {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<Tcp>>),
    /// A pipe in memory.
    Memory(DuplexStream),
}

impl Io {
    /// How its TLS was begun, for the log.
    pub(super) fn handshake(&self) -> &'static str {
        match self {
            Self::Tls(tls) => match tls.get_ref().1.handshake_kind() {
                Some(HandshakeKind::Resumed) => "resumed",
                _ => "full",
            },
            Self::Plain(_) | Self::Memory(_) => "none",
        }
    }
}

impl Stream {
    pub(super) fn new(io: Io, place: Option<Arc<Place>>) -> Self {
        let mut stream = Self { io, place, retires: Instant::now() + MAX_AGE };
        let port = stream.tcp().and_then(|tcp| tcp.local_addr().ok()).map_or(0, |local| local.port());
        stream.retires -= Duration::from_secs(u64::from(port) % SPREAD);
        stream
    }

    /// A server without a socket, for measuring.
    pub fn memory(pipe: DuplexStream) -> Self {
        Self::new(Io::Memory(pipe), None)
    }

    /// The same, made so long ago.
    #[cfg(test)]
    pub(crate) fn aged(self, by: Duration) -> Self {
        Self { retires: self.retires.checked_sub(by).unwrap(), ..self }
    }

    /// From when on it takes no new requests.
    pub fn retires(&self) -> Instant {
        self.retires
    }

    /// The address of a name that it leads to; it takes no new requests once that [is gone](Place::is_gone).
    pub fn place(&self) -> Option<&Arc<Place>> {
        self.place.as_ref()
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match &self.io {
            Io::Plain(tcp) => Some(tcp),
            Io::Tls(tls) => Some(tls.get_ref().0),
            Io::Memory(_) => None,
        }
    }

    /// How many bytes have left over TLS, that of its own included. Without TLS, and with a write that succeeds, what was written says it.
    pub fn sent(&self) -> u64 {
        match &self.io {
            Io::Tls(tls) => tls.get_ref().0.sent(),
            Io::Plain(_) | Io::Memory(_) => 0,
        }
    }

    /// Whether the handshake chose HTTP/2.
    pub fn speaks_h2(&self) -> bool {
        matches!(&self.io, Io::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(b"h2"))
    }

    /// Whether an idle connection may still be used: nothing has arrived on it (an answer nobody asked
    /// for, or its end). Costs no system call while nothing has.
    pub fn is_quiet(&mut self) -> bool {
        if let Io::Tls(tls) = &mut self.io {
            return is_quiet(tls);
        }
        let Some(tcp) = self.tcp() else { return true };
        match tcp.try_io(Interest::READABLE, || peek(tcp)) {
            Err(e) => e.kind() == io::ErrorKind::WouldBlock,
            Ok(_) => false,
        }
    }
}

/// Nothing for us, that is: what TLS says for itself is taken in (a server sends tickets for later sessions when it likes).
fn is_quiet(tls: &mut TlsStream<Tcp>) -> bool {
    let (tcp, connection) = tls.get_mut();
    loop {
        let silent = |state: rustls::IoState| state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed();
        if !connection.process_new_packets().is_ok_and(silent) {
            return false;
        }
        let socket = socket2::SockRef::from(&**tcp);
        match tcp.try_io(Interest::READABLE, || connection.read_tls(&mut &*socket)) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

/// Why nothing can be written: a server that ends a connection says so by an alert, which lies unread where a write
/// fails first. Whatever else lies there is kept for the reader.
fn why(tls: &mut TlsStream<Tcp>, error: io::Error) -> io::Error {
    let (tcp, connection) = tls.get_mut();
    // The socket itself: what the runtime knows of it is from before the write.
    let socket = socket2::SockRef::from(&**tcp);
    while connection.wants_read() && connection.read_tls(&mut &*socket).is_ok_and(|read| read > 0) {
        if let Err(alert @ rustls::Error::AlertReceived(_)) = connection.process_new_packets() {
            return io::Error::new(io::ErrorKind::InvalidData, alert);
        }
    }
    error
}

fn peek(tcp: &TcpStream) -> io::Result<usize> {
    socket2::SockRef::from(tcp).peek(&mut [MaybeUninit::uninit()])
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Io::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            Io::Memory(pipe) => Pin::new(pipe).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Io::Tls(tls) => Pin::new(&mut *tls).poll_write(cx, buf).map_err(|e| why(tls, e)),
            Io::Memory(pipe) => Pin::new(pipe).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Io::Tls(tls) => Pin::new(&mut *tls).poll_flush(cx).map_err(|e| why(tls, e)),
            Io::Memory(pipe) => Pin::new(pipe).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Io::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Io::Memory(pipe) => Pin::new(pipe).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::ServerName};
    use tokio::net::TcpListener;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    /// Both ends of a connection over TLS.
    async fn pair() -> (Stream, tokio_rustls::server::TlsStream<TcpStream>) {
        let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(key.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let server = server.unwrap().with_no_client_auth().with_single_cert(vec![key.cert.der().clone()], private);
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        let connecting = connector.connect(name, Tcp::new(tcp));
        let accepting = async { TlsAcceptor::from(Arc::new(server.unwrap())).accept(listener.accept().await?.0).await };
        let (client, server) = tokio::join!(connecting, accepting);
        (Stream::new(Io::Tls(Box::new(client.unwrap())), None), server.unwrap())
    }

    #[tokio::test]
    async fn a_write_over_tls_that_fails_tells_whether_some_of_it_had_left() {
        let (mut stream, server) = pair().await;
        let body = vec![b'x'; 60_000];
        let write = async |stream: &mut Stream| poll_fn(|cx| Pin::new(&mut *stream).poll_write(cx, &body)).await;
        let handshake = stream.sent();
        assert!(handshake > 0);
        assert_eq!(write(&mut stream).await.unwrap(), body.len());
        assert!(stream.sent() > handshake + 60_000, "what the server has not read has left all the same");
        drop(server); // a reset, as bytes are unread
        let before = loop {
            let before = stream.sent();
            if write(&mut stream).await.is_err() {
                break before;
            }
        };
        assert_eq!(stream.sent(), before, "nothing of the one that failed");
    }
}
