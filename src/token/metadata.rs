//! 3 … the document itself (RFC 8414 section 2): what of it we use, and what is held against it. Pure.

use serde_json::{Map, Value};

use super::discovery::DiscoveryError;
use crate::config::model::{ClientAuth, CredentialSpec, Issuer, Scheme, Upstream};

/// A place and its request target.
pub type Endpoint = (Upstream, String);

/// What a provider says of itself, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// `token_endpoint`
    pub token_endpoint: Endpoint,
    /// `token_endpoint` of `mtls_endpoint_aliases` (RFC 8705 section 5); an unacceptable one is in nobody's way who
    /// presents no certificate.
    pub mtls_token_endpoint: Result<Option<Endpoint>, DiscoveryError>,
    /// `token_endpoint_auth_methods_supported`
    pub methods: Option<Vec<String>>,
    /// `authorization_endpoint`; an unacceptable one is in nobody's way who has no use for it.
    pub authorization_endpoint: Result<Option<Endpoint>, DiscoveryError>,
    /// `device_authorization_endpoint` (RFC 8628 section 4), likewise.
    pub device_endpoint: Result<Option<Endpoint>, DiscoveryError>,
    /// The same of `mtls_endpoint_aliases`.
    pub mtls_device_endpoint: Result<Option<Endpoint>, DiscoveryError>,
    /// `code_challenge_methods_supported`
    pub challenge_methods: Option<Vec<String>>,
    /// `authorization_response_iss_parameter_supported` (RFC 9207 section 3): answers to the browser name the issuer.
    pub names_itself: bool,
}

impl Metadata {
    /// Reads the document that was found at `place`.
    pub fn read(issuer: &Issuer, place: &str, body: &[u8]) -> Result<Self, DiscoveryError> {
        let Ok(Value::Object(members)) = serde_json::from_slice::<Value>(body) else {
            return Err(DiscoveryError::Unavailable(format!("what stands at {place} is no JSON object")));
        };
        let reading = Reading { issuer, place, members: &members };
        reading.check_issuer()?;
        let token_endpoint = reading.endpoint(&members, "token_endpoint")?;
        let token_endpoint = token_endpoint
            .ok_or_else(|| reading.unacceptable("has no `token_endpoint`. Give token_url instead of issuer."))?;
        let empty = Map::new();
        let aliases = members.get("mtls_endpoint_aliases").and_then(Value::as_object).unwrap_or(&empty);
        Ok(Self {
            token_endpoint,
            mtls_token_endpoint: reading.endpoint(aliases, "token_endpoint"),
            mtls_device_endpoint: reading.endpoint(aliases, "device_authorization_endpoint"),
            methods: texts(&members, "token_endpoint_auth_methods_supported"),
            authorization_endpoint: reading.endpoint(&members, "authorization_endpoint"),
            device_endpoint: reading.endpoint(&members, "device_authorization_endpoint"),
            challenge_methods: texts(&members, "code_challenge_methods_supported"),
            names_itself: members.get("authorization_response_iss_parameter_supported") == Some(&Value::Bool(true)),
        })
    }

    /// Where this credential asks for tokens: whoever presents a certificate has an address of its own at some
    /// providers.
    pub fn token_endpoint_for(&self, credential: &CredentialSpec) -> Result<Endpoint, DiscoveryError> {
        let alias = if credential.presents_certificate() { self.mtls_token_endpoint.clone()? } else { None };
        Ok(alias.unwrap_or_else(|| self.token_endpoint.clone()))
    }

    /// The device authorization endpoint, likewise.
    pub fn device_endpoint_for(&self, credential: &CredentialSpec) -> Result<Option<Endpoint>, DiscoveryError> {
        let alias = if credential.presents_certificate() { self.mtls_device_endpoint.clone()? } else { None };
        if alias.is_some() { Ok(alias) } else { self.device_endpoint.clone() }
    }

    /// The method that is configured, and those that the provider lists, where it is not among them. The configured one is
    /// used all the same: exactly one method, never probed, and such lists are often wrong.
    pub fn unlisted_method(&self, credential: &CredentialSpec) -> Option<(&'static str, String)> {
        let method = match credential.client_auth {
            ClientAuth::Basic | ClientAuth::BasicRaw => "client_secret_basic",
            ClientAuth::Post => "client_secret_post",
            ClientAuth::PrivateKeyJwt => "private_key_jwt",
            ClientAuth::ClientSecretJwt => "client_secret_jwt",
            // Also self_signed_tls_client_auth.
            ClientAuth::Mtls => "tls_client_auth",
            ClientAuth::None => "none",
        };
        let listed = self.methods.as_ref().filter(|methods| !methods.iter().any(|m| m.ends_with(method)))?;
        Some((method, listed.join(" ")))
    }
}

struct Reading<'a> {
    issuer: &'a Issuer,
    place: &'a str,
    members: &'a Map<String, Value>,
}

