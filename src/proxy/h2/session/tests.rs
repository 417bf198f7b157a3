//! Bytes in, bytes out.

use super::{queue::FULL, received::MOST_EMPTY, *};
use crate::wire::h2::frame::{HEADER, Head};

const HEAD: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer not-a-token\r\n\r\n";
const OK: &[u8] = b"\x88";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(&mut out, kind, flags, stream, payload);
    out
}

/// A connection whose server has said hello, and has taken all that was sent so far.
fn greeted() -> Session {
    let mut session = Session::new();
    session.receive(&frame(kind::SETTINGS, 0, 0, &[])).unwrap();
    sent(&mut session);
    session
}

/// The frames that were to be sent: their types, flags and streams. They are gone then.
fn sent(session: &mut Session) -> Vec<(u8, u8, u32)> {
    let mut bytes = session.unsent().to_vec();
    session.sent(bytes.len());
    if bytes.starts_with(frame::PREFACE) {
        bytes.drain(..frame::PREFACE.len());
    }
    let mut frames = Vec::new();
    let mut rest = &bytes[..];
    while let Some(head) = rest.first_chunk().map(Head::read) {
        frames.push((head.kind, head.flags, head.stream));
        rest = &rest[HEADER + head.length..];
    }
    frames
}

fn begin(session: &mut Session, ends: bool) -> u32 {
    session.begin(HEAD, "https", ends).unwrap().unwrap()
}

fn read(session: &mut Session, id: u32) -> Poll<Result<String, String>> {
    let mut bytes = [0; 4096];
    let mut buf = ReadBuf::new(&mut bytes);
    let polled = session.poll_read(id, &Context::from_waker(Waker::noop()), &mut buf);
    let text = || String::from_utf8_lossy(buf.filled()).into_owned();
    polled.map(|read| read.map(|_| text()).map_err(|e| e.to_string()))
}

fn write(session: &mut Session, id: u32, data: &[u8]) -> Poll<io::Result<usize>> {
    session.poll_write(id, &Context::from_waker(Waker::noop()), data)
}

fn said(text: &str) -> Poll<Result<String, String>> {
    Poll::Ready(Ok(text.to_owned()))
}

#[test]
fn an_answer_is_read_wherever_it_is_cut() {
    let answer = [
        frame(kind::SETTINGS, 0, 0, &[]),
        frame(kind::HEADERS, flag::END_HEADERS, 1, b"\x08\x03103"),
        frame(kind::HEADERS, 0, 1, OK),
        frame(kind::CONTINUATION, flag::END_HEADERS, 1, b"\x00\x01a\x01b"),
        frame(kind::DATA, flag::PADDED, 1, b"\x03onePPP"),
        frame(kind::DATA, 0, 1, b"two"),
        frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, b"\x00\x01t\x011"),
    ]
    .concat();
    for piece in 1..answer.len() {
        let mut session = Session::new();
        let id = begin(&mut session, true);
        answer.chunks(piece).for_each(|piece| session.receive(piece).unwrap());
        assert_eq!(
            read(&mut session, id),
            said("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\na: b\r\n\r\nonetwo")
        );
        assert_eq!(read(&mut session, id), said(""), "the end");
        assert_eq!(session.stream(id).unwrap().trailers, b"t: 1\r\n\r\n");
        sent(&mut session);
        session.leave(id);
        assert_eq!(sent(&mut session), [], "nothing is left to be reset");
    }
}

#[test]
fn only_a_request_of_which_no_byte_was_sent_is_known_not_to_have_been_acted_on() {
    let mut session = greeted();
    let (first, second) = (begin(&mut session, true), begin(&mut session, true));
    let whole = session.unsent().len();
    session.sent(whole / 2 + 2);
    let third = begin(&mut session, true);
    session.fail(&Failure::of_connection(&io::ErrorKind::ConnectionReset.into()));
    for (id, unprocessed) in [(first, false), (second, false), (third, true)] {
        let failure = session.stream(id).unwrap().failure.clone();
        assert_eq!(matches!(failure, Some(Failure::Unprocessed)), unprocessed, "{id}");
    }
    assert_eq!(session.begin(HEAD, "https", true), Ok(None), "nobody begins any more");
}

