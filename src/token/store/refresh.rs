//! Refresh tokens in the store: beside the tokens, sealed like them, and never lost without a word.

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Key, Store};
use crate::{
    config::secret::Secret,
    token::rotation::{Kept, Root},
};

#[derive(Serialize, Deserialize)]
struct Record {
    refresh_token: String,
    root: Root,
}

impl Drop for Record {
    fn drop(&mut self) {
        self.refresh_token.zeroize();
    }
}

impl Store {
    /// Whether a refresh token that is saved here outlives this process.
    pub fn keeps_refresh_tokens(&self) -> bool {
        matches!(self, Self::File { .. })
    }

    /// The refresh token in the place named `key`.
    pub fn load_refresh(&self, key: Key) -> Option<Kept> {
        let Self::File { files, seal } = self else { return None };
        let name = name(key);
        let sealed = files.read(&name).ok()?;
        let plain = seal.open(&place(key), &sealed);
        let Some(record) = plain.and_then(|plain| serde_json::from_slice::<Record>(&plain).ok()) else {
            let file = files.path(&name);
            tracing::warn!(file, "a stored refresh token is damaged or was sealed with another key; it is not used");
            return None;
        };
        Some(Kept { token: Secret::new(record.refresh_token.clone()), root: record.root })
    }

    /// Whether the refresh token outlives this process now.
    pub fn save_refresh(&self, key: Key, kept: &Kept) -> bool {
        let Self::File { files, seal } = self else { return false };
        let record = Record { refresh_token: kept.token.expose().to_owned(), root: kept.root };
        // Text and numbers always make valid JSON.
        let plain = Zeroizing::new(serde_json::to_vec(&record).unwrap_or_default());
        let sealed = seal.seal(&place(key), &plain).map_err(|e| e.to_string());
        let saved = sealed.and_then(|sealed| files.write(&name(key), &sealed).map_err(|e| e.to_string()));
        if let Err(why) = &saved {
            let file = files.path(&name(key));
            tracing::error!(file, "a rotated refresh token cannot be stored and will be lost with this process: {why}");
        }
        saved.is_ok()
    }

    /// Removes it.
    pub fn forget_refresh(&self, key: Key) {
        if let Self::File { files, .. } = self {
            files.remove(&name(key));
        }
    }
}

fn name(key: Key) -> String {
    format!("{}-refresh", key.to_hex())
}

/// Never to be exchanged for an access token.
fn place(key: Key) -> Vec<u8> {
    [b"refresh ", key.as_bytes().as_slice()].concat()
}
