//! The tokens that were given out: what each is good for, until when, and for whom.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    digest::{Sha256, fingerprint, hex, random, sha256},
    provider::Provider,
};

/// More tokens than this are not kept: the oldest is forgotten (and so refused).
const MAX_TOKENS: usize = 10_000;

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Grant {
    pub(super) provider: Provider,
    pub(super) client: String,
    pub(super) scopes: Vec<String>,
    pub(super) audience: Option<String>,
    /// Only from this address.
    pub(super) peer: Option<IpAddr>,
    /// IX-API's refresh token: no good at the API.
    pub(super) refresh: bool,
}

/// A token that was given out.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) grant: Grant,
    pub(super) fingerprint: String,
    /// Counts from here: issue, or last use where it slides.
    since: Instant,
    ttl: Duration,
    sliding: bool,
    revoked: bool,
}

/// Why a token is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bad {
    /// Never given out here, or forgotten.
    Unknown,
    /// Given out by another provider.
    Foreign,
    /// A refresh token at the API, or the other way round.
    WrongKind,
    /// Too late.
    Expired,
    /// Revoked, or used up by rotation.
    Revoked,
    /// From another address than it was given to.
    Elsewhere,
}

/// All tokens of one sandbox, under the SHA-256 of their text.
pub(super) struct Tokens {
    held: HashMap<Sha256, Held>,
    order: VecDeque<Sha256>,
    /// The text of tokens that are given out again (`shared`); the only ones whose text is kept.
    shared: HashMap<Grant, String>,
    key: hmac::Key,
    serial: u64,
}

impl Default for Tokens {
    fn default() -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &random::<32>());
        Self { held: HashMap::new(), order: VecDeque::new(), shared: HashMap::new(), key, serial: 0 }
    }
}

impl Tokens {
    /// Mints a token in the provider's style. `ttl` counts from now, or from each use with `sliding`.
    pub(super) fn mint(&mut self, grant: &Grant, ttl: Duration, sliding: bool) -> String {
        let token = match grant.provider {
            Provider::Ipxo => {
                let half = || URL_SAFE_NO_PAD.encode(random::<32>());
                format!("{}.{}", half(), half())
            }
            Provider::MythicBeasts => hex(&random::<8>()),
            Provider::Described(other) => match other.description().opaque_suffix() {
                Some(suffix) => hex(&random::<20>()) + suffix,
                None => self.jwt(grant, ttl),
            },
            Provider::DigitalRealty | Provider::IxApi | Provider::Pax8 => self.jwt(grant, ttl),
        };
        let key = sha256(token.as_bytes());
        let (fingerprint, since) = (fingerprint(&token), Instant::now());
        self.keep(key, Held { grant: grant.clone(), fingerprint, since, ttl, sliding, revoked: false });
        token
    }

    /// The token that everyone with this grant shares, and the rest of its life.
    pub(super) fn mint_shared(&mut self, grant: &Grant, ttl: Duration) -> (String, Duration) {
        if let Some(token) = self.shared.get(grant) {
            let held = self.held.get(&sha256(token.as_bytes())).filter(|h| !h.revoked);
            let left = held.and_then(|h| h.ttl.checked_sub(h.since.elapsed())).filter(|left| !left.is_zero());
            if let Some(left) = left {
                return (token.clone(), left);
            }
        }
        let token = self.mint(grant, ttl, false);
        if self.shared.len() >= 100 {
            self.shared.clear();
        }
        self.shared.insert(grant.clone(), token.clone());
        (token, ttl)
    }

