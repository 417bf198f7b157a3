//! Request heads and bodies that two servers might read differently: refused and closed, or forwarded as
//! exactly one request with an identical body.

use std::{thread, time::Duration};

use crate::support::{Client, ReadError, Scene, Stage, Upstream, eventually, noise};

/// Answers every whole request with the number of bytes of its decoded body.
fn counting() -> Upstream {
    Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            let body = request.decoded_body().len().to_string();
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        }
    })
}

/// A complete request that must never be found behind one that was refused.
const SMUGGLED: &str = "GET /api/smuggled HTTP/1.1\r\nHost: HOST\r\n\r\n";

/// Sends `text` and a request behind it: the answer must be this error alone, and then the end.
fn expect_refusal(scene: &Scene, text: &str, status: u16, code: &str) {
    let mut client = scene.send(&format!("{text}{SMUGGLED}"));
    match client.try_response(false) {
        Ok(response) => {
            assert_eq!(response.status, status, "{text:?}: {}", response.text());
            response.expect_problem(status, code);
            assert_eq!(response.header("connection"), Some("close"), "{text:?}");
        }
        Err(error) => panic!("{text:?}: {error:?}"),
    }
    client.expect_close();
}

#[test]
fn a_head_with_two_readings_is_refused_and_the_connection_closed() {
    let scene = Scene::new(counting());
    let post =
        |fields: &str| format!("POST /api/refused HTTP/1.1\r\nHost: HOST\r\n{fields}\r\n5\r\nhello\r\n0\r\n\r\n");
    let get = |fields: &str| format!("GET /api/refused HTTP/1.1\r\nHost: HOST\r\n{fields}\r\n");
    for fields in [
        // Both lengths, in every order.
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nX: y\r\nContent-Length: 0\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
        "content-length: 5\r\nTRANSFER-ENCODING: xchunked\r\n",
        // Lengths that are no plain number, or not one.
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5,5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 5;\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length: 5e0\r\n",
        "Content-Length: five\r\n",
        "Content-Length:\r\n",
        "Content-Length: \"5\"\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 18446744073709551621\r\n",
        "Content-Length: 99999999999999999999999999999999\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\ncontent-length: 6\r\n",
        // Transfer codings that some take for chunked, and chunked twice.
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: ,\r\n",
        "Transfer-Encoding: chun ked\r\n",
        "Transfer-Encoding: chunked\0\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: \x0cchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        "Transfer-Encoding\r\n : chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "\x0bTransfer-Encoding: chunked\r\n",
        "Transfer_Encoding: chunked\r\n",
        "Content_Length: 5\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\n",
        "Transfer-Encoding: chunked\r\r\n",
    ] {
        expect_refusal(&scene, &post(fields), 400, "bad_request");
    }
    for fields in [
        "Host: HOST\r\n",
        "host: HOST\r\n",
        "hOsT: evil.example\r\n",
        "No-Colon\r\n",
        ": empty\r\n",
        " X: y\r\n",
        "\tX: y\r\n",
        "X: y\r\n folded\r\n",
        "X: y\r\n\tfolded\r\n",
        "X : y\r\n",
        "X\0: y\r\n",
        "X: \0\r\n",
        "X: a\0b\r\n",
        "X: a\rb\r\n",
        "X: a\x7fb\r\n",
        "X: a\x01b\r\n",
        "X(y): z\r\n",
        "X\u{e9}: z\r\n",
        "X[0]: z\r\n",
        "X_Y: z\r\n",
        "X: y\n",
        "X: y\r\n\n",
    ] {
        expect_refusal(&scene, &get(fields), 400, "bad_request");
    }
    for text in [
        "GET /api/refused HTTP/1.1\r\n\r\n",
        "GET /api/refused HTTP/1.0\r\n\r\n",
        "GET /api/refused HTTP/1.1\r\nX: y\r\n\r\n",
        "GET /api/refused HTTP/1.1\nHost: HOST\n\n",
        "GET /api/refused HTTP/1.1\r\nHost: HOST\n\r\n",
        "GET /api/refused HTTP/1.1\r\nHost: HOST\r\n\n",
        "GET  /api/refused HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "GET\t/api/refused HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "GET /api/refused  HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "GET /api/refused HTTP/1.1 \r\nHost: HOST\r\n\r\n",
        "GET /api/refused HTTP/1.1\r\r\nHost: HOST\r\n\r\n",
        "GET /api/re fused HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "GET /api/refused\r\nHost: HOST\r\n\r\n",
        "GET /api/refused http/1.1\r\nHost: HOST\r\n\r\n",
        "GET /api/refused HTTP/1.1\0\r\nHost: HOST\r\n\r\n",
        "GET /api/refused\0 HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "GET /api/\u{fc} HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "GET\r\n\r\n",
        " GET /api/refused HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "get /api/refused HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "Get /api/refused HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "G@T /api/refused HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "\u{feff}GET /api/refused HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "POST /api/refused HTTP/1.0\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "POST /api/refused HTTP/1.0\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
        "\r\n\r\nGET /api/refused HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "\nGET /api/refused HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ] {
        expect_refusal(&scene, text, 400, "bad_request");
    }
    for coding in ["gzip", "gzip, chunked", "chunked, gzip", "identity", "xchunked", "deflate", "chunked;q=1"] {
        expect_refusal(&scene, &post(&format!("Transfer-Encoding: {coding}\r\n")), 501, "unknown_coding");
    }
    for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/11", "HTTP/1.10", "HTTP/3"] {
        let text = format!("GET /api/refused {version}\r\nHost: HOST\r\n\r\n");
        expect_refusal(&scene, &text, 505, "bad_version");
    }
    for expectation in ["a-miracle", "100-continue, a-miracle", "100-continue=1", ""] {
        let text = format!("Content-Length: 5\r\nExpect: {expectation}\r\n");
        expect_refusal(&scene, &post(&text), 417, "bad_expectation");
    }
    expect_refusal(
        &scene,
        &post("Expect: a-miracle\r\nExpect: 100-continue\r\nContent-Length: 5\r\n"),
        417,
        "bad_expectation",
    );
    assert!(scene.heads_with("smuggled").is_empty() && scene.heads_with("refused").is_empty());
    scene.end();
}

