//! Upstreams that break the protocol, break off, stall or are not there: an honest error, never an answer
//! that looks whole and is not, and never a request that is executed twice.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::support::{Client, PATIENCE, ReadError, Response, Scene, Stage, Upstream, eventually, noise};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What follows the bytes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Keep,
    Close,
    Reset,
}

type Case = (&'static str, Then);

/// Answers a target that ends in `/N` with the bytes of case N.
fn by_number(cases: &'static [Case]) -> Upstream {
    Upstream::start(move |connection| {
        while let Some(request) = connection.request() {
            let number = request.target().rsplit('/').next().and_then(|n| n.parse::<usize>().ok());
            let (bytes, then) = number.map_or((OK, Then::Keep), |n| cases[n]);
            connection.send(bytes);
            match then {
                Then::Keep => {}
                Then::Close => return,
                Then::Reset => return connection.reset(),
            }
        }
    })
}

fn ask(scene: &Scene, method: &str, target: &str, version: &str) -> Client {
    scene.send(&format!("{method} {target} HTTP/{version}\r\nHost: HOST\r\n\r\n"))
}

#[test]
fn an_answer_that_breaks_the_protocol_is_a_clean_502() {
    const CASES: &[Case] = &[
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Then::Keep),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n", Then::Keep),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", Then::Keep),
        ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", Then::Keep),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok", Then::Keep),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok", Then::Keep),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok", Then::Keep),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", Then::Close),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Then::Keep),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Then::Keep),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Then::Keep),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Then::Keep),
        ("HTTP/1.1 200 OK\nContent-Length: 2\n\nok", Then::Keep),
        ("HTTP/1.1 200 OK\r\nX: y\r\n folded\r\nContent-Length: 2\r\n\r\nok", Then::Keep),
        ("HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", Then::Keep),
        ("HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 2\r\n\r\nok", Then::Keep),
        ("HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok", Then::Keep),
        ("HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nok", Then::Keep),
        ("HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", Then::Keep),
        ("HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", Then::Keep),
        ("HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nok", Then::Keep),
        ("HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok", Then::Keep),
        ("HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok", Then::Keep),
        ("ICY 200 OK\r\nContent-Length: 2\r\n\r\nok", Then::Keep),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Then::Keep),
        ("\x15\x03\x01\x00\x02\x02\x46", Then::Close),
        ("<html>it works</html>\r\n\r\n", Then::Close),
        ("\r\n\r\n", Then::Keep),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", Then::Close),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", Then::Reset),
        ("HTTP/1.1 103 Early Hints\r\n\r\n", Then::Close),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 20", Then::Close),
        ("", Then::Close),
        ("", Then::Reset),
    ];
    let scene = Scene::new(by_number(CASES));
    for (number, (bytes, _)) in CASES.iter().enumerate() {
        for method in ["GET", "POST"] {
            let target = format!("/api/{method}/{number}");
            let mut client = ask(&scene, method, &target, "1.1");
            let mut response = client.response();
            if response.status < 200 {
                response = client.response();
            }
            assert_eq!(response.status, 502, "{bytes:?}: {}", response.text());
            let problem = response.expect_problem(502, "upstream_protocol");
            assert_eq!((&problem["route"], &problem["credential"]), (&"/api".into(), &"c".into()));
            // The caller's connection has nothing to do with it.
            assert_eq!(
                client.exchange(scene.fill("GET /api/fine HTTP/1.1\r\nHost: HOST\r\n\r\n")).text(),
                "ok",
                "{bytes:?}"
            );
            scene.only_request(&target["/api".len()..]);
        }
    }
    scene.end();
}

#[test]
fn a_response_head_without_end_is_refused_within_its_limits() {
    let api = Upstream::start(|connection| {
        let Some(request) = connection.request() else { return };
        connection.send("HTTP/1.1 200 OK\r\n");
        match request.target() {
            "/many" => connection.send(format!("{}Content-Length: 2\r\n\r\nok", "X: y\r\n".repeat(200))),
            "/large" => connection.send(format!("X: {}\r\n\r\n", "y".repeat(100_000))),
            _ => while connection.try_send("X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n").is_ok() {},
        }
    });
    let scene = Scene::new(api);
    for target in ["/api/many", "/api/large", "/api/endless"] {
        scene.get(target).expect_problem(502, "upstream_protocol");
    }
    scene.end();
}

