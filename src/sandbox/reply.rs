//! Answers and their bodies.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use serde_json::Value;
use tokio::time::{Instant, Sleep};

/// The one body type.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The one answer type.
pub(super) type Reply = Response<Body>;

/// A body that is all there.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// An answer of this media type.
pub(super) fn typed(status: StatusCode, media_type: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    reply
}

/// `application/json`, laid out for people.
pub(super) fn json(status: StatusCode, value: &Value) -> Reply {
    let mut text = String::new();
    lay_out(value, 0, &mut text);
    text.push('\n');
    typed(status, "application/json", full(text))
}

/// Short values stand on one line, and the echo comes last: what a newcomer asked for is seen first.
fn lay_out(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth + 1);
    let flat = value.to_string();
    let (open, close, items): (_, _, Vec<(String, &Value)>) = match value {
        Value::Array(items) if depth == 0 || flat.len() > 110 => {
            ('[', ']', items.iter().map(|item| (String::new(), item)).collect())
        }
        Value::Object(members) if depth == 0 || flat.len() > 110 => {
            let (echo, own): (Vec<_>, Vec<_>) = members.iter().partition(|(name, _)| *name == "_echo");
            let named = |(name, value): (&String, _)| (format!("{}: ", Value::from(name.as_str())), value);
            ('{', '}', own.into_iter().chain(echo).map(named).collect())
        }
        _ => return out.push_str(&flat),
    };
    out.push(open);
    for (at, (name, item)) in items.iter().enumerate() {
        out.push_str(if at == 0 { "\n" } else { ",\n" });
        out.push_str(&indent);
        out.push_str(name);
        lay_out(item, depth + 1, out);
    }
    out.push('\n');
    out.push_str(&indent[2..]);
    out.push(close);
}

/// `text/plain`
pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Reply {
    typed(status, "text/plain; charset=utf-8", full(text.into()))
}

/// Nothing but a status.
pub(super) fn bare(status: StatusCode) -> Reply {
    let mut reply = Response::new(full(Bytes::new()));
    *reply.status_mut() = status;
    reply
}

/// Sets a header, replacing what was there. A value that is not legal is left out.
pub(super) fn with(mut reply: Reply, name: HeaderName, value: &str) -> Reply {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
    reply
}

/// Pieces with a pause between each, with or without a known length: drips and event streams.
pub(super) struct Paced<F> {
    /// The n-th piece; `None` = end.
    piece: F,
    next: u64,
    interval: Duration,
    length: Option<u64>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<F: FnMut(u64) -> Option<Bytes> + Send + Unpin + 'static> Paced<F> {
    /// The first piece comes at once. `length` makes a Content-Length, else the body is chunked.
    pub(super) fn body(interval: Duration, length: Option<u64>, piece: F) -> Body {
        Self { piece, next: 0, interval, length, pause: None }.boxed_unsync()
    }
}

impl<F: FnMut(u64) -> Option<Bytes> + Unpin> HttpBody for Paced<F> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if let Some(pause) = &mut this.pause {
            std::task::ready!(pause.as_mut().poll(cx));
            this.pause = None;
        }
        let piece = (this.piece)(this.next);
        this.next += 1;
        if !this.interval.is_zero() {
            this.pause = Some(Box::pin(tokio::time::sleep_until(Instant::now() + this.interval)));
        }
        Poll::Ready(piece.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Bytes one by one.
pub(super) fn drip(bytes: Bytes, interval: Duration) -> Body {
    let length = bytes.len() as u64;
    Paced::body(interval, Some(length), move |n| {
        let at = usize::try_from(n).ok().filter(|at| *at < bytes.len())?;
        Some(bytes.slice(at..=at))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn laid_out_json_is_the_same_json_with_the_echo_last() {
        let long = "x".repeat(200);
        for value in [
            json!({ "_echo": { "a": [1, 2], "b": long, "c\"d": {} }, "data": [], "z": null }),
            json!([]),
            json!([[long, long], { "e": [] }]),
            json!("text"),
        ] {
            let mut text = String::new();
            lay_out(&value, 0, &mut text);
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value, "{text}");
            assert!(text.find("_echo").is_none_or(|echo| text.find("\"z\"").unwrap() < echo), "{text}");
        }
    }
}
