//! 4 the numbers — windows, back-off and holds, as pure functions of lifetimes and counts.

use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// How fast things may go. [`Pace::default`] is what runs; tests run faster.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Transient failures: the first and the longest back-off, drawn with full jitter.
    pub transient: (Duration, Duration),
    /// Permanent failures: the first and the longest time of the negative cache.
    pub permanent: (Duration, Duration),
    /// A longer `Retry-After` is cut to this.
    pub retry_after_cap: Duration,
    /// A new token cannot be rejected for this long: the first and the longest hold.
    pub hold: (Duration, Duration),
    /// No two token requests of one key begin closer together than this, whatever happens.
    pub brake: Duration,
    /// How often a token is looked at even if nothing is due: a jump of the wall clock is noticed then.
    pub tick: Duration,
    /// How often secret files are looked at. A change counts once it has stood for as long.
    pub secret_poll: Duration,
    /// A discovered provider is looked at again after this long at the earliest and at the latest; in between it
    /// decides itself (`Cache-Control: max-age`).
    pub discovery: (Duration, Duration),
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            transient: (SECOND / 2, MINUTE),
            permanent: (SECOND, 5 * MINUTE),
            retry_after_cap: 60 * MINUTE,
            hold: (5 * SECOND, 5 * MINUTE),
            brake: SECOND / 5,
            tick: 30 * SECOND,
            secret_poll: SECOND,
            discovery: (60 * MINUTE, 24 * 60 * MINUTE),
        }
    }
}

impl Pace {
    /// The back-off after `streak` transient failures in a row (from 1): full jitter, that is `luck`
    /// (0 to 1) times a bound that doubles.
    pub fn transient_delay(&self, streak: u32, luck: f64) -> Duration {
        let (first, longest) = self.transient;
        grown(first, 2, streak.saturating_sub(1), longest).mul_f64(luck.clamp(0.0, 1.0))
    }

    /// The negative cache after `streak` permanent failures in a row (from 1): 1, 4, 16, 64, 256, 300 s.
    /// It grows by four because providers lock accounts after a few bad tries.
    pub fn permanent_delay(&self, streak: u32) -> Duration {
        let (first, longest) = self.permanent;
        grown(first, 4, streak.saturating_sub(1), longest)
    }

    /// How long a new token cannot be rejected after so many that were rejected before they ever worked, in a row.
    pub fn hold(&self, strikes: u32) -> Duration {
        let (first, longest) = self.hold;
        grown(first, 2, strikes, longest)
    }
}

fn grown(first: Duration, factor: u32, times: u32, longest: Duration) -> Duration {
    let factor = factor.checked_pow(times).unwrap_or(u32::MAX);
    first.checked_mul(factor).unwrap_or(longest).min(longest)
}

/// How long before its expiry a token enters its advisory and its mandatory window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// The detached refresh starts this long before expiry.
    pub advisory: Duration,
    /// Requests wait for the refresh from here on.
    pub mandatory: Duration,
}

impl Windows {
    /// The windows of a token that lives for `life`, with a `jitter` from 0 to 1 that is fixed for a process
    /// and key, so that many replicas don't refresh at the same moment.
    ///
    /// Advisory: the last quarter of the life, but no more than a tier that grows with it, a twelfth of
    /// the life within 5…60 min (300 s → 75 s, 1 h → 5 min, 6 h → 30 min, 24 h → 60 min); then up to a quarter of that
    /// window earlier by jitter. Mandatory: the last tenth, 30 s at most.
    pub fn of(life: Duration, jitter: f64) -> Self {
        let tier = (life / 12).clamp(5 * MINUTE, 60 * MINUTE);
        let advisory = (life / 4).min(tier);
        let earlier = (advisory / 4).mul_f64(jitter.clamp(0.0, 1.0));
        Self { advisory: advisory + earlier, mandatory: (life / 10).min(30 * SECOND) }
    }
}

/// A number from 0 to 1 that depends on both inputs only: jitter without a source of chance.
/// (The finishing step of `SplitMix64`.)
pub fn luck(seed: u64, count: u64) -> f64 {
    let mut z = seed.wrapping_add(count.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    f64::from((z >> 32) as u32) / f64::from(u32::MAX)
}
