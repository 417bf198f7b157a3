//! The admin address: health, readiness, metrics; read-only, guarded, and never on the proxy's port.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use crate::support::{Client, Cupbearer, KEY, Scene, Stage, Upstream, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn ask(scene: &Scene, text: &str) -> crate::support::Response {
    let address = scene.proxy.admin();
    let mut client = Client::connect(address);
    client.send(text.replace("HOST", &address.to_string()));
    if text.starts_with("HEAD") { client.head_response() } else { client.response() }
}

#[test]
fn health_readiness_and_metrics_are_read_and_nothing_else_is_there() {
    let scene = Stage::new(Upstream::always(OK)).admin().start();
    for path in ["/healthz", "/readyz", "/metrics"] {
        let answer = ask(&scene, &format!("GET {path} HTTP/1.1\r\nHost: HOST\r\n\r\n"));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(answer.header("content-security-policy").is_some_and(|csp| csp.contains("default-src 'none'")));
        let length = answer.header("content-length").map(str::to_owned);
        let head = ask(&scene, &format!("HEAD {path} HTTP/1.1\r\nHost: HOST\r\n\r\n"));
        assert_eq!(head.status, 200);
        if path == "/healthz" {
            assert_eq!(head.header("content-length").map(str::to_owned), length);
        }
        let post = ask(&scene, &format!("POST {path} HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")), "{path}");
    }
    for path in ["/", "/nowhere", "/metrics/", "/%6detrics", "/api/v1/status", "/api/v1/nothing", "/../metrics"] {
        let answer = ask(&scene, &format!("GET {path} HTTP/1.1\r\nHost: HOST\r\n\r\n"));
        assert_eq!((answer.status, answer.header("content-type")), (404, Some("application/problem+json")), "{path}");
        assert_eq!(answer.json()["code"], "no_route", "{path}");
    }
    assert_eq!(scene.get("/metrics").status, 404, "never on the proxy's port");
    assert_eq!(scene.get("/healthz").status, 404);
    scene.end();
}

#[test]
fn a_web_page_or_a_name_of_another_server_gets_nothing() {
    let scene = Stage::new(Upstream::always(OK)).admin().start();
    for (fields, status, code) in [
        ("Host: evil.example\r\n", 421, "misdirected"),
        ("Host: localhost:1\r\n", 421, "misdirected"),
        ("Host: HOST\r\nHost: HOST\r\n", 400, "bad_request"),
        ("", 400, "bad_request"),
        ("Host: HOST\r\nOrigin: http://evil.example\r\n", 403, "origin_refused"),
        ("Host: HOST\r\nOrigin: null\r\n", 403, "origin_refused"),
        ("Host: HOST\r\nSec-Fetch-Site: cross-site\r\n", 403, "origin_refused"),
    ] {
        for path in ["/metrics", "/readyz", "/healthz", "/nowhere"] {
            let answer = ask(&scene, &format!("GET {path} HTTP/1.1\r\n{fields}\r\n"));
            assert_eq!(
                (answer.status, &answer.json()["code"]),
                (status, &code.into()),
                "{fields:?}: {}",
                answer.text()
            );
            assert!(answer.all("access-control-allow-origin").next().is_none());
            assert!(!answer.text().contains("cupbearer_"), "{}", answer.text());
        }
    }
    let port = scene.proxy.admin().port();
    for host in ["localhost", "127.0.0.1", "[::1]", "LocalHost"] {
        let answer = ask(&scene, &format!("GET /healthz HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"));
        assert_eq!(answer.status, 200, "{host}");
    }
    scene.end();
}

#[test]
fn connections_that_say_nothing_do_not_keep_a_health_check_away() {
    let scene = Stage::new(Upstream::always(OK)).admin().start();
    let address = scene.proxy.admin();
    let silent: Vec<Client> = (0..100)
        .map(|at| {
            let mut client = Client::connect(address);
            if at % 2 == 0 {
                client.send("GET /healthz HTTP/1.1\r\n");
            }
            client
        })
        .collect();
    let began = std::time::Instant::now();
    for _ in 0..3 {
        assert_eq!(ask(&scene, "GET /healthz HTTP/1.1\r\nHost: HOST\r\n\r\n").status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "before the silent ones are given up: {:?}", began.elapsed());
    drop(silent);
    scene.end();
}

#[test]
fn an_admin_address_that_is_taken_stops_the_start_and_says_what_to_do() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = holder.local_addr().expect("bound");
    let builder = Cupbearer::builder().env("SECRET", "not-a-secret");
    let dir = crate::support::TestDir::new();
    drop(builder);
    let config = dir.write(
        "proxy.toml",
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"{address}\"\n[credentials.c]\nprovider = \"ipxo\"\n\
             client_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\n[[routes]]\nprefix = \"/api\"\napi = \"billing\"\n\
             credential = \"c\"\n"
        ),
    );
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cupbearer"));
    command.args(["serve", "-c"]).arg(config).env_clear().env("SECRET", "not-a-secret");
    let (status, output) = crate::support::Process::spawn("cupbearer", &mut command).finish();
    assert_eq!(status.code(), Some(1), "{output}");
    let expected = format!("cannot listen on {address}, the admin address");
    assert!(output.contains(&expected) && output.contains("listen = false"), "{output}");
    assert!(!output.contains("listening on"), "nothing is served before: {output}");
}

