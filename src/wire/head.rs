//! Request and response heads (RFC 9112 sections 2 to 6).

use std::time::Duration;

use memchr::memchr;

use super::{
    Framing, Span,
    field::{Field, Kind, is_token, is_value, is_visible, list},
};

/// How many fields a head may have.
pub const MAX_FIELDS: usize = 128;

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
    #[error("only HTTP/1.1 and HTTP/1.0 are spoken here")]
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
    while let Some(lf) = memchr(b'\n', &bytes[at..]) {
        let next = at + lf + 1;
        match bytes.get(next..) {
            Some([b'\n', ..]) => return Some(next + 1),
            Some([b'\r', b'\n', ..]) => return Some(next + 2),
            _ => at = next,
        }
    }
    None
}

/// Method, target and version of a request whose head is not read any further, where its first line is whole and good.
pub fn request_line(bytes: &[u8]) -> Option<(&str, &[u8], Version)> {
    let (line, _) = line(bytes, 0).ok()?;
    let (method, target, version) = request_line_parts(bytes, line).ok()?;
    Some((std::str::from_utf8(method.of(bytes)).ok()?, target.of(bytes), version))
}

/// The fields of a head, and what their framing says.
#[derive(Debug, Default)]
struct Fields {
    list: Vec<Field>,
    hosts: u8,
    host: Option<Span>,
    lengths: u8,
    length: Option<Span>,
    encodings: u8,
    encoding: Option<Span>,
    expects: u8,
    expect: Option<Span>,
}

/// One line of `bytes` from `at`: its span without CRLF, and where the next one starts.
fn line(bytes: &[u8], at: usize) -> Result<(Span, usize), HeadError> {
    let lf = at + memchr(b'\n', &bytes[at..]).ok_or(HeadError::LineEnd)?;
    if lf == at || bytes[lf - 1] != b'\r' {
        return Err(HeadError::LineEnd);
    }
    Ok((Span::new(at, lf - 1), lf + 1))
}

impl Fields {
    /// Parses field lines from `at` up to and including the empty line; `reused` saves an allocation.
    fn parse(bytes: &[u8], mut at: usize, reused: Vec<Field>, underscores: bool) -> Result<Self, HeadError> {
        let mut fields = Self { list: reused, ..Self::default() };
        fields.list.clear();
        loop {
            let (span, next) = line(bytes, at)?;
            if span.start == span.end {
                return Ok(fields);
            }
            if fields.list.len() == MAX_FIELDS {
                return Err(HeadError::TooManyFields);
            }
            let field = field(bytes, at, span, underscores)?;
            fields.note(field);
            fields.list.push(field);
            at = next;
        }
    }

    fn note(&mut self, field: Field) {
        match field.kind {
            Kind::Host => (self.hosts, self.host) = (self.hosts.saturating_add(1), Some(field.value)),
            Kind::ContentLength => (self.lengths, self.length) = (self.lengths.saturating_add(1), Some(field.value)),
            Kind::TransferEncoding => {
                (self.encodings, self.encoding) = (self.encodings.saturating_add(1), Some(field.value));
            }
            Kind::Expect => (self.expects, self.expect) = (self.expects.saturating_add(1), Some(field.value)),
            _ => {}
        }
    }

    /// The framing that the fields tell, `None` where they tell none (RFC 9112 section 6.3).
    fn framing(&self, bytes: &[u8], version: Version) -> Result<Option<Framing>, HeadError> {
        match (self.encodings, self.lengths) {
            (0, 0) => Ok(None),
            (0, 1) => Ok(Some(Framing::Length(content_length(self.length.unwrap_or_default().of(bytes))?))),
            (0, _) => Err(HeadError::Length),
            (1, 0) => {
                let value = self.encoding.unwrap_or_default().of(bytes);
                if version == Version::H10 {
                    return Err(HeadError::Encoding);
                }
                if value.eq_ignore_ascii_case(b"chunked") {
                    return Ok(Some(Framing::Chunked));
                }
                let chunked = list(value).filter(|coding| coding.eq_ignore_ascii_case(b"chunked")).count();
                let legal = list(value).all(|coding| is_token(coding.split(|&b| b == b';').next().unwrap_or_default()));
                Err(if legal && chunked < 2 && list(value).next().is_some() {
                    HeadError::UnknownEncoding
                } else {
                    HeadError::Encoding
                })
            }
            (_, 0) => Err(HeadError::Encoding),
            _ => Err(HeadError::LengthAndEncoding),
        }
    }
}

