//! An HTTP/2 connection to an upstream as a state machine (RFC 9113): bytes in, bytes out, no socket and no clock. [`super::shared`]
//! moves the bytes; [`super::outgoing`] is a request's end of a stream.
//!
//! What the peer sends is taken in [`received`]. What it does wrong ends a stream or the connection, and is told in words that a person can use. Of floods
//! [`super::watched`] takes care.

mod queue;
mod received;

use std::{
    io,
    task::{Context, Poll, Waker},
};

use tokio::io::ReadBuf;

use super::{
    CONNECTION_WINDOW, STREAM_WINDOW,
    stream::{Failure, Stream},
};
use crate::wire::h2::{
    answer::MAX_HEAD,
    decoder::Decoder,
    encode,
    frame::{self, Code, MAX_PAYLOAD, MAX_WINDOW, flag, kind, setting},
};
use queue::Queue;

/// What the windows of all streams may have grown by, beside a connection window that lets all of them be open in full: none that
/// has grown and is read no more keeps another from its share.
const GROWTH: u32 = 12 * 1024 * 1024;
/// The window of the connection: all of that, and what was read and the peer is not told of yet.
const WINDOW: u32 = CONNECTION_WINDOW + GROWTH + STREAM_WINDOW;
/// How many streams that are over are kept for their buffers.
const SPARE: usize = 16;

/// What the peer has asked for in its SETTINGS.
#[derive(Debug)]
struct Settings {
    streams: u32,
    window: i64,
}

/// A header block that goes on in CONTINUATION frames.
#[derive(Debug)]
struct Unfinished {
    stream: u32,
    ends: bool,
    block: Vec<u8>,
}

/// How far the connection's end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Open,
    /// Nobody comes any more but who has a place already.
    Retired,
    /// The peer takes nothing more.
    Left,
    Over,
}

/// The connection.
#[derive(Debug)]
pub(super) struct Session {
    /// The beginning of a frame whose end has not come.
    partial: Vec<u8>,
    decoder: Decoder,
    unfinished: Option<Unfinished>,
    /// In the order of their numbers. One stays until its request leaves it.
    #[allow(clippy::vec_box, reason = "they are moved about when one leaves, and reused")]
    streams: Vec<Box<Stream>>,
    #[allow(clippy::vec_box, reason = "see `streams`")]
    spare: Vec<Box<Stream>>,
    next: u32,
    theirs: Settings,
    greeted: bool,
    /// How much more we may send, and the peer; and how much was read that it was not told of yet.
    send_window: i64,
    window: i64,
    untold: u32,
    /// By how much more the windows of streams may grow.
    growth: u32,
    /// Whose body was last written.
    last_writer: u32,
    /// DATA frames since the last one that carried something.
    empty: u32,
    queue: Queue,
    block: Vec<u8>,
    state: State,
}

