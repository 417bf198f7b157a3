//! Whose fault, what happened, what to do: every answer that is cupbearer's own is made here.

use serde::Serialize;

use super::clock;
use crate::token::bearer::{Failure, FailureKind, Unavailable};

macro_rules! codes {
    ($($name:ident = $code:literal, $status:literal, $blame:literal, $proxy_status:literal, $title:literal;)*) => {
        /// What went wrong. The names are a contract (`docs/errors.md`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Code {
            $(#[doc = $title] $name,)*
        }

        impl Code {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its position among all.
            pub fn index(self) -> usize {
                self as usize
            }

            /// The code as callers see it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// HTTP status.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// `caller`, `config`, `idp`, `proxy` or `upstream`.
            pub fn blame(self) -> &'static str {
                match self { $(Self::$name => $blame,)* }
            }

            /// The error type of RFC 9209 section 2.3.
            pub fn proxy_status(self) -> &'static str {
                match self { $(Self::$name => $proxy_status,)* }
            }

            /// What happened, in a few words.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    NoRoute = "no_route", 404, "caller", "destination_not_found", "No route has this prefix";
    BadPath = "bad_path", 400, "caller", "http_request_error", "The path is ambiguous";
    BadRequest = "bad_request", 400, "caller", "http_request_error", "The request is malformed";
    UriTooLong = "uri_too_long", 414, "caller", "http_request_error", "The request target is too long";
    HeadTooLarge = "head_too_large", 431, "caller", "http_request_error", "The request head is too large";
    RequestTimeout = "request_timeout", 408, "caller", "http_request_error", "The request did not arrive in time";
    MethodRefused = "method_refused", 405, "caller", "http_request_denied", "This method is never forwarded";
    UnknownCoding = "unknown_coding", 501, "caller", "http_request_error", "This transfer coding is not understood";
    BadVersion = "bad_version", 505, "caller", "http_request_error", "This HTTP version is not spoken here";
    BadExpectation = "bad_expectation", 417, "caller", "http_request_error", "This expectation cannot be met";
    Misdirected = "misdirected", 421, "caller", "http_request_denied", "This host name is not served here";
    OriginRefused = "origin_refused", 403, "caller", "http_request_denied", "Browsers may not call from this origin";
    CallerUnknown = "caller_unknown", 401, "caller", "http_request_denied", "The caller is not known";
    CallerDenied = "caller_denied", 403, "caller", "http_request_denied", "This caller may not use this route";
    PolicyDenied = "policy_denied", 403, "caller", "http_request_denied", "The route's policy denies this request";
    BodyTooLarge = "body_too_large", 413, "caller", "http_request_error", "The body is larger than the route allows";
    Overloaded = "overloaded", 503, "proxy", "connection_limit_reached", "Too much at once";
    IdpRefused = "idp_refused", 502, "idp", "proxy_configuration_error", "The identity provider refused the credential";
    IdpUnavailable = "idp_unavailable", 503, "idp", "destination_unavailable", "The identity provider gives no token now";
    IdpTimeout = "idp_timeout", 504, "idp", "connection_timeout", "The identity provider did not answer in time";
    BudgetExhausted = "budget_exhausted", 503, "config", "proxy_configuration_error", "The budget of token requests is spent";
    SecretUnavailable = "secret_unavailable", 503, "config", "proxy_configuration_error", "A secret or setting of the credential is of no use";
    UpstreamConnect = "upstream_connect", 502, "upstream", "destination_unavailable", "The upstream cannot be reached";
    UpstreamTls = "upstream_tls", 502, "upstream", "tls_protocol_error", "TLS with the upstream failed";
    UpstreamProtocol = "upstream_protocol", 502, "upstream", "http_protocol_error", "The upstream gave no usable answer";
    UpstreamTimeout = "upstream_timeout", 504, "upstream", "http_response_timeout", "The upstream did not answer in time";
}

/// An answer of cupbearer's own.
#[derive(Debug, Clone)]
pub(super) struct ProxyError {
    /// What.
    pub(super) code: Code,
    /// What exactly, and what to do. Free of secrets and of anyone else's body.
    pub(super) detail: String,
    /// Seconds after which another try makes sense.
    pub(super) retry_after: Option<u64>,
}

