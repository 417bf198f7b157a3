//! A user logs in: once, by a browser, so that this host may ask for tokens from then on.
//!
//! 1. [`Login::prepare`] reads the secrets and finds the endpoints, or says at once why nothing can come of it;
//! 2. [`browser`] sends the user to the provider and waits for the answer on a loopback port ([`redirect`]), or
//!    [`device`] gives the user a code to enter anywhere;
//! 3. the refresh token goes into the store, sealed, before anybody is told of a success.
//!
//! The access token that comes along is thrown away: the proxy gets its own by the refresh token.

mod browser;
mod device;
mod page;
mod redirect;

use std::{sync::Arc, time::Duration};

use super::{
    Key, Store,
    credential::{Material, Step},
    discovery::{Discovery, DiscoveryError},
    endpoint, grant,
    metadata::{Endpoint, Metadata},
    pace::Pace,
    refusal::{Refusal, Severity},
    reply::{self, Minted},
    rotation::{self, Rotation},
    share::LEASE_SLACK,
    sources::{Sources, Want},
    store::Unclaimed,
    vault::Vault,
};
use crate::{
    config::model::{Config, CredentialSpec, StoreSpec, TokenSpec},
    net::Connector,
};

/// How long somebody may take to log in with a browser, unless they say otherwise.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Why there was no login.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The configuration is to blame; nothing was tried.
    #[error("{0}")]
    Settings(String),
    /// The provider, or the user there, said no.
    #[error("{0}")]
    Refused(String),
    /// It could not be brought to an end: network, time, store.
    #[error("{0}")]
    Failed(String),
}

impl From<Refusal> for LoginError {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.detail.map_or_else(String::new, |detail| format!("\nthe provider says: {detail}"));
        let text = format!("{}{detail}", refusal.message);
        match refusal.severity {
            Severity::Permanent => Self::Refused(text),
            Severity::Transient => Self::Failed(text),
        }
    }
}

impl From<DiscoveryError> for LoginError {
    fn from(error: DiscoveryError) -> Self {
        let text = format!("discovery failed: {error}");
        if matches!(error, DiscoveryError::Unacceptable(_)) { Self::Refused(text) } else { Self::Failed(text) }
    }
}

/// How a user logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Authorization code with PKCE, on a loopback redirect (RFC 8252).
    Browser,
    /// A code for another device (RFC 8628).
    Device,
}

/// What the user is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Open this.
    Browser {
        /// The authorization request.
        url: String,
        /// Where the browser will come back to on this machine.
        port: u16,
        /// How long that is waited for.
        patience: Duration,
    },
    /// Open this, enter that.
    Device {
        /// Where.
        url: String,
        /// The same with the code in it, where the provider has that.
        complete: Option<String>,
        /// The code.
        code: String,
        /// How long it is good for.
        patience: Duration,
    },
}

/// A login that has been stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// What was granted, in the provider's words.
    pub scope: Option<String>,
}

/// A login under way.
pub struct Login {
    spec: Arc<TokenSpec>,
    connector: Connector,
    material: Material,
    metadata: Option<Arc<Metadata>>,
    rotation: Rotation,
}

impl Login {
    /// Everything that can be found out before the user is bothered. The login is for all that the routes of the
    /// credential will ask for.
    pub async fn prepare(config: &Config, credential: &Arc<CredentialSpec>, store: Store) -> Result<Self, LoginError> {
        check(config, credential)?;
        let spec = Arc::new(wanted(config, credential));
        let connector = Connector::new(Arc::clone(&credential.net)).map_err(LoginError::Settings)?;
        let vault = config.vault.as_ref().map(Vault::new).transpose().map_err(LoginError::Settings)?;
        let sources = Sources::new(&credential.name, vault.map(Arc::new));
        let material = Material::read(credential, &sources, Want::Request).await;
        let material = material.map_err(|e| LoginError::Settings(e.to_string()))?;
        let rotation = Rotation::new(Key::of_refresh(credential), Arc::new(store));
        rotation.look().await.map_err(|why| unclaimed(&why, credential))?;
        let mut login = Self { spec, connector, material, metadata: None, rotation };
        login.discover().await?;
        Ok(login)
    }

    /// Takes the user through it; `tell` gets what the user must know. At the end the refresh token is in the store.
    pub async fn run(
        &self,
        way: Way,
        patience: Option<Duration>,
        tell: &mut dyn FnMut(Prompt),
    ) -> Result<Done, LoginError> {
        match way {
            Way::Browser => browser::log_in(self, patience.unwrap_or(PATIENCE), tell).await,
            Way::Device => device::log_in(self, patience, tell).await,
        }
    }

    fn credential(&self) -> &CredentialSpec {
        &self.spec.credential
    }

    /// Asks the provider what the file does not say.
    async fn discover(&mut self) -> Result<(), LoginError> {
        let credential = Arc::clone(&self.spec.credential);
        let Some(issuer) = credential.issuer.as_ref() else { return Ok(()) };
        let written = credential.login.authorize_url.is_some() || credential.login.device_url.is_some();
        if written && !issuer.tells_token_url {
            return Ok(());
        }
        let bounds = Pace::default().discovery;
        let discovery = Discovery::new(Arc::clone(issuer), bounds, Arc::default());
        self.metadata = Some(discovery.metadata(&credential, &self.connector).await?);
        if issuer.tells_token_url {
            self.spec = discovery.complete(&self.spec, &self.connector).await?;
        }
        Ok(())
    }

