//! `[[routes]]`: where requests go, and with which token.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use super::{Context, Note, Table, bare, caller, credential, net, refused, rules, warn_of_joined_scopes};
use crate::config::{
    diagnostic::Span,
    header,
    model::{CredentialSpec, HostPolicy, Inject, PolicyMode, RouteCallers, RouteSpec, TokenSpec},
    nearest::did_you_mean,
    profile::{Api, RouteDefaults},
    raw::RawRoute,
    reader::{At, Limit},
    url,
};

/// What `inject` is where it is not given.
const BEARER: &str = "Authorization: Bearer {token}";
/// The same for a token that is bound to a key (RFC 9449 section 7.1).
const DPOP: &str = "Authorization: DPoP {token}";
/// The header of the proof, which goes beside the token.
const PROOF: &str = "dpop";

/// A route, with what later checks need even where it is wrong.
pub(super) struct Resolved {
    /// The canonical prefix and its place.
    pub(super) prefix: Option<At<String>>,
    /// The credential's name, if it is one.
    pub(super) credential: Option<String>,
    /// Where `callers = ["*"]` stands.
    pub(super) anyone: Option<Span>,
    pub(super) spec: Option<RouteSpec>,
}

pub(super) fn routes(
    root: &Table<'_>,
    credentials: &[credential::Resolved],
    callers: &[caller::Resolved],
) -> Vec<Resolved> {
    let context = root.context;
    let mut out: Vec<Resolved> = Vec::new();
    let mut first: HashMap<String, Span> = HashMap::new();
    for t in root.array_of_tables("routes") {
        let raw = RawRoute::read(t);
        let resolved = Resolver { context, credentials, callers }.route(&raw);
        raw.table.finish();
        if let Some(prefix) = &resolved.prefix {
            match first.entry(url::decoded(&prefix.value)) {
                Entry::Occupied(first) => {
                    let message = format!("two routes have the prefix `{}`", shown_prefix(&prefix.value));
                    context.report(Note::error(&prefix.span, message).also(first.get(), "the first"));
                }
                Entry::Vacant(place) => {
                    place.insert(prefix.span.clone());
                }
            }
        }
        out.push(resolved);
        (context.pause)();
    }
    out
}

/// A canonical prefix for messages: the empty one is `/`.
fn shown_prefix(prefix: &str) -> &str {
    if prefix.is_empty() { "/" } else { prefix }
}

pub(super) struct Resolver<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) credentials: &'a [credential::Resolved],
    callers: &'a [caller::Resolved],
}

