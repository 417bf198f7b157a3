//! 5 fetching among replicas — who fetches, and whose result is taken.
//!
//! Before a token request a replica looks whether another one has stored a token that is newer than its own.
//! If not, it asks for the key's lease: who has it fetches and stores, the others look again until there is a
//! result or the lease is free. The lease is longer than the worst fetch, but who has waited for one holder as long as the credential's
//! `timeout` takes the lease from it: it has died, or callers would not wait any longer. Two may ask at once then, which costs a token
//! request and no more: a rotating refresh token has a lease of its own ([`rotation`](super::rotation)), which nobody takes from its
//! holder. Wherever Redis does not answer, a replica fetches for itself.

use std::time::{Duration, Instant, SystemTime};

use super::{Key, credential::Version, reply::Minted, store::Away};

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

/// What replicas have in common, and its clock: Redis, or a simulation of it.
pub trait Common {
    /// The right to fetch, for a time.
    type Lease;

    /// The token of `key`, got with this version of the secrets.
    fn load(&self, key: Key, version: Version) -> impl Future<Output = Result<Option<Minted>, Away>> + Send;
    /// Removes the token with this fingerprint.
    fn forget(&self, key: Key, fingerprint: &str) -> impl Future<Output = Result<(), Away>> + Send;
    /// Takes the lease of `key` for `length`; also from the holder of this name.
    fn lease(
        &self,
        key: Key,
        length: Duration,
        from: Option<&str>,
    ) -> impl Future<Output = Result<Claim<Self::Lease>, Away>> + Send;
    /// Gives it back.
    fn release(&self, lease: Self::Lease) -> impl Future<Output = ()> + Send;
    /// The time.
    fn now(&self) -> Instant;
    /// Waits.
    fn sleep(&self, length: Duration) -> impl Future<Output = ()> + Send;
}

/// What asking for a lease gives.
#[derive(Debug)]
pub enum Claim<L> {
    /// The lease.
    Ours(L),
    /// Another replica has it: its name, another one for each lease.
    Theirs(String),
}

/// What a lease lasts beyond the token requests themselves: reading the secrets, and Redis.
pub const LEASE_SLACK: Duration = Duration::from_secs(5);

/// How long what may take.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// A lease: longer than the worst fetch with all that belongs to it.
    lease: Duration,
    /// What one holder is waited for.
    patience: Duration,
}

impl Terms {
    /// Where callers wait for `timeout`, which is what one HTTP call may take, and a fetch, which may be several, takes `fetch`
    /// at most.
    ///
    /// No two replicas ask at once as long as a holder's calls *and* its commands to Redis fit into `timeout`; a holder that
    /// is slower has one of the others ask beside it, before that one's callers give up.
    pub const fn new(timeout: Duration, fetch: Duration) -> Self {
        Self { lease: fetch.saturating_add(LEASE_SLACK), patience: timeout }
    }
}

/// What a replica is to do.
#[derive(Debug)]
pub enum Turn<L> {
    /// Take this token, which another replica has fetched.
    Take(Box<Minted>),
    /// Fetch, and give the lease back afterwards.
    Fetch(L),
    /// Fetch for itself: Redis does not answer, or one holder after the other got nothing.
    Alone,
}

/// Waits for this replica's turn.
pub async fn turn<C: Common>(common: &C, key: Key, version: Version, last: &Last, terms: Terms) -> Turn<C::Lease> {
    match try_turn(common, key, version, last, terms).await {
        Ok(turn) => turn,
        Err(Away) => Turn::Alone,
    }
}

async fn try_turn<C: Common>(
    common: &C,
    key: Key,
    version: Version,
    last: &Last,
    terms: Terms,
) -> Result<Turn<C::Lease>, Away> {
    if last.rejected {
        common.forget(key, &last.fingerprint).await?;
    }
    let (began, mut pause) = (common.now(), LOOK.0);
    let mut holder: Option<(String, Instant)> = None;
    while common.now() < began + 2 * terms.lease {
        let found = || common.load(key, version);
        if let Some(minted) = found().await?.filter(|found| last.is_older_than(found)) {
            return Ok(Turn::Take(Box::new(minted)));
        }
        let late = |(_, since): &&(String, Instant)| common.now() >= *since + terms.patience;
        let from = holder.as_ref().filter(late).map(|(name, _)| name.as_str());
        let name = match common.lease(key, terms.lease, from).await? {
            Claim::Theirs(name) => name,
            Claim::Ours(lease) => {
                // Its last holder may have stored a token and given it back since we looked. Where this look fails
                // the lease is ours all the same.
                let newer = found().await.ok().flatten().filter(|found| last.is_older_than(found));
                let Some(minted) = newer else { return Ok(Turn::Fetch(lease)) };
                common.release(lease).await;
                return Ok(Turn::Take(Box::new(minted)));
            }
        };
        holder = holder.filter(|(known, _)| *known == name).or_else(|| Some((name, common.now())));
        common.sleep(pause).await;
        pause = (pause * 2).min(LOOK.1);
    }
    Ok(Turn::Alone)
}
