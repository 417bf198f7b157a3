//! This core's connections to upstreams: an idle stack for each origin and egress identity.
//!
//! HTTP/1.1: a connection is lent to one request at a time and comes back only when its answer was read to the
//! end. It is checked for silence before it is used again; nobody watches it while it lies idle.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    body::Side,
    buffer::Buffer,
    clock,
    error::{Code, ProxyError},
    h2::Shared,
    preconnect::Pace,
    socket::Link,
};
use crate::{
    config::model::{HttpVersion, NetSpec, Scheme},
    net::{ConnectError, Connector, Identity, Offer, Place, Stream, Target},
    snapshot::{Origin, Route},
};

/// How many idle connections one core keeps to one origin.
const MAX_IDLE: usize = 256;
/// So much longer than a connection is waited for by those who wait for another's.
const LATER: Duration = Duration::from_millis(50);
/// How long one may lie idle. Upstreams commonly close after 60 s; those that close earlier are noticed.
const IDLE_TTL: Duration = Duration::from_secs(55);
/// Time in which a request may be on its way while the upstream closes.
const CROSSING: Duration = Duration::from_secs(1);

struct Idle {
    stream: Stream,
    until: Instant,
}

impl Idle {
    fn is_usable(&mut self, now: Instant) -> bool {
        now < self.until && !is_gone(&self.stream) && self.stream.is_quiet()
    }
}

/// Whether its name leads elsewhere by now.
fn is_gone(stream: &Stream) -> bool {
    stream.place().is_some_and(|place| place.is_gone())
}

/// The connections to one origin, all presenting the same certificate or none: idle ones of HTTP/1.1, the most recently
/// used on top, and shared ones of HTTP/2.
#[derive(Default)]
pub(super) struct Pool {
    idle: RefCell<Vec<Idle>>,
    shared: Shared,
    /// Makes the connections that present a certificate; without one the origin's own does.
    connector: Option<Connector>,
    /// Whether the server chose HTTP/2 when it was last asked.
    speaks_h2: Cell<Option<bool>>,
    dialing: Cell<bool>,
    dialed: Notify,
    /// Where the last new connection leads, if that is to an address of a name.
    place: RefCell<Option<Arc<Place>>>,
    /// Used since the last sweep.
    used: Cell<bool>,
    /// When connections are made ready.
    pub(super) pace: RefCell<Pace>,
}

/// Somebody connects in order to share the connection; the others wait for it.
struct Dialing<'a>(&'a Pool);

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        self.0.dialing.set(false);
        self.0.dialed.notify_waiters();
    }
}

/// A connection lent to a request.
pub(super) struct Lent {
    pub(super) side: Side<Link>,
    /// Others were served on it before, so that it may be about to end.
    pub(super) reused: bool,
}

impl Lent {
    fn new(io: Link, reused: bool) -> Self {
        Self { side: Side { io, buf: Buffer::default() }, reused }
    }
}

/// What a request needs of its connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// None that was used before.
    pub(super) fresh: bool,
    /// One that may become a WebSocket.
    pub(super) websocket: bool,
}

impl Wanted {
    fn offer(self, route: &Route, origin: &Origin) -> Offer {
        match (route.spec.http, origin.upstream.scheme) {
            // Servers that take WebSockets over HTTP/2 (RFC 8441) take them over HTTP/1.1 too.
            _ if self.websocket => Offer::H1,
            (HttpVersion::H1, _) | (HttpVersion::Auto, Scheme::Http) => Offer::H1,
            (HttpVersion::H2, _) => Offer::H2,
            (HttpVersion::Auto, Scheme::Https) => Offer::Both,
        }
    }
}

impl Pool {
    /// An idle connection that is still quiet, and still leads where it should.
    fn take(&self) -> Option<Stream> {
        loop {
            let mut idle = self.idle.borrow_mut().pop()?;
            if idle.is_usable(clock::now()) {
                self.used.set(true);
                return Some(idle.stream);
            }
        }
    }

    /// Takes a connection back whose last answer was read to its end. `promised`: how long the upstream
    /// said that it keeps it (`Keep-Alive: timeout=5`). It is not used up to the very end of that time,
    /// when a request and the upstream's close could cross.
    ///
    /// A stream of HTTP/2 just ends; its connection is shared anyway.
    pub(super) fn give(&self, link: Link, promised: Option<Duration>) {
        let Link::H1(mut stream) = link else { return };
        let mut idle = self.idle.borrow_mut();
        // Surplus bytes would be taken for the answer to the next request.
        if idle.len() < MAX_IDLE && !is_gone(&stream) && stream.is_quiet() {
            let safe = promised.map_or(IDLE_TTL, |p| p.saturating_sub(CROSSING).min(IDLE_TTL));
            let until = (clock::now() + safe).min(stream.retires());
            idle.push(Idle { stream, until });
        }
    }

    fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain_mut(|idle| idle.is_usable(now));
        self.shared.sweep(now, IDLE_TTL);
        // A name is asked for again only while it is used, and kept connections use theirs without asking.
        let is_kept = !self.idle.borrow().is_empty() || !self.shared.is_empty();
        let is_used = self.used.replace(false);
        if is_used {
            self.pace.borrow_mut().used();
        }
        if (is_used || is_kept)
            && let Some(place) = &*self.place.borrow()
        {
            place.keep_fresh();
        }
    }

    /// A kept connection of HTTP/1.1, where one lies ready.
    pub(super) fn ready(&self, route: &Route, origin: &Origin, wanted: Wanted) -> Option<Lent> {
        if wanted.fresh || wanted.offer(route, origin) == Offer::H2 {
            return None;
        }
        self.take().map(|stream| Lent::new(Link::H1(stream), true))
    }

    /// A place on a connection that is shared, or a new one; where none lies [`Self::ready`].
    pub(super) async fn connect(&self, route: &Route, origin: &Origin, wanted: Wanted) -> Result<Lent, ProxyError> {
        self.used.set(true);
        let offer = wanted.offer(route, origin);
        if offer == Offer::H1 || offer == Offer::Both && self.speaks_h2.get() == Some(false) {
            let stream = self.dial(route, origin, offer).await?;
            return self.lend(stream, origin, offer);
        }
        self.share(route, origin, offer, wanted.fresh).await
    }

    /// Whether fewer than `wanted` connections lie ready; one of HTTP/2 is enough for many requests.
    pub(super) fn lacks(&self, wanted: usize, now: Instant) -> bool {
        self.idle.borrow().len() < wanted && !self.shared.is_open(now)
    }

    /// Makes one connection ready. Not a byte of a request is sent on it.
    pub(super) async fn prepare(&self, route: &Route, origin: &Origin) -> Result<(), ProxyError> {
        let offer = Wanted { fresh: true, websocket: false }.offer(route, origin);
        // What may be shared is waited for, by requests that come meanwhile and by us.
        let _dialing = if offer == Offer::H1 {
            None
        } else if self.dialing.replace(true) {
            self.dialed.notified().await;
            return Ok(());
        } else {
            Some(Dialing(self))
        };
        let stream = self.dial(route, origin, offer).await?;
        let ready = self.lend(stream, origin, offer)?;
        self.give(ready.side.io, None);
        Ok(())
    }

    /// A place on a shared connection. One request at a time connects, the others wait for what comes of it: in all
    /// not longer than it would take to connect.
    async fn share(&self, route: &Route, origin: &Origin, offer: Offer, fresh: bool) -> Result<Lent, ProxyError> {
        let limit = route.spec.connect_timeout;
        let sharing = self.share_in_turn(route, origin, offer, fresh);
        // Whoever connects itself knows better what it waited for.
        tokio::time::timeout(limit + LATER, sharing).await.unwrap_or_else(|_| {
            let text = format!("no connection to {} within {limit:?}; the request was not sent", origin.upstream);
            Err(ProxyError::new(Code::UpstreamTimeout, text))
        })
    }

    async fn share_in_turn(
        &self,
        route: &Route,
        origin: &Origin,
        offer: Offer,
        mut fresh: bool,
    ) -> Result<Lent, ProxyError> {
        loop {
            if !fresh && let Some(stream) = self.shared.join(origin.upstream.scheme) {
                return Ok(Lent::new(Link::H2(Box::new(stream)), true));
            }
            // How many more a new connection takes, its server is about to say.
            if self.shared.greeted().await {
                fresh = false;
                continue;
            }
            let dialed = self.dialed.notified();
            if self.dialing.replace(true) {
                dialed.await;
                // What the other one opened is new enough.
                fresh = false;
                if offer == Offer::Both && self.speaks_h2.get() == Some(false) {
                    let stream = self.dial(route, origin, offer).await?;
                    return self.lend(stream, origin, offer);
                }
                continue;
            }
            let _dialing = Dialing(self);
            let stream = self.dial(route, origin, offer).await?;
            return self.lend(stream, origin, offer);
        }
    }

    async fn dial(&self, route: &Route, origin: &Origin, offer: Offer) -> Result<Stream, ProxyError> {
        let (target, timeout) = (Target::of(&origin.upstream), route.spec.connect_timeout);
        let connector = self.connector.as_ref().unwrap_or(&origin.connector);
        let stream = connector.offer(target, timeout, offer).await.map_err(|e| refused(&e))?;
        self.place.replace(stream.place().cloned());
        Ok(stream)
    }

    /// Takes a new connection into use.
    fn lend(&self, stream: Stream, origin: &Origin, offer: Offer) -> Result<Lent, ProxyError> {
        let scheme = origin.upstream.scheme;
        let is_h2 = stream.speaks_h2() || offer == Offer::H2 && scheme == Scheme::Http;
        if offer == Offer::Both {
            self.speaks_h2.set(Some(is_h2));
        }
        if offer == Offer::H2 && !is_h2 {
            let text = format!("{} does not speak HTTP/2 (http = \"h2\"); the request was not sent", origin.upstream);
            return Err(ProxyError::new(Code::UpstreamProtocol, text));
        }
        if !is_h2 {
            return Ok(Lent::new(Link::H1(stream), false));
        }
        // What it refuses may be sent again, however new it is.
        Ok(Lent::new(Link::H2(Box::new(self.shared.open(stream, scheme))), true))
    }
}

