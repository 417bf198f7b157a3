//! A raw HTTP/1.1 client: what is sent are the bytes of the test, what comes back is read strictly.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

use super::PATIENCE;

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// One response as it came over the wire.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    /// The fields in order, names and values as they came.
    pub(crate) headers: Vec<(String, String)>,
    /// The decoded body.
    pub(crate) body: Vec<u8>,
    /// Trailer fields of a chunked body.
    pub(crate) trailers: Vec<(String, String)>,
}

/// Why no whole response could be read.
#[derive(Debug)]
#[allow(dead_code)] // what is inside is read by people, where a test fails with it
pub(crate) enum ReadError {
    /// Closed before the first byte: an honest "no answer".
    Closed,
    /// Closed or reset in the middle; what was read of the body so far is inside.
    Truncated(Vec<u8>),
    /// Not HTTP/1.1.
    Malformed(String),
    /// Nothing came in time, or the socket failed.
    Io(io::Error),
}

impl Client {
    /// Connects.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect_timeout(&address, PATIENCE).expect("the proxy accepts a connection"))
    }

    /// Over a connection that is there already.
    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, buffer: Vec::new() }
    }

    /// Sends these bytes as they are.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the proxy reads");
    }

    /// The same, where the proxy may well have closed by then.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// The connection itself, to shut down a half of it, say.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads the response to a request other than HEAD; an interim response (1xx) is a response too.
    pub(crate) fn response(&mut self) -> Response {
        self.try_response(false).expect("a whole response")
    }

    /// Reads the response to a HEAD request.
    pub(crate) fn head_response(&mut self) -> Response {
        self.try_response(true).expect("a whole response head")
    }

    /// Sends a request and reads its response.
    pub(crate) fn exchange(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request);
        self.response()
    }

    /// Reads one response, or says why there is none.
    pub(crate) fn try_response(&mut self, head_only: bool) -> Result<Response, ReadError> {
        let head = self.until(b"\r\n\r\n")?;
        let mut response = parse_head(&head)?;
        if head_only || response.status < 200 || response.status == 204 || response.status == 304 {
            return Ok(response);
        }
        let lengths: Vec<&str> = response.all("content-length").collect();
        let codings: Vec<&str> = response.all("transfer-encoding").collect();
        match (lengths.as_slice(), codings.as_slice()) {
            ([], ["chunked"]) => self.chunked(&mut response)?,
            ([length], []) => {
                let length = length.parse().map_err(|_| malformed("Content-Length", length.as_bytes()))?;
                response.body = self.exactly(length)?;
            }
            ([], []) => self.rest_of_connection(&mut response)?,
            _ => return Err(malformed("framing", &head)),
        }
        Ok(response)
    }

    /// Waits for a whole answer and for the proxy to close after it.
    pub(crate) fn last_response(mut self) -> Response {
        let response = self.response();
        self.expect_close();
        response
    }

    /// Reads until `text` has come; what was read stays for the response.
    pub(crate) fn wait_for(&mut self, text: &[u8]) {
        while memchr::memmem::find(&self.buffer, text).is_none() {
            match self.fill() {
                Ok(read) if read > 0 => {}
                other => panic!("no {:?}: {other:?}", String::from_utf8_lossy(text)),
            }
        }
    }

    /// Sends these bytes on a thread of its own, as far as the proxy takes them.
    pub(crate) fn sending_in_the_background(self, bytes: Vec<u8>) -> Self {
        let mut stream = self.stream.try_clone().expect("a second handle");
        std::thread::spawn(move || stream.write_all(&bytes));
        self
    }

    /// Closes with a reset instead of an orderly end.
    pub(crate) fn reset(self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO));
    }

    /// Ends both directions, also for whoever still sends in the background.
    pub(crate) fn end(self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Says that nothing more will be sent.
    pub(crate) fn end_of_sending(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Waits for the proxy to close; panics if it says anything more first.
    pub(crate) fn expect_close(&mut self) {
        assert!(self.buffer.is_empty(), "surplus bytes: {:?}", String::from_utf8_lossy(&self.buffer));
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => {}
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {}
            other => panic!("the connection should be closed, but: {other:?} {byte:?}"),
        }
    }

    fn chunked(&mut self, response: &mut Response) -> Result<(), ReadError> {
        loop {
            let line = self.until(b"\r\n").map_err(|e| e.within(&response.body))?;
            let size = line[..line.len() - 2].split(|&b| b == b';').next().unwrap_or_default();
            let size = std::str::from_utf8(size).ok().and_then(|s| usize::from_str_radix(s, 16).ok());
            let size = size.ok_or_else(|| malformed("chunk size", &line))?;
            if size == 0 {
                break;
            }
            let chunk = self.exactly(size).map_err(|e| e.within(&response.body))?;
            response.body.extend_from_slice(&chunk);
            if self.exactly(2).map_err(|e| e.within(&response.body))? != b"\r\n" {
                return Err(malformed("end of chunk", &line));
            }
        }
        loop {
            let line = self.until(b"\r\n").map_err(|e| e.within(&response.body))?;
            if line == b"\r\n" {
                return Ok(());
            }
            response.trailers.push(parse_field(&line[..line.len() - 2])?);
        }
    }

    fn rest_of_connection(&mut self, response: &mut Response) -> Result<(), ReadError> {
        while self.fill()? > 0 {}
        response.body = std::mem::take(&mut self.buffer);
        Ok(())
    }

    /// Everything up to and including `end`.
    fn until(&mut self, end: &[u8]) -> Result<Vec<u8>, ReadError> {
        let mut searched = 0;
        loop {
            let found = memchr::memmem::find(&self.buffer[searched..], end);
            if let Some(at) = found {
                return Ok(self.buffer.drain(..searched + at + end.len()).collect());
            }
            searched = self.buffer.len().saturating_sub(end.len() - 1);
            if self.fill()? == 0 {
                return Err(self.ended());
            }
        }
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>, ReadError> {
        while self.buffer.len() < length {
            if self.fill()? == 0 {
                return Err(ReadError::Truncated(std::mem::take(&mut self.buffer)));
            }
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    fn ended(&mut self) -> ReadError {
        if self.buffer.is_empty() { ReadError::Closed } else { ReadError::Truncated(std::mem::take(&mut self.buffer)) }
    }

    fn fill(&mut self) -> Result<usize, ReadError> {
        let old = self.buffer.len();
        self.buffer.resize(old + 64 * 1024, 0);
        let read = self.stream.read(&mut self.buffer[old..]);
        self.buffer.truncate(old + *read.as_ref().unwrap_or(&0));
        match read {
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Err(self.ended()),
            Err(e) => Err(ReadError::Io(e)),
            Ok(read) => Ok(read),
        }
    }
}

impl ReadError {
    /// The same, inside a body of which `before` was read already.
    fn within(self, before: &[u8]) -> Self {
        match self {
            Self::Closed => Self::Truncated(before.to_vec()),
            Self::Truncated(rest) => Self::Truncated([before, &rest].concat()),
            other => other,
        }
    }
}

impl Response {
    /// The only value of a field; panics if there are several.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let first = values.next();
        assert!(values.next().is_none(), "several {name} fields: {:?}", self.headers);
        first.map(|(_, value)| value.as_str())
    }

    /// All values of a field, in order.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.text()))
    }

    /// Panics unless this is cupbearer's own error with that status and code, and all that such an error
    /// has to say (RFC 9457, RFC 9209) is there and nothing else is.
    pub(crate) fn expect_problem(&self, status: u16, code: &str) -> serde_json::Value {
        self.expect_problem_head(status, code);
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["type"], format!("urn:cupbearer:error:{code}"), "{problem}");
        assert_eq!(problem["blame"], blame(code), "{problem}");
        for member in ["title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| text.len() > 5), "no {member}: {problem}");
        }
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"), "{problem}");
        let retry_after = self.header("retry-after").map(|s| s.parse::<u64>().expect("whole seconds"));
        assert_eq!(problem["retry_after"].as_u64(), retry_after, "{problem}");
        let known =
            ["type", "title", "status", "detail", "blame", "code", "route", "credential", "request_id", "retry_after"];
        for member in problem.as_object().expect("an object").keys() {
            assert!(known.contains(&member.as_str()), "{member} is no member of the contract: {problem}");
        }
        if matches!(code, "caller_unknown" | "origin_refused") {
            assert_eq!((&problem["route"], problem.get("credential")), (&serde_json::Value::Null, None), "{problem}");
        }
        if matches!(code, "upstream_protocol" | "upstream_timeout") {
            let says = |part| problem["detail"].as_str().is_some_and(|detail| detail.contains(part));
            let what = ["may have acted on the request", "was not sent", "before it acted on it"];
            assert!(what.into_iter().any(says), "nothing says whether it may have been executed: {problem}");
        }
        for secret in ["not-a-token", "not-a-secret"] {
            assert!(!self.text().contains(secret), "{problem}");
        }
        problem
    }

    /// The same for the answer to a HEAD request.
    pub(crate) fn expect_problem_head(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{:?} {}", self.headers, self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        let proxy_status = self.header("proxy-status").expect("Proxy-Status");
        assert!(proxy_status.starts_with("cupbearer; error="), "{proxy_status}");
        assert!(proxy_status.ends_with(&format!("; details=\"{code}\"")), "{proxy_status}");
        assert_eq!(status == 401, self.header("www-authenticate").is_some(), "{:?}", self.headers);
    }
}

