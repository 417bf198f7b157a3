//! 7 the result — a token ready to be injected, and the one cell through which the cores see it.
//!
//! [`cell`] makes both halves. The [`Writer`] belongs to the one task that owns the token's key. A
//! [`Reader`] is all that the data plane sees of the whole engine: it reads without locks, waits with a
//! deadline, and sends back three small signals: *wanted*, *rejected(generation)* and *used at*.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use crate::config::secret::Secret;

/// How many requests may wait for one token before further ones are turned away.
pub const MAX_WAITERS: usize = 8192;

/// How long a request in the mandatory window waits for the refresh before it takes the still valid token.
pub const MANDATORY_PATIENCE: Duration = Duration::from_secs(2);

/// Both clocks at one moment. The monotonic one does not count a suspended laptop's sleep and the wall
/// clock may jump: a deadline is kept on both, and the earlier one wins.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic.
    pub mono: Instant,
    /// Wall.
    pub wall: SystemTime,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        Self { mono: Instant::now(), wall: SystemTime::now() }
    }
}

/// A deadline on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// Monotonic.
    pub mono: Instant,
    /// Wall.
    pub wall: SystemTime,
}

impl Deadline {
    /// `after` from `now`, on both clocks.
    pub fn after(now: Now, after: Duration) -> Self {
        Self { mono: now.mono + after, wall: now.wall + after }
    }

    /// Whether either clock has reached it.
    pub fn passed(&self, now: Now) -> bool {
        now.mono >= self.mono || now.wall >= self.wall
    }

    fn later_by(&self, by: Duration) -> Self {
        Self { mono: self.mono + by, wall: self.wall + by }
    }

    /// Time left on the clock that reaches it first.
    pub fn left(&self, now: Now) -> Duration {
        let wall = self.wall.duration_since(now.wall).unwrap_or_default();
        self.mono.saturating_duration_since(now.mono).min(wall)
    }
}

/// A token that may be injected.
#[derive(Debug)]
pub struct Bearer {
    /// The token's text; a legal header value.
    pub token: Secret,
    /// First 8 hex digits of its SHA-256: how it is named wherever it is shown.
    pub fingerprint: String,
    /// Counts the tokens of this cell, from 1.
    pub generation: u64,
    /// Before the request that fetched it was sent.
    pub issued: Now,
    /// From here on a request waits for the refresh.
    pub mandatory: Deadline,
    /// From here on it is never sent.
    pub expires: Deadline,
    /// With sliding expiry, how much later each use moves both deadlines (measured from `issued`).
    pub sliding: bool,
    /// A rejection before this moment does not cost a token request (a fresh token that the upstream
    /// refuses would be fetched for ever).
    pub rejectable_from: Instant,
    /// Whether any request with it was answered by something other than a rejection.
    accepted: AtomicBool,
}

impl Bearer {
    /// A new token; `issued`, `mandatory` and `expires` as in the fields.
    #[expect(clippy::too_many_arguments, reason = "one argument a field, made in one place")]
    pub fn new(
        token: Secret,
        fingerprint: String,
        generation: u64,
        issued: Now,
        mandatory: Deadline,
        expires: Deadline,
        sliding: bool,
        rejectable_from: Instant,
    ) -> Self {
        let accepted = AtomicBool::new(false);
        Self { token, fingerprint, generation, issued, mandatory, expires, sliding, rejectable_from, accepted }
    }

    /// Whether any request with it was answered by something other than a rejection.
    pub fn was_accepted(&self) -> bool {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// What kind of failure stands in the way of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The provider said no for good (4xx).
    Refused,
    /// Network, 5xx, malformed.
    Unavailable,
    /// The provider did not answer in time.
    Timeout,
    /// The budget is spent.
    Budget,
    /// A secret source could not be read.
    Secret,
}

/// The cached reason why there is no (new) token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Kind.
    pub kind: FailureKind,
    /// One sentence for people, free of secrets and of the provider's own text beyond its error code.
    pub message: String,
    /// Since when.
    pub at: SystemTime,
    /// No further attempt before this moment.
    pub until: Instant,
}

/// What the owner of a key publishes.
#[derive(Debug, Default)]
pub struct View {
    /// The token, whether still valid or not: [`View::decide`] judges it at each use.
    pub bearer: Option<Bearer>,
    /// A failure that stands beside it.
    pub failure: Option<Failure>,
    /// Generations up to this one were rejected; a bearer of such a generation is used no more.
    pub rejected: u64,
}

