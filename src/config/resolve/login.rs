//! What `cupbearer login` needs: `authorize_url`, `device_url`, `redirect_port`, `authorize_params`.

use super::{Note, Table, refused};
use crate::config::{
    model::{LoginSpec, Upstream},
    raw::{GrantName, RawCredential},
    reader::At,
    url,
};

const KEYS: [&str; 4] = ["authorize_url", "device_url", "redirect_port", "authorize_params"];

/// Parameters of the authorization request that come from elsewhere, with the key they come from.
const OWN: [(&str, Option<&str>); 10] = [
    ("response_type", None),
    ("client_id", Some("client_id")),
    ("redirect_uri", Some("redirect_port")),
    ("scope", Some("scopes")),
    ("dpop_jkt", Some("key")),
    ("state", None),
    ("code_challenge", None),
    ("code_challenge_method", None),
    ("audience", Some("audience")),
    ("resource", Some("resource")),
];

/// `None` where a value is wrong, or missing for this grant.
pub(super) fn login(t: &Table<'_>, kind: GrantName, raw: &RawCredential) -> Option<LoginSpec> {
    if !kind.is_login() {
        let is_default = |key: &&str| *key == "redirect_port" && raw.redirect_port == Some(0);
        for key in KEYS.into_iter().filter(|key| t.has(key) && !is_default(key)) {
            let note = Note::error(&t.key_place(key), format!("`{key}` in {} is of no use to its grant", t.name));
            t.context.report(note.hint("it belongs to grant = \"authorization_code\" and \"device_code\""));
        }
        return Some(LoginSpec::default());
    }
    let authorize_url = raw.authorize_url.as_ref().map(|at| place(t, "authorize_url", at));
    let device_url = raw.device_url.as_ref().map(|at| place(t, "device_url", at));
    let (needed, written) = match kind {
        GrantName::DeviceCode => ("device_url", raw.device_url.is_some()),
        _ => ("authorize_url", raw.authorize_url.is_some()),
    };
    if !written && !t.has(needed) && raw.issuer.is_none() && !t.has("issuer") {
        let note = Note::error(&t.place, format!("{} has no `{needed}`", t.name)).follows();
        t.context.report(note.hint(format!("{needed} = \"https://…\", or issuer = \"https://…\", which tells it")));
        return None;
    }
    Some(LoginSpec {
        authorize_url: authorize_url.map_or(Some(None), |found| found.map(Some))?,
        device_url: device_url.map_or(Some(None), |found| found.map(Some))?,
        redirect_port: raw.redirect_port.unwrap_or(0),
        authorize_params: params(t, raw),
    })
}

fn place(t: &Table<'_>, key: &str, at: &At<String>) -> Option<(Upstream, String)> {
    match url::endpoint(&at.value) {
        Ok(_) => {}
        Err(reason) => {
            refused(t.context, at, &format!("`{key}`"), reason);
            return None;
        }
    }
    let found = Upstream::endpoint(&at.value);
    if found.is_err() {
        let note = Note::error(&at.span, format!("`{key}` would let others on the way see the login"));
        t.context.report(note.hint("use https://; http:// is only possible to this machine itself"));
    }
    found.ok()
}

fn params(t: &Table<'_>, raw: &RawCredential) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (name, value) in raw.authorize_params.iter().flatten() {
        if let Some((_, key)) = OWN.iter().find(|(own, _)| *own == name.value) {
            let note = Note::error(&name.span, format!("`{}` of the login is set by cupbearer itself", name.value));
            t.context.report(note.maybe_hint(key.map(|key| format!("use `{key}` of the credential"))));
        }
        out.push((name.value.clone(), value.value.clone()));
    }
    out
}
