//! The two ends of a request: what is read from and written to, whatever version is spoken on it.

use std::{
    future::Future,
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, DuplexStream, Interest, ReadBuf},
    net::TcpStream,
};

use tokio_rustls::server::TlsStream;

use super::{
    body::{Inlet, Outlet},
    h2::{Incoming, Outgoing},
};
use crate::{
    net::{Stream, Tcp},
    wire::{Framing, Version},
};

/// A connection from a caller.
#[derive(Debug)]
pub(super) enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<Tcp>>),
    /// One stream of an HTTP/2 connection.
    H2(Box<Incoming>),
    /// A pipe in memory: the data plane without sockets, for measuring ([`super::rig`]).
    Memory(DuplexStream),
}

impl Socket {
    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Tls(tls) => Some(tls.get_ref().0),
            Self::H2(_) | Self::Memory(_) => None,
        }
    }

    /// Whether the handshake chose HTTP/2 (ALPN).
    pub(super) fn chose_h2(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(b"h2"))
    }

    /// Ready once a read may give something. Costs no system call while nothing has arrived.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read_ready(cx),
            // What is decrypted already shows on no socket; a read that finds nothing is cheap.
            Self::Tls(_) | Self::Memory(_) => Poll::Ready(Ok(())),
            // Its body waits behind the window; only its reset is news.
            Self::H2(stream) => stream.poll_reset(cx).map(|()| Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    /// Whether bytes or an end have arrived, as the kernel has it: one system call.
    pub(super) fn has_arrived(&self) -> bool {
        match self.tcp() {
            Some(tcp) => socket2::SockRef::from(tcp).peek(&mut [MaybeUninit::uninit()]).is_ok_and(|n| n > 0),
            None => false,
        }
    }

    /// Whether the other side is known to have ended its sending, even where what it sent before is still
    /// unread. Costs no system call.
    pub(super) fn has_ended(&self) -> bool {
        match self.tcp() {
            Some(tcp) => {
                let ready = pin!(tcp.ready(Interest::READABLE));
                let known = ready.poll(&mut Context::from_waker(Waker::noop()));
                matches!(known, Poll::Ready(Ok(ready)) if ready.is_read_closed())
            }
            None => false,
        }
    }

    /// Makes the connection end with a reset whatever ends it, be it this process, or takes that back: an
    /// unfinished answer cannot be taken for a whole one then. A body that ends with the connection
    /// (HTTP/1.0) has no other mark of its end.
    pub(super) fn reset_on_close(&self, reset: bool) {
        if let Some(tcp) = self.tcp() {
            // Fails only where the connection is gone already.
            let _ = socket2::SockRef::from(tcp).set_linger(reset.then_some(Duration::ZERO));
        }
    }

    /// Ends what cannot be completed, so that nobody takes it for a whole answer.
    pub(super) fn abort(&mut self) {
        match self {
            Self::H2(stream) => stream.reset(),
            _ => self.reset_on_close(true),
        }
    }

    /// Whether a stream of HTTP/2 has come to its end, as far as it was read.
    pub(super) fn has_sent_all(&self) -> bool {
        matches!(self, Self::H2(stream) if stream.has_sent_all())
    }

    /// Whether this is a stream of HTTP/2.
    pub(super) fn is_h2(&self) -> bool {
        matches!(self, Self::H2(_))
    }

    /// How a body arrives that its head tells as `told`.
    pub(super) fn reads(&self, told: Framing) -> Framing {
        if self.is_h2() { by_its_end(told) } else { told }
    }

    /// Begins the final answer with this head; `ends`: no body follows. Returns what of it is still to be
    /// written as bytes.
    pub(super) fn begin(&mut self, mut head: Vec<u8>, ends: bool) -> io::Result<Vec<u8>> {
        if let Self::H2(stream) = self {
            stream.begin(&head, ends)?;
            head.clear();
        }
        Ok(head)
    }

    /// Sends a whole interim response.
    pub(super) async fn interim(&mut self, head: &[u8]) -> io::Result<()> {
        match self {
            Self::H2(stream) => stream.interim(head),
            _ => self.write_all(head).await,
        }
    }

    /// Sends a whole answer, head and body.
    pub(super) async fn answer(&mut self, whole: &[u8]) -> io::Result<()> {
        match self {
            Self::H2(stream) => stream.answer(whole),
            _ => self.write_all(whole).await,
        }
    }
}

/// A body of HTTP/2 ends where its stream does, which holds it to the length that was told.
fn by_its_end(told: Framing) -> Framing {
    if told.is_empty() { told } else { Framing::UntilClose }
}

impl Inlet for Socket {
    fn trailers(&mut self) -> Vec<u8> {
        match self {
            Self::H2(stream) => stream.trailers(),
            _ => Vec::new(),
        }
    }
}

impl Outlet for Socket {
    fn end(&mut self, trailers: &[u8]) -> io::Result<()> {
        match self {
            Self::H2(stream) => stream.end(trailers),
            _ => Ok(()),
        }
    }
}

/// The upstream's end: a connection of its own, or a stream on a shared one.
#[derive(Debug)]
pub(super) enum Link {
    /// HTTP/1.1.
    H1(Stream),
    /// HTTP/2.
    H2(Box<Outgoing>),
}

impl Link {
    /// What is spoken on it.
    pub(super) fn protocol(&self) -> &'static str {
        match self {
            Self::H1(_) => Version::H11,
            Self::H2(_) => Version::H2,
        }
        .as_str()
    }

    /// How many bytes have left on it over TLS ([`Stream::sent`]).
    pub(super) fn has_left(&self) -> u64 {
        match self {
            Self::H1(stream) => stream.sent(),
            Self::H2(_) => 0,
        }
    }

    /// How a body arrives that its head tells as `told`.
    pub(super) fn reads(&self, told: Framing) -> Framing {
        if matches!(self, Self::H2(_)) { by_its_end(told) } else { told }
    }

    /// How a body is sent whose head tells `told`.
    pub(super) fn sends(&self, told: Framing) -> Framing {
        self.reads(told)
    }
}

impl Inlet for Link {
    fn trailers(&mut self) -> Vec<u8> {
        match self {
            Self::H1(_) => Vec::new(),
            Self::H2(stream) => stream.trailers(),
        }
    }
}

impl Outlet for Link {
    fn end(&mut self, trailers: &[u8]) -> io::Result<()> {
        match self {
            Self::H1(_) => Ok(()),
            Self::H2(stream) => stream.end(trailers),
        }
    }
}

/// Passes each call on to whatever is inside.
macro_rules! pass_on {
    ($name:ident: $($kind:ident),*) => {
        impl AsyncRead for $name {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $(Self::$kind(io) => Pin::new(io).poll_read(cx, buf),)*
                }
            }
        }

        impl AsyncWrite for $name {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $(Self::$kind(io) => Pin::new(io).poll_write(cx, buf),)*
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $(Self::$kind(io) => Pin::new(io).poll_flush(cx),)*
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $(Self::$kind(io) => Pin::new(io).poll_shutdown(cx),)*
                }
            }
        }
    };
}

pass_on!(Socket: Tcp, Tls, H2, Memory);
pass_on!(Link: H1, H2);
