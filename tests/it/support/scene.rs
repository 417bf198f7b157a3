//! The usual stage: a token endpoint, an API, the proxy between them, and a well-behaved caller beside the
//! one that the test is about. [`Scene::end`] holds what must be true after every test.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{Client, Cupbearer, Response, Upstream, eventually};

/// What may stand in no output, and in no error.
const SECRETS: [&str; 2] = ["not-a-token", "not-a-secret"];
/// The API key of the caller `erp`, where a test defines it.
pub(crate) const KEY: &str = "not-a-secret-key-of-erp";

/// A scene that is being set.
pub(crate) struct Stage {
    api: Upstream,
    tokens: Upstream,
    server: String,
    route: String,
    credential: String,
    more: String,
    alone: bool,
    descriptors: Option<usize>,
    admin: bool,
}

/// A proxy with `/api` in front of the test's API and, for the neighbour, `/good` in front of another one
/// with another credential.
pub(crate) struct Scene {
    pub(crate) proxy: Cupbearer,
    pub(crate) api: Upstream,
    pub(crate) tokens: Upstream,
    good: Upstream,
    good_tokens: Upstream,
    neighbour: Option<Neighbour>,
}

impl Stage {
    /// In front of `api`; one worker, so that whatever holds it up is felt by the neighbour.
    pub(crate) fn new(api: Upstream) -> Self {
        let server = "workers = 1\n".to_owned();
        let (route, credential, more) = (String::new(), String::new(), String::new());
        Self {
            api,
            tokens: Upstream::tokens(3600),
            server,
            route,
            credential,
            more,
            alone: false,
            descriptors: None,
            admin: false,
        }
    }

    /// Another number of workers.
    pub(crate) fn workers(self, workers: usize) -> Self {
        Self { server: self.server.replace("workers = 1\n", &format!("workers = {workers}\n")), ..self }
    }

    /// Another token endpoint than one that always works.
    pub(crate) fn tokens(self, tokens: Upstream) -> Self {
        Self { tokens, ..self }
    }

    /// A further line of `[server]`.
    pub(crate) fn server(self, line: &str) -> Self {
        Self { server: format!("{}{line}\n", self.server), ..self }
    }

    /// A further line of the route `/api`.
    pub(crate) fn route(self, line: &str) -> Self {
        Self { route: format!("{}{line}\n", self.route), ..self }
    }

    /// A further line of its credential `c`.
    pub(crate) fn credential(self, line: &str) -> Self {
        Self { credential: format!("{}{line}\n", self.credential), ..self }
    }

    /// Further tables. `{api}` stands for the API's URL.
    pub(crate) fn more(self, text: &str) -> Self {
        Self { more: format!("{}{text}\n", self.more), ..self }
    }

    /// Without the neighbour, who would be in the way of limits that count connections.
    pub(crate) fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// With an admin address.
    pub(crate) fn admin(self) -> Self {
        Self { admin: true, ..self }
    }

    /// Limits the proxy's file descriptors.
    pub(crate) fn descriptors(self, most: usize) -> Self {
        Self { descriptors: Some(most), ..self }
    }

    /// Starts it all.
    pub(crate) fn start(self) -> Scene {
        let Self { api, tokens, server, route, credential, more, alone, descriptors, admin } = self;
        let good = Upstream::always("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
        let good_tokens = Upstream::tokens_named("good", 3600);
        let credentials = |name: &str, at: &Upstream, lines: &str| {
            format!(
                "[credentials.{name}]\nclient_id = \"id-{name}\"\nclient_secret = {{ env = \"SECRET\" }}\n\
                 client_auth = \"post\"\ntoken_url = \"{}/token\"\n{lines}\n",
                at.url()
            )
        };
        let routes = format!(
            "[[routes]]\nprefix = \"/api\"\nupstream = \"{api}\"\ncredential = \"c\"\n{route}\n\
             [[routes]]\nprefix = \"/good\"\nupstream = \"{good}\"\ncredential = \"good\"\n{anyone}\n",
            api = api.url(),
            good = good.url(),
            anyone = if more.contains("[callers.") { "callers = [\"*\"]" } else { "" },
        );
        let config = [
            credentials("c", &tokens, &credential),
            credentials("good", &good_tokens, ""),
            routes,
            more.replace("{api}", &api.url()),
        ]
        .concat();
        let mut builder = Cupbearer::builder().env("SECRET", "not-a-secret").env("KEY", KEY);
        if let Some(most) = descriptors {
            builder = builder.descriptors(most);
        }
        if admin {
            builder = builder.admin();
        }
        for line in server.lines() {
            builder = builder.server(line);
        }
        let proxy = builder.start(&config);
        let neighbour = (!alone).then(|| Neighbour::start(proxy.address()));
        Scene { proxy, api, tokens, good, good_tokens, neighbour }
    }
}

impl Scene {
    /// In front of `api`, with nothing special.
    pub(crate) fn new(api: Upstream) -> Self {
        Stage::new(api).start()
    }

