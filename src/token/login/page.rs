//! The page that the browser shows at the end: no script, no style, no secret.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

/// A status, a heading and a text.
#[derive(Debug)]
pub(super) struct Page {
    status: StatusCode,
    heading: &'static str,
    text: String,
}

/// Nothing is loaded, nothing runs, nothing is sent from here, nobody frames it, and no address goes elsewhere.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (header::CONNECTION, "close"),
];

impl Page {
    /// It is done and stored.
    pub(super) fn done(credential: &str) -> Self {
        let text = format!("cupbearer is logged in as {credential}. You can close this window.");
        Self { status: StatusCode::OK, heading: "Logged in", text }
    }

    /// It came to nothing.
    pub(super) fn failed(credential: &str, why: &str) -> Self {
        let text = format!("The login for {credential} has failed: {why}");
        Self { status: StatusCode::BAD_REQUEST, heading: "Not logged in", text }
    }

    /// The command has ended meanwhile.
    pub(super) fn late() -> Self {
        let text = "The login has been given up. Start it again.".to_owned();
        Self { status: StatusCode::GONE, heading: "Not logged in", text }
    }

    /// Not what is waited for.
    pub(super) fn refused(status: StatusCode, why: &str) -> Self {
        Self { status, heading: "Not here", text: format!("cupbearer waits for a login: {why}.") }
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let Self { status, heading, text } = self;
        let html = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{heading}</title></head>\n\
             <body><h1>{heading}</h1><p>{}</p></body>\n</html>\n",
            escaped(&text)
        );
        let mut response = Response::new(Full::new(Bytes::from(html)));
        *response.status_mut() = status;
        for (name, value) in HEADERS {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Text for HTML: nothing of it is markup.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push_str("<br>"),
            other => out.push(other),
        }
    }
    out
}
