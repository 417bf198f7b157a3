//! One request and its answer, as the connection to an upstream keeps them.

use std::{
    io,
    rc::Rc,
    task::{Context, Waker},
};

use tokio::io::ReadBuf;

use super::STREAM_WINDOW;
use crate::{
    proxy::buffer::Buffer,
    wire::h2::{
        answer::Answer,
        frame::{Code, Wrong},
    },
};

/// What the window of a stream grows to at most whose answer is read as fast as it comes: 40 MB/s at 100 ms.
const WIDEST: u32 = 4 * 1024 * 1024;
/// A buffer of more is not kept for the next stream.
const KEPT: usize = 32 * 1024;

/// How a stream ended before its time.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// The upstream did not act on the request: it said so, or not one byte of it left this process.
    Unprocessed,
    /// It reset the stream.
    Reset(Code),
    /// It broke the protocol.
    Wrong(Wrong),
    /// The connection ended.
    Gone(io::ErrorKind, Rc<str>),
}

impl Failure {
    /// The end of the connection.
    pub(super) fn of_connection(error: &io::Error) -> Self {
        Self::Gone(error.kind(), error.to_string().into())
    }

    /// What the peer is told, where that is of any use.
    pub(super) fn code(&self) -> Option<Code> {
        match self {
            Self::Wrong(wrong) => Some(wrong.code),
            _ => None,
        }
    }

    pub(super) fn to_io(&self) -> io::Error {
        match self {
            Self::Unprocessed => io::Error::other("it did not act on the request"),
            Self::Reset(code) => io::Error::other(format!("it reset the stream: {}", code.name())),
            Self::Wrong(wrong) => io::Error::other(wrong.to_string()),
            Self::Gone(kind, text) => io::Error::new(*kind, text.to_string()),
        }
    }
}

/// How far an answer has come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It has not.
    #[default]
    Silent,
    /// Interim heads have.
    Interim,
    Body,
    /// To its end.
    Ended,
}

/// Both directions of a stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) is_head_request: bool,
    /// Heads that are to be read, in the words of HTTP/1.1, and how much of them was.
    pub(super) heads: Vec<u8>,
    pub(super) read: usize,
    /// How many interim heads came since that was last asked.
    pub(super) interim: u32,
    phase: Phase,
    body: Buffer,
    /// Bytes of the body that are still to come, where that is known.
    missing: Option<u64>,
    /// The lines of the trailer section with its empty line.
    pub(super) trailers: Vec<u8>,
    pub(super) failure: Option<Failure>,
    reader: Option<Waker>,
    /// How much the peer may send unread, how much more that is now, and how much was read that it was not told of yet.
    width: u32,
    window: i64,
    untold: u32,
    /// How much more we may send.
    pub(super) send_window: i64,
    pub(super) has_sent_all: bool,
    writer: Option<Waker>,
    /// Where the request begins in all that is sent on the connection.
    pub(super) begins: u64,
}

impl Stream {
    /// Makes this one, which is over, another one; its buffers are kept.
    pub(super) fn renew(&mut self, id: u32, send_window: i64) {
        let (mut heads, body) = (std::mem::take(&mut self.heads), std::mem::take(&mut self.body));
        heads.clear();
        let (width, window) = (STREAM_WINDOW, i64::from(STREAM_WINDOW));
        *self = Self { id, heads, body, width, window, send_window, ..Self::default() };
    }

    /// Forgets what is unread; how many bytes of body that was.
    pub(super) fn clear(&mut self) -> u32 {
        let unread = self.body.len();
        self.body.consume(unread);
        (self.reader, self.writer, self.trailers) = (None, None, Vec::new());
        if self.body.size() > KEPT {
            self.body = Buffer::default();
        }
        if self.heads.capacity() > KEPT {
            self.heads = Vec::new();
        }
        unread as u32
    }

    pub(super) fn has_final_head(&self) -> bool {
        !matches!(self.phase, Phase::Silent | Phase::Interim)
    }

    /// Whether the answer has come to its end.
    pub(super) fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// More of the answer is to come.
    pub(super) fn is_open(&self) -> bool {
        self.failure.is_none() && !self.has_ended()
    }

