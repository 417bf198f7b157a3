//! What runs out, for callers that speak HTTP/2: each request is told by itself, its connection and the others on it go on.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Client, Scene, Stage, Unread, Upstream, eventually,
    frames::{
        ALL, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, RESET, SETTINGS, WINDOW, frame, settings,
    },
    h2::{Act, H2Client, H2Message, H2Upstream, run},
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn expect_problem(message: &H2Message, status: u16, code: &str) {
    let text = String::from_utf8_lossy(&message.body);
    assert_eq!(message.status, status, "{text}");
    assert_eq!(message.header("content-type"), Some("application/problem+json"));
    assert_eq!(message.json()["code"], code, "{text}");
}

#[test]
fn max_in_flight_holds_over_the_streams_of_one_connection() {
    let released = Arc::new(AtomicBool::new(false));
    let scene = Stage::new(Upstream::holding(&released, &[OK])).route("max_in_flight = 5").start();
    run(async {
        let client = H2Client::connect(scene.proxy.address()).await;
        let mut held = Vec::new();
        for number in 0..5 {
            let request = client.ask("GET", &format!("/api/{number}")).body(()).expect("a request");
            held.push(client.begin(request, true).await.expect("begun"));
        }
        while scene.api.requests().len() < 5 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        for _ in 0..20 {
            let refused = client.get("/api/more").await;
            expect_problem(&refused, 503, "overloaded");
            assert_eq!(refused.header("retry-after"), Some("1"));
        }
        assert_eq!(client.get("/good/x").await.body, b"good", "another route on the same connection");
        // A stream that is taken back gives its place back.
        held.pop().expect("five").1.send_reset(h2::Reason::CANCEL);
        let request = || client.ask("GET", "/api/again").body(()).expect("a request");
        loop {
            let (mut response, stream) = client.begin(request(), true).await.expect("begun");
            match tokio::time::timeout(Duration::from_millis(100), &mut response).await {
                Err(_) => break held.push((response, stream)),
                Ok(answered) => assert_eq!(answered.expect("an answer").status(), 503),
            }
        }
        released.store(true, Ordering::SeqCst);
        for (response, _stream) in held {
            assert_eq!(response.await.expect("an answer").status(), 200);
        }
        assert_eq!(client.get("/api/last").await.body, b"ok");
    });
    assert!(scene.heads_with("more").is_empty());
    scene.end();
}

#[test]
fn max_body_is_held_on_streams_before_or_while_they_flow() {
    for http in ["h1", "h2"] {
        let h2 = (http == "h2").then(|| H2Upstream::start(|request| Act::ok(request.body.clone())));
        let lines = format!("max_body = \"1KiB\"\nhttp = \"{http}\"");
        let route = "[[routes]]\nprefix = \"/other\"\ncredential = \"c\"\n".to_owned() + &lines;
        let upstream = h2.as_ref().map_or("{api}".to_owned(), H2Upstream::url);
        let scene = Stage::new(Upstream::always(OK)).more(&format!("{route}\nupstream = \"{upstream}\"")).start();
        run(async {
            let client = H2Client::connect(scene.proxy.address()).await;
            for (size, told, status) in
                [(1024, true, 200), (1024, false, 200), (1025, true, 413), (1025, false, 413), (200_000, false, 413)]
            {
                let mut request = client.ask("POST", "/other/x");
                if told {
                    request = request.header("content-length", size);
                }
                let answer = client.exchange(request.body(()).expect("a request"), &vec![b'x'; size]).await;
                let answer = answer.unwrap_or_else(|e| panic!("{size} {told}: {e}"));
                assert_eq!(answer.status, status, "{http} {size} {told}");
                if status == 413 {
                    expect_problem(&answer, 413, "body_too_large");
                }
            }
            assert_eq!(client.get("/good/x").await.body, b"good", "the connection goes on");
        });
        let whole = scene.api.requests().len() + h2.map_or(0, |api| api.requests().len());
        assert_eq!(whole, 2, "{http}: only those that fit came to their end");
        scene.end();
    }
}

#[test]
fn running_out_of_descriptors_is_told_stream_by_stream_and_passes() {
    let released = Arc::new(AtomicBool::new(false));
    let scene = Stage::new(Upstream::holding(&released, &[OK])).descriptors(80).start();
    run(async {
        let client = H2Client::connect(scene.proxy.address()).await;
        assert_eq!(client.get("/good/x").await.body, b"good");
        let mut begun = Vec::new();
        for number in 0..90 {
            let request = client.ask("GET", &format!("/api/{number}")).body(()).expect("a request");
            begun.push(client.begin(request, true).await.expect("begun"));
        }
        // Each needs a connection to the upstream of its own: some get none, and that is told at once.
        let mut waiting = Vec::new();
        let mut refused = 0;
        for (mut response, stream) in begun {
            match tokio::time::timeout(Duration::from_millis(50), &mut response).await {
                Err(_) => waiting.push((response, stream)),
                Ok(answered) => {
                    let answered = answered.expect("an answer");
                    assert_eq!(answered.status(), 503);
                    assert_eq!(answered.headers().get("retry-after").map(http::HeaderValue::as_bytes), Some(&b"1"[..]));
                    refused += 1;
                }
            }
        }
        assert!(refused >= 10, "{refused} refused");
        released.store(true, Ordering::SeqCst);
        let mut served = 0;
        for (response, _stream) in waiting {
            match response.await.expect("an answer").status().as_u16() {
                200 => served += 1,
                // It was under way when a busy machine was no longer waited for.
                status => assert_eq!(status, 503),
            }
        }
        assert!(served >= 20, "{served} served");
        for number in 0..90 {
            assert_eq!(client.get(&format!("/api/again/{number}")).await.status, 200, "the connection goes on");
        }
    });
    scene.end();
}

