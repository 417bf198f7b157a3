//! The life of a token as the callers see it, which is: not at all, whatever the provider does, and an
//! honest error where there is no way around it.
//!
//! The provider is the sandbox with faults; tokens live for seconds, and every wait is for a condition.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cupbearer::sandbox::{
    DIGITAL_REALTY_CLIENT_ID, DIGITAL_REALTY_CLIENT_SECRET, IPXO_CLIENT_ID, IPXO_CLIENT_SECRET, IPXO_OTHER_CLIENT_ID,
    IPXO_OTHER_CLIENT_SECRET, MYTHIC_KEY_ID, MYTHIC_SECRET, Options, PAX8_CLIENT_ID, PAX8_CLIENT_SECRET, Provider,
};

use crate::support::{Client, Cupbearer, PATIENCE, Playground, Response, Upstream, eventually, noise, sha256};

/// No request that has to wait for nobody takes longer, even on a loaded machine.
const PROMPT: Duration = Duration::from_secs(3);
/// A token younger than this is not replaced for a 401.
const YOUNG: Duration = Duration::from_secs(5);

const IPXO: (Provider, &str) = (Provider::Ipxo, "/ipxo/billing");
const DIGITAL_REALTY: (Provider, &str) = (Provider::DigitalRealty, "/digital-realty/ixapi/v2");
const PAX8: (Provider, &str) = (Provider::Pax8, "/pax8/v1");
const MYTHIC: (Provider, &str) = (Provider::MythicBeasts, "/mythic/dns/v2");

/// A credential of the provider's well-known client with that many further lines, and `/NAME` to its API.
fn service(sandbox: &Playground, name: &str, (provider, api): (Provider, &str), more: &str) -> String {
    let (id, variable, needs) = match provider {
        Provider::Ipxo => (IPXO_CLIENT_ID, "IPXO", "scopes = [\"billing\"]"),
        Provider::DigitalRealty => (DIGITAL_REALTY_CLIENT_ID, "DIGITAL_REALTY", ""),
        Provider::Pax8 => (PAX8_CLIENT_ID, "PAX8", "audience = \"https://api.pax8.com\""),
        Provider::MythicBeasts => (MYTHIC_KEY_ID, "MYTHIC", ""),
        Provider::IxApi | Provider::Described(_) => unreachable!("not in these tests"),
    };
    let secret = format!("{{ env = \"{variable}\" }}");
    sandbox.credential(name, provider, id, &secret, more) + &sandbox.route(&format!("/{name}"), api, name, needs)
}

fn start(config: &str) -> Cupbearer {
    Cupbearer::builder()
        .env("IPXO", IPXO_CLIENT_SECRET)
        .env("GLOBEX", IPXO_OTHER_CLIENT_SECRET)
        .env("DIGITAL_REALTY", DIGITAL_REALTY_CLIENT_SECRET)
        .env("PAX8", PAX8_CLIENT_SECRET)
        .env("MYTHIC", MYTHIC_SECRET)
        .start(config)
}

/// One GET, and how long it took.
fn timed(proxy: &Cupbearer, target: &str) -> (Response, Duration) {
    let started = Instant::now();
    let response = proxy.get(target);
    (response, started.elapsed())
}

/// A GET that has to succeed, at once.
fn promptly(proxy: &Cupbearer, target: &str) {
    let (response, took) = timed(proxy, target);
    assert_eq!(response.status, 200, "{target}: {}", response.text());
    assert!(took < PROMPT, "{target} took {took:?}");
}

/// An error at once, which says when to come back; gives back when.
fn promptly_refused(proxy: &Cupbearer, target: &str, status: u16, code: &str) -> u64 {
    let (response, took) = timed(proxy, target);
    let problem = response.expect_problem(status, code);
    assert!(took < PROMPT, "{target} took {took:?}");
    let after = response.header("retry-after").and_then(|s| s.parse().ok()).expect("whole seconds");
    assert!(problem["retry_after"] == after && after >= 1, "{problem}");
    after
}