fn field(bytes: &[u8], at: usize, line: Span, underscores: bool) -> Result<Field, HeadError> {
    let text = line.of(bytes);
    if text[0] == b' ' || text[0] == b'\t' {
        return Err(HeadError::Folded);
    }
    let colon = memchr(b':', text).ok_or(HeadError::FieldName)?;
    let (name, rest) = (&text[..colon], &text[colon + 1..]);
    if !is_token(name) {
        return Err(HeadError::FieldName);
    }
    if !underscores && memchr(b'_', name).is_some() {
        return Err(HeadError::Underscore);
    }
    if !is_value(rest) {
        // A CR inside the line is a line end to some readers; say so.
        return Err(if memchr(b'\r', rest).is_some() { HeadError::LineEnd } else { HeadError::FieldValue });
    }
    let value = rest.trim_ascii();
    let start = at + colon + 1 + (rest.len() - rest.trim_ascii_start().len());
    Ok(Field { kind: Kind::of(name), name: Span::new(at, at + colon), value: Span::new(start, start + value.len()) })
}

/// A `Content-Length` value: digits only, no sign, no list, no overflow.
fn content_length(value: &[u8]) -> Result<u64, HeadError> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::Length);
    }
    Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
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
}

impl RequestHead {
    /// Parses a whole head, as long as [`head_end`] said. `reused` is an old list of fields whose memory
    /// is used again.
    pub fn parse(bytes: &[u8], reused: Vec<Field>) -> Result<Self, HeadError> {
        let (request_line, next) = line(bytes, 0)?;
        let (method, target, version) = request_line_parts(bytes, request_line)?;
        let fields = Fields::parse(bytes, next, reused, false)?;
        let host = match fields.hosts {
            0 => return Err(HeadError::NoHost),
            1 => fields.host.unwrap_or_default(),
            _ => return Err(HeadError::ManyHosts),
        };
        let framing = fields.framing(bytes, version)?.unwrap_or(Framing::None);
        let expects_continue = match fields.expect.map(|span| span.of(bytes)) {
            None => false,
            Some(_) if fields.expects > 1 => return Err(HeadError::Expectation),
            Some(value) if value.eq_ignore_ascii_case(b"100-continue") => {
                // An HTTP/1.0 caller does not know interim responses (RFC 9110 section 10.1.1).
                version == Version::H11 && !framing.is_empty()
            }
            Some(_) => return Err(HeadError::Expectation),
        };
        Ok(Self { method, target, host, version, framing, expects_continue, fields: fields.list })
    }