    /// A signed JWT with `exp`; the signature is a real HMAC under a key that nobody else has.
    fn jwt(&mut self, grant: &Grant, ttl: Duration) -> String {
        self.serial += 1;
        let now = Timestamp::now().as_duration().as_secs_f64();
        let claims = json!({
            "iss": format!("cupbearer-sandbox/{}", grant.provider.name()),
            "sub": grant.client,
            "client_id": grant.client,
            "aud": grant.audience,
            "scope": grant.scopes.join(" "),
            "typ": if grant.refresh { "refresh" } else { "access" },
            "iat": numeric_date(now.floor()),
            "exp": numeric_date(if ttl.subsec_nanos() == 0 { now.floor() } else { now } + ttl.as_secs_f64()),
            "jti": format!("{}-{}", self.serial, hex(&random::<6>())),
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({"alg": "HS256", "typ": "JWT"})), part(&claims));
        let signature = hmac::sign(&self.key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Judges a token at use; a good one's sliding life starts anew.
    pub(super) fn judge(&mut self, token: &str, provider: Provider, refresh: bool, peer: IpAddr) -> Result<Held, Bad> {
        let held = self.held.get_mut(&sha256(token.as_bytes())).ok_or(Bad::Unknown)?;
        if held.grant.provider != provider {
            return Err(Bad::Foreign);
        }
        if held.grant.refresh != refresh {
            return Err(Bad::WrongKind);
        }
        if held.revoked {
            return Err(Bad::Revoked);
        }
        if held.since.elapsed() >= held.ttl {
            return Err(Bad::Expired);
        }
        if held.grant.peer.is_some_and(|ip| ip != peer) {
            return Err(Bad::Elsewhere);
        }
        if held.sliding {
            held.since = Instant::now();
        }
        Ok(held.clone())
    }

    /// Takes up a token that a client signed itself, unless it is known already.
    pub(super) fn take_up(&mut self, token: &str, grant: Grant) {
        let key = sha256(token.as_bytes());
        if self.held.contains_key(&key) {
            return;
        }
        let (fingerprint, since, ttl) = (fingerprint(token), Instant::now(), Duration::from_secs(3_600));
        self.keep(key, Held { grant, fingerprint, since, ttl, sliding: false, revoked: false });
    }

    fn keep(&mut self, key: Sha256, held: Held) {
        self.held.insert(key, held);
        self.order.push_back(key);
        while self.order.len() > MAX_TOKENS {
            self.order.pop_front().map(|oldest| self.held.remove(&oldest));
        }
    }

    /// Uses a refresh token up.
    pub(super) fn use_up(&mut self, token: &str) {
        if let Some(held) = self.held.get_mut(&sha256(token.as_bytes())) {
            held.revoked = true;
        }
    }

    /// Whether this text is a token that was given out here, by whomever.
    pub(super) fn knows(&self, text: &str) -> bool {
        self.held.contains_key(&sha256(text.as_bytes()))
    }

    /// Revokes the access tokens of one provider (`None` = all), and says how many that were.
    pub(super) fn revoke(&mut self, provider: Option<Provider>) -> usize {
        let reached = |held: &&mut Held| {
            provider.is_none_or(|p| p == held.grant.provider) && !held.revoked && !held.grant.refresh
        };
        self.held.values_mut().filter(reached).map(|held| held.revoked = true).count()
    }
}

/// A JWT's `NumericDate`: whole where it can be.
fn numeric_date(seconds: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970 fit")]
    if seconds.fract() == 0.0 { json!(seconds as i64) } else { json!(seconds) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(provider: Provider) -> Grant {
        Grant { provider, client: "c".to_owned(), scopes: vec![], audience: None, peer: None, refresh: false }
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_token_is_good_only_where_and_while_it_should_be() {
        let mut tokens = Tokens::default();
        let hour = Duration::from_secs(3600);
        let token = tokens.mint(&grant(Provider::Ipxo), hour, false);
        assert!(tokens.judge(&token, Provider::Ipxo, false, HERE).is_ok());
        assert_eq!(tokens.judge(&token, Provider::Pax8, false, HERE).unwrap_err(), Bad::Foreign);
        assert_eq!(tokens.judge(&token, Provider::Ipxo, true, HERE).unwrap_err(), Bad::WrongKind);
        assert_eq!(tokens.judge("no-token", Provider::Ipxo, false, HERE).unwrap_err(), Bad::Unknown);
        assert_eq!(tokens.revoke(Some(Provider::Pax8)), 0);
        assert_eq!(tokens.revoke(None), 1);
        assert_eq!(tokens.judge(&token, Provider::Ipxo, false, HERE).unwrap_err(), Bad::Revoked);
        let late = tokens.mint(&grant(Provider::Ipxo), Duration::ZERO, false);
        assert_eq!(tokens.judge(&late, Provider::Ipxo, false, HERE).unwrap_err(), Bad::Expired);
        let bound = Grant { peer: Some([127, 0, 0, 2].into()), ..grant(Provider::MythicBeasts) };
        let bound = tokens.mint(&bound, hour, true);
        assert_eq!(tokens.judge(&bound, Provider::MythicBeasts, false, HERE).unwrap_err(), Bad::Elsewhere);
    }

    #[test]
    fn the_oldest_tokens_are_forgotten() {
        let mut tokens = Tokens::default();
        let first = tokens.mint(&grant(Provider::MythicBeasts), Duration::from_secs(9), false);
        for _ in 0..MAX_TOKENS {
            tokens.mint(&grant(Provider::MythicBeasts), Duration::from_secs(9), false);
        }
        assert!(!tokens.knows(&first));
        assert_eq!((tokens.held.len(), tokens.order.len()), (MAX_TOKENS, MAX_TOKENS));
    }

    #[test]
    fn a_shared_token_has_a_shrinking_life() {
        let mut tokens = Tokens::default();
        let hour = Duration::from_secs(3600);
        let (first, life) = tokens.mint_shared(&grant(Provider::Ipxo), hour);
        let (again, left) = tokens.mint_shared(&grant(Provider::Ipxo), hour);
        assert!(first == again && life == hour && left < hour);
        tokens.revoke(None);
        assert_ne!(tokens.mint_shared(&grant(Provider::Ipxo), hour).0, first);
    }

    #[test]
    fn a_jwt_tells_its_own_end() {
        let mut tokens = Tokens::default();
        let token = tokens.mint(&grant(Provider::IxApi), Duration::from_secs(60), false);
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 60);
    }
}
