//! 1 which token — the identity of a token: one key, one task, one cell.
//!
//! Routes with equal keys share a token; anything that makes the token, or the way it is kept, different
//! gives another. So a reload hands an unchanged credential its old cell, and a changed one a new cell.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};

use crate::config::{
    model::{
        Alg, ClientAuth, ClientCert, CredentialSpec, EgressKind, ExpiresUnit, Expiry, Grant, NetSpec, Param, Scheme,
        TokenBody, TokenMethod, TokenSpec, Warm,
    },
    secret::{SecretSource, VaultSecret},
};

/// Length-prefixed SHA-256 over every input. It covers where a secret comes from, not what it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of what a route needs. The credential's *name* is no input: two names for the same thing
    /// share a token. Neither is the order of scopes, resources, parameters and headers.
    pub fn of(spec: &TokenSpec) -> Self {
        let mut inputs = Inputs(Context::new(&SHA256));
        inputs.text("cupbearer token key 1");
        inputs.who(&spec.credential);
        inputs.what(spec);
        inputs.net(&spec.credential.net);
        inputs.reading(&spec.credential);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(inputs.0.finish().as_ref());
        Self(bytes)
    }
}

impl Key {
    /// The place of a credential's refresh token: it belongs to a user's consent, not to one scope, and the
    /// credential's *name* is what tells two users of one client apart.
    pub fn of_refresh(credential: &CredentialSpec) -> Self {
        let mut inputs = Inputs(Context::new(&SHA256));
        inputs.text("cupbearer refresh key 1");
        inputs.text(&credential.name);
        inputs.text(&credential.token_url.to_string());
        inputs.text(&credential.client_id);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(inputs.0.finish().as_ref());
        Self(bytes)
    }

    /// Who shares what is known about a credential's secrets: all tokens of one client with the same sources.
    pub fn of_secrets(credential: &CredentialSpec) -> Self {
        let mut inputs = Inputs(Context::new(&SHA256));
        inputs.text("cupbearer secrets key 1");
        inputs.who(credential);
        inputs.net(&credential.net);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(inputs.0.finish().as_ref());
        Self(bytes)
    }

    /// All of it.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// All of it as hexadecimal digits.
    pub fn to_hex(self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}"); // writing to a String cannot fail
            hex
        })
    }
}

impl fmt::Display for Key {
    /// The first 8 hex digits: a label for metrics and status.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// Everything goes in with its length before it, and every list with its count, so that no two different
/// sets of inputs give the same bytes.
struct Inputs(Context);

impl Inputs {
    fn number(&mut self, number: u128) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u128);
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn optional(&mut self, text: Option<&str>) {
        self.number(text.is_some().into());
        self.text(text.unwrap_or_default());
    }

    /// A set: sorted, without doubles.
    fn set(&mut self, texts: &[String]) {
        let mut sorted: Vec<&str> = texts.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        sorted.dedup();
        self.number(sorted.len() as u128);
        for text in sorted {
            self.text(text);
        }
    }

    fn secret(&mut self, source: Option<&SecretSource>) {
        match source {
            None => self.text("none"),
            Some(SecretSource::Env(name)) => {
                self.text("env");
                self.text(name);
            }
            Some(SecretSource::Given { name, value }) => {
                self.text("given");
                self.text(name);
                self.text(value.expose()); // read once, hence its only version; a digest gives nothing away
            }
            Some(SecretSource::File(path)) => {
                self.text("file");
                self.bytes(path.as_os_str().as_encoded_bytes());
            }
            Some(SecretSource::Vault(VaultSecret { mount, path, field })) => {
                self.text("vault");
                self.text(mount);
                self.text(path);
                self.text(field);
            }
            Some(SecretSource::Keyring { service, account }) => {
                self.text("keyring");
                self.text(service);
                self.text(account);
            }
            Some(SecretSource::Command(words)) => {
                self.text("command");
                self.number(words.len() as u128);
                for word in words {
                    self.text(word);
                }
            }
        }
    }

