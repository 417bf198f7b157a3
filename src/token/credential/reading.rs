//! 1 … the sources, one after the other, with what each of them gave.

use std::time::SystemTime;

use super::{CLIENT_SECRET, Material};
use crate::{
    config::{
        model::{ClientCert, CredentialSpec, Grant, Param},
        secret::{Secret, SecretError, SecretSource, Shape},
        signing_key::{KeyError, Thumbprints},
    },
    net::{Identity, IdentityError},
    token::sources::{Keep, Sources, Want},
};

/// Why the secrets of a credential are not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MaterialError {
    /// A source failed.
    #[error("{what} cannot be read: {source}")]
    Source {
        /// The key of the file: `client_secret`, `params.NAME`, `headers.NAME`.
        what: String,
        /// Why.
        source: SecretError,
    },
    /// `client_cert` and `client_key` are no pair.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// `key_cert` is no certificate.
    #[error(transparent)]
    Certificate(#[from] KeyError),
}

/// What one source gave.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    /// The key of the file: `client_secret`, `params.NAME`.
    pub(super) what: String,
    /// The source, as messages name it.
    pub(super) source: String,
    pub(super) secret: Secret,
    pub(super) keep: Keep,
    /// It says who asks at this moment, and not what for: no token depends on which one it was.
    pub(super) is_passing: bool,
}

impl Material {
    /// Reads all sources of `credential`, one after the other; each has a limit of its own.
    pub async fn read(credential: &CredentialSpec, sources: &Sources, want: Want) -> Result<Self, MaterialError> {
        let mut reading = Reading { sources, want, slots: Vec::new() };
        let client_secrets = reading.list(credential).await?;
        let of_grant = match credential.grant.source() {
            Some(source) => {
                Some(reading.one(source, grant_key(&credential.grant), grant_keep(&credential.grant)).await?)
            }
            None => None,
        };
        let key = match &credential.key {
            Some(source) => Some(reading.shaped(source, "key", Shape::Text, Keep::Last).await?),
            None => None,
        };
        let key_cert = match &credential.key_cert {
            Some(source) => Some(reading.thumbprints(source).await?),
            None => None,
        };
        let assertion = match &credential.assertion.ready {
            Some(source) => Some(reading.assertion(source, &credential.grant).await?),
            None => None,
        };
        let identity = match &credential.net.client_cert {
            Some(pair) => Some(reading.pair(pair).await?),
            None => None,
        };
        let params = reading.all(&credential.params, "params").await?;
        let headers = reading.all(&credential.headers, "headers").await?;
        let is_template = |param: &Param| matches!(param, Param::Template(_));
        let templates: Vec<(usize, Secret)> = credential
            .headers
            .iter()
            .enumerate()
            .filter(|(_, (_, param))| is_template(param))
            .map(|(index, _)| (index, headers[index].1.clone()))
            .collect();
        let signed_at = SystemTime::now();
        let client_secret = client_secrets.first().map(|(_, secret)| secret.clone());
        let mut material = Self {
            client_secret: None,
            client_secrets,
            of_grant,
            key,
            key_cert,
            assertion,
            identity,
            signed_at,
            refresh: None,
            scopes: None,
            step: None,
            params,
            headers,
            is_named_by_a_header: !templates.is_empty(),
            templates,
            slots: reading.slots,
            guarded: Vec::new(),
            unsigned: None,
        };
        material.set_secret(credential, client_secret);
        Ok(material)
    }
}

/// Whether what the grant brings stays good until somebody replaces it.
pub(super) fn grant_keep(grant: &Grant) -> Keep {
    match grant {
        Grant::Static { .. } | Grant::TokenExchange { .. } => Keep::Nothing,
        Grant::Password { .. }
        | Grant::RefreshToken { .. }
        | Grant::AuthorizationCode
        | Grant::DeviceCode
        | Grant::ClientCredentials
        | Grant::JwtBearer
        | Grant::SelfSigned => Keep::Last,
    }
}

pub(super) fn grant_key(grant: &Grant) -> &'static str {
    match grant {
        Grant::ClientCredentials
        | Grant::AuthorizationCode
        | Grant::DeviceCode
        | Grant::JwtBearer
        | Grant::SelfSigned => "grant",
        Grant::TokenExchange { .. } => "subject_token",
        Grant::Static { .. } => "token",
        Grant::Password { .. } => "password",
        Grant::RefreshToken { .. } => "refresh_token",
    }
}

