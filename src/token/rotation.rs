//! 2 … the refresh token of a credential: kept, rotated, and owned by one request at a time.
//!
//! A provider that rotates refresh tokens takes a second use of one as theft and ends the whole chain. So all
//! tokens of a credential share one [`Rotation`], and all processes that share a store its lock or lease: whoever
//! asks holds it alone until the answer's refresh token is stored, and only then the access token beside it is used.
//! Only `invalid_grant` forgets one.

use std::{
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use tokio::sync::{Mutex, MutexGuard};

use super::{
    Key, Store,
    consent::Consent,
    store::{Claim, Found, Over, Unclaimed},
};
use crate::config::{model::CredentialSpec, secret::Secret};

/// What a chain of refresh tokens hangs on: the first one, or the login that gave it. A chain with another root
/// than the configured one is not used any more.
pub type Root = [u8; 32];

/// The root of every chain that a login of a user's began: the newest login holds.
pub const LOGIN: Root = *b"a user has logged in: cupbearer!";

/// A refresh token that a provider gave us.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its text.
    pub token: Secret,
    /// What its chain began with.
    pub root: Root,
    /// What it was granted for, where a login told.
    pub consent: Option<Consent>,
}

/// Tells one refresh token from the next.
type Mark = Option<[u8; 32]>;

fn mark(kept: Option<&Kept>) -> Mark {
    let hash = |kept: &Kept| {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, kept.token.expose().as_bytes()).as_ref());
        hash
    };
    kept.map(hash)
}

/// The place of one credential's refresh token.
#[derive(Debug)]
pub struct Rotation {
    key: Key,
    store: Arc<Store>,
    /// What the store does not hold: everything where it is this process alone, nothing where all went well.
    unsaved: Mutex<Option<Unsaved>>,
    /// What the store held when it was last used.
    seen: StdMutex<Mark>,
    /// A task tries to store what could not be stored.
    trying: AtomicBool,
}

/// How soon what could not be stored is tried again: at first, and at last.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// How long the end waits for a store that does not take a refresh token.
pub const LAST_SAVES: Duration = Duration::from_secs(5);

/// How soon it tries again meanwhile.
const AGAIN_AT_LAST: Duration = Duration::from_millis(100);

/// How long that may have the store's lock or lease, and how long it waits for another process that has it.
const TURN: Duration = Duration::from_secs(5);

/// A token that could not be stored.
#[derive(Debug)]
struct Unsaved {
    kept: Kept,
    /// What the store holds instead; anything else is newer, nothing is not.
    over: Mark,
}

impl Rotation {
    /// The place named `key` in `store`.
    pub fn new(key: Key, store: Arc<Store>) -> Self {
        Self { key, store, unsaved: Mutex::default(), seen: StdMutex::default(), trying: AtomicBool::new(false) }
    }

    /// Waits for its turn, here and among processes; those hold it for `length` at most. What is in the store and cannot
    /// be opened stays untouched, and nobody gets a turn; unless it `is_replaceable`, then it counts as none.
    pub async fn own(&self, length: Duration, is_replaceable: bool) -> Result<Owner<'_>, Unclaimed> {
        let unsaved = self.unsaved.lock().await;
        let claim = self.store.claim_refresh(self.key, length).await?;
        let mut owner = Owner { rotation: self, unsaved, claim, stored: None, is_closed: false };
        match self.store.load_refresh(self.key).await {
            Ok(stored) => owner.stored = stored,
            Err(why) if is_replaceable && why.is_closed() => {
                tracing::warn!("a stored refresh token {why}; it is replaced");
                owner.is_closed = true;
            }
            Err(why) => {
                owner.release().await;
                return Err(why);
            }
        }
        owner.settle().await;
        self.see(owner.mark());
        Ok(owner)
    }

    /// Whether what is in the store could be used, without waiting for a turn.
    pub async fn look(&self) -> Result<(), Unclaimed> {
        self.store.load_refresh(self.key).await.map(drop)
    }

    /// Whether there is one in the store, as far as that can be told.
    pub async fn is_there(&self) -> Result<bool, Unclaimed> {
        Ok(self.store.load_refresh(self.key).await?.is_some())
    }

    /// Whether what is kept here is there for the next process.
    pub fn outlives_process(&self) -> bool {
        self.store.keeps_refresh_tokens()
    }

    /// Whether there is a refresh token that only this process has.
    pub async fn holds_unsaved(&self) -> bool {
        self.unsaved.lock().await.is_some()
    }

    /// The same without waiting: whoever uses it now may leave one behind.
    pub fn may_hold_unsaved(&self) -> bool {
        self.unsaved.try_lock().map_or(true, |unsaved| unsaved.is_some())
    }

    /// Whether the store holds another token than the one that was last used: a new login, or another process.
    pub async fn has_changed(&self) -> bool {
        let Ok(stored) = self.store.load_refresh(self.key).await else { return false };
        stored.is_some()
            && mark(stored.as_ref().map(|found| &found.kept))
                != *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that what could not be stored is stored once it can be. To be called once the turn is over.
    pub fn save_later(self: &Arc<Self>) {
        if !self.outlives_process() || !self.may_hold_unsaved() || self.trying.swap(true, Ordering::AcqRel) {
            return;
        }
        let rotation = Arc::clone(self);
        tokio::spawn(async move {
            let mut pause = AGAIN.0;
            while rotation.is_still_trying().await {
                tokio::time::sleep(pause).await;
                rotation.try_to_save().await;
                pause = (pause * 2).min(AGAIN.1);
            }
        });
    }

    /// No more once nothing is left. That is said before anything else can be left: who leaves it tries anew.
    async fn is_still_trying(&self) -> bool {
        let unsaved = self.unsaved.lock().await;
        if unsaved.is_none() {
            self.trying.store(false, Ordering::Release);
        }
        unsaved.is_some()
    }

    /// Tries until all is stored, for [`LAST_SAVES`] at most: whether it is. What is not may still be, where the store has it
    /// in hand.
    pub async fn save_at_last(&self) -> bool {
        let saving = async {
            while self.outlives_process() && self.holds_unsaved().await {
                self.try_to_save().await;
                tokio::time::sleep(AGAIN_AT_LAST).await;
            }
        };
        tokio::time::timeout(LAST_SAVES, saving).await.is_ok()
    }

    /// Whoever has a turn stores what is left first.
    async fn try_to_save(&self) {
        if self.holds_unsaved().await
            && let Ok(owner) = self.own(TURN, false).await
        {
            owner.release().await;
        }
    }

    fn see(&self, mark: Mark) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = mark;
    }
}

