//! 2 admit — a strict head within its limits and its time, and a place for it.

use std::{
    future::poll_fn,
    io,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::io::AsyncWriteExt as _;

use super::{
    buffer::{Buffers, SMALL},
    clock,
    error::{Code, ProxyError},
    exchange::Caller,
    seats::Idle,
};
use crate::{
    config::model::Server,
    wire::{HeadError, head::head_end},
};

/// What came in place of a head.
pub(super) enum NoHead {
    /// The caller closed, or stayed idle for too long: nothing to answer.
    Ended,
    /// The head is refused; the connection cannot go on.
    Refused(ProxyError),
}

/// How long a caller may go on sending its body after its answer.
pub(super) const AFTER_BODY: Duration = Duration::from_secs(30);
/// How long one may go on that has broken the grammar: it has earned no patience.
pub(super) const AFTER_REFUSAL: Duration = Duration::from_secs(1);
/// ... and how long it may pause meanwhile.
const SILENCE: Duration = Duration::from_secs(2);

/// Waits for the next request and reads its head into `caller.side.buf`; returns its length.
///
/// While nothing has arrived, `idle` may ask it to leave.
pub(super) async fn head(
    caller: &mut Caller,
    buffers: &Buffers,
    limits: &Server,
    idle: &Idle,
) -> Result<usize, NoHead> {
    if caller.side.buf.is_empty() {
        buffers.give(std::mem::take(&mut caller.side.buf));
        first_bytes(caller, buffers, clock::now() + limits.idle_timeout, idle).await?;
    }
    caller.arrived = clock::now();
    let deadline = caller.arrived + limits.header_timeout;
    let mut scanned = 0;
    loop {
        skip_empty_line(caller);
        let filled = caller.side.buf.filled();
        if let Some(length) = head_end(filled, scanned) {
            if length > limits.max_header_bytes {
                return Err(NoHead::Refused(too_large(filled, limits)));
            }
            return Ok(length);
        }
        scanned = filled.len();
        if scanned >= limits.max_header_bytes {
            return Err(NoHead::Refused(too_large(filled, limits)));
        }
        if caller.side.buf.space().is_empty() {
            let size = caller.side.buf.size().max(SMALL) * 2;
            caller.side.buf.grow(size);
        }
        fill(caller, deadline).await?;
    }
}

/// Some old clients send an empty line after a body (RFC 9112 section 2.2).
fn skip_empty_line(caller: &mut Caller) {
    if caller.side.buf.filled().starts_with(b"\r\n") {
        caller.side.buf.consume(2);
    }
}

/// Waits idly, without a buffer, until bytes are there and reads them.
///
/// A socket may say that it is readable and then have nothing, a new one always does: it goes on being idle.
async fn first_bytes(caller: &mut Caller, buffers: &Buffers, deadline: Instant, idle: &Idle) -> Result<(), NoHead> {
    caller.timer.set(deadline);
    poll_fn(|cx| {
        if caller.side.io.poll_readable(cx).is_ready() {
            caller.side.buf = buffers.small();
            match caller.side.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(NoHead::Ended)),
                Poll::Ready(Ok(_)) => return Poll::Ready(Ok(())),
                Poll::Pending => buffers.give(std::mem::take(&mut caller.side.buf)),
            }
        }
        // What the runtime knows of the socket may be old; the kernel says whether a request is there already.
        if idle.poll_leave(cx) && !caller.side.io.has_arrived() {
            return Poll::Ready(Err(NoHead::Ended));
        }
        caller.timer.poll(cx).map(|()| Err(NoHead::Ended))
    })
    .await
}

async fn fill(caller: &mut Caller, deadline: Instant) -> Result<(), NoHead> {
    poll_fn(|cx| match caller.side.poll_fill(cx) {
        Poll::Ready(Ok(0)) => Poll::Ready(Err(truncated(caller))),
        Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
        Poll::Ready(Err(_)) => Poll::Ready(Err(NoHead::Ended)),
        Poll::Pending => {
            caller.timer.set(deadline);
            caller.timer.poll(cx).map(|()| Err(slow(caller)))
        }
    })
    .await
}

fn truncated(caller: &Caller) -> NoHead {
    if caller.side.buf.is_empty() {
        return NoHead::Ended;
    }
    NoHead::Refused(ProxyError::new(Code::BadRequest, "the request head ended before its empty line"))
}

fn slow(caller: &Caller) -> NoHead {
    if caller.side.buf.is_empty() {
        return NoHead::Ended;
    }
    NoHead::Refused(ProxyError::new(Code::RequestTimeout, "the request head did not arrive within header_timeout"))
}

/// Whether the target or the fields are to blame is known once the request line is whole.
pub(super) fn too_large(filled: &[u8], limits: &Server) -> ProxyError {
    let limit = limits.max_header_bytes;
    let line = memchr::memchr(b'\n', filled).unwrap_or(filled.len());
    if line > limit / 2 {
        uri_too_long(limits)
    } else {
        ProxyError::new(Code::HeadTooLarge, format!("the request head is larger than {limit} bytes (max_header_bytes)"))
    }
}

/// The request's target may take half of what a head may: the fields need room too.
pub(super) fn target_fits(target: &[u8], limits: &Server) -> Result<(), ProxyError> {
    if target.len() > limits.max_header_bytes / 2 { Err(uri_too_long(limits)) } else { Ok(()) }
}

fn uri_too_long(limits: &Server) -> ProxyError {
    let most = limits.max_header_bytes / 2;
    ProxyError::new(
        Code::UriTooLong,
        format!("the request's target alone is larger than {most} bytes (half of max_header_bytes)"),
    )
}

/// The answer to a head that breaks the grammar.
pub(super) fn refusal(error: HeadError) -> ProxyError {
    let code = match error {
        HeadError::Version => Code::BadVersion,
        HeadError::TooManyFields => Code::HeadTooLarge,
        HeadError::UnknownEncoding => Code::UnknownCoding,
        HeadError::Expectation => Code::BadExpectation,
        _ => Code::BadRequest,
    };
    ProxyError::new(code, error.to_string())
}

/// Reads and throws away what a caller still sends after its answer, so that closing does not reset the
/// connection under the answer (RFC 9112 section 9.6): many clients read only once they have sent all.
/// Ends when the caller is done, is silent, or after a while.
pub(super) async fn linger(caller: &mut Caller, longest: Duration) {
    let _: io::Result<()> = caller.side.io.shutdown().await;
    let end = clock::now() + longest;
    // An empty buffer without memory would take every read for the end.
    caller.side.buf.grow(SMALL);
    loop {
        let used = caller.side.buf.len();
        caller.side.buf.consume(used);
        let silent = clock::now() + SILENCE;
        caller.timer.set(end.min(silent));
        let read = poll_fn(|cx| match caller.side.poll_fill(cx) {
            Poll::Ready(Ok(n)) => Poll::Ready(n),
            Poll::Ready(Err(_)) => Poll::Ready(0),
            Poll::Pending => caller.timer.poll(cx).map(|()| 0),
        })
        .await;
        if read == 0 || clock::now() > end {
            return;
        }
    }
}
