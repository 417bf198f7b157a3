//! How many requests of a route run at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::{Code, ProxyError};
use crate::telemetry::metrics::Counter;

/// From this limit on for each core, every core counts its own requests against its share and no two cores
/// touch the same memory. Below, a share would be too coarse (what is half of one?), so all cores count
/// together, exactly.
const SHARED_OUT: usize = 64;

/// A place among the running requests of a route, given back on drop.
pub(super) struct Permit<'a> {
    /// Counted on this core, in any case.
    own: &'a Counter,
    /// Counted over all cores.
    all: Option<&'a AtomicUsize>,
}

impl<'a> Permit<'a> {
    /// Takes a place among `limit`.
    pub(super) fn take(
        limit: usize,
        workers: usize,
        own: &'a Counter,
        all: &'a AtomicUsize,
    ) -> Result<Self, ProxyError> {
        let text = if limit >= SHARED_OUT.saturating_mul(workers) {
            let share = limit.div_ceil(workers);
            if own.get() < share as u64 {
                own.add(1);
                return Ok(Self { own, all: None });
            }
            format!(
                "{share} requests of this route are running on this worker already, its share of max_in_flight ({limit})"
            )
        } else {
            if all.fetch_add(1, Ordering::Relaxed) < limit {
                own.add(1);
                return Ok(Self { own, all: Some(all) });
            }
            all.fetch_sub(1, Ordering::Relaxed);
            format!("{limit} requests of this route are running already (max_in_flight)")
        };
        Err(ProxyError::new(Code::Overloaded, text).retry_after(1))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.own.subtract(1);
        if let Some(all) = self.all {
            all.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many places two cores give out together.
    fn given(limit: usize) -> usize {
        let (all, cores) = (AtomicUsize::new(0), [Counter::default(), Counter::default()]);
        let permits: Vec<_> =
            (0..10 * limit + 10).filter_map(|n| Permit::take(limit, 2, &cores[n % 2], &all).ok()).collect();
        let count = permits.len();
        drop(permits);
        assert_eq!((all.load(Ordering::Relaxed), cores[0].get(), cores[1].get()), (0, 0, 0), "all are given back");
        count
    }

    #[test]
    fn a_limit_holds_over_all_cores_together() {
        for limit in [0, 1, 2, 3, 127, 128, 1000] {
            assert_eq!(given(limit), limit, "max_in_flight = {limit}");
        }
    }

    #[test]
    fn a_small_limit_is_one_cores_as_much_as_anothers() {
        let (all, own) = (AtomicUsize::new(0), Counter::default());
        let taken: Vec<_> = (0..5).filter_map(|_| Permit::take(3, 2, &own, &all).ok()).collect();
        assert_eq!(taken.len(), 3, "one busy core may have all places");
    }
}
