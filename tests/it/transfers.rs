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
    Ca, Cupbearer, Nghttpd, PATIENCE, Stage, TestDir, Upstream, eventually,
    h2::{Act, H2Client, H2Upstream, run},
    hex, noise, sha256,
};

const MB: usize = 1024 * 1024;
const TRANSFERS: usize = 50;
/// Slow peers pause before each of their first pieces, of 1 MiB, so that for a while everything between both ends is full.
const SLOW_PIECES: usize = 15;
/// ... of 64 KiB over HTTP/2, where windows are small.
const PIECE_H2: usize = 64 * 1024;
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
    let path = format!("/api/{path}/{}", size / MB);
    if number.is_multiple_of(2) {
        let request = client.ask("GET", &path).body(()).expect("a request");
        let (response, _) = client.begin(request, true).await.expect("begun");
        let mut body = response.await.expect("an answer").into_body();
        assert!(is_all(&mut body, size, &piece, slow).await, "{number}: other bytes, or not all");
        return;
    }
    let request = client.ask("PUT", &path).header("content-length", size).body(()).expect("a request");
    let (response, mut stream) = client.begin(request, false).await.expect("begun");
    send_all(&mut stream, size, &piece, slow).await;
    let answer = crate::support::h2::answer(response).await.expect("an answer");
    assert_eq!(answer.status, 200, "{number}: {}", String::from_utf8_lossy(&answer.body));
}

/// An upstream of HTTP/2 that sends and takes bodies like [`large_bodies`]; the path's end is their size in MiB.
fn large_bodies_h2(piece: &Arc<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = listener.local_addr().expect("bound");
    listener.set_nonblocking(true).expect("non-blocking");
    let piece = Arc::clone(piece);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            while let Ok((tcp, _)) = listener.accept().await {
                let piece = Arc::clone(&piece);
                tokio::task::spawn_local(async move {
                    let Ok(mut connection) = h2::server::handshake(tcp).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::task::spawn_local(serve_h2(request, respond, Arc::clone(&piece)));
                    }
                });
            }
        });
    });
    address
}

async fn serve_h2(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    piece: Arc<Vec<u8>>,
) {
    let (parts, mut body) = request.into_parts();
    let path = parts.uri.path();
    let slow = path.contains("/slow-upstream");
    let size = MB * path.rsplit('/').next().and_then(|size| size.parse::<usize>().ok()).expect("a size");
    if parts.method == http::Method::GET {
        let head = http::Response::builder().header("content-length", size).body(()).expect("a head");
        let mut stream = respond.send_response(head, false).expect("sent");
        send_all(&mut stream, size, &piece, slow).await;
    } else {
        let same = is_all(&mut body, size, &piece, slow).await;
        let head = http::Response::builder().status(if same { 200 } else { 500 }).body(()).expect("a head");
        let _ = respond.send_response(head, true);
    }
}

