//! `[credentials.*]`: what we hold and how we ask, the profile's values filled in.

use std::{sync::Arc, time::Duration};

use super::{Note, Table, bare, check_name, grant, identity, issuer, login, net, refused, vars, warn_of_joined_scopes};
use crate::config::{
    diagnostic::Span,
    header, mask,
    model::{ClientAuth, CredentialSpec, ExpiresUnit, Expiry, Param, Scheme, TokenBody, TokenMethod, Upstream, Warm},
    nearest::did_you_mean,
    profile::{self, Profile},
    raw::{GrantName, RawCredential, RawParam},
    reader::At,
    url,
};

/// A credential, with what routes need of it even where it is wrong.
pub(super) struct Resolved {
    pub(super) name: At<String>,
    pub(super) spec: Option<Arc<CredentialSpec>>,
    pub(super) profile: Option<Profile>,
    /// `provider` is written, perhaps wrong.
    pub(super) has_provider: bool,
    pub(super) environment: Option<String>,
}

pub(super) fn credentials(root: &Table<'_>) -> Vec<Resolved> {
    root.tables("credentials", "credentials").into_iter().map(|(name, t)| credential(name, &t)).collect()
}

fn credential(name: At<String>, t: &Table<'_>) -> Resolved {
    check_name(t.context, "a credential", &name);
    let provider = t.word("provider");
    let has_provider = t.has("provider");
    let vars = vars::given(t);
    let profile = provider.as_ref().and_then(|at| find_profile(t, at, &vars));
    if let (Some(place), false) = (vars.place(), has_provider) {
        t.context.error(place, format!("`vars` in {} needs a `provider`", t.name));
    }
    let environment = environment(t, profile.as_ref().map(|(p, _)| p));
    let mut raw = RawCredential::read(t);
    let mut profile = profile;
    if let Some((profile, span)) = &mut profile {
        let own_issuer = t.has("issuer");
        let mut defaults = std::mem::take(&mut profile.credential);
        if raw.grant.is_some_and(GrantName::is_login) {
            defaults = std::mem::take(&mut profile.login).or(defaults);
        }
        if own_issuer {
            (defaults.token_url, defaults.has_token_url) = (None, false);
            (defaults.authorize_url, defaults.device_url) = (None, None);
        }
        raw = raw.or(defaults);
        let chosen = profile.environment(environment.as_deref()).filter(|_| !own_issuer);
        if let (None, false, Some(url)) = (&raw.token_url, raw.has_token_url, chosen.and_then(|e| e.token_url.clone()))
        {
            raw.token_url = Some(At { value: url, span: span.clone() });
        }
    }
    let profile = profile.map(|(profile, _)| profile);
    let provider_name = profile.as_ref().map(|p| p.name.to_owned());
    let spec = Builder { t, profile: profile.as_ref(), environment: environment.as_deref() }
        .build(&name, provider_name, raw)
        .map(Arc::new);
    t.finish();
    Resolved { name, spec, profile, has_provider, environment }
}

fn find_profile(t: &Table<'_>, at: &At<String>, vars: &vars::Given) -> Option<(Profile, Span)> {
    let context = t.context;
    let read = profile::read(&at.value, Some(at.span.clone()), |known| vars.values(t, &at.value, known));
    if let Some((profile, _)) = read {
        return Some((profile, at.span.clone()));
    }
    let note = Note::error(&at.span, format!("no provider is called {}", context.quote(at)));
    context.report(note.hint(profile::suggest(&at.value)));
    None
}

/// `environment`, which must be one of the profile's.
fn environment(t: &Table<'_>, profile: Option<&Profile>) -> Option<String> {
    let at = t.word("environment")?;
    let Some(profile) = profile else {
        if !t.has("provider") {
            t.context.error(&at.span, format!("`environment` in {} needs a `provider`", t.name));
        }
        return None;
    };
    if profile.environment(Some(&at.value)).is_some() {
        return Some(at.value);
    }
    let names: Vec<&str> = profile.environments.iter().map(|e| e.name.as_str()).collect();
    let list = if names.is_empty() {
        format!("provider {} has only one environment: leave this key out", profile.name)
    } else {
        format!("provider {} has {}", profile.name, names.join(", "))
    };
    let hint = did_you_mean(&at.value, names).unwrap_or(list);
    t.context.report(Note::error(&at.span, format!("no environment is called {}", t.context.quote(&at))).hint(hint));
    None
}

