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

    /// The token as if it had just been minted, aged by what the wall clock says. `None` if it has expired,
    /// was got with other secrets, or comes from the future (then the clock says nothing about its age).
    pub(super) fn into_minted(self, version: Version, now: SystemTime) -> Option<Minted> {
        let issued = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(self.issued))?;
        let (age, life) = (now.duration_since(issued).ok()?, Duration::from_millis(self.life));
        if self.version != version.to_bytes() || age >= life {
            return None;
        }
        // A machine that has been up for less than the token's age has no such instant: what is left counts then.
        let (mono, wall, life) = match Instant::now().checked_sub(age) {
            Some(mono) => (mono, issued, life),
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