#[test]
fn what_a_server_refuses_was_not_acted_on_and_what_it_leaves_behind_neither() {
    let mut session = greeted();
    let ids = [(); 3].map(|()| begin(&mut session, true));
    sent(&mut session);
    let refused = frame(kind::RST_STREAM, 0, ids[0], &Code::REFUSED_STREAM.0.to_be_bytes());
    session.receive(&refused).unwrap();
    let leaves = [ids[1].to_be_bytes(), [0; 4]].concat();
    session.receive(&frame(kind::GOAWAY, 0, 0, &leaves)).unwrap();
    let unprocessed = |session: &mut Session, id| {
        matches!(session.stream(id).and_then(|s| s.failure.clone()), Some(Failure::Unprocessed))
    };
    assert_eq!(ids.map(|id| unprocessed(&mut session, id)), [true, false, true]);
    assert_eq!(session.most_streams(), 0);
    let answer = [frame(kind::HEADERS, flag::END_HEADERS, ids[1], OK), frame(kind::DATA, 1, ids[1], b"x")];
    session.receive(&answer.concat()).unwrap();
    assert_eq!(read(&mut session, ids[1]), said("HTTP/1.1 200 OK\r\n\r\nx"));
    assert!(!session.is_done());
    for id in ids {
        session.leave(id);
    }
    assert!(session.is_done());
}

#[test]
fn a_body_is_sent_as_far_as_both_windows_reach() {
    let mut session = greeted();
    let (a, b) = (begin(&mut session, false), begin(&mut session, false));
    let body = vec![b'x'; 100_000];
    let push = |session: &mut Session, id| {
        let mut all = 0;
        while let Poll::Ready(n) = write(session, id, &body) {
            all += n.unwrap();
        }
        all
    };
    assert_eq!((push(&mut session, a), push(&mut session, b)), (65_535, 0), "the connection's window");
    let more = |stream, n: u32| frame(kind::WINDOW_UPDATE, 0, stream, &n.to_be_bytes());
    session.receive(&more(0, 100_000)).unwrap();
    assert_eq!((push(&mut session, a), push(&mut session, b)), (0, 65_535), "each stream's own");
    session.receive(&more(a, 10)).unwrap();
    assert_eq!(push(&mut session, a), 10);
    // A smaller initial window makes those of running streams negative (RFC 9113 section 6.9.2).
    let settings = |window: u32| {
        let mut out = Vec::new();
        frame::write_settings(&mut out, &[(setting::INITIAL_WINDOW_SIZE, window)]);
        out
    };
    session.receive(&settings(0)).unwrap();
    session.receive(&more(a, 65_535)).unwrap();
    assert_eq!(push(&mut session, a), 0);
    session.receive(&settings(7)).unwrap();
    assert_eq!(push(&mut session, a), 7);
    assert!(session.receive(&settings(MAX_WINDOW + 1)).is_err());
    assert!(session.receive(&more(0, MAX_WINDOW)).is_err());
}

#[test]
fn a_queue_that_nobody_empties_holds_bodies_back() {
    let mut session = greeted();
    let wide = [
        frame(kind::SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]),
        frame(kind::WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes()),
    ];
    session.receive(&wide.concat()).unwrap();
    let id = begin(&mut session, false);
    let mut all = 0;
    while let Poll::Ready(n) = write(&mut session, id, &[b'x'; 16_384]) {
        all += n.unwrap();
    }
    assert!((FULL - 1000..=FULL).contains(&all), "{all}");
    sent(&mut session);
    assert!(write(&mut session, id, b"x").is_ready());
}

#[test]
fn a_stream_that_is_given_up_is_reset_and_what_still_comes_of_it_needs_no_room() {
    let mut session = greeted();
    let id = begin(&mut session, false);
    sent(&mut session);
    session.leave(id);
    assert_eq!(sent(&mut session), [(kind::RST_STREAM, 0, id)]);
    let late = [frame(kind::HEADERS, flag::END_HEADERS, id, OK), frame(kind::DATA, 0, id, &[b'x'; 16_384])];
    session.receive(&late[0]).unwrap();
    for _ in 0..10_000 {
        session.receive(&late[1]).unwrap();
    }
    let opened = sent(&mut session);
    assert!(opened.len() < 700 && opened.iter().all(|f| *f == (kind::WINDOW_UPDATE, 0, 0)), "{opened:?}");
}

