//! 1 accept — how many connections each caller's address has, over all cores.
//!
//! A table of atomic counters instead of a map behind a lock: a core never waits for another one. It is touched when a
//! connection begins and when it ends, and only where one address may not have them all.

use std::{
    array,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::refusal::Full;

/// Addresses that share one bucket at most; one more is not counted. With 10 000 addresses at a time that is one in a thousand.
const SLOTS: usize = 8;
const BUCKETS: usize = 4096;
/// A slot holds an address's mark above these bits and its count in them: more than `max_connections` may be.
const COUNT: u64 = (1 << 20) - 1;

/// The counts, by address.
#[derive(Debug)]
pub(super) struct Peers {
    buckets: Box<[[AtomicU64; SLOTS]]>,
    /// With a key of its own, so that nobody can choose addresses that meet in one bucket.
    hasher: RandomState,
}

impl Default for Peers {
    fn default() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| <_>::default()).collect(), hasher: RandomState::new() }
    }
}

impl Peers {
    /// One connection more of `peer`, unless it has `most`; `Ok(None)`: it cannot be counted.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr, most: usize) -> Result<Option<Place>, Full> {
        let hash = self.hasher.hash_one(one_caller(peer));
        let (at, mark) = (hash as usize % BUCKETS, hash & !COUNT);
        let bucket = &self.buckets[at];
        loop {
            let seen: [u64; SLOTS] = array::from_fn(|slot| bucket[slot].load(Ordering::Relaxed));
            let is_own = |slot: &u64| slot & !COUNT == mark && slot & COUNT > 0;
            // There may be two: its slot became free, and was taken again beside another that is not free yet.
            let count: u64 = seen.iter().filter(|slot| is_own(slot)).map(|slot| slot & COUNT).sum();
            if count >= most as u64 {
                return Err(Full::Peer);
            }
            let own = seen.iter().position(is_own);
            let Some(slot) = own.or_else(|| seen.iter().position(|slot| slot & COUNT == 0)) else { return Ok(None) };
            let more = mark | ((seen[slot] & COUNT) + 1);
            if bucket[slot].compare_exchange(seen[slot], more, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return Ok(Some(Place { peers: Arc::clone(self), at, slot }));
            }
        }
    }
}

/// What counts as one: an address, or the 2^64 of IPv6 that one network gives its hosts freely.
fn one_caller(peer: IpAddr) -> u128 {
    match peer.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits() >> 64 << 64,
    }
}

/// One connection of an address, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    peers: Arc<Peers>,
    at: usize,
    slot: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Its mark may stay: nobody believes one without a count.
        self.peers.buckets[self.at][self.slot].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many connections these addresses get, one after the other, of which each may have `most`.
    fn entered(peers: &Arc<Peers>, of: &[&str], most: usize) -> Vec<Place> {
        of.iter().filter_map(|peer| peers.enter(address(peer), most).ok()).map(|place| place.unwrap()).collect()
    }

    #[test]
    fn each_address_has_its_own_places_and_gives_them_back() {
        let peers = Arc::new(Peers::default());
        let held = entered(&peers, &["192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.1", "::ffff:192.0.2.2"], 2);
        assert_eq!(held.len(), 4, "two of each");
        assert!(entered(&peers, &["192.0.2.1", "192.0.2.2"], 2).is_empty());
        assert_eq!(entered(&peers, &["192.0.2.1"], 3).len(), 1, "a limit may change");
        drop(held);
        assert_eq!(entered(&peers, &["192.0.2.1"; 5], 2).len(), 2);
        assert!(peers.buckets.iter().flatten().all(|slot| slot.load(Ordering::Relaxed) & COUNT == 0));
    }

    #[test]
    fn a_network_of_ipv6_is_one_caller() {
        let peers = Arc::new(Peers::default());
        let held = entered(&peers, &["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"], 2);
        assert_eq!(held.len(), 3);
    }

    #[test]
    fn ten_thousand_addresses_are_counted_one_by_one() {
        let peers = Arc::new(Peers::default());
        let all: Vec<IpAddr> = (0..10_000u32).map(|n| IpAddr::V4(n.into())).collect();
        let held: Vec<_> = all.iter().map(|peer| peers.enter(*peer, 1).unwrap()).collect();
        let counted = held.iter().flatten().count();
        assert!(counted > 9_950, "only {counted} of them are counted");
        let again = all.iter().filter(|peer| peers.enter(**peer, 1).is_err()).count();
        assert_eq!(again, counted, "no address has another's places");
    }

    #[test]
    fn cores_that_count_at_the_same_time_agree() {
        let peers = Arc::new(Peers::default());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..5_000 {
                        let peer = IpAddr::V4((round % 3).into());
                        drop((peers.enter(peer, 2), peers.enter(peer, 2)));
                    }
                });
            }
        });
        assert!(peers.buckets.iter().flatten().all(|slot| slot.load(Ordering::Relaxed) & COUNT == 0));
    }
}
