//! Client secrets from Vault: a strict imitation of its KV store, version 2, with tokens and `AppRole`.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use crate::support::{Ca, Connection, Cupbearer, Ending, Request, TestDir, TlsUpstream, Upstream, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const SECRET: &str = "not-a-secret-of-vault";
const ROOT: &str = "not-a-secret-root-token";
const SECRET_ID: &str = "not-a-secret-id";
const PATH: &str = "/v1/secret/data/ipxo";

/// What the imitation knows; tests change it under its hands.
struct State {
    /// Answers of the KV store by path: status and body.
    kv: HashMap<String, (u16, String)>,
    /// Tokens: until when they are good, and whether their policy lets them read.
    tokens: HashMap<String, (Instant, bool)>,
    /// Seconds that a token of a login lives.
    lease: u64,
    renewable: bool,
    sealed: bool,
    /// Answers everything with this instead.
    instead: Option<(u16, &'static str)>,
    namespace: Option<&'static str>,
    logins: usize,
    renewals: usize,
    reads: usize,
}

struct Vault {
    upstream: Upstream,
    state: Arc<Mutex<State>>,
}

impl Vault {
    fn start() -> Self {
        let tokens = HashMap::from([(ROOT.to_owned(), (Instant::now() + Duration::from_secs(3600), true))]);
        let state = State {
            kv: HashMap::new(),
            tokens,
            lease: 3600,
            renewable: true,
            sealed: false,
            instead: None,
            namespace: None,
            logins: 0,
            renewals: 0,
            reads: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let upstream = Upstream::start(move |connection: &mut Connection| {
            while let Some(request) = connection.request() {
                let (status, body) = answer(&mut shared.lock().expect("not poisoned"), &request);
                let location = if status == 307 { "Location: http://127.0.0.2:1/\r\n" } else { "" };
                let length = body.len();
                connection.send(format!("HTTP/1.1 {status} -\r\n{location}Content-Length: {length}\r\n\r\n{body}"));
            }
        });
        let vault = Self { upstream, state };
        vault.write(1, SECRET);
        vault
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// A new version of the secret.
    fn write(&self, version: u32, secret: &str) {
        self.put(200, &versioned(&format!(r#"{{"client_secret":"{secret}","count":7}}"#), version, "", false));
    }

    fn put(&self, status: u16, body: &str) {
        self.state().kv.insert(PATH.to_owned(), (status, body.to_owned()));
    }
}

fn versioned(data: &str, version: u32, deleted: &str, destroyed: bool) -> String {
    format!(
        r#"{{"request_id":"1","lease_id":"","renewable":false,"lease_duration":0,"data":{{"data":{data},"metadata":{{"created_time":"2026-01-01T00:00:00Z","custom_metadata":null,"deletion_time":"{deleted}","destroyed":{destroyed},"version":{version}}}}},"wrap_info":null,"warnings":null,"auth":null}}"#
    )
}

fn answer(state: &mut State, request: &Request) -> (u16, String) {
    let errors = |status: u16, text: &str| (status, format!(r#"{{"errors":["{text}"]}}"#));
    assert_eq!(request.header("x-vault-request"), Some("true"), "{}", request.head);
    assert_eq!(request.header("x-vault-namespace"), state.namespace, "{}", request.head);
    if let Some((status, text)) = state.instead {
        return (status, text.to_owned());
    }
    if state.sealed {
        return errors(503, "Vault is sealed");
    }
    let line: Vec<&str> = request.line().split(' ').collect();
    if line[..2] == ["POST", "/v1/auth/approle/login"] {
        assert_eq!(request.header("x-vault-token"), None, "a login has no token");
        state.logins += 1;
        let body: serde_json::Value = serde_json::from_slice(&request.body).expect("JSON");
        if body != serde_json::json!({ "role_id": "role-1", "secret_id": SECRET_ID }) {
            return errors(400, "invalid role or secret ID");
        }
        let token = format!("not-a-secret-token-{}", state.logins);
        let lease = state.lease;
        state.tokens.insert(token.clone(), (Instant::now() + Duration::from_secs(lease), true));
        let renewable = state.renewable;
        return (
            200,
            format!(r#"{{"auth":{{"client_token":"{token}","lease_duration":{lease},"renewable":{renewable}}}}}"#),
        );
    }
    let token = request.header("x-vault-token").unwrap_or_default().to_owned();
    let Some((_, may)) = state.tokens.get(&token).filter(|(until, _)| Instant::now() < *until).copied() else {
        return errors(403, "permission denied");
    };
    match line[..2] {
        ["POST", "/v1/auth/token/renew-self"] if state.renewable => {
            state.renewals += 1;
            let lease = state.lease;
            state.tokens.insert(token.clone(), (Instant::now() + Duration::from_secs(lease), may));
            (200, format!(r#"{{"auth":{{"client_token":"{token}","lease_duration":{lease},"renewable":true}}}}"#))
        }
        ["GET", "/v1/auth/token/lookup-self"] => (200, r#"{"data":{"ttl":100}}"#.to_owned()),
        ["GET", path] if may => {
            state.reads += 1;
            state.kv.get(path).cloned().unwrap_or((404, r#"{"errors":[]}"#.to_owned()))
        }
        _ => errors(403, "1 error occurred:\\n\\t* permission denied\\n\\n"),
    }
}

/// A provider that takes only `accepted`, and an API behind it.
struct Setup {
    vault: Vault,
    tokens: Upstream,
    accepted: Arc<Mutex<String>>,
    api: Upstream,
    dir: TestDir,
}

impl Setup {
    fn new(life: u32) -> Self {
        let accepted = Arc::new(Mutex::new(SECRET.to_owned()));
        let shared = Arc::clone(&accepted);
        let tokens = Upstream::start(move |connection: &mut Connection| {
            while let Some(request) = connection.request() {
                let body = String::from_utf8(request.body).expect("a form");
                let good =
                    body.split('&').any(|p| p == format!("client_secret={}", shared.lock().expect("not poisoned")));
                let (status, body) = if good {
                    (200, format!(r#"{{"access_token":"not-a-token","expires_in":{life}}}"#))
                } else {
                    (401, r#"{"error":"invalid_client"}"#.to_owned())
                };
                let length = body.len();
                connection.send(format!("HTTP/1.1 {status} -\r\nContent-Length: {length}\r\n\r\n{body}"));
            }
        });
        let dir = TestDir::new();
        dir.write("token", format!("{ROOT}\n"));
        dir.write("secret-id", SECRET_ID);
        Self { vault: Vault::start(), tokens, accepted, api: Upstream::always(OK), dir }
    }

    /// With `login` in `[vault]`, and a credential for each source.
    fn config(&self, login: &str, sources: &[&str]) -> String {
        let dir = self.dir.path().display().to_string();
        let mut config =
            format!("[vault]\naddress = \"{}\"\n{}\n", self.vault.upstream.url(), login.replace("DIR", &dir));
        for (number, source) in sources.iter().enumerate() {
            write!(
                config,
                "[credentials.c{number}]\nclient_id = \"id-{number}\"\nclient_secret = {source}\ntoken_url = \"{}/token\"\n\
                 [[routes]]\nprefix = \"/{number}\"\nupstream = \"{}\"\ncredential = \"c{number}\"\n",
                self.tokens.url(),
                self.api.url()
            )
            .expect("a String takes all");
        }
        config
    }

    fn start(&self, login: &str, sources: &[&str]) -> Cupbearer {
        Cupbearer::builder().start(&self.config(login, sources))
    }
}

const TOKEN: &str = "token = { file = \"DIR/token\" }";
const APPROLE: &str = "role_id = \"role-1\"\nsecret_id = { file = \"DIR/secret-id\" }";
const SOURCE: &str = "{ vault = \"secret/ipxo#client_secret\" }";

fn clean(proxy: Cupbearer) {
    proxy.expect_never_printed(&["not-a-secret", "not-a-token"]);
    proxy.stop();
}

#[test]
fn a_secret_is_read_with_a_token_and_in_every_way_to_write_its_place_and_once_for_all() {
    let setup = Setup::new(3600);
    setup.vault.state().namespace = Some("team-a");
    let sources = [
        SOURCE,
        "{ vault = \"secret/data/ipxo#client_secret\" }",
        "{ vault = \"secret/ipxo\", field = \"client_secret\" }",
        "{ vault = \"ipxo\", field = \"client_secret\", mount = \"secret\" }",
    ];
    let proxy = setup.start(&format!("{TOKEN}\nnamespace = \"team-a\""), &sources);
    let asking: Vec<_> = (0..sources.len())
        .map(|number| {
            let mut client = proxy.connect();
            client.send(format!("GET /{number} HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address()));
            client
        })
        .collect();
    for mut client in asking {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!((setup.vault.state().reads, setup.tokens.requests().len()), (1, 4), "no stampede");
    clean(proxy);
}

#[test]
fn the_variables_of_vaults_own_tools_are_enough() {
    let setup = Setup::new(3600);
    let config = setup.config("", &[SOURCE]);
    let config = config.split_once("[credentials").expect("the rest").1;
    let proxy = Cupbearer::builder()
        .env("VAULT_ADDR", &setup.vault.upstream.url())
        .env("VAULT_TOKEN", ROOT)
        .start(&format!("[credentials{config}"));
    assert_eq!(proxy.get("/0").status, 200);
    clean(proxy);
}

#[test]
fn an_approle_login_is_renewed_and_made_anew_when_it_was_revoked() {
    let setup = Setup::new(2);
    setup.vault.state().lease = 8;
    let proxy = setup.start(APPROLE, &[SOURCE]);
    assert_eq!(proxy.get("/0").status, 200);
    assert_eq!(setup.vault.state().logins, 1);
    eventually("the lease is renewed", || {
        assert_eq!(proxy.get("/0").status, 200);
        setup.vault.state().renewals >= 1
    });
    assert_eq!(setup.vault.state().logins, 1, "no second login while the lease can be renewed");
    setup.vault.state().tokens.clear();
    eventually("a new login", || {
        assert_eq!(proxy.get("/0").status, 200);
        setup.vault.state().logins == 2
    });
    let reads = setup.vault.state().reads;
    eventually("it reads on", || {
        assert_eq!(proxy.get("/0").status, 200);
        setup.vault.state().reads > reads
    });
    clean(proxy);
}

#[test]
fn while_vault_is_sealed_the_last_secret_stays_in_use_and_a_new_version_is_taken_when_it_is_back() {
    let setup = Setup::new(2);
    let proxy = setup.start(TOKEN, &[SOURCE]);
    assert_eq!(proxy.get("/0").status, 200);
    setup.vault.state().sealed = true;
    let said = |text: &str| proxy.process().output().lines().filter(|line| line.contains(text)).count();
    eventually("it is said", || {
        assert_eq!(proxy.get("/0").status, 200);
        said("is sealed or in maintenance") == 1
    });
    let before = setup.tokens.requests().len();
    eventually("tokens are fetched all the same", || {
        assert_eq!(proxy.get("/0").status, 200);
        setup.tokens.requests().len() > before + 1
    });
    setup.vault.write(2, "not-a-secret-anew");
    setup.vault.state().sealed = false;
    eventually("the new version is tried", || {
        assert_eq!(proxy.get("/0").status, 200);
        said("the new secret was tried: refused, keeping the one before") == 1
    });
    *setup.accepted.lock().expect("not poisoned") = "not-a-secret-third".to_owned();
    setup.vault.write(3, "not-a-secret-third");
    eventually("and the next one works", || {
        let answered = proxy.get("/0").status;
        said("the new secret was tried: it works") == 1 && answered == 200
    });
    eventually("it is said once", || said("what was read before stays in use") == 1);
    clean(proxy);
}

#[test]
fn every_trouble_with_vault_is_a_503_that_says_whose_fault_it_is() {
    type Order = fn(&Setup);
    let troubles: [(Order, &str, &str); 13] = [
        (|s| drop(s.dir.write("token", "not-a-secret-wrong")), TOKEN, "does not take the token of [vault] (HTTP 403)"),
        (
            |s| s.vault.state().tokens.values_mut().for_each(|(_, may)| *may = false),
            TOKEN,
            r#"its policy needs path "secret/data/ipxo" with the capability "read""#,
        ),
        (
            |s| drop(s.dir.write("secret-id", "not-a-secret-wrong")),
            APPROLE,
            "refused the login at auth/approle (HTTP 400)",
        ),
        (|s| s.vault.state().sealed = true, TOKEN, "is sealed or in maintenance (HTTP 503)"),
        (|s| s.vault.state().instead = Some((429, "")), TOKEN, "its rate limit is used up (HTTP 429)"),
        (|s| s.vault.state().instead = Some((473, "")), TOKEN, "is a standby that does not answer (HTTP 473)"),
        (|s| s.vault.state().instead = Some((307, "")), TOKEN, "redirects are never followed"),
        (
            |s| s.vault.state().instead = Some((200, "<html>")),
            TOKEN,
            "answered something that is no KV secret (HTTP 200)",
        ),
        (|s| s.vault.state().kv.clear(), TOKEN, "there is no such secret in Vault (HTTP 404)"),
        (|s| s.vault.put(404, &versioned("null", 3, "2026-01-02T00:00:00Z", false)), TOKEN, "was deleted in Vault"),
        (|s| s.vault.put(404, &versioned("null", 3, "", true)), TOKEN, "was destroyed in Vault"),
        (
            |s| s.vault.put(200, r#"{"data":{"client_secret":"not-a-secret-1"}}"#),
            TOKEN,
            "the store there is no KV store of version 2",
        ),
        (|s| s.vault.put(200, &versioned(r#"{"other":"not-a-secret"}"#, 3, "", false)), TOKEN, "it has no such field"),
    ];
    for (order, login, expected) in troubles {
        let setup = Setup::new(3600);
        order(&setup);
        let proxy = setup.start(login, &[SOURCE]);
        let response = proxy.get("/0");
        let body: serde_json::Value = serde_json::from_str(&response.text()).expect("JSON");
        assert_eq!(
            (response.status, &body["code"], &body["blame"]),
            (503, &"secret_unavailable".into(), &"config".into())
        );
        let detail = body["detail"].as_str().expect("a text");
        assert!(detail.contains("one of its secrets cannot be had") && !detail.contains("secret/ipxo"), "{detail}");
        eventually(expected, || {
            let log = proxy.process().output();
            log.lines().any(|line| line.contains(expected) && line.contains("vault secret/ipxo#client_secret"))
        });
        assert_eq!(setup.tokens.requests().len(), 0);
        clean(proxy);
    }
}

#[test]
fn a_vault_that_is_not_there_is_said_and_found_again() {
    let setup = Setup::new(3600);
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let config = setup.config(TOKEN, &[SOURCE]).replace(&setup.vault.upstream.url(), &format!("http://{nowhere}"));
    let proxy = Cupbearer::builder().start(&config);
    let response = proxy.get("/0");
    assert_eq!(response.status, 503);
    assert!(!response.text().contains("Vault at"), "no caller's business: {}", response.text());
    let told = format!("Vault at {nowhere} gave no answer: cannot connect");
    eventually("the log tells", || proxy.process().output().contains(&told));
    clean(proxy);
}

#[test]
fn over_tls_the_server_must_be_one_that_ca_file_vouches_for() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 84\r\n\r\n{\"data\":{\"data\":{\"client_secret\":\"not-a-secret-of-vault\"},\"metadata\":{\"version\":1}}}";
    let (setup, ca) = (Setup::new(3600), Ca::new());
    assert_eq!(ANSWER.split_once("\r\n\r\n").map(|(_, body)| body.len()), Some(84));
    let (certificate, key) = ca.issue(&["localhost"]);
    let server = TlsUpstream::start(&certificate, &key, ANSWER, Ending::KeepAlive);
    let config = setup.config(TOKEN, &[SOURCE]).replace(&setup.vault.upstream.url(), &server.url());
    let proxy = Cupbearer::builder().start(&config);
    let response = proxy.get("/0");
    assert_eq!((response.status, server.received()), (503, Vec::new()), "nothing is said to a stranger");
    eventually("the log tells", || proxy.process().output().contains("TLS with localhost"));
    clean(proxy);
    let builder = Cupbearer::builder();
    let root = builder.file("root.pem", ca.pem()).display().to_string();
    let proxy = builder.env("VAULT_CACERT", &root).start(&config);
    assert_eq!(proxy.get("/0").status, 200);
    let received = String::from_utf8(server.received()).expect("text");
    assert!(received.starts_with(&format!("GET {PATH} HTTP/1.1\r\n")), "{received}");
    clean(proxy);
}
