//! 4 where it stands — the pure state machine: `(state, event, now) → (state, what to do)`.
//!
//! ```text
//! Empty → Fresh → Advisory → Mandatory → Expired        a failure stands beside these, never instead
//! ```
//!
//! No I/O, no runtime, no clock is read here: both clocks come in with each event, and so does what the cores
//! have signalled. The one who runs it ([`super::refresh`]) starts at most one fetch, publishes the view and
//! wakes up again when it is told to.
//!
//! What each state gives a *request* is decided at the request, by [`super::bearer::Glance::decide`], on the
//! very same deadlines.
//!
//! **Sliding expiry.** Each use moves the deadlines, hence the windows too: a token in use never reaches
//! them. One that does is idle; it is refreshed then only if it is to be kept warm, or when a request comes
//! in its mandatory window. Should the provider turn to fixed expiry without notice, its first 401 repairs it.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    bearer::{Bearer, Deadline, Failure, FailureKind, Now, Signals, View},
    pace::{Pace, Windows, luck},
    refusal::{Refusal, Severity},
    reply::Minted,
};
use crate::config::model::Warm;

/// What stays the same for a key.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How fast.
    pub pace: Pace,
    /// Who keeps it fresh: use, or we.
    pub warm: Warm,
    /// Whether use moves the deadlines.
    pub sliding: bool,
    /// Where all jitter of this process and key comes from.
    pub seed: u64,
    /// What to say of an answer that took longer than its token lives.
    pub late: Refusal,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The task started, a timer ran out, or a core gave a signal: look what is due.
    Look,
    /// The fetch that was started has ended.
    Fetched(Box<Result<Minted, Refusal>>),
    /// The secrets are others than those which were refused.
    SecretChanged,
    /// Another configuration asks by another way, or under another name: what failed before is tried anew.
    Reconfigured,
    /// The budget that was spent is another one, or a slot of it was given back.
    BudgetChanged,
    /// The source of a static token gives another one than the one that is held.
    TokenChanged,
    /// There are new secrets to be tried, beside a token that is good.
    SecretsToTry,
    /// The trial has ended without a token: as if it had not been.
    TrialEnded,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Todo {
    /// Publish [`State::view`].
    pub publish: bool,
    /// Start the fetch; its end must come back as [`Event::Fetched`].
    pub fetch: bool,
    /// Come back with [`Event::Look`] at this moment, if nothing happens before.
    pub wake: Option<Instant>,
}

/// Where a token is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// There is none.
    Empty,
    /// Used at once, nothing to do.
    Fresh,
    /// Used at once; to be refreshed behind the callers' backs.
    Advisory,
    /// A request waits for the refresh; if that fails it takes the still valid token.
    Mandatory,
    /// Never sent.
    Expired,
}

impl Phase {
    /// As status and metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Fresh => "fresh",
            Self::Advisory => "advisory",
            Self::Mandatory => "mandatory",
            Self::Expired => "expired",
        }
    }
}

/// All that is known about a key's token.
#[derive(Debug, Clone, Default)]
pub struct State {
    token: Option<Held>,
    /// The token before, also one that was rejected: the provider may give it again.
    before: Option<Arc<Bearer>>,
    failure: Option<Failure>,
    /// Failures in a row, by severity; both end with a success.
    streaks: (u32, u32),
    generation: u64,
    rejected: u64,
    /// Tokens in a row that were rejected before they ever worked.
    strikes: u32,
    /// Somebody asked and has had no result yet.
    wanted: bool,
    /// The token is good but not the newest: to be replaced at once.
    outdated: bool,
    /// Tokens in a row that the wall clock has outrun on their way: the first one is asked for again at once.
    outrun: u32,
    fetching: bool,
    /// Fetches ever started, and when the last one was.
    started: (u64, Option<Instant>),
}

#[derive(Debug, Clone)]
struct Held {
    bearer: Arc<Bearer>,
    advisory: Deadline,
}

