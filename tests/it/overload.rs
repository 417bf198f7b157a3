//! Too much, too slow, too many: others are served, limits hold, and everything comes back.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::{Client, Cupbearer, PATIENCE, ReadError, Scene, Stage, Unread, Upstream, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_thousand_slow_heads_are_ended_and_nobody_else_notices() {
    let scene = Stage::new(Upstream::always(OK)).server("header_timeout = \"700ms\"").start();
    assert_eq!(scene.get("/api/x").text(), "ok");
    let descriptors = scene.proxy.descriptors();
    let began = Instant::now();
    let mut clients: Vec<Client> = (0..1000).map(|_| scene.send("GET /api/slow HTTP/1.1\r\nHost: HOST\r\n")).collect();
    // They drip on: that earns them no more time.
    while began.elapsed() < Duration::from_millis(400) {
        for client in clients.iter_mut().step_by(10) {
            let _ = client.try_send("X");
        }
        thread::sleep(Duration::from_millis(50));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        match client.try_response(false) {
            Ok(response) => drop(response.expect_problem(408, "request_timeout")),
            // A byte that was on its way when the proxy closed resets the connection.
            Err(error) => assert!(number % 10 == 0, "{error:?}"),
        }
    }
    assert!(began.elapsed() < PATIENCE / 2);
    drop(clients);
    scene.wait_for_descriptors(descriptors + 2);
    assert!(scene.heads_with("slow").is_empty());
    scene.end();
}

#[test]
fn slow_bodies_are_ended_on_both_sides() {
    let scene = Stage::new(Upstream::always(OK)).route("body_idle_timeout = \"500ms\"").start();
    assert_eq!(scene.get("/api/x").text(), "ok");
    let descriptors = scene.proxy.descriptors();
    let mut clients: Vec<Client> = (0..300)
        .map(|n| {
            let framing = if n % 2 == 0 { "Content-Length: 100" } else { "Transfer-Encoding: chunked" };
            scene.send(&format!("POST /api/slow HTTP/1.1\r\nHost: HOST\r\n{framing}\r\n\r\n5\r\nhello\r\n"))
        })
        .collect();
    for client in &mut clients {
        client.response().expect_problem(408, "request_timeout");
    }
    drop(clients);
    scene.wait_for_descriptors(descriptors + 2);
    eventually("the upstream's are closed too", || scene.api.open_connections() <= 1);
    assert_eq!(scene.api.requests().len(), 1, "none of them was whole");
    scene.end();
}

#[test]
fn many_slow_readers_cost_bounded_memory() {
    const READERS: usize = 200;
    const BODY: usize = 20_000_000;
    let api = Upstream::start(|connection| {
        while connection.request().is_some() {
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n"));
            let block = vec![b'x'; 256 * 1024];
            let mut left = BODY;
            while left > 0 {
                let part = left.min(block.len());
                if connection.try_send(&block[..part]).is_err() {
                    return;
                }
                left -= part;
            }
        }
    });
    let scene = Scene::new(api);
    assert_eq!(scene.get("/good/x").text(), "good");
    let (descriptors, before) = (scene.proxy.descriptors(), scene.proxy.memory());
    let clients: Vec<Client> =
        (0..READERS).map(|n| scene.send(&format!("GET /api/{n} HTTP/1.1\r\nHost: HOST\r\n\r\n"))).collect();
    scene.api.wait_for_requests(READERS);
    // Everyone has had something, so all are in the middle of their bodies.
    for client in &clients {
        client.stream().read_exact(&mut [0; 1000]).expect("the beginning of an answer");
    }
    let grown = scene.proxy.memory().saturating_sub(before);
    assert!(grown < 160 * READERS, "{READERS} slow readers cost {grown} KiB");
    drop(clients);
    scene.wait_for_descriptors(descriptors + 2);
    let left = scene.proxy.memory().saturating_sub(before);
    assert!(left < 24 * 1024, "{left} KiB stay");
    scene.end();
}

