//! HTTP/2 from callers and to upstreams, in every mix with HTTP/1.1.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use h2::Reason;

use crate::support::{
    Ca, Cupbearer, TestDir, Upstream,
    h2::{Act, H2Client, H2Message, H2Upstream, answer, fields, response, run, send},
    noise,
};

/// Sends back what it gets; `?untold` without telling the length.
fn echo_h1() -> Upstream {
    Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            let body = request.decoded_body();
            let length = body.len();
            if request.target().ends_with("?untold") {
                connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                for part in body.chunks(7000) {
                    connection.send(format!("{:x}\r\n", part.len()));
                    connection.send(part);
                    connection.send("\r\n");
                }
                connection.send("0\r\n\r\n");
            } else {
                connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"));
                connection.send(body);
            }
        }
    })
}

fn echo_h2() -> H2Upstream {
    H2Upstream::start(|request| {
        let untold: &[(&str, &str)] = &[("content-length", "")];
        Act::Answer(response(200, if request.path.ends_with("?untold") { untold } else { &[] }, request.body.clone()))
    })
}

/// Around every buffer, frame and window.
const SIZES: [usize; 17] = [
    0, 1, 2, 8191, 8192, 8193, 16383, 16384, 16385, 65535, 65536, 65537, 262_143, 262_144, 262_145, 1_000_000,
    3_000_000,
];

async fn every_size_over_h2(proxy: &Cupbearer) {
    let client = H2Client::connect(proxy.address()).await;
    let noise = noise(SIZES[SIZES.len() - 1]);
    for size in SIZES {
        let body = &noise[..size];
        for told in [true, false] {
            for path in ["/api/x", "/api/x?untold"] {
                let mut request = client.ask("POST", path);
                if told {
                    request = request.header("content-length", size);
                }
                let echoed = client.exchange(request.body(()).expect("a request"), body).await.expect("an answer");
                assert_eq!(echoed.status, 200, "{size} {path}: {}", String::from_utf8_lossy(&echoed.body));
                assert!(echoed.body == body, "{size} bytes, told: {told}, {path}: {} came back", echoed.body.len());
            }
        }
    }
}

fn every_size_over_h1(proxy: &Cupbearer) {
    let noise = noise(SIZES[SIZES.len() - 1]);
    let mut client = proxy.connect();
    for size in SIZES {
        let body = &noise[..size];
        for path in ["/api/x", "/api/x?untold"] {
            let head = format!("POST {path} HTTP/1.1\r\nHost: {}\r\n", proxy.address());
            client.send(format!("{head}Content-Length: {size}\r\n\r\n"));
            client.send(body);
            assert!(client.response().body == body, "{size} bytes of told length, {path}");
            client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
            for part in body.chunks(5000) {
                client.send(format!("{:x}\r\n", part.len()));
                client.send(part);
                client.send("\r\n");
            }
            client.send("0\r\n\r\n");
            assert!(client.response().body == body, "{size} bytes in chunks, {path}");
        }
    }
}

#[test]
fn bodies_of_every_size_pass_unchanged_from_http_1_to_http_1() {
    let (api, tokens) = (echo_h1(), Upstream::tokens(3600));
    every_size_over_h1(&Cupbearer::before(&api.url(), &tokens, "", ""));
}

#[test]
fn bodies_of_every_size_pass_unchanged_from_http_2_to_http_1() {
    let (api, tokens) = (echo_h1(), Upstream::tokens(3600));
    run(every_size_over_h2(&Cupbearer::before(&api.url(), &tokens, "", "")));
}

#[test]
fn bodies_of_every_size_pass_unchanged_from_http_2_to_http_2() {
    let (api, tokens) = (echo_h2(), Upstream::tokens(3600));
    run(every_size_over_h2(&Cupbearer::before(&api.url(), &tokens, "", "http = \"h2\"")));
}

