//! 7 the result — a token ready to be injected, what is published of it, and what a request makes of that.
//!
//! [`cell()`] makes both halves of the place where it is published. The [`Writer`] belongs to the one task that owns the
//! token's key. A [`Reader`] is all that the data plane sees of the whole engine.

mod cell;
mod deadline;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use crate::{config::secret::Secret, net::Identity};

pub use super::dpop::{Facts, Prover, Terms, shifted};
pub use cell::{Glance, MAX_WAITERS, Reader, Rejection, Remembered, Signals, Unavailable, Writer, cell};
pub use deadline::{Deadline, Now};

/// How long a request in the mandatory window waits for the refresh before it takes the still valid token.
pub const MANDATORY_PATIENCE: Duration = Duration::from_secs(2);

/// A token that may be injected.
#[derive(Debug)]
pub struct Bearer {
    /// The token's text; a legal header value.
    pub token: Secret,
    /// First 8 hex digits of its SHA-256: how it is named wherever it is shown.
    pub fingerprint: String,
    /// Counts the tokens of this cell, from 1.
    pub generation: u64,
    /// The first generation with this very text: its own, unless the provider gave the one before once more.
    pub text_since: u64,
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
    /// The certificate that it was got with: requests with it go out on connections that present the same.
    pub identity: Option<Identity>,
    /// Where the token is bound to a key: what proves that we hold it.
    pub proof: Option<Prover>,
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
        let (identity, proof) = (None, None);
        Self {
            token,
            fingerprint,
            generation,
            text_since: generation,
            issued,
            mandatory,
            expires,
            sliding,
            rejectable_from,
            identity,
            proof,
            accepted,
        }
    }

    /// The same, got with this certificate.
    #[must_use]
    pub fn with_identity(self, identity: Option<Identity>) -> Self {
        Self { identity, ..self }
    }

    /// The same, after `before`, which may have the same text.
    #[must_use]
    pub fn after(self, before: Option<&Self>) -> Self {
        let same = before.filter(|before| before.token == self.token);
        Self { text_since: same.map_or(self.generation, |before| before.text_since), ..self }
    }

    /// The same, bound to the key of `proof`.
    #[must_use]
    pub fn with_proof(self, proof: Option<Prover>) -> Self {
        Self { proof, ..self }
    }

    /// Whether any request with it was answered by something other than a rejection.
    pub fn was_accepted(&self) -> bool {
        self.accepted.load(Ordering::Relaxed)
    }

    /// How much later a last use moves both deadlines: nothing with fixed expiry, and nothing for a use
    /// that was of an earlier token.
    pub fn slid(&self, last_use: Option<Instant>) -> Duration {
        match last_use {
            Some(used) if self.sliding => used.saturating_duration_since(self.issued.mono),
            _ => Duration::ZERO,
        }
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
    /// This host had no descriptor, port or buffer left to ask with.
    Shortage,
}

impl FailureKind {
    /// As programs read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Budget => "budget",
            Self::Secret => "secret",
            Self::Shortage => "shortage",
        }
    }
}

/// A reason whose message is for the log, and what callers are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withheld {
    /// A source of secrets gives nothing.
    Secret,
    /// The refresh token that is kept.
    RefreshToken,
    /// The token that was given has expired.
    Expired,
    /// The budget is spent, by it and other credentials.
    SharedBudget,
}

impl Withheld {
    /// Goes on after "the credential … has no token: ".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "one of its secrets cannot be had",
            Self::RefreshToken => "its refresh token cannot be had",
            Self::Expired => "the one that it was given has expired",
            Self::SharedBudget => {
                "the budget of token requests that all credentials of its client at this token endpoint share is spent"
            }
        }
    }
}

/// The cached reason why there is no (new) token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Kind.
    pub kind: FailureKind,
    /// One sentence for people, free of secrets and of the provider's own text beyond its error code.
    pub message: String,
    /// Of which callers are told no more than this, where the message names files, commands, places in a store or other credentials.
    pub withheld: Option<Withheld>,
    /// Since when.
    pub at: SystemTime,
    /// No further attempt before this moment.
    pub until: Instant,
}

/// What the owner of a key publishes.
#[derive(Debug, Default, Clone)]
pub struct View {
    /// The token, whether still valid or not: [`Glance::decide`] judges it at each use. Shared, because a
    /// failure is published beside the very same token, which goes on collecting [`Bearer::was_accepted`].
    pub bearer: Option<Arc<Bearer>>,
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

impl View {
    fn decide(&self, now: Now, last_use: Option<Instant>) -> Decision<'_> {
        let usable = self.bearer.as_deref().filter(|b| b.generation > self.rejected);
        if let Some(bearer) = usable {
            let slid = bearer.slid(last_use);
            if !bearer.mandatory.later_by(slid).passed(now) {
                return Decision::Use(bearer);
            }
            if !bearer.expires.later_by(slid).passed(now) {
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