#[test]
fn a_truncated_answer_never_looks_complete() {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    const CASES: &[Case] = &[
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", Then::Close),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", Then::Reset),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", Then::Close),
        ("HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\nhello", Then::Close),
        ("HTTP/1.1 200 OK\r\n\r\nhello", Then::Reset),
        ("CHUNKED", Then::Close),
        ("CHUNKED5\r\nhello", Then::Close),
        ("CHUNKED5\r\nhello\r\n", Then::Close),
        ("CHUNKED5\r\nhello\r\n", Then::Reset),
        ("CHUNKED5\r\nhello\r\n0", Then::Close),
        ("CHUNKED5\r\nhello\r\n0\r\n", Then::Close),
        ("CHUNKED5\r\nhello\r\n0\r\nX: y\r\n", Then::Close),
        ("CHUNKED5\r\nhello\r\n10\r\nhel", Then::Close),
        // Grammar: where this ends is anybody's guess.
        ("CHUNKED5\nhello\r\n0\r\n\r\n", Then::Keep),
        ("CHUNKED5\r\nhelloX\r\n0\r\n\r\n", Then::Keep),
        ("CHUNKEDhello\r\n0\r\n\r\n", Then::Keep),
        ("CHUNKED5\r\nhello\r\n-0\r\n\r\n", Then::Keep),
        ("CHUNKED5\r\nhello\r\n0\r\nbad trailer\r\n\r\n", Then::Keep),
        ("CHUNKEDffffffffffffffff\r\nhello", Then::Keep),
    ];
    let api = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            let number: usize = request.target().rsplit('/').next().and_then(|n| n.parse().ok()).expect("a case");
            let (bytes, then) = CASES[number];
            connection.send(bytes.replace("CHUNKED", CHUNKED));
            match then {
                Then::Keep => connection.wait_for_close(),
                Then::Close => return,
                Then::Reset => {
                    // The proxy must have read the bytes before the reset overtakes them.
                    connection.wait_until_taken();
                    return connection.reset();
                }
            }
        }
    });
    let scene = Scene::new(api);
    for (number, case) in CASES.iter().enumerate() {
        for version in ["1.1", "1.0"] {
            for connection in ["close", "keep-alive"] {
                let mut client = scene.send(&format!(
                    "GET /api/{version}/{connection}/{number} HTTP/{version}\r\nHost: HOST\r\nConnection: {connection}\r\n\r\n"
                ));
                match client.try_response(false) {
                    Err(ReadError::Truncated(_) | ReadError::Closed) => {}
                    // Nothing of the answer had been sent yet when it broke.
                    Ok(response) if response.status == 502 => {
                        response.expect_problem(502, "upstream_protocol");
                    }
                    other => panic!("{case:?} to HTTP/{version}, {connection}: {other:?}"),
                }
            }
        }
    }
    scene.end();
}

#[test]
fn every_legal_answer_is_passed_on_whole_and_nothing_after_it() {
    const CASES: &[Case] = &[
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Then::Keep),
        ("HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", Then::Keep),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", Then::Keep),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", Then::Keep),
        ("HTTP/1.1 299 \u{e9}\r\nContent-Length: 5\r\n\r\nhello", Then::Keep),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", Then::Close),
        ("HTTP/1.0 200 OK\r\n\r\nhello", Then::Close),
        ("HTTP/1.1 200 OK\r\n\r\nhello", Then::Close),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", Then::Close),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=\"y\"\r\nllo\r\n0\r\nX: y\r\n\r\n",
            Then::Keep,
        ),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding:CHUNKED\r\n\r\n5\r\nhello\r\n000\r\n\r\n", Then::Keep),
        ("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\nRetry-After: 7\r\n\r\nhello", Then::Keep),
        ("HTTP/1.1 429 Too Many Requests\r\nContent-Length: 5\r\nRetry-After: 7\r\n\r\nhello", Then::Keep),
        ("HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\nContent-Length: 5\r\n\r\nhello", Then::Keep),
        // Surplus bytes belong to nobody.
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            Then::Keep,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\nevil",
            Then::Keep,
        ),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhelloevil", Then::Close),
    ];
    let scene = Scene::new(by_number(CASES));
    for (number, case) in CASES.iter().enumerate() {
        for version in ["1.1", "1.0"] {
            let mut client = ask(&scene, "GET", &format!("/api/{version}/{number}"), version);
            let response = client.response();
            assert_eq!(response.text(), "hello", "{case:?} to HTTP/{version}");
            assert_eq!(response.header("retry-after").is_some(), matches!(response.status, 429 | 500), "{case:?}");
            if version == "1.0" {
                client.expect_close();
            } else {
                let next = client.exchange(scene.fill("GET /api/next HTTP/1.1\r\nHost: HOST\r\n\r\n"));
                assert_eq!(next.text(), "ok", "{case:?}");
            }
        }
    }
    scene.end();
}

