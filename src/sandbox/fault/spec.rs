//! The text in which faults are ordered.

use std::{str::FromStr, time::Duration};

use super::{Answer, Expires, Fault, RetryAfter, Wire};
use crate::sandbox::provider::{Provider, Side};

/// The grammar, for `--help` and for every error message.
pub const GRAMMAR: &str = "\
PROVIDER.SIDE=FAULT[,FAULT…]

PROVIDER  ipxo | digital-realty | ix-api | pax8 | mythic | any other profile's name | * (all)
SIDE      idp (token endpoint) | api | * (both)

connection   down (reset, no answer) · close (closed, no answer) · hang · reset (in mid-body)
             drip[:INTERVAL] (byte by byte) · truncated · truncated-chunked · garbage (not HTTP)
             conflict (Content-Length and Transfer-Encoding) · surplus (a second answer)
             early (answers before the body was read) · early-close (… and closes) · upgrade (unsolicited 101)
answer       status:N · html · empty · big (10 MiB) · redirect · error-200
with status  retry-after:SECONDS | retry-after:date:SECONDS | retry-after:garbage · error:CODE
delay        slow:DURATION
idp only     ttl:DURATION · expires:text|ms|float|missing|zero|negative|garbage · nested (/data/token)
             form-reply · token-type:TEXT · lock[:N] (after N failed logins, 5) · shared (one token, shrinking life)
api only     reject (401 for every token)
at once      revoke (all tokens of the provider)
reach        times:N (only the next N requests) · path:TEXT (only paths that contain it)

A fault without times stands until it is cleared; those with times are used up in the order they were given.
DURATION is 250ms, 2s or 2; SECONDS is a number.
Examples: mythic.idp=down   ipxo.api=status:503,retry-after:2   pax8.idp=ttl:3   *.api=slow:200ms,times:5";

/// An order: which requests, how many of them, and what happens to them.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultSpec {
    /// `None` = all.
    pub(in crate::sandbox) provider: Option<Provider>,
    /// `None` = both.
    pub(in crate::sandbox) side: Option<Side>,
    /// Only paths that contain this.
    pub(in crate::sandbox) path: Option<String>,
    /// Only the next so many requests.
    pub(in crate::sandbox) times: Option<u64>,
    /// Revoke the tokens when this is armed.
    pub(in crate::sandbox) revoke: bool,
    pub(in crate::sandbox) fault: Fault,
}

/// Why an order is not understood. The text lists what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fault {spec:?}: {why}\n\n{GRAMMAR}")]
pub struct SpecError {
    spec: String,
    why: String,
}

impl SpecError {
    /// What is wrong, in one line, without the grammar.
    pub fn reason(&self) -> &str {
        &self.why
    }
}

impl FromStr for FaultSpec {
    type Err = SpecError;

    fn from_str(spec: &str) -> Result<Self, SpecError> {
        parse(spec.trim()).map_err(|why| SpecError { spec: spec.to_owned(), why })
    }
}

/// Reads `PROVIDER.SIDE`.
pub(in crate::sandbox) fn target(text: &str) -> Result<(Option<Provider>, Option<Side>), String> {
    let (provider, side) = text.split_once('.').ok_or_else(|| format!("{text:?} is not PROVIDER.SIDE"))?;
    let provider = match provider {
        "*" => None,
        name => Some(Provider::from_name(name).ok_or_else(|| format!("there is no provider {name:?}"))?),
    };
    let side = match side {
        "*" => None,
        "idp" => Some(Side::Idp),
        "api" => Some(Side::Api),
        other => return Err(format!("there is no side {other:?}")),
    };
    Ok((provider, side))
}

fn parse(spec: &str) -> Result<FaultSpec, String> {
    let (at, faults) = spec.split_once('=').ok_or("there is no \"=\" in it")?;
    let (provider, side) = target(at)?;
    let mut order = FaultSpec { provider, side, path: None, times: None, revoke: false, fault: Fault::default() };
    for item in faults.split(',') {
        let (name, value) = item.split_once(':').map_or((item, None), |(n, v)| (n, Some(v)));
        add(&mut order, name.trim(), value.map(str::trim)).map_err(|why| format!("{item:?}: {why}"))?;
    }
    if order.fault == Fault::default() && !order.revoke {
        return Err("it orders nothing".to_owned());
    }
    match order.side {
        Some(Side::Api) if order.fault.is_about_tokens() => Err("the api gives out no tokens: say idp".to_owned()),
        Some(Side::Idp) if order.fault.reject => Err("the idp takes no tokens: say api".to_owned()),
        _ => Ok(order),
    }
}

