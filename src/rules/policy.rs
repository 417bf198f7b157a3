//! Callers, methods and paths → a verdict, and the rule that gave it.

use std::{borrow::Cow, fmt};

use crate::config::model::{CallerSpec, PolicyMode, RouteCallers, RouteSpec, Rule};

use super::{
    glob::{Loose, allows, denies},
    table::decoded_prefix,
};

/// What is asked of a route.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'r, 'a> {
    /// The method, as sent.
    pub method: &'r str,
    /// The whole decoded canonical path.
    pub path: &'r [u8],
    /// Where the rest below the route's prefix begins in `path` ([`super::table::Match::rest_decoded_offset`]).
    pub rest_at: usize,
    /// Who asks, if known.
    pub caller: Option<&'a CallerSpec>,
    /// Whether the configuration has any caller at all.
    pub callers_defined: bool,
    /// Whether the peer came over loopback or a unix socket.
    pub peer_is_local: bool,
}

/// May it pass?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Yes.
    Allowed {
        /// The route's allow-rule that said so; `None` where nothing is listed.
        rule: Option<&'a str>,
        /// With `mode = "report"`: what would have been the denial.
        reported: Option<Denial<'a>>,
    },
    /// No.
    Denied(Denial<'a>),
}

impl<'a> Verdict<'a> {
    /// The denial that is to be answered.
    pub fn denied(&self) -> Option<Denial<'a>> {
        match self {
            Self::Denied(denial) => Some(*denial),
            Self::Allowed { .. } => None,
        }
    }
}

/// A `no`. Its `Display` is a sentence that the caller itself may read: it names this caller and the rule
/// that hit it, never what others may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denial<'a> {
    /// What happened.
    pub reason: Reason<'a>,
}

/// The error code of a denial, see the table of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialCode {
    /// 401: nobody that we know.
    CallerUnknown,
    /// 403: known, but not for this route.
    CallerDenied,
    /// 403: not this method or path.
    PolicyDenied,
}

impl DenialCode {
    /// As written in an answer and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CallerUnknown => "caller_unknown",
            Self::CallerDenied => "caller_denied",
            Self::PolicyDenied => "policy_denied",
        }
    }
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason<'a> {
    /// The request identifies itself as no known caller.
    Unidentified,
    /// The request identifies itself as two different callers.
    TwoIdentities,
    /// `callers = ["*"]`, but the peer is not local.
    NotLocal,
    /// The caller (by name) is not among the route's `callers`.
    NotListed(&'a str),
    /// The path is outside of the caller's `routes`.
    OutsideRoutes(&'a str),
    /// The provider's own token endpoint.
    TokenEndpoint,
    /// This deny-rule of the route.
    DenyRule(&'a str),
    /// The route lists allow-rules and none fits.
    NoAllowRule,
    /// The caller (by name) has allow-rules and none fits.
    NoAllowRuleOfCaller(&'a str),
}

impl<'a> Denial<'a> {
    /// The denial of a request with two identities ([`super::caller::Identified::Conflict`]).
    pub fn two_identities() -> Self {
        Reason::TwoIdentities.into()
    }

    /// The code that is answered.
    pub fn code(&self) -> DenialCode {
        match self.reason {
            Reason::Unidentified => DenialCode::CallerUnknown,
            Reason::TwoIdentities | Reason::NotLocal | Reason::NotListed(_) | Reason::OutsideRoutes(_) => {
                DenialCode::CallerDenied
            }
            Reason::TokenEndpoint | Reason::DenyRule(_) | Reason::NoAllowRule | Reason::NoAllowRuleOfCaller(_) => {
                DenialCode::PolicyDenied
            }
        }
    }

    /// The rule as written that gave the verdict, where it was one.
    pub fn rule(&self) -> Option<&'a str> {
        match self.reason {
            Reason::DenyRule(text) => Some(text),
            _ => None,
        }
    }
}

impl<'a> From<Reason<'a>> for Denial<'a> {
    fn from(reason: Reason<'a>) -> Self {
        Self { reason }
    }
}

impl fmt::Display for Denial<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Unidentified => f.write_str("the request does not identify itself as a known caller"),
            Reason::TwoIdentities => f.write_str("the request identifies itself as two different callers"),
            Reason::NotLocal => f.write_str("this route is open to peers on the same host only"),
            Reason::NotListed(caller) => write!(f, "caller `{caller}` may not use this route"),
            Reason::OutsideRoutes(caller) => write!(f, "the path is outside of the routes of caller `{caller}`"),
            Reason::TokenEndpoint => f.write_str(
                "the provider's own token endpoint (refresh and device endpoints too) is never reachable here",
            ),
            Reason::DenyRule(text) => write!(f, "the route's deny rule `{text}` covers this request"),
            Reason::NoAllowRule => f.write_str("no allow rule of the route covers this method and path"),
            Reason::NoAllowRuleOfCaller(caller) => {
                write!(f, "no allow rule of caller `{caller}` covers this method and path")
            }
        }
    }
}

