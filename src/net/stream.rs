//! One byte stream to a server, plain or TLS.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// A connection to a server.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
    /// A pipe in memory: a server without a socket, for measuring.
    Memory(DuplexStream),
}

impl Stream {
    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            Self::Tls(tls) => Some(tls.get_ref().0),
            Self::Memory(_) => None,
        }
    }

    /// Whether the handshake chose HTTP/2.
    pub fn speaks_h2(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(b"h2"))
    }

    /// Whether an idle connection may still be used: nothing has arrived on it (an answer nobody asked
    /// for, or its end). Costs no system call while nothing has.
    pub fn is_quiet(&mut self) -> bool {
        if let Self::Tls(tls) = self {
            // What rustls has read and decrypted already is in no socket buffer any more.
            let nothing_more =
                |state: rustls::IoState| state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed();
            if !tls.get_mut().1.process_new_packets().is_ok_and(nothing_more) {
                return false;
            }
        }
        let Some(tcp) = self.tcp() else { return true };
        match tcp.try_io(Interest::READABLE, || peek(tcp)) {
            Err(e) => e.kind() == io::ErrorKind::WouldBlock,
            Ok(_) => false,
        }
    }
}

/// Why nothing can be written: a server that ends a connection says so by an alert, which lies unread where a write
/// fails first. Whatever else lies there is kept for the reader.
fn why(tls: &mut TlsStream<TcpStream>, error: io::Error) -> io::Error {
    let (tcp, connection) = tls.get_mut();
    // The socket itself: what the runtime knows of it is from before the write.
    let socket = socket2::SockRef::from(&*tcp);
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
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::Memory(pipe) => Pin::new(pipe).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(&mut *tls).poll_write(cx, buf).map_err(|e| why(tls, e)),
            Self::Memory(pipe) => Pin::new(pipe).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(&mut *tls).poll_flush(cx).map_err(|e| why(tls, e)),
            Self::Memory(pipe) => Pin::new(pipe).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Memory(pipe) => Pin::new(pipe).poll_shutdown(cx),
        }
    }
}
