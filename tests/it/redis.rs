//! Replicas that share their tokens through a real `redis-server`: the binary three times over.

use std::{
    collections::HashSet,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use redis::aio::MultiplexedConnection;

use crate::support::{Ca, Client, Connection, Cupbearer, PATIENCE, Process, TestDir, Upstream, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const PASSWORD: &str = "not-a-secret-for-redis";
/// 32 bytes of `s`, in base64.
const SEAL_KEY: &str = "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M=";

/// A Redis of the test's own, with a user of its own; ends with the test.
struct Redis {
    address: SocketAddr,
    dir: TestDir,
    process: Process,
}

impl Redis {
    fn start() -> Self {
        Self::start_at(free_address(), TestDir::new(), false)
    }

    fn start_at(address: SocketAddr, dir: TestDir, tls: bool) -> Self {
        let acl = format!("user default off\nuser cupbearer on >{PASSWORD} ~cupbearer:* +@all -@admin +select\n");
        let acl = dir.write("users.acl", acl);
        let (port, none) = (address.port().to_string(), "0".to_owned());
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]).arg("--dir").arg(dir.path());
        command.arg("--aclfile").arg(acl).args(["--port", if tls { &none } else { &port }]);
        if tls {
            command.args(["--tls-port", &port, "--tls-auth-clients", "no", "--tls-cert-file"]);
            command.arg(dir.path().join("tls.pem")).arg("--tls-key-file").arg(dir.path().join("tls.key"));
        }
        let process = Process::spawn("redis-server", &mut command);
        eventually("redis listens", || TcpStream::connect(address).is_ok());
        Self { address, dir, process }
    }

    fn url(&self) -> String {
        format!("redis://{}/1", self.address)
    }

    fn ask<T>(&self, ask: impl AsyncFnOnce(MultiplexedConnection) -> T) -> T {
        let client = redis::Client::open(format!("redis://cupbearer:{PASSWORD}@{}/1", self.address)).expect("a URL");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { ask(client.get_multiplexed_async_connection().await.expect("a connection")).await })
    }

    /// How many scripts were run: each look at a lease is one.
    fn scripts(&self) -> u64 {
        let info: String = self.ask(async |mut connection| {
            redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.expect("statistics")
        });
        let calls = info.split("cmdstat_eval:calls=").nth(1).and_then(|rest| rest.split(',').next());
        calls.map_or(0, |calls| calls.parse().expect("a number"))
    }

    /// Every key with its value as Redis keeps it, as one text.
    fn content(&self) -> String {
        self.ask(async |mut connection| {
            let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.expect("keys");
            let mut text = String::new();
            for key in keys {
                let dump: Vec<u8> = redis::cmd("DUMP").arg(&key).query_async(&mut connection).await.expect("a value");
                text.push_str(&key);
                text.push_str(&String::from_utf8_lossy(&dump));
            }
            text
        })
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a loopback port")
}

/// One replica of one service; `more` are further lines of its credential.
fn replica(redis: &str, tokens: &Upstream, api: &Upstream, more: &str) -> Cupbearer {
    let store = format!("{{ redis = {redis}, username = \"cupbearer\", password = {{ env = \"REDIS\" }} }}");
    Cupbearer::builder().env("SEAL_KEY", SEAL_KEY).env("SECRET", "not-a-secret").env("REDIS", PASSWORD).start(&format!(
        "[tokens]\nstore = {store}\nseal_key = {{ env = \"SEAL_KEY\" }}\n[credentials.c]\nclient_id = \"id\"\n\
         client_secret = {{ env = \"SECRET\" }}\ntoken_url = \"{}/token\"\n{more}\n[[routes]]\nprefix = \"/api\"\n\
         upstream = \"{}\"\ncredential = \"c\"\n",
        tokens.url(),
        api.url()
    ))
}

fn quoted(url: &str) -> String {
    format!("\"{url}\"")
}

fn said(proxy: &Cupbearer, text: &str) -> usize {
    proxy.process().output().lines().filter(|line| line.contains(text)).count()
}

fn clean(proxy: Cupbearer) {
    proxy.expect_never_printed(&["not-a-secret", "not-a-token", SEAL_KEY]);
    proxy.stop();
}

/// Asks again and again until it is told to stop; every answer must be a 200.
fn caller(address: SocketAddr, stop: &Arc<AtomicBool>) -> JoinHandle<usize> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let (mut client, mut served) = (Client::connect(address), 0);
        while !stop.load(Ordering::SeqCst) {
            let response = client.exchange(format!("GET /api HTTP/1.1\r\nHost: {address}\r\n\r\n"));
            assert_eq!(response.status, 200, "{}", response.text());
            served += 1;
            thread::sleep(Duration::from_millis(10));
        }
        served
    })
}

