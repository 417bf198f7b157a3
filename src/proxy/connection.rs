//! One caller's connection: request after request, until either side has had enough.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::{
    admission::{self, NoHead},
    buffer::Buffer,
    clock,
    error::{self, Code, ErrorFacts, ProxyError},
    exchange::{Broken, Caller},
    forward::{self, Next, Request},
    guard, h2,
    record::{Asked, Record},
    refusal::Full,
    seats::Seat,
    socket::Socket,
    worker::{Core, Worker},
};
use crate::{
    net::Tcp,
    rules::{headers::is_usable_request_id, origin::Hosts},
    wire::{Field, Framing, Kind, RequestHead, Version, head::request_line, translate::TranslateError},
};

/// Serves a connection in a task of its own on this core.
pub(super) fn spawn(worker: &Rc<Worker>, stream: Socket, peer: Peer, seat: Seat) {
    tokio::task::spawn_local(serve(Rc::clone(worker), stream, peer, seat));
}

/// The same behind a TLS handshake, which has as long as a head.
pub(super) fn spawn_tls(worker: &Rc<Worker>, tcp: TcpStream, tls: TlsAcceptor, peer: Peer, seat: Seat) {
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let patience = worker.core().snapshot.server().header_timeout;
        match tokio::time::timeout(patience, tls.accept(Tcp::new(tcp))).await {
            Ok(Ok(stream)) => serve(worker, Socket::Tls(Box::new(stream)), peer, seat).await,
            Ok(Err(error)) => tracing::debug!(peer = peer.text, "no TLS handshake with a caller: {error}"),
            Err(_) => tracing::debug!(peer = peer.text, "no TLS handshake with a caller within header_timeout"),
        }
    });
}

/// Answers a connection that has no place: quickly, whatever it asks, in its own version of HTTP, and once.
pub(super) async fn turn_away(worker: Rc<Worker>, stream: Socket, peer: Peer, why: Full, seat: Seat) {
    let (core, now) = (worker.core(), clock::now());
    let mut caller = Caller::new(stream, now, now + admission::AFTER_REFUSAL);
    let peer = Peer { turned_away: Some(why), ..peer };
    if !caller.side.io.chose_h2() {
        // One that waits to be spoken to first is told, too.
        let head = admission::head(&mut caller, &worker.buffers, core.snapshot.server(), seat.idle());
        let _ = tokio::time::timeout(admission::AFTER_REFUSAL, head).await;
        let bytes = caller.side.buf.filled().to_vec();
        if !bytes.starts_with(h2::server::PREFACE) {
            refuse(&worker, &core, &peer.text, &mut caller, asked_of(&bytes), &why.error()).await;
            return admission::linger(&mut caller, admission::AFTER_REFUSAL).await;
        }
    }
    let read = std::mem::take(&mut caller.side.buf);
    Box::pin(h2::server::serve(worker, caller.side.io, read, peer, seat)).await;
}

/// What stays the same from request to request.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    text: String,
    hosts: Rc<Hosts>,
    /// It has no place: whatever it asks, the answer is this.
    pub(super) turned_away: Option<Full>,
}

impl Peer {
    /// A caller at this address, who may use these names.
    pub(super) fn new(address: SocketAddr, hosts: Rc<Hosts>) -> Self {
        Self { address, text: address.ip().to_canonical().to_string(), hosts, turned_away: None }
    }
}

