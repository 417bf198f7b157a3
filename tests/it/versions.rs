//! Every mix of versions, {HTTP/1.1, HTTP/2} in and out: the same request gives the same answer.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, mpsc},
    task::Poll,
};

use bytes::Bytes;

use crate::support::{
    Client, Cupbearer, PATIENCE, Upstream,
    h2::{Act, H2Client, H2Message, H2Upstream, answer, fields, response, run, send},
    noise,
};

/// One of the two versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    H1,
    H2,
}
use Version::{H1, H2};

const MIXES: [(Version, Version); 4] = [(H1, H1), (H1, H2), (H2, H1), (H2, H2)];

/// A server of either version that answers alike.
enum Server {
    H1(Upstream),
    H2(H2Upstream),
}

type Script = fn(&H2Message) -> H2Message;

impl Server {
    fn start(version: Version, script: Script) -> Self {
        match version {
            H1 => Self::H1(Upstream::start(move |connection| {
                while let Some(head) = connection.request_head() {
                    let mut lines = head.lines();
                    let mut words = lines.next().unwrap_or_default().split(' ');
                    let mut request = H2Message {
                        method: words.next().unwrap_or_default().to_owned(),
                        path: words.next().unwrap_or_default().to_owned(),
                        headers: fields(&lines.filter_map(|line| line.split_once(": ")).collect::<Vec<_>>()),
                        ..H2Message::default()
                    };
                    if request.headers.contains_key("expect") {
                        if request.path == "/refused" {
                            return connection.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
                        }
                        connection.send("HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    let Some(raw) = connection.body_of(&head) else { return };
                    let whole = crate::support::Request { connection: 0, head, body: raw.clone() };
                    request.body = whole.decoded_body();
                    let end = String::from_utf8_lossy(&raw[raw.len().saturating_sub(40)..]).into_owned();
                    if let Some((_, value)) = end.split_once("\r\nx-sum: ") {
                        request.trailers = fields(&[("x-sum", value.trim())]);
                    }
                    connection.send(in_http_1(&request, &script(&request)));
                }
            })),
            H2 => Self::H2(H2Upstream::start(move |request| Act::Answer(script(request)))),
        }
    }

    fn proxy(&self, tokens: &Upstream) -> Cupbearer {
        match self {
            Self::H1(api) => Cupbearer::before(&api.url(), tokens, "", ""),
            Self::H2(api) => Cupbearer::before(&api.url(), tokens, "", "http = \"h2\""),
        }
    }
}

/// An answer as HTTP/1.1 has it: in chunks where its length is not told.
fn in_http_1(request: &H2Message, answer: &H2Message) -> Vec<u8> {
    let mut out = Vec::new();
    for status in &answer.interim {
        out.extend_from_slice(format!("HTTP/1.1 {status} Early\r\nLink: </x>\r\n\r\n").as_bytes());
    }
    out.extend_from_slice(format!("HTTP/1.1 {} Said\r\n", answer.status).as_bytes());
    for (name, value) in &answer.headers {
        out.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    let chunked = !answer.headers.contains_key("content-length") && !matches!(answer.status, 204 | 304);
    if chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if request.method == "HEAD" {
        return out;
    }
    if !chunked {
        return [out, answer.body.clone()].concat();
    }
    for part in answer.body.chunks(5000) {
        out.extend_from_slice(&[format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
    }
    out.extend_from_slice(b"0\r\n");
    for (name, value) in &answer.trailers {
        out.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    [out, b"\r\n".to_vec()].concat()
}

/// Asks in this version; the body, where there is one, is of untold length and has the trailer `x-sum: 7`.
fn ask(version: Version, proxy: &Cupbearer, method: &str, path: &str, more: &[(&str, &str)], body: &[u8]) -> H2Message {
    match version {
        H1 => {
            let mut client = proxy.connect();
            let lines = more.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<Vec<_>>().concat();
            let framing = if body.is_empty() { "" } else { "Transfer-Encoding: chunked\r\n" };
            client.send(format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{lines}{framing}\r\n", proxy.address()));
            if !body.is_empty() {
                for part in body.chunks(5000) {
                    client.send([format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
                }
                client.send("0\r\nx-sum: 7\r\n\r\n");
            }
            heard(&mut client, method)
        }
        H2 => run(async {
            let client = H2Client::connect(proxy.address()).await;
            let request = more.iter().fold(client.ask(method, path), |request, (n, v)| request.header(*n, *v));
            let (response, stream) =
                client.begin(request.body(()).expect("a request"), body.is_empty()).await.expect("begun");
            if !body.is_empty() {
                send(stream, body, Some(fields(&[("x-sum", "7")]))).await.expect("taken");
            }
            answer(response).await.expect("an answer")
        }),
    }
}

/// What comes first, an interim answer or the final one.
async fn first_status(response: &mut h2::client::ResponseFuture) -> u16 {
    let first = std::future::poll_fn(|cx| {
        if let Poll::Ready(Some(early)) = response.poll_informational(cx) {
            return Poll::Ready(early.map(|early| early.status()));
        }
        Pin::new(&mut *response).poll(cx).map_ok(|last| last.status())
    });
    first.await.expect("an answer").as_u16()
}

/// The interim answers and the final one.
fn heard(client: &mut Client, method: &str) -> H2Message {
    let mut heard = H2Message::default();
    loop {
        let response = client.try_response(method == "HEAD").expect("a whole answer");
        if response.status < 200 {
            heard.interim.push(response.status);
            continue;
        }
        let pairs = |all: &[(String, String)]| {
            fields(&all.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>())
        };
        heard.status = response.status;
        (heard.headers, heard.trailers) = (pairs(&response.headers), pairs(&response.trailers));
        heard.body = response.body;
        return heard;
    }
}

#[test]
fn answers_mean_the_same_in_every_mix_of_versions() {
    let script: Script = |request| match request.path.as_str() {
        "/204" => response(204, &[("x", "1")], ""),
        "/304" => response(304, &[("etag", "\"x\""), ("cache-control", "max-age=1")], ""),
        "/206" => response(206, &[("content-range", "bytes 5-9/100"), ("etag", "\"x\"")], "56789"),
        "/416" => response(416, &[("content-range", "bytes */100")], ""),
        "/packed" => {
            let told = [("content-encoding", "gzip"), ("vary", "accept-encoding"), ("etag", "W/\"x\"")];
            response(200, &told, noise(50_000))
        }
        "/untold" => response(200, &[("content-length", ""), ("content-encoding", "br")], noise(50_000)),
        "/empty" => response(200, &[], ""),
        "/early" => H2Message { interim: vec![103, 103], ..response(200, &[], "late") },
        "/trailers" => H2Message {
            trailers: fields(&[("x-sum", "7"), ("grpc-status", "0")]),
            ..response(200, &[("content-length", ""), ("trailer", "x-sum")], "data")
        },
        path => panic!("{path}"),
    };
    for (caller, upstream) in MIXES {
        let (server, tokens) = (Server::start(upstream, script), Upstream::tokens(3600));
        let proxy = server.proxy(&tokens);
        let mix = format!("{caller:?} to {upstream:?}");
        let get =
            |path: &str| ask(caller, &proxy, "GET", path, &[("range", "bytes=5-9"), ("accept-encoding", "gzip")], b"");
        let none = get("/api/204");
        assert_eq!((none.status, none.header("content-length"), none.header("x")), (204, None, Some("1")), "{mix}");
        let same = get("/api/304");
        assert_eq!((same.status, same.header("etag"), same.body.len()), (304, Some("\"x\""), 0), "{mix}");
        let part = get("/api/206");
        assert_eq!((part.status, part.header("content-range")), (206, Some("bytes 5-9/100")), "{mix}");
        assert_eq!((part.body.as_slice(), part.header("content-length")), (&b"56789"[..], Some("5")), "{mix}");
        assert_eq!(get("/api/416").header("content-range"), Some("bytes */100"), "{mix}");
        let packed = get("/api/packed");
        assert_eq!(
            (packed.header("content-encoding"), packed.header("etag")),
            (Some("gzip"), Some("W/\"x\"")),
            "{mix}"
        );
        assert!(packed.body == noise(50_000), "{mix}: other bytes");
        let untold = get("/api/untold");
        assert_eq!((untold.header("content-encoding"), untold.header("content-length")), (Some("br"), None), "{mix}");
        assert!(untold.body == noise(50_000), "{mix}: other bytes");
        assert_eq!((get("/api/empty").status, get("/api/empty").header("content-length")), (200, Some("0")), "{mix}");
        let early = get("/api/early");
        assert_eq!((early.interim.as_slice(), early.body.as_slice()), (&[103, 103][..], &b"late"[..]), "{mix}");
        let trailed = get("/api/trailers");
        let trailers = |name: &str| trailed.trailers.get(name).map(http::HeaderValue::as_bytes);
        assert_eq!((trailers("x-sum"), trailers("grpc-status")), (Some(&b"7"[..]), Some(&b"0"[..])), "{mix}");
        assert_eq!(trailed.header("trailer"), Some("x-sum"), "{mix}");
        for (path, length) in [("/api/packed", Some("50000")), ("/api/untold", None), ("/api/304", None)] {
            let head = ask(caller, &proxy, "HEAD", path, &[], b"");
            assert_eq!((head.header("content-length"), head.body.len()), (length, 0), "{mix} HEAD {path}");
        }
    }
}

#[test]
fn an_expectation_is_met_or_refused_in_every_mix_of_versions() {
    let script: Script = |request| response(200, &[], request.body.len().to_string());
    let body = noise(100_000);
    for (caller, upstream) in MIXES {
        let (server, tokens) = (Server::start(upstream, script), Upstream::tokens(3600));
        let proxy = server.proxy(&tokens);
        for (path, status) in [("/api/taken", 100), ("/api/refused", 403)] {
            let first = match caller {
                H1 => {
                    let mut client = proxy.connect();
                    let head = format!("POST {path} HTTP/1.1\r\nHost: {}\r\n", proxy.address());
                    client.send(head + "Content-Length: 100000\r\nExpect: 100-continue\r\n\r\n");
                    let first = client.response().status;
                    if first == 100 {
                        client.send(&body);
                        assert_eq!(client.response().text(), "100000");
                    }
                    first
                }
                H2 => run(async {
                    let client = H2Client::connect(proxy.address()).await;
                    let request = client.ask("POST", path).header("expect", "100-continue");
                    let (mut response, stream) =
                        client.begin(request.body(()).expect("a request"), false).await.expect("begun");
                    let told = first_status(&mut response).await;
                    if told != 100 {
                        return told;
                    }
                    send(stream, &body, None).await.expect("taken");
                    assert_eq!(answer(response).await.expect("an answer").body, b"100000");
                    told
                }),
            };
            assert_eq!(first, status, "{caller:?} to {upstream:?} {path}");
        }
    }
}

#[test]
fn trailers_of_a_request_arrive_in_every_mix_of_versions() {
    let script: Script = |request| {
        let sum = request.trailers.get("x-sum").map_or("none", |v| v.to_str().expect("text"));
        response(200, &[("x-seen", sum)], request.body.clone())
    };
    let body = noise(30_000);
    for (caller, upstream) in MIXES {
        let (server, tokens) = (Server::start(upstream, script), Upstream::tokens(3600));
        let proxy = server.proxy(&tokens);
        let echoed = ask(caller, &proxy, "POST", "/api/x", &[("te", "trailers")], &body);
        assert_eq!((echoed.status, echoed.header("x-seen")), (200, Some("7")), "{caller:?} to {upstream:?}");
        assert!(echoed.body == body, "{caller:?} to {upstream:?}: other bytes");
    }
}

/// Lets an upstream send a piece.
type Tell = Box<dyn Fn(String)>;
/// Lets it end.
type End = Box<dyn FnOnce()>;

/// An upstream that sends each piece when it is told to.
fn in_pieces(version: Version, kind: &'static str) -> (Server, Tell, End) {
    let head = [("content-type", kind), ("content-length", "")];
    match version {
        H1 => {
            let (told, pieces) = mpsc::channel::<String>();
            let pieces = Mutex::new(Some(pieces));
            let server = Upstream::start(move |connection| {
                connection.request();
                let pieces = pieces.lock().expect("not poisoned").take().expect("one request only");
                connection
                    .send(format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"));
                for piece in pieces {
                    connection.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
                }
                connection.send("0\r\n\r\n");
            });
            let told = Arc::new(Mutex::new(Some(told)));
            let last = Arc::clone(&told);
            let tell =
                move |piece| told.lock().expect("not poisoned").as_ref().expect("open").send(piece).expect("alive");
            (Server::H1(server), Box::new(tell), Box::new(move || drop(last.lock().expect("not poisoned").take())))
        }
        H2 => {
            let (told, pieces) = tokio::sync::mpsc::unbounded_channel();
            let pieces = Arc::new(Mutex::new(Some(pieces)));
            let server = H2Upstream::start(move |_| Act::Pieces(response(200, &head, ""), Arc::clone(&pieces)));
            let told = Arc::new(Mutex::new(Some(told)));
            let last = Arc::clone(&told);
            let tell = move |piece: String| {
                told.lock().expect("not poisoned").as_ref().expect("open").send(Bytes::from(piece)).expect("alive");
            };
            (Server::H2(server), Box::new(tell), Box::new(move || drop(last.lock().expect("not poisoned").take())))
        }
    }
}

#[test]
fn each_event_arrives_before_the_next_is_sent() {
    for (kind, accepted) in [("text/event-stream", "gzip, br"), ("application/x-ndjson", "identity")] {
        for (caller, upstream) in MIXES {
            let (server, tell, end) = in_pieces(upstream, kind);
            let tokens = Upstream::tokens(3600);
            let proxy = server.proxy(&tokens);
            let event = |number: usize| format!("data: {{\"event\": {number}}}\n\n");
            match caller {
                H1 => {
                    let mut client = proxy.connect();
                    let head = format!("GET /api/x HTTP/1.1\r\nHost: {}\r\nAccept: {kind}\r\n", proxy.address());
                    client.send(head + &format!("Accept-Encoding: {accepted}\r\n\r\n"));
                    for number in 0..30 {
                        tell(event(number));
                        client.wait_for(event(number).as_bytes());
                    }
                    end();
                    let whole = client.response();
                    assert_eq!(whole.header("content-type"), Some(kind));
                    assert_eq!(whole.text(), (0..30).map(event).collect::<Vec<_>>().concat());
                }
                H2 => run(async {
                    let client = H2Client::connect(proxy.address()).await;
                    let request = client.ask("GET", "/api/x").header("accept-encoding", accepted);
                    let (response, _) = client.begin(request.body(()).expect("a request"), true).await.expect("begun");
                    tell(event(0));
                    let response = response.await.expect("a head");
                    assert_eq!(response.headers()["content-type"], kind);
                    let (mut body, mut read) = (response.into_body(), String::new());
                    for number in 0..30 {
                        if number > 0 {
                            tell(event(number));
                        }
                        while !read.ends_with(&event(number)) {
                            let data = tokio::time::timeout(PATIENCE, body.data()).await.expect("in time");
                            let data = data.expect("more").expect("no reset");
                            let _ = body.flow_control().release_capacity(data.len());
                            read += std::str::from_utf8(&data).expect("text");
                        }
                    }
                    end();
                    assert!(body.data().await.is_none_or(|data| data.expect("no reset").is_empty()));
                }),
            }
        }
    }
}
