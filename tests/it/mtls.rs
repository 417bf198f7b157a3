//! Client certificates (RFC 8705): presented to the provider and to the upstream, the same that the token was got with.

use std::{collections::BTreeMap, fs, net::TcpListener, path::Path, thread};

use crate::support::{
    BoundServer, Ca, Cupbearer, Ending, Manner, Seen, TestDir, TlsUpstream, Upstream, eventually, thumbprint,
};

const SECRET: &str = "not-a-secret-beside-a-certificate";

/// A client's files.
struct Client {
    dir: TestDir,
    thumbprint: String,
}

impl Client {
    fn of(ca: &Ca) -> Self {
        let client = Self { dir: TestDir::new(), thumbprint: String::new() };
        let thumbprint = client.renew(ca);
        Self { thumbprint, ..client }
    }

    /// Replaces both files; gives back the new thumbprint.
    fn renew(&self, ca: &Ca) -> String {
        let (chain, key) = ca.issue(&["client.example.test"]);
        self.write("client.key", &key);
        self.write("client.pem", &chain);
        thumbprint(&chain)
    }

    /// Replaces a file whole, as whoever rotates should.
    fn write(&self, name: &str, text: &str) {
        let new = self.dir.write(&format!("{name}.new"), text);
        fs::rename(new, self.path(name)).unwrap();
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// The two keys of a credential.
    fn lines(&self) -> String {
        let (chain, key) = (self.path("client.pem"), self.path("client.key"));
        format!("client_cert = \"{}\"\nclient_key = {{ file = \"{}\" }}\n", chain.display(), key.display())
    }

    /// No line of the private key may ever be seen.
    fn key_lines(&self) -> Vec<String> {
        let key = fs::read_to_string(self.path("client.key")).unwrap();
        key.lines().map(str::to_owned).collect()
    }
}

fn ca_file(dir: &Path, ca: &Ca) -> String {
    let path = dir.join("ca.pem");
    fs::write(&path, ca.pem()).unwrap();
    path.display().to_string()
}

/// A credential `NAME` with a route `/NAME` to `api`.
fn config(name: &str, token_url: &str, api: &str, ca: &str, lines: &str) -> String {
    format!(
        "[credentials.{name}]\nclient_id = \"id-{name}\"\ntoken_url = \"{token_url}/token\"\nca_file = \"{ca}\"\n{lines}\n\
         [[routes]]\nprefix = \"/{name}\"\nupstream = \"{api}\"\ncredential = \"{name}\"\n"
    )
}

const MTLS: &str = "client_auth = \"mtls\"\n";

/// A CA for both sides, the server, and a proxy whose credential `c` has this client's certificate.
struct Scene {
    server: BoundServer,
    client: Client,
    ca: Ca,
    proxy: Cupbearer,
}

impl Scene {
    fn start(manner: Manner, auth: &str) -> Self {
        let ca = Ca::new();
        let (server, client) = (BoundServer::start(&ca, &ca, manner), Client::of(&ca));
        let root = ca_file(client.dir.path(), &ca);
        let text = config("c", &server.url(), &server.url(), &root, &(auth.to_owned() + &client.lines()));
        let proxy = Cupbearer::builder().env("SECRET", SECRET).start(&text);
        Self { server, client, ca, proxy }
    }

    fn ok(&self) {
        let response = self.proxy.get("/c/x");
        assert_eq!(response.status, 200, "{}", response.text());
    }

    fn last(&self) -> Seen {
        self.server.seen().pop().expect("a request")
    }

