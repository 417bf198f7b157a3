//! THE CONTROL PLANE: starts everything, keeps the tokens, and ends everything in order.
//!
//! One thread of ordinary async Rust. It owns the [`Publisher`]; the cores only read.

mod admin;
mod certificates;
mod limits;
mod reload;
mod shutdown;
mod turn;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    config::model::{Config, Scheme, TokenSpec},
    proxy::{
        balance::Balance,
        listener::{Door, Listener},
        worker::{self, Order, Plan},
    },
    snapshot::{self, Snapshot},
    telemetry::{
        access::{self, Access},
        metrics::Gauge,
    },
    token::{Engine, Store, store::Seal},
};

use admin::{Admin, Sources};
use reload::Keeper;
pub use shutdown::{Signal, Signals, stop_signal};
use turn::Turn;

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
    /// The admin address cannot be listened on.
    #[error(
        "cannot listen on {address}, the admin address: {source}\nhint: [admin] listen = \"127.0.0.1:0\" takes any free \
         port, listen = false does without"
    )]
    Admin {
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
    engine: Arc<Engine>,
    keeper: JoinHandle<()>,
    access: Option<Access>,
    sources: Arc<Sources>,
    admin: Option<Admin>,
}

impl Proxy {
    /// Binds, compiles and starts. Must be called within the control thread's tokio runtime, which goes on
    /// to run the token tasks. `file`: what the configuration was loaded from, to be loaded again.
    pub fn start(config: Config, file: Option<PathBuf>) -> Result<Self, StartError> {
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
        let admin =
            config.admin.map(|address| Admin::bind(address).map_err(|source| StartError::Admin { address, source }));
        let admin = admin.transpose()?;
        let access = Access::start(&config.log)
            .map_err(|error| StartError::AccessLog(access::describe(&config.log.access, &error)))?;
        let engine = Arc::new(engine(&config, true)?);
        let first = compile(config, 1, None, &engine)?;
        let (publisher, reader) = snapshot::seam(first);
        let (reloads, requests) = mpsc::channel(reload::QUEUE);
        let counts = Arc::default();
        let keeper = Keeper::new(file, publisher, reader.clone(), Arc::clone(&engine), Arc::clone(&counts));
        let keeper = tokio::spawn(keeper.run(requests));
        let (orders, _) = watch::channel(Order::Run);
        let addresses = listeners.iter().map(url).collect();
        let mut sockets: Vec<Vec<_>> = (0..server.workers).map(|_| Vec::new()).collect();
        let mut counted = Vec::with_capacity(listeners.len());
        for listener in listeners {
            let (address, open) = (listener.address, Gauge::default());
            counted.push((address.to_string(), open.clone()));
            for (of_worker, socket) in sockets.iter_mut().zip(listener.sockets) {
                of_worker.push((Door { address, tls: listener.tls.clone(), open: open.clone() }, socket));
            }
        }
        let (balance, inboxes) = Balance::new(server.workers);
        let sources = Arc::new(Sources {
            engine: Arc::clone(&engine),
            snapshots: reader.clone(),
            connections: counted,
            balance: Arc::clone(&balance),
            lost: access.as_ref().and_then(Access::lost),
            draining: AtomicBool::new(false),
            reloads,
            counts,
        });
        let mut workers = Vec::with_capacity(server.workers);
        for (index, (sockets, inbox)) in sockets.into_iter().zip(inboxes).enumerate() {
            let (snapshots, balance, orders) = (reader.clone(), Arc::clone(&balance), orders.subscribe());
            let access = access.as_ref().and_then(Access::handle);
            let plan = Plan { index, workers: server.workers, sockets, snapshots, balance, inbox, access, orders };
            workers.push(worker::start(plan)?);
        }
        let admin = admin.map(|listener| Admin::start(listener, Arc::clone(&sources))).transpose()?;
        Ok(Self { addresses, workers, orders, engine, keeper, access, sources, admin })
    }

    /// Where it listens, as URLs; port 0 replaced by the port that was given.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Where health, readiness and metrics are told, as a URL.
    pub fn admin(&self) -> Option<String> {
        self.admin.as_ref().map(|admin| format!("http://{}", admin.address()))
    }

    /// SIGHUP: lets go of log files that may have been moved away, and reads the configuration again.
    pub fn hang_up(&self) {
        if let Some(access) = &self.access {
            access.reopen();
        }
        // Where so many wait already, the file will be read anyway.
        let _ = self.sources.reloads.try_send(reload::Request { why: "SIGHUP", reply: None });
    }

    /// Stops accepting, lets what runs finish within `drain_timeout`, and ends the workers. Tokens are
    /// kept fresh until the last of them is done; then a refresh token that is out at its provider is waited for.
    pub async fn stop(self) {
        self.sources.draining.store(true, Ordering::Relaxed);
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
        self.keeper.abort();
        drop(self.admin);
        self.engine.stop().await;
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
fn compile(
    config: Config,
    generation: u64,
    before: Option<&Snapshot>,
    engine: &Engine,
) -> Result<Snapshot, StartError> {
    let (mut plan, turn) = (engine.plan(), Turn::begin());
    let reader = |spec: &Arc<TokenSpec>| {
        turn.pause();
        plan.reader(spec).map_err(|e| e.to_string())
    };
    let snapshot = Snapshot::compile(config, generation, before, reader).map_err(StartError::Config)?;
    plan.adopt();
    Ok(snapshot)
}
