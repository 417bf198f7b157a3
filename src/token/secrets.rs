//! 1 the secrets of one credential over time — read, watched, and a new one tried before it replaces the old.
//!
//! Shared by the tasks of all tokens of a credential, so that a new secret is tried once and not once a token. The
//! trial is a token request like any other, made while the token that is there stays in use: if the provider takes
//! the new secret, its token replaces the old one, and if not, nothing has happened. What worked last stays here,
//! in memory, until something else has worked.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    credential::{Material, MaterialError, Version, is_watched},
    overlap::{Overlap, Pick},
    refusal::Refusal,
    sources::{Sources, Want},
    vault::Vault,
};
use crate::config::{model::CredentialSpec, secret::Secret};

/// A trial that gave no verdict is not repeated sooner.
const TRIAL_PAUSE: Duration = Duration::from_secs(30);

/// The secrets of one credential.
#[derive(Debug)]
pub struct Secrets {
    credential: Arc<CredentialSpec>,
    sources: Sources,
    /// How long a change must stand before it counts: a file may be half written.
    settling: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    overlap: Overlap,
    /// What the provider took last.
    working: Option<Material>,
    /// What stood in the sources when the provider last said yes or no to it.
    settled: Option<Version>,
    /// What stood in them at the last look, and since when.
    seen: Option<(Version, Instant)>,
    trying: bool,
    not_before: Option<Instant>,
    /// That a trial has to wait for the budget was said.
    waits: bool,
}

/// What a fetch may try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// Everything, what is new first.
    All,
    /// Everything, what worked last first: for when every request counts.
    Proven,
    /// Only what is new.
    New,
}

/// Where a client secret stands in its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From 1; `None` where its source gives another one by now.
    pub index: Option<usize>,
    /// How long the list is.
    pub count: usize,
}

/// One choice among the secrets.
#[derive(Debug)]
pub(super) struct Candidate {
    /// To ask with.
    pub(super) material: Material,
    pick: Pick,
    /// It is to replace what worked last.
    is_new: bool,
}

impl Candidate {
    /// Whether it is to replace what worked last: what the provider says of it says nothing about that.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }
}

/// The right to try what is new; one task of a credential has it at a time.
#[derive(Debug)]
pub(super) struct Trial(Arc<Secrets>);

impl Drop for Trial {
    fn drop(&mut self) {
        self.0.lock().trying = false;
    }
}

impl Secrets {
    /// Of `credential`; a change counts once it has stood for `settling`.
    pub fn new(credential: Arc<CredentialSpec>, vault: Option<Arc<Vault>>, settling: Duration) -> Self {
        let sources = Sources::new(&credential.name, vault);
        Self { credential, sources, settling, inner: Mutex::default() }
    }

    /// The credential is called `name` from now on.
    pub(super) fn rename(&self, name: &str) {
        self.sources.rename(name);
    }

    /// For a token request.
    pub async fn read(&self) -> Result<Material, MaterialError> {
        Material::read(&self.credential, &self.sources, Want::Request).await
    }

    /// Whether it makes sense to look for changes.
    pub(super) fn can_change(&self) -> bool {
        is_watched(&self.credential)
    }

    /// Whether a verdict was ever given: before that there is nothing that could be replaced.
    pub(super) fn is_settled(&self) -> bool {
        self.lock().settled.is_some()
    }

    /// What stands in the sources, if it can be read and has stood there for a while.
    pub(super) async fn look(&self) -> Option<Version> {
        let version = Material::read(&self.credential, &self.sources, Want::Watch).await.ok()?.version();
        let mut inner = self.lock();
        match inner.seen {
            Some((seen, since)) if seen == version => (since.elapsed() >= self.settling).then_some(version),
            _ if inner.settled == Some(version) => Some(version),
            _ => {
                inner.seen = Some((version, Instant::now()));
                None
            }
        }
    }

    /// The right to try what stands in the sources, if nobody has tried it and nobody is trying it.
    pub(super) fn claim(self: &Arc<Self>, version: Version, affordable: bool) -> Option<Trial> {
        let mut inner = self.lock();
        let waits = inner.not_before.is_some_and(|until| Instant::now() < until);
        if inner.trying || waits || inner.settled.is_none() || inner.settled == Some(version) {
            return None;
        }
        if !affordable {
            if !std::mem::replace(&mut inner.waits, true) {
                let credential = &*self.sources.name();
                tracing::info!(
                    credential,
                    "its secrets have changed; the budget is nearly spent, so they are tried at the next refresh"
                );
            }
            return None;
        }
        inner.trying = true;
        Some(Trial(Arc::clone(self)))
    }

