//! The identity providers: one token request in, a token or an honest refusal out.
//!
//! 1. [`request`] reads the parameters, as form or JSON, and the Basic header;
//! 2. [`rules`] says who asks and for what, by the provider's own rules;
//! 3. here the token is minted;
//! 4. [`answer`] puts it (or the refusal) into the provider's words, with the ordered twists.
//!
//! Where a provider is described by a file, [`described`](super::described) does 2 and 4.

mod answer;
pub(super) mod request;
mod rules;

use std::time::Duration;

use http::StatusCode;

use super::{
    described,
    fault::Fault,
    provider::Provider,
    reply::Reply,
    server::{Call, Shared},
    tokens::Grant,
};
pub(super) use answer::{Minted, twisted};

/// A no, before it is put into a provider's words.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) detail: String,
    /// Seconds.
    pub(super) retry_after: Option<u64>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), retry_after: None }
    }

    pub(super) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }
}

/// How long a token lives where nothing else was ordered.
fn usual_ttl(provider: Provider) -> Duration {
    Duration::from_secs(match provider {
        Provider::Ipxo => 86_399,
        Provider::DigitalRealty => 3_600,
        Provider::IxApi => 900,
        Provider::Pax8 => 86_400,
        Provider::MythicBeasts => 300,
        Provider::Described(other) => other.description().ttl.into(),
    })
}

/// IX-API's refresh tokens live longer than what they refresh.
const REFRESH_TTL: Duration = Duration::from_secs(24 * 3_600);

/// Answers a request to a token endpoint (or, with `refresh`, to IX-API's refresh endpoint).
pub(super) fn respond(
    shared: &Shared,
    call: &Call,
    provider: Provider,
    refresh: bool,
    body: &[u8],
    fault: &Fault,
) -> Reply {
    let decided =
        if refresh { rules::refreshed(shared, call, body) } else { rules::decide(shared, call, provider, body, fault) };
    match decided {
        Ok(grant) => {
            let minted = mint(shared, &grant, fault);
            let mut book = shared.book();
            book.provider(provider).tokens_issued += 1;
            book.client(provider, &grant.client).issued += 1;
            drop(book);
            match provider {
                Provider::Described(other) => described::granted(other.description(), &grant, &minted, fault),
                _ => answer::granted(&grant, &minted, fault),
            }
        }
        Err(refusal) => {
            shared.book().provider(provider).tokens_refused += 1;
            match provider {
                Provider::Described(other) => described::refused(other.description(), &refusal),
                _ => answer::refused(provider, &refusal),
            }
        }
    }
}

fn mint(shared: &Shared, grant: &Grant, fault: &Fault) -> Minted {
    let ttl = fault.ttl.unwrap_or_else(|| usual_ttl(grant.provider));
    let sliding = grant.provider == Provider::MythicBeasts && shared.options.mythic_sliding;
    let is_shared = matches!(grant.provider, Provider::Described(other) if other.description().is_shared());
    let mut tokens = shared.tokens();
    let (access, ttl) = if fault.shared || is_shared {
        tokens.mint_shared(grant, ttl)
    } else {
        (tokens.mint(grant, ttl, sliding), ttl)
    };
    let refresh = (grant.provider == Provider::IxApi)
        .then(|| tokens.mint(&Grant { refresh: true, ..grant.clone() }, REFRESH_TTL.max(ttl), false));
    Minted { access, refresh, ttl }
}
