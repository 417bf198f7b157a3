//! Starting and ending: nothing that was accepted is lost.

use std::{
    fs::OpenOptions,
    net::TcpStream,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::support::{Client, Cupbearer, PATIENCE, ReadError, Scene, Stage, TestDir, Upstream, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Comes in two pieces.
const HELD: &[&str] = &["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhe", "ld"];

/// Sends the signal and waits until nobody is accepted any more.
fn order_the_end(proxy: &Cupbearer, signal: &str) {
    proxy.process().signal(signal);
    eventually("it stops accepting", || TcpStream::connect(proxy.address()).is_err());
}

#[test]
fn two_hundred_running_requests_are_finished_after_sigterm() {
    let released = Arc::new(AtomicBool::new(false));
    let scene = Stage::new(Upstream::holding(&released, HELD)).workers(2).start();
    let mut clients: Vec<Client> = (0..200)
        .map(|n| match n % 4 {
            0 => scene.send(&format!("POST /api/{n} HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\n\r\nhello")),
            1 => scene.send(&format!("GET /api/{n} HTTP/1.0\r\nHost: HOST\r\n\r\n")),
            _ => scene.send(&format!("GET /api/{n} HTTP/1.1\r\nHost: HOST\r\n\r\n")),
        })
        .collect();
    scene.api.wait_for_requests(200);
    scene.end_with(|proxy| {
        order_the_end(&proxy, "TERM");
        released.store(true, Ordering::SeqCst);
        for client in &mut clients {
            let response = client.response();
            assert_eq!((response.status, response.text().as_str()), (200, "held"));
            assert_eq!(response.header("connection"), Some("close"));
        }
        drop(clients);
        proxy.wait_for_end()
    });
}

#[test]
fn what_has_begun_to_arrive_at_sigterm_is_still_served() {
    let scene = Scene::new(Upstream::always(OK));
    let mut head = scene.send("GET /api/head HTTP/1.1\r\nHost: HOST\r\nX: so");
    let mut body = scene.send("POST /api/body HTTP/1.1\r\nHost: HOST\r\nContent-Length: 10\r\n\r\nhello");
    let mut idle = scene.proxy.connect();
    assert_eq!(idle.exchange(scene.fill("GET /api/idle HTTP/1.1\r\nHost: HOST\r\n\r\n")).text(), "ok");
    let mut fresh = scene.proxy.connect();
    eventually("the upload has reached the upstream", || !scene.heads_with("body").is_empty());
    scene.settle();
    scene.end_with(|proxy| {
        order_the_end(&proxy, "INT");
        idle.expect_close();
        fresh.expect_close();
        head.send("me\r\n\r\n");
        let response = head.response();
        assert_eq!(response.text(), "ok");
        body.send("world");
        let response = body.last_response();
        assert_eq!((response.text().as_str(), response.header("connection")), ("ok", Some("close")));
        drop(head);
        proxy.wait_for_end()
    });
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let scene = Stage::new(Upstream::always(OK)).server("drain_timeout = \"20s\"").start();
    let mut clients: Vec<Client> = (0..100).map(|_| scene.send("GET /api/x HTTP/1.1\r\nHost: HOST\r\n\r\n")).collect();
    for client in &mut clients {
        assert_eq!(client.response().text(), "ok");
    }
    scene.end_with(|proxy| {
        let began = Instant::now();
        proxy.process().signal("TERM");
        let output = proxy.wait_for_end();
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        output
    });
    drop(clients);
}

#[test]
fn drain_timeout_ends_what_never_ends_and_cuts_it_honestly() {
    let api = Upstream::start(|connection| {
        if connection.request().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
            connection.wait_for_close();
        }
    });
    let scene = Stage::new(api).server("drain_timeout = \"400ms\"").start();
    let mut chunked = scene.send("GET /api/x HTTP/1.1\r\nHost: HOST\r\n\r\n");
    let mut until_close = scene.send("GET /api/x HTTP/1.0\r\nHost: HOST\r\n\r\n");
    chunked.wait_for(b"hello");
    until_close.wait_for(b"hello");
    scene.end_with(|proxy| {
        let began = Instant::now();
        proxy.process().signal("TERM");
        for client in [&mut chunked, &mut until_close] {
            let answer = client.try_response(false);
            assert!(matches!(answer, Err(ReadError::Truncated(_))), "{answer:?}");
        }
        let output = proxy.wait_for_end();
        assert!(began.elapsed() < PATIENCE / 2);
        output
    });
}

#[test]
fn a_second_instance_does_not_share_the_port() {
    let scene = Scene::new(Upstream::always(OK));
    let (status, output) = Cupbearer::builder()
        .env("SECRET", "not-a-secret")
        .listen(&scene.proxy.address().to_string())
        .start_badly(&format!(
            "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"post\"\n\
             token_url = \"{0}/token\"\n[[routes]]\nprefix = \"/api\"\nupstream = \"{0}\"\ncredential = \"c\"\n",
            scene.api.url()
        ));
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("cannot listen on"), "{output}");
    for _ in 0..20 {
        assert_eq!(scene.get("/api/x").text(), "ok");
    }
    scene.end();
}

