//! Where a route leads, and what must not be reached there.

use std::sync::Arc;

use super::{Note, credential, refused, route::Resolver};
use crate::config::{
    diagnostic::Span,
    model::{CredentialSpec, Scheme, Upstream},
    profile::Api,
    raw::RawRoute,
    reader::At,
    url,
};

impl Resolver<'_> {
    /// An explicit `upstream`, else the API's.
    pub(super) fn upstream(
        &self,
        raw: &RawRoute<'_>,
        credential: Option<&credential::Resolved>,
        api: Option<&Api>,
    ) -> Option<Upstream> {
        if !(raw.table.has("api") || raw.table.has("upstream")) {
            let note = Note::error(&raw.table.place, "this route leads nowhere: it has neither `api` nor `upstream`")
                .follows();
            self.context.report(note.hint("api = \"NAME\" of the credential's provider, or upstream = \"https://…\""));
            return None;
        }
        let at = match &raw.upstream {
            Some(at) => at.clone(),
            // Written, but wrong: that is reported already.
            None if raw.table.has("upstream") => return None,
            None => self.api_upstream(raw, credential?, api?)?,
        };
        match url::upstream(&at.value) {
            Ok(upstream) => {
                let presents = |c: &credential::Resolved| c.spec.as_ref().is_some_and(|s| s.presents_certificate());
                if upstream.scheme == Scheme::Http && credential.is_some_and(presents) {
                    let what = "this `upstream` is plain http, where the credential's `client_cert` is not presented";
                    self.context.report(Note::warning(&at.span, what));
                }
                self.plain_text_allowed(raw, &at.span, upstream)
            }
            Err(reason) => {
                refused(self.context, &at, "`upstream`", reason);
                None
            }
        }
    }

    fn api_upstream(&self, raw: &RawRoute<'_>, credential: &credential::Resolved, api: &Api) -> Option<At<String>> {
        let profile = credential.profile.as_ref()?;
        let environment = profile.environment(credential.environment.as_deref());
        let by_environment = environment.and_then(|e| e.upstreams.iter().find(|(name, _)| *name == api.name));
        let span = raw.api.as_ref().map_or(&raw.table.place, |at| &at.span);
        if let Some(url) = api.upstream.as_ref().or(by_environment.map(|(_, url)| url)) {
            return Some(At { value: url.clone(), span: span.clone() });
        }
        let of = environment.map(|e| format!(" in the {} environment", e.name)).unwrap_or_default();
        let message = format!("the address of `{}` at {}{of} is not fixed", api.name, profile.name);
        let ask = environment.and_then(|e| e.ask.clone()).map(|ask| format!(": {ask}")).unwrap_or_default();
        let note = Note::error(span, message).follows();
        self.context.report(note.hint(format!("give this route upstream = \"https://…\"{ask}")));
        None
    }

    fn plain_text_allowed(&self, raw: &RawRoute<'_>, span: &Span, mut upstream: Upstream) -> Option<Upstream> {
        if upstream.scheme == Scheme::Http && !url::is_loopback(&upstream.host) {
            if !raw.insecure_http {
                let note = Note::error(span, "`upstream` would send the token over plain http to another host");
                self.context.report(note.hint("use https://, or accept it with insecure_http = true"));
                return None;
            }
            upstream.insecure = true;
        }
        Some(upstream)
    }

    /// The endpoints of all credentials that give tokens or begin logins and that the upstream covers: no caller may reach one
    /// with a token.
    pub(super) fn forbidden_paths(&self, upstream: &Upstream) -> Vec<String> {
        let of = |credential: &Arc<CredentialSpec>| {
            let token = (!credential.is_discovered()).then(|| credential.token_url.clone());
            let refresh = credential.refresh_target.as_ref().map(|target| credential.token_url.with_target(target));
            let device = credential.login.device_url.as_ref().map(|(url, _)| url.clone());
            [token, refresh, device].into_iter().flatten()
        };
        let mut paths: Vec<String> =
            self.specs().flat_map(of).filter_map(|endpoint| upstream.path_below(&endpoint)).collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    }

    /// Whether a token endpoint that is yet to be discovered may turn out to stand on this host.
    pub(super) fn may_hold_unknown_endpoint(&self, upstream: &Upstream) -> bool {
        let issuers = self.specs().filter(|c| c.is_discovered()).filter_map(|c| c.issuer.as_ref());
        issuers.into_iter().any(|issuer| issuer.may_stand_at(&upstream.host))
    }

    fn specs(&self) -> impl Iterator<Item = &Arc<CredentialSpec>> {
        self.credentials.iter().filter_map(|c| c.spec.as_ref())
    }
}