#[test]
fn max_in_flight_holds_for_its_route_alone_and_is_given_back() {
    let released = Arc::new(AtomicBool::new(false));
    let scene = Stage::new(Upstream::holding(&released, &[OK]))
        .route("max_in_flight = 5")
        .more("[[routes]]\nprefix = \"/other\"\nupstream = \"{api}/other\"\ncredential = \"c\"\n")
        .start();
    let get = |target: &str| scene.send(&format!("GET {target} HTTP/1.1\r\nHost: HOST\r\n\r\n"));
    let mut held: Vec<Client> = (0..5).map(|n| get(&format!("/api/{n}"))).collect();
    scene.api.wait_for_requests(5);
    for _ in 0..20 {
        let problem = scene.get("/api/more").expect_problem(503, "overloaded");
        assert_eq!((&problem["route"], &problem["retry_after"]), (&"/api".into(), &1.into()));
    }
    // Refusing costs the connection nothing.
    let mut client = get("/api/more");
    client.response().expect_problem(503, "overloaded");
    let mut other = get("/other/x");
    scene.api.wait_for_requests(6);
    // A caller that goes away gives its place back at once.
    held.pop().expect("five").reset();
    eventually("there is a place", || {
        let mut probe = get("/api/again");
        probe.stream().set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let answer = probe.try_response(false);
        matches!(answer, Err(ReadError::Io(_)))
    });
    released.store(true, Ordering::SeqCst);
    for client in &mut held {
        assert_eq!(client.response().text(), "ok");
    }
    assert_eq!(other.response().text(), "ok");
    client.send(scene.fill("GET /api/last HTTP/1.1\r\nHost: HOST\r\n\r\n"));
    assert_eq!(client.response().text(), "ok");
    assert!(scene.heads_with("more").is_empty());
    scene.end();
}

#[test]
fn max_connections_holds_and_is_given_back() {
    let scene = Stage::new(Upstream::always(OK)).server("max_connections = 10").alone().start();
    let ask = "GET /api/x HTTP/1.1\r\nHost: HOST\r\n\r\n";
    let mut clients: Vec<Client> = (0..10).map(|_| scene.send(ask)).collect();
    for client in &mut clients {
        assert_eq!(client.response().text(), "ok");
    }
    for _ in 0..5 {
        let problem = scene.send(ask).last_response().expect_problem(503, "overloaded");
        assert_eq!(problem["retry_after"], 1);
    }
    for client in &mut clients {
        assert_eq!(client.exchange(scene.fill(ask)).text(), "ok", "those that are in stay in");
    }
    drop(clients.pop());
    eventually("a place is free", || {
        let mut client = scene.proxy.connect();
        client.try_send(scene.fill(ask)).is_ok() && client.try_response(false).is_ok_and(|r| r.status == 200)
    });
    drop(clients);
    scene.end();
}

#[test]
fn idle_connections_are_cheap_and_end_after_idle_timeout() {
    const IDLE: usize = 600;
    let scene = Stage::new(Upstream::always(OK)).server("idle_timeout = \"2s\"").start();
    let (descriptors, memory) = (scene.proxy.descriptors(), scene.proxy.memory());
    let mut clients: Vec<Client> = (0..IDLE)
        .map(|number| {
            let mut client = scene.proxy.connect();
            if number % 3 == 0 {
                let response = client.exchange(scene.fill("GET /api/x HTTP/1.1\r\nHost: HOST\r\n\r\n"));
                assert_eq!(response.text(), "ok");
            }
            client
        })
        .collect();
    let each = scene.proxy.memory().saturating_sub(memory) / IDLE;
    assert!(each < 8, "{each} KiB for each idle connection");
    for client in &mut clients {
        client.expect_close();
    }
    drop(clients);
    scene.wait_for_descriptors(descriptors + 2);
    scene.end();
}

#[test]
fn running_out_of_descriptors_passes() {
    let scene = Stage::new(Upstream::always(OK)).descriptors(80).start();
    assert_eq!(scene.get("/api/x").text(), "ok");
    let mut clients: Vec<Client> = (0..120).map(|_| scene.proxy.connect()).collect();
    eventually("they are used up", || scene.proxy.descriptors() >= 78);
    // Whoever is in is served over the connections that there are, or told honestly.
    let response = clients[0].exchange(scene.fill("GET /api/x HTTP/1.1\r\nHost: HOST\r\n\r\n"));
    assert!(matches!(response.status, 200 | 502 | 503), "{}", response.text());
    thread::sleep(Duration::from_millis(50));
    drop(clients);
    eventually("it accepts again", || scene.get("/api/x").status == 200);
    scene.wait_for_descriptors(40);
    scene.end();
}