#[test]
fn bodies_of_every_size_pass_unchanged_from_http_1_to_http_2() {
    let (api, tokens) = (echo_h2(), Upstream::tokens(3600));
    every_size_over_h1(&Cupbearer::before(&api.url(), &tokens, "", "http = \"h2\""));
}

#[test]
fn a_request_over_http_2_is_judged_and_rewritten_like_any_other() {
    let (api, tokens) = (echo_h1(), Upstream::tokens(3600));
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "deny = [\"DELETE /**\"]");
    run(async {
        let client = H2Client::connect(proxy.address()).await;
        let request = client
            .ask("GET", "/api/a%2Fb")
            .header("authorization", "Bearer mine")
            .header("x-forwarded-for", "1.2.3.4")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("te", "trailers");
        // An encoded slash has two readings.
        let refused = client.exchange(request.body(()).expect("a request"), b"").await.expect("an answer");
        assert_eq!((refused.status, refused.json()["code"].as_str()), (400, Some("bad_path")));
        for (method, path, status, code) in [
            ("GET", "/nowhere", 404, "no_route"),
            ("DELETE", "/api/x", 403, "policy_denied"),
            ("TRACE", "/api/x", 405, "method_refused"),
            ("GET", "/api/../x", 400, "bad_path"),
        ] {
            let request = client.ask(method, path).body(()).expect("a request");
            let refused = client.exchange(request, b"").await.expect("an answer");
            assert_eq!((refused.status, refused.json()["code"].as_str()), (status, Some(code)), "{method} {path}");
            assert_eq!(refused.header("connection"), None);
        }
        let request = client
            .ask("GET", "/api/x?filter[a]=1&b")
            .header("authorization", "Bearer mine")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("te", "trailers");
        let served = client.exchange(request.body(()).expect("a request"), b"").await.expect("an answer");
        assert_eq!(served.status, 200);
    });
    let request = &api.requests()[0];
    assert_eq!(request.line(), "GET /x?filter[a]=1&b HTTP/1.1");
    assert_eq!(request.header("authorization"), Some("Bearer not-a-token-1"));
    assert_eq!((request.header("cookie"), request.header("te")), (Some("a=1; b=2"), Some("trailers")));
    assert_eq!((request.header("via"), request.header("x-forwarded-for")), (Some("2 cupbearer"), Some("127.0.0.1")));
    assert_eq!(api.requests().len(), 1, "what was refused was not sent");
    proxy.expect_never_printed(&["not-a-token", "not-a-secret"]);
}

#[test]
fn a_foreign_authority_is_misdirected_and_a_second_name_refused() {
    let (api, tokens) = (echo_h1(), Upstream::tokens(3600));
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "");
    run(async {
        let client = H2Client::connect(proxy.address()).await;
        for authority in ["evil.example", "user@127.0.0.1", "127.0.0.1"] {
            let request =
                http::Request::builder().uri(format!("http://{authority}/api/x")).body(()).expect("a request");
            let refused = client.exchange(request, b"").await.expect("an answer");
            assert_eq!((refused.status, refused.json()["code"].as_str()), (421, Some("misdirected")), "{authority}");
        }
        let request = client.ask("GET", "/api/x").header("host", "evil.example").body(()).expect("a request");
        let refused = client.exchange(request, b"").await.expect("an answer");
        assert_eq!((refused.status, refused.json()["code"].as_str()), (400, Some("bad_request")));
        let connect = http::Request::builder().method("CONNECT").uri(proxy.address().to_string());
        let refused = client.exchange(connect.body(()).expect("a request"), b"").await.expect("an answer");
        assert_eq!((refused.status, refused.json()["code"].as_str()), (405, Some("method_refused")));
        assert_eq!(client.get("/api/x").await.status, 200, "the connection goes on");
    });
}

