//! A connection to an upstream below HTTP/2: notices floods, and keeps the TLS alert that ended it, by which a refused certificate is
//! told from other ends.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::lane::Lane;
use crate::{
    net::{Stream, alert},
    wire::flood::Watch,
};

/// A stream that its lane knows of.
pub(super) struct Watched {
    stream: Stream,
    lane: Rc<Lane>,
    watch: Watch,
}

impl Watched {
    pub(super) fn new(stream: Stream, lane: Rc<Lane>) -> Self {
        Self { stream, lane, watch: Watch::of_server(Instant::now()) }
    }

    fn noted<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled
            && let Some(alert) = alert(error)
        {
            self.lane.end_with(alert);
        }
        polled
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        ready!(this.noted(polled))?;
        let allowed = this.watch.allows(&buf.filled()[before..], Instant::now);
        if allowed && this.lane.expected(this.watch.heads()) {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(io::Error::other("it floods the connection with frames that carry nothing")))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = &polled {
            self.watch.sent(&buf[..*n]);
        }
        self.noted(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.noted(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
