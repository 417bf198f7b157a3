//! The token goes to its upstream and nowhere else; the caller's credentials go nowhere; no secret is ever
//! said.

use crate::support::{
    Ca, Cupbearer, Ending, Scene, Stage, TlsUpstream, Upstream,
    h2::{Act, H2Upstream},
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn no_spelling_of_connection_costs_us_our_header_or_saves_the_callers() {
    let scene = Scene::new(Upstream::always(OK));
    let spellings = [
        "Connection: authorization\r\n",
        "connection: Authorization\r\n",
        "CONNECTION: AUTHORIZATION\r\n",
        "Connection:authorization\r\n",
        "Connection: \t authorization \t \r\n",
        "Connection: close, authorization\r\n",
        "Connection: authorization, close\r\n",
        "Connection: keep-alive, ,, authorization,\r\n",
        "Connection: keep-alive\r\nConnection: authorization\r\n",
        "Connection: authorization\r\nX: y\r\nConnection: authorization, x\r\n",
        "Connection: x\r\nconnection: y\r\nCONNECTION: close,Authorization\r\n",
        "Connection: authorization;q=1\r\n",
        "Connection: \"authorization\"\r\n",
        "Proxy-Connection: authorization\r\n",
        "Connection: Host, Content-Length, Transfer-Encoding, X-Request-Id, Authorization, Via, X-Forwarded-For\r\n",
        "Keep-Alive: authorization\r\n",
        "TE: authorization\r\n",
        "Trailer: authorization\r\n",
        "Upgrade: authorization\r\nConnection: upgrade\r\n",
    ];
    let credentials = [
        "",
        "Authorization: Bearer mine\r\n",
        "AUTHORIZATION: Basic bWluZQ==\r\nauthorization: Bearer mine\r\n",
        "Proxy-Authorization: Basic mine\r\nX-Api-Key: mine\r\n",
    ];
    for (number, spelling) in spellings.iter().enumerate() {
        for (which, credential) in credentials.iter().enumerate() {
            for fields in [format!("{spelling}{credential}"), format!("{credential}{spelling}")] {
                let target = format!("/{number}/{which}");
                let response = scene.proxy.request("POST", &format!("/api{target}"), &fields, b"hello");
                assert_eq!(response.status, 200, "{fields:?}: {}", response.text());
                let request = scene.api.requests().pop().expect("it came");
                assert_eq!(request.target(), target);
                // The stage checks that there is exactly one Authorization, and whose it is.
                assert!(!request.head.contains("mine") && !request.head.contains("bWluZQ"), "{}", request.head);
                assert_eq!(request.body, b"hello");
                for name in [
                    "connection",
                    "proxy-connection",
                    "keep-alive",
                    "te",
                    "trailer",
                    "upgrade",
                    "proxy-authorization",
                    "x-api-key",
                ] {
                    assert_eq!(request.header(name), None, "{}", request.head);
                }
                assert_eq!(request.header("content-length"), Some("5"));
            }
        }
    }
    scene.end();
}

#[test]
fn fields_that_connection_names_stay_here() {
    let scene = Scene::new(Upstream::always(OK));
    let fields = "X-One: 1\r\nConnection: x-one\r\nX-Two: 2\r\nx-three: 3\r\nConnection: close, X-TWO\r\nCookie: c\r\nConnection: cookie\r\n";
    assert_eq!(scene.proxy.request("GET", "/api/x", fields, b"").status, 200);
    let request = scene.only_request("/x");
    assert_eq!((request.header("x-one"), request.header("x-two"), request.header("x-three")), (None, None, Some("3")));
    assert_eq!(request.header("cookie"), None);
    scene.end();
}

#[test]
fn forwarding_fields_are_rebuilt_and_never_believed() {
    let scene = Scene::new(Upstream::always(OK));
    let fields = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /evil\r\n\
        X-Forwarded-Anything: evil\r\nForwarded: for=192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\nVia: 1.0 evil\r\nX-HTTP-Method-Override: DELETE\r\n\
        X-HTTP-Method: DELETE\r\nX-Method-Override: DELETE\r\nX-Original-URL: /evil\r\nX-Rewrite-URL: /evil\r\nX-Request-Id: mine-1\r\n";
    let response = scene.proxy.request("GET", "/api/x", fields, b"");
    assert_eq!(response.header("x-request-id"), Some("mine-1"));
    let request = scene.only_request("/x");
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.header("x-forwarded-host"), Some(scene.proxy.address().to_string().as_str()));
    assert_eq!(request.header("x-forwarded-proto"), Some("http"));
    assert_eq!(request.header("via"), Some("1.0 evil, 1.1 cupbearer"));
    assert_eq!(request.header("x-request-id"), Some("mine-1"));
    let lower = request.head.to_lowercase();
    for name in ["prefix", "anything", "\r\nforwarded:", "x-real-ip", "override", "x-http-method", "-url:"] {
        assert!(!lower.contains(name), "{name}: {}", request.head);
    }
    // An id that could break a log line, or is too long, is replaced.
    let long = "x".repeat(200);
    for id in ["a b", "a\u{e9}", "\"", "", long.as_str(), "a;b"] {
        let response = scene.proxy.request("GET", "/api/y", &format!("X-Request-Id: {id}\r\n"), b"");
        let ours = response.header("x-request-id").expect("an id").to_owned();
        assert!(ours != id && ours.len() == 32, "{id:?} → {ours:?}");
        assert_eq!(scene.api.requests().pop().expect("it came").header("x-request-id"), Some(ours.as_str()));
    }
    scene.end();
}