impl State {
    /// The step of the machine.
    #[must_use]
    pub fn on(mut self, policy: &Policy, event: Event, seen: Signals, now: Now) -> (Self, Todo) {
        self.wanted |= seen.wanted;
        let mut publish = self.drop_rejected(seen, now);
        match event {
            Event::Look => {}
            Event::Fetched(result) => {
                self.fetching = false;
                if result.as_ref().as_ref().is_ok_and(|minted| is_outrun(minted, now)) && self.outrun == 0 {
                    self.outrun = 1;
                    self.wanted = true; // whoever waits goes on waiting
                } else {
                    self.wanted = false; // everybody who waited gets this result, errors too
                    publish = true;
                    match *result {
                        Ok(minted) => self.adopt(policy, minted, seen, now),
                        Err(refusal) => self.fail(policy, refusal, now),
                    }
                }
            }
            Event::SecretChanged | Event::Reconfigured => {
                self.streaks = (0, 0);
                publish |= self.failure.take().is_some();
            }
            Event::BudgetChanged => publish |= self.failure.take_if(|f| f.kind == FailureKind::Budget).is_some(),
            Event::SecretsToTry => self.outdated = true,
            Event::TrialEnded => self.fetching = false,
            Event::TokenChanged => {
                self.outdated = true;
                publish |= self.failure.take().is_some();
            }
        }
        let phase = self.phase(seen.last_use, now);
        if phase == Phase::Fresh {
            // Whoever still waits waited for a clock that has jumped back: let them look again.
            publish |= self.wanted;
            self.wanted = false;
        }
        let due = self.is_due(policy, phase, seen, now);
        let braked = self.started.1.map(|at| at + policy.pace.brake).filter(|free| now.mono < *free);
        let fetch = due && braked.is_none();
        if fetch {
            self.fetching = true;
            self.outdated = false;
            self.started = (self.started.0 + 1, Some(now.mono));
        }
        let wake = if due { braked } else { self.next_look(policy, phase, seen, now) };
        (self, Todo { publish, fetch, wake })
    }

    /// What the cores are to see.
    pub fn view(&self) -> View {
        View {
            bearer: self.token.as_ref().map(|held| Arc::clone(&held.bearer)),
            failure: self.failure.clone(),
            rejected: self.rejected,
        }
    }

    /// Where the token is, judged on both clocks, the earlier one wins.
    pub fn phase(&self, last_use: Option<Instant>, now: Now) -> Phase {
        let Some(Held { bearer, advisory }) = &self.token else { return Phase::Empty };
        let slid = bearer.slid(last_use);
        let passed = |deadline: Deadline| deadline.later_by(slid).passed(now);
        if passed(bearer.expires) {
            Phase::Expired
        } else if passed(bearer.mandatory) {
            Phase::Mandatory
        } else if passed(*advisory) {
            Phase::Advisory
        } else {
            Phase::Fresh
        }
    }

    /// The cached failure, if one stands.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Whether there was ever a token, whoever asked for it.
    pub fn has_had_token(&self) -> bool {
        self.generation > 0
    }

    /// Whether a fetch is under way.
    pub fn is_fetching(&self) -> bool {
        self.fetching
    }

    /// Wall time of the next refresh that will come without anybody asking, as far as can be told now.
    pub fn next_refresh(&self, policy: &Policy, last_use: Option<Instant>, now: Now) -> Option<SystemTime> {
        let held = self.token.as_ref()?;
        let refreshed = policy.warm == Warm::Always || (!policy.sliding && was_used(held, last_use));
        let point = held.advisory.later_by(held.bearer.slid(last_use));
        let retry = self.failure.as_ref().map(|f| f.until.saturating_duration_since(now.mono));
        refreshed.then(|| now.wall + point.left(now).max(retry.unwrap_or_default()))
    }

    /// Compare-and-invalidate: only the token that was carried, and only once it may be rejected.
    fn drop_rejected(&mut self, seen: Signals, now: Now) -> bool {
        let Some(Held { bearer, .. }) = &self.token else { return false };
        if seen.rejected != bearer.generation || now.mono < bearer.rejectable_from {
            return false;
        }
        // One that has worked was revoked; one that never did may be followed by others like it for ever.
        self.strikes = if seen.accepted { 0 } else { self.strikes.saturating_add(1) };
        self.rejected = bearer.generation;
        self.before = self.token.take().map(|held| held.bearer);
        self.wanted = true; // the next request shall find a new one, even if this one's 401 went through
        true
    }

    fn adopt(&mut self, policy: &Policy, minted: Minted, seen: Signals, now: Now) {
        let expires = Deadline::after(minted.issued, minted.life);
        if expires.passed(now) {
            return self.fail(policy, policy.late.clone(), now);
        }
        if self.token.is_some() && seen.accepted {
            self.strikes = 0;
        }
        let windows = Windows::of(minted.life, luck(policy.seed, 0));
        let before = |window: Duration| Deadline::after(minted.issued, minted.life.saturating_sub(window));
        self.generation += 1;
        let bearer = Bearer::new(
            minted.token,
            minted.fingerprint,
            self.generation,
            minted.issued,
            before(windows.mandatory),
            expires,
            policy.sliding,
            now.mono + policy.pace.hold(self.strikes),
        );
        let last = self.token.take().map(|held| held.bearer).or_else(|| self.before.take());
        let bearer = bearer.after(last.as_deref()).with_identity(minted.identity).with_proof(minted.proof);
        self.token = Some(Held { bearer: Arc::new(bearer), advisory: before(windows.advisory) });
        self.failure = None;
        self.streaks = (0, 0);
        self.outrun = 0;
    }

