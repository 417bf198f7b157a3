//! 3 from secrets to token — one fetch: whose turn it is, which secrets, which refresh token ([`turn`]), and the request
//! ([`call`]).
//!
//! The refresh task asks this way, and so do a user's login and the commands that explain: it is the only place where a
//! token request is made.

mod call;
mod turn;

use std::sync::{Arc, Mutex};

use super::{
    Key, assertion,
    bearer::{Now, Withheld},
    budget::Ledger,
    credential::{Material, Version},
    discovery::Discovery,
    dpop::{ProofKey, Prover},
    halt::Halt,
    peer::Peer,
    refusal::{Refusal, Severity},
    reply::{self, Minted},
    rotation::Rotation,
    secrets::{Choice, Place, Secrets, Trial},
    share::{self, Last, Terms, Turn},
    store::Store,
};
use crate::{
    config::model::{CredentialSpec, TokenSpec},
    net::{Connector, shortage},
};
pub(super) use call::{Errand, Sight};

/// How a fetch ended.
pub(super) struct Fetched {
    pub(super) result: Result<Minted, Refusal>,
    /// Which version of the secrets stood in the sources.
    pub(super) version: Option<Version>,
    /// Which of several client secrets gave the token, by position and source.
    pub(super) secret: Option<String>,
    /// The same, by position alone.
    pub(super) place: Option<Place>,
    /// Another replica fetched it.
    pub(super) taken_over: bool,
    /// It only tried new secrets: without a token nothing has happened.
    pub(super) was_trial: bool,
}

/// All that a fetch needs.
pub(super) struct Asking {
    /// What is asked for.
    pub(super) spec: Arc<TokenSpec>,
    /// By which way.
    pub(super) connector: Connector,
    /// Whether a token request may be sent.
    pub(super) ledger: Arc<Ledger>,
    /// The credential's secrets.
    pub(super) secrets: Arc<Secrets>,
    /// Only new secrets are tried.
    pub(super) trial: Option<Trial>,
    /// The credential's refresh token, where it has one.
    pub(super) rotation: Option<Arc<Rotation>>,
    /// Where to ask, where that is not written down.
    pub(super) discovery: Option<Arc<Discovery>>,
    /// Its name in the store.
    pub(super) key: Key,
    /// Where other replicas' tokens are.
    pub(super) store: Arc<Store>,
    /// The last token, for what other replicas share.
    pub(super) last: Last,
    /// Where each token request is noted, for those who want it explained.
    pub(super) witness: Option<Arc<Mutex<Vec<Sight>>>>,
    /// What the provider has told of itself.
    pub(super) peer: Arc<Peer>,
    /// Of a credential that binds its tokens and has no `key`: the key of this process.
    pub(super) own_key: Option<Arc<ProofKey>>,
    /// The end of the engine.
    pub(super) halt: Halt,
}

impl Asking {
    /// From secrets to token, unless another replica has a newer one.
    pub(super) async fn fetch(&self) -> Fetched {
        let credential = &*self.spec.credential;
        let material = match self.material().await {
            Ok(material) => material,
            Err(fetched) => return *fetched,
        };
        let version = material.version();
        let Store::Redis(redis) = &*self.store else { return self.fetch_alone(&material).await };
        if !credential.share || credential.is_bound_to_this_process() {
            return self.fetch_alone(&material).await;
        }
        let secrets = 1 + u32::try_from(credential.more_secrets.len()).unwrap_or(u32::MAX);
        let terms = Terms::new(credential.timeout, self.longest(secrets + 1));
        match share::turn(redis, self.key, version, &self.last, terms).await {
            Turn::Take(minted) => {
                self.secrets.proved(&material);
                let result = self.bind(&material, *minted);
                Fetched { taken_over: true, ..self.ended(result, Some(version)) }
            }
            Turn::Alone => {
                let fetched = self.fetch_alone(&material).await;
                if let (Ok(minted), Some(version)) = (&fetched.result, fetched.version) {
                    let _ = redis.save(self.key, version, minted).await;
                }
                fetched
            }
            Turn::Fetch(lease) => {
                let fetched = self.fetch_alone(&material).await;
                if let (Ok(minted), Some(version)) = (&fetched.result, fetched.version) {
                    let _ = redis.save(self.key, version, minted).await;
                }
                redis.release(lease).await;
                fetched
            }
        }
    }

    fn ended(&self, result: Result<Minted, Refusal>, version: Option<Version>) -> Fetched {
        Fetched { result, version, secret: None, place: None, taken_over: false, was_trial: self.trial.is_some() }
    }

    /// From secrets to token, whatever other replicas have.
    pub(super) async fn fetch_anew(&self) -> Fetched {
        match self.material().await {
            Ok(material) => self.fetch_alone(&material).await,
            Err(fetched) => *fetched,
        }
    }