#[test]
fn a_token_can_be_injected_elsewhere_and_headers_set_and_removed() {
    let other = Upstream::always(OK);
    let more = format!(
        "[[routes]]\nprefix = \"/custom\"\nupstream = \"{other}/base\"\ncredential = \"c\"\ninject = \"X-Auth-Token: key={{token}};v=1\"\n\
         set_headers = {{ \"X-Client\" = \"{{client_id}}\", \"Accept\" = \"application/json\" }}\nremove_headers = [\"Cookie\", \"X-Secret-Thing\"]\n\
         host = \"preserve\"\n",
        other = other.url()
    );
    let scene = Stage::new(Upstream::always(OK)).more(&more).start();
    let fields = "X-AUTH-TOKEN: mine\r\nx-auth-token: mine\r\nConnection: x-auth-token, x-client, accept\r\nX-Client: mine\r\nACCEPT: text/html\r\naccept: */*\r\n\
        Cookie: mine\r\ncookie: mine\r\nx-secret-thing: mine\r\nAuthorization: Bearer mine\r\nX-Keep: kept\r\n";
    assert_eq!(scene.proxy.request("GET", "/custom/x", fields, b"").status, 200);
    let requests = other.requests();
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(request.line(), "GET /base/x HTTP/1.1");
    let token = request.header("x-auth-token").expect("injected");
    assert!(token.starts_with("key=not-a-token-") && token.ends_with(";v=1"), "{token}");
    assert_eq!((request.header("x-client"), request.header("accept")), (Some("id-c"), Some("application/json")));
    assert_eq!(request.header("host"), Some(scene.proxy.address().to_string().as_str()), "preserved");
    assert_eq!(request.header("x-keep"), Some("kept"));
    assert!(!request.head.contains("mine") && request.header("authorization").is_none(), "{}", request.head);
    scene.end();
}

#[test]
fn an_upstream_that_echoes_the_token_brings_it_into_no_output() {
    let api = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            let echo = request.header("authorization").unwrap_or_default().to_owned();
            match request.target() {
                "/broken" => connection.send(format!("{echo}\r\n\r\n")),
                "/headers" => connection.send(format!("HTTP/1.1 200 {echo}\r\nBad Name {echo}: x\r\n\r\n")),
                "/challenge" => connection.send(format!(
                    "HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer error=\"{echo}\"\r\nContent-Length: 0\r\n\r\n"
                )),
                _ => connection.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{echo}")),
            }
        }
    });
    let scene = Scene::new(api);
    // The stage looks through all that was printed, at trace level; expect_problem through the bodies.
    scene.get("/api/broken").expect_problem(502, "upstream_protocol");
    scene.get("/api/headers").expect_problem(502, "upstream_protocol");
    assert_eq!(scene.get("/api/challenge").status, 401, "the upstream's own answer goes through");
    let mut client = scene.send("GET /api/chunk HTTP/1.1\r\nHost: HOST\r\n\r\n");
    assert!(client.try_response(false).is_err());
    scene.end();
}

