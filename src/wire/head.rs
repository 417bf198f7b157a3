//! Request and response heads (RFC 9112 sections 2 to 5).

use std::time::Duration;

use memchr::memchr;

use super::{
    Framing, Span,
    field::{Field, Kind, Kinds, is_token, is_value, list},
    fields::Fields,
    scan,
};

pub use super::fields::MAX_FIELDS;

/// The HTTP version that a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    H10,
    /// HTTP/1.1
    H11,
    /// HTTP/2, its head told in the words of HTTP/1.1.
    H2,
}

impl Version {
    /// As a request line has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::H10 => "HTTP/1.0",
            Self::H11 => "HTTP/1.1",
            Self::H2 => "HTTP/2",
        }
    }
}

/// Why a head is refused. `Display` is a sentence for whoever sent it; it repeats none of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// A line ended in a bare LF, or a CR stood alone.
    #[error("every line of the head must end in CR LF, and neither may stand alone")]
    LineEnd,
    /// The request line is not `METHOD SP target SP HTTP/1.1`.
    #[error("the request line must read METHOD, one space, target, one space, HTTP/1.1")]
    RequestLine,
    /// The method is not a token in upper case.
    #[error("the method must be an upper-case token")]
    Method,
    /// A target with bytes that no target may hold.
    #[error("the request target may hold visible ASCII only")]
    Target,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("only HTTP/1.1 and HTTP/1.0 are spoken here, and HTTP/2 from the start of a connection")]
    Version,
    /// A malformed status line.
    #[error("the status line must read HTTP/1.1, a space, three digits")]
    StatusLine,
    /// A field line without a colon, with an illegal name, or with a space before the colon.
    #[error("a header line must read name, colon, value; the name is a token with no space before the colon")]
    FieldName,
    /// An underscore in a field name: servers behind a CGI-like interface cannot tell it from a hyphen.
    #[error("a header name holds an underscore, which many servers take for a hyphen")]
    Underscore,
    /// A control byte in a value.
    #[error("a header value holds a control character")]
    FieldValue,
    /// A line that starts with white space.
    #[error("header lines must not be folded")]
    Folded,
    /// More than [`MAX_FIELDS`].
    #[error("the head has too many header lines (the limit is {MAX_FIELDS})")]
    TooManyFields,
    /// More options of `Connection` than anybody needs.
    #[error("the Connection header has too many options (the limit is 64)")]
    TooManyOptions,
    /// No `Host`.
    #[error("the Host header is missing")]
    NoHost,
    /// Several `Host` lines.
    #[error("there must be exactly one Host header")]
    ManyHosts,
    /// A `Content-Length` that is not one plain number, or several.
    #[error("Content-Length must be one decimal number, given once")]
    Length,
    /// Both `Content-Length` and `Transfer-Encoding`.
    #[error("Content-Length and Transfer-Encoding must not stand together")]
    LengthAndEncoding,
    /// A malformed or repeated `Transfer-Encoding`, or one in HTTP/1.0.
    #[error("Transfer-Encoding must be `chunked`, given once, in HTTP/1.1")]
    Encoding,
    /// A transfer coding other than `chunked`.
    #[error("the only transfer coding understood here is `chunked`")]
    UnknownEncoding,
    /// An expectation other than `100-continue`, or several.
    #[error("the only expectation understood here is `100-continue`")]
    Expectation,
}

/// Finds the end of a head: the length including the empty line, if all of it is there.
///
/// `from` is where an earlier, unsuccessful look ended, so that a head that drips in is not scanned from
/// its start each time. A bare LF ends a line here too: [`RequestHead::parse`] then refuses it, which is
/// better than waiting for an end that a lenient peer thinks it has sent.
pub fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from.saturating_sub(3);
    loop {
        let next = scan::line_feed(bytes, at)? + 1;
        match bytes.get(next..) {
            Some([b'\n', ..]) => return Some(next + 1),
            Some([b'\r', b'\n', ..]) => return Some(next + 2),
            _ => at = next,
        }
    }
}

/// Method, target and version of a request whose head is not read any further, where its first line is whole and good.
pub fn request_line(bytes: &[u8]) -> Option<(&str, &[u8], Version)> {
    let (line, _) = first_line(bytes).ok()?;
    let (method, target, version) = request_line_parts(bytes, line).ok()?;
    Some((std::str::from_utf8(method.of(bytes)).ok()?, target.of(bytes), version))
}

