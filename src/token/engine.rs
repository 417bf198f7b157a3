//! The tasks, by key.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet};

use super::{
    Inquiry, Key, Reader, Store, TokenStatus,
    asking::Asking,
    bearer::{self, Now},
    budget::{Account, Ledger},
    discovery::{Discovery, Found},
    dpop::ProofKey,
    halt::Halt,
    inquiry,
    pace::Pace,
    peer::Peer,
    refresh::{Progress, Task},
    refusal::Refusal,
    rotation::Rotation,
    secrets::Secrets,
    share::Last,
    state::Policy,
    vault::Vault,
};
use crate::{
    config::{
        model::{Expiry, Issuer, NetSpec, Scheme, TokenSpec, Upstream, VaultSpec},
        signing_key::KeyError,
    },
    net::Connector,
};

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
    tokens: HashMap<Key, Entry>,
    /// Those of retired keys too.
    tasks: JoinSet<()>,
    connectors: HashMap<NetSpec, Connector>,
    /// By who is counted; kept for ever, since a reload may bring an account back.
    ledgers: HashMap<Account, Arc<Ledger>>,
    /// By [`Key::of_refresh`]: shared by all tokens of a credential.
    rotations: HashMap<Key, Arc<Rotation>>,
    /// By [`Key::of_secrets`]: shared by all tokens of a credential.
    secrets: HashMap<Key, Arc<Secrets>>,
    /// By issuer and way out: shared by all credentials there.
    discoveries: HashMap<(Arc<Issuer>, Arc<NetSpec>), Arc<Discovery>>,
    /// By scheme, host and port.
    peers: HashMap<(Scheme, String, u16), Arc<Peer>>,
    /// By name of the credential: the keys that this process made. Kept for ever: a refresh token may be bound to one.
    own_keys: HashMap<String, Arc<ProofKey>>,
}

/// What the task of a key shares with others.
struct Shared {
    ledger: Arc<Ledger>,
    rotation: Option<Arc<Rotation>>,
    secrets: Arc<Secrets>,
    peer: Arc<Peer>,
    own_key: Option<Arc<ProofKey>>,
    discovery: Option<Arc<Discovery>>,
}

struct Entry {
    spec: Arc<TokenSpec>,
    /// Every credential that led to this key.
    names: BTreeSet<String>,
    policy: Policy,
    reader: Reader,
    progress: Arc<Mutex<Progress>>,
    ledger: Arc<Ledger>,
    retire: watch::Sender<bool>,
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

    /// The cell of the token that `spec` needs. Equal keys share one task and one cell, also across reloads.
    ///
    /// Must be called within a tokio runtime, which is the one that will run the task.
    pub fn reader(&self, spec: &Arc<TokenSpec>) -> Result<Reader, EngineError> {
        let key = Key::of(spec);
        let mut inner = self.lock();
        let ledger = inner.ledger(spec, &self.store);
        if let Some(entry) = inner.tokens.get_mut(&key) {
            entry.names.insert(spec.credential.name.clone());
            return Ok(entry.reader.clone());
        }
        let connector = inner.connector(spec)?;
        let rotation = inner.rotation(spec, &self.store);
        let secrets = inner.secrets(spec, self.vault.as_ref(), self.pace.secret_poll);
        let discovery = inner.discovery(spec, &self.pace, &self.found);
        let (peer, own_key) = (inner.peer(spec), inner.own_key(spec)?);
        let shared = Shared { ledger, rotation, secrets, peer, own_key, discovery };
        let (entry, task) = self.entry(key, spec, connector, shared);
        inner.tasks.spawn(task.run());
        let reader = entry.reader.clone();
        inner.tokens.insert(key, entry);
        Ok(reader)
    }

    /// Asks for a token once, to tell what came of it. Nobody else gets that token.
    ///
    /// What comes back is to be awaited within a tokio runtime; several may be at once.
    pub fn inquire(&self, spec: &Arc<TokenSpec>) -> Result<impl Future<Output = Inquiry> + Send + use<>, EngineError> {
        let mut inner = self.lock();
        let ledger = inner.ledger(spec, &self.store);
        let asking = Asking {
            spec: Arc::clone(spec),
            connector: inner.connector(spec)?,
            ledger: Arc::clone(&ledger),
            secrets: inner.secrets(spec, self.vault.as_ref(), self.pace.secret_poll),
            trial: None,
            rotation: inner.rotation(spec, &self.store),
            discovery: inner.discovery(spec, &self.pace, &self.found),
            key: Key::of(spec),
            store: Arc::clone(&self.store),
            last: Last::default(),
            peer: inner.peer(spec),
            own_key: inner.own_key(spec)?,
            witness: None,
            halt: Halt::new(self.halt.subscribe()),
        };
        let keeps = self.store.keeps_refresh_tokens();
        Ok(async move {
            if inquiry::spends_refresh_token(&asking.spec.credential) && !keeps {
                let why = "its refresh token may be good for one use, and tokens.store would not keep the next one, so it \
                           was not asked. Set tokens.store = { file = \"DIRECTORY\" }";
                return inquiry::refused(Refusal::of_settings(&asking.spec.credential, why), ledger.usage());
            }
            inquiry::inquire(asking).await
        })
    }

