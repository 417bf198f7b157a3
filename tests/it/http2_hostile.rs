//! Peers that break HTTP/2, or use its rules against us: they lose their own connection, and nobody else notices.

use std::{
    io::{self, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    ReadError, Scene, Stage, Upstream, eventually,
    frames::{
        ALL, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, OK, PING, PRIORITY, PUSH, RESET,
        SETTINGS, WINDOW, field, frame, kept_field, raw_upstream, read, settings,
    },
    h2::{H2Client, run},
};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// By how much the proxy may grow for one hostile connection, in KiB.
const GROWTH: usize = 24 * 1024;

/// A large answer to everything.
fn large() -> Upstream {
    Upstream::always([b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n".to_vec(), vec![b'x'; 300_000]].concat())
}

fn is_served(scene: &Scene) {
    run(async { assert_eq!(H2Client::connect(scene.proxy.address()).await.get("/good/x").await.body, b"good") });
}

/// What is flooded with, what comes before, and the flood.
type Case<'a> = (&'a str, &'a dyn Fn(&mut Frames), Vec<u8>);

#[test]
fn a_flood_of_frames_that_carry_nothing_ends_its_connection_and_no_other() {
    let scene = Scene::new(Upstream::always(ANSWER));
    assert_eq!(scene.get("/api/x").text(), "ok");
    let (descriptors, memory) = (scene.proxy.descriptors(), scene.proxy.memory());
    let post = |frames: &mut Frames| frames.send(frame(HEADERS, END_HEADERS, 1, frames.head("POST", "/api/x")));
    let get = |frames: &mut Frames| {
        frames.send(frame(HEADERS, ALL, 1, frames.head("GET", "/api/x")));
        while !frames.next().is_some_and(|f| f.stream == 1 && f.flags & END_STREAM > 0) {}
    };
    let open = |frames: &mut Frames| frames.send(frame(HEADERS, END_STREAM, 1, frames.head("GET", "/api/x")));
    let nothing = |_: &mut Frames| {};
    let cases: [Case<'_>; 13] = [
        ("PING", &nothing, frame(PING, 0, 0, [7; 8])),
        ("SETTINGS", &nothing, settings(&[(3, 100)])),
        ("SETTINGS that move all windows", &post, [settings(&[(4, 0)]), settings(&[(4, 1000)])].concat()),
        ("PRIORITY", &nothing, frame(PRIORITY, 0, 3, [0; 5])),
        ("an unknown type", &nothing, frame(0xfa, 0, 0, "x")),
        ("WINDOW_UPDATE", &nothing, frame(WINDOW, 0, 0, [0, 0, 0, 1])),
        ("WINDOW_UPDATE of a stream", &post, frame(WINDOW, 0, 1, [0, 0, 0, 1])),
        ("RST_STREAM of one that has ended", &get, frame(RESET, 0, 1, [0, 0, 0, 8])),
        ("DATA of one that has ended", &get, frame(DATA, 0, 1, "x")),
        ("empty DATA", &post, frame(DATA, 0, 1, "")),
        ("DATA of padding", &post, frame(DATA, 8, 1, [&[255][..], &[0; 255]].concat())),
        ("CONTINUATION", &open, frame(CONTINUATION, 0, 1, field("x-a", &"y".repeat(900)))),
        ("empty CONTINUATION", &open, frame(CONTINUATION, 0, 1, "")),
    ];
    for (what, begin, piece) in cases {
        let mut frames = Frames::connect(scene.proxy.address(), &[]);
        begin(&mut frames);
        let piece = piece.repeat(100);
        frames.flood(what, || piece.clone());
    }
    // Requests that are taken back at once.
    let mut frames = Frames::connect(scene.proxy.address(), &[]);
    let head = frames.head("GET", "/api/x");
    let mut streams = (1..).step_by(2);
    frames.flood("rapid reset", || {
        let each = streams.by_ref().take(50);
        each.flat_map(|s| [frame(HEADERS, ALL, s, &head), frame(RESET, 0, s, [0, 0, 0, 8])].concat()).collect()
    });
    is_served(&scene);
    scene.wait_for_descriptors(descriptors + 2);
    let grown = scene.proxy.memory().saturating_sub(memory);
    assert!(grown < GROWTH, "grew by {grown} KiB");
    scene.end();
}

#[test]
fn a_window_that_is_opened_byte_by_byte_ends_its_connection() {
    let scene = Scene::new(large());
    let mut frames = Frames::connect(scene.proxy.address(), &[(4, 1)]);
    let head = frames.head("GET", "/api/x");
    let streams: Vec<u32> = (1..100).step_by(2).collect();
    frames.send(streams.iter().flat_map(|s| frame(HEADERS, ALL, *s, &head)).collect::<Vec<u8>>());
    let open: Vec<u8> = streams.iter().flat_map(|s| frame(WINDOW, 0, *s, [0, 0, 0, 1])).collect();
    frames.flood("one byte at a time", || open.clone());
    is_served(&scene);
    scene.end();
}

#[test]
fn a_head_that_unfolds_beyond_the_limit_is_refused_and_costs_no_memory() {
    let scene = Scene::new(Upstream::always(ANSWER));
    is_served(&scene);
    let memory = scene.proxy.memory();
    let mut frames = Frames::connect(scene.proxy.address(), &[]);
    let head = frames.head("GET", "/api/x");
    frames.send(frame(HEADERS, ALL, 1, [head.clone(), kept_field("x-bomb", &"z".repeat(3900))].concat()));
    // 12 kB that say 47 MB.
    let bomb = [head, b"\xbe".repeat(12_000)].concat();
    // Refused one by one, or the connection ends.
    let _ = (3..100).step_by(2).try_for_each(|stream| frames.try_send(frame(HEADERS, ALL, stream, &bomb)));
    while frames.next().is_some_and(|f| f.stream < 99) {}
    let grown = scene.proxy.memory().saturating_sub(memory);
    assert!(grown < GROWTH, "grew by {grown} KiB");
    assert!(scene.heads_with("x").len() <= 1, "none of them was sent on");
    is_served(&scene);
    scene.end();
}

#[test]
fn callers_that_never_open_their_windows_are_ended_and_cost_bounded_memory() {
    let scene = Stage::new(large()).route("body_idle_timeout = \"1500ms\"").start();
    is_served(&scene);
    let (descriptors, memory) = (scene.proxy.descriptors(), scene.proxy.memory());
    let mut callers: Vec<Frames> = (0..9).map(|_| Frames::connect(scene.proxy.address(), &[(4, 0)])).collect();
    for caller in &mut callers {
        let head = caller.head("GET", "/api/x");
        for stream in (1..200).step_by(2) {
            caller.send(frame(HEADERS, ALL, stream, &head));
        }
    }
    scene.api.wait_for_requests(900);
    let grown = scene.proxy.memory().saturating_sub(memory);
    assert!(grown < 900 * 160, "900 of them cost {grown} KiB");
    for caller in &mut callers {
        let mut reset = 0;
        while reset < 100 {
            let frame = caller.next().expect("each stream is told of its end");
            reset += usize::from(frame.kind == RESET);
        }
    }
    drop(callers);
    scene.wait_for_descriptors(descriptors + 2);
    eventually("the upstream's connections end", || scene.api.open_connections() <= 1);
    scene.end();
}

#[test]
fn more_streams_than_allowed_are_refused_and_the_others_served() {
    let scene = Scene::new(Upstream::always(ANSWER));
    let mut frames = Frames::connect(scene.proxy.address(), &[]);
    let head = frames.head("POST", "/api/x");
    for stream in (1..=300).step_by(2) {
        frames.send(frame(HEADERS, END_HEADERS, stream, &head));
    }
    let mut refused = Vec::new();
    while refused.len() < 50 {
        let frame = frames.next().expect("the connection goes on");
        if frame.kind == RESET {
            assert_eq!(frame.payload, [0, 0, 0, 7], "REFUSED_STREAM: it may be sent again");
            refused.push(frame.stream);
        }
    }
    assert_eq!(refused, (201..=300).step_by(2).collect::<Vec<u32>>());
    for stream in (1..=200).step_by(2) {
        frames.send(frame(DATA, END_STREAM, stream, "x"));
    }
    let mut served = 0;
    while served < 100 {
        let frame = frames.next().expect("the connection goes on");
        served += usize::from(frame.kind == DATA && frame.payload == b"ok");
    }
    scene.end();
}

#[test]
fn slow_heads_over_http_2_are_ended() {
    let scene = Stage::new(Upstream::always(ANSWER))
        .server("header_timeout = \"700ms\"")
        .server("idle_timeout = \"1s\"")
        .start();
    let descriptors = scene.proxy.descriptors();
    let callers = (0..300).map(|number| match number % 3 {
        // Half of what comes first; a head that has no end; nothing at all.
        0 => {
            let mut frames = Frames::bare(scene.proxy.address());
            frames.send("PRI * HTTP/2.0\r\n\r\nSM");
            frames
        }
        1 => {
            let mut frames = Frames::connect(scene.proxy.address(), &[]);
            frames.send(frame(HEADERS, END_STREAM, 1, frames.head("GET", "/api/slow")));
            frames
        }
        _ => Frames::connect(scene.proxy.address(), &[]),
    });
    let mut callers: Vec<Frames> = callers.collect();
    let begun = Instant::now();
    for caller in &mut callers {
        while caller.next().is_some() {}
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    drop(callers);
    scene.wait_for_descriptors(descriptors + 2);
    assert!(scene.heads_with("slow").is_empty());
    scene.end();
}

#[test]
fn slow_bodies_over_http_2_are_ended_one_by_one() {
    let scene = Stage::new(Upstream::always(ANSWER)).route("body_idle_timeout = \"600ms\"").start();
    let mut frames = Frames::connect(scene.proxy.address(), &[]);
    let head = frames.head("POST", "/api/slow");
    for stream in (1..=100).step_by(2) {
        frames.send(frame(HEADERS, END_HEADERS, stream, &head));
        frames.send(frame(DATA, 0, stream, "hello"));
    }
    let mut ended = 0;
    while ended < 50 {
        let frame = frames.next().expect("the connection goes on");
        if frame.kind == DATA {
            ended += usize::from(memchr::memmem::find(&frame.payload, b"\"request_timeout\"").is_some());
        }
    }
    frames.send(frame(HEADERS, ALL, 201, frames.head("GET", "/good/x")));
    while !frames.next().expect("the connection goes on").payload.starts_with(b"good") {}
    eventually("the upstream's are closed", || scene.api.open_connections() <= 1);
    assert!(scene.api.requests().is_empty(), "none of them was whole");
    scene.end();
}

/// A proxy in front of an upstream of HTTP/2.
fn before(api: Upstream) -> Scene {
    let lines = "http = \"h2\"\nresponse_timeout = \"5s\"\nbody_idle_timeout = \"1s\"";
    Stage::new(api).route(lines).start()
}

#[test]
fn an_upstream_that_floods_loses_its_connection_and_nobody_else_notices() {
    let early = field(":status", "103");
    let unfolding = [&early[..], &b"\xbe".repeat(14)].concat();
    let cases: [(&str, Vec<u8>, Vec<u8>); 7] = [
        ("PING", vec![], frame(PING, 0, 0, [7; 8])),
        ("SETTINGS", vec![], settings(&[(3, 100)])),
        ("an unknown type", vec![], frame(0xfa, 0, 0, "x")),
        ("WINDOW_UPDATE", vec![], frame(WINDOW, 0, 0, [0, 0, 0, 1])),
        ("empty DATA", frame(HEADERS, END_HEADERS, 1, OK), frame(DATA, 0, 1, "")),
        ("interim responses", vec![], frame(HEADERS, END_HEADERS, 1, &early)),
        (
            "interim responses that unfold",
            frame(HEADERS, END_HEADERS, 1, [early.clone(), kept_field("x-a", &"z".repeat(3900))].concat()),
            frame(HEADERS, END_HEADERS, 1, &unfolding),
        ),
    ];
    for (what, begin, piece) in cases {
        let piece = piece.repeat(200);
        let scene = before(raw_upstream(&[], move |stream, _| {
            stream.write_all(&begin)?;
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(10) {
                stream.write_all(&piece)?;
            }
            Ok(())
        }));
        assert_eq!(scene.get("/good/x").text(), "good");
        let memory = scene.proxy.memory();
        // One that reads nothing, so that whatever is passed on piles up.
        let slow = scene.send("GET /api/x HTTP/1.1\r\nHost: HOST\r\n\r\n");
        eventually(what, || scene.api.connections() == 1 && scene.api.open_connections() == 0);
        let grown = scene.proxy.memory().saturating_sub(memory);
        assert!(grown < GROWTH, "{what}: grew by {grown} KiB");
        drop(slow);
        scene.end();
    }
}

/// What gRPC libraries send while data flows: a PING and a `WINDOW_UPDATE` for each DATA.
fn measured(stream: u32) -> Vec<u8> {
    let beside = [frame(PING, 0, 0, [7; 8]), frame(WINDOW, 0, 0, [0, 0, 0, 1])].concat();
    [frame(DATA, 0, stream, [b'x'; 20]), beside].concat().repeat(10_000)
}

#[test]
fn an_upstream_that_measures_round_trips_while_it_answers_is_not_cut_off() {
    let scene = before(raw_upstream(&[], |stream, number| {
        let (head, end) = (frame(HEADERS, END_HEADERS, number, OK), frame(DATA, END_STREAM, number, ""));
        told(stream, &[head, measured(number), end])
    }));
    assert_eq!(scene.get("/api/x").body.len(), 200_000);
    scene.end();
}

/// What a caller of HTTP/1.1 sees of an upstream's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// The whole answer.
    Whole(&'static str),
    /// An honest error.
    Broken,
    /// An answer that never looks complete.
    Cut,
}

type Act = fn(&mut TcpStream, u32) -> io::Result<()>;

fn told(stream: &mut TcpStream, frames: &[Vec<u8>]) -> io::Result<()> {
    stream.write_all(&frames.concat())
}

/// Each of these upstreams, and what is to be seen of it.
const UPSTREAMS: &[(&str, Seen, Act)] = &[
    ("PUSH_PROMISE", Seen::Broken, |s, n| {
        told(s, &[frame(PUSH, END_HEADERS, n, b"\0\0\0\x02\x82\x86\x84"), frame(HEADERS, ALL, n, OK)])
    }),
    ("GOAWAY in the middle", Seen::Whole("halfdone"), |s, n| {
        let leaves = [&n.to_be_bytes()[..], &[0; 4]].concat();
        told(s, &[frame(HEADERS, END_HEADERS, n, OK), frame(DATA, 0, n, "half"), frame(GOAWAY, 0, 0, leaves)])?;
        thread::sleep(Duration::from_millis(50));
        told(s, &[frame(DATA, END_STREAM, n, "done")])
    }),
    ("RST_STREAM after the head", Seen::Cut, |s, n| {
        told(s, &[frame(HEADERS, END_HEADERS, n, OK), frame(RESET, 0, n, [0, 0, 0, 2])])
    }),
    ("RST_STREAM without an error after the end", Seen::Whole("ok"), |s, n| {
        let head = frame(HEADERS, END_HEADERS, n, OK);
        told(s, &[head, frame(DATA, END_STREAM, n, "ok"), frame(RESET, 0, n, [0; 4])])
    }),
    ("less than its length", Seen::Cut, |s, n| {
        let head = [OK, &field("content-length", "10")].concat();
        told(s, &[frame(HEADERS, END_HEADERS, n, head), frame(DATA, END_STREAM, n, "short")])
    }),
    ("more than its length", Seen::Cut, |s, n| {
        let head = [OK, &field("content-length", "3")].concat();
        told(s, &[frame(HEADERS, END_HEADERS, n, head), frame(DATA, END_STREAM, n, "longer")])
    }),
    ("two lengths", Seen::Broken, |s, n| {
        let head = [OK, &field("content-length", "2"), &field("content-length", "3")].concat();
        told(s, &[frame(HEADERS, END_HEADERS, n, head), frame(DATA, END_STREAM, n, "ok")])
    }),
    ("no status", Seen::Broken, |s, n| told(s, &[frame(HEADERS, ALL, n, field("x", "y"))])),
    ("a status of four digits", Seen::Broken, |s, n| told(s, &[frame(HEADERS, ALL, n, field(":status", "2000"))])),
    ("a switch", Seen::Broken, |s, n| told(s, &[frame(HEADERS, END_HEADERS, n, field(":status", "101"))])),
    ("a name in capitals", Seen::Broken, |s, n| told(s, &[frame(HEADERS, ALL, n, [OK, &field("X-A", "b")].concat())])),
    ("a field of HTTP/1.1", Seen::Broken, |s, n| {
        let head = [OK, &field("transfer-encoding", "chunked")].concat();
        told(s, &[frame(HEADERS, END_HEADERS, n, head), frame(DATA, END_STREAM, n, "2\r\nok\r\n0\r\n\r\n")])
    }),
    ("a line end in a value", Seen::Broken, |s, n| {
        told(s, &[frame(HEADERS, ALL, n, [OK, &field("x-a", "b\r\nx-evil: 1")].concat())])
    }),
    ("a head in the middle of the body", Seen::Cut, |s, n| {
        let (head, again) = (frame(HEADERS, END_HEADERS, n, OK), frame(HEADERS, END_HEADERS, n, field("x-t", "1")));
        told(s, &[head, frame(DATA, 0, n, "ok"), again, frame(DATA, END_STREAM, n, "more")])
    }),
    ("a window of nothing", Seen::Broken, |s, n| told(s, &[frame(WINDOW, 0, n, [0; 4]), frame(HEADERS, ALL, n, OK)])),
    ("a window beyond all", Seen::Broken, |s, _| told(s, &[frame(WINDOW, 0, 0, [127, 255, 255, 255])])),
    ("a head that unfolds", Seen::Broken, |s, n| {
        let bomb = [OK, &kept_field("x-a", &"z".repeat(3900)), &b"\xbe".repeat(12_000)].concat();
        told(s, &[frame(HEADERS, ALL, n, bomb)])
    }),
    ("HTTP/1.1", Seen::Broken, |s, _| s.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")),
    ("the connection's end", Seen::Broken, |_, _| Err(io::ErrorKind::Other.into())),
    ("a SETTINGS frame of odd length", Seen::Broken, |s, _| s.write_all(&frame(SETTINGS, 0, 0, "odd"))),
];

#[test]
fn an_upstream_that_breaks_http_2_is_told_honestly_and_the_next_request_served() {
    let upstreams: Vec<Upstream> = UPSTREAMS
        .iter()
        .map(|(_, _, act)| {
            let served = AtomicUsize::new(0);
            raw_upstream(&[(3, 100)], move |stream, number| {
                if served.fetch_add(1, Ordering::SeqCst) == 0 {
                    return act(stream, number);
                }
                told(stream, &[frame(HEADERS, END_HEADERS, number, OK), frame(DATA, END_STREAM, number, "next")])
            })
        })
        .collect();
    let route = |(number, upstream): (usize, &Upstream)| {
        let url = upstream.url();
        format!("[[routes]]\nprefix = \"/{number}\"\nupstream = \"{url}\"\ncredential = \"c\"\nhttp = \"h2\"\n")
    };
    let routes: Vec<String> = upstreams.iter().enumerate().map(route).collect();
    let scene = Stage::new(Upstream::always(ANSWER)).more(&routes.concat()).start();
    for (number, (what, seen, _)) in UPSTREAMS.iter().enumerate() {
        let mut client = scene.send(&format!("GET /{number}/x HTTP/1.1\r\nHost: HOST\r\n\r\n"));
        match (seen, client.try_response(false)) {
            (Seen::Whole(text), Ok(response)) => {
                assert_eq!((response.status, response.text()), (200, (*text).to_owned()));
            }
            (Seen::Broken, Ok(response)) => drop(response.expect_problem(502, "upstream_protocol")),
            (Seen::Cut, Err(ReadError::Truncated(_) | ReadError::Closed)) => {}
            (_, answer) => panic!("{what}: {seen:?} was to be seen, not {answer:?}"),
        }
        assert_eq!(scene.get(&format!("/{number}/next")).text(), "next", "{what}");
    }
    scene.end();
}

/// Takes a request, unless it is one of the first so many: those it leaves behind.
fn leaving(most: usize, asked: &Arc<AtomicUsize>) -> Upstream {
    let asked = Arc::clone(asked);
    raw_upstream(&[(3, 100)], move |stream, number| {
        if asked.fetch_add(1, Ordering::SeqCst) < most {
            told(stream, &[frame(GOAWAY, 0, 0, [0; 8])])?;
            return Err(io::ErrorKind::Other.into());
        }
        told(stream, &[frame(HEADERS, END_HEADERS, number, OK), frame(DATA, END_STREAM, number, "taken")])
    })
}

#[test]
fn a_request_that_a_server_leaves_behind_is_sent_on_until_one_takes_it() {
    let asked = Arc::default();
    let scene = before(leaving(5, &asked));
    let post = "POST /api/x HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\n\r\nbody";
    assert_eq!(scene.send(post).response().text(), "taken");
    assert_eq!(asked.load(Ordering::SeqCst), 6);
    scene.end();
}

#[test]
fn a_server_that_never_takes_a_request_is_not_asked_for_ever() {
    let asked = Arc::default();
    let scene = before(leaving(usize::MAX, &asked));
    let problem = scene.get("/api/x").expect_problem(502, "upstream_protocol");
    assert!(problem["detail"].as_str().is_some_and(|d| d.contains("before it acted on it")), "{problem}");
    assert_eq!(asked.load(Ordering::SeqCst), 9);
    scene.end();
}

#[test]
fn a_server_that_takes_one_request_at_a_time_is_sent_no_second_one_meanwhile() {
    let too_many = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&too_many);
    let scene = before(raw_upstream(&[(3, 1)], move |stream, number| {
        stream.set_read_timeout(Some(Duration::from_millis(50)))?;
        while let Ok(meanwhile) = read(stream) {
            counter.fetch_add(usize::from(meanwhile.kind == HEADERS), Ordering::SeqCst);
        }
        stream.set_read_timeout(None)?;
        told(stream, &[frame(HEADERS, END_HEADERS, number, OK), frame(DATA, END_STREAM, number, "ok")])
    }));
    let mut clients: Vec<_> = (0..8).map(|_| scene.send("GET /api/x HTTP/1.1\r\nHost: HOST\r\n\r\n")).collect();
    for client in &mut clients {
        assert_eq!(client.response().text(), "ok");
    }
    assert_eq!(too_many.load(Ordering::SeqCst), 0);
    scene.end();
}

#[test]
fn an_answer_that_exceeds_its_window_while_nobody_reads_never_looks_complete() {
    let flood = |stream: &mut TcpStream, number: u32| {
        told(stream, &[frame(HEADERS, END_HEADERS, number, OK), frame(DATA, 0, number, [b'x'; 16_384]).repeat(200)])
    };
    let scene = before(raw_upstream(&[(3, 100)], flood));
    run(async {
        let client = H2Client::connect(scene.proxy.address()).await;
        let request = client.ask("GET", "/api/x").body(()).expect("a request");
        let (response, _stream) = client.begin(request, true).await.expect("begun");
        let mut body = response.await.expect("a head").into_body();
        // The caller opens its own window no further, so nothing moves until body_idle_timeout.
        while let Some(data) = body.data().await {
            if data.is_err() {
                return;
            }
        }
        panic!("the body came to a proper end");
    });
    scene.end();
}

#[test]
fn an_upstream_that_never_opens_its_window_is_given_up_after_body_idle_timeout() {
    let scene = before(raw_upstream(&[(4, 0)], |_, _| Ok(())));
    let body = vec![b'x'; 200_000];
    let begun = Instant::now();
    let problem = scene.proxy.request("POST", "/api/x", "", &body).expect_problem(504, "upstream_timeout");
    assert!(problem["detail"].as_str().is_some_and(|d| d.contains("did not take the request's body")), "{problem}");
    assert!(begun.elapsed() < Duration::from_secs(6));
    scene.end();
}
