//! A provider of which only the issuer is written down.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::support::{Ca, Cupbearer, TestDir, Upstream, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn json(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// A provider with its API on one host, as many are: its document stands below `/id`, and `{url}` in it is its URL.
fn provider(document: &str) -> Upstream {
    let document = document.to_owned();
    Upstream::start(move |connection| {
        while let Some(request) = connection.request() {
            let url = format!("http://{}", request.header("host").expect("a host"));
            connection.send(match request.target() {
                "/.well-known/oauth-authorization-server/id" => json("200 OK", &document.replace("{url}", &url)),
                "/oauth/mint" => json("200 OK", r#"{"access_token":"not-a-token-1","expires_in":3600}"#),
                target if target.contains("/.well-known/") => json("404 Not Found", "{}"),
                _ => OK.to_owned(),
            });
        }
    })
}

fn config(provider: &Upstream, issuer: &str, more: &str) -> String {
    format!(
        "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\nissuer = \"{}{issuer}\"\n{more}\n\
         [[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"c\"\n",
        provider.url(),
        provider.url()
    )
}

fn start(config: &str) -> Cupbearer {
    Cupbearer::builder().env("SECRET", "not-a-secret").start(config)
}

const DOCUMENT: &str = r#"{"issuer":"{url}/id","token_endpoint":"{url}/oauth/mint"}"#;

#[test]
fn the_first_request_discovers_the_token_endpoint() {
    let provider = provider(DOCUMENT);
    let proxy = start(&config(&provider, "/id", ""));
    assert!(provider.requests().is_empty(), "nothing is asked before a token is needed");
    assert_eq!(proxy.get("/api/things").text(), "ok");
    assert_eq!(proxy.get("/api/things").text(), "ok");
    let targets: Vec<String> = provider.requests().iter().map(|r| r.target().to_owned()).collect();
    let expected = [
        "/id/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/id",
        "/oauth/mint",
        "/things",
        "/things",
    ];
    assert_eq!(targets, expected);
    proxy.expect_never_printed(&["not-a-secret", "not-a-token"]);
}

#[test]
fn a_discovered_token_endpoint_is_out_of_reach_before_and_after_it_is_known() {
    let provider = provider(DOCUMENT);
    let proxy = start(&config(&provider, "/id", ""));
    proxy.get("/api/oauth/token").expect_problem(403, "policy_denied");
    assert!(provider.requests().is_empty());
    assert_eq!(proxy.get("/api/things").text(), "ok");
    proxy.get("/api/oauth/mint").expect_problem(403, "policy_denied");
    proxy.get("/api/oauth/MINT/").expect_problem(403, "policy_denied");
    assert_eq!(proxy.get("/api/oauth/token").text(), "ok", "now it is known that this is none");
    let reached = provider.requests().iter().filter(|r| r.header("authorization").is_some()).count();
    assert_eq!(reached, 2);
}

#[test]
fn a_discovered_token_endpoint_is_out_of_reach_also_while_a_reload_hangs() {
    let provider = provider(DOCUMENT);
    let file = config(&provider, "/id", "");
    let proxy = start(&file);
    let caller = "[callers.c]\napi_key = { command = [\"sh\", \"key.sh\"] }\n";
    let (begun, go) = (proxy.dir().join("begun"), proxy.dir().join("go"));
    let wait = format!("touch {begun:?}; until [ -e {go:?} ]; do sleep 0.05; done; echo not-a-secret-key-of-a-caller");
    std::fs::write(proxy.dir().join("key.sh"), wait).expect("ours");
    let path = proxy.dir().join("proxy.toml");
    let text = std::fs::read_to_string(&path).expect("it is there");
    std::fs::write(&path, text + caller).expect("ours");
    proxy.process().signal("HUP");
    eventually("the reload waits for the command", || begun.exists());
    assert_eq!(proxy.get("/api/things").text(), "ok");
    proxy.get("/api/oauth/mint").expect_problem(403, "policy_denied");
    std::fs::write(&go, "").expect("ours");
    eventually("the reload comes to its end", || proxy.get("/api/things").status == 401);
    let reached = provider.requests().iter().filter(|r| r.target() == "/oauth/mint").count();
    assert_eq!(reached, 1, "the token request alone");
}

#[test]
fn a_foreign_issuer_is_told_with_both_names_and_gets_no_secret() {
    let provider = provider(DOCUMENT);
    let proxy = start(&config(&provider, "/id/", ""));
    let problem = proxy.get("/api").expect_problem(502, "idp_refused");
    let detail = problem["detail"].as_str().expect("text");
    assert!(detail.contains(&format!("{:?}", format!("{}/id", provider.url()))), "{detail}");
    assert!(detail.contains(&format!("{:?}", format!("{}/id/", provider.url()))), "{detail}");
    assert!(provider.requests().iter().all(|r| r.line().starts_with("GET ")));
}

#[test]
fn an_endpoint_on_another_host_must_be_permitted() {
    let document = r#"{"issuer":"{url}/id","token_endpoint":"http://localhost:PORT/oauth/mint"}"#;
    let elsewhere = Upstream::tokens(3600);
    let document = document.replace("PORT", &elsewhere.address().port().to_string());
    let provider = provider(&document);
    let problem = start(&config(&provider, "/id", "")).get("/api").expect_problem(502, "idp_refused");
    let detail = problem["detail"].as_str().expect("text");
    assert!(detail.contains("endpoint_hosts = [\"localhost\"]"), "{detail}");
    assert!(elsewhere.requests().is_empty());
    let proxy = start(&config(&provider, "/id", "endpoint_hosts = [\"localhost\"]"));
    assert_eq!(proxy.get("/api").text(), "ok");
    assert_eq!(elsewhere.requests().len(), 1);
}

#[test]
fn a_provider_that_is_down_at_start_stops_neither_the_process_nor_other_routes() {
    let up = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&up);
    let provider = Upstream::start(move |connection| {
        while let Some(request) = connection.request() {
            let url = format!("http://{}", request.header("host").expect("a host"));
            connection.send(match request.target() {
                _ if !seen.load(Ordering::SeqCst) => json("503 Service Unavailable", "{}"),
                "/.well-known/openid-configuration" => {
                    json("200 OK", &format!(r#"{{"issuer":"{url}","token_endpoint":"{url}/token"}}"#))
                }
                _ => json("200 OK", r#"{"access_token":"not-a-token-1","expires_in":3600}"#),
            });
        }
    });
    let (tokens, api) = (Upstream::tokens_named("other", 3600), Upstream::always(OK));
    let proxy = start(&format!(
        "{}warm = \"always\"\n[credentials.d]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\n\
         token_url = \"{}/token\"\n[[routes]]\nprefix = \"/d\"\nupstream = \"{}\"\ncredential = \"d\"\n\
         [[routes]]\nprefix = \"/c\"\nupstream = \"{}\"\ncredential = \"c\"\n",
        config(&provider, "", "").split("[[routes]]").next().expect("the credential"),
        tokens.url(),
        api.url(),
        api.url()
    ));
    assert_eq!(proxy.get("/d").text(), "ok");
    let problem = proxy.get("/c").expect_problem(503, "idp_unavailable");
    assert!(problem["detail"].as_str().is_some_and(|d| d.contains("discovery failed")), "{problem}");
    up.store(true, Ordering::SeqCst);
    eventually("it heals by itself", || proxy.get("/c").status == 200);
}

/// A second route and its credential, in front of `api`; `lines` are further ones of the route.
fn other(tokens: &Upstream, api: &Upstream, credential: &str, route: &str) -> String {
    format!(
        "[credentials.d]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\ntoken_url = \"{}/token\"\n{credential}\n\
         [[routes]]\nprefix = \"/other\"\nupstream = \"{}\"\ncredential = \"d\"\n{route}\n",
        tokens.url(),
        api.url()
    )
}

#[test]
fn places_among_max_in_flight_stay_taken_when_a_token_endpoint_is_discovered() {
    let (provider, tokens) = (provider(DOCUMENT), Upstream::tokens(3600));
    let api = Upstream::start(|connection| {
        connection.request();
        connection.wait_for_close();
    });
    let more = other(&tokens, &api, "", "max_in_flight = 1");
    let proxy = start(&[config(&provider, "/id", ""), more].concat());
    let mut held = proxy.connect();
    held.send(format!("GET /other HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address()));
    api.wait_for_requests(1);
    proxy.get("/other").expect_problem(503, "overloaded");
    assert_eq!(proxy.get("/api/things").text(), "ok");
    proxy.get("/api/oauth/mint").expect_problem(403, "policy_denied");
    proxy.get("/other").expect_problem(503, "overloaded");
}

#[test]
fn a_discovered_token_endpoint_is_out_of_reach_whatever_has_become_of_a_ca_file() {
    let (provider, tokens, api) = (provider(DOCUMENT), Upstream::tokens(3600), Upstream::always(OK));
    let dir = TestDir::new();
    let root = dir.write("root.pem", Ca::new().pem());
    let more = other(&tokens, &api, &format!("ca_file = \"{}\"", root.display()), "");
    let proxy = start(&[config(&provider, "/id", ""), more].concat());
    dir.write("root.pem", "no certificate");
    assert_eq!(proxy.get("/api/things").text(), "ok");
    proxy.get("/api/oauth/mint").expect_problem(403, "policy_denied");
    assert_eq!(proxy.get("/other").text(), "ok");
}
