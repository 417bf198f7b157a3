//! This core's HTTP/2 connections to one origin: each carries many requests at once.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use rustls::AlertDescription;

use super::{CONNECTION_WINDOW, Outgoing, SEND_BUFFER, STREAM_WINDOW, STREAMS, watched::Watched};
use crate::{
    config::model::Scheme,
    net::{Place, Stream, alerted},
    proxy::clock,
};

/// Largest response head, as with HTTP/1.1.
const MAX_HEAD: u32 = 64 * 1024;

/// Heads that may have arrived unread. No window of HTTP/2 bounds them; each answer has one, and trailers, and interim ones.
const MOST_HEADS: u32 = 4 * STREAMS;

/// The places on one connection, and what is known of it.
#[derive(Debug)]
pub(super) struct Lane {
    running: Cell<usize>,
    closed: Cell<bool>,
    used: Cell<Option<Instant>>,
    /// How many more heads may come.
    heads: Cell<u32>,
    alert: Cell<Option<AlertDescription>>,
}

impl Lane {
    fn new() -> Self {
        let (running, closed, used) = (Cell::new(0), Cell::new(false), Cell::new(None));
        Self { running, closed, used, heads: Cell::new(MOST_HEADS), alert: Cell::new(None) }
    }

    pub(super) fn enter(&self) {
        self.running.set(self.running.get() + 1);
        // Its own, and its trailers.
        self.expect(2);
    }

    /// So many heads more may come: one for each interim response that was read. Never more than [`MOST_HEADS`]: those that do
    /// not come are not saved up.
    pub(super) fn expect(&self, more: u32) {
        self.heads.set((self.heads.get() + more).min(MOST_HEADS));
    }

    /// Whether so many heads may have come.
    pub(super) fn expected(&self, come: u32) -> bool {
        let left = self.heads.get().checked_sub(come);
        self.heads.set(left.unwrap_or(0));
        left.is_some()
    }

    /// The TLS alert that the connection ends with.
    pub(super) fn end_with(&self, alert: AlertDescription) {
        self.alert.set(Some(alert));
    }

    pub(super) fn leave(&self) {
        self.running.set(self.running.get() - 1);
        self.used.set(Some(clock::now()));
    }

    /// The TLS alert that its connection ended with, as an error.
    pub(super) fn alert(&self) -> Option<io::Error> {
        self.alert.get().map(alerted)
    }

    /// Nobody enters any more.
    pub(super) fn close(&self) {
        self.closed.set(true);
    }
}

struct Connection {
    sender: SendRequest<Bytes>,
    lane: Rc<Lane>,
    born: Instant,
    retires: Instant,
    place: Option<Arc<Place>>,
}

impl Connection {
    /// Whether it takes new requests, as far as time and its name say.
    fn is_open(&self, now: Instant) -> bool {
        let is_gone = self.place.as_ref().is_some_and(|place| place.is_gone());
        !self.lane.closed.get() && now < self.retires && !is_gone
    }

    fn has_place(&self) -> bool {
        self.lane.running.get() < self.sender.current_max_send_streams().min(STREAMS as usize)
    }
}

/// The connections, oldest first.
#[derive(Default)]
pub(in crate::proxy) struct Shared {
    connections: RefCell<Vec<Connection>>,
}

impl Shared {
    /// A stream on a connection that has a place.
    pub(in crate::proxy) async fn join(&self, scheme: Scheme) -> Option<Outgoing> {
        loop {
            let now = clock::now();
            let (mut sender, lane) = {
                let mut all = self.connections.borrow_mut();
                // One that takes nobody any more lives as long as its last stream.
                all.retain(|c| c.is_open(now));
                let free = all.iter().find(|c| c.has_place())?;
                (free.sender.clone(), Rc::clone(&free.lane))
            };
            match poll_fn(|cx| sender.poll_ready(cx)).await {
                Ok(()) => return Some(Outgoing::new(sender, scheme.as_str(), lane)),
                Err(_) => lane.close(),
            }
        }
    }

    /// Takes a new connection, whose work is done by a task of its own, and opens a stream on it.
    pub(in crate::proxy) async fn open(&self, stream: Stream, scheme: Scheme) -> io::Result<Outgoing> {
        let lane = Rc::new(Lane::new());
        let (born, retires, place) = (clock::now(), stream.retires(), stream.place().cloned());
        let stream = Watched::new(stream, Rc::clone(&lane));
        let failed = |e| lane.alert().unwrap_or_else(|| io::Error::other::<h2::Error>(e));
        let (mut sender, connection) = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(MAX_HEAD)
            .handshake(stream)
            .await
            .map_err(failed)?;
        let closing = Rc::clone(&lane);
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!("an HTTP/2 connection to an upstream ended: {error}");
            }
            closing.close();
        });
        poll_fn(|cx| sender.poll_ready(cx)).await.map_err(failed)?;
        let connection = Connection { sender: sender.clone(), lane: Rc::clone(&lane), born, retires, place };
        self.connections.borrow_mut().push(connection);
        Ok(Outgoing::new(sender, scheme.as_str(), lane))
    }

    /// Closes what is too old or has been idle for `ttl`: without a sender left, a connection ends itself.
    pub(in crate::proxy) fn sweep(&self, now: Instant, ttl: Duration) {
        self.connections.borrow_mut().retain(|c| {
            let idle_since = c.lane.used.get().unwrap_or(c.born);
            c.is_open(now) && (c.lane.running.get() > 0 || now < idle_since + ttl)
        });
    }

    /// Whether there is one that takes new requests.
    pub(in crate::proxy) fn is_open(&self, now: Instant) -> bool {
        self.connections.borrow().iter().any(|connection| connection.is_open(now))
    }

    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty()
    }
}
