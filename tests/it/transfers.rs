//! Many large bodies at once, with slow peers on both sides: every byte arrives, and memory stays bounded.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;

use crate::support::{
    Ca, Cupbearer, Nghttpd, TestDir, Upstream,
    h2::{H2Client, run},
    noise,
};

const MB: usize = 1024 * 1024;
const TRANSFERS: usize = 50;
/// Slow peers pause before each of their first pieces, of 1 MiB, so that for a while everything between both ends is full.
const SLOW_PIECES: usize = 15;
const PAUSE: Duration = Duration::from_millis(20);
/// By how much the proxy may grow for each transfer, in KiB: buffers of 64 KiB, with HTTP/2 windows of 256 KiB on that side.
const GROWTH: usize = 512;

/// Sends and takes bodies of `size` bytes, slowly at first where the path says so. The test's end is its end.
fn large_bodies(size: usize, piece: &Arc<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = listener.local_addr().expect("bound");
    let piece = Arc::clone(piece);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let piece = Arc::clone(&piece);
            thread::spawn(move || serve(&stream, size, &piece));
        }
    });
    address
}

fn serve(stream: &TcpStream, size: usize, piece: &[u8]) -> io::Result<()> {
    let (mut reader, mut writer) = (BufReader::with_capacity(MB, stream), stream);
    loop {
        let head = head(&mut reader)?;
        let slow = head.contains("/slow-upstream");
        if head.starts_with("GET") {
            write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")?;
            write_pieces(&mut writer, size, piece, slow)?;
        } else {
            let same = read_pieces(&mut reader, size, piece, slow)?;
            write!(writer, "HTTP/1.1 {} Read\r\nContent-Length: 0\r\n\r\n", if same { 200 } else { 500 })?;
        }
    }
}

fn head(from: &mut impl BufRead) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

fn write_pieces(to: &mut impl Write, size: usize, piece: &[u8], slow: bool) -> io::Result<()> {
    for number in 0..size / piece.len() {
        if slow && number < SLOW_PIECES {
            thread::sleep(PAUSE);
        }
        to.write_all(piece)?;
    }
    Ok(())
}

/// Whether all pieces are what they should be.
fn read_pieces(from: &mut impl Read, size: usize, piece: &[u8], slow: bool) -> io::Result<bool> {
    let (mut read, mut same) = (vec![0; piece.len()], true);
    for number in 0..size / piece.len() {
        if slow && number < SLOW_PIECES {
            thread::sleep(PAUSE);
        }
        from.read_exact(&mut read)?;
        same &= read == piece;
    }
    Ok(same)
}

/// Which peer is slow, in turn.
fn path(number: usize) -> (&'static str, bool) {
    match number / 2 % 3 {
        0 => ("slow-upstream", false),
        1 => ("slow-caller", true),
        _ => ("quick", false),
    }
}

/// One of the transfers over HTTP/1.1: downloads and uploads take turns.
fn transfer(proxy: &Cupbearer, number: usize, size: usize, piece: &[u8], only_down: bool) {
    let stream = TcpStream::connect(proxy.address()).expect("accepted");
    let (mut reader, mut writer) = (BufReader::with_capacity(MB, &stream), &stream);
    let ((path, slow), host) = (path(number), proxy.address());
    if only_down || number.is_multiple_of(2) {
        let path = if only_down { "large" } else { path };
        write!(writer, "GET /api/{path} HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("taken");
        let head = head(&mut reader).expect("a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(read_pieces(&mut reader, size, piece, slow).expect("the whole body"), "{number}: other bytes");
    } else {
        write!(writer, "PUT /api/{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n").expect("taken");
        write_pieces(&mut writer, size, piece, slow).expect("taken");
        let head = head(&mut reader).expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    }
}

/// By how much the proxy grew at most while `work` ran, in KiB.
fn growth(proxy: &Cupbearer, work: impl FnOnce()) -> usize {
    let (before, most, over) = (proxy.memory(), AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                most.fetch_max(proxy.memory(), Ordering::SeqCst);
                thread::sleep(Duration::from_millis(20));
            }
        });
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::SeqCst);
        worked.expect("all transfers are whole");
    });
    most.load(Ordering::SeqCst).saturating_sub(before)
}

fn all_over_h1(proxy: &Cupbearer, size: usize, piece: &[u8], only_down: bool) -> usize {
    growth(proxy, || {
        thread::scope(|scope| {
            for number in 0..TRANSFERS {
                scope.spawn(move || transfer(proxy, number, size, piece, only_down));
            }
        });
    })
}

