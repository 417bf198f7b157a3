//! A user logs in: once, by a browser, so that this host may ask for tokens from then on.
//!
//! 1. [`Login::prepare`] reads the secrets and finds the endpoints, or says at once why nothing can come of it;
//! 2. [`browser`] sends the user to the provider and waits for the answer on a loopback port ([`redirect`]), or
//!    [`device`] gives the user a code to enter anywhere;
//! 3. what the user's agreement gave is exchanged as every token request is made ([`asking`](super::asking)): counted, with one
//!    client secret after the other, with a proof where tokens are bound to a key;
//! 4. the refresh token goes into the store, sealed, before anybody is told of a success.
//!
//! The access token that comes along is thrown away: the proxy gets its own by the refresh token.

mod browser;
mod device;
mod page;
mod redirect;

use std::{sync::Arc, time::Duration};

use super::{
    Engine, EngineError,
    asking::Asking,
    credential::{Material, Step},
    discovery::{Discovery, DiscoveryError},
    dpop::ProofKey,
    metadata::{Endpoint, Metadata},
    pace::Pace,
    refusal::{Refusal, Severity},
    reply::Minted,
    rotation::{self, Rotation},
    store::Unclaimed,
};
use crate::config::model::{Config, CredentialSpec, StoreSpec, TokenSpec};

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

impl From<EngineError> for LoginError {
    fn from(error: EngineError) -> Self {
        Self::Settings(error.to_string())
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
    asking: Asking,
    /// Read once: a login takes minutes, and some sources ask somebody.
    material: Material,
    metadata: Option<Arc<Metadata>>,
}

impl Login {
    /// Everything that can be found out before the user is bothered. The login is for all that the routes of the
    /// credential will ask for.
    pub async fn prepare(
        config: &Config,
        credential: &Arc<CredentialSpec>,
        engine: &Engine,
    ) -> Result<Self, LoginError> {
        check(config, credential)?;
        let asking = engine.asking(&Arc::new(wanted(config, credential)))?;
        if let Some(spent) = asking.ledger.spent() {
            return Err(Refusal::of_budget(credential, spent.usage, spent.free_in).into());
        }
        let material = asking.secrets.read().await.map_err(|e| LoginError::Settings(e.to_string()))?;
        let mut login = Self { asking, material, metadata: None };
        login.rotation()?.look().await.map_err(|why| unclaimed(&why, credential))?;
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

    fn spec(&self) -> &TokenSpec {
        &self.asking.spec
    }

    fn credential(&self) -> &CredentialSpec {
        &self.spec().credential
    }

    fn rotation(&self) -> Result<&Rotation, LoginError> {
        let missing = || LoginError::Settings("this credential keeps no refresh token".to_owned());
        self.asking.rotation.as_deref().ok_or_else(missing)
    }

    /// The key that the tokens are to be bound to.
    fn proof_key(&self) -> Result<Option<Arc<ProofKey>>, LoginError> {
        let key = ProofKey::of(self.credential(), &self.material, self.asking.own_key.as_ref());
        key.map_err(|why| LoginError::Settings(format!("the key of dpop = true: {why}")))
    }

    /// Asks the provider what the file does not say.
    async fn discover(&mut self) -> Result<(), LoginError> {
        let credential = Arc::clone(&self.spec().credential);
        let Some(issuer) = credential.issuer.as_ref() else { return Ok(()) };
        let written = credential.login.authorize_url.is_some() || credential.login.device_url.is_some();
        if written && !issuer.tells_token_url {
            return Ok(());
        }
        let connector = &self.asking.connector;
        let own = || Arc::new(Discovery::new(Arc::clone(issuer), Pace::default().discovery, Arc::default()));
        let discovery = self.asking.discovery.clone().unwrap_or_else(own);
        self.metadata = Some(discovery.metadata(&credential, connector).await?);
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

    /// One request to the token endpoint; a refresh token in its answer is kept.
    async fn ask(&self, step: Step) -> Result<Minted, Refusal> {
        self.asking.fetch_alone(&self.material.with_step(step)).await.result
    }

    /// What the user's agreement has given is of use only if it can be used again.
    async fn done(&self, minted: Minted) -> Result<Done, LoginError> {
        let name = &self.credential().name;
        if minted.refresh.is_none() {
            return Err(LoginError::Refused(format!(
                "the provider gave no refresh token, so nothing was kept and {name:?} cannot work.\n\
                 hint: most providers give one only if asked: add \"offline_access\" to scopes (Google: \
                 authorize_params = {{ access_type = \"offline\", prompt = \"consent\" }}), or allow it to this client"
            )));
        }
        if self.rotation()?.holds_unsaved().await {
            let text = "the refresh token cannot be stored: log in again when it can";
            return Err(LoginError::Failed(text.to_owned()));
        }
        Ok(Done { scope: minted.scope })
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
