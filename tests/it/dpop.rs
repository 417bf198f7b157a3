//! `DPoP` (RFC 9449) against a provider and an API that judge every proof strictly.

use std::{
    collections::HashSet,
    net::TcpStream,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};

use crate::support::{
    Cupbearer, Judge, TestDir, Tokens, Upstream, binding_provider, bound_api, bound_api_over_h2, eventually, http_date,
    noise,
};

/// A token younger than this is not replaced after a 401.
const YOUNG: Duration = Duration::from_secs(5);
const SEAL_KEY: &str = "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M=";

/// A provider and an API, and what they know.
struct World {
    tokens: Tokens,
    at_provider: Judge,
    at_api: Judge,
    provider: Upstream,
    api: Upstream,
    dir: TestDir,
}

impl World {
    fn new() -> Self {
        Self::with("DPoP", 3600)
    }

    fn with(token_type: &str, lifetime: u64) -> Self {
        let (tokens, at_provider, at_api) = (Tokens::default(), Judge::default(), Judge::default());
        let provider = binding_provider(&at_provider, &tokens, token_type, lifetime);
        let api = bound_api(&at_api, &tokens);
        Self { tokens, at_provider, at_api, provider, api, dir: TestDir::new() }
    }

    fn config(&self, credential: &str, route: &str) -> String {
        format!(
            "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"post\"\n\
             token_url = \"{}/token?tenant=7\"\ndpop = true\n{credential}\n\n\
             [[routes]]\nprefix = \"/api\"\nupstream = \"{}/base\"\ncredential = \"c\"\n{route}\n",
            self.provider.url(),
            self.api.url()
        )
    }

    fn start(&self, credential: &str) -> Cupbearer {
        self.start_with(credential, "", "")
    }

    fn start_with(&self, credential: &str, route: &str, more: &str) -> Cupbearer {
        let config = format!("{more}\n{}", self.config(credential, route));
        Cupbearer::builder().env("SECRET", "not-a-secret").env("SEAL_KEY", SEAL_KEY).start(&config)
    }

    fn token_requests(&self) -> usize {
        self.provider.requests().len()
    }

    fn write_key(&self, pem: &str) -> String {
        let file = self.dir.write("new", pem);
        let place = self.dir.path().join("key.pem");
        std::fs::rename(file, &place).unwrap();
        format!("key = {{ file = \"{}\" }}", place.display())
    }

    fn new_key(&self) -> String {
        self.write_key(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem())
    }
}

fn ok(proxy: &Cupbearer, target: &str) {
    let response = proxy.get(target);
    assert_eq!((response.status, response.text().as_str()), (200, "ok"), "{target}");
}

#[test]
fn every_request_carries_the_token_with_a_proof_of_its_own() {
    let world = World::new();
    let proxy = world.start("");
    for target in ["/api", "/api/", "/api/things?a=1&b=%20", "/api/%61/b%22c\"d/[x]?", "/api?q"] {
        ok(&proxy, target);
    }
    assert_eq!(proxy.request("POST", "/api/x?y", "Content-Type: text/plain\r\n", b"body").status, 200);
    assert_eq!((world.at_api.accepted(), world.token_requests()), (6, 1));
    assert!(world.at_api.refusals().is_empty() && world.at_provider.refusals().is_empty());
    let proofs: Vec<String> = world.api.requests().iter().map(|r| r.header("dpop").unwrap().to_owned()).collect();
    let head = proofs[0].split('.').next().unwrap();
    assert!(proofs.iter().all(|proof| proof.starts_with(head)), "one key");
    proxy.expect_never_printed(&["not-a-token", "not-a-secret", &proofs[0], &proofs[1]]);
}

