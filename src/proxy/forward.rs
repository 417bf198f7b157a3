//! 6 forward — the attempts at the upstream: one, at most one more after a rejected token, and a few where it says that it did not
//! act; only where the request can be sent again without having been executed.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    authorize::{authorize, identity, is_authorized, with_token},
    body::{Pump, Replay, Side},
    clock,
    error::{Code, ProxyError},
    exchange::{Broken, Caller, Exchange, too_large},
    h2::Unsent,
    proof,
    record::Tally,
    respond::{self, Answer},
    socket::Link,
    upgrade,
    upstream::Wanted,
    worker::{Core, Worker},
};
use crate::{
    net::Identity,
    rules::{challenge::blames_token, headers::RequestFacts},
    snapshot::{Origin, Route},
    telemetry::metrics::ReplayOutcome,
    token::bearer::{Now, Rejection, Terms},
    wire::{Framing, Kind, RequestHead, ResponseHead, Version},
};

/// A request that was approved.
pub(super) struct Request<'a> {
    pub(super) head: &'a RequestHead,
    pub(super) bytes: &'a [u8],
    pub(super) rest: &'a [u8],
    pub(super) route: usize,
    pub(super) id: &'a str,
    pub(super) peer: &'a str,
    /// What the caller speaks: `http` or `https`.
    pub(super) scheme: &'a str,
    /// It asks for a WebSocket.
    pub(super) websocket: bool,
    /// Where is noted down what becomes of it.
    pub(super) tally: &'a Tally,
}

/// How the caller's connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The next request may follow.
    KeepAlive,
    /// The answer was complete, but the connection ends.
    Close,
}

/// How many interim responses one request may have; an upstream that reports progress sends some.
const MOST_INTERIM: usize = 1000;
/// ... and of how many bytes: those of HTTP/2 are bounded by no window.
const MOST_INTERIM_BYTES: usize = 256 * 1024;
/// How often a request is sent again that its upstream has refused before it acted on it.
const MOST_REFUSED: u8 = 8;
/// How long an upstream may be silent before a caller that waits for leave to send its body gets it from us.
const LEAVE: Duration = Duration::from_secs(1);

/// Why a rejection by the upstream goes through to the caller; empty = there was none.
fn marker(outcome: Option<ReplayOutcome>) -> &'static str {
    match outcome {
        Some(ReplayOutcome::NotPossible) => "not replayed: body already streamed",
        Some(ReplayOutcome::TooFresh) => "not replayed: the token is fresh",
        Some(ReplayOutcome::SameToken) => "not replayed: the provider gave the same token",
        Some(ReplayOutcome::Rejected) => "not replayed: rejected again after a replay",
        Some(ReplayOutcome::Proof) => "not replayed: the upstream refuses our DPoP proof",
        Some(ReplayOutcome::Accepted | ReplayOutcome::Failed) | None => "",
    }
}

/// What a request has behind it.
#[derive(Debug, Default)]
struct Tries {
    /// Tokens of generations up to this one are not tried any more.
    above: u64,
    /// It was sent again with a new token.
    replayed: bool,
    /// It was sent again with a better proof.
    mended: bool,
    /// What that proof is made by; nobody else knows it yet.
    told: Option<Arc<Terms>>,
    /// The kept connection had ended: it goes on a new one.
    fresh: bool,
    /// How often an upstream did not act on it, and until when it is sent elsewhere.
    refused: u8,
    until: Option<Instant>,
}

