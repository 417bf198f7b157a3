//! The tasks, by key; [`plan`]: what another configuration makes of them; [`common`]: what several share.

mod common;
mod plan;

use std::{
    collections::{BTreeSet, HashMap},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use super::{
    Inquiry, Key, Reader, Store, TokenStatus,
    asking::Asking,
    bearer::{self, Now, Remembered},
    budget::Ledger,
    discovery::Found,
    halt::{ENDING, Halt},
    inquiry,
    pace::Pace,
    refresh::{self, Progress, Task},
    refusal::Refusal,
    rotation::LAST_SAVES,
    share::Last,
    state::Policy,
    vault::Vault,
};
use crate::{
    config::{
        model::{Expiry, TokenSpec, Upstream, VaultSpec},
        signing_key::KeyError,
    },
    net::Connector,
};
use common::{Common, Shared};
pub use plan::Plan;

/// How long the end waits for a store that does not take back a lease: it ends by itself.
const LAST_LEASES: Duration = Duration::from_secs(1);

/// Why a token cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The way out cannot be set up (`ca_file`); the text names what is to blame.
    #[error("credential {credential:?}: {why}")]
    Net {
        /// Its name.
        credential: String,
        /// Why.
        why: String,
    },
    /// No key could be made to bind its tokens to.
    #[error("credential {credential:?}: no key for dpop could be made: {why}")]
    Key {
        /// Its name.
        credential: String,
        /// Why.
        why: KeyError,
    },
}

/// All tokens of the process. Lives on the control thread. To be ended by [`Engine::stop`]: dropped, it cuts off its tasks
/// and what they ask for.
pub struct Engine {
    pace: Pace,
    store: Arc<Store>,
    vault: Option<Arc<Vault>>,
    found: Arc<Found>,
    halt: watch::Sender<bool>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Also of retired keys, as long as somebody uses them.
    tokens: HashMap<Key, Entry>,
    tasks: JoinSet<()>,
    common: Common,
}

struct Entry {
    spec: Arc<TokenSpec>,
    /// Every credential that led to this key.
    names: BTreeSet<String>,
    policy: Policy,
    /// `None` where the key is retired: this one would keep it in use.
    reader: Option<Reader>,
    cell: Remembered,
    progress: Arc<Mutex<Progress>>,
    ledger: Arc<Ledger>,
    /// For the task's next token request.
    connector: watch::Sender<Connector>,
    rename: watch::Sender<Arc<TokenSpec>>,
    retire: watch::Sender<bool>,
    task: AbortHandle,
}

impl Entry {
    fn retire(&mut self) {
        if self.reader.take().is_some() {
            let _ = self.retire.send(true);
        }
    }

    /// None of its names is the one that it was made under.
    fn rename(&mut self, spec: Arc<TokenSpec>) {
        if !self.names.contains(&self.spec.credential.name) {
            self.spec = Arc::clone(&spec);
            self.rename.send_replace(spec);
        }
    }

    /// Its cell, if its task has not ended.
    fn living(&self) -> Option<Reader> {
        self.reader.clone().or_else(|| self.cell.reader().filter(|_| !self.task.is_finished()))
    }

    /// A retired key is taken up again as it is.
    fn revive(&mut self) {
        if self.reader.is_none() {
            self.reader = self.living();
            let _ = self.retire.send(false);
        }
    }
}

/// A key's task that has not begun.
struct Made {
    spec: Arc<TokenSpec>,
    task: Task,
    reader: Reader,
    connector: watch::Sender<Connector>,
    rename: watch::Sender<Arc<TokenSpec>>,
    retire: watch::Sender<bool>,
}