#[test]
fn a_callers_own_proof_never_reaches_an_upstream() {
    let world = World::new();
    let proxy = world.start("");
    for field in ["DPoP: not.the.proof\r\n", "dpop: a\r\nDPoP: b\r\n", "Connection: dpop\r\nDPOP: c\r\n"] {
        assert_eq!(proxy.request("GET", "/api/x", field, b"").status, 200, "{field}");
    }
    assert_eq!(world.at_api.accepted(), 3);

    let (api, tokens) =
        (Upstream::always("HTTP/1.1 200 OK\r\nDPoP-Nonce: n\r\nContent-Length: 0\r\n\r\n"), Upstream::tokens(3600));
    let config = format!(
        "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\ntoken_url = \"{}/t\"\ndpop = false\n\
         [[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"c\"\n",
        tokens.url(),
        api.url()
    );
    let proxy = Cupbearer::builder().env("SECRET", "not-a-secret").start(&config);
    let response = proxy.request("GET", "/api/x", "DPoP: not.the.proof\r\n", b"");
    assert_eq!((response.status, response.header("dpop-nonce")), (200, Some("n")), "nothing of ours, so it passes");
    let request = &api.requests()[0];
    assert_eq!(request.header("dpop"), None);
    assert_eq!(request.header("authorization"), Some("Bearer not-a-token-1"));
}

#[test]
fn the_nonces_of_both_sides_are_learned_by_one_more_request_and_the_callers_notice_nothing() {
    let world = World::new();
    world.at_provider.want_nonce("p1");
    world.at_api.want_nonce("a1");
    let proxy = world.start("");
    let response = proxy.get("/api/x");
    assert_eq!((response.status, response.header("dpop-nonce")), (200, None), "a nonce is not the caller's");
    assert_eq!((world.token_requests(), world.api.requests().len()), (2, 2));
    for _ in 0..20 {
        ok(&proxy, "/api/x"); // on whichever core
    }
    assert_eq!(world.api.requests().len(), 22, "what one core has learned all know");
    world.at_api.want_nonce("a2");
    let body = noise(10_000);
    assert_eq!(proxy.request("POST", "/api/y", "", &body).status, 200);
    let bodies: Vec<bool> =
        world.api.requests().iter().filter(|r| r.line().starts_with("POST")).map(|r| r.body == body).collect();
    assert_eq!(bodies, [true, true], "sent again whole");
    assert_eq!(world.at_api.refusals(), ["use_dpop_nonce: nonce"; 2]);
    assert_eq!(world.token_requests(), 2, "a nonce is no rejected token");
}

#[test]
fn an_upstream_that_speaks_http_2_gets_proofs_and_teaches_nonces_too() {
    let world = World::new();
    let api = bound_api_over_h2(&world.at_api, &world.tokens);
    world.at_api.want_nonce("a1");
    let config = world.config("", "http = \"h2\"").replace(&world.api.url(), &api.url());
    let proxy = Cupbearer::builder().env("SECRET", "not-a-secret").start(&config);
    let response = proxy.get("/api/x?q=1");
    assert_eq!((response.status, response.header("dpop-nonce")), (200, None));
    assert_eq!((world.token_requests(), api.requests().len()), (1, 2));
    for _ in 0..20 {
        ok(&proxy, "/api/%61/b%22c?x");
    }
    assert_eq!(api.requests().len(), 22, "the nonce is known");
    world.at_api.want_nonce("a2");
    let body = noise(10_000);
    assert_eq!(proxy.request("POST", "/api/y", "", &body).status, 200);
    let bodies: Vec<bool> = api.requests().iter().filter(|r| r.method == "POST").map(|r| r.body == body).collect();
    assert_eq!(bodies, [true, true], "sent again whole");
    assert_eq!(world.at_api.accepted(), 22);
    assert_eq!(world.at_api.refusals(), ["use_dpop_nonce: nonce"; 2]);
    let proofs: HashSet<_> = api.requests().iter().map(|r| r.header("dpop").expect("a proof").to_owned()).collect();
    assert_eq!(proofs.len(), api.requests().len(), "each has a proof of its own");
}

#[test]
fn the_head_that_switches_to_websocket_teaches_the_nonce() {
    let world = World::new();
    let (judge, tokens) = (world.at_api.clone(), world.tokens.clone());
    let rest = bound_api(&judge, &tokens);
    let switching = Upstream::start(|connection| {
        let Some(_) = connection.request() else { return };
        connection.send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nDPoP-Nonce: w1\r\n\r\nhello",
        );
        connection.wait_for_close();
    });
    // One origin: it switches first, and judges whatever comes on later connections.
    let front = Upstream::start({
        let (switching, rest) = (switching.address(), rest.address());
        move |connection| {
            let to = if connection.number() == 0 { switching } else { rest };
            let server = TcpStream::connect(to).expect("it listens");
            pipe(connection.stream(), &server);
        }
    });
    let config = world.config("", "").replace(&world.api.url(), &front.url());
    let proxy = Cupbearer::builder().env("SECRET", "not-a-secret").start(&config);
    let mut client = proxy.connect();
    let asks = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let head = client.exchange(format!("GET /api/chat HTTP/1.1\r\nHost: {}\r\n{asks}\r\n", proxy.address()));
    assert_eq!((head.status, head.header("dpop-nonce")), (101, None));
    client.wait_for(b"hello");
    world.at_api.want_nonce("w1");
    ok(&proxy, "/api/x");
    assert!(world.at_api.refusals().is_empty(), "the nonce was known: {:?}", world.at_api.refusals());
}

