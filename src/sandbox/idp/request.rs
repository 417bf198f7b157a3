//! The parameters of a token request.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::Refusal;
use crate::sandbox::head::Head;

/// Names and values, each name once.
#[derive(Debug)]
pub(in crate::sandbox) struct Params(Vec<(String, String)>);

impl Params {
    pub(in crate::sandbox) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(in crate::sandbox) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    fn once(pairs: Vec<(String, String)>) -> Result<Self, Refusal> {
        for (at, (name, _)) in pairs.iter().enumerate() {
            if pairs[..at].iter().any(|(n, _)| n == name) {
                return Err(Refusal::bad_request("a parameter is included more than once"));
            }
        }
        Ok(Self(pairs))
    }
}

/// The media type, lower case, without parameters.
fn media_type(head: &Head) -> String {
    head.one("content-type").unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A form body; JSON is refused.
pub(in crate::sandbox) fn form(head: &Head, body: &[u8]) -> Result<Params, Refusal> {
    if media_type(head) != "application/x-www-form-urlencoded" {
        let why = "the request's Content-Type must be application/x-www-form-urlencoded";
        return Err(Refusal::bad_request(why));
    }
    pairs(std::str::from_utf8(body).map_err(|_| Refusal::bad_request("the form is not UTF-8"))?)
}

/// The pairs of a form, or of a query.
pub(in crate::sandbox) fn pairs(text: &str) -> Result<Params, Refusal> {
    let pairs = text.split('&').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap_or((p, "")));
    let decoded: Option<Vec<_>> = pairs.map(|(n, v)| Some((decode(n)?, decode(v)?))).collect();
    Params::once(decoded.ok_or_else(|| Refusal::bad_request("the form holds an invalid escape"))?)
}

/// A flat JSON object of strings; a form is refused.
pub(in crate::sandbox) fn json(head: &Head, body: &[u8]) -> Result<Params, Refusal> {
    if media_type(head) != "application/json" {
        return Err(Refusal::bad_request("the request's Content-Type must be application/json"));
    }
    let Ok(Value::Object(members)) = serde_json::from_slice(body) else {
        return Err(Refusal::bad_request("the body is not a JSON object"));
    };
    let text = |(name, value): (String, Value)| value.as_str().map(|v| (name, v.to_owned()));
    let pairs: Option<Vec<_>> = members.into_iter().map(text).collect();
    Params::once(pairs.ok_or_else(|| Refusal::bad_request("a member is not a string"))?)
}

/// Id and secret of `Authorization: Basic`, as they stand there. `None`: there is no Authorization.
pub(super) fn basic(head: &Head) -> Result<Option<(String, String)>, Refusal> {
    let Some(value) = head.one("authorization") else { return Ok(None) };
    let parts = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
    let decoded = parts.and_then(|(_, coded)| STANDARD.decode(coded.trim()).ok());
    let pair = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    match pair.as_deref().and_then(|p| p.split_once(':')) {
        Some((id, secret)) => Ok(Some((id.to_owned(), secret.to_owned()))),
        None => Err(Refusal::bad_request("the Authorization is not a Basic one")),
    }
}

/// `application/x-www-form-urlencoded` decoding of one name or value.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |b: u8| char::from(b).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &str) -> Head {
        Head::parse(format!("POST / HTTP/1.1\r\n{fields}").as_bytes())
    }

    #[test]
    fn a_form_is_decoded_and_json_is_not_a_form() {
        let form_head = head("Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\n");
        let params = form(&form_head, b"scope=a+b&x=%2B%c3%a4&flag").unwrap();
        assert_eq!(params.value("scope"), Some("a b"));
        assert_eq!(params.value("x"), Some("+\u{e4}"));
        assert_eq!(params.value("flag"), Some(""));
        assert!(form(&form_head, b"a=1&a=1").is_err());
        assert!(form(&form_head, b"a=%2").is_err());
        assert!(form(&head("Content-Type: application/json\r\n"), b"{}").is_err());
        assert!(json(&form_head, b"{}").is_err());
    }

    #[test]
    fn a_content_type_with_a_stray_semicolon_is_json() {
        let params = json(&head("Content-Type: application/json;\r\n"), br#"{"api_key":"k"}"#).unwrap();
        assert_eq!(params.value("api_key"), Some("k"));
    }

    #[test]
    fn an_authorization_that_is_not_basic_is_refused() {
        assert_eq!(basic(&head("")).unwrap(), None);
        let pair = basic(&head("Authorization: basic YTpiOmM=\r\n")).unwrap().unwrap();
        assert_eq!(pair, ("a".to_owned(), "b:c".to_owned()));
        assert!(basic(&head("Authorization: Bearer x\r\n")).is_err());
    }
}
