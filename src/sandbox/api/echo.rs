//! What was received, as JSON: raw target, fields in order and spelling of the wire, the body's length
//! and digest. Tokens are shown as fingerprints only.

use serde_json::{Value, json};

use super::{Asked, Payload};
use crate::sandbox::{
    digest::fingerprint,
    server::Shared,
    tokens::{Grant, Held},
};

/// The echo of one request.
pub(super) fn echo(asked: &Asked<'_>, good: Option<&Held>, payload: &Payload) -> Value {
    let head = &asked.call.head;
    let veil = Veil { shared: asked.shared, token: head.bearer().filter(|t| !t.is_empty()) };
    let fields: Vec<Value> = head.fields.iter().map(|(n, v)| json!([n, veil.field(n, v)])).collect();
    let trailers: Vec<Value> = payload.trailers.iter().map(|(n, v)| json!([n, veil.text(v)])).collect();
    let mut body = json!({ "length": payload.length, "sha256": payload.sha256, "complete": payload.complete });
    if payload.length > 0 {
        body["text"] = json!(payload.text().map(|t| veil.text(t)));
    }
    if !trailers.is_empty() {
        body["trailers"] = json!(trailers);
    }
    let mut echo = json!({
        "method": head.method,
        "target": veil.text(&head.target),
        "version": head.version,
        "headers": fields,
        "body": body,
        "peer": asked.call.peer.to_string(),
    });
    if let Some(Held { grant: Grant { provider, client, scopes, audience, .. }, fingerprint, .. }) = good {
        echo["provider"] = json!(provider);
        echo["client"] = json!(client);
        echo["token"] = json!(format!("sha256:{fingerprint}"));
        echo["scopes"] = json!(scopes);
        if audience.is_some() {
            echo["audience"] = json!(audience);
        }
    }
    echo
}

/// Puts fingerprints in the place of tokens.
struct Veil<'a> {
    shared: &'a Shared,
    token: Option<&'a str>,
}

impl Veil<'_> {
    /// Text of any kind: this request's token is covered wherever it stands.
    fn text(&self, text: &str) -> String {
        match self.token {
            Some(token) => text.replace(token, &format!("sha256:{}", fingerprint(token))),
            None => text.to_owned(),
        }
    }

    /// A field: credentials are covered whole, and any word that is a token of this sandbox.
    fn field(&self, name: &str, value: &str) -> String {
        let covered = |text: &str| format!("sha256:{}", fingerprint(text));
        if ["authorization", "proxy-authorization"].iter().any(|n| name.eq_ignore_ascii_case(n)) {
            return match value.split_once(' ') {
                Some((scheme, rest)) => format!("{scheme} {}", covered(rest.trim())),
                None => covered(value),
            };
        }
        let last = value.rsplit(' ').next().unwrap_or_default();
        if !last.is_empty() && self.shared.tokens().knows(last) {
            return format!("{}{}", &value[..value.len() - last.len()], covered(last));
        }
        self.text(value)
    }
}