async fn serve(worker: Rc<Worker>, stream: Socket, peer: Peer, seat: Seat) {
    let core = worker.core();
    let now = clock::now();
    let mut caller = Caller::new(stream, now, now + core.snapshot.server().idle_timeout);
    if caller.side.io.chose_h2() {
        return Box::pin(h2::server::serve(worker, caller.side.io, Buffer::default(), peer, seat)).await;
    }
    let (mut fields, mut first) = (Vec::new(), true);
    loop {
        let core = worker.core();
        let length = match admission::head(&mut caller, &worker.buffers, core.snapshot.server(), seat.idle()).await {
            Ok(length) => length,
            Err(NoHead::Ended) => return,
            Err(NoHead::Refused(refused)) => {
                let bytes = caller.side.buf.filled().to_vec();
                refuse(&worker, &core, &peer.text, &mut caller, asked_of(&bytes), &refused).await;
                Box::pin(admission::linger(&mut caller, admission::AFTER_REFUSAL)).await;
                return;
            }
        };
        let taken = std::mem::take(&mut caller.side.buf);
        if first && taken.filled().starts_with(h2::server::PREFACE) {
            return Box::pin(h2::server::serve(worker, caller.side.io, taken, peer, seat)).await;
        }
        first = false;
        let mut rest = Buffer::default();
        if taken.len() > length {
            rest = worker.buffers.small();
            rest.push(&taken.filled()[length..]);
        }
        caller.side.buf = rest;
        let next = request(&worker, &core, &peer, &mut caller, &taken.filled()[..length], &mut fields).await;
        worker.buffers.give(taken);
        match next {
            Some(Next::KeepAlive) if !worker.is_draining() => {}
            Some(_) => {
                Box::pin(admission::linger(&mut caller, admission::AFTER_BODY)).await;
                return;
            }
            None => return,
        }
    }
}

/// Serves the one request of a stream of HTTP/2, whose head is told in the words of HTTP/1.1.
pub(super) async fn serve_stream(worker: &Worker, peer: &Peer, io: Socket, head: Result<&[u8], TranslateError>) {
    let (core, now) = (worker.core(), clock::now());
    let mut caller = Caller::new(io, now, now + core.snapshot.server().idle_timeout);
    let limits = core.snapshot.server();
    let next = match (head, peer.turned_away) {
        (Ok(head), Some(why)) => {
            refuse(worker, &core, &peer.text, &mut caller, asked_of(head), &why.error()).await;
            Some(Next::Close)
        }
        (Ok(head), None) if head.len() > limits.max_header_bytes => {
            refuse(worker, &core, &peer.text, &mut caller, asked_of(head), &admission::too_large(head, limits)).await;
            Some(Next::Close)
        }
        (Ok(head), None) => request(worker, &core, peer, &mut caller, head, &mut Vec::new()).await,
        (Err(why), _) => {
            let (asked, refused) =
                (Asked::new(Version::H2, "", b""), ProxyError::new(Code::BadRequest, why.to_string()));
            refuse(worker, &core, &peer.text, &mut caller, asked, &refused).await;
            Some(Next::Close)
        }
    };
    // To take no more of an upload is to reset its stream, and some clients (curl 7.88) then forget the answer.
    if next.is_some() && !caller.side.io.has_sent_all() {
        admission::linger(&mut caller, admission::AFTER_BODY).await;
    }
}

/// What a head asks for that is not read any further.
fn asked_of(bytes: &[u8]) -> Asked<'_> {
    request_line(bytes).map(|(method, target, version)| Asked::new(version, method, target)).unwrap_or_default()
}

/// Answers what never became a request.
async fn refuse(worker: &Worker, core: &Core, peer: &str, caller: &mut Caller, asked: Asked<'_>, error: &ProxyError) {
    let id = worker.request_id();
    let record = Record::open(worker, core, peer, id.as_str(), asked, caller.arrived);
    answer(caller, &record, error, facts(id.as_str(), true)).await;
}

fn facts(request_id: &str, close: bool) -> ErrorFacts<'_> {
    ErrorFacts { request_id, route: None, credential: None, head_only: false, close }
}

async fn answer(caller: &mut Caller, record: &Record<'_>, error: &ProxyError, facts: ErrorFacts<'_>) {
    /// A caller that does not take an error answer of a few hundred bytes is not waited for.
    const PATIENCE: Duration = Duration::from_secs(5);
    tracing::debug!(code = error.code.as_str(), request_id = facts.request_id, "{}", error.detail);
    let mut out = Vec::with_capacity(1024);
    record.tally.refused(error.code, error::write(&mut out, error, facts));
    match tokio::time::timeout(PATIENCE, caller.side.io.answer(&out)).await {
        Ok(Ok(())) => record.tally.whole.set(true),
        _ => record.tally.aborted.set("the caller did not take the answer"),
    }
}

