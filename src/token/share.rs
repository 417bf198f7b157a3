//! 5 fetching among replicas — who fetches, and whose result is taken.
//!
//! Before a token request a replica looks whether another one has stored a token that is newer than its own.
//! If not, it asks for the key's lease: who has it fetches and stores, the others look again until there is a
//! result or the lease is free. The lease is longer than the worst fetch, so a holder that dies delays the
//! others by that much and no more. Wherever Redis does not answer, a replica fetches for itself.

use std::time::{Duration, Instant, SystemTime};

use super::{
    Key,
    credential::Version,
    reply::Minted,
    store::{Away, Lease, Redis},
};

/// How often the others look for the result: at first, and at most.
const LOOK: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(250));

/// The last token that this replica had: only a newer one is taken from another.
#[derive(Debug, Clone, Default)]
pub struct Last {
    /// When it was asked for.
    pub issued: Option<SystemTime>,
    /// Its fingerprint.
    pub fingerprint: String,
    /// An upstream rejected it.
    pub rejected: bool,
}

impl Last {
    /// Whether `found` is worth taking over: another token, issued later.
    pub fn is_older_than(&self, found: &Minted) -> bool {
        self.fingerprint != found.fingerprint && self.issued.is_none_or(|issued| found.issued.wall > issued)
    }
}

/// What a replica is to do.
#[derive(Debug)]
pub enum Turn {
    /// Take this token, which another replica has fetched.
    Take(Box<Minted>),
    /// Fetch, and give the lease back afterwards.
    Fetch(Lease),
    /// Fetch for itself: Redis does not answer, or another replica holds the lease longer than it may.
    Alone,
}

/// Waits for this replica's turn; `length` is that of a lease.
pub async fn turn(redis: &Redis, key: Key, version: Version, last: &Last, length: Duration) -> Turn {
    match try_turn(redis, key, version, last, length).await {
        Ok(turn) => turn,
        Err(Away) => Turn::Alone,
    }
}

async fn try_turn(redis: &Redis, key: Key, version: Version, last: &Last, length: Duration) -> Result<Turn, Away> {
    if last.rejected {
        redis.forget(key, &last.fingerprint).await?;
    }
    let (deadline, mut pause) = (Instant::now() + length + LOOK.1, LOOK.0);
    loop {
        let found = || async { redis.load(key, version, SystemTime::now()).await };
        if let Some(minted) = found().await?.filter(|found| last.is_older_than(found)) {
            return Ok(Turn::Take(Box::new(minted)));
        }
        if let Some(lease) = redis.lease(key, length).await? {
            // Its last holder may have stored a token and given it back since we looked.
            if let Some(minted) = found().await?.filter(|found| last.is_older_than(found)) {
                redis.release(&lease).await;
                return Ok(Turn::Take(Box::new(minted)));
            }
            return Ok(Turn::Fetch(lease));
        }
        if Instant::now() >= deadline {
            return Ok(Turn::Alone);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK.1);
    }
}