    /// Lets go of every key that is not in `used`: after a reload. A request that still holds the old
    /// snapshot keeps what it has; the task ends when the last such reader is gone.
    pub fn retain(&self, used: &HashSet<Key>) {
        let mut inner = self.lock();
        while inner.tasks.try_join_next().is_some() {}
        inner.tokens.retain(|key, entry| {
            let stays = used.contains(key);
            if !stays {
                let _ = entry.retire.send(true);
            }
            stays
        });
        inner.ledgers.values().for_each(|ledger| ledger.settle());
        inner.rotations.retain(|_, rotation| Arc::strong_count(rotation) > 1);
        inner.secrets.retain(|_, secrets| Arc::strong_count(secrets) > 1);
        inner.discoveries.retain(|_, discovery| Arc::strong_count(discovery) > 1);
        inner.connectors.clear(); // so that the next reload reads the roots anew
    }

    /// Ends all tasks. Nothing new is begun. What may have used up a refresh token comes to its end first, within the time
    /// limits of its requests, so that the next process finds the one that came back.
    pub async fn stop(self) {
        self.halt.send_replace(true);
        let mut tasks = std::mem::take(&mut self.lock().tasks);
        while tasks.join_next().await.is_some() {}
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
            .flat_map(|(key, entry)| {
                let progress = entry.progress.lock().unwrap_or_else(PoisonError::into_inner);
                let (last_use, budget) = (entry.reader.last_use(), entry.ledger.usage());
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

    fn entry(
        &self,
        key: Key,
        spec: &Arc<TokenSpec>,
        connector: Connector,
        Shared { ledger, rotation, secrets, peer, own_key, discovery }: Shared,
    ) -> (Entry, Task) {
        let (writer, reader) = bearer::cell();
        let policy = Policy {
            pace: self.pace.clone(),
            warm: spec.credential.warm,
            sliding: spec.credential.expiry == Expiry::Sliding,
            seed: seed(),
            late: Refusal::unavailable(&spec.credential, "its answer took longer than the token in it lives"),
        };
        let progress = Arc::new(Mutex::new(Progress::default()));
        let (retire, retired) = watch::channel(false);
        let task = Task {
            key,
            store: Arc::clone(&self.store),
            spec: Arc::clone(spec),
            connector,
            policy: policy.clone(),
            writer,
            rotation,
            discovery,
            peer,
            own_key,
            progress: Arc::clone(&progress),
            ledger: Arc::clone(&ledger),
            secrets,
            retired,
            halt: Halt::new(self.halt.subscribe()),
        };
        let names = BTreeSet::from([spec.credential.name.clone()]);
        (Entry { spec: Arc::clone(spec), names, policy, reader, progress, ledger, retire }, task)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn ledger(&mut self, spec: &TokenSpec, store: &Arc<Store>) -> Arc<Ledger> {
        let account = Account::of(&spec.credential);
        let new = || Arc::new(Ledger::open(account, Arc::clone(store)));
        let ledger = Arc::clone(self.ledgers.entry(account).or_insert_with(new));
        ledger.allow(spec.credential.budget);
        ledger
    }

    fn secrets(&mut self, spec: &TokenSpec, vault: Option<&Arc<Vault>>, settling: Duration) -> Arc<Secrets> {
        // Looked at as often as a change must stand: the second look counts, even if it comes a little early.
        let new = || Arc::new(Secrets::new(Arc::clone(&spec.credential), vault.cloned(), settling * 3 / 4));
        Arc::clone(self.secrets.entry(Key::of_secrets(&spec.credential)).or_insert_with(new))
    }

    fn discovery(&mut self, spec: &TokenSpec, pace: &Pace, found: &Arc<Found>) -> Option<Arc<Discovery>> {
        let issuer = spec.credential.issuer.as_ref().filter(|issuer| issuer.tells_token_url)?;
        let at = (Arc::clone(issuer), Arc::clone(&spec.credential.net));
        let new = || Arc::new(Discovery::new(Arc::clone(issuer), pace.discovery, Arc::clone(found)));
        Some(Arc::clone(self.discoveries.entry(at).or_insert_with(new)))
    }

    fn rotation(&mut self, spec: &TokenSpec, store: &Arc<Store>) -> Option<Arc<Rotation>> {
        let place = Key::of_refresh(&spec.credential);
        // What is not to be shared goes to no shared store.
        let stays = matches!(&**store, Store::Redis(_)) && !spec.credential.share;
        let store = || if stays { Arc::default() } else { Arc::clone(store) };
        let new = || Arc::new(Rotation::new(place, store()));
        spec.credential.keeps_refresh_token().then(|| Arc::clone(self.rotations.entry(place).or_insert_with(new)))
    }

    fn peer(&mut self, spec: &TokenSpec) -> Arc<Peer> {
        let url = &spec.credential.token_url;
        Arc::clone(self.peers.entry((url.scheme, url.host.clone(), url.port)).or_default())
    }

    fn own_key(&mut self, spec: &TokenSpec) -> Result<Option<Arc<ProofKey>>, EngineError> {
        let credential = &spec.credential;
        if !credential.is_bound_to_this_process() {
            return Ok(None);
        }
        if let Some(key) = self.own_keys.get(&credential.name) {
            return Ok(Some(Arc::clone(key)));
        }
        let key = ProofKey::generate().map_err(|why| EngineError::Key { credential: credential.name.clone(), why })?;
        let key = Arc::new(key);
        self.own_keys.insert(credential.name.clone(), Arc::clone(&key));
        Ok(Some(key))
    }

    fn connector(&mut self, spec: &TokenSpec) -> Result<Connector, EngineError> {
        let net = &spec.credential.net;
        if let Some(connector) = self.connectors.get(&**net) {
            return Ok(connector.clone());
        }
        let connector = Connector::new(Arc::clone(net))
            .map_err(|why| EngineError::Net { credential: spec.credential.name.clone(), why })?;
        self.connectors.insert((**net).clone(), connector.clone());
        Ok(connector)
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
