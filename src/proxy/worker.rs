//! One core: its thread, its runtime, its connections and pools. Nothing here is shared with another core but the
//! count of connections.

use std::{
    cell::{Cell, RefCell},
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::{Arc, atomic::AtomicUsize, mpsc},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::{sync::watch, task::JoinHandle};

use super::{
    balance::{Balance, Inbox, Ticket},
    buffer::Buffers,
    clock,
    error::ProxyError,
    limit::Permit,
    listener::{self, Door, Entrance},
    preconnect,
    refusal::Full,
    seats::{Seat, Seats},
    upstream::{Pool, Pools},
};
use crate::{
    net::Identity,
    snapshot::{Latest, Reader, Route, Snapshot},
    telemetry::{
        access::{self, Pen},
        metrics::{Held, RouteCounters},
    },
};

/// How often idle upstream connections are looked through.
const SWEEP: Duration = Duration::from_secs(5);
/// How often a draining core looks whether its connections are done.
const DRAIN_TICK: Duration = Duration::from_millis(20);
/// Connections that one core turns away with an answer at the same time.
const REFUSALS: usize = 128;
/// TLS handshakes that one core makes for that in [`HANDSHAKES_IN`]: about a hundredth of its time.
const HANDSHAKES: u32 = 20;
const HANDSHAKES_IN: Duration = Duration::from_secs(1);
/// Bytes that one core holds for replays, over all requests.
const REPLAY_BUDGET: usize = 32 * 1024 * 1024;

/// What control tells the cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Serve.
    Run,
    /// Accept nothing new, finish what runs, and end.
    Drain,
}

/// What a core needs to start.
pub struct Plan {
    /// Position among the workers.
    pub index: usize,
    /// How many workers there are.
    pub workers: usize,
    /// Its sockets.
    pub sockets: Vec<(Door, TcpListener)>,
    /// The seam.
    pub snapshots: Reader,
    /// The connections of all cores.
    pub balance: Arc<Balance>,
    /// Connections that other cores accepted.
    pub inbox: Inbox,
    /// The access log, where there is one.
    pub access: Option<access::Handle>,
    /// Orders of control.
    pub orders: watch::Receiver<Order>,
}

/// Starts a core on a thread of its own. The thread ends after [`Order::Drain`], when all is finished or
/// `drain_timeout` has passed.
pub fn start(plan: Plan) -> io::Result<thread::JoinHandle<()>> {
    let (failed, failure) = mpsc::channel();
    // The runtime has to be made where it runs.
    let core = thread::Builder::new().name(format!("worker-{}", plan.index)).spawn(move || match clock::runtime() {
        Ok(runtime) => {
            drop(failed);
            runtime.block_on(run(plan));
        }
        Err(error) => {
            // Who starts the core waits for it.
            let _ = failed.send(error);
        }
    })?;
    failure.recv().map_or(Ok(core), Err)
}

async fn run(plan: Plan) {
    let mut orders = plan.orders.clone();
    let worker = Rc::new(Worker::new(&plan));
    let entrances: Rc<[Entrance]> = plan.sockets.iter().map(|(door, _)| Entrance::of(&worker, door)).collect();
    let mut accepting: Vec<_> = plan
        .sockets
        .into_iter()
        .enumerate()
        .map(|(door, (_, socket))| {
            let (worker, entrances, orders) = (Rc::clone(&worker), Rc::clone(&entrances), plan.orders.clone());
            tokio::task::spawn_local(listener::accept(worker, socket, entrances, door, orders))
        })
        .collect();
    let receiving = listener::receive(Rc::clone(&worker), plan.inbox, entrances, plan.orders);
    accepting.push(tokio::task::spawn_local(async {
        receiving.await;
        Ok(())
    }));
    let sweeping = tokio::task::spawn_local(sweep(Rc::clone(&worker)));
    let logging = Rc::clone(&worker);
    let logging = tokio::task::spawn_local(async move {
        if let Some(pen) = &logging.access {
            pen.keep_handing_on().await;
        }
    });
    // Control gone means the same as its order to drain.
    let _ = orders.wait_for(|order| *order == Order::Drain).await;
    worker.drain(accepting).await;
    sweeping.abort();
    logging.abort();
}

