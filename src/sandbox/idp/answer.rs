//! A token or a refusal in the provider's own words, and the twists that were ordered.

use std::time::Duration;

use http::{StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::Refusal;
use crate::sandbox::{
    fault::{Expires, Fault},
    provider::Provider,
    reply::{Reply, full, typed, with},
    tokens::Grant,
};

/// What was minted.
pub(in crate::sandbox) struct Minted {
    pub(in crate::sandbox) access: String,
    pub(in crate::sandbox) refresh: Option<String>,
    pub(in crate::sandbox) ttl: Duration,
}

/// Seconds: a whole number where it is one.
fn seconds(ttl: Duration) -> Value {
    if ttl.subsec_nanos() == 0 { json!(ttl.as_secs()) } else { json!(ttl.as_secs_f64()) }
}

/// The answer that grants `minted`.
pub(super) fn granted(grant: &Grant, minted: &Minted, fault: &Fault) -> Reply {
    let mut members = Map::new();
    let scope = grant.scopes.join(" ");
    let mut set = |name: &str, value: Value| members.insert(name.to_owned(), value);
    set("access_token", json!(minted.access));
    match grant.provider {
        Provider::Ipxo => {
            set("expires_in", seconds(minted.ttl));
            set("scope", json!(scope));
            set("token_type", json!("bearer"));
        }
        Provider::DigitalRealty => {
            set("expires_in", seconds(minted.ttl));
            set("scope", json!(scope));
            set("token_type", json!("Bearer"));
        }
        Provider::IxApi => {
            set("refresh_token", json!(minted.refresh));
        }
        Provider::Pax8 => {
            set("expires_in", seconds(minted.ttl));
            set("expires_at", json!(expires_at(minted.ttl)));
            set("scope", json!(scope));
            set("token_type", json!("Bearer"));
        }
        Provider::MythicBeasts => {
            set("expires_in", seconds(minted.ttl));
            set("token_type", json!("bearer"));
        }
        Provider::Described(_) => {}
    }
    let members = twisted(members, minted, fault);
    let created = grant.provider == Provider::IxApi;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let reply = if fault.form { form(status, &members) } else { words(grant.provider, status, members) };
    let reply = with(reply, header::CACHE_CONTROL, "no-store");
    with(reply, header::PRAGMA, "no-cache")
}

/// ISO 8601 as Pax8 writes it: `2024-12-20T17:53:50.460+00:00`.
fn expires_at(ttl: Duration) -> String {
    let at = SignedDuration::try_from(ttl).ok().and_then(|ttl| Timestamp::now().checked_add(ttl).ok());
    at.unwrap_or(Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%S.%3f+00:00").to_string()
}

/// The answer with the twists that were ordered.
pub(in crate::sandbox) fn twisted(
    mut members: Map<String, Value>,
    minted: &Minted,
    fault: &Fault,
) -> Map<String, Value> {
    if let Some(kind) = fault.expires {
        let told = match kind {
            Expires::Text => json!(minted.ttl.as_secs().to_string()),
            Expires::Millis => json!(u64::try_from(minted.ttl.as_millis()).unwrap_or(u64::MAX)),
            Expires::Float => json!(minted.ttl.as_secs_f64()),
            Expires::Missing => Value::Null,
            Expires::Zero => json!(0),
            Expires::Negative => json!(-3600),
            Expires::Garbage => json!("3600abc"),
        };
        members.remove("expires_at");
        members.insert("expires_in".to_owned(), told);
        members.retain(|_, value| !value.is_null());
    }
    if let Some(kind) = &fault.token_type {
        members.insert("token_type".to_owned(), json!(kind));
    }
    if fault.nested {
        let token = members.remove("access_token");
        members.insert("data".to_owned(), json!({ "token": token }));
    }
    members
}

/// The answer as `application/x-www-form-urlencoded`, as some servers give it.
fn form(status: StatusCode, members: &Map<String, Value>) -> Reply {
    let pair = |(name, value): (&String, &Value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{name}={}", text.replace(' ', "+"))
    };
    let text: Vec<String> = members.iter().map(pair).collect();
    typed(status, "application/x-www-form-urlencoded", full(text.join("&")))
}

/// JSON with the provider's spacing and headers.
fn words(provider: Provider, status: StatusCode, members: Map<String, Value>) -> Reply {
    let mut text = Value::Object(members).to_string();
    match provider {
        Provider::MythicBeasts => {
            text.push_str("\n\n");
            with(typed(status, "application/json", full(text)), header::SERVER, "Apache/2.4.38")
        }
        Provider::DigitalRealty => typed(status, "application/json; charset=UTF-8", full(text)),
        _ => typed(status, "application/json", full(text)),
    }
}

/// The answer that refuses.
pub(super) fn refused(provider: Provider, refusal: &Refusal) -> Reply {
    let Refusal { status, code, detail, .. } = refusal;
    let mut members = Map::new();
    let mut set = |name: &str, value: Value| members.insert(name.to_owned(), value);
    if provider == Provider::IxApi {
        let kind = if *code == "invalid_request" { "validation-error" } else { code };
        set("type", json!(format!("https://errors.ix-api.net/v2/{kind}.html")));
        set("title", json!(kind));
        set("status", json!(status.as_u16()));
        set("detail", json!(detail));
    } else {
        set("error", json!(code));
        if !detail.is_empty() {
            set("error_description", json!(detail));
        }
        if provider == Provider::Ipxo {
            set("status_code", json!(status.as_u16()));
        }
    }
    let reply = with(words(provider, *status, members), header::CACHE_CONTROL, "no-store");
    match (*status, provider) {
        (StatusCode::UNAUTHORIZED, Provider::MythicBeasts) => {
            with(reply, header::WWW_AUTHENTICATE, "Basic realm=\"auth\"")
        }
        (StatusCode::METHOD_NOT_ALLOWED, _) => with(reply, header::ALLOW, "POST"),
        _ => reply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax8_writes_its_times_with_milliseconds_and_an_offset() {
        let text = expires_at(Duration::from_secs(86_400));
        assert_eq!((text.len(), &text[10..11], &text[19..20], &text[23..]), (29, "T", ".", "+00:00"));
    }
}