/// What a request is to do.
#[derive(Debug)]
pub enum Decision<'a> {
    /// Inject this.
    Use(&'a Bearer),
    /// Wait, but no longer than [`MANDATORY_PATIENCE`], then use this if it is still valid.
    WaitOr(&'a Bearer),
    /// Wait for the fetch.
    Wait,
    /// Fail now, with this cached reason.
    Fail(&'a Failure),
}

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
}

/// Milliseconds since the first call; the unit of `last_use` (0 = never).
fn tick(at: Instant) -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    let epoch = *EPOCH.get_or_init(|| at.checked_sub(Duration::from_secs(1)).unwrap_or(at));
    u64::try_from(at.saturating_duration_since(epoch).as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Makes the two halves of one token's cell.
pub fn cell() -> (Writer, Reader) {
    let shared = Arc::new(Shared {
        view: ArcSwap::from_pointee(View::default()),
        changes: watch::Sender::new(0),
        signal: Notify::new(),
        wanted: AtomicBool::new(false),
        rejected: AtomicU64::new(0),
        last_use: AtomicU64::new(0),
        waiters: AtomicUsize::new(0),
    });
    (Writer(Arc::clone(&shared)), Reader(shared))
}

/// The half of the task that owns the key.
pub struct Writer(Arc<Shared>);

/// What came back from the cores since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signals {
    /// Somebody waits for a token.
    pub wanted: bool,
    /// Highest generation that an upstream rejected; 0 = none.
    pub rejected: u64,
    /// When the token was last used ([`Instant`] of sending), if ever.
    pub last_use: Option<Duration>,
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

    /// Takes the signals: *wanted* is cleared, the others stay. `now` gives `last_use` as an age.
    pub fn take_signals(&self, now: Instant) -> Signals {
        let last_use = self.0.last_use.load(Ordering::Relaxed);
        Signals {
            wanted: self.0.wanted.swap(false, Ordering::AcqRel),
            rejected: self.0.rejected.load(Ordering::Acquire),
            last_use: (last_use > 0).then(|| Duration::from_millis(tick(now).saturating_sub(last_use))),
        }
    }

    /// Requests that wait right now.
    pub fn waiters(&self) -> usize {
        self.0.waiters.load(Ordering::Relaxed)
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

impl View {
    /// The deadlines of `bearer`, moved by its last use where its expiry slides.
    fn deadlines(bearer: &Bearer, last_use: u64) -> (Deadline, Deadline) {
        if bearer.sliding && last_use > 0 {
            let by = Duration::from_millis(last_use.saturating_sub(tick(bearer.issued.mono)));
            return (bearer.mandatory.later_by(by), bearer.expires.later_by(by));
        }
        (bearer.mandatory, bearer.expires)
    }

    fn decide(&self, now: Now, last_use: u64) -> Decision<'_> {
        let usable = self.bearer.as_ref().filter(|b| b.generation > self.rejected);
        if let Some(bearer) = usable {
            let (mandatory, expires) = Self::deadlines(bearer, last_use);
            if !mandatory.passed(now) {
                return Decision::Use(bearer);
            }
            if !expires.passed(now) {
                let refresh_failed = self.failure.as_ref().is_some_and(|f| now.mono < f.until);
                return if refresh_failed { Decision::Use(bearer) } else { Decision::WaitOr(bearer) };
            }
        }
        match &self.failure {
            Some(failure) if now.mono < failure.until => Decision::Fail(failure),
            _ => Decision::Wait,
        }
    }
}

/// A look at what is published, held only while a head is written.
pub struct Glance {
    view: arc_swap::Guard<Arc<View>>,
    last_use: u64,
}

impl Glance {
    /// What a request is to do now.
    pub fn decide(&self, now: Now) -> Decision<'_> {
        self.view.decide(now, self.last_use)
    }
}

impl Reader {
    /// Looks at the token: two loads, no lock, no shared write.
    pub fn glance(&self) -> Glance {
        Glance { view: self.0.view.load(), last_use: self.0.last_use.load(Ordering::Relaxed) }
    }

    /// Waits until [`Reader::glance`] gives a token to use, newer than `above` (0 = any).
    ///
    /// In the mandatory window it returns after [`MANDATORY_PATIENCE`] at the latest, because the token
    /// that is there is still valid. A caller that goes away cancels nothing but its own wait.
    pub async fn wait(&self, above: u64, deadline: Instant) -> Result<(), Unavailable> {
        let _seat = Seat::take(&self.0).ok_or(Unavailable::Crowded)?;
        let mut changes = self.0.changes.subscribe();
        let mut limit = deadline;
        loop {
            changes.borrow_and_update();
            match self.glance().decide(Now::read()) {
                Decision::Use(bearer) if bearer.generation > above => return Ok(()),
                Decision::WaitOr(bearer) if bearer.generation > above => {
                    limit = limit.min(Instant::now() + MANDATORY_PATIENCE);
                }
                Decision::Fail(failure) => return Err(Unavailable::Failed(failure.clone())),
                Decision::Use(_) | Decision::WaitOr(_) | Decision::Wait => {}
            }
            self.0.wanted.store(true, Ordering::Release);
            self.0.signal.notify_one();
            match tokio::time::timeout_at(limit.into(), changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Unavailable::Gone),
                Err(_) => {
                    return match self.glance().decide(Now::read()) {
                        Decision::Use(b) | Decision::WaitOr(b) if b.generation > above => Ok(()),
                        Decision::Fail(failure) => Err(Unavailable::Failed(failure.clone())),
                        _ => Err(Unavailable::TimedOut),
                    };
                }
            }
        }
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

    /// A request that carried the token of this generation, sent at `sent`, was answered by something
    /// other than a rejection. With sliding expiry this moves the deadline.
    pub fn used(&self, generation: u64, sent: Instant) {
        let view = self.0.view.load();
        let Some(bearer) = view.bearer.as_ref().filter(|b| b.generation == generation) else { return };
        if !bearer.accepted.load(Ordering::Relaxed) {
            bearer.accepted.store(true, Ordering::Relaxed);
        }
        let sent = tick(sent);
        // One shared write in a quarter of a second, not one a request.
        if self.0.last_use.load(Ordering::Relaxed) + 250 < sent {
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
