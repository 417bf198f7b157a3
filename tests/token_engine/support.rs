//! Builders: a credential, a provider, a log that is kept.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cupbearer::{
    config::{
        model::{
            Assertion, ClientAuth, CredentialSpec, ExpiresUnit, Expiry, Grant, LoginSpec, NetSpec, Scheme, TokenBody,
            TokenMethod, TokenSpec, Upstream, Warm,
        },
        secret::{Secret, SecretSource},
    },
    token::{
        Engine, Reader,
        bearer::Now,
        credential::{Material, MaterialError},
        lifetime::LifetimeSource,
        pace::Pace,
        reply::{Minted, fingerprint},
        sources::{Sources, Want},
    },
};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};

pub(crate) const SECRET: &str = "not-a-secret-8f3a";

/// A credential at the provider on this port, asked by `client_secret_post` with a form.
pub(crate) fn credential(port: u16) -> CredentialSpec {
    CredentialSpec {
        name: "acme".to_owned(),
        provider: None,
        client_id: "client-1".to_owned(),
        client_secret: Some(given(SECRET)),
        more_secrets: Vec::new(),
        grant: Grant::ClientCredentials,
        grant_type: Some("client_credentials".to_owned()),
        token_url: upstream(port),
        token_target: "/oauth2/token".to_owned(),
        login: LoginSpec::default(),
        issuer: None,
        refresh_target: None,
        client_auth: ClientAuth::Post,
        method: TokenMethod::Post,
        body: TokenBody::Form,
        scopes: Vec::new(),
        scope_separator: " ".to_owned(),
        audience: None,
        resource: Vec::new(),
        params: Vec::new(),
        headers: Vec::new(),
        id_param: "client_id".to_owned(),
        secret_param: "client_secret".to_owned(),
        token_field: "/access_token".to_owned(),
        expires_field: "/expires_in".to_owned(),
        expires_unit: ExpiresUnit::Seconds,
        default_ttl: Duration::from_secs(300),
        expiry: Expiry::Fixed,
        warm: Warm::OnUse,
        share: true,
        net: Arc::new(NetSpec::default()),
        timeout: Duration::from_secs(5),
        budget: None,
        key: None,
        key_cert: None,
        key_id: None,
        alg: None,
        assertion: Assertion::default(),
        dpop: false,
    }
}

/// This token, asked for then.
pub(crate) fn minted(token: &str, issued: Now, life: Duration) -> Minted {
    Minted {
        token: Secret::new(token.to_owned()),
        fingerprint: fingerprint(token),
        issued,
        life,
        life_from: LifetimeSource::ExpiresIn,
        scope: None,
        skew: None,
        refresh: None,
        identity: None,
        token_type: None,
        proof: None,
    }
}

/// The secrets of a credential, read now.
pub(crate) async fn read(credential: &CredentialSpec) -> Result<Material, MaterialError> {
    Material::read(credential, &Sources::default(), Want::Request).await
}

/// What a route without needs of its own needs of `credential`.
pub(crate) fn need(credential: CredentialSpec) -> Arc<TokenSpec> {
    let (scopes, audience, resource) =
        (credential.scopes.clone(), credential.audience.clone(), credential.resource.clone());
    Arc::new(TokenSpec { credential: Arc::new(credential), scopes, audience, resource })
}

pub(crate) fn upstream(port: u16) -> Upstream {
    Upstream {
        scheme: Scheme::Http,
        host: "127.0.0.1".to_owned(),
        port,
        authority: format!("127.0.0.1:{port}"),
        insecure: false,
        base_path: String::new(),
    }
}

/// A source that needs no file.
pub(crate) fn given(secret: &str) -> SecretSource {
    SecretSource::Given { name: "GIVEN".to_owned(), value: Secret::new(secret.to_owned()) }
}

/// A new file with this secret in it.
pub(crate) fn secret_file(secret: &str) -> PathBuf {
    new_file("secret", &format!("{secret}\n"))
}

fn new_file(kind: &str, text: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("{kind}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).expect("a temporary file");
    path
}

/// The cells of a configuration that needs exactly these tokens, and holds from now on.
pub(crate) fn adopt<const N: usize>(engine: &Engine, specs: [&Arc<TokenSpec>; N]) -> [Reader; N] {
    let mut plan = engine.plan();
    let readers = specs.map(|spec| plan.reader(spec).expect("a cell"));
    plan.adopt();
    readers
}

/// Numbers that let a test see several back-offs within a second.
pub(crate) fn quick() -> Pace {
    let ms = Duration::from_millis;
    Pace {
        transient: (ms(40), ms(200)),
        permanent: (ms(200), Duration::from_secs(300)),
        hold: (ms(100), ms(2000)),
        brake: ms(10),
        tick: ms(200),
        secret_poll: ms(20),
        ..Pace::default()
    }
}

/// What the provider does with a token request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
    /// As `Answer`, but only once [`Provider::open`] was called.
    Gated(String),
    /// Never.
    Hang,
    /// A head, then a byte every 10 ms.
    Drip,
    /// Half an answer.
    CutOff,
    /// Something that is no HTTP.
    NoHttp,
}

impl Reply {
    pub(crate) fn json(status: u16, body: &str) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self::Answer { status, headers, body: body.to_owned() }
    }

    pub(crate) fn token(token: &str, life: u64) -> Self {
        Self::json(200, &token_json(token, life))
    }
}