/// Whether a secret may change under our eyes where we look: see [`Want::Watch`].
pub(in crate::token) fn is_watched(credential: &CredentialSpec) -> bool {
    let of_params = credential.params.iter().chain(&credential.headers).filter_map(|(_, param)| match param {
        Param::Secret(source) => Some(source),
        Param::Plain(_) | Param::Template(_) => None,
    });
    let mut sources = credential
        .client_secret
        .iter()
        .chain(&credential.more_secrets)
        .chain(credential.grant.source())
        .chain(&credential.key)
        .chain(&credential.key_cert)
        .chain(&credential.assertion.ready)
        .chain(credential.net.client_cert.iter().flat_map(|pair| [&pair.chain, &pair.key]))
        .chain(of_params);
    sources.any(Sources::watches)
}

/// One reading of all sources.
struct Reading<'a> {
    sources: &'a Sources,
    want: Want,
    slots: Vec<Slot>,
}

impl Reading<'_> {
    async fn one(&mut self, source: &SecretSource, what: &str, keep: Keep) -> Result<Secret, MaterialError> {
        self.shaped(source, what, Shape::Line, keep).await
    }

    async fn shaped(
        &mut self,
        source: &SecretSource,
        what: &str,
        shape: Shape,
        keep: Keep,
    ) -> Result<Secret, MaterialError> {
        let failed = |source| MaterialError::Source { what: what.to_owned(), source };
        let secret = self.sources.read(source, shape, keep, self.want).await.map_err(failed)?;
        let (what, source) = (what.to_owned(), source.to_string());
        self.slots.push(Slot { what, source, secret: secret.clone(), keep, is_passing: false });
        Ok(secret)
    }

    /// A ready assertion. What a grant is asked with decides about the token; the client's own only lets it in.
    async fn assertion(&mut self, source: &SecretSource, grant: &Grant) -> Result<Secret, MaterialError> {
        let secret = self.one(source, "assertion.file", Keep::Nothing).await?;
        if let Some(slot) = self.slots.last_mut() {
            slot.is_passing = !matches!(grant, Grant::JwtBearer);
        }
        Ok(secret)
    }

    /// `client_cert` and `client_key`: one slot, since one without the other is nothing.
    /// Those of the certificate that an assertion's key belongs to.
    async fn thumbprints(&mut self, source: &SecretSource) -> Result<Thumbprints, MaterialError> {
        let failed = |source| MaterialError::Source { what: "key_cert".to_owned(), source };
        let text = self.sources.read(source, Shape::Text, Keep::Last, self.want).await.map_err(failed)?;
        let named = Thumbprints::of_pem(text.expose())?;
        let (what, source) = ("key_cert".to_owned(), source.to_string());
        // Not the text, as with `client_cert`.
        let secret = Secret::new(format!("key_cert:{}", named.sha256));
        self.slots.push(Slot { what, source, secret, keep: Keep::Last, is_passing: false });
        Ok(named)
    }

    async fn pair(&mut self, pair: &ClientCert) -> Result<Identity, MaterialError> {
        let (sources, want) = (self.sources, self.want);
        let read = async |source, what: &str| {
            let failed = |source| MaterialError::Source { what: what.to_owned(), source };
            sources.read(source, Shape::Text, Keep::Last, want).await.map_err(failed)
        };
        let (chain, key) = (read(&pair.chain, "client_cert").await?, read(&pair.key, "client_key").await?);
        let identity = sources.identity(&chain, &key)?;
        let (what, source) = ("client_cert".to_owned(), pair.chain.to_string());
        // Not the texts: half of the words that a provider says of a certificate stand in every PEM file.
        self.slots.push(Slot { what, source, secret: identity.tag(), keep: Keep::Last, is_passing: false });
        Ok(identity)
    }

    /// The entries of `client_secret`. Of a list one must be readable: during a rotation one comes, another goes.
    async fn list(&mut self, credential: &CredentialSpec) -> Result<Vec<(usize, Secret)>, MaterialError> {
        let (mut all, mut error) = (Vec::new(), None);
        for (position, source) in credential.client_secret.iter().chain(&credential.more_secrets).enumerate() {
            match self.one(source, CLIENT_SECRET, Keep::Last).await {
                Ok(secret) => all.push((position, secret)),
                Err(e) => error = error.or(Some(e)),
            }
        }
        match error {
            Some(error) if all.is_empty() => Err(error),
            _ => Ok(all),
        }
    }

    async fn all(&mut self, params: &[(String, Param)], table: &str) -> Result<Vec<(String, Secret)>, MaterialError> {
        let mut all = Vec::with_capacity(params.len());
        for (name, param) in params {
            let value = match param {
                Param::Plain(text) | Param::Template(text) => Secret::new(text.clone()),
                Param::Secret(source) => self.one(source, &format!("{table}.{name}"), Keep::Last).await?,
            };
            all.push((name.clone(), value));
        }
        Ok(all)
    }
}
