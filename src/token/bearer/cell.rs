//! 7 … the one cell through which the cores see a token: read without locks, waited for with a deadline. Three small signals go
//! back: *wanted*, *rejected(generation)* and *used at*.

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use super::{Decision, Failure, MANDATORY_PATIENCE, Now, View};

/// How many requests may wait for one token before further ones are turned away.
pub const MAX_WAITERS: usize = 8192;

/// Why a request got no token.
#[derive(Debug, Clone)]
pub enum Unavailable {
    /// The fetch failed or a failure is cached.
    Failed(Failure),
    /// The request's own deadline passed while the fetch was under way.
    TimedOut,
    /// Too many requests wait already.
    Crowded,
    /// The engine is shutting down.
    Gone,
}

/// What a rejection led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// A newer token stands ready, or is being fetched: wait for a generation above the rejected one.
    Replaced,
    /// The token is too fresh to be fetched anew for this; pass the answer on.
    TooFresh,
}

struct Shared {
    view: ArcSwap<View>,
    changes: watch::Sender<u64>,
    signal: Notify,
    wanted: AtomicBool,
    rejected: AtomicU64,
    last_use: AtomicU64,
    waiters: AtomicUsize,
    /// The [`Writer`] is gone: nobody will answer any more.
    gone: AtomicBool,
}

/// The zero of [`tick`]: shortly before the first cell was made, hence before any token was issued.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(|| {
        let now = Instant::now();
        now.checked_sub(Duration::from_secs(1)).unwrap_or(now)
    })
}

/// Milliseconds since [`epoch`], rounded down; the unit of `last_use` (0 = never).
fn tick(at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(epoch()).as_millis()).unwrap_or(u64::MAX).max(1)
}

/// The moment of a [`tick`]; `None` for 0.
fn moment(tick: u64) -> Option<Instant> {
    (tick > 0).then(|| epoch() + Duration::from_millis(tick))
}

/// Makes the two halves of one token's cell.
pub fn cell() -> (Writer, Reader) {
    epoch();
    let shared = Arc::new(Shared {
        view: ArcSwap::from_pointee(View::default()),
        changes: watch::Sender::new(0),
        signal: Notify::new(),
        wanted: AtomicBool::new(false),
        rejected: AtomicU64::new(0),
        last_use: AtomicU64::new(0),
        waiters: AtomicUsize::new(0),
        gone: AtomicBool::new(false),
    });
    (Writer(Arc::clone(&shared)), Reader(shared))
}

/// The half of the task that owns the key. When it is dropped, whoever waits is told so.
pub struct Writer(Arc<Shared>);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::Release);
        self.0.changes.send_modify(|n| *n += 1);
    }
}

/// What came back from the cores since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signals {
    /// Somebody waits for a token.
    pub wanted: bool,
    /// Highest generation that an upstream rejected; 0 = none.
    pub rejected: u64,
    /// When a token of this cell was last used: sent, and answered by something other than a rejection.
    pub last_use: Option<Instant>,
    /// [`Bearer::was_accepted`] of the token that is published.
    pub accepted: bool,
}

impl Writer {
    /// Publishes a view and wakes everyone who waits.
    pub fn publish(&self, view: View) {
        self.0.view.store(Arc::new(view));
        self.0.changes.send_modify(|n| *n += 1);
    }

    /// What is published now.
    pub fn view(&self) -> Arc<View> {
        self.0.view.load_full()
    }

    /// Waits until a core has signalled *wanted* or *rejected*. Cancel-safe.
    pub async fn signalled(&self) {
        self.0.signal.notified().await;
    }

    /// Takes the signals: *wanted* is cleared, the others stay.
    pub fn take_signals(&self) -> Signals {
        Signals {
            wanted: self.0.wanted.swap(false, Ordering::AcqRel),
            rejected: self.0.rejected.load(Ordering::Acquire),
            last_use: self.last_use(),
            accepted: self.0.view.load().bearer.as_ref().is_some_and(|b| b.was_accepted()),
        }
    }

    /// See [`Signals::last_use`].
    pub fn last_use(&self) -> Option<Instant> {
        moment(self.0.last_use.load(Ordering::Relaxed))
    }

    /// Requests that wait right now.
    pub fn waiters(&self) -> usize {
        self.0.waiters.load(Ordering::Relaxed)
    }

    /// Whether anybody still holds a [`Reader`].
    pub fn has_readers(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// The half of the data plane. Cheap to clone, but a request has no need to.
#[derive(Clone)]
pub struct Reader(Arc<Shared>);

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Reader").field(&self.0.view.load()).finish()
    }
}

/// A look at what is published, held only while a head is written.
pub struct Glance {
    view: arc_swap::Guard<Arc<View>>,
    last_use: Option<Instant>,
}

impl Glance {
    /// What a request is to do now.
    pub fn decide(&self, now: Now) -> Decision<'_> {
        self.view.decide(now, self.last_use)
    }

    /// [`Self::decide`] as somebody who waits sees it: only a token newer than `above` counts, and a
    /// failure that was published since `known` is this wait's own result, even if it may be tried
    /// again already (the first back-off can be next to nothing).
    fn outcome(&self, now: Now, above: u64, known: Option<Instant>) -> Outcome {
        match self.decide(now) {
            Decision::Use(b) if b.generation > above => Outcome::Ready,
            Decision::WaitOr(b) if b.generation > above => {
                if self.failed_at() == known {
                    Outcome::Valid
                } else {
                    Outcome::Ready
                }
            }
            Decision::Fail(failure) => Outcome::Failed(failure.clone()),
            Decision::Use(_) | Decision::WaitOr(_) | Decision::Wait => match &self.view.failure {
                Some(failure) if Some(failure.until) != known => Outcome::Failed(failure.clone()),
                _ => Outcome::Pending,
            },
        }
    }

    /// Tells one cached failure from the next.
    fn failed_at(&self) -> Option<Instant> {
        self.view.failure.as_ref().map(|f| f.until)
    }
}