    /// `text` with `HOST` replaced by what `Host` must be.
    pub(crate) fn fill(&self, text: &str) -> String {
        text.replace("HOST", &self.proxy.address().to_string())
    }

    /// A new connection on which `text` was sent, with `HOST` filled in.
    pub(crate) fn send(&self, text: &str) -> Client {
        let mut client = self.proxy.connect();
        client.send(self.fill(text));
        client
    }

    /// One GET on a connection of its own.
    pub(crate) fn get(&self, target: &str) -> Response {
        self.proxy.get(target)
    }

    /// What reached the API for targets that hold `part`.
    pub(crate) fn heads_with(&self, part: &str) -> Vec<super::Request> {
        self.api.heads().into_iter().filter(|request| request.target().contains(part)).collect()
    }

    /// The one whole request that reached the API for a target; panics if there are more, or none.
    pub(crate) fn only_request(&self, target: &str) -> super::Request {
        let mut found: Vec<_> = self.api.requests().into_iter().filter(|r| r.target() == target).collect();
        assert_eq!(found.len(), 1, "requests for {target}: {found:?}");
        found.remove(0)
    }

    /// Lets the proxy's worker look at its sockets: whatever came in before has been noticed after this.
    pub(crate) fn settle(&self) {
        for _ in 0..2 {
            assert_eq!(self.get("/good/settle").text(), "good");
        }
    }

    /// Waits until no more than `most` descriptors are open.
    pub(crate) fn wait_for_descriptors(&self, most: usize) {
        eventually(&format!("back to {most} descriptors"), || self.proxy.descriptors() <= most);
    }

    /// Ends the neighbour, who must have seen nothing but successes, and checks every invariant.
    pub(crate) fn end(mut self) {
        self.check();
        let output = self.proxy.stop();
        expect_clean(&output);
    }

    /// The same, for tests that end the proxy themselves.
    pub(crate) fn end_with(mut self, end: impl FnOnce(Cupbearer) -> String) {
        self.check();
        expect_clean(&end(self.proxy));
    }

    fn check(&mut self) {
        if let Some(neighbour) = self.neighbour.take() {
            neighbour.end();
        }
        expect_own_token(&self.api, "not-a-token-", "good");
        expect_own_token(&self.good, "not-a-token-good", "\0");
        assert!(self.good_tokens.requests().len() <= 1, "the neighbour's token was asked for again");
        let arguments = self.proxy.command_line();
        assert!(!SECRETS.iter().any(|secret| arguments.contains(secret)), "{arguments}");
    }
}

/// Every request carried exactly one `Authorization`, the right one, and an id that no other had.
pub(crate) fn expect_own_token(api: &Upstream, start: &str, foreign: &str) {
    let mut ids = HashSet::new();
    for request in api.heads() {
        let tokens: Vec<&str> = request.all("authorization").collect();
        let [token] = tokens.as_slice() else { panic!("{} Authorization fields: {}", tokens.len(), request.head) };
        let own = token.strip_prefix("Bearer ").is_some_and(|t| t.starts_with(start) && !t.contains(foreign));
        assert!(own, "a foreign token: {}", request.head);
        let id = request.header("x-request-id").expect("every request has an id").to_owned();
        assert!(ids.insert(id), "a request was sent twice: {}", request.head);
        assert!(request.all("host").count() == 1, "{}", request.head);
        for line in request.head.lines() {
            assert!(!line.contains('\r'), "a stray CR: {}", request.head);
        }
    }
}

fn expect_clean(output: &str) {
    let bad = |line: &&str| SECRETS.iter().any(|secret| line.contains(secret)) || line.contains("panicked");
    let line = output.lines().find(bad);
    assert!(line.is_none(), "printed: {line:?}");
}

/// A caller that does nothing wrong, on connections that it keeps.
struct Neighbour {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Neighbour {
    fn start(address: SocketAddr) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let thread = {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            thread::spawn(move || {
                let mut client = Client::connect(address);
                while !stop.load(Ordering::SeqCst) {
                    let number = served.fetch_add(1, Ordering::SeqCst);
                    let response = client.exchange(format!("GET /good/{number} HTTP/1.1\r\nHost: {address}\r\n\r\n"));
                    assert_eq!((response.status, response.text().as_str()), (200, "good"), "request {number}");
                    thread::sleep(Duration::from_millis(3));
                }
            })
        };
        eventually("the neighbour is served", || served.load(Ordering::SeqCst) > 1 || thread.is_finished());
        Self { stop, served, thread }
    }

    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the well-behaved neighbour sees only successes");
        assert!(self.served.load(Ordering::SeqCst) > 1);
    }
}