#[test]
fn more_than_a_window_is_refused_and_no_more_than_a_window_is_kept() {
    let mut session = greeted();
    let id = begin(&mut session, true);
    session.receive(&frame(kind::HEADERS, flag::END_HEADERS, id, OK)).unwrap();
    sent(&mut session);
    let data = frame(kind::DATA, 0, id, &[b'x'; 16_384]);
    for _ in 0..STREAM_WINDOW / 16_384 {
        session.receive(&data).unwrap();
    }
    assert_eq!(sent(&mut session), [], "nothing was read");
    session.receive(&data).unwrap();
    assert_eq!(sent(&mut session), [(kind::RST_STREAM, 0, id)]);
    let mut all = 0;
    let error = loop {
        match read(&mut session, id) {
            Poll::Ready(Ok(text)) => all += text.len(),
            other => break other,
        }
    };
    assert!(all >= STREAM_WINDOW as usize, "what was allowed is still there");
    assert!(matches!(error, Poll::Ready(Err(text)) if text.contains("FLOW_CONTROL_ERROR")));
}

#[test]
fn the_window_of_an_answer_that_is_read_as_it_comes_grows_and_no_window_costs_another_its_share() {
    let mut session = greeted();
    let ids = [(); 8].map(|()| begin(&mut session, true));
    for id in ids {
        session.receive(&frame(kind::HEADERS, flag::END_HEADERS, id, OK)).unwrap();
        assert!(read(&mut session, id).is_ready());
    }
    let data = |id| frame(kind::DATA, 0, id, &vec![b'x'; 16_384]);
    let width = |session: &mut Session, id| session.stream(id).unwrap().grown() + STREAM_WINDOW;
    for id in ids {
        for _ in 0..1000 {
            session.receive(&data(id)).unwrap();
            while read(&mut session, id).is_ready() {}
        }
    }
    let widths = ids.map(|id| width(&mut session, id) / STREAM_WINDOW);
    assert_eq!(widths[..3], [16, 16, 16], "4 MiB each");
    assert!(widths.iter().sum::<u32>() <= 8 + GROWTH / STREAM_WINDOW, "{widths:?}");
    // Nobody reads any more; another stream still gets a whole window of its own.
    for id in ids {
        while session.stream(id).is_some_and(|stream| stream.failure.is_none()) {
            session.receive(&data(id)).unwrap();
        }
    }
    let late = begin(&mut session, true);
    session.receive(&frame(kind::HEADERS, flag::END_HEADERS, late, OK)).unwrap();
    for _ in 0..STREAM_WINDOW / 16_384 {
        session.receive(&data(late)).unwrap();
    }
    for id in ids {
        session.leave(id);
    }
    assert_eq!(session.growth, GROWTH, "what has grown is given back");
}

