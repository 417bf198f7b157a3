//! 2 … the refresh token of a credential: kept, rotated, and owned by one request at a time.
//!
//! A provider that rotates refresh tokens takes a second use of one as theft and ends the whole chain. So all
//! tokens of a credential share one [`Rotation`], whoever asks holds it alone until the answer's refresh token
//! is stored, and only then the access token beside it is used. Only `invalid_grant` forgets one.

use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

use super::{Key, Store};
use crate::config::secret::Secret;

/// What a chain of refresh tokens hangs on: the first one, or the login that gave it. A chain with another root
/// than the configured one is not used any more.
pub type Root = [u8; 32];

/// A refresh token that a provider gave us.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its text.
    pub token: Secret,
    /// What its chain began with.
    pub root: Root,
}

/// The place of one credential's refresh token.
#[derive(Debug)]
pub struct Rotation {
    key: Key,
    store: Arc<Store>,
    /// What the store does not hold: everything where it is this process alone, nothing where all went well.
    unsaved: Mutex<Option<Kept>>,
}

impl Rotation {
    /// The place named `key` in `store`.
    pub fn new(key: Key, store: Arc<Store>) -> Self {
        Self { key, store, unsaved: Mutex::default() }
    }

    /// Waits for its turn. Held until the answer is stored.
    pub async fn own(&self) -> Owner<'_> {
        Owner { rotation: self, unsaved: self.unsaved.lock().await }
    }
}

/// The right to use the refresh token.
#[derive(Debug)]
pub struct Owner<'a> {
    rotation: &'a Rotation,
    unsaved: MutexGuard<'a, Option<Kept>>,
}

impl Owner<'_> {
    /// The token to use now, if there is one with this root.
    pub fn current(&self, root: Root) -> Option<Secret> {
        let kept = self.unsaved.clone().or_else(|| self.rotation.store.load_refresh(self.rotation.key));
        kept.filter(|kept| kept.root == root).map(|kept| kept.token)
    }

    /// Keeps the one that the provider just gave: in the store before anything else is done with the answer.
    pub fn keep(&mut self, token: Secret, root: Root) {
        let kept = Kept { token, root };
        let stored = self.rotation.store.save_refresh(self.rotation.key, &kept);
        *self.unsaved = (!stored).then_some(kept);
    }

    /// Forgets it: the provider said that it is no good.
    pub fn clear(&mut self) {
        *self.unsaved = None;
        self.rotation.store.forget_refresh(self.rotation.key);
    }
}
