//! Counts the frames of an HTTP/2 connection that cost work and carry nothing (RFC 9113 section 10.5): PING,
//! SETTINGS, PRIORITY and unknown types. A peer may send some; a flood of them ends the connection.

use std::time::{Duration, Instant};

/// Length of a frame header.
const HEADER: usize = 9;
/// What stands before the first frame that a client sends.
const PREFACE: usize = 24;
/// So many may come at once ...
const BURST: u32 = 1000;
/// ... and one more in each of these.
const EARNED: Duration = Duration::from_millis(10);

/// Reads along and counts.
#[derive(Debug)]
pub struct Watch {
    /// Bytes that are no frame header.
    skip: u64,
    header: [u8; HEADER],
    have: usize,
    left: u32,
    since: Instant,
}

impl Watch {
    /// For what a client sends, from its first byte.
    pub fn new(now: Instant) -> Self {
        Self { skip: PREFACE as u64, header: [0; HEADER], have: 0, left: BURST, since: now }
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
                if is_idle(kind) && !self.take(&now) {
                    return false;
                }
            }
        }
        true
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

/// Types 0, 1, 3, 5, 7, 8 and 9 (DATA, HEADERS, `RST_STREAM`, `PUSH_PROMISE`, GOAWAY, `WINDOW_UPDATE`,
/// CONTINUATION) are bounded elsewhere.
const fn is_idle(kind: u8) -> bool {
    !matches!(kind, 0 | 1 | 3 | 5 | 7 | 8 | 9)
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
        let mut watch = Watch::new(now);
        let all = [&[b'x'; PREFACE][..], frames].concat();
        all.chunks(piece).all(|part| watch.allows(part, || now))
    }

    #[test]
    fn a_flood_of_empty_work_is_noticed_wherever_it_is_cut() {
        for kind in [4, 6, 2, 0xfa] {
            for piece in [1, 7, 17, 4096] {
                assert!(passes(&frame(kind, 8).repeat(BURST as usize), piece), "{kind} in pieces of {piece}");
                assert!(!passes(&frame(kind, 8).repeat(BURST as usize + 1), piece), "{kind} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn frames_that_carry_something_are_never_counted() {
        for kind in [0, 1, 3, 8, 9] {
            assert!(passes(&frame(kind, 200).repeat(10 * BURST as usize), 1000));
        }
    }

    #[test]
    fn time_earns_more() {
        let begin = Instant::now();
        let mut watch = Watch::new(begin);
        assert!(watch.allows(&[0; PREFACE], || begin));
        let ping = frame(6, 8);
        assert!((0..BURST).all(|_| watch.allows(&ping, || begin)));
        let later = begin + 5 * EARNED;
        assert!((0..5).all(|_| watch.allows(&ping, || later)));
        assert!(!watch.allows(&ping, || later));
    }
}
