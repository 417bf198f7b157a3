//! 3 from secrets to token — one fetch: whose turn it is, which client secret, which refresh token, and the request.
//!
//! The refresh task asks this way. It is the only place where a token request is made.

use std::{sync::Arc, time::Duration};

use super::{
    Key,
    bearer::Now,
    budget::Ledger,
    credential::{Material, Version},
    endpoint, grant,
    overlap::{Candidate, Overlap},
    refusal::{Refusal, Severity},
    reply::{self, Minted},
    rotation::{Root, Rotation},
    share::{self, Last, Turn},
    store::Store,
};
use crate::{
    config::model::{CredentialSpec, Grant, TokenSpec},
    net::{Connector, shortage},
};

/// How a fetch ended.
pub(super) struct Fetched {
    pub(super) result: Result<Minted, Refusal>,
    /// Which version of the secrets stood in the sources.
    pub(super) version: Option<Version>,
    /// Which of several client secrets gave the token, by position and source.
    pub(super) secret: Option<String>,
    /// Another replica fetched it.
    pub(super) taken_over: bool,
}

/// What a lease lasts beyond the token requests themselves: reading the secrets, and Redis.
const LEASE_SLACK: Duration = Duration::from_secs(5);

/// All that a fetch needs.
pub(super) struct Asking {
    /// What is asked for.
    pub(super) spec: Arc<TokenSpec>,
    /// By which way.
    pub(super) connector: Connector,
    /// Whether a token request may be sent.
    pub(super) ledger: Arc<Ledger>,
    /// Which client secret works. Locked by the one fetch of the key only.
    pub(super) overlap: Arc<tokio::sync::Mutex<Overlap>>,
    /// The credential's refresh token, where it has one.
    pub(super) rotation: Option<Arc<Rotation>>,
    /// Its name in the store.
    pub(super) key: Key,
    /// Where other replicas' tokens are.
    pub(super) store: Arc<Store>,
    /// The last token, for what other replicas share.
    pub(super) last: Last,
}

impl Asking {
    /// From secrets to token, unless another replica has a newer one.
    pub(super) async fn fetch(&self) -> Fetched {
        let credential = &*self.spec.credential;
        let material = match Material::read(credential).await {
            Ok(material) => material,
            Err(error) => {
                // A file cannot be opened, a command not be started without a descriptor.
                let result = Err(match shortage() {
                    Some(shortage) => Refusal::of_shortage(credential, &shortage),
                    None => Refusal::of_settings(credential, &error.to_string()),
                });
                return Fetched { result, version: None, secret: None, taken_over: false };
            }
        };
        if let (Grant::Static { .. }, Some(token)) = (&credential.grant, &material.of_grant) {
            let (result, version) = (reply::given(credential, token, Now::read()), Some(material.version()));
            return Fetched { result, version, secret: None, taken_over: false };
        }
        let Store::Redis(redis) = &*self.store else { return self.fetch_alone(material).await };
        if !credential.share {
            return self.fetch_alone(material).await;
        }
        let version = material.version();
        let secrets = 1 + u32::try_from(credential.more_secrets.len()).unwrap_or(u32::MAX);
        let lease = LEASE_SLACK + credential.timeout.saturating_mul(secrets + 1);
        match share::turn(redis, self.key, version, &self.last, lease).await {
            Turn::Take(minted) => {
                Fetched { result: Ok(*minted), version: Some(version), secret: None, taken_over: true }
            }
            Turn::Alone => {
                let fetched = self.fetch_alone(material).await;
                if let Ok(minted) = &fetched.result {
                    let _ = redis.save(self.key, version, minted).await;
                }
                fetched
            }
            Turn::Fetch(lease) => {
                let fetched = self.fetch_alone(material).await;
                if let Ok(minted) = &fetched.result {
                    let _ = redis.save(self.key, version, minted).await;
                }
                redis.release(&lease).await;
                fetched
            }
        }
    }

