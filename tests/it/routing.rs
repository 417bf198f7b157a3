//! Prefixes, paths, policies and callers: the bytes that were approved are the bytes that are forwarded.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use crate::support::{Client, KEY, Scene, Stage, Upstream, sha256};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const OPS_KEY: &str = "not-a-secret-key-of-ops";

fn route(prefix: &str, base: &str) -> String {
    format!("[[routes]]\nprefix = \"{prefix}\"\nupstream = \"{{api}}{base}\"\ncredential = \"c\"\n")
}

/// What the API was asked for the last time.
fn forwarded(scene: &Scene, target: &str) -> String {
    let response = scene.get(target);
    assert_eq!(response.status, 200, "{target}: {}", response.text());
    let last = scene.api.requests().pop().expect("it came");
    assert_eq!(last.header("host"), Some(scene.api.address().to_string().as_str()), "{target}");
    last.target().to_owned()
}

#[test]
fn the_longest_prefix_on_a_segment_boundary_wins_in_any_order() {
    let routes = [
        ("/api/deep", "/deep"),
        ("/api/deep/er", "/deeper/base"),
        ("/apix", "/apix"),
        ("/api/a%20b", "/space"),
        ("/v1.0/x", ""),
        ("/api/deep-sea", "/sea"),
    ];
    for reversed in [false, true] {
        let mut ordered = routes.to_vec();
        if reversed {
            ordered.reverse();
        }
        let more: String = ordered.iter().map(|(prefix, base)| route(prefix, base)).collect();
        let scene = Stage::new(Upstream::always(OK)).more(&more).start();
        for (target, expected) in [
            ("/api", "/"),
            ("/api/", "/"),
            ("/api?x", "/?x"),
            ("/api/x", "/x"),
            ("/api/dee", "/dee"),
            ("/api/deep", "/deep"),
            ("/api/deep?", "/deep?"),
            ("/api/deep/", "/deep/"),
            ("/api/deep/er", "/deeper/base"),
            ("/api/deep/er/x?y", "/deeper/base/x?y"),
            ("/api/deep/erx", "/deep/erx"),
            ("/api/deep-sea/x", "/sea/x"),
            ("/api/dee;x", "/dee;x"),
            ("/apix/y", "/apix/y"),
            ("/%61pi/x", "/x"),
            ("/api/d%65ep/%65r/x%20y", "/deeper/base/x%20y"),
            ("/api/a%20b/c", "/space/c"),
            ("/api/%61%20%62/c", "/space/c"),
            ("/v1.0/x", "/"),
        ] {
            assert_eq!(forwarded(&scene, target), expected, "{target}, reversed: {reversed}");
        }
        for target in ["/", "/ap", "/API", "/apiy", "/v1.0", "/v1.0/xy", "/api;x", "/?/api"] {
            scene.get(target).expect_problem(404, "no_route");
        }
        scene.end();
    }
}

#[test]
fn no_path_leads_to_another_host_or_out_of_the_base_path() {
    let more = [route("/", ""), route("/base", "/b/ase")].concat();
    let scene = Stage::new(Upstream::always(OK)).more(&more).start();
    for target in [
        "//evil.example/x",
        "/api//evil.example/x",
        "/base//evil",
        "///",
        "/api/x//y",
        "/api/;/x",
        "/api/;x/y",
        "/\\evil.example",
        "/api\\evil.example",
        "/api/\\evil",
        "/api/%5cevil",
        "/api/%5Cevil",
        "/api/%255cevil",
        "/api/..",
        "/api/../x",
        "/api/./x",
        "/api/.",
        "/api/%2e%2e/x",
        "/api/.%2E/x",
        "/api/%2e/x",
        "/api/..;/x",
        "/api/..;x=y/z",
        "/api/%252e%252e/x",
        "/api/%25252e./x",
        "/base/../x",
        "/base/..%2fx",
        "/api/x%2fy",
        "/api/x%2Fy",
        "/api%2fx",
        "/api/%252fx",
        "/api/%c0%ae%c0%ae/x",
        "/api/%c0%afx",
        "/api/%e0%80%af",
        "/api/%00",
        "/api/%0d%0aX:y",
        "/api/%0a",
        "/api/%250a",
        "/api/x%",
        "/api/x%2",
        "/api/x%zz",
        "/api/x%u002e",
        "/api/x#y",
        "/api/x?y#z",
        "/..",
        "/.",
        "/%2e%2e",
    ] {
        let response = scene.get(target);
        assert_eq!(response.status, 400, "{target}: {}", response.text());
        response.expect_problem(400, "bad_path");
    }
    for (target, expected) in [
        ("/api@evil.example/x", "/api@evil.example/x"),
        ("/api.evil.example", "/api.evil.example"),
        ("/api:1", "/api:1"),
        ("/base@evil", "/base@evil"),
        ("/base:1/x", "/base:1/x"),
        ("/base/@evil", "/b/ase/@evil"),
        ("/base", "/b/ase"),
        ("/base?@evil", "/b/ase?@evil"),
        ("/base/http://evil".trim_end_matches("//evil"), "/b/ase/http:"),
        ("/@evil.example", "/@evil.example"),
        ("/:1", "/:1"),
        ("/?//evil", "/?//evil"),
        ("/api/...", "/..."),
        ("/api/..x", "/..x"),
    ] {
        assert_eq!(forwarded(&scene, target), expected, "{target}");
    }
    scene.end();
}

