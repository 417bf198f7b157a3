//! The access log: exactly one line a request, however it ends; metadata only; and no request waits for it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    Client, Cupbearer, KEY, Scene, Stage, TestDir, Upstream, eventually,
    h2::{H2Client, run},
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const JSON: &str = "[log]\nformat = \"json\"\naccess = \"access.log\"\n";

fn path(proxy: &Cupbearer) -> PathBuf {
    proxy.dir().join("access.log")
}

fn text(proxy: &Cupbearer) -> String {
    fs::read_to_string(path(proxy)).unwrap_or_default()
}

/// The one line of the request with this id; panics if there are several.
fn line(proxy: &Cupbearer, id: &str) -> Value {
    lines_when(proxy, &format!("\"request_id\":\"{id}\""), 1).remove(0)
}

/// The lines that hold `part`, once there are `count`; panics if there are more.
fn lines_when(proxy: &Cupbearer, part: &str, count: usize) -> Vec<Value> {
    let find = || -> Vec<Value> {
        let text = text(proxy);
        let whole = text.rsplit_once('\n').map(|(whole, _)| whole).unwrap_or_default();
        whole
            .lines()
            .filter(|line| line.contains(part))
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    };
    eventually(&format!("{count} lines with {part}"), || find().len() >= count);
    let found = find();
    assert_eq!(found.len(), count, "{found:?}");
    found
}

fn scene() -> Scene {
    Stage::new(Upstream::by_path())
        .route("response_timeout = \"300ms\"\nmax_body = \"1KiB\"\ndeny = [\"DELETE /**\"]")
        .server("header_timeout = \"300ms\"")
        .more(JSON)
        .alone()
        .start()
}

#[test]
fn every_request_has_one_line_that_says_how_it_ended() {
    let scene = scene();
    let ask = |method: &str, target: &str, id: &str, body: &[u8]| {
        scene.proxy.request(method, target, &format!("X-Request-Id: {id}\r\n"), body);
        line(&scene.proxy, id)
    };
    let good = ask("POST", "/api/v1/x", "good", b"hello");
    for (key, expected) in [
        ("peer", "127.0.0.1"),
        ("protocol", "HTTP/1.1"),
        ("upstream_protocol", "HTTP/1.1"),
        ("method", "POST"),
        ("path", "/api/v1/x"),
        ("route", "/api"),
        ("credential", "c"),
    ] {
        assert_eq!(good[key], expected, "{good}");
    }
    for (key, expected) in [("status", 200), ("upstream_status", 200), ("request_bytes", 5), ("response_bytes", 2)] {
        assert_eq!(good[key], expected, "{good}");
    }
    for key in ["error", "aborted", "caller", "replayed"] {
        assert_eq!(good.get(key), None, "{good}");
    }
    let (all, head) = (good["duration_ms"].as_f64().expect("ms"), good["upstream_ms"].as_f64().expect("ms"));
    assert!(0.0 < head && head <= all && all < 30_000.0, "{good}");
    let time = good["time"].as_str().expect("text").to_owned();
    assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");

    let expect = |line: &Value, status: u16, upstream: Option<u16>, error: Option<&str>| {
        assert_eq!(line["status"], status, "{line}");
        assert_eq!(line["upstream_status"].as_u64(), upstream.map(u64::from), "{line}");
        assert_eq!(line["error"].as_str(), error, "{line}");
        assert_eq!(line.get("aborted"), None, "{line}");
    };
    expect(&ask("GET", "/api/missing", "missing", b""), 404, Some(404), None);
    expect(&ask("HEAD", "/api/missing", "head", b""), 404, Some(404), None);
    expect(&ask("GET", "/api/refused", "refused", b""), 401, Some(401), None);
    expect(&ask("GET", "/api/garbage", "garbage", b""), 502, None, Some("upstream_protocol"));
    expect(&ask("GET", "/api/slow", "slow", b""), 504, None, Some("upstream_timeout"));
    expect(&ask("DELETE", "/api/x", "denied", b""), 403, None, Some("policy_denied"));
    expect(&ask("POST", "/api/x", "large", &[b'x'; 2000]), 413, None, Some("body_too_large"));
    let lost = ask("GET", "/nowhere/x", "lost", b"");
    expect(&lost, 404, None, Some("no_route"));
    assert_eq!((lost.get("route"), lost.get("upstream_protocol")), (None, None), "{lost}");
    assert!(lost["response_bytes"].as_u64() > Some(100), "{lost}");
    expect(&ask("GET", "/api/%2e%2e/x", "dots", b""), 400, None, Some("bad_path"));
    scene.end();
}

