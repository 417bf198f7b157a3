//! What the peer sends, frame by frame.

use super::{Session, State, Unfinished};
use crate::{
    proxy::h2::stream::Failure,
    wire::h2::{
        answer::Told,
        frame::{self, Code, HEADER, Head, MAX_PAYLOAD, MAX_WINDOW, Wrong, flag, kind, setting},
    },
};

/// DATA frames that carry nothing and end nothing, or belong to streams that were given up, one after the other (RFC 9113 section
/// 10.5). A stream that was given up may still send a window in frames of any size; each new request gives that time.
pub(super) const MOST_EMPTY: u32 = 10_000;
/// Largest header block as it is sent: what it unfolds to is bounded too.
const MAX_BLOCK: usize = 64 * 1024;
/// Bytes of heads that may wait to be read: interim ones are bounded by no window.
const MAX_HEADS: usize = 256 * 1024;

/// What is said where HTTP/1.1 or anything else is spoken instead.
const NO_HTTP_2: Wrong = Wrong::protocol("what it sent is no HTTP/2: does it speak it at all?");

const TOO_WIDE: Wrong = Wrong { code: Code::FLOW_CONTROL_ERROR, why: "it opens a window further than a window can be" };

/// The frame that `bytes` begins with, if all of it is there, and its length.
fn whole(bytes: &[u8]) -> Result<Option<(Head, usize)>, Wrong> {
    let Some(head) = bytes.first_chunk().map(Head::read) else { return Ok(None) };
    if head.length > MAX_PAYLOAD {
        // The beginning of "HTTP/1.1 400" reads as a frame of 4.7 MB.
        return Err(if bytes.starts_with(b"HTTP/") { NO_HTTP_2 } else { Wrong::size("a frame that is too long") });
    }
    let length = HEADER + head.length;
    Ok((bytes.len() >= length).then_some((head, length)))
}

impl Session {
    /// Takes what has arrived. An error is the end of the connection.
    pub(in crate::proxy::h2) fn receive(&mut self, mut bytes: &[u8]) -> Result<(), Wrong> {
        if self.queue.overflows() {
            let code = Code::ENHANCE_YOUR_CALM;
            return Err(Wrong { code, why: "it asks for more answers than it reads" });
        }
        while !bytes.is_empty() {
            if self.partial.is_empty()
                && let Some((head, length)) = whole(bytes)?
            {
                let (frame, rest) = bytes.split_at(length);
                bytes = rest;
                self.frame(head, &frame[HEADER..])?;
                continue;
            }
            let missing = match self.partial.first_chunk() {
                Some(head) => (HEADER + Head::read(head).length).saturating_sub(self.partial.len()),
                None => HEADER - self.partial.len(),
            };
            let (more, rest) = bytes.split_at(missing.min(bytes.len()));
            self.partial.extend_from_slice(more);
            bytes = rest;
            if let Some((head, _)) = whole(&self.partial)? {
                let frame = std::mem::take(&mut self.partial);
                self.frame(head, &frame[HEADER..])?;
                self.partial = frame;
                self.partial.clear();
            }
        }
        Ok(())
    }

