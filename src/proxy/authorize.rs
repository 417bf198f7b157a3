//! 5 authorize — reads the route's bearer, or waits for it with a deadline. No request fetches a token.

use std::time::Duration;

use super::{clock, error::ProxyError};
use crate::{
    net::Identity,
    snapshot::Route,
    token::bearer::{Bearer, Decision, Now, Unavailable},
};

/// Beyond the token call's own timeout: queueing, connecting, publishing.
const SLACK: Duration = Duration::from_secs(1);

/// The certificate that the token was got with, which may be bound to it (RFC 8705 section 3): the upstream must see
/// the same. Costs nothing where the credential has none.
pub(super) fn identity(route: &Route, now: Now) -> Option<Identity> {
    if !route.spec.token.credential.presents_certificate() {
        return None;
    }
    match route.bearer.glance().decide(now) {
        Decision::Use(bearer) | Decision::WaitOr(bearer) => bearer.identity.clone(),
        Decision::Wait | Decision::Fail(_) => None,
    }
}

/// Whether a token newer than generation `above` (0 = any) is fresh at `now`, which need not be exact: [`with_token`] judges it
/// again.
pub(super) fn is_authorized(route: &Route, above: u64, now: Now) -> bool {
    matches!(route.bearer.glance().decide(now), Decision::Use(bearer) if bearer.generation > above)
}

/// Waits until a token newer than generation `above` (0 = any) may be used.
pub(super) async fn authorize(route: &Route, above: u64) -> Result<(), ProxyError> {
    let credential = &route.spec.token.credential;
    let deadline = clock::now() + credential.timeout + SLACK;
    route.bearer.wait(above, deadline).await.map_err(|why| ProxyError::no_token(why, &credential.name))
}

/// Gives the token to `write`, at the last moment before it is sent, and that moment; returns what that made.
///
/// `None` where the token has expired or was rejected since [`is_authorized`], or was got with another certificate than
/// the one that the connection presents: then that has to be done again.
pub(super) fn with_token<T>(
    route: &Route,
    presented: Option<&Identity>,
    write: impl FnOnce(&Bearer, Now) -> Result<T, ProxyError>,
) -> Result<Option<T>, ProxyError> {
    let now = Now::read();
    match route.bearer.glance().decide(now) {
        Decision::Use(bearer) | Decision::WaitOr(bearer) if bearer.identity.as_ref() != presented => Ok(None),
        Decision::Use(bearer) | Decision::WaitOr(bearer) => write(bearer, now).map(Some),
        Decision::Wait => Ok(None),
        Decision::Fail(failure) => {
            Err(ProxyError::no_token(Unavailable::Failed(failure.clone()), &route.spec.token.credential.name))
        }
    }
}