    /// No request came with a token of another certificate; nothing secret was printed.
    fn end(self) {
        let refused: Vec<_> = self.server.seen().into_iter().filter(|seen| seen.status != 200).collect();
        assert!(refused.is_empty(), "{refused:?}");
        let lines = self.client.key_lines();
        let mut secrets: Vec<&str> = lines.iter().map(String::as_str).collect();
        secrets.extend([SECRET, "not-a-token"]);
        self.proxy.expect_never_printed(&secrets);
        self.proxy.stop();
    }
}

#[test]
fn the_certificate_is_presented_to_provider_and_upstream_and_no_secret_is_sent() {
    for old_tls in [false, true] {
        let scene = Scene::start(Manner { old_tls, ..Manner::default() }, MTLS);
        scene.ok();
        scene.ok();
        let seen = scene.server.seen();
        let lines: Vec<&str> = seen.iter().map(|seen| seen.line.as_str()).collect();
        assert_eq!(lines, ["POST /token", "GET /x", "GET /x"]);
        assert!(seen.iter().all(|seen| seen.thumbprint == scene.client.thumbprint), "{seen:?}");
        assert_eq!(seen[0].body, "grant_type=client_credentials&client_id=id-c");
        assert_eq!(seen[0].authorization, None);
        scene.end();
    }
}

#[test]
fn a_certificate_goes_beside_any_other_client_auth() {
    for auth in ["post", "basic"] {
        let lines = format!("client_auth = \"{auth}\"\nclient_secret = {{ env = \"SECRET\" }}\n");
        let scene = Scene::start(Manner::default(), &lines);
        scene.ok();
        let asked = &scene.server.seen()[0];
        assert_eq!(asked.thumbprint, scene.client.thumbprint);
        assert_eq!(asked.body.contains(SECRET), auth == "post", "{asked:?}");
        assert_eq!(asked.authorization.is_some(), auth == "basic", "{asked:?}");
        scene.end();
    }
}

#[test]
fn a_new_certificate_in_its_files_gets_a_new_token_and_no_caller_notices() {
    let scene = Scene::start(Manner::default(), MTLS);
    scene.ok();
    let new = scene.client.renew(&scene.ca);
    // Callers go on all the while; none may see a token meet the wrong certificate.
    eventually("the new certificate", || {
        scene.ok();
        scene.last().thumbprint == new
    });
    scene.ok();
    assert_eq!(scene.server.issued(), 2);
    let asked: Vec<_> = scene.server.seen().into_iter().filter(|seen| seen.line == "POST /token").collect();
    assert_eq!(asked[1].thumbprint, new);
    scene.end();
}

#[test]
fn a_pair_that_does_not_match_or_parse_is_not_promoted_until_it_is_whole() {
    let scene = Scene::start(Manner { lifetime: 2, ..Manner::default() }, MTLS);
    scene.ok();
    let (chain, key) = scene.ca.issue(&["client.example.test"]);
    let warns = |what: &str| {
        let is_it = |line: &str| line.contains(what) && line.contains("the certificate before stays in use");
        let said = |output: &str| output.lines().any(is_it).then_some(());
        scene.proxy.process().wait_for(said).unwrap_or_else(|e| panic!("{e}"));
    };
    scene.client.write("client.pem", &chain);
    warns("client_cert and client_key don't belong together");
    scene.client.write("client.pem", "-----BEGIN CERTIFICATE-----\nhalf");
    warns("client_cert holds no certificate");
    let (over, key_of_it) = scene.ca.issue_until(&["client.example.test"], 2020);
    scene.client.write("client.key", &key_of_it);
    scene.client.write("client.pem", &over);
    warns("the certificate of client_cert expired on 2020-01-01");
    let before = scene.server.issued();
    // Refreshes go on with the one before.
    eventually("another token", || {
        scene.ok();
        scene.server.issued() > before
    });
    assert_eq!(scene.last().thumbprint, scene.client.thumbprint);
    scene.client.write("client.pem", &chain);
    scene.client.write("client.key", &key);
    eventually("the whole pair", || {
        scene.ok();
        scene.last().thumbprint == thumbprint(&chain)
    });
    scene.end();
}

#[test]
fn a_new_certificate_that_the_provider_refuses_does_not_displace_the_one_that_works() {
    // Unknown to the provider, and one that its TLS does not even let in.
    for lets_in in [true, false] {
        let scene = Scene::start(Manner { lifetime: 2, ..Manner::default() }, MTLS);
        scene.ok();
        let foreign = Ca::new();
        let new = scene.client.renew(if lets_in { &scene.ca } else { &foreign });
        scene.server.forget(&new);
        let text = "the new secret was tried: refused, keeping the one before";
        let mut log = None;
        eventually("the new one is tried", || {
            scene.ok();
            log = Some(scene.proxy.process().output());
            log.as_ref().is_some_and(|log| log.contains(text))
        });
        let before = scene.server.issued();
        eventually("tokens go on", || {
            scene.ok();
            scene.server.issued() >= before + 2
        });
        let tries = scene.proxy.process().output().matches(text).count();
        assert_eq!(tries, 1, "a refused certificate is not tried again and again");
        let refused: Vec<_> = scene.server.seen().into_iter().filter(|seen| seen.status != 200).collect();
        assert_eq!(refused.len(), usize::from(lets_in), "{refused:?}");
        scene.proxy.stop();
    }
}

/// A proxy with an open provider or an open API where `None` is given.
fn against(server: &BoundServer, lines: &str, root: &str, guards_provider: bool) -> (Cupbearer, Upstream, Upstream) {
    let (tokens, api) = (Upstream::tokens(3600), Upstream::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    let (provider, upstream) = if guards_provider { (server.url(), api.url()) } else { (tokens.url(), server.url()) };
    let lines = format!("client_secret = {{ env = \"SECRET\" }}\n{lines}");
    let text = config("c", &provider, &upstream, root, &lines);
    (Cupbearer::builder().env("SECRET", SECRET).start(&text), tokens, api)
}

#[test]
fn a_server_that_wants_another_certificate_or_any_at_all_is_told_of_honestly() {
    for (old_tls, offers_h2) in [(false, false), (true, false), (false, true)] {
        let (ca, foreign, dir) = (Ca::new(), Ca::named("another CA"), TestDir::new());
        let server = BoundServer::start(&ca, &ca, Manner { old_tls, offers_h2, ..Manner::default() });
        let (root, stranger, impostor) = (ca_file(dir.path(), &ca), Client::of(&foreign), Client::of(&Ca::new()));
        for (lines, words) in [
            (String::new(), "wants a client certificate, and this credential has no client_cert"),
            (stranger.lines(), "refused our client certificate (TLS alert unknown_ca)"),
            (impostor.lines(), "refused our client certificate (TLS alert decrypt_error)"),
        ] {
            if old_tls && lines.is_empty() {
                continue; // TLS 1.2 has no word for that
            }
            if !offers_h2 {
                let (proxy, _tokens, api) = against(&server, &lines, &root, true);
                let problem = proxy.get("/c/x").expect_problem(502, "idp_refused");
                let detail = problem["detail"].as_str().unwrap();
                assert!(detail.contains(words) && detail.contains("client_cert and client_key"), "{problem}");
                assert!(api.heads().is_empty());
                proxy.stop();
            }

            let (proxy, tokens, _api) = against(&server, &lines, &root, false);
            for (method, body) in [("GET", &b""[..]), ("POST", b"hello")] {
                let problem = proxy.request(method, "/c/x", "", body).expect_problem(502, "upstream_tls");
                let detail = problem["detail"].as_str().unwrap();
                assert!(detail.contains(words), "{problem}");
                let end = if old_tls { "the request was not sent" } else { "it did not read the request" };
                assert!(detail.ends_with(end), "{problem}");
            }
            assert_eq!(tokens.requests().len(), 1);
            proxy.stop();
        }
        assert!(server.seen().is_empty());
    }
}

#[test]
fn no_identity_ever_uses_the_connection_or_the_session_of_another() {
    for (old_tls, keeps_alive) in [(false, false), (true, false), (false, true)] {
        let (ca, dir) = (Ca::new(), TestDir::new());
        let server = BoundServer::start(&ca, &ca, Manner { keeps_alive, old_tls, ..Manner::default() });
        let root = ca_file(dir.path(), &ca);
        let clients: Vec<Client> = (0..3).map(|_| Client::of(&ca)).collect();
        let of = |(n, client): (usize, &Client)| {
            config(&format!("c{n}"), &server.url(), &server.url(), &root, &(MTLS.to_owned() + &client.lines()))
        };
        let text: String = clients.iter().enumerate().map(of).collect();
        let proxy = Cupbearer::builder().server("workers = 1").start(&text);
        thread::scope(|scope| {
            for n in 0..3 {
                let proxy = &proxy;
                scope.spawn(move || {
                    for _ in 0..20 {
                        assert_eq!(proxy.get(&format!("/c{n}/{n}")).status, 200);
                    }
                });
            }
        });
        let mut resumed = BTreeMap::new();
        for seen in server.seen().iter().filter(|seen| seen.line.starts_with("GET")) {
            let n: usize = seen.line.rsplit('/').next().unwrap().parse().unwrap();
            assert_eq!(seen.thumbprint, clients[n].thumbprint, "{seen:?}");
            *resumed.entry(n).or_insert(0) += usize::from(seen.resumed);
        }
        assert_eq!(resumed.len(), 3);
        // Sessions are resumed at all, or this would show nothing.
        assert!(keeps_alive || resumed.values().all(|&n| n > 0), "{resumed:?}");
        proxy.stop();
    }
}

#[test]
fn a_static_token_goes_out_with_the_certificate_too_and_follows_its_files() {
    let (ca, dir) = (Ca::new(), TestDir::new());
    let (server, client) = (BoundServer::start(&ca, &ca, Manner::default()), Client::of(&ca));
    let root = ca_file(dir.path(), &ca);
    let text = format!(
        "[credentials.s]\ngrant = \"static\"\ntoken = {{ env = \"TOKEN\" }}\nca_file = \"{root}\"\n{}\
         [[routes]]\nprefix = \"/s\"\nupstream = \"{}\"\ncredential = \"s\"\n",
        client.lines(),
        server.url()
    );
    let proxy = Cupbearer::builder().env("TOKEN", "not-a-token-of-ours").start(&text);
    // It is bound to nobody, so the server refuses it; but it has seen who came.
    assert_eq!(proxy.get("/s/x").status, 401);
    assert_eq!(server.seen()[0].thumbprint, client.thumbprint);
    let new = client.renew(&ca);
    eventually("the new certificate", || {
        proxy.get("/s/x");
        server.seen().last().is_some_and(|seen| seen.thumbprint == new)
    });
    proxy.expect_never_printed(&["not-a-token"]);
    proxy.stop();
}

#[test]
fn a_pair_that_cannot_be_used_is_found_before_anything_listens() {
    let ca = Ca::new();
    let (client, other) = (Client::of(&ca), Client::of(&ca));
    let key = |client: &Client| format!("client_key = {{ file = \"{}\" }}\n", client.path("client.key").display());
    let chain = |path: &Path| format!("client_cert = \"{}\"\n", path.display());
    let (over, over_key) = ca.issue_until(&["client.example.test"], 2020);
    client.write("over.pem", &over);
    client.write("over.key", &over_key);
    let over_key = format!("client_key = {{ file = \"{}\" }}\n", client.path("over.key").display());
    let good = client.path("client.pem");
    for (lines, what) in [
        (chain(&good) + &key(&other), "client_cert and client_key don't belong together"),
        (chain(&client.path("over.pem")) + &over_key, "the certificate of client_cert expired on 2020-01-01"),
        (chain(&client.path("client.key")) + &key(&client), "client_cert holds no certificate in PEM form"),
        (chain(&client.path("gone.pem")) + &key(&client), "gone.pem can't be read"),
        (chain(&good) + &key(&client).replace("client.key", "client.pem"), "client_key is no private key"),
        (chain(&good) + &key(&client).replace("client.key", "gone.key"), "gone.key can't be read"),
        (chain(&good), "[credentials.c] has no `client_key` to go with its `client_cert`"),
        (String::new(), "[credentials.c] has no `client_cert`"),
        (client.lines() + "client_secret = { env = \"SECRET\" }\n", "client_auth = \"mtls\" sends none"),
    ] {
        let text = config("c", "https://localhost:1", "https://localhost:1", "CA", &(MTLS.to_owned() + &lines));
        let text = text.replace("ca_file = \"CA\"\n", "");
        let (status, output) = Cupbearer::builder().env("SECRET", SECRET).start_badly(&text);
        assert_eq!(status.code(), Some(2), "{what}: {output}");
        assert!(output.contains(what) && output.contains("proxy.toml:"), "{what}: {output}");
        for line in client.key_lines() {
            assert!(!output.contains(&line), "{what}: {output}");
        }
    }
}

#[test]
fn a_stored_token_is_used_with_its_certificate_and_with_no_other() {
    let ca = Ca::new();
    let (server, client) = (BoundServer::start(&ca, &ca, Manner::default()), Client::of(&ca));
    let root = ca_file(client.dir.path(), &ca);
    let store = client.path("tokens").display().to_string();
    let text = format!("[tokens]\nstore = {{ file = \"{store}\" }}\nseal_key = {{ env = \"SEAL_KEY\" }}\n")
        + &config("c", &server.url(), &server.url(), &root, &(MTLS.to_owned() + &client.lines()));
    let once = || {
        let seal_key = "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M=";
        let proxy = Cupbearer::builder().env("SEAL_KEY", seal_key).start(&text);
        assert_eq!(proxy.get("/c/x").status, 200);
        proxy.stop();
        server.seen().pop().unwrap().thumbprint
    };
    assert_eq!((once(), server.issued()), (client.thumbprint.clone(), 1));
    assert_eq!((once(), server.issued()), (client.thumbprint.clone(), 1), "a restart costs nothing");
    let new = client.renew(&ca);
    assert_eq!((once(), server.issued()), (new, 2));
    assert!(server.seen().iter().all(|seen| seen.status == 200));
}

#[test]
fn check_online_asks_with_the_certificate_and_prints_a_curl_that_does_too() {
    let ca = Ca::new();
    let (server, client) = (BoundServer::start(&ca, &ca, Manner::default()), Client::of(&ca));
    let root = ca_file(client.dir.path(), &ca);
    let text = config("c", &server.url(), &server.url(), &root, &(MTLS.to_owned() + &client.lines()));
    let file = client.dir.write("proxy.toml", "[admin]\nlisten = false\n".to_owned() + &text);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cupbearer"));
    let command = command.args(["check", "--online", "--format", "json", "-c"]).arg(file).env_clear();
    let output = command.output().expect("the binary runs");
    let printed = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{printed}");
    for line in client.key_lines() {
        assert!(!printed.contains(&line), "{printed}");
    }
    let answer: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let curl = answer["online"][0]["requests"][0]["curl"].as_str().unwrap_or_else(|| panic!("{printed}"));
    let output = std::process::Command::new("sh").args(["-c", curl]).output().expect("a shell");
    assert!(String::from_utf8_lossy(&output.stdout).contains("not-a-token-2"), "{curl}\n{output:?}");
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.line == "POST /token" && seen.thumbprint == client.thumbprint), "{seen:?}");
}

