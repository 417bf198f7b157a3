//! 3 the budget — how many token requests an account at a provider has left.
//!
//! `budget = "50/12h"` counts over a sliding window, over all keys of a client at its token endpoint, because
//! that is how providers count. What would exceed it is not sent. A request that got no connection is given
//! back: an hour of back-off against a provider that is down must not cost the next twelve.
//!
//! The window is measured by the wall clock, so that the count survives a restart in the [`Store`]; a clock
//! that was set back makes a slot free later, never earlier.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::sync::watch;

use super::Store;
use crate::config::model::{Budget, CredentialSpec};

/// Who is counted: one client at one token endpoint, whatever it is called in the file.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Account([u8; 32]);

impl Account {
    /// The account that `credential` asks with.
    pub fn of(credential: &CredentialSpec) -> Self {
        let url = &credential.token_url;
        let parts = [url.scheme.as_str(), &url.host, &url.port.to_string(), &credential.client_id];
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

/// The token requests within a sliding window: pure, whoever uses it brings the clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window(VecDeque<SystemTime>);

impl Window {
    /// From moments in any order.
    pub fn new(mut taken: Vec<SystemTime>) -> Self {
        taken.sort_unstable();
        Self(taken.into())
    }

    /// The moments, oldest first.
    pub fn moments(&self) -> impl Iterator<Item = SystemTime> + '_ {
        self.0.iter().copied()
    }

    /// How many requests lie within the window.
    pub fn used(&mut self, budget: Budget, now: SystemTime) -> u32 {
        // What lies in the future was counted before the clock was set back: as if it were now.
        self.0.iter_mut().rev().take_while(|at| **at > now).for_each(|at| *at = now);
        while self.0.front().is_some_and(|at| *at + budget.window <= now) {
            self.0.pop_front();
        }
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Counts one more, or says how long it takes until one is free.
    pub fn take(&mut self, budget: Budget, now: SystemTime) -> Result<(), Duration> {
        let used = self.used(budget, now);
        if used < budget.limit {
            self.0.push_back(now);
            return Ok(());
        }
        // With a smaller limit than before, several must go until one is free.
        let last = self.0.get((used - budget.limit) as usize).copied().unwrap_or(now);
        Err((last + budget.window).duration_since(now).unwrap_or_default())
    }

    /// Takes over what another process has counted into the same store since. A moment that both have is the same
    /// request.
    pub fn join(&mut self, other: &Self) {
        for (position, at) in other.0.iter().enumerate() {
            let theirs = other.0.iter().take(position + 1).filter(|moment| *moment == at).count();
            if self.0.iter().filter(|moment| *moment == at).count() < theirs {
                self.0.push_back(*at);
            }
        }
        self.0.make_contiguous().sort_unstable();
    }

    /// Counts one that somebody else has let through.
    pub fn add(&mut self, now: SystemTime) {
        self.0.push_back(now);
    }

    /// Takes back the one that was counted at `at`.
    pub fn give_back(&mut self, at: SystemTime) {
        if let Some(found) = self.0.iter().rposition(|taken| *taken == at) {
            self.0.remove(found);
        }
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
    window: Window,
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

    /// A command beside a running cupbearer counts into the same store.
    fn join(&mut self, mut stored: Vec<SystemTime>, now: SystemTime) {
        stored.retain(|at| *at <= now); // what lies in the future is ours, from before the clock was set back
        self.window.join(&Window::new(stored));
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
    /// With what an earlier process has counted.
    pub(super) fn open(account: Account, store: Arc<Store>) -> Self {
        let window = Window::new(store.load_window_blocking(account));
        let inner = Mutex::new(Inner { window, ..Inner::default() });
        Self { account, store, inner, turn: tokio::sync::Mutex::default(), changes: watch::Sender::new(()) }
    }

    /// One credential's budget. Where one configuration gives an account several, the one that lets the
    /// fewest through holds.
    pub(super) fn allow(&self, budget: Option<Budget>) {
        let mut inner = self.lock();
        let old = inner.budget;
        inner.budget = match (old, budget) {
            _ if std::mem::take(&mut inner.settled) => budget,
            (Some(a), Some(b)) => Some(if b.rate() < a.rate() { b } else { a }),
            (a, b) => a.or(b),
        };
        if inner.budget != old {
            self.changes.send_replace(());
        }
    }

    /// The same of who asks alone: where a configuration holds, its budgets do.
    pub(super) fn allow_alone(&self, budget: Option<Budget>) {
        let is_settled = self.lock().settled;
        if !is_settled {
            self.allow(budget);
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
        let id = self.take_shared(budget).await.map_err(|(used, free_in)| Spent { usage: usage(used), free_in })?;
        let _turn = self.turn.lock().await;
        let stored = self.store.load_window(self.account).await;
        let now = whole_millis(SystemTime::now());
        let (window, used) = {
            let mut inner = self.lock();
            inner.join(stored, now);
            if id.is_some() {
                inner.window.add(now);
            } else if let Err(free_in) = inner.window.take(budget, now) {
                return Err(Spent { usage: usage(inner.window.used(budget, now)), free_in });
            }
            (inner.window.clone(), inner.used(budget, now))
        };
        self.store.save_window(self.account, &window).await;
        warn_at_thresholds(credential, usage(used));
        Ok(Taken { at: Some(now), id })
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
        let stored = self.store.load_window(self.account).await;
        let window = {
            let mut inner = self.lock();
            inner.join(stored, whole_millis(SystemTime::now()));
            inner.window.give_back(at);
            if let Some((used, _)) = inner.shared.as_mut().filter(|_| taken.id.is_some()) {
                *used = used.saturating_sub(1);
            }
            inner.window.clone()
        };
        self.store.save_window(self.account, &window).await;
        self.changes.send_replace(());
    }

    /// Whether, as far as this process knows, no token request may be sent now.
    pub(super) fn spent(&self) -> Option<Spent> {
        let inner = self.lock();
        let (budget, now) = (inner.budget?, whole_millis(SystemTime::now()));
        let mut window = inner.window.clone();
        let free_in = window.take(budget, now).err()?;
        let usage = BudgetUse { used: window.used(budget, now), limit: budget.limit, window: budget.window };
        Some(Spent { usage, free_in })
    }

    /// What is used; `None` without a budget. Of what other replicas use, as it was at the last request.
    pub fn usage(&self) -> Option<BudgetUse> {
        let mut inner = self.lock();
        let budget = inner.budget?;
        let used = inner.used(budget, whole_millis(SystemTime::now()));
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

/// As the store keeps moments.
fn whole_millis(at: SystemTime) -> SystemTime {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// No request may be sent now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spent {
    pub(super) usage: BudgetUse,
    /// How long it takes until one may be.
    pub(super) free_in: Duration,
}

/// Proof that a request was counted.
#[derive(Debug, Default)]
pub(super) struct Taken {
    at: Option<SystemTime>,
    /// In Redis.
    id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget { limit: 3, window: Duration::from_secs(60) };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn the_window_slides_and_says_when_the_next_slot_is_free() {
        let mut window = Window::default();
        for second in [0, 10, 20] {
            assert_eq!(window.take(BUDGET, at(second)), Ok(()));
        }
        assert_eq!(window.take(BUDGET, at(25)), Err(Duration::from_secs(35)));
        assert_eq!(window.take(BUDGET, at(60)), Ok(()), "the first one has left the window");
        assert_eq!(window.take(BUDGET, at(60)), Err(Duration::from_secs(10)));
        assert_eq!(window.used(BUDGET, at(1000)), 0);
    }

    #[test]
    fn a_smaller_limit_holds_for_what_was_counted_before() {
        let mut window = Window::new(vec![at(20), at(0), at(10)]);
        let one = Budget { limit: 1, ..BUDGET };
        assert_eq!(window.take(one, at(30)), Err(Duration::from_secs(50)), "until the last of the three has left");
    }

    #[test]
    fn what_was_given_back_is_free_again() {
        let mut window = Window::new(vec![at(0), at(1), at(1)]);
        window.give_back(at(1));
        window.give_back(at(7));
        assert_eq!(window.used(BUDGET, at(2)), 2);
    }

    #[test]
    fn what_two_processes_counted_is_joined_and_the_same_request_counts_once() {
        let mut window = Window::new(vec![at(0), at(10), at(10)]);
        window.join(&Window::new(vec![at(10), at(5), at(20), at(20)]));
        assert_eq!(window.moments().collect::<Vec<_>>(), [at(0), at(5), at(10), at(10), at(20), at(20)]);
        let same = window.clone();
        window.join(&same);
        assert_eq!(window, same);
    }

    #[test]
    fn a_clock_that_is_set_back_frees_nothing_early_and_blocks_for_one_window_at_most() {
        let mut window = Window::new(vec![at(3600), at(3610), at(3620)]);
        assert_eq!(window.take(BUDGET, at(0)), Err(Duration::from_secs(60)));
        assert_eq!(window.take(BUDGET, at(60)), Ok(()));
    }
}
