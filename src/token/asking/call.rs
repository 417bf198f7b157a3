//! 3 … one request: where to, with which proof, counted, and made once more where the provider has just told what it wants.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use http::HeaderValue;

use super::Asking;
use crate::{
    config::model::{CredentialSpec, TokenSpec},
    token::{
        budget::Taken,
        credential::Material,
        dpop::{self, Facts, ProofKey, shifted},
        endpoint::{self, CallError},
        grant::{self, BuildError, TokenRequest},
        peer::{News, Used, Verdict},
        refusal::{Refusal, Severity},
        reply::{self, Answer, Minted},
    },
};

/// One request as it went.
pub(in crate::token) struct Sight {
    /// What was asked for, and where.
    pub(in crate::token) spec: Arc<TokenSpec>,
    /// What it was made of.
    pub(in crate::token) material: Material,
    /// From the first to the last byte.
    pub(in crate::token) took: Duration,
    /// What came back, if anything did.
    pub(in crate::token) answer: Option<Answer>,
    /// Why it gave no token.
    pub(in crate::token) refusal: Option<Refusal>,
}

/// What a request is for.
#[derive(Debug)]
pub(in crate::token) struct Errand<T> {
    /// A token: it counts against the budget, and has the proof that the token is to be bound by.
    pub(in crate::token) is_for_token: bool,
    /// Makes something of the answer.
    pub(in crate::token) read: fn(&CredentialSpec, &Material, &Answer) -> Result<T, Refusal>,
}

impl<T> Clone for Errand<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Errand<T> {}

const TOKEN: Errand<Minted> = Errand { is_for_token: true, read: reply::read };

/// What came of a request, and the key that it proved.
type Answered<T> = (T, Option<Arc<ProofKey>>);

impl Asking {
    /// One token request, where the provider takes them.
    pub(super) async fn ask(&self, material: &Material) -> Result<Minted, Refusal> {
        let sent = match &self.discovery {
            None => self.send(TOKEN, &self.spec, material).await,
            Some(discovery) => {
                let found = discovery.complete(&self.spec, &self.connector).await;
                let spec = found.map_err(|error| Refusal::of_discovery(&self.spec.credential, &error))?;
                self.send(TOKEN, &spec, material).await
            }
        };
        sent.map(|(minted, key)| self.bound_to(key, minted))
    }

    /// One request. One more, at once, where the provider's refusal brings the nonce that it wants in proofs, or a `Date`
    /// which shows that what was signed has the wrong time: neither says anything about the client.
    pub(super) async fn send<T>(
        &self,
        errand: Errand<T>,
        spec: &Arc<TokenSpec>,
        material: &Material,
    ) -> Result<Answered<T>, Refusal> {
        let credential = &*spec.credential;
        let (mut nonce_tried, mut clock_tried) = (false, false);
        let mut used = self.peer.used();
        loop {
            let (result, news) = self.call(errand, spec, material, &used).await;
            let refusal = result.as_ref().err();
            let blames_proof = refusal.is_some_and(Refusal::blames_proof);
            // Where a new refresh token came along, the request's own is used up.
            let is_spent = refusal.is_some_and(|refusal| refusal.refresh.is_some());
            let nonce = news.nonce.is_some() && blames_proof && !nonce_tried && !is_spent;
            let clock = news.clock && !clock_tried && !is_spent;
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
    async fn call<T>(
        &self,
        errand: Errand<T>,
        spec: &Arc<TokenSpec>,
        material: &Material,
        used: &Used,
    ) -> (Result<Answered<T>, Refusal>, News) {
        let credential = &*spec.credential;
        let failed = |refusal| (Err(refusal), News::default());
        if let Err(refusal) = self.go_on() {
            return failed(refusal);
        }
        let material = material.dated(shifted(SystemTime::now(), used.skew));
        let (request, key) = match self.request(errand.is_for_token, spec, &material, used) {
            Ok(built) => built,
            // Where the key is to blame, the one before may still do.
            Err(error) => {
                let blames_client = matches!(error, BuildError::Key(_));
                return failed(Refusal { blames_client, ..Refusal::of_settings(credential, &error.to_string()) });
            }
        };
        let taken = match self.count(errand.is_for_token, credential).await {
            Ok(taken) => taken,
            Err(refusal) => return failed(refusal),
        };
        let begun = Instant::now();
        let sent = endpoint::call(&self.connector, credential, request).await;
        let (took, was_unsent) = (begun.elapsed(), sent.as_ref().is_err_and(CallError::was_unsent));
        let has_moved = sent.as_ref().is_ok_and(|answer| matches!(answer.status, 404 | 405 | 410));
        if errand.is_for_token && (was_unsent || has_moved) {
            self.doubt();
        }
        let (result, news) = match &sent {
            Ok(answer) => {
                let result = (errand.read)(credential, &material, answer);
                let news = self.peer.learn(used, answer, verdict(credential, result.as_ref().err()));
                (result.map(|answered| (answered, key)), news)
            }
            Err(error) => (Err(error.to_refusal(credential)), News::default()),
        };
        let refusal = result.as_ref().err();
        // To ask whether the user has agreed by now is to get no token.
        let was_poll = material.step.is_some() && refusal.is_some_and(Refusal::is_pending);
        if was_unsent || was_poll {
            self.ledger.give_back(&taken).await;
        }
        if let Some(witness) = &self.witness {
            let (spec, refusal) = (Arc::clone(spec), refusal.cloned());
            let sight = Sight { spec, material, took, answer: sent.ok(), refusal };
            witness.lock().unwrap_or_else(PoisonError::into_inner).push(sight);
        }
        (result, news)
    }

    /// Counts a token request against the budget.
    async fn count(&self, is_for_token: bool, credential: &CredentialSpec) -> Result<Taken, Refusal> {
        if !is_for_token {
            return Ok(Taken::default());
        }
        let taken = self.ledger.take(&credential.name).await;
        taken.map_err(|spent| Refusal::of_budget(credential, &spent))
    }

    /// The request, with the proof that belongs to it and the proof's key.
    fn request(
        &self,
        is_for_token: bool,
        spec: &TokenSpec,
        material: &Material,
        used: &Used,
    ) -> Result<(TokenRequest, Option<Arc<ProofKey>>), BuildError> {
        let credential = &*spec.credential;
        let mut request = grant::build(spec, material)?;
        if !is_for_token {
            return Ok((request, None));
        }
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

    /// Nobody answers where the provider said that its token endpoint is.
    fn doubt(&self) {
        if let Some(discovery) = &self.discovery {
            discovery.doubt();
        }
    }
}

/// What an answer says about what was signed for it.
fn verdict(credential: &CredentialSpec, refusal: Option<&Refusal>) -> Verdict {
    match refusal {
        _ if !credential.signs() => Verdict::Neither,
        None => Verdict::Taken,
        Some(refusal) if refusal.severity == Severity::Permanent && !refusal.is_pending() => Verdict::Refused,
        Some(_) => Verdict::Neither,
    }
}
