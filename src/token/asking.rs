//! 3 from secrets to token — one fetch: whose turn it is, which secrets, which refresh token, and the request.
//!
//! The refresh task asks this way. It is the only place where a token request is made.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use http::HeaderValue;

use super::{
    Key, assertion,
    bearer::Now,
    budget::Ledger,
    credential::{Material, Version},
    discovery::Discovery,
    dpop::{self, Facts, ProofKey, Prover, shifted},
    endpoint,
    grant::{self, BuildError, TokenRequest},
    halt::Halt,
    peer::{News, Peer, Used, Verdict},
    refusal::{Refusal, Severity},
    reply::{self, Answer, Minted},
    rotation::{self, Owner, Root, Rotation},
    secrets::{Choice, Secrets, Trial},
    share::{self, LEASE_SLACK, Last, Terms, Turn},
    store::Store,
};
use crate::{
    config::model::{CredentialSpec, TokenSpec},
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
    /// It only tried new secrets: without a token nothing has happened.
    pub(super) was_trial: bool,
}

/// How many calls one token request becomes at most: see [`Asking::ask`].
const MOST_CALLS: u32 = 3;

/// One token request as it went.
pub(super) struct Sight {
    /// What was asked for, and where.
    pub(super) spec: Arc<TokenSpec>,
    /// What it was made of.
    pub(super) material: Material,
    /// From the first to the last byte.
    pub(super) took: Duration,
    /// What came back, if anything did.
    pub(super) answer: Option<Answer>,
    /// Why it gave no token.
    pub(super) refusal: Option<Refusal>,
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
        let terms = Terms::new(self.longest(1), self.longest(secrets + 1));
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
                redis.release(&lease).await;
                fetched
            }
        }
    }

    fn ended(&self, result: Result<Minted, Refusal>, version: Option<Version>) -> Fetched {
        Fetched { result, version, secret: None, taken_over: false, was_trial: self.trial.is_some() }
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
                    None => Refusal::of_settings(credential, &error.to_string()),
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

    /// From secrets to token: one token request, and one more for each further choice among the secrets while
    /// the provider refuses the one before.
    async fn fetch_alone(&self, material: &Material) -> Fetched {
        let version = material.version();
        let choice = match &self.trial {
            Some(_) => Choice::New,
            None if self.ledger.is_ample() => Choice::All,
            None => Choice::Proven,
        };
        let candidates = self.secrets.candidates(material, choice);
        let mut last = None;
        for candidate in &candidates {
            let result = self.ask_bound(&candidate.material, candidate.is_new()).await;
            let refused = self.secrets.judge(candidate, &result, candidates.len() > 1);
            if refused || result.is_ok() {
                self.secrets.settle(version);
            }
            let secret = self.secrets.name_of(candidate);
            // A token that was got with the certificate or key before is not one of this version: whoever found it in
            // a store would use it with the new one, which it is not bound to.
            let is_of_version = result.is_err() || candidate.material.binds_like(&self.spec.credential, material);
            last = Some(Fetched { secret, ..self.ended(result, Some(version).filter(|_| is_of_version)) });
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

    /// How long so many token requests may take in the worst case, discovery included.
    fn longest(&self, requests: u32) -> Duration {
        let credential = &*self.spec.credential;
        let calls = if credential.signs() { MOST_CALLS } else { 1 };
        let discovery = if self.discovery.is_some() { 2 } else { 0 };
        credential.timeout.saturating_mul(calls * requests + discovery)
    }

    /// How long one fetch may have a refresh token in its hands: a request with it, one without, and the new one has to
    /// be stored.
    pub(super) fn longest_turn(&self) -> Duration {
        LEASE_SLACK + self.longest(2)
    }

    /// A token that is bound to our key, where the credential wants one. A refresh token beside it has been kept by now.
    async fn ask_bound(&self, material: &Material, is_trial: bool) -> Result<Minted, Refusal> {
        let credential = &*self.spec.credential;
        let minted = self.ask_in_turn(material, is_trial).await?;
        match &minted.token_type {
            Some(word) if !credential.dpop || word.eq_ignore_ascii_case("dpop") => Ok(minted),
            None if !credential.dpop => Ok(minted),
            other => Err(Refusal::unbound(credential, other.as_deref())),
        }
    }

    /// With the refresh token that is kept, if the credential keeps one, and nobody else meanwhile.
    async fn ask_in_turn(&self, material: &Material, is_trial: bool) -> Result<Minted, Refusal> {
        let Some(rotation) = &self.rotation else { return self.ask(material).await };
        let credential = &*self.spec.credential;
        self.go_on()?; // for another process's turn nobody waits in the end
        let mut owner = match rotation.own(self.longest_turn(), credential.logs_itself_in()).await {
            Ok(owner) => owner,
            // Who can log in anew needs no refresh token.
            Err(_) if credential.logs_itself_in() => return self.ask(material).await,
            Err(why) => {
                let remedy =
                    rotation::remedy(&why, credential).map_or_else(String::new, |remedy| format!(". {remedy}"));
                return Err(Refusal::of_settings(credential, &format!("its refresh token {why}{remedy}")));
            }
        };
        let _holding = self.halt.hold();
        let result = self.ask_as_owner(&mut owner, material, is_trial).await;
        owner.release().await;
        result
    }

    /// Nothing new is begun once the engine stops.
    fn go_on(&self) -> Result<(), Refusal> {
        match self.halt.is_ordered() {
            true => Err(Refusal::of_settings(&self.spec.credential, "this process is ending")),
            false => Ok(()),
        }
    }

    /// Where there is no refresh token any more, with the configured first one or by a login.
    async fn ask_as_owner(
        &self,
        owner: &mut Owner<'_>,
        material: &Material,
        is_trial: bool,
    ) -> Result<Minted, Refusal> {
        let credential = &*self.spec.credential;
        let can_log_in = credential.logs_itself_in();
        let root: Root = match &credential.grant {
            grant if grant.is_login() => rotation::LOGIN,
            _ if can_log_in => material.choice().to_bytes(),
            _ => material.root_of_refresh(),
        };
        let mut why = self.unattended();
        if let Some(current) = owner.current(root) {
            match self.ask(&material.with_refresh(current)).await {
                Ok(minted) => {
                    if let Some(next) = &minted.refresh {
                        owner.keep(next.clone(), root).await;
                    }
                    return Ok(minted);
                }
                // A key or certificate that is only being tried is not the one that the refresh token may be bound to.
                Err(refusal) if !is_trial && refusal.ends_refresh_token(can_log_in) => {
                    log_refusal(credential, &refusal);
                    owner.clear().await;
                    why = "the provider has ended its login (invalid_grant)";
                }
                Err(refusal) => return Err(refusal),
            }
        }
        let minted = match &material.of_grant {
            _ if can_log_in => self.ask(material).await?,
            Some(first) => self.ask(&material.with_refresh(first.clone())).await?,
            None if credential.grant.is_login() => return Err(Refusal::of_login(credential, why)),
            None => return Err(Refusal::of_settings(credential, "it has no refresh token")),
        };
        if let Some(next) = &minted.refresh {
            owner.keep(next.clone(), root).await;
        }
        Ok(minted)
    }

    /// Why there is no login.
    fn unattended(&self) -> &'static str {
        if self.store.keeps_refresh_tokens() {
            "nobody has logged in yet"
        } else {
            "nobody has logged in, and tokens.store = \"memory\" could not keep a login"
        }
    }

    /// One token request, where the provider takes them.
    async fn ask(&self, material: &Material) -> Result<Minted, Refusal> {
        let Some(discovery) = &self.discovery else { return self.ask_at(&self.spec, material).await };
        let found = discovery.complete(&self.spec, &self.connector).await;
        let spec = found.map_err(|error| Refusal::of_discovery(&self.spec.credential, &error))?;
        self.ask_at(&spec, material).await
    }

    /// One token request. One more, at once, where the provider's refusal brings the nonce that it wants in proofs, or a
    /// `Date` which shows that what was signed has the wrong time: neither says anything about the client.
    async fn ask_at(&self, spec: &Arc<TokenSpec>, material: &Material) -> Result<Minted, Refusal> {
        let credential = &*spec.credential;
        let (mut nonce_tried, mut clock_tried) = (false, false);
        let mut used = self.peer.used();
        loop {
            let (result, news) = self.call(spec, material, &used).await;
            let blames_proof = result.as_ref().is_err_and(Refusal::blames_proof);
            let nonce = news.nonce.is_some() && blames_proof && !nonce_tried;
            let clock = news.clock && !clock_tried;
            let is_newer = news.nonce.is_some() || nonce_tried;
            let next = news.nonce.or(used.nonce);
            if !(nonce || clock) {
                next.filter(|_| is_newer).into_iter().for_each(|nonce| self.peer.keep(nonce));
                return result;
            }
            used = Used { nonce: next, skew: self.peer.used().skew };
            let (credential, skew) = (&credential.name, used.skew);
            tracing::debug!(credential, nonce, clock, skew, "asking once more with what the provider just told");
            nonce_tried |= nonce;
            clock_tried |= clock;
        }
    }

    /// One call: the only place where all the parts meet.
    async fn call(&self, spec: &Arc<TokenSpec>, material: &Material, used: &Used) -> (Result<Minted, Refusal>, News) {
        let credential = &*spec.credential;
        let failed = |refusal| (Err(refusal), News::default());
        if let Err(refusal) = self.go_on() {
            return failed(refusal);
        }
        let material = material.dated(shifted(SystemTime::now(), used.skew));
        let (request, key) = match self.request(spec, &material, used) {
            Ok(built) => built,
            // Where the key is to blame, the one before may still do.
            Err(error) => {
                let blames_client = matches!(error, BuildError::Key(_));
                return failed(Refusal { blames_client, ..Refusal::of_settings(credential, &error.to_string()) });
            }
        };
        let taken = match self.ledger.take(&credential.name).await {
            Ok(taken) => taken,
            Err(spent) => return failed(Refusal::of_budget(credential, spent.usage, spent.free_in)),
        };
        let begun = Instant::now();
        let (result, answer, news) = match endpoint::call(&self.connector, credential, request).await {
            Ok(answer) => {
                if matches!(answer.status, 404 | 405 | 410) {
                    self.doubt();
                }
                let result = reply::read(credential, &material, &answer);
                let verdict = match &result {
                    _ if !credential.signs() => Verdict::Neither,
                    Ok(_) => Verdict::Taken,
                    Err(refusal) if refusal.severity == Severity::Permanent => Verdict::Refused,
                    Err(_) => Verdict::Neither,
                };
                let news = self.peer.learn(used, &answer.headers, verdict, (answer.sent.wall, SystemTime::now()));
                (result.map(|minted| self.bound_to(key, minted)), Some(answer), news)
            }
            Err(error) => {
                if error.was_unsent() {
                    self.ledger.give_back(&taken).await;
                    self.doubt();
                }
                (Err(error.into_refusal(credential)), None, News::default())
            }
        };
        if let Some(witness) = &self.witness {
            let refusal = result.as_ref().err().cloned();
            let sight =
                Sight { spec: Arc::clone(spec), material: material.clone(), took: begun.elapsed(), answer, refusal };
            witness.lock().unwrap_or_else(PoisonError::into_inner).push(sight);
        }
        (result, news)
    }

    /// The request, with the proof that belongs to it and the proof's key.
    fn request(
        &self,
        spec: &TokenSpec,
        material: &Material,
        used: &Used,
    ) -> Result<(TokenRequest, Option<Arc<ProofKey>>), BuildError> {
        let credential = &*spec.credential;
        let mut request = grant::build(spec, material)?;
        let key = ProofKey::of(credential, material, self.own_key.as_ref())?;
        if let Some(key) = &key {
            let path = request.target.split('?').next().unwrap_or_default();
            let url = format!("{}://{}{path}", credential.token_url.scheme.as_str(), credential.token_url.authority);
            let (method, at, nonce) = (request.method.as_str(), material.signed_at, used.nonce.as_deref());
            let mut proof = String::new();
            key.prove(&Facts { method, url: url.as_bytes(), at, nonce }, &mut proof)?;
            let mut proof =
                HeaderValue::try_from(proof).map_err(|_| BuildError::HeaderValue(dpop::PROOF.to_owned()))?;
            proof.set_sensitive(true);
            request.headers.insert(dpop::PROOF, proof);
        }
        Ok((request, key))
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

    /// Nobody answers where the provider said that its token endpoint is.
    fn doubt(&self) {
        if let Some(discovery) = &self.discovery {
            discovery.doubt();
        }
    }
}

/// A failed fetch, for the log.
pub(super) fn log_refusal(credential: &CredentialSpec, refusal: &Refusal) {
    let Refusal { severity, message, detail, retry_after, .. } = refusal;
    let (credential, permanent) = (&credential.name, *severity == Severity::Permanent);
    tracing::warn!(credential, permanent, ?retry_after, detail, "{message}");
}
