//! What came of a token request, as people and as programs read it.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    check::{auth, body, origin, wants},
    online::Question,
    output::columns,
};
use crate::{
    config::model::{CredentialSpec, Grant, TokenMethod, TokenSpec, UNTIL_REPLACED},
    token::{
        Inquiry,
        budget::BudgetUse,
        claims::{Jwt, Kind},
        inquiry::{Asked, Granted, Scopes},
        lifetime::LifetimeSource,
        refusal::Refusal,
    },
};

/// A clock that is this many seconds off is worth a word.
const OFF: i64 = 30;

/// One question and its answer.
pub(super) struct Told<'a> {
    pub(super) question: &'a Question,
    pub(super) inquiry: &'a Inquiry,
}

impl Told<'_> {
    /// For people.
    pub(super) fn text(&self) -> String {
        let credential = self.question.credential();
        let provider = credential.provider.as_ref().map(|p| format!(" ({p})")).unwrap_or_default();
        let verdict = match (&self.inquiry.result, self.inquiry.requests.is_empty()) {
            (Ok(_), _) => "token",
            (Err(_), false) => "no token",
            (Err(_), true) => "no token, no token request was sent",
        };
        let mut rows = vec![("asked for", self.asked_for()), ("method", self.method())];
        rows.extend(self.inquiry.secret.iter().map(|secret| ("secret", secret.clone())));
        rows.extend(self.inquiry.requests.iter().map(|asked| ("answer", answer(asked))));
        match &self.inquiry.result {
            Ok(granted) => rows.extend(granted_rows(granted, &self.question.spec)),
            Err(refusal) => rows.extend(refusal_rows(refusal)),
        }
        rows.extend(self.skew().map(|skew| ("clock", clock(skew))));
        rows.extend(self.inquiry.budget.map(|budget| ("budget", of_budget(budget))));
        rows.extend(self.question.others.iter().map(|(spec, routes)| ("not asked", wanted(spec, routes))));
        if let Ok(granted) = &self.inquiry.result {
            rows.extend(granted.oddities.iter().map(|oddity| ("note", oddity.clone())));
        }
        let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, text)| vec![name.to_owned(), text]).collect();
        let mut text = format!("credential {}{provider}: {verdict}\n{}", credential.name, columns(&rows));
        for curl in self.inquiry.requests.iter().filter_map(|asked| asked.curl.as_ref()) {
            let _ = write!(text, "\n  {}\n", curl.replace('\n', "\n  ")); // writing to a String cannot fail
        }
        text
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let credential = self.question.credential();
        let requests: Vec<Value> = self.inquiry.requests.iter().map(request_json).collect();
        let others = self.question.others.iter().map(|(spec, routes)| asked_json(spec, routes));
        let (token, error, notes) = match &self.inquiry.result {
            Ok(granted) => (granted_json(granted), Value::Null, json!(granted.oddities)),
            Err(refusal) => (Value::Null, refusal_json(refusal), json!([])),
        };
        json!({
            "credential": credential.name,
            "provider": credential.provider,
            "ok": self.inquiry.result.is_ok(),
            "asked_for": asked_json(&self.question.spec, &self.question.routes),
            "not_asked_for": others.collect::<Vec<_>>(),
            "method": {
                "grant": credential.grant.as_str(),
                "client_auth": auth(credential.client_auth),
                "body": body(credential.body),
                "http_method": http_method(credential.method),
                "token_url": origin(credential),
                "accepted": self.inquiry.result.is_ok(),
            },
            "secret": self.inquiry.secret,
            "requests": requests,
            "token": token,
            "error": error,
            "clock_skew_s": self.skew(),
            "budget": self.inquiry.budget.map(|b| json!({ "used": b.used, "limit": b.limit, "window_s": b.window.as_secs() })),
            "notes": notes,
        })
    }

    fn asked_for(&self) -> String {
        let Question { spec, routes, .. } = self.question;
        match (wanted(spec, routes), routes.is_empty()) {
            (wanted, false) => wanted,
            (wanted, true) => format!("{wanted}; no route uses it"),
        }
    }

    fn method(&self) -> String {
        let credential = self.question.credential();
        match &credential.grant {
            Grant::Static { token } => return format!("static: the token is read from {token}, nobody is asked"),
            Grant::SelfSigned => return "self_signed: the token is signed here, nobody is asked".to_owned(),
            _ => {}
        }
        let accepted = match &self.inquiry.result {
            Ok(_) => ": accepted",
            Err(_) => "",
        };
        let how = match credential.method {
            TokenMethod::Get => " by GET",
            TokenMethod::Post => "",
        };
        format!(
            "grant {}, client_auth {}, body {}{how}, at {}{accepted}",
            credential.grant.as_str(),
            auth(credential.client_auth),
            body(credential.body),
            origin(credential)
        )
    }

    fn skew(&self) -> Option<i64> {
        self.inquiry.requests.last().and_then(|asked| asked.skew)
    }
}

