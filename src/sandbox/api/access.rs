//! Whether a token is good for a path, and each provider's words where it is not.

use http::{StatusCode, header};
use serde_json::{Value, json};

use super::Asked;
use crate::sandbox::{
    described::self_signed,
    provider::{Need, Provider},
    reply::{Reply, json, with},
    tokens::{Bad, Held},
};

/// The token of a request that may pass; `None` where none is needed.
#[expect(clippy::result_large_err, reason = "the refusal is the answer, not an error passed on")]
pub(super) fn judge(asked: &Asked<'_>, need: Need, reject: bool) -> Result<Option<Held>, Reply> {
    if need == Need::Nothing {
        return Ok(None);
    }
    let provider = asked.provider;
    let received = &asked.call.head;
    let token = if let Need::Described(api) = need { api.token(received) } else { received.bearer() };
    let Some(token) = token else {
        asked.shared.book().provider(provider).without_token += 1;
        return Err(unauthorized(asked, "not-authenticated", "There is no bearer token.", ""));
    };
    let is_own = matches!(need, Need::Described(api) if api.takes_jwt());
    if let Some(grant) = is_own.then(|| self_signed(asked.shared, provider, token)).flatten() {
        asked.shared.tokens().take_up(token, grant);
    }
    let judged = asked.shared.tokens().judge(token, provider, false, asked.call.peer);
    let mut book = asked.shared.book();
    let held = match judged {
        Ok(held) if !reject => held,
        other => {
            let counts = book.provider(provider);
            match other {
                Err(Bad::Unknown | Bad::WrongKind) => counts.unknown_tokens += 1,
                Err(Bad::Foreign) => counts.foreign_tokens += 1,
                Err(_) => counts.stale_tokens += 1,
                Ok(_) => {}
            }
            drop(book);
            let kind =
                if other.is_err_and(|bad| bad == Bad::Expired) { "signature-expired" } else { "not-authenticated" };
            let why = "The access token is not valid, expired, or revoked.";
            return Err(unauthorized(asked, kind, why, " error=\"invalid_token\""));
        }
    };
    book.used(&held.fingerprint, &held.grant);
    let good = match need {
        Need::Scope(scope) => held.grant.scopes.iter().any(|s| s == scope),
        Need::Audience(audience) => held.grant.audience.as_deref() == Some(audience),
        Need::Described(api) => {
            api.scope.as_ref().is_none_or(|scope| held.grant.scopes.contains(scope))
                && (api.audience.is_none() || api.audience == held.grant.audience)
        }
        Need::Nothing | Need::Token => true,
    };
    let objection = if let Need::Described(api) = need { api.objection(received, &held.grant.client) } else { None };
    if let Some(why) = objection {
        book.provider(provider).wrong_grants += 1;
        drop(book);
        return Err(error(provider, StatusCode::BAD_REQUEST, "bad-request", &why));
    }
    if good {
        return Ok(Some(held));
    }
    book.provider(provider).wrong_grants += 1;
    drop(book);
    let refusal = error(provider, StatusCode::FORBIDDEN, "permission-denied", "The token is not good for this API.");
    let challenge = match need {
        Need::Scope(scope) => format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\""),
        _ => "Bearer error=\"insufficient_scope\"".to_owned(),
    };
    Err(with(refusal, header::WWW_AUTHENTICATE, &challenge))
}

fn unauthorized(asked: &Asked<'_>, kind: &str, why: &str, challenge: &str) -> Reply {
    let reply = error(asked.provider, StatusCode::UNAUTHORIZED, kind, why);
    with(reply, header::WWW_AUTHENTICATE, &format!("Bearer{challenge}"))
}

/// An error in the provider's envelope.
pub(in crate::sandbox) fn error(provider: Provider, status: StatusCode, kind: &str, why: &str) -> Reply {
    json(status, &envelope(provider, status, kind, why))
}

fn envelope(provider: Provider, status: StatusCode, kind: &str, why: &str) -> Value {
    match provider {
        Provider::Ipxo | Provider::Described(_) => json!({ "message": why }),
        Provider::DigitalRealty | Provider::IxApi => json!({
            "type": format!("https://errors.ix-api.net/v2/{kind}.html"),
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": why,
        }),
        Provider::Pax8 => json!({
            "type": status.canonical_reason().unwrap_or_default().to_uppercase().replace(' ', "_"),
            "message": why,
            "instance": kind,
            "status": status.as_u16(),
            "details": [],
        }),
        // The documented text for a missing permission.
        Provider::MythicBeasts if status == StatusCode::FORBIDDEN => json!({ "error": "Not authorised" }),
        Provider::MythicBeasts => json!({ "error": why }),
    }
}
