//! One core: its thread, its runtime, its connections and pools. Nothing here is shared with another core.

use std::{
    cell::{Cell, RefCell},
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{AbortHandle, LocalSet},
};

use super::{
    buffer::Buffers,
    listener,
    upstream::{Pool, Pools},
};
use crate::snapshot::{Reader, Route, Snapshot};

/// How often idle upstream connections are looked through.
const SWEEP: Duration = Duration::from_secs(5);
/// How often a draining core looks whether its connections are done.
const DRAIN_TICK: Duration = Duration::from_millis(20);
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
    pub sockets: Vec<(SocketAddr, TcpListener)>,
    /// The seam.
    pub snapshots: Reader,
    /// Orders of control.
    pub orders: watch::Receiver<Order>,
}

/// Starts a core on a thread of its own. The thread ends after [`Order::Drain`], when all is finished or
/// `drain_timeout` has passed.
pub fn start(plan: Plan) -> io::Result<thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new()
        .name(format!("worker-{}", plan.index))
        .spawn(move || LocalSet::new().block_on(&runtime, run(plan)))
}

async fn run(plan: Plan) {
    let mut orders = plan.orders.clone();
    let worker = Rc::new(Worker::new(&plan));
    let accepting: Vec<_> = plan
        .sockets
        .into_iter()
        .map(|(address, socket)| tokio::task::spawn_local(listener::accept(Rc::clone(&worker), socket, address)))
        .collect();
    let sweeping = tokio::task::spawn_local(sweep(Rc::clone(&worker)));
    // Control gone means the same as its order to drain.
    let _ = orders.wait_for(|order| *order == Order::Drain).await;
    for task in &accepting {
        task.abort();
    }
    worker.drain().await;
    sweeping.abort();
}

async fn sweep(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        worker.pools.sweep();
        worker.core();
    }
}

/// What all tasks of one core share.
pub(super) struct Worker {
    pub(super) buffers: Buffers,
    pub(super) replay_budget: Rc<Cell<usize>>,
    pools: Pools,
    snapshots: Reader,
    current: RefCell<Rc<Core>>,
    workers: usize,
    draining: Cell<bool>,
    seats: Rc<RefCell<Seats>>,
    scratch: RefCell<Vec<Vec<u8>>>,
    id_prefix: u64,
    ids: Cell<u64>,
}

/// This core's view of a snapshot: with its own pools and counters.
pub(super) struct Core {
    pub(super) snapshot: Arc<Snapshot>,
    pools: Vec<Rc<Pool>>,
    running: Vec<Rc<Cell<usize>>>,
    workers: usize,
}

impl Core {
    pub(super) fn pool(&self, route: &Route) -> Rc<Pool> {
        Rc::clone(&self.pools[route.origin])
    }

    /// How many requests of a route run on this core.
    pub(super) fn running(&self, route: usize) -> &Rc<Cell<usize>> {
        &self.running[route]
    }

    /// This core's share of a limit that holds for all cores together.
    pub(super) fn share(&self, limit: usize) -> usize {
        limit.div_ceil(self.workers)
    }
}

impl Worker {
    pub(super) fn new(plan: &Plan) -> Self {
        let pools = Pools::default();
        let core = Self::core_of(plan.snapshots.snapshot(), &pools, plan.workers);
        let mut random = [0; 8];
        // Ids need to differ, not to be secret; without randomness they still differ within the process.
        let _ = aws_lc_rs::rand::fill(&mut random);
        Self {
            buffers: Buffers::default(),
            replay_budget: Rc::new(Cell::new(REPLAY_BUDGET)),
            pools,
            snapshots: plan.snapshots.clone(),
            current: RefCell::new(Rc::new(core)),
            workers: plan.workers,
            draining: Cell::new(false),
            seats: Rc::default(),
            scratch: RefCell::default(),
            id_prefix: u64::from_ne_bytes(random) ^ plan.index as u64,
            ids: Cell::new(0),
        }
    }

