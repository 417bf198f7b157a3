//! What is stored of a token, before it is sealed.

use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    config::secret::Secret,
    token::{
        bearer::Now,
        credential::Version,
        lifetime::LifetimeSource,
        reply::{Minted, fingerprint},
    },
};

/// A token that ends sooner could end before anybody has it.
const WORTH: Duration = Duration::from_secs(1);

/// One token. Times are wall clock: the monotonic one does not outlive the machine's uptime.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    token: String,
    /// Milliseconds since 1970.
    issued: u64,
    /// Milliseconds.
    life: u64,
    scope: Option<String>,
    /// Which secrets it was got with.
    version: [u8; 32],
}

impl Drop for Record {
    fn drop(&mut self) {
        self.token.zeroize();
    }
}

impl Record {
    pub(super) fn of(version: Version, minted: &Minted) -> Self {
        let since = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Self {
            token: minted.token.expose().to_owned(),
            issued: millis(since(minted.issued.wall)),
            life: millis(minted.life),
            scope: minted.scope.clone(),
            version: version.to_bytes(),
        }
    }

    /// When it was issued, in milliseconds since 1970.
    pub(super) fn issued_millis(&self) -> u64 {
        self.issued
    }

    /// When it was issued.
    pub(super) fn issued_at(&self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(self.issued))
    }

    pub(super) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Text and numbers always make valid JSON.
        Zeroizing::new(serde_json::to_vec(self).unwrap_or_default())
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// The token as if it had just been minted, aged by what the wall clock says, and by what is left of it by the clock of
    /// the store, where that has one. `None` if it has expired or is about to, was got with other secrets, or comes from the
    /// future and the store has no clock (then nothing tells its age).
    pub(super) fn into_minted(self, version: Version, now: SystemTime, most: Option<Duration>) -> Option<Minted> {
        let issued = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(self.issued))?;
        let life = Duration::from_millis(self.life);
        let by_wall = now.duration_since(issued).ok();
        let by_store = most.map(|most| life.saturating_sub(most));
        let age = by_wall.max(by_store)?;
        if self.version != version.to_bytes() || life.saturating_sub(age) < WORTH {
            return None;
        }
        // A machine that has been up for less than the token's age has no such instant: what is left counts then.
        let (mono, wall, life) = match Instant::now().checked_sub(age) {
            // Both clocks are ours: with an issuer's that is ahead, a machine that sleeps would use it for longer.
            Some(mono) => (mono, issued.min(now.checked_sub(age)?), life),
            None => (Instant::now(), now, life.saturating_sub(age)),
        };
        let token = Secret::new(self.token.clone());
        Some(Minted {
            fingerprint: fingerprint(token.expose()),
            token,
            issued: Now { mono, wall },
            life,
            life_from: LifetimeSource::Stored,
            scope: self.scope.clone(),
            skew: None,
            refresh: None,
            identity: None,
            token_type: None,
            proof: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(20);
    const NOW: Duration = Duration::from_secs(1_800_000_000);

    /// What is left of a token that the wall clock calls `age` seconds old, where the store leaves it `most`.
    fn left(age: f64, most: Option<f64>) -> Option<f64> {
        let Minted { issued, life, .. } = found(age, most)?;
        let left = life.saturating_sub(issued.mono.elapsed());
        let by_wall = (issued.wall + life).duration_since(SystemTime::UNIX_EPOCH + NOW).unwrap();
        assert!(by_wall.abs_diff(left) < Duration::from_millis(50), "the wall clock: {by_wall:?}, the other: {left:?}");
        Some((left.as_secs_f64() * 10.0).round() / 10.0)
    }

    fn found(age: f64, most: Option<f64>) -> Option<Minted> {
        let issued = Duration::from_secs_f64(NOW.as_secs_f64() - age);
        let record = Record {
            token: "not-a-token".to_owned(),
            issued: u64::try_from(issued.as_millis()).unwrap(),
            life: u64::try_from(LIFE.as_millis()).unwrap(),
            scope: None,
            version: Version::from_bytes([1; 32]).to_bytes(),
        };
        let now = SystemTime::UNIX_EPOCH + NOW;
        record.into_minted(Version::from_bytes([1; 32]), now, most.map(Duration::from_secs_f64))
    }

    #[test]
    fn what_is_left_is_the_least_that_either_clock_tells() {
        assert_eq!(left(5.0, None), Some(15.0));
        assert_eq!(left(5.0, Some(15.5)), Some(15.0));
        assert_eq!(left(5.0, Some(3.0)), Some(3.0), "the issuer's clock is ahead, but not by its age");
        assert_eq!(left(-50.0, Some(14.0)), Some(14.0), "the issuer's clock is ahead");
        assert_eq!(left(12.0, Some(18.0)), Some(8.0), "the issuer's clock is behind");
        assert_eq!(left(5.0, Some(60.0)), Some(15.0), "a store that keeps it for longer");
    }

    #[test]
    fn a_token_from_the_future_is_used_only_where_the_store_tells_its_age() {
        assert_eq!(left(-1.0, None), None);
        assert_eq!(left(-50.0, None), None);
        assert_eq!(left(-50.0, Some(0.5)), None);
    }

    #[test]
    fn a_token_that_is_about_to_end_is_not_used() {
        assert_eq!(left(18.9, None), Some(1.1));
        assert_eq!(left(19.1, None), None);
        assert_eq!(left(20.0, None), None);
        assert_eq!(left(2.0, Some(0.9)), None);
        assert_eq!(left(100.0, Some(10.0)), None);
    }
}
