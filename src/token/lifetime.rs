//! 2 … how long a token lives, from the provider's words: the first that applies of `expires_in`,
//! `expires_at`/`expires_on`, the JWT's `exp`, `default_ttl`. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use super::clock::http_date;
use crate::config::model::{CredentialSpec, ExpiresUnit};

/// Nothing is kept longer than this without asking again.
pub const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Nothing shorter is worth a request, and a provider that gives such tokens must not be asked all the time.
pub const SHORTEST: Duration = Duration::from_secs(1);

/// A "lifetime" of more seconds than this (31 years) is a moment, given as epoch.
const MOMENT: f64 = 1e9;

/// An epoch beyond this is given in milliseconds.
const MILLIS: f64 = 1e11;

/// A number beyond this is nonsense.
const NONSENSE: f64 = 1e15;

/// Which of the provider's words gave the lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifetimeSource {
    /// `expires_field`.
    ExpiresIn,
    /// `expires_at`, `expires_on`, or an absolute time in `expires_field`.
    ExpiresAt,
    /// `exp` of the token itself.
    Jwt,
    /// The provider said nothing: `default_ttl`.
    DefaultTtl,
    /// The token was minted before this process started.
    Stored,
}

/// The lifetime as counted from the moment the request was sent, by a clock `server` that reads what the
/// provider's reads. The error completes a sentence.
pub fn lifetime(
    credential: &CredentialSpec,
    answer: &Value,
    token: &str,
    server: SystemTime,
) -> Result<(Duration, LifetimeSource), String> {
    let (life, source) = match told(credential, answer, token, server)? {
        Some(told) => told,
        None => (credential.default_ttl.as_secs_f64(), LifetimeSource::DefaultTtl),
    };
    if life < SHORTEST.as_secs_f64() {
        return Err(match source {
            LifetimeSource::ExpiresIn => "the lifetime in it is less than a second".to_owned(),
            _ => "by its own words the token had expired when it came (is a clock wrong?)".to_owned(),
        });
    }
    Ok((Duration::try_from_secs_f64(life).unwrap_or(LONGEST).min(LONGEST), source))
}

fn told(
    credential: &CredentialSpec,
    answer: &Value,
    token: &str,
    server: SystemTime,
) -> Result<Option<(f64, LifetimeSource)>, String> {
    let now = seconds(server);
    let field = answer.pointer(&credential.expires_field).filter(|value| says_something(value));
    if let Some(value) = field.filter(|_| !credential.expires_field.is_empty()) {
        return expires_field(credential, value, now).map(Some);
    }
    for name in ["expires_at", "expires_on"] {
        if let Some(value) = answer.get(name).filter(|value| says_something(value)) {
            let at = absolute(value)
                .ok_or_else(|| format!("its {name} is neither ISO 8601 nor an epoch nor a date of HTTP"))?;
            return Ok(Some((at - now, LifetimeSource::ExpiresAt)));
        }
    }
    Ok(jwt_life(token, now).map(|life| (life, LifetimeSource::Jwt)))
}

/// An empty text is no lifetime, and no malformed one either.
fn says_something(value: &Value) -> bool {
    !value.is_null() && value.as_str().is_none_or(|text| !text.trim().is_empty())
}

fn expires_field(credential: &CredentialSpec, value: &Value, now: f64) -> Result<(f64, LifetimeSource), String> {
    let malformed = || format!("its {} is not a lifetime", credential.expires_field.trim_start_matches('/'));
    let Some(number) = number(value) else {
        let at = absolute(value).ok_or_else(malformed)?;
        return Ok((at - now, LifetimeSource::ExpiresAt));
    };
    let life = match credential.expires_unit {
        ExpiresUnit::Seconds => number,
        ExpiresUnit::Millis => number / 1000.0,
    };
    match life {
        _ if life.abs() > NONSENSE => Err(malformed()),
        _ if life > MOMENT => Ok((absolute(value).ok_or_else(malformed)? - now, LifetimeSource::ExpiresAt)),
        _ => Ok((life, LifetimeSource::ExpiresIn)),
    }
}

/// A number, or a string of digits with perhaps a fraction; nothing else ("3600abc", "1e3", "NaN").
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64().filter(|n| n.is_finite()),
        Value::String(text) => {
            let text = text.trim();
            let digits = text.strip_prefix('-').unwrap_or(text);
            let plain = digits.starts_with(|c: char| c.is_ascii_digit())
                && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            if plain { text.parse().ok() } else { None }
        }
        _ => None,
    }
}

/// A moment as seconds since 1970: ISO 8601 (without an offset: UTC), an epoch in s or ms, or as HTTP writes dates.
fn absolute(value: &Value) -> Option<f64> {
    if let Some(epoch) = number(value) {
        let epoch = if epoch > MILLIS { epoch / 1000.0 } else { epoch };
        return (epoch.abs() < NONSENSE).then_some(epoch);
    }
    let text = value.as_str()?.trim();
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(at.as_duration().as_secs_f64());
    }
    if let Some(at) = http_date(text) {
        return Some(seconds(at));
    }
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_duration().as_secs_f64())
}

/// `exp` of a JWT, not verified (it is the upstream's business): its distance from now, or from `iat` where
/// that is less (the provider's clock may have been set since).
fn jwt_life(token: &str, now: f64) -> Option<f64> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let exp = claims.get("exp")?.as_f64()?;
    let since_iat = claims.get("iat").and_then(Value::as_f64).map_or(f64::INFINITY, |iat| exp - iat);
    Some((exp - now).min(since_iat))
}

fn seconds(at: SystemTime) -> f64 {
    match at.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}