/// Judges one request: who (a stranger learns nothing about rules), then the token endpoint, then deny,
/// then allow, then what the caller itself may. Allocates only for unusual paths.
pub fn decide<'a>(route: &'a RouteSpec, asked: &Asked<'_, 'a>) -> Verdict<'a> {
    let rest = asked.path.get(asked.rest_at..).unwrap_or_default();
    let nothing_denied = route.deny.is_empty() && route.forbidden_paths.is_empty() && !route.unknown_endpoint;
    let loose = if nothing_denied { Loose::unneeded() } else { Loose::of(rest) };
    let who = judge_caller(route, asked);
    if let Some(reason) = who
        && (route.mode == PolicyMode::Enforce || !reportable(reason, asked))
    {
        return Verdict::Denied(reason.into());
    }
    if is_token_endpoint(route, loose.reading(rest)) {
        return Verdict::Denied(Reason::TokenEndpoint.into());
    }
    match (judge_path(route, asked, rest, &loose), who, route.mode) {
        (Ok(rule), None, _) => Verdict::Allowed { rule, reported: None },
        (Err(reason), _, PolicyMode::Enforce) => Verdict::Denied(reason.into()),
        (judged, who, _) => {
            let reported = who.or(judged.err()).map(Denial::from);
            Verdict::Allowed { rule: judged.ok().flatten(), reported }
        }
    }
}

/// Report mode tries rules out; it never makes a caller of a stranger from another host.
fn reportable(reason: Reason<'_>, asked: &Asked<'_, '_>) -> bool {
    asked.peer_is_local || !matches!(reason, Reason::Unidentified | Reason::NotLocal)
}

fn judge_caller<'a>(route: &'a RouteSpec, asked: &Asked<'_, 'a>) -> Option<Reason<'a>> {
    match (&route.callers, asked.caller) {
        // An identified caller is not let in from afar either: the operator said "this host".
        (RouteCallers::Anyone, _) if !asked.peer_is_local => return Some(Reason::NotLocal),
        (RouteCallers::Known, None) if asked.callers_defined => return Some(Reason::Unidentified),
        (RouteCallers::Named(_), None) => return Some(Reason::Unidentified),
        (RouteCallers::Named(names), Some(caller)) if !names.contains(&caller.name) => {
            return Some(Reason::NotListed(&caller.name));
        }
        _ => {}
    }
    let caller = asked.caller?;
    let prefixes = caller.routes.as_deref()?;
    let inside = prefixes.iter().any(|prefix| below(asked.path, prefix.as_bytes()));
    (!inside).then_some(Reason::OutsideRoutes(&caller.name))
}

/// `Ok` with the allow-rule of the route, if it lists any.
fn judge_path<'a>(
    route: &'a RouteSpec,
    asked: &Asked<'_, 'a>,
    rest: &[u8],
    loose: &Loose,
) -> Result<Option<&'a str>, Reason<'a>> {
    if let Some(rule) = route.deny.iter().find(|rule| denies(rule, asked.method, rest, loose)) {
        return Err(Reason::DenyRule(&rule.text));
    }
    let rule = first_allowing(&route.allow, asked, rest, Reason::NoAllowRule)?;
    if let Some(caller) = asked.caller {
        first_allowing(&caller.allow, asked, rest, Reason::NoAllowRuleOfCaller(&caller.name))?;
    }
    Ok(rule)
}

/// The first rule that fits; `None` where nothing is listed, so that everything is allowed.
fn first_allowing<'a>(
    rules: &'a [Rule],
    asked: &Asked<'_, '_>,
    rest: &[u8],
    otherwise: Reason<'a>,
) -> Result<Option<&'a str>, Reason<'a>> {
    if rules.is_empty() {
        return Ok(None);
    }
    rules.iter().find(|rule| allows(rule, asked.method, rest)).map(|rule| Some(rule.text.as_str())).ok_or(otherwise)
}

/// Whether the loose reading of the rest is a forbidden path. ASCII case is ignored, here only: many
/// servers route that way, and no API has a second resource that differs from its token endpoint by case.
fn is_token_endpoint(route: &RouteSpec, rest: &[u8]) -> bool {
    let bare = |path: &[u8]| -> usize { path.len() - path.iter().rev().take_while(|&&byte| byte == b'/').count() };
    let known = route.forbidden_paths.iter().any(|path| {
        let path = path.as_bytes();
        path[..bare(path)].eq_ignore_ascii_case(&rest[..bare(rest)])
    });
    known || (route.unknown_endpoint && looks_like_token_endpoint(&rest[..bare(rest)]))
}

/// Whether the last segment is what token endpoints are called: `token`, `token.oauth2`, `access_token`.
fn looks_like_token_endpoint(path: &[u8]) -> bool {
    let last = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    last.windows(5).any(|part| part.eq_ignore_ascii_case(b"token"))
}

/// Whether a decoded path lies below a prefix (which may have escapes), on a segment boundary.
fn below(path: &[u8], prefix: &[u8]) -> bool {
    let prefix = prefix.strip_suffix(b"/").unwrap_or(prefix);
    let prefix = if prefix.contains(&b'%') { Cow::Owned(decoded_prefix(prefix).into_vec()) } else { prefix.into() };
    path.strip_prefix(&*prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests;