fn refused(error: &ConnectError) -> ProxyError {
    if let Some(source) = error.shortage() {
        return ProxyError::new(Code::Overloaded, format!("this host has nothing left to connect with: {source}"))
            .retry_after(1);
    }
    let code = match error {
        ConnectError::Tls { .. } | ConnectError::Certificate { .. } => Code::UpstreamTls,
        ConnectError::Timeout { .. } => Code::UpstreamTimeout,
        ConnectError::Name { .. }
        | ConnectError::Tcp { .. }
        | ConnectError::Proxy { .. }
        | ConnectError::NotLoopback { .. } => Code::UpstreamConnect,
    };
    let advice = error.advice().map_or_else(String::new, |advice| format!(". {advice}"));
    ProxyError::new(code, format!("{error}; the request was not sent{advice}"))
}

/// Where a connection leads, how it leaves, which roots its server was judged by, and which certificate it presents:
/// connections are shared only where all are equal. [`NetSpec`] has the path of `ca_file`; what is in it may change.
type Key = (Scheme, String, u16, Arc<NetSpec>, [u8; 32], Option<Identity>);

/// All pools of one core. They outlive a reload: a route that still leads to the same place finds its connections, unless
/// `ca_file` has other certificates in it by then.
#[derive(Default)]
pub(super) struct Pools {
    by_origin: RefCell<HashMap<Key, Rc<Pool>>>,
}

impl Pools {
    /// The pool of connections to `origin` that present `identity`, which is looked up for each request, or nothing.
    pub(super) fn of(&self, origin: &Origin, identity: Option<&Identity>) -> Rc<Pool> {
        let upstream = &origin.upstream;
        let (net, roots) = (Arc::clone(&origin.net), origin.connector.roots());
        let key = (upstream.scheme, upstream.host.clone(), upstream.port, net, roots, identity.cloned());
        let connector = || identity.map(|identity| origin.connector.presenting(identity));
        let new = || Rc::new(Pool { connector: connector(), ..Pool::default() });
        Rc::clone(self.by_origin.borrow_mut().entry(key).or_insert_with(new))
    }

    /// Closes what has been idle for too long or was closed by the upstream, and forgets pools that no route uses.
    pub(super) fn sweep(&self) {
        let now = clock::now();
        let mut pools = self.by_origin.borrow_mut();
        for pool in pools.values() {
            pool.sweep(now);
        }
        pools.retain(|_, pool| {
            let is_held = Rc::strong_count(pool) > 1 || pool.pace.borrow().is_worth_keeping(now);
            is_held || !pool.idle.borrow().is_empty() || !pool.shared.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// A kept connection that was made so long ago; its server's end.
    fn kept(pool: &Pool, seconds_ago: u64, promised: Option<Duration>) -> tokio::io::DuplexStream {
        let (ours, theirs) = duplex(1024);
        pool.give(Link::H1(Stream::memory(ours).aged(Duration::from_secs(seconds_ago))), promised);
        theirs
    }

    #[test]
    fn a_kept_connection_is_used_until_five_minutes_after_it_was_made_however_busy_it_is() {
        for (seconds, usable) in [(0, true), (200, true), (299, true), (300, false), (1000, false)] {
            let pool = Pool::default();
            let _server = kept(&pool, seconds, None);
            assert_eq!(pool.take().is_some(), usable, "after {seconds} s");
        }
        // Given back a little before, it is not used a little after.
        let (pool, now) = (Pool::default(), clock::now());
        let _server = kept(&pool, 290, None);
        let mut idle = pool.idle.borrow_mut().pop().unwrap();
        assert!(idle.is_usable(now + Duration::from_secs(9)) && !idle.is_usable(now + Duration::from_secs(11)));
    }

    #[test]
    fn a_kept_connection_lies_idle_no_longer_than_it_may_or_its_server_promised() {
        for (promised, seconds) in [(None, 55), (Some(5), 4), (Some(1000), 55)] {
            let (pool, now) = (Pool::default(), clock::now());
            let _server = kept(&pool, 0, promised.map(Duration::from_secs));
            let mut idle = pool.idle.borrow_mut().pop().unwrap();
            assert!(idle.is_usable(now + Duration::from_secs(seconds - 1)), "{promised:?}");
            assert!(!idle.is_usable(now + Duration::from_secs(seconds + 1)), "{promised:?}");
        }
    }
}
