//! 5 the task that owns one key: it feeds the state machine and does what the machine says.
//!
//! It owns the one fetch of its key. Requests only watch its cell, so a caller that goes away cancels nothing,
//! and all who wait get the same result. The store is read when the task starts and written before a new
//! token is published.
//!
//! [`look`] looks for what may heal or replace what it has, [`outcome`] counts, logs and keeps what a fetch has given.

mod look;
mod outcome;

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use tokio::sync::watch;

use super::{
    Key,
    asking::{Asking, Fetched},
    bearer::{Now, Writer},
    budget::Ledger,
    credential::Version,
    discovery::Discovery,
    dpop::ProofKey,
    halt::Halt,
    lifetime::LifetimeSource,
    peer::Peer,
    refusal::Refusal,
    rotation::Rotation,
    secrets::{Place, Secrets, Trial},
    share::Last,
    state::{Event, Phase, Policy, State, Todo},
    store::Store,
};
use crate::{
    config::model::{CredentialSpec, TokenSpec, Warm},
    net::Connector,
    telemetry::metrics::Durations,
};
use look::Looked;

/// What the task lets others see of its work; the token itself is seen through the cell only.
#[derive(Debug, Default)]
pub struct Progress {
    /// The machine, after its last step.
    pub state: State,
    /// Fetches that gave a token.
    pub succeeded: u64,
    /// Fetches that gave none.
    pub failed: u64,
    /// How long they took.
    pub seconds: Durations,
    /// What the last token was minted from.
    pub last_minted: Option<(LifetimeSource, Option<String>, Option<i64>)>,
    /// Which of several client secrets gave the last token, by position and source.
    pub secret: Option<String>,
    /// The same, by position alone.
    pub place: Option<Place>,
    /// The last failure in full, kept after it has healed.
    pub last_refusal: Option<(Refusal, SystemTime)>,
}

/// One key's task.
pub struct Task {
    /// Its name in the store.
    pub key: Key,
    /// What is asked for.
    pub spec: Arc<TokenSpec>,
    /// The same under another name: another configuration may call the credential so.
    pub renamed: watch::Receiver<Arc<TokenSpec>>,
    /// By which way; another configuration may have another one, or have read the same `ca_file` anew.
    pub connector: watch::Receiver<Connector>,
    /// How.
    pub policy: Policy,
    /// The cell.
    pub writer: Writer,
    /// Where tokens outlive the process.
    pub store: Arc<Store>,
    /// Whether a token request may be sent.
    pub ledger: Arc<Ledger>,
    /// The credential's secrets.
    pub secrets: Arc<Secrets>,
    /// The credential's refresh token, where it has one.
    pub rotation: Option<Arc<Rotation>>,
    /// Where to ask, where that is not written down.
    pub discovery: Option<Arc<Discovery>>,
    /// What the provider has told of itself.
    pub peer: Arc<Peer>,
    /// Of a credential that binds its tokens and has no `key`: the key of this process.
    pub own_key: Option<Arc<ProofKey>>,
    /// For status.
    pub progress: Arc<Mutex<Progress>>,
    /// Set when no configuration names the key any more.
    pub retired: watch::Receiver<bool>,
    /// The end of the engine.
    pub halt: Halt,
}

impl Task {
    /// Runs until the key is retired and nobody reads its cell any more, or the engine stops.
    pub async fn run(mut self) {
        let (mut halt, mut run) = (self.halt.clone(), Run::new(self.ledger.changes()));
        tokio::select! {
            biased;
            () = halt.ordered() => self.finish(run).await,
            () = self.live(&mut run) => {}
        }
    }

    async fn live(&mut self, run: &mut Run) {
        let mut event = self.restored().await;
        loop {
            self.step(run, event);
            event = self.next(run).await;
            let is_retired = *self.retired.borrow();
            // A retired key is nobody's business any more but theirs who still use it.
            self.policy.warm = if is_retired { Warm::OnUse } else { self.spec.credential.warm };
            if is_retired && !self.writer.has_readers() && run.fetch.is_none() {
                return;
            }
        }
    }

    /// The engine stops. A fetch that has a refresh token in its hands may have used it up: what comes back is kept.
    async fn finish(&self, mut run: Run) {
        let Some(fetch) = run.fetch.take().filter(|_| self.halt.is_holding()) else { return };
        let credential = &self.spec.credential.name;
        tracing::info!(credential, "waiting for the answer to a token request that may have used up its refresh token");
        let most = self.asking(Last::default(), None).longest_turn();
        if let Ok(fetched) = tokio::time::timeout(most, fetch).await {
            self.fetched(&mut run, fetched).await;
        } else {
            tracing::error!(credential, "no answer within {most:?}: its refresh token may be lost");
        }
    }