/// The first line of `bytes`: its span without CRLF, and where the next one starts.
fn first_line(bytes: &[u8]) -> Result<(Span, usize), HeadError> {
    let end = scan::line_feed(bytes, 0).and_then(|lf| lf.checked_sub(1)).ok_or(HeadError::LineEnd)?;
    if bytes[end] == b'\r' { Ok((Span::new(0, end), end + 2)) } else { Err(HeadError::LineEnd) }
}

/// The head of a request. Its spans point into the buffer that it was parsed from.
#[derive(Debug)]
pub struct RequestHead {
    method: Span,
    target: Span,
    host: Span,
    /// Version.
    pub version: Version,
    /// How the body's length is told; never [`Framing::UntilClose`].
    pub framing: Framing,
    /// Whether the caller waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// All fields, in order.
    pub fields: Vec<Field>,
    kinds: Kinds,
}

impl RequestHead {
    /// Parses a whole head, as long as [`head_end`] said. `reused` is an old list of fields whose memory
    /// is used again.
    pub fn parse(bytes: &[u8], reused: Vec<Field>) -> Result<Self, HeadError> {
        let (request_line, next) = first_line(bytes)?;
        let (method, target, version) = request_line_parts(bytes, request_line)?;
        let fields = Fields::parse(bytes, next, reused, false)?;
        let host = fields.host.value(HeadError::ManyHosts)?.ok_or(HeadError::NoHost)?;
        let framing = fields.framing(bytes, version)?.unwrap_or(Framing::None);
        let expects_continue = match fields.expect.value(HeadError::Expectation)?.map(|span| span.of(bytes)) {
            None => false,
            Some(value) if value.eq_ignore_ascii_case(b"100-continue") => {
                // An HTTP/1.0 caller does not know interim responses (RFC 9110 section 10.1.1).
                version == Version::H11 && !framing.is_empty()
            }
            Some(_) => return Err(HeadError::Expectation),
        };
        let Fields { list, kinds, .. } = fields;
        Ok(Self { method, target, host, version, framing, expects_continue, fields: list, kinds })
    }

    /// The method.
    pub fn method<'a>(&self, bytes: &'a [u8]) -> &'a str {
        match self.method.of(bytes) {
            // Asked for several times a request: not looked through for UTF-8 each time.
            b"GET" => "GET",
            b"POST" => "POST",
            other => std::str::from_utf8(other).unwrap_or_default(),
        }
    }

    /// The request target, as sent.
    pub fn target<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        self.target.of(bytes)
    }

    /// The value of the one `Host`.
    pub fn host<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        self.host.of(bytes)
    }

    /// The values of all fields of one kind, in order.
    pub fn values<'a>(&'a self, bytes: &'a [u8], kind: Kind) -> impl Iterator<Item = &'a [u8]> {
        self.kinds.values(&self.fields, bytes, kind)
    }

    /// Whether the caller asks to switch to WebSocket, and to nothing else (RFC 6455 section 4.1).
    pub fn asks_for_websocket(&self, bytes: &[u8]) -> bool {
        let upgrades = self.values(bytes, Kind::Upgrade).filter(|v| v.eq_ignore_ascii_case(b"websocket")).count();
        upgrades == 1
            && self.values(bytes, Kind::Upgrade).count() == 1
            && self.values(bytes, Kind::SecWebSocketKey).count() == 1
            && self.values(bytes, Kind::Connection).flat_map(list).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
            && self.method(bytes) == "GET"
            && self.version != Version::H10
            && self.framing.is_empty()
    }

    /// Whether the caller wants the connection kept (RFC 9112 section 9.3).
    pub fn keeps_alive(&self, bytes: &[u8]) -> bool {
        persistent(self.version, self.values(bytes, Kind::Connection))
    }
}