pub(crate) fn token_json(token: &str, life: u64) -> String {
    format!(r#"{{"access_token":"{token}","expires_in":{life},"token_type":"bearer"}}"#)
}

/// An identity provider on loopback: gives its replies in turn, the last one for ever.
pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    /// Of a provider that speaks TLS: who vouches for it.
    pub(crate) ca_file: Option<PathBuf>,
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

struct Inner {
    replies: Mutex<VecDeque<Reply>>,
    requests: Mutex<Vec<String>>,
    gate: Semaphore,
    open: AtomicUsize,
}

impl Provider {
    pub(crate) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), replies).await
    }

    pub(crate) async fn start_at(address: SocketAddr, replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind(address).await.expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let inner = Arc::new(Inner {
            replies: Mutex::new(replies.into_iter().collect()),
            requests: Mutex::default(),
            gate: Semaphore::new(0),
            open: AtomicUsize::new(0),
        });
        let task = tokio::spawn(serve(listener, Arc::clone(&inner), None));
        Self { address, ca_file: None, inner, task }
    }

    /// With a certificate of its own for 127.0.0.1.
    pub(crate) async fn start_tls(replies: impl IntoIterator<Item = Reply>) -> Self {
        let mut plain = Self::start([Reply::Hang]).await;
        plain.turn_to(replies);
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .expect("a usable certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        plain.task.abort();
        plain.address = listener.local_addr().expect("an address");
        plain.task = tokio::spawn(serve(listener, Arc::clone(&plain.inner), Some(Arc::new(config))));
        plain.ca_file = Some(new_file("ca.pem", &certified.cert.pem()));
        plain
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Bodies of the token requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.inner.requests.lock().expect("unpoisoned").clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.requests().len()
    }

    /// From now on these replies.
    pub(crate) fn turn_to(&self, replies: impl IntoIterator<Item = Reply>) {
        *self.inner.replies.lock().expect("unpoisoned") = replies.into_iter().collect();
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.inner.open.load(Ordering::SeqCst)
    }

    /// Ends it; its port is free afterwards.
    pub(crate) async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// Lets one gated reply go.
    pub(crate) fn open(&self) {
        self.inner.gate.add_permits(1);
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, inner: Arc<Inner>, tls: Option<Arc<rustls::ServerConfig>>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((tcp, _)) = listener.accept().await else { return };
        let (inner, tls) = (Arc::clone(&inner), tls.clone());
        connections.spawn(async move {
            inner.open.fetch_add(1, Ordering::SeqCst);
            let service = service_fn(|request| answer(Arc::clone(&inner), request));
            let http = hyper::server::conn::http1::Builder::new();
            if let Some(tls) = tls {
                if let Ok(stream) = tokio_rustls::TlsAcceptor::from(tls).accept(tcp).await {
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                }
            } else if let Some(tcp) = answer_raw(&inner, tcp).await {
                let _ = http.serve_connection(TokioIo::new(tcp), service).await;
            }
            inner.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// The replies that no proper server would give.
async fn answer_raw(inner: &Inner, mut tcp: TcpStream) -> Option<TcpStream> {
    let reply = inner.replies.lock().expect("unpoisoned").front().cloned();
    let (first, drips): (&[u8], bool) = match reply {
        Some(Reply::Drip) => (b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{", true),
        Some(Reply::CutOff) => (b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"access_token\":\"t0\"}", false),
        Some(Reply::NoHttp) => (b"220 mail.example ESMTP\r\n", false),
        _ => return Some(tcp),
    };
    let mut request = [0; 4096];
    let _ = tcp.read(&mut request).await;
    inner.next();
    let _ = tcp.write_all(first).await;
    while drips && tcp.write_all(b" ").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    None
}

impl Inner {
    fn next(&self) -> Reply {
        let mut replies = self.replies.lock().expect("unpoisoned");
        let reply = if replies.len() > 1 { replies.pop_front() } else { replies.front().cloned() };
        reply.expect("a reply")
    }
}

async fn answer(inner: Arc<Inner>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.expect("a whole request").to_bytes();
    inner.requests.lock().expect("unpoisoned").push(String::from_utf8_lossy(&body).into_owned());
    let (status, headers, body) = match inner.next() {
        Reply::Answer { status, headers, body } => (status, headers, body),
        Reply::Gated(body) => {
            inner.gate.acquire().await.expect("open").forget();
            (200, vec![("content-type", "application/json".to_owned())], body)
        }
        Reply::Hang | Reply::Drip | Reply::CutOff | Reply::NoHttp => std::future::pending().await,
    };
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(Bytes::from(body))).expect("a legal response"))
}

/// Everything that was logged in this process since the first call, at trace level, rustls' lines included.
pub(crate) fn log() -> String {
    String::from_utf8_lossy(&buffer().lock().expect("unpoisoned")).into_owned()
}

fn buffer() -> &'static Arc<Mutex<Vec<u8>>> {
    static BUFFER: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();
    BUFFER.get_or_init(|| {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&buffer);
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || Writer(Arc::clone(&writer)))
            .init();
        buffer
    })
}

struct Writer(Arc<Mutex<Vec<u8>>>);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("unpoisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `250ms`, `1.5s`, `2m`, `1h`, `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text} is no duration");
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (value, unit) = rest.split_at(digits);
        let end = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let (unit, after) = unit.split_at(end);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(bad()),
        };
        total += value.parse::<f64>().map_err(|_| bad())? * seconds;
        rest = after;
    }
    Duration::try_from_secs_f64(total).map_err(|_| bad())
}
