//! THE CONTROL PLANE: starts everything, keeps the tokens, and ends everything in order.
//!
//! One thread of ordinary async Rust. It owns the [`Publisher`]; the cores only read.

mod certificates;
mod limits;
mod shutdown;

use std::{io, net::SocketAddr, sync::Arc, thread};

use tokio::{sync::watch, task::JoinHandle};

use crate::{
    config::model::{Config, Scheme, TokenSpec, Upstream},
    proxy::{
        balance::Balance,
        listener::{Door, Listener},
        worker::{self, Order, Plan},
    },
    snapshot::{self, Publisher, Snapshot},
    telemetry::access::{self, Access},
    token::{Engine, Store, store::Seal},
};

pub use shutdown::{Signal, Signals, stop_signal};

/// Why the proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}{}", hint(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A file that the configuration names is to blame.
    #[error("{0}")]
    Config(String),
    /// The access log cannot be written where the configuration says.
    #[error("{0}")]
    AccessLog(String),
    /// A thread or runtime cannot be made.
    #[error("cannot start a worker: {0}")]
    Worker(#[from] io::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "\nhint: something else listens there already, perhaps another cupbearer",
        io::ErrorKind::PermissionDenied => "\nhint: ports below 1024 need a privilege (CAP_NET_BIND_SERVICE)",
        io::ErrorKind::AddrNotAvailable => "\nhint: this host has no such address",
        _ => "",
    }
}

/// A running proxy.
pub struct Proxy {
    addresses: Vec<String>,
    workers: Vec<thread::JoinHandle<()>>,
    orders: watch::Sender<Order>,
    engine: Engine,
    guard: JoinHandle<()>,
    access: Option<Access>,
}

impl Proxy {
    /// Binds, compiles and starts. Must be called within the control thread's tokio runtime, which goes on
    /// to run the token tasks.
    pub fn start(config: Config) -> Result<Self, StartError> {
        limits::raise_open_files(config.server.max_connections);
        let server = config.server.clone();
        let listeners = server
            .listen
            .iter()
            .map(|listen| {
                let address = listen.address;
                let tls = listen.tls.as_ref().map(certificates::server_config).transpose();
                let tls = tls.map_err(StartError::Config)?;
                Listener::bind(address, tls, server.workers).map_err(|source| StartError::Listen { address, source })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let access = Access::start(&config.log)
            .map_err(|error| StartError::AccessLog(access::describe(&config.log.access, &error)))?;
        let engine = engine(&config, true)?;
        let first = compile(config, 1, &engine)?;
        let (publisher, reader) = snapshot::seam(first);
        let guard = tokio::spawn(forbid_found_endpoints(engine.found_endpoints(), publisher, reader.clone()));
        let (orders, _) = watch::channel(Order::Run);
        let addresses = listeners.iter().map(url).collect();
        let mut sockets: Vec<Vec<_>> = (0..server.workers).map(|_| Vec::new()).collect();
        for listener in listeners {
            for (of_worker, socket) in sockets.iter_mut().zip(listener.sockets) {
                of_worker.push((Door { address: listener.address, tls: listener.tls.clone() }, socket));
            }
        }
        let mut workers = Vec::with_capacity(server.workers);
        let (balance, inboxes) = Balance::new(server.workers);
        for (index, (sockets, inbox)) in sockets.into_iter().zip(inboxes).enumerate() {
            let (snapshots, balance, orders) = (reader.clone(), Arc::clone(&balance), orders.subscribe());
            let access = access.as_ref().and_then(Access::handle);
            let plan = Plan { index, workers: server.workers, sockets, snapshots, balance, inbox, access, orders };
            workers.push(worker::start(plan)?);
        }
        Ok(Self { addresses, workers, orders, engine, guard, access })
    }

    /// Where it listens, as URLs; port 0 replaced by the port that was given.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Lets go of log files that may have been moved away.
    pub fn reopen_logs(&self) {
        if let Some(access) = &self.access {
            access.reopen();
        }
    }

    /// Stops accepting, lets what runs finish within `drain_timeout`, and ends the workers. Tokens are
    /// kept fresh until the last of them is done; then a refresh token that is out at its provider is waited for.
    pub async fn stop(self) {
        self.orders.send_replace(Order::Drain);
        let joined = tokio::task::spawn_blocking(move || {
            for worker in self.workers {
                if worker.join().is_err() {
                    tracing::error!("a worker panicked");
                }
            }
            drop(self.access); // waits for the last lines
        });
        let _ = joined.await;
        self.guard.abort();
        self.engine.stop().await;
    }
}

/// A token endpoint that is discovered while the proxy runs is out of reach before the first token from there is
/// used: it is published in a snapshot of its own.
async fn forbid_found_endpoints(
    mut found: watch::Receiver<Vec<(String, Upstream)>>,
    publisher: Publisher,
    snapshots: snapshot::Reader,
) {
    while found.changed().await.is_ok() {
        let endpoints = found.borrow_and_update().clone();
        if let Some(next) = snapshots.snapshot().forbidding(&endpoints) {
            publisher.publish(next);
        }
    }
}

fn url(listener: &Listener) -> String {
    let scheme = if listener.tls.is_some() { Scheme::Https } else { Scheme::Http };
    format!("{}://{}", scheme.as_str(), listener.address)
}

/// What keeps this configuration's tokens; without `store` in this process alone.
pub(crate) fn engine(config: &Config, store: bool) -> Result<Engine, StartError> {
    let engine = Engine::with_store(if store { open_store(config)? } else { Store::Memory });
    match &config.vault {
        Some(vault) => engine.with_vault(vault).map_err(StartError::Config),
        None => Ok(engine),
    }
}

/// Opens the store; its key is read here, once, before anything listens.
fn open_store(config: &Config) -> Result<Store, StartError> {
    let tokens = &config.tokens;
    let seal = match &tokens.seal_key {
        None => None,
        Some(source) => {
            let key = source.read_blocking().map_err(|e| StartError::Config(format!("tokens.seal_key: {e}")))?;
            Some(Seal::new(&key).map_err(|e| StartError::Config(e.to_string()))?)
        }
    };
    Store::open(&tokens.store, seal).map_err(StartError::Config)
}

/// The tokens change with the snapshot, or not at all.
fn compile(config: Config, generation: u64, engine: &Engine) -> Result<Snapshot, StartError> {
    let mut plan = engine.plan();
    let reader = |spec: &Arc<TokenSpec>| plan.reader(spec).map_err(|e| e.to_string());
    let snapshot = Snapshot::compile(config, generation, None, reader).map_err(StartError::Config)?;
    plan.adopt();
    Ok(snapshot)
}