struct Builder<'a, 't> {
    t: &'a Table<'t>,
    profile: Option<&'a Profile>,
    environment: Option<&'a str>,
}

impl Builder<'_, '_> {
    /// `None` where anything essential is missing; all checks are made in any case.
    fn build(&self, name: &At<String>, provider: Option<String>, raw: RawCredential) -> Option<CredentialSpec> {
        let kind = raw.grant.unwrap_or(GrantName::ClientCredentials);
        let is_local = matches!(kind, GrantName::Static | GrantName::SelfSigned);
        let usual = if is_local { ClientAuth::None } else { ClientAuth::Post };
        let client_auth = raw.client_auth.unwrap_or(usual);
        self.check_secret(&raw, client_auth);
        let grant = grant::grant(self.t, kind, &raw);
        grant::check_key(self.t, kind, client_auth, &raw);
        let needs_id = raw.needs_id(client_auth);
        if needs_id && raw.client_id.is_none() && !self.t.has("client_id") {
            let note = Note::error(&name.span, format!("{} has no `client_id`", self.t.name)).follows();
            self.t.context.report(note.hint("a plain string, or client_id = \"${NAME}\" from the environment"));
        }
        if let (ClientAuth::BasicRaw, Some(id)) =
            (client_auth, raw.client_id.as_ref().filter(|id| id.value.contains(':')))
        {
            let note = Note::error(&id.span, "`client_id` holds a colon, which client_auth = \"basic_raw\" can't send");
            self.t.context.report(note.hint("\"basic\" encodes it"));
        }
        warn_of_joined_scopes(self.t.context, raw.scopes.as_ref().filter(|_| self.t.has("scopes")));
        let (method, body) = self.method_and_body(&raw);
        let issuer = issuer::issuer(self.t, kind, &raw);
        let login = login::login(self.t, kind, &raw);
        let token_url = match &issuer {
            _ if is_local => Some((Upstream::nowhere(), "/".to_owned())),
            Some(issuer) if issuer.tells_token_url => Some((issuer.url.clone(), "/".to_owned())),
            _ => self.token_url(&raw),
        };
        let refresh_target = token_url.as_ref().and_then(|url| grant::refresh_target(self.t, &raw, url));
        let mut net = net::of_credential(self.t, &raw.net);
        net.client_cert = identity::client_cert(self.t, &raw, client_auth, token_url.as_ref().map(|(url, _)| url));
        if let Some((url, _)) = token_url.as_ref().filter(|_| !is_local) {
            net::check_family(
                self.t,
                &net,
                url,
                if issuer.is_some() && !self.t.has("token_url") { "issuer" } else { "token_url" },
            );
        }
        let header_names = self.header_names(client_auth, &raw);
        self.check_params(&raw);
        let token_field = self.pointer("token_field", raw.token_field, "/access_token");
        let expires_field = self.pointer("expires_field", raw.expires_field, "/expires_in");
        let (grant, (token_url, token_target)) = (grant?, token_url?);
        let grant_type = raw.grant_type.map_or_else(|| grant.grant_type().to_owned(), |at| at.value);
        let default_ttl = grant::default_ttl(&grant);
        Some(CredentialSpec {
            name: name.value.clone(),
            provider,
            client_id: match raw.client_id {
                None if !needs_id => String::new(),
                id => id?.value,
            },
            client_secret: raw.client_secret.map(|at| at.value),
            more_secrets: raw.more_secrets.unwrap_or_default(),
            grant,
            grant_type: (!grant_type.is_empty()).then_some(grant_type),
            token_url,
            token_target,
            login: login?,
            issuer: issuer.map(Arc::new),
            refresh_target,
            client_auth,
            method,
            body,
            scopes: raw.scopes.map(bare).unwrap_or_default(),
            scope_separator: raw.scope_separator.map_or_else(|| " ".to_owned(), |at| at.value),
            audience: raw.audience.map(|at| at.value),
            resource: raw.resource.map(bare).unwrap_or_default(),
            params: raw.params.map(|p| p.into_iter().map(|(n, v)| (n.value, param(v))).collect()).unwrap_or_default(),
            headers: header_names
                .into_iter()
                .zip(raw.headers.unwrap_or_default())
                .map(|(n, (_, v))| (n, header_param(v)))
                .collect(),
            id_param: raw.id_param.map_or_else(|| "client_id".to_owned(), |at| at.value),
            secret_param: raw.secret_param.map_or_else(|| "client_secret".to_owned(), |at| at.value),
            token_field,
            expires_field,
            expires_unit: raw.expires_unit.unwrap_or(ExpiresUnit::Seconds),
            default_ttl: raw.default_ttl.unwrap_or(default_ttl),
            expiry: raw.expiry.unwrap_or(Expiry::Fixed),
            warm: raw.warm.unwrap_or(Warm::OnUse),
            share: raw.share.unwrap_or(true),
            net: Arc::new(net),
            timeout: raw.timeout.unwrap_or(Duration::from_secs(10)),
            budget: raw.budget,
            key: raw.key.map(|at| at.value),
            key_cert: raw.key_cert.map(|at| at.value),
            key_id: raw.key_id.map(|at| at.value),
            alg: raw.alg,
            assertion: raw.assertion.unwrap_or_default(),
            dpop: raw.dpop.unwrap_or(false),
        })
    }

