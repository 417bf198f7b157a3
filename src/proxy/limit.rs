//! How many requests of a route run at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::{Code, ProxyError};
use crate::telemetry::metrics::RouteCounters;

/// From this limit on for each core, every core has places of its own, for which no two cores touch the same memory ...
const SHARED_OUT: usize = 64;
/// ... this part of all places together. For the others, and for all places of a smaller limit, the cores count together, so that a
/// core that has more to do than the rest may have nearly all of them.
const OWN: usize = 8;

/// How many places each core has for itself.
fn own_places(limit: usize, workers: usize) -> usize {
    match workers {
        1 => limit,
        _ if limit >= SHARED_OUT.saturating_mul(workers) => limit / OWN / workers,
        _ => 0,
    }
}

/// A place among the running requests of a route, given back on drop.
pub(super) struct Permit<'a> {
    /// What this core counts.
    core: &'a RouteCounters,
    /// Counted over all cores; `None`: one of this core's own places.
    all: Option<&'a AtomicUsize>,
}

impl<'a> Permit<'a> {
    /// Takes a place among `limit`. `all`: those that the cores count together.
    pub(super) fn take(
        limit: usize,
        workers: usize,
        core: &'a RouteCounters,
        all: &'a AtomicUsize,
    ) -> Result<Self, ProxyError> {
        let own = own_places(limit, workers);
        if core.own_places.get() < own as u64 {
            core.own_places.add(1);
            core.in_flight.add(1);
            return Ok(Self { core, all: None });
        }
        if all.fetch_add(1, Ordering::Relaxed) < limit - own * workers {
            core.in_flight.add(1);
            return Ok(Self { core, all: Some(all) });
        }
        all.fetch_sub(1, Ordering::Relaxed);
        let text = format!("{limit} requests of this route may run at a time (max_in_flight), and no place is free");
        Err(ProxyError::new(Code::Overloaded, text).retry_after(1))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.core.in_flight.subtract(1);
        match self.all {
            Some(all) => drop(all.fetch_sub(1, Ordering::Relaxed)),
            None => self.core.own_places.subtract(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many places so many cores give out together, to requests that come to each of them in turn, or all to the first.
    fn given(limit: usize, workers: usize, to_all: bool) -> usize {
        let (all, cores) = (AtomicUsize::new(0), [(); 4].map(|()| RouteCounters::default()));
        let core = |n: usize| &cores[if to_all { n % workers } else { 0 }];
        let permits: Vec<_> =
            (0..10 * limit + 10).filter_map(|n| Permit::take(limit, workers, core(n), &all).ok()).collect();
        let (count, running) = (permits.len(), cores.iter().map(|core| core.in_flight.get()).sum::<u64>());
        assert_eq!(count as u64, running);
        // One that ends makes room for one, wherever.
        let mut permits = permits;
        for n in 0..count.min(50) {
            drop(permits.remove(n * 7 % permits.len()));
            let free = cores.iter().find_map(|core| Permit::take(limit, workers, core, &all).ok());
            permits.push(free.expect("a place"));
        }
        drop(permits);
        assert_eq!(all.load(Ordering::Relaxed), 0);
        assert!(cores.iter().all(|core| core.in_flight.get() == 0 && core.own_places.get() == 0), "all are given back");
        count
    }

    #[test]
    fn a_limit_holds_over_all_cores_together() {
        for limit in [0, 1, 2, 3, 127, 128, 129, 255, 256, 1000] {
            for workers in [1, 2, 3, 4] {
                assert_eq!(given(limit, workers, true), limit, "max_in_flight = {limit}, {workers} workers");
            }
        }
    }

    #[test]
    fn one_busy_core_may_have_nearly_all_places() {
        for workers in [1, 2, 4] {
            assert_eq!(given(100, 1, false), 100);
            assert_eq!(given(3, workers, false), 3);
            assert!(given(1000, workers, false) >= 1000 - 1000 / OWN, "{workers} workers");
        }
    }

    #[test]
    fn places_that_were_taken_under_another_limit_are_given_back_too() {
        let (all, core) = (AtomicUsize::new(0), RouteCounters::default());
        let take = |limit, count: usize| -> Vec<_> {
            (0..count).map(|_| Permit::take(limit, 2, &core, &all).expect("a place")).collect()
        };
        let (wide, narrow) = (take(1000, 100), take(100, 30));
        drop(wide);
        let again = take(1000, 500);
        drop(narrow);
        drop(again);
        assert_eq!((all.load(Ordering::Relaxed), core.in_flight.get(), core.own_places.get()), (0, 0, 0));
    }
}