fn wanted(spec: &TokenSpec, routes: &[String]) -> String {
    const SHOWN: usize = 4;
    let what = match wants(spec) {
        nothing if nothing.is_empty() => "no scope, no audience".to_owned(),
        what => what,
    };
    match routes.len() {
        0 => what,
        1..=SHOWN => format!("{what}; for {}", routes.join(", ")),
        more => format!("{what}; for {} and {} routes more", routes[..SHOWN].join(", "), more - SHOWN),
    }
}

fn asked_json(spec: &TokenSpec, routes: &[String]) -> Value {
    json!({ "scopes": spec.scopes, "audience": spec.audience, "resource": spec.resource, "routes": routes })
}

fn http_method(method: TokenMethod) -> &'static str {
    match method {
        TokenMethod::Post => "POST",
        TokenMethod::Get => "GET",
    }
}

fn answer(asked: &Asked) -> String {
    let what = asked.status.map_or_else(|| "none".to_owned(), |status| format!("HTTP {status}"));
    let with = if asked.refreshing { ", to the refresh token" } else { "" };
    format!("{what} after {} ms{with}", asked.took.as_millis())
}

fn request_json(asked: &Asked) -> Value {
    json!({
        "http_status": asked.status,
        "took_ms": u64::try_from(asked.took.as_millis()).unwrap_or(u64::MAX),
        "refreshing": asked.refreshing,
        "clock_skew_s": asked.skew,
        "error": asked.refusal.as_ref().map(refusal_json),
        "curl": asked.curl,
    })
}

fn granted_rows(granted: &Granted, asked: &TokenSpec) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("lifetime", lifetime(granted, &asked.credential)),
        ("scopes", scopes(&granted.scopes, asked)),
        ("token", token(granted)),
    ];
    if let Kind::Jwt(jwt) = &granted.kind {
        rows.extend(jwt.claims.iter().map(|(name, value)| ("claim", format!("{name} = {}", claim(name, value)))));
        if !jwt.personal.is_empty() {
            rows.push(("claim", format!("about a person, not shown: {}", jwt.personal.join(", "))));
        }
    }
    rows
}

fn granted_json(granted: &Granted) -> Value {
    let (kind, header, claims, personal) = match &granted.kind {
        Kind::Opaque => ("opaque", Value::Null, Value::Null, json!([])),
        Kind::Encrypted => ("encrypted_jwt", Value::Null, Value::Null, json!([])),
        Kind::Unsigned => ("unsigned_jwt", Value::Null, Value::Null, json!([])),
        Kind::Jwt(Jwt { alg, typ, kid, claims, personal, .. }) => {
            ("jwt", json!({ "alg": alg, "typ": typ, "kid": kid }), json!(claims), json!(personal))
        }
    };
    json!({
        "kind": kind,
        "fingerprint": granted.fingerprint,
        "token_type": granted.token_type,
        "lifetime_s": granted.life.as_secs(),
        "lifetime_from": from(granted.life_from),
        "scopes": scopes_json(&granted.scopes),
        "header": header,
        "claims": claims,
        "claims_not_shown": personal,
    })
}

fn token(granted: &Granted) -> String {
    let kind = match &granted.kind {
        Kind::Opaque => "opaque".to_owned(),
        Kind::Encrypted => "an encrypted JWT, which only its recipient can read".to_owned(),
        Kind::Unsigned => "a JWT without a signature, whose claims are the whole token and not shown".to_owned(),
        Kind::Jwt(jwt) => {
            let typ = jwt.typ.as_ref().map(|typ| format!(" {typ}")).unwrap_or_default();
            let kid = jwt.kid.as_ref().map(|kid| format!(", kid {kid}")).unwrap_or_default();
            format!("JWT ({}{typ}{kid}; the signature was not checked)", jwt.alg)
        }
    };
    let token_type = granted.token_type.as_ref().map(|kind| format!(", token_type {kind}")).unwrap_or_default();
    format!("{kind}, fingerprint {}{token_type}", granted.fingerprint)
}