#[test]
fn answers_without_a_body_have_none_whatever_their_fields_say() {
    const CASES: &[Case] = &[
        ("HTTP/1.1 204 No Content\r\n\r\n", Then::Keep),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", Then::Keep),
        ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", Then::Keep),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", Then::Keep),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n", Then::Keep),
        ("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", Then::Keep),
    ];
    const HEADS: &[Case] = &[
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Then::Keep),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Then::Keep),
        ("HTTP/1.1 200 OK\r\n\r\n", Then::Keep),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello", Then::Keep),
    ];
    let scene = Scene::new(by_number(CASES));
    for (number, case) in CASES.iter().enumerate() {
        let mut client = ask(&scene, "GET", &format!("/api/{number}"), "1.1");
        let response = client.head_response();
        let length = if response.status == 304 && case.0.contains("Content-Length") { Some("5") } else { None };
        assert_eq!(
            (response.header("content-length"), response.header("transfer-encoding")),
            (length, None),
            "{case:?}"
        );
        assert_eq!(
            client.exchange(scene.fill("GET /api/next HTTP/1.1\r\nHost: HOST\r\n\r\n")).text(),
            "ok",
            "{case:?}"
        );
    }
    scene.end();

    let scene = Scene::new(by_number(HEADS));
    for (number, case) in HEADS.iter().enumerate() {
        let mut client = ask(&scene, "HEAD", &format!("/api/{number}"), "1.1");
        let response = client.head_response();
        assert_eq!(response.header("content-length"), case.0.contains("Content-Length").then_some("5"), "{case:?}");
        assert_eq!(
            client.exchange(scene.fill("GET /api/next HTTP/1.1\r\nHost: HOST\r\n\r\n")).text(),
            "ok",
            "{case:?}"
        );
        assert!(scene.only_request(&format!("/{number}")).line().starts_with("HEAD "));
    }
    scene.end();
}

#[test]
fn an_answer_is_read_the_same_wherever_it_is_cut() {
    const ANSWER: &str = "HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        5;x=y\r\nhello\r\n3\r\n\r\n0\r\n0\r\nT: t\r\n\r\n";
    let api = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            let cut: usize = request.target()[1..].parse().expect("where to cut");
            connection.send(&ANSWER[..cut]);
            // Only makes it likely that the pieces are read one by one; nothing depends on it.
            thread::sleep(Duration::from_micros(400));
            connection.send(&ANSWER[cut..]);
        }
    });
    let scene = Scene::new(api);
    let mut client = scene.proxy.connect();
    for cut in 0..ANSWER.len() {
        client.send(scene.fill(&format!("GET /api/{cut} HTTP/1.1\r\nHost: HOST\r\n\r\n")));
        assert_eq!(client.response().status, 103, "cut at {cut}");
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (200, "hello\r\n0"), "cut at {cut}");
    }
    assert_eq!(scene.api.connections(), 1, "one connection served them all");
    scene.end();
}

#[test]
fn an_early_answer_reaches_a_caller_that_is_still_sending() {
    let api = Upstream::start(|connection| {
        if connection.request_head().is_some() {
            // Closing on unread data sends a reset right behind the answer.
            connection.send("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 9\r\n\r\ntoo large");
        }
    });
    let scene = Scene::new(api);
    for framing in ["Content-Length: 8000000", "Transfer-Encoding: chunked"] {
        let mut client = scene.send(&format!("PUT /api/x HTTP/1.1\r\nHost: HOST\r\n{framing}\r\n\r\n"));
        let body =
            if framing.starts_with('C') { noise(8_000_000) } else { [&b"7A1200\r\n"[..], &noise(8_000_000)].concat() };
        let _ = client.try_send(&body[..300_000]);
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (413, "too large"));
        assert_eq!(response.header("connection"), Some("close"));
    }
    scene.end();
}

