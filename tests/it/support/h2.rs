//! HTTP/2 on both sides of the proxy: a client, and a server that does what the test says.

use std::{
    future::Future,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, client, server};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::oneshot,
    task::LocalSet,
};

use super::PATIENCE;

/// Runs a test's asynchronous part; fails where it takes too long.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async { tokio::time::timeout(PATIENCE, test).await.expect("in time") })
}

/// A client's connection, by prior knowledge.
#[derive(Clone)]
pub(crate) struct H2Client {
    sender: client::SendRequest<Bytes>,
    authority: String,
}

/// A whole message, in either direction.
#[derive(Debug, Clone, Default)]
pub(crate) struct H2Message {
    /// Which connection it came on, for a server.
    pub(crate) connection: usize,
    /// Of a request.
    pub(crate) method: String,
    /// `:path`
    pub(crate) path: String,
    /// `:authority`
    pub(crate) authority: String,
    /// Of a response.
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
    /// Interim responses that came before.
    pub(crate) interim: Vec<u16>,
}

impl H2Message {
    /// The only value of a field; panics if there are several.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next();
        assert!(values.next().is_none(), "several {name} fields: {:?}", self.headers);
        first.map(|v| v.to_str().expect("text"))
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

impl H2Client {
    /// Connects; the connection is driven by a task of the same test.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).await.expect("the proxy accepts");
        tcp.set_nodelay(true).expect("no delay");
        Self::over(tcp, &address.to_string()).await
    }

    /// Over a connection that is there already.
    pub(crate) async fn over(io: impl AsyncRead + AsyncWrite + Unpin + 'static, authority: &str) -> Self {
        let (sender, connection) =
            client::Builder::new().enable_push(false).handshake(io).await.expect("the proxy speaks HTTP/2");
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        Self { sender, authority: authority.to_owned() }
    }

    /// A request of this client, to be filled in.
    pub(crate) fn ask(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("http://{}{path}", self.authority))
    }

    /// Begins a request.
    pub(crate) async fn begin(
        &self,
        request: Request<()>,
        ends: bool,
    ) -> Result<(client::ResponseFuture, h2::SendStream<Bytes>), h2::Error> {
        let mut sender = self.sender.clone().ready().await?;
        sender.send_request(request, ends)
    }

    /// Sends a request with a body and reads the whole answer.
    pub(crate) async fn exchange(&self, request: Request<()>, body: &[u8]) -> Result<H2Message, h2::Error> {
        let (response, stream) = self.begin(request, body.is_empty()).await?;
        if body.is_empty() {
            return answer(response).await;
        }
        let sending = send(stream, body, None);
        let (sent, answer) = tokio::join!(sending, answer(response));
        // An answer may come before the body was taken; then only the answer counts.
        if answer.is_err() {
            sent?;
        }
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> H2Message {
        let request = self.ask("GET", path).body(()).expect("a request");
        self.exchange(request, b"").await.expect("an answer")
    }
}

/// Sends a body as fast as the windows allow, and its end.
pub(crate) async fn send(
    mut stream: h2::SendStream<Bytes>,
    mut body: &[u8],
    trailers: Option<HeaderMap>,
) -> Result<(), h2::Error> {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(capacity) = capacity.transpose()? else { return Ok(()) };
        let (now, rest) = body.split_at(capacity.min(body.len()));
        stream.send_data(Bytes::copy_from_slice(now), trailers.is_none() && rest.is_empty())?;
        body = rest;
    }
    if let Some(trailers) = trailers {
        stream.send_trailers(trailers)?;
    }
    Ok(())
}

/// Reads a whole answer.
pub(crate) async fn answer(mut response: client::ResponseFuture) -> Result<H2Message, h2::Error> {
    let mut interim = Vec::new();
    let response = std::future::poll_fn(|cx| {
        while let std::task::Poll::Ready(Some(Ok(early))) = response.poll_informational(cx) {
            interim.push(early.status().as_u16());
        }
        std::pin::Pin::new(&mut response).poll(cx)
    })
    .await?;
    let (parts, stream) = response.into_parts();
    let (body, trailers) = read(stream).await?;
    Ok(H2Message {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
        trailers,
        interim,
        ..H2Message::default()
    })
}

async fn read(mut stream: RecvStream) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        let _ = stream.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
    }
    Ok((body, stream.trailers().await?.unwrap_or_default()))
}

