//! 2 … why a token request gave no token: how bad it is, and the sentence that says so. Pure.

use std::time::Duration;

use super::{
    bearer::{FailureKind, Withheld},
    budget::{BudgetUse, Spent},
    discovery::DiscoveryError,
    known::Known,
};
use crate::config::{
    model::{ClientAuth, CredentialSpec},
    secret::Secret,
};

/// Whether asking again soon makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Yes: network, 5xx, 408, 429, nonsense.
    Transient,
    /// No: the provider means it. Asking again too often may lock the account.
    Permanent,
}

/// A token request that gave no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// How bad.
    pub severity: Severity,
    /// Whose fault.
    pub kind: FailureKind,
    /// What happened, whose fault it is, what to do: for the log, the commands and the status page, and for callers too where
    /// [`Self::withheld`] does not keep it from them. No word of the provider's beyond
    /// its error code.
    pub message: String,
    /// Of which callers are told no more than this, where the message names files, commands, places in a store or other
    /// credentials.
    pub withheld: Option<Withheld>,
    /// The provider's error code, if it gave a legal one.
    pub code: Option<String>,
    /// The provider's own description, filtered; for the log and the status page only.
    pub detail: Option<String>,
    /// What it means and what to do, where this provider's words are known; [`Self::message`] says it too.
    pub known: Option<&'static Known>,
    /// The provider did not take the client itself: another secret may help.
    pub blames_client: bool,
    /// `Retry-After` of a 429 or 503.
    pub retry_after: Option<Duration>,
    /// The refresh token that came all the same, until it has been kept.
    pub refresh: Option<Box<Secret>>,
}

impl Refusal {
    fn new(severity: Severity, kind: FailureKind, message: String) -> Self {
        Self {
            severity,
            kind,
            message,
            withheld: None,
            code: None,
            detail: None,
            known: None,
            blames_client: false,
            retry_after: None,
            refresh: None,
        }
    }

    /// No usable answer: network, 5xx, nonsense. `what` completes "… got no token for …: ".
    pub fn unavailable(credential: &CredentialSpec, what: &str) -> Self {
        let message = format!("{} gave no token for {}: {what}", provider(credential), quoted(credential));
        Self::new(Severity::Transient, FailureKind::Unavailable, message)
    }

    /// No answer in time.
    pub fn timeout(credential: &CredentialSpec, what: &str) -> Self {
        let message = format!("{} did not answer in time for {}: {what}", provider(credential), quoted(credential));
        Self::new(Severity::Transient, FailureKind::Timeout, message)
    }

    /// The provider said no.
    pub fn refused(
        credential: &CredentialSpec,
        code: Option<&str>,
        status: u16,
        known: Option<&'static Known>,
    ) -> Self {
        let (who, whom) = (provider(credential), quoted(credential));
        let mut message = match code {
            Some(code) => format!("{who} refused {whom}: {code} (HTTP {status}). "),
            None if matches!(status, 404 | 405 | 410) => {
                format!("{who} has no token endpoint where {whom} asked for a token (HTTP {status}). ")
            }
            None => format!("{who} refused {whom} (HTTP {status}). "),
        };
        match known {
            Some(known) => message.extend([known.means, " ", known.advice]),
            None => message.push_str(advice(credential, code, status)),
        }
        let blames_client = code == Some("invalid_client") || status == 401;
        Self {
            code: code.map(str::to_owned),
            known,
            blames_client,
            ..Self::new(Severity::Permanent, FailureKind::Refused, message)
        }
    }

    /// The budget is spent: nothing was sent. It may be the budget of another credential of this client, whose name callers are
    /// not told.
    pub(super) fn of_budget(credential: &CredentialSpec, spent: &Spent) -> Self {
        let BudgetUse { limit, window, .. } = spent.usage;
        let (window, owner) = (written(window), &spent.owner);
        let shares = spent.sharers.iter().any(|name| *name != credential.name) || *owner != credential.name;
        let (who, whose) = if shares {
            let budget = format!("the budget of {limit} token requests in {window} of the credential {owner:?}");
            let all = listed(&spent.sharers);
            let who = format!("{budget} is spent, which {all} share: they are one client at one token endpoint");
            (format!("{who}; for {}", quoted(credential)), format!(" of {owner:?}"))
        } else {
            let who = format!("{} has spent its budget of {limit} token requests in {window};", quoted(credential));
            (who, String::new())
        };
        let message = format!(
            "{who} nothing was sent to {}. The next one is free when the oldest of them is {window} old. Raise `budget`{whose} \
             if the provider grants more.",
            provider(credential),
        );
        let withheld = shares.then_some(Withheld::SharedBudget);
        let told = Self::new(Severity::Transient, FailureKind::Budget, message);
        Self { retry_after: Some(spent.free_in), withheld, ..told }
    }

