//! `grant` and the keys that belong to one grant alone.

use std::time::Duration;

use super::{Context, Note, Table, credential::Resolved, refused};
use crate::config::{
    model::{Grant, StoreSpec, Tokens, Upstream},
    raw::{GrantName, RawCredential},
    secret::SecretSource,
    url,
};

/// The keys that mean something to one grant only.
const OWN: &[(&str, GrantName, &str)] = &[
    ("token", GrantName::Static, "static"),
    ("username", GrantName::Password, "password"),
    ("password", GrantName::Password, "password"),
    ("refresh_token", GrantName::RefreshToken, "refresh_token"),
];

/// The grant with what it needs; `None` where something is missing.
pub(super) fn grant(t: &Table<'_>, kind: GrantName, raw: &RawCredential) -> Option<Grant> {
    for (key, _, name) in OWN.iter().filter(|(key, owner, _)| *owner != kind && t.has(key)) {
        let note = Note::error(&t.key_place(key), format!("`{key}` in {} is of no use to its grant", t.name));
        t.context.report(note.hint(format!("it belongs to grant = \"{name}\"")));
    }
    let source = |at: &Option<crate::config::reader::At<SecretSource>>, key: &str| {
        let found = at.as_ref().map(|at| at.value.clone());
        found.or_else(|| {
            missing(t, key, &format!("{key} = {{ env = \"NAME\" }}, {{ file = \"…\" }} or {{ command = [\"…\"] }}"))
        })
    };
    match kind {
        GrantName::ClientCredentials => Some(Grant::ClientCredentials),
        GrantName::Static => Some(Grant::Static { token: source(&raw.token, "token")? }),
        GrantName::Password => {
            let username = raw.username.as_ref().map(|at| at.value.clone());
            let username = username.or_else(|| missing(t, "username", "a plain string"));
            let password = source(&raw.password, "password");
            Some(Grant::Password { username: username?, password: password? })
        }
        GrantName::RefreshToken => {
            let first = match &raw.refresh_token {
                None if t.has("refresh_token") => return None,
                first => first.as_ref().map(|at| at.value.clone()),
            };
            Some(Grant::RefreshToken { first })
        }
    }
}

fn missing<T>(t: &Table<'_>, key: &str, hint: &str) -> Option<T> {
    if !t.has(key) {
        let note = Note::error(&t.place, format!("{} has no `{key}`", t.name)).follows();
        t.context.report(note.hint(hint));
    }
    None
}

/// How long a token counts as good where nothing says so. A static one from a file or the environment is watched,
/// not asked for again; one that a command prints is printed anew.
pub(super) fn default_ttl(grant: &Grant) -> Duration {
    match grant {
        Grant::Static { token } if !matches!(token, SecretSource::Command(_)) => Duration::from_secs(366 * 86_400),
        _ => Duration::from_secs(300),
    }
}

/// `refresh_url`: a URL at the host of `token_url`, or `./PATH` beside it.
pub(super) fn refresh_target(t: &Table<'_>, raw: &RawCredential, token: &(Upstream, String)) -> Option<String> {
    let at = raw.refresh_url.as_ref()?;
    let (url, target) = token;
    let path = target.split('?').next().unwrap_or_default();
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let whole = match at.value.strip_prefix("./") {
        Some(rest) => format!("{}://{}{folder}/{rest}", url.scheme.as_str(), url.authority),
        None => at.value.clone(),
    };
    match url::endpoint(&whole) {
        Ok((own, target)) if (own.scheme, &own.host, own.port) == (url.scheme, &url.host, url.port) => Some(target),
        Ok(_) => {
            let note = Note::error(&at.span, "`refresh_url` must have the scheme, host and port of `token_url`");
            t.context.report(note.hint("\"./refresh\" stands beside token_url's last path segment"));
            None
        }
        Err(reason) => {
            refused(t.context, at, "`refresh_url`", reason);
            None
        }
    }
}

/// A rotated refresh token that only memory holds is lost at the next restart, and the first one is used up by then.
pub(super) fn warn_of_forgetful_store(context: &Context<'_>, tokens: &Tokens, credentials: &[Resolved]) {
    if tokens.store != StoreSpec::Memory {
        return;
    }
    let rotates = |r: &&Resolved| r.spec.as_ref().is_some_and(|s| matches!(s.grant, Grant::RefreshToken { .. }));
    for credential in credentials.iter().filter(rotates) {
        let note =
            Note::warning(&credential.name.span, "a rotated refresh token of this credential is lost at restart");
        context.report(note.hint("[tokens] store = { file = \"…\" } keeps it"));
    }
}
