//! A code for another device (RFC 8628): for hosts without a browser.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Done, Login, LoginError, Prompt, Step};
use crate::{
    config::{
        model::{CredentialSpec, TokenSpec},
        secret::Secret,
    },
    token::{
        asking::Errand,
        bearer::FailureKind,
        credential::Material,
        metadata::Endpoint,
        refusal::{Refusal, Severity},
        reply::{self, Answer, Minted, printable},
    },
};

/// Between two questions where the provider says nothing (RFC 8628 section 3.2), and at most.
const INTERVAL: (u64, u64) = (5, 60);

/// What `slow_down` adds (RFC 8628 section 3.5).
const SLOWER: Duration = Duration::from_secs(5);

/// No code is waited for longer.
const MOST: u64 = 3600;

/// Shows the user a code, asks until it was entered, and stores what that leads to.
pub(super) async fn log_in(
    login: &Login,
    patience: Option<Duration>,
    tell: &mut dyn FnMut(Prompt),
) -> Result<Done, LoginError> {
    let written = login.credential().login.device_url.as_ref();
    let endpoint = login.endpoint(written, |found| found.device_endpoint_for(login.credential()), "device_url")?;
    let granted = ask_for_code(login, &endpoint).await?;
    let patience = patience.map_or(granted.life, |patience| patience.min(granted.life));
    let Granted { url, complete, user_code, .. } = &granted;
    tell(Prompt::Device { url: url.clone(), complete: complete.clone(), code: user_code.clone(), patience });
    let minted = wait(login, &granted, Instant::now() + patience).await?;
    login.done(minted).await
}

/// What the provider gave (RFC 8628 section 3.2).
struct Granted {
    device_code: Secret,
    user_code: String,
    url: String,
    complete: Option<String>,
    life: Duration,
    interval: Duration,
}

async fn ask_for_code(login: &Login, endpoint: &Endpoint) -> Result<Granted, LoginError> {
    let (spec, material) = (Arc::new(at(login, endpoint)), login.material.with_step(Step::AskDevice));
    let errand = Errand { is_for_token: false, read: granted };
    Ok(login.asking.ask_elsewhere(errand, &spec, &material).await?)
}

/// The request goes elsewhere, but what vouches for the client stays made out to the provider it is known to.
fn at(login: &Login, endpoint: &Endpoint) -> TokenSpec {
    let mut spec = TokenSpec::clone(login.spec());
    let mut credential = (*spec.credential).clone();
    if credential.issuer.is_none() && !credential.assertion.claims.iter().any(|(name, _)| name == "aud") {
        let scheme = credential.token_url.scheme.as_str();
        let audience = format!("{scheme}://{}{}", credential.token_url.authority, credential.token_target);
        credential.assertion.claims.push(("aud".to_owned(), audience));
    }
    (credential.token_url, credential.token_target) = endpoint.clone();
    spec.credential = credential.into();
    spec
}

fn granted(credential: &CredentialSpec, material: &Material, answer: &Answer) -> Result<Granted, Refusal> {
    if answer.status != 200 {
        return Err(reply::refusal(credential, material, answer));
    }
    let text = "its answer has no `device_code`, `user_code` and `verification_uri` that could be shown";
    parsed(answer).ok_or_else(|| Refusal::unavailable(credential, text))
}

fn parsed(answer: &Answer) -> Option<Granted> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let number = |name: &str| body.get(name).and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
    let shown = |text: &str| !text.is_empty() && text.len() <= 2000 && printable(text, 2000) == text.trim();
    let page = |name: &str| text(name).filter(|url| is_page(url) && shown(url)).map(str::to_owned);
    Some(Granted {
        device_code: Secret::new(text("device_code").filter(|code| !code.is_empty())?.to_owned()),
        user_code: text("user_code").filter(|code| shown(code))?.to_owned(),
        // Google and others of its age say it the second way.
        url: page("verification_uri").or_else(|| page("verification_url"))?,
        complete: page("verification_uri_complete").or_else(|| page("verification_url_complete")),
        life: Duration::from_secs(number("expires_in").unwrap_or(MOST).clamp(1, MOST)),
        interval: Duration::from_secs(number("interval").unwrap_or(INTERVAL.0).clamp(1, INTERVAL.1)),
    })
}

fn is_page(url: &str) -> bool {
    url.starts_with("https://") || url.starts_with("http://")
}

async fn wait(login: &Login, granted: &Granted, deadline: Instant) -> Result<Minted, LoginError> {
    let mut interval = granted.interval;
    loop {
        let next = Instant::now() + interval;
        if next >= deadline {
            tokio::time::sleep_until(deadline.into()).await;
            return Err(LoginError::Failed("nobody has entered the code in time".to_owned()));
        }
        tokio::time::sleep_until(next.into()).await;
        let refusal = match login.ask(Step::Device { code: granted.device_code.clone() }).await {
            Ok(minted) => return Ok(minted),
            Err(refusal) => refusal,
        };
        if refusal.refresh.is_some() {
            return Err(login.refused(refusal).await);
        }
        if login.asking.halt.is_ordered() {
            return Err(login.given_up());
        }
        match refusal.code.as_deref() {
            Some("authorization_pending") => {}
            Some("slow_down") => interval = interval.saturating_add(SLOWER),
            Some("expired_token") => {
                return Err(LoginError::Refused("the code has expired: start the login again".to_owned()));
            }
            Some("access_denied") => {
                let text =
                    "the provider refused the login: access_denied (the user, or the provider for them, said no)";
                return Err(LoginError::Refused(text.to_owned()));
            }
            _ if refusal.kind == FailureKind::Budget => return Err(refusal.into()),
            // Section 3.5: slower where the provider does not answer.
            _ if refusal.severity == Severity::Transient => {
                tracing::warn!("{}", refusal.message);
                let longest = Duration::from_secs(INTERVAL.1).max(interval);
                interval = refusal.retry_after.unwrap_or(interval * 2).clamp(interval, longest);
            }
            _ => return Err(refusal.into()),
        }
    }
}
