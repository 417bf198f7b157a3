//! 7 asking once and telling everything: for the commands that explain.
//!
//! It asks as the refresh task does, by the same code, but keeps no token: of the store it uses what an answer would
//! otherwise spoil (a refresh token that is good once) or falsify (the count of a budget).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;

use super::{
    asking::{Asking, Fetched, Sight},
    bearer::FailureKind,
    budget::BudgetUse,
    claims::{self, Kind},
    credential::Material,
    curl::curl,
    lifetime::LifetimeSource,
    refusal::Refusal,
    reply::{self, Answer, Minted},
};
use crate::config::{
    model::{CredentialSpec, Grant, TokenSpec},
    secret::Secret,
};

/// All that came of it.
#[derive(Debug)]
pub struct Inquiry {
    /// The token requests, in order: mostly one.
    pub requests: Vec<Asked>,
    /// A token, or why there is none.
    pub result: Result<Granted, Refusal>,
    /// Which of several client secrets it was at last, by position and source.
    pub secret: Option<String>,
    /// The budget after it.
    pub budget: Option<BudgetUse>,
}

impl Inquiry {
    /// Whether there is no token because of the file, of what it names or of a login that is still to come: nobody was asked.
    pub fn is_own_fault(&self) -> bool {
        let blames_us = matches!(&self.result, Err(refusal) if refusal.kind == FailureKind::Secret);
        blames_us && self.requests.is_empty()
    }
}

/// One token request.
#[derive(Debug)]
pub struct Asked {
    /// With a refresh token.
    pub refreshing: bool,
    /// The same request by hand, without any secret.
    pub curl: Option<String>,
    /// From the connection to the last byte of the answer.
    pub took: Duration,
    /// What was answered.
    pub status: Option<u16>,
    /// By how many seconds the provider's clock is ahead of ours, where it says.
    pub skew: Option<i64>,
    /// Why it gave no token.
    pub refusal: Option<Refusal>,
}

/// A token.
pub struct Granted {
    /// The token itself.
    pub token: Secret,
    /// First 8 hex digits of its SHA-256.
    pub fingerprint: String,
    /// How long it lives.
    pub life: Duration,
    /// Who said so.
    pub life_from: LifetimeSource,
    /// Granted scopes.
    pub scopes: Scopes,
    /// What the token says of itself.
    pub kind: Kind,
    /// `token_type` of the answer.
    pub token_type: Option<String>,
    /// What is unusual about the answer, in sentences.
    pub oddities: Vec<String>,
}

impl std::fmt::Debug for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Granted").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// Granted against requested scopes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes {
    /// What was granted, and who says so: `answer` or `token`; `None` where nobody does, which means all that
    /// were asked for (RFC 6749 section 5.1).
    pub granted: Option<(Vec<String>, &'static str)>,
    /// Asked for, not granted.
    pub missing: Vec<String>,
    /// Granted, not asked for.
    pub extra: Vec<String>,
}

impl Scopes {
    fn of(asked: &[String], granted: Option<(Vec<String>, &'static str)>) -> Self {
        let has = |all: &[String], one: &String| all.iter().any(|s| s.eq_ignore_ascii_case(one));
        let of = |these: &[String], without: &[String]| these.iter().filter(|s| !has(without, s)).cloned().collect();
        match &granted {
            // Who asks for none gets the provider's choice; Microsoft's "everything" gives single permissions.
            Some((scopes, _)) if !asked.is_empty() && !asked.iter().any(|s| s.ends_with("/.default")) => {
                Self { missing: of(asked, scopes), extra: of(scopes, asked), granted }
            }
            _ => Self { granted, missing: Vec::new(), extra: Vec::new() },
        }
    }
}

/// Whether what comes back from asking must be kept, so that asking without a store would do harm.
pub fn needs_store(credential: &CredentialSpec) -> bool {
    spends_refresh_token(credential) || credential.budget.is_some()
}

/// Whether asking may use up the one refresh token that there is.
pub(super) fn spends_refresh_token(credential: &CredentialSpec) -> bool {
    credential.grant.is_login() || matches!(credential.grant, Grant::RefreshToken { .. })
}

/// Asks, and tells.
pub(super) async fn inquire(mut asking: Asking) -> Inquiry {
    let sights: Arc<Mutex<Vec<Sight>>> = Arc::default();
    asking.witness = Some(Arc::clone(&sights));
    let (spec, ledger) = (Arc::clone(&asking.spec), Arc::clone(&asking.ledger));
    let Fetched { result, secret, .. } = asking.fetch_anew().await;
    let sights = std::mem::take(&mut *sights.lock().unwrap_or_else(PoisonError::into_inner));
    let result = result.map(|minted| granted(&spec, minted, sights.last()));
    let requests = sights.iter().map(asked).collect();
    Inquiry { requests, result, secret, budget: ledger.usage() }
}

/// Nothing was asked.
pub(super) fn refused(refusal: Refusal, budget: Option<BudgetUse>) -> Inquiry {
    Inquiry { requests: Vec::new(), result: Err(refusal), secret: None, budget }
}

fn asked(sight: &Sight) -> Asked {
    Asked {
        refreshing: sight.material.refresh.is_some(),
        curl: curl(&sight.spec, &sight.material),
        took: sight.took,
        status: sight.answer.as_ref().map(|answer| answer.status),
        skew: sight.answer.as_ref().and_then(reply::skew),
        refusal: sight.refusal.clone(),
    }
}

fn granted(spec: &TokenSpec, minted: Minted, sight: Option<&Sight>) -> Granted {
    let answer = sight.and_then(|sight| Some((&sight.material, sight.answer.as_ref()?)));
    let body = answer.and_then(|(_, answer)| reply::parsed(answer)).unwrap_or(Value::Null);
    let quotes = |text: &str| {
        answer.is_some_and(|(material, _)| material.is_contained_in(text)) || text.contains(minted.token.expose())
    };
    let kind = claims::kind(minted.token.expose(), &quotes);
    let of_answer = body.get("scope").and_then(claims::scopes).map(|scopes| (scopes, "answer"));
    let of_token = match &kind {
        Kind::Jwt(jwt) => jwt.scopes.clone().map(|scopes| (scopes, "token")),
        _ => None,
    };
    let shown = |(scopes, who): (Vec<String>, _)| {
        (scopes.iter().take(MOST_SCOPES).map(|scope| claims::cut(scope, &quotes)).collect(), who)
    };
    let token_type = body.get("token_type").and_then(Value::as_str).map(|text| claims::cut(text, &quotes));
    let oddities = answer.map_or_else(Vec::new, |(material, answer)| {
        Answered { spec, material, answer, body: &body, minted: &minted, kind: &kind }.oddities(token_type.as_deref())
    });
    Granted {
        fingerprint: minted.fingerprint,
        life: minted.life,
        life_from: minted.life_from,
        scopes: Scopes::of(&spec.scopes, of_answer.or(of_token).map(shown)),
        kind,
        token_type,
        oddities,
        token: minted.token,
    }
}

/// No provider has more for one token.
const MOST_SCOPES: usize = 200;

/// A longer token does not fit into what many servers take as a header.
const LONG: usize = 6 * 1024;

/// `expires_in` and `exp` may differ by this many seconds without a word.
const CLOSE: u64 = 60;

/// A good answer, looked at for what is unusual.
struct Answered<'a> {
    spec: &'a TokenSpec,
    material: &'a Material,
    answer: &'a Answer,
    body: &'a Value,
    minted: &'a Minted,
    kind: &'a Kind,
}

