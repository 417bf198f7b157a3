//! 1 accept — which core serves a connection: one that has few.
//!
//! The kernel spreads connections by a hash of their addresses (`SO_REUSEPORT`). Thousands come out even, but all of
//! the ten that a legacy application keeps may land on one core. So the core that accepts looks at how many
//! connections each core has, and hands a new one to the emptiest where it has clearly more itself. That happens once, before
//! a byte is read (the TLS handshake is the receiving core's): a connection never moves again, and a request costs nothing of it.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::{
    peers::{Peers, Place},
    refusal::{Full, Refusals},
};
use crate::config::model::Server;

/// A core keeps what it accepts while it has at most this part of its connections more than the emptiest: with
/// fewer than eight one more is too many, with 800 a hundred are not worth the way.
const TOLERATED: usize = 8;

/// A connection on its way from the core that accepted it to the one that serves it.
#[derive(Debug)]
pub struct Arrival {
    /// Belongs to no runtime yet.
    pub(super) stream: TcpStream,
    /// The caller's address.
    pub(super) peer: SocketAddr,
    /// Which of the listeners it came in by.
    pub(super) door: usize,
    /// Counted for the receiving core already.
    pub(super) ticket: Ticket,
}

/// What other cores hand to one. Without a bound of its own: `max_connections` counts what is on its way.
pub type Inbox = UnboundedReceiver<Arrival>;

/// How many connections each core has, and the way to each; who has them, and who got none.
#[derive(Debug)]
pub struct Balance {
    all: Arc<AtomicUsize>,
    peers: Arc<Peers>,
    /// Connections that found no place.
    pub refusals: Refusals,
    cores: Vec<Desk>,
}

#[derive(Debug)]
struct Desk {
    connections: Arc<AtomicUsize>,
    inbox: UnboundedSender<Arrival>,
}

impl Balance {
    /// For so many cores; each gets one of the inboxes.
    pub fn new(cores: usize) -> (Arc<Self>, Vec<Inbox>) {
        let (cores, inboxes) = (0..cores)
            .map(|_| {
                let (inbox, receiver) = mpsc::unbounded_channel();
                (Desk { connections: Arc::default(), inbox }, receiver)
            })
            .unzip();
        let (all, peers, refusals) = <_>::default();
        (Arc::new(Self { all, peers, refusals, cores }), inboxes)
    }

    /// The core that should have the next connection instead of `own`, which accepted it; `None`: it stays.
    pub(super) fn instead_of(&self, own: usize) -> Option<usize> {
        let count = |desk: &Desk| desk.connections.load(Ordering::Relaxed);
        let open = self.cores.iter().enumerate().filter(|(_, desk)| !desk.inbox.is_closed());
        let (emptiest, fewest) = open.map(|(at, desk)| (at, count(desk))).min_by_key(|(_, count)| *count)?;
        let mine = count(&self.cores[own]);
        (mine > fewest + mine / TOLERATED).then_some(emptiest)
    }

    /// Counts one more connection for `core`, unless all cores together have as many as may be, of all callers or of
    /// this one.
    pub(super) fn ticket(&self, core: usize, peer: IpAddr, limits: &Server) -> Result<Ticket, Full> {
        self.admit(core, peer, limits.connections_of(peer), limits.max_connections)
    }

    fn admit(&self, core: usize, peer: IpAddr, of_peer: usize, of_all: usize) -> Result<Ticket, Full> {
        let place = if of_peer < of_all { self.peers.enter(peer, of_peer)? } else { None };
        Ticket::take(&self.all, &self.cores[core].connections, of_all, place).ok_or(Full::All)
    }

    /// Counts a connection that is only turned away: among `others` of its kind, of which there may be `limit`.
    pub(super) fn refusal(&self, core: usize, others: &Arc<AtomicUsize>, limit: usize) -> Option<Ticket> {
        Ticket::take(others, &self.cores[core].connections, limit, None)
    }

    /// Hands a connection to another core, or gives it back where that core takes none any more.
    pub(super) fn hand_over(&self, core: usize, arrival: Arrival) -> Result<(), Arrival> {
        self.cores[core].inbox.send(arrival).map_err(|mpsc::error::SendError(back)| back)
    }
}