impl Made {
    /// Begins it.
    fn start(self, tasks: &mut JoinSet<()>) -> Entry {
        let Self { spec, task, reader, connector, rename, retire } = self;
        let (policy, progress, ledger) = (task.policy.clone(), Arc::clone(&task.progress), Arc::clone(&task.ledger));
        let (cell, task) = (reader.remembered(), tasks.spawn(task.run()));
        Entry {
            spec,
            names: BTreeSet::new(),
            policy,
            reader: Some(reader),
            cell,
            progress,
            ledger,
            connector,
            rename,
            retire,
            task,
        }
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine {
    /// An engine without tokens, which keeps them in this process alone.
    pub fn new() -> Self {
        Self::with_store(Store::Memory)
    }

    /// An engine that keeps its tokens in `store` too.
    pub fn with_store(store: Store) -> Self {
        Self::with_pace_and_store(Pace::default(), store)
    }

    /// The same, with the server that secrets come from. The error names the file to blame.
    pub fn with_vault(mut self, vault: &VaultSpec) -> Result<Self, String> {
        self.vault = Some(Arc::new(Vault::new(vault)?));
        Ok(self)
    }

    /// An engine with other numbers and a store, for tests.
    pub fn with_pace_and_store(pace: Pace, store: Store) -> Self {
        let (store, halt) = (Arc::new(store), watch::Sender::new(false));
        Self { pace, store, vault: None, found: Arc::default(), halt, inner: Mutex::default() }
    }

    /// An engine with other numbers, for tests.
    pub fn with_pace(pace: Pace) -> Self {
        Self::with_pace_and_store(pace, Store::Memory)
    }

    /// The cell of the token that `spec` needs, beside those that there are. Equal keys share one task and one cell.
    ///
    /// Must be called within a tokio runtime, which is the one that will run the task.
    pub fn reader(&self, spec: &Arc<TokenSpec>) -> Result<Reader, EngineError> {
        let mut plan = Plan::new(self);
        let reader = plan.reader(spec)?;
        plan.add();
        Ok(reader)
    }

    /// Begins with the tokens of another configuration, to which nothing happens yet.
    pub fn plan(&self) -> Plan<'_> {
        self.lock().common.forget_roots(); // a plan that was given up may have read them, long ago
        Plan::new(self)
    }

    /// Asks for a token once, to tell what came of it. Nobody else gets that token. Where the engine stops meanwhile, only
    /// what may have used up a refresh token comes to its end.
    ///
    /// What comes back is to be awaited within a tokio runtime; several may be at once.
    pub fn inquire(&self, spec: &Arc<TokenSpec>) -> Result<impl Future<Output = Inquiry> + Send + use<>, EngineError> {
        let asking = self.asking(spec)?;
        let keeps = self.store.keeps_refresh_tokens();
        Ok(async move {
            let credential = &asking.spec.credential;
            if inquiry::spends_refresh_token(credential) && !keeps {
                let why = "its refresh token may be good for one use, and tokens.store would not keep the next one, so it \
                           was not asked. Set tokens.store = { file = \"DIRECTORY\" }";
                return inquiry::refused(Refusal::of_settings(credential, why), asking.ledger.usage());
            }
            let (mut halt, most, ledger) = (asking.halt.clone(), asking.longest_turn(), Arc::clone(&asking.ledger));
            let (name, spec) = (credential.name.clone(), Arc::clone(&asking.spec));
            let mut inquiry = pin!(inquiry::inquire(asking));
            tokio::select! {
                biased;
                told = &mut inquiry => return told,
                () = halt.ordered() => {}
            }
            let waited = if halt.is_holding() { tokio::time::timeout(most, inquiry).await.ok() } else { None };
            if waited.is_none() && halt.is_holding() {
                tracing::error!(credential = name, "no answer within {most:?}: its refresh token may be lost");
            }
            let ending = || inquiry::refused(Refusal::of_settings(&spec.credential, ENDING), ledger.usage());
            waited.unwrap_or_else(ending)
        })
    }

    /// All that one who asks for a token by themselves needs.
    pub(super) fn asking(&self, spec: &Arc<TokenSpec>) -> Result<Asking, EngineError> {
        let Shared { connector, ledger, rotation, secrets, peer, own_key, discovery } = self.shared(spec)?;
        ledger.allow_alone(&spec.credential);
        Ok(Asking {
            spec: Arc::clone(spec),
            connector,
            ledger,
            secrets,
            trial: None,
            rotation,
            discovery,
            key: Key::of(spec),
            store: Arc::clone(&self.store),
            last: Last::default(),
            peer,
            own_key,
            witness: None,
            halt: Halt::new(self.halt.subscribe()),
        })
    }

    /// Ends all tasks. Nothing new is begun. What may have used up a refresh token comes to its end first, within the time
    /// limits of its requests, so that the next process finds the one that came back; a store that is away has five seconds to
    /// come back for it. Other fetches are given up, and other replicas told that they need not wait for them.
    pub async fn stop(&self) {
        self.halt.send_replace(true);
        let mut tasks = std::mem::take(&mut self.lock().tasks);
        while tasks.join_next().await.is_some() {}
        self.save_at_last().await;
        let _ = tokio::time::timeout(LAST_LEASES, self.store.given_back()).await;
    }

    /// A refresh token that could not be stored yet has its last chance.
    async fn save_at_last(&self) {
        let unsaved = self.lock().common.unsaved();
        let saving: JoinSet<bool> =
            unsaved.into_iter().map(|rotation| async move { rotation.save_at_last().await }).collect();
        if saving.join_all().await.contains(&false) {
            tracing::error!(
                "a rotated refresh token could not be stored within {LAST_SAVES:?} and is lost with this process"
            );
        }
    }

    /// The token endpoints that were discovered so far, by issuer, and those to come: nobody may reach one with a token.
    pub fn found_endpoints(&self) -> watch::Receiver<Vec<(String, Upstream)>> {
        self.found.subscribe()
    }

    /// Where every token stands, sorted by credential; a token with two names appears under both.
    pub fn status(&self) -> Vec<TokenStatus> {
        let now = Now::read();
        let inner = self.lock();
        let mut all: Vec<TokenStatus> = inner
            .tokens
            .iter()
            .filter_map(|(key, entry)| Some((key, entry, entry.reader.as_ref()?)))
            .flat_map(|(key, entry, reader)| {
                let progress = entry.progress.lock().unwrap_or_else(PoisonError::into_inner);
                let (last_use, budget) = (reader.last_use(), entry.ledger.usage());
                let status = TokenStatus::new(*key, &entry.spec, &entry.policy, &progress, last_use, budget, now);
                entry
                    .names
                    .iter()
                    .map(|name| TokenStatus { credential: name.clone(), ..status.clone() })
                    .collect::<Vec<_>>()
            })
            .collect();
        all.sort_by(|a, b| (&a.credential, a.key).cmp(&(&b.credential, b.key)));
        all
    }

    fn make(&self, key: Key, spec: &Arc<TokenSpec>) -> Result<Made, EngineError> {
        let Shared { connector, ledger, rotation, secrets, peer, own_key, discovery } = self.shared(spec)?;
        let (writer, reader) = bearer::cell();
        let policy = Policy {
            pace: self.pace.clone(),
            warm: spec.credential.warm,
            sliding: spec.credential.expiry == Expiry::Sliding,
            seed: seed(),
            late: refresh::late(&spec.credential),
        };
        let (retire, retired) = watch::channel(false);
        let (way, connector) = watch::channel(connector);
        let (rename, renamed) = watch::channel(Arc::clone(spec));
        let task = Task {
            key,
            store: Arc::clone(&self.store),
            spec: Arc::clone(spec),
            renamed,
            connector,
            policy,
            writer,
            rotation,
            discovery,
            peer,
            own_key,
            progress: Arc::default(),
            ledger,
            secrets,
            retired,
            halt: Halt::new(self.halt.subscribe()),
        };
        Ok(Made { spec: Arc::clone(spec), task, reader, connector: way, rename, retire })
    }

    fn shared(&self, spec: &TokenSpec) -> Result<Shared, EngineError> {
        self.lock().common.of(spec, self)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Another one for each process and key, so that replicas don't move in step.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => u64::from(std::process::id()),
    }
}