#[test]
fn empty_segments_pass_where_the_route_allows_them() {
    let more = format!("{}allow_empty_segments = true\n", route("/loose", "/l"));
    let scene = Stage::new(Upstream::always(OK)).more(&more).start();
    assert_eq!(forwarded(&scene, "/loose//a//b//"), "/l//a//b//");
    assert_eq!(forwarded(&scene, "/loose//evil.example/"), "/l//evil.example/");
    scene.get("/loose/../x").expect_problem(400, "bad_path");
    scene.get("/api//x").expect_problem(400, "bad_path");
    scene.end();
}

#[test]
fn ten_thousand_routes_are_served_like_one() {
    let more: String = (0..10_000).map(|n| route(&format!("/r{n}/x"), &format!("/to/{n}"))).collect();
    let scene = Stage::new(Upstream::always(OK)).more(&more).start();
    for n in [0, 1, 4999, 9999] {
        assert_eq!(forwarded(&scene, &format!("/r{n}/x/y?z")), format!("/to/{n}/y?z"));
    }
    let problem = scene.get("/r10000/x").expect_problem(404, "no_route");
    assert!(problem["detail"].as_str().is_some_and(|d| d.len() < 1000), "{problem}");
    scene.end();
}

#[test]
fn policies_judge_the_decoded_path_and_every_method() {
    let scene = Stage::new(Upstream::always(OK))
        .route("allow = [\"GET /v1/**\", \"POST,PUT /v1/*/search\", \"* /open\"]")
        .route("deny = [\"GET /v1/admin/**\", \"GET /v1/*/secret\", \"DELETE /**\"]")
        .start();
    let status = |method: &str, target: &str, fields: &str| scene.proxy.request(method, target, fields, b"").status;
    for (method, target) in [
        ("GET", "/api/v1/a"),
        ("HEAD", "/api/v1/a"),
        ("GET", "/api/%76%31/a"),
        ("GET", "/api/v1/a/b/c?admin"),
        ("POST", "/api/v1/x/search"),
        ("PUT", "/api/v1/x/search"),
        ("GET", "/api/v1/admi"),
        ("GET", "/api/v1/administrator"),
        ("PATCH", "/api/open"),
        ("GET", "/api/v1/a/b/secret"),
    ] {
        assert_eq!(status(method, target, ""), 200, "{method} {target}");
    }
    let forwarded = scene.api.heads().len();
    for (method, target) in [
        ("GET", "/api/v2/a"),
        ("GET", "/api"),
        ("GET", "/api/V1/a"),
        ("POST", "/api/v1/x/y/search"),
        ("POST", "/api/v1/search"),
        ("PATCH", "/api/v1/x/search"),
        ("DELETE", "/api/v1/a"),
        ("DELETE", "/api/open"),
        ("GET", "/api/v1/admin/x"),
        ("GET", "/api/v1/%61dmin/x"),
        ("GET", "/api/v1/%61%64%6D%69%6e/x"),
        ("HEAD", "/api/v1/admin/x"),
        ("GET", "/api/v1/x/%73ecret"),
        ("GET", "/api/v1/admin;x=y/z"),
        ("GET", "/api/v1/x/secret/"),
        ("GET", "/api/v1/x/secret;y"),
        ("PROPFIND", "/api/v1/a"),
        ("OPTIONS", "/api/v1/a"),
    ] {
        let response = scene.proxy.request(method, target, "", b"");
        assert_eq!(response.status, 403, "{method} {target}");
        if method == "HEAD" {
            response.expect_problem_head(403, "policy_denied");
        } else {
            response.expect_problem(403, "policy_denied");
        }
    }
    // What a caller says beside its request changes nothing.
    for fields in [
        "X-HTTP-Method-Override: GET\r\n",
        "X-Original-URL: /v1/a\r\n",
        "X-Rewrite-URL: /api/v1/a\r\n",
        "X-Forwarded-Prefix: /v1\r\n",
    ] {
        assert_eq!(status("DELETE", "/api/v1/a", fields), 403, "{fields}");
        assert_eq!(status("GET", "/api/v1/admin/x", fields), 403, "{fields}");
        assert_eq!(status("GET", "/api/v1/a", fields), 200, "{fields}");
        let head = scene.api.requests().pop().expect("it came").head;
        assert!(
            !head.to_lowercase().contains("override")
                && !head.to_lowercase().contains("-url:")
                && !head.contains("Prefix"),
            "{head}"
        );
    }
    assert_eq!(scene.api.heads().len(), forwarded + 4);
    scene.end();
}

