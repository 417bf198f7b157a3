//! HTTP on the wire, strict and pure: grammar and framing of HTTP/1.1 (RFC 9110, RFC 9112), and what of HTTP/2 is ours
//! ([`h2`], RFC 9113 and 7541; [`translate`], [`flood`]).
//!
//! What these types accept has exactly one meaning: one `Host`, one length, lines that end in CRLF. What
//! another server might read differently is refused, so that the request that was judged is the request
//! that is forwarded. No I/O here; `proxy` moves the bytes.

pub mod chunked;
pub mod field;
pub mod fields;
pub mod flood;
pub mod h2;
pub mod head;
mod scan;
pub mod translate;

pub use chunked::Chunked;
pub use field::{Field, Kind};
pub use head::{HeadError, RequestHead, ResponseHead, Version};

/// Appends a number in decimal digits, without a formatter: it stands in every head and every line of the access log.
pub fn number(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Where a span of bytes lies in the buffer that a head was parsed from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The span from `start` to `end`; heads are far smaller than 4 GiB.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// Its bytes.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }
}

/// How the length of a body is told (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// Exactly so many bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Until the connection ends (responses only).
    UntilClose,
}

impl Framing {
    /// Whether there is nothing to read.
    pub fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}