    /// Marks the failure beside whatever token there is.
    fn fail(&mut self, policy: &Policy, refusal: Refusal, now: Now) {
        let Pace { retry_after_cap, .. } = policy.pace;
        let (transient, permanent) = &mut self.streaks;
        let delay = match refusal.severity {
            // No attempt, hence no streak; and no cap on a wait that is our own arithmetic.
            _ if refusal.kind == FailureKind::Budget => Duration::ZERO,
            Severity::Transient => {
                *transient = transient.saturating_add(1);
                policy.pace.transient_delay(*transient, luck(policy.seed, self.started.0))
            }
            Severity::Permanent => {
                *permanent = permanent.saturating_add(1);
                policy.pace.permanent_delay(*permanent)
            }
        };
        let asked = refusal.retry_after.filter(|after| !after.is_zero());
        let cap = if refusal.kind == FailureKind::Budget { Duration::MAX } else { retry_after_cap };
        let delay = asked.map_or(delay, |after| after.min(cap));
        let Refusal { kind, message, withheld, .. } = refusal;
        self.failure = Some(Failure { kind, message, withheld, at: now.wall, until: now.mono + delay });
    }

    fn is_due(&self, policy: &Policy, phase: Phase, seen: Signals, now: Now) -> bool {
        let asked = self.wanted || policy.warm == Warm::Always;
        let in_use = || !policy.sliding && self.token.as_ref().is_some_and(|held| was_used(held, seen.last_use));
        let needed = match phase {
            Phase::Fresh => false,
            Phase::Advisory | Phase::Mandatory => asked || in_use(),
            Phase::Empty | Phase::Expired => asked,
        };
        (needed || self.outdated) && !self.fetching && !self.is_backing_off(now)
    }

    fn is_backing_off(&self, now: Now) -> bool {
        self.failure.as_ref().is_some_and(|failure| now.mono < failure.until)
    }

    /// When to look again although nothing is due. `None` = only when somebody gives a signal, or when the
    /// running fetch ends.
    fn next_look(&self, policy: &Policy, phase: Phase, seen: Signals, now: Now) -> Option<Instant> {
        if self.fetching {
            return None;
        }
        if let Some(failure) = self.failure.as_ref().filter(|failure| now.mono < failure.until) {
            return Some(failure.until); // then the silent "wanted" of those who failed meanwhile is read
        }
        let Held { bearer, advisory } = self.token.as_ref()?;
        let slid = bearer.slid(seen.last_use);
        let (until, often) = match phase {
            Phase::Fresh => (advisory, policy.pace.tick),
            // A first use within the window gives no signal: look for it a few times.
            Phase::Advisory => (&bearer.mandatory, window(advisory, &bearer.expires) / 8),
            Phase::Mandatory => (&bearer.expires, window(&bearer.mandatory, &bearer.expires) / 4),
            Phase::Empty | Phase::Expired => return None,
        };
        let often = often.clamp(Duration::from_millis(100), policy.pace.tick);
        Some(now.mono + until.later_by(slid).left(now).min(often))
    }

    /// Whether a spent budget stands in the way.
    pub fn blames_budget(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::Budget)
    }

    /// Whether this failure may be healed by other secrets.
    pub fn blames_secrets(&self) -> bool {
        let kind = self.failure.as_ref().map(|failure| failure.kind);
        matches!(kind, Some(FailureKind::Refused | FailureKind::Secret))
    }
}

/// Whether the wall clock jumped past the token's end while it was on its way: set, or the machine slept. Nobody knows
/// how old the token is, but there is nothing wrong with its provider.
fn is_outrun(minted: &Minted, now: Now) -> bool {
    let expires = Deadline::after(minted.issued, minted.life);
    expires.passed(now) && now.mono < expires.mono
}

fn was_used(held: &Held, last_use: Option<Instant>) -> bool {
    // Uses are kept in whole milliseconds, rounded down.
    last_use.is_some_and(|used| used + Duration::from_millis(1) > held.bearer.issued.mono)
}

fn window(from: &Deadline, to: &Deadline) -> Duration {
    to.mono.saturating_duration_since(from.mono)
}