#[test]
fn answers_without_a_body_interim_ones_and_trailers_reach_an_http_2_caller() {
    let api = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            connection.send(match request.target() {
                "/204" => "HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: \"x\"\r\n\r\n",
                "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
                "/early" => {
                    "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                }
                _ => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n",
            });
        }
    });
    let tokens = Upstream::tokens(3600);
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "");
    run(async {
        let client = H2Client::connect(proxy.address()).await;
        let (none, unchanged) = (client.get("/api/204").await, client.get("/api/304").await);
        assert_eq!((none.status, none.header("content-length"), none.body.len()), (204, None, 0));
        assert_eq!((unchanged.status, unchanged.header("etag"), unchanged.body.len()), (304, Some("\"x\""), 0));
        let head = client.ask("HEAD", "/api/head").body(()).expect("a request");
        let head = client.exchange(head, b"").await.expect("an answer");
        assert_eq!((head.status, head.header("content-length")), (200, Some("1234")));
        let early = client.get("/api/early").await;
        assert_eq!((early.interim.as_slice(), early.body.as_slice()), (&[103][..], &b"ok"[..]));
        let trailed = client.get("/api/trailers").await;
        assert_eq!(trailed.trailers.get("grpc-status").map(http::HeaderValue::as_bytes), Some(&b"0"[..]));
        assert_eq!(trailed.header("transfer-encoding"), None);
    });
}

#[test]
fn an_upstream_that_speaks_http_2_gets_the_request_and_one_token() {
    let api = H2Upstream::start(|request| match request.path.as_str() {
        "/base/204" => Act::Answer(response(204, &[("x", "1")], "")),
        "/base/304" => Act::Answer(response(304, &[("etag", "\"x\"")], "")),
        "/base/empty" => Act::Answer(response(200, &[("content-length", "")], "")),
        "/base/early" => Act::Answer(H2Message { interim: vec![103, 103], ..response(200, &[], "ok") }),
        "/base/moved" => {
            Act::Answer(response(302, &[("location", "/base/next"), ("set-cookie", "a=1; Path=/base")], ""))
        }
        _ => Act::Answer(H2Message {
            trailers: fields(&[("grpc-status", "0"), ("set-cookie", "x=1")]),
            ..response(200, &[("content-length", "")], "data")
        }),
    });
    let tokens = Upstream::tokens(3600);
    let proxy = Cupbearer::before(&format!("{}/base", api.url()), &tokens, "", "http = \"h2\"");
    let response = proxy.request("GET", "/api/a?b[]=%20&c", "Authorization: Bearer mine\r\nTE: trailers\r\n", b"");
    assert_eq!(response.text(), "data");
    assert_eq!(response.trailers, [("grpc-status".to_owned(), "0".to_owned())]);
    let request = &api.requests()[0];
    assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/base/a?b[]=%20&c"));
    assert_eq!(format!("http://{}/base", request.authority), format!("{}/base", api.url()));
    assert_eq!(
        (request.header("authorization"), request.header("te")),
        (Some("Bearer not-a-token-1"), Some("trailers"))
    );
    assert_eq!((request.header("host"), request.header("connection")), (None, None));

    assert_eq!(proxy.get("/api/204").status, 204);
    assert_eq!(proxy.get("/api/304").header("etag"), Some("\"x\""));
    let empty = proxy.get("/api/empty");
    assert_eq!((empty.status, empty.header("content-length")), (200, Some("0")));
    assert_eq!(proxy.request("HEAD", "/api/any", "", b"").status, 200);
    let moved = proxy.get("/api/moved");
    assert_eq!((moved.header("location"), moved.header("set-cookie")), (Some("/api/next"), Some("a=1; Path=/api")));
    let mut client = proxy.connect();
    client.send(format!("GET /api/early HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address()));
    assert_eq!([client.response().status, client.response().status, client.response().status], [103, 103, 200]);
    assert!(api.connections() <= 2, "one connection a core carries them all: {}", api.connections());
}

#[test]
fn many_requests_share_a_connection_and_nobody_waits_for_a_slow_one() {
    let api =
        H2Upstream::start(|request| if request.path == "/slow" { Act::Silence } else { Act::ok(request.path.clone()) });
    let tokens = Upstream::tokens(3600);
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "http = \"h2\"");
    run(async {
        let client = H2Client::connect(proxy.address()).await;
        let slow = client.ask("GET", "/api/slow").body(()).expect("a request");
        let (slow, _) = client.begin(slow, true).await.expect("begun");
        let mut running = tokio::task::JoinSet::new();
        for number in 0..500 {
            let client = client.clone();
            running.spawn_local(async move {
                let path = format!("/{number}");
                let answer = client.get(&format!("/api{path}")).await;
                assert_eq!((answer.status, answer.body.as_slice()), (200, path.as_bytes()));
            });
        }
        while let Some(done) = running.join_next().await {
            done.expect("served");
        }
        drop(slow);
    });
    assert!(api.connections() <= 2, "{} connections", api.connections());
}

#[test]
fn a_stream_that_was_refused_is_sent_again_and_one_that_was_reset_is_not() {
    let refusals = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&refusals);
    let api = H2Upstream::start(move |request| match request.path.as_str() {
        "/refused" if counter.fetch_add(1, Ordering::SeqCst) == 0 => Act::Reset(Reason::REFUSED_STREAM),
        "/reset" => Act::Reset(Reason::INTERNAL_ERROR),
        "/gone" => Act::Gone,
        _ => Act::ok("ok"),
    });
    let tokens = Upstream::tokens(3600);
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "http = \"h2\"");
    assert_eq!(proxy.request("POST", "/api/refused", "", b"body").text(), "ok");
    assert_eq!(refusals.load(Ordering::SeqCst), 2);
    for path in ["/api/reset", "/api/gone"] {
        let before = api.requests().len();
        let problem = proxy.request("POST", path, "", b"body").expect_problem(502, "upstream_protocol");
        assert!(problem["detail"].as_str().is_some_and(|d| d.contains("may have acted")), "{problem}");
        assert_eq!(api.requests().len(), before + 1, "{path} is executed once");
    }
    assert_eq!(proxy.get("/api/next").text(), "ok");
}

