//! The sealed file store: a restart spends no token request.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{Cupbearer, TestDir, Upstream, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// 32 bytes of `s`, in base64.
const SEAL_KEY: &str = "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M=";

struct Setup {
    tokens: Upstream,
    api: Upstream,
    store: TestDir,
}

impl Setup {
    fn new() -> Self {
        Self { tokens: Upstream::tokens(3600), api: Upstream::always(OK), store: TestDir::new() }
    }

    fn config(&self) -> String {
        self.config_with("client_secret = { env = \"SECRET\" }\nclient_auth = \"post\"")
    }

    /// With these lines about the client and its grant.
    fn config_with(&self, lines: &str) -> String {
        format!(
            "[tokens]\nstore = {{ file = \"{}\" }}\nseal_key = {{ env = \"SEAL_KEY\" }}\n\
             [credentials.c]\nclient_id = \"id\"\n{lines}\ntoken_url = \"{}/token\"\n\
             [[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"c\"\n",
            self.store.path().join("tokens").display(),
            self.tokens.url(),
            self.api.url()
        )
    }

    fn start(&self, secret: &str) -> Cupbearer {
        Cupbearer::builder().env("SECRET", secret).env("SEAL_KEY", SEAL_KEY).start(&self.config())
    }

    fn token_requests(&self) -> usize {
        self.tokens.requests().len()
    }
}

#[test]
fn a_restart_even_by_kill_9_spends_no_token_request() {
    let setup = Setup::new();
    for round in 0..3 {
        let proxy = setup.start("not-a-secret");
        assert_eq!(proxy.get("/api").status, 200);
        assert_eq!(setup.token_requests(), 1, "round {round}");
        proxy.expect_never_printed(&["not-a-secret", "not-a-token", SEAL_KEY]);
        proxy.process().signal("KILL");
    }
    let carried: Vec<String> =
        setup.api.requests().iter().map(|r| r.header("authorization").unwrap_or_default().to_owned()).collect();
    assert_eq!(carried.len(), 3);
    assert!(carried.iter().all(|token| *token == carried[0]), "{carried:?}");
}

#[test]
fn a_token_from_the_store_makes_ready() {
    let setup = Setup::new();
    let lines = "client_secret = { env = \"SECRET\" }\nclient_auth = \"post\"\nwarm = \"always\"";
    for round in 0..2 {
        let builder = Cupbearer::builder().env("SECRET", "not-a-secret").env("SEAL_KEY", SEAL_KEY);
        let proxy = builder.admin().start(&setup.config_with(lines));
        eventually("it is ready", || proxy.admin_get("/readyz").status == 200);
        assert_eq!(setup.token_requests(), 1, "round {round}");
        assert_eq!(proxy.get("/api").status, 200);
    }
}

#[test]
fn a_token_got_with_another_secret_is_not_taken_from_the_store() {
    let setup = Setup::new();
    assert_eq!(setup.start("not-a-secret").get("/api").status, 200);
    assert_eq!(setup.start("not-a-secret-either").get("/api").status, 200);
    assert_eq!(setup.token_requests(), 2);
}

/// Starts twice, with another assertion in the file the second time. How many token requests that costs.
fn requests_over_two_assertions(lines: &str) -> usize {
    let setup = Setup::new();
    let file = setup.store.write("assertion", "not-a-secret-of-this-hour");
    let config = setup.config_with(&format!("assertion = {{ file = \"{}\" }}\n{lines}", file.display()));
    let start = || Cupbearer::builder().env("SEAL_KEY", SEAL_KEY).start(&config);
    assert_eq!(start().get("/api").status, 200);
    setup.store.write("assertion", "not-a-secret-of-the-next-hour");
    assert_eq!(start().get("/api").status, 200);
    setup.token_requests()
}

#[test]
fn a_client_that_proves_itself_with_the_assertion_of_another_hour_takes_its_token_from_the_store() {
    assert_eq!(requests_over_two_assertions("client_auth = \"private_key_jwt\""), 1);
}

#[test]
fn a_token_got_for_another_assertion_is_not_taken_from_the_store() {
    assert_eq!(requests_over_two_assertions("grant = \"jwt_bearer\"\nclient_auth = \"none\""), 2);
}

#[test]
fn a_store_full_of_rubbish_is_survived() {
    let setup = Setup::new();
    assert_eq!(setup.start("not-a-secret").get("/api").status, 200);
    let files = std::fs::read_dir(setup.store.path().join("tokens")).expect("the store's directory");
    for file in files {
        std::fs::write(file.expect("a file").path(), b"rubbish").expect("overwritten");
    }
    assert_eq!(setup.start("not-a-secret").get("/api").status, 200);
    assert_eq!(setup.token_requests(), 2);
}

fn said(proxy: &Cupbearer, text: &str) -> usize {
    proxy.process().output().lines().filter(|line| line.contains(text)).count()
}

#[test]
fn a_store_that_is_killed_again_and_again_while_it_writes_is_never_broken() {
    let setup = Setup { tokens: Upstream::tokens(1), ..Setup::new() };
    for round in 0..8 {
        let proxy = setup.start("not-a-secret");
        // Tokens of one second are stored all the time; the end comes at some moment.
        let before = setup.token_requests();
        while setup.token_requests() < before + 1 + round % 3 {
            assert_eq!(proxy.get("/api").status, 200);
        }
        assert_eq!(said(&proxy, "damaged"), 0, "round {round}");
        proxy.process().signal("KILL");
    }
    let left = std::fs::read_dir(setup.store.path().join("tokens")).expect("the store").count();
    assert!(left <= 9, "{left} files: a killed write leaves one of its own at most");
}