#[test]
fn both_directions_flow_at_once() {
    let api = Upstream::start(|connection| {
        while let Some(head) = connection.request_head() {
            assert!(head.contains("Transfer-Encoding: chunked"));
            connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while let Some(chunk) = connection.chunk() {
                connection.send(format!("{:x}\r\n", chunk.len()));
                connection.send(&chunk);
                connection.send("\r\n");
                if chunk.is_empty() {
                    break;
                }
            }
        }
    });
    let scene = Scene::new(api);
    let mut client = scene.send("POST /api/echo HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n");
    for word in ["first", "second", "third"] {
        client.send(format!("{:x}\r\n{word}\r\n", word.len()));
        client.wait_for(word.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.last_response().text(), "firstsecondthird");
    scene.end();
}

#[test]
fn a_kept_connection_that_the_upstream_has_closed_is_not_used() {
    let api = Upstream::start(|connection| {
        // The answer promises a connection that goes on.
        let Some(request) = connection.request() else { return };
        connection.send(OK);
        if request.target() == "/reset" {
            connection.wait_until_taken();
            connection.reset();
        }
    });
    let scene = Scene::new(api);
    let mut client = scene.proxy.connect();
    let mut sent = 0;
    for target in ["/plain", "/reset"] {
        for method in ["GET", "POST", "DELETE", "GET", "POST"] {
            let body = if method == "POST" { "Content-Length: 5\r\n\r\nhello" } else { "\r\n" };
            let text = format!("{method} /api{target} HTTP/1.1\r\nHost: HOST\r\n{body}");
            assert_eq!(client.exchange(scene.fill(&text)).text(), "ok", "{method} {target}");
            sent += 1;
            assert_eq!(scene.api.requests().len(), sent);
            eventually("the upstream has closed", || scene.api.open_connections() == 0);
            // The end has left the upstream; it is in the proxy's socket as soon as the kernel has run.
            scene.settle();
        }
    }
    scene.end();
}

#[test]
fn a_request_that_the_upstream_took_and_did_not_answer_is_not_sent_again() {
    let api = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            match request.target() {
                "/dies" => return,
                "/resets" => return connection.reset(),
                _ => connection.send(OK),
            }
        }
    });
    let scene = Scene::new(api);
    let mut client = scene.proxy.connect();
    for (number, method) in ["POST", "GET", "PUT", "DELETE"].into_iter().enumerate() {
        for target in ["/dies", "/resets"] {
            // First one that makes sure that there is a kept connection.
            assert_eq!(client.exchange(scene.fill("GET /api/fine HTTP/1.1\r\nHost: HOST\r\n\r\n")).text(), "ok");
            client.send(scene.fill(&format!("{method} /api{target} HTTP/1.1\r\nHost: HOST\r\n\r\n")));
            let problem = client.response().expect_problem(502, "upstream_protocol");
            assert!(
                problem["detail"].as_str().is_some_and(|d| d.contains("may have acted on the request")),
                "{problem}"
            );
            let count = scene.api.requests().iter().filter(|r| r.target() == target).count();
            assert_eq!(count, number + 1, "{method} {target}");
        }
    }
    scene.end();
}

#[test]
fn an_upstream_that_says_nothing_is_given_up_after_response_timeout() {
    let api = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            match request.target() {
                "/silent" => return connection.wait_for_close(),
                "/drips" => {
                    for byte in b"HTTP/1.1 200 OK\r\nX: ".iter().chain(b"y".repeat(2000).iter()) {
                        if connection.try_send([*byte]).is_err() {
                            return;
                        }
                        thread::sleep(Duration::from_millis(20));
                    }
                }
                _ => connection.send(OK),
            }
        }
    });
    let scene = Stage::new(api).route("response_timeout = \"300ms\"").start();
    for target in ["/api/silent", "/api/drips"] {
        for (method, body) in [("GET", &b""[..]), ("POST", b"hello")] {
            let began = Instant::now();
            let response = scene.proxy.request(method, target, "", body);
            let problem = response.expect_problem(504, "upstream_timeout");
            assert!(problem["detail"].as_str().is_some_and(|d| d.contains("may have acted")), "{problem}");
            let took = began.elapsed();
            assert!(took >= Duration::from_millis(290) && took < Duration::from_secs(5), "{target}: {took:?}");
        }
    }
    assert_eq!(scene.get("/api/fine").text(), "ok");
    eventually("the stalled connections are closed", || scene.api.open_connections() <= 1);
    scene.end();
}