/// Passes bytes both ways until one side ends.
fn pipe(caller: &TcpStream, server: &TcpStream) {
    let handle = |stream: &TcpStream| stream.try_clone().expect("a second handle");
    let (mut up, mut down) = ((handle(caller), handle(server)), (handle(server), handle(caller)));
    let back = thread::spawn(move || {
        let _ = std::io::copy(&mut down.0, &mut down.1);
        let _ = down.1.shutdown(std::net::Shutdown::Both);
    });
    let _ = std::io::copy(&mut up.0, &mut up.1);
    let _ = up.1.shutdown(std::net::Shutdown::Both);
    let _ = back.join();
}

#[test]
fn a_body_too_large_to_keep_is_not_sent_twice_for_a_nonce_and_the_next_request_has_it() {
    let world = World::new();
    world.at_api.want_nonce("a1");
    let proxy = world.start("");
    let response = proxy.request("PUT", "/api/large", "", &noise(1_000_000));
    assert_eq!((response.status, response.text().as_str()), (401, "no"));
    let status = response.header("proxy-status").expect("says why it was not replayed");
    assert!(status.contains("not replayed: body already streamed"), "{status}");
    assert_eq!(response.header("dpop-nonce"), None);
    assert_eq!(proxy.request("PUT", "/api/large", "", &noise(1_000_000)).status, 200);
    assert_eq!((world.api.requests().len(), world.token_requests()), (2, 1));
}

#[test]
fn a_server_for_which_no_nonce_is_good_enough_makes_no_loop() {
    let world = World::new();
    world.at_api.want_ever_other_nonces();
    let proxy = world.start("");
    let response = proxy.get("/api/x");
    assert_eq!(response.status, 401);
    let status = response.header("proxy-status").expect("says why");
    assert!(status.contains("not replayed: the upstream refuses our DPoP proof"), "{status}");
    assert_eq!((world.api.requests().len(), world.token_requests()), (2, 1));

    let world = World::new();
    world.at_provider.want_ever_other_nonces();
    let proxy = world.start("");
    let problem = proxy.get("/api/x").expect_problem(502, "idp_refused");
    assert!(problem["detail"].as_str().is_some_and(|d| d.contains("use_dpop_nonce")), "{problem}");
    proxy.get("/api/x").expect_problem(502, "idp_refused");
    assert_eq!(world.token_requests(), 2, "the second caller gets the cached answer");
}

#[test]
fn nonces_that_are_good_once_serve_many_callers_at_once() {
    let world = World::new();
    world.at_provider.want_each_nonce_once();
    world.at_api.want_each_nonce_once();
    let further = |n: usize| {
        format!(
            "[[routes]]\nprefix = \"/{n}\"\nupstream = \"{}\"\ncredential = \"c\"\nscopes = [\"{n}\"]\n",
            world.api.url()
        )
    };
    let routes: String = (0..8).map(further).collect();
    let config = format!("{}{routes}", world.config("", ""));
    let proxy = Cupbearer::builder().env("SECRET", "not-a-secret").start(&config);
    thread::scope(|scope| {
        for n in 0..8 {
            let proxy = &proxy;
            scope.spawn(move || (0..20).for_each(|_| ok(proxy, &format!("/{n}/x"))));
        }
    });
    assert_eq!((world.at_provider.accepted(), world.at_api.accepted()), (8, 160));
}

