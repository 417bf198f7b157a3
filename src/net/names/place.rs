//! One address of a name, what is remembered of it, and the order in which addresses are tried.

use std::{
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// For so long an address that failed is tried after all others.
const AVOIDED: Duration = Duration::from_secs(30);

/// A name's user signs here.
#[derive(Debug, Default)]
pub(super) struct Use {
    /// When it was last used; see [`now`].
    at: AtomicU64,
    /// Somebody waits for an answer.
    pub(super) asked: Notify,
}

impl Use {
    pub(super) fn sign(&self) {
        self.at.store(now(), Ordering::Relaxed);
    }

    /// Whether it was used within `window`.
    pub(super) fn is_within(&self, window: Duration) -> bool {
        let at = self.at.load(Ordering::Relaxed);
        at > 0 && now().saturating_sub(at) <= window.as_millis() as u64
    }
}

/// Milliseconds of this process, from 1.
fn now() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1
}

/// One address of a name. It stays the same through all answers that hold it, so that connections that lead there can
/// tell whether they still should.
#[derive(Debug)]
pub struct Place {
    pub(in crate::net) ip: IpAddr,
    /// The name's answers have been without it for a while.
    gone: AtomicBool,
    /// The port that failed last, in the lowest 16 bits; above them until when it is tried last.
    avoided: AtomicU64,
    name: Arc<Use>,
}

impl Place {
    pub(super) fn new(ip: IpAddr, name: &Arc<Use>) -> Arc<Self> {
        let (gone, avoided) = (AtomicBool::new(false), AtomicU64::new(0));
        Arc::new(Self { ip, gone, avoided, name: Arc::clone(name) })
    }

    /// Whether the name leads elsewhere now. Costs one load.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Connections that lead there are in use: the name is kept fresh for them.
    pub fn keep_fresh(&self) {
        self.name.sign();
    }

    pub(super) fn set_gone(&self, gone: bool) {
        self.gone.store(gone, Ordering::Relaxed);
    }

    /// It did not answer at this port, or not well. What listens at another port is another server: that is not affected.
    pub(in crate::net) fn failed(&self, port: u16) {
        let until = now() + AVOIDED.as_millis() as u64;
        self.avoided.store(until << 16 | u64::from(port), Ordering::Relaxed);
    }

    /// It answered at this port.
    pub(in crate::net) fn worked(&self, port: u16) {
        // Mostly nothing is to be forgotten, and the line stays shared.
        if self.is_avoided(port) {
            self.avoided.store(0, Ordering::Relaxed);
        }
    }

    fn is_avoided(&self, port: u16) -> bool {
        let avoided = self.avoided.load(Ordering::Relaxed);
        avoided & 0xffff == u64::from(port) && avoided >> 16 > now()
    }
}

/// The order in which addresses are tried: the families in turn (RFC 8305 section 4), beginning with that of the first; within
/// a family beginning with another one each `turn`, so that all get their share; those that failed lately at this port at the end.
pub(super) fn in_order(places: &[Arc<Place>], port: u16, turn: usize) -> Vec<Arc<Place>> {
    let first_is_v6 = places.first().is_some_and(|place| place.ip.is_ipv6());
    let family = |first: bool| {
        let mut family: Vec<_> = places.iter().filter(|p| (p.ip.is_ipv6() == first_is_v6) == first).collect();
        let count = family.len().max(1);
        family.rotate_left(turn % count);
        family
    };
    let (preferred, other) = (family(true), family(false));
    let mut ordered: Vec<Arc<Place>> = Vec::with_capacity(places.len());
    for at in 0..preferred.len().max(other.len()) {
        ordered.extend([preferred.get(at), other.get(at)].into_iter().flatten().map(|place| Arc::clone(place)));
    }
    ordered.sort_by_key(|place| place.is_avoided(port)); // stable
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<Arc<Place>> {
        let name = Arc::default();
        text.split(' ').map(|ip| Place::new(ip.parse().expect("an address"), &name)).collect()
    }

    fn order(places: &[Arc<Place>], turn: usize) -> String {
        in_order(places, 443, turn).iter().map(|p| p.ip.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn families_take_turns_beginning_with_the_preferred_one() {
        assert_eq!(order(&places("2001:db8::1 2001:db8::2 192.0.2.1"), 0), "2001:db8::1 192.0.2.1 2001:db8::2");
        assert_eq!(order(&places("192.0.2.1 192.0.2.2 2001:db8::1"), 0), "192.0.2.1 2001:db8::1 192.0.2.2");
    }

    #[test]
    fn each_turn_begins_with_another_address() {
        let three = places("192.0.2.1 192.0.2.2 192.0.2.3");
        assert_eq!(order(&three, 1), "192.0.2.2 192.0.2.3 192.0.2.1");
        assert_eq!(order(&three, usize::MAX), order(&three, usize::MAX % 3));
        let both = places("2001:db8::1 192.0.2.1 192.0.2.2 2001:db8::2");
        assert_eq!(order(&both, 1), "2001:db8::2 192.0.2.2 2001:db8::1 192.0.2.1");
        assert_eq!(order(&[], 1), "");
    }

    #[test]
    fn what_failed_lately_is_tried_last_until_it_works() {
        let three = places("192.0.2.1 192.0.2.2 192.0.2.3");
        three[0].failed(443);
        three[1].failed(8443);
        assert_eq!(order(&three, 0), "192.0.2.2 192.0.2.3 192.0.2.1");
        three[1].failed(443);
        three[2].failed(443);
        assert_eq!(order(&three, 0), "192.0.2.1 192.0.2.2 192.0.2.3");
        three[1].worked(8443);
        three[2].worked(443);
        assert_eq!(order(&three, 0), "192.0.2.3 192.0.2.1 192.0.2.2");
    }
}