    fn frame(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        if !std::mem::replace(&mut self.greeted, true) && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(NO_HTTP_2);
        }
        if self.unfinished.is_some() && head.kind != kind::CONTINUATION {
            return Err(Wrong::protocol("a header block was interrupted"));
        }
        match head.kind {
            kind::DATA => self.data(head, payload),
            kind::HEADERS => self.headers(head, frame::unpadded(head, payload)?),
            kind::CONTINUATION => self.continuation(head, payload),
            kind::RST_STREAM => self.reset(head, payload),
            kind::SETTINGS => self.settings(head, payload),
            kind::PUSH_PROMISE => Err(Wrong::protocol("it pushes, which it was told not to")),
            kind::PING => self.ping(head, payload),
            kind::GOAWAY => self.goaway(head, payload),
            kind::WINDOW_UPDATE => self.window_update(head, payload),
            // PRIORITY has no meaning any more, and what is unknown has none yet (RFC 9113 section 5.5).
            _ => Ok(()),
        }
    }

    /// Whether a stream was ever begun by us; anything else is not there to be spoken of (section 5.1).
    fn is_known(&self, id: u32) -> Result<(), Wrong> {
        let was_begun = id % 2 == 1 && id < self.next;
        if was_begun { Ok(()) } else { Err(Wrong::protocol("it speaks of a stream that nobody began")) }
    }

    fn data(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        self.is_known(head.stream)?;
        let whole = payload.len() as u32;
        self.window -= i64::from(whole);
        if self.window < 0 {
            let code = Code::FLOW_CONTROL_ERROR;
            return Err(Wrong { code, why: "it sent more than it was allowed to" });
        }
        let data = frame::unpadded(Head { flags: head.flags & flag::PADDED, ..head }, payload)?;
        let padding = whole - data.len() as u32;
        let at = self.streams.binary_search_by_key(&head.stream, |stream| stream.id);
        let stream = at.ok().map(|at| &mut self.streams[at]);
        if stream.as_ref().is_some_and(|stream| stream.has_ended()) {
            return Err(Wrong { code: Code::STREAM_CLOSED, why: "its answer goes on after its end" });
        }
        let stream = stream.filter(|stream| stream.is_open());
        if stream.is_none() || data.is_empty() && !head.has(flag::END_STREAM) {
            self.empty += 1;
        } else if !data.is_empty() {
            self.empty = 0;
        }
        if self.empty > MOST_EMPTY {
            return Err(Wrong { code: Code::ENHANCE_YOUR_CALM, why: "a flood of frames that nobody needs" });
        }
        let Some(stream) = stream else {
            // Nobody wants it any more.
            self.reopen(whole);
            return Ok(());
        };
        let mut taken = stream.receive(data, padding);
        let unread = if taken.is_ok() { padding } else { whole };
        // Padding is not read, so that nobody else opens the window again for it.
        let mut growth = 0;
        let more = if padding > 0 && taken.is_ok() { stream.reopen(0, &mut growth) } else { None };
        if taken.is_ok() && head.has(flag::END_STREAM) {
            taken = stream.end();
        }
        if let Some(more) = more {
            self.queue.put(|out| frame::write_window_update(out, head.stream, more));
        }
        self.reopen(unread);
        self.judged(head.stream, taken);
        Ok(())
    }

    /// A stream on which the peer did wrong is reset.
    fn judged(&mut self, id: u32, result: Result<(), Wrong>) {
        if let Err(wrong) = result
            && let Some(stream) = self.stream(id)
        {
            stream.fail(Failure::Wrong(wrong));
            self.queue.put(|out| frame::write_reset(out, id, wrong.code));
        }
    }

    fn headers(&mut self, head: Head, block: &[u8]) -> Result<(), Wrong> {
        self.is_known(head.stream)?;
        let ends = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.head(head.stream, ends, block);
        }
        self.unfinished = Some(Unfinished { stream: head.stream, ends, block: block.to_vec() });
        Ok(())
    }

    fn continuation(&mut self, head: Head, block: &[u8]) -> Result<(), Wrong> {
        let Some(mut unfinished) = self.unfinished.take().filter(|unfinished| unfinished.stream == head.stream) else {
            return Err(Wrong::protocol("a CONTINUATION continues nothing"));
        };
        // Small ones cost as much work as large ones.
        if block.is_empty() && !head.has(flag::END_HEADERS) || unfinished.block.len() + block.len() > MAX_BLOCK {
            return Err(Wrong { code: Code::ENHANCE_YOUR_CALM, why: "a header block without end" });
        }
        unfinished.block.extend_from_slice(block);
        if head.has(flag::END_HEADERS) {
            return self.head(unfinished.stream, unfinished.ends, &unfinished.block);
        }
        self.unfinished = Some(unfinished);
        Ok(())
    }

    /// A whole header block: a head, or trailers.
    fn head(&mut self, id: u32, ends: bool, block: &[u8]) -> Result<(), Wrong> {
        const TABLE: Wrong = Wrong { code: Code::COMPRESSION_ERROR, why: "a header block cannot be read" };
        let at = self.streams.binary_search_by_key(&id, |stream| stream.id);
        let stream = at.ok().map(|at| &mut self.streams[at]).filter(|stream| stream.is_open());
        let Some(stream) = stream else {
            // Later blocks may refer to it.
            return self.decoder.decode(block, |_, _| {}).map_err(|_| TABLE);
        };
        let is_trailers = stream.has_final_head();
        let mut told = Told::new(if is_trailers { &mut stream.trailers } else { &mut stream.heads }, is_trailers);
        let read = self.decoder.decode(block, |name, value| told.field(name, value));
        if read.is_err() {
            told.abandon();
            return Err(TABLE);
        }
        let answer = told.end(ends, stream.is_head_request);
        let result = match answer {
            Ok(_) if stream.heads.len() > MAX_HEADS => {
                Err(Wrong { code: Code::ENHANCE_YOUR_CALM, why: "interim responses without end" })
            }
            Ok(_) if is_trailers => stream.end(),
            Ok(answer) => stream.answered(answer, ends),
            Err(wrong) => Err(wrong),
        };
        self.judged(id, result);
        Ok(())
    }

    fn reset(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        self.is_known(head.stream)?;
        let code = Code(frame::number(payload)?);
        if let Some(stream) = self.stream(head.stream) {
            stream.fail(if code == Code::REFUSED_STREAM { Failure::Unprocessed } else { Failure::Reset(code) });
        }
        Ok(())
    }

    fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        if head.stream != 0 {
            return Err(Wrong::protocol("its SETTINGS are those of a stream"));
        }
        if head.has(flag::ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(Wrong::size("it acknowledges SETTINGS with some")) };
        }
        for (name, value) in frame::settings(payload)? {
            match name {
                setting::MAX_CONCURRENT_STREAMS => self.theirs.streams = value,
                setting::INITIAL_WINDOW_SIZE if value <= MAX_WINDOW => self.initial_window(i64::from(value))?,
                setting::INITIAL_WINDOW_SIZE => return Err(TOO_WIDE),
                setting::MAX_FRAME_SIZE if !(MAX_PAYLOAD..1 << 24).contains(&(value as usize)) => {
                    return Err(Wrong::protocol("it asks for frames of a size that may not be"));
                }
                setting::ENABLE_PUSH if value != 0 => return Err(Wrong::protocol("a server cannot take pushes")),
                _ => {}
            }
        }
        self.queue.put(|out| frame::write(out, kind::SETTINGS, flag::ACK, 0, &[]));
        Ok(())
    }

    /// Moves the windows of all streams (section 6.9.2), which may become negative.
    fn initial_window(&mut self, window: i64) -> Result<(), Wrong> {
        let more = window - self.theirs.window;
        self.theirs.window = window;
        for stream in &mut self.streams {
            stream.send_window += more;
            if stream.send_window > i64::from(MAX_WINDOW) {
                return Err(TOO_WIDE);
            }
        }
        self.wake_writers();
        Ok(())
    }

    fn ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        if payload.len() != 8 {
            return Err(Wrong::size("a PING of a wrong length"));
        }
        if head.stream != 0 {
            return Err(Wrong::protocol("a PING of a stream"));
        }
        if !head.has(flag::ACK) {
            self.queue.put(|out| frame::write(out, kind::PING, flag::ACK, 0, payload));
        }
        Ok(())
    }

    /// The peer leaves: it acts on no stream behind the one that it names.
    fn goaway(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        if head.stream != 0 {
            return Err(Wrong::protocol("a GOAWAY of a stream"));
        }
        let (last, _code) =
            payload.split_first_chunk::<8>().ok_or(Wrong::size("a GOAWAY that is too short"))?.0.split_at(4);
        let last = frame::number(last)? & MAX_WINDOW;
        self.proceed(State::Left);
        for stream in self.streams.iter_mut().filter(|stream| stream.id > last) {
            stream.fail(Failure::Unprocessed);
        }
        Ok(())
    }

    fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        const NOTHING: Wrong = Wrong::protocol("it opens a window by nothing");
        let more = i64::from(frame::number(payload)? & MAX_WINDOW);
        if head.stream == 0 {
            self.send_window += more;
            if more == 0 || self.send_window > i64::from(MAX_WINDOW) {
                return Err(if more == 0 { NOTHING } else { TOO_WIDE });
            }
            self.wake_writers();
            return Ok(());
        }
        self.is_known(head.stream)?;
        let Some(stream) = self.stream(head.stream).filter(|stream| stream.failure.is_none()) else { return Ok(()) };
        stream.send_window += more;
        let wrong =
            if more == 0 { Some(NOTHING) } else { (stream.send_window > i64::from(MAX_WINDOW)).then_some(TOO_WIDE) };
        stream.wake_writer();
        self.judged(head.stream, wrong.map_or(Ok(()), Err));
        Ok(())
    }
}
