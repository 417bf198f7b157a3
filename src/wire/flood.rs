//! Counts the frames of an HTTP/2 connection that cost work and carry nothing (RFC 9113 section 10.5). A peer may send some; a
//! flood of them ends the connection.
//!
//! Every frame that carries something, in either direction, earns some of them, but no SETTINGS or `RST_STREAM`: gRPC libraries send
//! a PING and a `WINDOW_UPDATE` for each round trip while data flows, others two `WINDOW_UPDATE` for each DATA. Beyond that, PING,
//! SETTINGS, PRIORITY and unknown types are allowed by time alone. `WINDOW_UPDATE` and `RST_STREAM` also answer something: as many as
//! what was sent and asked can explain. `HEADERS` are told to whoever knows how many may come; empty DATA and CONTINUATION are bounded
//! by whoever reads the frames.

use std::time::{Duration, Instant};

use super::h2::frame::{
    self, HEADER,
    kind::{CONTINUATION, DATA, GOAWAY, HEADERS, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE},
};

/// What stands before the first frame that a client sends.
const PREFACE: usize = frame::PREFACE.len();
/// So many may come at once ...
const BURST: u32 = 1000;
/// ... and one more in each of these.
const EARNED: Duration = Duration::from_millis(10);
/// Sent bytes that one frame may answer. Peers that open their windows byte by byte ask for more work than that.
const ANSWERED: u64 = 64;
/// So many are earned by a frame that carries something, as Envoy has it ...
const PER_FRAME: u32 = 10;
/// ... and so many are kept, for a peer that is late with them.
const KEPT: u32 = 100_000;
/// DATA of fewer bytes, if we send it, earns nothing: the peer may have opened its window byte by byte. It is the length of an empty
/// message of gRPC. A peer that opens a window by as much each time it is used up costs a sixteenth of a request in each round trip (measured).
const SHORTEST: u32 = 5;

/// Finds the frame headers in what passes.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes that are no frame header.
    skip: u64,
    header: [u8; HEADER],
    have: usize,
}

impl Frames {
    fn after(skip: usize) -> Self {
        Self { skip: skip as u64, ..Self::default() }
    }

    /// Takes `bytes` up to the end of the next frame header: its type and length.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<(u8, u32)> {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= skipped as u64;
        *bytes = &bytes[skipped..];
        let more = (HEADER - self.have).min(bytes.len());
        self.header[self.have..self.have + more].copy_from_slice(&bytes[..more]);
        self.have += more;
        *bytes = &bytes[more..];
        if self.have < HEADER {
            return None;
        }
        self.have = 0;
        let [a, b, c, kind, ..] = self.header;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.skip = u64::from(length);
        Some((kind, length))
    }
}

/// Reads along and counts.
#[derive(Debug)]
pub struct Watch {
    received: Frames,
    sent: Frames,
    /// Earned by frames that carry something.
    earned: u32,
    left: u32,
    since: Instant,
    /// Frames that the peer may send in answer to what it was sent, in [`ANSWERED`]ths.
    answers: u64,
    heads: u32,
}

impl Watch {
    /// For what a client sends, from its first byte.
    pub fn of_client(now: Instant) -> Self {
        Self { received: Frames::after(PREFACE), sent: Frames::default(), ..Self::of_server(now) }
    }

    /// For what a server sends, from its first byte.
    pub fn of_server(now: Instant) -> Self {
        let (received, sent) = (Frames::default(), Frames::after(PREFACE));
        Self { received, sent, earned: 0, left: BURST, since: now, answers: 0, heads: 0 }
    }