enum Outcome {
    Ready,
    Valid,
    Failed(Failure),
    Pending,
}

/// A cell that is known without being in use by that.
pub struct Remembered(Weak<Shared>);

impl Remembered {
    /// The cell, while anybody else holds a half of it.
    pub fn reader(&self) -> Option<Reader> {
        self.0.upgrade().map(Reader)
    }
}

impl Reader {
    /// See [`Remembered`].
    pub fn remembered(&self) -> Remembered {
        Remembered(Arc::downgrade(&self.0))
    }

    /// Looks at the token: two loads, no lock, no shared write.
    pub fn glance(&self) -> Glance {
        Glance { view: self.0.view.load(), last_use: self.last_use() }
    }

    /// Waits until [`Reader::glance`] gives a token to use, newer than `above` (0 = any).
    ///
    /// In the mandatory window it returns after [`MANDATORY_PATIENCE`] at the latest, because the token
    /// that is there is still valid. Where a failure is cached it returns at once; call it then all the
    /// same, since that is how the engine learns that somebody still asks. A caller that goes away cancels
    /// nothing but its own wait.
    pub async fn wait(&self, above: u64, deadline: Instant) -> Result<(), Unavailable> {
        let _seat = Seat::take(&self.0).ok_or(Unavailable::Crowded)?;
        let mut changes = self.0.changes.subscribe();
        let known = self.glance().failed_at();
        let mut patience = None;
        loop {
            changes.borrow_and_update();
            let outcome = self.glance().outcome(Now::read(), above, known);
            if matches!(outcome, Outcome::Ready) {
                return Ok(());
            }
            // The word "wanted" goes out even with a cached failure, silently: the owner reads it when
            // the back-off ends, and only then tries again by itself.
            self.0.wanted.store(true, Ordering::Release);
            let now = Instant::now();
            let limit = match outcome {
                Outcome::Failed(failure) => return Err(Unavailable::Failed(failure)),
                Outcome::Ready | Outcome::Valid => {
                    *patience.get_or_insert_with(|| deadline.min(now + MANDATORY_PATIENCE))
                }
                Outcome::Pending => deadline,
            };
            let gone = self.0.gone.load(Ordering::Acquire);
            if gone || now >= limit {
                return match outcome {
                    Outcome::Valid => Ok(()),
                    _ if gone => Err(Unavailable::Gone),
                    _ => Err(Unavailable::TimedOut),
                };
            }
            self.0.signal.notify_one();
            // Either way the loop looks again; the sender lives as long as `self`.
            let _ = tokio::time::timeout_at(limit.into(), changes.changed()).await;
        }
    }

    /// When a token of this cell was last used; see [`Reader::used`].
    pub fn last_use(&self) -> Option<Instant> {
        moment(self.0.last_use.load(Ordering::Relaxed))
    }

    /// An upstream rejected the token of this generation: compare-and-invalidate.
    pub fn reject(&self, generation: u64, now: Instant) -> Rejection {
        let view = self.0.view.load();
        let too_fresh = view.bearer.as_ref().is_some_and(|b| b.generation == generation && now < b.rejectable_from);
        if too_fresh {
            return Rejection::TooFresh;
        }
        if self.0.rejected.fetch_max(generation, Ordering::AcqRel) < generation {
            self.0.signal.notify_one();
        }
        Rejection::Replaced
    }

    /// Whether the token that is there has the text of this generation, which the provider gave more than once: to send it
    /// again would be to send the same.
    pub fn is_repeat(&self, generation: u64) -> bool {
        let view = self.0.view.load();
        view.bearer.as_ref().is_some_and(|b| b.text_since < b.generation && b.text_since <= generation)
    }

    /// A request that carried the token of this generation, sent at `sent`, was answered by something
    /// other than a rejection. With sliding expiry this moves the deadline.
    pub fn used(&self, generation: u64, sent: Instant) {
        let view = self.0.view.load();
        let Some(bearer) = view.bearer.as_ref().filter(|b| b.generation == generation) else { return };
        let first = !bearer.accepted.load(Ordering::Relaxed);
        if first {
            bearer.accepted.store(true, Ordering::Relaxed);
        }
        let sent = tick(sent);
        // One shared write in a quarter of a second, not one a request.
        if first || self.0.last_use.load(Ordering::Relaxed) + 250 < sent {
            self.0.last_use.fetch_max(sent, Ordering::Relaxed);
        }
    }
}

/// A place among the waiters, given back on drop.
struct Seat<'a>(&'a AtomicUsize);

impl<'a> Seat<'a> {
    fn take(shared: &'a Shared) -> Option<Self> {
        let before = shared.waiters.fetch_add(1, Ordering::Relaxed);
        let seat = Self(&shared.waiters);
        (before < MAX_WAITERS).then_some(seat)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
