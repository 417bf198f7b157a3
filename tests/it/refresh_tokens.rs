//! Two real processes and one refresh token: a provider that takes a second use of it as theft never sees one.

use std::{
    fs,
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use crate::support::{Builder, Cupbearer, RedisServer, TestDir, Upstream, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// 32 bytes of `s`, in base64.
const SEAL_KEY: &str = "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M=";
/// 32 bytes of `t`.
const OTHER_SEAL_KEY: &str = "dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHQ=";

/// What the provider has seen.
#[derive(Default)]
struct Chain {
    /// Refresh tokens given out; only the last one is good, `not-a-token-r0` being the first.
    given: usize,
    reused: usize,
    underway: usize,
    at_once: usize,
    /// Requests come in and get no answer.
    hangs: bool,
    /// Requests come in, use their refresh token up, and get the answer once this is over.
    delays: bool,
}

/// Each answer takes its time, so that uses would overlap; access tokens live for `life` seconds.
fn provider(life: u32, chain: &Arc<Mutex<Chain>>) -> Upstream {
    let chain = Arc::clone(chain);
    Upstream::start(move |connection| {
        while let Some(request) = connection.request() {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            let used =
                body.split('&').find_map(|pair| pair.strip_prefix("refresh_token=")).unwrap_or_default().to_owned();
            let answer = {
                let mut chain = chain.lock().expect("not poisoned");
                chain.underway += 1;
                chain.at_once = chain.at_once.max(chain.underway);
                if chain.hangs {
                    drop(chain);
                    connection.wait_for_close();
                    return;
                }
                if used == format!("not-a-token-r{}", chain.given) {
                    chain.given += 1;
                    let n = chain.given;
                    Some(format!(
                        r#"{{"access_token":"not-a-token-{n}","expires_in":{life},"refresh_token":"not-a-token-r{n}"}}"#
                    ))
                } else {
                    chain.reused += 1;
                    None
                }
            };
            thread::sleep(Duration::from_millis(60));
            eventually("the answer may go", || !chain.lock().expect("not poisoned").delays);
            chain.lock().expect("not poisoned").underway -= 1;
            let (status, body) = match &answer {
                Some(body) => ("200 OK", body.as_str()),
                None => ("400 Bad Request", r#"{"error":"invalid_grant"}"#),
            };
            let length = body.len();
            connection.send(format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            ));
        }
    })
}

fn config(store: &str, warm: &str, provider: &Upstream, api: &Upstream) -> String {
    let route = |scope: &str| {
        format!(
            "[[routes]]\nprefix = \"/{scope}\"\nupstream = \"{}\"\ncredential = \"c\"\nscopes = [\"{scope}\"]\n",
            api.url()
        )
    };
    format!(
        "[tokens]\nstore = {store}\nseal_key = {{ env = \"SEAL_KEY\" }}\n[credentials.c]\nclient_id = \"id\"\n\
         client_auth = \"none\"\ngrant = \"refresh_token\"\nrefresh_token = {{ env = \"FIRST\" }}\nwarm = \"{warm}\"\n\
         token_url = \"{}/token\"\n{}{}{}",
        provider.url(),
        route("a"),
        route("b"),
        route("c")
    )
}

fn builder() -> Builder {
    Cupbearer::builder().env("FIRST", "not-a-token-r0").env("SEAL_KEY", SEAL_KEY).server("workers = 1")
}

/// Two processes, three tokens each, all from one chain.
fn two_processes_take_turns(store: &str) {
    let chain = Arc::new(Mutex::new(Chain::default()));
    let (provider, api) = (provider(2, &chain), Upstream::always(OK));
    let config = config(store, "always", &provider, &api);
    let (one, two) = (builder().start(&config), builder().start(&config));
    eventually("two dozen rotations", || chain.lock().expect("not poisoned").given >= 24);
    for scope in ["a", "b", "c"] {
        assert_eq!(one.get(&format!("/{scope}")).status, 200);
        assert_eq!(two.get(&format!("/{scope}")).status, 200);
    }
    let chain = chain.lock().expect("not poisoned");
    assert_eq!((chain.reused, chain.at_once), (0, 1), "used twice, used at once");
    one.expect_never_printed(&["not-a-token-", SEAL_KEY]);
    two.expect_never_printed(&["not-a-token-", SEAL_KEY]);
}

#[test]
fn two_processes_with_one_directory_never_use_a_refresh_token_at_once() {
    let dir = TestDir::new();
    two_processes_take_turns(&format!("{{ file = \"{}\" }}", dir.path().join("tokens").display()));
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn two_processes_with_one_redis_never_use_a_refresh_token_at_once() {
    let redis = RedisServer::start();
    two_processes_take_turns(&format!("{{ redis = \"{}\" }}", redis.url()));
}

#[test]
fn a_process_that_is_killed_while_it_holds_the_refresh_token_leaves_it_to_the_next_one() {
    let chain = Arc::new(Mutex::new(Chain { hangs: true, ..Chain::default() }));
    let (provider, api, dir) = (provider(3600, &chain), Upstream::always(OK), TestDir::new());
    let store = format!("{{ file = \"{}\" }}", dir.path().join("tokens").display());
    let config = config(&store, "on_use", &provider, &api);
    let proxy = builder().start(&config);
    let mut waiting = proxy.connect();
    waiting.send(format!("GET /a HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address()));
    eventually("the token request", || chain.lock().expect("not poisoned").underway == 1);
    proxy.process().signal("KILL");
    chain.lock().expect("not poisoned").hangs = false;
    for scope in ["a", "b", "c"] {
        let proxy = builder().start(&config);
        assert_eq!(proxy.get(&format!("/{scope}")).status, 200);
        proxy.process().signal("KILL");
    }
    let chain = chain.lock().expect("not poisoned");
    assert_eq!((chain.given, chain.reused), (3, 0));
}

/// The provider has used the refresh token up and its answer is on the way: only that has the next one.
#[test]
fn a_process_that_is_told_to_end_waits_for_the_refresh_token_that_is_on_its_way() {
    let chain = Arc::new(Mutex::new(Chain { delays: true, ..Chain::default() }));
    let (provider, api, dir) = (provider(3600, &chain), Upstream::always(OK), TestDir::new());
    let store = format!("{{ file = \"{}\" }}", dir.path().join("tokens").display());
    let config = config(&store, "always", &provider, &api);
    for (given, signal) in [(1, "TERM"), (2, "INT")] {
        let proxy = builder().start(&config);
        eventually("the token request", || chain.lock().expect("not poisoned").given == given);
        proxy.process().signal(signal);
        let waits = |text: &str| text.contains("waiting for the answer to a token request").then_some(());
        proxy.process().wait_for(waits).unwrap_or_else(|output| panic!("{output}"));
        chain.lock().expect("not poisoned").delays = false;
        let output = proxy.wait_for_end();
        assert_eq!(chain.lock().expect("not poisoned").given, given, "nothing new was begun: {output}");
        chain.lock().expect("not poisoned").delays = true;
    }
    chain.lock().expect("not poisoned").delays = false;
    let proxy = builder().start(&config);
    for scope in ["a", "b", "c"] {
        assert_eq!(proxy.get(&format!("/{scope}")).status, 200);
    }
    let chain = chain.lock().expect("not poisoned");
    assert_eq!((chain.given, chain.reused), (3, 0), "each access token was stored too");
}

/// The store goes while the provider rotates, and comes back: in time for the process, or only for its end.
#[test]
fn a_rotated_refresh_token_is_stored_as_soon_as_the_store_is_back() {
    for ends in [false, true] {
        let chain = Arc::new(Mutex::new(Chain { delays: true, ..Chain::default() }));
        let (provider, api, dir) = (provider(3600, &chain), Upstream::always(OK), TestDir::new());
        let (place, away) = (dir.path().join("tokens"), dir.path().join("away"));
        let config = config(&format!("{{ file = \"{}\" }}", place.display()), "on_use", &provider, &api);
        let proxy = builder().start(&config);
        let mut waiting = proxy.connect();
        waiting.send(format!("GET /a HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address()));
        eventually("the token request", || chain.lock().expect("not poisoned").given == 1);
        fs::rename(&place, &away).expect("ours");
        chain.lock().expect("not poisoned").delays = false;
        assert_eq!(waiting.response().status, 200, "the token is good all the same");
        let says = |what: &'static str| {
            let said = proxy.process().wait_for(|text| text.contains(what).then_some(()));
            said.unwrap_or_else(|output| panic!("{output}"));
        };
        says("cannot be stored");
        if ends {
            proxy.process().signal("TERM");
            thread::sleep(Duration::from_millis(1_500));
        }
        fs::rename(&away, &place).expect("ours");
        if ends {
            proxy.wait_for_end();
        } else {
            says("is stored now");
            proxy.process().signal("KILL");
        }
        assert_eq!(chain.lock().expect("not poisoned").given, 1, "without another token request");
        let proxy = builder().start(&config);
        assert_eq!(proxy.get("/a").status, 200);
        let chain = chain.lock().expect("not poisoned");
        assert_eq!((chain.given, chain.reused), (2, 0));
    }
}

/// A mount whose server is gone: the store is to blame, and neither the provider nor the refresh token.
#[test]
fn a_store_that_hangs_is_blamed_for_the_refresh_token_that_cannot_be_had_and_nothing_is_asked() {
    let chain = Arc::new(Mutex::new(Chain::default()));
    let (provider, api, dir) = (provider(3600, &chain), Upstream::always(OK), TestDir::new());
    let place = dir.path().join("tokens");
    let config = config(&format!("{{ file = \"{}\" }}", place.display()), "on_use", &provider, &api);
    let proxy = builder().start(&config);
    assert_eq!(proxy.get("/a").status, 200);
    let files = || fs::read_dir(&place).expect("the store").map(|file| file.expect("a file").path());
    let kept = files().find(|path| path.display().to_string().ends_with("-refresh")).expect("it was stored");
    let away = dir.path().join("away");
    fs::rename(&kept, &away).expect("ours");
    assert!(Command::new("mkfifo").arg(&kept).status().expect("mkfifo").success());
    let began = Instant::now();
    let problem = proxy.get("/b").expect_problem(503, "secret_unavailable");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("its refresh token cannot be had: the token store"), "{detail}");
    assert_eq!(problem["blame"], "config");
    let pipe = kept.with_extension("pipe");
    fs::rename(&kept, &pipe).expect("ours");
    fs::rename(&away, &kept).expect("ours");
    drop(fs::OpenOptions::new().write(true).open(&pipe).expect("it is being read"));
    eventually("it is back", || proxy.get("/b").status == 200);
    let chain = chain.lock().expect("not poisoned");
    assert_eq!((chain.given, chain.reused), (2, 0));
}

/// Nor do the commands that ask for one token go away with the answer.
#[test]
fn a_command_that_is_interrupted_keeps_the_refresh_token_that_is_on_its_way() {
    let chain = Arc::new(Mutex::new(Chain { delays: true, ..Chain::default() }));
    let (provider, api, dir) = (provider(3600, &chain), Upstream::always(OK), TestDir::new());
    let store = format!("{{ file = \"{}\" }}", dir.path().join("tokens").display());
    let config = config(&store, "on_use", &provider, &api);
    let commands = [(&["check", "--online"][..], "INT", 130), (&["token", "c"], "TERM", 143)];
    for (given, (args, signal, code)) in (1..).zip(commands) {
        let builder = builder();
        let command = builder.run(&config, args);
        eventually("the token request", || chain.lock().expect("not poisoned").given == given);
        command.signal(signal);
        command.wait_for(|text| text.contains("is waited for").then_some(())).unwrap_or_else(|text| panic!("{text}"));
        chain.lock().expect("not poisoned").delays = false;
        let (status, output) = command.finish();
        assert_eq!(status.code(), Some(code), "{output}");
        chain.lock().expect("not poisoned").delays = true;
    }
    chain.lock().expect("not poisoned").delays = false;
    let proxy = builder().start(&config);
    assert_eq!(proxy.get("/a").status, 200);
    let chain = chain.lock().expect("not poisoned");
    assert_eq!((chain.given, chain.reused), (3, 0));
}

#[test]
fn a_command_that_is_interrupted_twice_ends_at_once() {
    let chain = Arc::new(Mutex::new(Chain { hangs: true, ..Chain::default() }));
    let (provider, api, dir) = (provider(3600, &chain), Upstream::always(OK), TestDir::new());
    let store = format!("{{ file = \"{}\" }}", dir.path().join("tokens").display());
    let builder = builder();
    let command = builder.run(&config(&store, "on_use", &provider, &api), &["token", "c"]);
    eventually("the token request", || chain.lock().expect("not poisoned").underway == 1);
    command.signal("INT");
    command.wait_for(|text| text.contains("is waited for").then_some(())).unwrap_or_else(|text| panic!("{text}"));
    command.signal("INT");
    let (status, output) = command.finish();
    assert!(status.code() == Some(130) && output.contains("SIGINT again"), "{output}");
}

#[test]
fn a_second_signal_ends_a_process_that_waits_for_its_provider() {
    let chain = Arc::new(Mutex::new(Chain { hangs: true, ..Chain::default() }));
    let (provider, api, dir) = (provider(3600, &chain), Upstream::always(OK), TestDir::new());
    let store = format!("{{ file = \"{}\" }}", dir.path().join("tokens").display());
    let proxy = builder().start(&config(&store, "always", &provider, &api));
    eventually("the token request", || chain.lock().expect("not poisoned").underway == 1);
    proxy.process().signal("TERM");
    let waits = |text: &str| text.contains("waiting for the answer to a token request").then_some(());
    proxy.process().wait_for(waits).unwrap_or_else(|output| panic!("{output}"));
    proxy.process().signal("TERM");
    let cut_off = |text: &str| text.contains("SIGTERM again").then_some(());
    proxy.process().wait_for(cut_off).unwrap_or_else(|output| panic!("{output}"));
}

/// Neither what holds no refresh token is waited for, nor what could be kept nowhere.
#[test]
fn a_token_request_whose_answer_nobody_could_keep_holds_up_no_end() {
    let provider = Upstream::start(|connection| {
        if connection.request().is_some() {
            connection.wait_for_close();
        }
    });
    let api = Upstream::always(OK);
    let refreshing = "grant = \"refresh_token\"\nrefresh_token = { env = \"SECRET\" }\n";
    for (number, grant) in ["", refreshing].into_iter().enumerate() {
        let lines = format!("{grant}warm = \"always\"\ntimeout = \"29s\"");
        let proxy = Cupbearer::before(&api.url(), &provider, &lines, "");
        eventually("the token request", || provider.requests().len() > number);
        let began = Instant::now();
        proxy.process().signal("TERM");
        proxy.wait_for_end();
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
}

/// A refresh token that was kept under another `seal_key` may be good: neither it nor the spent first one is used.
fn a_wrong_seal_key_spends_nothing(store: &str) {
    let chain = Arc::new(Mutex::new(Chain::default()));
    let (provider, api) = (provider(3600, &chain), Upstream::always(OK));
    let config = config(store, "on_use", &provider, &api);
    assert_eq!(builder().start(&config).get("/a").status, 200);
    let wrong = || builder().env("SEAL_KEY", OTHER_SEAL_KEY);
    let proxy = wrong().start(&config);
    for scope in ["a", "b"] {
        let problem = proxy.get(&format!("/{scope}")).expect_problem(503, "secret_unavailable");
        assert_eq!(problem["blame"], "config");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(
            detail.contains("its refresh token cannot be had") && detail.contains("see cupbearer's log"),
            "{problem}"
        );
        assert!(!detail.contains("seal_key") && !detail.contains("remove"), "no caller's business: {problem}");
        for part in ["is in the store, but it is sealed with another seal_key, or damaged", "give a new refresh_token"]
        {
            eventually("the log has all of it", || proxy.process().output().contains(part));
        }
    }
    proxy.expect_never_printed(&["not-a-token-", SEAL_KEY, OTHER_SEAL_KEY]);
    let asking = wrong();
    let (status, output) = asking.run(&config, &["check", "--online"]).finish();
    assert!(!status.success() && output.contains("sealed with another seal_key"), "{output}");
    {
        let chain = chain.lock().expect("not poisoned");
        assert_eq!((chain.given, chain.reused), (1, 0), "asked while the refresh token could not be opened");
    }
    assert_eq!(builder().start(&config).get("/b").status, 200);
    let chain = chain.lock().expect("not poisoned");
    assert_eq!((chain.given, chain.reused), (2, 0));
}

#[test]
fn a_wrong_seal_key_spends_no_refresh_token_of_a_directory() {
    let dir = TestDir::new();
    a_wrong_seal_key_spends_nothing(&format!("{{ file = \"{}\" }}", dir.path().join("tokens").display()));
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_wrong_seal_key_spends_no_refresh_token_of_a_redis() {
    let redis = RedisServer::start();
    a_wrong_seal_key_spends_nothing(&format!("{{ redis = \"{}\" }}", redis.url()));
}
