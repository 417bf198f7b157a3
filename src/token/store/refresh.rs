//! Refresh tokens in the store: beside the tokens, sealed like them, never lost without a word, and in the hands of
//! one process at a time.

use std::{
    io,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::{
    Away, Key, Lease, Seal, Store,
    files::{self, Lock},
};
use crate::{
    config::secret::Secret,
    token::{
        consent::Consent,
        rotation::{Kept, Root},
        share,
    },
};

/// How often somebody who waits for the right to use a refresh token looks again: at first, and at most.
const LOOK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// Why a refresh token came too late.
const PASSED: &str = "another process has stored one since, after the right to do so had passed to it";

/// A refresh token that was just given exists nowhere else: a store that is away is tried again this often.
const SAVES: u32 = 4;

/// The right of this process to use a refresh token. A file's lock ends with the value, once all is
/// written that was to be, a lease by [`Store::release`].
#[derive(Debug)]
pub enum Claim {
    /// Nobody else could use it.
    Alone,
    /// The lock of a file.
    File(Lock),
    /// The lease of a Redis.
    Lease(Lease),
}

/// Why a refresh token cannot be used now. The text completes "its refresh token …".
#[derive(Debug, thiserror::Error)]
pub enum Unclaimed {
    /// Another process has it, and does not come to an end.
    #[error("is in use by another process, which has not come to an end within {0:?}")]
    Busy(Duration),
    /// The store does not answer.
    #[error("cannot be had: the store (redis) does not answer")]
    Away,
    /// The store cannot be locked.
    #[error("cannot be locked in the store: {0}")]
    Lock(io::Error),
    /// The store's disk does not come to an end with anything.
    #[error("cannot be had: {0}")]
    Stuck(io::Error),
    /// It is there, and nobody here can open it. It may well be good: to use another one instead, or to put another one
    /// in its place, could end the whole chain.
    #[error("is in the store, but it is sealed with another seal_key, or damaged ({0})")]
    Sealed(String),
    /// It is there, and cannot be read.
    #[error("is in the store, but it cannot be read ({0}): {1}")]
    Unread(String, io::Error),
}

impl Unclaimed {
    /// Whether something is in the store that nobody here can make out.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Sealed(_) | Self::Unread(..))
    }
}

impl From<io::Error> for Unclaimed {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut { Self::Stuck(error) } else { Self::Lock(error) }
    }
}

impl From<Away> for Unclaimed {
    fn from(Away: Away) -> Self {
        Self::Away
    }
}

#[derive(Serialize, Deserialize)]
struct Record {
    refresh_token: String,
    root: Root,
    /// Absent in records of versions before this one.
    #[serde(default)]
    consent: Option<Consent>,
}

impl Drop for Record {
    fn drop(&mut self) {
        self.refresh_token.zeroize();
    }
}

/// A refresh token as it stands in the store.
#[derive(Debug)]
pub struct Found {
    /// What it is.
    pub kept: Kept,
    sealed: Vec<u8>,
}

/// What a refresh token takes the place of. Who was suspended for so long that its lease has ended must not undo what others
/// have stored since; a file's lock does not end.
#[derive(Debug, Clone, Copy)]
pub enum Over<'a> {
    /// Whatever is there.
    Anything,
    /// This, or nothing.
    This(Option<&'a Found>),
}

impl Store {
    /// Whether a refresh token outlives this process here.
    pub fn keeps_refresh_tokens(&self) -> bool {
        !matches!(self, Self::Memory)
    }

