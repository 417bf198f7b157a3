//! A new configuration for the running process: by signal, by command, by the changed file. No request fails for it, and a
//! wrong file changes nothing.

use std::{
    fmt::Write as _,
    fs,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::support::{Ca, Client, Cupbearer, Ending, TestDir, TlsUpstream, Upstream, eventually};

/// 32 bytes of `s`, in base64.
const SEAL_KEY: &str = "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M=";

/// Answers with the token that it was sent.
fn echo() -> Upstream {
    Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            let token = request.header("authorization").unwrap_or_default().to_owned();
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{token}", token.len()));
        }
    })
}

fn credential(name: &str, tokens: &Upstream, more: &str) -> String {
    format!(
        "[credentials.{name}]\nclient_id = \"id-{name}\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"post\"\n\
         token_url = \"{}/token\"\n{more}\n",
        tokens.url()
    )
}

fn route(prefix: &str, upstream: &Upstream, credential: &str, more: &str) -> String {
    format!(
        "[[routes]]\nprefix = \"{prefix}\"\nupstream = \"{}\"\ncredential = \"{credential}\"\n{more}\n",
        upstream.url()
    )
}

fn start(config: &str) -> Cupbearer {
    Cupbearer::builder()
        .env("SECRET", "not-a-secret")
        .env("OTHER", "not-a-secret-either")
        .env("SEAL_KEY", SEAL_KEY)
        .admin()
        .start(config)
}

/// Writes another configuration behind the first two sections, in one step as editors and config maps do.
fn write(proxy: &Cupbearer, config: &str) {
    let file = proxy.dir().join("proxy.toml");
    let text = fs::read_to_string(&file).expect("it is there");
    let admin = text.find("[admin]").expect("its section");
    let end = text[admin..].match_indices('\n').nth(1).map_or(text.len(), |(at, _)| admin + at + 1);
    let next = proxy.dir().join("proxy.toml.next");
    fs::write(&next, format!("{}{config}", &text[..end])).expect("ours");
    fs::rename(next, file).expect("ours");
}

fn post(proxy: &Cupbearer, fields: &str) -> crate::support::Response {
    let address = proxy.admin();
    Client::connect(address)
        .exchange(format!("POST /api/v1/reload HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n{fields}\r\n"))
}

