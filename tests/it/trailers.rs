//! Trailer fields go through in both directions; nothing can be smuggled in them.

use crate::support::{
    Cupbearer, Upstream,
    h2::{Act, H2Client, H2Message, H2Upstream, answer, fields, response, run, send},
};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum, Grpc-Status\r\n\r\n\
     5\r\nhello\r\n0\r\nX-Checksum: abc\r\nSet-Cookie: a=1\r\ncontent-length: 9\r\nConnection: close\r\n\
     WWW-Authenticate: Basic\r\nLocation: /x\r\nContent-Type: text/html\r\ngrpc-status: 0\r\n\r\n";

#[test]
fn trailers_of_an_answer_reach_the_caller_but_for_those_that_would_change_its_head() {
    let (api, tokens) = (Upstream::always(ANSWER), Upstream::tokens(3600));
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "");
    let response = proxy.get("/api/x");
    assert_eq!(response.text(), "hello");
    assert_eq!(response.header("trailer"), Some("X-Checksum, Grpc-Status"));
    let trailers: Vec<_> = response.trailers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(trailers, [("X-Checksum", "abc"), ("grpc-status", "0")]);
    assert_eq!(api.requests()[0].header("te"), None, "nobody asked for them");
}

#[test]
fn trailers_of_a_request_reach_the_upstream_but_never_a_field_that_is_ours() {
    let api = Upstream::always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let tokens = Upstream::tokens(3600);
    let proxy =
        Cupbearer::before(&api.url(), &tokens, "", "inject = \"X-Token: {token}\"\nremove_headers = [\"x-gone\"]");
    let mut client = proxy.connect();
    client.send(format!(
        "POST /api/x HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nTE: trailers;q=0.5\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Sum: 7\r\nX-Token: mine\r\nX-Gone: 1\r\nAuthorization: Bearer mine\r\nHost: evil\r\n\
         Content-Length: 5\r\nTransfer-Encoding: x\r\nX-Forwarded-For: 1.2.3.4\r\nCookie: a=1\r\nX-Api-Key: k\r\n\
         Range: bytes=0-\r\nX-End: yes\r\n\r\n",
        proxy.address()
    ));
    assert_eq!(client.response().status, 200);
    let request = &api.requests()[0];
    assert_eq!((request.header("trailer"), request.header("te")), (Some("X-Sum"), Some("trailers")));
    assert_eq!(request.header("connection"), Some("TE"));
    assert_eq!(request.header("x-token"), Some("not-a-token-1"));
    let body = String::from_utf8_lossy(&request.body);
    assert_eq!(body, "3\r\nabc\r\n0\r\nX-Sum: 7\r\nX-End: yes\r\n\r\n");
}

#[test]
fn a_trailer_field_that_announces_what_may_not_come_is_dropped() {
    let api = Upstream::always("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Set-Cookie\r\n\r\n0\r\n\r\n");
    let tokens = Upstream::tokens(3600);
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "");
    let response = proxy.request("POST", "/api/x", "Trailer: Authorization\r\n", b"with a length");
    assert_eq!(response.header("trailer"), None);
    assert_eq!(api.requests()[0].header("trailer"), None);
}

#[test]
fn underscores_in_the_trailers_of_an_answer_are_the_upstreams_own_affair() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\
        grpc-status: 0\r\nmy_key: v\r\n\r\n";
    let (h1, tokens) = (Upstream::always(ANSWER), Upstream::tokens(3600));
    let h2 = H2Upstream::start(|_| {
        let trailers = fields(&[("grpc-status", "0"), ("my_key", "v")]);
        Act::Answer(H2Message { trailers, ..response(200, &[("content-length", "")], "hello") })
    });
    for (url, line) in [(h1.url(), ""), (h2.url(), "http = \"h2\"")] {
        let proxy = Cupbearer::before(&url, &tokens, "", line);
        let response = proxy.get("/api/x");
        assert_eq!(response.text(), "hello");
        let trailers: Vec<_> = response.trailers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(trailers, [("grpc-status", "0"), ("my_key", "v")], "{line}");
        run(async {
            let response = H2Client::connect(proxy.address()).await.get("/api/x").await;
            assert_eq!(response.body, b"hello");
            assert_eq!(response.trailers, fields(&[("grpc-status", "0"), ("my_key", "v")]), "{line}");
        });
    }
}

#[test]
fn underscores_in_the_trailers_of_a_request_are_refused_as_in_its_head() {
    let api = Upstream::always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let tokens = Upstream::tokens(3600);
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "");
    let mut client = proxy.connect();
    client.send(format!(
        "POST /api/x HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX_Sum: 7\r\n\r\n",
        proxy.address()
    ));
    client.response().expect_problem(400, "bad_request");
    run(async {
        let client = H2Client::connect(proxy.address()).await;
        let request = client.ask("POST", "/api/x").body(()).expect("a request");
        let (response, stream) = client.begin(request, false).await.expect("begun");
        let (_, answer) = tokio::join!(send(stream, b"abc", Some(fields(&[("x_sum", "7")]))), answer(response));
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("bad_request")));
    });
    assert!(api.requests().is_empty(), "neither of them was whole");
}