#[test]
fn what_never_became_a_request_has_a_line_too() {
    let scene = scene();
    for (text, status, error, path) in [
        ("GET /api/one HTTP/1.1\r\nHost: HOST\r\nBad Name: x\r\n\r\n", 400, "bad_request", Some("/api/one")),
        ("GET /api/two HTTP/1.1\r\nHost: HOST\r\nX: so", 408, "request_timeout", Some("/api/two")),
        ("GET /api/three HTTP/3.0\r\nHost: HOST\r\n\r\n", 505, "bad_version", None),
        ("\u{1}\u{2}garbage\r\n\r\n", 400, "bad_request", None),
        ("GET /api/four HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421, "misdirected", Some("/api/four")),
        ("CONNECT user:pass@host:443 HTTP/1.1\r\nHost: HOST\r\n\r\n", 405, "method_refused", None),
    ] {
        let before = text_lines(&scene.proxy);
        let response = scene.send(text).response();
        assert_eq!(response.status, status, "{text:?}: {}", response.text());
        eventually("its line", || text_lines(&scene.proxy) > before);
        let last: Value = serde_json::from_str(self::text(&scene.proxy).lines().last().expect("a line")).expect("JSON");
        assert_eq!((&last["status"], last["error"].as_str()), (&status.into(), Some(error)), "{text:?}: {last}");
        assert_eq!(last["path"].as_str(), path, "{text:?}: {last}");
        assert_eq!(Some(last["request_id"].as_str().expect("an id")), response.header("x-request-id"));
        assert_eq!(text_lines(&scene.proxy), before + 1);
    }
    let long = format!("GET /api/long HTTP/1.1\r\nHost: HOST\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    assert_eq!(scene.send(&long).response().status, 431);
    let line = lines_when(&scene.proxy, "head_too_large", 1).remove(0);
    assert_eq!((line["method"].as_str(), line["path"].as_str()), (Some("GET"), Some("/api/long")));
    scene.end();
}

fn text_lines(proxy: &Cupbearer) -> usize {
    text(proxy).matches('\n').count()
}

#[test]
fn a_request_that_is_broken_off_says_why_and_how_far_it_came() {
    let scene = Stage::new(Upstream::by_path()).route("body_idle_timeout = \"400ms\"").more(JSON).alone().start();
    // By the caller, before the answer.
    let gone = scene.send("GET /api/slow HTTP/1.1\r\nHost: HOST\r\nX-Request-Id: gone\r\n\r\n");
    eventually("it has arrived", || !scene.heads_with("/slow").is_empty());
    gone.end();
    let line_of = line(&scene.proxy, "gone");
    assert_eq!(line_of.get("status"), None, "{line_of}");
    assert_eq!(line_of["aborted"], "the caller went away before the answer");
    // While it sends its body.
    let mut half = scene.send("POST /api/x HTTP/1.1\r\nHost: HOST\r\nX-Request-Id: half\r\nContent-Length: 10\r\n\r\n");
    half.send("hello");
    eventually("it has arrived", || !scene.heads_with("/x").is_empty());
    half.end();
    let line_of = line(&scene.proxy, "half");
    assert_eq!((&line_of["request_bytes"], line_of.get("status")), (&5.into(), None), "{line_of}");
    // By the upstream, in the middle of the answer.
    let mut cut = scene.send("GET /api/truncated HTTP/1.1\r\nHost: HOST\r\nX-Request-Id: cut\r\n\r\n");
    assert!(cut.try_response(false).is_err());
    let line_of = line(&scene.proxy, "cut");
    assert_eq!((&line_of["status"], &line_of["response_bytes"]), (&200.into(), &5.into()), "{line_of}");
    assert_eq!(line_of["aborted"], "the upstream's answer ended too early");
    // By silence.
    let mut silent = scene.send("GET /api/endless HTTP/1.1\r\nHost: HOST\r\nX-Request-Id: silent\r\n\r\n");
    assert!(silent.try_response(false).is_err());
    assert_eq!(line(&scene.proxy, "silent")["aborted"], "the answer did not move for body_idle_timeout");
    scene.end();
}

#[test]
fn what_the_end_of_the_process_cuts_off_is_told_and_no_line_is_lost() {
    let scene = Stage::new(Upstream::by_path()).server("drain_timeout = \"300ms\"").more(JSON).alone().start();
    let dir = TestDir::new();
    let mut endless = scene.send("GET /api/endless HTTP/1.1\r\nHost: HOST\r\nX-Request-Id: endless\r\n\r\n");
    endless.wait_for(b"hello");
    let kept = dir.path().join("kept.log");
    scene.end_with(|proxy| {
        for n in 0..50 {
            assert_eq!(proxy.get(&format!("/api/{n}")).status, 200);
        }
        let log = path(&proxy);
        fs::hard_link(&log, &kept).expect("the same file system");
        proxy.stop()
    });
    let text = fs::read_to_string(kept).expect("the log");
    assert_eq!(text.lines().count(), 51, "{text}");
    let line = text.lines().find(|line| line.contains("\"endless\"")).expect("its line");
    let line: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!((&line["status"], &line["response_bytes"]), (&200.into(), &5.into()), "{line}");
    assert_eq!(line["aborted"], "cut off by the end of the process");
}

#[test]
fn a_websocket_has_its_line_when_it_ends() {
    let api = Upstream::start(|connection| {
        if connection.request().is_none() {
            return;
        }
        connection.send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello",
        );
        let mut got = [0; 3];
        let _ = connection.stream().read_exact(&mut got);
        connection.wait_for_close();
    });
    let scene = Stage::new(api).more(JSON).alone().start();
    let mut client = scene.send(
        "GET /api/chat HTTP/1.1\r\nHost: HOST\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Request-Id: chat\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    client.wait_for(b"hello");
    client.send("abc");
    assert_eq!(text(&scene.proxy), "", "it still runs");
    client.end();
    let line = line(&scene.proxy, "chat");
    assert_eq!((&line["status"], &line["upstream_status"]), (&101.into(), &101.into()), "{line}");
    assert_eq!((&line["request_bytes"], &line["response_bytes"]), (&3.into(), &5.into()), "{line}");
    scene.end();
}

#[test]
fn every_stream_of_http_2_has_a_line_of_its_own() {
    let scene = Stage::new(Upstream::by_path()).more(JSON).alone().start();
    run(async {
        let client = H2Client::connect(scene.proxy.address()).await;
        for n in 0..20 {
            let request = client.ask("GET", &format!("/api/{n}?secret=not-to-be-told"));
            let request = request.header("x-request-id", format!("stream-{n}")).body(()).expect("a request");
            assert_eq!(client.exchange(request, b"").await.expect("an answer").status, 200);
        }
    });
    for line in lines_when(&scene.proxy, "stream-", 20) {
        assert_eq!((&line["protocol"], &line["upstream_protocol"]), (&"HTTP/2".into(), &"HTTP/1.1".into()), "{line}");
        assert_eq!((&line["status"], &line["response_bytes"]), (&200.into(), &2.into()), "{line}");
    }
    assert!(!text(&scene.proxy).contains("not-to-be-told"));
    scene.end();
}

#[test]
fn a_replayed_request_has_one_line_that_says_so() {
    let api = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            let stale = request.target() == "/later" && request.header("authorization") == Some("Bearer not-a-token-1");
            connection.send(if stale { "HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno" } else { OK });
        }
    });
    let tokens = Upstream::tokens(3600);
    let proxy = Cupbearer::before(&api.url(), &tokens, "", JSON);
    assert_eq!(proxy.get("/api/first").status, 200);
    // A token younger than five seconds is not renewed for a 401.
    thread::sleep(Duration::from_millis(5_500));
    let later = proxy.request("POST", "/api/later", "X-Request-Id: later\r\n", b"hello");
    assert_eq!(later.status, 200);
    let line = line(&proxy, "later");
    assert_eq!((&line["replayed"], &line["upstream_status"]), (&true.into(), &200.into()), "{line}");
    assert_eq!(line["request_bytes"], 5, "a body counts once: {line}");
}

