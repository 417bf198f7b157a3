//! 2 how we ask — builds the token request. Pure: the secrets have been read, nothing is sent.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use zeroize::Zeroizing;

use super::credential::Material;
use crate::config::model::{ClientAuth, CredentialSpec, TokenBody, TokenSpec};

/// Always sent.
pub const USER_AGENT: &str = concat!("cupbearer/", env!("CARGO_PKG_VERSION"));

/// Room for a body, so that it seldom grows, which would leave copies of a secret behind.
const ROOM: usize = 2048;

/// A token request, ready to be sent to `token_target`.
#[derive(Clone)]
pub struct TokenRequest {
    /// Method.
    pub method: Method,
    /// Every header but those that frame the message; each name once.
    pub headers: HeaderMap,
    /// Body.
    pub body: Zeroizing<Vec<u8>>,
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
}

/// The request for the token that `spec` needs.
pub fn build(spec: &TokenSpec, material: &Material) -> Result<TokenRequest, BuildError> {
    let credential = &*spec.credential;
    let params = params(spec, material);
    let (content_type, body) = match credential.body {
        TokenBody::Form => ("application/x-www-form-urlencoded", params.into_form()),
        TokenBody::Json => ("application/json", params.into_json()),
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, legal("token_url", &credential.token_url.authority)?);
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(basic) = basic(credential, material) {
        headers.insert(header::AUTHORIZATION, sensitive("client_secret", &basic)?);
    }
    for (name, value) in &material.headers {
        // Replaced, never appended: two Content-Type headers make a provider answer 400.
        headers.insert(settable(name)?, sensitive(&format!("headers.{name}"), value.expose())?);
    }
    Ok(TokenRequest { method: Method::POST, headers, body })
}

/// The parameters in the order of RFC 6749's examples. Each name once, whatever the settings say, except
/// `resource` (RFC 8707 section 2).
fn params<'a>(spec: &'a TokenSpec, material: &'a Material) -> Params<'a> {
    let credential = &*spec.credential;
    let mut params = Params::default();
    if let Some(grant_type) = &credential.grant_type {
        params.set("grant_type", grant_type.as_str().into());
    }
    match credential.client_auth {
        ClientAuth::Post => {
            params.set(&credential.id_param, credential.client_id.as_str().into());
            if let Some(secret) = &material.client_secret {
                params.set(&credential.secret_param, secret.expose().into());
            }
        }
        ClientAuth::None => params.set(&credential.id_param, credential.client_id.as_str().into()),
        ClientAuth::Basic | ClientAuth::BasicRaw => {}
    }
    if !spec.scopes.is_empty() {
        params.set("scope", spec.scopes.join(&credential.scope_separator).into());
    }
    if let Some(audience) = &spec.audience {
        params.set("audience", audience.as_str().into());
    }
    for resource in &spec.resource {
        params.add("resource", resource);
    }
    for (name, value) in &material.params {
        params.set(name, value.expose().into());
    }
    params
}

type Text<'a> = std::borrow::Cow<'a, str>;

#[derive(Default)]
struct Params<'a>(Vec<(&'a str, Vec<Text<'a>>)>);

impl<'a> Params<'a> {
    fn set(&mut self, name: &'a str, value: Text<'a>) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => *values = vec![value],
            None => self.0.push((name, vec![value])),
        }
    }

    fn add(&mut self, name: &'a str, value: &'a str) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value.into()),
            None => self.0.push((name, vec![value.into()])),
        }
    }

    fn into_form(self) -> Zeroizing<Vec<u8>> {
        let mut form = Zeroizing::new(String::with_capacity(ROOM));
        for (name, values) in &self.0 {
            for value in values {
                if !form.is_empty() {
                    form.push('&');
                }
                form_encode(name, &mut form);
                form.push('=');
                form_encode(value, &mut form);
            }
        }
        Zeroizing::new(std::mem::take(&mut *form).into_bytes())
    }

    /// One flat object; several values of one name become an array.
    fn into_json(self) -> Zeroizing<Vec<u8>> {
        let mut json = Zeroizing::new(Vec::with_capacity(ROOM));
        for (name, values) in &self.0 {
            let first = json.is_empty();
            json.push(if first { b'{' } else { b',' });
            json_string(name, &mut json);
            json.push(b':');
            match &values[..] {
                [one] => json_string(one, &mut json),
                several => {
                    for (position, value) in several.iter().enumerate() {
                        json.push(if position == 0 { b'[' } else { b',' });
                        json_string(value, &mut json);
                    }
                    json.push(b']');
                }
            }
        }
        if json.is_empty() {
            json.push(b'{');
        }
        json.push(b'}');
        json
    }
}

/// Appends a JSON string.
fn json_string(text: &str, json: &mut Vec<u8>) {
    // Into memory and from a string: nothing can fail.
    let _ = serde_json::to_writer(json, text);
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
        ClientAuth::Post | ClientAuth::None => return None,
    }
    Some(Zeroizing::new(format!("Basic {}", *Zeroizing::new(STANDARD.encode(pair.as_bytes())))))
}

/// The serializer of `application/x-www-form-urlencoded` (WHATWG URL section 5.2; RFC 6749 appendix B).
fn form_encode(text: &str, into: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => into.push(char::from(byte)),
            b' ' => into.push('+'),
            _ => {
                into.push('%');
                into.push(char::from(HEX[usize::from(byte >> 4)]));
                into.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
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