#[test]
fn a_connection_that_its_server_leaves_gets_no_new_requests() {
    let api = H2Upstream::start(|request| {
        if request.path == "/last" {
            Act::Leave(response(200, &[], "last"))
        } else {
            Act::ok(request.connection.to_string())
        }
    });
    let tokens = Upstream::tokens(3600);
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "http = \"h2\"");
    for _ in 0..20 {
        assert_eq!(proxy.get("/api/last").text(), "last");
        assert_eq!(proxy.get("/api/next").status, 200);
    }
}

#[test]
fn an_answer_that_is_cut_never_looks_complete() {
    let api = H2Upstream::start(|request| {
        let untold: &[(&str, &str)] = &[("content-length", "")];
        Act::Half(response(200, if request.path == "/untold" { untold } else { &[] }, vec![b'x'; 10_000]))
    });
    let tokens = Upstream::tokens(3600);
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "http = \"h2\"");
    for path in ["/api/told", "/api/untold"] {
        let mut client = proxy.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address()));
        assert!(client.try_response(false).is_err(), "{path} over HTTP/1.1");
    }
    run(async {
        let client = H2Client::connect(proxy.address()).await;
        for path in ["/api/told", "/api/untold"] {
            let request = client.ask("GET", path).body(()).expect("a request");
            let cut = client.exchange(request, b"").await.expect_err("no whole answer");
            assert!(cut.is_reset(), "{cut}");
        }
    });
}

