//! The chunked transfer coding (RFC 9112 section 7.1), strict: CRLF only, hexadecimal digits only, no
//! white space, bounded extensions (dropped) and a bounded trailer section.

use std::ops::Range;

/// Longest chunk extension that is skipped.
const MAX_EXTENSION: u32 = 256;
/// Longest trailer section.
const MAX_TRAILERS: usize = 8 * 1024;

/// A body that breaks the grammar; `Display` is a sentence for whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Not a hexadecimal size, or one that is too large.
    #[error("a chunk size must be hexadecimal digits")]
    Size,
    /// Something else than CR LF where a line must end.
    #[error("a chunk or its size line must end in CR LF")]
    LineEnd,
    /// An extension with control characters or beyond the limit.
    #[error("a chunk extension is malformed or too long")]
    Extension,
    /// The trailer section is malformed or too long.
    #[error("the trailer section is malformed or too long")]
    Trailers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size { digits: u8 },
    Extension { length: u32 },
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
    Done,
}

/// A decoder that is fed what has arrived and says where the data lies in it.
#[derive(Debug)]
pub struct Chunked {
    state: State,
    left: u64,
    trailers: Vec<u8>,
}

/// What one look at the input gave.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// So much of the input is dealt with.
    pub consumed: usize,
    /// Data, within what was consumed.
    pub data: Range<usize>,
}

impl Default for Chunked {
    fn default() -> Self {
        Self { state: State::Size { digits: 0 }, left: 0, trailers: Vec::new() }
    }
}

impl Chunked {
    /// Whether the last chunk and the trailer section have been read.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailer section, field lines and the final empty line, once [`Chunked::is_done`]. It parses; whether its names may hold
    /// underscores is for whoever takes them to say.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Reads up to the end of one run of data, of the body, or of the input, whichever comes first.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, ChunkError> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let run = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len() - at);
                self.left -= run as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                return Ok(Step { consumed: at + run, data: at..at + run });
            }
            self.state = self.next(input[at])?;
            at += 1;
        }
        Ok(Step { consumed: at, data: at..at })
    }

    fn next(&mut self, byte: u8) -> Result<State, ChunkError> {
        match (self.state, byte) {
            (State::Size { digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == 15 {
                    return Err(ChunkError::Size);
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                self.left = self.left * 16 + u64::from(digit);
                Ok(State::Size { digits: digits + 1 })
            }
            (State::Size { digits: 0 }, _) => Err(ChunkError::Size),
            (State::Size { .. } | State::Extension { .. }, b'\r') => Ok(State::SizeLf),
            (State::Size { .. }, b';') => Ok(State::Extension { length: 0 }),
            (State::Size { .. }, _) => Err(ChunkError::Size),
            (State::Extension { length }, b'\t' | b' '..=b'~') if length < MAX_EXTENSION => {
                Ok(State::Extension { length: length + 1 })
            }
            (State::Extension { .. }, _) => Err(ChunkError::Extension),
            (State::SizeLf, b'\n') => Ok(if self.left == 0 { State::Trailers } else { State::Data }),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { digits: 0 }),
            (State::SizeLf | State::DataCr | State::DataLf, _) => Err(ChunkError::LineEnd),
            (State::Trailers, _) => self.trailer(byte),
            (State::Data | State::Done, _) => Ok(self.state),
        }
    }

    fn trailer(&mut self, byte: u8) -> Result<State, ChunkError> {
        if self.trailers.len() == MAX_TRAILERS {
            return Err(ChunkError::Trailers);
        }
        self.trailers.push(byte);
        let ended = self.trailers == b"\r\n" || self.trailers.ends_with(b"\r\n\r\n");
        if !ended {
            return Ok(State::Trailers);
        }
        super::fields::trailers(&self.trailers, true).map_err(|_| ChunkError::Trailers)?;
        Ok(State::Done)
    }
}

