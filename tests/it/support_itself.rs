//! The tests' own tools, tried on each other: a tool that sees nothing would pass every test.

use crate::support::{Client, ReadError, Upstream, noise};

fn answered_with(bytes: &'static [u8]) -> Result<crate::support::Response, ReadError> {
    let upstream = Upstream::start(move |connection| {
        connection.request();
        connection.send(bytes);
    });
    let mut client = Client::connect(upstream.address());
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    client.try_response(false)
}

#[test]
fn the_client_reads_every_framing() {
    let length = answered_with(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhisurplus").expect("whole");
    assert_eq!(length.body, b"hi");
    let close = answered_with(b"HTTP/1.1 200 OK\r\nA: 1\r\na: 2\r\n\r\nhi").expect("whole");
    assert_eq!((close.body.as_slice(), close.all("A").collect::<Vec<_>>()), (&b"hi"[..], vec!["1", "2"]));
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1;x\r\n!\r\n0\r\nT: end\r\n\r\n";
    let chunked = answered_with(chunked).expect("whole");
    assert_eq!(chunked.body, b"hi!");
    assert_eq!(chunked.trailers, [("T".to_owned(), "end".to_owned())]);
}

#[test]
fn the_client_never_takes_a_truncated_response_for_a_whole_one() {
    for (bytes, before) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi"[..], &b"hi"[..]),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", b"hi"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n", b"hi"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n5\r\nab", b"hiab"),
    ] {
        match answered_with(bytes) {
            Err(ReadError::Truncated(read)) => assert_eq!(read, before),
            other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes)),
        }
    }
    assert!(matches!(answered_with(b""), Err(ReadError::Closed)));
}

#[test]
fn the_client_refuses_two_framings() {
    for bytes in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n1",
        b"HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
    ] {
        assert!(matches!(answered_with(bytes), Err(ReadError::Malformed(_))), "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn the_upstream_keeps_exactly_what_it_was_sent() {
    let upstream = Upstream::always("HTTP/1.1 204 No Content\r\n\r\n");
    let body = noise(300_000);
    let mut client = Client::connect(upstream.address());
    client.send(format!("PUT /%2b?a HTTP/1.1\r\nX: 1\r\nx:2\r\nContent-Length: {}\r\n\r\n", body.len()));
    client.send(&body);
    assert_eq!(client.response().status, 204);
    client.send("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n!\r\n0\r\nT: t\r\n\r\n");
    assert_eq!(client.response().status, 204);
    drop(client);
    let requests = upstream.wait_for_requests(2);
    assert_eq!(requests[0].line(), "PUT /%2b?a HTTP/1.1");
    assert_eq!(requests[0].all("x").collect::<Vec<_>>(), ["1", "2"]);
    assert!(requests[0].body == body);
    assert_eq!(requests[1].body, b"1\r\n!\r\n0\r\nT: t\r\n\r\n");
    assert_eq!((requests[1].connection, upstream.connections()), (0, 1));
}

#[test]
fn the_token_endpoint_counts_its_tokens() {
    let tokens = Upstream::tokens(60);
    let mut client = Client::connect(tokens.address());
    let ask = "POST /token HTTP/1.1\r\nContent-Length: 2\r\n\r\na=";
    assert_eq!(client.exchange(ask).json()["access_token"], "not-a-token-1");
    assert_eq!(client.exchange(ask).json()["access_token"], "not-a-token-2");
}