fn reload(proxy: &Cupbearer, config: &str) {
    write(proxy, config);
    let answer = post(proxy, "X-Cupbearer: 1\r\n");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn fifty_reloads_under_load_fail_no_request_and_mix_no_tokens() {
    let (api, other) = (echo(), echo());
    let (tokens, other_tokens) = (Upstream::tokens_named("c", 3600), Upstream::tokens_named("o", 3600));
    let config = |n: usize| {
        let more = if n.is_multiple_of(2) {
            "allow = [\"GET /**\"]"
        } else {
            "response_timeout = \"50s\"\nmax_in_flight = 20"
        };
        let mut text = credential("c", &tokens, "") + &credential("o", &other_tokens, "");
        text += &route("/api", &api, "c", more);
        text += &route("/other", &other, "o", more);
        text += &route(&format!("/new-{n}"), &api, "c", "");
        text
    };
    let proxy = start(&config(0));
    let (address, done, served) = (proxy.address(), AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let load = |path: &'static str, token: &'static str, kept: bool| {
            let (done, served) = (&done, &served);
            scope.spawn(move || {
                let mut client = Client::connect(address);
                while !done.load(Ordering::SeqCst) {
                    if !kept {
                        client = Client::connect(address);
                    }
                    let answer = client.exchange(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"));
                    assert_eq!((answer.status, answer.text().as_str()), (200, token), "{path}");
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        for kept in [true, true, false] {
            load("/api/x", "Bearer not-a-token-c1", kept);
            load("/other/x", "Bearer not-a-token-o1", kept);
        }
        for n in 1..=50 {
            let before = served.load(Ordering::SeqCst);
            reload(&proxy, &config(n));
            assert_eq!(proxy.get(&format!("/new-{n}/x")).text(), "Bearer not-a-token-c1");
            assert_eq!(proxy.get(&format!("/new-{}/x", n - 1)).status, 404, "the route has gone");
            eventually("requests go on", || served.load(Ordering::SeqCst) > before + 5);
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(
        (tokens.requests().len(), other_tokens.requests().len()),
        (1, 1),
        "unchanged credentials keep their tokens"
    );
    // The watch over the file may have been quicker than the test, here and there.
    let generation = proxy.metric("cupbearer_config_generation");
    assert!(generation >= 51);
    assert_eq!(proxy.metric("cupbearer_config_reloads_total{outcome=\"applied\"}"), generation - 1);
    let count = |route: &str| proxy.metric(&format!("cupbearer_requests_total{{route=\"{route}\",code=\"200\"}}"));
    eventually("no count is lost with a reload", || count("/api") + count("/other") == served.load(Ordering::SeqCst));
    proxy.expect_never_printed(&["not-a-token", "not-a-secret"]);
    proxy.stop();
}

#[test]
fn a_wrong_file_changes_nothing_and_every_problem_is_told() {
    let (api, tokens) = (echo(), Upstream::tokens(3600));
    let good = credential("c", &tokens, "") + &route("/api", &api, "c", "");
    let proxy = start(&good);
    assert_eq!(proxy.get("/api/x").text(), "Bearer not-a-token-1");
    let ca = "ca_file = \"/nowhere/ca.pem\"";
    for (broken, expected) in [
        (good.replace("client_id", "client_idd"), &["client_idd", "did you mean `client_id`?"][..]),
        (good.clone() + "[[routes]]\nprefix = \"/api\"\n[log]\nformat = 7\n", &["`/api`", "`format` in [log]"]),
        ("this is no TOML".to_owned(), &["not TOML"]),
        (String::new(), &["route"]),
        (good.replace("[[routes]]", &format!("{ca}\n[[routes]]")), &["ca_file"]),
    ] {
        write(&proxy, &broken);
        let answer = post(&proxy, "X-Cupbearer: 1\r\n");
        assert_eq!((answer.status, answer.header("content-type")), (422, Some("application/problem+json")));
        let problem = answer.json();
        assert_eq!(problem["code"], "config_rejected");
        for part in expected {
            assert!(problem["detail"].as_str().expect("text").contains(part), "{part}: {problem}");
            eventually("the log says it too", || proxy.process().output().contains(part));
        }
        assert_eq!(proxy.get("/api/x").text(), "Bearer not-a-token-1");
        assert_eq!(proxy.metric("cupbearer_config_generation"), 1);
    }
    assert!(proxy.metric("cupbearer_config_reloads_total{outcome=\"rejected\"}") >= 5);
    reload(&proxy, &good);
    assert_eq!(proxy.get("/api/x").text(), "Bearer not-a-token-1");
    assert_eq!(tokens.requests().len(), 1);
    proxy.expect_never_printed(&["not-a-token", "not-a-secret"]);
}

#[test]
fn a_signal_a_command_and_a_changed_file_reload() {
    let (api, tokens) = (echo(), Upstream::tokens(3600));
    let config = |prefix: &str| credential("c", &tokens, "") + &route(prefix, &api, "c", "");
    let proxy = start(&config("/zero"));
    assert_eq!(proxy.get("/zero/x").status, 200);
    write(&proxy, &config("/one"));
    eventually("the changed file is noticed", || proxy.get("/one/x").status == 200);
    assert_eq!(proxy.get("/zero/x").status, 404);
    write(&proxy, &config("/two"));
    proxy.process().signal("HUP");
    eventually("the signal is obeyed", || proxy.get("/two/x").status == 200);
    write(&proxy, &config("/three"));
    let admin = proxy.admin().to_string();
    let file = proxy.dir().join("proxy.toml");
    let command = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cupbearer"));
        command.args(["reload", "-c"]).arg(&file).args(more).env_clear().env("SECRET", "not-a-secret");
        crate::support::Process::spawn("cupbearer reload", &mut command).finish()
    };
    let (status, output) = command(&["--admin", &admin]);
    assert!(status.success() && output.contains("applied"), "{output}");
    assert_eq!(proxy.get("/three/x").status, 200);
    let (status, output) = command(&[]);
    assert_eq!(status.code(), Some(2), "{output}");
    assert!(output.contains("port 0") && output.contains("--admin"), "{output}");
    write(&proxy, "nonsense");
    let (status, output) = command(&["--admin", &admin]);
    assert_eq!(status.code(), Some(2), "{output}");
    assert!(output.contains("not TOML") && output.contains("stays"), "{output}");
    let (status, output) = command(&[]);
    assert_eq!(status.code(), Some(2), "{output}");
    assert!(output.contains("not TOML") && output.contains("was not asked"), "{output}");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").to_string();
    let (status, output) = command(&["--admin", &closed]);
    assert_eq!(status.code(), Some(1), "{output}");
    assert_eq!(proxy.get("/three/x").status, 200);
    // A file that is removed is no change.
    let told = || {
        let reloads = |outcome: &str| proxy.metric(&format!("cupbearer_config_reloads_total{{outcome=\"{outcome}\"}}"));
        (proxy.metric("cupbearer_config_generation"), reloads("applied"), reloads("rejected"))
    };
    let before = told();
    fs::remove_file(&file).expect("ours");
    thread::sleep(Duration::from_millis(1_200));
    assert_eq!(proxy.get("/three/x").status, 200);
    assert_eq!(told(), before, "generation, applied, rejected");
}

#[test]
fn only_this_host_with_the_mark_may_reload() {
    let (api, tokens) = (echo(), Upstream::tokens(3600));
    let proxy = start(&(credential("c", &tokens, "") + &route("/api", &api, "c", "")));
    for (fields, status) in [
        ("", 403),
        ("X-Cupbearer: 0\r\n", 403),
        ("X-Cupbearer: 1\r\nX-Cupbearer: 1\r\n", 403),
        ("X-Cupbearer: 1\r\nOrigin: http://evil.example\r\n", 403),
        ("X-Cupbearer: 1\r\nSec-Fetch-Site: same-site\r\n", 403),
    ] {
        assert_eq!(post(&proxy, fields).status, status, "{fields:?}");
    }
    let answer = proxy.admin_get("/api/v1/reload");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert_eq!(proxy.metric("cupbearer_config_generation"), 1);
    assert_eq!(post(&proxy, "X-Cupbearer: 1\r\n").json()["generation"], 2);
}

#[test]
fn a_changed_secret_source_gets_a_token_of_its_own() {
    let (api, tokens) = (echo(), Upstream::tokens(3600));
    let config = credential("c", &tokens, "") + &route("/api", &api, "c", "");
    let proxy = start(&config);
    assert_eq!(proxy.get("/api/x").text(), "Bearer not-a-token-1");
    reload(&proxy, &config.replace("\"SECRET\"", "\"OTHER\""));
    assert_eq!(proxy.get("/api/x").text(), "Bearer not-a-token-2");
    let sent: Vec<String> = tokens.requests().iter().map(|r| String::from_utf8_lossy(&r.body).into_owned()).collect();
    assert!(
        sent[0].contains("client_secret=not-a-secret&") || sent[0].ends_with("client_secret=not-a-secret"),
        "{sent:?}"
    );
    assert!(sent[1].contains("not-a-secret-either"), "{sent:?}");
}

/// The name is no part of what makes a token: the token stays, and whatever is said of it has the new name.
#[test]
fn a_credential_that_is_called_something_else_keeps_its_token_and_is_told_of_by_its_new_name() {
    let (tokens, api) = (Upstream::tokens(3600), echo());
    let config = |name: &str| {
        let id = "client_id = \"id\"\nclient_secret = { file = \"secret\" }\nclient_auth = \"post\"";
        let credential = format!("[credentials.{name}]\n{id}\ntoken_url = \"{}/token\"\n", tokens.url());
        credential + &route("/api", &api, name, "retry_on = [401]")
    };
    let builder = Cupbearer::builder().admin();
    builder.file("secret", "not-a-secret");
    let proxy = builder.start(&config("old"));
    let token = proxy.get("/api").text();
    reload(&proxy, &config("new"));
    assert_eq!(proxy.get("/api").text(), token);
    assert_eq!(tokens.requests().len(), 1);
    let states = |name: &str| proxy.admin_get("/metrics").text().matches(&format!("credential=\"{name}\"")).count();
    assert!(states("new") > 0 && states("old") == 0, "{}", proxy.admin_get("/metrics").text());
    proxy.stop();
    // A failure that stands is tried anew, under the new name; so is what is logged from then on.
    let nobody = Upstream::always("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    let config = |name: &str| {
        credential("x", &nobody, "").replace("credentials.x", &format!("credentials.{name}"))
            + &route("/api", &api, name, "")
    };
    let proxy = start(&config("old"));
    let said = |name: &str| {
        let problem = proxy.get("/api").expect_problem(502, "idp_refused");
        problem["credential"] == name
            && problem["detail"].as_str().is_some_and(|text| text.contains(&format!("{name:?}")))
    };
    assert!(said("old"));
    reload(&proxy, &config("new"));
    eventually("the new name", || said("new"));
    let output = proxy.stop();
    let last = output.lines().rfind(|line| line.contains("cupbearer::token::asking")).expect("a refusal");
    assert!(last.contains("credential=\"new\"") && !last.contains("old"), "{last}");
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_is_applied() {
    let (api, tokens) = (echo(), Upstream::tokens(3600));
    let config = credential("c", &tokens, "") + &route("/api", &api, "c", "");
    let proxy = start(&config);
    let file = proxy.dir().join("proxy.toml");
    let text = fs::read_to_string(&file).expect("it is there");
    let changed = text.replace("[admin]", "workers = 7\nallowed_hosts = [\"other.example\"]\n[admin]")
        + "[log]\naccess = \"access.log\"\n";
    fs::write(&file, changed.replace("\"/api\"", "\"/new\"")).expect("ours");
    let answer = post(&proxy, "X-Cupbearer: 1\r\n");
    assert_eq!(answer.json()["restart_needed"], serde_json::json!(["server.workers", "log"]), "{}", answer.text());
    eventually("the log says it too", || proxy.process().output().contains("server.workers, log"));
    let mut client = proxy.connect();
    assert_eq!(
        client.exchange("GET /new/x HTTP/1.1\r\nHost: other.example\r\n\r\n").status,
        200,
        "the names are new too"
    );
}

/// The file is refused by the command's way and by the watch over it, and what runs goes on.
fn expect_refused(proxy: &Cupbearer, part: &str) {
    let answer = post(proxy, "X-Cupbearer: 1\r\n");
    assert!(answer.status >= 400 && answer.text().contains(part), "{} {}", answer.status, answer.text());
    assert!(answer.text().contains("Restart instead"), "{}", answer.text());
    thread::sleep(Duration::from_millis(1_200));
    assert_eq!(proxy.get("/new/x").status, 404, "nothing is applied");
    assert_eq!(proxy.get("/api/x").text(), "Bearer not-a-token-1");
    assert_eq!(proxy.metric("cupbearer_config_generation"), 1);
}

/// Its first refresh token would be used up, and the next one be in this process alone.
#[test]
fn another_store_comes_with_no_credential_that_keeps_a_refresh_token() {
    let (api, tokens, rotating) = (echo(), Upstream::tokens(3600), Upstream::tokens_named("r", 3600));
    let config = credential("c", &tokens, "") + &route("/api", &api, "c", "");
    let proxy = start(&config);
    assert_eq!(proxy.get("/api/x").text(), "Bearer not-a-token-1");
    let store = format!(
        "[tokens]\nstore = {{ file = \"{}\" }}\nseal_key = {{ env = \"SEAL_KEY\" }}\n",
        proxy.dir().join("tokens").display()
    );
    let refreshing = format!(
        "[credentials.r]\nclient_id = \"id\"\nclient_auth = \"none\"\ngrant = \"refresh_token\"\nwarm = \"always\"\n\
         refresh_token = {{ env = \"OTHER\" }}\ntoken_url = \"{}/token\"\n",
        rotating.url()
    );
    write(&proxy, &(store.clone() + &config + &refreshing + &route("/new", &api, "r", "")));
    expect_refused(&proxy, "[tokens] has changed");
    assert_eq!(rotating.requests().len(), 0, "no refresh token is used");
    // Without such a credential nothing is lost.
    reload(&proxy, &(store + &config));
    assert_eq!(proxy.get("/api/x").text(), "Bearer not-a-token-1");
    reload(&proxy, &(config + &refreshing + &route("/new", &api, "r", "")));
    assert_eq!(proxy.get("/new/x").status, 200);
}

#[test]
fn a_secret_that_needs_another_vault_leaves_the_configuration_as_it_is() {
    let (api, tokens) = (echo(), Upstream::tokens(3600));
    let config = credential("c", &tokens, "") + &route("/api", &api, "c", "");
    let proxy = start(&config);
    assert_eq!(proxy.get("/api/x").text(), "Bearer not-a-token-1");
    let vault = "[vault]\naddress = \"http://127.0.0.1:9\"\ntoken = { env = \"OTHER\" }\n";
    let moved = config.replace("{ env = \"SECRET\" }", "{ vault = \"secret/c#client_secret\" }");
    assert_ne!(moved, config);
    write(&proxy, &(vault.to_owned() + &moved + &route("/new", &api, "c", "")));
    expect_refused(&proxy, "[vault] has changed");
    // Where no secret is there yet it is only told.
    write(&proxy, &(vault.to_owned() + &config));
    let answer = post(&proxy, "X-Cupbearer: 1\r\n");
    assert_eq!((answer.status, &answer.json()["restart_needed"]), (200, &serde_json::json!(["vault"])));
    assert_eq!(proxy.get("/api/x").text(), "Bearer not-a-token-1");
}

#[test]
fn a_route_that_goes_lets_its_running_requests_finish() {
    let api = Upstream::start(|connection| {
        while connection.request().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
            thread::sleep(Duration::from_millis(700));
            connection.send("world");
        }
    });
    let tokens = Upstream::tokens(3600);
    let config = |prefix: &str| credential("c", &tokens, "") + &route(prefix, &api, "c", "");
    let proxy = start(&config("/old"));
    let mut running = proxy.connect();
    running.send(format!("GET /old/x HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address()));
    running.wait_for(b"hello");
    reload(&proxy, &config("/new"));
    assert_eq!(proxy.get("/old/x").status, 404);
    running.wait_for(b"world");
}

struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn ten_thousand_routes_are_reloaded_while_requests_go_on() {
    let (api, tokens) = (echo(), Upstream::tokens(3600));
    let config = |mark: &str| {
        let mut text = credential("c", &tokens, "") + &route("/api", &api, "c", mark);
        for n in 0..10_000 {
            let _ =
                write!(text, "[[routes]]\nprefix = \"/r{n}\"\nupstream = \"{}/{n}\"\ncredential = \"c\"\n", api.url());
        }
        text
    };
    let proxy = start(&config(""));
    let (address, done) = (proxy.address(), AtomicBool::new(false));
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut client = Client::connect(address);
            let mut longest = Duration::ZERO;
            while !done.load(Ordering::SeqCst) {
                let asked = Instant::now();
                let answer = client.exchange(format!("GET /r9999/x HTTP/1.1\r\nHost: {address}\r\n\r\n"));
                assert_eq!((answer.status, answer.text().as_str()), (200, "Bearer not-a-token-1"));
                longest = longest.max(asked.elapsed());
            }
            longest
        });
        {
            // Also where a reload fails: else the load would go on for ever.
            let _ended = Ended(&done);
            for mark in ["deny = [\"DELETE /**\"]", "allow = [\"GET /**\"]"] {
                reload(&proxy, &config(mark));
            }
        }
        let longest = load.join().expect("no request failed");
        assert!(longest < Duration::from_secs(5), "{longest:?}");
    });
    assert_eq!(tokens.requests().len(), 1);
}

#[test]
fn what_the_ca_file_holds_by_now_is_trusted_and_nothing_else() {
    for presents in [false, true] {
        let (dir, tokens, ca, other) = (TestDir::new(), Upstream::tokens(3600), Ca::new(), Ca::named("another CA"));
        let (certificate, key) = ca.issue(&["localhost"]);
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let api = TlsUpstream::start(&certificate, &key, ok, Ending::KeepAlive);
        let trust = |text: &str| dir.write("ca.pem", text).display().to_string();
        let mut more = format!("ca_file = \"{}\"\n", trust(ca.pem()));
        if presents {
            let (certificate, key) = ca.issue(&["client.example.test"]);
            let (certificate, key) = (dir.write("client.pem", certificate), dir.write("client.key", key));
            let (certificate, key) = (certificate.display(), key.display());
            let _ = write!(more, "client_cert = \"{certificate}\"\nclient_key = {{ file = \"{key}\" }}\n");
        }
        let config = credential("c", &tokens, &more)
            + &format!("[[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"c\"\n", api.url());
        let builder = Cupbearer::builder().env("SECRET", "not-a-secret").server("workers = 1").admin();
        let proxy = builder.start(&config);
        let applies = || {
            let answer = post(&proxy, "X-Cupbearer: 1\r\n");
            assert_eq!(answer.status, 200, "{}", answer.text());
        };
        assert_eq!(proxy.get("/api/x").status, 200);
        // The same certificates, whatever stands around them: connections are kept.
        trust(&format!("# ours\n{}", ca.pem()));
        applies();
        assert_eq!(proxy.get("/api/x").status, 200);
        assert_eq!(api.handshakes(), 1, "presents: {presents}");
        trust(other.pem());
        applies();
        // Neither over the kept connection nor over a new one.
        for _ in 0..2 {
            proxy.get("/api/x").expect_problem(502, "upstream_tls");
        }
        trust(&[ca.pem(), other.pem()].concat());
        applies();
        let before = api.connections();
        assert_eq!(proxy.get("/api/x").status, 200);
        assert_eq!(api.connections(), before + 1, "presents: {presents}");
        proxy.stop();
    }
}