/// Callers that ask again and again on connections of their own, and expect to be served each time.
struct Load<'a> {
    proxy: &'a Cupbearer,
    target: &'a str,
    stop: AtomicBool,
    served: AtomicU64,
}

impl<'a> Load<'a> {
    fn new(proxy: &'a Cupbearer, target: &'a str) -> Self {
        Self { proxy, target, stop: AtomicBool::new(false), served: AtomicU64::new(0) }
    }

    /// Runs `callers` of them while `during` runs; gives back the slowest answer.
    fn run(&self, callers: usize, during: impl FnOnce(&Self)) -> Duration {
        thread::scope(|scope| {
            let callers: Vec<_> = (0..callers).map(|_| scope.spawn(|| self.call())).collect();
            // Also when `during` fails: else the callers would keep the test from ending.
            let stopped = StopOnDrop(&self.stop);
            during(self);
            drop(stopped);
            callers.into_iter().map(|caller| caller.join().expect("every caller is served")).max().expect("a caller")
        })
    }

    fn call(&self) -> Duration {
        let mut client = self.proxy.connect();
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", self.target, self.proxy.address());
        let mut slowest = Duration::ZERO;
        while !self.stop.load(Ordering::Relaxed) {
            let started = Instant::now();
            let response = client.exchange(&request);
            slowest = slowest.max(started.elapsed());
            assert_eq!(response.status, 200, "{}: {}", self.target, response.text());
            self.served.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(5));
        }
        slowest
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A token endpoint that answers when it is released.
fn slow_tokens(released: &Arc<AtomicBool>) -> Upstream {
    let released = Arc::clone(released);
    Upstream::start(move |connection| {
        while connection.request().is_some() {
            eventually("the test goes on", || released.load(Ordering::SeqCst));
            let body = r#"{"access_token":"not-a-token","expires_in":3600}"#;
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        }
    })
}

#[test]
fn six_hundred_cold_callers_cost_one_token_request_although_a_third_goes_away() {
    const CALLERS: usize = 600;
    let released = Arc::new(AtomicBool::new(false));
    let tokens = slow_tokens(&released);
    let api = Playground::new();
    let config = format!(
        "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"IPXO\" }}\nclient_auth = \"post\"\n\
         token_url = \"{}/token\"\n\n{}",
        tokens.url(),
        api.route("/cold", "/_sandbox/echo", "c", "")
    );
    let proxy = start(&config);
    let request = |n: usize| format!("GET /cold?caller={n} HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address());
    let mut callers: Vec<(usize, Client)> = (0..CALLERS)
        .map(|n| {
            let mut client = proxy.connect();
            client.send(request(n));
            (n, client)
        })
        .collect();
    tokens.wait_for_requests(1);
    callers.retain(|(n, _)| n % 3 != 0);
    released.store(true, Ordering::SeqCst);
    for (n, client) in &mut callers {
        let response = client.response();
        assert_eq!(response.status, 200, "caller {n}: {}", response.text());
        assert_eq!(response.json()["target"], format!("/_sandbox/echo?caller={n}"));
    }
    assert_eq!(callers.len(), CALLERS * 2 / 3);
    assert_eq!(tokens.requests().len(), 1);
    proxy.expect_never_printed(&["not-a-token", IPXO_CLIENT_SECRET]);
    proxy.stop();
}

/// A caller that gives up will often ask again, and nobody is there to hear of the first one's success.
#[test]
fn what_a_caller_asked_for_that_went_away_before_the_token_came_is_not_done() {
    let released = Arc::new(AtomicBool::new(false));
    let tokens = slow_tokens(&released);
    let api = Upstream::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let config = format!(
        "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"IPXO\" }}\nclient_auth = \"post\"\n\
         token_url = \"{}/token\"\n\n[[routes]]\nprefix = \"/cold\"\nupstream = \"{}\"\ncredential = \"c\"\n",
        tokens.url(),
        api.url()
    );
    let proxy = start(&config);
    let host = proxy.address();
    for (line, rest) in [
        ("GET /cold/gone", String::new()),
        ("POST /cold/gone", "Content-Length: 5\r\n\r\nhello".to_owned()),
        ("POST /cold/gone", format!("Content-Length: 40000\r\n\r\n{}", "x".repeat(40_000))),
    ] {
        let mut gone = proxy.connect();
        let rest = if rest.is_empty() { "\r\n" } else { &rest };
        gone.send(format!("{line} HTTP/1.1\r\nHost: {host}\r\n{rest}"));
        tokens.wait_for_requests(1);
        // Ended without a word while the other side may still be listening, as a program that exits does it.
        drop(gone);
    }
    let mut stays = proxy.connect();
    stays.send(format!("POST /cold/stays HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\nhello"));
    let noticed = proxy.process().wait_for(|text| (text.matches("the caller went away").count() >= 2).then_some(()));
    noticed.unwrap_or_else(|text| panic!("nobody noticed: {text}"));
    released.store(true, Ordering::SeqCst);
    assert_eq!(stays.response().status, 200);
    let asked: Vec<String> = api.requests().iter().map(|r| r.line().to_owned()).collect();
    assert!(!asked.iter().any(|line| line.starts_with("GET /gone")), "{asked:?}");
    assert_eq!(asked, ["POST /stays HTTP/1.1"]);
}

#[test]
fn a_provider_that_is_down_at_start_stops_nobody_and_is_found_when_it_is_back() {
    // An address that nobody else uses: the port stays free until the provider takes it.
    let address = Ipv4Addr::new(127, 0, 0, 77);
    let port = TcpListener::bind((address, 0)).and_then(|l| l.local_addr()).expect("a loopback port").port();
    let well = Playground::new();
    let down = format!("http://{address}:{port}");
    let moved = |text: String| text.replace(well.base_url(), &down);
    let config = [
        moved(service(&well, "late", IPXO, "")),
        moved(service(&well, "warm", PAX8, "warm = \"always\"")),
        service(&well, "well", DIGITAL_REALTY, ""),
    ]
    .concat();
    let proxy = start(&config);
    for _ in 0..3 {
        promptly_refused(&proxy, "/late/echo", 503, "idp_unavailable");
        promptly(&proxy, "/well/echo");
    }
    let back = Playground::start(Options { address: IpAddr::V4(address), port, ..Options::default() });
    eventually("it heals by itself", || match proxy.get("/late/echo") {
        response if response.status == 200 => true,
        response => {
            response.expect_problem(503, "idp_unavailable");
            false
        }
    });
    eventually("what is to be warm is fetched without a caller", || back.tokens_issued(Provider::Pax8) == 1);
    promptly(&proxy, "/warm/echo");
    back.expect_clean();
    well.expect_clean();
    proxy.stop();
}

#[test]
fn under_load_no_caller_notices_a_refresh_and_no_expired_token_is_sent() {
    // The refresh at three quarters of a life takes its time, and the first one of Pax8 fails.
    let sandbox = Playground::with(&["ipxo.idp=ttl:3,slow:150ms", "pax8.idp=ttl:4"]);
    let config = service(&sandbox, "steady", IPXO, "") + &service(&sandbox, "shaky", PAX8, "");
    let proxy = start(&config);
    promptly(&proxy, "/shaky/echo");
    sandbox.order("pax8.idp=down,times:1");
    assert_eq!(proxy.get("/steady/echo").status, 200);
    let shaky = Load::new(&proxy, "/shaky/echo");
    let mut slowest_shaky = Duration::ZERO;
    let slowest = Load::new(&proxy, "/steady/echo").run(4, |_| {
        slowest_shaky = shaky.run(2, |_| {
            eventually("two refreshes", || {
                sandbox.tokens_issued(Provider::Ipxo) >= 3 && sandbox.tokens_issued(Provider::Pax8) >= 2
            });
            // Beyond the end of the first tokens' lives.
            let served = shaky.served.load(Ordering::Relaxed);
            eventually("more requests", || shaky.served.load(Ordering::Relaxed) > served + 20);
        });
    });
    assert!(slowest < PROMPT && slowest_shaky < PROMPT, "{slowest:?}, {slowest_shaky:?}");
    let log = sandbox.expect_clean();
    let ipxo = &log.providers[&Provider::Ipxo];
    assert_eq!((ipxo.token_requests, ipxo.token_requests_at_once), (ipxo.tokens_issued, 1));
    let pax8 = &log.providers[&Provider::Pax8];
    assert_eq!(pax8.token_requests, pax8.tokens_issued + 1, "the one that was ordered to fail: {pax8:?}");
    proxy.stop();
}

#[test]
fn down_past_expiry_is_an_honest_error_at_once_and_heals_by_itself() {
    let sandbox = Playground::with(&["ipxo.idp=ttl:1"]);
    let proxy = start(&(service(&sandbox, "a", IPXO, "") + &service(&sandbox, "b", DIGITAL_REALTY, "")));
    promptly(&proxy, "/a/echo");
    sandbox.order("ipxo.idp=down");
    // While the old token lives it serves; after that there is only the truth.
    eventually("the token expires", || {
        promptly(&proxy, "/b/echo");
        let (response, took) = timed(&proxy, "/a/echo");
        assert!(took < PROMPT, "{took:?}");
        response.status != 200
    });
    for _ in 0..5 {
        promptly_refused(&proxy, "/a/echo", 503, "idp_unavailable");
        promptly(&proxy, "/b/echo");
    }
    let problem = proxy.get("/a/echo").expect_problem(503, "idp_unavailable");
    assert!(problem["detail"].as_str().is_some_and(|d| d.contains("reset")), "what happened is told: {problem}");
    sandbox.clear_faults();
    eventually("it heals by itself", || proxy.get("/a/echo").status == 200);
    sandbox.expect_clean();
    proxy.stop();
}

#[test]
fn a_permanent_refusal_is_asked_about_seldom_and_heals_with_the_secret() {
    let sandbox = Playground::with(&["ipxo.idp=lock:5"]);
    let builder = Cupbearer::builder().env("GLOBEX", IPXO_OTHER_CLIENT_SECRET);
    let file = builder.file("secret", "not-the-secret\n");
    let config = [
        sandbox.credential("acme", Provider::Ipxo, IPXO_CLIENT_ID, "{ file = \"secret\" }", ""),
        sandbox.credential("globex", Provider::Ipxo, IPXO_OTHER_CLIENT_ID, "{ env = \"GLOBEX\" }", ""),
        sandbox.route("/acme", "/ipxo/billing", "acme", "scopes = [\"billing\"]"),
        sandbox.route("/globex", "/ipxo/billing", "globex", "scopes = [\"billing\"]"),
    ]
    .concat();
    let proxy = builder.start(&config);
    let started = Instant::now();
    let mut calls = 0;
    // Long enough for the second try, which is due after a second.
    while calls < 50 || sandbox.token_requests(Provider::Ipxo) < 3 {
        let (response, took) = timed(&proxy, "/acme/echo");
        let problem = response.expect_problem(502, "idp_refused");
        assert_eq!((&problem["blame"], &problem["credential"]), (&"idp".into(), &"acme".into()));
        assert!(problem["detail"].as_str().is_some_and(|d| d.contains("invalid_client")), "{problem}");
        assert!(took < PROMPT && started.elapsed() < PATIENCE, "{took:?}, {:?}", started.elapsed());
        promptly(&proxy, "/globex/echo");
        calls += 1;
        thread::sleep(Duration::from_millis(10));
    }
    let acme = sandbox.log().providers[&Provider::Ipxo].clients[IPXO_CLIENT_ID];
    // A third is due four seconds after the second: here only where the calls took that long.
    assert!((2..=3).contains(&acme.requests), "{} in {calls} calls", acme.requests);
    fs::write(file, format!("{IPXO_CLIENT_SECRET}\n")).expect("the secret's file");
    let changed = Instant::now();
    eventually("the right secret heals it", || proxy.get("/acme/echo").status == 200);
    // A look every two seconds; left alone, the next try would be minutes away after a few more.
    assert!(changed.elapsed() < Duration::from_secs(10), "{:?}", changed.elapsed());
    sandbox.expect_clean();
    proxy.expect_never_printed(&[IPXO_CLIENT_SECRET, IPXO_OTHER_CLIENT_SECRET, "not-the-secret"]);
    proxy.stop();
}

#[test]
fn a_provider_that_says_when_is_not_asked_before() {
    let sandbox = Playground::with(&[
        "ipxo.idp=status:429,retry-after:2,times:1",
        "pax8.idp=status:503,retry-after:date:3,times:1",
        "mythic.idp=status:503,retry-after:garbage,times:1",
    ]);
    let services = [("a", IPXO), ("b", PAX8), ("c", MYTHIC), ("d", DIGITAL_REALTY)];
    let config: String = services.iter().map(|(name, what)| service(&sandbox, name, *what, "")).collect();
    let proxy = start(&config);
    let started = Instant::now();
    assert_eq!(promptly_refused(&proxy, "/a/echo", 503, "idp_unavailable"), 2);
    // The date is in whole seconds.
    assert!((2..=3).contains(&promptly_refused(&proxy, "/b/echo", 503, "idp_unavailable")));
    assert_eq!(promptly_refused(&proxy, "/c/echo", 503, "idp_unavailable"), 1);
    let (mut first, mut second) = (None, None);
    eventually("both are served", || {
        for (target, since) in [("/a/echo", &mut first), ("/b/echo", &mut second)] {
            if since.is_none() && proxy.get(target).status == 200 {
                *since = Some(started.elapsed());
            }
        }
        promptly(&proxy, "/d/echo");
        first.is_some() && second.is_some()
    });
    let (first, second) = (first.unwrap_or_default(), second.unwrap_or_default());
    assert!(first >= Duration::from_secs(2) && second >= Duration::from_secs(2), "{first:?}, {second:?}");
    assert_eq!((sandbox.token_requests(Provider::Ipxo), sandbox.token_requests(Provider::Pax8)), (2, 2));
    sandbox.expect_clean();
    proxy.stop();
}

#[test]
fn a_hanging_provider_is_told_of_in_time_and_holds_up_nobody_else() {
    let sandbox = Playground::with(&["ipxo.idp=hang"]);
    let config = service(&sandbox, "a", IPXO, "timeout = \"1s\"") + &service(&sandbox, "b", DIGITAL_REALTY, "");
    let proxy = start(&config);
    promptly(&proxy, "/b/echo");
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..10).map(|_| scope.spawn(|| timed(&proxy, "/a/echo"))).collect();
        sandbox.wait_for_token_requests(Provider::Ipxo, 1);
        let mut beside = 0;
        while waiting.iter().any(|caller| !caller.is_finished()) {
            promptly(&proxy, "/b/echo");
            beside += 1;
        }
        assert!(beside > 10, "{beside} requests beside the waiting ones");
        for caller in waiting {
            let (response, took) = caller.join().expect("no panic");
            let problem = response.expect_problem(504, "idp_timeout");
            assert!(response.header("retry-after").is_some(), "{problem}");
            assert!(took < Duration::from_secs(5), "a timeout of 1 s took {took:?}");
        }
    });
    assert!(sandbox.token_requests(Provider::Ipxo) <= 2, "all of them waited for one request");
    sandbox.clear_faults();
    eventually("it heals by itself", || proxy.get("/a/echo").status == 200);
    assert_eq!(sandbox.log().providers[&Provider::Ipxo].token_requests_at_once, 1);
    sandbox.expect_clean();
    proxy.stop();
}

