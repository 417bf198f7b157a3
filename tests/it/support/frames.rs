//! HTTP/2 as bytes, for those who break its rules (RFC 9113 section 6): nothing here is checked.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use super::{PATIENCE, Upstream};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
/// Both.
pub(crate) const ALL: u8 = END_STREAM | END_HEADERS;
/// `:status: 200`, as HPACK has it.
pub(crate) const OK: &[u8] = b"\x88";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A SETTINGS frame.
pub(crate) fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let value = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, values.iter().map(value).collect::<Vec<_>>().concat())
}

/// A field that no table holds.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    [&[0][..], &text(name), &text(value)].concat()
}

/// A field that the table holds from now on; `b"\xbe"` is the last of them.
pub(crate) fn kept_field(name: &str, value: &str) -> Vec<u8> {
    [&[0x40][..], &text(name), &text(value)].concat()
}

fn text(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.len();
    if rest < 127 {
        out.push(u8::try_from(rest).expect("small"));
    } else {
        out.push(127);
        rest -= 127;
        while rest >= 128 {
            out.push(u8::try_from(rest % 128 + 128).expect("a byte"));
            rest /= 128;
        }
        out.push(u8::try_from(rest).expect("a byte"));
    }
    out.extend_from_slice(text.as_bytes());
    out
}

/// A caller's connection.
pub(crate) struct Frames {
    stream: TcpStream,
    authority: String,
}

/// What came in a frame.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frames {
    /// Connects with these settings.
    pub(crate) fn connect(address: SocketAddr, values: &[(u16, u32)]) -> Self {
        let mut frames = Self::bare(address);
        frames.send([PREFACE, &settings(values)].concat());
        frames
    }

    /// Connects and says nothing.
    pub(crate) fn bare(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("accepted");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        Self { stream, authority: address.to_string() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("taken");
    }

    /// Sends to a proxy that may have closed.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// The head of a request, as a block.
    pub(crate) fn head(&self, method: &str, path: &str) -> Vec<u8> {
        let fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", &self.authority)];
        fields.iter().flat_map(|(name, value)| field(name, value)).collect()
    }

    /// The next frame, `None` once the proxy has closed.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        read(&mut self.stream).ok()
    }

    /// A second handle of the same connection.
    pub(crate) fn another(&self) -> Self {
        Self { stream: self.stream.try_clone().expect("a second handle"), authority: self.authority.clone() }
    }

    /// Reads whatever comes, on a thread of its own.
    pub(crate) fn ignore_answers(&self) {
        let mut stream = self.stream.try_clone().expect("a second handle");
        std::thread::spawn(move || while matches!(stream.read(&mut [0; 16 * 1024]), Ok(1..)) {});
    }

    /// Sends this over and over until the proxy closes; panics if it takes it all for seconds.
    pub(crate) fn flood(&mut self, what: &str, mut piece: impl FnMut() -> Vec<u8>) {
        self.ignore_answers();
        let begun = Instant::now();
        while self.stream.write_all(&piece()).is_ok() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{what}: taken for ten seconds");
        }
    }
}

/// Reads one frame.
pub(crate) fn read(stream: &mut TcpStream) -> io::Result<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let number = |at: std::ops::Range<usize>| head[at].iter().fold(0, |all, byte| all << 8 | u32::from(*byte));
    let mut payload = vec![0; number(0..3) as usize];
    stream.read_exact(&mut payload)?;
    Ok(Frame { kind: head[3], flags: head[4], stream: number(5..9), payload })
}

/// An upstream that answers the head of each request with what `act` does; it takes no notice of anything else.
pub(crate) fn raw_upstream(
    values: &'static [(u16, u32)],
    act: impl Fn(&mut TcpStream, u32) -> io::Result<()> + Send + Sync + 'static,
) -> Upstream {
    Upstream::start(move |connection| {
        let mut stream = connection.stream().try_clone().expect("a second handle");
        let _ = stream.set_write_timeout(Some(PATIENCE));
        let mut serve = || {
            stream.read_exact(&mut [0; PREFACE.len()])?;
            stream.write_all(&settings(values))?;
            loop {
                let Frame { kind, flags, stream: number, .. } = read(&mut stream)?;
                match kind {
                    SETTINGS if flags & 1 == 0 => stream.write_all(&frame(SETTINGS, 1, 0, ""))?,
                    HEADERS => act(&mut stream, number)?,
                    _ => {}
                }
            }
        };
        let _: io::Result<()> = serve();
    })
}
