//! How a body is moved: one piece of code for both directions and every pair of framings.
//!
//! A [`Pump`] reads from one side, takes the framing off, puts the other framing on, and writes to the
//! other side. It holds at most one buffer, so a slow reader slows the writer down (back-pressure) and
//! memory stays flat. A body that ends too early is an error; its end is never made up.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::buffer::{Buffer, LARGE};
use crate::wire::{
    Chunked, Framing, HeadError,
    chunked::{self, ChunkError},
};

/// Where a body comes from.
pub(super) trait Inlet: AsyncRead + Unpin {
    /// After the end of a body that is not framed in its bytes: its trailer section, empty where there is none.
    fn trailers(&mut self) -> Vec<u8> {
        Vec::new()
    }
}

/// Where a body goes.
pub(super) trait Outlet: AsyncWrite + Unpin {
    /// Tells the end of a body that is not framed in its bytes, with these trailer lines.
    fn end(&mut self, _trailers: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

impl Outlet for tokio::io::Sink {}

/// A stream and what has been read ahead of it.
#[derive(Debug)]
pub(super) struct Side<S> {
    pub(super) io: S,
    pub(super) buf: Buffer,
}

impl<S: AsyncRead + Unpin> Side<S> {
    /// Reads more into the buffer; 0 = the stream has ended. The buffer must have space.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = ReadBuf::new(self.buf.space());
        debug_assert!(space.remaining() > 0, "a full buffer cannot tell the end from its own fullness");
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut space))?;
        let n = space.filled().len();
        self.buf.advance(n);
        Poll::Ready(Ok(n))
    }
}

