//! HTTP/2 on both sides, as streams that look to the rest of the data plane like connections of HTTP/1.1.
//!
//! [`server`] serves a caller's connection; each of its requests is an [`Incoming`] in a task of its own.
//! [`shared`] holds connections to upstreams that many requests use at once; each is an [`Outgoing`]. Both
//! translate heads ([`crate::wire::translate`], [`crate::wire::h2`]), so that the same parser and the same rules judge
//! them; bodies pass as they are. A stream that is dropped before its end is reset, so that a truncated body never looks
//! complete.
//!
//! Towards callers, whom nobody vouches for, the `h2` crate does frames, header compression and flow control. Towards
//! upstreams it is our own [`session`]: a request costs two thirds of what it did (docs/performance.md), and of one that was never
//! sent that is known.

mod incoming;
mod lane;
mod outgoing;
mod session;
mod shared;
mod stream;
mod watched;

pub(super) mod server;

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream};

pub(super) use incoming::Incoming;
pub(super) use outgoing::{Outgoing, Unsent};
pub(super) use shared::Shared;

use crate::wire::translate::{trailers_to_h1, trailers_to_h2};

/// How many bytes of one stream's body may be under way to us unread: what a slow reader costs. Windows of upstreams' answers may grow.
const STREAM_WINDOW: u32 = 256 * 1024;
/// How many streams one connection has at most, in either direction: what RFC 9113 section 6.5.2 recommends, and what clients
/// assume that have not read our settings yet.
const STREAMS: u32 = 100;
/// Large enough that slow streams together cannot use up what the others need.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS;
/// How many bytes of one stream's body lie ready to be sent.
const SEND_BUFFER: usize = 64 * 1024;

/// The reading half of a stream.
#[derive(Debug)]
struct Body {
    stream: RecvStream,
    rest: Bytes,
    ended: bool,
    trailers: Vec<u8>,
}

impl Body {
    fn new(stream: RecvStream) -> Self {
        Self { stream, rest: Bytes::new(), ended: false, trailers: Vec::new() }
    }

    fn has_ended(&self) -> bool {
        self.ended || self.rest.is_empty() && self.stream.is_end_stream()
    }

    /// Reads into `buf`; 0 = the body has come to its proper end.
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut tokio::io::ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() && !self.ended {
            if let Some(data) = ready!(self.stream.poll_data(cx)) {
                self.rest = data.map_err(io::Error::other)?;
            } else {
                if let Some(trailers) = ready!(self.stream.poll_trailers(cx)).map_err(io::Error::other)? {
                    trailers_to_h1(&mut self.trailers, &trailers);
                }
                self.ended = true;
            }
        }
        let n = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest.split_to(n));
        // What the peer may send next: only as much as was really taken.
        if n > 0 {
            self.stream.flow_control().release_capacity(n).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(()))
    }
}

/// The sending half of a stream, from when its head is sent.
#[derive(Debug, Default)]
struct Sending {
    stream: Option<SendStream<Bytes>>,
    ended: bool,
}

impl Sending {
    /// Of a stream whose head was sent; `ended`: no body follows.
    fn new(stream: SendStream<Bytes>, ended: bool) -> Self {
        Self { stream: Some(stream), ended }
    }

    /// Sends as much of `data` as the peer's windows allow.
    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Some(stream) => poll_send(stream, cx, data),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Sends all of a short body, and its end, whatever the windows allow.
    fn finish(&mut self, body: Bytes) -> io::Result<()> {
        match &mut self.stream {
            Some(stream) if !std::mem::replace(&mut self.ended, true) => {
                stream.send_data(body, true).map_err(io::Error::other)
            }
            _ => Ok(()),
        }
    }

    /// Ends the body, with these trailer lines if there are any; a second time it does nothing.
    fn end(&mut self, trailers: &[u8]) -> io::Result<()> {
        if trailers.is_empty() {
            return self.finish(Bytes::new());
        }
        match &mut self.stream {
            Some(stream) if !std::mem::replace(&mut self.ended, true) => {
                let trailers = trailers_to_h2(trailers).map_err(io::Error::other)?;
                stream.send_trailers(trailers).map_err(io::Error::other)
            }
            _ => Ok(()),
        }
    }
}

fn poll_send(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
    if data.is_empty() {
        return Poll::Ready(Ok(0));
    }
    stream.reserve_capacity(data.len());
    while stream.capacity() == 0 {
        match ready!(stream.poll_capacity(cx)) {
            Some(more) => more.map_err(io::Error::other)?,
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
    }
    let n = stream.capacity().min(data.len());
    stream.send_data(Bytes::copy_from_slice(&data[..n]), false).map_err(io::Error::other)?;
    Poll::Ready(Ok(n))
}
