//! Clocks that jump, and a process that sleeps: no storm of token requests, no expired token, and no request that
//! fails without need. The binary itself runs, with a wall clock of the test's own (libfaketime); its monotonic clock
//! is the real one, as on a machine whose time is set, or that wakes up.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cupbearer::sandbox::{IPXO_CLIENT_ID, IPXO_CLIENT_SECRET, Provider};

use crate::support::{Cupbearer, Playground, Upstream, eventually};

/// The wall clock of one proxy, as an offset from the real one.
struct WallClock {
    file: PathBuf,
}

impl WallClock {
    /// Starts a proxy with this configuration and a wall clock that is right.
    fn start(config: &str) -> (Cupbearer, Self) {
        let builder = Cupbearer::builder();
        let clock = Self { file: builder.file("clock", "+0") };
        let proxy = builder
            .env("LD_PRELOAD", &library().display().to_string())
            .env("FAKETIME_TIMESTAMP_FILE", &clock.file.display().to_string())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1")
            .env("SECRET", IPXO_CLIENT_SECRET)
            .start(config);
        (proxy, clock)
    }

    /// Sets it so many seconds ahead of the real one, or behind.
    fn set(&self, offset: i64) {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{offset:+}")).unwrap();
        fs::rename(new, &self.file).unwrap();
    }
}

/// Where Debian has it, whatever the machine is.
fn library() -> PathBuf {
    let mut found =
        fs::read_dir("/usr/lib").unwrap().flatten().map(|dir| dir.path().join("faketime/libfaketimeMT.so.1"));
    found.find(|path| path.exists()).expect("libfaketime: run tests/run")
}

const HOUR: i64 = 3600;

/// IPXO's sandbox with tokens that live this long, and a route to it.
fn ipxo(fault: &str) -> (Playground, String) {
    let sandbox = Playground::with(&[fault]);
    let config = sandbox.credential("acme", Provider::Ipxo, IPXO_CLIENT_ID, "{ env = \"SECRET\" }", "")
        + &sandbox.route("/acme", "/ipxo/billing", "acme", "scopes = [\"billing\"]");
    (sandbox, config)
}

const TARGET: &str = "/acme/v1/T/invoices";

/// Callers that go on while `during` happens; not one request may fail.
fn under_load(proxy: &Cupbearer, during: impl FnOnce()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    ok(proxy);
                }
            });
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(during));
        done.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn ok(proxy: &Cupbearer) {
    let response = proxy.get(TARGET);
    assert_eq!(response.status, 200, "{}", response.text());
}

/// So many more requests, one after the other.
fn requests(proxy: &Cupbearer, count: usize) {
    (0..count).for_each(|_| ok(proxy));
}

#[test]
#[ignore = "needs libfaketime: run tests/run"]
fn a_clock_that_jumps_ahead_costs_one_token_request_and_back_again_none() {
    let (sandbox, config) = ipxo("ipxo.idp=ttl:1800");
    let (proxy, clock) = WallClock::start(&config);
    let fetched = |count: u64| assert_eq!(sandbox.token_requests(Provider::Ipxo), count);
    under_load(&proxy, || {
        sandbox.wait_for_token_requests(Provider::Ipxo, 1);
        clock.set(HOUR);
        // By this clock the token is over: it is replaced, once.
        sandbox.wait_for_token_requests(Provider::Ipxo, 2);
        requests(&proxy, 50);
        for offset in [0, HOUR, -HOUR, 0, -HOUR, HOUR] {
            clock.set(offset);
            requests(&proxy, 50);
        }
    });
    fetched(2);
    sandbox.expect_clean();
    assert!(proxy.stop().contains("token fetched"));
}