    /// Whether what has arrived may be taken.
    pub fn allows(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> bool {
        while let Some((kind, length)) = self.received.next(&mut bytes) {
            if !self.allows_frame(kind, length, &now) {
                return false;
            }
        }
        true
    }

    /// These bytes were sent to the peer.
    pub fn sent(&mut self, mut bytes: &[u8]) {
        self.answers = self.answers.saturating_add(bytes.len() as u64);
        while let Some((kind, length)) = self.sent.next(&mut bytes) {
            if kind == HEADERS || kind == DATA && length >= SHORTEST {
                self.earn();
            }
        }
    }

    /// How many heads have begun since this was last asked.
    pub fn heads(&mut self) -> u32 {
        std::mem::take(&mut self.heads)
    }

    fn earn(&mut self) {
        self.earned = (self.earned + PER_FRAME).min(KEPT);
    }

    fn allows_frame(&mut self, kind: u8, length: u32, now: impl Fn() -> Instant) -> bool {
        if length > 0 && matches!(kind, DATA | HEADERS) {
            self.earn();
        }
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
            // DATA, PUSH_PROMISE, CONTINUATION: bounded elsewhere.
            DATA | PUSH_PROMISE | CONTINUATION => true,
            // They may move the windows of all streams, and name ones that have ended: no data explains many of them.
            SETTINGS | RST_STREAM | GOAWAY => self.take(now),
            _ if self.earned > 0 => {
                self.earned -= 1;
                true
            }
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
            watch.sent(&vec![0; 64 * 5000]); // frames of nothing
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
        watch.sent(&[b'x'; PREFACE]);
        let opened = (0..10_000).take_while(|_| {
            watch.sent(&frame(0, 1));
            watch.allows(&frame(8, 4), || now)
        });
        assert!(opened.count() < 1300);
    }

    /// Both kinds, from their first bytes.
    fn watches(now: Instant) -> [Watch; 2] {
        let (mut client, mut server) = (Watch::of_client(now), Watch::of_server(now));
        assert!(client.allows(&[b'x'; PREFACE], || now));
        server.sent(&[b'x'; PREFACE]);
        [client, server]
    }

    #[test]
    fn a_peer_that_measures_the_round_trip_while_data_flows_is_never_cut_off() {
        let now = Instant::now();
        let beside = [frame(6, 8), frame(8, 4), frame(8, 4)].concat();
        for mut watch in watches(now) {
            assert!((0..100_000).all(|_| watch.allows(&[&frame(0, 1)[..], &beside].concat(), || now)), "it sends");
        }
        for kind in [0, 1] {
            for mut watch in watches(now) {
                let message = frame(kind, 5);
                assert!((0..100_000).all(|n| {
                    let (begin, end) = message.split_at(n % message.len());
                    watch.sent(begin);
                    watch.sent(end);
                    watch.allows(&beside, || now)
                }));
            }
        }
        // One that is late with what it sends.
        for mut watch in watches(now) {
            watch.sent(&frame(0, 5).repeat(10_000));
            assert!(watch.allows(&beside.repeat(10_000), || now));
        }
    }

    #[test]
    fn a_flood_beside_little_traffic_is_one() {
        let now = Instant::now();
        let ping = frame(6, 8);
        for mut watch in watches(now) {
            let passed = (0..100_000).take_while(|n| {
                let more = if n % 100 == 0 { frame(0, 100) } else { Vec::new() };
                watch.allows(&[more, ping.clone()].concat(), || now)
            });
            assert!(passed.count() < 1200);
        }
        for mut watch in watches(now) {
            let passed = (0..100_000).take_while(|n| {
                watch.sent(&frame(6, 8)); // the answer to the last one
                if n % 100 == 0 {
                    watch.sent(&frame(0, 100));
                }
                watch.allows(&ping, || now)
            });
            assert!(passed.count() < 1200);
        }
        for kind in [0, 1] {
            for mut watch in watches(now) {
                assert!(!(0..10_000).all(|_| watch.allows(&[frame(kind, 0), ping.clone()].concat(), || now)));
            }
        }
    }

    #[test]
    fn no_more_is_kept_than_a_late_peer_needs() {
        let now = Instant::now();
        for mut watch in watches(now) {
            watch.sent(&frame(0, 200).repeat(50_000));
            assert!(watch.allows(&frame(6, 8).repeat((KEPT + BURST) as usize), || now));
            assert!(!watch.allows(&frame(6, 8), || now));
        }
        for kind in [SETTINGS, RST_STREAM] {
            let mut watch = Watch::of_server(now);
            assert!(watch.allows(&frame(0, 200).repeat(5000), || now));
            assert!(watch.allows(&frame(kind, 4).repeat(BURST as usize), || now));
            assert!(!watch.allows(&frame(kind, 4), || now), "{kind}");
        }
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
