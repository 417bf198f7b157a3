//! `/_sandbox/…`: how tests and people order faults, revoke tokens and read the counts while it runs.

use http::{StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{
    api,
    described::{listing, private_key},
    fault::{FaultSpec, GRAMMAR},
    provider::{Provider, Side},
    reply::{Reply, json, text, with},
    server::{Call, Shared},
};

/// Answers a control request; `path` is what follows `/_sandbox/`.
pub(super) async fn respond(shared: &Shared, call: &Call, path: &str, body: Incoming) -> Reply {
    match (path, call.head.method.as_str()) {
        ("echo", _) => api::bare_echo(shared, call, body).await,
        ("redirected", _) => {
            let mut book = shared.book();
            book.log.redirects_followed += 1;
            book.log.redirected_authorizations += u64::from(call.head.one("authorization").is_some());
            text(StatusCode::OK, "nobody should follow a redirect to here\n")
        }
        ("providers", "GET") => text(StatusCode::OK, listing(&shared.base_url)),
        ("key", "GET") => text(StatusCode::OK, private_key()),
        ("fault", "POST") => arm(shared, body).await,
        ("fault", "DELETE") => clear(shared, call),
        ("fault", "GET") => text(StatusCode::OK, format!("{GRAMMAR}\n")),
        ("revoke", "POST") => revoke(shared, call),
        ("log", "GET" | "HEAD") => {
            let log = shared.book().log.clone();
            json(StatusCode::OK, &serde_json::to_value(log).unwrap_or_default())
        }
        ("log", "DELETE") => {
            shared.book().clear();
            done(&json!({ "cleared": true }))
        }
        ("fault" | "revoke" | "log", _) => {
            let reply = text(StatusCode::METHOD_NOT_ALLOWED, "GET, POST or DELETE\n");
            with(reply, header::ALLOW, "GET, POST, DELETE")
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "/_sandbox/fault (POST, DELETE, GET), /_sandbox/revoke?provider=NAME (POST), /_sandbox/log (GET, DELETE), \
             /_sandbox/providers (GET), /_sandbox/key (GET: what clients sign with), /_sandbox/echo\n",
        ),
    }
}

fn done(value: &Value) -> Reply {
    json(StatusCode::OK, value)
}

/// The spec as text, or as `{"fault": "mythic.idp=down"}`, or as `{"provider", "side", "fault"}`.
async fn arm(shared: &Shared, body: Incoming) -> Reply {
    let Some(bytes) = super::service::small(body).await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "a fault is a line of text\n");
    };
    let mut specs: Vec<FaultSpec> = Vec::new();
    for line in spec_text(&String::from_utf8_lossy(&bytes)).lines().filter(|l| !l.trim().is_empty()) {
        match line.parse() {
            Ok(spec) => specs.push(spec),
            Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }
    if specs.is_empty() {
        return text(StatusCode::BAD_REQUEST, format!("no fault is ordered\n\n{GRAMMAR}\n"));
    }
    let armed = specs.into_iter().all(|spec| shared.arm(spec));
    if !armed {
        return text(StatusCode::TOO_MANY_REQUESTS, "too many faults are armed; DELETE clears them\n");
    }
    done(&json!({ "armed": shared.faults().len() }))
}

fn spec_text(body: &str) -> String {
    let Ok(Value::Object(order)) = serde_json::from_str(body) else { return body.to_owned() };
    let member = |name: &str| order.get(name).and_then(Value::as_str);
    match (member("provider"), member("side"), member("fault")) {
        (None, None, Some(fault)) => fault.to_owned(),
        (provider, side, Some(fault)) => format!("{}.{}={fault}", provider.unwrap_or("*"), side.unwrap_or("*")),
        _ => String::new(),
    }
}

/// `DELETE /_sandbox/fault`, or only `?target=mythic.idp`.
fn clear(shared: &Shared, call: &Call) -> Reply {
    let (provider, side): (Option<Provider>, Option<Side>) = match call.head.param("target") {
        None => (None, None),
        Some(target) => match super::fault::target(target) {
            Ok(found) => found,
            Err(why) => return text(StatusCode::BAD_REQUEST, format!("{why}\n")),
        },
    };
    shared.faults().clear(provider, side);
    done(&json!({ "armed": shared.faults().len() }))
}

fn revoke(shared: &Shared, call: &Call) -> Reply {
    let provider = match call.head.param("provider") {
        None => None,
        Some(name) => match Provider::from_name(name) {
            Some(provider) => Some(provider),
            None => return text(StatusCode::BAD_REQUEST, "there is no such provider\n"),
        },
    };
    done(&json!({ "revoked": shared.tokens().revoke(provider) }))
}
