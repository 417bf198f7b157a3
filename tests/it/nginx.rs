//! In front of a real nginx: keep-alive, ranges, uploads, early answers, redirects.

use std::fs;

use crate::support::{Cupbearer, Nginx, TestDir, Upstream, noise};

/// Only a request with the first token of [`Upstream::tokens`] is served.
const SERVER: &str = r#"
    if ($http_authorization != "Bearer not-a-token-1") { return 401; }
    location /static/ { alias DIR/static/; add_header X-Connection "$connection $connection_requests"; }
    location /short/ { alias DIR/static/; keepalive_requests 3; add_header X-Connection "$connection"; }
    location /upload/ { alias DIR/upload/; dav_methods PUT DELETE; client_max_body_size 0; create_full_put_path on; }
    location /small/ { alias DIR/upload/; dav_methods PUT; client_max_body_size 1k; }
    location /moved { return 301 /static/there?x=1; }
    location /chunked { gzip on; gzip_min_length 1; gzip_types *; gzip_proxied any; alias DIR/static/page.html; }
"#;

struct Setup {
    nginx: Nginx,
    tokens: Upstream,
    proxy: Cupbearer,
    page: Vec<u8>,
}

/// nginx behind `/plain` and `/tls`.
fn setup() -> Setup {
    let dir = TestDir::new();
    let page = noise(100_000);
    dir.write("static/page.bin", &page);
    dir.write("static/page.html", "<p>hello</p>\n".repeat(1000));
    dir.write("upload/.keep", "");
    let nginx = Nginx::start(dir, SERVER);
    let tokens = Upstream::tokens(3600);
    let config = format!(
        "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"post\"\n\
         token_url = \"{tokens}/token\"\nca_file = \"{ca}\"\n\
         [[routes]]\nprefix = \"/plain\"\nupstream = \"{plain}\"\ncredential = \"c\"\n\
         [[routes]]\nprefix = \"/tls\"\nupstream = \"{tls}\"\ncredential = \"c\"\n",
        tokens = tokens.url(),
        ca = nginx.ca_file().display(),
        plain = nginx.url(),
        tls = nginx.tls_url(),
    );
    let proxy = Cupbearer::builder().env("SECRET", "not-a-secret").server("workers = 1").start(&config);
    Setup { nginx, tokens, proxy, page }
}

#[test]
#[ignore = "needs nginx: run tests/run"]
fn a_file_comes_through_byte_for_byte_over_plain_and_tls() {
    let setup = setup();
    let Setup { proxy, page, tokens, .. } = &setup;
    for prefix in ["/plain", "/tls"] {
        let response = proxy.get(&format!("{prefix}/static/page.bin"));
        assert_eq!(response.status, 200);
        assert!(response.body == *page, "{prefix}: other bytes");
        let etag = response.header("etag").expect("nginx sends one").to_owned();

        let fields = format!("If-None-Match: {etag}\r\n");
        assert_eq!(proxy.request("GET", &format!("{prefix}/static/page.bin"), &fields, b"").status, 304);

        let part = proxy.request("GET", &format!("{prefix}/static/page.bin"), "Range: bytes=500-999\r\n", b"");
        assert_eq!((part.status, part.body.as_slice()), (206, &page[500..1000]));

        let head = proxy.request("HEAD", &format!("{prefix}/static/page.bin"), "", b"");
        assert_eq!(head.header("content-length"), Some("100000"));
    }
    assert_eq!(tokens.requests().len(), 1, "one token for both routes");
}

