//! An upstream that refuses a token which the proxy believes in.
//!
//! A token younger than five seconds is not renewed for a 401 (no loop against the provider), so these
//! tests have to let their first token grow older than that.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::{Connection, Cupbearer, Upstream, noise};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const UNAUTHORIZED: &str =
    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer error=\"invalid_token\"\r\nContent-Length: 2\r\n\r\nno";
const YOUNG: Duration = Duration::from_secs(5);

struct Setup {
    proxy: Cupbearer,
    tokens: Upstream,
    api: Upstream,
    /// The number of the first token that is still good.
    good_from: Arc<AtomicUsize>,
}

/// An API that takes `not-a-token-N` for every N from `good_from` on, and reads every body to its end.
fn setup() -> Setup {
    let good_from = Arc::new(AtomicUsize::new(1));
    let limit = Arc::clone(&good_from);
    let api = Upstream::start(move |connection| {
        while let Some(request) = connection.request() {
            let tokens: Vec<&str> = request.all("authorization").collect();
            let number = match tokens.as_slice() {
                [token] => token.strip_prefix("Bearer not-a-token-").and_then(|n| n.parse().ok()).unwrap_or(0),
                _ => 0,
            };
            let good = number >= limit.load(Ordering::SeqCst);
            connection.send(if good { OK } else { UNAUTHORIZED });
        }
    });
    let tokens = Upstream::tokens(3600);
    let config = format!(
        "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"post\"\n\
         token_url = \"{}/token\"\n\n[[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"c\"\n",
        tokens.url(),
        api.url()
    );
    let proxy = Cupbearer::builder().env("SECRET", "not-a-secret").start(&config);
    Setup { proxy, tokens, api, good_from }
}

impl Setup {
    /// Makes the proxy fetch its first token and lets that grow old enough to be renewed.
    fn with_a_settled_token(self) -> Self {
        let asked = Instant::now();
        assert_eq!(self.proxy.get("/api/first").status, 200);
        thread::sleep((YOUNG + Duration::from_millis(500)).saturating_sub(asked.elapsed()));
        self
    }
}

#[test]
fn a_hundred_parallel_401s_cost_one_token_and_every_caller_is_served() {
    let setup = setup().with_a_settled_token();
    setup.good_from.store(2, Ordering::SeqCst);
    thread::scope(|scope| {
        for caller in 0..100 {
            let proxy = &setup.proxy;
            scope.spawn(move || assert_eq!(proxy.get(&format!("/api/{caller}")).status, 200));
        }
    });
    assert_eq!(setup.tokens.requests().len(), 2);
    setup.proxy.expect_never_printed(&["not-a-token", "not-a-secret"]);
}

#[test]
fn a_small_body_is_replayed_whole() {
    let setup = setup().with_a_settled_token();
    setup.good_from.store(2, Ordering::SeqCst);
    let body = noise(10_000);
    assert_eq!(setup.proxy.request("POST", "/api/x", "", &body).status, 200);
    let requests = setup.api.requests();
    let bodies: Vec<bool> = requests.iter().filter(|r| r.line().starts_with("POST")).map(|r| r.body == body).collect();
    assert_eq!(bodies, [true, true]);
}