    fn check_secret(&self, raw: &RawCredential, client_auth: ClientAuth) {
        let context = self.t.context;
        if raw.has_template(header::Holds::Secret) {
            if !raw.has_secret {
                let note = Note::error(&self.t.place, format!("{} has no `client_secret`", self.t.name)).follows();
                context.report(note.hint("a header of the token request holds `{client_secret}` or `{basic}`"));
            }
            return;
        }
        let without = match client_auth {
            ClientAuth::None => Some("none"),
            ClientAuth::PrivateKeyJwt => Some("private_key_jwt"),
            ClientAuth::Mtls => Some("mtls"),
            _ => None,
        };
        if let Some(name) = without.filter(|_| raw.has_secret) {
            let place = self.t.key_place("client_secret");
            let what = format!("{} has a `client_secret`, but client_auth = \"{name}\" sends none", self.t.name);
            context.error(&place, what);
        }
        if without.is_none() && !raw.has_secret {
            let note = Note::error(&self.t.place, format!("{} has no `client_secret`", self.t.name)).follows();
            context.report(note.hint("client_secret = { env = \"NAME\" }, { file = \"…\" } or { command = [\"…\"] }"));
        }
    }

    /// A GET has no body, so its parameters can only go into the query.
    fn method_and_body(&self, raw: &RawCredential) -> (TokenMethod, TokenBody) {
        let method = raw.method.unwrap_or(TokenMethod::Post);
        let usual = if method == TokenMethod::Get { TokenBody::Query } else { TokenBody::Form };
        let body = raw.body.unwrap_or(usual);
        if method == TokenMethod::Get && body != TokenBody::Query {
            let place = self.t.key_place(if self.t.has("body") { "body" } else { "method" });
            let note = Note::error(&place, "a token request with method = \"GET\" has no body");
            self.t.context.report(note.hint("body = \"query\" puts the parameters into the query"));
        }
        (method, body)
    }

    /// The endpoint, and its request target.
    fn token_url(&self, raw: &RawCredential) -> Option<(Upstream, String)> {
        let context = self.t.context;
        let Some(at) = &raw.token_url else {
            let unknown_provider = self.profile.is_none() && self.t.has("provider");
            if !raw.has_token_url && !unknown_provider && !self.t.has("issuer") {
                let ask = self
                    .profile
                    .and_then(|p| p.ask_token_url.clone().or_else(|| p.environment(self.environment)?.ask.clone()));
                let note = Note::error(&self.t.place, format!("{} has no `token_url`", self.t.name)).follows();
                context.report(note.hint(ask.map_or_else(
                    || "token_url = \"https://…\", or issuer = \"https://…\", or a `provider` that knows it".to_owned(),
                    |ask| format!("token_url = \"https://…\": {ask}"),
                )));
            }
            return None;
        };
        match url::endpoint(&at.value) {
            Ok((url, _)) if url.scheme == Scheme::Http && !url::is_loopback(&url.host) => {
                let note = Note::error(&at.span, "`token_url` would send the client secret over plain http");
                context.report(note.hint("use https://; http:// is only possible to this machine itself"));
                None
            }
            Ok(found) => Some(found),
            Err(reason) => {
                refused(context, at, "`token_url`", reason);
                None
            }
        }
    }