    /// Nothing more is to come or to be sent.
    pub(super) fn is_over(&self) -> bool {
        self.failure.is_some() || self.has_ended() && self.has_sent_all
    }

    /// Copies what is there to be read; how many bytes of that were body.
    pub(super) fn take(&mut self, buf: &mut ReadBuf<'_>) -> u32 {
        let heads = &self.heads[self.read..];
        let n = heads.len().min(buf.remaining());
        buf.put_slice(&heads[..n]);
        self.read += n;
        if self.read == self.heads.len() {
            self.heads.clear();
            self.read = 0;
        }
        let n = self.body.len().min(buf.remaining());
        buf.put_slice(&self.body.filled()[..n]);
        self.body.consume(n);
        n as u32
    }

    /// So many bytes were read: how much more the peer shall be told that it may send, a good part of a window at a time. A window that
    /// was used up and read to its end was too small; it grows, as far as `growth` goes.
    pub(super) fn reopen(&mut self, n: u32, growth: &mut u32) -> Option<u32> {
        self.untold += n;
        if self.has_ended() || self.untold < self.width / 2 {
            return None;
        }
        let mut more = std::mem::take(&mut self.untold);
        if self.body.is_empty() && self.width < WIDEST && self.width <= *growth {
            *growth -= self.width;
            more += self.width;
            self.width *= 2;
        }
        self.window += i64::from(more);
        Some(more)
    }

    /// By how much its window has grown.
    pub(super) fn grown(&self) -> u32 {
        self.width - STREAM_WINDOW
    }

    /// A head that was told to `heads`; `ends`: nothing follows.
    pub(super) fn answered(&mut self, answer: Answer, ends: bool) -> Result<(), Wrong> {
        if answer.is_interim {
            self.interim += 1;
            self.phase = Phase::Interim;
        } else {
            (self.phase, self.missing) = (Phase::Body, answer.body);
        }
        self.wake_reader();
        if ends { self.end() } else { Ok(()) }
    }

    /// A part of the answer's body, with padding. Both count against the window.
    pub(super) fn receive(&mut self, data: &[u8], padding: u32) -> Result<(), Wrong> {
        self.window -= i64::from(data.len() as u32 + padding);
        if self.window < 0 {
            let code = Code::FLOW_CONTROL_ERROR;
            return Err(Wrong { code, why: "it sent more than it was allowed to" });
        }
        if !self.has_final_head() {
            return Err(Wrong::protocol("it sent a body without a head"));
        }
        if let Some(missing) = &mut self.missing {
            let left = missing.checked_sub(data.len() as u64);
            *missing = left.ok_or(Wrong::protocol("its answer is longer than it may be"))?;
        }
        // Padding is read at once.
        self.untold += padding;
        self.body.push(data);
        self.wake_reader();
        Ok(())
    }

    /// The proper end of the answer.
    pub(super) fn end(&mut self) -> Result<(), Wrong> {
        if self.missing.is_some_and(|missing| missing > 0) {
            return Err(Wrong::protocol("its answer is shorter than its Content-Length"));
        }
        self.phase = Phase::Ended;
        self.wake_reader();
        Ok(())
    }

    /// No more of what has not come. What was received before is still there to be read.
    pub(super) fn fail(&mut self, failure: Failure) {
        if self.failure.is_none() {
            // Who has said something to a request has begun to act on it.
            let denies = matches!(failure, Failure::Unprocessed) && self.phase != Phase::Silent;
            self.failure = Some(if denies { Failure::Reset(Code::REFUSED_STREAM) } else { failure });
        }
        self.wake_reader();
        self.wake_writer();
    }

    pub(super) fn wait_to_read(&mut self, cx: &Context<'_>) {
        wait(&mut self.reader, cx);
    }

    pub(super) fn wait_to_write(&mut self, cx: &Context<'_>) {
        wait(&mut self.writer, cx);
    }

    pub(super) fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

fn wait(slot: &mut Option<Waker>, cx: &Context<'_>) {
    if slot.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}
