//! Percent-escapes (RFC 3986 section 2.1): one, all of them at whatever depth, and overlong UTF-8.

/// The byte that the escape at the beginning of `text` stands for.
pub(super) fn escape(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// What repeated decoding ends in.
#[derive(Debug, Default)]
pub(super) struct FullyDecoded {
    /// The bytes.
    pub(super) bytes: Vec<u8>,
    /// For each byte, the offset in the input at which its (outermost) escape begins.
    pub(super) starts: Vec<usize>,
    /// For each byte, whether it came out of an escape.
    escaped: Vec<bool>,
}

/// Decodes again and again until nothing changes; a `%` that begins no escape stands for itself.
///
/// One pass in linear time: `%XY → byte` is the only rule and its matches cannot overlap, so the end is
/// the same whatever the order, and an escape is decoded as soon as its last digit is there. (Decoding
/// level by level would let `%252525…` cost the square of its length.)
pub(super) fn decode_fully(text: &[u8]) -> FullyDecoded {
    let mut done = FullyDecoded::default();
    for (at, &byte) in text.iter().enumerate() {
        done.push(byte, at, false);
        while let Some(byte) = done.bytes.len().checked_sub(3).and_then(|from| escape(&done.bytes[from..])) {
            let from = done.bytes.len() - 3;
            let start = done.starts[from];
            done.truncate(from);
            done.push(byte, start, true);
        }
    }
    done
}

impl FullyDecoded {
    /// Where in `bytes` the first one stands that no escape may stand for, and an escape did.
    pub(super) fn hidden(&self) -> Option<usize> {
        self.bytes.iter().zip(&self.escaped).position(|(&byte, &escaped)| escaped && never_escaped(byte))
    }

    fn push(&mut self, byte: u8, start: usize, escaped: bool) {
        self.bytes.push(byte);
        self.starts.push(start);
        self.escaped.push(escaped);
    }

    fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
        self.starts.truncate(len);
        self.escaped.truncate(len);
    }
}

/// What no escape of any depth may stand for.
fn never_escaped(byte: u8) -> bool {
    matches!(byte, b'/' | b'\\') || byte.is_ascii_control()
}

/// Where the first overlong UTF-8 form begins. (RFC 3629 section 10: decoders that accept them see a dot
/// or a slash that nobody checked. Two bytes are enough to tell.)
pub(super) fn overlong(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| {
        matches!(
            pair,
            [0xC0 | 0xC1, 0x80..=0xBF]
                | [0xE0, 0x80..=0x9F]
                | [0xF0, 0x80..=0x8F]
                | [0xF8, 0x80..=0x87]
                | [0xFC, 0x80..=0x83]
        )
    })
}