/// These tokens have to be older than five seconds before anything happens to them, so all that can happen
/// to them is tried at the same time.
#[test]
fn tokens_that_end_before_their_time_are_replaced_and_nobody_notices() {
    // Mythic Beasts turns to fixed expiry without notice: its tokens end in spite of their use.
    let options = Options { mythic_sliding: false, ..Options::default() };
    let sandbox = Playground::start(options.fault("mythic.idp=ttl:6").expect("a fault"));
    let services = [("idle", IPXO), ("busy", DIGITAL_REALTY), ("upload", PAX8), ("fixed", MYTHIC)];
    let config: String = services.iter().map(|(name, what)| service(&sandbox, name, *what, "")).collect();
    let proxy = start(&config);
    let proxy = &proxy;
    for (name, _) in services {
        promptly(proxy, &format!("/{name}/echo"));
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            Load::new(proxy, "/fixed/echo").run(2, |load| {
                eventually("a second token", || sandbox.tokens_issued(Provider::MythicBeasts) == 2);
                let served = load.served.load(Ordering::Relaxed);
                eventually("more requests", || load.served.load(Ordering::Relaxed) > served + 50);
            });
        });
        thread::sleep(YOUNG + Duration::from_millis(300));
        scope.spawn(|| revoked_while_idle(&sandbox, proxy));
        scope.spawn(|| revoked_under_load(&sandbox, proxy));
        scope.spawn(|| revoked_before_an_upload(&sandbox, proxy));
    });
    let log = sandbox.log();
    for (provider, seen) in &log.providers {
        assert_eq!(seen.tokens_issued, 2, "one new token for {provider:?}: {seen:?}");
        assert_eq!((seen.token_requests, seen.unknown_tokens, seen.foreign_tokens, seen.without_token), (2, 0, 0, 0));
    }
    assert!(log.strict_refusals.is_empty(), "{:?}", log.strict_refusals);
}

