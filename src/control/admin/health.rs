//! Readiness: the listeners stand as soon as anybody can ask; what is waited for are tokens with `warm = "always"`.

use http::Response;
use serde_json::json;

use super::{
    Sources,
    answer::{Body, json as object},
};
use crate::{config::model::Warm, token::TokenStatus};

/// 200 where requests may come, else 503.
pub(super) fn ready(sources: &Sources) -> Response<Body> {
    let tokens = sources.engine.status();
    let waiting = |token: &TokenStatus| token.warm == Warm::Always && !token.was_tried();
    let ready = !sources.is_draining() && !tokens.iter().any(waiting);
    let credential = |token: &TokenStatus| {
        json!({
            "name": token.credential,
            "key": token.key.to_string(),
            "state": state(token),
            "tried": token.was_tried(),
            "waited_for": waiting(token),
        })
    };
    let credentials: Vec<_> = tokens.iter().map(credential).collect();
    let value = json!({ "ready": ready, "draining": sources.is_draining(), "credentials": credentials });
    object(if ready { 200 } else { 503 }, &value)
}

/// Where a token stands; `failed` where there is none to use and the last attempt gave none.
pub(super) fn state(token: &TokenStatus) -> &'static str {
    if token.failing && matches!(token.state, "empty" | "expired") { "failed" } else { token.state }
}
