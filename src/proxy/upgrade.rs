//! WebSocket (RFC 6455): after a 101 that was asked for, bytes go both ways until both sides have ended.
//!
//! No other protocol is switched to. The connection to the upstream is nobody else's afterwards, whatever
//! its answer was.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use aws_lc_rs::digest::{Context as Digest, SHA1_FOR_LEGACY_USE_ONLY};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::io::AsyncWrite;

use super::{
    body::{Pump, PumpError, Way},
    clock,
    exchange::{Broken, Exchange},
    forward::Request,
};
use crate::wire::{Framing, Kind, ResponseHead};

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// One direction.
struct Half {
    pump: Pump,
    ended: bool,
    seen: u64,
}

impl Half {
    fn new(head: Vec<u8>) -> Self {
        Self { pump: Pump::new(head, Framing::UntilClose, Framing::UntilClose, None), ended: false, seen: 0 }
    }

    /// Whether bytes have moved since the last look.
    fn has_moved(&mut self) -> bool {
        std::mem::replace(&mut self.seen, self.pump.progress) != self.pump.progress
    }
}

/// Whether a 101 answers the key of the request (RFC 6455 section 4.1). A caller of HTTP/1.1 made the key and looks at that
/// itself; the key of an HTTP/2 caller's request is ours.
pub(super) fn is_proven(request: &Request<'_>, head: &ResponseHead, bytes: &[u8]) -> bool {
    let keys = request.head.fields.iter().filter(|field| field.kind == Kind::SecWebSocketKey);
    let Some(key) = keys.map(|field| field.value(request.bytes)).next() else { return false };
    let mut digest = Digest::new(&SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key);
    digest.update(GUID);
    let expected = STANDARD.encode(digest.finish());
    let is_accept = |name: &[u8]| name.eq_ignore_ascii_case(b"sec-websocket-accept");
    let mut accepts = head.fields.iter().filter(|field| is_accept(field.name(bytes))).map(|field| field.value(bytes));
    accepts.next() == Some(expected.as_bytes()) && accepts.next().is_none()
}

/// Passes the end of one side's sending on to the other.
fn poll_end<W: AsyncWrite + Unpin>(
    cx: &mut Context<'_>,
    half: &mut Half,
    moved: &Poll<Result<(), PumpError>>,
    to: &mut W,
) -> Result<(), Broken> {
    match moved {
        Poll::Pending => Ok(()),
        Poll::Ready(Err(_)) => Err(Broken::Abort("one side of the WebSocket went away")),
        Poll::Ready(Ok(())) => {
            half.ended = match Pin::new(to).poll_shutdown(cx) {
                Poll::Pending => false,
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(_)) => return Err(Broken::Abort("one side of the WebSocket went away")),
            };
            Ok(())
        }
    }
}

/// Sends `head`, then moves bytes both ways. Without any byte in either direction for `body_idle_timeout`
/// both sides are closed.
pub(super) async fn tunnel(exchange: &mut Exchange<'_>, head: Vec<u8>) -> Result<(), Broken> {
    let mut moved = clock::now();
    // RFC 8441 section 5: a caller with HTTP/2 sees a 200.
    exchange.tally.answers(if exchange.caller.side.io.is_h2() { 200 } else { 101 }, moved);
    let Ok(head) = exchange.caller.side.io.begin(head, false) else {
        return Err(Broken::Abort("the caller went away before the switch"));
    };
    let (mut down, mut up) = (Half::new(head), Half::new(Vec::new()));
    let limit = exchange.route.spec.body_idle_timeout;
    if exchange.caller.side.buf.size() == 0 {
        exchange.caller.side.buf = exchange.buffers.small();
    }
    poll_fn(|cx| {
        let (caller, server) = (&mut exchange.caller.side, &mut *exchange.up);
        if !down.ended {
            let polled = down.pump.poll(cx, server, &mut caller.io, Way::plain());
            poll_end(cx, &mut down, &polled, &mut caller.io)?;
        }
        if !up.ended {
            let polled = up.pump.poll(cx, caller, &mut server.io, Way::plain());
            poll_end(cx, &mut up, &polled, &mut server.io)?;
        }
        if down.ended && up.ended {
            return Poll::Ready(Ok(()));
        }
        if down.has_moved() | up.has_moved() {
            moved = clock::now();
            exchange.tally.request_bytes.set(up.pump.taken);
            exchange.tally.response_bytes.set(down.pump.taken);
        }
        exchange.caller.timer.set(moved + limit);
        if exchange.caller.timer.poll(cx).is_ready() {
            return Poll::Ready(Err(Broken::Abort("the WebSocket was silent for body_idle_timeout")));
        }
        Poll::Pending
    })
    .await
}
