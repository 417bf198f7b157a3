//! From a request to its answer: strictness, faults, and who is asked.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{
    api,
    connection::{Conn, UnderWay},
    content::Content,
    control,
    fault::{Answer, Fault, Plan, RetryAfter, Wire},
    head::Head,
    idp, login,
    provider::{Place, Provider, Side, place},
    reply::{Reply, bare, drip, full, json, text, typed, with},
    server::{Call, Shared},
};

/// Token requests and orders are no longer than this.
const SMALL: usize = 64 * 1024;

/// Answers that a play sends are no longer than this.
const PLAYED: usize = 1024 * 1024;

/// A body that has to be small; `None` where it is not, or breaks off.
pub(super) async fn small(body: Incoming) -> Option<Bytes> {
    Limited::new(body, SMALL).collect().await.ok().map(http_body_util::Collected::to_bytes)
}

/// Answers one request, or hands the connection over to a play.
pub(super) async fn handle(conn: &Conn, request: Request<Incoming>, under_way: &mut UnderWay) -> Reply {
    let shared = &*conn.shared;
    let Some(head) = conn.heads.take().map(|bytes| Head::parse(&bytes)) else {
        return refuse(shared, "a head that cannot be told apart from its body");
    };
    let objection = if head.method == request.method().as_str() { head.objection() } else { Some("a malformed head") };
    if let Some(why) = objection {
        return refuse(shared, why);
    }
    let call = Call { head, peer: conn.peer };
    let place = place(call.head.path());
    let (provider, side) = match place {
        Place::Control(path) => return control::respond(shared, &call, path, request.into_body()).await,
        Place::Login(path) if place.target().is_none() => {
            return login(shared, &call, path, Some(request.into_body()), &Fault::default()).await;
        }
        Place::Nowhere => {
            let known = Provider::all().map(Provider::name).collect::<Vec<_>>().join(", /");
            return text(StatusCode::NOT_FOUND, format!("nothing is here; the sandbox has /{known} and /_sandbox\n"));
        }
        _ => place.target().unwrap_or((Provider::Ipxo, Side::Api)),
    };
    under_way.concerns(provider, side);
    if side == Side::Api {
        shared.book().api(call.head.path(), call.head.one("x-request-id"));
    }
    let fault = shared.faults().take(provider, side, call.head.path());
    if let Some(delay) = fault.slow {
        tokio::time::sleep(delay).await;
    }
    let reply = played(conn, &call, place, request.into_body(), &fault).await;
    if provider == Provider::MythicBeasts { keep_alive(conn, reply) } else { reply }
}

/// 400, and no further request on this connection.
fn refuse(shared: &Shared, why: &str) -> Reply {
    shared.book().refused(why);
    with(text(StatusCode::BAD_REQUEST, format!("bad request: {why}\n")), header::CONNECTION, "close")
}

/// The answer under an ordered fault of the connection.
async fn played(conn: &Conn, call: &Call, place: Place<'_>, body: Incoming, fault: &Fault) -> Reply {
    let Some(wire) = fault.wire else {
        return ordered(&conn.shared, call, place, Some(body), fault).await;
    };
    let to_head = call.head.method == "HEAD";
    match wire {
        Wire::Down | Wire::Close | Wire::Hang | Wire::Upgrade | Wire::Garbage => {
            conn.hand_over(Plan::new(wire, Response::new(Bytes::new()), to_head)).await
        }
        Wire::Early | Wire::EarlyClose => {
            let reply = ordered(&conn.shared, call, place, None, fault).await;
            conn.hand_over(Plan::new(wire, held(reply).await, to_head)).await
        }
        Wire::Reset | Wire::Truncated | Wire::TruncatedChunked | Wire::Conflict | Wire::Surplus => {
            let reply = ordered(&conn.shared, call, place, Some(body), fault).await;
            conn.hand_over(Plan::new(wire, held(reply).await, to_head)).await
        }
        Wire::Drip => {
            let reply = ordered(&conn.shared, call, place, Some(body), fault).await;
            let (parts, body) = held(reply).await.into_parts();
            Response::from_parts(parts, drip(body, fault.interval.unwrap_or_default()))
        }
    }
}

/// The whole answer in memory; of a long body only its beginning.
async fn held(reply: Reply) -> Response<Bytes> {
    let (parts, mut body) = reply.into_parts();
    let mut bytes = Vec::new();
    while bytes.len() < PLAYED {
        let Some(Ok(frame)) = body.frame().await else { break };
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(data);
        }
    }
    bytes.truncate(PLAYED);
    Response::from_parts(parts, bytes.into())
}