/// One request: judge → authorize → forward → respond; any error ends in an answer, or in `None` where
/// the connection must be dropped because no honest answer is possible any more.
async fn request(
    worker: &Worker,
    core: &Rc<Core>,
    peer: &Peer,
    caller: &mut Caller,
    bytes: &[u8],
    fields: &mut Vec<Field>,
) -> Option<Next> {
    caller.body_begun = false;
    let mut head = match RequestHead::parse(bytes, std::mem::take(fields)) {
        Ok(head) => head,
        Err(e) => {
            refuse(worker, core, &peer.text, caller, asked_of(bytes), &admission::refusal(e)).await;
            return Some(Next::Close);
        }
    };
    if caller.side.io.is_h2() {
        head.version = Version::H2;
    }
    let own_id;
    let id = match head.values(bytes, Kind::XRequestId).next() {
        Some(theirs) if is_usable_request_id(theirs) => std::str::from_utf8(theirs).unwrap_or_default(),
        _ => {
            own_id = worker.request_id();
            own_id.as_str()
        }
    };
    let asked = Asked::new(head.version, head.method(bytes), head.target(bytes));
    let record = Record::open(worker, core, &peer.text, id, asked, caller.arrived);
    let broken = match judge_and_forward(worker, core, peer, caller, &head, bytes, &record).await {
        Ok(next) => {
            record.tally.whole.set(true);
            drop(record);
            *fields = head.fields;
            return Some(next);
        }
        Err(broken) => broken,
    };
    let error = match broken {
        Broken::Answer(error) => error,
        Broken::Stale => ProxyError::new(
            Code::UpstreamProtocol,
            "the upstream refused the request, or closed the connection, before it acted on it",
        ),
        Broken::Abort(why) => {
            tracing::debug!(request_id = id, "connection dropped: {why}");
            record.tally.aborted.set(why);
            caller.side.io.abort();
            return None;
        }
    };
    // An HTTP/1.0 caller would have to be told that the connection goes on; after an error it just ends.
    let keep =
        head.version == Version::H11 && head.keeps_alive(bytes) && !worker.is_draining() && body_is_here(caller, &head);
    // A stranger, and a web page that nobody let in, are not told what there is.
    let is_told = !matches!(error.code, Code::CallerUnknown | Code::OriginRefused);
    let route = record.route.get().filter(|_| is_told).map(|at| &core.snapshot.routes[at].spec);
    let facts = ErrorFacts {
        request_id: id,
        route: route.map(|r| r.prefix.as_str()),
        credential: route.map(|r| r.token.credential.name.as_str()),
        head_only: head.method(bytes) == "HEAD",
        close: !keep,
    };
    answer(caller, &record, &error, facts).await;
    Some(if keep { Next::KeepAlive } else { Next::Close })
}

async fn judge_and_forward<'a>(
    worker: &Worker,
    core: &'a Rc<Core>,
    peer: &Peer,
    caller: &mut Caller,
    head: &RequestHead,
    bytes: &[u8],
    record: &Record<'a>,
) -> Result<Next, Broken> {
    admission::target_fits(head.target(bytes), core.snapshot.server())?;
    let approved = guard::judge(&core.snapshot, &peer.hosts, peer.address.ip(), head, bytes).map_err(|refused| {
        record.route.set(refused.route);
        record.caller.set(refused.caller);
        refused.error
    })?;
    record.route.set(Some(approved.route));
    record.caller.set(approved.caller);
    let _permit = core.permit(approved.route)?;
    let rest = &head.target(bytes)[approved.rest];
    let scheme = peer.hosts.scheme().as_str();
    let websocket = head.asks_for_websocket(bytes);
    let (route, id, tally) = (approved.route, record.id, &record.tally);
    let request = Request { head, bytes, rest, route, id, peer: &peer.text, scheme, websocket, tally };
    forward::forward(worker, core, &request, caller).await
}

/// Whether nothing of an unread body stands in the way of the next request; a whole small one is skipped.
fn body_is_here(caller: &mut Caller, head: &RequestHead) -> bool {
    match head.framing {
        framing if framing.is_empty() => true,
        // What is in the buffer is no longer the body's beginning, and may be the next request's.
        _ if caller.body_begun => false,
        Framing::Length(n) if n <= caller.side.buf.len() as u64 => {
            caller.side.buf.consume(usize::try_from(n).unwrap_or(usize::MAX));
            true
        }
        _ => false,
    }
}