fn add(order: &mut FaultSpec, name: &str, value: Option<&str>) -> Result<(), String> {
    let fault = &mut order.fault;
    let needed = || value.filter(|v| !v.is_empty()).ok_or_else(|| format!("{name} needs a value"));
    match name {
        "times" => order.times = Some(number(needed()?)?),
        "path" => order.path = Some(needed()?.to_owned()),
        "slow" => fault.slow = Some(duration(needed()?)?),
        "ttl" => fault.ttl = Some(duration(needed()?)?),
        "status" => fault.answer = Some(Answer::Status(status(needed()?)?)),
        "error" => fault.error = Some(needed()?.to_owned()),
        "retry-after" => fault.retry_after = Some(retry_after(needed()?)?),
        "expires" => fault.expires = Some(expires(needed()?)?),
        "token-type" => fault.token_type = Some(value.unwrap_or("Application Access Token").to_owned()),
        "lock" => fault.lock = Some(value.map_or(Ok(5), |v| v.parse().map_err(|_| not_a_number(v)))?),
        "drip" => {
            fault.wire = Some(Wire::Drip);
            fault.interval = Some(value.map_or(Ok(Duration::from_millis(50)), duration)?);
        }
        _ if value.is_some() => return Err(format!("{name:?} is not a fault that takes a value")),
        "nested" => fault.nested = true,
        "form-reply" => fault.form = true,
        "shared" => fault.shared = true,
        "reject" => fault.reject = true,
        "revoke" => order.revoke = true,
        _ => match (wire(name), answer(name)) {
            (Some(wire), _) => fault.wire = Some(wire),
            (_, Some(answer)) => fault.answer = Some(answer),
            _ => return Err("there is no such fault".to_owned()),
        },
    }
    Ok(())
}

fn wire(name: &str) -> Option<Wire> {
    Some(match name {
        "down" => Wire::Down,
        "close" => Wire::Close,
        "hang" => Wire::Hang,
        "reset" => Wire::Reset,
        "truncated" => Wire::Truncated,
        "truncated-chunked" => Wire::TruncatedChunked,
        "conflict" => Wire::Conflict,
        "early" => Wire::Early,
        "early-close" => Wire::EarlyClose,
        "surplus" => Wire::Surplus,
        "upgrade" => Wire::Upgrade,
        "garbage" => Wire::Garbage,
        _ => return None,
    })
}

fn answer(name: &str) -> Option<Answer> {
    Some(match name {
        "html" => Answer::Html,
        "empty" => Answer::Empty,
        "big" => Answer::Big,
        "redirect" => Answer::Redirect,
        "error-200" => Answer::ErrorInOk,
        _ => return None,
    })
}

fn expires(text: &str) -> Result<Expires, String> {
    Ok(match text {
        "text" | "string" => Expires::Text,
        "ms" => Expires::Millis,
        "float" => Expires::Float,
        "missing" => Expires::Missing,
        "zero" => Expires::Zero,
        "negative" => Expires::Negative,
        "garbage" => Expires::Garbage,
        _ => return Err(format!("{text:?} is no way to tell a lifetime")),
    })
}

fn retry_after(text: &str) -> Result<RetryAfter, String> {
    Ok(match text.split_once(':') {
        Some(("date", seconds)) => RetryAfter::Date(number(seconds)?),
        None if text == "garbage" => RetryAfter::Garbage,
        None => RetryAfter::Seconds(number(text)?),
        Some(_) => return Err(format!("{text:?} is neither seconds nor date:SECONDS")),
    })
}

fn status(text: &str) -> Result<u16, String> {
    let code: u16 = text.parse().map_err(|_| not_a_number(text))?;
    if (200..=599).contains(&code) { Ok(code) } else { Err(format!("{code} is not a final HTTP status")) }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| not_a_number(text))
}

fn not_a_number(text: &str) -> String {
    format!("{text:?} is not a whole number")
}

fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let bad = || format!("{text:?} is not a duration such as 250ms or 2s");
    let seconds: f64 = digits.parse().map_err(|_| bad())?;
    Duration::try_from_secs_f64(seconds * unit).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_grammar_are_understood() {
        for line in GRAMMAR.lines().filter_map(|l| l.strip_prefix("Examples: ")) {
            for spec in line.split("   ") {
                spec.parse::<FaultSpec>().unwrap();
            }
        }
    }

    #[test]
    fn several_effects_stand_in_one_order() {
        let order: FaultSpec = "ipxo.api=status:503,retry-after:2,times:3,path:/v1,slow:250ms".parse().unwrap();
        assert_eq!((order.provider, order.side), (Some(Provider::Ipxo), Some(Side::Api)));
        assert_eq!((order.times, order.path.as_deref()), (Some(3), Some("/v1")));
        assert_eq!(order.fault.answer, Some(Answer::Status(503)));
        assert_eq!(order.fault.retry_after, Some(RetryAfter::Seconds(2)));
        assert_eq!(order.fault.slow, Some(Duration::from_millis(250)));
    }

    #[test]
    fn an_order_that_is_not_understood_lists_what_would_be() {
        for (spec, why) in [
            ("ipxo.api", "no \"=\""),
            ("ipxo=down", "PROVIDER.SIDE"),
            ("ipx.api=down", "no provider \"ipx\""),
            ("ipxo.both=down", "no side \"both\""),
            ("ipxo.api=dwn", "\"dwn\": there is no such fault"),
            ("ipxo.api=down:3", "takes a value"),
            ("ipxo.api=status", "status needs a value"),
            ("ipxo.api=status:101", "not a final HTTP status"),
            ("ipxo.api=slow:soon", "not a duration"),
            ("ipxo.api=slow:-1s", "not a duration"),
            ("ipxo.idp=expires:never", "no way to tell"),
            ("ipxo.idp=times:3", "orders nothing"),
            ("ipxo.idp=", "no such fault"),
            ("ipxo.api=ttl:3", "say idp"),
            ("ipxo.idp=reject", "say api"),
        ] {
            let error = spec.parse::<FaultSpec>().unwrap_err();
            assert!(error.reason().contains(why), "{spec}: {}", error.reason());
            assert!(error.to_string().contains("truncated-chunked"), "the grammar is shown");
        }
    }
}
