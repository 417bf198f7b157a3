//! 1 accept — the sockets, and the loop that takes connections from them.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use rustls::ServerConfig;
use socket2::{Domain, Protocol, Type};
use tokio::{net::TcpStream, sync::watch};
use tokio_rustls::TlsAcceptor;

use super::{
    balance::{Arrival, Inbox, Ticket},
    connection::{self, Peer},
    refusal::{self, Full},
    socket::Socket,
    worker::{Order, Worker},
};
use crate::{config::model::Scheme, rules::origin::Hosts, telemetry::metrics::Gauge};

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// How long accepting rests when descriptors have run out.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// One address, with one socket for each worker. The kernel spreads connections over them
/// (`SO_REUSEPORT`); [`balance`](super::balance) evens out what that leaves uneven.
#[derive(Debug)]
pub struct Listener {
    /// The address, its port known also where port 0 was asked for.
    pub address: SocketAddr,
    /// `None` = plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
    /// One socket a worker.
    pub sockets: Vec<TcpListener>,
}

impl Listener {
    /// Binds `workers` sockets to `address`.
    pub fn bind(address: SocketAddr, tls: Option<Arc<ServerConfig>>, workers: usize) -> io::Result<Self> {
        // SO_REUSEPORT would let a second instance share the port and quietly take half of the requests:
        // a first bind without it finds whoever is there.
        let probe = socket(address, false)?;
        let address = probe.local_addr()?;
        drop(probe);
        let sockets = (0..workers).map(|_| socket(address, true)).collect::<io::Result<_>>()?;
        Ok(Self { address, tls, sockets })
    }
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What a core needs to know of a listener beside its socket.
#[derive(Debug, Clone)]
pub struct Door {
    /// Its address.
    pub address: SocketAddr,
    /// `None` = plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
    /// Counts its connections.
    pub open: Gauge,
}

/// A listener as one core's tasks see it.
pub(super) struct Entrance {
    address: SocketAddr,
    scheme: Scheme,
    /// Of which generation they are, and the names.
    hosts: RefCell<(u64, Rc<Hosts>)>,
    tls: Option<TlsAcceptor>,
    open: Gauge,
}

impl Entrance {
    pub(super) fn of(worker: &Worker, door: &Door) -> Self {
        let scheme = if door.tls.is_some() { Scheme::Https } else { Scheme::Http };
        let snapshot = &worker.core().snapshot;
        let hosts = RefCell::new((snapshot.generation, Rc::new(snapshot.hosts(door.address, scheme))));
        let (tls, open) = (door.tls.clone().map(TlsAcceptor::from), door.open.clone());
        Self { address: door.address, scheme, hosts, tls, open }
    }

    /// The names by which it may be asked for now.
    fn hosts(&self, worker: &Worker) -> Rc<Hosts> {
        let core = worker.core();
        let mut hosts = self.hosts.borrow_mut();
        if hosts.0 != core.snapshot.generation {
            *hosts = (core.snapshot.generation, Rc::new(core.snapshot.hosts(self.address, self.scheme)));
        }
        Rc::clone(&hosts.1)
    }

    /// Serves a connection on this core.
    fn serve(&self, worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, ticket: Result<Ticket, Full>) {
        // Fails only on a connection that is gone already.
        let _ = stream.set_nodelay(true);
        let (peer, tls) = (Peer::new(peer, self.hosts(worker)), self.tls.clone());
        let seat = ticket.map(|ticket| worker.seat(ticket, self.open.hold()));
        match (seat, tls) {
            (Ok(seat), None) => connection::spawn(worker, Socket::Tcp(stream), peer, seat),
            (Ok(seat), Some(tls)) => connection::spawn_tls(worker, stream, tls, peer, seat),
            (Err(why), tls) => refusal::spawn(worker, stream, tls, peer, why),
        }
    }
}

/// Accepts by one of the entrances until the order to drain, then whatever the kernel has already completed: those
/// callers believe that they are connected.
pub(super) async fn accept(
    worker: Rc<Worker>,
    socket: TcpListener,
    entrances: Rc<[Entrance]>,
    door: usize,
    mut orders: watch::Receiver<Order>,
) -> io::Result<()> {
    let socket = tokio::net::TcpListener::from_std(socket)?;
    let entrance = &entrances[door];
    let mut draining = pin!(orders.wait_for(|order| *order == Order::Drain));
    loop {
        let accepted = poll_fn(|cx| match draining.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => socket.poll_accept(cx).map(Some),
        });
        let Some(accepted) = accepted.await else { break };
        match accepted {
            Ok((stream, peer)) => place(&worker, &entrances, door, stream, peer),
            Err(e) if is_about_one_connection(&e) => {}
            Err(e) => {
                tracing::warn!("cannot accept on {}: {e}", entrance.address);
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
    // Asked of the kernel itself: what the runtime knows of the queue may be old.
    let socket = socket.into_std()?;
    while let Ok((stream, peer)) = socket.accept() {
        stream.set_nonblocking(true)?;
        entrance.serve(&worker, TcpStream::from_std(stream)?, peer, worker.ticket(None, peer));
    }
    Ok(())
}

/// Serves a connection here, or hands it to the core that should have it.
fn place(worker: &Rc<Worker>, entrances: &[Entrance], door: usize, stream: TcpStream, peer: SocketAddr) {
    let elsewhere = worker.elsewhere();
    match (elsewhere, worker.ticket(elsewhere, peer)) {
        (Some(core), Ok(ticket)) => {
            // Fails only on a connection that is gone already.
            let Ok(stream) = stream.into_std() else { return };
            if let Err(back) = worker.balance.hand_over(core, Arrival { stream, peer, door, ticket }) {
                // That core has just ended.
                take(worker, entrances, back);
            }
        }
        (_, ticket) => entrances[door].serve(worker, stream, peer, ticket),
    }
}

/// Serves what another core accepted.
fn take(worker: &Rc<Worker>, entrances: &[Entrance], arrival: Arrival) {
    let Arrival { stream, peer, door, ticket } = arrival;
    match TcpStream::from_std(stream) {
        Ok(stream) => entrances[door].serve(worker, stream, peer, Ok(ticket)),
        Err(error) => tracing::warn!(%peer, "a connection is lost: {error}"),
    }
}

/// Serves what other cores hand over until the order to drain, then what is already on its way; from then on they
/// keep what they accept.
pub(super) async fn receive(
    worker: Rc<Worker>,
    mut inbox: Inbox,
    entrances: Rc<[Entrance]>,
    mut orders: watch::Receiver<Order>,
) {
    let mut draining = pin!(orders.wait_for(|order| *order == Order::Drain));
    loop {
        let arrival = poll_fn(|cx| match draining.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => inbox.poll_recv(cx),
        });
        let Some(arrival) = arrival.await else { break };
        take(&worker, &entrances, arrival);
    }
    inbox.close();
    while let Some(arrival) = inbox.recv().await {
        take(&worker, &entrances, arrival);
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
