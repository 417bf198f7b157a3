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

use std::{
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    Engine, EngineError,
    asking::Asking,
    consent::Consent,
    credential::{Material, Step},
    discovery::{Discovery, DiscoveryError},
    dpop::ProofKey,
    metadata::{Endpoint, Metadata},
    pace::Pace,
    refusal::{Refusal, Severity},
    reply::Minted,
    rotation::{self, LAST_SAVES, Rotation},
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
    /// What was asked for and is not among that.
    pub missing: Vec<String>,
}

/// A login under way.
pub struct Login {
    asking: Asking,
    /// Read once: a login takes minutes, and some sources ask somebody.
    material: Material,
    metadata: Option<Arc<Metadata>>,
    /// The provider has answered with a token.
    is_granted: AtomicBool,
    /// What stands in the store.
    stored: OnceLock<Done>,
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
        asking.ledger.known().await;
        if let Some(spent) = asking.ledger.spent() {
            return Err(Refusal::of_budget(credential, &spent).into());
        }
        let material = asking.secrets.read().await.map_err(|e| LoginError::Settings(e.to_string()))?;
        let mut login =
            Self { asking, material, metadata: None, is_granted: AtomicBool::new(false), stored: OnceLock::new() };
        login.rotation()?.look().await.map_err(|why| unclaimed(&why, credential))?;
        login.discover().await?;
        Ok(login)
    }

    /// Takes the user through it; `tell` gets what the user must know. At the end the refresh token is in the store.
    ///
    /// Where the engine stops meanwhile, an answer that may bring the refresh token is waited for, within the time limits of
    /// its request, and stored: the user's agreement is good once.
    pub async fn run(
        &self,
        way: Way,
        patience: Option<Duration>,
        tell: &mut dyn FnMut(Prompt),
    ) -> Result<Done, LoginError> {
        let mut halt = self.asking.halt.clone();
        let mut login = pin!(async {
            match way {
                Way::Browser => browser::log_in(self, patience.unwrap_or(PATIENCE), tell).await,
                Way::Device => device::log_in(self, patience, tell).await,
            }
        });
        tokio::select! {
            biased;
            done = &mut login => return done,
            () = halt.ordered() => {}
        }
        if !halt.is_holding() && !self.is_granted.load(Ordering::Acquire) {
            return Err(self.given_up());
        }
        let (credential, most) = (&self.credential().name, self.asking.longest_turn());
        tracing::info!(credential, "waiting for an answer that may bring its refresh token");
        match tokio::time::timeout(most, login).await {
            Ok(done) => done,
            Err(_) => self.stored.get().cloned().ok_or_else(|| {
                LoginError::Failed(format!(
                    "given up: there was no end to it within {most:?}. Nothing was stored that is known of: \
                     `cupbearer token {credential}` tells whether it works"
                ))
            }),
        }
    }

    /// The engine has stopped before the provider was asked for the token.
    fn given_up(&self) -> LoginError {
        LoginError::Failed(format!("given up, nothing was stored for {:?}", self.credential().name))
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
        let result = self.asking.fetch_alone(&self.material.with_step(step)).await.result;
        let is_granted = result.as_ref().map_or_else(|refusal| refusal.refresh.is_some(), |_| true);
        self.is_granted.store(is_granted, Ordering::Release);
        result
    }

    /// Why there was no token, and what became of a refresh token that came all the same.
    async fn refused(&self, refusal: Refusal) -> LoginError {
        let came = refusal.refresh.is_some();
        let error = LoginError::from(refusal);
        if !came {
            return error;
        }
        let kept = match self.store_at_last().await {
            Ok(()) => "The refresh token beside it is in the store all the same, and may work".to_owned(),
            Err(LoginError::Settings(text) | LoginError::Refused(text) | LoginError::Failed(text)) => text,
        };
        LoginError::Failed(format!("{error}\n{kept}"))
    }

    /// What the user's agreement has given is of use only if it can be used again.
    async fn done(&self, minted: Minted) -> Result<Done, LoginError> {
        if minted.refresh.is_none() {
            return Err(LoginError::Refused(format!(
                "the provider gave no refresh token, so nothing was kept{}.\n\
                 hint: most providers give one only if asked: add \"offline_access\" to scopes (Google: \
                 authorize_params = {{ access_type = \"offline\", prompt = \"consent\" }}), or allow it to this client",
                self.what_is_left().await
            )));
        }
        self.store_at_last().await?;
        Ok(self
            .stored
            .get_or_init(|| {
                let missing = Consent::of(&self.spec().scopes, minted.scope.as_deref()).missing();
                Done { scope: minted.scope, missing }
            })
            .clone())
    }

    /// What a login that gave nothing leaves in the store.
    async fn what_is_left(&self) -> String {
        let name = &self.credential().name;
        match self.rotation().map(Rotation::is_there) {
            Ok(is_there) => match is_there.await {
                Ok(true) => format!(": the login of {name:?} from before stays as it was"),
                Ok(false) => format!(" and {name:?} cannot work"),
                Err(_) => String::new(),
            },
            Err(_) => String::new(),
        }
    }

    /// The refresh token is in the store now, or it is not known to be.
    async fn store_at_last(&self) -> Result<(), LoginError> {
        if self.rotation()?.save_at_last().await {
            return Ok(());
        }
        let name = &self.credential().name;
        Err(LoginError::Failed(format!(
            "the provider gave a refresh token, and the store has not taken it within {LAST_SAVES:?}: the log says why.\n\
             hint: log in again once it can be written to. Should the store take it in the last moment after all, \
             `cupbearer token {name}` works without"
        )))
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
