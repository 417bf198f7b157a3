//! Moves one body from one side to the other.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::AsyncWrite;

use super::{Inlet, Outlet, Replay, Side};
use crate::{
    proxy::buffer::{Buffer, LARGE},
    wire::{
        Chunked, Framing, HeadError,
        chunked::{self, ChunkError},
    },
};

/// Why a body stopped.
#[derive(Debug)]
pub(in crate::proxy) enum PumpError {
    /// It ended before its end.
    Truncated,
    /// The reading side failed.
    Read,
    /// It breaks the chunked grammar.
    Grammar(ChunkError),
    /// Its trailer section has no place in a message of its kind.
    Trailers(HeadError),
    /// The writing side failed.
    Write(io::Error),
    /// It is larger than the route allows.
    TooLarge,
}

#[derive(Debug)]
enum Source {
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    Done,
}

/// Appends those lines of a trailer section that may go on.
type Trailers<'a> = dyn Fn(&[u8], &mut Vec<u8>) -> Result<(), HeadError> + 'a;

/// What else happens to a body while it is moved.
pub(in crate::proxy) struct Way<'a> {
    /// Holds what is taken, in case it has to be sent again.
    pub(in crate::proxy) replay: Option<&'a mut Replay>,
    /// Appends those lines of a trailer section that may go on.
    pub(in crate::proxy) trailers: &'a Trailers<'a>,
}

impl Way<'_> {
    /// Nothing.
    pub(in crate::proxy) fn plain() -> Self {
        Self { replay: None, trailers: &|_, _| Ok(()) }
    }
}

/// Moves one body; see the module.
#[derive(Debug)]
pub(in crate::proxy) struct Pump {
    source: Source,
    chunk: bool,
    /// Trailer fields that go on, as lines.
    trailers: Vec<u8>,
    staged: Vec<u8>,
    written: usize,
    ended: bool,
    left_allowed: u64,
    /// Body bytes taken from the source.
    pub(in crate::proxy) taken: u64,
    /// Counts up with every byte that moves; whoever watches for idleness compares it.
    pub(in crate::proxy) progress: u64,
}

/// Body bytes that are sent with the head in one write.
const COALESCE: usize = 8 * 1024;

impl Pump {
    /// A pump for a body that arrives as `from` and goes out as `to`, after `head`.
    pub(in crate::proxy) fn new(head: Vec<u8>, from: Framing, to: Framing, max: Option<u64>) -> Self {
        let source = match from {
            Framing::None | Framing::Length(0) => Source::Done,
            Framing::Length(n) => Source::Length(n),
            Framing::Chunked => Source::Chunked(Chunked::default()),
            Framing::UntilClose => Source::UntilClose,
        };
        let left_allowed = max.unwrap_or(u64::MAX);
        let chunk = to == Framing::Chunked;
        let trailers = Vec::new();
        Self { source, chunk, trailers, staged: head, written: 0, ended: false, left_allowed, taken: 0, progress: 0 }
    }

    /// The same source with a new head, for a second attempt: what was taken is sent from `replay`.
    pub(in crate::proxy) fn again(&mut self, head: Vec<u8>, to: Framing, replay: &Replay) {
        self.chunk = to == Framing::Chunked;
        self.staged = head;
        (self.written, self.ended) = (0, false);
        if self.chunk {
            chunked::encode(&replay.held, &mut self.staged);
        } else {
            self.staged.extend_from_slice(&replay.held);
        }
    }

    /// Whether the whole body has been taken from its source.
    pub(in crate::proxy) fn source_is_done(&self) -> bool {
        matches!(self.source, Source::Done)
    }

    /// Whether the reading side has given more than the writing side took.
    pub(in crate::proxy) fn is_held_up(&self, buf: &Buffer) -> bool {
        self.written < self.staged.len() || !buf.is_empty()
    }

    /// The memory of the staged head, for the next one.
    pub(in crate::proxy) fn into_staged(mut self) -> Vec<u8> {
        self.staged.clear();
        self.staged
    }

