//! The caller's end of a connection.

use std::{
    future::Future,
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf},
    net::TcpStream,
};

/// A connection from a caller.
#[derive(Debug)]
pub(super) enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A pipe in memory: the data plane without sockets, for measuring ([`super::rig`]).
    Memory(DuplexStream),
}

impl Socket {
    /// Ready once a read may give something. Costs no system call while nothing has arrived.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read_ready(cx),
            Self::Memory(_) => Poll::Ready(Ok(())),
        }
    }

    /// Whether bytes or an end have arrived, as the kernel has it: one system call.
    pub(super) fn has_arrived(&self) -> bool {
        match self {
            Self::Tcp(tcp) => socket2::SockRef::from(tcp).peek(&mut [MaybeUninit::uninit()]).is_ok_and(|n| n > 0),
            Self::Memory(_) => false,
        }
    }

    /// Whether the other side is known to have ended its sending, even where what it sent before is still
    /// unread. Costs no system call.
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Self::Tcp(tcp) => {
                let ready = pin!(tcp.ready(Interest::READABLE));
                let known = ready.poll(&mut Context::from_waker(Waker::noop()));
                matches!(known, Poll::Ready(Ok(ready)) if ready.is_read_closed())
            }
            Self::Memory(_) => false,
        }
    }

    /// Makes the connection end with a reset whatever ends it, be it this process, or takes that back: an
    /// unfinished answer cannot be taken for a whole one then. A body that ends with the connection
    /// (HTTP/1.0) has no other mark of its end.
    pub(super) fn reset_on_close(&self, reset: bool) {
        if let Self::Tcp(tcp) = self {
            // Fails only where the connection is gone already.
            let _ = socket2::SockRef::from(tcp).set_linger(reset.then_some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Memory(pipe) => Pin::new(pipe).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Memory(pipe) => Pin::new(pipe).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Memory(pipe) => Pin::new(pipe).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Memory(pipe) => Pin::new(pipe).poll_shutdown(cx),
        }
    }
}
