//! 1 accept — the sockets, and the loop that takes connections from them.

use std::{
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
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpStream, sync::watch};
use tokio_rustls::TlsAcceptor;

use super::{
    connection, socket,
    worker::{Order, Worker},
};
use crate::{config::model::Scheme, rules::origin::Hosts};

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// How long accepting rests when descriptors have run out.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// One address, with one socket for each worker. The kernel spreads connections over them
/// (`SO_REUSEPORT`), so that no two workers share anything.
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
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
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
}

/// Accepts until the order to drain, then whatever the kernel has already completed: those callers believe
/// that they are connected.
pub(super) async fn accept(
    worker: Rc<Worker>,
    socket: TcpListener,
    door: Door,
    mut orders: watch::Receiver<Order>,
) -> io::Result<()> {
    let socket = tokio::net::TcpListener::from_std(socket)?;
    let Door { address, tls } = door;
    let scheme = if tls.is_some() { Scheme::Https } else { Scheme::Http };
    let hosts = Rc::new(worker.core().snapshot.hosts(address, scheme));
    let tls = tls.map(TlsAcceptor::from);
    let mut draining = pin!(orders.wait_for(|order| *order == Order::Drain));
    loop {
        let accepted = poll_fn(|cx| match draining.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => socket.poll_accept(cx).map(Some),
        });
        let Some(accepted) = accepted.await else { break };
        match accepted {
            Ok((stream, peer)) => serve(&worker, stream, tls.as_ref(), peer, &hosts),
            Err(e) if is_about_one_connection(&e) => {}
            Err(e) => {
                tracing::warn!("cannot accept on {address}: {e}");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
    // Asked of the kernel itself: what the runtime knows of the queue may be old.
    let socket = socket.into_std()?;
    while let Ok((stream, peer)) = socket.accept() {
        stream.set_nonblocking(true)?;
        serve(&worker, TcpStream::from_std(stream)?, tls.as_ref(), peer, &hosts);
    }
    Ok(())
}

fn serve(worker: &Rc<Worker>, stream: TcpStream, tls: Option<&TlsAcceptor>, peer: SocketAddr, hosts: &Rc<Hosts>) {
    // Fails only on a connection that is gone already.
    let _ = stream.set_nodelay(true);
    match tls {
        None => connection::spawn(worker, socket::Socket::Tcp(stream), peer, Rc::clone(hosts)),
        Some(tls) => connection::spawn_tls(worker, stream, tls.clone(), peer, Rc::clone(hosts)),
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