#[test]
fn an_access_log_that_nobody_reads_holds_up_no_stream() {
    let proxy = Unread::start("info", "[log]\naccess = \"stdout\"", "");
    run(async {
        let client = H2Client::connect(proxy.address()).await;
        for number in 0..3000 {
            let message = client.get(&format!("/api/{number}?{}", "x".repeat(100))).await;
            assert_eq!(message.body, b"ok", "{number}: each of them has a line that nobody takes");
        }
    });
}

/// A caller that speaks HTTP/2 as gRPC libraries do, acknowledging what it is told.
fn grpc_like(scene: &Scene) -> Frames {
    let mut frames = Frames::connect(scene.proxy.address(), &[]);
    while frames.next().expect("settings").kind != SETTINGS {}
    frames.send(frame(SETTINGS, 1, 0, ""));
    frames
}

#[test]
fn a_caller_that_pings_with_every_message_is_served_and_one_that_only_pings_is_not() {
    const MESSAGES: usize = 20_000;
    const SIZE: usize = 8; // all of them fit into the window
    let api = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            let length = request.decoded_body().len();
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n{length:06}"));
        }
    });
    let scene = Scene::new(api);
    let mut frames = grpc_like(&scene);
    frames.send(frame(HEADERS, END_HEADERS, 1, frames.head("POST", "/api/stream")));
    let beside = [frame(PING, 0, 0, [7; 8]), frame(WINDOW, 0, 0, [0, 0, 0, 1])].concat();
    let message = [frame(DATA, 0, 1, [b'x'; SIZE]), beside].concat();
    // The answers to its pings are read, else both sides wait.
    thread::scope(|scope| {
        let mut writer = frames.another();
        scope.spawn(move || {
            for _ in 0..MESSAGES / 100 {
                writer.send(message.repeat(100));
            }
            writer.send(frame(DATA, END_STREAM, 1, ""));
        });
        let mut pongs = 0;
        loop {
            let frame = frames.next().expect("the connection goes on");
            assert!(frame.kind != GOAWAY && frame.kind != RESET, "{frame:?}");
            pongs += usize::from(frame.kind == PING);
            if frame.kind == DATA && !frame.payload.is_empty() {
                assert_eq!(frame.payload, format!("{:06}", MESSAGES * SIZE).into_bytes());
                break;
            }
        }
        assert!(pongs > MESSAGES / 2, "{pongs} pings were answered");
    });
    grpc_like(&scene).flood("PING", || frame(PING, 0, 0, [7; 8]).repeat(100));
    scene.end();
}

#[test]
fn a_window_that_is_opened_five_bytes_at_a_time_costs_its_own_connection_only() {
    let body = [b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n".to_vec(), vec![b'x'; 3_000_000]].concat();
    let scene = Stage::new(Upstream::always(body)).route("max_in_flight = 1000").start();
    let mut frames = Frames::connect(scene.proxy.address(), &[(4, 5)]);
    while frames.next().expect("settings").kind != SETTINGS {}
    frames.send([frame(SETTINGS, 1, 0, ""), settings(&[])].concat());
    let head = frames.head("GET", "/api/x");
    let streams: Vec<u32> = (1..100).step_by(2).collect();
    frames.send(streams.iter().flat_map(|s| frame(HEADERS, ALL, *s, &head)).collect::<Vec<u8>>());
    let open: Vec<u8> = streams.iter().flat_map(|s| frame(WINDOW, 0, *s, [0, 0, 0, 5])).collect();
    frames.flood("five bytes at a time", || open.clone());
    eventually("its requests end", || scene.api.open_connections() <= 1);
    scene.end();
}

#[test]
fn a_caller_of_http_1_beside_hundreds_of_streams_is_served_as_before() {
    let scene = Scene::new(Upstream::always(OK));
    let address = scene.proxy.address();
    // On a thread of its own, for the streams are driven by this one; they go on until it is served.
    let plain = Rc::new(thread::spawn(move || {
        let mut plain = Client::connect(address);
        let began = Instant::now();
        for _ in 0..50 {
            assert_eq!(plain.exchange(format!("GET /good/x HTTP/1.1\r\nHost: {address}\r\n\r\n")).text(), "good");
        }
        began.elapsed()
    }));
    let answered = run(async {
        let client = H2Client::connect(address).await;
        let mut running = tokio::task::JoinSet::new();
        for number in 0..400 {
            let (client, plain) = (client.clone(), Rc::clone(&plain));
            running.spawn_local(async move {
                let mut answered = 0;
                while answered == 0 || !plain.is_finished() {
                    assert_eq!(client.get(&format!("/api/{number}/{answered}")).await.status, 200);
                    answered += 1;
                }
                answered
            });
        }
        running.join_all().await.iter().sum::<usize>()
    });
    let took = Rc::into_inner(plain).expect("no task is left").join().expect("each of them is served");
    assert!(took < Duration::from_secs(10), "fifty requests took {took:?} beside {answered} streams");
    scene.end();
}
