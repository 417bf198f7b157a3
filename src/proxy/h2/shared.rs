//! This core's HTTP/2 connections to one origin: each carries many requests at once.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Outgoing, lane::Lane, watched::Watched};
use crate::{
    config::model::Scheme,
    net::{Place, Stream},
    proxy::clock,
};

struct Connection {
    lane: Rc<Lane>,
    born: Instant,
    retires: Instant,
    place: Option<Arc<Place>>,
}

impl Connection {
    /// Whether it takes new requests, as far as time, its name and its server say.
    fn is_open(&self, now: Instant) -> bool {
        let is_gone = self.place.as_ref().is_some_and(|place| place.is_gone());
        self.lane.is_open() && now < self.retires && !is_gone
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.lane.session().retire();
    }
}

/// The connections, oldest first.
#[derive(Default)]
pub(in crate::proxy) struct Shared {
    connections: RefCell<Vec<Connection>>,
}

impl Shared {
    /// A stream on a connection that has a place.
    pub(in crate::proxy) fn join(&self, scheme: Scheme) -> Option<Outgoing> {
        let now = clock::now();
        let mut all = self.connections.borrow_mut();
        // One that takes nobody any more lives as long as its last stream.
        all.retain(|c| c.is_open(now));
        let free = all.iter().find(|c| c.lane.has_place())?;
        Some(Outgoing::new(Rc::clone(&free.lane), scheme.as_str()))
    }

    /// Waits for a connection that was just made to say how many streams it takes; `false` where there is none.
    pub(in crate::proxy) async fn greeted(&self) -> bool {
        let now = clock::now();
        let new = |c: &&Connection| c.lane.is_new() && c.is_open(now);
        let Some(lane) = self.connections.borrow().iter().rfind(new).map(|c| Rc::clone(&c.lane)) else { return false };
        lane.greeted().await;
        !lane.is_new()
    }

    /// Takes a new connection, whose bytes are moved by a task of its own, and opens a stream on it.
    pub(in crate::proxy) fn open(&self, stream: Stream, scheme: Scheme) -> Outgoing {
        let lane = Rc::new(Lane::new());
        let (born, retires, place) = (clock::now(), stream.retires(), stream.place().cloned());
        tokio::task::spawn_local(Rc::clone(&lane).drive(Watched::new(stream, Rc::clone(&lane))));
        self.connections.borrow_mut().push(Connection { lane: Rc::clone(&lane), born, retires, place });
        Outgoing::new(lane, scheme.as_str())
    }

    /// Closes what is too old or has been idle for `ttl`.
    pub(in crate::proxy) fn sweep(&self, now: Instant, ttl: Duration) {
        self.connections.borrow_mut().retain(|c| {
            let idle_since = c.lane.used().unwrap_or(c.born);
            c.is_open(now) && (c.lane.running() > 0 || now < idle_since + ttl)
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

#[cfg(test)]
mod tests {
    use tokio::{io::duplex, task::LocalSet};

    use super::*;

    /// A connection that was made so long ago, with a server that answers nothing.
    fn opened(shared: &Shared, seconds_ago: u64) -> Outgoing {
        let (ours, theirs) = duplex(64 * 1024);
        tokio::task::spawn_local(async move {
            let mut server = h2::server::handshake(theirs).await.unwrap();
            while server.accept().await.is_some() {}
        });
        let stream = Stream::memory(ours).aged(Duration::from_secs(seconds_ago));
        shared.open(stream, Scheme::Http)
    }

    #[tokio::test]
    async fn a_connection_takes_no_new_streams_after_five_minutes_and_keeps_those_that_it_has() {
        LocalSet::new()
            .run_until(async {
                let (young, old) = (Shared::default(), Shared::default());
                let first = opened(&young, 299);
                assert!(young.join(Scheme::Http).is_none() && young.greeted().await, "it says how many it takes");
                assert!(young.join(Scheme::Http).is_some());
                let now = clock::now();
                assert!(young.is_open(now) && !young.is_open(now + Duration::from_secs(2)));
                let mut kept = opened(&old, 300);
                assert!(!old.greeted().await && old.join(Scheme::Http).is_none(), "another connection is made");
                assert!(old.is_empty(), "nobody finds it any more");
                let head = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n";
                assert!(kept.begin(head, true).is_ok(), "whoever has a place on it goes on");
                drop(first);
            })
            .await;
    }
}