#[test]
fn what_breaks_the_connection_is_named() {
    let greeted = |frames: &[Vec<u8>]| [frame(kind::SETTINGS, 0, 0, &[]), frames.concat()].concat();
    let cases: &[(&str, Vec<u8>)] = &[
        ("no HTTP/2", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("no HTTP/2", frame(kind::PING, 0, 0, &[0; 8])),
        ("odd length", frame(kind::SETTINGS, 0, 0, b"odd")),
        ("nobody began", greeted(&[frame(kind::DATA, 0, 9, b"x")])),
        ("nobody began", greeted(&[frame(kind::HEADERS, 4, 2, OK)])),
        ("pushes", greeted(&[frame(kind::PUSH_PROMISE, 4, 1, OK)])),
        ("interrupted", greeted(&[frame(kind::HEADERS, 0, 1, OK), frame(kind::PING, 0, 0, &[0; 8])])),
        ("continues nothing", greeted(&[frame(kind::CONTINUATION, 0, 1, OK)])),
        ("without end", greeted(&[frame(kind::HEADERS, 0, 1, OK), frame(kind::CONTINUATION, 0, 1, &[])])),
        ("cannot be read", greeted(&[frame(kind::HEADERS, 4, 1, b"\x80")])),
        ("by nothing", greeted(&[frame(kind::WINDOW_UPDATE, 0, 0, &[0; 4])])),
        ("PING", greeted(&[frame(kind::PING, 0, 0, b"short")])),
        ("GOAWAY", greeted(&[frame(kind::GOAWAY, 0, 0, b"short")])),
        ("too long", greeted(&[frame(kind::DATA, 0, 1, &vec![0; MAX_PAYLOAD + 1])])),
    ];
    for (why, bytes) in cases {
        let mut session = Session::new();
        begin(&mut session, true);
        let result = session.receive(bytes);
        assert!(result.is_err_and(|wrong| wrong.why.contains(why)), "{why}: {result:?}");
    }
}

#[test]
fn a_flood_of_data_that_carries_nothing_ends_the_connection() {
    for empty in [frame(kind::DATA, 0, 1, b""), frame(kind::DATA, flag::PADDED, 1, b"\x02PP")] {
        let mut session = greeted();
        begin(&mut session, true);
        let received = (0..2 * MOST_EMPTY).take_while(|_| session.receive(&empty).is_ok()).count();
        assert_eq!(received, MOST_EMPTY as usize);
    }
}

#[test]
fn heads_that_nobody_reads_are_bounded() {
    let mut session = greeted();
    let id = begin(&mut session, true);
    let value = "v".repeat(10_000);
    let block = [&b"\x08\x03103\x00\x01x\x7f\x91\x4d"[..], value.as_bytes()].concat();
    let interim = frame(kind::HEADERS, flag::END_HEADERS, id, &block);
    for _ in 0..1000 {
        session.receive(&interim).unwrap();
    }
    let stream = session.stream(id).unwrap();
    assert!(stream.failure.is_some() && stream.heads.len() < 300_000, "{}", stream.heads.len());
}

/// Numbers that look random and are the same in each run (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    /// A frame of any kind: most are right, some are not.
    fn frame(&mut self) -> Vec<u8> {
        const BLOCKS: [&[u8]; 6] = [OK, OK, b"\x08\x03103", b"\x00\x01t\x011", b"\x88\x40\x01a\x01b\xbe", b"\x20\x88"];
        let noise: Vec<u8> = (0..self.roll(40)).map(|_| self.roll(256) as u8).collect();
        if self.roll(50) == 0 {
            return frame(self.roll(11) as u8, self.roll(256) as u8, self.roll(12) as u32, &noise);
        }
        let (stream, ends) = (self.roll(5) as u32 * 2 + 1, self.roll(4) as u8 / 3);
        match self.roll(12) {
            0 => frame(kind::RST_STREAM, 0, stream, &(self.roll(14) as u32).to_be_bytes()),
            1 => frame(kind::WINDOW_UPDATE, 0, stream * (self.roll(2) as u32), &[0, 0, 1, 1]),
            2 => frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 1, self.roll(256) as u8, 0]),
            3 => frame(kind::PING, self.roll(2) as u8, 0, &[7; 8]),
            4 if self.roll(10) == 0 => frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 5, 0, 0, 0, 0]),
            5..8 => frame(kind::HEADERS, flag::END_HEADERS | ends, stream, BLOCKS[self.roll(6) as usize]),
            _ => frame(kind::DATA, ends, stream, &noise),
        }
    }
}

#[test]
fn whatever_a_server_sends_it_is_an_answer_or_an_error_and_costs_little() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut answered, mut broken) = (0, 0);
    for _ in 0..3000 {
        let mut session = greeted();
        let ids: Vec<u32> = (0..5).map(|n| begin(&mut session, n % 2 == 0)).collect();
        for _ in 0..60 {
            let frame = dice.frame();
            if session.receive(&frame).is_err() {
                session.fail(&Failure::of_connection(&io::ErrorKind::Other.into()));
                broken += 1;
                break;
            }
            let id = ids[dice.roll(5) as usize];
            match dice.roll(6) {
                0 => drop(write(&mut session, id, b"data")),
                1 => drop(session.end(id, b"")),
                2 => session.leave(id),
                _ => {
                    let was_read = matches!(read(&mut session, id), Poll::Ready(Ok(text)) if !text.is_empty());
                    answered += usize::from(was_read);
                }
            }
            sent(&mut session);
        }
        for id in ids {
            assert!(session.stream(id).is_none_or(|stream| stream.heads.len() < 400_000));
            session.leave(id);
        }
        assert!(session.streams.is_empty());
    }
    assert!(answered > 1000 && (500..3000).contains(&broken), "{answered} answers, {broken} breaches");
}

