//! 3 where to ask — what a provider says of its own endpoints: OpenID Connect Discovery 1.0 and RFC 8414.
//!
//! The document is fetched before the first token request, kept in memory, and looked at again when it has
//! become old or when the token endpoint is not where it said. An old one is better than none: it stays in use
//! while a new one cannot be had. It is no token request and counts against no budget.
//!
//! The client secret will be sent where the document says. So it must name the very issuer that is configured,
//! and its endpoints must stand on the issuer's host, or on one that the configuration lists.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Method, header};
use tokio::sync::{Mutex, watch};

use super::{
    endpoint::{self, CallError},
    grant::{TokenRequest, USER_AGENT},
    metadata::Metadata,
    reply::Answer,
};
use crate::{
    config::model::{CredentialSpec, Issuer, TokenSpec, Upstream},
    net::{ConnectError, Connector},
};

/// Why the endpoints are not known. What it says of the document holds nothing of it but URLs that were checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// Not now: network, 5xx, nonsense.
    #[error("{0}")]
    Unavailable(String),
    /// No answer in time.
    #[error("{0}")]
    Late(String),
    /// The document is not to be trusted, or leads nowhere. Asking again changes nothing.
    #[error("{0}")]
    Unacceptable(String),
}

/// Every token endpoint that was found, by issuer, so that no route leads to one.
pub type Found = watch::Sender<Vec<(String, Upstream)>>;

/// One provider, as seen by one way out of this host.
#[derive(Debug)]
pub struct Discovery {
    issuer: Arc<Issuer>,
    bounds: (Duration, Duration),
    found: Arc<Found>,
    /// The token endpoint was not where the document said.
    doubted: AtomicBool,
    /// Locked while it is being asked: one request, whoever waits for it.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: Option<Known>,
    failed: Option<(Instant, DiscoveryError)>,
}

#[derive(Debug)]
struct Known {
    metadata: Arc<Metadata>,
    /// To be looked at again from here on.
    until: Instant,
    /// Credentials whose method was held against the document already.
    compared: Vec<String>,
}

impl Discovery {
    /// Nothing is asked yet. `bounds`: how long a document is kept, at least and at most.
    pub fn new(issuer: Arc<Issuer>, bounds: (Duration, Duration), found: Arc<Found>) -> Self {
        Self { issuer, bounds, found, doubted: AtomicBool::new(false), state: Mutex::default() }
    }

    /// `spec` with its token endpoint filled in.
    pub async fn complete(
        &self,
        spec: &Arc<TokenSpec>,
        connector: &Connector,
    ) -> Result<Arc<TokenSpec>, DiscoveryError> {
        let metadata = self.metadata(&spec.credential, connector).await?;
        let mut credential = CredentialSpec::clone(&spec.credential);
        (credential.token_url, credential.token_target) = metadata.token_endpoint_for(&credential)?;
        Ok(Arc::new(TokenSpec { credential: Arc::new(credential), ..TokenSpec::clone(spec) }))
    }