#[test]
fn endless_interim_responses_come_to_an_end() {
    let api = Upstream::start(|connection| {
        let Some(request) = connection.request() else { return };
        if request.target() == "/few" {
            connection.send("HTTP/1.1 102 Processing\r\n\r\n".repeat(50));
            return connection.send(OK);
        }
        while connection.try_send("HTTP/1.1 102 Processing\r\n\r\n").is_ok() {}
    });
    let scene = Scene::new(api);
    for (target, version) in [("/few", "1.1"), ("/few", "1.0"), ("/endless", "1.1"), ("/endless", "1.0")] {
        let mut client = ask(&scene, "GET", &format!("/api{target}"), version);
        let last = (0..5000).map(|_| client.response()).find(|response| response.status >= 200);
        let last = last.expect("an end");
        if target == "/few" {
            assert_eq!(last.text(), "ok");
        } else {
            last.expect_problem(502, "upstream_protocol");
        }
    }
    scene.end();
}

#[test]
fn an_answer_that_stops_moving_is_cut_and_a_slow_one_is_not() {
    let api = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
            let pause = if request.target() == "/stops" { PATIENCE } else { Duration::from_millis(80) };
            for digit in b'0'..=b'9' {
                connection.send([digit]);
                if pause == PATIENCE && digit == b'4' {
                    return connection.wait_for_close();
                }
                thread::sleep(pause.min(Duration::from_millis(80)));
            }
        }
    });
    let scene = Stage::new(api).route("body_idle_timeout = \"500ms\"").route("response_timeout = \"500ms\"").start();
    assert_eq!(scene.get("/api/slow").text(), "0123456789", "0.8 s in all");
    let mut client = ask(&scene, "GET", "/api/stops", "1.1");
    match client.try_response(false) {
        Err(ReadError::Truncated(body)) => assert!(b"01234".starts_with(&body), "{body:?}"),
        other => panic!("{other:?}"),
    }
    scene.end();
}

#[test]
fn a_body_that_stops_moving_is_the_fault_of_the_side_that_stopped() {
    let api = Upstream::start(|connection| {
        while let Some(head) = connection.request_head() {
            if head.starts_with("POST /never-reads") {
                thread::sleep(Duration::from_secs(1));
                return;
            }
            if connection.body_of(&head).is_none() {
                return;
            }
            connection.send(OK);
        }
    });
    let scene = Stage::new(api).route("body_idle_timeout = \"400ms\"").route("response_timeout = \"5s\"").start();
    // The caller stops: its own fault.
    let client = scene.send("POST /api/x HTTP/1.1\r\nHost: HOST\r\nContent-Length: 100\r\n\r\nhello");
    client.last_response().expect_problem(408, "request_timeout");
    // A slow caller does not.
    let mut client = scene.send("POST /api/slow HTTP/1.1\r\nHost: HOST\r\nContent-Length: 8\r\n\r\n");
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(80));
        client.send("x");
    }
    assert_eq!(client.response().text(), "ok");
    // The upstream stops taking it: its fault.
    let body = vec![b'x'; 50_000_000];
    let client = scene.send("POST /api/never-reads HTTP/1.1\r\nHost: HOST\r\nContent-Length: 50000000\r\n\r\n");
    let mut client = client.sending_in_the_background(body);
    client.response().expect_problem(504, "upstream_timeout");
    client.end();
    scene.end();
}

#[test]
fn an_upstream_that_is_not_there_is_said_to_be_away() {
    // Nothing listens on this port; the second one's queue is full, so that the kernel drops what knocks.
    let refusing = {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port");
        socket
    };
    let hole = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    hole.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port");
    hole.listen(0).expect("it listens");
    let port = |socket: &Socket| socket.local_addr().ok().and_then(|a| a.as_socket()).expect("an address");
    let mut knocking = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&port(&hole), Duration::from_millis(200)) {
        knocking.push(stream);
    }
    let more = format!(
        "[[routes]]\nprefix = \"/refused\"\nupstream = \"http://{}\"\ncredential = \"c\"\n\
         [[routes]]\nprefix = \"/hole\"\nupstream = \"http://{}\"\ncredential = \"c\"\nconnect_timeout = \"300ms\"\n",
        port(&refusing),
        port(&hole)
    );
    let scene = Stage::new(Upstream::always(OK)).more(&more).start();
    for (method, body) in [("GET", &b""[..]), ("POST", b"hello")] {
        let problem = scene.proxy.request(method, "/refused/x", "", body).expect_problem(502, "upstream_connect");
        assert!(problem["detail"].as_str().is_some_and(|d| d.contains("was not sent")), "{problem}");
        let began = Instant::now();
        let problem = scene.proxy.request(method, "/hole/x", "", body).expect_problem(504, "upstream_timeout");
        assert!(problem["detail"].as_str().is_some_and(|d| d.contains("was not sent")), "{problem}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    // Many at once, while others are served.
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| scene.get("/hole/x").expect_problem(504, "upstream_timeout"));
            scope.spawn(|| assert_eq!(scene.get("/api/x").text(), "ok"));
        }
    });
    drop(knocking);
    scene.end();
}