/// Sends the request on and the answer back.
pub(super) async fn forward(
    worker: &Worker,
    core: &Rc<Core>,
    request: &Request<'_>,
    caller: &mut Caller,
) -> Result<Next, Broken> {
    let route = &core.snapshot.routes[request.route];
    if let (Framing::Length(n), Some(max)) = (request.head.framing, route.spec.max_body)
        && n > max
    {
        return Err(too_large(route).into());
    }
    let mut replay = Replay::new(replay_limit(route, request.head.framing), &worker.replay_budget);
    let mut upload: Option<Pump> = None;
    let mut tries = Tries::default();
    // Exact where the turn's time was not enough to see that the token has ended.
    let mut exact = None;
    loop {
        let now = exact.take().unwrap_or_else(clock::turn);
        // What waits is boxed: most requests wait for neither, and each would carry the room for both.
        if !is_authorized(route, tries.above, now) {
            caller.wait_for(&worker.buffers, Box::pin(authorize(route, tries.above))).await?;
        }
        let identity = identity(route, now);
        let (origin, pool) = (&core.snapshot.origins[route.origin], worker.pool(core, route, identity.as_ref()));
        let wanted = Wanted { fresh: tries.fresh, websocket: request.websocket };
        let lent = match pool.ready(route, origin, wanted) {
            Some(lent) => lent,
            None => caller.wait_for(&worker.buffers, Box::pin(pool.connect(route, origin, wanted))).await?,
        };
        let mut up = lent.side;
        request.tally.upstream_protocol.set(up.io.protocol());
        let told = tries.told.as_ref();
        let Some(Written { head, generation, proof, at: sent }) =
            request_head(worker, route, origin, told, request, identity.as_ref())?
        else {
            pool.give(up.io, None);
            exact = Some(Now::read());
            continue;
        };
        let Some(head) = begin(&mut up.io, head, request)? else {
            if !tries.may_go_elsewhere(&up.io, lent.reused, sent, route.spec.response_timeout) {
                return Err(Broken::Stale);
            }
            continue;
        };
        let framing = request.head.framing;
        let (from, to) = (caller.side.io.reads(framing), up.io.sends(framing));
        let pump = if let Some(pump) = &mut upload {
            pump.again(head, to, &replay);
            pump
        } else {
            upload.insert(Pump::new(head, from, to, route.spec.max_body))
        };
        let mut exchange =
            Exchange::new(caller, &mut up, pump, &mut replay, &worker.buffers, (route, request.tally), sent);
        let response = match final_head(&mut exchange, core, request).await {
            // Not one byte of the request left this host: a new connection is no second execution. What was
            // taken from the caller must still be there.
            Err(Broken::Stale)
                if exchange.replay.is_possible()
                    && tries.may_go_elsewhere(&exchange.up.io, lent.reused, sent, route.spec.response_timeout) =>
            {
                continue;
            }
            other => other?,
        };
        let bytes = &exchange.up.buf.filled()[..response.length];
        request.tally.upstream_status.set(response.head.status);
        let rejected = is_rejection(route, &response.head, bytes);
        if !rejected && response.head.status != 401 {
            route.bearer.used(generation, sent);
        }
        let can_replay = exchange.replay.is_possible();
        let can_mend = can_replay && !tries.mended;
        let judge = |used| proof::judge(origin, &used, can_mend, &response.head, bytes);
        let verdict = proof.map_or(proof::Verdict::Fine, judge);
        if response.head.status == 101 {
            let head = respond::informational(core, request, &response.head, bytes);
            exchange.up.buf.consume(response.length);
            Box::pin(upgrade::tunnel(&mut exchange, head)).await?;
            return Ok(Next::Close);
        }
        let mut ending = tries.end(route, generation, rejected, verdict, can_replay);
        let mut renewed = Ok(());
        if tries.above == generation && matches!(ending, Ending::Again) {
            // The answer is kept until it is known that there is another token to try.
            renewed = exchange.caller.wait_for(&worker.buffers, Box::pin(authorize(route, generation))).await;
            if renewed.is_ok() && route.bearer.is_repeat(generation) {
                ending = Ending::Final(Some(ReplayOutcome::SameToken));
            }
        }
        let Ending::Final(outcome) = ending else {
            request.tally.replayed.set(true);
            if Box::pin(put_aside(&mut exchange, &response, request)).await && !request.websocket {
                pool.give(up.io, response.kept_for);
            }
            renewed?;
            continue;
        };
        request.tally.replay.set(outcome);
        let answer = Answer { core, request, draining: worker.is_draining(), marker: marker(outcome) };
        let next = respond::respond(&mut exchange, &answer, &response).await?;
        let reusable = exchange.is_sent() && response.is_reusable(request.head.method(request.bytes));
        recycle(worker, upload, &mut up);
        // A server that was asked to switch and says that it did not is not believed with another request's bytes.
        if reusable && up.buf.is_empty() && !request.websocket {
            pool.give(up.io, response.kept_for);
        }
        return Ok(next);
    }
}

/// What follows an answer of the upstream.
enum Ending {
    /// The request is sent again.
    Again,
    /// The caller gets it, with what there is to say about replays.
    Final(Option<ReplayOutcome>),
}

