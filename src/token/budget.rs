//! 3 the budget — how many token requests an account at a provider has left.
//!
//! `budget = "50/12h"` counts over a sliding window, over all keys of a client at its token endpoint, because
//! that is how providers count. What would exceed it is not sent. A request that got no connection is given
//! back: an hour of back-off against a provider that is down must not cost the next twelve. How the requests are
//! counted: [`window`].
//!
//! The window is measured by the wall clock, so that the count survives a restart in the [`Store`]; a clock
//! that was set back makes a slot free later, never earlier.

mod window;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::{runtime::Handle, sync::watch};

use super::Store;
use crate::config::model::{Budget, CredentialSpec};
pub use window::{COUNTERS, Window};

/// Who is counted: one client at one token endpoint (its whole URL, or the issuer that tells it), whatever it is called
/// in the file. Two realms of one host are two providers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Account([u8; 32]);

impl Account {
    /// The account that `credential` asks with.
    pub fn of(credential: &CredentialSpec) -> Self {
        let url = &credential.token_url;
        let endpoint = match credential.issuer.as_ref().filter(|issuer| issuer.tells_token_url) {
            Some(issuer) => ["issuer", "", &issuer.identifier],
            None => [url.scheme.as_str(), &format!("{}:{}", url.host, url.port), &credential.token_target],
        };
        let parts = [endpoint.as_slice(), &[&credential.client_id]].concat();
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&part.len().to_le_bytes());
            context.update(part.as_bytes());
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }

    /// All of it.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// All of it as hexadecimal digits.
    pub fn to_hex(self) -> String {
        use std::fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}"); // writing to a String cannot fail
            hex
        })
    }
}

/// What is used of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetUse {
    /// Token requests within the window.
    pub used: u32,
    /// How many may be.
    pub limit: u32,
    /// The window.
    pub window: Duration,
}

/// One account's count, shared by the tasks of all its keys.
pub struct Ledger {
    account: Account,
    store: Arc<Store>,
    inner: Mutex<Inner>,
    /// From reading what others have counted until it is written back: what one gives back another must not bring again.
    turn: tokio::sync::Mutex<()>,
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct Inner {
    budget: Option<Budget>,
    /// The credential whose budget that is.
    owner: String,
    /// All credentials that are counted.
    sharers: BTreeSet<String>,
    window: Window,
    /// What earlier processes have counted is in it.
    is_known: bool,
    /// The configuration that gave `budget` has been read to its end: the next one replaces it.
    settled: bool,
    /// What Redis counted over all replicas, and when.
    shared: Option<(u32, SystemTime)>,
}

impl Inner {
    fn used(&mut self, budget: Budget, now: SystemTime) -> u32 {
        let own = self.window.used(budget, now);
        let shared = self.shared.filter(|(_, at)| *at + budget.window > now);
        shared.map_or(own, |(used, _)| used.max(own))
    }

    fn spent(&self, usage: BudgetUse, free_in: Duration) -> Spent {
        let sharers = self.sharers.iter().cloned().collect();
        Spent { usage, free_in, owner: self.owner.clone(), sharers }
    }

    /// A command beside a running cupbearer counts into the same store.
    fn join(&mut self, stored: Window, now: SystemTime) {
        match self.budget.filter(|_| self.is_known) {
            Some(budget) => self.window.join_until(stored, budget, now),
            None => self.window.join(&stored),
        }
        self.is_known = true;
    }
}

/// Says once that little is left, and once that nothing is.
fn warn_at_thresholds(credential: &str, BudgetUse { used, limit, window }: BudgetUse) {
    let share = |used: u32| u64::from(used) * 5 / u64::from(limit);
    if used >= limit {
        tracing::warn!(credential, used, limit, ?window, "the budget of token requests is used up");
    } else if share(used) >= 4 && share(used.saturating_sub(1)) < 4 {
        tracing::warn!(credential, used, limit, ?window, "four fifths of the budget of token requests are used");
    }
}

impl Ledger {
    /// What earlier processes have counted is read meanwhile.
    pub(super) fn open(account: Account, store: Arc<Store>) -> Arc<Self> {
        let mut counter = [0];
        let _ = aws_lc_rs::rand::fill(&mut counter); // without luck the same as another process
        let inner = Mutex::new(Inner { window: Window::of(counter[0]), ..Inner::default() });
        let ledger = Arc::new(Self {
            account,
            store,
            inner,
            turn: tokio::sync::Mutex::default(),
            changes: watch::Sender::new(()),
        });
        if let Ok(runtime) = Handle::try_current() {
            let ledger = Arc::clone(&ledger);
            runtime.spawn(async move { ledger.known().await });
        }
        ledger
    }

    /// Waits until what earlier processes have counted is known, if that can be read.
    pub(super) async fn known(&self) {
        let _turn = self.turn.lock().await;
        if !self.lock().is_known {
            self.join_stored().await;
        }
    }

    /// Takes over what others have counted; whether that could be read. In their turn.
    async fn join_stored(&self) -> bool {
        let is_known = self.lock().is_known;
        let Some(stored) = self.store.load_window(self.account, !is_known).await else { return false };
        self.lock().join(stored, SystemTime::now());
        true
    }

    /// Keeps the count; not where it would displace one that could not be read. In their turn.
    async fn keep(&self, was_read: bool) {
        let window = self.lock().window.clone();
        if was_read {
            self.store.save_window(self.account, &window).await;
        }
    }

