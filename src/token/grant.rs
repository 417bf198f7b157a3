//! 2 how we ask — builds the token request. Pure: the secrets have been read, nothing is sent.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use zeroize::Zeroizing;

use super::{
    assertion,
    credential::{Material, Step},
    params::{Params, ROOM, Text, form_encode},
};
use crate::{
    config::{
        model::{ClientAuth, CredentialSpec, Grant, Param, TokenBody, TokenMethod, TokenSpec},
        secret::Secret,
        signing_key::KeyError,
    },
    net::Identity,
};

/// In a header that is a template: a JWT signed with `key`.
const ASSERTION: &str = "{assertion}";

/// Always sent.
pub const USER_AGENT: &str = concat!("cupbearer/", env!("CARGO_PKG_VERSION"));

/// A token request, ready to be sent to the host of `token_url`.
#[derive(Clone)]
pub struct TokenRequest {
    /// Method.
    pub method: Method,
    /// Path and query; with `body = "query"` the parameters too.
    pub target: Zeroizing<String>,
    /// Every header but those that frame the message; each name once.
    pub headers: HeaderMap,
    /// Body.
    pub body: Zeroizing<Vec<u8>>,
    /// The certificate to present.
    pub identity: Option<Identity>,
}

/// Settings that make no legal request. The text holds no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A value has bytes that no header may have; a stray line break in a secret, mostly.
    #[error("{0} holds characters that are not allowed in a header")]
    HeaderValue(String),
    /// The name is none, or is one that frames the message and is not ours to set.
    #[error("headers.{0} cannot be set")]
    HeaderName(String),
    /// JSON pointers among the names lead to one place twice, or make an array with gaps.
    #[error("the parameter {0} has no place beside the others in the JSON body")]
    Place(String),
    /// There is nothing to sign with.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The request for the token that `spec` needs.
pub fn build(spec: &TokenSpec, material: &Material) -> Result<TokenRequest, BuildError> {
    let credential = &*spec.credential;
    let params = params(spec, material)?;
    let refreshes_login = material.refresh.is_some() && !matches!(credential.grant, Grant::RefreshToken { .. });
    let target = credential.refresh_target.as_ref().filter(|_| refreshes_login).unwrap_or(&credential.token_target);
    let mut target = Zeroizing::new(target.clone());
    let (content_type, body) = match credential.body {
        TokenBody::Form => (Some("application/x-www-form-urlencoded"), bytes(params.to_form())),
        TokenBody::Json => (Some("application/json"), params.to_json().map_err(BuildError::Place)?),
        TokenBody::Query => {
            target = with_query(&target, &params.to_form());
            (None, Zeroizing::default())
        }
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, legal("token_url", &credential.token_url.authority)?);
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(content_type) = content_type {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    if let Some(basic) = basic(credential, material).filter(|_| !is_bare_refresh(credential, material)) {
        headers.insert(header::AUTHORIZATION, sensitive("client_secret", &basic)?);
    }
    for ((name, value), (_, written)) in material.headers.iter().zip(&credential.headers) {
        let what = format!("headers.{name}");
        let value = match written {
            Param::Template(text) if text.contains(ASSERTION) => {
                let assertion = assertion::of_client(spec, material)?;
                sensitive(&what, &Zeroizing::new(value.expose().replace(ASSERTION, assertion.expose())))?
            }
            _ => sensitive(&what, value.expose())?,
        };
        // Replaced, never appended: two Content-Type headers make a provider answer 400.
        headers.insert(settable(name)?, value);
    }
    let method = match credential.method {
        TokenMethod::Post => Method::POST,
        TokenMethod::Get => Method::GET,
    };
    let identity = material.identity.clone();
    Ok(TokenRequest { method, target, headers, body, identity })
}

fn bytes(mut text: Zeroizing<String>) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(std::mem::take(&mut *text).into_bytes())
}

/// `target` may have a query of its own, which goes first.
fn with_query(target: &str, query: &str) -> Zeroizing<String> {
    let mut whole = Zeroizing::new(String::with_capacity(target.len() + query.len() + 1));
    whole.push_str(target);
    if !query.is_empty() {
        whole.push(if target.contains('?') { '&' } else { '?' });
        whole.push_str(query);
    }
    whole
}

/// The parameters in the order of RFC 6749's examples. Each name once, whatever the settings say, except
/// `resource` (RFC 8707 section 2).
fn params<'a>(spec: &'a TokenSpec, material: &'a Material) -> Result<Params<'a>, BuildError> {
    let credential = &*spec.credential;
    let mut params = Params::default();
    if let Some(refresh) = material.refresh.as_ref().filter(|_| is_bare_refresh(credential, material)) {
        params.set("refresh_token", refresh.expose().into());
        return Ok(params);
    }
    let grant_type = match material.step {
        Some(Step::Code { .. }) => Some("authorization_code"),
        Some(Step::Device { .. }) => Some("urn:ietf:params:oauth:grant-type:device_code"),
        Some(Step::AskDevice) => None,
        None => credential.grant_type.as_deref(),
    };
    if let Some(grant_type) = grant_type {
        params.set("grant_type", grant_type.into());
    }
    set_grant(&mut params, spec, material)?;
    set_client(&mut params, spec, material)?;
    // What was asked for when the user agreed is not asked for again.
    let asks = !matches!(material.step, Some(Step::Code { .. } | Step::Device { .. }));
    let scopes = material.scopes.as_ref().unwrap_or(&spec.scopes);
    if asks && !scopes.is_empty() && !assertion::holds_scopes(spec) {
        params.set("scope", scopes.join(&credential.scope_separator).into());
    }
    if let Some(audience) = spec.audience.as_ref().filter(|_| asks) {
        params.set("audience", audience.as_str().into());
    }
    for resource in spec.resource.iter().filter(|_| asks) {
        params.add("resource", resource);
    }
    for (name, value) in &material.params {
        params.set(name, value.expose().into());
    }
    Ok(params)
}