async fn sweep(worker: Rc<Worker>) {
    loop {
        worker.pools.sweep();
        preconnect::prepare(&worker);
        tokio::time::sleep(SWEEP).await;
    }
}

/// What all tasks of one core share.
pub(super) struct Worker {
    pub(super) buffers: Buffers,
    pub(super) replay_budget: Rc<Cell<usize>>,
    pub(super) access: Option<Pen>,
    pools: Pools,
    latest: RefCell<Latest>,
    current: RefCell<Rc<Core>>,
    index: usize,
    workers: usize,
    draining: Cell<bool>,
    seats: Rc<RefCell<Seats>>,
    pub(super) balance: Arc<Balance>,
    refusals: Arc<AtomicUsize>,
    /// Made for refusals, and since when.
    handshakes: Cell<(Instant, u32)>,
    scratch: RefCell<Vec<Vec<u8>>>,
    id_prefix: u64,
    ids: Cell<u64>,
}

/// 32 hexadecimal digits.
pub(super) struct RequestId([u8; 32]);

impl RequestId {
    fn new(prefix: u64, n: u64) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        let bytes = (u128::from(prefix) << 64 | u128::from(n)).to_be_bytes();
        for (two, byte) in text.chunks_exact_mut(2).zip(bytes) {
            two[0] = DIGITS[usize::from(byte >> 4)];
            two[1] = DIGITS[usize::from(byte & 15)];
        }
        Self(text)
    }

    pub(super) fn as_str(&self) -> &str {
        // Digits are always UTF-8.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// This core's view of a snapshot: with its own pools and counters.
pub(super) struct Core {
    pub(super) snapshot: Arc<Snapshot>,
    pools: Vec<Rc<Pool>>,
    workers: usize,
    /// Which one this is.
    index: usize,
}

impl Core {
    pub(super) fn pool(&self, route: &Route) -> Rc<Pool> {
        Rc::clone(&self.pools[route.origin])
    }

    /// A place among the running requests of a route, or `overloaded`.
    pub(super) fn permit(&self, route: usize) -> Result<Permit<'_>, ProxyError> {
        let of = &self.snapshot.routes[route];
        Permit::take(of.spec.max_in_flight, self.workers, of.counters.of(self.index), &of.running)
    }

    /// What this core counts of a route, or of requests without one.
    pub(super) fn counters(&self, route: Option<usize>) -> &RouteCounters {
        route.map_or(&self.snapshot.unrouted, |at| &self.snapshot.routes[at].counters).of(self.index)
    }
}

impl Worker {
    pub(super) fn new(plan: &Plan) -> Self {
        let pools = Pools::default();
        let core = Self::core_of(plan.snapshots.snapshot(), &pools, plan.workers, plan.index);
        let mut random = [0; 8];
        // Ids need to differ, not to be secret; without randomness they still differ within the process.
        let _ = aws_lc_rs::rand::fill(&mut random);
        Self {
            buffers: Buffers::default(),
            replay_budget: Rc::new(Cell::new(REPLAY_BUDGET)),
            access: plan.access.clone().map(Pen::new),
            pools,
            latest: plan.snapshots.latest().into(),
            current: RefCell::new(Rc::new(core)),
            index: plan.index,
            workers: plan.workers,
            draining: Cell::new(false),
            seats: Rc::default(),
            balance: Arc::clone(&plan.balance),
            refusals: Arc::default(),
            handshakes: Cell::new((clock::now(), 0)),
            scratch: RefCell::default(),
            id_prefix: u64::from_ne_bytes(random) ^ plan.index as u64,
            ids: Cell::new(0),
        }
    }

    fn core_of(snapshot: Arc<Snapshot>, pools: &Pools, workers: usize, index: usize) -> Core {
        let pools = snapshot.origins.iter().map(|origin| pools.of(origin, None)).collect();
        Core { snapshot, pools, workers, index }
    }

