//! What the upstream says, behind the prefix: references rewritten, fields of one connection left out.

use std::time::{Duration, SystemTime};

use crate::support::{Scene, Stage, Upstream};

/// Answers a target that ends in `/N` with the fields of line N; `UPSTREAM` stands for its own address.
fn with_fields(lines: &'static [&'static str]) -> Upstream {
    Upstream::start(move |connection| {
        while let Some(request) = connection.request() {
            let number: usize = request.target().rsplit('/').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            let host = request.header("host").unwrap_or_default().to_owned();
            let fields = lines[number].replace("UPSTREAM", &host);
            connection.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: 0\r\n\r\n"));
        }
    })
}

fn scene(lines: &'static [&'static str]) -> Scene {
    let more = "[[routes]]\nprefix = \"/base\"\nupstream = \"{api}/v1/b\"\ncredential = \"c\"\n\
        [[routes]]\nprefix = \"/top/deep\"\nupstream = \"{api}/only\"\ncredential = \"c\"\n";
    Stage::new(with_fields(lines)).more(more).start()
}

#[test]
fn references_stay_behind_the_prefix() {
    const CASES: [(&str, &str, &str); 20] = [
        // route, what the upstream says, what the caller gets
        ("/base", "Location: http://UPSTREAM/v1/b/x?y#z", "/base/x?y#z"),
        ("/base", "Location: HTTP://UPSTREAM/v1/b", "/base"),
        ("/base", "Location: //UPSTREAM/v1/b/x", "/base/x"),
        ("/base", "Location: /v1/b/x", "/base/x"),
        ("/base", "Location: /v1/bx", "/api/v1/bx"),
        ("/base", "Location: /v1/b/../../only/x", "/top/deep/x"),
        ("/base", "Location: x/y", "x/y"),
        ("/base", "Location: ?page=2", "?page=2"),
        ("/base", "Location: http://elsewhere.example/v1/b/x", "http://elsewhere.example/v1/b/x"),
        ("/base", "Location: https://UPSTREAM/v1/b/x", "https://UPSTREAM/v1/b/x"),
        ("/base", "Location: http://user@UPSTREAM/v1/b/x", "http://user@UPSTREAM/v1/b/x"),
        ("/base", "Location: http://UPSTREAM.evil/v1/b", "http://UPSTREAM.evil/v1/b"),
        ("/api", "Location: /x/%2e%2e/y", "/api/y"),
        ("/api", "Content-Location: /doc", "/api/doc"),
        (
            "/api",
            "Link: </p?page=2>; rel=\"next\", <http://elsewhere.example/>; rel=x",
            "</api/p?page=2>; rel=\"next\", <http://elsewhere.example/>; rel=x",
        ),
        ("/base", "Set-Cookie: a=b; Path=/v1/b; Domain=example.com; Secure", "a=b; Path=/base; Secure"),
        ("/base", "Set-Cookie: a=b; Path=/v1/b/c; HttpOnly", "a=b; Path=/base/c; HttpOnly"),
        ("/base", "Set-Cookie: a=b", "a=b; Path=/base"),
        ("/base", "Set-Cookie: a=b; path=/", "a=b; path=/base"),
        ("/base", "Refresh: 3; url=/v1/b/r", "3; url=/base/r"),
    ];
    static LINES: [&str; 20] = {
        let mut lines = [""; 20];
        let mut n = 0;
        while n < 20 {
            lines[n] = CASES[n].1;
            n += 1;
        }
        lines
    };
    let scene = scene(&LINES);
    for (number, (prefix, said, expected)) in CASES.iter().enumerate() {
        let response = scene.get(&format!("{prefix}/{number}"));
        let name = said.split(':').next().expect("a name");
        let expected = expected.replace("UPSTREAM", &scene.api.address().to_string());
        assert_eq!(response.header(name), Some(expected.as_str()), "{said}");
    }
    scene.end();
}

#[test]
fn every_answer_says_when_it_was_made_or_came() {
    let scene = scene(&["date: Mon, 21 Oct 2013 20:13:21 GMT", "X: y"]);
    let dates = |path: &str| -> Vec<String> {
        let response = scene.get(path);
        response.all("date").map(str::to_owned).collect()
    };
    assert_eq!(dates("/api/0"), ["Mon, 21 Oct 2013 20:13:21 GMT"], "the upstream's own");
    for path in ["/api/1", "/nowhere"] {
        let [date] = &dates(path)[..] else { panic!("one date for {path}") };
        let age = SystemTime::now().duration_since(httpdate::parse_http_date(date).expect("a date")).expect("past");
        assert!(age < Duration::from_secs(60), "{date}");
    }
    scene.end();
}

#[test]
fn fields_of_the_upstreams_connection_stay_there() {
    let scene = scene(&[
        "Connection: x-hop, close\r\nX-Hop: 1\r\nconnection: X-HOP-TOO\r\nx-hop-too: 2\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n\
         Proxy-Connection: close\r\nUpgrade: h2c\r\nTE: x\r\nTrailer: x\r\nAlt-Svc: h3=\":443\"\r\nX-End: 3\r\nx-end: 4",
        "X-Request-Id: theirs\r\nServer: s\r\nDate: d\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nWWW-Authenticate: Basic\r\nAge: 1\r\nx_y: z",
    ]);
    let response = scene.get("/api/0");
    for name in [
        "x-hop",
        "x-hop-too",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "upgrade",
        "te",
        "trailer",
        "alt-svc",
        "connection",
    ] {
        assert_eq!(response.header(name), None, "{:?}", response.headers);
    }
    assert_eq!(response.all("x-end").collect::<Vec<_>>(), ["3", "4"]);
    let response = scene.proxy.request("GET", "/api/1", "X-Request-Id: mine\r\n", b"");
    assert_eq!(
        (response.header("x-request-id"), response.header("x-upstream-request-id")),
        (Some("mine"), Some("theirs"))
    );
    assert_eq!(response.all("set-cookie").collect::<Vec<_>>(), ["a=1; Path=/api", "b=2; Path=/api"]);
    for (name, value) in [("server", "s"), ("date", "d"), ("www-authenticate", "Basic"), ("age", "1"), ("x_y", "z")] {
        assert_eq!(response.header(name), Some(value));
    }
    scene.end();
}
