//! What came in: counts that tests and people read. Bounded, and free of secrets and tokens.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::provider::{Provider, Side};

/// Different paths, tokens and request ids that are counted one by one; further ones are only counted.
const MAX_PATHS: usize = 1_000;
const MAX_TOKENS: usize = 10_000;
const MAX_IDS: usize = 50_000;
/// Longer paths and ids are cut.
const MAX_TEXT: usize = 200;

/// Everything that was counted since the start, or since the log was cleared.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Log {
    /// By provider.
    pub providers: BTreeMap<Provider, ProviderLog>,
    /// API requests by path (without query).
    pub paths: BTreeMap<String, u64>,
    /// API requests with a good token, by its fingerprint.
    pub tokens: BTreeMap<String, TokenLog>,
    /// How often each `X-Request-Id` reached an API.
    pub request_ids: HashMap<String, u64>,
    /// Requests refused with 400 because a strict server refuses them, by reason.
    pub strict_refusals: BTreeMap<String, u64>,
    /// Requests to the place where an ordered redirect leads; nobody should follow it.
    pub redirects_followed: u64,
    /// … and those that carried an `Authorization` there.
    pub redirected_authorizations: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Paths, tokens and ids that were not counted one by one because there were too many.
    pub uncounted: u64,
}

/// What one provider saw.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ProviderLog {
    /// Requests to the token endpoint (and IX-API's refresh endpoint), faults included.
    pub token_requests: u64,
    /// Tokens given out.
    pub tokens_issued: u64,
    /// Token requests refused by the provider's own rules.
    pub tokens_refused: u64,
    /// Most token requests at the same time.
    pub token_requests_at_once: u64,
    /// Token requests by known client.
    pub clients: BTreeMap<String, ClientLog>,
    /// Requests to the API, faults included.
    pub api_requests: u64,
    /// Most API requests at the same time.
    pub api_requests_at_once: u64,
    /// API requests without `Authorization: Bearer`.
    pub without_token: u64,
    /// API requests with a token that is expired, revoked, or from elsewhere.
    pub stale_tokens: u64,
    /// API requests with a token that was never given out here.
    pub unknown_tokens: u64,
    /// API requests with another provider's token: must never happen.
    pub foreign_tokens: u64,
    /// API requests with a good token for something else: wrong scope or audience.
    pub wrong_grants: u64,
}

/// What one client asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ClientLog {
    /// Token requests with its id.
    pub requests: u64,
    /// Tokens it got.
    pub issued: u64,
    /// Failed logins in a row.
    pub failures: u32,
}

/// What one token was used for.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TokenLog {
    /// Whose.
    pub provider: Option<Provider>,
    /// To whom it was given.
    pub client: String,
    /// For what: scopes or audience.
    pub grant: String,
    /// Requests with it.
    pub requests: u64,
}

/// The log and what is under way.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) log: Log,
    in_flight: HashMap<(Provider, Side), u64>,
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

impl Book {
    pub(super) fn provider(&mut self, provider: Provider) -> &mut ProviderLog {
        self.log.providers.entry(provider).or_default()
    }

    /// A request to a provider begins.
    pub(super) fn begin(&mut self, provider: Provider, side: Side) {
        let now = self.in_flight.entry((provider, side)).or_default();
        *now += 1;
        let now = *now;
        let counts = self.provider(provider);
        let (total, most) = match side {
            Side::Idp => (&mut counts.token_requests, &mut counts.token_requests_at_once),
            Side::Api => (&mut counts.api_requests, &mut counts.api_requests_at_once),
        };
        *total += 1;
        *most = now.max(*most);
    }

    /// … and ends.
    pub(super) fn end(&mut self, provider: Provider, side: Side) {
        if let Some(now) = self.in_flight.get_mut(&(provider, side)) {
            *now = now.saturating_sub(1);
        }
    }

    /// An API request's path and id.
    pub(super) fn api(&mut self, path: &str, request_id: Option<&str>) {
        let path = cut(path);
        if self.log.paths.contains_key(&path) || self.log.paths.len() < MAX_PATHS {
            *self.log.paths.entry(path).or_default() += 1;
        } else {
            self.log.uncounted += 1;
        }
        let Some(id) = request_id.map(cut) else { return };
        if self.log.request_ids.contains_key(&id) || self.log.request_ids.len() < MAX_IDS {
            *self.log.request_ids.entry(id).or_default() += 1;
        } else {
            self.log.uncounted += 1;
        }
    }

    /// A good token was used.
    pub(super) fn used(&mut self, fingerprint: &str, grant: &super::tokens::Grant) {
        if !self.log.tokens.contains_key(fingerprint) && self.log.tokens.len() >= MAX_TOKENS {
            self.log.uncounted += 1;
            return;
        }
        let entry = self.log.tokens.entry(fingerprint.to_owned()).or_insert_with(|| TokenLog {
            provider: Some(grant.provider),
            client: grant.client.clone(),
            grant: grant.audience.clone().unwrap_or_else(|| grant.scopes.join(" ")),
            requests: 0,
        });
        entry.requests += 1;
    }

    /// A known client asks for a token.
    pub(super) fn client(&mut self, provider: Provider, id: &str) -> &mut ClientLog {
        self.provider(provider).clients.entry(id.to_owned()).or_default()
    }

    /// A head that no strict server takes.
    pub(super) fn refused(&mut self, why: &str) {
        *self.log.strict_refusals.entry(why.to_owned()).or_default() += 1;
    }

    /// Forgets the counts (what is under way stays under way, failed logins stay failed).
    pub(super) fn clear(&mut self) {
        let old = std::mem::take(&mut self.log);
        for (provider, counts) in old.providers {
            for (id, client) in counts.clients {
                if client.failures > 0 {
                    self.client(provider, &id).failures = client.failures;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded() {
        let mut book = Book::default();
        for n in 0..MAX_PATHS + 5 {
            book.api(&format!("/{n}/{}", "x".repeat(1000)), None);
        }
        assert_eq!((book.log.paths.len(), book.log.uncounted), (MAX_PATHS, 5));
        assert!(book.log.paths.keys().all(|p| p.len() <= MAX_TEXT));
    }

    #[test]
    fn concurrent_maxima_are_kept() {
        let mut book = Book::default();
        book.begin(Provider::Pax8, Side::Idp);
        book.begin(Provider::Pax8, Side::Idp);
        book.end(Provider::Pax8, Side::Idp);
        book.begin(Provider::Pax8, Side::Idp);
        let counts = book.provider(Provider::Pax8);
        assert_eq!((counts.token_requests, counts.token_requests_at_once), (3, 2));
    }
}
