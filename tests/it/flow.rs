//! Bodies flow: what one side does not take, the proxy does not take from the other.

use std::{
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::{Cupbearer, PATIENCE, Upstream, noise};

const MB: usize = 1024 * 1024;
/// By how much the proxy may grow while a body waits in it.
const GROWTH_KIB: usize = 32 * 1024;

/// Resident memory of the proxy in KiB.
fn memory(proxy: &Cupbearer) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.process().id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Waits until `moved` has stood still for a while: everything between both ends is full.
fn wait_until_stuck(moved: &AtomicUsize) -> usize {
    let deadline = Instant::now() + PATIENCE;
    let (mut last, mut since) = (moved.load(Ordering::SeqCst), Instant::now());
    while last == 0 || since.elapsed() < Duration::from_millis(300) {
        assert!(Instant::now() < deadline, "nothing moves, or everything does: {last} bytes so far");
        thread::sleep(Duration::from_millis(10));
        let now = moved.load(Ordering::SeqCst);
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

#[test]
fn a_slow_reader_of_a_large_body_costs_no_memory() {
    const TOTAL: usize = 512 * MB;
    let block = Arc::new(noise(MB));
    let sent = Arc::new(AtomicUsize::new(0));
    let api = {
        let (block, sent) = (Arc::clone(&block), Arc::clone(&sent));
        Upstream::start(move |connection| {
            if connection.request().is_none() {
                return;
            }
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n"));
            for _ in 0..TOTAL / MB {
                connection.send(&*block);
                sent.fetch_add(MB, Ordering::SeqCst);
            }
        })
    };
    let tokens = Upstream::tokens(3600);
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "");
    let client = proxy.connect();
    let mut stream = client.stream();
    let before = memory(&proxy);
    write!(stream, "GET /api/large HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address()).expect("the proxy reads");

    let stuck_at = wait_until_stuck(&sent);
    assert!(stuck_at < TOTAL / 2, "{stuck_at} bytes were taken for a caller that reads nothing");

    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    let mut received = vec![0; MB];
    let mut most = memory(&proxy);
    for number in 0..TOTAL / MB {
        stream.read_exact(&mut received).expect("the whole body");
        assert!(received == *block, "MB {number} has other bytes");
        most = most.max(memory(&proxy));
    }
    assert!(most < before + GROWTH_KIB, "grew from {before} to {most} KiB");
}

#[test]
fn a_slow_upstream_of_a_large_chunked_body_costs_no_memory() {
    const TOTAL: usize = 300 * MB;
    let block = noise(MB);
    let (sent, released) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let api = {
        let released = Arc::clone(&released);
        Upstream::start(move |connection| {
            if connection.request_head().is_none() {
                return;
            }
            while !released.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(5));
            }
            let digest = connection.chunked_digest().expect("a whole body");
            let answer = format!("{} {}", digest.0, digest.1);
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()));
        })
    };
    let tokens = Upstream::tokens(3600);
    let proxy = Cupbearer::before(&api.url(), &tokens, "", "");
    let mut client = proxy.connect();
    let before = memory(&proxy);
    client.send(format!("POST /api/up HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n", proxy.address()));
    let mut expected = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for _ in 0..TOTAL / MB {
        expected.update(&block);
    }
    let most = thread::scope(|scope| {
        let mut stream = client.stream();
        let (sent, block) = (&sent, &block);
        scope.spawn(move || {
            for _ in 0..TOTAL / MB {
                write!(stream, "{MB:x}\r\n").expect("the proxy reads");
                stream.write_all(block).expect("the proxy reads");
                stream.write_all(b"\r\n").expect("the proxy reads");
                sent.fetch_add(MB, Ordering::SeqCst);
            }
            stream.write_all(b"0\r\n\r\n").expect("the proxy reads");
        });
        let stuck_at = wait_until_stuck(sent);
        assert!(stuck_at < TOTAL / 2, "{stuck_at} bytes were taken for an upstream that reads nothing");
        released.store(true, Ordering::SeqCst);
        let mut most = memory(&proxy);
        while sent.load(Ordering::SeqCst) < TOTAL {
            most = most.max(memory(&proxy));
            thread::sleep(Duration::from_millis(5));
        }
        most
    });
    let answer = client.response();
    assert_eq!(answer.text(), format!("{TOTAL} {}", crate::support::hex(expected.finish().as_ref())));
    assert!(most < before + GROWTH_KIB, "grew from {before} to {most} KiB");
}
