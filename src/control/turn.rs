//! Long work that shares its core with one that serves requests.
//!
//! The kernel lets a thread that has much to do run for milliseconds before it asks whose turn it is, and every request of that
//! core waits. So the work gives way every 100 µs; and where the others then take long, its own next turn is as long: whoever
//! always gives way on a crowded machine is never done, and neither is who runs with less priority (niceness).

use std::{
    cell::Cell,
    thread,
    time::{Duration, Instant},
};

/// How long a turn is at least.
const SHORT: Duration = Duration::from_micros(100);

/// A turn at the core.
pub(super) struct Turn {
    began: Cell<Instant>,
    length: Cell<Duration>,
}

impl Turn {
    pub(super) fn begin() -> Self {
        Self { began: Cell::new(Instant::now()), length: Cell::new(SHORT) }
    }

    /// To be called often: lets others run where this turn is over, and begins the next one.
    pub(super) fn pause(&self) {
        let ends = Instant::now();
        if ends - self.began.get() >= self.length.get() {
            thread::yield_now();
            self.began.set(Instant::now());
            self.length.set(ends.elapsed().max(SHORT));
        }
    }
}