    /// Descriptors or ports have run out here: nothing was sent, and nobody else is to blame.
    pub fn of_shortage(credential: &CredentialSpec, what: &std::io::Error) -> Self {
        let message = format!(
            "{} cannot ask for a token: this host has nothing left to ask with: {what}. Raise the limit of open files, \
             or lower max_connections.",
            quoted(credential)
        );
        Self::new(Severity::Transient, FailureKind::Shortage, message)
    }

    /// The way out is barred: the provider was not reached, and is not to blame.
    pub fn of_egress(credential: &CredentialSpec, what: &str) -> Self {
        let message = format!("{} cannot ask for a token: {what}", quoted(credential));
        Self::new(Severity::Transient, FailureKind::Unavailable, message)
    }

    /// A user has to log in first.
    pub fn of_login(credential: &CredentialSpec, why: &str) -> Self {
        let message =
            format!("{} cannot ask for a token: {why}. Run: cupbearer login {}", quoted(credential), credential.name);
        Self::new(Severity::Transient, FailureKind::Secret, message)
    }

    /// The provider's endpoints could not be found out: for now, or for good where its document is no good.
    pub fn of_discovery(credential: &CredentialSpec, failure: &DiscoveryError) -> Self {
        let what = format!("discovery failed: {failure}");
        match failure {
            DiscoveryError::Late(_) => Self::timeout(credential, &what),
            DiscoveryError::Unavailable(_) => Self::unavailable(credential, &what),
            DiscoveryError::Unacceptable(_) => Self {
                severity: Severity::Permanent,
                kind: FailureKind::Refused,
                ..Self::unavailable(credential, &what)
            },
        }
    }

    /// The provider gave a token that is bound to no key of ours, although it got a proof (RFC 9449 section 5).
    pub fn unbound(credential: &CredentialSpec, token_type: Option<&str>) -> Self {
        let what = match token_type {
            Some(word) => format!("its token_type is {word:?}, not \"DPoP\""),
            None => "it has no token_type, which should be \"DPoP\"".to_owned(),
        };
        let message = format!(
            "{} gave {} a token that is not bound to its key: {what}. It is not used, since dpop = true asks for bound \
             tokens. Switch DPoP on for this client at the provider, or leave dpop out.",
            provider(credential),
            quoted(credential),
        );
        Self::new(Severity::Permanent, FailureKind::Refused, message)
    }

    /// Whether a proof of ours is to blame: it needs a (newer) nonce, or is no good.
    pub fn blames_proof(&self) -> bool {
        matches!(self.code.as_deref(), Some("use_dpop_nonce" | "invalid_dpop_proof"))
    }

    /// Whether the user has not answered yet (RFC 8628 section 3.5).
    pub fn is_pending(&self) -> bool {
        matches!(self.code.as_deref(), Some("authorization_pending" | "slow_down"))
    }

    /// Whether the refresh token that was used is no good any more. `OAuth` has a code for that, and no other says
    /// so; a login endpoint of a provider's own has not, and a login does no harm.
    pub fn ends_refresh_token(&self, of_login: bool) -> bool {
        let ends = self.code.as_deref() == Some("invalid_grant") || (of_login && self.severity == Severity::Permanent);
        ends && self.refresh.is_none()
    }

    /// Whether other secrets might have been taken: the provider means it, and not what was asked for.
    pub(super) fn may_blame_secrets(&self) -> bool {
        const OTHERWISE: [&str; 4] =
            ["invalid_scope", "invalid_target", "unsupported_grant_type", "unauthorized_client"];
        let code = self.code.as_deref().unwrap_or_default();
        self.severity == Severity::Permanent && self.kind == FailureKind::Refused && !OTHERWISE.contains(&code)
    }

