//! WebSocket through the proxy: a switch that was asked for and granted, then bytes both ways.

use std::{
    io::{Read, Write},
    thread,
    time::{Duration, Instant},
};

use crate::support::{Client, Cupbearer, Upstream, eventually, noise};

const ASKS: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat\r\n";
const GRANTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n";

/// Grants every switch, says hello at once, and sends back what it gets, until the caller ends.
fn echo() -> Upstream {
    Upstream::start(|connection| {
        let Some(_) = connection.request() else { return };
        connection.send(GRANTED.to_owned() + "hello");
        let mut stream = connection.stream();
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..n]).is_err() {
                return;
            }
        }
        let _ = stream.write_all(b"goodbye");
    })
}

fn switched(proxy: &Cupbearer, more: &str) -> Client {
    let mut client = proxy.connect();
    let head = client.exchange(format!("GET /api/chat?x HTTP/1.1\r\nHost: {}\r\n{ASKS}{more}\r\n", proxy.address()));
    assert_eq!(head.status, 101, "{}", head.text());
    assert_eq!((head.header("upgrade"), head.header("connection")), (Some("websocket"), Some("Upgrade")));
    assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(head.header("sec-websocket-protocol"), Some("chat"));
    client
}

#[test]
fn a_websocket_is_switched_to_and_bytes_go_both_ways_until_both_have_ended() {
    let (api, tokens) = (echo(), Upstream::tokens(3600));
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "");
    let mut client = switched(&proxy, "");
    let request = &api.requests()[0];
    assert_eq!((request.header("upgrade"), request.header("connection")), (Some("websocket"), Some("Upgrade")));
    assert_eq!(request.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert_eq!(request.header("authorization"), Some("Bearer not-a-token-1"));
    assert_eq!(request.target(), "/chat?x");
    client.wait_for(b"hello");
    let sent = noise(300_000);
    let mut writing = client.stream().try_clone().expect("a second handle");
    let mut reading = client.stream().try_clone().expect("a second handle");
    let expected = sent.clone();
    let writer = thread::spawn(move || {
        writing.write_all(&sent).expect("the proxy reads");
        writing.shutdown(std::net::Shutdown::Write).expect("open");
    });
    let mut received = Vec::new();
    reading.read_to_end(&mut received).expect("an orderly end");
    writer.join().expect("sent");
    assert!(received.ends_with(b"goodbye"), "the caller's end reaches the upstream, which may still speak");
    assert!(received[..received.len() - 7] == expected, "every byte came back");
    eventually("the upstream's connection ends", || api.open_connections() == 0);
}

#[test]
fn what_is_no_websocket_is_not_switched_to() {
    let api = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            assert_eq!((request.header("upgrade"), request.header("connection")), (None, None), "{}", request.head);
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let tokens = Upstream::tokens(3600);
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "");
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (method, fields, body) in [
        ("GET", "Connection: Upgrade\r\nUpgrade: websocket\r\n".to_owned(), &b""[..]),
        ("GET", format!("Upgrade: websocket\r\n{key}"), b""),
        ("GET", format!("Connection: Upgrade\r\n{key}"), b""),
        ("GET", format!("Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n{key}"), b""),
        ("GET", format!("Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n{key}"), b""),
        ("GET", format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{key}{key}"), b""),
        ("GET", format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{key}"), b"body"),
        ("POST", format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{key}"), b""),
    ] {
        assert_eq!(proxy.request(method, "/api/x", &fields, body).text(), "ok", "{fields}");
    }
}

#[test]
fn an_upstream_that_does_not_switch_answers_as_always_and_its_connection_ends() {
    let api = Upstream::always("HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nno");
    let tokens = Upstream::tokens(3600);
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "");
    for _ in 0..12 {
        let response = proxy.request("GET", "/api/x", ASKS, b"");
        assert_eq!((response.status, response.text().as_str(), response.header("upgrade")), (426, "no", None));
    }
    assert_eq!(api.connections(), 12, "its connection is nobody else's");
}

#[test]
fn a_switch_to_something_else_is_a_broken_protocol() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
    ] {
        let (api, tokens) = (Upstream::always(answer), Upstream::tokens(3600));
        let proxy = Cupbearer::before(&api.url(), &tokens, "", "");
        proxy.request("GET", "/api/x", ASKS, b"").expect_problem(502, "upstream_protocol");
    }
}

#[test]
fn a_caller_that_resets_its_websocket_takes_the_upstreams_side_with_it() {
    let (api, tokens) = (echo(), Upstream::tokens(3600));
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "");
    let mut client = switched(&proxy, "");
    client.wait_for(b"hello");
    client.reset();
    eventually("the upstream's connection ends", || api.open_connections() == 0);
    assert_eq!(switched(&proxy, "X: y\r\n").stream().peer_addr().expect("open"), proxy.address());
}

#[test]
fn a_silent_websocket_ends_after_body_idle_timeout_and_a_busy_one_does_not() {
    let (api, tokens) = (echo(), Upstream::tokens(3600));
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "body_idle_timeout = \"600ms\"");
    let mut client = switched(&proxy, "");
    client.wait_for(b"hello");
    let begun = Instant::now();
    let mut silent = begun;
    while begun.elapsed() < Duration::from_millis(1500) {
        silent = Instant::now();
        client.send("beat");
        let mut echoed = [0; 4];
        client.stream().read_exact(&mut echoed).expect("still open");
        thread::sleep(Duration::from_millis(50));
    }
    let end = client.stream().read(&mut [0; 1]);
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    assert!(silent.elapsed() >= Duration::from_millis(500), "{:?}", silent.elapsed());
}

#[test]
fn a_page_of_a_foreign_origin_gets_no_websocket() {
    let (api, tokens) = (echo(), Upstream::tokens(3600));
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "");
    let fields = format!("{ASKS}Origin: https://evil.example\r\n");
    proxy.request("GET", "/api/chat", &fields, b"").expect_problem(403, "origin_refused");
    assert_eq!(api.connections(), 0);
}