    /// Legal, lower-case, and none that the token request sets by itself.
    fn header_names(&self, client_auth: ClientAuth, raw: &RawCredential) -> Vec<String> {
        let context = self.t.context;
        let mut names = Vec::new();
        for (at, value) in raw.headers.iter().flatten() {
            let name = header::name(&at.value).unwrap_or_else(|reason| {
                refused(context, at, &format!("header `{}`", at.value), reason);
                at.value.to_ascii_lowercase()
            });
            let basic = matches!(client_auth, ClientAuth::Basic | ClientAuth::BasicRaw);
            let proves = raw.dpop == Some(true);
            if name == "content-type" || (basic && name == "authorization") || (proves && name == "dpop") {
                context.error(&at.span, format!("header `{name}` is set by the token request itself"));
            }
            if names.contains(&name) {
                context.error(&at.span, format!("header `{name}` is given twice"));
            }
            if let RawParam::Plain(text) = value {
                if let Err(reason) = header::value(&text.value) {
                    refused(context, text, &format!("the value of header `{name}`"), reason);
                }
                match header::template(&text.value) {
                    Ok(None) => self.warn_of_plain_secret(&at.value, text),
                    Ok(Some(_)) => {}
                    Err(reason) => refused(context, text, &format!("the value of header `{name}`"), reason),
                }
            }
            names.push(name);
        }
        names
    }

    fn check_params(&self, raw: &RawCredential) {
        let context = self.t.context;
        let text = |at: &Option<At<String>>, default: &str| at.as_ref().map_or(default.to_owned(), |a| a.value.clone());
        let (id, secret) = (text(&raw.id_param, "client_id"), text(&raw.secret_param, "client_secret"));
        for (at, value) in raw.params.iter().flatten() {
            let instead = match at.value.as_str() {
                "grant_type" => Some("grant_type"),
                "scope" => Some("scopes"),
                "audience" => Some("audience"),
                "resource" => Some("resource"),
                name if name == id => Some("client_id"),
                name if name == secret => Some("client_secret"),
                _ => None,
            };
            if let Some(key) = instead {
                let note = Note::error(&at.span, format!("parameter `{}` has a key of its own", at.value));
                context.report(note.hint(format!("use `{key}` of the credential")));
            }
            if let RawParam::Plain(text) = value {
                self.warn_of_plain_secret(&at.value, text);
            }
        }
    }

    fn warn_of_plain_secret(&self, name: &str, text: &At<String>) {
        if mask::looks_secret(name) {
            self.t.context.hide(&text.span);
            let note = Note::warning(&text.span, format!("`{name}` looks like a secret that stands in this file"));
            self.t.context.report(note.hint(format!("{name} = {{ env = \"NAME\" }} reads it from elsewhere")));
        }
    }

    /// RFC 6901.
    fn pointer(&self, key: &str, at: Option<At<String>>, default: &str) -> String {
        let Some(at) = at else { return default.to_owned() };
        let escapes = at.value.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if !escapes || !(at.value.is_empty() || at.value.starts_with('/')) {
            let note = Note::error(&at.span, format!("`{key}` must be a JSON pointer"));
            let hint = format!("it starts with a slash: \"/{}\"", at.value.replace('.', "/"));
            self.t.context.report(note.maybe_hint(self.t.context.hint_about(&at, Some(hint))));
        }
        at.value
    }
}

fn header_param(raw: RawParam) -> Param {
    match raw {
        RawParam::Plain(at) if header::template(&at.value).is_ok_and(|t| t.is_some()) => Param::Template(at.value),
        raw => param(raw),
    }
}

fn param(raw: RawParam) -> Param {
    match raw {
        RawParam::Plain(at) => Param::Plain(at.value),
        RawParam::Secret(at) => Param::Secret(at.value),
    }
}