#[test]
fn a_thousand_broken_downloads_and_uploads_leave_nothing_behind() {
    const BODY: usize = 4_000_000;
    let started = Arc::new(AtomicUsize::new(0));
    let api = {
        let started = Arc::clone(&started);
        Upstream::start(move |connection| {
            while let Some(head) = connection.request_head() {
                started.fetch_add(1, Ordering::SeqCst);
                if head.starts_with("PUT") {
                    connection.send("HTTP/1.1 100 Continue\r\n\r\n");
                    if connection.body_of(&head).is_none() {
                        return;
                    }
                } else {
                    connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n"));
                    let block = vec![b'x'; 64 * 1024];
                    for _ in 0..BODY / block.len() {
                        if connection.try_send(&block).is_err() {
                            return;
                        }
                    }
                }
            }
        })
    };
    let scene = Scene::new(api);
    assert_eq!(scene.get("/good/warm").text(), "good");
    let (descriptors, memory) = (scene.proxy.descriptors(), scene.proxy.memory());
    thread::scope(|scope| {
        for part in 0..10 {
            let scene = &scene;
            scope.spawn(move || {
                for number in 0..100 {
                    let mut client = if number % 2 == 0 {
                        ask(scene, "GET", "/api/down", "1.1")
                    } else {
                        scene.send(&format!(
                            "PUT /api/up HTTP/1.1\r\nHost: HOST\r\nContent-Length: {BODY}\r\n\
                             Expect: 100-continue\r\n\r\nsome of it"
                        ))
                    };
                    if number % 4 < 2 {
                        client.wait_for(b"\r\n\r\n");
                    }
                    if (number + part) % 3 == 0 {
                        client.reset();
                    }
                }
            });
        }
    });
    scene.wait_for_descriptors(descriptors + 2);
    eventually("the upstream's connections are closed too", || scene.api.open_connections() <= 1);
    assert!(scene.api.requests().is_empty(), "no broken upload was taken for a whole one");
    let grown = scene.proxy.memory().saturating_sub(memory);
    assert!(grown < 24 * 1024, "grew by {grown} KiB");
    let started = started.load(Ordering::SeqCst);
    assert!(started >= 500, "half of them wait until the upstream has them, but only {started} came there");
    scene.end();
}

/// The response's body, for a caller that is glad to have one at all.
#[test]
fn a_caller_that_goes_away_while_it_waits_ends_the_request_upstream() {
    let api = Upstream::start(|connection| {
        while connection.request().is_some() {
            connection.wait_for_close();
        }
    });
    let scene = Scene::new(api);
    let clients: Vec<Client> = (0..50).map(|n| ask(&scene, "GET", &format!("/api/{n}"), "1.1")).collect();
    scene.api.wait_for_requests(50);
    for (number, client) in clients.into_iter().enumerate() {
        if number % 2 == 0 {
            client.reset();
        }
    }
    eventually("nobody waits for the upstream any more", || scene.api.open_connections() == 0);
    scene.end();
}

#[test]
fn a_pool_is_not_poisoned_by_what_comes_later() {
    // Surplus bytes that arrive after the answer was read, on a connection that lies idle.
    let poured = Arc::new(AtomicUsize::new(0));
    let pouring = Arc::clone(&poured);
    let api = Upstream::start(move |connection| {
        while let Some(request) = connection.request() {
            connection.send(OK);
            if request.target() == "/late" {
                connection.wait_until_taken();
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
                connection.wait_until_taken();
                pouring.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let scene = Scene::new(api);
    let mut client = scene.proxy.connect();
    for round in 1..=5 {
        assert_eq!(client.exchange(scene.fill("GET /api/late HTTP/1.1\r\nHost: HOST\r\n\r\n")).text(), "ok");
        eventually("the surplus has come", || poured.load(Ordering::SeqCst) == round);
        scene.settle();
        let next: Response = client.exchange(scene.fill("GET /api/next HTTP/1.1\r\nHost: HOST\r\n\r\n"));
        assert_eq!(next.text(), "ok");
    }
    scene.end();
}