#[test]
fn a_replayed_body_has_its_trailers_again() {
    let setup = setup().with_a_settled_token();
    setup.good_from.store(2, Ordering::SeqCst);
    let body = "3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n";
    let host = setup.proxy.address();
    let head = format!("POST /api/x HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(setup.proxy.connect().exchange(head + body).status, 200);
    let requests = setup.api.requests();
    let bodies: Vec<&[u8]> = requests.iter().filter(|r| r.line().starts_with("POST")).map(|r| &r.body[..]).collect();
    assert_eq!(bodies, [body.as_bytes(), body.as_bytes()]);
}

#[test]
fn a_body_too_large_to_keep_is_streamed_once_and_its_401_goes_through() {
    let setup = setup().with_a_settled_token();
    setup.good_from.store(2, Ordering::SeqCst);
    let body = noise(60_000_000);
    let response = setup.proxy.request("PUT", "/api/large", "", &body);
    assert_eq!((response.status, response.text().as_str()), (401, "no"));
    let status = response.header("proxy-status").expect("says why it was not replayed");
    assert!(status.contains("cupbearer") && status.contains("not replayed: body already streamed"), "{status}");
    assert_eq!(setup.proxy.get("/api/next").status, 200);
    let uploads: Vec<bool> =
        setup.api.requests().iter().filter(|r| r.line().starts_with("PUT")).map(|r| r.body == body).collect();
    assert_eq!(uploads, [true], "once, whole");
    assert_eq!(setup.tokens.requests().len(), 2);
}

/// An API that refuses everything once `revoked` is set.
fn revocable(revoked: &Arc<AtomicUsize>) -> Upstream {
    let revoked = Arc::clone(revoked);
    Upstream::start(move |connection| {
        while connection.request().is_some() {
            connection.send(if revoked.load(Ordering::SeqCst) > 0 { UNAUTHORIZED } else { OK });
        }
    })
}

#[test]
fn the_very_token_that_was_refused_is_not_sent_twice_with_one_request() {
    let body = r#"{"access_token": "not-a-token", "expires_in": 3600}"#;
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let (revoked, tokens) = (Arc::default(), Upstream::always(answer));
    let api = revocable(&revoked);
    let proxy = Cupbearer::builder().env("SECRET", "not-a-secret").env("TOKEN", "not-a-static-token").start(&format!(
        "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\ntoken_url = \"{}/token\"\n\
         [credentials.s]\ngrant = \"static\"\ntoken = {{ env = \"TOKEN\" }}\n\
         [[routes]]\nprefix = \"/given\"\nupstream = \"{url}\"\ncredential = \"c\"\n\
         [[routes]]\nprefix = \"/static\"\nupstream = \"{url}\"\ncredential = \"s\"\n",
        tokens.url(),
        url = api.url()
    ));
    let asked = Instant::now();
    for prefix in ["/given", "/static"] {
        assert_eq!(proxy.request("POST", &format!("{prefix}/x"), "", b"once").status, 200);
    }
    thread::sleep((YOUNG + Duration::from_millis(500)).saturating_sub(asked.elapsed()));
    revoked.store(1, Ordering::SeqCst);
    let before = api.requests().len();
    for (at, prefix) in ["/given", "/static", "/given", "/static"].into_iter().enumerate() {
        let response = proxy.request("POST", &format!("{prefix}/x"), "", b"once");
        assert_eq!((response.status, response.text().as_str()), (401, "no"));
        let status = response.header("proxy-status").expect("says why it was not replayed");
        assert!(status.contains("not replayed: the provider gave the same token"), "{prefix}: {status}");
        assert_eq!(api.requests().len(), before + at + 1, "sent once");
    }
    assert_eq!(tokens.requests().len(), 2);
}

#[test]
fn a_fresh_token_that_is_refused_for_ever_makes_no_loop() {
    let setup = setup();
    setup.good_from.store(usize::MAX, Ordering::SeqCst);
    for _ in 0..20 {
        let response = setup.proxy.get("/api/x");
        assert_eq!((response.status, response.text().as_str()), (401, "no"));
    }
    assert_eq!(setup.tokens.requests().len(), 1);
    assert_eq!(setup.api.requests().len(), 20);
}

#[test]
fn a_401_that_does_not_blame_the_token_keeps_no_sliding_token_alive() {
    let api = Upstream::always(
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer error=\"insufficient_scope\"\r\nContent-Length: 2\r\n\r\nno",
    );
    let tokens = Upstream::tokens(2);
    let proxy = Cupbearer::builder().env("SECRET", "not-a-secret").start(&format!(
        "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"post\"\nexpiry = \"sliding\"\n\
         token_url = \"{}/token\"\n\n[[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"c\"\n",
        tokens.url(),
        api.url()
    ));
    let began = Instant::now();
    crate::support::eventually("the token expires although it is asked for", || {
        assert_eq!(proxy.get("/api/x").status, 401);
        tokens.requests().len() >= 2
    });
    assert!(began.elapsed() < Duration::from_secs(10), "it lived for {:?}", began.elapsed());
}

#[test]
fn a_403_blames_the_token_only_where_the_route_says_so() {
    let refuses_the_first = |connection: &mut Connection| {
        while let Some(request) = connection.request() {
            let is_first = request.header("authorization") == Some("Bearer not-a-token-1");
            connection.send(if is_first { "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno" } else { OK });
        }
    };
    let (api, tokens) = (Upstream::start(refuses_the_first), Upstream::tokens(3600));
    let proxy = Cupbearer::builder().env("SECRET", "not-a-secret").start(&format!(
        "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\ntoken_url = \"{}/token\"\n\
         [[routes]]\nprefix = \"/plain\"\nupstream = \"{url}\"\ncredential = \"c\"\n\
         [[routes]]\nprefix = \"/says-so\"\nupstream = \"{url}\"\ncredential = \"c\"\nretry_on = [401, 403]\n",
        tokens.url(),
        url = api.url()
    ));
    let began = Instant::now();
    assert_eq!(proxy.get("/plain/x").status, 403);
    thread::sleep((YOUNG + Duration::from_millis(500)).saturating_sub(began.elapsed()));
    for _ in 0..5 {
        let response = proxy.get("/plain/x");
        assert_eq!((response.status, response.text().as_str(), response.header("proxy-status")), (403, "no", None));
    }
    assert_eq!(tokens.requests().len(), 1);
    assert_eq!(proxy.get("/says-so/x").status, 200);
    assert_eq!((proxy.get("/plain/x").status, tokens.requests().len()), (200, 2));
}

#[test]
fn a_large_body_of_which_not_a_byte_was_taken_is_sent_with_the_new_token() {
    const SIZE: usize = 3_000_000;
    let waits = |connection: &mut Connection| {
        while let Some(head) = connection.request_head() {
            if head.starts_with("GET") {
                connection.send(OK);
            } else if head.contains("not-a-token-1\r\n") {
                connection.send(UNAUTHORIZED.replace("Content-Length", "Connection: close\r\nContent-Length"));
                return;
            } else {
                connection.send("HTTP/1.1 100 Continue\r\n\r\n");
                let body = connection.body_of(&head).expect("the whole body");
                connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{}", body.len()));
            }
        }
    };
    let (api, tokens) = (Upstream::start(waits), Upstream::tokens(3600));
    let proxy = Cupbearer::builder().env("SECRET", "not-a-secret").start(&format!(
        "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\ntoken_url = \"{}/token\"\n\
         [[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"c\"\n",
        tokens.url(),
        api.url()
    ));
    let began = Instant::now();
    assert_eq!(proxy.get("/api/first").status, 200);
    thread::sleep((YOUNG + Duration::from_millis(500)).saturating_sub(began.elapsed()));
    let mut client = proxy.connect();
    let address = proxy.address();
    client.send(format!(
        "PUT /api/x HTTP/1.1\r\nHost: {address}\r\nExpect: 100-continue\r\nContent-Length: {SIZE}\r\n\r\n"
    ));
    assert_eq!(client.response().status, 100);
    client.send(noise(SIZE));
    let response = client.response();
    assert_eq!((response.status, response.text()), (200, SIZE.to_string()));
    assert_eq!(tokens.requests().len(), 2);
}
