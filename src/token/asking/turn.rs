//! 3 … whose hands a refresh token is in: one request's at a time, which keeps what comes back.

use std::time::Duration;

use super::{Asking, log_refusal};
use crate::token::{
    bearer::Withheld,
    consent::{Beyond, Consent},
    credential::Material,
    halt::ENDING,
    refusal::Refusal,
    reply::Minted,
    rotation::{self, Kept, Owner, Root},
    share::LEASE_SLACK,
};

/// How many calls one token request becomes at most: see [`Asking::send`].
const MOST_CALLS: u32 = 3;

impl Asking {
    /// How long so many token requests may take in the worst case, discovery included.
    pub(super) fn longest(&self, requests: u32) -> Duration {
        let credential = &*self.spec.credential;
        let calls = if credential.signs() { MOST_CALLS } else { 1 };
        let discovery = if self.discovery.is_some() { 2 } else { 0 };
        credential.timeout.saturating_mul(calls * requests + discovery)
    }

    /// How long one fetch may have a refresh token in its hands: a request with it, one without, and the new one has to
    /// be stored.
    pub(in crate::token) fn longest_turn(&self) -> Duration {
        LEASE_SLACK + self.longest(2)
    }

    /// A token that is bound to our key, where the credential wants one. A refresh token beside it has been kept by now.
    pub(super) async fn ask_bound(&self, material: &Material, is_trial: bool) -> Result<Minted, Refusal> {
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
                // What has a remedy names a place.
                return Err(match rotation::remedy(&why, credential) {
                    Some(remedy) => {
                        let what = format!("its refresh token {why}. {remedy}");
                        Refusal::of_place(credential, &what, Withheld::RefreshToken)
                    }
                    None => Refusal::of_settings(credential, &format!("its refresh token {why}")),
                });
            }
        };
        let _holding = rotation.outlives_process().then(|| self.halt.hold());
        let result = self.ask_as_owner(&mut owner, material, is_trial).await;
        owner.release().await;
        rotation.save_later();
        // It has been kept; only a login tells of it.
        result.map_err(|refusal| Refusal { refresh: refusal.refresh.filter(|_| material.step.is_some()), ..refusal })
    }

    /// Nothing new is begun once the engine stops.
    pub(super) fn go_on(&self) -> Result<(), Refusal> {
        if self.halt.is_ordered() {
            return Err(Refusal::of_settings(&self.spec.credential, ENDING));
        }
        Ok(())
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
        if material.step.is_some() {
            return self.ask_and_keep(owner, root, material, None).await;
        }
        if let Some(current) = owner.current(root) {
            let scopes = self.scopes_of_refresh(&current)?;
            let material = material.with_refresh(current.token.clone()).with_scopes(scopes);
            match self.ask_and_keep(owner, root, &material, current.consent).await {
                // A key or certificate that is only being tried is not the one that the refresh token may be bound to.
                Err(refusal) if !is_trial && refusal.ends_refresh_token(can_log_in) => {
                    log_refusal(credential, &refusal);
                    owner.clear().await;
                    why = "the provider has ended its login (invalid_grant)";
                }
                result => return result,
            }
        }
        match &material.of_grant {
            _ if can_log_in => self.ask_and_keep(owner, root, material, None).await,
            Some(first) => self.ask_and_keep(owner, root, &material.with_refresh(first.clone()), None).await,
            None if credential.grant.is_login() => Err(Refusal::of_login(credential, why)),
            None => Err(Refusal::of_settings(credential, "it has no refresh token")),
        }
    }

    /// One token request. A refresh token in its answer is kept before anything else is made of it, also beside a token that is
    /// no good: the one before it may be used up.
    ///
    /// It is good for what the one before it was (RFC 6749 section 6), or for what the user has just agreed to.
    async fn ask_and_keep(
        &self,
        owner: &mut Owner<'_>,
        root: Root,
        material: &Material,
        consent: Option<Consent>,
    ) -> Result<Minted, Refusal> {
        let result = self.ask(material).await;
        let next = result.as_ref().map_or_else(|refusal| refusal.refresh.as_deref(), |minted| minted.refresh.as_ref());
        if let Some(token) = next.cloned() {
            let told = result.as_ref().ok().filter(|_| material.step.is_some());
            let told = told.map(|minted| Consent::of(&self.spec.scopes, minted.scope.as_deref()));
            owner.keep(Kept { token, root, consent: told.or(consent) }).await;
        }
        result
    }

    /// What a refresh is to ask for. A route with scopes of its own needs them all.
    fn scopes_of_refresh(&self, kept: &Kept) -> Result<Option<Vec<String>>, Refusal> {
        let (credential, wanted) = (&*self.spec.credential, &self.spec.scopes);
        let Some(consent) = &kept.consent else { return Ok(None) };
        let scopes = consent.narrowed(wanted, *wanted != credential.scopes);
        let (what, scopes) = match scopes {
            Ok(scopes) => return Ok(Some(scopes)),
            Err(Beyond::NotGranted(scopes)) => ("was not granted", scopes),
            Err(Beyond::NotAsked(scopes)) => ("did not ask for", scopes),
        };
        let (scopes, granted) = (scopes.join(" "), consent.granted());
        let why = format!("its login {what} {scopes:?}, which is needed here (granted: {granted})");
        Err(Refusal::of_login(credential, &why))
    }

    /// Why there is no login.
    fn unattended(&self) -> &'static str {
        if self.store.keeps_refresh_tokens() {
            "nobody has logged in yet"
        } else {
            "nobody has logged in, and tokens.store = \"memory\" could not keep a login"
        }
    }
}