    fn core_of(snapshot: Arc<Snapshot>, pools: &Pools, workers: usize) -> Core {
        let pools = snapshot.origins.iter().map(|origin| pools.of(origin)).collect();
        let running = snapshot.routes.iter().map(|_| Rc::default()).collect();
        Core { snapshot, pools, running, workers }
    }

    /// The current snapshot as this core sees it. A request holds on to the one it started with.
    pub(super) fn core(&self) -> Rc<Core> {
        if !self.snapshots.is_current(&self.current.borrow().snapshot) {
            let core = Self::core_of(self.snapshots.snapshot(), &self.pools, self.workers);
            *self.current.borrow_mut() = Rc::new(core);
        }
        Rc::clone(&self.current.borrow())
    }

    /// A new request id: 32 hexadecimal digits, random for each core and counted within.
    pub(super) fn request_id(&self) -> String {
        let n = self.ids.get() + 1;
        self.ids.set(n);
        format!("{:016x}{n:016x}", self.id_prefix)
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

    /// A seat for one more connection, unless this core's share of `max_connections` is taken.
    pub(super) fn seat(&self) -> Option<Seat> {
        let limit = self.core().share(self.current.borrow().snapshot.server().max_connections);
        if self.seats.borrow().taken >= limit {
            return None;
        }
        Some(Seat::take(&self.seats))
    }

    /// Closes idle connections, lets the others finish, and gives up after `drain_timeout`.
    async fn drain(&self) {
        self.draining.set(true);
        let patience = self.core().snapshot.server().drain_timeout;
        let finished = async {
            loop {
                self.seats.borrow().close_idle();
                if self.seats.borrow().taken == 0 {
                    return;
                }
                tokio::time::sleep(DRAIN_TICK).await;
            }
        };
        if tokio::time::timeout(patience, finished).await.is_err() {
            let left = self.seats.borrow().taken;
            tracing::warn!(connections = left, "drain_timeout has passed; the rest is cut off");
        }
    }
}

/// Whether a connection is idle, and the task that serves it.
type Place = (Rc<Cell<bool>>, Option<AbortHandle>);

/// The connections of one core.
#[derive(Default)]
struct Seats {
    taken: usize,
    free: Vec<usize>,
    places: Vec<Option<Place>>,
}

impl Seats {
    fn close_idle(&self) {
        for (idle, task) in self.places.iter().flatten() {
            if let (true, Some(task)) = (idle.get(), task) {
                task.abort();
            }
        }
    }
}

/// One connection's place; free again once all its clones are gone.
#[derive(Clone)]
pub(super) struct Seat(Rc<Taken>);

struct Taken {
    seats: Rc<RefCell<Seats>>,
    at: usize,
    idle: Rc<Cell<bool>>,
}

impl Seat {
    fn take(seats: &Rc<RefCell<Seats>>) -> Self {
        let idle = Rc::new(Cell::new(true));
        let mut inner = seats.borrow_mut();
        inner.taken += 1;
        let entry = Some((Rc::clone(&idle), None));
        let at = if let Some(at) = inner.free.pop() {
            inner.places[at] = entry;
            at
        } else {
            inner.places.push(entry);
            inner.places.len() - 1
        };
        drop(inner);
        Self(Rc::new(Taken { seats: Rc::clone(seats), at, idle }))
    }

    /// Whether the connection could be closed without losing anything; the connection keeps it true.
    pub(super) fn idle(&self) -> Rc<Cell<bool>> {
        Rc::clone(&self.0.idle)
    }

    /// Says which task has the seat, so that it can be closed while idle.
    pub(super) fn occupy(self, task: AbortHandle) {
        if let Some((_, slot)) = &mut self.0.seats.borrow_mut().places[self.0.at] {
            *slot = Some(task);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut seats = self.seats.borrow_mut();
        seats.places[self.at] = None;
        seats.free.push(self.at);
        seats.taken -= 1;
    }
}
