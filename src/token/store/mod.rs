//! 6 where tokens outlive the process — sealed, so that the store holds nothing readable.
//!
//! A token is stored before it is published, so a restart, also one by `kill -9`, spends no token request.
//! A store that is away, damaged or somebody else's never stands in the way of a token: it is said once,
//! and the token is fetched.

mod file;
mod record;
mod refresh;
mod seal;

use std::{io, time::SystemTime};

use super::{Key, credential::Version, reply::Minted};
use crate::config::model::StoreSpec;
use file::Files;
use record::Record;
pub use seal::{Seal, SealError};

/// Where the tokens of this process are kept.
#[derive(Debug)]
pub enum Store {
    /// In this process alone.
    Memory,
    /// In sealed files of one directory.
    File {
        /// The directory.
        files: Files,
        /// Seals and opens.
        seal: Seal,
    },
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
            (StoreSpec::File(_), None) => Err("tokens.store = { file = … } needs tokens.seal_key".to_owned()),
        }
    }

    /// Whether anything could be stored here, so that it is worth to read the secrets for [`Store::load`].
    pub fn holds(&self, key: Key) -> bool {
        match self {
            Self::Memory => false,
            Self::File { files, .. } => files.exists(&key.to_hex()),
        }
    }

    /// The token of `key`, if one is there that was got with this version of the secrets and has not expired.
    pub fn load(&self, key: Key, version: Version, now: SystemTime) -> Option<Minted> {
        let Self::File { files, seal } = self else { return None };
        let name = key.to_hex();
        let sealed = match files.read(&name) {
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
        record.into_minted(version, now)
    }

    /// Keeps a token. Failing to is said and survived: the token is good all the same.
    pub fn save(&self, key: Key, version: Version, minted: &Minted) {
        let Self::File { files, seal } = self else { return };
        let sealed = seal.seal(key.as_bytes(), &Record::of(version, minted).to_bytes());
        let saved = match sealed {
            Ok(sealed) => files.write(&key.to_hex(), &sealed).map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        if let Err(why) = saved {
            let file = files.path(&key.to_hex());
            tracing::warn!(file, "a token cannot be stored, so a restart will cost a token request: {why}");
        }
    }

    /// Forgets a token that an upstream has rejected.
    pub fn forget(&self, key: Key) {
        if let Self::File { files, .. } = self {
            files.remove(&key.to_hex());
        }
    }
}

#[cfg(test)]
mod tests;
