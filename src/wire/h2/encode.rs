//! Writing header blocks (RFC 7541) from heads in the words of HTTP/1.1.
//!
//! Nothing is put into a table: no field of one request shows in the length of another, and there is nothing to look up. The field
//! that holds the token is marked as never to be put into one by anybody (section 7.1.3).

use memchr::memchr;

use super::{
    frame::{Head, flag, kind},
    table,
};
use crate::wire::Kind;

/// A representation without indexing (section 6.2.2), and one that nobody may index (section 6.2.3).
const PLAIN: u8 = 0;
const NEVER: u8 = 0x10;
/// The table of this direction has no size from here on (section 6.3): to be written once, before the first field.
const NO_TABLE: u8 = 0x20;

/// A request target that `:path` cannot hold unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request target holds characters that cannot be sent over HTTP/2")]
pub struct BadTarget;

/// Appends an integer whose first byte is `first` but for these low bits of it (section 5.1).
fn integer(out: &mut Vec<u8>, first: u8, prefix: u32, mut value: usize) {
    let mask = (1_usize << prefix) - 1;
    if value < mask {
        out.push(first | value as u8);
        return;
    }
    out.push(first | mask as u8);
    value -= mask;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    integer(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

/// A field whose name is made lower case (RFC 9113 section 8.2).
fn field(out: &mut Vec<u8>, first: u8, name: &[u8], value: &[u8]) {
    if let Some(number) = table::number(name) {
        integer(out, first, 4, usize::from(number));
    } else {
        out.push(first);
        string(out, name);
    }
    string(out, value);
}

/// The lines of a head or a trailer section up to its empty line: names and values. The lines were written by us.
fn lines(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let end = memchr(b'\n', bytes)?;
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        bytes = &bytes[end + 1..];
        let colon = memchr(b':', line)?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

/// Whether `:path` may hold it: an absolute path and a query (RFC 9113 section 8.3.1). A fragment would be a part of neither.
fn is_path(target: &[u8]) -> bool {
    target.first() == Some(&b'/') && memchr(b'#', target).is_none()
}

/// Appends the header block of the request whose head [`crate::rules::headers`] wrote; its last field holds the token. `first`: no
/// block was written on this connection before.
pub fn request(out: &mut Vec<u8>, head: &[u8], scheme: &str, first: bool) -> Result<(), BadTarget> {
    let line = memchr(b'\r', head).unwrap_or(head.len());
    let mut words = head[..line].splitn(3, |byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !is_path(target) {
        return Err(BadTarget);
    }
    if first {
        out.push(NO_TABLE);
    }
    match method {
        b"GET" => out.push(0x82),
        b"POST" => out.push(0x83),
        other => field(out, PLAIN, b":method", other),
    }
    out.push(if scheme == "https" { 0x87 } else { 0x86 });
    field(out, PLAIN, b":path", target);
    let fields = head.get(line + 2..).unwrap_or_default();
    let host = lines(fields).find(|(name, _)| name.eq_ignore_ascii_case(b"host"));
    field(out, PLAIN, b":authority", host.map_or(b"", |(_, value)| value));
    let mut lower = Vec::with_capacity(32);
    let mut rest = lines(fields).peekable();
    while let Some((name, value)) = rest.next() {
        lower.clear();
        lower.extend(name.iter().map(u8::to_ascii_lowercase));
        // `:authority` has said the host.
        let kind = Kind::of(name);
        if kind != Kind::Host && !kind.is_of_h1() {
            let holds_token = rest.peek().is_none();
            field(out, if holds_token { NEVER } else { PLAIN }, &lower, value);
        }
    }
    Ok(())
}

/// Appends the header block of trailers: lines of a trailer section that were judged already.
pub fn trailers(out: &mut Vec<u8>, section: &[u8]) {
    for (name, value) in lines(section) {
        field(out, PLAIN, &name.to_ascii_lowercase(), value);
    }
}

/// Appends a header block as HEADERS and, where it is longer than `most`, CONTINUATION.
pub fn frames(out: &mut Vec<u8>, stream: u32, block: &[u8], ends: bool, most: usize) {
    let mut rest = block;
    let mut kind = kind::HEADERS;
    loop {
        let (part, more) = rest.split_at(rest.len().min(most));
        let mut flags = if more.is_empty() { flag::END_HEADERS } else { 0 };
        if ends && kind == kind::HEADERS {
            flags |= flag::END_STREAM;
        }
        Head { length: part.len(), kind, flags, stream }.write(out);
        out.extend_from_slice(part);
        if more.is_empty() {
            return;
        }
        (rest, kind) = (more, kind::CONTINUATION);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::decoder::Decoder, *};

    fn fields(block: &[u8]) -> Vec<String> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Decoder::default().decode(block, |n, v| fields.push(format!("{}={}", text(n), text(v)))).unwrap();
        fields
    }

    #[test]
    fn a_request_says_the_same_in_both_versions() {
        let head =
            b"PUT /b//c%2f?d=[1]&e HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTE: trailers\r\nConnection: TE\r\n\
                     Keep-Alive: 1\r\nX-Long: zzz\r\nAuthorization: Bearer not-a-token\r\n\r\n";
        let mut block = Vec::new();
        request(&mut block, head, "https", true).unwrap();
        let expected = [
            ":method=PUT",
            ":scheme=https",
            ":path=/b//c%2f?d=[1]&e",
            ":authority=a",
            "content-length=3",
            "te=trailers",
            "x-long=zzz",
            "authorization=Bearer not-a-token",
        ];
        assert_eq!(fields(&block), expected);
        // Never indexed, with the name of number 23.
        assert!(block.windows(3).any(|w| w == [0x1f, 23 - 15, b"Bearer not-a-token".len() as u8]), "{block:02x?}");
        let mut again = Vec::new();
        request(&mut again, head, "https", false).unwrap();
        assert_eq!(block[1..], again[..]);
    }

    #[test]
    fn long_values_and_every_length_are_told() {
        for length in [0, 1, 126, 127, 128, 254, 255, 16_383, 16_384, 16_510, 16_511, 40_000] {
            let value = "v".repeat(length);
            let mut block = Vec::new();
            trailers(&mut block, format!("My_Key: {value}\r\n").as_bytes());
            assert_eq!(fields(&block), [format!("my_key={value}")]);
        }
    }

    #[test]
    fn a_target_that_http_2_would_change_is_refused() {
        for target in ["/a#b", "*", "", "a"] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(request(&mut Vec::new(), head.as_bytes(), "https", true), Err(BadTarget), "{target}");
        }
    }

    #[test]
    fn a_long_block_goes_on_in_continuations() {
        let ends_of = |most| {
            let mut out = Vec::new();
            frames(&mut out, 7, b"abcde", true, most);
            out
        };
        assert_eq!(ends_of(5), b"\0\0\x05\x01\x05\0\0\0\x07abcde");
        assert_eq!(ends_of(2), b"\0\0\x02\x01\x01\0\0\0\x07ab\0\0\x02\x09\0\0\0\0\x07cd\0\0\x01\x09\x04\0\0\0\x07e");
    }
}