#[test]
fn a_target_in_a_form_that_is_not_for_us_is_refused() {
    let scene = Scene::new(counting());
    let plain = [
        ("OPTIONS * HTTP/1.1", 400, "bad_request"),
        ("GET * HTTP/1.1", 400, "bad_request"),
        ("GET api/refused HTTP/1.1", 400, "bad_request"),
        ("GET http:/api/refused HTTP/1.1", 400, "bad_request"),
        ("GET https://HOST/api/refused HTTP/1.1", 400, "bad_request"),
        ("GET ftp://HOST/api/refused HTTP/1.1", 400, "bad_request"),
        ("GET http://HOST HTTP/1.1", 400, "bad_request"),
        ("GET http://HOST?/api/refused HTTP/1.1", 400, "bad_request"),
        ("GET http://evil.example/api/refused HTTP/1.1", 421, "misdirected"),
        ("GET http://user@HOST/api/refused HTTP/1.1", 421, "misdirected"),
        ("GET http:///api/refused HTTP/1.1", 421, "misdirected"),
        ("CONNECT HOST HTTP/1.1", 405, "method_refused"),
        ("CONNECT /api/refused HTTP/1.1", 405, "method_refused"),
        ("TRACE /api/refused HTTP/1.1", 405, "method_refused"),
    ];
    for (line, status, code) in plain {
        let client = scene.send(&format!("{line}\r\nHost: HOST\r\nConnection: close\r\n\r\n"));
        client.last_response().expect_problem(status, code);
    }
    for host in [
        "evil.example",
        "HOST, evil.example",
        "HOST@evil.example",
        "evil.example@HOST",
        "HOST.",
        "",
        "127.0.0.1",
        "127.0.0.1:0",
        "localhost:080",
        "HOST/x",
        "HOST HOST",
        "[::1",
        "0.0.0.0:80",
        "127.1:80",
        "[::ffff:127.0.0.1]:80",
    ] {
        let client = scene.send(&format!("GET /api/refused HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        client.last_response().expect_problem(421, "misdirected");
    }
    let client = scene.send("CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\nConnection: close\r\n\r\n");
    client.last_response().expect_problem(421, "misdirected");
    assert!(scene.heads_with("refused").is_empty());

    let same = scene.send("GET http://HOST/api/same?x HTTP/1.1\r\nHost: HOST\r\n\r\n").response();
    assert_eq!(same.status, 200);
    assert_eq!(scene.only_request("/same?x").header("host"), Some(scene.api.address().to_string().as_str()));
    scene.end();
}

#[test]
fn every_legal_spelling_is_forwarded_once_with_an_identical_body() {
    let scene = Scene::new(counting());
    let longest_digits = format!("{}5", "0".repeat(18));
    let cases: [(&str, String, usize); 14] = [
        ("cl", "Content-Length: 5\r\n\r\nhello".into(), 5),
        ("ows", "Content-Length: \t 5 \t\r\n\r\nhello".into(), 5),
        ("bare", "content-length:5\r\n\r\nhello".into(), 5),
        ("zeros", format!("CONTENT-LENGTH: {longest_digits}\r\n\r\nhello"), 5),
        ("none", "\r\n".into(), 0),
        ("zero", "Content-Length: 0\r\n\r\n".into(), 0),
        ("te", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".into(), 5),
        ("te-case", "transfer-ENCODING:\tChUnKeD \r\n\r\n005\r\nhello\r\n000\r\n\r\n".into(), 5),
        ("te-empty", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), 0),
        ("te-ext", "Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nhe\r\n3;x=\"y;z\"\r\nllo\r\n0;end\r\n\r\n".into(), 5),
        (
            "te-trailers",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\nAuthorization: z\r\n\r\n".into(),
            5,
        ),
        ("te-hex", "Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n".into(), 20),
        ("obs-text", "X: \u{e9}\u{fc}\r\nX-Empty:\r\nContent-Length: 5\r\n\r\nhello".into(), 5),
        ("expect", "Expect: 100-Continue\r\nContent-Length: 5\r\n\r\nhello".into(), 5),
    ];
    for (name, rest, length) in cases {
        let mut client = scene.send(&format!("POST /api/{name} HTTP/1.1\r\nHost: HOST\r\n{rest}"));
        let response = client.response();
        assert_eq!((response.status, response.text()), (200, length.to_string()), "{name}");
        let request = scene.only_request(&format!("/{name}"));
        assert_eq!(request.decoded_body().len(), length, "{name}");
        assert_eq!(
            request.all("content-length").count() + request.all("transfer-encoding").count(),
            usize::from(name != "none"),
            "{name}: {}",
            request.head
        );
        // The connection goes on exactly where this request ended.
        let next = client.exchange(scene.fill(&format!("GET /api/after-{name} HTTP/1.1\r\nHost: HOST\r\n\r\n")));
        assert_eq!(next.status, 200, "{name}");
        scene.only_request(&format!("/after-{name}"));
    }
    assert_eq!(scene.only_request("/zero").header("content-length"), Some("0"));
    scene.end();
}

#[test]
fn a_broken_chunked_body_never_becomes_a_whole_request() {
    let scene = Scene::new(counting());
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5_0\r\nhello\r\n0\r\n\r\n",
        "G\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        ";x\r\nhello\r\n0\r\n\r\n",
        "5;\0\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\r\n0\r\n\r\n",
        "10000000000000000\r\nhello\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        "100000000000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n0\r\nX: y\n\r\n",
        "5\r\nhello\r\n0\r\nX y\r\n\r\n",
        "5\r\nhello\r\n0\r\n X: y\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: \0\r\n\r\n",
        "5\r\nhello\r\n0\rX\n\r\n",
    ] {
        let mut client = scene.send(&format!(
            "POST /api/broken HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n{body}{SMUGGLED}"
        ));
        let response = client.response();
        assert_eq!(response.status, 400, "{body:?}: {}", response.text());
        response.expect_problem(400, "bad_request");
        client.expect_close();
    }
    assert!(scene.api.requests().is_empty(), "no body came to an end: {:?}", scene.api.requests());
    assert!(scene.heads_with("smuggled").is_empty());
    scene.end();
}

#[test]
fn an_unfinished_request_is_never_a_whole_one_upstream() {
    let scene = Scene::new(counting());
    for text in [
        "POST /api/cut HTTP/1.1\r\nHost: HOST\r\nContent-Length: 10\r\n\r\nhello",
        "POST /api/cut HTTP/1.1\r\nHost: HOST\r\nContent-Length: 10\r\n\r\n",
        "POST /api/cut HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "POST /api/cut HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "POST /api/cut HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "POST /api/cut HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let mut client = scene.send(text);
        client.end_of_sending();
        match client.try_response(false) {
            Err(ReadError::Closed) => {}
            other => panic!("{text:?}: {other:?}"),
        }
    }
    // Heads that end too early are answered, as nothing is lost by saying so.
    for text in ["GET /api/cut HTTP/1.1\r\nHost: HOST\r\n", "GET /api/cut", "G"] {
        let client = scene.send(text);
        client.end_of_sending();
        client.last_response().expect_problem(400, "bad_request");
    }
    // A connection on which nothing was asked just ends.
    for text in ["", "\r\n"] {
        let mut client = scene.send(text);
        client.end_of_sending();
        client.expect_close();
    }
    assert!(scene.api.requests().is_empty());
    scene.end();
}

const PIPELINE: &str = "GET /api/p1?a HTTP/1.1\r\nHost: HOST\r\n\r\n\
    POST /api/p2 HTTP/1.1\r\nHost: HOST\r\nContent-Length: 8\r\n\r\nab\r\n\r\ncd\
    POST /api/p3 HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n\
    3\r\n\r\n0\r\nc;x=y\r\nhello\r\n\r\nxyz\r\n0\r\nX: y\r\n\r\n\
    DELETE /api/p4 HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n";
const PIPELINE_LENGTHS: [&str; 4] = ["0", "8", "15", "0"];

/// Sends the pipeline in pieces that end where `cuts` say; all four answers must come, in order.
fn expect_pipeline(scene: &Scene, cuts: &[usize], pause: Duration) {
    let text = scene.fill(PIPELINE);
    let mut client: Client = scene.proxy.connect();
    let mut from = 0;
    for &cut in cuts.iter().chain([text.len()].iter()) {
        client.send(&text[from..cut]);
        from = cut;
        if cut < text.len() {
            // Only makes it likely that the pieces are read one by one; nothing depends on it.
            thread::sleep(pause);
        }
    }
    for length in PIPELINE_LENGTHS {
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (200, length), "cut at {cuts:?}");
    }
    client.expect_close();
}

