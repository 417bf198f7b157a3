//! The one canonical path: what is routed, judged and forwarded are the same bytes.
//!
//! A proxy is bypassed where it and the upstream read one path differently. So a target that *could* be
//! read in two ways is refused, and everything else is forwarded byte for byte. Nothing is ever
//! normalised: the decoded form exists only to be compared.

use std::borrow::Cow;

use memchr::memchr;

use super::escape::{decode_fully, escape, overlong};

/// A request target in origin-form (RFC 9112 section 3.2.1) that has exactly one reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalPath<'a> {
    target: &'a [u8],
    path_end: usize,
    decoded: Cow<'a, [u8]>,
    empty_segments: bool,
}

/// Why a target is refused. Positions are byte offsets in the target, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It does not begin with `/`.
    #[error("the request target does not begin with `/`")]
    NotOriginForm,
    /// `.` or `..` as a segment, spelled in any way, also with path parameters (`..;x`).
    #[error("the path has a dot segment (`.` or `..`, in whatever spelling) at byte {at}")]
    DotSegment {
        /// Where the segment begins.
        at: usize,
    },
    /// `%2F`.
    #[error("the path has an encoded slash at byte {at}")]
    EncodedSlash {
        /// Where the escape begins.
        at: usize,
    },
    /// `\`, encoded or not.
    #[error("the path has a backslash (encoded or not) at byte {at}")]
    Backslash {
        /// Where it is.
        at: usize,
    },
    /// A control character (NUL, CR, LF and all others), encoded or not, in the path; or raw in the query.
    #[error("the request target has the control character 0x{byte:02X} (encoded or not) at byte {at}")]
    Control {
        /// Where it is.
        at: usize,
        /// Which one.
        byte: u8,
    },
    /// `%` without two hexadecimal digits.
    #[error("the path has a `%` without two hexadecimal digits at byte {at}")]
    InvalidEscape {
        /// Where the `%` is.
        at: usize,
    },
    /// Decoding more than once brings a dot segment, a slash, a backslash or a control character to light.
    #[error("the path has a doubly encoded dot segment, slash, backslash or control character at byte {at}")]
    DoubleEncoding {
        /// Where the outermost escape begins.
        at: usize,
    },
    /// Escapes that are an overlong UTF-8 form (`%C0%AE` for a dot).
    #[error("the path has an overlong UTF-8 sequence at byte {at}")]
    Overlong {
        /// Where the first escape begins.
        at: usize,
    },
    /// `#`: a fragment is never sent.
    #[error("the request target has a `#` at byte {at}")]
    Fragment {
        /// Where it is.
        at: usize,
    },
    /// A raw space.
    #[error("the request target has a raw space at byte {at}")]
    Space {
        /// Where it is.
        at: usize,
    },
    /// A raw byte above 0x7F.
    #[error("the request target has the raw non-ASCII byte 0x{byte:02X} at byte {at}")]
    NonAscii {
        /// Where it is.
        at: usize,
        /// Which one.
        byte: u8,
    },
}

impl<'a> CanonicalPath<'a> {
    /// Reads a request target. One pass and no allocation, unless the path has escapes.
    pub fn parse(target: &'a [u8]) -> Result<Self, BadPath> {
        if target.first() != Some(&b'/') {
            return Err(BadPath::NotOriginForm);
        }
        let path_end = memchr(b'?', target).unwrap_or(target.len());
        let raw = &target[..path_end];
        let seen = survey(raw)?;
        // Without a `%` the query is looked at only for what may not stand raw in any target.
        if let Some(bad) = target[path_end..].iter().position(|&byte| NOT_RAW[usize::from(byte)]) {
            return Err(refuse_raw(target[path_end + bad], path_end + bad));
        }
        let mut path = Self { target, path_end, decoded: Cow::Borrowed(raw), empty_segments: seen.double_slash };
        if seen.escapes {
            path.decoded = Cow::Owned(decode(raw)?);
        }
        if seen.escapes || seen.odd_segments {
            path.refuse_hidden()?;
            path.empty_segments = has_empty_segment(&path.decoded);
        }
        Ok(path)
    }