#[test]
fn what_is_cut_short_sealed_with_another_key_or_somebody_elses_costs_a_warning_and_a_request() {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let setup = Setup::new();
    assert_eq!(setup.start("not-a-secret").get("/api").status, 200);
    let directory = setup.store.path().join("tokens");
    let file = std::fs::read_dir(&directory).expect("the store").next().expect("a token").expect("readable").path();
    let mode = |path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&file)), (0o700, 0o600));
    let whole = std::fs::read(&file).expect("readable");
    let mut requests = 1;
    let mut expect = |said_once: &str| {
        let proxy = setup.start("not-a-secret");
        assert_eq!(proxy.get("/api").status, 200);
        requests += 1;
        eventually(said_once, || said(&proxy, said_once) == 1);
        assert_eq!(setup.token_requests(), requests, "{said_once}");
        proxy.stop();
    };
    std::fs::write(&file, &whole[..whole.len() / 2]).expect("cut");
    expect("a stored token is damaged or was sealed with another key");
    std::fs::write(&file, &whole[..whole.len() / 2]).expect("cut");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).expect("ours");
    expect("others may read or replace a stored file");
    if chown(&file, Some(65534), Some(65534)).is_ok() {
        expect("it belongs to another user (uid 65534)"); // only root can make this happen
    }
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).expect("ours");
    std::fs::remove_file(&file).expect("ours");
    expect("others may look into the token store");
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).expect("ours");
    let config = setup.config();
    let (status, output) =
        Cupbearer::builder().env("SECRET", "not-a-secret").env("SEAL_KEY", SEAL_KEY).start_badly(&config);
    assert!(!status.success() && output.contains("others may write to it (mode 777); chmod 700 it"), "{output}");
}

/// Opening a pipe hangs until somebody opens its other end, as files do on a mount whose server is gone.
#[test]
fn a_store_that_hangs_holds_up_no_caller_and_is_named() {
    let setup = Setup::new();
    let config = setup.config().replace("[[routes]]", "budget = \"50/12h\"\n[[routes]]");
    let start = || Cupbearer::builder().env("SECRET", "not-a-secret").env("SEAL_KEY", SEAL_KEY).start(&config);
    let proxy = start();
    assert_eq!(proxy.get("/api").status, 200);
    proxy.stop();
    let files = || std::fs::read_dir(setup.store.path().join("tokens")).expect("the store");
    let token =
        files().map(|file| file.expect("a file").path()).find(|path| path.extension().is_some_and(|e| e == "token"));
    let token = token.expect("it was stored");
    std::fs::remove_file(&token).expect("ours");
    assert!(Command::new("mkfifo").arg(&token).status().expect("mkfifo").success());
    let (proxy, began) = (start(), Instant::now());
    assert_eq!(proxy.get("/api").status, 200);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(setup.token_requests(), 2);
    eventually("it is said", || said(&proxy, "the token store does not answer") == 1);
    drop(OpenOptions::new().write(true).open(&token).expect("it is being read"));
    eventually("it is back", || said(&proxy, "the token store answers again") == 1);
    proxy.stop();
}

#[test]
fn a_budget_of_50_in_12_hours_holds_is_visible_and_survives_kill_9() {
    let setup = Setup::new();
    let mut config = setup.config().replace("[[routes]]", "budget = \"50/12h\"\n[[routes]]");
    for number in 0..51 {
        write!(
            config,
            "[[routes]]\nprefix = \"/{number}\"\nupstream = \"{}\"\ncredential = \"c\"\nscopes = [\"s{number}\"]\n",
            setup.api.url()
        )
        .expect("a String takes all");
    }
    let start = || Cupbearer::builder().env("SECRET", "not-a-secret").env("SEAL_KEY", SEAL_KEY).start(&config);
    let proxy = start();
    for number in 0..50 {
        assert_eq!(proxy.get(&format!("/{number}")).status, 200, "request {number}");
    }
    eventually("four fifths of the budget of token requests are used", || {
        said(&proxy, "four fifths of the budget of token requests are used") == 1
    });
    eventually("the budget of token requests is used up", || {
        said(&proxy, "the budget of token requests is used up") == 1
    });
    let refused = |proxy: &Cupbearer| {
        let response = proxy.get("/50");
        let body: serde_json::Value = serde_json::from_str(&response.text()).expect("JSON");
        assert_eq!(
            (response.status, &body["code"], &body["blame"]),
            (503, &"budget_exhausted".into(), &"config".into())
        );
        let detail = body["detail"].as_str().expect("a text");
        assert!(detail.contains("has spent its budget of 50 token requests in 12h"), "{detail}");
        let wait: u64 = response.header("retry-after").and_then(|value| value.parse().ok()).expect("seconds");
        assert!((43_000..=43_201).contains(&wait), "{wait}");
    };
    for _ in 0..20 {
        refused(&proxy);
    }
    assert_eq!(proxy.get("/7").status, 200, "a valid token stays in use");
    proxy.process().signal("KILL");
    let again = start();
    refused(&again);
    assert_eq!(again.get("/7").status, 200, "from the store");
    assert_eq!(setup.token_requests(), 50);
    again.expect_never_printed(&["not-a-secret", "not-a-token", SEAL_KEY]);
}
