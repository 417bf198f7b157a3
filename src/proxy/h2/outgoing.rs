//! One request to an upstream that speaks HTTP/2.

use std::{
    cell::Cell,
    future::Future as _,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{
    Reason,
    client::{ResponseFuture, SendRequest},
};
use http::Method;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Body, Sending, shared::Lane, write_to_sending};
use crate::wire::translate::{TranslateError, request_to_h2, response_to_h1};

/// Why a request was not sent.
#[derive(Debug)]
pub(in crate::proxy) enum Unsent {
    /// It cannot be told in HTTP/2.
    Untold(TranslateError),
    /// The connection takes no new streams.
    Closed,
}

#[derive(Debug)]
enum Answer {
    /// The request has not been sent.
    None,
    Awaited(ResponseFuture),
    Body(Body),
}

/// Both halves of a stream. Its answer reads like one of HTTP/1.1: a head, then the body as it is.
#[derive(Debug)]
pub(in crate::proxy) struct Outgoing {
    sender: SendRequest<Bytes>,
    scheme: &'static str,
    lane: Rc<Lane>,
    sending: Sending,
    answer: Answer,
    is_head: bool,
    /// Bytes of a head that are still to be read.
    head: Vec<u8>,
    read: usize,
    refused: Cell<bool>,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.lane.leave();
    }
}

impl Outgoing {
    /// A stream on `sender`'s connection, which must be ready; it counts in `lane`.
    pub(super) fn new(sender: SendRequest<Bytes>, scheme: &'static str, lane: Rc<Lane>) -> Self {
        lane.enter();
        Self {
            sender,
            scheme,
            lane,
            sending: Sending::default(),
            answer: Answer::None,
            is_head: false,
            head: Vec::new(),
            read: 0,
            refused: Cell::new(false),
        }
    }

    /// Sends the request's head; `ends`: no body follows.
    pub(in crate::proxy) fn begin(&mut self, head: &[u8], ends: bool) -> Result<(), Unsent> {
        let request = request_to_h2(head, self.scheme).map_err(Unsent::Untold)?;
        self.is_head = request.method() == Method::HEAD;
        let Ok((response, send)) = self.sender.send_request(request, ends) else {
            self.lane.close();
            return Err(Unsent::Closed);
        };
        self.answer = Answer::Awaited(response);
        self.sending = Sending::new(send, ends);
        Ok(())
    }

    /// Whether the upstream has said that it did not act on the request (RFC 9113 sections 6.8 and 8.7).
    pub(in crate::proxy) fn was_refused(&self) -> bool {
        self.refused.get()
    }

    /// The connection gave no answer in time: nobody else shall wait for it in vain.
    pub(in crate::proxy) fn distrust(&self) {
        self.lane.close();
    }

    pub(in crate::proxy) fn trailers(&mut self) -> Vec<u8> {
        match &mut self.answer {
            Answer::Body(body) => std::mem::take(&mut body.trailers),
            _ => Vec::new(),
        }
    }

    pub(in crate::proxy) fn end(&mut self, trailers: &[u8]) -> io::Result<()> {
        self.sending.end(trailers)
    }

    fn failed(&self, error: h2::Error) -> io::Error {
        let unprocessed = error.is_remote()
            && (error.is_go_away() || error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM));
        self.refused.set(unprocessed);
        if unprocessed || error.is_io() || error.is_go_away() {
            self.lane.close();
        }
        if let Some(alert) = self.lane.alert() {
            alert
        } else if error.is_io() {
            error.into_io().unwrap_or_else(|| io::ErrorKind::Other.into())
        } else {
            io::Error::other(error)
        }
    }

    /// Reads the next head, an interim one or the final one, into `self.head`.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Answer::Awaited(response) = &mut self.answer else { return Poll::Ready(Ok(())) };
        if let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
            let interim = interim.map_err(|e| self.failed(e))?;
            self.lane.expect(1);
            response_to_h1(&mut self.head, &interim.into_parts().0, false);
            return Poll::Ready(Ok(()));
        }
        let response = ready!(Pin::new(response).poll(cx)).map_err(|e| self.failed(e))?;
        let (parts, body) = response.into_parts();
        response_to_h1(&mut self.head, &parts, body.is_end_stream() && !self.is_head);
        self.answer = Answer::Body(Body::new(body));
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Outgoing {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read == this.head.len() {
            this.head.clear();
            this.read = 0;
            match &mut this.answer {
                Answer::None => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
                Answer::Body(body) => return body.poll_read(cx, buf),
                Answer::Awaited(_) => ready!(this.poll_head(cx))?,
            }
        }
        let n = (this.head.len() - this.read).min(buf.remaining());
        buf.put_slice(&this.head[this.read..this.read + n]);
        this.read += n;
        Poll::Ready(Ok(()))
    }
}

write_to_sending!(Outgoing);