#[test]
fn bodies_share_a_small_window_of_the_connection_in_turn() {
    /// Counts in which order streams are woken.
    struct Turn(u32, std::sync::Arc<std::sync::Mutex<Vec<u32>>>);
    impl std::task::Wake for Turn {
        fn wake(self: std::sync::Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }
    let mut session = greeted();
    let ids = [(); 3].map(|()| begin(&mut session, false));
    let hog = begin(&mut session, false);
    assert!(write(&mut session, hog, &[0; 16_384]).is_ready());
    while write(&mut session, hog, &[0; 16_384]).is_ready() {}
    assert_eq!(session.send_window, 0);
    let woken = std::sync::Arc::<std::sync::Mutex<Vec<u32>>>::default();
    let mut served = Vec::new();
    for _ in 0..6 {
        for id in ids {
            let waker = Waker::from(std::sync::Arc::new(Turn(id, std::sync::Arc::clone(&woken))));
            assert!(session.poll_write(id, &Context::from_waker(&waker), b"xyz").is_pending());
        }
        session.receive(&frame(kind::WINDOW_UPDATE, 0, 0, &3u32.to_be_bytes())).unwrap();
        let first = woken.lock().unwrap().drain(..).next().unwrap();
        assert!(write(&mut session, first, b"xyz").is_ready());
        served.push(first);
    }
    assert_eq!(served, [ids, ids].concat());
}

#[test]
fn nothing_of_a_head_that_cannot_be_read_to_its_end_is_an_answer() {
    for (head, phase) in [(&b"\x88\x00\x01a\x01b\x80"[..], 0), (b"\x00\x01t\x011\x80", 1)] {
        let mut session = greeted();
        let id = begin(&mut session, true);
        if phase == 1 {
            session.receive(&frame(kind::HEADERS, flag::END_HEADERS, id, OK)).unwrap();
            assert!(read(&mut session, id).is_ready());
        }
        assert!(session.receive(&frame(kind::HEADERS, 5, id, head)).is_err());
        session.fail(&Failure::of_connection(&io::ErrorKind::Other.into()));
        assert!(matches!(read(&mut session, id), Poll::Ready(Err(_))));
        assert_eq!(session.stream(id).unwrap().trailers, b"");
    }
}

#[test]
fn a_server_that_has_said_something_to_a_request_cannot_deny_that_it_acted() {
    let mut session = greeted();
    let id = begin(&mut session, true);
    sent(&mut session);
    session.receive(&frame(kind::HEADERS, flag::END_HEADERS, id, b"\x08\x03103")).unwrap();
    session.receive(&frame(kind::RST_STREAM, 0, id, &Code::REFUSED_STREAM.0.to_be_bytes())).unwrap();
    assert!(matches!(session.stream(id).unwrap().failure, Some(Failure::Reset(Code::REFUSED_STREAM))));
}

#[test]
fn a_server_that_asks_for_more_than_it_reads_is_left() {
    let mut session = greeted();
    let pings = frame(kind::PING, 0, 0, &[0; 8]).repeat(1000);
    let taken = (0..1000).take_while(|_| session.receive(&pings).is_ok()).count();
    assert!(session.unsent().len() < 600_000 && taken < 40, "{taken}");
}

#[test]
fn padding_opens_the_window_again_by_itself() {
    let mut session = greeted();
    let id = begin(&mut session, true);
    session.receive(&frame(kind::HEADERS, flag::END_HEADERS, id, OK)).unwrap();
    sent(&mut session);
    let padded = frame(kind::DATA, flag::PADDED, id, &[&[255][..], &[0; 255]].concat());
    for _ in 0..5000 {
        session.receive(&padded).unwrap();
    }
    assert!(sent(&mut session).contains(&(kind::WINDOW_UPDATE, 0, id)));
}