#[test]
fn a_callers_odd_bytes_come_back_escaped() {
    let scene = Scene::new(Upstream::always(OK));
    for host in ["<script>alert(1)</script>", "\"}\\", "evil\u{7f}".trim_end_matches('\u{7f}'), "\u{e9}\u{1f600}"] {
        let response = scene.send(&format!("GET /api/x HTTP/1.1\r\nHost: {host}\r\nOrigin: {host}\r\n\r\n")).response();
        response.expect_problem(421, "misdirected");
    }
    let problem =
        scene.proxy.request("GET", "/api/x", "Origin: \"><script>\r\n", b"").expect_problem(403, "origin_refused");
    assert!(problem["detail"].as_str().is_some(), "{problem}");
    scene.end();
}

/// A proxy with `/tls` in front of an upstream with its own roots, and its token endpoint on plain loopback.
fn tls_proxy(upstream: &str, ca: &Ca, tokens: &Upstream) -> Cupbearer {
    let builder = Cupbearer::builder().env("SECRET", "not-a-secret").server("workers = 1");
    let ca_file = builder.file("ca.pem", ca.pem());
    builder.start(&format!(
        "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"post\"\n\
         token_url = \"{}/token\"\nca_file = \"{}\"\n[[routes]]\nprefix = \"/tls\"\nupstream = \"{upstream}\"\ncredential = \"c\"\n\
         connect_timeout = \"1s\"\n",
        tokens.url(),
        ca_file.display()
    ))
}

fn end(proxy: Cupbearer) {
    proxy.expect_never_printed(&["not-a-token", "not-a-secret"]);
    proxy.stop();
}

#[test]
fn not_one_byte_is_sent_to_an_upstream_that_cannot_prove_its_name() {
    let (ca, foreign) = (Ca::new(), Ca::new());
    let tokens = Upstream::tokens(3600);
    for (what, (certificate, key)) in [
        ("another authority", foreign.issue(&["localhost"])),
        ("expired", ca.issue_until(&["localhost"], 2020)),
        ("another name", ca.issue(&["evil.example"])),
        ("an address only", ca.issue(&["127.0.0.1"])),
    ] {
        let upstream = TlsUpstream::start(&certificate, &key, OK, Ending::KeepAlive);
        let proxy = tls_proxy(&upstream.url(), &ca, &tokens);
        for (method, body) in [("GET", &b""[..]), ("POST", b"hello")] {
            let response = proxy.request(method, "/tls/x", "", body);
            assert_eq!(response.status, 502, "{what}: {}", response.text());
            let problem = response.expect_problem(502, "upstream_tls");
            assert!(problem["detail"].as_str().is_some_and(|d| d.contains("was not sent")), "{problem}");
        }
        assert!(upstream.connections() > 0, "{what}");
        assert!(upstream.received().is_empty(), "{what}: {:?}", String::from_utf8_lossy(&upstream.received()));
        end(proxy);
    }
    // Plain text where TLS should be.
    let plain = Upstream::start(|connection| {
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let head = connection.request_head();
        assert!(head.is_none(), "a request in plain text: {head:?}");
    });
    let proxy = tls_proxy(&plain.url().replace("http://127.0.0.1", "https://localhost"), &ca, &tokens);
    proxy.get("/tls/x").expect_problem(502, "upstream_tls");
    // And a server that takes the connection and says nothing.
    let silent = Upstream::start(crate::support::Connection::wait_for_close);
    let mute = tls_proxy(&silent.url().replace("http://127.0.0.1", "https://localhost"), &ca, &tokens);
    mute.get("/tls/x").expect_problem(504, "upstream_timeout");
    end(proxy);
    end(mute);
}

#[test]
fn no_secret_is_sent_to_a_provider_that_cannot_prove_its_name() {
    let (ca, foreign) = (Ca::new(), Ca::new());
    let (certificate, key) = foreign.issue(&["localhost"]);
    let provider = TlsUpstream::start(&certificate, &key, OK, Ending::CloseNotify);
    let api = Upstream::always(OK);
    let builder = Cupbearer::builder().env("SECRET", "not-a-secret");
    let ca_file = builder.file("ca.pem", ca.pem());
    let proxy = builder.start(&format!(
        "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"post\"\n\
         token_url = \"{}/token\"\nca_file = \"{}\"\n[[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"c\"\n",
        provider.url(),
        ca_file.display(),
        api.url()
    ));
    proxy.get("/api/x").expect_problem(503, "idp_unavailable");
    assert!(provider.connections() > 0 && provider.received().is_empty());
    assert!(api.heads().is_empty());
    end(proxy);
}

