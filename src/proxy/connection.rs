//! One caller's connection: request after request, until either side has had enough.

use std::{net::SocketAddr, rc::Rc};

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::{
    admission::{self, NoHead},
    body::Side,
    buffer::Buffer,
    clock,
    error::{self, Code, ErrorFacts, ProxyError},
    exchange::{Broken, Caller},
    forward::{self, Next, Request},
    guard, h2,
    seats::Seat,
    socket::Socket,
    timer::Timer,
    worker::{Core, Worker},
};
use crate::{
    rules::{headers::is_usable_request_id, origin::Hosts},
    wire::{Field, Framing, Kind, RequestHead, Version, translate::TranslateError},
};

/// Serves a connection in a task of its own on this core.
pub(super) fn spawn(worker: &Rc<Worker>, stream: Socket, peer: SocketAddr, hosts: Rc<Hosts>) {
    let Some(seat) = worker.seat() else {
        if let Some(seat) = worker.refusal_seat() {
            tokio::task::spawn_local(turn_away(Rc::clone(worker), stream, seat));
        }
        return;
    };
    tokio::task::spawn_local(serve(Rc::clone(worker), stream, peer, hosts, seat));
}

/// The same behind a TLS handshake, which has as long as a head.
pub(super) fn spawn_tls(worker: &Rc<Worker>, tcp: TcpStream, tls: TlsAcceptor, peer: SocketAddr, hosts: Rc<Hosts>) {
    // Over `max_connections` there is no time for a handshake, hence none for an answer.
    let Some(seat) = worker.seat() else { return };
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let patience = worker.core().snapshot.server().header_timeout;
        match tokio::time::timeout(patience, tls.accept(tcp)).await {
            Ok(Ok(stream)) => serve(worker, Socket::Tls(Box::new(stream)), peer, hosts, seat).await,
            Ok(Err(error)) => tracing::debug!(%peer, "no TLS handshake with a caller: {error}"),
            Err(_) => tracing::debug!(%peer, "no TLS handshake with a caller within header_timeout"),
        }
    });
}

/// Over `max_connections`: a quick answer instead of silence.
async fn turn_away(worker: Rc<Worker>, stream: Socket, _seat: Seat) {
    let timer = Timer::new(clock::now() + admission::AFTER_REFUSAL);
    let mut caller = Caller { side: Side { io: stream, buf: Buffer::default() }, timer, body_begun: false };
    let text = "as many callers are connected as may be (max_connections)";
    let id = worker.request_id();
    answer(&mut caller, &ProxyError::new(Code::Overloaded, text).retry_after(1), facts(id.as_str(), true)).await;
    admission::linger(&mut caller, admission::AFTER_REFUSAL).await;
}

/// What stays the same from request to request.
pub(super) struct Peer {
    address: SocketAddr,
    text: String,
    hosts: Rc<Hosts>,
}

async fn serve(worker: Rc<Worker>, stream: Socket, address: SocketAddr, hosts: Rc<Hosts>, seat: Seat) {
    let core = worker.core();
    let timer = Timer::new(clock::now() + core.snapshot.server().idle_timeout);
    let mut caller = Caller { side: Side { io: stream, buf: Buffer::default() }, timer, body_begun: false };
    let peer = Peer { address, text: address.ip().to_canonical().to_string(), hosts };
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
                let id = worker.request_id();
                answer(&mut caller, &refused, facts(id.as_str(), true)).await;
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
    let core = worker.core();
    let timer = Timer::new(clock::now() + core.snapshot.server().idle_timeout);
    let mut caller = Caller { side: Side { io, buf: Buffer::default() }, timer, body_begun: false };
    match head {
        Ok(head) => {
            request(worker, &core, peer, &mut caller, head, &mut Vec::new()).await;
        }
        Err(why) => {
            let (id, refused) = (worker.request_id(), ProxyError::new(Code::BadRequest, why.to_string()));
            answer(&mut caller, &refused, facts(id.as_str(), true)).await;
        }
    }
}

fn facts(request_id: &str, close: bool) -> ErrorFacts<'_> {
    ErrorFacts { request_id, route: None, credential: None, head_only: false, close }
}

async fn answer(caller: &mut Caller, error: &ProxyError, facts: ErrorFacts<'_>) {
    use std::time::Duration;
    /// A caller that does not take an error answer of a few hundred bytes is not waited for.
    const PATIENCE: Duration = Duration::from_secs(5);
    tracing::debug!(code = error.code.as_str(), request_id = facts.request_id, "{}", error.detail);
    let mut out = Vec::with_capacity(1024);
    error::write(&mut out, error, facts);
    let _ = tokio::time::timeout(PATIENCE, caller.side.io.answer(&out)).await;
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
            let id = worker.request_id();
            answer(caller, &admission::refusal(e), facts(id.as_str(), true)).await;
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
    let (broken, route) = match judge_and_forward(worker, core, peer, caller, &head, bytes, id).await {
        Ok(next) => {
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
            caller.side.io.abort();
            return None;
        }
    };
    // An HTTP/1.0 caller would have to be told that the connection goes on; after an error it just ends.
    let keep =
        head.version == Version::H11 && head.keeps_alive(bytes) && !worker.is_draining() && body_is_here(caller, &head);
    let route = route.map(|at| &core.snapshot.routes[at].spec);
    let facts = ErrorFacts {
        request_id: id,
        route: route.map(|r| r.prefix.as_str()),
        credential: route.map(|r| r.token.credential.name.as_str()),
        head_only: head.method(bytes) == "HEAD",
        close: !keep,
    };
    answer(caller, &error, facts).await;
    Some(if keep { Next::KeepAlive } else { Next::Close })
}

async fn judge_and_forward(
    worker: &Worker,
    core: &Rc<Core>,
    peer: &Peer,
    caller: &mut Caller,
    head: &RequestHead,
    bytes: &[u8],
    id: &str,
) -> Result<Next, (Broken, Option<usize>)> {
    let approved = guard::judge(&core.snapshot, &peer.hosts, peer.address.ip(), head, bytes)
        .map_err(|refused| (refused.error.into(), refused.route))?;
    let at = |broken| (broken, Some(approved.route));
    let _permit = core.permit(approved.route).map_err(|e| at(e.into()))?;
    let rest = &head.target(bytes)[approved.rest];
    let scheme = peer.hosts.scheme().as_str();
    let websocket = head.asks_for_websocket(bytes);
    let request = Request { head, bytes, rest, route: approved.route, id, peer: &peer.text, scheme, websocket };
    forward::forward(worker, core, &request, caller).await.map_err(|broken| (broken, Some(approved.route)))
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