fn scopes(scopes: &Scopes, asked: &TokenSpec) -> String {
    let Some((granted, by)) = &scopes.granted else {
        let meaning = if asked.scopes.is_empty() { "none was asked for" } else { "all that were asked for" };
        return format!("the answer names none: {meaning}");
    };
    let list = if granted.is_empty() { "none".to_owned() } else { granted.join(" ") };
    let mut text = format!("{list} (granted, says the {by})");
    for (what, scopes) in [("missing", &scopes.missing), ("not asked for", &scopes.extra)] {
        if !scopes.is_empty() {
            let _ = write!(text, "; {what}: {}", scopes.join(" ")); // writing to a String cannot fail
        }
    }
    text
}

fn scopes_json(scopes: &Scopes) -> Value {
    let (granted, by) = scopes.granted.clone().unzip();
    json!({ "granted": granted, "from": by, "missing": scopes.missing, "extra": scopes.extra })
}

/// Moments as dates too, lists in one line.
fn claim(name: &str, value: &Value) -> String {
    let moment = || jiff::Timestamp::from_second(value.as_i64()?).ok();
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if matches!(name, "exp" | "iat" | "nbf" | "auth_time") => {
            moment().map_or_else(|| number.to_string(), |at| format!("{number} ({at})"))
        }
        other => other.to_string(),
    }
}

fn refusal_rows(refusal: &Refusal) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    rows.extend(refusal.code.iter().map(|code| ("code", code.clone())));
    rows.extend(refusal.detail.iter().map(|detail| ("its words", format!("{detail:?}"))));
    if let Some(known) = refusal.known {
        rows.extend([("means", known.means.to_owned()), ("what to do", known.advice.to_owned())]);
    } else {
        rows.push(("error", refusal.message.clone()));
    }
    rows.extend(refusal.retry_after.map(|after| ("again in", length(after))));
    rows
}

fn refusal_json(refusal: &Refusal) -> Value {
    let mut error = Map::new();
    error.insert("kind".to_owned(), refusal.kind.as_str().into());
    error.insert("message".to_owned(), refusal.message.clone().into());
    error.insert("code".to_owned(), refusal.code.clone().into());
    error.insert("description".to_owned(), refusal.detail.clone().into());
    error.insert("means".to_owned(), refusal.known.map(|known| known.means).into());
    error.insert("advice".to_owned(), refusal.known.map(|known| known.advice).into());
    error.insert("retry_after_s".to_owned(), refusal.retry_after.map(|after| after.as_secs()).into());
    error.into()
}

fn clock(skew: i64) -> String {
    let (seconds, side) = (skew.unsigned_abs(), if skew > 0 { "ahead of" } else { "behind" });
    let advice = if skew.abs() >= OFF { "; set this machine's clock (NTP), or tell the provider" } else { "" };
    match seconds {
        0 | 1 => "the provider's agrees with ours".to_owned(),
        _ => format!("the provider's is {seconds} s {side} ours{advice}"),
    }
}

fn of_budget(budget: BudgetUse) -> String {
    let BudgetUse { used, limit, window } = budget;
    format!("{used} of {limit} token requests in {} used; those made here count", length(window))
}

/// `3600 s (1h)`
fn length(time: Duration) -> String {
    let whole = time.as_secs();
    let parts = [(whole / 86_400, "d"), (whole / 3600 % 24, "h"), (whole / 60 % 60, "m"), (whole % 60, "s")];
    let shown: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if whole < 60 { format!("{whole} s") } else { format!("{whole} s ({})", shown.join(" ")) }
}

fn from(source: LifetimeSource) -> &'static str {
    match source {
        LifetimeSource::ExpiresIn => "expires_in",
        LifetimeSource::ExpiresAt => "expires_at",
        LifetimeSource::Jwt => "jwt_exp",
        LifetimeSource::DefaultTtl => "default_ttl",
        LifetimeSource::Stored => "store",
    }
}

/// Of a token that says nothing itself and that nobody was asked for, nothing is known.
fn lifetime(granted: &Granted, credential: &CredentialSpec) -> String {
    match (&credential.grant, granted.life_from) {
        (Grant::Static { token }, LifetimeSource::DefaultTtl) if granted.life == UNTIL_REPLACED => {
            format!("unknown: it is used until {token} gives another one")
        }
        (Grant::Static { token }, LifetimeSource::DefaultTtl) => {
            format!("unknown: {token} is read anew after {}, by default_ttl", length(granted.life))
        }
        (_, source) => format!("{}, {}", length(granted.life), life_from(source)),
    }
}

fn life_from(source: LifetimeSource) -> &'static str {
    match source {
        LifetimeSource::ExpiresIn => "as the answer says (expires_in)",
        LifetimeSource::ExpiresAt => "as the answer says (a moment, expires_at)",
        LifetimeSource::Jwt => "as the token's own exp says",
        LifetimeSource::DefaultTtl => "a guess: default_ttl",
        LifetimeSource::Stored => "as it was stored",
    }
}