fn revoked_while_idle(sandbox: &Playground, proxy: &Cupbearer) {
    assert_eq!(sandbox.revoke(Some(Provider::Ipxo)), 1);
    promptly(proxy, "/idle/echo");
    assert_eq!(sandbox.log().providers[&Provider::Ipxo].stale_tokens, 1);
}

fn revoked_under_load(sandbox: &Playground, proxy: &Cupbearer) {
    let load = Load::new(proxy, "/busy/echo");
    load.run(100, |load| {
        eventually("everybody is under way", || load.served.load(Ordering::Relaxed) > 200);
        assert_eq!(sandbox.revoke(Some(Provider::DigitalRealty)), 1);
        eventually("a new token", || sandbox.tokens_issued(Provider::DigitalRealty) == 2);
        let served = load.served.load(Ordering::Relaxed);
        eventually("more requests", || load.served.load(Ordering::Relaxed) > served + 200);
    });
    let stale = sandbox.log().providers[&Provider::DigitalRealty].stale_tokens;
    assert!((1..=100).contains(&stale), "each caller met the end of the token at most once: {stale}");
}

fn revoked_before_an_upload(sandbox: &Playground, proxy: &Cupbearer) {
    let body = noise(60_000);
    assert_eq!(sandbox.revoke(Some(Provider::Pax8)), 1);
    let response = proxy.request("DELETE", "/upload/echo?verify", "Content-Type: a/b\r\n", &body);
    assert_eq!(response.status, 200, "{}", response.text());
    let echo = response.json();
    assert_eq!((&echo["body"]["sha256"], &echo["method"]), (&sha256(&body).into(), &"DELETE".into()));
    assert_eq!(sandbox.log().providers[&Provider::Pax8].stale_tokens, 1, "replayed once, whole");
}