    fn params(&mut self, params: &[(String, Param)]) {
        let mut sorted: Vec<_> = params.iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0)); // stable: doubles keep their order, which decides
        self.number(sorted.len() as u128);
        for (name, value) in sorted {
            self.text(name);
            match value {
                Param::Plain(text) => {
                    self.text("plain");
                    self.text(text);
                }
                Param::Template(text) => {
                    self.text("template");
                    self.text(text);
                }
                Param::Secret(source) => self.secret(Some(source)),
            }
        }
    }

    fn who(&mut self, credential: &CredentialSpec) {
        let url = &credential.token_url;
        self.text(match url.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        });
        self.text(&url.host);
        self.number(url.port.into());
        self.text(&url.authority);
        self.number(url.insecure.into());
        self.text(&credential.token_target);
        self.optional(credential.issuer.as_ref().map(|issuer| issuer.identifier.as_str()));
        self.set(credential.issuer.as_ref().map_or(&[], |issuer| &issuer.hosts));
        self.number(credential.is_discovered().into());
        self.text(&credential.client_id);
        self.secret(credential.client_secret.as_ref());
        self.number(credential.more_secrets.len() as u128);
        credential.more_secrets.iter().for_each(|source| self.secret(Some(source)));
        self.text(match credential.client_auth {
            ClientAuth::Basic => "basic",
            ClientAuth::BasicRaw => "basic_raw",
            ClientAuth::Post => "post",
            ClientAuth::PrivateKeyJwt => "private_key_jwt",
            ClientAuth::ClientSecretJwt => "client_secret_jwt",
            ClientAuth::Mtls => "mtls",
            ClientAuth::None => "none",
        });
        self.grant(credential);
        self.signing(credential);
        self.optional(credential.grant_type.as_deref());
        self.text(match credential.body {
            TokenBody::Form => "form",
            TokenBody::Json => "json",
            TokenBody::Query => "query",
        });
        self.text(match credential.method {
            TokenMethod::Post => "post",
            TokenMethod::Get => "get",
        });
        self.text(&credential.id_param);
        self.text(&credential.secret_param);
        self.params(&credential.params);
        self.params(&credential.headers);
    }

    fn grant(&mut self, credential: &CredentialSpec) {
        self.text(credential.grant.as_str());
        self.secret(credential.grant.source());
        match &credential.grant {
            Grant::Password { username, .. } => self.text(username),
            // Two names may stand for two users whose refresh tokens both live in the store.
            Grant::RefreshToken { .. } | Grant::AuthorizationCode | Grant::DeviceCode => self.text(&credential.name),
            Grant::TokenExchange { subject_token_type, requested_token_type, .. } => {
                self.text(subject_token_type);
                self.optional(requested_token_type.as_deref());
            }
            Grant::ClientCredentials | Grant::Static { .. } | Grant::JwtBearer | Grant::SelfSigned => {}
        }
        self.optional(credential.refresh_target.as_deref());
    }

    fn signing(&mut self, credential: &CredentialSpec) {
        self.secret(credential.key.as_ref());
        self.secret(credential.key_cert.as_ref());
        self.optional(credential.key_id.as_deref());
        self.optional(credential.alg.map(Alg::as_str));
        self.number(credential.dpop.into());
        self.secret(credential.assertion.ready.as_ref());
        let mut claims: Vec<_> = credential.assertion.claims.iter().collect();
        claims.sort();
        self.number(claims.len() as u128);
        for (name, value) in claims {
            self.text(name);
            self.text(value);
        }
    }

    fn what(&mut self, spec: &TokenSpec) {
        self.set(&spec.scopes);
        self.text(&spec.credential.scope_separator);
        self.optional(spec.audience.as_deref());
        self.set(&spec.resource);
    }

    fn net(&mut self, net: &NetSpec) {
        let local = net.local_address.map(|ip| ip.to_string());
        self.optional(local.as_deref());
        self.text(net.ip_family.as_str());
        self.number(net.ca_file.is_some().into());
        self.bytes(net.ca_file.as_ref().map_or(&[], |path| path.as_os_str().as_encoded_bytes()));
        self.number(net.egress_proxy.is_some().into());
        if let Some(proxy) = &net.egress_proxy {
            self.text(match proxy.kind {
                EgressKind::Http => "http",
                EgressKind::Socks5 => "socks5",
            });
            self.text(&proxy.host);
            self.number(proxy.port.into());
        }
        self.number(net.client_cert.is_some().into());
        if let Some(ClientCert { chain, key }) = &net.client_cert {
            self.secret(Some(chain));
            self.secret(Some(key));
        }
    }

    /// How the answer is read and the token kept.
    fn reading(&mut self, credential: &CredentialSpec) {
        self.text(&credential.token_field);
        self.text(&credential.expires_field);
        self.text(match credential.expires_unit {
            ExpiresUnit::Seconds => "s",
            ExpiresUnit::Millis => "ms",
        });
        self.number(credential.default_ttl.as_nanos());
        self.text(match credential.expiry {
            Expiry::Fixed => "fixed",
            Expiry::Sliding => "sliding",
        });
        self.text(match credential.warm {
            Warm::OnUse => "on_use",
            Warm::Always => "always",
        });
        self.number(credential.share.into());
        self.number(credential.timeout.as_nanos());
    }
}