    /// The path as it came.
    pub fn raw(&self) -> &'a [u8] {
        &self.target[..self.path_end]
    }

    /// The query as it came, without its `?`; `Some(b"")` for a lone `?`.
    pub fn query(&self) -> Option<&'a [u8]> {
        self.target.get(self.path_end + 1..)
    }

    /// The whole target as it came: path, `?`, query.
    pub fn target(&self) -> &'a [u8] {
        self.target
    }

    /// The path with its escapes decoded once: what is routed and judged, never what is forwarded.
    /// As no slash comes from an escape, its segments are those of the raw path.
    pub fn decoded(&self) -> &[u8] {
        &self.decoded
    }

    /// Whether two slashes meet (`//`), or would for a server that drops path parameters (`/;x/`). A
    /// trailing slash is no empty segment. Routes without `allow_empty_segments` refuse such a path.
    pub fn has_empty_segments(&self) -> bool {
        self.empty_segments
    }

    /// The offset in the raw path of a byte of the decoded one.
    pub fn raw_offset(&self, decoded_offset: usize) -> usize {
        if matches!(self.decoded, Cow::Borrowed(_)) {
            return decoded_offset.min(self.path_end);
        }
        let raw = self.raw();
        let mut at = 0;
        for _ in 0..decoded_offset {
            at += if raw.get(at) == Some(&b'%') { 3 } else { 1 };
        }
        at.min(raw.len())
    }

    /// What is forwarded below the prefix, byte for byte: path from `raw_offset` on, `?` and query.
    pub fn rest(&self, raw_offset: usize) -> &'a [u8] {
        &self.target[raw_offset.min(self.path_end)..]
    }

    /// Dot segments, overlong forms, and whatever repeated decoding brings to light.
    fn refuse_hidden(&self) -> Result<(), BadPath> {
        if let Some(at) = overlong(&self.decoded) {
            return Err(BadPath::Overlong { at: self.raw_offset(at) });
        }
        if let Some(at) = dot_segment(&self.decoded) {
            return Err(BadPath::DotSegment { at: self.raw_offset(at) });
        }
        if memchr(b'%', &self.decoded).is_none() {
            return Ok(());
        }
        let deep = decode_fully(&self.decoded);
        match deep.hidden().or_else(|| dot_segment(&deep.bytes)).or_else(|| overlong(&deep.bytes)) {
            Some(at) => Err(BadPath::DoubleEncoding { at: self.raw_offset(deep.starts[at]) }),
            None => Ok(()),
        }
    }
}

/// What the first pass over the raw path found.
#[derive(Default)]
struct Survey {
    escapes: bool,
    double_slash: bool,
    /// A segment begins with `.` or `;`.
    odd_segments: bool,
}

/// Whether no byte of a raw path needs a second look. Looks at all of it: without an early end the compiler takes many bytes at
/// a time.
fn is_plain(raw: &[u8]) -> bool {
    let (mut odd, mut before) = (false, 0);
    for &byte in raw {
        odd |= byte <= b' ' || byte >= 0x7F || matches!(byte, b'#' | b'\\' | b'%');
        odd |= before == b'/' && matches!(byte, b'/' | b'.' | b';');
        before = byte;
    }
    !odd
}

/// The pass that every path gets; most are plain.
fn survey(raw: &[u8]) -> Result<Survey, BadPath> {
    let mut seen = Survey::default();
    if is_plain(raw) {
        return Ok(seen);
    }
    for (at, &byte) in raw.iter().enumerate() {
        if !NOTABLE[usize::from(byte)] {
            continue;
        }
        match byte {
            b'/' => match raw.get(at + 1) {
                Some(b'/') => seen.double_slash = true,
                Some(b'.' | b';') => seen.odd_segments = true,
                _ => {}
            },
            b'%' => seen.escapes = true,
            _ => return Err(refuse_raw(byte, at)),
        }
    }
    Ok(seen)
}

/// The error for a byte that may not stand raw in a target.
fn refuse_raw(byte: u8, at: usize) -> BadPath {
    match byte {
        b'#' => BadPath::Fragment { at },
        b'\\' => BadPath::Backslash { at },
        b' ' => BadPath::Space { at },
        0x80.. => BadPath::NonAscii { at, byte },
        _ => BadPath::Control { at, byte },
    }
}

/// Decodes once, refusing what an escape may not stand for.
fn decode(raw: &[u8]) -> Result<Vec<u8>, BadPath> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        if byte != b'%' {
            decoded.push(byte);
            at += 1;
            continue;
        }
        let byte = escape(&raw[at..]).ok_or(BadPath::InvalidEscape { at })?;
        match byte {
            b'/' => return Err(BadPath::EncodedSlash { at }),
            b'\\' => return Err(BadPath::Backslash { at }),
            byte if byte.is_ascii_control() => return Err(BadPath::Control { at, byte }),
            byte => decoded.push(byte),
        }
        at += 3;
    }
    Ok(decoded)
}

/// Where the first segment begins that is `.` or `..` for a server that drops path parameters.
fn dot_segment(path: &[u8]) -> Option<usize> {
    let mut at = 0;
    for segment in path.split(|&byte| byte == b'/') {
        if matches!(without_params(segment), b"." | b"..") {
            return Some(at);
        }
        at += segment.len() + 1;
    }
    None
}

/// Whether a segment other than the last is empty, for a server that drops path parameters (Tomcat reads
/// `/;x/admin` as `//admin`, and then as `/admin`).
fn has_empty_segment(path: &[u8]) -> bool {
    let mut segments = path.get(1..).unwrap_or_default().split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        if segments.peek().is_some() && without_params(segment).is_empty() {
            return true;
        }
    }
    false
}

/// A segment up to its first `;`.
pub(super) fn without_params(segment: &[u8]) -> &[u8] {
    &segment[..memchr(b';', segment).unwrap_or(segment.len())]
}

/// Bytes that may not stand raw anywhere in a target: controls, space, non-ASCII, `#`.
const NOT_RAW: [bool; 256] = table(b"# ");

/// Bytes of a raw path that need a second look.
const NOTABLE: [bool; 256] = table(b"# \\/%");

const fn table(special: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte < 0x20 || byte >= 0x7F;
        byte += 1;
    }
    let mut at = 0;
    while at < special.len() {
        table[special[at] as usize] = true;
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests;