#[test]
fn every_request_that_was_sent_before_sigterm_is_answered() {
    let scene = Stage::new(Upstream::always(OK)).workers(1).start();
    let warm: Vec<Client> = (0..100)
        .map(|_| {
            let mut client = scene.send("GET /api/first HTTP/1.1\r\nHost: HOST\r\n\r\n");
            assert_eq!(client.response().status, 200);
            client
        })
        .collect();
    let get = scene.fill("GET /api/last HTTP/1.1\r\nHost: HOST\r\n\r\n");
    let mut clients: Vec<Client> = warm;
    clients.extend((0..200).map(|_| scene.proxy.connect()));
    for client in &mut clients {
        client.send(&get);
    }
    scene.end_with(|proxy| {
        proxy.process().signal("TERM");
        let answered = clients.iter_mut().filter_map(|client| client.try_response(false).ok());
        assert_eq!(answered.filter(|response| response.status == 200).count(), 300);
        drop(clients);
        proxy.wait_for_end()
    });
}

#[test]
fn a_signal_to_reload_what_has_not_changed_or_for_what_is_not_built_yet_changes_nothing() {
    let scene = Scene::new(Upstream::always(OK));
    for signal in ["HUP", "USR2"] {
        scene.proxy.process().signal(signal);
        assert_eq!(scene.get("/api/x").status, 200, "after SIG{signal}");
    }
    eventually("it is reloaded", || scene.proxy.process().output().contains("configuration applied"));
    scene.end_with(|proxy| {
        let output = proxy.stop();
        assert!(
            output.contains("configuration applied (SIGHUP)") && output.contains("hand-over is not built yet"),
            "{output}"
        );
        output
    });
}

#[test]
fn a_secret_file_that_hangs_does_not_keep_it_from_ending() {
    let (tokens, api, dir) = (Upstream::tokens(3600), Upstream::always(OK), TestDir::new());
    let secret = dir.write("secret", "not-a-secret");
    let proxy = Cupbearer::builder().start(&format!(
        "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ file = \"{}\" }}\ntoken_url = \"{}/token\"\n\
         [[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"c\"\n",
        secret.display(),
        tokens.url(),
        api.url()
    ));
    assert_eq!(proxy.get("/api").status, 200);
    std::fs::remove_file(&secret).expect("ours");
    assert!(Command::new("mkfifo").arg(&secret).status().expect("mkfifo").success());
    // Who opens a pipe to write waits until somebody reads it; nothing is ever written into it.
    let _pipe = OpenOptions::new().write(true).open(&secret).expect("it looks for changes");
    let began = Instant::now();
    proxy.stop();
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
}