    /// The token that an earlier process left in the store, if it can still be used.
    async fn restored(&self) -> Event {
        if !self.is_storable() || !self.store.holds(self.key).await {
            return Event::Look;
        }
        let credential = &self.spec.credential;
        let Ok(material) = self.secrets.read().await else { return Event::Look };
        let stored = self.store.load(self.key, material.version(), Now::read().wall).await;
        let Some(minted) = stored else { return Event::Look };
        let Ok(minted) = self.asking(Last::default(), None).bind(&material, minted) else { return Event::Look };
        let left = minted.life.saturating_sub(minted.issued.mono.elapsed());
        self.secrets.proved(&material);
        tracing::info!(
            credential = credential.name,
            fingerprint = minted.fingerprint,
            ?left,
            "token found in the store"
        );
        Event::Fetched(Box::new(Ok(minted)))
    }

    fn asking(&self, last: Last, trial: Option<Trial>) -> Asking {
        Asking {
            spec: Arc::clone(&self.spec),
            connector: self.connector.borrow().clone(),
            ledger: Arc::clone(&self.ledger),
            secrets: Arc::clone(&self.secrets),
            trial,
            rotation: self.rotation.clone(),
            discovery: self.discovery.clone(),
            key: self.key,
            store: Arc::clone(&self.store),
            last,
            peer: Arc::clone(&self.peer),
            own_key: self.own_key.clone(),
            witness: None,
            halt: self.halt.clone(),
        }
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
            // A trial is for who has a good token; who needs one tries all that there is.
            let phase = state.phase(seen.last_use, now);
            let trial = run.trial.take().filter(|_| matches!(phase, Phase::Fresh | Phase::Advisory));
            let asking = self.asking(run.last.clone(), trial);
            run.began = Some(now.mono);
            run.fetch = Some(Box::pin(async move { asking.fetch().await }));
        }
        // A retired key looks now and then whether its last reader has gone.
        let last_look = self.retired.borrow().then(|| now.mono + self.policy.pace.tick);
        run.wake = wake.into_iter().chain(last_look).min();
        let watched = if self.is_static() { run.tried.is_some() } else { self.secrets.is_settled() };
        let (blamed, idle) = (state.blames_secrets(), !state.is_fetching() && !*self.retired.borrow());
        let polls = idle && ((blamed || watched) && self.secrets.can_change() || blamed && self.rotation.is_some());
        // Signals must not put it off.
        run.poll = polls.then(|| run.poll.unwrap_or(now.mono + self.policy.pace.secret_poll));
        if !polls {
            run.look = None;
        }
        run.blocked = state.blames_budget();
        progress.state = state;
    }

    /// Waits for whatever happens first.
    async fn next(&mut self, run: &mut Run) -> Event {
        loop {
            tokio::select! {
                fetched = finished(&mut run.fetch) => {
                    run.fetch = None;
                    return self.fetched(run, fetched).await;
                }
                () = self.writer.signalled() => return Event::Look,
                () = until(run.wake) => return Event::Look,
                () = until(run.poll) => {
                    run.poll = None;
                    run.look = Some(self.look());
                }
                looked = finished(&mut run.look) => {
                    run.look = None;
                    run.poll = Some(Instant::now() + self.policy.pace.secret_poll);
                    if let Some(event) = self.noticed(run, looked) {
                        return event;
                    }
                }
                Ok(()) = run.budget.changed(), if run.blocked => return Event::BudgetChanged,
                Ok(()) = self.retired.changed() => return Event::Look,
                Ok(()) = self.renamed.changed() => {
                    self.rename();
                    return Event::Reconfigured;
                }
                Ok(()) = self.connector.changed() => return Event::Reconfigured,
            }
        }
    }

    /// Errors, log and whatever is asked from now on have the new name.
    fn rename(&mut self) {
        self.spec = Arc::clone(&self.renamed.borrow_and_update());
        self.secrets.rename(&self.spec.credential.name);
        self.policy.late = late(&self.spec.credential);
    }

    /// There is nobody to ask: the token is read.
    fn is_static(&self) -> bool {
        self.spec.credential.grant.is_local()
    }

    /// Whether its tokens are of use to the next process.
    fn is_storable(&self) -> bool {
        !self.is_static() && !self.spec.credential.is_bound_to_this_process()
    }
}

/// What a running task holds between two steps.
struct Run {
    /// When the last fetch began.
    began: Option<Instant>,
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
    /// The next look at the secrets.
    poll: Option<Instant>,
    look: Option<Pin<Box<dyn Future<Output = Looked> + Send>>>,
    /// New secrets are to be tried by the next fetch.
    trial: Option<Trial>,
    warned: bool,
}

impl Run {
    fn new(budget: watch::Receiver<()>) -> Self {
        Self {
            began: None,
            fetch: None,
            wake: None,
            tried: None,
            poll: None,
            look: None,
            trial: None,
            warned: false,
            budget,
            blocked: false,
            last: Last::default(),
        }
    }
}

/// Why a token is none that has ended on its way.
pub(super) fn late(credential: &CredentialSpec) -> Refusal {
    Refusal::unavailable(credential, "its answer took longer than the token in it lives")
}

async fn finished<T>(work: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match work {
        Some(work) => work.await,
        None => pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}