    /// The provider ended the TLS handshake because of our certificate, or for want of one.
    pub fn of_certificate(credential: &CredentialSpec, what: &str) -> Self {
        let presents = credential.presents_certificate();
        let advice = if presents { "Check client_cert and client_key" } else { "Give it client_cert and client_key" };
        let message = format!(
            "{} refused {} in the TLS handshake: {what}. {advice}; the certificate must be registered there.",
            provider(credential),
            quoted(credential)
        );
        Self::new(Severity::Permanent, FailureKind::Refused, message)
    }

    /// Our own side: a secret that cannot be read, or a setting that makes no legal request.
    pub fn of_settings(credential: &CredentialSpec, what: &str) -> Self {
        let cannot = if credential.grant.is_local() { "has no token" } else { "cannot ask for a token" };
        let message = format!("{} {cannot}: {what}", quoted(credential));
        Self::new(Severity::Transient, FailureKind::Secret, message)
    }

    /// The same, where `what` names files, commands or places in a store.
    pub fn of_place(credential: &CredentialSpec, what: &str, withheld: Withheld) -> Self {
        Self { withheld: Some(withheld), ..Self::of_settings(credential, what) }
    }
}

fn provider(credential: &CredentialSpec) -> String {
    format!("the identity provider at {}", credential.token_url.authority)
}

fn quoted(credential: &CredentialSpec) -> String {
    format!("the credential {:?}", credential.name)
}

/// Names, the first of them where there are many.
fn listed(names: &[String]) -> String {
    const MOST: usize = 5;
    let shown = names.iter().take(MOST).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// A window as the file has it: in hours where it is whole hours.
fn written(window: Duration) -> String {
    match window.as_secs() {
        hours if hours > 0 && hours % 3600 == 0 && window.subsec_nanos() == 0 => format!("{}h", hours / 3600),
        _ => format!("{window:?}"),
    }
}

/// What to do about it.
fn advice(credential: &CredentialSpec, code: Option<&str>, status: u16) -> &'static str {
    match code {
        Some("invalid_client") => of_client(credential),
        Some("unauthorized_client") => "This client may not use this grant: check its registration at the provider.",
        Some("invalid_scope") => "Check scopes against what the provider grants to this client.",
        Some("invalid_target") => "Check audience and resource.",
        Some("access_denied") if has_secret(credential) => "Check client_id, client_secret and audience.",
        Some("access_denied") => "Check what this client may do at the provider, and audience.",
        Some("unsupported_grant_type") => "Check grant_type and body.",
        Some("invalid_request") => "Check body, client_auth and params against the provider's documentation.",
        Some("invalid_dpop_proof") => "Check the clock of this host, and whether the provider takes the key's alg.",
        Some("use_dpop_nonce") => "It gave no nonce that it takes: this is a fault of the provider.",
        Some("invalid_grant") => "Check the grant's own settings at the provider.",
        _ => match status {
            401 | 403 => of_client(credential),
            404 | 405 | 410 => "Check token_url: its path is probably wrong.",
            415 => "Check body: form or json.",
            _ => "Check the credential's settings against the provider's documentation.",
        },
    }
}

/// What the client is known by, with this method.
fn of_client(credential: &CredentialSpec) -> &'static str {
    match credential.client_auth {
        ClientAuth::Mtls => "Check client_id, and that the certificate of client_cert is registered for it.",
        ClientAuth::PrivateKeyJwt if credential.assertion.ready.is_some() => {
            "Check client_id, and iss, sub and aud of the assertion against the client's registration."
        }
        ClientAuth::PrivateKeyJwt => {
            "Check client_id, key, key_id and alg, that the key's public half is registered for the client, and client_auth."
        }
        ClientAuth::None if credential.key.is_some() => {
            "Check client_id, key, key_id and alg, and that the key's public half is registered at the provider."
        }
        ClientAuth::None => "Check client_id, and client_auth: \"none\" is for clients without a secret.",
        ClientAuth::ClientSecretJwt => "Check client_id, client_secret, alg and client_auth.",
        ClientAuth::Basic | ClientAuth::BasicRaw | ClientAuth::Post => {
            "Check client_id, client_secret and client_auth."
        }
    }
}

fn has_secret(credential: &CredentialSpec) -> bool {
    credential.client_secret.is_some()
}
