//! Client secrets are rotated while callers go on: without a gap, and without one failed request.

use std::{
    net::SocketAddr,
    os::unix::fs::symlink,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::support::{Client, Connection, Cupbearer, TestDir, Upstream, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// Seconds that a token lives: several are needed while a test runs.
const LIFE: u32 = 3;

/// A provider whose secrets can be switched, and which says no in the usual way.
struct Provider {
    upstream: Upstream,
    accepted: Arc<Mutex<Vec<&'static str>>>,
    /// The secret of each request, and whether it was accepted.
    seen: Arc<Mutex<Vec<(String, bool)>>>,
}

impl Provider {
    fn accepting(secrets: &[&'static str]) -> Self {
        let accepted = Arc::new(Mutex::new(secrets.to_vec()));
        let seen: Arc<Mutex<Vec<(String, bool)>>> = Arc::default();
        let script = {
            let (accepted, seen) = (Arc::clone(&accepted), Arc::clone(&seen));
            move |connection: &mut Connection| {
                while let Some(request) = connection.request() {
                    let body = String::from_utf8(request.body).expect("a form");
                    let secret = body.split('&').find_map(|p| p.strip_prefix("client_secret=")).unwrap_or_default();
                    let good = accepted.lock().expect("not poisoned").contains(&secret);
                    let mut seen = seen.lock().expect("not poisoned");
                    seen.push((secret.to_owned(), good));
                    let (status, body) = if good {
                        let number = seen.len();
                        let token = format!(r#"{{"access_token":"not-a-token-{number}","expires_in":{LIFE}}}"#);
                        ("200 OK", token)
                    } else {
                        ("401 Unauthorized", r#"{"error":"invalid_client"}"#.to_owned())
                    };
                    let length = body.len();
                    let head = format!(
                        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
                    );
                    connection.send(head + &body);
                }
            }
        };
        Self { upstream: Upstream::start(script), accepted, seen }
    }

    fn accept(&self, secrets: &[&'static str]) {
        *self.accepted.lock().expect("not poisoned") = secrets.to_vec();
    }

    fn seen(&self) -> Vec<(String, bool)> {
        self.seen.lock().expect("not poisoned").clone()
    }

    /// How often it has taken this secret.
    fn took(&self, secret: &str) -> usize {
        self.seen().iter().filter(|(seen, good)| *good && seen == secret).count()
    }

    fn refusals(&self) -> Vec<String> {
        self.seen().into_iter().filter(|(_, good)| !good).map(|(secret, _)| secret).collect()
    }
}

/// Callers who never stop, each on its own connection, until they are told to.
struct Callers {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Callers {
    fn start(address: SocketAddr) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let caller = || {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            thread::spawn(move || {
                let (mut client, mut failed) = (Client::connect(address), Vec::new());
                while !stop.load(Ordering::SeqCst) {
                    let response = client.exchange(format!("GET /api HTTP/1.1\r\nHost: {address}\r\n\r\n"));
                    if response.status != 200 {
                        failed.push(format!("{}: {}", response.status, response.text()));
                    }
                    served.fetch_add(1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(5));
                }
                failed
            })
        };
        Self { threads: (0..4).map(|_| caller()).collect(), stop, served }
    }

    /// Ends them; not one request may have failed.
    fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            assert_eq!(thread.join().expect("a caller"), [""; 0]);
        }
        self.served.load(Ordering::SeqCst)
    }
}

fn start(provider: &Provider, api: &Upstream, secret: &str) -> Cupbearer {
    Cupbearer::builder().admin().start(&format!(
        "[credentials.acme]\nclient_id = \"id\"\nclient_secret = {secret}\ntoken_url = \"{}/token\"\n\
         [[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"acme\"\n",
        provider.upstream.url(),
        api.url()
    ))
}

fn said(proxy: &Cupbearer, text: &str) -> usize {
    proxy.process().output().lines().filter(|line| line.contains(text)).count()
}

#[test]
fn a_secret_file_is_rotated_under_load_without_one_failed_request() {
    let (provider, api, dir) = (Provider::accepting(&["not-a-secret-old"]), Upstream::always(OK), TestDir::new());
    let file = dir.write("secret", "not-a-secret-old\n");
    let proxy = start(&provider, &api, &format!("{{ file = \"{}\" }}", file.display()));
    let callers = Callers::start(proxy.address());
    eventually("the old secret is in use", || provider.took("not-a-secret-old") >= 1);
    // A mistake first: refused once, and nobody notices.
    dir.write("secret", "not-a-secret-mistaken");
    eventually("the mistake was tried", || provider.refusals().len() == 1);
    eventually("the old one goes on", || provider.took("not-a-secret-old") >= 3);
    // An editor that empties the file first; then the new one, while the provider still takes both.
    dir.write("secret", "");
    eventually("it is said", || said(&proxy, "is empty; what was read before stays in use") == 1);
    provider.accept(&["not-a-secret-old", "not-a-secret-new"]);
    dir.write("secret", "not-a-secret-new\n");
    eventually("the new one was tried", || provider.took("not-a-secret-new") == 1);
    // Now the old one ends, and the new one must carry on.
    provider.accept(&["not-a-secret-new"]);
    eventually("the new one goes on", || provider.took("not-a-secret-new") >= 3);
    let served = callers.end();
    assert!(served > 500, "{served} requests were served");
    assert_eq!(provider.refusals(), ["not-a-secret-mistaken"], "one try, and no request with a secret that has ended");
    let seen = provider.seen();
    assert!(seen.len() < 20, "{} token requests: {seen:?}", seen.len());
    eventually("the new secret was tried: refused, keeping the one before", || {
        said(&proxy, "the new secret was tried: refused, keeping the one before") == 1
    });
    eventually("the new secret was tried: it works", || said(&proxy, "the new secret was tried: it works") == 1);
    proxy.expect_never_printed(&["not-a-secret", "not-a-token"]);
    proxy.stop();
}

#[test]
fn a_secret_that_a_symlink_leads_to_is_seen_when_the_link_is_switched() {
    let secrets = ["not-a-secret-1", "not-a-secret-2"];
    let (provider, api, dir) = (Provider::accepting(&secrets), Upstream::always(OK), TestDir::new());
    // As Kubernetes mounts them: secret -> ..data/secret, ..data -> ..v1, and one rename that switches.
    dir.write("..v1/secret", secrets[0]);
    dir.write("..v2/secret", secrets[1]);
    symlink("..v1", dir.path().join("..data")).expect("a link");
    symlink("..data/secret", dir.path().join("secret")).expect("a link");
    let proxy = start(&provider, &api, &format!("{{ file = \"{}\" }}", dir.path().join("secret").display()));
    assert_eq!(proxy.get("/api").status, 200);
    symlink("..v2", dir.path().join("..next")).expect("a link");
    std::fs::rename(dir.path().join("..next"), dir.path().join("..data")).expect("switched");
    eventually("the second one was tried", || provider.took(secrets[1]) == 1);
    assert_eq!(proxy.get("/api").status, 200);
    proxy.stop();
}

#[test]
fn of_a_list_the_next_secret_carries_on_when_one_ends_without_one_failed_request() {
    let (provider, api, dir) = (Provider::accepting(&["not-a-secret-a"]), Upstream::always(OK), TestDir::new());
    let (a, b) = (dir.write("a", "not-a-secret-a"), dir.write("b", "not-a-secret-b"));
    let list = format!("[{{ file = \"{}\" }}, {{ file = \"{}\" }}]", a.display(), b.display());
    let proxy = start(&provider, &api, &list);
    let callers = Callers::start(proxy.address());
    let works = |index: usize| {
        let metric = format!("cupbearer_client_secret{{credential=\"acme\",index=\"{index}\"}}");
        proxy.metric(&metric) == 1
    };
    eventually("the first one is in use", || provider.took("not-a-secret-a") >= 1);
    eventually("the metric says so", || works(1) && !works(2));
    provider.accept(&["not-a-secret-b"]);
    eventually("the second one goes on", || provider.took("not-a-secret-b") >= 2);
    eventually("the metric says so", || !works(1) && works(2));
    callers.end();
    assert_eq!(provider.refusals(), ["not-a-secret-a"], "refused once, and left alone");
    eventually("the provider refused this client secret", || {
        said(&proxy, "the provider refused this client secret") == 1
    });
    eventually("the log says which of them works", || said(&proxy, "2 of 2: file") >= 1);
    proxy.expect_never_printed(&["not-a-secret", "not-a-token"]);
    proxy.stop();
}