    /// From secrets to token: one token request, and one more for each further client secret while the
    /// provider refuses the one before.
    async fn fetch_alone(&self, mut material: Material) -> Fetched {
        let credential = &*self.spec.credential;
        let version = Some(material.version());
        let mut overlap = self.overlap.lock().await;
        let candidates = overlap.candidates(&material.client_secrets);
        if candidates.is_empty() {
            return Fetched { result: self.ask_in_turn(&material).await, version, secret: None, taken_over: false };
        }
        let mut last = None;
        for candidate in &candidates {
            material.choose(credential, candidate.secret.clone());
            let result = self.ask_in_turn(&material).await;
            match &result {
                Ok(_) => overlap.worked(&candidate.secret),
                Err(refusal) if refusal.blames_client => overlap.refused(&candidate.secret),
                Err(_) => {}
            }
            let refused = result.as_ref().is_err_and(|refusal| refusal.blames_client);
            let name = name_of(credential, candidate);
            if refused && candidates.len() > 1 {
                tracing::warn!(credential = credential.name, secret = name, "the provider refused this client secret");
            }
            last = Some(Fetched { result, version, secret: Some(name), taken_over: false });
            if !refused {
                break;
            }
        }
        last.unwrap_or_else(|| Fetched {
            result: Err(Refusal::of_settings(credential, "there is no client_secret")),
            version,
            secret: None,
            taken_over: false,
        })
    }

    /// With the refresh token that is kept, if the credential keeps one; where there is none any more, with the
    /// configured first one or by a login.
    async fn ask_in_turn(&self, material: &Material) -> Result<Minted, Refusal> {
        let Some(rotation) = &self.rotation else { return self.ask(material).await };
        let credential = &*self.spec.credential;
        let is_login = !matches!(credential.grant, Grant::RefreshToken { .. });
        let root: Root = if is_login { material.version().to_bytes() } else { material.root_of_refresh() };
        let mut owner = rotation.own().await;
        if let Some(current) = owner.current(root) {
            match self.ask(&material.with_refresh(current)).await {
                Ok(minted) => {
                    if let Some(next) = &minted.refresh {
                        owner.keep(next.clone(), root);
                    }
                    return Ok(minted);
                }
                Err(refusal) if refusal.ends_refresh_token(is_login) => {
                    log_refusal(credential, &refusal);
                    owner.clear();
                }
                Err(refusal) => return Err(refusal),
            }
        }
        let minted = match &material.of_grant {
            _ if is_login => self.ask(material).await?,
            Some(first) => self.ask(&material.with_refresh(first.clone())).await?,
            None => return Err(Refusal::of_settings(credential, "it has no refresh token")),
        };
        if let Some(next) = &minted.refresh {
            owner.keep(next.clone(), root);
        }
        Ok(minted)
    }

    /// One token request: the only place where all the parts meet.
    async fn ask(&self, material: &Material) -> Result<Minted, Refusal> {
        let credential = &*self.spec.credential;
        let of_settings = |error: grant::BuildError| Refusal::of_settings(credential, &error.to_string());
        let request = grant::build(&self.spec, material).map_err(of_settings)?;
        let taken = self.ledger.take().map_err(|spent| Refusal::of_budget(credential, spent.usage, spent.free_in))?;
        match endpoint::call(&self.connector, credential, request).await {
            Ok(answer) => reply::read(credential, material, &answer),
            Err(error) => {
                if error.was_unsent() {
                    self.ledger.give_back(&taken);
                }
                Err(error.into_refusal(credential))
            }
        }
    }
}

/// How a client secret is called where people see it: never by its text.
fn name_of(credential: &CredentialSpec, candidate: &Candidate) -> String {
    let mut sources = credential.client_secret.iter().chain(&credential.more_secrets);
    let count = 1 + credential.more_secrets.len();
    match candidate.position.and_then(|position| Some((position, sources.nth(position)?))) {
        Some((_, source)) if count == 1 => source.to_string(),
        Some((position, source)) => format!("{} of {count}: {source}", position + 1),
        None => "the one before its source changed".to_owned(),
    }
}

/// A failed fetch, for the log.
pub(super) fn log_refusal(credential: &CredentialSpec, refusal: &Refusal) {
    let Refusal { severity, message, detail, retry_after, .. } = refusal;
    let (credential, permanent) = (&credential.name, *severity == Severity::Permanent);
    tracing::warn!(credential, permanent, ?retry_after, detail, "{message}");
}