#[test]
fn pipelined_requests_are_read_the_same_wherever_they_are_cut() {
    let scene = Scene::new(counting());
    let length = scene.fill(PIPELINE).len();
    thread::scope(|scope| {
        for part in 0..4 {
            let scene = &scene;
            scope.spawn(move || {
                for cut in (1..length).filter(|cut| cut % 4 == part) {
                    expect_pipeline(scene, &[cut], Duration::from_micros(400));
                }
            });
        }
    });
    expect_pipeline(&scene, &(1..length).collect::<Vec<_>>(), Duration::from_micros(100));
    expect_pipeline(&scene, &[], Duration::ZERO);
    let requests = scene.api.requests();
    assert_eq!(requests.len(), 4 * (length + 1));
    for (target, body) in
        [("/p1?a", &b""[..]), ("/p2", b"ab\r\n\r\ncd"), ("/p3", b"\r\n0hello\r\n\r\nxyz"), ("/p4", b"")]
    {
        let all: Vec<_> = requests.iter().filter(|r| r.target() == target).collect();
        assert_eq!(all.len(), length + 1, "{target}");
        // The third byte of a CR LF that belongs to the data is where a lenient reader loses count.
        assert!(all.iter().all(|r| r.decoded_body() == body), "{target}: {:?}", all[0]);
    }
    scene.end();
}

