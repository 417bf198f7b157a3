//! Identity providers that are down, hang, drip, refuse, redirect or talk nonsense: every such fault has its
//! honest answer, costs few token requests, and touches no other route.

#![allow(clippy::semicolon_if_nothing_returned)] // the table's lines read better without

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::{Connection, PATIENCE, Scene, Stage, Upstream, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// How often a provider may be asked while it fails.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Pace {
    /// It said when to come back.
    Once,
    /// It means it: at most once a second, and ever less.
    Permanent,
    /// It may heal: with back-off.
    Transient,
}
use Pace::{Once, Permanent, Transient};

/// What the provider answers, and what callers get for it.
struct Fault {
    answer: fn(&mut Connection),
    status: u16,
    code: &'static str,
    pace: Pace,
}

const fn fault(answer: fn(&mut Connection), status: u16, code: &'static str, pace: Pace) -> Fault {
    Fault { answer, status, code, pace }
}

fn say(connection: &mut Connection, status: &str, fields: &str, body: &str) {
    connection.send(format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()));
}

fn json(connection: &mut Connection, status: &str, body: &str) {
    say(connection, status, "Content-Type: application/json\r\n", body);
}

const FAULTS: &[Fault] = &[
    fault(|c| json(c, "400 Bad Request", r#"{"error":"invalid_client"}"#), 502, "idp_refused", Permanent),
    fault(
        |c| {
            json(
                c,
                "401 Unauthorized",
                r#"{"error":"invalid_client","error_description":"the secret not-a-secret is wrong"}"#,
            );
        },
        502,
        "idp_refused",
        Permanent,
    ),
    fault(|c| json(c, "400 Bad Request", r#"{"error":"not-a-secret"}"#), 502, "idp_refused", Permanent),
    fault(
        |c| {
            json(
                c,
                "400 Bad Request",
                r#"{"error":"access_denied","access_token":"not-a-token-x","message":"not-a-token-x"}"#,
            );
        },
        502,
        "idp_refused",
        Permanent,
    ),
    fault(
        |c| json(c, "200 OK", r#"{"error":"invalid_scope","access_token":"not-a-token-x"}"#),
        502,
        "idp_refused",
        Permanent,
    ),
    fault(
        |c| say(c, "403 Forbidden", "Content-Type: text/html\r\n", "<html>not-a-secret</html>"),
        502,
        "idp_refused",
        Permanent,
    ),
    fault(|c| say(c, "404 Not Found", "", ""), 502, "idp_refused", Permanent),
    fault(|c| say(c, "407 Proxy Authentication Required", "", ""), 502, "idp_refused", Permanent),
    fault(|c| say(c, "429 Too Many Requests", "Retry-After: 7\r\n", ""), 503, "idp_unavailable", Once),
    fault(
        |c| say(c, "503 Service Unavailable", "Retry-After: 3600\r\n", "<html>maintenance</html>"),
        503,
        "idp_unavailable",
        Once,
    ),
    fault(
        |c| say(c, "503 Service Unavailable", "Retry-After: 999999999999999999999\r\n", ""),
        503,
        "idp_unavailable",
        Once,
    ),
    fault(|c| say(c, "429 Too Many Requests", "", ""), 503, "idp_unavailable", Transient),
    fault(|c| say(c, "500 Internal Server Error", "", "not-a-secret"), 503, "idp_unavailable", Transient),
    fault(|c| say(c, "502 Bad Gateway", "Retry-After: soon\r\n", ""), 503, "idp_unavailable", Transient),
    fault(|c| say(c, "408 Request Timeout", "", ""), 503, "idp_unavailable", Transient),
    fault(
        |c| say(c, "200 OK", "Content-Type: text/html\r\n", "<html>log in</html>"),
        503,
        "idp_unavailable",
        Transient,
    ),
    fault(|c| json(c, "200 OK", ""), 503, "idp_unavailable", Transient),
    fault(|c| json(c, "200 OK", "{}"), 503, "idp_unavailable", Transient),
    fault(|c| json(c, "200 OK", "null"), 503, "idp_unavailable", Transient),
    fault(|c| json(c, "200 OK", r#"{"access_token":null,"expires_in":60}"#), 503, "idp_unavailable", Transient),
    fault(|c| json(c, "200 OK", r#"{"access_token":"","expires_in":60}"#), 503, "idp_unavailable", Transient),
    fault(|c| json(c, "200 OK", r#"{"access_token":{"a":1},"expires_in":60}"#), 503, "idp_unavailable", Transient),
    fault(
        |c| json(c, "200 OK", r#"{"access_token":"not-a-token\r\nX-Evil: 1","expires_in":60}"#),
        503,
        "idp_unavailable",
        Transient,
    ),
    fault(
        |c| json(c, "200 OK", r#"{"access_token":"not-a-token x","expires_in":60}"#),
        503,
        "idp_unavailable",
        Transient,
    ),
    fault(
        |c| json(c, "200 OK", r#"{"access_token":"not-a-token-\u00e9","expires_in":60}"#),
        503,
        "idp_unavailable",
        Transient,
    ),
    fault(
        |c| json(c, "200 OK", r#"{"access_token":"not-a-token-x","expires_in":0}"#),
        503,
        "idp_unavailable",
        Transient,
    ),
    fault(
        |c| json(c, "200 OK", r#"{"access_token":"not-a-token-x","expires_in":-5}"#),
        503,
        "idp_unavailable",
        Transient,
    ),
    fault(
        |c| json(c, "200 OK", r#"{"access_token":"not-a-token-x","expires_in":"3600abc"}"#),
        503,
        "idp_unavailable",
        Transient,
    ),
    fault(|c| json(c, "200 OK", r#"{"access_token":"not-a-token-x","expi"#), 503, "idp_unavailable", Transient),
    fault(
        |c| {
            c.send(
                "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"access_token\":\"not-a-token-x\",\"expires_in\":60}",
            );
        },
        503,
        "idp_unavailable",
        Transient,
    ),
    fault(
        |c| {
            c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n30\r\n{\"access_token\":\"not-a-token-x\",\"expires_in\":60}\r\n");
        },
        503,
        "idp_unavailable",
        Transient,
    ),
    fault(|c| c.send("HTTP/1.1 200 OK\r\nContent-"), 503, "idp_unavailable", Transient),
    fault(|c| c.send("not-a-secret at all\r\n\r\n"), 503, "idp_unavailable", Transient),
    fault(|_| {}, 503, "idp_unavailable", Transient),
    fault(Connection::reset, 503, "idp_unavailable", Transient),
    fault(|c| say(c, "302 Found", "Location: /redirected\r\n", ""), 503, "idp_unavailable", Transient),
    fault(|c| say(c, "307 Temporary Redirect", "Location: /redirected\r\n", ""), 503, "idp_unavailable", Transient),
    fault(
        |c| {
            say(
                c,
                "200 OK",
                "",
                &format!(r#"{{"x":"{}","access_token":"not-a-token-x","expires_in":60}}"#, "y".repeat(10 << 20)),
            );
        },
        503,
        "idp_unavailable",
        Transient,
    ),
    fault(
        |c| {
            c.send(format!(
                "HTTP/1.1 200 OK\r\n{}\r\n",
                "X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(20_000)
            ));
        },
        503,
        "idp_unavailable",
        Transient,
    ),
    fault(Connection::wait_for_close, 504, "idp_timeout", Transient),
    fault(drip, 504, "idp_timeout", Transient),
];

/// A byte now and then, for ever.
fn drip(connection: &mut Connection) {
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    while connection.try_send(" ").is_ok() {
        thread::sleep(Duration::from_millis(20));
    }
}

/// A credential and a route `/case/N` for each fault, all at one provider with the token path `/N`.
fn stage(count: usize, provider: &Upstream) -> String {
    (0..count)
        .map(|n| {
            format!(
                "[credentials.c{n}]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"post\"\n\
                 token_url = \"{}/{n}\"\ntimeout = \"600ms\"\n\
                 [[routes]]\nprefix = \"/case/{n}\"\nupstream = \"{{api}}\"\ncredential = \"c{n}\"\n",
                provider.url()
            )
        })
        .collect::<Vec<_>>()
        .concat()
}

#[test]
fn every_fault_has_its_honest_answer_and_costs_few_token_requests() {
    let provider = Upstream::start(|connection| {
        let Some(request) = connection.request() else { return };
        if let Some(fault) = request.target()[1..].parse::<usize>().ok().and_then(|n| FAULTS.get(n)) {
            (fault.answer)(connection);
        }
    });
    let scene = Stage::new(Upstream::always(OK)).more(&stage(FAULTS.len(), &provider)).start();
    thread::scope(|scope| {
        for (number, fault) in FAULTS.iter().enumerate() {
            let (scene, provider) = (&scene, &provider);
            scope.spawn(move || judge(scene, provider, number, fault));
        }
    });
    assert_eq!(scene.get("/api/x").text(), "ok");
    assert_eq!(scene.api.heads().len(), 1, "nothing is forwarded without a token");
    assert!(provider.requests().iter().all(|r| r.target() != "/redirected"), "redirects are never followed");
    scene.end();
}

fn judge(scene: &Scene, provider: &Upstream, number: usize, fault: &Fault) {
    let began = Instant::now();
    let name = format!("fault {number}");
    let mut client = scene.proxy.connect();
    for _ in 0..10 {
        client.send(scene.fill(&format!("GET /case/{number}/x HTTP/1.1\r\nHost: HOST\r\n\r\n")));
        let response = client.response();
        assert_eq!(response.status, fault.status, "{name}: {}", response.text());
        let problem = response.expect_problem(fault.status, fault.code);
        assert_eq!(problem["credential"], format!("c{number}"), "{name}");
        assert_eq!(problem["route"], format!("/case/{number}"), "{name}");
        let wait = problem["retry_after"].as_u64().unwrap_or_else(|| panic!("{name}: no Retry-After: {problem}"));
        assert!((1..=3600).contains(&wait), "{name}: {wait}");
    }
    let count = provider.requests().iter().filter(|r| r.target() == format!("/{number}")).count();
    let took = began.elapsed().as_secs_f64();
    let most = match fault.pace {
        Once => 1.0,
        Permanent => 1.0 + took,
        Transient => 2.0 + took / 0.2,
    };
    assert!(
        count >= 1 && f64::from(u32::try_from(count).expect("few")) <= most,
        "{name}: {count} token requests in {took:.1} s"
    );
}

#[test]
fn a_provider_that_is_down_at_the_start_heals_by_itself() {
    let up = Arc::new(AtomicBool::new(false));
    let provider = {
        let up = Arc::clone(&up);
        Upstream::start(move |connection| {
            if !up.load(Ordering::SeqCst) {
                return;
            }
            if connection.request().is_some() {
                json(connection, "200 OK", r#"{"access_token":"not-a-token-1","expires_in":60}"#);
            }
        })
    };
    let scene = Stage::new(Upstream::always(OK)).tokens(provider).credential("warm = \"always\"").start();
    scene.get("/api/x").expect_problem(503, "idp_unavailable");
    up.store(true, Ordering::SeqCst);
    eventually("it heals", || scene.get("/api/x").status == 200);
    assert_eq!(scene.tokens.requests().len(), 1);
    scene.end();
}

#[test]
fn callers_that_wait_for_a_hanging_provider_get_one_answer_and_cost_one_request() {
    let provider = Upstream::start(|connection| {
        if connection.request().is_some() {
            connection.wait_for_close();
        }
    });
    let scene = Stage::new(Upstream::always(OK)).tokens(provider).credential("timeout = \"700ms\"").start();
    let clients: Vec<_> =
        (0..300).map(|n| scene.send(&format!("GET /api/{n} HTTP/1.1\r\nHost: HOST\r\n\r\n"))).collect();
    scene.tokens.wait_for_requests(1);
    let began = Instant::now();
    for (number, mut client) in clients.into_iter().enumerate() {
        if number % 2 == 0 {
            client.reset();
        } else {
            client.response().expect_problem(504, "idp_timeout");
        }
    }
    assert!(began.elapsed() < PATIENCE / 2);
    assert!(scene.tokens.requests().len() <= 3, "{}", scene.tokens.requests().len());
    assert!(scene.api.heads().is_empty());
    scene.end();
}

#[test]
fn a_cached_failure_is_told_at_once() {
    let provider = Upstream::start(|connection| {
        if connection.request().is_some() {
            say(connection, "429 Too Many Requests", "Retry-After: 60\r\n", "");
        }
    });
    let scene = Stage::new(Upstream::always(OK)).tokens(provider).start();
    scene.get("/api/x").expect_problem(503, "idp_unavailable");
    let began = Instant::now();
    for _ in 0..100 {
        let problem = scene.get("/api/x").expect_problem(503, "idp_unavailable");
        assert!(problem["retry_after"].as_u64().is_some_and(|s| (50..=60).contains(&s)), "{problem}");
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    // A body is read past, so that the connection goes on; a larger one ends it.
    let mut client = scene.proxy.connect();
    for _ in 0..3 {
        client.send(scene.fill("POST /api/x HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\n\r\nhello"));
        client.response().expect_problem(503, "idp_unavailable");
    }
    assert_eq!(scene.tokens.requests().len(), 1);
    scene.end();
}

#[test]
fn a_secret_that_cannot_be_read_is_the_configurations_fault() {
    let more = "[credentials.gone]\nclient_id = \"id\"\nclient_secret = { command = [\"cat\", \"gone\"] }\nclient_auth = \"post\"\n\
        token_url = \"{api}/token\"\n[[routes]]\nprefix = \"/gone\"\nupstream = \"{api}\"\ncredential = \"gone\"\n";
    let scene = Stage::new(Upstream::always(OK)).more(more).start();
    scene.get("/gone/x").expect_problem(503, "secret_unavailable");
    assert_eq!(scene.get("/api/x").text(), "ok");
    scene.end();
}
