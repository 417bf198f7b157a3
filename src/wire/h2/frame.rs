//! Frames (RFC 9113 sections 4 and 6): their headers, and those of them that have no body to speak of.

/// What a client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of a frame header.
pub const HEADER: usize = 9;
/// Largest payload where nothing else was agreed on (`SETTINGS_MAX_FRAME_SIZE`).
pub const MAX_PAYLOAD: usize = 16_384;
/// Window of a stream and of the connection where nothing else was agreed on.
pub const WINDOW: u32 = 65_535;
/// The largest window there may be.
pub const MAX_WINDOW: u32 = 0x7fff_ffff;

/// Types of frames.
#[allow(missing_docs, reason = "the names are those of RFC 9113 section 6")]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames.
#[allow(missing_docs, reason = "the names are those of RFC 9113 section 6")]
pub mod flag {
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 0x20;
}

/// Settings (RFC 9113 section 6.5.2).
#[allow(missing_docs, reason = "the names are those of RFC 9113 section 6.5.2")]
pub mod setting {
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// Error codes (RFC 9113 section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

#[allow(missing_docs, reason = "the names are those of RFC 9113 section 7")]
impl Code {
    pub const NO_ERROR: Self = Self(0);
    pub const PROTOCOL_ERROR: Self = Self(1);
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    pub const STREAM_CLOSED: Self = Self(5);
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    pub const REFUSED_STREAM: Self = Self(7);
    pub const CANCEL: Self = Self(8);
    pub const COMPRESSION_ERROR: Self = Self(9);
    pub const ENHANCE_YOUR_CALM: Self = Self(11);

    /// Its name, where it has one.
    pub fn name(self) -> &'static str {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        NAMES.get(self.0 as usize).copied().unwrap_or("an unknown code")
    }
}

/// What a peer did that RFC 9113 forbids, and the code that it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why} ({})", code.name())]
pub struct Wrong {
    /// For the peer.
    pub code: Code,
    /// For people.
    pub why: &'static str,
}

impl Wrong {
    /// A breach of the protocol that has no code of its own.
    pub const fn protocol(why: &'static str) -> Self {
        Self { code: Code::PROTOCOL_ERROR, why }
    }

    /// A frame that is too long or too short for its type.
    pub const fn size(why: &'static str) -> Self {
        Self { code: Code::FRAME_SIZE_ERROR, why }
    }
}

/// A frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Of the payload.
    pub length: usize,
    /// One of [`kind`], or another.
    pub kind: u8,
    /// Some of [`flag`].
    pub flags: u8,
    /// 0 is the connection itself.
    pub stream: u32,
}

impl Head {
    /// Reads one.
    pub fn read(bytes: &[u8; HEADER]) -> Self {
        let [a, b, c, kind, flags, s @ ..] = *bytes;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        Self { length, kind, flags, stream: u32::from_be_bytes(s) & MAX_WINDOW }
    }

    /// Whether it has this flag.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Appends it.
    pub fn write(self, out: &mut Vec<u8>) {
        let mut bytes = [0; HEADER];
        bytes[..3].copy_from_slice(&(self.length as u32).to_be_bytes()[1..]);
        (bytes[3], bytes[4]) = (self.kind, self.flags);
        bytes[5..].copy_from_slice(&self.stream.to_be_bytes());
        out.extend_from_slice(&bytes);
    }
}

/// Appends a frame with this payload.
pub fn write(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    Head { length: payload.len(), kind, flags, stream }.write(out);
    out.extend_from_slice(payload);
}

/// Appends a SETTINGS frame.
pub fn write_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    Head { length: settings.len() * 6, kind: kind::SETTINGS, flags: 0, stream: 0 }.write(out);
    for (name, value) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// The settings in a payload, in their order.
pub fn settings(payload: &[u8]) -> Result<impl Iterator<Item = (u16, u32)> + '_, Wrong> {
    if !payload.len().is_multiple_of(6) {
        return Err(Wrong::size("its SETTINGS have an odd length"));
    }
    let (settings, _) = payload.as_chunks::<6>();
    Ok(settings.iter().map(|&[n, m, value @ ..]| (u16::from_be_bytes([n, m]), u32::from_be_bytes(value))))
}

/// Appends a `WINDOW_UPDATE`.
pub fn write_window_update(out: &mut Vec<u8>, stream: u32, more: u32) {
    write(out, kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
}

/// Appends a `RST_STREAM`.
pub fn write_reset(out: &mut Vec<u8>, stream: u32, code: Code) {
    write(out, kind::RST_STREAM, 0, stream, &code.0.to_be_bytes());
}

/// The 31 bits that a payload of four bytes holds (`WINDOW_UPDATE`), or all 32 of them (`RST_STREAM`).
pub fn number(payload: &[u8]) -> Result<u32, Wrong> {
    let bytes = payload.try_into().map_err(|_| Wrong::size("a frame that holds one number has another length"))?;
    Ok(u32::from_be_bytes(bytes))
}

/// The payload of HEADERS or `PUSH_PROMISE` without padding and priority.
pub fn unpadded(head: Head, mut payload: &[u8]) -> Result<&[u8], Wrong> {
    const SHORT: Wrong = Wrong::size("a HEADERS frame is too short");
    if head.has(flag::PADDED) {
        let (padding, rest) = payload.split_first().ok_or(SHORT)?;
        let end = rest.len().checked_sub(usize::from(*padding));
        payload = &rest[..end.ok_or(Wrong::protocol("a frame has more padding than bytes"))?];
    }
    if head.has(flag::PRIORITY) {
        payload = payload.get(5..).ok_or(SHORT)?;
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_header_is_read_as_it_was_written() {
        let head = Head { length: 0x01_02_03, kind: kind::HEADERS, flags: flag::END_STREAM, stream: 5 };
        let mut out = Vec::new();
        head.write(&mut out);
        assert_eq!(out, [1, 2, 3, 1, 1, 0, 0, 0, 5]);
        assert_eq!(Head::read(&[1, 2, 3, 1, 1, 0x80, 0, 0, 5]), head, "the reserved bit means nothing");
    }

    #[test]
    fn padding_and_priority_are_no_part_of_a_head() {
        let padded = |flags, payload| unpadded(Head { length: 0, kind: kind::HEADERS, flags, stream: 1 }, payload);
        assert_eq!(padded(0, b"abc"), Ok(&b"abc"[..]));
        assert_eq!(padded(flag::PADDED, b"\x02abc"), Ok(&b"a"[..]));
        assert_eq!(padded(flag::PADDED | flag::PRIORITY, b"\x01pppppabc"), Ok(&b"ab"[..]));
        for wrong in [&b""[..], b"\x04abc", b"\x00pppp"] {
            assert!(padded(flag::PADDED | flag::PRIORITY, wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn settings_come_in_whole_pairs() {
        let mut out = Vec::new();
        write_settings(&mut out, &[(setting::ENABLE_PUSH, 0), (setting::MAX_FRAME_SIZE, 0x10_0000)]);
        let read: Vec<_> = settings(&out[HEADER..]).unwrap().collect();
        assert_eq!(read, [(2, 0), (5, 0x10_0000)]);
        assert!(settings(&out[HEADER..HEADER + 5]).is_err());
    }
}
