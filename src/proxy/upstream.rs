//! This core's connections to upstreams: an idle stack for each origin and egress identity.
//!
//! A connection is lent to one request at a time and comes back only when its answer was read to the
//! end. It is checked for silence before it is used again; nobody watches it while it lies idle.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    body::Side,
    buffer::Buffer,
    error::{Code, ProxyError},
};
use crate::{
    config::model::{NetSpec, Scheme},
    net::{ConnectError, Connector, Identity, Stream, Target},
    snapshot::{Origin, Route},
};

/// How many idle connections one core keeps to one origin.
const MAX_IDLE: usize = 256;
/// How long one may lie idle. Upstreams commonly close after 60 s; those that close earlier are noticed.
const IDLE_TTL: Duration = Duration::from_secs(55);
/// Time in which a request may be on its way while the upstream closes.
const CROSSING: Duration = Duration::from_secs(1);

struct Idle {
    stream: Stream,
    until: Instant,
}

/// The idle connections to one origin, all presenting the same certificate or none, the most recently used on top.
#[derive(Default)]
pub(super) struct Pool {
    idle: RefCell<Vec<Idle>>,
    /// Makes the connections that present a certificate; without one the origin's own does.
    connector: Option<Connector>,
}

/// A connection lent to a request.
pub(super) struct Lent {
    pub(super) side: Side<Stream>,
    pub(super) reused: bool,
}

impl Pool {
    /// An idle connection that is still quiet.
    fn take(&self) -> Option<Stream> {
        loop {
            let mut idle = self.idle.borrow_mut().pop()?;
            if Instant::now() < idle.until && idle.stream.is_quiet() {
                return Some(idle.stream);
            }
        }
    }

    /// Takes a connection back whose last answer was read to its end. `promised`: how long the upstream
    /// said that it keeps it (`Keep-Alive: timeout=5`). It is not used up to the very end of that time,
    /// when a request and the upstream's close could cross.
    pub(super) fn give(&self, mut stream: Stream, promised: Option<Duration>) {
        let mut idle = self.idle.borrow_mut();
        // Surplus bytes would be taken for the answer to the next request.
        if idle.len() < MAX_IDLE && stream.is_quiet() {
            let safe = promised.map_or(IDLE_TTL, |p| p.saturating_sub(CROSSING).min(IDLE_TTL));
            idle.push(Idle { stream, until: Instant::now() + safe });
        }
    }

    fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain_mut(|c| now < c.until && c.stream.is_quiet());
    }

    /// An idle connection, or a new one.
    pub(super) async fn connect(&self, route: &Route, origin: &Origin, fresh: bool) -> Result<Lent, ProxyError> {
        let kept = if fresh { None } else { self.take() };
        if let Some(stream) = kept {
            return Ok(Lent { side: Side { io: stream, buf: Buffer::default() }, reused: true });
        }
        let target = Target::of(&origin.upstream);
        let connector = self.connector.as_ref().unwrap_or(&origin.connector);
        let stream = connector.connect(target, route.spec.connect_timeout).await.map_err(|e| refused(&e))?;
        Ok(Lent { side: Side { io: stream, buf: Buffer::default() }, reused: false })
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
    ProxyError::new(code, format!("{error}; the request was not sent"))
}

/// Where a connection leads, how it leaves and which certificate it presents: connections are shared only where all
/// are equal.
type Key = (Scheme, String, u16, Arc<NetSpec>, Option<Identity>);

/// All pools of one core. They outlive a reload: a route that still leads to the same place finds its connections.
#[derive(Default)]
pub(super) struct Pools {
    by_origin: RefCell<HashMap<Key, Rc<Pool>>>,
}

impl Pools {
    /// The pool of connections to `origin` that present `identity`, which is looked up for each request, or nothing.
    pub(super) fn of(&self, origin: &Origin, identity: Option<&Identity>) -> Rc<Pool> {
        let upstream = &origin.upstream;
        let key = (upstream.scheme, upstream.host.clone(), upstream.port, Arc::clone(&origin.net), identity.cloned());
        let connector = || identity.map(|identity| origin.connector.presenting(identity));
        let new = || Rc::new(Pool { idle: RefCell::default(), connector: connector() });
        Rc::clone(self.by_origin.borrow_mut().entry(key).or_insert_with(new))
    }

    /// Closes what has been idle for too long or was closed by the upstream, and forgets pools that no route uses.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let mut pools = self.by_origin.borrow_mut();
        for pool in pools.values() {
            pool.sweep(now);
        }
        pools.retain(|_, pool| Rc::strong_count(pool) > 1 || !pool.idle.borrow().is_empty());
    }
}
