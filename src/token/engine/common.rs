//! What the tasks of several keys share: made for the first that needs it, and gone with the last.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Weak},
};

use super::{Engine, EngineError};
use crate::{
    config::model::{Issuer, NetSpec, Scheme, TokenSpec},
    net::Connector,
    token::{
        Key,
        budget::{Account, Ledger},
        discovery::Discovery,
        dpop::ProofKey,
        peer::Peer,
        rotation::Rotation,
        secrets::Secrets,
        store::Store,
    },
};

type ByPlace<V> = HashMap<(Scheme, String, u16), Weak<V>>;

#[derive(Default)]
pub(super) struct Common {
    connectors: HashMap<NetSpec, Connector>,
    /// By who is counted; kept while anything counts, since another configuration may bring the account back.
    ledgers: HashMap<Account, Arc<Ledger>>,
    /// By [`Key::of_refresh`]: shared by all tokens of a credential; kept while it holds a token that is nowhere else.
    rotations: HashMap<Key, Arc<Rotation>>,
    /// By [`Key::of_secrets`]: shared by all tokens of a credential.
    secrets: HashMap<Key, Weak<Secrets>>,
    /// By issuer and way out: shared by all credentials there.
    discoveries: HashMap<(Arc<Issuer>, Arc<NetSpec>), Weak<Discovery>>,
    /// By scheme, host and port.
    peers: ByPlace<Peer>,
    /// By name of the credential: the keys that this process made.
    own_keys: HashMap<String, Weak<ProofKey>>,
}

/// What one key's task has of it.
pub(super) struct Shared {
    pub(super) connector: Connector,
    pub(super) ledger: Arc<Ledger>,
    pub(super) rotation: Option<Arc<Rotation>>,
    pub(super) secrets: Arc<Secrets>,
    pub(super) peer: Arc<Peer>,
    pub(super) own_key: Option<Arc<ProofKey>>,
    pub(super) discovery: Option<Arc<Discovery>>,
}

/// The one that is in use, else a new one.
fn in_use<K: Eq + Hash, V>(map: &mut HashMap<K, Weak<V>>, key: K, new: impl FnOnce() -> V) -> Arc<V> {
    if let Some(known) = map.get(&key).and_then(Weak::upgrade) {
        return known;
    }
    let made = Arc::new(new());
    map.insert(key, Arc::downgrade(&made));
    made
}

impl Common {
    pub(super) fn of(&mut self, spec: &TokenSpec, engine: &Engine) -> Result<Shared, EngineError> {
        Ok(Shared {
            connector: self.connector(spec)?,
            ledger: self.ledger(Account::of(&spec.credential), &engine.store),
            rotation: self.rotation(spec, &engine.store),
            secrets: self.secrets(spec, engine),
            peer: self.peer(spec),
            own_key: self.own_key(spec)?,
            discovery: self.discovery(spec, engine),
        })
    }

    /// Lets go of what nobody uses any more.
    pub(super) fn prune(&mut self) {
        self.forget_roots();
        self.ledgers.retain(|_, ledger| Arc::strong_count(ledger) > 1 || ledger.usage().is_some_and(|u| u.used > 0));
        self.rotations.retain(|_, rotation| Arc::strong_count(rotation) > 1 || rotation.may_hold_unsaved());
        self.secrets.retain(|_, secrets| secrets.strong_count() > 0);
        self.discoveries.retain(|_, discovery| discovery.strong_count() > 0);
        self.peers.retain(|_, peer| peer.strong_count() > 0);
        self.own_keys.retain(|_, key| key.strong_count() > 0);
    }

    /// The next configuration reads the roots anew.
    pub(super) fn forget_roots(&mut self) {
        self.connectors.clear();
    }

    /// Those that may hold a token that is nowhere else.
    pub(super) fn unsaved(&self) -> Vec<Arc<Rotation>> {
        let holds = |rotation: &&Arc<Rotation>| rotation.outlives_process() && rotation.may_hold_unsaved();
        self.rotations.values().filter(holds).cloned().collect()
    }

    /// The configuration's budgets have been told to their ledgers.
    pub(super) fn settle(&self) {
        self.ledgers.values().for_each(|ledger| ledger.settle());
    }

    fn ledger(&mut self, account: Account, store: &Arc<Store>) -> Arc<Ledger> {
        let new = || Ledger::open(account, Arc::clone(store));
        Arc::clone(self.ledgers.entry(account).or_insert_with(new))
    }

    fn secrets(&mut self, spec: &TokenSpec, engine: &Engine) -> Arc<Secrets> {
        // Looked at as often as a change must stand: the second look counts, even if it comes a little early.
        let settling = engine.pace.secret_poll * 3 / 4;
        let new = || Secrets::new(Arc::clone(&spec.credential), engine.vault.clone(), settling);
        in_use(&mut self.secrets, Key::of_secrets(&spec.credential), new)
    }

    fn discovery(&mut self, spec: &TokenSpec, engine: &Engine) -> Option<Arc<Discovery>> {
        let issuer = spec.credential.issuer.as_ref().filter(|issuer| issuer.tells_token_url)?;
        let at = (Arc::clone(issuer), Arc::clone(&spec.credential.net));
        let new = || Discovery::new(Arc::clone(issuer), engine.pace.discovery, Arc::clone(&engine.found));
        Some(in_use(&mut self.discoveries, at, new))
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
        in_use(&mut self.peers, (url.scheme, url.host.clone(), url.port), Peer::default)
    }

    fn own_key(&mut self, spec: &TokenSpec) -> Result<Option<Arc<ProofKey>>, EngineError> {
        let credential = &spec.credential;
        if !credential.is_bound_to_this_process() {
            return Ok(None);
        }
        if let Some(key) = self.own_keys.get(&credential.name).and_then(Weak::upgrade) {
            return Ok(Some(key));
        }
        let key = ProofKey::generate().map_err(|why| EngineError::Key { credential: credential.name.clone(), why })?;
        let key = Arc::new(key);
        self.own_keys.insert(credential.name.clone(), Arc::downgrade(&key));
        Ok(Some(key))
    }

    pub(super) fn connector(&mut self, spec: &TokenSpec) -> Result<Connector, EngineError> {
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