    /// The current snapshot as this core sees it. A request holds on to the one it started with.
    pub(super) fn core(&self) -> Rc<Core> {
        let mut latest = self.latest.borrow_mut();
        let latest = latest.snapshot();
        if !Arc::ptr_eq(latest, &self.current.borrow().snapshot) {
            let core = Self::core_of(Arc::clone(latest), &self.pools, self.workers, self.index);
            *self.current.borrow_mut() = Rc::new(core);
        }
        Rc::clone(&self.current.borrow())
    }

    /// The connections of a route that present this certificate, or none.
    pub(super) fn pool(&self, core: &Core, route: &Route, identity: Option<&Identity>) -> Rc<Pool> {
        match identity {
            None => core.pool(route),
            some => self.pools.of(&core.snapshot.origins[route.origin], some),
        }
    }

    /// A new request id: random for each core and counted within.
    pub(super) fn request_id(&self) -> RequestId {
        let n = self.ids.get() + 1;
        self.ids.set(n);
        RequestId::new(self.id_prefix, n)
    }

    /// A new `Sec-WebSocket-Key` (RFC 6455 section 4.1), for a caller whose version of HTTP has none.
    pub(super) fn websocket_key(&self) -> String {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.id_prefix.to_ne_bytes());
        self.ids.set(self.ids.get() + 1);
        key[8..].copy_from_slice(&self.ids.get().to_ne_bytes());
        STANDARD.encode(key)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// An empty vector for a head.
    pub(super) fn scratch(&self) -> Vec<u8> {
        self.scratch.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(2048))
    }

    pub(super) fn give_scratch(&self, mut used: Vec<u8>) {
        let mut kept = self.scratch.borrow_mut();
        if used.capacity() <= 32 * 1024 && kept.len() < 64 {
            used.clear();
            kept.push(used);
        }
    }

    /// The core that should have a connection that was accepted here; `None`: this one.
    pub(super) fn elsewhere(&self) -> Option<usize> {
        self.balance.instead_of(self.index)
    }

    /// Counts one more connection, of this core or of another, unless as many as may be are counted of all callers, or of this one.
    pub(super) fn ticket(&self, elsewhere: Option<usize>, peer: SocketAddr) -> Result<Ticket, Full> {
        self.balance.ticket(elsewhere.unwrap_or(self.index), peer.ip(), self.core().snapshot.server())
    }

    /// A seat for a connection that is counted, over all and for its listener.
    pub(super) fn seat(&self, counted: Ticket, open: Held) -> Seat {
        Seat::take(&self.seats, counted, open)
    }

    /// A place to turn one more connection away with an answer; beyond those it is just closed.
    pub(super) fn refusal_seat(&self) -> Option<Seat> {
        self.balance.refusal(self.index, &self.refusals, REFUSALS).map(|counted| self.seat(counted, Held::default()))
    }

    /// Whether a TLS handshake may be made for the sake of a refusal.
    pub(super) fn may_shake_hands(&self) -> bool {
        let (now, (since, made)) = (clock::now(), self.handshakes.get());
        let (since, made) = if now < since + HANDSHAKES_IN { (since, made) } else { (now, 0) };
        self.handshakes.set((since, made + 1));
        made < HANDSHAKES
    }

    /// Closes idle connections, lets the others finish, and gives up after `drain_timeout`.
    async fn drain(&self, accepting: Vec<JoinHandle<io::Result<()>>>) {
        self.draining.set(true);
        let patience = self.core().snapshot.server().drain_timeout;
        let finished = async {
            for last_round in accepting {
                // An accept loop that failed has nothing left to accept.
                let _ = last_round.await;
            }
            loop {
                self.seats.borrow().ask_to_leave();
                if self.seats.borrow().is_empty() {
                    return;
                }
                tokio::time::sleep(DRAIN_TICK).await;
            }
        };
        if tokio::time::timeout(patience, finished).await.is_err() {
            let left = self.seats.borrow().len();
            tracing::warn!(connections = left, "drain_timeout has passed; the rest is cut off");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_the_cores_number_and_the_requests() {
        assert_eq!(RequestId::new(0x1f, 10).as_str(), "000000000000001f000000000000000a");
        assert_eq!(RequestId::new(u64::MAX, 1).as_str(), "ffffffffffffffff0000000000000001");
    }
}