    /// The method.
    pub fn method<'a>(&self, bytes: &'a [u8]) -> &'a str {
        std::str::from_utf8(self.method.of(bytes)).unwrap_or_default()
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
        self.fields.iter().filter(move |f| f.kind == kind).map(|f| f.value(bytes))
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
    for option in connection.flat_map(list) {
        if option.eq_ignore_ascii_case(b"close") {
            return false;
        }
        keep |= option.eq_ignore_ascii_case(b"keep-alive");
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
    if !is_visible(target) {
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
}

impl ResponseHead {
    /// Parses a whole head, as long as [`head_end`] said.
    pub fn parse(bytes: &[u8], reused: Vec<Field>) -> Result<Self, HeadError> {
        let (status_line, next) = line(bytes, 0)?;
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
        let fields = Fields::parse(bytes, next, reused, true)?;
        let told = fields.framing(bytes, version)?;
        Ok(Self { status, reason: Span::new(end - reason.len(), end), version, told, fields: fields.list })
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
        self.fields.iter().filter(move |f| f.kind == kind).map(|f| f.value(bytes))
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

/// Parses a trailer section: field lines up to and including the empty line.
pub fn trailers(bytes: &[u8]) -> Result<Vec<Field>, HeadError> {
    Fields::parse(bytes, 0, Vec::new(), false).map(|fields| fields.list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RequestHead, HeadError> {
        let bytes = text.as_bytes();
        assert_eq!(head_end(bytes, 0), Some(bytes.len()), "{text:?} is one whole head");
        RequestHead::parse(bytes, Vec::new())
    }

    fn refusal(text: &str) -> HeadError {
        parse(text).expect_err(text)
    }

    fn with(fields: &str) -> String {
        format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    }

    #[test]
    fn a_plain_request_is_read() {
        let text = "GET /a?b HTTP/1.1\r\nHost: localhost:8080\r\nAccept:  */* \r\nX-Empty:\r\n\r\n";
        let head = parse(text).unwrap();
        let bytes = text.as_bytes();
        assert_eq!((head.method(bytes), head.target(bytes)), ("GET", &b"/a?b"[..]));
        assert_eq!(head.host(bytes), b"localhost:8080");
        let fields: Vec<_> = head.fields.iter().map(|f| (f.name(bytes), f.value(bytes))).collect();
        assert_eq!(fields[1], (&b"Accept"[..], &b"*/*"[..]));
        assert_eq!(fields[2], (&b"X-Empty"[..], &b""[..]));
        assert_eq!(head.framing, Framing::None);
        assert!(head.keeps_alive(bytes));
    }

    #[test]
    fn the_end_of_a_head_is_found_wherever_it_was_split() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 0..text.len() {
            assert_eq!(head_end(&text[..cut], 0), None);
            assert_eq!(head_end(text, cut), Some(text.len()), "cut at {cut}");
        }
    }

    #[test]
    fn lines_must_end_in_crlf() {
        assert_eq!(refusal("GET / HTTP/1.1\nHost: a\n\n"), HeadError::LineEnd);
        assert_eq!(refusal("GET / HTTP/1.1\r\nHost: a\n\r\n"), HeadError::LineEnd);
        assert_eq!(refusal(&with("X: a\rb\r\n")), HeadError::LineEnd);
        assert_eq!(refusal("GET / HTTP/1.1\r\nHost: a\r\n\n"), HeadError::LineEnd);
    }

    #[test]
    fn a_request_line_has_one_reading_only() {
        for line in
            ["GET  / HTTP/1.1", "GET /a b HTTP/1.1", "GET / HTTP/1.1 ", " GET / HTTP/1.1", "GET /", "GET / http/1.1"]
        {
            let error = refusal(&format!("{line}\r\nHost: a\r\n\r\n"));
            assert!(matches!(error, HeadError::RequestLine | HeadError::Method), "{line}: {error:?}");
        }
        assert_eq!(refusal("get / HTTP/1.1\r\nHost: a\r\n\r\n"), HeadError::Method);
        assert_eq!(refusal("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), HeadError::Version);
        assert_eq!(refusal("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n"), HeadError::Target);
        assert_eq!(refusal("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"), HeadError::Target);
    }

    #[test]
    fn a_header_line_has_one_reading_only() {
        assert_eq!(refusal(&with("X : a\r\n")), HeadError::FieldName);
        assert_eq!(refusal(&with("no colon\r\n")), HeadError::FieldName);
        assert_eq!(refusal(&with(": a\r\n")), HeadError::FieldName);
        assert_eq!(refusal(&with("X: a\r\n folded\r\n")), HeadError::Folded);
        assert_eq!(refusal(&with("X: a\0b\r\n")), HeadError::FieldValue);
        assert_eq!(refusal(&with("Content_Length: 3\r\n")), HeadError::Underscore);
        assert_eq!(refusal(&with(&"X: a\r\n".repeat(MAX_FIELDS))), HeadError::TooManyFields);
    }

    #[test]
    fn there_is_exactly_one_host() {
        assert_eq!(refusal("GET / HTTP/1.1\r\nX: a\r\n\r\n"), HeadError::NoHost);
        assert_eq!(refusal("GET / HTTP/1.1\r\n\r\n"), HeadError::NoHost);
        assert_eq!(refusal(&with("host: a\r\n")), HeadError::ManyHosts);
    }

    #[test]
    fn a_length_is_one_plain_number() {
        assert_eq!(parse(&with("Content-Length: 42\r\n")).unwrap().framing, Framing::Length(42));
        for bad in ["+1", "-1", "0x1", "1, 1", "1 1", "", "99999999999999999999", "18446744073709551616", "1;", "\"1\""]
        {
            assert_eq!(refusal(&with(&format!("Content-Length: {bad}\r\n"))), HeadError::Length, "{bad}");
        }
        assert_eq!(refusal(&with("Content-Length: 1\r\nContent-Length: 1\r\n")), HeadError::Length);
    }

    #[test]
    fn length_and_encoding_never_stand_together_in_any_order() {
        for fields in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
        ] {
            assert_eq!(refusal(&with(fields)), HeadError::LengthAndEncoding);
        }
    }

    #[test]
    fn the_only_transfer_encoding_is_chunked() {
        assert_eq!(parse(&with("Transfer-Encoding: Chunked\r\n")).unwrap().framing, Framing::Chunked);
        for bad in ["chunked, chunked", "", "\"chunked\"", "chunked;;, x y", ","] {
            let error = refusal(&with(&format!("Transfer-Encoding: {bad}\r\n")));
            assert!(matches!(error, HeadError::Encoding), "{bad}: {error:?}");
        }
        for unknown in ["gzip", "gzip, chunked", "identity", "xchunked"] {
            assert_eq!(
                refusal(&with(&format!("Transfer-Encoding: {unknown}\r\n"))),
                HeadError::UnknownEncoding,
                "{unknown}"
            );
        }
        assert_eq!(refusal(&with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")), HeadError::Encoding);
        assert_eq!(refusal("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), HeadError::Encoding);
    }

    #[test]
    fn only_one_expectation_is_understood() {
        assert!(parse(&with("Expect: 100-Continue\r\nContent-Length: 1\r\n")).unwrap().expects_continue);
        assert!(!parse(&with("Expect: 100-continue\r\n")).unwrap().expects_continue, "there is no body to wait for");
        assert_eq!(refusal(&with("Expect: a-miracle\r\n")), HeadError::Expectation);
        assert_eq!(refusal(&with("Expect: a-miracle\r\nExpect: 100-continue\r\n")), HeadError::Expectation);
    }

    #[test]
    fn persistence_follows_version_and_connection() {
        let keep = |text: &str| parse(text).unwrap().keeps_alive(text.as_bytes());
        assert!(!keep("GET / HTTP/1.0\r\nHost: a\r\n\r\n"));
        assert!(keep("GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n"));
        assert!(!keep(&with("Connection: x, CLOSE\r\n")));
        assert!(!keep(&with("Connection: keep-alive\r\nConnection: close\r\n")));
    }

    #[test]
    fn a_response_is_read() {
        let text = b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nx_y: 1\r\n\r\n";
        let head = ResponseHead::parse(text, Vec::new()).unwrap();
        assert_eq!((head.status, head.reason(text)), (404, &b"Not Found"[..]));
        assert_eq!(head.framing("GET"), Framing::Length(3));
        assert_eq!(head.framing("HEAD"), Framing::None);
        let bare = b"HTTP/1.1 200\r\n\r\n";
        assert_eq!(ResponseHead::parse(bare, Vec::new()).unwrap().framing("GET"), Framing::UntilClose);
    }

    #[test]
    fn an_upstream_may_say_how_long_it_keeps_a_connection() {
        let timeout = |value: &str| {
            let text = format!("HTTP/1.1 200 OK\r\nKeep-Alive: {value}\r\n\r\n");
            ResponseHead::parse(text.as_bytes(), Vec::new()).unwrap().keep_alive_timeout(text.as_bytes())
        };
        assert_eq!(timeout("timeout=5, max=100"), Some(Duration::from_secs(5)));
        assert_eq!(timeout("max=100, timeout=75"), Some(Duration::from_secs(75)));
        assert_eq!(timeout("timeout=-1"), None);
        assert_eq!(timeout("max=3"), None);
    }

    #[test]
    fn an_ambiguous_response_is_refused() {
        let error = |text: &str| ResponseHead::parse(text.as_bytes(), Vec::new()).expect_err(text);
        let both = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(error(both), HeadError::LengthAndEncoding);
        assert_eq!(error("HTTP/1.1 20 OK\r\n\r\n"), HeadError::StatusLine);
        assert_eq!(error("HTTP/1.1 2000 OK\r\n\r\n"), HeadError::StatusLine);
        assert_eq!(error("HTTP/2 200 OK\r\n\r\n"), HeadError::StatusLine);
        assert_eq!(error("ICY 200 OK\r\n\r\n"), HeadError::StatusLine);
    }
}