#[test]
fn no_line_holds_a_query_a_header_a_key_or_a_token() {
    for format in ["json", "text"] {
        let more = format!(
            "[callers.erp]\napi_key = {{ env = \"KEY\" }}\n[log]\nformat = \"{format}\"\naccess = \"access.log\"\n"
        );
        let scene = Stage::new(Upstream::by_path()).more(&more).alone().start();
        let fields = format!(
            "X-Api-Key: {KEY}\r\nCookie: not-a-cookie\r\nReferer: http://x/not-a-referer\r\nUser-Agent: not-an-agent\r\n"
        );
        assert_eq!(scene.proxy.request("GET", "/api/x?key=not-in-a-query#", &fields, b"").status, 400);
        assert_eq!(scene.proxy.request("GET", "/api/x?key=not-in-a-query", &fields, b"not-a-body").status, 200);
        assert_eq!(scene.proxy.request("GET", "/api/x", "Authorization: Bearer not-a-known-key\r\n", b"").status, 401);
        let target = format!("http://{}/api/absolute?key=not-in-a-query", scene.proxy.address());
        assert_eq!(scene.proxy.request("GET", &target, &fields, b"").status, 200);
        assert_eq!(scene.proxy.request("GET", "http://not-a-user:pass@x/api", &fields, b"").status, 421);
        eventually("all lines", || text_lines(&scene.proxy) == 5);
        let text = text(&scene.proxy);
        assert!(text.contains("erp") && text.contains("/api/absolute"), "{text}");
        for secret in ["not-", "pass"] {
            assert!(!text.contains(secret), "{text}");
        }
        scene.end();
    }
}