/// A connection's place in the count, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    limited: Arc<AtomicUsize>,
    core: Arc<AtomicUsize>,
    /// Where callers are counted one by one.
    _place: Option<Place>,
}

impl Ticket {
    fn take(limited: &Arc<AtomicUsize>, core: &Arc<AtomicUsize>, limit: usize, place: Option<Place>) -> Option<Self> {
        if limited.fetch_add(1, Ordering::Relaxed) >= limit {
            limited.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        core.fetch_add(1, Ordering::Relaxed);
        Some(Self { limited: Arc::clone(limited), core: Arc::clone(core), _place: place })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.core.fetch_sub(1, Ordering::Relaxed);
        self.limited.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One more connection from this host for `core`, of so many over all.
    fn ticket(balance: &Balance, core: usize, most: usize) -> Result<Ticket, Full> {
        balance.admit(core, [127, 0, 0, 1].into(), usize::MAX, most)
    }

    /// Where connections end up that the kernel gives to these cores, one after the other, none of which ends.
    fn placed(balance: &Balance, accepted_by: impl IntoIterator<Item = usize>) -> (Vec<usize>, Vec<Ticket>) {
        let tickets = accepted_by
            .into_iter()
            .map(|own| ticket(balance, balance.instead_of(own).unwrap_or(own), usize::MAX).unwrap())
            .collect();
        (balance.cores.iter().map(|desk| desk.connections.load(Ordering::Relaxed)).collect(), tickets)
    }

    #[test]
    fn ten_connections_on_one_core_are_five_on_each_of_two() {
        let (balance, _inboxes) = Balance::new(2);
        assert_eq!(placed(&balance, [0; 10]).0, [5, 5]);
    }

    #[test]
    fn whatever_the_kernel_does_no_core_has_a_quarter_more_than_the_mean() {
        let spread: [fn(usize) -> usize; 4] = [|_| 3, |n| n % 2, |n| n * n % 4, |n| usize::from(n > 40)];
        for accepted_by in spread {
            let (balance, _inboxes) = Balance::new(4);
            let (counts, _tickets) = placed(&balance, (0..64).map(accepted_by));
            let busiest = *counts.iter().max().unwrap();
            assert!(busiest <= 64 / 4 * 5 / 4, "{counts:?}");
        }
    }

    #[test]
    fn what_is_nearly_even_stays_where_it_was_accepted() {
        let (balance, _inboxes) = Balance::new(2);
        let (_, _tickets) = placed(&balance, (0..800).map(|n| n % 2));
        assert_eq!(placed(&balance, [0; 40]).0, [440, 400], "a tenth more is tolerated");
        assert_eq!(balance.instead_of(1), None, "an emptier core keeps its own");
    }

    #[test]
    fn one_core_keeps_everything() {
        let (balance, _inboxes) = Balance::new(1);
        let (counts, _tickets) = placed(&balance, [0; 5]);
        assert_eq!((counts, balance.instead_of(0)), (vec![5], None));
    }

    #[test]
    fn a_core_that_takes_none_any_more_gets_none() {
        let (balance, mut inboxes) = Balance::new(3);
        let (_, _tickets) = placed(&balance, [0, 0, 0]);
        inboxes[1].close();
        assert_eq!(placed(&balance, [0; 4]).0, [3, 1, 3], "shared by the others");
        inboxes[0].close();
        inboxes[2].close();
        assert_eq!(balance.instead_of(0), None, "nobody is left to take it");
    }

    #[test]
    fn a_connection_that_ends_is_counted_nowhere_any_more() {
        let (balance, _inboxes) = Balance::new(2);
        let tickets = [ticket(&balance, 0, 2), ticket(&balance, 1, 2)];
        assert!(tickets.iter().all(Result::is_ok));
        assert_eq!(ticket(&balance, 0, 2).err(), Some(Full::All), "the limit is that of both together");
        drop(tickets);
        assert_eq!(placed(&balance, []).0, [0, 0]);
        assert!(ticket(&balance, 0, 1).is_ok());
    }
}
