//! One request of a caller that speaks HTTP/2.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{StatusCode, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::{
    head::head_end,
    translate::{response_to_h2, trailers_to_h1, trailers_to_h2},
};

/// Both halves of a stream.
#[derive(Debug)]
pub(in crate::proxy) struct Incoming {
    body: Body,
    respond: SendResponse<Bytes>,
    sending: Sending,
}

impl Incoming {
    pub(super) fn new(body: RecvStream, respond: SendResponse<Bytes>) -> Self {
        Self { body: Body::new(body), respond, sending: Sending::default() }
    }

    /// Sends the answer's head; `ends`: no body follows.
    pub(in crate::proxy) fn begin(&mut self, head: &[u8], ends: bool) -> io::Result<()> {
        let mut response = response_to_h2(head).map_err(io::Error::other)?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // RFC 8441 section 5: any 2xx grants it, and there is no key to prove.
            *response.status_mut() = StatusCode::OK;
            response.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
        }
        self.sending = Sending::new(self.respond.send_response(response, ends).map_err(io::Error::other)?, ends);
        Ok(())
    }

    /// Sends an interim response.
    pub(in crate::proxy) fn interim(&mut self, head: &[u8]) -> io::Result<()> {
        let response = response_to_h2(head).map_err(io::Error::other)?;
        self.respond.send_informational(response).map_err(io::Error::other)
    }

    /// Sends a whole answer of our own.
    pub(in crate::proxy) fn answer(&mut self, whole: &[u8]) -> io::Result<()> {
        let end = head_end(whole, 0).unwrap_or(whole.len());
        let body = Bytes::copy_from_slice(&whole[end..]);
        self.begin(&whole[..end], body.is_empty())?;
        self.sending.finish(body)
    }

    /// Ready once the caller has given the stream up.
    pub(in crate::proxy) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.sending.stream {
            Some(stream) if !self.sending.ended => stream.poll_reset(cx).map(|_| ()),
            Some(_) => Poll::Pending,
            None => self.respond.poll_reset(cx).map(|_| ()),
        }
    }

    /// Cuts the answer off so that nobody takes it for a whole one.
    pub(in crate::proxy) fn reset(&mut self) {
        self.respond.send_reset(Reason::INTERNAL_ERROR);
    }

    /// Whether nothing more of the request comes.
    pub(in crate::proxy) fn has_sent_all(&self) -> bool {
        self.body.has_ended()
    }

    pub(in crate::proxy) fn trailers(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.body.trailers)
    }

    pub(in crate::proxy) fn end(&mut self, trailers: &[u8]) -> io::Result<()> {
        self.sending.end(trailers)
    }
}

impl AsyncRead for Incoming {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().body.poll_read(cx, buf)
    }
}

/// Writes to the `sending` half; the task of the connection sends.
impl AsyncWrite for Incoming {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().sending.poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().sending.end(&[]))
    }
}

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
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
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