/// What a scripted server does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Answers.
    Answer(H2Message),
    /// Resets the stream before any answer.
    Reset(Reason),
    /// Sends the head and half of the body, then resets the stream.
    Half(H2Message),
    /// Says that it takes no more (GOAWAY), but answers this one.
    Leave(H2Message),
    /// Closes the connection with GOAWAY as if nothing of this request had been acted on.
    Gone,
    /// Never answers.
    Silence,
    /// Sends this head, then each piece that comes, and the end with theirs.
    Pieces(H2Message, Pieces),
}

/// Pieces of a body, one after another.
pub(crate) type Pieces = Arc<Mutex<Option<tokio::sync::mpsc::UnboundedReceiver<Bytes>>>>;

impl Act {
    /// 200 with this body and its length.
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::Answer(response(200, &[], body))
    }
}

/// A response; the length is told unless `headers` has an empty `content-length`.
pub(crate) fn response(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> H2Message {
    let body = body.into();
    let mut map = fields(headers);
    match map.get("content-length") {
        Some(told) if told.is_empty() => {
            map.remove("content-length");
        }
        Some(_) => {}
        None if status == 204 || status == 304 => {}
        None => {
            map.insert("content-length", body.len().into());
        }
    }
    H2Message { status, headers: map, body, ..H2Message::default() }
}

pub(crate) fn fields(headers: &[(&str, &str)]) -> HeaderMap {
    let pair = |(n, v): &(&str, &str)| {
        (HeaderName::from_bytes(n.as_bytes()).expect("a name"), HeaderValue::from_str(v).expect("a value"))
    };
    headers.iter().map(pair).collect()
}

/// A server that speaks HTTP/2.
pub(crate) struct H2Upstream {
    address: SocketAddr,
    tls: bool,
    requests: Arc<Mutex<Vec<H2Message>>>,
    connections: Arc<Mutex<usize>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

type Script = Arc<dyn Fn(&H2Message) -> Act + Send + Sync>;

impl H2Upstream {
    /// Without TLS, by prior knowledge.
    pub(crate) fn start(script: impl Fn(&H2Message) -> Act + Send + Sync + 'static) -> Self {
        Self::launch(any_port(), Arc::new(script), None)
    }

    /// With TLS and ALPN, for `localhost`.
    pub(crate) fn start_tls(
        certificate: &str,
        key: &str,
        script: impl Fn(&H2Message) -> Act + Send + Sync + 'static,
    ) -> Self {
        Self::on_tls(any_port(), certificate, key, script)
    }

    /// The same on a socket that listens already, for whatever name the certificate has.
    pub(crate) fn on_tls(
        listener: TcpListener,
        certificate: &str,
        key: &str,
        script: impl Fn(&H2Message) -> Act + Send + Sync + 'static,
    ) -> Self {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>().expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a matching key");
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self::launch(listener, Arc::new(script), Some(Arc::new(config)))
    }

    fn launch(listener: TcpListener, script: Script, tls: Option<Arc<ServerConfig>>) -> Self {
        listener.set_nonblocking(true).expect("non-blocking");
        let address = listener.local_addr().expect("bound");
        let (requests, connections) = (Arc::default(), Arc::new(Mutex::new(0)));
        let (stop, stopped) = oneshot::channel();
        let is_tls = tls.is_some();
        let (seen, count) = (Arc::clone(&requests), Arc::clone(&connections));
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            LocalSet::new().block_on(&runtime, async {
                tokio::select! {
                    () = accept(listener, script, tls, seen, count) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, tls: is_tls, requests, connections, stop: Some(stop), thread: Some(thread) }
    }

    /// `http://127.0.0.1:PORT` or `https://localhost:PORT`
    pub(crate) fn url(&self) -> String {
        if self.tls { format!("https://localhost:{}", self.address.port()) } else { format!("http://{}", self.address) }
    }

    pub(crate) fn requests(&self) -> Vec<H2Message> {
        self.requests.lock().expect("not poisoned").clone()
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().expect("not poisoned")
    }
}

fn any_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a loopback port")
}

impl Drop for H2Upstream {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(
    listener: TcpListener,
    script: Script,
    tls: Option<Arc<ServerConfig>>,
    seen: Arc<Mutex<Vec<H2Message>>>,
    count: Arc<Mutex<usize>>,
) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    while let Ok((tcp, _)) = listener.accept().await {
        let _ = tcp.set_nodelay(true);
        let number = {
            let mut count = count.lock().expect("not poisoned");
            *count += 1;
            *count - 1
        };
        let (script, seen, tls) = (Arc::clone(&script), Arc::clone(&seen), tls.clone());
        tokio::task::spawn_local(async move {
            match tls {
                None => serve(tcp, number, script, seen).await,
                Some(config) => {
                    if let Ok(tls) = tokio_rustls::TlsAcceptor::from(config).accept(tcp).await {
                        serve(tls, number, script, seen).await;
                    }
                }
            }
        });
    }
}

async fn serve<S>(io: S, number: usize, script: Script, seen: Arc<Mutex<Vec<H2Message>>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Ok(mut connection) = server::handshake(io).await else { return };
    let (leave, mut leaving) = tokio::sync::mpsc::unbounded_channel();
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                let (script, seen, leave) = (Arc::clone(&script), Arc::clone(&seen), leave.clone());
                tokio::task::spawn_local(async move {
                    if let Err(now) = stream(request, respond, number, script, seen).await {
                        let _ = leave.send(now);
                    }
                });
            }
            Some(now) = leaving.recv() => {
                if now { return } // with whatever was not acknowledged
                connection.graceful_shutdown();
            }
        }
    }
}

