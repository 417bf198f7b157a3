//! Bytes of any asked length that are the same every time: made once, sent again and again.

use std::{
    collections::HashMap,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::{digest::Running, reply::Body};

/// Length after which the bytes repeat: a prime, so that no misplaced block of a usual size goes unseen.
const PERIOD: usize = 1_048_573;

/// Sent at once at most.
const PIECE: usize = 256 * 1024;

/// Digests that are remembered.
const MAX_DIGESTS: usize = 256;

/// The source of all downloads of one sandbox. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Content {
    period: Bytes,
    digests: Arc<Mutex<HashMap<u64, String>>>,
}

/// The bytes of one period (xorshift64*).
fn period() -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(PERIOD + 8);
    while bytes.len() < PERIOD {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes());
    }
    bytes.truncate(PERIOD);
    bytes.into()
}

impl Content {
    pub(super) fn new() -> Self {
        Self { period: period(), digests: Arc::default() }
    }

    /// A body of `size` bytes, with a Content-Length if `sized`, else chunked.
    pub(super) fn body(&self, size: u64, sized: bool) -> Body {
        Download { period: self.period.clone(), at: 0, size, sized }.boxed_unsync()
    }

    /// 64 KiB of plain letters.
    pub(super) fn letters(&self) -> Bytes {
        self.period[..64 * 1024].iter().map(|b| b'a' + b % 26).collect()
    }

    /// SHA-256 of the first `size` bytes, in hex. Takes a second for a GiB, off the runtime's thread.
    pub(super) async fn digest(&self, size: u64) -> String {
        let known = || self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digest) = known().get(&size) {
            return digest.clone();
        }
        let period = self.period.clone();
        let digest = tokio::task::spawn_blocking(move || {
            let mut running = Running::new();
            let mut left = size;
            while left > 0 {
                let step = usize::try_from(left).unwrap_or(usize::MAX).min(PERIOD);
                running.update(&period[..step]);
                left -= step as u64;
            }
            running.finish().1
        })
        .await
        .unwrap_or_default();
        let mut digests = known();
        if digests.len() >= MAX_DIGESTS {
            digests.clear();
        }
        digests.insert(size, digest.clone());
        digest
    }
}

struct Download {
    period: Bytes,
    at: u64,
    size: u64,
    sized: bool,
}

impl HttpBody for Download {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.at == this.size {
            return Poll::Ready(None);
        }
        let from = usize::try_from(this.at % PERIOD as u64).unwrap_or(0);
        let left = usize::try_from(this.size - this.at).unwrap_or(usize::MAX);
        let to = from + PIECE.min(PERIOD - from).min(left);
        this.at += (to - from) as u64;
        Poll::Ready(Some(Ok(Frame::data(this.period.slice(from..to)))))
    }

    fn size_hint(&self) -> SizeHint {
        if self.sized { SizeHint::with_exact(self.size - self.at) } else { SizeHint::default() }
    }
}
