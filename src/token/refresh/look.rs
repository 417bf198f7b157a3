//! 5 … what is looked for between two fetches: other secrets, another login.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, PoisonError},
};

use super::{Run, Task};
use crate::token::{
    bearer::Now,
    credential::Version,
    state::{Event, Phase},
};

/// What stands now where secrets come from.
pub(super) struct Looked {
    /// Of the sources, if they could be read.
    version: Option<Version>,
    /// The store holds another refresh token than the one that was last used.
    login: bool,
}

impl Task {
    /// Looks for what may give another attempt better chances.
    pub(super) fn look(&self) -> Pin<Box<dyn Future<Output = Looked> + Send>> {
        let (secrets, rotation) = (Arc::clone(&self.secrets), self.rotation.clone());
        Box::pin(async move {
            let version = if secrets.can_change() { secrets.look().await } else { None };
            let login = match rotation {
                Some(rotation) => rotation.has_changed().await,
                None => false,
            };
            Looked { version, login }
        })
    }

    /// What to do about what stands in the sources, and in the place of the refresh token.
    pub(super) fn noticed(&self, run: &mut Run, Looked { version, login }: Looked) -> Option<Event> {
        let (blamed, phase) = {
            let state = &self.progress.lock().unwrap_or_else(PoisonError::into_inner).state;
            (state.blames_secrets(), state.phase(self.writer.last_use(), Now::read()))
        };
        let credential = &self.spec.credential.name;
        if blamed && login {
            tracing::info!(credential, "another refresh token is in the store, trying again");
            return Some(Event::SecretChanged);
        }
        let version = version?;
        if self.is_static() || blamed {
            return (run.tried != Some(version)).then(|| {
                tracing::info!(credential, "its secrets have changed, trying again");
                if self.is_static() { Event::TokenChanged } else { Event::SecretChanged }
            });
        }
        if !matches!(phase, Phase::Fresh | Phase::Advisory) || run.trial.is_some() {
            return None; // what needs no token needs no trial, and who needs one will try it
        }
        run.trial = self.secrets.claim(version, self.ledger.is_ample());
        run.trial.as_ref().map(|_| Event::SecretsToTry)
    }
}
