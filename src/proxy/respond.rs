//! 7 respond — cleans the answer's head, keeps its references behind the prefix, streams its body.

use super::{
    clock,
    exchange::{Broken, Exchange},
    forward::{Next, Request, Response},
    worker::Core,
};
use crate::{
    rules::headers::{ResponseFacts, ResponseField, write_response},
    wire::{Framing, Kind, ResponseHead, Version},
};

/// What an answer depends on beside the upstream's response.
pub(super) struct Answer<'a> {
    pub(super) core: &'a Core,
    pub(super) request: &'a Request<'a>,
    pub(super) draining: bool,
    /// Why a rejected token was not replaced in this request; empty = it was not rejected.
    pub(super) marker: &'static str,
}

/// Sends the whole answer to the caller.
pub(super) async fn respond(
    exchange: &mut Exchange<'_>,
    answer: &Answer<'_>,
    response: &Response,
) -> Result<Next, Broken> {
    let request = answer.request;
    let told = response.head.framing(request.head.method(request.bytes));
    let from = exchange.up.io.reads(told);
    let to = framing_for(request.head.version, told);
    let keep = request.head.keeps_alive(request.bytes)
        && (to != Framing::UntilClose || request.head.version == Version::H2)
        && !answer.draining
        && exchange.upload.source_is_done();
    let head = head(answer, response, &exchange.up.buf.filled()[..response.length], told, to, keep);
    exchange.up.buf.consume(response.length);
    let ends_with_the_connection = to == Framing::UntilClose && request.head.version == Version::H10;
    if ends_with_the_connection {
        exchange.caller.side.io.reset_on_close(true);
    }
    exchange.respond(response.head.status, head, from, to).await?;
    if ends_with_the_connection {
        exchange.caller.side.io.reset_on_close(false);
    }
    Ok(if keep { Next::KeepAlive } else { Next::Close })
}

/// An HTTP/1.1 caller is always told where the body ends; an HTTP/1.0 caller may not know chunks.
fn framing_for(version: Version, from: Framing) -> Framing {
    match (from, version) {
        (Framing::Chunked | Framing::UntilClose, Version::H11) => Framing::Chunked,
        (Framing::Chunked | Framing::UntilClose, Version::H10 | Version::H2) => Framing::UntilClose,
        (told, _) => told,
    }
}

fn head(answer: &Answer<'_>, response: &Response, bytes: &[u8], told: Framing, to: Framing, keep: bool) -> Vec<u8> {
    let version = answer.request.head.version;
    let connection: &[u8] = match (keep, version) {
        (_, Version::H2) | (true, Version::H11) => b"",
        (false, _) => b"close",
        (true, Version::H10) => b"keep-alive",
    };
    let proxy_status = if answer.marker.is_empty() {
        String::new()
    } else {
        let status = response.head.status;
        format!("cupbearer; error=http_request_denied; received-status={status}; details=\"{}\"", answer.marker)
    };
    let status = response.head.status;
    let facts = ResponseFacts {
        framing: to,
        // HEAD and 304 tell the length that GET would have; 1xx and 204 must not (RFC 9110 section 8.6).
        told_length: told == Framing::None && status >= 200 && status != 204,
        request_id: answer.request.id.as_bytes(),
        connection,
        websocket: false,
        proxy_status: proxy_status.as_bytes(),
        date: Some(clock::turn().wall),
    };
    let mut out = Vec::with_capacity(bytes.len() + 256);
    let index = answer.request.route;
    write_response(&mut out, &response.head, bytes, facts, |kind, value| {
        behind_prefix(answer.core, index, kind, value)
    });
    out
}

/// Keeps what a field refers to behind the route's prefix.
fn behind_prefix(core: &Core, route: usize, kind: Kind, value: &[u8]) -> ResponseField {
    let mappings = &core.snapshot.mappings;
    let replaced = match kind {
        Kind::Location | Kind::ContentLocation => mappings.location(value, route),
        Kind::Link => mappings.link(value, route),
        Kind::Refresh => mappings.refresh(value, route),
        Kind::SetCookie => Some(mappings.set_cookie(value, route)),
        // Between the upstream and us: the caller makes no proofs.
        Kind::DpopNonce if core.snapshot.routes[route].spec.token.credential.dpop => return ResponseField::Drop,
        _ => None,
    };
    replaced.map_or(ResponseField::Keep, ResponseField::Replace)
}

/// The head of an informational response (1xx) for the caller; 101 only where a WebSocket was asked for.
pub(super) fn informational(core: &Core, request: &Request<'_>, head: &ResponseHead, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let facts = ResponseFacts {
        framing: Framing::None,
        told_length: false,
        request_id: request.id.as_bytes(),
        connection: b"",
        websocket: head.status == 101,
        proxy_status: b"",
        date: None,
    };
    write_response(&mut out, head, bytes, facts, |kind, value| behind_prefix(core, request.route, kind, value));
    out
}