impl Resolver<'_> {
    fn route(&self, raw: &RawRoute<'_>) -> Resolved {
        let context = self.context;
        let prefix = self.prefix(raw);
        let credential = self.credential(raw);
        let api = credential.and_then(|c| self.api(raw, c));
        let upstream = self.upstream(raw, credential, api);
        warn_of_joined_scopes(context, raw.scopes.as_ref());
        let allow = rules(context, "allow", raw.allow.clone());
        let deny = rules(context, "deny", raw.deny.clone());
        let (callers, anyone) = self.callers(raw.callers.as_ref());
        let client_id = credential.and_then(|c| c.spec.as_ref()).map_or("", |s| s.client_id.as_str());
        let is_bound = credential.and_then(|c| c.spec.as_ref()).is_some_and(|s| s.dpop);
        let defaults = credential.and_then(|c| c.profile.as_ref()).map(|profile| &profile.route);
        let inject = raw.inject.as_ref().or_else(|| defaults?.inject.as_ref());
        let inject = self.inject(inject, client_id, is_bound);
        let set_headers = with_defaults(&raw.set_headers, defaults, inject.as_ref());
        let set_headers = self.set_headers(&set_headers, client_id, inject.as_ref(), is_bound);
        let remove_headers = self.remove_headers(raw.remove_headers.as_ref());
        let spec = credential.and_then(|c| c.spec.as_ref());
        let net = net::of_route(&raw.table, &raw.net, spec.map(AsRef::as_ref));
        if let (Some(net), Some(upstream)) = (&net, &upstream) {
            net::check_family(&raw.table, net, upstream, "upstream");
        }
        let spec = || {
            let upstream = upstream?;
            Some(RouteSpec {
                prefix: prefix.as_ref()?.value.clone(),
                forbidden_paths: self.forbidden_paths(&upstream),
                unknown_endpoint: self.may_hold_unknown_endpoint(&upstream),
                upstream,
                token: Arc::new(token(raw, api, spec?)),
                net: net?,
                allow,
                deny,
                callers,
                mode: raw.mode.unwrap_or(PolicyMode::Enforce),
                inject: inject?,
                set_headers,
                remove_headers,
                host: raw.host.unwrap_or(HostPolicy::Upstream),
                connect_timeout: raw.connect_timeout.unwrap_or(Duration::from_secs(5)),
                response_timeout: raw.response_timeout.unwrap_or(Duration::from_secs(60)),
                body_idle_timeout: raw.body_idle_timeout.unwrap_or(Duration::from_secs(60)),
                max_body: match raw.max_body {
                    Some(Limit::Bytes(size)) => Some(size),
                    Some(Limit::None) | None => None,
                },
                replay_buffer: match raw.replay_buffer {
                    Some(Limit::Bytes(size)) => size as usize,
                    Some(Limit::None) => 0,
                    None => 64 * 1024,
                },
                retry_on: raw.retry_on.clone().unwrap_or_else(|| vec![401]),
                max_in_flight: raw.max_in_flight.unwrap_or(1000) as usize,
                http: raw.http.unwrap_or_default(),
                allow_empty_segments: raw.allow_empty_segments,
                preconnect: raw.preconnect.unwrap_or(0) as usize,
            })
        };
        let spec = spec();
        Resolved { prefix, credential: credential.map(|c| c.name.value.clone()), anyone, spec }
    }

    fn prefix(&self, raw: &RawRoute<'_>) -> Option<At<String>> {
        let Some(at) = &raw.prefix else {
            if !raw.table.has("prefix") {
                let note = Note::error(&raw.table.place, "this route has no `prefix`").follows();
                self.context.report(note.hint("prefix = \"/name\": what callers write before the API's own path"));
            }
            return None;
        };
        let reason = match url::canonical_path(&at.value) {
            _ if at.value.is_empty() => "is empty".to_owned(),
            Ok(_) if at.value.contains('*') => {
                let note = Note::error(&at.span, "`prefix` holds a wildcard");
                self.context
                    .report(note.hint("a prefix covers everything below it; wildcards belong into `allow` and `deny`"));
                return None;
            }
            Ok(value) => return Some(At { value, span: at.span.clone() }),
            Err(reason) => {
                refused(self.context, at, "`prefix`", reason);
                return None;
            }
        };
        self.context.report(Note::error(&at.span, format!("`prefix` {reason}")).hint("for everything write \"/\""));
        None
    }

    fn credential(&self, raw: &RawRoute<'_>) -> Option<&credential::Resolved> {
        let names = || self.credentials.iter().map(|c| c.name.value.as_str());
        let Some(at) = &raw.credential else {
            if !raw.table.has("credential") {
                let note = Note::error(&raw.table.place, "this route has no `credential`").follows();
                let list = names().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
                let hint = if list.is_empty() {
                    "define one: [credentials.NAME]".to_owned()
                } else {
                    format!("there is {list}")
                };
                self.context.report(note.hint(hint));
            }
            return None;
        };
        let found = self.credentials.iter().find(|c| c.name.value == at.value);
        if found.is_none() {
            let message = format!("no credential is called {}", self.context.quote(at));
            let hint = did_you_mean(&at.value, names()).unwrap_or_else(|| "define it: [credentials.NAME]".to_owned());
            self.context.report(Note::error(&at.span, message).hint(hint).follows());
        }
        found
    }

    fn api<'c>(&self, raw: &RawRoute<'_>, credential: &'c credential::Resolved) -> Option<&'c Api> {
        let at = raw.api.as_ref()?;
        let name = &credential.name.value;
        let Some(profile) = &credential.profile else {
            if !credential.has_provider {
                let note = Note::error(&at.span, format!("`api` needs a `provider` in [credentials.{name}]"));
                self.context.report(note.hint("or give `upstream` instead of `api`"));
            }
            return None;
        };
        let found = profile.api(&at.value);
        if found.is_none() {
            let names = || profile.apis.iter().map(|a| a.name.as_str());
            let list = || format!("it has {}", names().collect::<Vec<_>>().join(", "));
            let hint = did_you_mean(&at.value, names()).unwrap_or_else(list);
            let message = format!("provider {} has no API called {}", profile.name, self.context.quote(at));
            self.context.report(Note::error(&at.span, message).hint(hint));
        }
        found
    }

    fn callers(&self, list: Option<&At<Vec<At<String>>>>) -> (RouteCallers, Option<Span>) {
        let Some(list) = list else { return (RouteCallers::Known, None) };
        if let Some(star) = list.value.iter().find(|at| at.value == "*") {
            if list.value.len() > 1 {
                let note = Note::error(&star.span, "`callers` has \"*\" beside names");
                self.context.report(note.hint("[\"*\"] alone means anyone"));
            }
            return (RouteCallers::Anyone, Some(star.span.clone()));
        }
        if list.value.is_empty() {
            let note = Note::error(&list.span, "`callers` is empty: nobody could use this route");
            self.context.report(note.hint("leave it out for any known caller"));
        }
        let names = || self.callers.iter().map(|c| c.name.value.as_str());
        for at in &list.value {
            if !names().any(|n| n == at.value) {
                let message = format!("no caller is called {}", self.context.quote(at));
                let hint = did_you_mean(&at.value, names()).unwrap_or_else(|| "define it: [callers.NAME]".to_owned());
                self.context.report(Note::error(&at.span, message).hint(hint).follows());
            }
        }
        (RouteCallers::Named(list.value.iter().map(|at| at.value.clone()).collect()), None)
    }

    fn inject(&self, at: Option<&At<String>>, client_id: &str, is_bound: bool) -> Option<Inject> {
        let usual = if is_bound { DPOP } else { BEARER };
        let Some(at) = at else { return header::inject(usual, client_id).ok() };
        match header::inject(&at.value, client_id) {
            Ok(inject) if is_bound => {
                if inject.name == PROOF {
                    self.context.error(&at.span, "header `dpop` carries the proof of dpop = true, not the token");
                } else if inject.name == "authorization" && inject.prefix.trim().eq_ignore_ascii_case("bearer") {
                    let note = Note::warning(&at.span, "a token of dpop = true is mostly refused as a bearer token");
                    self.context.report(note.hint("leave `inject` out: it is \"Authorization: DPoP {token}\" then"));
                }
                Some(inject)
            }
            Ok(inject) => Some(inject),
            Err(reason) => {
                refused(self.context, at, "`inject`", reason);
                None
            }
        }
    }

    fn set_headers(
        &self,
        list: &[(At<String>, At<String>)],
        client_id: &str,
        inject: Option<&Inject>,
        is_bound: bool,
    ) -> Vec<(String, String)> {
        let mut out: Vec<(String, String)> = Vec::new();
        for (at, text) in list {
            let name = match header::name(&at.value) {
                Ok(name) => name,
                Err(reason) => {
                    refused(self.context, at, &format!("header `{}` in `set_headers`", at.value), reason);
                    continue;
                }
            };
            if is_bound && name == PROOF {
                self.context.error(&at.span, "header `dpop` carries the proof of dpop = true");
            } else if inject.is_some_and(|i| i.name == name) || out.iter().any(|(n, _)| *n == name) {
                self.context.error(&at.span, format!("header `{name}` is set twice: by `inject` or another line"));
            }
            let filled = header::fill(&text.value, client_id, &[]);
            match filled.and_then(|value| header::value(&value).map(|()| value)) {
                Ok(value) => out.push((name, value)),
                Err(reason) => refused(self.context, text, &format!("the value of header `{name}`"), reason),
            }
        }
        out
    }

    fn remove_headers(&self, list: Option<&At<Vec<At<String>>>>) -> Vec<String> {
        let check = |at: &At<String>| match header::name(&at.value) {
            Ok(name) => Some(name),
            Err(reason) => {
                refused(self.context, at, "an entry of `remove_headers`", reason);
                None
            }
        };
        list.map(|l| l.value.iter().filter_map(check).collect()).unwrap_or_default()
    }
}