/// Appends one chunk with `data` to `out`; nothing for no data, which would end the body.
pub fn encode(data: &[u8], out: &mut Vec<u8>) {
    use std::io::Write as _;
    if data.is_empty() {
        return;
    }
    let _ = write!(out, "{:x}\r\n", data.len()); // writing to a Vec cannot fail
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk and a trailer section of these lines, each with its CRLF.
pub fn end(trailers: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `input`, cut into pieces of `piece` bytes: the data and how much of the input was used.
    fn decode(input: &[u8], piece: usize) -> Result<(Vec<u8>, usize, bool), ChunkError> {
        let mut chunked = Chunked::default();
        let (mut data, mut used) = (Vec::new(), 0);
        while used < input.len() && !chunked.is_done() {
            let part = &input[used..input.len().min(used + piece)];
            let step = chunked.step(part)?;
            data.extend_from_slice(&part[step.data]);
            used += step.consumed;
        }
        Ok((data, used, chunked.is_done()))
    }

    #[test]
    fn a_body_is_decoded_wherever_it_is_cut() {
        let body = b"3\r\nabc\r\nA;ext=\"x\"\r\n0123456789\r\n00\r\nX-T: v\r\nmy_key: v\r\n\r\nnext";
        for piece in 1..body.len() {
            let (data, used, done) = decode(body, piece).unwrap();
            assert_eq!(data, b"abc0123456789", "pieces of {piece}");
            assert_eq!(&body[used..], b"next", "pieces of {piece}");
            assert!(done);
        }
    }

    #[test]
    fn an_unfinished_body_is_not_done() {
        for cut in [0, 1, 3, 5, 8, 9, 11, 12] {
            let (_, _, done) = decode(&b"3\r\nabc\r\n0\r\n\r\n"[..cut], 4).unwrap();
            assert!(!done, "cut at {cut}");
        }
    }

    #[test]
    fn every_other_spelling_is_refused() {
        let cases: [(&[u8], ChunkError); 16] = [
            (b"\r\n", ChunkError::Size),
            (b"x\r\n", ChunkError::Size),
            (b"+3\r\nabc\r\n", ChunkError::Size),
            (b"0x3\r\nabc\r\n", ChunkError::Size),
            (b" 3\r\nabc\r\n", ChunkError::Size),
            (b"3 \r\nabc\r\n", ChunkError::Size),
            (b"3\nabc\r\n", ChunkError::Size),
            (b"3\r\r\nabc\r\n", ChunkError::LineEnd),
            (b"3\r\nabcd\r\n", ChunkError::LineEnd),
            (b"3\r\nabc\n", ChunkError::LineEnd),
            (b"3\r\nabc\rx", ChunkError::LineEnd),
            (b"3;a\nb\r\nabc\r\n", ChunkError::Extension),
            (b"3;\0\r\nabc\r\n", ChunkError::Extension),
            (b"1000000000000000\r\n", ChunkError::Size),
            (b"0\r\nbad name: x\r\n\r\n", ChunkError::Trailers),
            (b"0\r\nX: a\nY: b\r\n\r\n", ChunkError::Trailers),
        ];
        for (body, error) in cases {
            assert_eq!(decode(body, 7), Err(error), "{:?}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let long = format!("3;{}\r\nabc\r\n", "x".repeat(300));
        assert_eq!(decode(long.as_bytes(), 50), Err(ChunkError::Extension));
        let long = format!("0\r\nX: {}\r\n\r\n", "x".repeat(MAX_TRAILERS));
        assert_eq!(decode(long.as_bytes(), 5000), Err(ChunkError::Trailers));
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        let mut out = Vec::new();
        encode(b"hello", &mut out);
        encode(b"", &mut out);
        encode(&[7; 300], &mut out);
        end(b"X-Sum: 1\r\n", &mut out);
        let (data, used, done) = decode(&out, 11).unwrap();
        assert_eq!((data.len(), used, done), (305, out.len(), true));
    }
}
