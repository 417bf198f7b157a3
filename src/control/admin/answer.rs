//! Answers of the admin address. None is to be kept, guessed at or framed by a browser.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use serde_json::{Value, json};

use crate::{
    config::{Diagnostic, Problems},
    proxy::Code,
};

/// A whole body, or only its length (`HEAD`).
pub(super) struct Body {
    content: Option<Bytes>,
    length: u64,
}

impl Body {
    /// The same in answer to `HEAD`.
    pub(super) fn without_content(self) -> Self {
        Self { content: None, length: self.length }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.get_mut().content.take().map(|content| Ok(Frame::data(content))))
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

/// An answer of this type.
pub(super) fn text(status: u16, content_type: &'static str, content: String) -> Response<Body> {
    let length = content.len() as u64;
    let mut response = Response::new(Body { length, content: Some(content.into()) });
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// An object.
pub(super) fn json(status: u16, value: &Value) -> Response<Body> {
    text(status, "application/json", format!("{value:#}\n"))
}

/// A reload that went well.
pub(super) fn applied(generation: u64, restart: &[&str]) -> Response<Body> {
    json(200, &json!({ "applied": true, "generation": generation, "restart_needed": restart }))
}

/// A reload that did not.
pub(super) fn rejected(detail: &str, problems: Option<&Problems>) -> Response<Body> {
    let problems: Vec<Value> = problems.iter().flat_map(|p| &p.0).map(Diagnostic::to_json).collect();
    let value = json!({
        "type": "urn:cupbearer:error:config_rejected",
        "title": "The configuration was not applied; the one before stays",
        "status": 422,
        "detail": detail,
        "blame": "config",
        "code": "config_rejected",
        "problems": problems,
    });
    text(422, PROBLEM, format!("{value:#}\n"))
}

const PROBLEM: &str = "application/problem+json";

/// A refusal (RFC 9457), in the words of the proxy's own.
pub(super) fn problem(code: Code, detail: &str) -> Response<Body> {
    let (status, name) = (code.status(), code.as_str());
    let value = json!({
        "type": format!("urn:cupbearer:error:{name}"),
        "title": if code == Code::NoRoute { "There is nothing here" } else { code.title() },
        "status": status,
        "detail": detail,
        "blame": code.blame(),
        "code": name,
    });
    text(status, PROBLEM, format!("{value:#}\n"))
}