/// An ordered answer, or the real one.
async fn ordered(shared: &Shared, call: &Call, place: Place<'_>, body: Option<Incoming>, fault: &Fault) -> Reply {
    if let Some(answer) = fault.answer {
        if let Some(body) = body {
            api::drain(body).await;
        }
        return instead(shared, place, answer, fault);
    }
    match place {
        Place::Api(provider, need, rest) => api::respond(shared, call, (provider, need, rest), body, fault).await,
        Place::Token(provider) => token(shared, call, provider, false, body, fault).await,
        Place::Refresh => token(shared, call, Provider::IxApi, true, body, fault).await,
        Place::Login(path) => login(shared, call, path, body, fault).await,
        Place::Control(_) | Place::Nowhere => bare(StatusCode::NOT_FOUND),
    }
}

async fn login(shared: &Shared, call: &Call, path: &str, body: Option<Incoming>, fault: &Fault) -> Reply {
    let bytes = match body {
        Some(body) => small(body).await,
        None => Some(Bytes::new()),
    };
    match bytes {
        Some(bytes) => login::respond(shared, call, path, &bytes, fault),
        None => text(StatusCode::PAYLOAD_TOO_LARGE, "a login is small\n"),
    }
}

async fn token(
    shared: &Shared,
    call: &Call,
    provider: Provider,
    refresh: bool,
    body: Option<Incoming>,
    fault: &Fault,
) -> Reply {
    let bytes = match body {
        Some(body) => small(body).await,
        None => Some(Bytes::new()),
    };
    match bytes {
        Some(bytes) => idp::respond(shared, call, provider, refresh, &bytes, fault),
        None => text(StatusCode::PAYLOAD_TOO_LARGE, "a token request is small\n"),
    }
}

/// The answer that was ordered in the place of the real one.
fn instead(shared: &Shared, place: Place<'_>, answer: Answer, fault: &Fault) -> Reply {
    match answer {
        Answer::Status(code) => status(place, code, fault),
        Answer::Html => {
            let page = "<!DOCTYPE html><html><head><title>Maintenance</title></head><body>Back soon.</body></html>\n";
            typed(StatusCode::OK, "text/html; charset=utf-8", full(page))
        }
        Answer::Empty => typed(StatusCode::OK, "application/json", full("")),
        Answer::Big => big(&shared.content),
        Answer::Redirect => {
            let to = format!("{}/_sandbox/redirected", shared.base_url);
            with(bare(StatusCode::FOUND), header::LOCATION, &to)
        }
        Answer::ErrorInOk => {
            let code = fault.error.as_deref().unwrap_or("temporarily_unavailable");
            json(StatusCode::OK, &json!({ "error": code, "error_description": "ordered from the sandbox" }))
        }
    }
}

fn status(place: Place<'_>, code: u16, fault: &Fault) -> Reply {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let reply = match place {
        _ if matches!(code, 204 | 205 | 304) => bare(status),
        Place::Api(provider, ..) => api::error(provider, status, "ordered", "ordered from the sandbox"),
        _ => {
            let usual = match code {
                401 => "invalid_client",
                403 => "access_denied",
                429 => "slow_down",
                400..=499 => "invalid_request",
                _ => "server_error",
            };
            let code = fault.error.as_deref().unwrap_or(usual);
            json(status, &json!({ "error": code, "error_description": "ordered from the sandbox" }))
        }
    };
    match fault.retry_after {
        None => reply,
        Some(RetryAfter::Seconds(seconds)) => with(reply, header::RETRY_AFTER, &seconds.to_string()),
        Some(RetryAfter::Date(seconds)) => with(reply, header::RETRY_AFTER, &http_date(seconds)),
        Some(RetryAfter::Garbage) => with(reply, header::RETRY_AFTER, "soon"),
    }
}

/// The HTTP date that lies so many seconds ahead.
fn http_date(seconds: u64) -> String {
    let ahead = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    let at = Timestamp::now().checked_add(ahead).unwrap_or(Timestamp::MAX);
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// 10 MiB that begin like a token answer.
fn big(content: &Content) -> Reply {
    const SIZE: u64 = 10 * 1024 * 1024;
    let letters = content.letters();
    let mut sent = 0;
    let body = super::reply::Paced::body(std::time::Duration::ZERO, None, move |n| {
        if n == 0 {
            return Some(Bytes::from_static(b"{\"padding\":\""));
        }
        if sent >= SIZE {
            let end = (sent == SIZE).then(|| Bytes::from_static(b"\"}"));
            sent += 1;
            return end;
        }
        sent += letters.len() as u64;
        Some(letters.clone())
    });
    typed(StatusCode::OK, "application/json", body)
}

/// Apache's keep-alive: told in the answer, and really kept to.
fn keep_alive(conn: &Conn, reply: Reply) -> Reply {
    const MAX_REQUESTS: u64 = 101;
    let limit = conn.shared.options.mythic_keep_alive;
    conn.limit_idle(limit);
    let left = MAX_REQUESTS.saturating_sub(conn.requests.load(Ordering::Relaxed));
    if left == 0 {
        return with(reply, header::CONNECTION, "close");
    }
    let told = format!("timeout={}, max={left}", limit.as_secs());
    with(with(reply, header::CONNECTION, "Keep-Alive"), http::HeaderName::from_static("keep-alive"), &told)
}
