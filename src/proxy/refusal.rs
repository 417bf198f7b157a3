//! 1 accept — connections that find no place: each is counted, some are told why, a flood of them costs little.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::{
    connection::{self, Peer},
    error::{Code, ProxyError},
    socket::Socket,
    worker::Worker,
};
use crate::net::Tcp;

/// How long one that is turned away may take to read that.
const PATIENCE: Duration = Duration::from_secs(5);
/// The log tells of refusals once in this time.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// `max_connections`
    All,
    /// `max_connections_per_peer`
    Peer,
}

impl Full {
    /// Both of them.
    pub const BOTH: [Self; 2] = [Self::All, Self::Peer];

    /// The key of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "max_connections",
            Self::Peer => "max_connections_per_peer",
        }
    }

    pub(super) fn error(self) -> ProxyError {
        let text = match self {
            Self::All => "as many callers are connected as may be (max_connections)",
            Self::Peer => "this address has as many connections as one may have (max_connections_per_peer)",
        };
        ProxyError::new(Code::Overloaded, text).retry_after(1)
    }
}

/// How many connections found no place, by what was full.
#[derive(Debug, Default)]
pub struct Refusals {
    counts: [AtomicU64; Full::BOTH.len()],
    /// In milliseconds since the first one: when the log will tell of them again.
    silent_until: [AtomicU64; Full::BOTH.len()],
}

impl Refusals {
    /// How many there were.
    pub fn count(&self, why: Full) -> u64 {
        self.counts[why as usize].load(Ordering::Relaxed)
    }

    fn note(&self, why: Full, peer: SocketAddr) {
        static FIRST: OnceLock<Instant> = OnceLock::new();
        let so_far = self.counts[why as usize].fetch_add(1, Ordering::Relaxed) + 1;
        let now = FIRST.get_or_init(Instant::now).elapsed().as_millis() as u64;
        let (silent, next) = (&self.silent_until[why as usize], now + TOLD_EVERY.as_millis() as u64);
        let until = silent.load(Ordering::Relaxed);
        if now >= until && silent.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let peer = peer.ip().to_canonical();
            tracing::warn!(%peer, so_far, "a connection is turned away: {} is reached", why.as_str());
        }
    }
}

/// Turns a connection away, with an answer as long as not too many are waited for that read theirs: a TLS handshake
/// costs as much as many requests, so only a few a second are made for that.
pub(super) fn spawn(worker: &Rc<Worker>, stream: TcpStream, tls: Option<TlsAcceptor>, peer: Peer, why: Full) {
    worker.balance.refusals.note(why, peer.address);
    if tls.is_some() && !worker.may_shake_hands() {
        return;
    }
    let Some(seat) = worker.refusal_seat() else { return };
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(tokio::time::timeout(PATIENCE, async move {
        let socket = match tls {
            None => Socket::Tcp(stream),
            Some(tls) => match tls.accept(Tcp::new(stream)).await {
                Ok(stream) => Socket::Tls(Box::new(stream)),
                Err(_) => return,
            },
        };
        connection::turn_away(worker, socket, peer, why, seat).await;
    }));
}