/// The route's own headers, and those of the profile that nothing of the route's stands for.
fn with_defaults(
    own: &[(At<String>, At<String>)],
    defaults: Option<&RouteDefaults>,
    inject: Option<&Inject>,
) -> Vec<(At<String>, At<String>)> {
    let mut all = own.to_vec();
    for (name, value) in defaults.iter().flat_map(|d| &d.set_headers) {
        let is_same = |other: &str| name.value.eq_ignore_ascii_case(other);
        if !own.iter().any(|(n, _)| is_same(&n.value)) && !inject.is_some_and(|i| is_same(&i.name)) {
            all.push((name.clone(), value.clone()));
        }
    }
    all
}

/// The route's own word, else the API's, else the credential's.
fn token(raw: &RawRoute<'_>, api: Option<&Api>, credential: &Arc<CredentialSpec>) -> TokenSpec {
    let scopes = raw.scopes.clone().map(bare).or_else(|| api?.scopes.clone());
    let audience = raw.audience.as_ref().map(|at| at.value.clone()).or_else(|| api?.audience.clone());
    let resource = raw.resource.clone().map(bare).or_else(|| api?.resource.clone());
    TokenSpec {
        credential: Arc::clone(credential),
        scopes: scopes.unwrap_or_else(|| credential.scopes.clone()),
        audience: audience.or_else(|| credential.audience.clone()),
        resource: resource.unwrap_or_else(|| credential.resource.clone()),
    }
}
