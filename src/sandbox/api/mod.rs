//! The APIs: a token that is really good for the path, then an answer that tells what was received.
//!
//! 1. [`access`] judges the token;
//! 2. [`payload`] takes the body: counted, hashed, and never held beyond a few KiB;
//! 3. [`tools`] are the odd endpoints below every API (`…/echo`, `…/status/204`, `…/download?size=N`, …);
//! 4. [`resources`] are each provider's own, small and sensible, with the echo as their `_echo`;
//! 5. everything else is answered with [`echo`].

mod access;
mod echo;
mod payload;
mod resources;
mod tools;

use http::StatusCode;
use hyper::body::Incoming;

use super::{
    content::Content,
    fault::Fault,
    provider::{Need, Provider},
    reply::{Reply, json},
    server::{Call, Shared},
};

pub(super) use access::error;
pub(super) use payload::{Payload, drain};

/// One request to an API.
struct Asked<'a> {
    shared: &'a Shared,
    call: &'a Call,
    provider: Provider,
    /// Path below the provider's segment: `/billing/v1`.
    rest: &'a str,
}

impl Asked<'_> {
    fn segments(&self) -> Vec<&str> {
        self.rest.split('/').filter(|s| !s.is_empty()).collect()
    }

    /// An absolute URL of this sandbox.
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.shared.base_url)
    }

    fn content(&self) -> &Content {
        &self.shared.content
    }
}

/// Answers a request to an API. `body`: `None` where an ordered fault wants it left unread.
pub(super) async fn respond(
    shared: &Shared,
    call: &Call,
    (provider, need, rest): (Provider, Need, &str),
    body: Option<Incoming>,
    fault: &Fault,
) -> Reply {
    let asked = Asked { shared, call, provider, rest };
    let held = match access::judge(&asked, need, fault.reject) {
        Ok(held) => held,
        Err(refusal) => {
            // A caller that waits for "100 Continue" is refused without it (RFC 9110 section 10.1.1).
            if let Some(body) = body.filter(|_| call.head.one("expect").is_none()) {
                drain(body).await;
            }
            return refusal;
        }
    };
    let payload = Payload::take(body).await;
    let echo = echo::echo(&asked, held.as_ref(), &payload);
    if let Some(reply) = tools::answer(&asked, &echo).await {
        return reply;
    }
    resources::answer(&asked, &payload, &echo).unwrap_or_else(|| json(StatusCode::OK, &echo))
}

/// Echo without a token: `/_sandbox/echo`.
pub(super) async fn bare_echo(shared: &Shared, call: &Call, body: Incoming) -> Reply {
    let asked = Asked { shared, call, provider: Provider::Ipxo, rest: "" };
    let payload = Payload::take(Some(body)).await;
    json(StatusCode::OK, &echo::echo(&asked, None, &payload))
}
