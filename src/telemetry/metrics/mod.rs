//! What is counted.
//!
//! Each core counts for itself in memory that no other core writes ([`Shards`]): an addition is a load and a store, without a
//! lock or a shared cache line. Whoever wants to know adds the shards up. [`text`] writes the sums as Prometheus reads them.

mod status;
pub mod text;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub use status::Statuses;

/// A number that one thread changes and all may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// So many more; only for its one thread.
    pub fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    /// So many less; only for its one thread.
    pub fn subtract(&self, n: u64) {
        self.0.store(self.get().wrapping_sub(n), Ordering::Relaxed);
    }

    /// What it stands at.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many there are of something that comes and goes seldom, on any thread.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicU64>);

/// One of them; it is gone when it is dropped.
#[derive(Debug, Default)]
pub struct Held(Option<Gauge>);

impl Gauge {
    /// One more.
    pub fn hold(&self) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(Some(self.clone()))
    }

    /// How many there are.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(gauge) = &self.0 {
            gauge.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Upper ends of the classes of durations, in microseconds; what is longer falls into one class more.
pub const CLASSES: [u64; 15] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

fn class(micros: u64) -> usize {
    CLASSES.iter().position(|end| micros <= *end).unwrap_or(CLASSES.len())
}

/// How many durations fell into each class, and their sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Durations {
    /// By class, not added up.
    pub counts: [u64; CLASSES.len() + 1],
    /// All of them together.
    pub sum: Duration,
}

impl Durations {
    /// One more.
    pub fn add(&mut self, duration: Duration) {
        self.counts[class(duration.as_micros() as u64)] += 1;
        self.sum += duration;
    }

    /// Those of another set, too.
    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, more)| *mine += more);
        self.sum += other.sum;
    }
}

/// The same, changed by one thread and read by all.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [Counter; CLASSES.len() + 1],
    nanos: Counter,
}

impl Histogram {
    /// One more.
    pub fn add(&self, duration: Duration) {
        self.counts[class(duration.as_micros() as u64)].add(1);
        self.nanos.add(duration.as_nanos() as u64);
    }

    /// What it holds now.
    pub fn read(&self) -> Durations {
        let counts = std::array::from_fn(|at| self.counts[at].get());
        Durations { counts, sum: Duration::from_nanos(self.nanos.get()) }
    }
}

/// What became of the thought to send a request again, after the upstream had refused its token or proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// Sent again, and taken.
    Accepted,
    /// Sent again, and refused again.
    Rejected,
    /// Sent again, without an answer.
    Failed,
    /// Not sent again: too little of its body was kept.
    NotPossible,
    /// Not sent again: the token was too fresh to be replaced.
    TooFresh,
    /// Not sent again: the provider gave the very token that was refused once more.
    SameToken,
    /// Not sent again: the upstream refuses our proofs.
    Proof,
}

impl ReplayOutcome {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Accepted, Self::Rejected, Self::Failed, Self::NotPossible, Self::TooFresh, Self::SameToken, Self::Proof];

    /// As a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::NotPossible => "not_possible",
            Self::TooFresh => "too_fresh",
            Self::SameToken => "same_token",
            Self::Proof => "proof_refused",
        }
    }
}

/// How many codes of errors there may be.
pub const ERRORS: usize = 32;

/// One core's counts of one route.
#[derive(Debug, Default)]
pub struct RouteCounters {
    /// Ended requests by what was answered.
    pub statuses: Statuses,
    /// How long they took.
    pub seconds: Histogram,
    /// Requests that run.
    pub in_flight: Counter,
    /// Those of them that have one of this core's own places.
    pub own_places: Counter,
    /// Answers of our own, by code.
    pub errors: [Counter; ERRORS],
    /// Answers that the upstream did not bring to their end.
    pub truncated: Counter,
    /// What became of replays, in the order of [`ReplayOutcome::ALL`].
    pub replays: [Counter; ReplayOutcome::ALL.len()],
}

/// One set of counts for each core, made when that core first needs it.
#[derive(Debug)]
pub struct Shards(Box<[OnceLock<Box<RouteCounters>>]>);

impl Shards {
    /// For so many cores.
    pub fn new(cores: usize) -> Self {
        Self((0..cores.max(1)).map(|_| OnceLock::new()).collect())
    }

    /// The counts of one core, for that core.
    pub fn of(&self, core: usize) -> &RouteCounters {
        self.0[core % self.0.len()].get_or_init(Box::default)
    }

    /// The counts of all cores that have any.
    pub fn all(&self) -> impl Iterator<Item = &RouteCounters> {
        self.0.iter().filter_map(OnceLock::get).map(Box::as_ref)
    }

    /// One count over all cores.
    pub fn sum(&self, count: impl Fn(&RouteCounters) -> &Counter) -> u64 {
        // A core may add to one of its counts just when another of them is subtracted from.
        self.all().fold(0, |sum, core| sum.wrapping_add(count(core).get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_class_that_holds_it() {
        let histogram = Histogram::default();
        for micros in [0, 1_000, 1_001, 60_000_000, 60_000_001] {
            histogram.add(Duration::from_micros(micros));
        }
        let read = histogram.read();
        assert_eq!((read.counts[0], read.counts[1], read.counts[14], read.counts[15]), (2, 1, 1, 1));
        assert_eq!(read.sum, Duration::from_micros(120_002_002));
        let mut plain = Durations::default();
        plain.merge(&read);
        plain.add(Duration::ZERO);
        assert_eq!((plain.counts[0], plain.sum), (3, read.sum));
    }

    #[test]
    fn each_core_counts_for_itself_and_the_sum_is_right() {
        let shards = Shards::new(3);
        assert_eq!((shards.all().count(), shards.sum(|c| &c.in_flight)), (0, 0));
        shards.of(0).in_flight.add(5);
        shards.of(2).in_flight.add(2);
        shards.of(0).in_flight.subtract(4);
        assert_eq!((shards.all().count(), shards.sum(|c| &c.in_flight)), (2, 3));
    }
}
