//! One request to an upstream that speaks HTTP/2.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{lane::Lane, stream::Failure};
use crate::wire::h2::encode::BadTarget;

/// Why a request was not sent.
#[derive(Debug)]
pub(in crate::proxy) enum Unsent {
    /// It cannot be told in HTTP/2.
    Untold(BadTarget),
    /// The connection takes no new streams.
    Closed,
}

/// Both halves of a stream. Its answer reads like one of HTTP/1.1: a head, then the body as it is.
#[derive(Debug)]
pub(in crate::proxy) struct Outgoing {
    lane: Rc<Lane>,
    scheme: &'static str,
    /// Of the stream, once the request was sent.
    id: Option<u32>,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.lane.session().leave(id);
        }
        self.lane.leave();
    }
}

impl Outgoing {
    /// A stream on a connection that has a place for it.
    pub(super) fn new(lane: Rc<Lane>, scheme: &'static str) -> Self {
        lane.enter();
        Self { lane, scheme, id: None }
    }

    /// Sends the request's head; `ends`: no body follows.
    pub(in crate::proxy) fn begin(&mut self, head: &[u8], ends: bool) -> Result<(), Unsent> {
        self.id = self.lane.session().begin(head, self.scheme, ends).map_err(Unsent::Untold)?;
        self.id.map(|_| ()).ok_or(Unsent::Closed)
    }

    /// Whether the upstream did not act on the request: it has said so (RFC 9113 sections 6.8 and 8.7), or was sent nothing of it.
    pub(in crate::proxy) fn was_refused(&self) -> bool {
        let mut session = self.lane.session();
        let failure = self.id.and_then(|id| session.stream(id)?.failure.as_ref());
        matches!(failure, Some(Failure::Unprocessed))
    }

    /// The connection gave no answer in time: nobody else shall wait for it in vain.
    pub(in crate::proxy) fn distrust(&self) {
        self.lane.close();
    }

    /// The lines of the trailer section with its empty line, once the answer was read to its end.
    pub(in crate::proxy) fn trailers(&mut self) -> Vec<u8> {
        let mut session = self.lane.session();
        let stream = self.id.and_then(|id| session.stream(id));
        stream.map(|stream| std::mem::take(&mut stream.trailers)).unwrap_or_default()
    }

    /// Ends the request's body, with these trailer lines if there are any; a second time it does nothing.
    pub(in crate::proxy) fn end(&mut self, trailers: &[u8]) -> io::Result<()> {
        self.id.map_or(Ok(()), |id| self.lane.session().end(id, trailers))
    }

    fn failed<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if !matches!(polled, Poll::Ready(Err(_))) {
            return polled;
        }
        // What it refuses once it will refuse again.
        if self.was_refused() {
            self.lane.close();
        }
        polled.map_err(|error| self.lane.alert().unwrap_or(error))
    }
}

impl AsyncRead for Outgoing {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(id) = self.id else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let polled = self.lane.session().poll_read(id, cx, buf);
        self.failed(polled).map_ok(|interim| self.lane.expect(interim))
    }
}

impl AsyncWrite for Outgoing {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let Some(id) = self.id else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let polled = self.lane.session().poll_write(id, cx, data);
        self.failed(polled)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().end(&[]))
    }
}