#[test]
fn readiness_waits_for_what_is_to_be_warm_and_ends_with_the_drain() {
    let tokens = Upstream::start(|connection| {
        while connection.request().is_some() {
            // Held back until the test has looked.
            thread::sleep(Duration::from_millis(600));
            connection.send("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let api = Upstream::start(|connection| {
        if connection.request().is_some() {
            connection.wait_for_close();
        }
    });
    let good = Upstream::tokens(3600);
    let proxy =
        Cupbearer::builder().env("SECRET", "not-a-secret").admin().server("drain_timeout = \"5s\"").start(&format!(
            "[credentials.warm]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"post\"\n\
         token_url = \"{}/token\"\nwarm = \"always\"\n[credentials.lazy]\nclient_id = \"id\"\n\
         client_secret = {{ env = \"SECRET\" }}\nclient_auth = \"post\"\ntoken_url = \"{}/token\"\n\
         [[routes]]\nprefix = \"/warm\"\nupstream = \"{api}\"\ncredential = \"warm\"\n\
         [[routes]]\nprefix = \"/lazy\"\nupstream = \"{api}\"\ncredential = \"lazy\"\n",
            tokens.url(),
            good.url(),
            api = api.url()
        ));
    let waiting = proxy.admin_get("/readyz");
    assert_eq!(waiting.status, 503, "{}", waiting.text());
    let body = waiting.json();
    assert_eq!((&body["ready"], &body["draining"]), (&false.into(), &false.into()), "{body}");
    let states: BTreeMap<String, (String, bool)> = body["credentials"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|c| (c["name"].to_string(), (c["state"].to_string(), c["waited_for"] == true)))
        .collect();
    assert_eq!(states["\"lazy\""], ("\"empty\"".to_owned(), false));
    assert_eq!(states["\"warm\""], ("\"empty\"".to_owned(), true));
    // A provider that is down was tried; it holds nobody up.
    eventually("it is ready", || proxy.admin_get("/readyz").status == 200);
    let body = proxy.admin_get("/readyz").json();
    assert!(body["credentials"].as_array().expect("a list").iter().any(|c| c["state"] == "failed"), "{body}");
    // While it drains it lives, and wants no more requests.
    let mut held = proxy.connect();
    held.send(format!("GET /lazy/x HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address()));
    api.wait_for_requests(1);
    proxy.process().signal("TERM");
    eventually("it is not ready any more", || proxy.admin_get("/readyz").status == 503);
    assert_eq!(proxy.admin_get("/healthz").status, 200);
    drop(held);
    proxy.wait_for_end();
}

#[test]
fn what_happens_is_counted_where_it_belongs() {
    let scene = Stage::new(Upstream::by_path())
        .workers(2)
        .admin()
        .alone()
        .route("response_timeout = \"300ms\"\ndeny = [\"DELETE /**\"]")
        .more("[log]\naccess = \"access.log\"")
        .start();
    let metric = |sample: &str| scene.proxy.metric(sample);
    for n in 0..10 {
        assert_eq!(scene.get(&format!("/api/{n}")).status, 200);
    }
    for (path, status) in
        [("/api/teapot", 418), ("/api/odd", 999), ("/api/refused", 401), ("/api/garbage", 502), ("/api/slow", 504)]
    {
        assert_eq!(scene.get(path).status, status, "{path}");
    }
    assert_eq!(scene.proxy.request("DELETE", "/api/x", "", b"").status, 403);
    assert_eq!(scene.get("/nowhere").status, 404);
    assert_eq!(scene.send("nonsense\r\n\r\n").response().status, 400);
    assert!(scene.send("GET /api/truncated HTTP/1.1\r\nHost: HOST\r\n\r\n").try_response(false).is_err());
    eventually("the last one is counted", || {
        metric("cupbearer_upstream_errors_total{route=\"/api\",kind=\"truncated\"}") == 1
    });
    for (sample, expected) in [
        ("cupbearer_requests_total{route=\"/api\",code=\"200\"}", 11),
        ("cupbearer_requests_total{route=\"/api\",code=\"4xx\"}", 1),
        ("cupbearer_requests_total{route=\"/api\",code=\"other\"}", 1),
        ("cupbearer_requests_total{route=\"/api\",code=\"403\"}", 1),
        ("cupbearer_requests_total{route=\"none\",code=\"404\"}", 1),
        ("cupbearer_requests_total{route=\"none\",code=\"400\"}", 1),
        ("cupbearer_request_seconds_count{route=\"/api\"}", 17),
        ("cupbearer_request_seconds_bucket{route=\"/api\",le=\"+Inf\"}", 17),
        ("cupbearer_denied_total{route=\"/api\",reason=\"policy_denied\"}", 1),
        ("cupbearer_denied_total{route=\"none\",reason=\"no_route\"}", 1),
        ("cupbearer_upstream_errors_total{route=\"/api\",kind=\"protocol\"}", 1),
        ("cupbearer_upstream_errors_total{route=\"/api\",kind=\"timeout\"}", 1),
        ("cupbearer_replays_total{route=\"/api\",outcome=\"too_fresh\"}", 1),
        ("cupbearer_in_flight{route=\"/api\"}", 0),
        ("cupbearer_token_fetches_total{credential=\"c\",outcome=\"success\"}", 1),
        ("cupbearer_token_fetches_total{credential=\"c\",outcome=\"failure\"}", 0),
        ("cupbearer_token_fetch_seconds_count{credential=\"c\"}", 1),
        ("cupbearer_config_generation", 1),
        ("cupbearer_access_lines_lost_total", 0),
    ] {
        assert_eq!(metric(sample), expected, "{sample}\n{}", scene.proxy.admin_get("/metrics").text());
    }
    // What runs, and who is connected.
    let address = scene.proxy.address();
    let connections = format!("cupbearer_connections{{listener=\"{address}\"}}");
    eventually("all have gone", || metric(&connections) == 0);
    let held = scene.send("GET /api/slow HTTP/1.1\r\nHost: HOST\r\n\r\n");
    eventually("one runs", || metric("cupbearer_in_flight{route=\"/api\"}") == 1);
    assert_eq!(metric(&connections), 1);
    held.end();
    eventually("none runs", || metric("cupbearer_in_flight{route=\"/api\"}") == 0);
    assert_eq!(metric("cupbearer_requests_total{route=\"/api\",code=\"none\"}"), 1);
    scene.end();
}

#[test]
fn the_page_is_well_formed_bounded_and_holds_no_secret() {
    let more = "[callers.erp]\napi_key = { env = \"KEY\" }\n[[routes]]\nprefix = \"/quo%22te\"\nupstream = \"{api}\"\ncredential = \"c\"";
    let scene = Stage::new(Upstream::by_path()).admin().alone().credential("budget = \"50/12h\"").more(more).start();
    for n in 0..50 {
        let fields = format!("X-Api-Key: {KEY}\r\nUser-Agent: made-up-{n}\r\n");
        scene.proxy.request("GET", &format!("/api/made-up-{n}?made-up-{n}"), &fields, b"");
        scene.proxy.request("GET", &format!("/made-up-{n}"), &fields, b"");
        scene.proxy.request("GET", "/quo%22te/x", &fields, b"");
    }
    let answer = scene.proxy.admin_get("/metrics");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let page = answer.text();
    for secret in ["made-up", "not-a-", "SECRET"] {
        assert!(!page.contains(secret), "{page}");
    }
    let mut kinds = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut current = String::new();
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            current = help.split(' ').next().expect("a name").to_owned();
            assert!(help.len() > current.len() + 5, "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a kind");
            assert_eq!(name, current, "HELP, then TYPE");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').expect("a value");
            value.parse::<f64>().unwrap_or_else(|e| panic!("{e}: {line}"));
            assert!(sample.starts_with(&current), "{line} under {current}");
            assert!(seen.insert(sample.to_owned()), "{sample} twice");
        }
    }
    for name in [
        "cupbearer_requests_total",
        "cupbearer_request_seconds",
        "cupbearer_in_flight",
        "cupbearer_denied_total",
        "cupbearer_upstream_errors_total",
        "cupbearer_token_fetches_total",
        "cupbearer_token_fetch_seconds",
        "cupbearer_token_expiry_timestamp_seconds",
        "cupbearer_token_state",
        "cupbearer_replays_total",
        "cupbearer_budget_used",
        "cupbearer_config_generation",
        "cupbearer_connections",
        "cupbearer_build_info",
    ] {
        assert!(kinds.contains_key(name), "{name}: {page}");
    }
    assert!(page.contains("cupbearer_budget_used{credential=\"c\"} 1\n"), "{page}");
    assert!(page.contains("state=\"fresh\"} 1\n"), "{page}");
    assert!(page.contains(&format!("cupbearer_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"))));
    let expiry = page.lines().find(|l| l.starts_with("cupbearer_token_expiry_timestamp_seconds{")).expect("held");
    let expiry: f64 = expiry.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after").as_secs_f64();
    assert!((3_400.0..3_700.0).contains(&(expiry - now)), "{expiry} {now}");
    scene.end();
}

#[test]
fn slow_and_many_readers_of_the_admin_address_hold_up_nobody() {
    let scene = Stage::new(Upstream::always(OK)).admin().start();
    let address = scene.proxy.admin();
    let _slow: Vec<Client> = (0..40)
        .map(|_| {
            let mut client = Client::connect(address);
            client.send("GET /metrics HTTP/1.1\r\nHo");
            client
        })
        .collect();
    assert_eq!(scene.proxy.admin_get("/healthz").status, 200);
    assert_eq!(scene.get("/api/x").status, 200);
    scene.end();
}
