//! 5 the task that owns one key: it feeds the state machine and does what the machine says.
//!
//! It owns the one fetch of its key. Requests only watch its cell, so a caller that goes away cancels nothing,
//! and all who wait get the same result. The store is read when the task starts and written before a new
//! token is published.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio::sync::watch;

use super::{
    Key,
    asking::{Asking, Fetched, log_refusal},
    bearer::{FailureKind, Now, Writer},
    budget::Ledger,
    credential::{Material, Version, is_pollable},
    lifetime::LifetimeSource,
    overlap::Overlap,
    refusal::Refusal,
    reply::Minted,
    rotation::Rotation,
    share::Last,
    state::{Event, Policy, State, Todo},
    store::Store,
};
use crate::{
    config::model::{CredentialSpec, Grant, TokenSpec, Warm},
    net::Connector,
};

/// What the task lets others see of its work; the token itself is seen through the cell only.
#[derive(Debug, Default)]
pub struct Progress {
    /// The machine, after its last step.
    pub state: State,
    /// Fetches that gave a token.
    pub succeeded: u64,
    /// Fetches that gave none.
    pub failed: u64,
    /// What the last token was minted from.
    pub last_minted: Option<(LifetimeSource, Option<String>, Option<i64>)>,
    /// Which of several client secrets gave the last token, by position and source.
    pub secret: Option<String>,
    /// The last failure in full, kept after it has healed.
    pub last_refusal: Option<(Refusal, std::time::SystemTime)>,
}

/// One key's task.
pub struct Task {
    /// Its name in the store.
    pub key: Key,
    /// What is asked for.
    pub spec: Arc<TokenSpec>,
    /// By which way.
    pub connector: Connector,
    /// How.
    pub policy: Policy,
    /// The cell.
    pub writer: Writer,
    /// Where tokens outlive the process.
    pub store: Arc<Store>,
    /// Whether a token request may be sent.
    pub ledger: Arc<Ledger>,
    /// Which client secret works.
    pub overlap: Arc<tokio::sync::Mutex<Overlap>>,
    /// The credential's refresh token, where it has one.
    pub rotation: Option<Arc<Rotation>>,
    /// For status.
    pub progress: Arc<Mutex<Progress>>,
    /// Set when no configuration names the key any more.
    pub retired: watch::Receiver<bool>,
}

impl Task {
    /// Runs until the key is retired and nobody reads its cell any more.
    pub async fn run(mut self) {
        let budget = self.ledger.changes();
        let mut run = Run {
            fetch: None,
            wake: None,
            tried: None,
            poll: None,
            warned: false,
            budget,
            blocked: false,
            last: Last::default(),
        };
        let mut event = self.restored().await;
        loop {
            self.step(&mut run, event);
            event = self.next(&mut run).await;
            if *self.retired.borrow() {
                self.policy.warm = Warm::OnUse; // nobody's business any more but theirs who still use it
                if !self.writer.has_readers() {
                    return;
                }
            }
        }
    }

    /// The token that an earlier process left in the store, if it can still be used.
    async fn restored(&self) -> Event {
        if self.is_static() || !self.store.holds(self.key) {
            return Event::Look;
        }
        let credential = &self.spec.credential;
        let Ok(material) = Material::read(credential).await else { return Event::Look };
        let Some(minted) = self.store.load(self.key, material.version(), Now::read().wall) else { return Event::Look };
        let left = minted.life.saturating_sub(minted.issued.mono.elapsed());
        tracing::info!(
            credential = credential.name,
            fingerprint = minted.fingerprint,
            ?left,
            "token found in the store"
        );
        Event::Fetched(Box::new(Ok(minted)))
    }

    fn step(&self, run: &mut Run, event: Event) {
        let now = Now::read();
        if let Event::Fetched(result) = &event
            && let Ok(minted) = &**result
        {
            let (issued, fingerprint) = (Some(minted.issued.wall), minted.fingerprint.clone());
            run.last = Last { issued, fingerprint, rejected: false };
        }
        let seen = self.writer.take_signals();
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let before = progress.state.view();
        let (state, todo) = std::mem::take(&mut progress.state).on(&self.policy, event, seen, now);
        let Todo { publish, fetch, wake } = todo;
        if publish {
            let view = state.view();
            if let Some(old) = before.bearer.filter(|_| view.rejected > before.rejected) {
                let credential = &self.spec.credential.name;
                tracing::info!(credential, fingerprint = old.fingerprint, "an upstream rejected the token");
                self.store.forget(self.key);
                run.last.rejected = run.last.fingerprint == old.fingerprint;
            }
            self.writer.publish(view);
        }
        if fetch {
            let asking = Asking {
                spec: Arc::clone(&self.spec),
                connector: self.connector.clone(),
                ledger: Arc::clone(&self.ledger),
                overlap: Arc::clone(&self.overlap),
                rotation: self.rotation.clone(),
                key: self.key,
                store: Arc::clone(&self.store),
                last: run.last.clone(),
            };
            run.fetch = Some(Box::pin(async move { asking.fetch().await }));
        }
        // A retired key looks now and then whether its last reader has gone.
        let last_look = self.retired.borrow().then(|| now.mono + self.policy.pace.tick);
        run.wake = wake.into_iter().chain(last_look).min();
        let watched = self.is_static() && run.tried.is_some();
        let polls = (state.blames_secrets() || watched) && !state.is_fetching() && is_pollable(&self.spec.credential);
        run.poll = polls.then(|| now.mono + self.policy.pace.secret_poll);
        run.blocked = state.blames_budget();
        progress.state = state;
    }