/// Why a body stopped.
#[derive(Debug)]
pub(super) enum PumpError {
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

/// The first bytes of a request's body, held in case it has to be sent again: up to the route's limit, and
/// within a budget that all requests of the core share.
#[derive(Debug)]
pub(super) struct Replay {
    held: Vec<u8>,
    limit: usize,
    budget: Rc<Cell<usize>>,
    overflowed: bool,
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl Replay {
    pub(super) fn new(limit: usize, budget: &Rc<Cell<usize>>) -> Self {
        Self { held: Vec::new(), limit, budget: Rc::clone(budget), overflowed: false }
    }

    fn hold(&mut self, data: &[u8]) {
        if data.is_empty() || self.overflowed {
            return;
        }
        let left = self.budget.get().checked_sub(data.len());
        if let Some(left) = left.filter(|_| self.held.len() + data.len() <= self.limit) {
            self.budget.set(left);
            self.held.extend_from_slice(data);
        } else {
            self.overflowed = true;
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        self.budget.set(self.budget.get() + self.held.len());
        self.held = Vec::new();
    }

    /// Whether everything that was taken from the caller so far can be sent again.
    pub(super) fn is_possible(&self) -> bool {
        !self.overflowed
    }
}

/// Appends those lines of a trailer section that may go on.
type Trailers<'a> = dyn Fn(&[u8], &mut Vec<u8>) -> Result<(), HeadError> + 'a;

/// What else happens to a body while it is moved.
pub(super) struct Way<'a> {
    /// Holds what is taken, in case it has to be sent again.
    pub(super) replay: Option<&'a mut Replay>,
    /// Appends those lines of a trailer section that may go on.
    pub(super) trailers: &'a Trailers<'a>,
}

impl Way<'_> {
    /// Nothing.
    pub(super) fn plain() -> Self {
        Self { replay: None, trailers: &|_, _| Ok(()) }
    }
}

/// Moves one body; see the module.
#[derive(Debug)]
pub(super) struct Pump {
    source: Source,
    chunk: bool,
    /// Trailer fields that go on, as lines.
    trailers: Vec<u8>,
    staged: Vec<u8>,
    written: usize,
    ended: bool,
    left_allowed: u64,
    /// Body bytes taken from the source.
    pub(super) taken: u64,
    /// Counts up with every byte that moves; whoever watches for idleness compares it.
    pub(super) progress: u64,
}

/// Body bytes that are sent with the head in one write.
const COALESCE: usize = 8 * 1024;

impl Pump {
    /// A pump for a body that arrives as `from` and goes out as `to`, after `head`.
    pub(super) fn new(head: Vec<u8>, from: Framing, to: Framing, max: Option<u64>) -> Self {
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
    pub(super) fn again(&mut self, head: Vec<u8>, to: Framing, replay: &Replay) {
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
    pub(super) fn source_is_done(&self) -> bool {
        matches!(self.source, Source::Done)
    }

    /// Whether the reading side has given more than the writing side took.
    pub(super) fn is_held_up(&self, buf: &Buffer) -> bool {
        self.written < self.staged.len() || !buf.is_empty()
    }

    /// The memory of the staged head, for the next one.
    pub(super) fn into_staged(mut self) -> Vec<u8> {
        self.staged.clear();
        self.staged
    }

    /// Moves what can be moved; ready when the body's end is written and flushed.
    pub(super) fn poll<R, W>(
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    /// Feeds `input` through a pump in pieces; what came out, and how it ended.
    fn pump(input: &[u8], piece: usize, from: Framing, to: Framing) -> (Vec<u8>, Result<(), String>) {
        pump_with(input, piece, from, to, None, &mut no_replay())
    }

    impl Inlet for DuplexStream {}
    impl Outlet for DuplexStream {}

    fn no_replay() -> Replay {
        Replay::new(0, &Rc::default())
    }

    fn side(io: DuplexStream) -> Side<DuplexStream> {
        let mut buf = Buffer::default();
        buf.grow(16);
        Side { io, buf }
    }

    fn pump_with(
        input: &[u8],
        piece: usize,
        from: Framing,
        to: Framing,
        max: Option<u64>,
        replay: &mut Replay,
    ) -> (Vec<u8>, Result<(), String>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (mut feed, source) = duplex(piece);
            let (mut sink, mut drain) = duplex(piece + 3);
            let mut source = side(source);
            let mut pump = Pump::new(b"HEAD ".to_vec(), from, to, max);
            let feeding = async {
                let _ = feed.write_all(input).await;
                let _ = feed.shutdown().await;
            };
            let moving = async {
                let result = poll_fn(|cx| {
                    pump.poll(
                        cx,
                        &mut source,
                        &mut sink,
                        Way {
                            replay: Some(replay),
                            trailers: &|all, out| {
                                out.extend_from_slice(&all[..all.len() - 2]);
                                Ok(())
                            },
                        },
                    )
                })
                .await;
                drop(sink);
                drop(source);
                result
            };
            let mut out = Vec::new();
            let ((), moved, read) = tokio::join!(feeding, moving, drain.read_to_end(&mut out));
            read.unwrap();
            (out, moved.map_err(|e| format!("{e:?}")))
        })
    }

    const CHUNKED: &[u8] = b"3\r\nabc\r\n7;x=y\r\ndefghij\r\n0\r\n\r\n";

    fn decoded(out: &[u8]) -> Vec<u8> {
        let (mut chunked, mut body, mut at) = (Chunked::default(), Vec::new(), b"HEAD ".len());
        while !chunked.is_done() {
            let step = chunked.step(&out[at..]).unwrap();
            assert!(step.consumed > 0, "the body has no end: {:?}", String::from_utf8_lossy(out));
            body.extend_from_slice(&out[at..][step.data]);
            at += step.consumed;
        }
        assert_eq!(at, out.len(), "nothing follows the end");
        body
    }

    #[test]
    fn every_framing_becomes_every_other_wherever_it_is_cut() {
        for piece in 1..40 {
            let (out, end) = pump(b"abcdefghij", piece, Framing::Length(10), Framing::Length(10));
            assert_eq!((&out[..], end), (&b"HEAD abcdefghij"[..], Ok(())));
            let (out, end) = pump(b"abcdefghij", piece, Framing::UntilClose, Framing::UntilClose);
            assert_eq!((&out[..], end), (&b"HEAD abcdefghij"[..], Ok(())));
            let (out, end) = pump(CHUNKED, piece, Framing::Chunked, Framing::UntilClose);
            assert_eq!((&out[..], end), (&b"HEAD abcdefghij"[..], Ok(())));
            for (input, from) in [(CHUNKED, Framing::Chunked), (b"abcdefghij", Framing::UntilClose)] {
                let (out, end) = pump(input, piece, from, Framing::Chunked);
                assert_eq!((&decoded(&out)[..], end), (&b"abcdefghij"[..], Ok(())), "{from:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_body_ends_where_its_framing_says() {
        let (out, end) = pump(b"abcdef", 64, Framing::Length(3), Framing::Length(3));
        assert_eq!((&out[..], end), (&b"HEAD abc"[..], Ok(())));
        let (out, end) = pump(b"ignored", 64, Framing::None, Framing::None);
        assert_eq!((&out[..], end), (&b"HEAD "[..], Ok(())));
        let (out, _) = pump(b"", 64, Framing::UntilClose, Framing::Chunked);
        assert_eq!(decoded(&out), b"");
    }

    #[test]
    fn a_truncated_body_never_gets_an_end() {
        for cut in 0..CHUNKED.len() {
            let (out, end) = pump(&CHUNKED[..cut], 7, Framing::Chunked, Framing::Chunked);
            assert!(end.is_err() && !out.ends_with(b"0\r\n\r\n"), "cut at {cut}");
        }
        let (_, end) = pump(b"abc", 7, Framing::Length(4), Framing::Length(4));
        assert_eq!(end, Err("Truncated".to_owned()));
    }

    #[test]
    fn a_body_over_the_limit_is_cut_off() {
        let (out, end) = pump_with(b"abcdefghij", 4, Framing::Chunked, Framing::Chunked, Some(5), &mut no_replay());
        assert!(end.is_err() && !out.ends_with(b"0\r\n\r\n"));
        let (_, end) = pump_with(CHUNKED, 4, Framing::Chunked, Framing::Chunked, Some(9), &mut no_replay());
        assert_eq!(end, Err("TooLarge".to_owned()));
        let (_, end) = pump_with(CHUNKED, 4, Framing::Chunked, Framing::Chunked, Some(10), &mut no_replay());
        assert_eq!(end, Ok(()));
    }

    #[test]
    fn what_fits_the_replay_buffer_is_held_and_its_memory_is_given_back() {
        let budget = Rc::new(Cell::new(100));
        let mut replay = Replay::new(10, &budget);
        let _ = pump_with(CHUNKED, 4, Framing::Chunked, Framing::Chunked, None, &mut replay);
        assert!(replay.is_possible());
        assert_eq!((&replay.held[..], budget.get()), (&b"abcdefghij"[..], 90));
        let mut small = Replay::new(9, &budget);
        let _ = pump_with(CHUNKED, 4, Framing::Chunked, Framing::Chunked, None, &mut small);
        assert!(!small.is_possible());
        let tight = Rc::new(Cell::new(9));
        let mut crowded_out = Replay::new(10, &tight);
        let _ = pump_with(CHUNKED, 4, Framing::Chunked, Framing::Chunked, None, &mut crowded_out);
        assert!(!crowded_out.is_possible(), "others hold the rest");
        assert_eq!(tight.get(), 9);
        drop((replay, small));
        assert_eq!(budget.get(), 100);
    }
}
