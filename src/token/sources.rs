//! 1 where secrets are read, and what holds where a source gives nothing any more.
//!
//! A file that is being replaced may be missing, empty or unreadable for a moment, and whoever keeps secrets may be
//! away. What was read last stays in use then, in memory only; that is said once, and once more when it is over.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use super::{presented::Presented, vault::Vault};
use crate::{
    config::secret::{Secret, SecretError, SecretSource, Shape},
    net::{Identity, IdentityError},
};

/// Whether what was read last stays good while a source gives nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Yes: a password, a key. It is good until somebody replaces it.
    Last,
    /// No: a ready assertion or token, which ends by itself.
    Nothing,
}

/// What a reading is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A token request: every source is read.
    Request,
    /// Looking for changes: only what is cheap to look at is read (see [`Sources::watches`]).
    Watch,
}

/// The sources of one credential.
#[derive(Debug, Default)]
pub struct Sources {
    /// The credential, for messages.
    name: Mutex<Arc<str>>,
    vault: Option<Arc<Vault>>,
    /// The provider refuses what they give: it may just have been replaced.
    in_doubt: AtomicBool,
    held: Mutex<HashMap<SecretSource, Held>>,
    presented: Presented,
}

#[derive(Debug)]
struct Held {
    secret: Secret,
    /// The source gives nothing now, which has been said.
    failing: bool,
}

impl Sources {
    /// Of the credential called `name`.
    pub fn new(name: &str, vault: Option<Arc<Vault>>) -> Self {
        Self { name: Mutex::new(name.into()), vault, ..Self::default() }
    }

    /// What the credential is called now.
    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// It is called `name` from now on.
    pub(super) fn rename(&self, name: &str) {
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = name.into();
    }

    /// Whether a source is looked at between token requests. A command or a keyring may ask somebody, and our own
    /// environment does not change.
    pub(super) fn watches(source: &SecretSource) -> bool {
        match source {
            SecretSource::File(_) | SecretSource::Vault(_) => true,
            SecretSource::Env(_)
            | SecretSource::Given { .. }
            | SecretSource::Command(_)
            | SecretSource::Keyring { .. } => false,
        }
    }

    /// The secret as it is now; with [`Keep::Last`] the one before, where there was one and now is none.
    pub async fn read(
        &self,
        source: &SecretSource,
        shape: Shape,
        keep: Keep,
        want: Want,
    ) -> Result<Secret, SecretError> {
        if want == Want::Watch
            && !Self::watches(source)
            && let Some(held) = self.lock().get(source)
        {
            return Ok(held.secret.clone());
        }
        let read = match (source, &self.vault) {
            (SecretSource::Vault(secret), Some(vault)) => vault.read(source, secret, shape, self.max_age(want)).await,
            _ => source.read_shaped(shape).await,
        };
        match read {
            Ok(secret) => {
                self.hold(source, &secret, shape);
                Ok(secret)
            }
            Err(error) if keep == Keep::Last => self.last(source, error),
            Err(error) => Err(error),
        }
    }

    /// Whether the provider refuses what the sources give.
    pub(super) fn doubt(&self, in_doubt: bool) {
        self.in_doubt.store(in_doubt, Ordering::Relaxed);
    }

    /// How old an answer of Vault's may be, so that neither many credentials nor watching become a burden to it.
    fn max_age(&self, want: Want) -> Duration {
        match want {
            _ if self.in_doubt.load(Ordering::Relaxed) => Duration::from_secs(1),
            Want::Request => Duration::from_secs(5),
            Want::Watch => Duration::from_secs(30),
        }
    }

    /// The certificate that these texts make, or the one before.
    pub(super) fn identity(&self, chain: &Secret, key: &Secret) -> Result<Identity, IdentityError> {
        self.presented.of(&self.name(), chain, key, SystemTime::now())
    }

    fn hold(&self, source: &SecretSource, secret: &Secret, shape: Shape) {
        if matches!(source, SecretSource::Env(_) | SecretSource::Given { .. }) {
            return; // always there
        }
        let credential = &*self.name();
        let before = self.lock().insert(source.clone(), Held { secret: secret.clone(), failing: false });
        let Some(before) = before else { return }; // `config` has looked at it
        if before.failing {
            tracing::info!(credential, "{source} can be read again");
        }
        if let Some(oddity) = secret.oddity().filter(|_| shape == Shape::Line && before.secret != *secret) {
            tracing::warn!(credential, "{source} has changed and {oddity}");
        }
    }

    fn last(&self, source: &SecretSource, error: SecretError) -> Result<Secret, SecretError> {
        let mut held = self.lock();
        let Some(held) = held.get_mut(source) else { return Err(error) };
        if !std::mem::replace(&mut held.failing, true) {
            let credential = &*self.name();
            tracing::warn!(credential, "{error}; what was read before stays in use, in memory only");
        }
        Ok(held.secret.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SecretSource, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
