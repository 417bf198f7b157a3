//! Heads of callers that speak HTTP/2 as HTTP/1.1 heads, and answers back (RFC 9113 section 8.3), so that one strict grammar and
//! one set of rules hold for every version: whatever a head came as, it is judged and rewritten as HTTP/1.1 bytes. The same
//! towards upstreams is [`super::h2`].
//!
//! Nothing is trusted here: what is written is parsed again by [`super::RequestHead`], which refuses whatever would read as two
//! fields or two lengths.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request};

use super::{ResponseHead, fields, head};

/// What stands in for the upgrade of an HTTP/1.1 WebSocket in the extended CONNECT of RFC 8441.
const WEBSOCKET: &[u8] = b"connection: upgrade\r\nupgrade: websocket\r\n";

/// Why a head of one version cannot be told in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TranslateError {
    /// The head that was written for it does not parse.
    #[error(transparent)]
    Head(#[from] head::HeadError),
    /// A field that HTTP/2 has no place for.
    #[error("a header field cannot be sent over HTTP/2")]
    Field,
    /// An extended CONNECT that tells a length: what follows it is no body.
    #[error("a request for a WebSocket must not have Content-Length")]
    Length,
    /// `:authority` and `Host` say different things.
    #[error(":authority and Host name different servers")]
    Authority,
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends an HTTP/2 request's head as HTTP/1.1. A body of untold length becomes a chunked one; `key` is the
/// `Sec-WebSocket-Key` of a request that asks for a WebSocket (RFC 8441), whose own method is CONNECT.
pub fn request_to_h1(
    out: &mut Vec<u8>,
    parts: &request::Parts,
    has_body: bool,
    websocket_key: Option<&str>,
) -> Result<(), TranslateError> {
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let method = if websocket_key.is_some() { "GET" } else { parts.method.as_str() };
    let target = match parts.uri.path_and_query() {
        Some(target) if parts.method != Method::CONNECT || websocket_key.is_some() => target.as_str(),
        _ => authority.unwrap_or_default(),
    };
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let hosts = parts.headers.get_all(header::HOST);
    if let Some(authority) = authority {
        if hosts.iter().any(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes())) {
            return Err(TranslateError::Authority);
        }
        line(out, b"host", authority.as_bytes());
    } else {
        hosts.iter().for_each(|host| line(out, b"host", host.as_bytes()));
    }
    if let Some(key) = websocket_key {
        if parts.headers.contains_key(header::CONTENT_LENGTH) {
            return Err(TranslateError::Length);
        }
        out.extend_from_slice(WEBSOCKET);
        line(out, b"sec-websocket-key", key.as_bytes());
    }
    let mut cookies: Vec<&[u8]> = Vec::new();
    for (name, value) in &parts.headers {
        match *name {
            header::HOST => {}
            // Ours stands for it: HTTP/2 has none.
            header::SEC_WEBSOCKET_KEY if websocket_key.is_some() => {}
            // Cut into crumbs for the sake of compression (RFC 9113 section 8.2.3).
            header::COOKIE => cookies.push(value.as_bytes()),
            _ => line(out, name.as_str().as_bytes(), value.as_bytes()),
        }
    }
    if !cookies.is_empty() {
        line(out, b"cookie", &cookies.join(&b"; "[..]));
    }
    if has_body && websocket_key.is_none() && !parts.headers.contains_key(header::CONTENT_LENGTH) {
        line(out, b"transfer-encoding", b"chunked");
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends trailers as the lines of a trailer section, with its empty line.
pub fn trailers_to_h1(out: &mut Vec<u8>, trailers: &HeaderMap) {
    for (name, value) in trailers {
        line(out, name.as_str().as_bytes(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn field(headers: &mut HeaderMap, name: &[u8], value: &[u8]) -> Result<(), TranslateError> {
    let name = HeaderName::from_bytes(name).map_err(|_| TranslateError::Field)?;
    let value = HeaderValue::from_bytes(value).map_err(|_| TranslateError::Field)?;
    headers.append(name, value);
    Ok(())
}

/// A head that was written for a caller, as an HTTP/2 response.
pub fn response_to_h2(bytes: &[u8]) -> Result<Response<()>, TranslateError> {
    let head = ResponseHead::parse(bytes, Vec::new())?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).map_err(|_| TranslateError::Field)?;
    let headers = response.headers_mut();
    headers.reserve(head.fields.len());
    for of in head.fields.iter().filter(|of| !of.kind.is_of_h1()) {
        field(headers, of.name(bytes), of.value(bytes))?;
    }
    Ok(response)
}

/// Lines of a trailer section that were judged already, each with its CRLF, as HTTP/2 trailers.
pub fn trailers_to_h2(lines: &[u8]) -> Result<HeaderMap, TranslateError> {
    let section = [lines, b"\r\n"].concat();
    let mut map = HeaderMap::new();
    for of in fields::trailers(&section, true)? {
        field(&mut map, of.name(&section), of.value(&section))?;
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use http::{Request, Uri};

    use super::{super::RequestHead, *};

    fn h1(request: Request<()>, has_body: bool, key: Option<&str>) -> Result<String, TranslateError> {
        let mut out = Vec::new();
        request_to_h1(&mut out, &request.into_parts().0, has_body, key)?;
        RequestHead::parse(&out, Vec::new())?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn request(uri: &str) -> request::Builder {
        Request::builder().uri(uri).version(http::Version::HTTP_2)
    }

    #[test]
    fn a_request_reads_the_same_in_both_versions() {
        let head = h1(request("http://a.example:80/b//c%2f?d=[1]&e").header("x-y", "z").body(()).unwrap(), false, None);
        assert_eq!(head.unwrap(), "GET /b//c%2f?d=[1]&e HTTP/1.1\r\nhost: a.example:80\r\nx-y: z\r\n\r\n");
    }

    #[test]
    fn a_body_of_untold_length_is_a_chunked_one() {
        let put = || request("http://a/").method("PUT");
        assert!(h1(put().body(()).unwrap(), true, None).unwrap().contains("transfer-encoding: chunked\r\n"));
        let told = h1(put().header("content-length", "3").body(()).unwrap(), true, None).unwrap();
        assert!(!told.contains("chunked"), "{told}");
        assert!(!h1(put().body(()).unwrap(), false, None).unwrap().contains("chunked"));
    }

    #[test]
    fn cookie_crumbs_become_one_cookie() {
        let cut = request("http://a/").header("cookie", "a=1").header("x", "y").header("cookie", "b=2");
        assert!(h1(cut.body(()).unwrap(), false, None).unwrap().contains("cookie: a=1; b=2\r\n"));
    }

    #[test]
    fn a_host_beside_the_authority_must_say_the_same() {
        let twice = |host: &str| h1(request("http://a/").header("host", host).body(()).unwrap(), false, None);
        assert_eq!(twice("A").unwrap(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(twice("b"), Err(TranslateError::Authority));
    }

    #[test]
    fn an_extended_connect_becomes_an_upgrade() {
        let connect = request("https://a/chat?x").method("CONNECT").header("sec-websocket-version", "13");
        let mut out = Vec::new();
        request_to_h1(&mut out, &connect.body(()).unwrap().into_parts().0, true, Some("key")).unwrap();
        let head = RequestHead::parse(&out, Vec::new()).unwrap();
        assert!(head.asks_for_websocket(&out));
        assert_eq!(head.target(&out), b"/chat?x");
    }

    #[test]
    fn an_ordinary_connect_stays_one_and_can_be_refused_as_such() {
        let mut connect = request("a:443").method("CONNECT").body(()).unwrap();
        *connect.uri_mut() = Uri::builder().authority("a:443").build().unwrap();
        assert!(h1(connect, false, None).unwrap().starts_with("CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n"));
    }

    #[test]
    fn an_answer_loses_what_http_2_has_no_place_for() {
        let back =
            response_to_h2(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: 1\r\nConnection: close\r\n\r\n");
        let back = back.unwrap();
        assert_eq!((back.status().as_u16(), back.headers().len()), (200, 1));
    }

    #[test]
    fn trailers_read_the_same_in_both_versions() {
        let lines = b"grpc-status: 0\r\nmy_key: v\r\n";
        let mut back = Vec::new();
        trailers_to_h1(&mut back, &trailers_to_h2(lines).unwrap());
        assert_eq!(back, [&lines[..], b"\r\n"].concat());
        assert!(trailers_to_h2(b"my key: v\r\n").is_err());
    }
}