impl Tries {
    /// Whether a request that was not acted on is sent once more, on another connection: over HTTP/1.1 on a new one. Servers of HTTP/2
    /// leave connections after so many requests, and those that were made together leave together.
    fn may_go_elsewhere(&mut self, link: &Link, reused: bool, sent: Instant, patience: Duration) -> bool {
        match link {
            Link::H1(_) => !std::mem::replace(&mut self.fresh, true) && reused,
            Link::H2(_) => {
                self.refused += 1;
                // All attempts together have the time of one.
                let until = *self.until.get_or_insert(sent + patience);
                self.refused <= MOST_REFUSED && clock::now() < until
            }
        }
    }

    /// How the request ends. Each is done at most once: a new token, a better proof.
    fn end(
        &mut self,
        route: &Route,
        generation: u64,
        rejected: bool,
        verdict: proof::Verdict,
        can_replay: bool,
    ) -> Ending {
        let no_proof = match verdict {
            proof::Verdict::Mendable(terms) => {
                (self.told, self.mended) = (Some(terms), true);
                return Ending::Again;
            }
            proof::Verdict::Learned => {
                let outcome = if can_replay { ReplayOutcome::Proof } else { ReplayOutcome::NotPossible };
                return Ending::Final(Some(outcome));
            }
            proof::Verdict::Refused => Some(ReplayOutcome::Proof),
            proof::Verdict::Fine => (self.replayed || self.mended).then_some(ReplayOutcome::Accepted),
        };
        if rejected {
            return match route.bearer.reject(generation, clock::now()) {
                _ if self.replayed => Ending::Final(Some(ReplayOutcome::Rejected)),
                Rejection::TooFresh if route.bearer.is_repeat(generation) => {
                    Ending::Final(Some(ReplayOutcome::SameToken))
                }
                Rejection::TooFresh => Ending::Final(Some(ReplayOutcome::TooFresh)),
                Rejection::Replaced if !can_replay => Ending::Final(Some(ReplayOutcome::NotPossible)),
                Rejection::Replaced => {
                    (self.above, self.replayed, self.told) = (generation, true, None);
                    Ending::Again
                }
            };
        }
        Ending::Final(no_proof)
    }
}

fn recycle(worker: &Worker, upload: Option<Pump>, up: &mut Side<Link>) {
    if let Some(upload) = upload {
        worker.give_scratch(upload.into_staged());
    }
    if up.buf.is_empty() {
        worker.buffers.give(std::mem::take(&mut up.buf));
    }
}

/// Begins the request on a stream of HTTP/2; `None` where its connection takes no more. On HTTP/1.1 the head
/// is returned as it is, to be written.
fn begin(link: &mut Link, mut head: Vec<u8>, request: &Request<'_>) -> Result<Option<Vec<u8>>, ProxyError> {
    let Link::H2(stream) = link else { return Ok(Some(head)) };
    match stream.begin(&head, request.head.framing.is_empty()) {
        Ok(()) => {
            head.clear();
            Ok(Some(head))
        }
        Err(Unsent::Closed) => Ok(None),
        Err(Unsent::Untold(why)) => {
            let text = format!("the upstream speaks HTTP/2: {why} (a route may ask for http = \"h1\")");
            Err(ProxyError::new(Code::BadRequest, text))
        }
    }
}

/// A body that is known to be too large for the replay buffer is not copied into it in vain.
fn replay_limit(route: &Route, framing: Framing) -> usize {
    match framing {
        Framing::Length(n) if n > route.spec.replay_buffer as u64 => 0,
        _ => route.spec.replay_buffer,
    }
}

/// A request head, and what stands in it.
struct Written {
    head: Vec<u8>,
    generation: u64,
    proof: Option<proof::Used>,
    /// When the token was found good.
    at: Instant,
}

