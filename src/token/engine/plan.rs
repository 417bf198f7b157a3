//! What another configuration makes of the tokens: prepared in full, then taken up as one step, or not at all.

use std::{
    collections::{
        BTreeSet, HashMap,
        hash_map::Entry::{Occupied, Vacant},
    },
    sync::Arc,
};

use super::{Engine, EngineError, Entry, Made};
use crate::{
    config::model::TokenSpec,
    net::Connector,
    token::{Key, Reader, budget::Ledger},
};

/// The tokens of a configuration that may still be rejected: dropped, it has changed nothing.
///
/// A key that there is keeps its cell and its task, which asks by the new way, and so does one that is retired and still in use; whatever makes a token
/// another one makes another key. To be used on the thread that runs the tasks.
pub struct Plan<'e> {
    engine: &'e Engine,
    wanted: HashMap<Key, Wanted>,
    counted: Vec<(Arc<Ledger>, Arc<TokenSpec>)>,
    /// What was asked for last: most routes need what the one before them needs.
    last: Option<(Arc<TokenSpec>, Key)>,
}

/// What the configuration wants of one key.
struct Wanted {
    spec: Arc<TokenSpec>,
    names: BTreeSet<String>,
    reader: Reader,
    ledger: Arc<Ledger>,
    /// By which way it is asked for from now on.
    connector: Option<Connector>,
    /// There is no such key yet.
    made: Option<Made>,
}

impl Wanted {
    fn found(engine: &Engine, key: Key, spec: &Arc<TokenSpec>) -> Result<Option<Self>, EngineError> {
        let mut inner = engine.lock();
        let living = |entry: &Entry| Some((entry.living()?, Arc::clone(&entry.ledger)));
        let Some((reader, ledger)) = inner.tokens.get(&key).and_then(living) else { return Ok(None) };
        let connector = Some(inner.common.connector(spec)?);
        Ok(Some(Self { spec: Arc::clone(spec), names: BTreeSet::new(), reader, ledger, connector, made: None }))
    }

    fn made(engine: &Engine, key: Key, spec: &Arc<TokenSpec>) -> Result<Self, EngineError> {
        let made = engine.make(key, spec)?;
        let (reader, ledger) = (made.reader.clone(), Arc::clone(&made.task.ledger));
        let spec = Arc::clone(spec);
        Ok(Self { spec, names: BTreeSet::new(), reader, ledger, connector: None, made: Some(made) })
    }
}

impl<'e> Plan<'e> {
    pub(super) fn new(engine: &'e Engine) -> Self {
        Self { engine, wanted: HashMap::new(), counted: Vec::new(), last: None }
    }

    /// The cell of the token that `spec` needs. Nothing is asked for before [`Plan::adopt`].
    pub fn reader(&mut self, spec: &Arc<TokenSpec>) -> Result<Reader, EngineError> {
        let key = self.key(spec);
        let wanted = match self.wanted.entry(key) {
            Occupied(wanted) => wanted.into_mut(),
            Vacant(place) => place.insert(match Wanted::found(self.engine, key, spec)? {
                Some(wanted) => wanted,
                None => Wanted::made(self.engine, key, spec)?,
            }),
        };
        if !wanted.names.contains(&spec.credential.name) {
            wanted.names.insert(spec.credential.name.clone());
        }
        self.counted.push((Arc::clone(&wanted.ledger), Arc::clone(spec)));
        Ok(wanted.reader.clone())
    }

    fn key(&mut self, spec: &Arc<TokenSpec>) -> Key {
        match &self.last {
            Some((last, key)) if last.is_same(spec) => *key,
            _ => self.last.insert((Arc::clone(spec), Key::of(spec))).1,
        }
    }

    /// From now on this configuration holds. New keys begin. Keys that it does not want retire: whoever still reads one keeps
    /// what it has, and its task ends with the last reader.
    pub fn adopt(self) {
        {
            let mut inner = self.engine.lock();
            for (key, entry) in &mut inner.tokens {
                entry.names.clear();
                if !self.wanted.contains_key(key) {
                    entry.retire();
                }
            }
        }
        let engine = self.engine;
        self.add();
        let mut inner = engine.lock();
        while inner.tasks.try_join_next().is_some() {}
        inner.tokens.retain(|_, entry| entry.reader.is_some() || !entry.task.is_finished());
        inner.common.settle();
        inner.common.prune();
    }

    /// The same without letting go of anything.
    pub(super) fn add(self) {
        let mut inner = self.engine.lock();
        let super::Inner { tokens, tasks, .. } = &mut *inner;
        for (key, Wanted { spec, names, connector, made, .. }) in self.wanted {
            if let Some(made) = made {
                tokens.insert(key, made.start(tasks));
            }
            if let Some(entry) = tokens.get_mut(&key) {
                entry.revive();
                entry.names.extend(names);
                entry.rename(spec);
                if let Some(connector) = connector {
                    entry.connector.send_if_modified(|before| {
                        let differs = !before.leads_like(&connector);
                        *before = connector;
                        differs
                    });
                }
            }
        }
        self.counted.into_iter().for_each(|(ledger, spec)| ledger.allow(&spec.credential));
    }
}