impl Answered<'_> {
    fn oddities(&self, token_type: Option<&str>) -> Vec<String> {
        let all = [
            self.of_type(token_type),
            self.of_status(),
            self.of_format(),
            self.of_lifetime(),
            self.of_exp(),
            self.of_refresh_token(),
            self.of_length(),
        ];
        all.into_iter().flatten().collect()
    }

    fn of_type(&self, token_type: Option<&str>) -> Option<String> {
        match token_type {
            _ if !self.body.is_object() || self.spec.credential.token_field != "/access_token" => None,
            None => Some("The answer has no token_type; the token is used as a bearer token.".to_owned()),
            Some(kind) if kind.eq_ignore_ascii_case("bearer") || kind.eq_ignore_ascii_case("dpop") => None,
            Some(kind) => {
                Some(format!("token_type is {kind:?}; what goes to the upstream is `inject`'s `Bearer` all the same."))
            }
        }
    }

    fn of_status(&self) -> Option<String> {
        let status = self.answer.status;
        (status != 200).then(|| format!("The status is {status}; any 2xx with a token will do."))
    }

    fn of_format(&self) -> Option<String> {
        let media = self.answer.headers.get(http::header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
        let json = media.is_some_and(|media| media.to_ascii_lowercase().contains("json"));
        let quoted = |media: &str| claims::cut(media, &|text| self.material.is_contained_in(text));
        match media {
            _ if self.spec.credential.token_field.is_empty() || json => None,
            None => Some("The answer has no Content-Type.".to_owned()),
            Some(media) => {
                Some(format!("The answer calls itself {:?}, not JSON; it was read all the same.", quoted(media)))
            }
        }
    }

    fn of_lifetime(&self) -> Option<String> {
        let field = &self.spec.credential.expires_field;
        match self.minted.life_from {
            LifetimeSource::DefaultTtl => Some(
                "The provider does not say how long the token lives: set default_ttl to what it documents.".to_owned(),
            ),
            LifetimeSource::ExpiresIn if self.body.pointer(field).is_some_and(Value::is_string) => {
                Some(format!("The lifetime at {field} is a text, not a number; it was read all the same."))
            }
            _ => None,
        }
    }

    /// `expires_in` may come out of a cache, or be another setting than `exp`.
    fn of_exp(&self) -> Option<String> {
        let Kind::Jwt(jwt) = self.kind else { return None };
        let exp = jwt.claims.get("exp").and_then(Value::as_f64).filter(|exp| (0.0..1e12).contains(exp))?;
        let sent = self.answer.sent.wall.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs_f64();
        let ahead = reply::skew(self.answer).unwrap_or(0);
        #[expect(clippy::cast_precision_loss, reason = "seconds between two clocks")]
        let left = exp - sent - ahead as f64;
        let life = self.minted.life.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a minute")]
        let far = (left - life).abs() > CLOSE as f64;
        far.then(|| {
            format!("The token's own exp leaves it {left:.0} s, the answer says {life:.0} s; the answer holds.")
        })
    }

    fn of_refresh_token(&self) -> Option<String> {
        let comes = self.body.get("refresh_token").is_some_and(Value::is_string);
        (comes && !self.spec.credential.keeps_refresh_token())
            .then(|| "A refresh token came with it; this grant has no use for one, it is ignored.".to_owned())
    }

    fn of_length(&self) -> Option<String> {
        let length = self.minted.token.expose().len();
        (length > LONG).then(|| format!("The token is {length} bytes long; many servers take no header of that size."))
    }
}
