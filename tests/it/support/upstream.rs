//! A server that does exactly what the test says, and keeps every byte that it was sent.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::PATIENCE;

/// A plain-text server on loopback, one thread per connection. It closes when dropped.
pub(crate) struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// What happened so far.
#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<Request>>,
    heads: Mutex<Vec<Request>>,
    changed: Condvar,
    /// `None` once its script has ended.
    connections: Mutex<Vec<Option<TcpStream>>>,
    closing: AtomicBool,
}

/// One request as it came over the wire.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Which connection it came on, counted from 0.
    pub(crate) connection: usize,
    /// The head, with the empty line.
    pub(crate) head: String,
    /// The body as framed: chunk sizes included.
    pub(crate) body: Vec<u8>,
}

/// One connection, in the hands of the test's script.
pub(crate) struct Connection {
    number: usize,
    stream: TcpStream,
    buffer: Vec<u8>,
    shared: Arc<Shared>,
    resetting: bool,
}

impl Upstream {
    /// Runs `script` on every connection; the connection is closed when it returns.
    pub(crate) fn start(script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a loopback port"), script)
    }

    /// The same on a socket that listens already.
    pub(crate) fn on(listener: TcpListener, script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared::default());
        let script = Arc::new(script);
        let acceptor = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || accept(&listener, &shared, &script))
        };
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// Answers every request with these bytes and keeps the connection.
    pub(crate) fn always(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        Self::start(move |connection| {
            while connection.request().is_some() {
                connection.send(&response);
            }
        })
    }

    /// Answers as the path says; `/slow` never, and what is not known with 200.
    pub(crate) fn by_path() -> Self {
        Self::start(|connection| {
            while let Some(request) = connection.request() {
                match request.target() {
                    "/slow" => connection.wait_for_close(),
                    "/garbage" => connection.send("not HTTP at all\r\n\r\n"),
                    "/truncated" => {
                        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
                        return;
                    }
                    "/endless" => {
                        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
                        connection.wait_for_close();
                    }
                    "/refused" => connection.send("HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno"),
                    "/missing" => connection.send("HTTP/1.1 404 No\r\nContent-Length: 7\r\n\r\nmissing"),
                    "/teapot" => connection.send("HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n"),
                    "/odd" => connection.send("HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n"),
                    _ => connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
                }
            }
        })
    }

    /// Holds every request until the switch is on, then answers with these pieces, a moment apart.
    pub(crate) fn holding(released: &Arc<AtomicBool>, pieces: &'static [&'static str]) -> Self {
        let released = Arc::clone(released);
        Self::start(move |connection| {
            while connection.request().is_some() {
                let began = Instant::now();
                while !released.load(Ordering::SeqCst) && began.elapsed() < PATIENCE {
                    thread::sleep(Duration::from_millis(2));
                }
                for (number, piece) in pieces.iter().enumerate() {
                    if number > 0 {
                        thread::sleep(Duration::from_millis(5));
                    }
                    connection.send(piece);
                }
            }
        })
    }

    /// A token endpoint that issues `not-a-token-1`, `not-a-token-2`… for `lifetime` seconds each.
    pub(crate) fn tokens(lifetime: u32) -> Self {
        Self::tokens_named("", lifetime)
    }

    /// The same with `not-a-token-NAME1`, `not-a-token-NAME2`…
    pub(crate) fn tokens_named(name: &str, lifetime: u32) -> Self {
        let name = name.to_owned();
        let issued = std::sync::atomic::AtomicUsize::new(0);
        Self::start(move |connection| {
            while connection.request().is_some() {
                let number = issued.fetch_add(1, Ordering::Relaxed) + 1;
                let body = format!(
                    r#"{{"access_token":"not-a-token-{name}{number}","token_type":"bearer","expires_in":{lifetime}}}"#
                );
                let length = body.len();
                connection.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
                ));
            }
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far, in the order in which they were complete.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().expect("no script panics while holding it").clone()
    }

    /// Every request head so far, also of requests whose body never came to its end.
    pub(crate) fn heads(&self) -> Vec<Request> {
        self.shared.heads.lock().expect("no script panics while holding it").clone()
    }

    /// Waits until at least `count` requests are there.
    pub(crate) fn wait_for_requests(&self, count: usize) -> Vec<Request> {
        let deadline = Instant::now() + PATIENCE;
        let mut requests = self.shared.requests.lock().expect("no script panics while holding it");
        while requests.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "only {} of {count} requests came: {requests:?}", requests.len());
            requests = self.shared.changed.wait_timeout(requests, left).expect("not poisoned").0;
        }
        requests.clone()
    }

    /// How many connections are open.
    pub(crate) fn open_connections(&self) -> usize {
        self.shared.connections.lock().expect("not poisoned").iter().flatten().count()
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.lock().expect("not poisoned").len()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address); // wakes the acceptor
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for connection in self.shared.connections.lock().expect("not poisoned").iter().flatten() {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Request {
    /// The request line.
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The request target.
    pub(crate) fn target(&self) -> &str {
        self.line().split(' ').nth(1).unwrap_or_default()
    }

    /// The only value of a field; panics if there are several.
    pub(crate) fn header<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let values: Vec<&str> = self.all(name).collect();
        assert!(values.len() < 2, "several {name} fields: {}", self.head);
        values.first().copied()
    }

    /// The body without its chunk framing, where it came in chunks.
    pub(crate) fn decoded_body(&self) -> Vec<u8> {
        if self.header("transfer-encoding").is_none() {
            return self.body.clone();
        }
        let (mut decoded, mut rest) = (Vec::new(), self.body.as_slice());
        while let Some(at) = memchr::memchr(b'\n', rest) {
            let size = std::str::from_utf8(&rest[..at]).ok().and_then(|s| usize::from_str_radix(s.trim(), 16).ok());
            let size = size.expect("the proxy sends bare chunk sizes");
            if size == 0 {
                break;
            }
            decoded.extend_from_slice(&rest[at + 1..=at + size]);
            rest = &rest[at + 1 + size + 2..];
        }
        decoded
    }

    /// All values of a field, in order.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

impl Connection {
    /// Which connection this is, counted from 0.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Reads one whole request and records it; `None` when the proxy closed instead.
    pub(crate) fn request(&mut self) -> Option<Request> {
        let head = self.request_head()?;
        let body = self.request_body(&head)?;
        let request = Request { connection: self.number, head, body };
        self.record(request.clone());
        Some(request)
    }

    /// Reads only the head, for scripts that answer before the body is there; it is found in
    /// [`Upstream::heads`] only.
    pub(crate) fn request_head(&mut self) -> Option<String> {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            self.fill().ok().filter(|&read| read > 0)?;
        };
        let head = String::from_utf8(self.take(end)).expect("the proxy sends a head of text");
        let request = Request { connection: self.number, head: head.clone(), body: Vec::new() };
        self.shared.heads.lock().expect("not poisoned").push(request);
        Some(head)
    }

    /// Reads a chunked body without keeping it: its length and its SHA-256 in hex.
    pub(crate) fn chunked_digest(&mut self) -> Option<(usize, String)> {
        let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        let mut length = 0;
        loop {
            let (_, size) = self.chunk_size()?;
            self.need(size + 2)?;
            let chunk = self.take(size + 2);
            digest.update(&chunk[..size]);
            length += size;
            if size == 0 {
                return Some((length, super::hex(digest.finish().as_ref())));
            }
        }
    }

    /// Sends these bytes as they are; a proxy that has gone away is no error here.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// The same, and says when the proxy has gone away.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// One chunk's data, empty for the last one; its trailers are left unread but for the empty line.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let (_, size) = self.chunk_size()?;
        self.need(size + 2)?;
        let mut data = self.take(size + 2);
        data.truncate(size);
        Some(data)
    }

    /// Waits until the proxy's kernel has taken all that was sent.
    pub(crate) fn wait_until_taken(&self) {
        super::eventually("the sent bytes are acknowledged", || super::unsent(&self.stream) == 0);
    }

    /// Closes with a reset instead of an orderly end.
    pub(crate) fn reset(&mut self) {
        self.resetting = true;
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Waits until the proxy closes; what it still sent until then is thrown away.
    pub(crate) fn wait_for_close(&mut self) {
        while self.fill().is_ok_and(|read| read > 0) {
            self.buffer.clear();
        }
    }

    /// The connection itself, to stop reading, say.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn record(&self, request: Request) {
        self.shared.requests.lock().expect("not poisoned").push(request);
        self.shared.changed.notify_all();
    }

    /// Reads the body that belongs to a head from [`Self::request_head`]; nothing is recorded.
    pub(crate) fn body_of(&mut self, head: &str) -> Option<Vec<u8>> {
        self.request_body(head)
    }

    fn request_body(&mut self, head: &str) -> Option<Vec<u8>> {
        let head = head.to_ascii_lowercase();
        if head.contains("\r\ntransfer-encoding: chunked\r\n") {
            return self.chunked_body();
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |l| l.parse().expect("the proxy sends a legal Content-Length"));
        self.need(length)?;
        Some(self.take(length))
    }

    /// The raw bytes up to the end of the trailers.
    fn chunked_body(&mut self) -> Option<Vec<u8>> {
        let mut raw = Vec::new();
        loop {
            let (line, size) = self.chunk_size()?;
            raw.extend_from_slice(&line);
            if size == 0 {
                break;
            }
            self.need(size + 2)?;
            raw.extend(self.take(size + 2));
        }
        loop {
            let line = self.line()?;
            raw.extend_from_slice(&line);
            if line == b"\r\n" {
                return Some(raw);
            }
        }
    }

    /// A chunk's first line, and the size that it gives.
    fn chunk_size(&mut self) -> Option<(Vec<u8>, usize)> {
        let line = self.line()?;
        let size = std::str::from_utf8(&line).ok().and_then(|l| l.trim_end().split(';').next());
        let size = size.and_then(|s| usize::from_str_radix(s, 16).ok()).expect("a legal chunk size");
        Some((line, size))
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer) {
                return Some(self.take(at + 1));
            }
            self.fill().ok().filter(|&read| read > 0)?;
        }
    }

    fn need(&mut self, length: usize) -> Option<()> {
        while self.buffer.len() < length {
            self.fill().ok().filter(|&read| read > 0)?;
        }
        Some(())
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        self.buffer.drain(..length).collect()
    }

    fn fill(&mut self) -> io::Result<usize> {
        let old = self.buffer.len();
        self.buffer.resize(old + 64 * 1024, 0);
        let read = self.stream.read(&mut self.buffer[old..]);
        self.buffer.truncate(old + *read.as_ref().unwrap_or(&0));
        read
    }
}

fn accept<S>(listener: &TcpListener, shared: &Arc<Shared>, script: &Arc<S>)
where
    S: Fn(&mut Connection) + Send + Sync + 'static,
{
    for stream in listener.incoming() {
        if shared.closing.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let _ = stream.set_nodelay(true);
        let mut connections = shared.connections.lock().expect("not poisoned");
        let number = connections.len();
        connections.push(Some(stream.try_clone().expect("a second handle")));
        drop(connections);
        let mut connection =
            Connection { number, stream, buffer: Vec::new(), shared: Arc::clone(shared), resetting: false };
        let script = Arc::clone(script);
        thread::spawn(move || {
            script(&mut connection);
            connection.shared.connections.lock().expect("not poisoned")[number] = None;
            if !connection.resetting {
                let _ = connection.stream.shutdown(std::net::Shutdown::Both);
            }
        });
    }
}