fn persistent<'a>(version: Version, connection: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut keep = version == Version::H11;
    for value in connection {
        // What most say that say anything: no list to be taken apart.
        if value.eq_ignore_ascii_case(b"keep-alive") {
            keep = true;
            continue;
        }
        for option in list(value) {
            if option.eq_ignore_ascii_case(b"close") {
                return false;
            }
            keep |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    keep
}

fn request_line_parts(bytes: &[u8], line: Span) -> Result<(Span, Span, Version), HeadError> {
    let text = line.of(bytes);
    let start = line.start as usize;
    let space = memchr(b' ', text).ok_or(HeadError::RequestLine)?;
    let method = &text[..space];
    if !is_token(method) || method.len() > 32 || method.iter().any(u8::is_ascii_lowercase) {
        return Err(HeadError::Method);
    }
    let rest = &text[space + 1..];
    let second = memchr(b' ', rest).ok_or(HeadError::RequestLine)?;
    let (target, version) = (&rest[..second], &rest[second + 1..]);
    let version = match version {
        b"HTTP/1.1" => Version::H11,
        b"HTTP/1.0" => Version::H10,
        // `HTTP/` and digits is a version that we do not speak, anything else (a space in the target) no request line.
        [b'H', b'T', b'T', b'P', b'/', number @ ..]
            if !number.is_empty() && number.iter().all(|b| b.is_ascii_digit() || *b == b'.') =>
        {
            return Err(HeadError::Version);
        }
        _ => return Err(HeadError::RequestLine),
    };
    if target.is_empty() {
        return Err(HeadError::RequestLine);
    }
    if !scan::is_visible(target) {
        return Err(HeadError::Target);
    }
    let target_at = start + space + 1;
    Ok((Span::new(start, start + space), Span::new(target_at, target_at + second), version))
}

/// The head of a response.
#[derive(Debug)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: u16,
    reason: Span,
    /// Version.
    pub version: Version,
    told: Option<Framing>,
    /// All fields, in order.
    pub fields: Vec<Field>,
    kinds: Kinds,
}

impl ResponseHead {
    /// Parses a whole head, as long as [`head_end`] said.
    pub fn parse(bytes: &[u8], reused: Vec<Field>) -> Result<Self, HeadError> {
        let (status_line, next) = first_line(bytes)?;
        let text = status_line.of(bytes);
        let (version, rest) = match text {
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ (b'0' | b'1'), b' ', rest @ ..] => {
                (if *minor == b'1' { Version::H11 } else { Version::H10 }, rest)
            }
            _ => return Err(HeadError::StatusLine),
        };
        let status = match rest {
            [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']
            | [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', ..] => {
                u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
            }
            _ => return Err(HeadError::StatusLine),
        };
        let reason = rest.get(4..).unwrap_or_default();
        if !is_value(reason) {
            return Err(HeadError::StatusLine);
        }
        let end = status_line.end as usize;
        // Underscores are the upstream's own affair; nobody behind us takes them for CGI variables.
        let mut fields = Fields::parse(bytes, next, reused, true)?;
        let told = match fields.framing(bytes, version) {
            Err(HeadError::Length) if fields.merge_lengths(bytes) => fields.framing(bytes, version)?,
            told => told?,
        };
        let (Fields { list, kinds, .. }, reason) = (fields, Span::new(end - reason.len(), end));
        Ok(Self { status, reason, version, told, fields: list, kinds })
    }

    /// The reason phrase, perhaps empty.
    pub fn reason<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        self.reason.of(bytes)
    }

    /// How the body's length is told, in answer to `method` (RFC 9112 section 6.3).
    pub fn framing(&self, method: &str) -> Framing {
        if method == "HEAD" || self.status < 200 || matches!(self.status, 204 | 304) {
            return Framing::None;
        }
        self.told.unwrap_or(Framing::UntilClose)
    }

    /// The values of all fields of one kind, in order.
    pub fn values<'a>(&'a self, bytes: &'a [u8], kind: Kind) -> impl Iterator<Item = &'a [u8]> {
        self.kinds.values(&self.fields, bytes, kind)
    }

    /// How long the upstream keeps an idle connection, where it says so: `Keep-Alive: timeout=SECONDS`
    /// (RFC 2068 section 19.7.1.1; Apache and Node.js send it).
    pub fn keep_alive_timeout(&self, bytes: &[u8]) -> Option<Duration> {
        let parameters = self.values(bytes, Kind::KeepAlive).flat_map(list);
        let mut seconds =
            parameters.filter_map(|p| std::str::from_utf8(p.strip_prefix(b"timeout=")?).ok()?.parse().ok());
        seconds.next().map(|s: u32| Duration::from_secs(s.into()))
    }

    /// Whether a 101 switches to WebSocket.
    pub fn switches_to_websocket(&self, bytes: &[u8]) -> bool {
        let mut upgrades = self.values(bytes, Kind::Upgrade);
        upgrades.next().is_some_and(|v| v.eq_ignore_ascii_case(b"websocket"))
            && upgrades.next().is_none()
            && self.values(bytes, Kind::Connection).flat_map(list).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
    }

    /// Whether the upstream keeps the connection.
    pub fn keeps_alive(&self, bytes: &[u8]) -> bool {
        persistent(self.version, self.values(bytes, Kind::Connection))
    }
}

#[cfg(test)]
mod tests;