/// What the owner of the store can do about it, where nobody else can.
pub fn remedy(why: &Unclaimed, credential: &CredentialSpec) -> Option<String> {
    let after = if credential.grant.is_login() {
        format!("run: cupbearer login {}", credential.name)
    } else {
        "give a new refresh_token".to_owned()
    };
    match why {
        Unclaimed::Sealed(place) => {
            Some(format!("Give the seal_key that it was sealed with; or, if that is lost, remove {place} and {after}"))
        }
        Unclaimed::Unread(place, _) => Some(format!("Let this user read {place}; or remove it and {after}")),
        Unclaimed::Busy(_) | Unclaimed::Away | Unclaimed::Lock(_) | Unclaimed::Stuck(_) => None,
    }
}

/// The right to use the refresh token.
#[derive(Debug)]
pub struct Owner<'a> {
    rotation: &'a Rotation,
    unsaved: MutexGuard<'a, Option<Unsaved>>,
    claim: Claim,
    stored: Option<Found>,
    /// Something else is stored that nobody here can open, and that may be replaced.
    is_closed: bool,
}

impl Owner<'_> {
    /// The token to use now, if there is one with this root.
    pub fn current(&self, root: Root) -> Option<Kept> {
        let stored = self.stored.as_ref().map(|found| &found.kept);
        let kept = self.unsaved.as_ref().map(|unsaved| &unsaved.kept).or(stored);
        kept.filter(|kept| kept.root == root).cloned()
    }

    /// Keeps the one that the provider just gave: in the store before anything else is done with the answer. Whether
    /// it will outlive this process.
    pub async fn keep(&mut self, kept: Kept) -> bool {
        let (store, key) = (&self.rotation.store, self.rotation.key);
        let over = if self.is_closed { Over::Anything } else { Over::This(self.stored.as_ref()) };
        match store.save_refresh(key, kept, over).await {
            Ok(found) => {
                *self.unsaved = None;
                self.stored = Some(found);
                self.rotation.see(self.mark());
                true
            }
            Err(kept) => {
                // A store that has lost what it held may get it back, as a directory that is mounted again.
                let over = match self.unsaved.take() {
                    Some(before) if self.stored.is_none() => before.over,
                    _ => self.mark(),
                };
                *self.unsaved = Some(Unsaved { kept, over });
                false
            }
        }
    }

    /// Forgets it: the provider said that it is no good.
    pub async fn clear(&mut self) {
        *self.unsaved = None;
        if let Some(found) = self.stored.take() {
            self.rotation.store.forget_refresh(self.rotation.key, &found).await;
        }
        self.rotation.see(None);
    }

    /// What stands in the store.
    fn mark(&self) -> Mark {
        mark(self.stored.as_ref().map(|found| &found.kept))
    }

    /// Lets the next one have it.
    pub async fn release(self) {
        self.rotation.store.release(self.claim).await;
    }

    /// What could not be stored before is stored now; unless the store holds something newer.
    async fn settle(&mut self) {
        let Some(Unsaved { kept, over }) = &*self.unsaved else { return };
        let now = self.mark();
        if now.is_some() && now != *over {
            *self.unsaved = None;
        } else if self.rotation.store.keeps_refresh_tokens() {
            let kept = kept.clone();
            if self.keep(kept).await {
                tracing::info!("a rotated refresh token that could not be stored before is stored now");
            }
        }
    }
}