    /// Waits for whatever happens first.
    async fn next(&mut self, run: &mut Run) -> Event {
        loop {
            tokio::select! {
                fetched = finished(&mut run.fetch) => {
                    run.fetch = None;
                    return self.fetched(run, fetched);
                }
                () = self.writer.signalled() => return Event::Look,
                () = until(run.wake) => return Event::Look,
                () = until(run.poll) => {
                    if secrets_changed(&self.spec.credential, run.tried).await {
                        tracing::info!(credential = self.spec.credential.name, "its secrets have changed, trying again");
                        return if self.is_static() { Event::TokenChanged } else { Event::SecretChanged };
                    }
                    run.poll = Some(Instant::now() + self.policy.pace.secret_poll);
                }
                Ok(()) = run.budget.changed(), if run.blocked => return Event::BudgetChanged,
                Ok(()) = self.retired.changed() => return Event::Look,
            }
        }
    }

    /// There is nobody to ask: the token is read.
    fn is_static(&self) -> bool {
        matches!(self.spec.credential.grant, Grant::Static { .. })
    }

    /// Counts and logs a fetch, once.
    fn fetched(&self, run: &mut Run, Fetched { result, version, secret, taken_over }: Fetched) -> Event {
        run.tried = version;
        if let (true, Ok(minted)) = (taken_over, &result) {
            let (credential, fingerprint) = (&self.spec.credential.name, &minted.fingerprint);
            tracing::info!(credential, fingerprint, "token taken over from another replica");
            return Event::Fetched(Box::new(result));
        }
        if let (Ok(minted), Some(version), false) = (&result, version, self.is_static()) {
            self.store.save(self.key, version, minted);
        }
        let credential = &self.spec.credential;
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(minted) => {
                progress.succeeded += 1;
                progress.secret = secret;
                progress.last_minted = Some((minted.life_from, minted.scope.clone(), minted.skew));
                log_minted(credential, minted);
                if minted.life_from == LifetimeSource::DefaultTtl
                    && !self.is_static()
                    && !std::mem::replace(&mut run.warned, true)
                {
                    let (credential, ttl) = (&credential.name, credential.default_ttl);
                    tracing::warn!(
                        credential,
                        ?ttl,
                        "the provider does not say how long its tokens live: default_ttl holds"
                    );
                }
            }
            Err(refusal) => {
                // What the budget stopped was no token request.
                progress.failed += u64::from(refusal.kind != FailureKind::Budget);
                progress.last_refusal = Some((refusal.clone(), std::time::SystemTime::now()));
                log_refusal(credential, refusal);
            }
        }
        Event::Fetched(Box::new(result))
    }
}

/// What a running task holds between two steps.
struct Run {
    fetch: Option<Pin<Box<dyn Future<Output = Fetched> + Send>>>,
    wake: Option<Instant>,
    /// Tells of changes of the budget; of interest while it is `blocked`.
    budget: watch::Receiver<()>,
    /// The failure that stands is a spent budget.
    blocked: bool,
    /// The last token, for what other replicas share.
    last: Last,
    /// The version of the secrets that the last fetch went out with.
    tried: Option<Version>,
    poll: Option<Instant>,
    warned: bool,
}

/// Whether the secrets can be read, and are others than those `tried`.
async fn secrets_changed(credential: &CredentialSpec, tried: Option<Version>) -> bool {
    let now = Material::read(credential).await.ok().map(|material| material.version());
    now.is_some() && now != tried
}

fn log_minted(credential: &CredentialSpec, minted: &Minted) {
    tracing::info!(
        credential = credential.name,
        fingerprint = minted.fingerprint,
        lifetime = ?minted.life,
        skew = minted.skew,
        "token fetched"
    );
}

async fn finished(fetch: &mut Option<Pin<Box<dyn Future<Output = Fetched> + Send>>>) -> Fetched {
    match fetch {
        Some(fetch) => fetch.await,
        None => pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}
