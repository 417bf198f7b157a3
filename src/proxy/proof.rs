//! 5 … where the token is bound to a key, the proof that goes with it (RFC 9449 section 7), and what an upstream's answer says
//! about the next one.
//!
//! The proof is signed here, on the core that sends the request: there is nobody to wait for, and no lock. The nonce that an
//! upstream wants is kept with its origin, for all cores, so that a large body is not refused once on each of them.

use std::sync::Arc;

use super::{
    error::{Code, ProxyError},
    forward::Request,
};
use crate::{
    rules::challenge::blames_proof,
    snapshot::{Origin, Route},
    token::bearer::{Facts, Now, Prover, Terms, shifted},
    wire::{Kind, ResponseHead},
};

/// What a proof was made with.
pub(super) struct Used {
    terms: Arc<Terms>,
    /// They are of an earlier answer to this very request, and nobody else knows them yet.
    are_told: bool,
    skew: i64,
    at: Now,
}

/// What an answer says about the proof of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Fine,
    /// It was no good, but the answer says what makes a better one: this request can be sent again with it.
    Mendable(Arc<Terms>),
    /// The same, for the next request.
    Learned,
    /// It was no good.
    Refused,
}

/// Appends the proof for `request` to `out`. `told`: by the answer to an earlier one of the same request.
pub(super) fn prove(
    prover: &Prover,
    route: &Route,
    origin: &Origin,
    told: Option<&Arc<Terms>>,
    request: &Request<'_>,
    now: Now,
    out: &mut String,
) -> Result<Used, ProxyError> {
    let terms = told.cloned().unwrap_or_else(|| origin.terms.load_full());
    let skew = terms.skew.unwrap_or_else(|| prover.skew());
    let mut url = Vec::with_capacity(256);
    route.headers.url(&mut url, &route.spec.upstream, request.head, request.bytes, request.rest);
    let method = request.head.method(request.bytes);
    let facts = Facts { method, url: &url, at: shifted(now.wall, skew), nonce: terms.nonce.as_deref() };
    prover.prove(&facts, out).map_err(|why| {
        ProxyError::new(Code::SecretUnavailable, format!("no proof for the token could be made: {why}"))
    })?;
    Ok(Used { terms, are_told: told.is_some(), skew, at: now })
}

/// Learns from the answer to a request whose proof was made with `used`: from every one the nonce, from one that refuses the
/// proof the time too. What it learns is for all cores, unless it is of use to this request itself (`can_mend`): an upstream may
/// take each nonce only once.
pub(super) fn judge(origin: &Origin, used: &Used, can_mend: bool, head: &ResponseHead, bytes: &[u8]) -> Verdict {
    let mut told = Arc::clone(&used.terms);
    if let Some(terms) = head.values(bytes, Kind::DpopNonce).next().and_then(|nonce| told.with_nonce(nonce)) {
        told = Arc::new(terms);
    }
    let refused = head.status == 401 && blames_proof(head.values(bytes, Kind::WwwAuthenticate));
    if refused && let Some(terms) = date(head, bytes).and_then(|date| used.with_clock(&told, date)) {
        told = Arc::new(terms);
    }
    let is_new = told != used.terms;
    if refused && is_new && can_mend {
        return Verdict::Mendable(told);
    }
    if is_new || used.are_told {
        // Most answers bring nothing new. Of two that learn at once one may be lost: both are good.
        origin.terms.store(told);
    }
    match refused {
        false => Verdict::Fine,
        true if is_new && !used.are_told => Verdict::Learned,
        true => Verdict::Refused,
    }
}

impl Used {
    fn with_clock(&self, told: &Terms, date: &[u8]) -> Option<Terms> {
        let sent = self.at.wall;
        told.with_clock(date, sent, sent + self.at.mono.elapsed(), self.skew)
    }
}

fn date<'a>(head: &ResponseHead, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let date = head.fields.iter().find(|field| field.name(bytes).eq_ignore_ascii_case(b"date"));
    date.map(|field| field.value(bytes))
}