#[test]
fn a_token_that_is_not_bound_is_not_used() {
    for (token_type, words) in [("Bearer", "its token_type is \"Bearer\", not \"DPoP\""), ("", "it has no token_type")]
    {
        let world = World::with(token_type, 3600);
        let proxy = world.start("");
        let problem = proxy.get("/api/x").expect_problem(502, "idp_refused");
        assert!(problem["detail"].as_str().is_some_and(|d| d.contains(words)), "{problem}");
        assert!(world.api.requests().is_empty());
    }
    let world = World::with("dpop", 3600);
    ok(&world.start(""), "/api/x");
}

#[test]
fn a_rejected_token_is_replaced_with_a_new_proof_and_one_that_only_lacks_a_nonce_is_not() {
    let world = World::new();
    let proxy = world.start("");
    let asked = Instant::now();
    ok(&proxy, "/api/first");
    thread::sleep((YOUNG + Duration::from_millis(500)).saturating_sub(asked.elapsed()));
    world.tokens.revoke();
    world.at_api.want_nonce("a1");
    ok(&proxy, "/api/x");
    assert_eq!(world.token_requests(), 2);
    let sent: Vec<_> = world.api.requests().iter().map(|r| r.header("authorization").unwrap().to_owned()).collect();
    let (old, new) = ("DPoP not-a-token-1", "DPoP not-a-token-2");
    assert_eq!(sent, [old, old, old, new], "first; without nonce; with it, rejected; with a new token");
}

#[test]
fn a_clock_that_is_wrong_by_ten_minutes_is_noticed_and_made_up_for() {
    for skew in [600, -600] {
        let world = World::new();
        world.at_provider.set_clock(skew);
        world.at_api.set_clock(skew);
        let proxy = world.start("");
        ok(&proxy, "/api/x");
        assert_eq!(world.at_provider.refusals(), ["invalid_dpop_proof: iat"], "{skew}: one try shows it");
        assert_eq!(world.token_requests(), 2, "{skew}");
        assert!(world.at_api.refusals().is_empty(), "{skew}: what the provider told holds for the API too");
    }
}

#[test]
fn an_upstream_with_another_clock_than_the_provider_is_followed_too() {
    let world = World::new();
    world.at_api.set_clock(-600);
    let proxy = world.start("");
    for _ in 0..10 {
        ok(&proxy, "/api/x");
    }
    assert_eq!(world.at_api.refusals(), ["invalid_dpop_proof: iat"]);
    assert_eq!(world.token_requests(), 1);
}

#[test]
fn a_new_key_in_its_file_gives_a_new_token_and_the_two_always_match() {
    let world = World::new();
    let key = world.new_key();
    let proxy = world.start(&key);
    ok(&proxy, "/api/x");
    let old = world.tokens.keys();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    ok(&proxy, "/api/x");
                }
            });
        }
        world.new_key();
        eventually("a token that is bound to the new key", || world.tokens.keys().len() == 2);
        // A broken file costs nobody anything: the old key goes on.
        world.write_key("not-a-key");
        eventually("the broken key is told", || proxy.process().output().contains("key is neither a private key"));
        thread::sleep(Duration::from_millis(100));
        stop.store(true, Ordering::SeqCst);
    });
    assert!(world.at_api.refusals().is_empty());
    let last = world.api.requests().pop().unwrap();
    assert_eq!(last.header("authorization"), Some("DPoP not-a-token-2"));
    assert_eq!(old.len(), 1);
    proxy.expect_never_printed(&["PRIVATE KEY", "not-a-key"]);
}

#[test]
fn a_configured_key_outlives_a_restart_and_one_of_the_process_does_not() {
    let world = World::new();
    let store = TestDir::new();
    let tokens =
        format!("[tokens]\nstore = {{ file = \"{}\" }}\nseal_key = {{ env = \"SEAL_KEY\" }}", store.path().display());
    let key = world.new_key();
    for _ in 0..2 {
        ok(&world.start_with(&key, "", &tokens), "/api/x");
    }
    assert_eq!(world.token_requests(), 1);
    // Another key: the stored token would be of no use with it.
    world.new_key();
    ok(&world.start_with(&key, "", &tokens), "/api/x");
    assert_eq!(world.token_requests(), 2);
    for _ in 0..2 {
        ok(&world.start_with("", "", &tokens), "/api/x");
    }
    assert_eq!(world.token_requests(), 4);
    assert!(world.at_api.refusals().is_empty());
}