#[test]
#[ignore = "needs libfaketime: run tests/run"]
fn a_clock_that_jumps_back_costs_nothing_and_lets_no_token_live_longer() {
    let (sandbox, config) = ipxo("ipxo.idp=ttl:3");
    let (proxy, clock) = WallClock::start(&config);
    let started = Instant::now();
    under_load(&proxy, || {
        sandbox.wait_for_token_requests(Provider::Ipxo, 1);
        clock.set(-HOUR);
        // The provider's own clock says when a token is over; the sandbox counts those that come too late.
        eventually("three more tokens", || sandbox.token_requests(Provider::Ipxo) >= 4);
        clock.set(0);
        requests(&proxy, 50);
    });
    // A token of 3 s is replaced after 2 s at the earliest, and once more when the clock comes forth again.
    let most = started.elapsed().as_secs() / 2 + 3;
    assert!(sandbox.token_requests(Provider::Ipxo) <= most, "{} in {:?}", most, started.elapsed());
    sandbox.expect_clean();
    proxy.stop();
}

#[test]
#[ignore = "needs libfaketime: run tests/run"]
fn a_jump_neither_ends_nor_prolongs_the_time_that_a_provider_is_left_in_peace() {
    for offset in [HOUR, -HOUR] {
        let (sandbox, config) = ipxo("ipxo.idp=status:503,retry-after:3");
        let (proxy, clock) = WallClock::start(&config);
        let began = Instant::now();
        let problem = proxy.get(TARGET).expect_problem(503, "idp_unavailable");
        assert_eq!(problem["retry_after"], 3);
        clock.set(offset);
        for _ in 0..50 {
            let problem = proxy.get(TARGET).expect_problem(503, "idp_unavailable");
            assert!((1..=3).contains(&problem["retry_after"].as_u64().unwrap()), "{problem}");
        }
        assert_eq!(sandbox.token_requests(Provider::Ipxo), 1, "{offset}");
        sandbox.clear_faults();
        eventually("the provider is asked again", || proxy.get(TARGET).status == 200);
        assert!(began.elapsed() < Duration::from_secs(10), "{offset}: {:?}", began.elapsed());
        assert_eq!(sandbox.token_requests(Provider::Ipxo), 2, "{offset}");
        proxy.stop();
    }
}