    /// One credential's budget. Where one configuration gives an account several, the one that lets the
    /// fewest through holds.
    pub(super) fn allow(&self, credential: &CredentialSpec) {
        let mut inner = self.lock();
        let (old, budget) = (inner.budget, credential.budget);
        let is_first = std::mem::take(&mut inner.settled);
        if is_first {
            inner.sharers.clear();
        }
        if !inner.sharers.contains(&credential.name) {
            inner.sharers.insert(credential.name.clone());
        }
        let is_stricter = |old: Budget| budget.is_some_and(|new| new.rate() < old.rate());
        if is_first || old.map_or(budget.is_some(), is_stricter) {
            inner.budget = budget;
            inner.owner.clone_from(&credential.name);
        }
        if inner.budget != old {
            self.changes.send_replace(());
        }
    }

    /// The same of who asks alone: where a configuration holds, its budgets do.
    pub(super) fn allow_alone(&self, credential: &CredentialSpec) {
        let is_settled = self.lock().settled;
        if !is_settled {
            self.allow(credential);
        }
    }

    /// The configuration has been read to its end.
    pub(super) fn settle(&self) {
        self.lock().settled = true;
    }

    /// Whether a request more, which could wait, would leave some for those that cannot: a tenth of the limit.
    pub(super) fn is_ample(&self) -> bool {
        self.usage().is_none_or(|BudgetUse { used, limit, .. }| used + 1 + (limit / 10).max(1) <= limit)
    }

    /// Counts a token request of `credential` that is about to be sent: over all replicas where they share a Redis,
    /// and by itself while that is away.
    pub(super) async fn take(&self, credential: &str) -> Result<Taken, Spent> {
        let Some(budget) = self.lock().budget else { return Ok(Taken::default()) };
        let usage = |used| BudgetUse { used, limit: budget.limit, window: budget.window };
        let spent = |(used, free_in)| self.lock().spent(usage(used), free_in);
        let id = self.take_shared(budget).await.map_err(spent)?;
        let _turn = self.turn.lock().await;
        let was_read = self.join_stored().await;
        let now = SystemTime::now();
        let (at, used) = {
            let mut inner = self.lock();
            let at = match id {
                Some(_) => inner.window.add(budget, now),
                None => match inner.window.take(budget, now) {
                    Ok(at) => at,
                    Err(free_in) => {
                        let used = usage(inner.window.used(budget, now));
                        return Err(inner.spent(used, free_in));
                    }
                },
            };
            (at, inner.used(budget, now))
        };
        self.keep(was_read).await;
        warn_at_thresholds(credential, usage(used));
        Ok(Taken { at: Some(at), id })
    }

    /// The name under which Redis has counted it, if there is one that answers.
    async fn take_shared(&self, budget: Budget) -> Result<Option<String>, (u32, Duration)> {
        let Store::Redis(redis) = &*self.store else { return Ok(None) };
        let mut bytes = [0; 16];
        if aws_lc_rs::rand::fill(&mut bytes).is_err() {
            return Ok(None);
        }
        let id = URL_SAFE_NO_PAD.encode(bytes);
        let Ok((used, free_in)) = redis.take(self.account, budget, &id).await else { return Ok(None) };
        self.lock().shared = Some((used, SystemTime::now()));
        free_in.map_or(Ok(Some(id)), |free_in| Err((used, free_in)))
    }

    /// A request that was counted never reached the provider.
    pub(super) async fn give_back(&self, taken: &Taken) {
        let Some(at) = taken.at else { return };
        if let (Store::Redis(redis), Some(id)) = (&*self.store, &taken.id) {
            redis.give_back(self.account, id).await;
        }
        let _turn = self.turn.lock().await;
        let was_read = self.join_stored().await;
        {
            let mut inner = self.lock();
            inner.window.give_back(at);
            if let Some((used, _)) = inner.shared.as_mut().filter(|_| taken.id.is_some()) {
                *used = used.saturating_sub(1);
            }
        }
        self.keep(was_read).await;
        self.changes.send_replace(());
    }

    /// Whether, as far as this process knows, no token request may be sent now.
    pub(super) fn spent(&self) -> Option<Spent> {
        let inner = self.lock();
        let (budget, now) = (inner.budget?, SystemTime::now());
        let mut window = inner.window.clone();
        let free_in = window.take(budget, now).err()?;
        let usage = BudgetUse { used: window.used(budget, now), limit: budget.limit, window: budget.window };
        Some(inner.spent(usage, free_in))
    }

    /// What is used; `None` without a budget. Of what other replicas use, as it was at the last request.
    pub fn usage(&self) -> Option<BudgetUse> {
        let mut inner = self.lock();
        let budget = inner.budget?;
        let used = inner.used(budget, SystemTime::now());
        Some(BudgetUse { used, limit: budget.limit, window: budget.window })
    }

    /// Tells when the budget is another one, or a slot was given back.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No request may be sent now.
#[derive(Debug, Clone)]
pub(super) struct Spent {
    pub(super) usage: BudgetUse,
    /// How long it takes until one may be.
    pub(super) free_in: Duration,
    /// The credential whose budget it is.
    pub(super) owner: String,
    /// All credentials that are counted, by name.
    pub(super) sharers: Vec<String>,
}

/// Proof that a request was counted.
#[derive(Debug, Default)]
pub(super) struct Taken {
    at: Option<SystemTime>,
    /// In Redis.
    id: Option<String>,
}