    /// An endpoint from the file, else from the provider's document.
    fn endpoint(
        &self,
        written: Option<&Endpoint>,
        found: impl FnOnce(&Metadata) -> Result<Option<Endpoint>, DiscoveryError>,
        key: &str,
    ) -> Result<Endpoint, LoginError> {
        if let Some(written) = written {
            return Ok(written.clone());
        }
        let found = self.metadata.as_deref().map(found).transpose()?.flatten();
        let missing = || {
            let name = &self.credential().name;
            let why = if self.metadata.is_some() { "the provider's document names none" } else { "there is none" };
            LoginError::Settings(format!("this login needs `{key}` of the credential {name:?}: {why}"))
        };
        found.ok_or_else(missing)
    }

    /// One request to the token endpoint.
    async fn ask(&self, step: Step) -> Result<Minted, Refusal> {
        let credential = self.credential();
        let material = self.material.with_step(step);
        let of_settings = |error: grant::BuildError| Refusal::of_settings(credential, &error.to_string());
        let request = grant::build(&self.spec, &material).map_err(of_settings)?;
        let answer = endpoint::call(&self.connector, credential, request).await;
        reply::read(credential, &material, &answer.map_err(|error| error.into_refusal(credential))?)
    }

    /// Stores what the user's agreement has given.
    async fn keep(&self, minted: Minted) -> Result<Done, LoginError> {
        let name = &self.credential().name;
        let Some(refresh) = minted.refresh else {
            return Err(LoginError::Refused(format!(
                "the provider gave no refresh token, so nothing was kept and {name:?} cannot work.\n\
                 hint: most providers give one only if asked: add \"offline_access\" to scopes (Google: \
                 authorize_params = {{ access_type = \"offline\", prompt = \"consent\" }}), or allow it to this client"
            )));
        };
        let patience = LEASE_SLACK + self.credential().timeout.saturating_mul(2);
        let owner = self.rotation.own(patience, false).await;
        let mut owner = owner.map_err(|why| unclaimed(&why, self.credential()))?;
        let kept = owner.keep(refresh, rotation::LOGIN).await;
        owner.release().await;
        let lost = || LoginError::Failed("the refresh token cannot be stored: log in again when it can".to_owned());
        kept.then_some(Done { scope: minted.scope }).ok_or_else(lost)
    }
}

/// The place of the refresh token cannot be had; what is in it has not been touched.
fn unclaimed(why: &Unclaimed, credential: &CredentialSpec) -> LoginError {
    let text = format!("the refresh token of {:?} {why}", credential.name);
    match rotation::remedy(why, credential) {
        Some(remedy) => LoginError::Settings(format!("{text}; nothing was changed\nhint: {remedy}")),
        None => LoginError::Failed(text),
    }
}

/// A login that nobody could use is not begun.
fn check(config: &Config, credential: &CredentialSpec) -> Result<(), LoginError> {
    let name = &credential.name;
    if !credential.grant.is_login() {
        let text = format!("the credential {name:?} needs no login: its grant is {}", credential.grant.as_str());
        let hint = "a login is for grant = \"authorization_code\" or \"device_code\"";
        return Err(LoginError::Settings(format!("{text}\nhint: {hint}")));
    }
    if credential.dpop {
        let text = format!("a login that is bound to a key (dpop = true of {name:?}) is not built yet");
        return Err(LoginError::Settings(text));
    }
    let hint = "[tokens] store = { file = \"/var/lib/cupbearer/tokens\" } and seal_key, the same as for `serve`";
    let refused = |why: &str| Err(LoginError::Settings(format!("{why}\nhint: {hint}")));
    match config.tokens.store {
        StoreSpec::Memory => refused("a login would be lost at once: tokens.store = \"memory\" ends with this command"),
        StoreSpec::Redis(_) if !credential.share => {
            refused(&format!("share = false keeps the login of {name:?} out of Redis, and there is no other store"))
        }
        StoreSpec::Redis(_) | StoreSpec::File(_) => Ok(()),
    }
}

/// What the credential and all its routes ask for.
fn wanted(config: &Config, credential: &Arc<CredentialSpec>) -> TokenSpec {
    let mut spec = TokenSpec {
        credential: Arc::clone(credential),
        scopes: credential.scopes.clone(),
        audience: credential.audience.clone(),
        resource: credential.resource.clone(),
    };
    for route in config.routes.iter().filter(|route| route.token.credential.name == credential.name) {
        add(&mut spec.scopes, &route.token.scopes);
        add(&mut spec.resource, &route.token.resource);
        spec.audience = spec.audience.or_else(|| route.token.audience.clone());
    }
    spec
}

fn add(all: &mut Vec<String>, more: &[String]) {
    for text in more {
        if !all.contains(text) {
            all.push(text.clone());
        }
    }
}