#[test]
fn report_mode_lets_pass_and_says_what_it_would_have_denied() {
    let scene = Stage::new(Upstream::always(OK)).route("deny = [\"DELETE /**\"]").route("mode = \"report\"").start();
    assert_eq!(scene.proxy.request("DELETE", "/api/x", "", b"").status, 200);
    let said = scene.proxy.process().wait_for(|text| text.contains("policy would deny").then_some(()));
    assert!(said.is_ok(), "{said:?}");
    scene.get("/api/../x").expect_problem(400, "bad_path");
    scene.end();
}

/// A connection that comes from this address of the loopback net.
fn connect_from(scene: &Scene, from: Ipv4Addr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((from, 0)).into()).expect("a loopback address");
    socket.connect_timeout(&scene.proxy.address().into(), Duration::from_secs(10)).expect("the proxy accepts");
    Client::over(TcpStream::from(socket))
}

#[test]
fn callers_are_known_by_key_and_address_and_never_by_two_at_once() {
    let more = format!(
        "[callers.erp]\napi_key = {{ env = \"KEY\" }}\nroutes = [\"/api\"]\n\
         [callers.ops]\napi_key = {{ sha256 = \"{}\" }}\nallow = [\"GET /**\"]\n\
         [callers.net]\ncidr = [\"127.0.0.2/31\"]\n\
         {}callers = [\"ops\"]\n{}callers = [\"net\"]\n{}",
        sha256(OPS_KEY.as_bytes()),
        route("/ops", "/ops"),
        route("/net", "/net"),
        route("/any", "/any"),
    );
    let scene = Stage::new(Upstream::always(OK)).more(&more).start();
    let ask = |method: &str, target: &str, fields: &str| scene.proxy.request(method, target, fields, b"");
    let (erp, ops) = (format!("Authorization: Bearer {KEY}\r\n"), format!("X-Api-Key: {OPS_KEY}\r\n"));
    for (method, target, fields) in [
        ("GET", "/api/x", erp.clone()),
        ("GET", "/api/x", format!("authorization:bearer   {KEY}\r\n")),
        ("GET", "/api/x", format!("x-api-key: {KEY}\r\n")),
        ("GET", "/api/x", format!("X-Api-Key: {KEY}\r\nAuthorization: Bearer {KEY}\r\n")),
        ("DELETE", "/api/x", erp.clone()),
        ("GET", "/ops/x", ops.clone()),
        ("GET", "/any/x", ops.clone()),
        ("GET", "/any/x", format!("Authorization: Bearer {OPS_KEY}\r\n")),
    ] {
        let response = ask(method, target, &fields);
        assert_eq!(response.status, 200, "{method} {target}: {}", response.text());
    }
    let forwarded = scene.api.heads();
    for request in &forwarded {
        assert!(!request.head.contains("key-of") && request.header("x-api-key").is_none(), "{}", request.head);
    }
    for (fields, status, code) in [
        (String::new(), 401, "caller_unknown"),
        ("Authorization: Bearer wrong\r\n".to_owned(), 401, "caller_unknown"),
        (format!("Authorization: Basic {KEY}\r\n"), 401, "caller_unknown"),
        (format!("Authorization: Bearer{KEY}\r\n"), 401, "caller_unknown"),
        (format!("Authorization: Bearer {KEY}x\r\n"), 401, "caller_unknown"),
        (format!("Authorization: Bearer {}\r\n", &KEY[..KEY.len() - 1]), 401, "caller_unknown"),
        (format!("Authorization: Bearer {}\r\n", KEY.to_uppercase()), 401, "caller_unknown"),
        (format!("Cookie: X-Api-Key={KEY}\r\n"), 401, "caller_unknown"),
        (format!("Proxy-Authorization: Bearer {KEY}\r\n"), 401, "caller_unknown"),
        (format!("X-Api-Key: {}\r\n", sha256(OPS_KEY.as_bytes())), 401, "caller_unknown"),
        (format!("{erp}{ops}"), 403, "caller_denied"),
        (format!("X-Api-Key: {KEY}\r\nX-Api-Key: {OPS_KEY}\r\n"), 403, "caller_denied"),
    ] {
        let response = ask("GET", "/api/x", &fields);
        assert_eq!(response.status, status, "{fields}: {}", response.text());
        response.expect_problem(status, code);
    }
    ask("GET", "/ops/x", &erp).expect_problem(403, "caller_denied");
    ask("GET", "/any/x", &erp).expect_problem(403, "caller_denied");
    ask("GET", "/net/x", &ops).expect_problem(403, "caller_denied");
    ask("POST", "/any/x", &ops).expect_problem(403, "policy_denied");
    // A stranger learns nothing about the routes that there are.
    let problem = ask("GET", "/nowhere", "").expect_problem(404, "no_route");
    assert!(!problem.to_string().contains("/ops"), "{problem}");

    let get = |from: [u8; 4], target: &str, fields: &str| {
        let text = format!("GET {target} HTTP/1.1\r\nHost: HOST\r\n{fields}\r\n");
        connect_from(&scene, Ipv4Addr::from(from)).exchange(scene.fill(&text))
    };
    assert_eq!(get([127, 0, 0, 2], "/net/x", "").status, 200);
    assert_eq!(get([127, 0, 0, 3], "/any/x", "X-Api-Key: unknown\r\n").status, 200);
    get([127, 0, 0, 4], "/net/x", "").expect_problem(401, "caller_unknown");
    get([127, 0, 0, 4], "/net/x", "X-Forwarded-For: 127.0.0.2\r\nForwarded: for=127.0.0.2\r\nX-Real-IP: 127.0.0.2\r\n")
        .expect_problem(401, "caller_unknown");
    get([127, 0, 0, 2], "/api/x", &erp).expect_problem(403, "caller_denied");
    assert_eq!(scene.api.heads().len(), forwarded.len() + 2);
    scene.end();
}