#[test]
fn a_hostile_path_stays_within_its_line() {
    for format in ["json", "text"] {
        let more = format!("[log]\nformat = \"{format}\"\naccess = \"access.log\"\n");
        let scene = Stage::new(Upstream::by_path()).more(&more).alone().start();
        let paths = [
            "/api/%0a{\"time\":\"forged\"}",
            "/api/\"quoted\"\\",
            "/api/%1b[31m",
            "/api/'||$(id)",
            "/api/a%22%2c%22b",
            "/api/\u{7f}",
            "/api/x=1,status=200",
        ];
        for path in paths {
            let answered = scene.send(&format!("GET {path} HTTP/1.1\r\nHost: HOST\r\n\r\n")).response();
            assert!(matches!(answered.status, 200 | 400), "{path}: {}", answered.status);
        }
        let long = format!("/api/{}", "x".repeat(9_000));
        assert_eq!(scene.get(&long).status, 200);
        eventually("all lines", || text_lines(&scene.proxy) == paths.len() + 1);
        let text = text(&scene.proxy);
        assert!(!text.replace('\n', "").contains(char::is_control), "{text:?}");
        for line in text.lines() {
            assert!(line.len() < 2_000, "{line}");
            if format == "json" {
                let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
                assert_ne!(line["time"], "forged");
            }
        }
        scene.end();
    }
}

#[test]
fn lines_go_to_a_standard_stream_as_well_and_nowhere_by_default() {
    for stream in ["stdout", "stderr"] {
        let scene = Stage::new(Upstream::by_path()).more(&format!("[log]\naccess = \"{stream}\"\n")).alone().start();
        assert_eq!(scene.get("/api/told").status, 200);
        let told = scene
            .proxy
            .process()
            .wait_for(|text| text.lines().find(|l| l.contains(" GET /api/told 200 ")).map(str::to_owned));
        let told = told.unwrap_or_else(|all| panic!("{all}"));
        assert!(told.contains(" route=/api credential=c peer=127.0.0.1 protocol=HTTP/1.1 "), "{told}");
        scene.end();
    }
    let scene = Scene::new(Upstream::by_path());
    assert_eq!(scene.get("/api/told").status, 200);
    scene.end_with(|proxy| {
        let files: Vec<_> =
            fs::read_dir(proxy.dir()).expect("there").map(|e| e.expect("an entry").file_name()).collect();
        assert_eq!(files, ["proxy.toml"]);
        let output = proxy.stop();
        assert!(!output.contains("GET /api/told 200"), "{output}");
        output
    });
}