    /// The secrets; or the end of the fetch already: they cannot be read, or the token needs no request.
    async fn material(&self) -> Result<Material, Box<Fetched>> {
        let credential = &*self.spec.credential;
        let (result, version) = match self.secrets.read().await {
            Err(error) => {
                // A file cannot be opened, a command not be started without a descriptor.
                let refusal = match shortage() {
                    Some(shortage) => Refusal::of_shortage(credential, &shortage),
                    None => Refusal::of_place(credential, &error.to_string(), Withheld::Secret),
                };
                (Err(refusal), None)
            }
            Ok(material) if credential.grant.is_local() => {
                let token = self.own_token(&material).and_then(|token| self.bind(&material, token));
                (token, Some(material.version()))
            }
            Ok(material) => return Ok(material),
        };
        Err(Box::new(self.ended(result, version)))
    }

    /// The token that needs no token request: read, or signed here.
    fn own_token(&self, material: &Material) -> Result<Minted, Refusal> {
        let credential = &*self.spec.credential;
        let token = match &material.of_grant {
            Some(token) => Ok(token.clone()),
            None => assertion::of_self(&self.spec, material),
        };
        let token = token.map_err(|error| Refusal::of_settings(credential, &error.to_string()))?;
        reply::given(credential, &token, material.identity.clone(), Now::read())
    }

    /// From secrets that have been read to token, whatever other replicas have: one token request, and one more for each
    /// further choice among the secrets while the provider refuses the one before.
    pub(super) async fn fetch_alone(&self, material: &Material) -> Fetched {
        let version = material.version();
        let candidates = self.secrets.candidates(material, self.choice());
        let mut last = None;
        for candidate in &candidates {
            let result = self.ask_bound(&candidate.material, candidate.is_new()).await;
            let refused = self.secrets.judge(candidate, result.as_ref().err(), candidates.len() > 1);
            if refused || result.is_ok() {
                self.secrets.settle(version);
            }
            let (secret, place) = (self.secrets.name_of(candidate), self.secrets.place_of(candidate));
            // A token that was got with the certificate or key before is not one of this version: whoever found it in
            // a store would use it with the new one, which it is not bound to.
            let is_of_version = result.is_err() || candidate.material.binds_like(&self.spec.credential, material);
            last = Some(Fetched { secret, place, ..self.ended(result, Some(version).filter(|_| is_of_version)) });
            if !refused {
                break;
            }
        }
        last.unwrap_or_else(|| {
            self.secrets.settle(version);
            let why = "there are no new secrets to try";
            self.ended(Err(Refusal::of_settings(&self.spec.credential, why)), Some(version))
        })
    }

    /// The client asks for something else than a token, at `spec`'s own place, with one of its secrets after the other.
    pub(super) async fn ask_elsewhere<T>(
        &self,
        errand: Errand<T>,
        spec: &Arc<TokenSpec>,
        material: &Material,
    ) -> Result<T, Refusal> {
        let candidates = self.secrets.candidates(material, self.choice());
        let mut last = Err(Refusal::of_settings(&self.spec.credential, "there are no secrets to try"));
        for candidate in &candidates {
            last = self.send(errand, spec, &candidate.material).await.map(|(answered, _)| answered);
            if !self.secrets.judge(candidate, last.as_ref().err(), candidates.len() > 1) {
                break;
            }
        }
        last
    }

    fn choice(&self) -> Choice {
        match &self.trial {
            Some(_) => Choice::New,
            None if self.ledger.is_ample() => Choice::All,
            None => Choice::Proven,
        }
    }

    /// A token that nobody was asked for just now, with what it is bound to.
    pub(super) fn bind(&self, material: &Material, minted: Minted) -> Result<Minted, Refusal> {
        let credential = &*self.spec.credential;
        let minted = Minted { identity: material.identity.clone(), ..minted };
        let key = ProofKey::of(credential, material, self.own_key.as_ref());
        let key = key.map_err(|error| Refusal::of_settings(credential, &error.to_string()))?;
        Ok(self.bound_to(key, minted))
    }

    fn bound_to(&self, key: Option<Arc<ProofKey>>, minted: Minted) -> Minted {
        let skew = self.peer.used().skew;
        Minted { proof: key.map(|key| Prover::new(key, minted.token.expose(), skew)), ..minted }
    }
}

/// A failed fetch, for the log.
pub(super) fn log_refusal(credential: &CredentialSpec, refusal: &Refusal) {
    let Refusal { severity, message, detail, retry_after, .. } = refusal;
    let (credential, permanent) = (&credential.name, *severity == Severity::Permanent);
    tracing::warn!(credential, permanent, ?retry_after, detail, "{message}");
}