#[test]
fn browsers_are_refused_unless_their_origin_is_listed() {
    let scene = Stage::new(Upstream::always(OK))
        .server("allowed_origins = [\"https://app.example\"]")
        .server("allowed_hosts = [\"proxy.example\", \"other.example:99\"]")
        .start();
    let ask = |method: &str, fields: &str| scene.proxy.request(method, "/api/x", fields, b"");
    for fields in [
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Origin:\r\n",
        "Origin: http://app.example\r\n",
        "Origin: https://app.example.evil\r\n",
        "Origin: https://app.example:444\r\n",
        "Origin: https://app.example\r\nOrigin: https://evil.example\r\n",
        "Origin: https://app.example, https://evil.example\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n",
        "sec-fetch-site: what\r\n",
    ] {
        let response = ask("GET", fields);
        assert_eq!(response.status, 403, "{fields}: {}", response.text());
        response.expect_problem(403, "origin_refused");
        assert!(!response.headers.iter().any(|(n, _)| n.to_lowercase().starts_with("access-control")));
    }
    for fields in ["Origin: https://app.example\r\n", "Origin: https://evil.example\r\n"] {
        let fields = format!("{fields}Access-Control-Request-Method: PUT\r\n");
        ask("OPTIONS", &fields).expect_problem(403, "origin_refused");
    }
    for fields in [
        "Origin: https://app.example\r\n",
        "Origin: https://app.example\r\nSec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-origin\r\n",
        "Sec-Fetch-Site: none\r\n",
    ] {
        assert_eq!(ask("GET", fields).status, 200, "{fields}");
    }
    for (host, status) in [
        ("proxy.example", 200),
        ("PROXY.example:1", 200),
        ("other.example:99", 200),
        ("other.example", 421),
        ("other.example:98", 421),
        ("proxy.example.", 421),
        ("xproxy.example", 421),
    ] {
        let response = scene.send(&format!("GET /api/x HTTP/1.1\r\nHost: {host}\r\n\r\n")).response();
        assert_eq!(response.status, status, "{host}");
    }
    scene.end();
}

#[test]
fn a_path_parameter_does_not_lead_past_a_narrower_route() {
    let more =
        "[[routes]]\nprefix = \"/api/admin\"\nupstream = \"{api}/admin\"\ncredential = \"c\"\ndeny = [\"* /**\"]\n";
    let scene = Stage::new(Upstream::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")).more(more).start();
    scene.get("/api/admin/x").expect_problem(403, "policy_denied");
    for target in ["/api/admin;v=1/x", "/api/admin%3bv/x", "/api;v/admin/x", "/api/admin;/x"] {
        let response = scene.get(target);
        assert!(matches!(response.status, 400 | 403 | 404), "{target}: {}", response.status);
    }
    assert_eq!(scene.get("/api/x;v=1").status, 200, "a parameter that leads nowhere else is no harm");
    assert!(scene.heads_with("admin").is_empty());
    scene.end();
}
