//! 7 … moments and deadlines on both clocks.

use std::time::{Duration, Instant, SystemTime};

/// Both clocks at one moment. The monotonic one does not count a suspended laptop's sleep and the wall
/// clock may jump: a deadline is kept on both, and the earlier one wins.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic.
    pub mono: Instant,
    /// Wall.
    pub wall: SystemTime,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        Self { mono: Instant::now(), wall: SystemTime::now() }
    }
}

/// A deadline on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// Monotonic.
    pub mono: Instant,
    /// Wall.
    pub wall: SystemTime,
}

impl Deadline {
    /// `after` from `now`, on both clocks.
    pub fn after(now: Now, after: Duration) -> Self {
        Self { mono: now.mono + after, wall: now.wall + after }
    }

    /// Whether either clock has reached it.
    pub fn passed(&self, now: Now) -> bool {
        now.mono >= self.mono || now.wall >= self.wall
    }

    /// The deadline `by` later on both clocks.
    #[must_use]
    pub fn later_by(&self, by: Duration) -> Self {
        Self { mono: self.mono + by, wall: self.wall + by }
    }

    /// Time left on the clock that reaches it first.
    pub fn left(&self, now: Now) -> Duration {
        let wall = self.wall.duration_since(now.wall).unwrap_or_default();
        self.mono.saturating_duration_since(now.mono).min(wall)
    }
}