#[test]
fn over_tls_a_cut_is_no_end() {
    let ca = Ca::new();
    let (certificate, key) = ca.issue(&["localhost"]);
    let tokens = Upstream::tokens(3600);
    let until_close = "HTTP/1.1 200 OK\r\n\r\nhello";
    for (answer, ending, whole) in [
        (OK, Ending::KeepAlive, true),
        (until_close, Ending::CloseNotify, true),
        (until_close, Ending::Cut, false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", Ending::CloseNotify, false),
    ] {
        let upstream = TlsUpstream::start(&certificate, &key, answer, ending);
        let proxy = tls_proxy(&upstream.url(), &ca, &tokens);
        for version in ["1.1", "1.0"] {
            let mut client = proxy.connect();
            client.send(format!("GET /tls/x HTTP/{version}\r\nHost: {}\r\n\r\n", proxy.address()));
            let response = client.try_response(false);
            assert_eq!(response.is_ok(), whole, "{answer:?} {ending:?} to HTTP/{version}: {response:?}");
        }
        assert_eq!(upstream.handshakes(), if ending == Ending::KeepAlive { 1 } else { 2 });
        let received = String::from_utf8(upstream.received()).expect("text");
        assert_eq!(received.matches("Authorization: Bearer not-a-token-").count(), 2, "{received}");
        end(proxy);
    }
}

#[test]
fn what_a_tls_upstream_sends_beyond_its_answer_is_nobodys_answer() {
    let ca = Ca::new();
    let (certificate, key) = ca.issue(&["localhost"]);
    let tokens = Upstream::tokens(3600);
    // The surplus begins a TLS record of its own just where our read buffer is full.
    for size in [100, 16_384, 2 * 16_384, 4 * 16_384, 5 * 16_384] {
        let head = |body: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {body:05}\r\n\r\n");
        let body = size - head(0).len();
        let forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nFORGED";
        let answer = format!("{}{}{forged}", head(body), "x".repeat(body));
        let upstream = TlsUpstream::start(&certificate, &key, answer.leak(), Ending::KeepAlive);
        let proxy = tls_proxy(&upstream.url(), &ca, &tokens);
        for n in 0..3 {
            let response = proxy.get(&format!("/tls/{n}"));
            assert_eq!(
                (response.status, response.text().len()),
                (200, body),
                "request {n} after answers of {size} bytes"
            );
            // The surplus has to arrive before the next request: what comes later nobody can tell from an answer.
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        end(proxy);
    }
}

#[test]
fn libraries_that_see_requests_stay_quiet_whatever_the_filter_says() {
    let ca = Ca::new();
    let (certificate, key) = ca.issue(&["localhost"]);
    let api = H2Upstream::start_tls(&certificate, &key, |_| Act::ok("ok"));
    let tokens = Upstream::tokens(3600);
    for filter in [
        "trace",
        "h2=trace,hyper=trace,rustls=trace,hyper_util=trace,tokio_rustls=trace",
        "h2::proto=trace,h2::codec=trace,h2::hpack=trace,hyper::proto=trace,rustls::client=trace,rustls::common_state=trace",
        "off,[Connection]=trace,[{peer}]=trace,[hpack::decode]=trace,[FramedRead::poll_next]=trace,cupbearer=info",
    ] {
        let builder = Cupbearer::builder().env("SECRET", "not-a-secret").env("CUPBEARER_LOG", filter);
        builder.file("root.pem", ca.pem());
        let proxy = builder.start(&format!(
            "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\ntoken_url = \"{}/token\"\n\
             [[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"c\"\nca_file = \"root.pem\"\n",
            tokens.url(),
            api.url()
        ));
        assert_eq!(proxy.get("/api/x").status, 200);
        let output = proxy.stop();
        let library = |line: &&str| {
            ["h2", "hyper", "hyper_util", "rustls", "tokio_rustls"].iter().any(|name| {
                [" DEBUG ", " TRACE "]
                    .iter()
                    .any(|level| line.split_once(level).is_some_and(|(_, rest)| rest.contains(&format!("{name}::"))))
            })
        };
        let line = output.lines().find(library);
        assert!(line.is_none(), "{filter}: {line:?}");
    }
}
