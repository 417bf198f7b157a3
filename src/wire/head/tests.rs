//! Heads, well-formed and not.

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
    for bad in ["+1", "-1", "0x1", "1, 1", "1 1", "", "99999999999999999999", "18446744073709551616", "1;", "\"1\""] {
        assert_eq!(refusal(&with(&format!("Content-Length: {bad}\r\n"))), HeadError::Length, "{bad}");
    }
    assert_eq!(refusal(&with("Content-Length: 1\r\nContent-Length: 1\r\n")), HeadError::Length);
}

#[test]
fn length_and_encoding_never_stand_together_in_any_order() {
    for fields in
        ["Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n"]
    {
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
fn a_length_that_is_told_twice_is_taken_from_an_answer_where_it_is_the_same() {
    let parse = |fields: &str| {
        let text = format!("HTTP/1.1 200 OK\r\nX: y\r\n{fields}Z: \r\n\r\n").into_bytes();
        let head = ResponseHead::parse(&text, Vec::new());
        head.map(|head| {
            let lengths: Vec<_> = head.values(&text, Kind::ContentLength).map(<[u8]>::to_vec).collect();
            assert_eq!((lengths, head.fields.len()), (vec![b"3".to_vec()], 3), "{fields}");
            head.framing("GET")
        })
    };
    for same in [
        "Content-Length: 3\r\nContent-Length: 3\r\n",
        "Content-Length: 3, 3\r\n",
        "content-length: 3 ,3\r\nContent-Length:\t3 \r\nContent-Length: 3\r\n",
    ] {
        assert_eq!(parse(same).unwrap(), Framing::Length(3), "{same}");
    }
    for other in [
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: 3\r\nContent-Length: 03\r\n",
        "Content-Length: 3,\r\n",
        "Content-Length: ,3\r\n",
        "Content-Length: \r\nContent-Length: \r\n",
        "Content-Length: 3 3\r\n",
        "Content-Length: +3, +3\r\n",
    ] {
        assert_eq!(parse(other).expect_err(other), HeadError::Length);
    }
    let encoded = "Content-Length: 3, 3\r\nTransfer-Encoding: chunked\r\n";
    assert_eq!(parse(encoded).expect_err(encoded), HeadError::LengthAndEncoding);
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

#[test]
fn connection_options_are_few() {
    let head = |n: usize| with(&format!("Connection: {}\r\n", vec!["x-y"; n].join(",")));
    assert!(parse(&head(64)).is_ok());
    assert_eq!(refusal(&head(65)), HeadError::TooManyOptions);
    assert_eq!(refusal(&with(&"Connection: a, b\r\n".repeat(40))), HeadError::TooManyOptions);
}
