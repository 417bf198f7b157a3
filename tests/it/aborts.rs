//! A thousand transfers that somebody breaks off, at every moment and on either side, and some that hold on for ever: nothing is left
//! of the ones, and nobody waits for the others.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;

use crate::support::{
    Client, Cupbearer, Scene, Stage, Upstream, eventually,
    frames::{DATA, END_HEADERS, GOAWAY, HEADERS, OK, RESET, frame, raw_upstream},
    h2::{Act, H2Client, H2Upstream, run},
};

/// What may remain of a lap of some 500, in KiB: less than one small buffer of each.
const LEFT: usize = 4 * 1024;
const BLOCK: [u8; 16 * 1024] = [b'x'; 16 * 1024];

/// Breaks off at another moment each time; what is not broken off is large. `served` counts the requests.
fn breaking_h1(served: Arc<AtomicUsize>) -> Upstream {
    Upstream::start(move |connection| {
        while let Some(head) = connection.request_head() {
            let number = served.fetch_add(1, Ordering::SeqCst);
            match number % 5 {
                0 => return,
                1 => return connection.send("HTTP/1.1 200 OK\r\nContent-"),
                2 => {
                    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nsome of it");
                    return connection.reset();
                }
                3 => return connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"),
                _ if head.starts_with("POST") => drop(connection.body_of(&head)),
                _ => {
                    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1638400\r\n\r\n");
                    for _ in 0..100 {
                        if connection.try_send(BLOCK).is_err() {
                            return;
                        }
                    }
                }
            }
        }
    })
}

/// The same in HTTP/2: no answer, resets before and after the head, the connection's end, a body without one.
fn breaking_h2(served: Arc<AtomicUsize>) -> Upstream {
    raw_upstream(&[(3, 100)], move |stream, number| {
        let head = frame(HEADERS, END_HEADERS, number, OK);
        match served.fetch_add(1, Ordering::SeqCst) % 6 {
            0 => stream.write_all(&frame(RESET, 0, number, [0, 0, 0, 2])),
            1 => stream.write_all(&[head, frame(DATA, 0, number, "half"), frame(RESET, 0, number, [0; 4])].concat()),
            2 => Err(std::io::ErrorKind::Other.into()),
            3 => stream.write_all(&[head, frame(DATA, 0, number, "half"), frame(GOAWAY, 0, 0, [0; 8])].concat()),
            4 => stream.write_all(&[head, frame(DATA, 0, number, BLOCK).repeat(4)].concat()),
            _ => Ok(()),
        }
    })
}

/// Begins a request over HTTP/1.1 and leaves at another moment each time.
fn leave_h1(scene: &Scene, number: usize) {
    let target = "/api/x";
    let mut client = match number % 4 {
        0 => scene.send(&format!("GET {target} HT")),
        1 => scene.send(&format!("GET {target} HTTP/1.1\r\nHost: HOST\r\n\r\n")),
        2 => scene.send(&format!("POST {target} HTTP/1.1\r\nHost: HOST\r\nContent-Length: 100000\r\n\r\nsome of it")),
        _ => scene.send(&format!("POST {target} HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")),
    };
    if number % 4 == 1 || number % 8 == 2 {
        wait_a_little(&mut client);
    }
    if number.is_multiple_of(3) {
        client.reset();
    }
}

/// Until something comes, or nothing does for a moment.
fn wait_a_little(client: &mut Client) {
    let _ = client.stream().set_read_timeout(Some(Duration::from_millis(400)));
    let _ = client.try_response(false);
}

/// Twenty requests on one connection of HTTP/2, taken back at another moment each, or with the connection.
async fn leave_h2(scene: &Scene, round: usize) {
    let client = H2Client::connect(scene.proxy.address()).await;
    let mut begun = Vec::new();
    for number in 0..20 {
        let upload = number % 3 == 0;
        let request = client.ask(if upload { "POST" } else { "GET" }, "/api/x").body(()).expect("a request");
        let Ok((response, mut stream)) = client.begin(request, !upload).await else { break };
        if upload {
            let _ = stream.send_data(Bytes::from_static(b"some of it"), false);
        }
        if number % 2 == 0 {
            stream.send_reset(h2::Reason::CANCEL);
        }
        begun.push((response, stream));
    }
    if round.is_multiple_of(2)
        && let Some((response, _)) = begun.pop()
    {
        let _ = tokio::time::timeout(Duration::from_millis(400), response).await;
    }
}