#[test]
#[ignore = "needs nginx: run tests/run"]
fn upstream_connections_are_kept_and_used_again() {
    let setup = setup();
    let Setup { proxy, .. } = &setup;
    for prefix in ["/plain", "/tls"] {
        let request = format!("GET {prefix}/static/page.bin HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address());
        let mut client = proxy.connect();
        let facts: Vec<String> = (0..20)
            .map(|_| client.exchange(&request).header("x-connection").expect("nginx sends it").to_owned())
            .collect();
        let connection = facts[0].split(' ').next().expect("a number");
        let expected: Vec<String> = (1..=20).map(|request| format!("{connection} {request}")).collect();
        assert_eq!(facts, expected, "{prefix}");
    }
}

#[test]
#[ignore = "needs nginx: run tests/run"]
fn a_connection_that_nginx_has_ended_is_never_a_callers_problem() {
    let setup = setup();
    let Setup { proxy, .. } = &setup;
    for prefix in ["/plain", "/tls"] {
        let request = format!("GET {prefix}/short/page.bin HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address());
        let mut client = proxy.connect();
        for round in 0..30 {
            let response = client.exchange(&request);
            assert_eq!(response.status, 200, "{prefix}, round {round}: {}", response.text());
        }
    }
}

#[test]
#[ignore = "needs nginx: run tests/run"]
fn uploads_arrive_byte_for_byte_with_a_length_and_chunked() {
    let setup = setup();
    let Setup { proxy, nginx, .. } = &setup;
    let body = noise(5_000_000);
    for prefix in ["/plain", "/tls"] {
        let name = &prefix[1..];
        let sized = proxy.request("PUT", &format!("{prefix}/upload/{name}-sized"), "", &body);
        assert_eq!((sized.status, sized.body.len()), (201, 0));
        let mut client = proxy.connect();
        let (target, host) = (format!("{prefix}/upload/{name}-chunked"), proxy.address());
        client.send(format!("PUT {target} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"));
        for chunk in body.chunks(123_457) {
            client.send(format!("{:X};ext=1\r\n", chunk.len()));
            client.send(chunk);
            client.send("\r\n");
        }
        client.send("0\r\nX-Trailer: t\r\n\r\n");
        assert_eq!(client.response().status, 201);
        let gone = client.exchange(format!("DELETE {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(gone.status, 204);
        let stored = fs::read(nginx.dir().join(format!("upload/{name}-sized"))).expect("nginx stored it");
        assert!(stored == body, "{prefix}: other bytes");
    }
}

#[test]
#[ignore = "needs nginx: run tests/run"]
fn an_answer_that_comes_before_the_body_is_passed_on() {
    let setup = setup();
    let Setup { proxy, .. } = &setup;
    for prefix in ["/plain", "/tls"] {
        let mut client = proxy.connect();
        let (target, host) = (format!("{prefix}/small/x"), proxy.address());
        client.send(format!("PUT {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n"));
        // nginx judges the head alone; the proxy may stop reading as soon as it has the answer.
        let _ = client.try_send(noise(10_000));
        assert_eq!(client.response().status, 413, "{prefix}");
    }
    assert_eq!(proxy.get("/plain/static/page.bin").status, 200, "the next request is not harmed");
}

#[test]
#[ignore = "needs nginx: run tests/run"]
fn a_redirect_stays_behind_the_prefix_and_is_not_followed() {
    let setup = setup();
    let Setup { proxy, .. } = &setup;
    for prefix in ["/plain", "/tls"] {
        let response = proxy.get(&format!("{prefix}/moved"));
        assert_eq!(response.status, 301);
        let location = response.header("location").expect("nginx sends one");
        let path = location.strip_prefix(&format!("http://{}", proxy.address())).unwrap_or(location);
        assert_eq!(path, format!("{prefix}/static/there?x=1"), "from {location}");
    }
}

#[test]
#[ignore = "needs nginx: run tests/run"]
fn a_compressed_chunked_body_is_left_as_it_is() {
    let setup = setup();
    let Setup { proxy, .. } = &setup;
    for prefix in ["/plain", "/tls"] {
        let response = proxy.request("GET", &format!("{prefix}/chunked"), "Accept-Encoding: gzip\r\n", b"");
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-encoding"), Some("gzip"));
        assert_eq!(response.header("transfer-encoding"), Some("chunked"));
        assert_eq!(response.body[..2], [0x1f, 0x8b]);
    }
}
