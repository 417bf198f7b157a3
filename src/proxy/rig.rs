//! One core between two pipes in memory: the whole path of a request without a socket, so that its
//! allocations and instructions can be counted (`benches/hot_path.rs`). Nothing else uses it.

use std::rc::Rc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    runtime::LocalRuntime,
    sync::watch,
};

use super::{
    balance::Balance,
    clock,
    connection::{self, Peer},
    socket::{Link, Socket},
    worker::{Order, Plan, Worker},
};
use crate::{config::model::Scheme, net::Stream, snapshot::Reader, telemetry::metrics::Held};

/// Larger than any request or response that is measured, so that a pipe never waits.
const PIPE: usize = 64 * 1024;

/// A core, its caller and its upstream.
pub struct Rig {
    runtime: LocalRuntime,
    caller: DuplexStream,
    upstream: DuplexStream,
    buffer: Vec<u8>,
}

impl Rig {
    /// A core that serves the published snapshot; its first route's pool holds one connection.
    pub fn new(snapshots: Reader) -> std::io::Result<Self> {
        let runtime = clock::runtime()?;
        let (caller, accepted) = duplex(PIPE);
        let (upstream, origin) = duplex(PIPE);
        let (_, orders) = watch::channel(Order::Run);
        let listen = snapshots.snapshot().server().listen.first().map(|l| l.address);
        let listen = listen.unwrap_or_else(|| ([127, 0, 0, 1], 80).into());
        let (balance, mut inboxes) = Balance::new(1);
        let inbox = inboxes.remove(0);
        runtime.block_on(async {
            let worker = Rc::new(Worker::new(&Plan {
                index: 0,
                workers: 1,
                sockets: Vec::new(),
                snapshots,
                balance,
                inbox,
                access: None,
                orders,
            }));
            let core = worker.core();
            core.pool(&core.snapshot.routes[0]).give(Link::H1(Stream::memory(upstream)), None);
            let hosts = Rc::new(core.snapshot.hosts(listen, Scheme::Http));
            let address = ([127, 0, 0, 1], 9).into();
            if let Ok(ticket) = worker.ticket(None, address) {
                let seat = worker.seat(ticket, Held::default());
                connection::spawn(&worker, Socket::Memory(accepted), Peer::new(address, hosts), seat);
            }
        });
        Ok(Self { runtime, caller, upstream: origin, buffer: vec![0; PIPE] })
    }

    /// Sends one request through; returns how many bytes reached the upstream and the caller.
    pub fn request(&mut self, request: &[u8], response: &[u8]) -> std::io::Result<(usize, usize)> {
        let Self { runtime, caller, upstream, buffer } = self;
        runtime.block_on(async {
            caller.write_all(request).await?;
            let forwarded = upstream.read(buffer).await?;
            upstream.write_all(response).await?;
            let answered = caller.read(buffer).await?;
            Ok((forwarded, answered))
        })
    }
}