#[test]
#[ignore = "needs half a minute: run tests/run"]
fn fifty_transfers_of_200_mb_with_slow_peers_are_whole_and_cost_bounded_memory() {
    const SIZE: usize = 200 * MB;
    let (piece, tokens) = (Arc::new(noise(MB)), Upstream::tokens(3600));
    let api = large_bodies(SIZE, &piece);
    let proxy = Cupbearer::before(&format!("http://{api}"), &tokens, "", "");
    let grown = all_over_h1(&proxy, SIZE, &piece, false);
    assert!(grown < TRANSFERS * GROWTH, "grew by {grown} KiB");
}

#[test]
#[ignore = "needs half a minute: run tests/run"]
fn fifty_transfers_over_http_2_with_slow_peers_are_whole_and_cost_bounded_memory() {
    const SIZE: usize = 16 * MB;
    let (piece, tokens) = (Arc::new(noise(MB)), Upstream::tokens(3600));
    let api = large_bodies(SIZE, &piece);
    let proxy = Cupbearer::before(&format!("http://{api}"), &tokens, "", "");
    let callers = || {
        run(async {
            let client = H2Client::connect(proxy.address()).await;
            let mut running = tokio::task::JoinSet::new();
            for number in 0..TRANSFERS {
                running.spawn_local(h2_transfer(client.clone(), number, SIZE, Arc::clone(&piece)));
            }
            while let Some(done) = running.join_next().await {
                done.expect("a whole transfer");
            }
        });
    };
    let grown = growth(&proxy, callers);
    assert!(grown < TRANSFERS * GROWTH, "grew by {grown} KiB");
}

async fn h2_transfer(client: H2Client, number: usize, size: usize, piece: Arc<Vec<u8>>) {
    let (path, slow) = path(number);
    let path = format!("/api/{path}");
    if number.is_multiple_of(2) {
        let request = client.ask("GET", &path).body(()).expect("a request");
        let (response, _) = client.begin(request, true).await.expect("begun");
        let mut body = response.await.expect("an answer").into_body();
        let mut at = 0;
        while let Some(data) = body.data().await {
            let data = data.expect("no reset");
            let from = at % piece.len();
            let (first, rest) = data.split_at(data.len().min(piece.len() - from));
            let same = *first == piece[from..from + first.len()] && *rest == piece[..rest.len()];
            assert!(same, "{number}: other bytes after {at}");
            at += data.len();
            if slow && at < SLOW_PIECES * 64 * 1024 {
                tokio::time::sleep(PAUSE).await;
            }
            let _ = body.flow_control().release_capacity(data.len());
        }
        assert_eq!(at, size, "{number}");
        return;
    }
    let request = client.ask("PUT", &path).header("content-length", size).body(()).expect("a request");
    let (response, mut stream) = client.begin(request, false).await.expect("begun");
    let mut left = size;
    while left > 0 {
        stream.reserve_capacity(left.min(64 * 1024));
        let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.expect("open").expect("no reset");
        let from = (size - left) % piece.len();
        let n = capacity.min(left).min(piece.len() - from);
        stream.send_data(Bytes::copy_from_slice(&piece[from..from + n]), left == n).expect("sent");
        left -= n;
        if slow && size - left < SLOW_PIECES * 64 * 1024 {
            tokio::time::sleep(PAUSE).await;
        }
    }
    assert_eq!(response.await.expect("an answer").status(), 200, "{number}");
}

#[test]
#[ignore = "needs nghttp2: run tests/run"]
fn fifty_transfers_from_an_upstream_of_http_2_are_whole_and_cost_bounded_memory() {
    const SIZE: usize = 16 * MB;
    let (ca, dir, piece, tokens) = (Ca::new(), TestDir::new(), noise(MB), Upstream::tokens(3600));
    let (certificate, key) = ca.issue(&["localhost"]);
    dir.write("tls.crt", certificate);
    dir.write("tls.key", key);
    dir.write("large", piece.repeat(SIZE / MB));
    let api = Nghttpd::start(dir.path(), true);
    let roots = format!("ca_file = \"{}\"", dir.write("ca.pem", ca.pem()).display());
    let proxy = Cupbearer::before(&api.url(), &tokens, &roots, "");
    let grown = all_over_h1(&proxy, SIZE, &piece, true);
    assert!(grown < TRANSFERS * GROWTH, "grew by {grown} KiB");
    assert_eq!(api.requests("/large"), TRANSFERS);
}
