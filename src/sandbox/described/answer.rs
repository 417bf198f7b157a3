//! The description's answer, filled in.

use std::time::Duration;

use http::{StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::{Answer, Description, request::LOGIN};
use crate::sandbox::{
    fault::Fault,
    idp::{Minted, Refusal, twisted},
    reply::{Reply, full, typed, with},
    tokens::Grant,
};

/// The answer that grants `minted`.
pub(in crate::sandbox) fn granted(description: &Description, grant: &Grant, minted: &Minted, fault: &Fault) -> Reply {
    let Answer { status, json, text } = &description.answer;
    let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::OK);
    let reply = match (json, text) {
        (Some(json), _) => {
            let separator = &description.request.separator;
            let filled = each_text(json, &|text| word(text, grant, minted, separator));
            let members = match filled {
                Value::Object(members) => Value::Object(twisted(members, minted, fault)),
                other => other,
            };
            typed(status, "application/json", full(members.to_string()))
        }
        (None, Some(text)) => typed(status, "text/plain", full(text.replace("{token}", &minted.access))),
        (None, None) => typed(status, "text/plain", full("")),
    };
    with(reply, header::CACHE_CONTROL, "no-store")
}

/// What a placeholder stands for.
fn word(text: &str, grant: &Grant, minted: &Minted, separator: &str) -> Option<Value> {
    let ttl = minted.ttl;
    Some(match text {
        "{token}" => json!(minted.access),
        "{seconds}" => json!(ttl.as_secs()),
        "{seconds_text}" => json!(ttl.as_secs().to_string()),
        "{milliseconds}" => json!(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        "{ends_iso}" => json!(at(ttl).strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()),
        "{ends_epoch_text}" => json!(at(ttl).as_second().to_string()),
        "{now_milliseconds_text}" => json!(at(Duration::ZERO).as_millisecond().to_string()),
        "{scopes}" => json!(grant.scopes.join(separator)),
        "{scope_list}" => json!(grant.scopes),
        _ => return None,
    })
}

fn at(ahead: Duration) -> Timestamp {
    let ahead = SignedDuration::try_from(ahead).unwrap_or_default();
    Timestamp::now().checked_add(ahead).unwrap_or(Timestamp::MAX)
}

/// The same value with each string replaced that `word` knows.
fn each_text(value: &Value, word: &impl Fn(&str) -> Option<Value>) -> Value {
    match value {
        Value::String(text) => word(text).unwrap_or_else(|| value.clone()),
        Value::Array(items) => items.iter().map(|item| each_text(item, word)).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, member)| (name.clone(), each_text(member, word))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

/// The answer that refuses: in the provider's words where it is about who asks, else in `OAuth`'s.
pub(in crate::sandbox) fn refused(description: &Description, refusal: &Refusal) -> Reply {
    let Refusal { status, code, detail, retry_after } = refusal;
    if *code == LOGIN {
        let status = StatusCode::from_u16(description.refusal.status).unwrap_or(*status);
        let why = |text: &str| (text == "{why}").then(|| json!(detail));
        let body = description.refusal.json.as_ref().map(|json| each_text(json, &why).to_string());
        let media_type = if body.is_some() { "application/json" } else { "text/plain" };
        let text = body.or_else(|| description.refusal.text.clone()).unwrap_or_default();
        return typed(status, media_type, full(text));
    }
    let body = json!({ "error": code, "error_description": detail }).to_string();
    let reply = typed(*status, "application/json", full(body));
    match retry_after {
        Some(seconds) => with(reply, header::RETRY_AFTER, &seconds.to_string()),
        None => reply,
    }
}
