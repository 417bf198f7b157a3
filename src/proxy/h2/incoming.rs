//! One request of a caller that speaks HTTP/2.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{Reason, server::SendResponse};
use http::{StatusCode, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Body, Sending};
use crate::wire::{head::head_end, translate::response_to_h2};

/// Both halves of a stream.
#[derive(Debug)]
pub(in crate::proxy) struct Incoming {
    body: Body,
    respond: SendResponse<Bytes>,
    sending: Sending,
}

impl Incoming {
    pub(super) fn new(body: h2::RecvStream, respond: SendResponse<Bytes>) -> Self {
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
