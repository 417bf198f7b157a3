//! 2 … and what came back: a token with its lifetime, or a refusal, transient or permanent. Pure.

use std::{
    fmt::{self, Write as _},
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderMap, header};
use serde_json::{Map, Value};

use super::{
    assertion,
    bearer::{Now, Withheld},
    clock::{self, http_date},
    credential::{Material, quotes},
    dpop::Prover,
    known::{self, Known},
    lifetime::{LifetimeSource, lifetime},
    params::form_decoded,
    refusal::{Refusal, Severity},
};
use crate::{
    config::{
        model::{CredentialSpec, Grant},
        secret::Secret,
    },
    net::Identity,
};

/// A longer answer is not read to its end.
pub const BODY_CAP: usize = 1024 * 1024;

/// A longer token would not fit into anybody's header.
const TOKEN_CAP: usize = 16 * 1024;

/// A provider's description is cut to this many characters.
const DETAIL_CAP: usize = 200;

/// Of `scope`; what lists more than this is cut.
const MOST_SCOPE: usize = 16 * 1024;

/// What the provider answered. It may hold tokens: its `Debug` shows how much there is, and nothing of it.
#[derive(Clone)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Header.
    pub headers: HeaderMap,
    /// Whole body, at most [`BODY_CAP`].
    pub body: Bytes,
    /// Before the request was sent: a token's age counts from here.
    pub sent: Now,
    /// When the head was here.
    pub received: SystemTime,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (headers, body) = (self.headers.len(), self.body.len());
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("headers", &headers)
            .field("body", &format_args!("{body} bytes"))
            .finish_non_exhaustive()
    }
}

/// A new token.
#[derive(Debug, Clone)]
pub struct Minted {
    /// Its text; a legal header value.
    pub token: Secret,
    /// First 8 hex digits of its SHA-256.
    pub fingerprint: String,
    /// Before the request was sent.
    pub issued: Now,
    /// From `issued`.
    pub life: Duration,
    /// Who said so.
    pub life_from: LifetimeSource,
    /// `scope` of the answer: what was granted, in the provider's words.
    pub scope: Option<String>,
    /// By how many seconds the provider's clock is ahead of ours, where it says.
    pub skew: Option<i64>,
    /// The refresh token beside it, where the credential uses one.
    pub refresh: Option<Secret>,
    /// The certificate that it was got with, and that it may be bound to.
    pub identity: Option<Identity>,
    /// `token_type` of the answer, if it is a word.
    pub token_type: Option<String>,
    /// Proves to upstreams that we hold the key which it is bound to.
    pub proof: Option<Prover>,
}

/// Reads the provider's answer to the request that `material` went into.
///
/// A refresh token that stands beside a token which is no good comes with the refusal: the one before it may be used up.
pub fn read(credential: &CredentialSpec, material: &Material, answer: &Answer) -> Result<Minted, Refusal> {
    let reading = Reading { credential, material, answer };
    match answer.status {
        200..=299 => {
            let refresh = || parsed(answer).and_then(|body| reading.refresh(&body));
            reading.success().map_err(|refusal| Refusal { refresh: refresh().map(Box::new), ..refusal })
        }
        300..=399 => Err(reading.malformed("is a redirect, and redirects are never followed. Check token_url.")),
        _ => Err(reading.refusal()),
    }
}

/// The refusal in an answer that is no success.
pub(super) fn refusal(credential: &CredentialSpec, material: &Material, answer: &Answer) -> Refusal {
    Reading { credential, material, answer }.refusal()
}

/// The token of a grant that asks nobody, as if it had been minted at `issued`.
pub fn given(
    credential: &CredentialSpec,
    token: &Secret,
    identity: Option<Identity>,
    issued: Now,
) -> Result<Minted, Refusal> {
    let text = token.expose();
    if !is_token(text) {
        return Err(Refusal::of_settings(credential, "the token holds characters that no token has"));
    }
    let life = lifetime(credential, &Value::Null, text, issued.wall);
    let (life, life_from) = life.map_err(|what| {
        let expired = |source| format!("the token in {source} has expired, says its own exp; put a new one there");
        match &credential.grant {
            Grant::Static { token } => Refusal::of_place(credential, &expired(token), Withheld::Expired),
            _ => Refusal::of_settings(credential, &what),
        }
    })?;
    let (token, fingerprint) = (token.clone(), fingerprint(text));
    Ok(Minted {
        token,
        fingerprint,
        issued,
        life,
        life_from,
        scope: None,
        skew: None,
        refresh: None,
        identity,
        token_type: None,
        proof: None,
    })
}

struct Reading<'a> {
    credential: &'a CredentialSpec,
    material: &'a Material,
    answer: &'a Answer,
}