#[test]
fn requests_that_break_the_limits_get_their_own_answers() {
    let scene = Stage::new(counting()).server("max_header_bytes = \"8KiB\"").start();
    let long = "x".repeat(5000);
    expect_refusal(
        &scene,
        &format!("GET /api/{long} HTTP/1.1\r\nHost: HOST\r\nX: {long}\r\n\r\n"),
        414,
        "uri_too_long",
    );
    expect_refusal(&scene, &format!("GET /api/{long}{long}{long} HTTP/1.1\r\nHost: HOST\r\n\r\n"), 414, "uri_too_long");
    let target = |length: usize| format!("/api/{}", "x".repeat(length - 5));
    assert_eq!(scene.get(&target(4096)).status, 200);
    scene.get(&target(4097)).expect_problem(414, "uri_too_long");
    expect_refusal(
        &scene,
        &format!("GET /api HTTP/1.1\r\nHost: HOST\r\nX: {long}\r\nY: {long}\r\n\r\n"),
        431,
        "head_too_large",
    );
    expect_refusal(
        &scene,
        &format!("GET /api HTTP/1.1\r\nHost: HOST\r\n{}\r\n", "X: y\r\n".repeat(128)),
        431,
        "head_too_large",
    );
    // Endless: never an empty line.
    let mut client = scene.send("GET /api HTTP/1.1\r\nHost: HOST\r\n");
    while client.try_send("X: 0123456789012345678901234567890123456789\r\n".repeat(20)).is_ok() {}
    if let Ok(response) = client.try_response(false) {
        response.expect_problem(431, "head_too_large");
    }
    // Just within.
    let fields = "X: y\r\n".repeat(127);
    assert_eq!(scene.send(&format!("GET /api/many HTTP/1.1\r\nHost: HOST\r\n{fields}\r\n")).response().status, 200);
    assert_eq!(scene.only_request("/many").all("x").count(), 127);
    let target = format!("/api/{}", "x".repeat(4000));
    assert_eq!(scene.get(&target).status, 200);
    scene.end();
}

