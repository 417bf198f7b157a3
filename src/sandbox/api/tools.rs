//! Endpoints that stand below every API, known by their last segments:
//!
//! | path | answers |
//! |---|---|
//! | `…/echo`, `…/echo/…`, `…/upload` | the echo, also for bodies of any size |
//! | `…/status/N` | that status (204 and 304 without a body) |
//! | `…/download?size=N` | N bytes that never change; `chunked`: without a length; `digest`: `X-Sha256` also for more than 16 MiB; `type=pdf\|zip\|csv` |
//! | `…/events?count=N&interval=MS` | server-sent events, chunked |
//! | `…/cookies` | two `Set-Cookie` |
//! | `…/links` | `Link` and `Content-Location` with absolute URLs |
//! | `…/redirect?status=N` | a redirect with an absolute `Location` to the `…/echo` beside it; `relative`, `foreign` |

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;

use super::Asked;
use crate::sandbox::reply::{Paced, Reply, bare, json, text, typed, with};

/// The answer of the tool that the path ends in, if it does.
pub(super) async fn answer(asked: &Asked<'_>, echo: &Value) -> Option<Reply> {
    let segments = asked.segments();
    if segments.contains(&"echo") || segments.last() == Some(&"upload") {
        return Some(json(StatusCode::OK, echo));
    }
    match segments.as_slice() {
        [.., "status", code] => Some(status(code, echo)),
        [.., "download"] => Some(download(asked).await),
        [.., "events"] => Some(events(asked)),
        [.., "cookies"] => Some(cookies(asked, echo)),
        [.., "links"] => Some(links(asked, echo)),
        [.., "redirect"] => Some(redirect(asked)),
        _ => None,
    }
}

fn status(code: &str, echo: &Value) -> Reply {
    let code = code.parse().ok().and_then(|c| StatusCode::from_u16(c).ok()).filter(|c| !c.is_informational());
    match code {
        None => text(StatusCode::BAD_REQUEST, "there is no such final status\n"),
        Some(code @ (StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::RESET_CONTENT)) => bare(code),
        Some(code) => json(code, echo),
    }
}

async fn download(asked: &Asked<'_>) -> Reply {
    let head = &asked.call.head;
    let Ok(size) = head.param("size").unwrap_or("1048576").parse::<u64>() else {
        return text(StatusCode::BAD_REQUEST, "size is a number of bytes\n");
    };
    let (media_type, name) = match head.param("type") {
        Some("zip") => ("application/zip", "archive.zip"),
        Some("csv") => ("text/csv", "list.csv"),
        _ => ("application/pdf", "invoice.pdf"),
    };
    let body = asked.content().body(size, head.param("chunked").is_none());
    let mut reply = typed(StatusCode::OK, media_type, body);
    reply = with(reply, header::CONTENT_DISPOSITION, &format!("attachment; filename=\"{name}\""));
    if size <= 16 * 1024 * 1024 || head.param("digest").is_some() {
        let digest = asked.content().digest(size).await;
        reply = with(reply, http::HeaderName::from_static("x-sha256"), &digest);
    }
    reply
}

fn events(asked: &Asked<'_>) -> Reply {
    let number = |name, usual: u64| asked.call.head.param(name).and_then(|v| v.parse().ok()).unwrap_or(usual);
    let (count, interval) = (number("count", 5), Duration::from_millis(number("interval", 100)));
    let body = Paced::body(interval, None, move |n| {
        (n < count).then(|| Bytes::from(format!("id: {n}\nevent: tick\ndata: {{\"n\":{n}}}\n\n")))
    });
    with(typed(StatusCode::OK, "text/event-stream", body), header::CACHE_CONTROL, "no-cache")
}

fn cookies(asked: &Asked<'_>, echo: &Value) -> Reply {
    let path = asked.call.head.path();
    let parent = path.rsplit_once('/').map_or("/", |(parent, _)| parent);
    let mut reply = json(StatusCode::OK, echo);
    let domain = asked.shared.address.ip();
    for cookie in [
        format!("session=not-a-secret; Path={parent}; HttpOnly; SameSite=Lax"),
        format!("theme=dark; Domain={domain}; Path=/; Max-Age=3600"),
    ] {
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            reply.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    reply
}

fn links(asked: &Asked<'_>, echo: &Value) -> Reply {
    let here = asked.url(asked.call.head.path());
    let link =
        format!("<{here}?page=2>; rel=\"next\", <{here}?page=9>; rel=\"last\", <https://example.com/>; rel=\"help\"");
    let reply = with(json(StatusCode::OK, echo), header::LINK, &link);
    with(reply, header::CONTENT_LOCATION, &here)
}

fn redirect(asked: &Asked<'_>) -> Reply {
    let head = &asked.call.head;
    let status = head.param("status").and_then(|s| s.parse().ok()).and_then(|s| StatusCode::from_u16(s).ok());
    let status = status.filter(StatusCode::is_redirection).unwrap_or(StatusCode::FOUND);
    let path = head.path();
    let beside = format!("{}/echo?redirected", path.rsplit_once('/').map_or("", |(parent, _)| parent));
    let location = if head.param("relative").is_some() {
        beside
    } else if head.param("foreign").is_some() {
        "https://example.com/elsewhere".to_owned()
    } else {
        asked.url(&beside)
    };
    with(bare(status), header::LOCATION, &location)
}