#[test]
fn a_rotated_file_is_opened_anew_at_once_after_sighup_and_soon_without() {
    let scene = Stage::new(Upstream::by_path()).more(JSON).alone().start();
    let (log, old) = (path(&scene.proxy), scene.proxy.dir().join("access.log.1"));
    let ask = |id: &str| {
        assert_eq!(scene.proxy.request("GET", "/api/x", &format!("X-Request-Id: {id}\r\n"), b"").status, 200);
    };
    ask("before");
    line(&scene.proxy, "before");
    fs::rename(&log, &old).expect("ours");
    scene.proxy.process().signal("HUP");
    eventually("a new file", || log.exists());
    ask("after");
    line(&scene.proxy, "after");
    fs::remove_file(&log).expect("ours");
    eventually("a new file without a signal", || {
        assert_eq!(scene.get("/api/again").status, 200);
        log.exists()
    });
    let old = fs::read_to_string(old).expect("still there");
    assert!(old.contains("\"before\"") && !old.contains("\"after\""), "{old}");
    scene.end();
}

#[test]
fn a_file_that_cannot_be_opened_stops_the_start_and_is_named() {
    let builder = Cupbearer::builder().env("SECRET", "not-a-secret");
    fs::create_dir(builder.file("x", "").parent().expect("a directory").join("access.log")).expect("ours");
    let (status, output) = builder.start_badly(JSON);
    assert_eq!(status.code(), Some(2), "{output}");
    assert!(output.contains("`access` in [log] names a directory"), "{output}");
    // What only shows when it is opened: a name that leads back to itself.
    let builder = Cupbearer::builder().env("SECRET", "not-a-secret");
    let link = builder.file("x", "").with_file_name("access.log");
    std::os::unix::fs::symlink(&link, &link).expect("ours");
    let (status, output) = builder.start_badly(&format!(
        "[credentials.c]\nprovider = \"ipxo\"\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\n[[routes]]\n\
         prefix = \"/api\"\napi = \"billing\"\ncredential = \"c\"\n{JSON}"
    ));
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("cannot open the access log") && output.contains("access.log"), "{output}");
}

#[test]
fn a_standard_output_that_nobody_reads_holds_up_no_request_and_the_loss_is_told() {
    let dir = TestDir::new();
    let (api, tokens) = (Upstream::by_path(), Upstream::tokens(3600));
    let config = dir.write(
        "proxy.toml",
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nworkers = 1\n[admin]\nlisten = false\n[log]\naccess = \"stdout\"\n\
             [credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"post\"\n\
             token_url = \"{}/token\"\n[[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"c\"\n",
            tokens.url(),
            api.url()
        ),
    );
    let errors = dir.write("errors", "");
    let mut child = Command::new(env!("CARGO_BIN_EXE_cupbearer"))
        .args(["serve", "-c"])
        .arg(config)
        .env_clear()
        .env("SECRET", "not-a-secret")
        .stdout(Stdio::piped())
        .stderr(fs::File::create(&errors).expect("ours"))
        .spawn()
        .expect("it starts");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("its first line"); // and no further one is read
    let address =
        line.trim_end().strip_prefix("listening on http://").expect("an address").parse().expect("an address");
    // More than the pipe and the queue hold together.
    let path = format!("/api/{}", "x".repeat(1_000));
    let began = Instant::now();
    let mut client = Client::connect(address);
    let ask = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    while !fs::read_to_string(&errors).expect("ours").contains("lines of the access log are lost") {
        assert!(began.elapsed() < Duration::from_secs(120), "no loss is told");
        for _ in 0..100 {
            let asked = Instant::now();
            assert_eq!(client.exchange(&ask).status, 200);
            assert!(asked.elapsed() < Duration::from_secs(5), "a request waited for its line");
        }
    }
    let term = Command::new("kill").arg(child.id().to_string()).status().expect("kill runs");
    assert!(term.success());
    let ended = Instant::now();
    assert!(child.wait().expect("ours").success());
    assert!(ended.elapsed() < Duration::from_secs(10), "the end does not wait for the pipe");
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("text");
    assert!(rest.lines().count() > 10);
}