/// A provider of which only the issuer is written down: its document stands on a host that asks for no certificate, and names
/// another endpoint for clients that have one (RFC 8705 section 5).
#[test]
fn with_an_issuer_a_client_with_a_certificate_asks_at_the_alias_for_it() {
    let ca = Ca::new();
    let (server, client) = (BoundServer::start(&ca, &ca, Manner::default()), Client::of(&ca));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let issuer = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let document = format!(
        r#"{{"issuer":"{issuer}","token_endpoint":"{issuer}/token","mtls_endpoint_aliases":{{"token_endpoint":"{}/token"}}}}"#,
        server.url()
    );
    let length = document.len();
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{document}");
    let (chain, key) = ca.issue(&["localhost"]);
    let provider = TlsUpstream::on(listener, &chain, &key, answer.leak(), Ending::KeepAlive);
    let root = ca_file(client.dir.path(), &ca);
    let proxy = Cupbearer::builder().start(&format!(
        "[credentials.c]\nclient_id = \"id-c\"\nissuer = \"{issuer}\"\nca_file = \"{root}\"\n{MTLS}{}\n\
         [[routes]]\nprefix = \"/c\"\nupstream = \"{}\"\ncredential = \"c\"\n",
        client.lines(),
        server.url()
    ));
    let response = proxy.get("/c/x");
    assert_eq!(response.status, 200, "{}", response.text());
    let seen = server.seen();
    let lines: Vec<&str> = seen.iter().map(|seen| seen.line.as_str()).collect();
    assert_eq!(lines, ["POST /token", "GET /x"]);
    assert!(seen.iter().all(|seen| seen.thumbprint == client.thumbprint), "{seen:?}");
    let asked = String::from_utf8(provider.received()).unwrap();
    assert!(asked.starts_with("GET /.well-known/openid-configuration ") && !asked.contains("POST "), "{asked}");
    // The alias is a token endpoint too: no route may lead there.
    proxy.get("/c/token").expect_problem(403, "policy_denied");
    proxy.expect_never_printed(&["not-a-token"]);
}