async fn send_all(stream: &mut h2::SendStream<Bytes>, size: usize, piece: &[u8], slow: bool) {
    let (mut left, mut paused) = (size, 0);
    while left > 0 {
        stream.reserve_capacity(left.min(64 * 1024));
        let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.expect("open").expect("no reset");
        let from = (size - left) % piece.len();
        let n = capacity.min(left).min(piece.len() - from);
        stream.send_data(Bytes::copy_from_slice(&piece[from..from + n]), left == n).expect("sent");
        left -= n;
        if slow && (size - left) / PIECE_H2 > paused && paused < SLOW_PIECES {
            paused = (size - left) / PIECE_H2;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Whether the body is what it should be, to its end.
async fn is_all(body: &mut h2::RecvStream, size: usize, piece: &[u8], slow: bool) -> bool {
    let (mut at, mut paused) = (0, 0);
    while let Some(Ok(data)) = body.data().await {
        let from = at % piece.len();
        let (first, rest) = data.split_at(data.len().min(piece.len() - from));
        if *first != piece[from..from + first.len()] || *rest != piece[..rest.len()] {
            return false;
        }
        at += data.len();
        if slow && at / PIECE_H2 > paused && paused < SLOW_PIECES {
            paused = at / PIECE_H2;
            tokio::time::sleep(PAUSE).await;
        }
        let _ = body.flow_control().release_capacity(data.len());
    }
    at == size
}

#[test]
#[ignore = "needs a minute: run tests/run"]
fn fifty_transfers_with_http_2_on_both_sides_are_whole_and_cost_bounded_memory() {
    let (piece, tokens) = (Arc::new(noise(MB)), Upstream::tokens(3600));
    let api = large_bodies_h2(&piece);
    let proxy = Cupbearer::before(&format!("http://{api}"), &tokens, "", "http = \"h2\"");
    let callers = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let client = H2Client::connect(proxy.address()).await;
            let mut running = tokio::task::JoinSet::new();
            for number in 0..TRANSFERS {
                // Ten of them are of 200 MB: five down, five up.
                let mb = if number % 10 < 2 { 200 } else { 16 };
                running.spawn_local(h2_transfer(client.clone(), number, mb * MB, Arc::clone(&piece)));
            }
            while let Some(done) = running.join_next().await {
                done.expect("a whole transfer");
            }
        });
    };
    let grown = growth(&proxy, callers);
    assert!(grown < TRANSFERS * 2 * GROWTH, "grew by {grown} KiB");
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

/// A caller that takes its answer as fast, and as far, as the test says.
struct Taker {
    stream: BufReader<TcpStream>,
    digest: aws_lc_rs::digest::Context,
}

impl Taker {
    fn begin(address: SocketAddr, target: &str) -> Self {
        let mut stream = BufReader::new(TcpStream::connect(address).expect("it listens"));
        let _ = stream.get_ref().set_read_timeout(Some(PATIENCE));
        write!(stream.get_mut(), "GET {target} HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("it takes a request");
        let head = head(&mut stream).expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        Self { stream, digest: aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256) }
    }

    fn take(&mut self, length: usize) {
        let (mut piece, mut left) = (vec![0; 64 * 1024], length);
        while left > 0 {
            let n = self.stream.read(&mut piece[..left.min(64 * 1024)]).expect("it goes on");
            assert!(n > 0, "{left} bytes too early");
            self.digest.update(&piece[..n]);
            left -= n;
        }
    }
}

/// The windows of answers that are read fast grow, and what they have grown to is what the proxy may have to keep.
#[test]
fn callers_that_read_fast_and_then_stand_still_cost_bounded_memory_and_get_all_of_it_later() {
    const CALLERS: usize = 24;
    const FAST: usize = 8 * MB;
    const BODY: usize = 24 * MB;
    /// In KiB: more than windows that have not grown; far less than 4 MiB each.
    const GROWN: usize = 10 * 1024;
    const STANDSTILL: usize = 48 * 1024;
    let body = noise(BODY);
    let whole = sha256(&body);
    let upstream = H2Upstream::start(move |request| match request.path.as_str() {
        "/large" => Act::ok(body.clone()),
        path => Act::ok(path),
    });
    let route =
        format!("[[routes]]\nprefix = \"/h2\"\ncredential = \"c\"\nhttp = \"h2\"\nupstream = \"{}\"", upstream.url());
    let scene = Stage::new(Upstream::always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).more(&route).start();
    assert_eq!(scene.get("/h2/warm").text(), "/warm");
    let (address, before) = (scene.proxy.address(), scene.proxy.memory());
    let takers: Vec<Taker> = thread::scope(|scope| {
        let begun = || {
            let mut taker = Taker::begin(address, "/h2/large");
            taker.take(FAST);
            taker
        };
        let begun: Vec<_> = (0..CALLERS).map(|_| scope.spawn(begun)).collect();
        begun.into_iter().map(|taker| taker.join().expect("its first part")).collect()
    });
    // The system's buffers fill first, then the windows; the first ones alone are 6 MiB.
    let mut last = (0, 0);
    eventually("windows have grown, all is full and nothing moves any more", || {
        let grown = scene.proxy.memory().saturating_sub(before);
        last = if grown == last.0 { (grown, last.1 + 1) } else { (grown, 0) };
        thread::sleep(Duration::from_millis(20));
        grown > GROWN && last.1 > 25
    });
    assert_eq!(upstream.connections(), 1);
    assert_eq!(scene.get("/h2/beside").text(), "/beside", "the connection has room for others");
    thread::scope(|scope| {
        for mut taker in takers {
            let whole = &whole;
            scope.spawn(move || {
                taker.take(BODY - FAST);
                assert_eq!(hex(taker.digest.finish().as_ref()), *whole);
            });
        }
    });
    let most = scene.proxy.most_memory().saturating_sub(before);
    assert!(most < STANDSTILL, "{most} KiB for {CALLERS} callers that stood still");
    scene.end();
}