/// What the grant brings, or the step of a login.
fn set_grant<'a>(params: &mut Params<'a>, spec: &'a TokenSpec, material: &'a Material) -> Result<(), BuildError> {
    let credential = &*spec.credential;
    if let Some(step) = &material.step {
        set_step(params, step);
    } else if let Some(refresh) = &material.refresh {
        if credential.grant_type.is_some() && !matches!(credential.grant, Grant::RefreshToken { .. }) {
            params.set("grant_type", "refresh_token".into());
        }
        params.set("refresh_token", refresh.expose().into());
    } else if credential.grant == Grant::JwtBearer {
        params.set("assertion", text_of(&assertion::of_grant(spec, material)?));
    } else if let (Grant::TokenExchange { subject_token_type, requested_token_type, .. }, Some(subject)) =
        (&credential.grant, &material.of_grant)
    {
        params.set("subject_token", subject.expose().into());
        params.set("subject_token_type", subject_token_type.as_str().into());
        if let Some(wanted) = requested_token_type {
            params.set("requested_token_type", wanted.as_str().into());
        }
    } else if let (Grant::Password { username, .. }, Some(password)) = (&credential.grant, &material.of_grant) {
        params.set("username", username.as_str().into());
        params.set("password", password.expose().into());
    }
    Ok(())
}

/// Who asks, where that stands among the parameters.
fn set_client<'a>(params: &mut Params<'a>, spec: &'a TokenSpec, material: &'a Material) -> Result<(), BuildError> {
    let credential = &*spec.credential;
    match credential.client_auth {
        ClientAuth::Post => {
            if !credential.id_param.is_empty() {
                params.set(&credential.id_param, credential.client_id.as_str().into());
            }
            if let Some(secret) = &material.client_secret {
                params.set(&credential.secret_param, secret.expose().into());
            }
        }
        // A header of the user's own that says who asks says it alone.
        ClientAuth::None if material.is_named_by_a_header || credential.client_id.is_empty() => {}
        ClientAuth::Mtls | ClientAuth::None => {
            params.set(&credential.id_param, credential.client_id.as_str().into());
        }
        ClientAuth::PrivateKeyJwt | ClientAuth::ClientSecretJwt => {
            params.set(&credential.id_param, credential.client_id.as_str().into());
            params.set("client_assertion_type", assertion::CLIENT_ASSERTION_TYPE.into());
            params.set("client_assertion", text_of(&assertion::of_client(spec, material)?));
        }
        ClientAuth::Basic | ClientAuth::BasicRaw => {}
    }
    Ok(())
}

fn set_step<'a>(params: &mut Params<'a>, step: &'a Step) {
    match step {
        Step::Code { code, verifier, redirect_uri } => {
            params.set("code", code.expose().into());
            params.set("redirect_uri", redirect_uri.as_str().into());
            params.set("code_verifier", verifier.expose().into());
        }
        Step::AskDevice => {}
        Step::Device { code } => params.set("device_code", code.expose().into()),
    }
}

/// A signed text of our own, which is good once and for a minute.
fn text_of(assertion: &Secret) -> Text<'static> {
    assertion.expose().to_owned().into()
}

/// A login that is none of `OAuth`'s (it has no `grant_type`) is refreshed by the refresh token alone (IX-API).
fn is_bare_refresh(credential: &CredentialSpec, material: &Material) -> bool {
    material.refresh.is_some()
        && credential.grant_type.is_none()
        && !matches!(credential.grant, Grant::RefreshToken { .. })
}

/// `Authorization: Basic …`, if that is the method.
fn basic(credential: &CredentialSpec, material: &Material) -> Option<Zeroizing<String>> {
    let secret = material.client_secret.as_ref().map_or("", |secret| secret.expose());
    let mut pair = Zeroizing::new(String::with_capacity(ROOM));
    match credential.client_auth {
        ClientAuth::Basic => {
            form_encode(&credential.client_id, &mut pair);
            pair.push(':');
            form_encode(secret, &mut pair);
        }
        ClientAuth::BasicRaw => {
            pair.push_str(&credential.client_id);
            pair.push(':');
            pair.push_str(secret);
        }
        ClientAuth::Post
        | ClientAuth::PrivateKeyJwt
        | ClientAuth::ClientSecretJwt
        | ClientAuth::Mtls
        | ClientAuth::None => return None,
    }
    Some(Zeroizing::new(format!("Basic {}", *Zeroizing::new(STANDARD.encode(pair.as_bytes())))))
}

fn settable(name: &str) -> Result<HeaderName, BuildError> {
    const FRAMING: [&str; 7] = ["host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "expect"];
    let illegal = || BuildError::HeaderName(name.to_owned());
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| illegal())?;
    if FRAMING.contains(&name.as_str()) { Err(illegal()) } else { Ok(name) }
}

fn legal(what: &str, value: &str) -> Result<HeaderValue, BuildError> {
    HeaderValue::from_str(value).map_err(|_| BuildError::HeaderValue(what.to_owned()))
}

fn sensitive(what: &str, value: &str) -> Result<HeaderValue, BuildError> {
    let mut value = legal(what, value)?;
    value.set_sensitive(true);
    Ok(value)
}