/// The contract's table of errors, and what was added to it.
fn blame(code: &str) -> &'static str {
    match code {
        "no_route" | "bad_path" | "bad_request" | "misdirected" | "origin_refused" | "caller_unknown"
        | "caller_denied" | "policy_denied" | "body_too_large" | "rate_limited" | "uri_too_long" | "head_too_large"
        | "request_timeout" | "method_refused" | "unknown_coding" | "bad_version" | "bad_expectation" => "caller",
        "overloaded" => "proxy",
        "idp_refused" | "idp_unavailable" | "idp_timeout" => "idp",
        "budget_exhausted" | "secret_unavailable" => "config",
        "upstream_connect" | "upstream_tls" | "upstream_protocol" | "upstream_timeout" => "upstream",
        other => panic!("unknown code {other}"),
    }
}

fn malformed(what: &str, bytes: &[u8]) -> ReadError {
    ReadError::Malformed(format!("{what}: {:?}", String::from_utf8_lossy(bytes)))
}

/// Status line and fields, with the empty line at the end.
fn parse_head(head: &[u8]) -> Result<Response, ReadError> {
    let mut lines = head[..head.len() - 4].split(|&b| b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l));
    let status_line = lines.next().unwrap_or_default();
    let status = match status_line {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', b' ', a, b, c, b' ', ..] => [*a, *b, *c],
        _ => return Err(malformed("status line", status_line)),
    };
    let status = std::str::from_utf8(&status).ok().and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| malformed("status", status_line))?;
    let headers = lines.map(parse_field).collect::<Result<_, _>>()?;
    Ok(Response { status, headers, body: Vec::new(), trailers: Vec::new() })
}

fn parse_field(line: &[u8]) -> Result<(String, String), ReadError> {
    let colon = memchr::memchr(b':', line).ok_or_else(|| malformed("field", line))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || name.iter().any(u8::is_ascii_whitespace) {
        return Err(malformed("field name", line));
    }
    let value = String::from_utf8_lossy(value.trim_ascii()).into_owned();
    Ok((String::from_utf8_lossy(name).into_owned(), value))
}