fn carried(api: &Upstream) -> HashSet<String> {
    api.requests().iter().filter_map(|request| request.header("authorization").map(str::to_owned)).collect()
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn three_replicas_cost_one_token_request_per_renewal_and_redis_holds_nothing_readable() {
    let redis = Redis::start();
    let (tokens, api) = (Upstream::tokens(3), Upstream::always(OK));
    let proxies: Vec<Cupbearer> = (0..3).map(|_| replica(&quoted(&redis.url()), &tokens, &api, "")).collect();
    let (stop, began) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let callers: Vec<_> = proxies.iter().map(|proxy| caller(proxy.address(), &stop)).collect();
    tokens.wait_for_requests(4);
    let content = redis.content();
    stop.store(true, Ordering::SeqCst);
    let half_seconds = began.elapsed().as_secs() / 2;
    assert!(callers.into_iter().all(|caller| caller.join().expect("only 200s") > 50));
    // A token of 3 s is renewed about 0.8 s before its end, once for all three of them.
    let (asked, carried) = (tokens.requests().len(), carried(&api).len());
    assert!(asked as u64 <= half_seconds + 2, "{asked} token requests in twice {half_seconds} s");
    assert!(carried == asked || carried + 1 == asked, "{asked} requests for {carried} tokens that were used");
    assert!(content.contains("cupbearer:token:"), "{content}");
    for readable in ["not-a-token", "not-a-secret", "access_token", "127.0.0.1"] {
        assert!(!content.contains(readable), "{readable} in {content}");
    }
    let own: usize = proxies.iter().map(|proxy| said(proxy, "token fetched")).sum();
    assert_eq!(own, tokens.requests().len());
    eventually("they take over", || {
        proxies.iter().map(|proxy| said(proxy, "token taken over from another replica")).sum::<usize>() >= 6
    });
    proxies.into_iter().for_each(clean);
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_holder_of_the_lease_that_is_killed_delays_the_others_and_no_more() {
    let redis = Redis::start();
    let tokens = Upstream::start(|connection: &mut Connection| {
        let number = connection.number();
        while connection.request().is_some() {
            if number == 0 {
                connection.wait_for_close(); // the first one never gets an answer
                return;
            }
            let body = r#"{"access_token":"not-a-token-2","expires_in":3600}"#;
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        }
    });
    let api = Upstream::always(OK);
    let more = "timeout = \"3s\"\nwarm = \"always\"";
    let holder = replica(&quoted(&redis.url()), &tokens, &api, more);
    tokens.wait_for_requests(1);
    assert!(redis.content().contains("cupbearer:lease:"), "it asks by the right of a lease");
    let scripts = redis.scripts();
    let other = replica(&quoted(&redis.url()), &tokens, &api, more);
    eventually("the other one has asked for the lease twice", || redis.scripts() >= scripts + 2);
    holder.process().signal("KILL");
    assert_eq!(tokens.requests().len(), 1, "the other one waits");
    assert!(redis.content().contains("cupbearer:lease:"), "nobody has given it back");
    let began = Instant::now();
    eventually("the other one takes over", || other.get("/api").status == 200);
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    assert_eq!(tokens.requests().len(), 2);
    clean(other);
}

/// Passes everything on, later: each piece by `delay` milliseconds. `u64::MAX` = the connections are cut.
struct Relay {
    address: SocketAddr,
    delay: Arc<AtomicU64>,
}

impl Relay {
    fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let (address, delay) = (listener.local_addr().expect("bound"), Arc::new(AtomicU64::new(0)));
        let shared = Arc::clone(&delay);
        thread::spawn(move || {
            for near in listener.incoming() {
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(target)) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
                    let delay = Arc::clone(&shared);
                    thread::spawn(move || pass(from, to, &delay));
                }
            }
        });
        Self { address, delay }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, delay: &AtomicU64) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        match delay.load(Ordering::SeqCst) {
            u64::MAX => break,
            delay => thread::sleep(Duration::from_millis(delay)),
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_redis_that_is_slow_away_and_back_costs_no_caller_anything() {
    let redis = Redis::start();
    let (tokens, api, relay) = (Upstream::tokens(3), Upstream::always(OK), Relay::to(redis.address));
    let url = format!("redis://{}/1", relay.address);
    let proxies: Vec<Cupbearer> = (0..2).map(|_| replica(&quoted(&url), &tokens, &api, "")).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = proxies.iter().map(|proxy| caller(proxy.address(), &stop)).collect();
    relay.delay.store(60, Ordering::SeqCst);
    let slow = tokens.wait_for_requests(2).len();
    assert!(proxies.iter().all(|proxy| said(proxy, "redis is away") == 0), "slow is not away");
    relay.delay.store(u64::MAX, Ordering::SeqCst);
    eventually("both say that it is away", || proxies.iter().all(|proxy| said(proxy, "redis is away") == 1));
    tokens.wait_for_requests(slow + 3);
    relay.delay.store(0, Ordering::SeqCst);
    eventually("both say that it is back", || proxies.iter().all(|proxy| said(proxy, "redis is back") == 1));
    let (back, taken) = (tokens.requests().len(), |proxy: &Cupbearer| said(proxy, "taken over"));
    let before: usize = proxies.iter().map(taken).sum();
    tokens.wait_for_requests(back + 2);
    stop.store(true, Ordering::SeqCst);
    assert!(callers.into_iter().all(|caller| caller.join().expect("only 200s") > 50));
    assert!(proxies.iter().map(taken).sum::<usize>() > before, "they share again");
    proxies.into_iter().for_each(clean);
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn over_tls_redis_must_be_the_one_that_ca_file_vouches_for_and_a_wrong_password_is_said_without_it() {
    let (ca, dir) = (Ca::new(), TestDir::new());
    let (certificate, key) = ca.issue(&["localhost"]);
    dir.write("tls.pem", certificate);
    dir.write("tls.key", key);
    let root = dir.write("root.pem", ca.pem()).display().to_string();
    let redis = Redis::start_at(free_address(), dir, true);
    let (tokens, api) = (Upstream::tokens(3600), Upstream::always(OK));
    let url = format!("\"rediss://localhost:{}/1\"", redis.address.port());
    let stranger = replica(&url, &tokens, &api, "");
    assert_eq!(stranger.get("/api").status, 200, "the token is fetched all the same");
    let away = "redis is away: until it is back this replica fetches tokens for itself: TLS with localhost";
    eventually("it says why", || said(&stranger, away) == 1);
    clean(stranger);
    let trusting = format!("{url}, ca_file = \"{root}\"");
    for expected in [2, 2] {
        let proxy = replica(&trusting, &tokens, &api, "");
        assert_eq!(proxy.get("/api").status, 200);
        assert_eq!(
            (tokens.requests().len(), said(&proxy, "redis is away")),
            (expected, 0),
            "the second one takes it over"
        );
        clean(proxy);
    }
    assert!(redis.process.output().contains("Ready to accept connections"), "{}", redis.dir.path().display());
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_password_that_redis_does_not_take_is_said_without_it() {
    let redis = Redis::start();
    let (tokens, api) = (Upstream::tokens(3600), Upstream::always(OK));
    let store =
        format!("{{ redis = \"{}\", username = \"cupbearer\", password = {{ env = \"WRONG\" }} }}", redis.url());
    let builder = Cupbearer::builder().env("SEAL_KEY", SEAL_KEY).env("WRONG", "not-a-secret-wrong");
    let proxy = builder.env("SECRET", "not-a-secret").start(&format!(
        "[tokens]\nstore = {store}\nseal_key = {{ env = \"SEAL_KEY\" }}\n[credentials.c]\nclient_id = \"id\"\n\
         client_secret = {{ env = \"SECRET\" }}\ntoken_url = \"{}/token\"\n[[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\n\
         credential = \"c\"\n",
        tokens.url(),
        api.url()
    ));
    assert_eq!(proxy.get("/api").status, 200);
    eventually("redis is away", || said(&proxy, "redis is away") == 1);
    clean(proxy);
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_budget_is_counted_over_all_replicas_and_by_each_for_itself_while_redis_is_away() {
    let redis = Redis::start();
    let (tokens, api) = (Upstream::tokens(1), Upstream::always(OK));
    let more = "budget = \"4/1h\"\nshare = false"; // not even the token is shared, and yet they have one account
    let proxies: Vec<Cupbearer> = (0..2).map(|_| replica(&quoted(&redis.url()), &tokens, &api, more)).collect();
    eventually("both have nothing left", || proxies.iter().all(|proxy| proxy.get("/api").status == 503));
    assert_eq!(tokens.requests().len(), 4, "four for both of them together");
    for proxy in &proxies {
        let response = proxy.get("/api");
        assert!(response.text().contains("budget_exhausted"), "{}", response.text());
        let wait: u32 = response.header("retry-after").and_then(|value| value.parse().ok()).expect("seconds");
        assert!((3000..=3601).contains(&wait), "{wait}");
    }
    assert!(redis.content().contains("cupbearer:budget:"));
    proxies.into_iter().for_each(clean);
}
