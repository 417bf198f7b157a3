//! Faults and odd replies to order.
//!
//! [`FaultSpec`] is what is ordered (`mythic.idp=down,times:2`), the table holds what is armed, and the
//! raw plays are the faults that no HTTP library would let us send.

mod raw;
mod spec;
mod table;

use std::time::Duration;

pub(super) use spec::target;
pub use spec::{FaultSpec, GRAMMAR, SpecError};

pub(super) use raw::Plan;
pub(super) use table::Table;

/// What happens to one request: every part is independent of the others.
#[derive(Debug, Clone, Default, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub(super) struct Fault {
    /// Wait before anything else.
    pub(super) slow: Option<Duration>,
    /// What the connection does.
    pub(super) wire: Option<Wire>,
    /// What is answered instead of the real answer.
    pub(super) answer: Option<Answer>,
    /// `error` member of an ordered status.
    pub(super) error: Option<String>,
    /// `Retry-After` of an ordered status.
    pub(super) retry_after: Option<RetryAfter>,
    /// Interval of `drip`.
    pub(super) interval: Option<Duration>,
    /// Lifetime of tokens minted while this stands.
    pub(super) ttl: Option<Duration>,
    /// How the lifetime is told.
    pub(super) expires: Option<Expires>,
    /// The token stands at `/data/token`.
    pub(super) nested: bool,
    /// The answer is form-encoded.
    pub(super) form: bool,
    /// What `token_type` says.
    pub(super) token_type: Option<String>,
    /// A client is locked after so many failed logins.
    pub(super) lock: Option<u32>,
    /// One token for all requests, with the rest of its life as `expires_in`.
    pub(super) shared: bool,
    /// Every token is refused with 401.
    pub(super) reject: bool,
}

impl Fault {
    /// Whether it changes how tokens are given out.
    fn is_about_tokens(&self) -> bool {
        let told = self.ttl.is_some() || self.expires.is_some() || self.token_type.is_some();
        told || self.nested || self.form || self.shared || self.lock.is_some()
    }

    /// Lays another fault over this one: what it says wins.
    pub(super) fn lay_over(&mut self, top: &Self) {
        fn over<T: Clone>(below: &mut Option<T>, top: Option<&T>) {
            if let Some(value) = top {
                *below = Some(value.clone());
            }
        }
        over(&mut self.slow, top.slow.as_ref());
        over(&mut self.wire, top.wire.as_ref());
        over(&mut self.answer, top.answer.as_ref());
        over(&mut self.error, top.error.as_ref());
        over(&mut self.retry_after, top.retry_after.as_ref());
        over(&mut self.interval, top.interval.as_ref());
        over(&mut self.ttl, top.ttl.as_ref());
        over(&mut self.expires, top.expires.as_ref());
        over(&mut self.token_type, top.token_type.as_ref());
        over(&mut self.lock, top.lock.as_ref());
        self.nested |= top.nested;
        self.form |= top.form;
        self.shared |= top.shared;
        self.reject |= top.reject;
    }
}

/// Faults of the connection. All but `Drip` leave HTTP behind and close the connection afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// Reset without a byte.
    Down,
    /// Closed without a byte.
    Close,
    /// Never a byte.
    Hang,
    /// Reset in the middle of the body.
    Reset,
    /// The body byte by byte.
    Drip,
    /// Content-Length promises more than is sent, then closed.
    Truncated,
    /// A chunked body without its end, then closed.
    TruncatedChunked,
    /// Both Content-Length and Transfer-Encoding.
    Conflict,
    /// Answered before the request's body was read; the body is read afterwards.
    Early,
    /// Answered before the request's body was read, then closed with the body unread.
    EarlyClose,
    /// Another answer that nobody asked for, right behind the first.
    Surplus,
    /// `101 Switching Protocols` that nobody asked for.
    Upgrade,
    /// An answer that is not HTTP.
    Garbage,
}

/// Answers that replace the real one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// This status with an error body.
    Status(u16),
    /// 200 with an HTML page.
    Html,
    /// 200 with nothing.
    Empty,
    /// 200 with 10 MiB of JSON.
    Big,
    /// 302 to a place that takes notes.
    Redirect,
    /// 200 with an `error` member.
    ErrorInOk,
}

/// Ways to tell a lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expires {
    /// `"3600"`
    Text,
    /// Milliseconds.
    Millis,
    /// `3600.0`
    Float,
    /// Not at all.
    Missing,
    /// `0`
    Zero,
    /// `-3600`
    Negative,
    /// `"3600abc"`
    Garbage,
}

/// `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryAfter {
    /// Delay seconds.
    Seconds(u64),
    /// The date that lies so many seconds ahead.
    Date(u64),
    /// Something that is neither.
    Garbage,
}