#[test]
fn another_algorithm_and_a_header_of_ones_own_work_too() {
    let world = World::new();
    let key = world.write_key(&KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_pem());
    let config = world.config(&format!("{key}\nalg = \"EdDSA\""), "inject = \"X-Token: {token}\"");
    let proxy = Cupbearer::builder().env("SECRET", "not-a-secret").start(&config);
    assert_eq!(proxy.get("/api/x").status, 401, "this API wants it in Authorization");
    let request = &world.api.requests()[0];
    assert_eq!((request.header("x-token"), request.header("authorization")), (Some("not-a-token-1"), None));
    ok(&world.start(&key), "/api/x");
}

#[test]
fn with_the_callers_host_the_proof_is_for_what_the_upstream_sees() {
    let world = World::new();
    let proxy = world.start_with("", "host = \"preserve\"", "");
    ok(&proxy, "/api/x");
    assert_eq!(world.api.requests()[0].header("host"), Some(proxy.address().to_string().as_str()));
}

#[test]
fn the_request_with_the_nonce_counts_against_the_budget() {
    let world = World::new();
    world.at_provider.want_nonce("p1");
    let proxy = world.start("budget = \"1/1h\"");
    proxy.get("/api/x").expect_problem(503, "budget_exhausted");
    assert_eq!(world.token_requests(), 1);
}

#[test]
fn an_assertion_is_dated_by_the_clock_of_the_provider() {
    // A provider that takes assertions and judges their time, no proofs.
    for skew in [600_i64, -600] {
        let provider = Upstream::start(move |connection| {
            while let Some(request) = connection.request() {
                let now =
                    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().checked_add_signed(skew).unwrap();
                let claims = assertion(&request.body);
                let at = |name: &str| claims[name].as_u64().unwrap();
                let good = at("iat") <= now && at("nbf") <= now && now < at("exp") && at("exp") < now + 90;
                let (status, body) = if good {
                    ("200 OK", r#"{"access_token":"not-a-token-1","token_type":"bearer","expires_in":3600}"#)
                } else {
                    ("401 Unauthorized", r#"{"error":"invalid_client"}"#)
                };
                let (date, length) = (http_date(now), body.len());
                connection.send(format!("HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Length: {length}\r\n\r\n{body}"));
            }
        });
        let api = Upstream::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let dir = TestDir::new();
        let pem = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
        let config = format!(
            "[credentials.c]\nclient_id = \"id\"\nclient_auth = \"private_key_jwt\"\nkey = {{ file = \"{}\" }}\n\
             token_url = \"{}/token\"\n[[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"c\"\n",
            dir.write("key.pem", pem).display(),
            provider.url(),
            api.url()
        );
        let proxy = Cupbearer::builder().start(&config);
        ok(&proxy, "/api/x");
        let ids: Vec<_> = provider.requests().iter().map(|r| assertion(&r.body)["jti"].clone()).collect();
        assert_eq!(ids.len(), 2, "{skew}");
        assert_ne!(ids[0], ids[1], "no assertion is sent twice");
        assert!(!proxy.process().output().contains("refused"), "what one more try mends is no failure");
    }
}

/// The claims of the client assertion in a form.
fn assertion(form: &[u8]) -> serde_json::Value {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let form = std::str::from_utf8(form).unwrap();
    let jwt = form.split('&').find_map(|pair| pair.strip_prefix("client_assertion=")).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[test]
fn explain_shows_the_proof_and_check_looks_at_the_key() {
    let world = World::new();
    let run = |config: &str, arguments: &[&str]| {
        let file = world.dir.write("proxy.toml", config);
        let output = cupbearer(&file, arguments);
        (output.0, output.1)
    };
    let config = world.config("", "");
    let (code, text) = run(&config, &["explain", "GET", "/api/x?y"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("DPoP: <proof, signed anew for each request>"), "{text}");
    assert!(text.contains("Authorization: DPoP <token of c>"), "{text}");
    let key = world.write_key("not-a-key");
    let (code, text) = run(&world.config(&key, ""), &["check"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("`key` in [credentials.c] cannot sign"), "{text}");
    assert!(!text.contains("not-a-key"), "{text}");
    let (code, text) = run(&world.config(&world.new_key(), ""), &["check"]);
    assert_eq!(code, 0, "{text}");
}

fn cupbearer(config: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cupbearer"));
    let output = command.args(arguments).arg("-c").arg(config).env("SECRET", "not-a-secret").output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
}
