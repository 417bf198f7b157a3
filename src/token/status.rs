//! 7 … what status, metrics and the dashboard may know about a token: never the token.

use std::time::{Instant, SystemTime};

use super::{
    Key,
    bearer::{FailureKind, Now},
    budget::BudgetUse,
    lifetime::LifetimeSource,
    refresh::Progress,
    secrets::Place,
    state::Policy,
};
use crate::{
    config::model::{TokenSpec, Warm},
    telemetry::metrics::Durations,
};

/// One token of one credential.
#[derive(Debug, Clone)]
pub struct TokenStatus {
    /// The credential.
    pub credential: String,
    /// The profile it came from.
    pub provider: Option<String>,
    /// Which token.
    pub key: Key,
    /// Asked for.
    pub scopes: Vec<String>,
    /// Asked for.
    pub audience: Option<String>,
    /// Asked for.
    pub resource: Vec<String>,
    /// `warm = "always"`: readiness waits until [`Self::was_tried`].
    pub warm: Warm,
    /// `empty`, `fresh`, `advisory`, `mandatory` or `expired`.
    pub state: &'static str,
    /// A token request is under way.
    pub fetching: bool,
    /// A failure stands now (beside a token, perhaps); it is [`Self::last_error`].
    pub failing: bool,
    /// First 8 hex digits of the token's SHA-256.
    pub fingerprint: Option<String>,
    /// Counts the tokens of this key.
    pub generation: u64,
    /// When the token was asked for.
    pub issued_at: Option<SystemTime>,
    /// When it ends, moved by its last use where expiry slides.
    pub expires_at: Option<SystemTime>,
    /// When it will be refreshed without anybody asking.
    pub next_refresh_at: Option<SystemTime>,
    /// Who told its lifetime.
    pub life_from: Option<LifetimeSource>,
    /// What was granted, in the provider's words.
    pub granted_scope: Option<String>,
    /// By how many seconds the provider's clock is ahead of ours.
    pub skew: Option<i64>,
    /// It has had a token, also one from the store or from another replica, for which nothing was asked here.
    pub has_had_token: bool,
    /// Token requests that gave a token.
    pub succeeded: u64,
    /// Token requests that gave none.
    pub failed: u64,
    /// How long token requests took.
    pub fetch_seconds: Durations,
    /// Which client secret gave the last token, by position and source.
    pub secret: Option<String>,
    /// The same, by position alone.
    pub place: Option<Place>,
    /// What is used of the budget, over all tokens of the account.
    pub budget: Option<BudgetUse>,
    /// The last failure, kept after it has healed.
    pub last_error: Option<LastError>,
}

/// A failed token request.
#[derive(Debug, Clone)]
pub struct LastError {
    /// Whose fault.
    pub kind: FailureKind,
    /// The sentence that callers get too.
    pub message: String,
    /// The provider's own description, filtered.
    pub detail: Option<String>,
    /// When.
    pub at: SystemTime,
    /// No further attempt before; `None` once it has healed.
    pub retry_at: Option<SystemTime>,
}

impl TokenStatus {
    pub(super) fn new(
        key: Key,
        spec: &TokenSpec,
        policy: &Policy,
        progress: &Progress,
        last_use: Option<Instant>,
        budget: Option<BudgetUse>,
        now: Now,
    ) -> Self {
        let view = progress.state.view();
        let bearer = view.bearer.as_deref();
        let (life_from, granted_scope, skew) = match progress.last_minted.clone() {
            Some((from, scope, skew)) => (Some(from), scope, skew),
            None => (None, None, None),
        };
        let last_error = progress.last_refusal.as_ref().map(|(refusal, at)| LastError {
            kind: refusal.kind,
            message: refusal.message.clone(),
            detail: refusal.detail.clone(),
            at: *at,
            retry_at: view.failure.as_ref().map(|f| now.wall + f.until.saturating_duration_since(now.mono)),
        });
        Self {
            credential: spec.credential.name.clone(),
            provider: spec.credential.provider.clone(),
            key,
            scopes: spec.scopes.clone(),
            audience: spec.audience.clone(),
            resource: spec.resource.clone(),
            warm: spec.credential.warm,
            state: progress.state.phase(last_use, now).as_str(),
            fetching: progress.state.is_fetching(),
            failing: view.failure.is_some(),
            fingerprint: bearer.map(|b| b.fingerprint.clone()),
            generation: bearer.map_or(0, |b| b.generation),
            issued_at: bearer.map(|b| b.issued.wall),
            expires_at: bearer.map(|b| now.wall + b.expires.later_by(b.slid(last_use)).left(now)),
            next_refresh_at: progress.state.next_refresh(policy, last_use, now),
            life_from,
            granted_scope,
            skew,
            has_had_token: progress.state.has_had_token(),
            succeeded: progress.succeeded,
            failed: progress.failed,
            fetch_seconds: progress.seconds,
            secret: progress.secret.clone(),
            place: progress.place,
            budget,
            last_error,
        }
    }

    /// Whether there was a token, or one was asked for at least once, or could not even be asked for.
    pub fn was_tried(&self) -> bool {
        self.has_had_token || self.succeeded + self.failed > 0 || self.last_error.is_some()
    }
}
