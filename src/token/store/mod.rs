//! 6 where tokens outlive the process — sealed, so that the store holds nothing readable.
//!
//! A token is stored before it is published, so a restart, also one by `kill -9`, spends no token request.
//! A store that is away, damaged or somebody else's never stands in the way of a token: it is said once,
//! and the token is fetched.

mod directory;
mod files;
mod record;
mod redis;
mod refresh;
mod seal;

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Key,
    budget::{Account, Window},
    credential::Version,
    reply::Minted,
};
use crate::config::model::StoreSpec;
use files::Files;
use record::Record;
pub use redis::{Away, Lease, Redis};
pub use refresh::{Claim, Found, Over, Unclaimed};
pub use seal::{Seal, SealError};

/// Where the tokens of this process are kept.
#[derive(Debug, Default)]
pub enum Store {
    /// In this process alone.
    #[default]
    Memory,
    /// In sealed files of one directory.
    File {
        /// The directory.
        files: Files,
        /// Seals and opens.
        seal: Seal,
    },
    /// Shared with other replicas; read and written by [`super::share`].
    Redis(Arc<Redis>),
}

impl Store {
    /// Opens what the configuration names. `seal` is needed by every store but memory.
    pub fn open(spec: &StoreSpec, seal: Option<Seal>) -> Result<Self, String> {
        match (spec, seal) {
            (StoreSpec::Memory, _) => Ok(Self::Memory),
            (StoreSpec::File(path), Some(seal)) => {
                let files = Files::open(path).map_err(|e| format!("tokens.store: {}: {e}", path.display()))?;
                Ok(Self::File { files, seal })
            }
            (StoreSpec::Redis(spec), Some(seal)) => Redis::open(spec, seal).map(|redis| Self::Redis(Arc::new(redis))),
            (StoreSpec::File(_) | StoreSpec::Redis(_), None) => {
                Err("this tokens.store needs tokens.seal_key".to_owned())
            }
        }
    }

    /// Whether anything could be stored here, so that it is worth to read the secrets for [`Store::load`].
    pub async fn holds(&self, key: Key) -> bool {
        match self {
            // What others have shared is looked for before each fetch.
            Self::Memory | Self::Redis(_) => false,
            Self::File { files, .. } => files.exists(token_name(key)).await,
        }
    }

    /// The token of `key`, if one is there that was got with this version of the secrets and has not expired.
    pub async fn load(&self, key: Key, version: Version, now: SystemTime) -> Option<Minted> {
        let Self::File { files, seal } = self else { return None };
        let name = token_name(key);
        let sealed = match files.read(name.clone(), files::SHORT).await {
            Ok(sealed) => sealed,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => {
                tracing::warn!(file = files.path(&name), "a stored token cannot be read, a new one is fetched: {e}");
                return None;
            }
        };
        let opened = seal.open(key.as_bytes(), &sealed);
        let Some(record) = opened.as_ref().and_then(|plain| Record::from_bytes(plain)) else {
            let file = files.path(&name);
            tracing::warn!(file, "a stored token is damaged or was sealed with another key; a new one is fetched");
            return None;
        };
        record.into_minted(version, now, None)
    }

    /// Keeps a token. Failing to is said and survived: the token is good all the same.
    pub async fn save(&self, key: Key, version: Version, minted: &Minted) {
        let Self::File { files, seal } = self else { return };
        let name = token_name(key);
        let sealed = seal.seal(key.as_bytes(), &Record::of(version, minted).to_bytes());
        let saved = match sealed {
            Ok(sealed) => files.write(name.clone(), sealed, files::SHORT).await.map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        if let Err(why) = saved {
            let file = files.path(&name);
            tracing::warn!(file, "a token cannot be stored, so a restart will cost a token request: {why}");
        }
    }

    /// Forgets a token that an upstream has rejected: whatever is asked of the store from now on knows of it.
    pub fn forget(&self, key: Key) {
        if let Self::File { files, .. } = self {
            files.remove(token_name(key));
        }
    }

    /// Waits until others have what was theirs: leases of fetches that were given up.
    pub async fn given_back(&self) {
        if let Self::Redis(redis) = self {
            redis.given_back().await;
        }
    }

    /// The token requests that all processes counted against an account's budget; `None` where that cannot be read now. It is
    /// waited for `patiently` where nothing is known of it yet.
    pub async fn load_window(&self, account: Account, patiently: bool) -> Option<Window> {
        let Self::File { files, seal } = self else { return Some(Window::default()) };
        let name = window_name(account);
        let sealed = match files.read(name.clone(), if patiently { files::LONG } else { files::SHORT }).await {
            Ok(sealed) => sealed,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Some(Window::default()),
            Err(e) => {
                let file = files.path(&name);
                tracing::warn!(file, "the count of a budget cannot be read; what this process knows of it holds: {e}");
                return None;
            }
        };
        let plain = seal.open(name.as_bytes(), &sealed);
        let kept = plain.and_then(|plain| serde_json::from_slice::<Vec<(u64, u8, u32)>>(&plain).ok());
        if kept.is_none() {
            let file = files.path(&name);
            tracing::warn!(file, "the count of a budget is damaged or was sealed with another key; it begins anew");
        }
        let at = |millis| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis));
        let counts = kept
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(millis, counter, count)| Some((at(millis)?, counter, count)));
        Some(Window::kept(counts))
    }

    /// Keeps the token requests that count against an account's budget.
    pub async fn save_window(&self, account: Account, window: &Window) {
        let Self::File { files, seal } = self else { return };
        let since = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = |at| u64::try_from(since(at).as_millis()).unwrap_or(u64::MAX);
        let counts: Vec<_> = window.counts().map(|(at, counter, count)| (millis(at), counter, count)).collect();
        let (name, plain) = (window_name(account), serde_json::to_vec(&counts).unwrap_or_default());
        let saved = match seal.seal(name.as_bytes(), &plain) {
            Ok(sealed) => files.write(name.clone(), sealed, files::SHORT).await.map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        if let Err(why) = saved {
            let file = files.path(&name);
            tracing::warn!(file, "the count of a budget cannot be stored, so a restart will forget it: {why}");
        }
    }
}

fn token_name(key: Key) -> String {
    format!("{}.token", key.to_hex())
}

fn window_name(account: Account) -> String {
    format!("{}.budget", account.to_hex())
}

#[cfg(test)]
mod tests;
