//! A request's body: counted and hashed as it streams by; only a small one is kept as text.

use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::sandbox::digest::Running;

/// Bodies up to this size are kept.
const KEPT: usize = 16 * 1024;

/// What is known of a body.
pub(in crate::sandbox) struct Payload {
    pub(super) length: u64,
    pub(super) sha256: String,
    /// The body itself, where it is small.
    pub(super) small: Option<Vec<u8>>,
    /// Names of its trailer fields and their values.
    pub(super) trailers: Vec<(String, String)>,
    /// It ended as its framing promised.
    pub(super) complete: bool,
}

impl Payload {
    /// Reads the body to its end in constant memory; no body is an empty one.
    pub(in crate::sandbox) async fn take(body: Option<Incoming>) -> Self {
        let (mut running, mut small, mut trailers) = (Running::new(), Some(Vec::new()), Vec::new());
        let mut complete = true;
        if let Some(mut body) = body {
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else {
                    complete = false;
                    break;
                };
                if let Some(data) = frame.data_ref() {
                    running.update(data);
                    small = small.filter(|s| s.len() + data.len() <= KEPT);
                    if let Some(small) = &mut small {
                        small.extend_from_slice(data);
                    }
                } else if let Some(fields) = frame.trailers_ref() {
                    let text = |value: &http::HeaderValue| value.as_bytes().iter().map(|b| char::from(*b)).collect();
                    trailers = fields.iter().map(|(n, v)| (n.to_string(), text(v))).collect();
                }
            }
        }
        let (length, sha256) = running.finish();
        Self { length, sha256, small, trailers, complete }
    }

    /// A small body that is text.
    pub(super) fn text(&self) -> Option<&str> {
        self.small.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }
}

/// Reads a body away.
pub(in crate::sandbox) async fn drain(mut body: Incoming) {
    while let Some(Ok(_)) = body.frame().await {}
}