#[test]
fn what_is_to_be_warm_is_fetched_at_start_and_kept_and_what_is_not_is_not() {
    let sandbox = Playground::with(&["*.idp=ttl:1"]);
    let config = [
        service(&sandbox, "warm", IPXO, "warm = \"always\""),
        service(&sandbox, "used", PAX8, ""),
        service(&sandbox, "never", DIGITAL_REALTY, ""),
    ]
    .concat();
    let proxy = start(&config);
    eventually("a token without a caller", || sandbox.tokens_issued(Provider::Ipxo) >= 1);
    promptly(&proxy, "/used/echo");
    eventually("it is kept fresh", || sandbox.tokens_issued(Provider::Ipxo) >= 5);
    // Used once: refreshed once behind the caller's back, and as nobody used that one, no more.
    assert!(sandbox.tokens_issued(Provider::Pax8) <= 2, "{:?}", sandbox.log().providers);
    assert_eq!(sandbox.token_requests(Provider::DigitalRealty), 0);
    promptly(&proxy, "/warm/echo");
    sandbox.expect_clean();
    proxy.stop();
}

#[test]
fn equal_needs_share_a_token_and_different_ones_never_do() {
    let sandbox = Playground::new();
    let credential = |name: &str, id: &str, variable: &str| {
        sandbox.credential(name, Provider::Ipxo, id, &format!("{{ env = \"{variable}\" }}"), "")
    };
    let route = |prefix: &str, api: &str, credential: &str, scopes: &str| {
        sandbox.route(prefix, &format!("/ipxo/{api}"), credential, &format!("scopes = {scopes}"))
    };
    let config = [
        credential("acme", IPXO_CLIENT_ID, "IPXO"),
        credential("acme-again", IPXO_CLIENT_ID, "IPXO"),
        credential("globex", IPXO_OTHER_CLIENT_ID, "GLOBEX"),
        route("/a", "billing", "acme", r#"["billing"]"#),
        route("/a/b", "billing", "acme", r#"["billing"]"#),
        route("/again", "billing", "acme-again", r#"["billing"]"#),
        route("/dns", "dns", "acme", r#"["dns"]"#),
        route("/both", "billing", "acme", r#"["dns", "billing"]"#),
        route("/both-too", "dns", "acme-again", r#"["billing", "dns"]"#),
        route("/globex", "billing", "globex", r#"["billing"]"#),
    ]
    .concat();
    let proxy = start(&config);
    let proxy = &proxy;
    let token = |prefix: &str| {
        let response = proxy.get(&format!("{prefix}/echo"));
        assert_eq!(response.status, 200, "{prefix}: {}", response.text());
        let echo = response.json();
        assert_eq!(echo["client"], if prefix == "/globex" { IPXO_OTHER_CLIENT_ID } else { IPXO_CLIENT_ID });
        echo["token"].as_str().expect("a fingerprint").to_owned()
    };
    thread::scope(|scope| {
        for prefix in ["/a", "/a/b", "/again", "/dns", "/both", "/both-too", "/globex"].repeat(4) {
            scope.spawn(move || token(prefix));
        }
    });
    let [a, below, again] = ["/a", "/a/b", "/again"].map(token);
    assert!(a == below && a == again, "{a} {below} {again}");
    assert_eq!(token("/both"), token("/both-too"));
    let different = [a, token("/dns"), token("/both"), token("/globex")];
    let log = sandbox.expect_clean();
    assert_eq!(log.tokens.len(), different.len());
    assert!(different.iter().all(|t| log.tokens.contains_key(t.trim_start_matches("sha256:"))), "{different:?}");
    assert_eq!(log.providers[&Provider::Ipxo].token_requests, 4);
    proxy.expect_never_printed(&[IPXO_CLIENT_SECRET, IPXO_OTHER_CLIENT_SECRET]);
}
