//! HTTP/2 heads as HTTP/1.1 heads and back (RFC 9113 section 8.3), so that one strict grammar and one set of rules
//! hold for every version: whatever a head came as, it is judged and rewritten as HTTP/1.1 bytes.
//!
//! Nothing is trusted here: what is written is parsed again by [`super::RequestHead`] or
//! [`super::ResponseHead`], which refuse whatever would read as two fields or two lengths.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header, request, response};

use super::{Kind, RequestHead, ResponseHead, fields, head};

/// What stands in for the upgrade of an HTTP/1.1 WebSocket in the extended CONNECT of RFC 8441.
const WEBSOCKET: &[u8] = b"connection: upgrade\r\nupgrade: websocket\r\n";

/// Why a head of one version cannot be told in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TranslateError {
    /// The head that was written for it does not parse.
    #[error(transparent)]
    Head(#[from] head::HeadError),
    /// A target with bytes that no `:path` may hold here.
    #[error("the request target holds characters that cannot be sent over HTTP/2")]
    Target,
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

/// Appends an HTTP/2 response's head as HTTP/1.1. `empty`: its end came with it, and the request was no HEAD. HTTP/2 has no
/// reason phrase; the usual one is written, for some clients take an answer without one for none.
pub fn response_to_h1(out: &mut Vec<u8>, parts: &response::Parts, empty: bool) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(parts.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(parts.status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in &parts.headers {
        line(out, name.as_str().as_bytes(), value.as_bytes());
    }
    let may_have_body = parts.status.as_u16() >= 200 && !matches!(parts.status.as_u16(), 204 | 304);
    if empty && may_have_body && !parts.headers.contains_key(header::CONTENT_LENGTH) {
        line(out, b"content-length", b"0");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends trailers as the lines of a trailer section, with its empty line.
pub fn trailers_to_h1(out: &mut Vec<u8>, trailers: &HeaderMap) {
    for (name, value) in trailers {
        line(out, name.as_str().as_bytes(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether HTTP/2 has no place for a field of HTTP/1.1 (RFC 9113 section 8.2.2).
const fn is_of_h1(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Connection
            | Kind::Http2Settings
            | Kind::KeepAlive
            | Kind::ProxyConnection
            | Kind::TransferEncoding
            | Kind::Upgrade
    )
}

fn field(headers: &mut HeaderMap, name: &[u8], value: &[u8], secret: bool) -> Result<(), TranslateError> {
    let name = HeaderName::from_bytes(name).map_err(|_| TranslateError::Field)?;
    let mut value = HeaderValue::from_bytes(value).map_err(|_| TranslateError::Field)?;
    // Never put into a table that later requests on the connection refer to (RFC 7541 section 7.1.3).
    value.set_sensitive(secret);
    headers.append(name, value);
    Ok(())
}

/// The head that [`crate::rules::headers`] wrote for an upstream, as an HTTP/2 request. Its last field holds
/// the token.
pub fn request_to_h2(bytes: &[u8], scheme: &str) -> Result<Request<()>, TranslateError> {
    let head = RequestHead::parse(bytes, Vec::new())?;
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(head.host(bytes))
        .path_and_query(head.target(bytes))
        .build()
        .map_err(|_| TranslateError::Target)?;
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method(bytes).as_bytes()).map_err(|_| TranslateError::Target)?;
    // What `http` reads differently, or cuts off, would be another request than the one that was judged.
    if uri.path_and_query().is_none_or(|target| target.as_str().as_bytes() != head.target(bytes)) {
        return Err(TranslateError::Target);
    }
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    let headers = request.headers_mut();
    headers.reserve(head.fields.len());
    let last = head.fields.len().saturating_sub(1);
    for (at, of) in head.fields.iter().enumerate() {
        if of.kind != Kind::Host && !is_of_h1(of.kind) {
            field(headers, of.name(bytes), of.value(bytes), at == last)?;
        }
    }
    Ok(request)
}

/// A head that was written for a caller, as an HTTP/2 response.
pub fn response_to_h2(bytes: &[u8]) -> Result<Response<()>, TranslateError> {
    let head = ResponseHead::parse(bytes, Vec::new())?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).map_err(|_| TranslateError::Field)?;
    let headers = response.headers_mut();
    headers.reserve(head.fields.len());
    for of in head.fields.iter().filter(|of| !is_of_h1(of.kind)) {
        field(headers, of.name(bytes), of.value(bytes), false)?;
    }
    Ok(response)
}

/// Lines of a trailer section that were judged already, each with its CRLF, as HTTP/2 trailers.
pub fn trailers_to_h2(lines: &[u8]) -> Result<HeaderMap, TranslateError> {
    let section = [lines, b"\r\n"].concat();
    let mut map = HeaderMap::new();
    for of in fields::trailers(&section, true)? {
        field(&mut map, of.name(&section), of.value(&section), false)?;
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let head =
            b"PUT /b//c%2f?d=[1]&e HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTE: trailers\r\nConnection: TE\r\n\
                     Authorization: Bearer not-a-token\r\n\r\n";
        let request = request_to_h2(head, "https").unwrap();
        assert_eq!(request.uri(), "https://a/b//c%2f?d=[1]&e");
        let names: Vec<_> = request.headers().iter().map(|(n, v)| (n.as_str(), v.is_sensitive())).collect();
        assert_eq!(names, [("content-length", false), ("te", false), ("authorization", true)]);
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
    fn a_response_keeps_its_fields_and_tells_an_end_that_came_at_once() {
        let response = Response::builder().status(404).header("x", "1").header("x", "2").body(()).unwrap();
        let mut out = Vec::new();
        response_to_h1(&mut out, &response.into_parts().0, true);
        assert_eq!(out, b"HTTP/1.1 404 Not Found\r\nx: 1\r\nx: 2\r\ncontent-length: 0\r\n\r\n");
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

    #[test]
    fn a_target_that_http_2_would_change_is_refused() {
        for target in ["/a#b", "/a`b"] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(request_to_h2(head.as_bytes(), "https").err(), Some(TranslateError::Target), "{target}");
        }
    }
}
