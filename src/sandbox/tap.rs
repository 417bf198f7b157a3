//! The bytes of each request head exactly as they came in: order and spelling of the fields, which
//! hyper's map forgets, and every leniency of hyper's parser, which a strict server must see.
//!
//! [`Tap`] stands between the socket and hyper. It follows the framing just far enough to cut the heads
//! out of the stream, so a body costs it nothing but a counter.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Longest head that is kept; a longer one is refused by hyper too.
const MAX_HEAD: usize = 256 * 1024;

/// The heads that were read and not yet taken, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Heads(Arc<Mutex<VecDeque<Vec<u8>>>>);

impl Heads {
    /// The oldest head: request line and fields with their line ends, without the empty line.
    pub(super) fn take(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn push(&self, head: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(head);
    }
}

/// A caller's connection, watched.
#[derive(Debug)]
pub(super) struct Tap {
    stream: TcpStream,
    scan: Scan,
    heads: Heads,
}

impl Tap {
    pub(super) fn new(stream: TcpStream) -> (Self, Heads) {
        let heads = Heads::default();
        (Self { stream, scan: Scan::Head(Vec::new()), heads: heads.clone() }, heads)
    }

    /// The bare socket.
    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }
}

/// Where in the stream of requests the next byte stands.
#[derive(Debug)]
enum Scan {
    /// In a head, of which this has come.
    Head(Vec<u8>),
    /// In a body, with so many bytes left.
    Body(u64),
    /// In a chunk-size line.
    ChunkSize(Vec<u8>),
    /// In a chunk, with so many bytes left (its line end included).
    Chunk(u64),
    /// In the trailer section: length of the current line.
    Trailer(usize),
    /// The framing makes no sense; hyper refuses it too.
    Lost,
}

impl Scan {
    /// Follows `bytes`, giving finished heads to `heads`.
    fn feed(&mut self, mut bytes: &[u8], heads: &Heads) {
        while !bytes.is_empty() {
            bytes = match self {
                Self::Head(head) => {
                    let end = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1);
                    let (line, rest) = bytes.split_at(end);
                    let line_start = head.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
                    head.extend_from_slice(line);
                    if line.ends_with(b"\n") {
                        let blank = matches!(&head[line_start..], b"\n" | b"\r\n");
                        head.truncate(if blank { line_start } else { head.len() });
                        // Empty lines before a request line are skipped (RFC 9112 section 2.2).
                        if blank && !head.is_empty() {
                            let next = body_of(head);
                            heads.push(std::mem::take(head));
                            *self = next;
                        }
                    } else if head.len() > MAX_HEAD {
                        *self = Self::Lost;
                    }
                    rest
                }
                Self::Body(left) | Self::Chunk(left) => {
                    let step = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= step as u64;
                    if *left == 0 {
                        let body = matches!(self, Self::Body(_));
                        *self = if body { Self::Head(Vec::new()) } else { Self::ChunkSize(Vec::new()) };
                    }
                    &bytes[step..]
                }
                Self::ChunkSize(line) => {
                    line.push(bytes[0]);
                    if bytes[0] == b'\n' {
                        *self = match chunk_size(line) {
                            Some(0) => Self::Trailer(0),
                            Some(size) => Self::Chunk(size.saturating_add(2)),
                            None => Self::Lost,
                        };
                    } else if line.len() > 1024 {
                        *self = Self::Lost;
                    }
                    &bytes[1..]
                }
                Self::Trailer(length) => {
                    match bytes[0] {
                        b'\n' if *length == 0 => *self = Self::Head(Vec::new()),
                        b'\n' => *length = 0,
                        b'\r' => {}
                        _ => *length += 1,
                    }
                    &bytes[1..]
                }
                Self::Lost => return,
            };
        }
    }
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|b| matches!(b, b';' | b'\r' | b'\n' | b' ' | b'\t')).next()?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// What follows a head.
fn body_of(head: &[u8]) -> Scan {
    let mut length = 0;
    for line in head.split(|b| *b == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Scan::ChunkSize(Vec::new());
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let Some(n) = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()) else { return Scan::Lost };
            length = n;
        }
    }
    if length == 0 { Scan::Head(Vec::new()) } else { Scan::Body(length) }
}

impl AsyncRead for Tap {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.scan.feed(&buf.filled()[before..], &this.heads);
        polled
    }
}

impl AsyncWrite for Tap {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"\r\nPOST /a HTTP/1.1\r\nHost: x\r\ncontent-LENGTH: 5\r\n\r\nGET /\
        POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\n\r\n\r\r\n0\r\nT: 1\r\n\r\n\
        GET /c HTTP/1.1\n\n";

    #[test]
    fn heads_are_cut_out_of_a_pipelined_stream_split_at_any_byte() {
        for step in 1..=STREAM.len() {
            let heads = Heads::default();
            let mut scan = Scan::Head(Vec::new());
            for piece in STREAM.chunks(step) {
                scan.feed(piece, &heads);
            }
            let found: Vec<String> =
                std::iter::from_fn(|| heads.take()).map(|h| String::from_utf8(h).unwrap()).collect();
            assert_eq!(
                found,
                [
                    "POST /a HTTP/1.1\r\nHost: x\r\ncontent-LENGTH: 5\r\n",
                    "POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
                    "GET /c HTTP/1.1\n",
                ],
                "pieces of {step}"
            );
        }
    }
}