impl Reading<'_> {
    fn success(&self) -> Result<Minted, Refusal> {
        if self.body().is_empty() {
            return Err(self.malformed("is empty"));
        }
        let whole = self.credential.token_field.is_empty();
        let body = self.parsed();
        if let Some(error) = body.as_ref().and_then(error_member) {
            return Err(self.said_no(body.as_ref(), code_of(error)));
        }
        let text = match &body {
            Some(Value::String(text)) if whole => Some(text.as_str()),
            _ if whole && !self.is_bare_text() => None,
            _ if whole => std::str::from_utf8(self.body()).ok(),
            Some(body) => body.pointer(&self.credential.token_field).and_then(Value::as_str),
            None => return Err(self.malformed(&format!("is {}, neither JSON nor a form", self.kind_of_body()))),
        };
        let field = self.credential.token_field.as_str();
        let token = match text {
            Some(token) if is_token(token) => token,
            Some(_) => return Err(self.malformed("holds a token that is no legal header value")),
            None if whole => return Err(self.malformed("is not a bare token")),
            None => return Err(self.malformed(&format!("has no token at {field}"))),
        };
        self.minted(token, body.as_ref().unwrap_or(&Value::Null))
    }

    fn minted(&self, token: &str, body: &Value) -> Result<Minted, Refusal> {
        let ours = self.answer.sent.wall;
        let by = |clock| lifetime(self.credential, body, token, clock);
        // Nobody gives a token that has expired: where `Date` says so, it may be a front server's whose clock is wrong.
        let life = by(date(self.answer).unwrap_or(ours)).or_else(|what| by(ours).map_err(|_| what));
        let (life, life_from) = life.map_err(|what| self.malformed_because(&what))?;
        Ok(Minted {
            token: Secret::new(token.to_owned()),
            fingerprint: fingerprint(token),
            issued: self.answer.sent,
            life,
            life_from,
            scope: body.get("scope").and_then(scope_text).map(|scope| printable(&scope, MOST_SCOPE)),
            skew: skew(self.answer),
            refresh: self.refresh(body),
            identity: self.material.identity.clone(),
            token_type: body.get("token_type").and_then(code_of).map(str::to_owned),
            proof: None,
        })
    }

    fn refresh(&self, body: &Value) -> Option<Secret> {
        let token = body.get("refresh_token").and_then(Value::as_str).filter(|_| self.credential.keeps_refresh_token());
        token.filter(|token| is_refresh_token(token)).map(|token| Secret::new(token.to_owned()))
    }

    /// Any status but 2xx and 3xx.
    fn refusal(&self) -> Refusal {
        let status = self.answer.status;
        let body = self.parsed();
        let code = body.as_ref().and_then(error_member).and_then(code_of);
        match status {
            408 | 429 | 500.. => Refusal {
                retry_after: if matches!(status, 429 | 503) { self.retry_after() } else { None },
                ..self.transient(body.as_ref(), code)
            },
            _ => self.said_no(body.as_ref(), code),
        }
    }

    /// An `error` member, or a status that means no: permanent, unless the code says otherwise.
    fn said_no(&self, body: Option<&Value>, code: Option<&str>) -> Refusal {
        if matches!(code, Some("temporarily_unavailable" | "server_error" | "slow_down")) {
            return self.transient(body, code);
        }
        let code = code.filter(|code| !self.is_indiscreet(code));
        let mut refused = Refusal::refused(self.credential, code, self.answer.status, self.known());
        if let Some(skew) = skew(self.answer).filter(|skew| skew.unsigned_abs() > assertion::LEEWAY)
            && assertion::vouches(self.credential)
        {
            let where_to = if skew > 0 { "ahead of" } else { "behind" };
            let seconds = skew.unsigned_abs();
            // Writing to a String cannot fail.
            let _ = write!(
                refused.message,
                " Its clock is {seconds} s {where_to} ours, and signed assertions live for a minute: is a clock wrong?"
            );
        }
        Refusal { detail: self.detail(body), ..refused }
    }

    fn transient(&self, body: Option<&Value>, code: Option<&str>) -> Refusal {
        let code = code.filter(|code| !self.is_indiscreet(code));
        let reason = code.map_or_else(String::new, |code| format!("{code} "));
        let mut what = match self.answer.status {
            429 => format!("it limits how often it may be asked: {reason}(HTTP 429){}.", self.until()),
            status => format!("it answered {reason}(HTTP {status}), a failure of its own."),
        };
        let known = self.known();
        if let Some(known) = known {
            what.extend([" ", known.means, " ", known.advice]);
        }
        Refusal {
            code: code.map(str::to_owned),
            detail: self.detail(body),
            known,
            ..Refusal::unavailable(self.credential, &what)
        }
    }

    fn known(&self) -> Option<&'static Known> {
        known::find(self.credential, self.answer.status, self.body())
    }

    fn malformed(&self, what: &str) -> Refusal {
        self.malformed_because(&format!("its answer (HTTP {}) {what}", self.answer.status))
    }

    fn malformed_because(&self, what: &str) -> Refusal {
        let refusal = Refusal::unavailable(self.credential, what);
        debug_assert_eq!(refusal.severity, Severity::Transient);
        refusal
    }

    fn parsed(&self) -> Option<Value> {
        parsed(self.answer)
    }

    fn body(&self) -> &[u8] {
        body(self.answer)
    }

    fn is_bare_text(&self) -> bool {
        !matches!(self.body().first(), Some(b'{' | b'[' | b'<' | b'"'))
    }

    fn kind_of_body(&self) -> &'static str {
        match self.body().first() {
            Some(b'<') => "HTML or XML",
            Some(b'{' | b'[') => "broken JSON",
            _ => "some text",
        }
    }

    /// Until when a 429 holds, as a moment: this is told long after the answer.
    fn until(&self) -> String {
        let moment = |after| jiff::Timestamp::try_from(self.answer.received.checked_add(after)?).ok();
        match self.retry_after().and_then(moment) {
            Some(at) => format!(", until {at:.0}"),
            None => ", it does not say until when".to_owned(),
        }
    }

    /// Seconds, or a date by the provider's own clock.
    fn retry_after(&self) -> Option<Duration> {
        let value = self.answer.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
        if value.bytes().all(|b| b.is_ascii_digit()) {
            return Some(value.parse().map_or(Duration::MAX, Duration::from_secs)).filter(|_| !value.is_empty());
        }
        let now = date(self.answer).unwrap_or(self.answer.sent.wall);
        Some(http_date(value)?.duration_since(now).unwrap_or_default())
    }

    /// The provider's description, if there is one that may be shown.
    fn detail(&self, body: Option<&Value>) -> Option<String> {
        let body = body?;
        let names = ["/error_description", "/error/message", "/message", "/detail"];
        let text = names.iter().find_map(|name| body.pointer(name)?.as_str())?;
        let detail = printable(text, DETAIL_CAP);
        (!detail.is_empty() && !self.is_indiscreet(text)).then_some(detail)
    }

    /// Whether this text of the provider's quotes a secret of ours, or a token it gave beside the error.
    fn is_indiscreet(&self, text: &str) -> bool {
        let body = self.parsed();
        let places = [self.credential.token_field.as_str(), "/refresh_token"];
        let mut given = places.iter().filter_map(|place| body.as_ref()?.pointer(place)?.as_str());
        self.material.is_quoted_in(text) || given.any(|token| quotes(text, token))
    }
}

