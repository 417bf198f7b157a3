//! The sandbox itself: one listener, all providers, and what its owner can do with it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    net::TcpListener,
    task::{AbortHandle, JoinSet},
};

use super::{
    connection,
    content::Content,
    fault::{FaultSpec, SpecError, Table},
    head::Head,
    log::{Book, Log},
    login::Desk,
    options::{Client, Options},
    provider::Provider,
    queue::Queue,
    tokens::Tokens,
};

/// One request: its head as it came in, and from where.
pub(super) struct Call {
    pub(super) head: Head,
    pub(super) peer: IpAddr,
}

/// What all connections of one sandbox share. No lock is held across an await.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) address: SocketAddr,
    /// `http://127.0.0.1:PORT`
    pub(super) base_url: String,
    pub(super) content: Content,
    pub(super) queue: Queue,
    book: Mutex<Book>,
    tokens: Mutex<Tokens>,
    faults: Mutex<Table>,
    desk: Mutex<Desk>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    pub(super) fn tokens(&self) -> MutexGuard<'_, Tokens> {
        lock(&self.tokens)
    }

    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        lock(&self.desk)
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Table> {
        lock(&self.faults)
    }

    /// Arms an order; `revoke` happens at once. False where too many are armed.
    pub(super) fn arm(&self, order: FaultSpec) -> bool {
        if order.revoke {
            self.tokens().revoke(order.provider);
        }
        self.faults().arm(order)
    }
}

/// A running sandbox: identity providers and APIs that behave like each profile. It runs on the tokio
/// runtime that started it, and dropping it stops it and closes its connections.
pub struct Sandbox {
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").field("address", &self.shared.address).finish_non_exhaustive()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Sandbox {
    /// Starts one. The error says why the address cannot be had.
    pub async fn start(mut options: Options) -> io::Result<Self> {
        let wanted = SocketAddr::new(options.address, options.port);
        let listener = TcpListener::bind(wanted)
            .await
            .map_err(|e| io::Error::new(e.kind(), format!("the sandbox cannot listen on {wanted}: {e}")))?;
        let address = listener.local_addr()?;
        let faults = std::mem::take(&mut options.faults);
        let shared = Arc::new(Shared {
            queue: Queue::new(options.queue_polls),
            options,
            address,
            base_url: format!("http://{address}"),
            content: Content::new(),
            book: Mutex::default(),
            tokens: Mutex::default(),
            faults: Mutex::default(),
            desk: Mutex::default(),
        });
        for fault in faults {
            shared.arm(fault);
        }
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { shared, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// `http://127.0.0.1:PORT`
    pub fn base_url(&self) -> &str {
        &self.shared.base_url
    }

    /// The provider's token endpoint.
    pub fn token_url(&self, provider: Provider) -> String {
        format!("{}{}", self.shared.base_url, provider.token_path())
    }

    /// Base URL of one of the provider's APIs, see [`Provider::api_path`].
    pub fn api_url(&self, provider: Provider, api: &str) -> String {
        format!("{}{}", self.shared.base_url, provider.api_path(api))
    }

    /// The clients that it knows.
    pub fn clients(&self) -> &[Client] {
        &self.shared.options.clients
    }

    /// URLs of the founding providers' APIs, and what a token for each needs.
    pub fn apis(&self) -> impl Iterator<Item = (String, &'static str)> {
        super::provider::APIS.iter().map(|(path, needs)| (format!("{}{path}", self.shared.base_url), *needs))
    }

    /// The secret of a client that it knows.
    pub fn secret(&self, provider: Provider, client_id: &str) -> Option<&str> {
        self.clients().iter().find(|c| c.provider == provider && c.id == client_id).map(|c| c.secret.as_str())
    }

    /// The private key (PEM) that its clients sign with, where a provider wants that: made anew in each process.
    pub fn private_key(&self) -> String {
        super::described::private_key()
    }

    /// Orders a fault, see [`super::GRAMMAR`].
    pub fn fault(&self, spec: &str) -> Result<(), SpecError> {
        self.shared.arm(spec.parse()?);
        Ok(())
    }

    /// Clears all faults.
    pub fn clear_faults(&self) {
        self.shared.faults().clear(None, None);
    }

    /// Revokes all access tokens of a provider (`None` = of all), and says how many.
    pub fn revoke(&self, provider: Option<Provider>) -> usize {
        self.shared.tokens().revoke(provider)
    }

    /// What came in so far.
    pub fn log(&self) -> Log {
        self.shared.book().log.clone()
    }

    /// Forgets what came in.
    pub fn clear_log(&self) {
        self.shared.book().clear();
    }

    /// SHA-256, in hex, of a download of this size.
    pub async fn download_digest(&self, size: u64) -> String {
        self.shared.content.digest(size).await
    }
}

/// Accepts until it is aborted; its connections end with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    shared.book().log.connections += 1;
                    connections.spawn(connection::serve(stream, peer.ip(), Arc::clone(&shared)));
                }
                // Out of file descriptors: give the open connections time to end.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}