#[test]
fn what_is_no_http_at_all_is_refused_or_dropped() {
    let scene = Stage::new(counting()).server("header_timeout = \"300ms\"").start();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x0a\x0d\x0a\x0d\x0a";
    for bytes in [&hello[..], b"\0\0\0\0\r\n\r\n", &noise(20_000), b"SSH-2.0-x\r\n\r\n", b"\r\r\r\r\n\n"] {
        let mut client = scene.proxy.connect();
        let _ = client.try_send(bytes);
        let response = client.try_response(false);
        assert!(
            matches!(&response, Ok(r) if matches!(r.status, 400 | 408 | 414 | 431))
                || matches!(response, Err(ReadError::Closed | ReadError::Truncated(_))),
            "{response:?}"
        );
    }
    assert!(scene.api.heads().is_empty());
    scene.end();
}

#[test]
fn a_caller_that_expects_100_continue_sends_its_body_when_the_upstream_asks_for_it() {
    let api = Upstream::start(|connection| {
        while let Some(head) = connection.request_head() {
            if head.starts_with("POST /refuses") {
                connection.send("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
                return;
            }
            assert_eq!(head.to_lowercase().matches("\r\nexpect: 100-continue\r\n").count(), 1);
            connection.send("HTTP/1.1 100 Continue\r\n\r\n");
            let body = connection.body_of(&head).expect("the body comes after 100 Continue");
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
            connection.send(&body);
        }
    });
    let scene = Scene::new(api);
    for framing in ["Content-Length: 5\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"] {
        let mut client =
            scene.send(&format!("POST /api/takes HTTP/1.1\r\nHost: HOST\r\nExpect: 100-continue\r\n{framing}"));
        assert_eq!(client.response().status, 100);
        client.send(if framing.starts_with('C') { "hello" } else { "5\r\nhello\r\n0\r\n\r\n" });
        let response = client.response();
        assert_eq!(response.status, 200);
        assert!(response.text().contains("hello"));
    }
    // A final answer instead: the body is never sent, and the connection cannot go on.
    let client =
        scene.send("POST /api/refuses HTTP/1.1\r\nHost: HOST\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let response = client.last_response();
    assert_eq!((response.status, response.text().as_str()), (413, "no"));
    // Our own refusal likewise.
    let client =
        scene.send("POST /nowhere HTTP/1.1\r\nHost: HOST\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    client.last_response().expect_problem(404, "no_route");
    scene.end();
}

#[test]
fn a_body_that_does_not_wait_for_leave_is_held_to_the_grammar_and_to_max_body() {
    // It takes everything and says nothing.
    let api = Upstream::start(
        |connection| while connection.request_head().is_some_and(|h| connection.body_of(&h).is_some()) {},
    );
    let scene = Stage::new(api).route("max_body = \"8B\"").start();
    let head = "POST /api/x HTTP/1.1\r\nHost: HOST\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = scene.send(&format!("{head}3\r\nabc\r"));
    eventually("its head came", || scene.api.heads().len() == 1);
    client.send("\n3\rX\r\n0\r\n\r\n");
    client.last_response().expect_problem(400, "bad_request");
    let mut client = scene.send(&format!("{head}5\r\nhello\r\n"));
    eventually("its head came", || scene.api.heads().len() == 2);
    client.send("5\r\nworld\r\n0\r\n\r\n");
    client.last_response().expect_problem(413, "body_too_large");
    scene.end();
}

#[test]
fn a_caller_that_waits_for_leave_gets_it_where_the_upstream_says_nothing() {
    let scene = Scene::new(Upstream::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    let head = "POST /api/x HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    let mut client = scene.send(head);
    assert_eq!(client.response().status, 100, "the upstream never says it");
    client.send("body");
    assert_eq!(client.response().text(), "ok");
    let mut client = scene.send(&format!("{head}body"));
    assert_eq!(client.response().status, 200, "one that does not wait needs none");
    assert_eq!(scene.api.requests().len(), 2);
    scene.end();
}

#[test]
fn interim_responses_reach_http_1_1_callers_only() {
    let api = Upstream::start(|connection| {
        while connection.request().is_some() {
            connection.send("HTTP/1.1 102 Processing\r\n\r\n");
            connection.send(
                "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n",
            );
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let scene = Scene::new(api);
    let mut client = scene.send("GET /api/x HTTP/1.1\r\nHost: HOST\r\n\r\n");
    assert_eq!(client.response().status, 102);
    let hints = client.response();
    assert_eq!(hints.status, 103);
    assert_eq!(hints.header("link"), Some("</api/style.css>; rel=preload"), "behind the prefix");
    assert_eq!((hints.header("x-hop"), hints.header("connection")), (None, None));
    assert_eq!(client.response().text(), "ok");
    let old = scene.send("GET /api/x HTTP/1.0\r\nHost: HOST\r\n\r\n");
    assert_eq!(old.last_response().text(), "ok");
    scene.end();
}

#[test]
fn an_upgrade_is_neither_passed_on_nor_granted() {
    let api = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            assert_eq!((request.header("upgrade"), request.header("http2-settings")), (None, None), "{}", request.head);
            if request.target() == "/switches" {
                connection.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n");
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled");
                connection.wait_for_close();
                return;
            }
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let scene = Scene::new(api);
    for upgrade in ["h2c", "websocket", "TLS/1.0"] {
        let fields =
            format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABkAAQ\r\n");
        assert_eq!(scene.proxy.request("GET", "/api/plain", &fields, b"").text(), "ok");
        scene.proxy.request("GET", "/api/switches", &fields, b"").expect_problem(502, "upstream_protocol");
    }
    assert_eq!(scene.get("/api/next").text(), "ok");
    scene.end();
}

#[test]
fn a_connection_goes_on_after_an_error_where_the_next_request_is_certain() {
    let scene = Scene::new(counting());
    let mut client = scene.proxy.connect();
    for _ in 0..3 {
        for (request, status, code) in [
            ("GET /nowhere HTTP/1.1\r\nHost: HOST\r\n\r\n", 404, "no_route"),
            ("GET /api/../x HTTP/1.1\r\nHost: HOST\r\n\r\n", 400, "bad_path"),
            ("POST /nowhere HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\n\r\nhello", 404, "no_route"),
            ("TRACE /api HTTP/1.1\r\nHost: HOST\r\n\r\n", 405, "method_refused"),
            ("GET /api HTTP/1.1\r\nHost: HOST\r\nOrigin: null\r\n\r\n", 403, "origin_refused"),
        ] {
            client.send(scene.fill(request));
            client.response().expect_problem(status, code);
        }
        client.send(scene.fill("HEAD /nowhere HTTP/1.1\r\nHost: HOST\r\n\r\n"));
        let head = client.head_response();
        head.expect_problem_head(404, "no_route");
        assert!(head.header("content-length").is_some_and(|length| length != "0"));
        assert_eq!(client.exchange(scene.fill("GET /api/ok HTTP/1.1\r\nHost: HOST\r\n\r\n")).text(), "0");
    }
    // A body that has not come, or whose end is not known, makes the next request uncertain.
    for framing in ["Content-Length: 50\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"] {
        let client = scene.send(&format!("POST /nowhere HTTP/1.1\r\nHost: HOST\r\n{framing}"));
        let response = client.last_response();
        response.expect_problem(404, "no_route");
        assert_eq!(response.header("connection"), Some("close"));
    }
    scene.end();
}

#[test]
fn an_error_after_a_forwarded_body_does_not_eat_the_next_request() {
    let api = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            if request.target() == "/dies" {
                return;
            }
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let scene = Scene::new(api);
    // Ten bytes of body, sent on; then a request that begins with ten bytes too many.
    let mut client = scene.send(
        "POST /api/dies HTTP/1.1\r\nHost: HOST\r\nContent-Length: 10\r\n\r\n0123456789\
         XXXXXXXXXXGET /api/smuggled HTTP/1.1\r\nHost: HOST\r\n\r\n",
    );
    client.response().expect_problem(502, "upstream_protocol");
    if let Ok(next) = client.try_response(false) {
        next.expect_problem(400, "bad_request");
    }
    assert!(scene.heads_with("smuggled").is_empty(), "the next request was read from its middle");
    drop(client);
    scene.end();
}

#[test]
fn an_http_1_0_caller_is_served_with_and_without_keep_alive() {
    let api = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            if request.target() == "/chunked" {
                connection.send(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x\r\n!\r\n0\r\nX: y\r\n\r\n",
                );
            } else {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
            }
        }
    });
    let scene = Scene::new(api);
    let client = scene.send("GET /api/a HTTP/1.0\r\nHost: HOST\r\n\r\n");
    let response = client.last_response();
    assert_eq!((response.text().as_str(), response.header("connection")), ("hello", Some("close")));

    let kept = "GET /api/a HTTP/1.0\r\nHost: HOST\r\nConnection: keep-alive\r\n\r\n";
    let mut client = scene.proxy.connect();
    for _ in 0..3 {
        let response = client.exchange(scene.fill(kept));
        assert_eq!((response.text().as_str(), response.header("connection")), ("hello", Some("keep-alive")));
    }
    // Chunks are unknown to it: the end of the connection is the end of the body.
    client.send(scene.fill("GET /api/chunked HTTP/1.0\r\nHost: HOST\r\nConnection: keep-alive\r\n\r\n"));
    let response = client.last_response();
    assert_eq!((response.text().as_str(), response.header("transfer-encoding")), ("hello!", None));
    assert_eq!(response.header("connection"), Some("close"));

    // An error must not leave it waiting: kept and said so, or closed.
    let mut client = scene.send("GET /nowhere HTTP/1.0\r\nHost: HOST\r\nConnection: keep-alive\r\n\r\n");
    let response = client.response();
    response.expect_problem(404, "no_route");
    match response.header("connection") {
        Some("keep-alive") => assert_eq!(client.exchange(scene.fill(kept)).text(), "hello"),
        Some("close") => client.expect_close(),
        other => panic!("an HTTP/1.0 caller cannot know whether the connection goes on: {other:?}"),
    }
    drop(client);
    let client = scene.send("GET /nowhere HTTP/1.0\r\nHost: HOST\r\n\r\n");
    client.last_response().expect_problem(404, "no_route");
    scene.end();
}

#[test]
fn a_leading_empty_line_is_tolerated() {
    let scene = Scene::new(counting());
    let mut client = scene.send("\r\nGET /api/first HTTP/1.1\r\nHost: HOST\r\n\r\n");
    assert_eq!(client.response().status, 200);
    client.send(scene.fill("POST /api/x HTTP/1.1\r\nHost: HOST\r\nContent-Length: 2\r\n\r\nab\r\nGET /api/y HTTP/1.1\r\nHost: HOST\r\n\r\n"));
    assert_eq!((client.response().text(), client.response().text()), ("2".to_owned(), "0".to_owned()));
    scene.end();
}

#[test]
fn targets_and_bodies_of_every_method_arrive_byte_for_byte() {
    let scene = Scene::new(counting());
    for target in [
        "/api",
        "/api/",
        "/api?",
        "/api/?",
        "/api/a?flag&b[]=1&c[x]=%5B%5D&d=a+b%2Bc&e==&&f",
        "/api/%C3%BC/%c3%bc?%zz%",
        "/api/a;b=c,d/(x)'!*$@:&=+~?/?x#".trim_end_matches('#'),
        "/api/v1.0/.well-known/..a/a..?../../x",
        "/api/a%20b%25c",
        "/api/a?x=/../y\\z|^`{}\"<>",
        "/api/a?//evil",
        "/api/-_.~",
        "/api/a:b@c",
    ] {
        for (method, body) in [
            ("GET", ""),
            ("GET", "body of a GET"),
            ("DELETE", "x"),
            ("POST", ""),
            ("PATCH", "p"),
            ("OPTIONS", ""),
            ("PURGE", ""),
        ] {
            let response = scene.proxy.request(method, target, "", body.as_bytes());
            assert_eq!((response.status, response.text()), (200, body.len().to_string()), "{method} {target}");
            let last = scene.api.requests().pop().expect("it came");
            let mut expected = target["/api".len()..].to_owned();
            if !expected.starts_with('/') {
                expected.insert(0, '/');
            }
            assert_eq!(last.line(), format!("{method} {expected} HTTP/1.1"));
            assert_eq!(last.body, body.as_bytes());
        }
    }
    scene.end();
}