#[test]
fn a_rejected_token_is_replaced_and_the_request_replayed_over_http_2() {
    let api = H2Upstream::start(|request| {
        if request.header("authorization") == Some("Bearer not-a-token-1") && request.method == "POST" {
            Act::Answer(response(401, &[("www-authenticate", "Bearer error=\"invalid_token\"")], "no"))
        } else {
            Act::Answer(response(200, &[], request.body.clone()))
        }
    });
    let tokens = Upstream::tokens(3600);
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "http = \"h2\"");
    let first = std::time::Instant::now();
    assert_eq!(proxy.get("/api/first").status, 200);
    std::thread::sleep(std::time::Duration::from_millis(5500).saturating_sub(first.elapsed()));
    let body = noise(50_000);
    run(async {
        let client = H2Client::connect(proxy.address()).await;
        let request = client.ask("POST", "/api/x").body(()).expect("a request");
        let (response, stream) = client.begin(request, false).await.expect("begun");
        let trailers = fields(&[("x-sum", "7")]);
        let (sent, answer) = tokio::join!(send(stream, &body, Some(trailers)), answer(response));
        sent.expect("taken");
        assert!(answer.expect("an answer").body == body);
    });
    let posts: Vec<H2Message> = api.requests().into_iter().filter(|r| r.method == "POST").collect();
    assert_eq!(posts.len(), 2);
    assert!(posts.iter().all(|p| p.body == body && p.trailers.contains_key("x-sum")), "both are whole");
}

#[test]
fn an_answer_before_the_end_of_an_upload_does_not_reset_it() {
    let api = Upstream::start(|connection| {
        connection.request_head();
        connection.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        connection.wait_for_close();
    });
    let tokens = Upstream::tokens(3600);
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "max_body = \"4MiB\"");
    let body = noise(3_000_000);
    run(async {
        let client = H2Client::connect(proxy.address()).await;
        for (path, length, status) in [("/api/x", 3_000_000, 403), ("/api/x", 5_000_000, 413), ("/x", 3_000_000, 404)] {
            let request = client.ask("PUT", path).header("content-length", length).body(()).expect("a request");
            let (response, stream) = client.begin(request, false).await.expect("begun");
            assert_eq!(answer(response).await.expect("an answer").status, status);
            // Clients that read only when they have sent everything would never see an answer beside a reset.
            if length == body.len() {
                send(stream, &body, None).await.expect("all of it is taken");
            }
        }
        assert_eq!(client.get("/x").await.status, 404, "the connection goes on");
    });
}

#[test]
fn with_tls_the_server_chooses_the_version() {
    let ca = Ca::new();
    let (certificate, key) = ca.issue(&["localhost"]);
    let h2 = H2Upstream::start_tls(&certificate, &key, |_| Act::ok("two"));
    let h1 = crate::support::TlsUpstream::start(
        &certificate,
        &key,
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none",
        crate::support::Ending::KeepAlive,
    );
    let tokens = Upstream::tokens(3600);
    let dir = TestDir::new();
    dir.write("ca.pem", ca.pem());
    let trust = format!("ca_file = \"{}\"\n", dir.path().join("ca.pem").display());
    for (url, http, expected) in
        [(h2.url(), "auto", "two"), (h1.url(), "auto", "one"), (h2.url(), "h2", "two"), (h1.url(), "h1", "one")]
    {
        let proxy = Cupbearer::before(&url, &tokens, &trust, &format!("http = \"{http}\""));
        assert_eq!(proxy.get("/api/x").text(), expected, "{http}");
        assert_eq!(proxy.get("/api/x").text(), expected, "{http}, again");
        proxy.expect_never_printed(&["not-a-token", "not-a-secret"]);
    }
    let proxy = Cupbearer::before(&h2.url(), &tokens, &trust, "http = \"h1\"");
    proxy.get("/api/x").expect_problem(502, "upstream_tls");
}

