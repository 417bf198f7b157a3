//! Counts the frames of an HTTP/2 connection that cost work and carry nothing (RFC 9113 section 10.5). A peer may send some; a
//! flood of them ends the connection.
//!
//! PING, SETTINGS, PRIORITY and unknown types are allowed by time alone. `WINDOW_UPDATE` and `RST_STREAM` answer something: as many as
//! what was sent and asked can explain, and some more. `HEADERS` are told to whoever knows how many may come; DATA and
//! CONTINUATION are bounded by the `h2` crate.

use std::time::{Duration, Instant};

/// Length of a frame header.
const HEADER: usize = 9;
/// What stands before the first frame that a client sends.
const PREFACE: usize = 24;
/// So many may come at once ...
const BURST: u32 = 1000;
/// ... and one more in each of these.
const EARNED: Duration = Duration::from_millis(10);
/// Sent bytes that one frame may answer. Peers that open their windows byte by byte ask for more work than that.
const ANSWERED: u64 = 64;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;

/// Reads along and counts.
#[derive(Debug)]
pub struct Watch {
    /// Bytes that are no frame header.
    skip: u64,
    header: [u8; HEADER],
    have: usize,
    left: u32,
    since: Instant,
    /// Frames that the peer may send in answer to what it was sent, in [`ANSWERED`]ths.
    answers: u64,
    heads: u32,
}

impl Watch {
    /// For what a client sends, from its first byte.
    pub fn of_client(now: Instant) -> Self {
        Self { skip: PREFACE as u64, ..Self::of_server(now) }
    }

    /// For what a server sends, from its first byte.
    pub fn of_server(now: Instant) -> Self {
        Self { skip: 0, header: [0; HEADER], have: 0, left: BURST, since: now, answers: 0, heads: 0 }
    }

    /// Whether what has arrived may be taken.
    pub fn allows(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> bool {
        while !bytes.is_empty() {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= skipped as u64;
            bytes = &bytes[skipped..];
            let more = (HEADER - self.have).min(bytes.len());
            self.header[self.have..self.have + more].copy_from_slice(&bytes[..more]);
            self.have += more;
            bytes = &bytes[more..];
            if self.have == HEADER {
                self.have = 0;
                let [a, b, c, kind, ..] = self.header;
                self.skip = u64::from(u32::from_be_bytes([0, a, b, c]));
                if !self.allows_frame(kind, &now) {
                    return false;
                }
            }
        }
        true
    }

    /// So many bytes were sent to the peer.
    pub fn sent(&mut self, bytes: usize) {
        self.answers = self.answers.saturating_add(bytes as u64);
    }

    /// How many heads have begun since this was last asked.
    pub fn heads(&mut self) -> u32 {
        std::mem::take(&mut self.heads)
    }

    fn allows_frame(&mut self, kind: u8, now: impl Fn() -> Instant) -> bool {
        match kind {
            HEADERS => {
                self.heads += 1;
                // Whoever asks may change its mind.
                self.answers = self.answers.saturating_add(ANSWERED);
                true
            }
            RST_STREAM | WINDOW_UPDATE if self.answers >= ANSWERED => {
                self.answers -= ANSWERED;
                true
            }
            // DATA, PUSH_PROMISE, GOAWAY, CONTINUATION: bounded elsewhere.
            0 | 5 | 7 | 9 => true,
            _ => self.take(now),
        }
    }

    fn take(&mut self, now: impl Fn() -> Instant) -> bool {
        if self.left == 0 {
            let now = now();
            let earned = now.saturating_duration_since(self.since).as_millis() / EARNED.as_millis();
            self.left = u32::try_from(earned).unwrap_or(BURST).min(BURST);
            self.since = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 0];
        frame.resize(HEADER + usize::from(length), 0xff);
        frame
    }

    /// How many of `frames` pass, cut into pieces of `piece` bytes, all at once.
    fn passes(frames: &[u8], piece: usize) -> bool {
        let now = Instant::now();
        let mut watch = Watch::of_client(now);
        let all = [&[b'x'; PREFACE][..], frames].concat();
        all.chunks(piece).all(|part| watch.allows(part, || now))
    }

    #[test]
    fn a_flood_of_empty_work_is_noticed_wherever_it_is_cut() {
        for kind in [4, 6, 2, 3, 8, 0xfa] {
            for piece in [1, 7, 17, 4096] {
                assert!(passes(&frame(kind, 8).repeat(BURST as usize), piece), "{kind} in pieces of {piece}");
                assert!(!passes(&frame(kind, 8).repeat(BURST as usize + 1), piece), "{kind} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn frames_that_carry_something_are_never_counted() {
        for kind in [0, 1, 9] {
            assert!(passes(&frame(kind, 200).repeat(10 * BURST as usize), 1000));
        }
    }

    #[test]
    fn what_was_sent_and_asked_may_be_answered() {
        let now = Instant::now();
        for (kind, other) in [(3, 8), (8, 3)] {
            let mut watch = Watch::of_server(now);
            watch.sent(64 * 5000);
            assert!((0..5000).all(|_| watch.allows(&frame(kind, 4), || now)));
            assert!((0..BURST).all(|_| watch.allows(&frame(other, 4), || now)));
            assert!(!watch.allows(&frame(kind, 4), || now));
        }
        let mut watch = Watch::of_client(now);
        assert!(watch.allows(&[b'x'; PREFACE], || now));
        let asked_and_taken_back = [frame(1, 30), frame(3, 4)].concat();
        assert!((0..5000).all(|_| watch.allows(&asked_and_taken_back, || now)));
        assert_eq!((watch.heads(), watch.heads()), (5000, 0));
    }

    #[test]
    fn a_window_that_is_opened_byte_by_byte_is_a_flood() {
        let now = Instant::now();
        let mut watch = Watch::of_server(now);
        let opened = (0..10_000).take_while(|_| {
            watch.sent(10); // a DATA frame of one byte
            watch.allows(&frame(8, 4), || now)
        });
        assert!(opened.count() < 1300);
    }

    #[test]
    fn time_earns_more() {
        let begin = Instant::now();
        let mut watch = Watch::of_client(begin);
        assert!(watch.allows(&[0; PREFACE], || begin));
        let ping = frame(6, 8);
        assert!((0..BURST).all(|_| watch.allows(&ping, || begin)));
        let later = begin + 5 * EARNED;
        assert!((0..5).all(|_| watch.allows(&ping, || later)));
        assert!(!watch.allows(&ping, || later));
    }
}
