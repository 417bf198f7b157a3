//! `grant` and the keys that belong to one grant alone.

use std::time::Duration;

use super::{Context, Note, Table, credential::Resolved, refused};
use crate::config::{
    header::Holds,
    identity::{Identity, IdentityError},
    model::{Alg, ClientAuth, Grant, StoreSpec, Tokens, UNTIL_REPLACED, Upstream},
    raw::{GrantName, RawCredential},
    reader::At,
    secret::{SecretSource, Shape},
    signing_key::{KeyError, SigningKey},
    url,
};

/// The keys that mean something to one grant only.
const OWN: &[(&str, GrantName, &str)] = &[
    ("token", GrantName::Static, "static"),
    ("username", GrantName::Password, "password"),
    ("password", GrantName::Password, "password"),
    ("refresh_token", GrantName::RefreshToken, "refresh_token"),
    ("subject_token", GrantName::TokenExchange, "token_exchange"),
    ("subject_token_type", GrantName::TokenExchange, "token_exchange"),
    ("requested_token_type", GrantName::TokenExchange, "token_exchange"),
];

/// RFC 8693 section 3; `jwt` is short for the type of that name.
const TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:";

/// The grant with what it needs; `None` where something is missing.
pub(super) fn grant(t: &Table<'_>, kind: GrantName, raw: &RawCredential) -> Option<Grant> {
    for (key, _, name) in OWN.iter().filter(|(key, owner, _)| *owner != kind && t.has(key)) {
        let note = Note::error(&t.key_place(key), format!("`{key}` in {} is of no use to its grant", t.name));
        t.context.report(note.hint(format!("it belongs to grant = \"{name}\"")));
    }
    let source = |at: &Option<At<SecretSource>>, key: &str| {
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
        GrantName::AuthorizationCode => Some(Grant::AuthorizationCode),
        GrantName::DeviceCode => Some(Grant::DeviceCode),
        GrantName::JwtBearer => Some(Grant::JwtBearer),
        GrantName::SelfSigned => Some(Grant::SelfSigned),
        GrantName::TokenExchange => {
            let kind = |text: &str| if text.contains(':') { text.to_owned() } else { format!("{TOKEN_TYPE}{text}") };
            let given = raw.subject_token_type.as_ref().map_or("access_token", |at| at.value.as_str());
            Some(Grant::TokenExchange {
                subject_token: source(&raw.subject_token, "subject_token")?,
                subject_token_type: kind(given),
                requested_token_type: raw.requested_token_type.as_ref().map(|at| kind(&at.value)),
            })
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
        Grant::Static { token } if !matches!(token, SecretSource::Command(_) | SecretSource::Keyring { .. }) => {
            UNTIL_REPLACED
        }
        _ => Duration::from_secs(300),
    }
}

/// Whoever signs needs a key, and a key needs somebody who signs with it. `DPoP` can make its own.
pub(super) fn check_key(t: &Table<'_>, kind: GrantName, client_auth: ClientAuth, raw: &RawCredential) {
    let is_ready = raw.assertion.as_ref().is_some_and(|a| a.ready.is_some());
    if is_ready && kind == GrantName::SelfSigned {
        let note = Note::error(&t.key_place("assertion"), "a token that is ready is not signed here");
        t.context.report(note.hint("grant = \"static\" with token = { file = \"…\" }"));
        return;
    }
    let by_client = client_auth == ClientAuth::PrivateKeyJwt || raw.has_template(Holds::Assertion);
    let by_grant = matches!(kind, GrantName::JwtBearer | GrantName::SelfSigned);
    let (signs, uses) = (by_client || by_grant, by_client || by_grant || client_auth == ClientAuth::ClientSecretJwt);
    let binds = raw.dpop == Some(true);
    let has_key = raw.key.is_some() || t.has("key");
    if signs && !has_key && !(is_ready && by_client != by_grant) {
        let hint = "key = { file = \"key.pem\" }, or a ready one: assertion = { file = \"…\" }";
        let _: Option<()> = missing(t, "key", hint);
    }
    // A refresh token outlives this process, and so must the key that it may be bound to (RFC 9449 section 5).
    if binds && (matches!(kind, GrantName::Static | GrantName::RefreshToken) || kind.is_login()) && !has_key {
        let hint = "the key that the token is bound to: key = { file = \"key.pem\" }";
        let _: Option<()> = missing(t, "key", hint);
    }
    let idle = |key: &&str| t.has(key) && !(uses || binds && matches!(*key, "key" | "alg"));
    for key in ["key", "key_id", "alg", "assertion"].into_iter().filter(idle) {
        let note = Note::error(&t.key_place(key), format!("`{key}` in {} is of no use: nothing is signed", t.name));
        let whose = if matches!(key, "key" | "alg") { ", and to dpop = true" } else { "" };
        let hint = "it belongs to \"private_key_jwt\", \"client_secret_jwt\", \"jwt_bearer\" and \"self_signed\"";
        let hint = format!("{hint}{whose}");
        t.context.report(note.hint(hint));
    }
    if t.has("key_cert") && !signs {
        let what = format!("`key_cert` in {} is of no use: nothing is signed with its key", t.name);
        t.context.report(
            Note::error(&t.key_place("key_cert"), what).hint(
                "it belongs to \"private_key_jwt\", \"jwt_bearer\" and \"self_signed\"; TLS presents client_cert",
            ),
        );
    }
    let symmetric = raw.alg.is_some_and(Alg::is_symmetric);
    if raw.alg.is_some() && (uses || binds) && symmetric != (client_auth == ClientAuth::ClientSecretJwt) {
        let note = Note::error(&t.key_place("alg"), "this `alg` does not go with what signs here");
        t.context.report(note.hint("HS256, HS384 and HS512 sign with the client secret, all others with a key"));
    }
    if let Some(key) = &raw.key {
        check_usable(t, key, raw.alg.filter(|alg| !alg.is_symmetric()));
        if let Some(certificate) = raw.key_cert.as_ref().filter(|_| signs) {
            check_certificate(t, certificate, key);
        }
    }
}

/// A key that cannot sign shows before the first request; what a command prints is not looked at.
fn check_usable(t: &Table<'_>, key: &At<SecretSource>, alg: Option<Alg>) {
    let (SecretSource::Env(_) | SecretSource::File(_) | SecretSource::Given { .. }) = key.value else { return };
    let Ok(text) = key.value.read_shaped_blocking(Shape::Text) else { return }; // that was told already
    let Err(error) = SigningKey::of_text(&text, alg) else { return };
    let blames_alg = matches!(error, KeyError::Algorithm(_));
    let place = if blames_alg && t.has("alg") { t.key_place("alg") } else { key.span.clone() };
    let note = Note::error(&place, format!("`key` in {} cannot sign: {error}", t.name));
    t.context.report(note.hint(if blames_alg {
        "RSA signs by RS256, RS384, RS512 or PS256, P-256 by ES256, P-384 by ES384, P-521 by ES512, Ed25519 by EdDSA"
    } else {
        a_new_one(alg)
    }));
}

/// A certificate of another key would have every assertion refused.
fn check_certificate(t: &Table<'_>, certificate: &At<SecretSource>, key: &At<SecretSource>) {
    let read = |at: &At<SecretSource>| match at.value {
        SecretSource::Env(_) | SecretSource::File(_) | SecretSource::Given { .. } => {
            at.value.read_shaped_blocking(Shape::Text).ok()
        }
        _ => None,
    };
    let (Some(chain), Some(key)) = (read(certificate), read(key)) else { return };
    let chain = chain.expose().replace("\\n", "\n");
    // What TLS cannot use may sign all the same, and a JWK is no key for TLS.
    let (problem, hint) = match Identity::of_pem(&chain, &key) {
        Err(error @ (IdentityError::NoCertificate | IdentityError::NotX509 | IdentityError::Mismatch)) => {
            (error.told_of("key_cert", "key"), error.hint().replace("client_cert", "key_cert"))
        }
        _ => return,
    };
    let note = Note::error(&certificate.span, format!("`key_cert` in {} is no good: {problem}", t.name));
    t.context.report(note.hint(hint));
}

/// How a key for this algorithm is made; where the provider makes it, its file is the key.
fn a_new_one(alg: Option<Alg>) -> &'static str {
    match alg {
        Some(Alg::Rs256 | Alg::Rs384 | Alg::Rs512 | Alg::Ps256) => {
            "give the provider's own key file whole, or make one: openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048"
        }
        Some(Alg::Es384) => "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 makes one",
        Some(Alg::Es512) => "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 makes one",
        Some(Alg::EdDsa) => "openssl genpkey -algorithm ED25519 makes one",
        _ => "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 makes one",
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
        warn_of_fleeting_key(context, credentials);
        if matches!(tokens.store, StoreSpec::Redis(_)) {
            refuse_unshared_refresh_tokens(context, credentials);
        }
        return;
    }
    for credential in credentials {
        let what = match credential.spec.as_ref().map(|spec| &spec.grant) {
            Some(Grant::RefreshToken { first: None }) => {
                let message = "this credential has no `refresh_token`, and no store that one could be in";
                let note = Note::error(&credential.name.span, message);
                context.report(note.hint("refresh_token = { env = \"NAME\" } or { file = \"…\" } is the first one"));
                continue;
            }
            Some(Grant::RefreshToken { .. }) => "a rotated refresh token of this credential is lost at restart",
            Some(grant) if grant.is_login() => "no login to this credential can be kept: there is only memory",
            _ => continue,
        };
        let note = Note::warning(&credential.name.span, what);
        context.report(note.hint("[tokens] store = { file = \"…\" } keeps it"));
    }
}

/// What is not to be shared goes to no shared store, and a refresh token that goes to none is spent after a restart.
fn refuse_unshared_refresh_tokens(context: &Context<'_>, credentials: &[Resolved]) {
    for credential in credentials {
        let Some(spec) = &credential.spec else { continue };
        let rotates = matches!(spec.grant, Grant::RefreshToken { .. }) || spec.grant.is_login();
        if rotates && !spec.share {
            let message = "with `share = false` its refresh tokens would be in no store: `tokens.store` is shared";
            let note = Note::error(&credential.name.span, message);
            context.report(note.hint("[tokens] store = { file = \"…\" }, or share = true"));
        }
    }
}

/// A store is of no use to tokens that are bound to a key which does not outlive the process.
fn warn_of_fleeting_key(context: &Context<'_>, credentials: &[Resolved]) {
    let fleeting = |r: &&Resolved| r.spec.as_ref().is_some_and(|s| s.is_bound_to_this_process());
    for credential in credentials.iter().filter(fleeting) {
        let note = Note::warning(
            &credential.name.span,
            "its tokens are bound to a key that ends with this process, so they are not stored",
        );
        context.report(note.hint("key = { file = \"key.pem\" } beside dpop = true is the same key after a restart"));
    }
}