    /// Moves what can be moved; ready when the body's end is written and flushed.
    pub(in crate::proxy) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Side<R>,
        to: &mut W,
        mut way: Way<'_>,
    ) -> Poll<Result<(), PumpError>>
    where
        R: Inlet,
        W: Outlet,
    {
        loop {
            let head_waits = self.written == 0 && !self.staged.is_empty() && self.staged.len() < COALESCE;
            if head_waits && !self.ended && !from.buf.is_empty() {
                self.stage(&mut from.buf, COALESCE, &mut way)?;
            }
            self.finish();
            while self.written < self.staged.len() {
                let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.staged[self.written..]))
                    .map_err(PumpError::Write)?;
                if n == 0 {
                    return Poll::Ready(Err(PumpError::Write(io::ErrorKind::WriteZero.into())));
                }
                self.written += n;
                self.progress += n as u64;
            }
            self.staged.clear();
            self.written = 0;
            if self.ended {
                to.end(&self.trailers).map_err(PumpError::Write)?;
                return Pin::new(&mut *to).poll_flush(cx).map_err(PumpError::Write);
            }
            if !from.buf.is_empty() {
                if self.chunk || matches!(self.source, Source::Chunked(_)) {
                    self.stage(&mut from.buf, usize::MAX, &mut way)?;
                } else {
                    ready!(self.pass(cx, &mut from.buf, to, &mut way))?;
                }
                continue;
            }
            match from.poll_fill(cx) {
                Poll::Ready(Ok(0)) if matches!(self.source, Source::UntilClose) => {
                    let section = from.io.trailers();
                    if !section.is_empty() {
                        (way.trailers)(&section, &mut self.trailers).map_err(PumpError::Trailers)?;
                    }
                    self.source = Source::Done;
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(PumpError::Truncated)),
                Poll::Ready(Ok(n)) => {
                    self.progress += n as u64;
                    if from.buf.len() == from.buf.size() {
                        // More comes than fits: a larger buffer saves system calls.
                        from.buf.grow(LARGE);
                    }
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(PumpError::Read)),
                Poll::Pending => {
                    // What was written must not wait in a TLS buffer for more that may never come.
                    let _ = Pin::new(&mut *to).poll_flush(cx).map_err(PumpError::Write)?;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Once the source is done, stages the end of the body.
    fn finish(&mut self) {
        if !self.ended && matches!(self.source, Source::Done) {
            self.ended = true;
            if self.chunk {
                chunked::end(&self.trailers, &mut self.staged);
            }
        }
    }

    fn take(&mut self, data: &[u8], way: &mut Way<'_>) -> Result<(), PumpError> {
        let n = data.len() as u64;
        self.left_allowed = self.left_allowed.checked_sub(n).ok_or(PumpError::TooLarge)?;
        self.taken += n;
        if let Some(replay) = &mut way.replay {
            replay.hold(data);
        }
        Ok(())
    }

    /// Takes up to `most` bytes out of the buffer, framing off, framing on, into `staged`.
    fn stage(&mut self, buf: &mut Buffer, most: usize, way: &mut Way<'_>) -> Result<(), PumpError> {
        let mut budget = most;
        while !buf.is_empty() && budget > 0 {
            let (consumed, data, done) = match &mut self.source {
                Source::Done => return Ok(()),
                Source::Length(left) => {
                    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len()).min(budget);
                    *left -= n as u64;
                    (n, 0..n, *left == 0)
                }
                Source::UntilClose => {
                    let n = buf.len().min(budget);
                    (n, 0..n, false)
                }
                Source::Chunked(chunked) => {
                    let input = &buf.filled()[..buf.len().min(budget)];
                    let step = chunked.step(input).map_err(PumpError::Grammar)?;
                    if chunked.is_done() {
                        (way.trailers)(chunked.trailers(), &mut self.trailers).map_err(PumpError::Trailers)?;
                    }
                    (step.consumed, step.data, chunked.is_done())
                }
            };
            let data = &buf.filled()[data];
            self.take(data, way)?;
            if self.chunk {
                chunked::encode(data, &mut self.staged);
            } else {
                self.staged.extend_from_slice(data);
            }
            buf.consume(consumed);
            budget -= consumed;
            if done {
                self.source = Source::Done;
            }
        }
        Ok(())
    }

    /// Writes straight from the read buffer: no framing on either side needs a copy.
    fn pass<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut Buffer,
        to: &mut W,
        way: &mut Way<'_>,
    ) -> Poll<Result<(), PumpError>> {
        let most = match self.source {
            Source::Length(left) => usize::try_from(left).unwrap_or(usize::MAX).min(buf.len()),
            _ => buf.len(),
        };
        if most as u64 > self.left_allowed {
            return Poll::Ready(Err(PumpError::TooLarge));
        }
        let n = ready!(Pin::new(to).poll_write(cx, &buf.filled()[..most])).map_err(PumpError::Write)?;
        if n == 0 {
            return Poll::Ready(Err(PumpError::Write(io::ErrorKind::WriteZero.into())));
        }
        self.take(&buf.filled()[..n], way)?;
        buf.consume(n);
        self.progress += n as u64;
        if let Source::Length(left) = &mut self.source {
            *left -= n as u64;
            if *left == 0 {
                self.source = Source::Done;
            }
        }
        Poll::Ready(Ok(()))
    }
}