/// So many of each kind of caller before each kind of upstream.
const EACH: usize = 260;

fn lap(scene: &Scene) {
    thread::scope(|scope| {
        for part in 0..10 {
            scope.spawn(move || (part..EACH).step_by(10).for_each(|number| leave_h1(scene, number)));
        }
    });
    run(async {
        for round in 0..EACH / 20 {
            leave_h2(scene, round).await;
        }
    });
}

fn break_off(api: fn(Arc<AtomicUsize>) -> Upstream, route: &str) {
    let served = Arc::new(AtomicUsize::new(0));
    let scene = Stage::new(api(Arc::clone(&served))).route(route).admin().start();
    assert_eq!(scene.get("/good/warm").text(), "good");
    // The token is there from now on.
    leave_h1(&scene, 1);
    scene.settle();
    let (descriptors, threads) = (scene.proxy.descriptors(), scene.proxy.threads());
    // What the first thousand leave are pools that stay; more than that must not come.
    let after = [(); 2].map(|()| {
        lap(&scene);
        // Whatever still runs holds a connection, of a caller or to the upstream.
        scene.wait_for_descriptors(descriptors + 3);
        eventually("the upstream's connections end", || scene.api.open_connections() <= 2);
        // Each task of the data plane serves a connection, or a request on one.
        let left = |scene: &Scene| {
            let connections = format!("cupbearer_connections{{listener=\"{}\"}}", scene.proxy.address());
            let requests = scene.proxy.metric("cupbearer_in_flight{route=\"/api\"}");
            (requests, scene.proxy.metric(&connections))
        };
        eventually("no request runs, and the neighbour alone is connected", || left(&scene) == (0, 1));
        assert_eq!(scene.proxy.threads(), threads);
        scene.proxy.memory()
    });
    let grown = after[1].saturating_sub(after[0]);
    assert!(grown < LEFT, "{grown} KiB more after a second lap");
    let served = served.load(Ordering::SeqCst);
    // Certain are the 190 that wait for their answer; of the others some are too early to be sent on.
    assert!(served > 150, "{served} requests reached the upstream");
    scene.end();
}

#[test]
fn hundreds_of_broken_transfers_leave_nothing_behind_with_an_upstream_of_http_1() {
    break_off(breaking_h1, "");
}

#[test]
fn hundreds_of_broken_transfers_leave_nothing_behind_with_an_upstream_of_http_2() {
    break_off(breaking_h2, "http = \"h2\"");
}

/// Silent for `/slow`, quick for all else.
fn sometimes_silent() -> H2Upstream {
    H2Upstream::start(|request| match request.path.as_str() {
        "/slow" => Act::Silence,
        "/large" => Act::ok(vec![b'x'; 1_500_000]),
        path => Act::ok(path),
    })
}

#[test]
fn slow_requests_on_one_connection_hold_back_none_of_the_others() {
    let (api, tokens) = (sometimes_silent(), Upstream::tokens(3600));
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "http = \"h2\"");
    run(async {
        let client = H2Client::connect(proxy.address()).await;
        let mut slow = Vec::new();
        for _ in 0..80 {
            let request = client.ask("GET", "/api/slow").body(()).expect("a request");
            slow.push(client.begin(request, true).await.expect("begun"));
        }
        for number in 0..100 {
            assert_eq!(client.get(&format!("/api/{number}")).await.body, format!("/{number}").as_bytes());
        }
    });
    assert!(api.connections() <= 2, "{} connections", api.connections());
}

#[test]
fn slow_readers_of_one_upstream_connection_hold_back_none_of_the_others() {
    let (api, tokens) = (sometimes_silent(), Upstream::tokens(3600));
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "http = \"h2\"");
    let ask = |path: &str| format!("GET /api/{path} HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address());
    let slow: Vec<Client> = (0..50)
        .map(|_| {
            let mut client = proxy.connect();
            client.send(ask("large"));
            client.wait_for(b"\r\n\r\n");
            client
        })
        .collect();
    let mut quick = proxy.connect();
    for number in 0..100 {
        assert_eq!(quick.exchange(ask(&number.to_string())).text(), format!("/{number}"));
    }
    for mut client in slow {
        assert_eq!(client.response().body.len(), 1_500_000, "they get all of theirs in the end");
    }
    assert!(api.connections() <= 2, "{} connections", api.connections());
}