    /// The document, from memory or from the provider.
    pub async fn metadata(
        &self,
        credential: &CredentialSpec,
        connector: &Connector,
    ) -> Result<Arc<Metadata>, DiscoveryError> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        let doubted = self.doubted.load(Ordering::Relaxed);
        if !state.known.as_ref().is_some_and(|known| asked < known.until && !doubted) {
            // Whoever waited for the same answer gets it, errors too.
            if let Some((at, error)) = state.failed.as_ref().filter(|(at, _)| *at >= asked) {
                tracing::trace!(issuer = self.issuer.identifier, ago = ?at.elapsed(), "discovery has just failed");
                return Err(error.clone());
            }
            self.renew(&mut state, credential, connector).await?;
        }
        let Some(known) = &mut state.known else {
            return Err(DiscoveryError::Unavailable("nothing was found".to_owned()));
        };
        if !known.compared.contains(&credential.name) {
            known.compared.push(credential.name.clone());
            if let Some((method, listed)) = known.metadata.unlisted_method(credential) {
                let credential = &credential.name;
                let what = "the provider does not list this way to authenticate; check client_auth";
                tracing::warn!(credential, method, listed, "{what}");
            }
        }
        Ok(Arc::clone(&known.metadata))
    }

    /// The token endpoint is not where the document said: before the next token request it is read anew.
    pub fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
    }

    async fn renew(
        &self,
        state: &mut State,
        credential: &CredentialSpec,
        connector: &Connector,
    ) -> Result<(), DiscoveryError> {
        let issuer = &self.issuer.identifier;
        self.doubted.store(false, Ordering::Relaxed);
        match self.fetch(credential, connector).await {
            Ok((metadata, keep)) => {
                self.publish(&metadata.token_endpoint.0);
                if let Ok(Some((alias, _))) = &metadata.mtls_token_endpoint {
                    self.publish(alias);
                }
                tracing::info!(issuer, token_endpoint = %metadata.token_endpoint.0, ?keep, "provider discovered");
                let until = Instant::now() + keep;
                state.known = Some(Known { metadata: Arc::new(metadata), until, compared: Vec::new() });
                state.failed = None;
                Ok(())
            }
            Err(error) => {
                if let Some(known) = &mut state.known {
                    tracing::warn!(issuer, "discovery failed, what was discovered before stays in use: {error}");
                    known.until = Instant::now() + self.bounds.0.min(AGAIN);
                    return Ok(());
                }
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Told before the endpoint is used, so that no route leads there.
    fn publish(&self, endpoint: &Upstream) {
        self.found.send_if_modified(|all| {
            let found = (self.issuer.identifier.clone(), endpoint.clone());
            let new = !all.contains(&found);
            if new {
                all.push(found);
            }
            new
        });
    }

    async fn fetch(
        &self,
        credential: &CredentialSpec,
        connector: &Connector,
    ) -> Result<(Metadata, Duration), DiscoveryError> {
        let (mut missing, mut refused) = (Vec::new(), None);
        for target in well_known(&self.issuer.url.base_path) {
            let place = format!("{}://{}{target}", self.issuer.url.scheme.as_str(), self.issuer.url.authority);
            let answer = self.get(&target, credential, connector).await.map_err(|error| failed(&place, &error))?;
            match answer.status {
                200 => {
                    let metadata = Metadata::read(&self.issuer, &place, &answer.body)?;
                    return Ok((metadata, keep(&answer, self.bounds)));
                }
                404 => missing.push(place),
                // Who refuses what it does not know; a 5xx passes, and says nothing about the place.
                400..=499 if !matches!(answer.status, 408 | 429) => {
                    refused.get_or_insert(format!("{place} answered HTTP {}", answer.status));
                }
                300..=399 => {
                    let what = format!("{place} is a redirect, and redirects are never followed. Check issuer.");
                    return Err(DiscoveryError::Unavailable(what));
                }
                status => return Err(DiscoveryError::Unavailable(format!("{place} answered HTTP {status}"))),
            }
        }
        let neither =
            || format!("there is neither {} (HTTP 404). Check issuer, or give token_url.", missing.join(" nor "));
        Err(DiscoveryError::Unavailable(refused.unwrap_or_else(neither)))
    }

    async fn get(&self, target: &str, credential: &CredentialSpec, connector: &Connector) -> Result<Answer, CallError> {
        let mut headers = HeaderMap::new();
        let host = HeaderValue::from_str(&self.issuer.url.authority);
        headers.insert(header::HOST, host.map_err(|_| CallError::Body("issuer has an illegal host".to_owned()))?);
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let target = target.to_owned().into();
        let request = TokenRequest { method: Method::GET, target, headers, body: Vec::new().into(), identity: None };
        endpoint::send(connector, &self.issuer.url, credential.timeout, request).await
    }
}

/// After a failed look at a document that is still good, the next one comes this much later.
const AGAIN: Duration = Duration::from_secs(60);

/// Where the document may be. First where OpenID providers have it, since most providers are; the other one is
/// asked for only where there is none, or none for us. `OAuth` inserts before the issuer's path (RFC 8414 section 3.1), `OpenID`
/// appends.
fn well_known(path: &str) -> [String; 2] {
    [format!("{path}/.well-known/openid-configuration"), format!("/.well-known/oauth-authorization-server{path}")]
}

fn failed(place: &str, error: &CallError) -> DiscoveryError {
    let text = format!("{place}: {error}");
    match error {
        CallError::Timeout(_) | CallError::Connect(ConnectError::Timeout { .. }) => DiscoveryError::Late(text),
        _ => DiscoveryError::Unavailable(text),
    }
}

/// `Cache-Control: max-age` (RFC 9111 section 5.2.2.1) within the bounds; the lower one where nothing is said.
fn keep(answer: &Answer, (least, most): (Duration, Duration)) -> Duration {
    let lines = answer.headers.get_all(header::CACHE_CONTROL).into_iter().filter_map(|line| line.to_str().ok());
    let mut directives = lines.flat_map(|line| line.split(',')).map(str::trim);
    let told = directives.find_map(|d| d.strip_prefix("max-age=")?.trim_matches('"').parse().ok());
    told.map_or(least, Duration::from_secs).clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_well_known_places_follow_both_rules() {
        let places = |path: &str| well_known(path).join(" ");
        assert_eq!(places(""), "/.well-known/openid-configuration /.well-known/oauth-authorization-server");
        let expected = "/a/b/.well-known/openid-configuration /.well-known/oauth-authorization-server/a/b";
        assert_eq!(places("/a/b"), expected);
    }

    #[test]
    fn a_document_is_kept_as_long_as_it_says_within_bounds() {
        let minutes = |m: u64| Duration::from_secs(60 * m);
        let kept = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::CACHE_CONTROL, HeaderValue::from_static(line));
            }
            let sent = crate::token::bearer::Now::read();
            let answer = Answer { status: 200, headers, body: bytes::Bytes::new(), sent, received: sent.wall };
            keep(&answer, (minutes(60), minutes(1440)))
        };
        assert_eq!(kept(&[]), minutes(60));
        assert_eq!(kept(&["public, max-age=7200"]), minutes(120));
        assert_eq!(kept(&["public", "max-age=9000000"]), minutes(1440));
        assert_eq!(kept(&["no-store, max-age=0"]), minutes(60));
        assert_eq!(kept(&["max-age=soon"]), minutes(60));
    }
}