    /// What one fetch tries, in order; never empty, except with [`Choice::New`].
    pub(super) fn candidates(&self, now: &Material, choice: Choice) -> Vec<Candidate> {
        let credential = &*self.credential;
        let mut materials: Vec<Material> =
            now.client_secrets.iter().map(|(_, secret)| now.with_secret(credential, secret.clone())).collect();
        if materials.is_empty() {
            materials.push(now.clone());
        }
        let choices: Vec<Version> = materials.iter().map(Material::choice).collect();
        let mut inner = self.lock();
        let is_replaced = inner.overlap.is_replaced(&choices);
        let mut order = inner.overlap.order(&choices);
        match choice {
            Choice::All => {}
            Choice::Proven => order.sort_by_key(|pick| *pick != Pick::Before),
            Choice::New if is_replaced => order.retain(|pick| *pick != Pick::Before),
            Choice::New => order.clear(),
        }
        let candidate = |pick: Pick| {
            let material = match (pick, &inner.working) {
                (Pick::Now(at), _) => materials.get(at).cloned()?,
                (Pick::Before, working) => working.as_ref()?.renewed(credential, now),
            };
            Some(Candidate { material, pick, is_new: is_replaced && pick != Pick::Before })
        };
        order.into_iter().filter_map(candidate).collect()
    }

    /// Takes note of how it went, and says whether the next candidate may go on: the provider refused this one
    /// for what it is.
    pub(super) fn judge(&self, candidate: &Candidate, refusal: Option<&Refusal>, of_several: bool) -> bool {
        let (name, choice) = (self.sources.name(), candidate.material.choice());
        let credential = &*name;
        let mut inner = self.lock();
        let what = || inner.working.as_ref().map(|working| candidate.material.changes_since(working));
        match refusal {
            None => {
                if let Some(secret) = what().filter(|_| candidate.is_new) {
                    tracing::info!(
                        credential,
                        secret,
                        "the new secret was tried: it works and replaces the one before"
                    );
                }
                inner.overlap.worked(choice);
                inner.working = Some(candidate.material.clone());
                self.sources.doubt(false);
                false
            }
            Some(refusal) if refusal.blames_client || (candidate.is_new && refusal.may_blame_secrets()) => {
                if let Some(secret) = what().filter(|_| candidate.is_new) {
                    tracing::warn!(
                        credential,
                        secret,
                        "the new secret was tried: refused, keeping the one before (in memory only: a restart loses it): {}",
                        refusal.message
                    );
                } else if of_several {
                    let secret = self.name_of(candidate);
                    tracing::warn!(credential, secret, "the provider refused this client secret");
                }
                inner.overlap.refused(choice);
                self.sources.doubt(!candidate.is_new);
                true
            }
            Some(refusal) => {
                if let Some(secret) = what().filter(|_| candidate.is_new) {
                    let again = TRIAL_PAUSE.max(refusal.retry_after.unwrap_or_default());
                    inner.not_before = Some(Instant::now() + again);
                    tracing::info!(
                        credential,
                        secret,
                        ?again,
                        "the new secret was tried without a verdict: {}",
                        refusal.message
                    );
                }
                false
            }
        }
    }

    /// The provider has said yes or no to all that stands in the sources.
    pub(super) fn settle(&self, version: Version) {
        let mut inner = self.lock();
        inner.settled = Some(version);
        inner.not_before = None;
        inner.waits = false;
    }

    /// A token is known that was got with these secrets: from a store, or by another replica.
    pub(super) fn proved(&self, material: &Material) {
        let mut inner = self.lock();
        if inner.settled != Some(material.version()) {
            if let Some(working) = inner.working.as_ref().filter(|working| working.choice() != material.choice()) {
                let (credential, secret) = (&*self.sources.name(), material.changes_since(working));
                tracing::info!(credential, secret, "the new secret works: another replica got a token with it");
            }
            inner.overlap.worked(material.choice());
            inner.working = Some(material.clone());
            inner.settled = Some(material.version());
        }
    }

    /// How a client secret is called where people see it, by position and source; never by its text. `None` where
    /// the credential has none.
    pub(super) fn name_of(&self, candidate: &Candidate) -> Option<String> {
        let credential = &*self.credential;
        let place = self.place_of(candidate)?;
        let mut sources = credential.client_secret.iter().chain(&credential.more_secrets);
        Some(match place.index.and_then(|index| Some((index, sources.nth(index - 1)?))) {
            Some((_, source)) if place.count == 1 => source.to_string(),
            Some((index, source)) => format!("{index} of {}: {source}", place.count),
            None => "the one before its source changed".to_owned(),
        })
    }

    /// Where it stands in the list; `None` where the credential has no client secret.
    pub(super) fn place_of(&self, candidate: &Candidate) -> Option<Place> {
        candidate.material.client_secret.as_ref()?;
        let index = match candidate.pick {
            Pick::Now(at) => {
                candidate.material.client_secrets.get(at).map(|(position, _): &(usize, Secret)| position + 1)
            }
            Pick::Before => None,
        };
        Some(Place { index, count: 1 + self.credential.more_secrets.len() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