/// `Err(at_once)` where the connection is to end.
async fn stream(
    request: Request<RecvStream>,
    mut respond: server::SendResponse<Bytes>,
    connection: usize,
    script: Script,
    seen: Arc<Mutex<Vec<H2Message>>>,
) -> Result<(), bool> {
    let (parts, body) = request.into_parts();
    // Who expects to be told gets leave, but for `/refused`.
    if parts.headers.contains_key("expect") {
        let status = if parts.uri.path() == "/refused" { StatusCode::FORBIDDEN } else { StatusCode::CONTINUE };
        let mut told = Response::new(());
        *told.status_mut() = status;
        if status == StatusCode::FORBIDDEN {
            let _ = respond.send_response(told, true);
            return Ok(());
        }
        let _ = respond.send_informational(told);
    }
    let Ok((body, trailers)) = read(body).await else { return Ok(()) };
    let message = H2Message {
        connection,
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        authority: parts.uri.authority().map(ToString::to_string).unwrap_or_default(),
        headers: parts.headers,
        body,
        trailers,
        ..H2Message::default()
    };
    seen.lock().expect("not poisoned").push(message.clone());
    let act = script(&message);
    let (answer, half, leave) = match act {
        Act::Reset(reason) => {
            respond.send_reset(reason);
            return Ok(());
        }
        Act::Gone => return Err(true),
        Act::Silence => {
            std::future::pending::<()>().await;
            return Ok(());
        }
        Act::Pieces(answer, pieces) => {
            send_pieces(respond, answer, &pieces).await;
            return Ok(());
        }
        Act::Answer(answer) => (answer, false, false),
        Act::Half(answer) => (answer, true, false),
        Act::Leave(answer) => (answer, false, true),
    };
    for status in &answer.interim {
        let mut early = Response::new(());
        *early.status_mut() = StatusCode::from_u16(*status).expect("a status");
        let _ = respond.send_informational(early);
    }
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::from_u16(answer.status).expect("a status");
    *head.headers_mut() = answer.headers;
    let is_bare = answer.body.is_empty() && answer.trailers.is_empty() || message.method == "HEAD";
    let Ok(mut out) = respond.send_response(head, is_bare) else { return Ok(()) };
    if half {
        let _ = out.send_data(Bytes::copy_from_slice(&answer.body[..answer.body.len() / 2]), false);
        // The data goes out before the reset takes its place.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        out.send_reset(Reason::INTERNAL_ERROR);
    } else if !is_bare {
        let trailers = (!answer.trailers.is_empty()).then_some(answer.trailers);
        let _ = send(out, &answer.body, trailers).await;
    }
    if leave { Err(false) } else { Ok(()) }
}

async fn send_pieces(mut respond: server::SendResponse<Bytes>, answer: H2Message, pieces: &Pieces) {
    let mut pieces = pieces.lock().expect("not poisoned").take().expect("one request only");
    let mut head = Response::new(());
    *head.headers_mut() = answer.headers;
    let Ok(mut out) = respond.send_response(head, false) else { return };
    while let Some(piece) = pieces.recv().await {
        let _ = out.send_data(piece, false);
    }
    let _ = out.send_data(Bytes::new(), true);
}