#[test]
#[ignore = "needs libfaketime: run tests/run"]
fn a_laptop_that_slept_sends_no_token_from_before() {
    // Asleep, the monotonic clock stands still and the wall clock goes on.
    let (tokens, api) = (Upstream::tokens(1800), Upstream::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    let config = format!(
        "[credentials.acme]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\ntoken_url = \"{}/token\"\n\
         [[routes]]\nprefix = \"/acme\"\nupstream = \"{}\"\ncredential = \"acme\"\n",
        tokens.url(),
        api.url()
    );
    let (proxy, clock) = WallClock::start(&config);
    let mut slept = 0;
    for night in 1..=3 {
        requests(&proxy, 3);
        slept += 8 * HOUR;
        clock.set(slept);
        thread::scope(|scope| (0..20).for_each(|_| drop(scope.spawn(|| ok(&proxy)))));
        assert_eq!(tokens.requests().len(), night + 1);
        let last: Vec<_> = api.requests().split_off(api.requests().len() - 20);
        let carried = format!("Bearer not-a-token-{}", night + 1);
        assert!(last.iter().all(|request| request.header("authorization") == Some(&carried)), "{last:?}");
    }
    proxy.stop();
}

#[test]
fn a_process_that_was_suspended_sends_no_token_that_expired_meanwhile() {
    let (sandbox, config) = ipxo("ipxo.idp=ttl:2");
    let proxy = Cupbearer::builder().env("SECRET", IPXO_CLIENT_SECRET).start(&config);
    for _ in 0..2 {
        requests(&proxy, 3);
        let before = sandbox.token_requests(Provider::Ipxo);
        proxy.process().signal("STOP");
        thread::scope(|scope| {
            // These connect and send while it sleeps, and must not notice.
            (0..8).for_each(|_| drop(scope.spawn(|| ok(&proxy))));
            thread::sleep(Duration::from_millis(2500)); // not for a race: this is how long it sleeps
            proxy.process().signal("CONT");
        });
        let asked = sandbox.token_requests(Provider::Ipxo) - before;
        assert!((1..=2).contains(&asked), "{asked} token requests for one awakening");
    }
    sandbox.expect_clean();
    proxy.stop();
}

/// What of a provider is wrong by some seconds: the header of its answers, and what stands in them.
#[derive(Clone, Copy)]
struct Skew {
    date: i64,
    answer: i64,
}

/// A provider whose tokens live for 3 s by the real clock, whatever its own says, with an API that takes no other: how
/// many came too late is counted.
fn skewed(skew: Skew, is_jwt: bool) -> (Upstream, Arc<AtomicUsize>) {
    let (ends, late) = (Mutex::new(Vec::new()), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&late);
    let server = Upstream::start(move |connection| {
        while let Some(request) = connection.request() {
            let mut ends = ends.lock().unwrap();
            let (status, body) = if request.target() == "/token" {
                let now = jiff::Timestamp::now().as_second() + skew.answer;
                let end = jiff::Timestamp::from_second(now + 3).unwrap();
                let claims = format!("{{\"iat\":{now},\"exp\":{},\"jti\":\"{}\"}}", now + 3, ends.len());
                let jwt = ["{}", &claims, "not-signed"].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
                let (token, expires_at) = if is_jwt {
                    (jwt, String::new())
                } else {
                    (format!("t{}", ends.len()), format!(",\"expires_at\":\"{end}\""))
                };
                ends.push((format!("Bearer {token}"), Instant::now() + Duration::from_secs(3)));
                (200, format!("{{\"access_token\":\"{token}\"{expires_at}}}"))
            } else {
                let carried = request.header("authorization").unwrap_or_default();
                let is_good = ends.iter().any(|(token, end)| token == carried && Instant::now() < *end);
                counted.fetch_add(usize::from(!is_good), Ordering::Relaxed);
                (if is_good { 200 } else { 401 }, String::new())
            };
            let date = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + skew.date).unwrap();
            let date = date.strftime("%a, %d %b %Y %T GMT");
            let length = body.len();
            connection.send(format!("HTTP/1.1 {status} X\r\nDate: {date}\r\nContent-Length: {length}\r\n\r\n{body}"));
        }
    });
    (server, late)
}

#[test]
fn a_provider_whose_clock_is_ten_minutes_off_is_asked_no_more_often_and_no_token_is_used_too_long() {
    let wrong = [
        Skew { date: 600, answer: 600 },
        Skew { date: -600, answer: -600 },
        Skew { date: 600, answer: 0 },
        Skew { date: -600, answer: 0 },
    ];
    thread::scope(|scope| {
        for (skew, is_jwt) in wrong.into_iter().flat_map(|skew| [(skew, true), (skew, false)]) {
            if skew.date < 0 && skew.answer == 0 && !is_jwt {
                continue; // an end by one clock and the time by another: nothing tells which is right
            }
            scope.spawn(move || {
                let (server, late) = skewed(skew, is_jwt);
                let url = server.url();
                let config = format!(
                    "[credentials.acme]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\n\
                     token_url = \"{url}/token\"\n\
                     [[routes]]\nprefix = \"/acme\"\nupstream = \"{url}/api\"\ncredential = \"acme\"\n"
                );
                let proxy = Cupbearer::builder().env("SECRET", "not-a-secret").start(&config);
                let began = Instant::now();
                while began.elapsed() < Duration::from_secs(7) {
                    ok(&proxy);
                    thread::sleep(Duration::from_millis(20));
                }
                let what = format!("Date {:+}, answer {:+}, JWT {is_jwt}", skew.date, skew.answer);
                assert_eq!(late.load(Ordering::Relaxed), 0, "{what}");
                let asked = server.requests().iter().filter(|request| request.target() == "/token").count();
                assert!((2..=6).contains(&asked), "{what}: {asked} token requests in 7 s");
                proxy.stop();
            });
        }
    });
}