impl ProxyError {
    /// An error without `Retry-After`.
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry_after: None }
    }

    /// With `Retry-After`.
    pub(super) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Why there is no token, for the caller.
    pub(super) fn no_token(why: Unavailable, credential: &str) -> Self {
        match why {
            Unavailable::Failed(failure) => Self::token_failure(failure, credential),
            Unavailable::TimedOut => Self::new(
                Code::IdpTimeout,
                format!("no token for credential {credential:?} came in time; the request was not forwarded"),
            )
            .retry_after(1),
            Unavailable::Crowded => Self::new(
                Code::Overloaded,
                format!("too many requests already wait for a token of credential {credential:?}"),
            )
            .retry_after(1),
            Unavailable::Gone => Self::new(Code::Overloaded, "cupbearer is shutting down").retry_after(1),
        }
    }

    fn token_failure(failure: Failure, credential: &str) -> Self {
        let code = match failure.kind {
            FailureKind::Refused => Code::IdpRefused,
            FailureKind::Unavailable => Code::IdpUnavailable,
            FailureKind::Timeout => Code::IdpTimeout,
            FailureKind::Budget => Code::BudgetExhausted,
            FailureKind::Secret => Code::SecretUnavailable,
            FailureKind::Shortage => Code::Overloaded,
        };
        let left = failure.until.saturating_duration_since(std::time::Instant::now());
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        let detail = failure.withheld.map_or(failure.message, |withheld| {
            let what = withheld.as_str();
            format!(
                "the credential {credential:?} has no token: {what}. The request is not to blame, but cupbearer's \
                 configuration or what that names: see cupbearer's log"
            )
        });
        Self::new(code, detail).retry_after(seconds.max(1))
    }
}

/// What an error answer says beside the error.
#[derive(Debug, Clone, Copy)]
pub(super) struct ErrorFacts<'a> {
    pub(super) request_id: &'a str,
    pub(super) route: Option<&'a str>,
    pub(super) credential: Option<&'a str>,
    pub(super) head_only: bool,
    pub(super) close: bool,
}

/// The body, in the order in which people read it.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    blame: &'a str,
    code: &'a str,
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'a str>,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

/// Appends the whole answer to `out` (RFC 9457, RFC 9209); returns how many bytes of it are its body.
pub(super) fn write(out: &mut Vec<u8>, error: &ProxyError, facts: ErrorFacts<'_>) -> usize {
    use std::io::Write as _;
    let code = error.code;
    let problem = Problem {
        kind: format!("urn:cupbearer:error:{}", code.as_str()),
        title: code.title(),
        status: code.status(),
        detail: &error.detail,
        blame: code.blame(),
        code: code.as_str(),
        route: facts.route,
        credential: facts.credential,
        request_id: facts.request_id,
        retry_after: error.retry_after,
    };
    // Text and numbers always make valid JSON.
    let body = serde_json::to_string_pretty(&problem).unwrap_or_default() + "\n";
    // Writing to a Vec cannot fail.
    let _ = write!(out, "HTTP/1.1 {} {}\r\n", code.status(), reason(code.status()));
    let _ = write!(out, "Date: {}\r\n", httpdate::HttpDate::from(clock::turn().wall));
    let _ = write!(out, "Content-Type: application/problem+json\r\nContent-Length: {}\r\n", body.len());
    let _ = write!(out, "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
    let _ = write!(out, "Proxy-Status: cupbearer; error={}; details=\"{}\"\r\n", code.proxy_status(), code.as_str());
    if let Some(seconds) = error.retry_after {
        let _ = write!(out, "Retry-After: {seconds}\r\n");
    }
    match code {
        Code::CallerUnknown => out.extend_from_slice(b"WWW-Authenticate: Bearer realm=\"cupbearer\"\r\n"),
        Code::MethodRefused => out.extend_from_slice(b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"),
        _ => {}
    }
    if facts.close {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    let _ = write!(out, "X-Request-Id: {}\r\n\r\n", facts.request_id);
    if facts.head_only {
        return 0;
    }
    out.extend_from_slice(body.as_bytes());
    body.len()
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Error")
}
