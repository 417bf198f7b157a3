//! The admin address: health, readiness, metrics and reload, over plain HTTP on the control thread.
//!
//! It reads what others publish; the only thing it changes is what it asks `reload` for. The same guard stands before it as before the proxy: a web page or a
//! re-pointed name gets nothing. It is a server of its own, never on the proxy's port.

mod answer;
mod health;
mod metrics;
mod standing;

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Method, Request, Response, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use self::{
    answer::{Body, applied, problem, rejected, text},
    standing::{Quiet, Standing},
};
use super::reload::{self, Outcome};
use crate::{
    config::model::Scheme,
    proxy::{Code, balance::Balance},
    rules::{
        caller::is_local,
        origin::{Hosts, Origins, is_preflight},
    },
    snapshot,
    telemetry::metrics::Gauge,
    token::Engine,
};

/// How long a request head may take, and an idle connection may stand.
const HEAD: Duration = Duration::from_secs(10);

/// What the admin server tells of.
pub(super) struct Sources {
    pub(super) engine: Arc<Engine>,
    pub(super) snapshots: snapshot::Reader,
    /// By listener: its connections.
    pub(super) connections: Vec<(String, Gauge)>,
    /// Whose connections are turned away where there are too many.
    pub(super) balance: Arc<Balance>,
    /// Lines of the access log that were lost.
    pub(super) lost: Option<crate::telemetry::access::Lost>,
    /// The process is about to end.
    pub(super) draining: AtomicBool,
    /// Whom to ask for a reload.
    pub(super) reloads: mpsc::Sender<reload::Request>,
    /// How many there were.
    pub(super) counts: Arc<reload::Counts>,
}

/// The running server; it ends when it is dropped.
pub(super) struct Admin {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Admin {
    /// Binds the address, so that whatever is wrong with it shows at the start.
    pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Serves on it.
    pub(super) fn start(listener: TcpListener, sources: Arc<Sources>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        Ok(Self { address, accepting: tokio::spawn(accept(listener, address, sources)) })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(listener: tokio::net::TcpListener, address: SocketAddr, sources: Arc<Sources>) {
    let mut standing = Standing::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if !standing.has_room() {
                    continue;
                }
                let quiet = Quiet::new();
                let serving = serve(stream, is_local(peer.ip()), address, Arc::clone(&sources), Arc::clone(&quiet));
                standing.add(quiet, tokio::spawn(serving).abort_handle());
            }
            // Descriptors may have run out; what holds them gives them back.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn serve(stream: TcpStream, local: bool, address: SocketAddr, sources: Arc<Sources>, quiet: Arc<Quiet>) {
    let service = service_fn(move |request| {
        let (sources, quiet) = (Arc::clone(&sources), Arc::clone(&quiet));
        async move { Ok::<_, Infallible>(quiet.busy(handle(&request, local, address, &sources)).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    // A caller that goes away is nobody's fault.
    let _ = connection.await;
}

async fn handle(request: &Request<Incoming>, local: bool, address: SocketAddr, sources: &Sources) -> Response<Body> {
    let is_head = request.method() == Method::HEAD;
    let answer = match guard(request, address, sources) {
        Some(refused) => refused,
        None if request.uri().path() == "/api/v1/reload" => reload(request, local, sources).await,
        None => route(request, sources),
    };
    if is_head { answer.map(Body::without_content) } else { answer }
}

/// The refusal of a request that a web page, or a name that stands for another server, led here.
fn guard(request: &Request<Incoming>, address: SocketAddr, sources: &Sources) -> Option<Response<Body>> {
    let snapshot = sources.snapshots.snapshot();
    let server = snapshot.server();
    let all = |name: header::HeaderName| request.headers().get_all(name).into_iter().map(HeaderValue::as_bytes);
    let hosts = Hosts::new(address, Scheme::Http, &server.allowed_hosts);
    let mut named = all(header::HOST);
    let (Some(host), None) = (named.next(), named.next()) else {
        return Some(problem(Code::BadRequest, "there must be exactly one Host header"));
    };
    if let Err(misdirected) = hosts.check(host) {
        return Some(problem(Code::Misdirected, &misdirected.to_string()));
    }
    let asks = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let preflight = is_preflight(request.method().as_str(), asks);
    let sites = all(header::HeaderName::from_static("sec-fetch-site"));
    let refused = Origins::new(&server.allowed_origins).check(all(header::ORIGIN), sites, preflight).err()?;
    Some(problem(Code::OriginRefused, &refused.to_string()))
}

fn not_allowed(allowed: &'static str) -> Response<Body> {
    let mut refused = problem(Code::MethodRefused, &format!("this is for {allowed}"));
    refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    refused
}

/// Reads the configuration again. Only for this host, and only with a header that no web page can send without asking first.
async fn reload(request: &Request<Incoming>, local: bool, sources: &Sources) -> Response<Body> {
    if request.method() != Method::POST {
        return not_allowed("POST");
    }
    let mut marks = request.headers().get_all("x-cupbearer").into_iter();
    if (marks.next().map(HeaderValue::as_bytes), marks.next()) != (Some(b"1"), None) {
        return problem(Code::OriginRefused, "what changes something needs the header X-Cupbearer: 1");
    }
    if !local {
        return problem(Code::CallerDenied, "only this host may change something");
    }
    let (reply, outcome) = oneshot::channel();
    let asked = sources.reloads.send(reload::Request { why: "asked for at the admin address", reply: Some(reply) });
    if asked.await.is_err() {
        return problem(Code::Overloaded, "cupbearer is shutting down");
    }
    match outcome.await {
        Ok(Outcome::Applied { generation, restart }) => applied(generation, &restart),
        Ok(Outcome::Problems(problems)) => rejected(&problems.to_string(), Some(&problems)),
        Ok(Outcome::Refused(why)) => rejected(&why, None),
        Err(_) => problem(Code::Overloaded, "cupbearer is shutting down"),
    }
}

fn route(request: &Request<Incoming>, sources: &Sources) -> Response<Body> {
    let path = request.uri().path();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match path {
        "/healthz" | "/readyz" | "/metrics" if !reads => not_allowed("GET, HEAD"),
        "/healthz" => text(200, "text/plain; charset=utf-8", "ok\n".to_owned()),
        "/readyz" => health::ready(sources),
        "/metrics" => metrics::answer(sources),
        "/" => problem(Code::NoRoute, "the dashboard is not built yet; there are /healthz, /readyz and /metrics"),
        path if path.starts_with("/api/v1/") => problem(
            Code::NoRoute,
            "this part of the admin API is not built yet; there are /healthz, /readyz and /metrics",
        ),
        _ => problem(Code::NoRoute, "there are /healthz, /readyz and /metrics"),
    }
}

impl Sources {
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