#[test]
fn bodies_beyond_max_body_are_refused_before_or_while_they_flow() {
    let scene = Stage::new(Upstream::always(OK)).route("max_body = \"1KiB\"").start();
    let (fits, more) = (vec![b'x'; 1024], vec![b'x'; 1025]);
    assert_eq!(scene.proxy.request("POST", "/api/fits", "", &fits).text(), "ok");
    scene.proxy.request("POST", "/api/more", "", &more).expect_problem(413, "body_too_large");
    assert!(scene.heads_with("more").is_empty(), "a length is judged before anything is sent");
    for (target, size, status) in [("fits-too", 1024, 200), ("flows", 1025, 413), ("flows", 200_000, 413)] {
        let mut client =
            scene.send(&format!("POST /api/{target} HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n"));
        let _ = client.try_send(format!("{size:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(size)));
        let response = client.response();
        assert_eq!(response.status, status, "{target} {size}: {}", response.text());
        if status == 413 {
            response.expect_problem(413, "body_too_large");
            client.expect_close();
        }
    }
    // Many small chunks count together.
    let mut client = scene.send("POST /api/drops HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..1025 {
        let _ = client.try_send("1\r\nx\r\n");
    }
    client.last_response().expect_problem(413, "body_too_large");
    let whole: Vec<String> = scene.api.requests().iter().map(|r| r.target().to_owned()).collect();
    assert_eq!(whole, ["/fits", "/fits-too"]);
    scene.end();
}

#[test]
fn a_kept_connection_may_be_idle_for_idle_timeout_not_for_header_timeout() {
    let scene =
        Stage::new(Upstream::always(OK)).server("idle_timeout = \"1s\"").server("header_timeout = \"20s\"").start();
    let mut fresh = scene.proxy.connect();
    let mut served = scene.send("GET /api/x HTTP/1.1\r\nHost: HOST\r\n\r\n");
    assert_eq!(served.response().text(), "ok");
    let mut refused = scene.send("GET /nowhere HTTP/1.1\r\nHost: HOST\r\n\r\n");
    refused.response().expect_problem(404, "no_route");
    let began = Instant::now();
    for (what, client) in [("fresh", &mut fresh), ("served", &mut served), ("refused", &mut refused)] {
        client.expect_close();
        assert!(began.elapsed() < Duration::from_secs(10), "{what}: {:?}", began.elapsed());
    }
    scene.end();
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_request() {
    let proxy = Unread::start("trace", "", "deny = [\"GET /**\"]\nmode = \"report\"");
    let address = proxy.address();
    let mut client = Client::connect(address);
    let request = format!("GET /api HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let answered = (0..2000).take_while(|_| client.exchange(&request).status == 200).count();
    assert_eq!(answered, 2000, "each of them writes a line of the log");
}

#[test]
fn no_descriptor_left_for_a_token_request_is_blamed_on_this_host_and_heals() {
    const MOST: usize = 64;
    // What needs the first descriptor: the connection, the resolver, the file of the secret.
    for (host, secret) in [
        ("127.0.0.1", "{ env = \"SECRET\" }"),
        ("localhost", "{ env = \"SECRET\" }"),
        ("127.0.0.1", "{ file = \"secret\" }"),
    ] {
        let (tokens, api) = (Upstream::tokens(3600), Upstream::always(OK));
        let builder = Cupbearer::builder().env("SECRET", "not-a-secret").server("workers = 1").descriptors(MOST);
        builder.file("secret", "not-a-secret");
        let proxy = builder.start(&format!(
            "[credentials.c]\nclient_id = \"id\"\nclient_secret = {secret}\nclient_auth = \"post\"\n\
             token_url = \"http://{host}:{}/token\"\n[[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\n\
             credential = \"c\"\n",
            tokens.address().port(),
            api.url()
        ));
        let mut caller = proxy.connect();
        let mut idle = Vec::new();
        // Twice: whatever was free for a moment has been taken by the next of those who wait.
        eventually("all descriptors are taken", || {
            idle.push(proxy.connect());
            proxy.process().output().matches("cannot accept on").count() > 1
        });
        caller.send(format!("GET /api/x HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address()));
        let problem = caller.response().expect_problem(503, "overloaded");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("this host has nothing left to ask with"), "{host} {secret}: {problem}");
        assert!(tokens.requests().is_empty());
        drop(idle);
        eventually("there is a token", || proxy.get("/api/x").status == 200);
        proxy.stop();
    }
}