#[test]
fn a_websocket_of_an_http_2_caller_reaches_an_http_1_upstream() {
    use std::io::{Read as _, Write as _};
    let api = Upstream::start(|connection| {
        let Some(request) = connection.request() else { return };
        let key = request.header("sec-websocket-key").expect("a key").to_owned();
        let accept = aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
            format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes(),
        );
        let accept = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, accept.as_ref());
        connection.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
        ));
        let mut stream = connection.stream();
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            let _ = stream.write_all(&buffer[..n]);
        }
    });
    let tokens = Upstream::tokens(3600);
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "");
    run(async {
        let client = H2Client::connect(proxy.address()).await;
        assert_eq!(client.get("/nowhere").await.status, 404, "the settings are there by now");
        let mut connect = client.ask("CONNECT", "/api/chat").header("sec-websocket-version", "13");
        connect =
            connect.header("sec-websocket-protocol", "chat").extension(h2::ext::Protocol::from_static("websocket"));
        let (response, mut stream) = client.begin(connect.body(()).expect("a request"), false).await.expect("begun");
        let response = response.await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
        assert!(!response.headers().contains_key("sec-websocket-accept"));
        let mut body = response.into_body();
        for text in ["hello", "again"] {
            stream.send_data(text.into(), false).expect("sent");
            assert_eq!(body.data().await.expect("data").expect("no reset"), text);
        }
        stream.send_data(bytes::Bytes::new(), true).expect("sent");
        while let Some(data) = body.data().await {
            assert!(data.expect("no reset").is_empty(), "nothing but the end comes back");
        }
    });
    let request = &api.requests()[0];
    assert_eq!((request.line(), request.header("upgrade")), ("GET /chat HTTP/1.1", Some("websocket")));
    assert_eq!(request.header("authorization"), Some("Bearer not-a-token-1"));
}

#[test]
fn an_upstream_that_does_not_switch_is_no_websocket_to_an_http_2_caller() {
    let api = Upstream::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno");
    let tokens = Upstream::tokens(3600);
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "");
    run(async {
        let client = H2Client::connect(proxy.address()).await;
        assert_eq!(client.get("/nowhere").await.status, 404, "the settings are there by now");
        for (field, value, status) in
            [("x", "y", 502), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==", 502), ("content-length", "3", 400)]
        {
            let connect = client.ask("CONNECT", "/api/chat").header("sec-websocket-version", "13").header(field, value);
            let connect = connect.extension(h2::ext::Protocol::from_static("websocket"));
            let (response, _stream) = client.begin(connect.body(()).expect("a request"), false).await.expect("begun");
            assert_eq!(response.await.expect("an answer").status(), status, "{field}");
        }
    });
}

#[test]
fn a_switch_that_does_not_answer_our_key_is_none_to_an_http_2_caller() {
    let api = Upstream::start(|connection| {
        let Some(request) = connection.request() else { return };
        let accepts = match request.target() {
            // That of the key in RFC 6455, which is not the one that was sent.
            "/wrong" => "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
            "/twice" => "Sec-WebSocket-Accept: a\r\nSec-WebSocket-Accept: b\r\n",
            _ => "",
        };
        connection.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{accepts}\r\n"
        ));
        connection.wait_for_close();
    });
    let tokens = Upstream::tokens(3600);
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "");
    run(async {
        let client = H2Client::connect(proxy.address()).await;
        assert_eq!(client.get("/nowhere").await.status, 404, "the settings are there by now");
        for path in ["/api/wrong", "/api/twice", "/api/none"] {
            let connect = client.ask("CONNECT", path).header("sec-websocket-version", "13");
            let connect = connect.extension(h2::ext::Protocol::from_static("websocket"));
            let (response, _stream) = client.begin(connect.body(()).expect("a request"), false).await.expect("begun");
            let answer = answer(response).await.expect("an answer");
            assert_eq!((answer.status, answer.json()["code"].as_str()), (502, Some("upstream_protocol")), "{path}");
            let detail = answer.json()["detail"].as_str().expect("text").to_owned();
            assert!(detail.contains("Sec-WebSocket-Accept"), "{detail}");
        }
    });
    crate::support::eventually("what was switched in vain is closed", || api.open_connections() == 0);
}

