//! Authorization code with PKCE (RFC 6749 section 4.1, RFC 7636) on a loopback redirect (RFC 8252 section 7.3).

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    Done, Login, LoginError, Prompt, Step,
    page::Page,
    redirect::{Door, Said},
};
use crate::{
    config::secret::Secret,
    token::{dpop::ProofKey, params::form_encode},
};

/// Sends the user to the provider, waits for the answer, and stores what it leads to.
pub(super) async fn log_in(
    login: &Login,
    patience: Duration,
    tell: &mut dyn FnMut(Prompt),
) -> Result<Done, LoginError> {
    let (url, target) = login.endpoint(
        login.credential().login.authorize_url.as_ref(),
        |found| found.authorization_endpoint.clone(),
        "authorize_url",
    )?;
    check_pkce(login)?;
    let (verifier, state) = (random()?, random()?);
    let port = login.credential().login.redirect_port;
    let mut door = Door::open(port, state.clone()).await.map_err(|error| no_door(port, &error))?;
    let key = login.proof_key()?;
    let request = Request { login, verifier: &verifier, state: &state, redirect_uri: door.url(), key: key.as_deref() };
    let endpoint = format!("{}://{}{target}", url.scheme.as_str(), url.authority);
    tell(Prompt::Browser { url: request.url(&endpoint), port: door.port(), patience });
    let waited = tokio::time::timeout(patience, door.answer()).await;
    let answer = waited.map_err(|_| LoginError::Failed(format!("nobody has logged in within {patience:?}")))?;
    let result = match judge(login, answer.said, answer.issuer.as_deref()) {
        Ok(code) => finish(login, code, verifier, door.url()).await,
        Err(error) => Err(error),
    };
    let name = &login.credential().name;
    answer
        .reply
        .send(result.as_ref().map_or_else(|error| Page::failed(name, &error.to_string()), |_| Page::done(name)));
    door.close().await;
    result
}

async fn finish(login: &Login, code: Secret, verifier: Secret, redirect_uri: String) -> Result<Done, LoginError> {
    match login.ask(Step::Code { code, verifier, redirect_uri }).await {
        Ok(minted) => login.done(minted).await,
        Err(refusal) => Err(login.refused(refusal).await),
    }
}

/// A provider that does not know S256 would let anybody use the code who sees it on its way through the browser.
fn check_pkce(login: &Login) -> Result<(), LoginError> {
    let methods = login.metadata.as_ref().and_then(|found| found.challenge_methods.as_ref());
    match methods {
        Some(methods) if !methods.iter().any(|method| method == "S256") => {
            Err(LoginError::Refused("the provider does not offer PKCE with S256, and no login goes without".to_owned()))
        }
        _ => Ok(()),
    }
}

/// The code, if the answer is the provider's and says yes.
fn judge(login: &Login, said: Said, issuer: Option<&str>) -> Result<Secret, LoginError> {
    let ours = login.credential().issuer.as_ref().map(|issuer| issuer.identifier.as_str());
    let must = login.metadata.as_ref().is_some_and(|found| found.names_itself);
    // RFC 9207 section 2.4: an answer of another provider means that somebody mixes them up.
    match (issuer, ours) {
        (Some(theirs), Some(ours)) if theirs != ours => {
            let text = "the answer comes from another provider than the configured issuer: it is not used";
            return Err(LoginError::Refused(text.to_owned()));
        }
        (None, Some(_)) if must => {
            let text = "the answer does not say which provider it comes from, although this one always does";
            return Err(LoginError::Refused(text.to_owned()));
        }
        _ => {}
    }
    match said {
        Said::Code(code) => Ok(code),
        Said::No { error, description } => {
            let description = description.map_or_else(String::new, |text| format!("\nthe provider says: {text}"));
            Err(LoginError::Refused(format!("the provider refused the login: {error}{}{description}", advice(&error))))
        }
    }
}

fn advice(error: &str) -> &'static str {
    match error {
        "access_denied" => " (the user, or the provider for them, said no)",
        "invalid_scope" => " (check scopes)",
        "unauthorized_client" => " (this client may not log users in: check its registration)",
        "invalid_request" => " (check audience, authorize_params and the registered redirect URI)",
        "login_required" | "consent_required" | "interaction_required" => " (check authorize_params: prompt)",
        _ => "",
    }
}

fn no_door(port: u16, error: &std::io::Error) -> LoginError {
    let hint =
        if port == 0 { "" } else { "\nhint: redirect_port = 0 takes any free port, if the provider allows that" };
    LoginError::Failed(format!("cannot wait for the browser on 127.0.0.1:{port}: {error}{hint}"))
}

/// 256 random bits.
fn random() -> Result<Secret, LoginError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| LoginError::Failed("there are no random numbers".to_owned()))?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
}

/// The authorization request.
struct Request<'a> {
    login: &'a Login,
    verifier: &'a Secret,
    state: &'a Secret,
    redirect_uri: String,
    key: Option<&'a ProofKey>,
}

impl Request<'_> {
    fn url(&self, endpoint: &str) -> String {
        let mut url = endpoint.to_owned();
        for (name, value) in self.params() {
            url.push(if url.contains('?') { '&' } else { '?' });
            form_encode(&name, &mut url);
            url.push('=');
            form_encode(&value, &mut url);
        }
        url
    }

    fn params(&self) -> Vec<(String, String)> {
        let (spec, credential) = (self.login.spec(), self.login.credential());
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, self.verifier.expose().as_bytes()));
        let mut params = vec![
            ("response_type", "code".to_owned()),
            ("client_id", credential.client_id.clone()),
            ("redirect_uri", self.redirect_uri.clone()),
            ("state", self.state.expose().to_owned()),
            ("code_challenge", challenge),
            ("code_challenge_method", "S256".to_owned()),
        ];
        if !spec.scopes.is_empty() {
            params.push(("scope", spec.scopes.join(&credential.scope_separator)));
        }
        params.extend(spec.audience.iter().map(|audience| ("audience", audience.clone())));
        params.extend(spec.resource.iter().map(|resource| ("resource", resource.clone())));
        // RFC 9449 section 10: whoever gets hold of the code needs this key too.
        params.extend(self.key.map(|key| ("dpop_jkt", key.thumbprint().to_owned())));
        let own = credential.login.authorize_params.iter().cloned();
        params.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(own).collect()
    }
}