impl Session {
    pub(super) fn new() -> Self {
        let ours = [
            (setting::ENABLE_PUSH, 0),
            (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (setting::MAX_HEADER_LIST_SIZE, MAX_HEAD as u32),
        ];
        let mut queue = Queue::default();
        queue.put(|out| {
            out.extend_from_slice(frame::PREFACE);
            frame::write_settings(out, &ours);
            frame::write_window_update(out, 0, WINDOW - frame::WINDOW);
        });
        Self {
            partial: Vec::new(),
            decoder: Decoder::default(),
            unfinished: None,
            streams: Vec::new(),
            spare: Vec::new(),
            next: 1,
            theirs: Settings { streams: u32::MAX, window: i64::from(frame::WINDOW) },
            greeted: false,
            send_window: i64::from(frame::WINDOW),
            window: i64::from(WINDOW),
            growth: GROWTH,
            untold: 0,
            last_writer: 0,
            empty: 0,
            queue,
            block: Vec::new(),
            state: State::Open,
        }
    }

    /// Whether the peer reads what it is sent.
    pub(super) fn has_room(&self) -> bool {
        self.queue.room() > 0
    }

    /// How many streams the peer takes at once; none once the connection is about to end.
    pub(super) fn most_streams(&self) -> usize {
        if self.state == State::Open { self.theirs.streams as usize } else { 0 }
    }

    /// Whether the peer has sent its SETTINGS.
    pub(super) fn has_settings(&self) -> bool {
        self.greeted
    }

    // --- a request's end of a stream --------------------------------------------------------------------

    /// Begins a request; `ends`: it has no body. `None` where the connection takes no more.
    pub(super) fn begin(&mut self, head: &[u8], scheme: &str, ends: bool) -> Result<Option<u32>, encode::BadTarget> {
        if self.state >= State::Left || self.next > MAX_WINDOW {
            return Ok(None);
        }
        self.block.clear();
        encode::request(&mut self.block, head, scheme, self.next == 1)?;
        let mut stream = self.spare.pop().unwrap_or_default();
        stream.renew(self.next, self.theirs.window);
        (stream.is_head_request, stream.has_sent_all) = (head.starts_with(b"HEAD "), ends);
        stream.begins = self.queue.end();
        self.empty = 0;
        self.streams.push(stream);
        let (id, block) = (self.next, &self.block);
        self.queue.put(|out| encode::frames(out, id, block, ends, MAX_PAYLOAD));
        self.next += 2;
        Ok(Some(id))
    }

    /// The stream of a request that has not left it.
    pub(super) fn stream(&mut self, id: u32) -> Option<&mut Stream> {
        let at = self.streams.binary_search_by_key(&id, |stream| stream.id).ok()?;
        Some(&mut self.streams[at])
    }

    /// Takes as much of a request's body as the windows and the queue have room for.
    pub(super) fn poll_write(&mut self, id: u32, cx: &Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let (room, connection) = (self.queue.room(), self.send_window);
        let Some(stream) = self.stream(id) else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        if let Some(failure) = &stream.failure {
            return Poll::Ready(Err(failure.to_io()));
        }
        let window = usize::try_from(connection.min(stream.send_window)).unwrap_or(0);
        // Larger frames may be allowed; smaller ones let the others have their turn.
        let n = data.len().min(window).min(room).min(MAX_PAYLOAD);
        if n == 0 {
            if !data.is_empty() {
                stream.wait_to_write(cx);
                return Poll::Pending;
            }
            return Poll::Ready(Ok(0));
        }
        stream.send_window -= i64::from(n as u32);
        self.send_window -= i64::from(n as u32);
        self.last_writer = id;
        self.queue.put(|out| frame::write(out, kind::DATA, 0, id, &data[..n]));
        Poll::Ready(Ok(n))
    }

    /// Ends a request's body, with these trailer lines if there are any; a second time it does nothing.
    pub(super) fn end(&mut self, id: u32, trailers: &[u8]) -> io::Result<()> {
        let Some(stream) = self.stream(id) else { return Ok(()) };
        if std::mem::replace(&mut stream.has_sent_all, true) {
            return Ok(());
        }
        if let Some(failure) = &stream.failure {
            return Err(failure.to_io());
        }
        if trailers.is_empty() {
            self.queue.put(|out| frame::write(out, kind::DATA, flag::END_STREAM, id, &[]));
        } else {
            self.block.clear();
            encode::trailers(&mut self.block, trailers);
            let block = &self.block;
            self.queue.put(|out| encode::frames(out, id, block, true, MAX_PAYLOAD));
        }
        Ok(())
    }

    /// Reads an answer: heads in the words of HTTP/1.1, then the body as it is; nothing = its proper end. Tells how many interim
    /// heads were among what was read.
    pub(super) fn poll_read(&mut self, id: u32, cx: &Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<u32>> {
        let mut growth = self.growth;
        let Some(stream) = self.stream(id) else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let before = buf.filled().len();
        let body = stream.take(buf);
        if buf.filled().len() == before && !stream.has_ended() {
            if let Some(failure) = &stream.failure {
                return Poll::Ready(Err(failure.to_io()));
            }
            stream.wait_to_read(cx);
            return Poll::Pending;
        }
        let interim = std::mem::take(&mut stream.interim);
        let more = stream.reopen(body, &mut growth);
        self.growth = growth;
        if let Some(more) = more {
            self.queue.put(|out| frame::write_window_update(out, id, more));
        }
        self.reopen(body);
        Poll::Ready(Ok(interim))
    }

    /// A request is over, or given up. A stream that is not at its end is reset.
    pub(super) fn leave(&mut self, id: u32) {
        let Ok(at) = self.streams.binary_search_by_key(&id, |stream| stream.id) else { return };
        let mut stream = self.streams.remove(at);
        if !stream.is_over() && self.state < State::Over {
            // After a whole answer there is nothing to cancel but the rest of our own body.
            let code = if stream.has_ended() { Code::NO_ERROR } else { Code::CANCEL };
            self.queue.put(|out| frame::write_reset(out, id, code));
        }
        self.growth += stream.grown();
        let unread = stream.clear();
        self.reopen(unread);
        if self.spare.len() < SPARE {
            self.spare.push(stream);
        }
    }

    /// Nobody comes any more: once the last one is gone, the connection ends.
    pub(super) fn retire(&mut self) {
        self.proceed(State::Retired);
    }

    /// The last one has gone.
    pub(super) fn vacated(&mut self) {
        if self.state > State::Open {
            self.queue.stir();
        }
    }

    fn proceed(&mut self, state: State) {
        self.state = self.state.max(state);
        self.queue.stir();
    }

    /// So many bytes need no room any more.
    fn reopen(&mut self, n: u32) {
        self.untold += n;
        if self.untold >= STREAM_WINDOW {
            let more = std::mem::take(&mut self.untold);
            self.window += i64::from(more);
            self.queue.put(|out| frame::write_window_update(out, 0, more));
        }
    }

    // --- the connection's own end -----------------------------------------------------------------------

    /// What is to be sent now.
    pub(super) fn unsent(&self) -> &[u8] {
        self.queue.unsent()
    }

    /// So much of it was sent.
    pub(super) fn sent(&mut self, n: usize) {
        let was_full = self.queue.room() == 0;
        self.queue.consume(n);
        if was_full {
            self.wake_writers();
        }
    }

    /// Whether nobody new comes any more.
    pub(super) fn is_closing(&self) -> bool {
        self.state > State::Open
    }

    /// Whether nothing is left to be done, once everybody has gone.
    pub(super) fn is_done(&self) -> bool {
        self.state > State::Open && self.streams.is_empty() && self.unsent().is_empty()
    }

    /// Who is woken when there is something to be done.
    pub(super) fn driven_by(&mut self, driver: &Waker) {
        self.queue.driven_by(driver);
    }

    /// Says goodbye.
    pub(super) fn part(&mut self, code: Code) {
        self.state = State::Over;
        let payload = [[0; 4], code.0.to_be_bytes()].concat();
        self.queue.put(|out| frame::write(out, kind::GOAWAY, 0, 0, &payload));
    }

    /// The connection has ended. A request of which not one byte was sent was not acted on.
    pub(super) fn fail(&mut self, failure: &Failure) {
        self.state = State::Over;
        let gone = self.queue.gone();
        for stream in &mut self.streams {
            stream.fail(if stream.begins >= gone { Failure::Unprocessed } else { failure.clone() });
        }
    }

    /// What the connection has room for is shared in turn: else the first of many would get all of a small window, again and again.
    fn wake_writers(&mut self) {
        let turn = self.streams.partition_point(|stream| stream.id <= self.last_writer);
        let (before, next) = self.streams.split_at_mut(turn);
        next.iter_mut().chain(before).for_each(|stream| stream.wake_writer());
    }
}

#[cfg(test)]
mod tests;