#[test]
fn requests_to_an_upstream_that_never_answers_do_not_wait_for_each_other() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let url = format!("https://{}", silent.local_addr().expect("bound"));
    let tokens = Upstream::tokens(3600);
    let proxy = Cupbearer::before(&url, &tokens, "", "connect_timeout = \"700ms\"");
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| proxy.get("/api/x").expect_problem(504, "upstream_timeout"));
        }
    });
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(7), "one after another would be 7 s a core at least: {took:?}");
}

#[test]
fn interim_responses_are_bounded_in_bytes() {
    let early = format!("HTTP/1.1 103 Early Hints\r\nX-Large: {}\r\n\r\n", "x".repeat(30_000)).repeat(20);
    let (api, tokens) = (Upstream::always(early), Upstream::tokens(3600));
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "");
    run(async {
        let answer = H2Client::connect(proxy.address()).await.get("/api/x").await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (502, Some("upstream_protocol")));
        assert!(answer.interim.len() < 12, "{}", answer.interim.len());
    });
}

#[test]
fn heads_beyond_the_limit_are_refused_over_http_2() {
    let (api, tokens) = (echo_h1(), Upstream::tokens(3600));
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "");
    run(async {
        let client = H2Client::connect(proxy.address()).await;
        let request = client.ask("GET", "/api/x").header("x-large", "x".repeat(40_000)).body(()).expect("a request");
        let refused = client.exchange(request, b"").await.expect("an answer");
        assert_eq!((refused.status, refused.json()["code"].as_str()), (431, Some("head_too_large")));
        let long = client.ask("GET", &format!("/api/{}", "x".repeat(33_000))).body(()).expect("a request");
        let refused = client.exchange(long, b"").await.expect("an answer");
        assert_eq!((refused.status, refused.json()["code"].as_str()), (414, Some("uri_too_long")));
        let bomb = client.ask("GET", "/api/x").header("x-larger", "x".repeat(80_000)).body(()).expect("a request");
        let refused = client.exchange(bomb, b"").await.expect("an answer");
        assert_eq!((refused.status, refused.body.len()), (431, 0), "refused where it is unpacked");
        let mut many = client.ask("GET", "/api/x");
        for number in 0..200 {
            many = many.header(format!("x-{number}"), "y");
        }
        let refused = client.exchange(many.body(()).expect("a request"), b"").await.expect("an answer");
        assert_eq!((refused.status, refused.json()["code"].as_str()), (431, Some("head_too_large")));
        assert_eq!(client.get("/api/x").await.status, 200);
    });
}

#[test]
fn a_drain_lets_running_streams_finish_and_tells_the_caller_to_leave() {
    let released = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let holding = Arc::clone(&released);
    let api = Upstream::start(move |connection| {
        while connection.request().is_some() {
            crate::support::eventually("released", || holding.load(Ordering::SeqCst));
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
        }
    });
    let tokens = Upstream::tokens(3600);
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "");
    run(async {
        let client = H2Client::connect(proxy.address()).await;
        let request = client.ask("GET", "/api/x").body(()).expect("a request");
        let (response, _) = client.begin(request, true).await.expect("begun");
        let running = tokio::task::spawn_local(answer(response));
        while api.requests().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        proxy.process().signal("TERM");
        // What needs no upstream is answered until the caller knows that it is to leave.
        let left = loop {
            let request = client.ask("GET", "/nowhere").body(()).expect("a request");
            let answered = match client.begin(request, true).await {
                Ok((response, _)) => answer(response).await,
                Err(e) => Err(e),
            };
            if let Err(e) = answered {
                break e;
            }
        };
        assert!(left.is_go_away() || left.is_reset() || left.is_io(), "{left}");
        released.store(true, Ordering::SeqCst);
        assert_eq!(running.await.expect("no panic").expect("an answer").body, b"done");
    });
    proxy.wait_for_end();
}