    /// Waits for the right to use the refresh token in the place named `key`; a lease lasts `length`, and nobody waits
    /// much longer than that.
    pub async fn claim_refresh(&self, key: Key, length: Duration) -> Result<Claim, Unclaimed> {
        let (deadline, mut pause) = (Instant::now() + length + LOOK.1, LOOK.0);
        loop {
            let claim = match self {
                Self::Memory => Some(Claim::Alone),
                Self::File { files, .. } => files.lock(format!("{}.lock", name(key))).await?.map(Claim::File),
                Self::Redis(redis) => match redis.lease(key, length, None).await? {
                    share::Claim::Ours(lease) => Some(Claim::Lease(lease)),
                    share::Claim::Theirs(_) => None,
                },
            };
            match claim {
                Some(claim) => return Ok(claim),
                None if Instant::now() >= deadline => return Err(Unclaimed::Busy(length)),
                None => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(LOOK.1);
        }
    }

    /// Gives the right back.
    pub async fn release(&self, claim: Claim) {
        if let (Self::Redis(redis), Claim::Lease(lease)) = (self, claim) {
            redis.release(lease).await;
        }
    }

    /// The refresh token in the place named `key`, if one is there. One that is there and cannot be opened is never
    /// taken for none.
    pub async fn load_refresh(&self, key: Key) -> Result<Option<Found>, Unclaimed> {
        let (sealed, seal) = match self {
            Self::Memory => return Ok(None),
            Self::File { files, seal } => match files.read(name(key), files::SHORT).await {
                Ok(sealed) => (sealed, seal),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::TimedOut => return Err(Unclaimed::Stuck(e)),
                Err(e) => return Err(Unclaimed::Unread(self.place(key), e)),
            },
            Self::Redis(redis) => match redis.get(&redis_name(key)).await? {
                Some(sealed) => (sealed, redis.seal()),
                None => return Ok(None),
            },
        };
        match opened(seal, key, &sealed) {
            Some(kept) => Ok(Some(Found { kept, sealed })),
            None => Err(Unclaimed::Sealed(self.place(key))),
        }
    }

    /// Puts the refresh token into the store, where it outlives this process. Gives it back where that failed, which is said.
    pub async fn save_refresh(&self, key: Key, kept: Kept, over: Over<'_>) -> Result<Found, Kept> {
        let seal = match self {
            Self::Memory => return Err(kept),
            Self::File { seal, .. } => seal,
            Self::Redis(redis) => redis.seal(),
        };
        let saved = match sealed(seal, key, &kept) {
            Ok(sealed) => self.save_sealed(key, &sealed, over).await.map(|()| sealed),
            Err(why) => Err(why),
        };
        saved.map(|sealed| Found { kept: kept.clone(), sealed }).map_err(|why| {
            let place = self.place(key);
            tracing::error!(
                place,
                "a rotated refresh token cannot be stored and will be lost with this process, unless it can be stored later: {why}"
            );
            kept
        })
    }

    async fn save_sealed(&self, key: Key, sealed: &[u8], over: Over<'_>) -> Result<(), String> {
        match self {
            Self::Memory => Ok(()),
            Self::File { files, .. } => {
                files.write(name(key), sealed.to_vec(), files::LONG).await.map_err(|e| e.to_string())
            }
            Self::Redis(redis) => save_shared(redis, key, sealed, over).await,
        }
    }

    /// Removes it, if it is still the one that was found.
    pub async fn forget_refresh(&self, key: Key, found: &Found) {
        match self {
            Self::Memory => {}
            Self::File { files, .. } => files.remove(name(key)),
            Self::Redis(redis) => {
                let _ = redis.remove(&redis_name(key), &found.sealed).await;
            }
        }
    }

    /// For messages.
    fn place(&self, key: Key) -> String {
        match self {
            Self::Memory => "memory".to_owned(),
            Self::File { files, .. } => files.path(&name(key)),
            Self::Redis(redis) => format!("{} in redis at {}", redis_name(key), redis.place()),
        }
    }
}

async fn save_shared(redis: &super::Redis, key: Key, sealed: &[u8], over: Over<'_>) -> Result<(), String> {
    let name = redis_name(key);
    let set = || async {
        match over {
            Over::Anything => redis.set(&name, sealed).await.map(|()| true),
            Over::This(found) => redis.replace(&name, found.map_or(&[], |found| &found.sealed), sealed).await,
        }
    };
    for _ in 1..SAVES {
        if let Ok(is_set) = set().await {
            return is_set.then_some(()).ok_or_else(|| PASSED.to_owned());
        }
        tokio::time::sleep(super::redis::PAUSE).await;
    }
    match set().await {
        Ok(true) => Ok(()),
        Ok(false) => Err(PASSED.to_owned()),
        Err(Away) => Err("redis does not answer".to_owned()),
    }
}

fn sealed(seal: &Seal, key: Key, kept: &Kept) -> Result<Vec<u8>, String> {
    let (refresh_token, consent) = (kept.token.expose().to_owned(), kept.consent.clone());
    let record = Record { refresh_token, root: kept.root, consent };
    // Text and numbers always make valid JSON.
    let plain = Zeroizing::new(serde_json::to_vec(&record).unwrap_or_default());
    seal.seal(&place(key), &plain).map_err(|e| e.to_string())
}

fn opened(seal: &Seal, key: Key, sealed: &[u8]) -> Option<Kept> {
    let plain = seal.open(&place(key), sealed)?;
    let record = serde_json::from_slice::<Record>(&plain).ok()?;
    let token = Secret::new(record.refresh_token.clone());
    Some(Kept { token, root: record.root, consent: record.consent.clone() })
}

fn name(key: Key) -> String {
    format!("{}-refresh", key.to_hex())
}

fn redis_name(key: Key) -> String {
    format!("cupbearer:refresh:{}", key.to_hex())
}

/// Never to be exchanged for an access token.
fn place(key: Key) -> Vec<u8> {
    [b"refresh ", key.as_bytes().as_slice()].concat()
}
