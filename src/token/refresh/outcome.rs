//! 5 … what a fetch has given: counted, logged and kept, once.

use std::{sync::PoisonError, time::SystemTime};

use super::{Run, Task};
use crate::{
    config::model::CredentialSpec,
    token::{
        asking::{Fetched, log_refusal},
        bearer::FailureKind,
        dpop::Prover,
        lifetime::LifetimeSource,
        reply::Minted,
        state::Event,
    },
};

impl Task {
    /// Counts and logs a fetch, once.
    pub(super) async fn fetched(&self, run: &mut Run, fetched: Fetched) -> Event {
        let Fetched { result, version, secret, place, taken_over, was_trial } = fetched;
        run.tried = version;
        let took = run.began.map(|began| began.elapsed());
        if was_trial && let Err(refusal) = &result {
            let asked = !matches!(refusal.kind, FailureKind::Budget | FailureKind::Secret);
            self.progress.lock().unwrap_or_else(PoisonError::into_inner).failed += u64::from(asked);
            return Event::TrialEnded; // the verdict has been logged
        }
        if let (true, Ok(minted)) = (taken_over, &result) {
            let (credential, fingerprint) = (&self.spec.credential.name, &minted.fingerprint);
            tracing::info!(credential, fingerprint, "token taken over from another replica");
            return Event::Fetched(Box::new(result));
        }
        if let (Ok(minted), Some(version), true) = (&result, version, self.is_storable()) {
            self.store.save(self.key, version, minted).await;
        }
        let credential = &self.spec.credential;
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let budget = matches!(&result, Err(refusal) if refusal.kind == FailureKind::Budget);
        if let Some(took) = took.filter(|_| !budget && !self.is_static()) {
            progress.seconds.add(took);
        }
        match &result {
            Ok(minted) => {
                progress.succeeded += 1;
                // Which of several works is worth a word.
                let told = secret.as_deref().filter(|_| !credential.more_secrets.is_empty());
                progress.last_minted = Some((minted.life_from, minted.scope.clone(), minted.skew));
                log_minted(credential, minted, told);
                (progress.secret, progress.place) = (secret, place);
                if minted.life_from == LifetimeSource::DefaultTtl
                    && !self.is_static()
                    && !std::mem::replace(&mut run.warned, true)
                {
                    let (credential, ttl) = (&credential.name, credential.default_ttl);
                    tracing::warn!(
                        credential,
                        ?ttl,
                        "the provider does not say how long its tokens live: default_ttl holds"
                    );
                }
            }
            Err(refusal) => {
                // What the budget stopped was no token request.
                progress.failed += u64::from(!budget);
                progress.last_refusal = Some((refusal.clone(), SystemTime::now()));
                log_refusal(credential, refusal);
            }
        }
        Event::Fetched(Box::new(result))
    }
}

fn log_minted(credential: &CredentialSpec, minted: &Minted, secret: Option<&str>) {
    tracing::info!(
        credential = credential.name,
        fingerprint = minted.fingerprint,
        lifetime = ?minted.life,
        skew = minted.skew,
        secret,
        proof_key = minted.proof.as_ref().map(Prover::thumbprint),
        "token fetched"
    );
}