/// Writes the upstream's request head with the token in it; `None` where the token is gone meanwhile.
fn request_head(
    worker: &Worker,
    route: &Route,
    origin: &Origin,
    told: Option<&Arc<Terms>>,
    request: &Request<'_>,
    presented: Option<&Identity>,
) -> Result<Option<Written>, ProxyError> {
    with_token(route, presented, |bearer, now| {
        let mut head = worker.scratch();
        let mut text = String::new();
        let proof = match &bearer.proof {
            Some(prover) => Some(proof::prove(prover, route, origin, told, request, now, &mut text)?),
            None => None,
        };
        let facts = RequestFacts {
            base_path: route.spec.upstream.base_path.as_bytes(),
            rest: request.rest,
            peer: request.peer.as_bytes(),
            websocket: request.websocket,
            scheme: request.scheme.as_bytes(),
            request_id: request.id.as_bytes(),
            token: bearer.token.expose(),
            proof: &text,
        };
        route.headers.write(&mut head, request.head, request.bytes, facts);
        Ok(Written { head, generation: bearer.generation, proof, at: now.mono })
    })
}

/// A final response head and its length in the upstream's buffer.
pub(super) struct Response {
    pub(super) head: ResponseHead,
    pub(super) length: usize,
    keeps_alive: bool,
    /// How long the upstream says that it keeps the idle connection.
    kept_for: Option<Duration>,
}

impl Response {
    fn is_reusable(&self, method: &str) -> bool {
        self.keeps_alive && self.head.framing(method) != Framing::UntilClose
    }
}

/// Sends the request and reads heads until the final one; interim ones (1xx) are passed on.
async fn final_head(exchange: &mut Exchange<'_>, core: &Core, request: &Request<'_>) -> Result<Response, Broken> {
    let (mut told, mut waits) = (0, request.head.expects_continue);
    for _ in 0..MOST_INTERIM {
        if std::mem::take(&mut waits) {
            give_leave(exchange).await?;
        }
        let length = exchange.head().await?;
        let head = exchange.parse(length)?;
        let asked = request.websocket && head.switches_to_websocket(&exchange.up.buf.filled()[..length]);
        if head.status == 101 && !asked {
            return Err(exchange.protocol("it switched protocols without being asked"));
        }
        if request.websocket && request.head.version == Version::H2 {
            // To this caller any 2xx would say that it was switched (RFC 8441 section 5).
            if (200..300).contains(&head.status) {
                return Err(exchange.protocol("it did not switch to WebSocket"));
            }
            if head.status == 101 && !upgrade::is_proven(request, &head, &exchange.up.buf.filled()[..length]) {
                return Err(exchange.protocol("its Sec-WebSocket-Accept does not answer the key"));
            }
        }
        if head.status >= 200 || head.status == 101 {
            let bytes = &exchange.up.buf.filled()[..length];
            let (keeps_alive, kept_for) = (head.keeps_alive(bytes), head.keep_alive_timeout(bytes));
            return Ok(Response { head, length, keeps_alive, kept_for });
        }
        if request.head.version != Version::H10 {
            let interim = respond::informational(core, request, &head, &exchange.up.buf.filled()[..length]);
            exchange.interim(&interim).await?;
        }
        exchange.up.buf.consume(length);
        exchange.wait_again();
        told += length;
        if told > MOST_INTERIM_BYTES {
            break;
        }
    }
    Err(exchange.unusable("sent more interim responses than are taken here"))
}

/// Waits for a head a little, then sends 100 (Continue) in the upstream's place: nginx over HTTP/2 never does, nor do many
/// old servers, and a caller that waits for it and an upstream that waits for the body would wait for each other.
async fn give_leave(exchange: &mut Exchange<'_>) -> Result<(), Broken> {
    match tokio::time::timeout(LEAVE, exchange.head()).await {
        // A head stays where it is, for whoever reads it next; an error is the end of the request.
        Ok(head) => head.map(drop),
        Err(_) if exchange.upload.taken == 0 => exchange.interim(b"HTTP/1.1 100 Continue\r\n\r\n").await,
        Err(_) => Ok(()),
    }
}

/// Whether the answer means that the token is no good.
fn is_rejection(route: &Route, head: &ResponseHead, bytes: &[u8]) -> bool {
    route.spec.retry_on.contains(&head.status) && blames_token(head.values(bytes, Kind::WwwAuthenticate))
}

/// Throws the rejection's body away; whether the connection can be used again.
async fn put_aside(exchange: &mut Exchange<'_>, response: &Response, request: &Request<'_>) -> bool {
    let method = request.head.method(request.bytes);
    if !exchange.is_sent() || !response.is_reusable(method) {
        return false;
    }
    exchange.up.buf.consume(response.length);
    exchange.discard(response.head.framing(method)).await && exchange.up.buf.is_empty()
}
