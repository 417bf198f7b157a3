//! The socket under a TLS connection.

use std::{
    io::{self, IoSlice},
    ops::Deref,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A TCP connection that sends a single piece by `send`, which is cheaper than `writev`: rustls always writes a list of
/// pieces, and the list has one record in it for all but large bodies.
///
/// It counts what it sends: a write of TLS that fails does not tell how much of it went out before.
#[derive(Debug)]
pub struct Tcp {
    socket: TcpStream,
    sent: u64,
}

impl Tcp {
    /// Over this connection.
    pub fn new(socket: TcpStream) -> Self {
        Self { socket, sent: 0 }
    }

    /// How many bytes the kernel has taken to be sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    fn counted(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = &polled {
            self.sent += *n as u64;
        }
        polled
    }
}

impl Deref for Tcp {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.socket
    }
}

impl AsyncRead for Tcp {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.socket).poll_write(cx, buf);
        this.counted(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let tcp = Pin::new(&mut this.socket);
        let polled = match pieces {
            [piece] => tcp.poll_write(cx, piece),
            pieces => tcp.poll_write_vectored(cx, pieces),
        };
        this.counted(polled)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
