//! How a body is moved: one piece of code for both directions and every pair of framings.
//!
//! A [`Pump`] reads from one side, takes the framing off, puts the other framing on, and writes to the
//! other side. It holds at most one buffer, so a slow reader slows the writer down (back-pressure) and
//! memory stays flat. A body that ends too early is an error; its end is never made up.

mod pump;
mod replay;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::buffer::Buffer;
pub(super) use pump::{Pump, PumpError, Way};
pub(super) use replay::Replay;

/// Where a body comes from.
pub(super) trait Inlet: AsyncRead + Unpin {
    /// After the end of a body that is not framed in its bytes: its trailer section, empty where there is none.
    fn trailers(&mut self) -> Vec<u8> {
        Vec::new()
    }
}

/// Where a body goes.
pub(super) trait Outlet: AsyncWrite + Unpin {
    /// Tells the end of a body that is not framed in its bytes, with these trailer lines.
    fn end(&mut self, _trailers: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

impl Outlet for tokio::io::Sink {}

/// A stream and what has been read ahead of it.
#[derive(Debug)]
pub(super) struct Side<S> {
    pub(super) io: S,
    pub(super) buf: Buffer,
}

impl<S: AsyncRead + Unpin> Side<S> {
    /// Reads more into the buffer; 0 = the stream has ended. The buffer must have space.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = ReadBuf::new(self.buf.space());
        debug_assert!(space.remaining() > 0, "a full buffer cannot tell the end from its own fullness");
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut space))?;
        let n = space.filled().len();
        self.buf.advance(n);
        Poll::Ready(Ok(n))
    }
}

#[cfg(test)]
mod tests;