impl Reading<'_> {
    fn unacceptable(&self, what: &str) -> DiscoveryError {
        DiscoveryError::Unacceptable(format!("the document at {} {what}", self.place))
    }

    /// RFC 8414 section 3.3: identical, also in its trailing slash. Else anybody's document could stand for a
    /// provider.
    fn check_issuer(&self) -> Result<(), DiscoveryError> {
        let wanted = &self.issuer.identifier;
        match self.members.get("issuer").and_then(Value::as_str) {
            Some(found) if found == wanted => Ok(()),
            Some(found) => {
                let hint = if found.trim_end_matches('/') == wanted.trim_end_matches('/') {
                    "A trailing slash counts: write the issuer as the provider does."
                } else {
                    "Check issuer."
                };
                let found = printable(found);
                Err(self.unacceptable(&format!("is of the issuer {found:?}, but {wanted:?} is configured. {hint}")))
            }
            None => Err(self.unacceptable("names no issuer")),
        }
    }

    /// The member as an endpoint that may be used; `None` where there is none.
    fn endpoint(&self, members: &Map<String, Value>, name: &str) -> Result<Option<Endpoint>, DiscoveryError> {
        let Some(text) = members.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
        let text = text.as_str().ok_or_else(|| self.unacceptable(&format!("has a `{name}` that is no text")))?;
        let found = Upstream::endpoint(text).map_err(|why| self.unacceptable(&format!("has a `{name}` that {why}")))?;
        if !self.issuer.may_have_endpoints_at(&found.0.host) {
            return Err(self.unacceptable(&format!(
                "has its `{name}` at {host}, not at the issuer's host. If the provider really has it there, permit \
                 it with endpoint_hosts = [{host:?}].",
                host = found.0.host
            )));
        }
        if (found.0.scheme, self.issuer.url.scheme) == (Scheme::Http, Scheme::Https) {
            return Err(self.unacceptable(&format!("has a `{name}` in plain http")));
        }
        Ok(Some(found))
    }
}

fn texts(members: &Map<String, Value>, name: &str) -> Option<Vec<String>> {
    let list = members.get(name)?.as_array()?;
    Some(list.iter().filter_map(Value::as_str).map(printable).collect())
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| matches!(c, ' '..='~')).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(identifier: &str, hosts: &[&str]) -> Issuer {
        let (url, _) = Upstream::endpoint(identifier).expect("an issuer");
        let hosts = hosts.iter().map(|&host| host.to_owned()).collect();
        Issuer { identifier: identifier.to_owned(), url, hosts, tells_token_url: true }
    }

    fn read(issuer: &Issuer, document: &str) -> Result<Metadata, DiscoveryError> {
        Metadata::read(issuer, "PLACE", document.as_bytes())
    }

    fn refused(issuer: &Issuer, document: &str) -> String {
        match read(issuer, document) {
            Err(DiscoveryError::Unacceptable(text)) => text,
            other => panic!("{document}: {other:?}"),
        }
    }

    #[test]
    fn a_document_gives_the_token_endpoint_on_the_issuers_host() {
        let document = r#"{"issuer":"https://id.example/a","token_endpoint":"https://id.example:8443/t?x=1"}"#;
        let (url, target) = read(&issuer("https://id.example/a", &[]), document).unwrap().token_endpoint;
        assert_eq!((url.to_string().as_str(), target.as_str()), ("https://id.example:8443/t", "/t?x=1"));
    }

    #[test]
    fn the_issuer_must_be_the_same_to_the_last_slash() {
        let document = r#"{"issuer":"https://id.example/","token_endpoint":"https://id.example/t"}"#;
        let text = refused(&issuer("https://id.example", &[]), document);
        assert!(text.contains(r#""https://id.example/", but "https://id.example" is configured"#), "{text}");
        assert!(text.contains("trailing slash"), "{text}");
        assert!(read(&issuer("https://id.example/", &[]), document).is_ok());
        let text = refused(&issuer("https://else.example", &[]), document);
        assert!(text.contains("Check issuer"), "{text}");
        refused(&issuer("https://id.example", &[]), r#"{"token_endpoint":"https://id.example/t"}"#);
    }

    #[test]
    fn an_endpoint_elsewhere_must_be_permitted() {
        let document = r#"{"issuer":"https://id.example","token_endpoint":"https://Tokens.example/t"}"#;
        let text = refused(&issuer("https://id.example", &[]), document);
        assert!(text.contains(r#"endpoint_hosts = ["tokens.example"]"#), "{text}");
        assert!(read(&issuer("https://id.example", &["tokens.example"]), document).is_ok());
    }

    #[test]
    fn endpoints_that_no_secret_may_go_to_are_refused() {
        for url in [
            "http://id.example/t",
            "https://user:pw@id.example/t",
            "https://id.example/t#x",
            "https://id.example.evil.example/t",
            "https://id.example@evil.example/t",
            "//id.example/t",
            "/t",
            "",
            "ftp://id.example/t",
            "http://127.0.0.1/t",
        ] {
            refused(
                &issuer("https://id.example", &["127.0.0.1"]),
                &format!(r#"{{"issuer":"https://id.example","token_endpoint":"{url}"}}"#),
            );
        }
        refused(&issuer("https://id.example", &[]), r#"{"issuer":"https://id.example","token_endpoint":7}"#);
        refused(&issuer("https://id.example", &[]), r#"{"issuer":"https://id.example"}"#);
    }

    #[test]
    fn the_aliases_for_certificates_are_checked_like_all_endpoints() {
        let document = r#"{"issuer":"https://id.example","token_endpoint":"https://id.example/t",
            "mtls_endpoint_aliases":{"token_endpoint":"https://mtls.id.example/t"}}"#;
        let read = |hosts: &[&str]| read(&issuer("https://id.example", hosts), document).unwrap().mtls_token_endpoint;
        assert!(matches!(read(&[]), Err(DiscoveryError::Unacceptable(text)) if text.contains("mtls.id.example")));
        assert_eq!(read(&["mtls.id.example"]).unwrap().unwrap().0.to_string(), "https://mtls.id.example/t");
    }

    #[test]
    fn what_is_no_document_may_be_one_later() {
        for text in ["", "[]", "<html>", "\"x\"", "{"] {
            let found = read(&issuer("https://id.example", &[]), text);
            assert!(matches!(found, Err(DiscoveryError::Unavailable(_))), "{text}");
        }
    }
}