/// The body as JSON, or as a form turned into one flat object.
pub(super) fn parsed(answer: &Answer) -> Option<Value> {
    let body = body(answer);
    serde_json::from_slice(body).ok().or_else(|| form(body))
}

/// The body without a byte order mark, which some servers put before their JSON, and without blanks around it.
fn body(answer: &Answer) -> &[u8] {
    let body = &answer.body[..];
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii()
}

/// The provider's clock.
fn date(answer: &Answer) -> Option<SystemTime> {
    http_date(answer.headers.get(header::DATE)?.to_str().ok()?)
}

/// By how many seconds the provider's clock is ahead of ours, where it says; 0 where it may be right.
pub(super) fn skew(answer: &Answer) -> Option<i64> {
    Some(clock::skew(date(answer)?, answer.sent.wall, answer.received))
}

/// RFC 6749 section 5.1 wants one text; some providers give a list (Twitch).
fn scope_text(scope: &Value) -> Option<String> {
    match scope {
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => Some(items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")),
        _ => None,
    }
}

/// The `error` member, if it means anything.
fn error_member(body: &Value) -> Option<&Value> {
    body.get("error").filter(|error| match error {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        _ => true,
    })
}

/// The code in it: RFC 6749 section 5.2, narrowed to what codes are really made of.
fn code_of(error: &Value) -> Option<&str> {
    let code = match error {
        Value::String(code) => code,
        Value::Object(members) => members.get("code")?.as_str()?,
        _ => return None,
    };
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':' | b'/');
    (!code.is_empty() && code.len() <= 64 && code.bytes().all(legal)).then_some(code)
}

/// Visible ASCII without spaces: more than token68 (RFC 9110 section 11.2), less than a header value may hold, and it
/// keeps error pages and sentences out.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= TOKEN_CAP && text.bytes().all(|b| b.is_ascii_graphic())
}

/// RFC 6749 appendix A.17: visible ASCII and spaces. No header has to hold it.
fn is_refresh_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= TOKEN_CAP && text.bytes().all(|b| matches!(b, b' '..=b'~'))
}

/// First 8 hex digits of the token's SHA-256.
pub fn fingerprint(token: &str) -> String {
    digest(&SHA256, token.as_bytes()).as_ref().iter().take(4).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// What may be shown of a foreign text.
pub(super) fn printable(text: &str, cap: usize) -> String {
    text.chars().filter(|c| matches!(c, ' '..='~')).take(cap).collect::<String>().trim().to_owned()
}

/// `application/x-www-form-urlencoded`, as some providers answer; the values are strings.
fn form(body: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(body).ok()?.trim();
    if text.starts_with(['{', '[', '<', '"']) || !text.contains('=') || text.contains(char::is_whitespace) {
        return None;
    }
    let mut members = Map::new();
    for pair in text.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        members.insert(form_decoded(name)?, Value::String(form_decoded(value)?));
    }
    Some(Value::Object(members))
}
