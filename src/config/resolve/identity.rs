//! `client_cert` and `client_key`: the TLS identity of a credential, looked at before anything goes out with it.

use std::time::{Duration, SystemTime};

use super::{Note, Table};
use crate::config::{
    identity::Identity,
    model::{ClientAuth, ClientCert, Scheme, Upstream},
    raw::RawCredential,
    reader::At,
    secret::{SecretSource, Shape},
};

/// How long before its end a certificate is warned of.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// Both keys, or neither. A pair that can be read now must be usable; a command is run only when it is needed.
pub(super) fn client_cert(
    t: &Table<'_>,
    raw: &RawCredential,
    client_auth: ClientAuth,
    token_url: Option<&Upstream>,
) -> Option<ClientCert> {
    let mtls = client_auth == ClientAuth::Mtls;
    for (key, other, hint) in [
        ("client_cert", "client_key", "client_cert = \"client.pem\": the chain, in PEM form"),
        ("client_key", "client_cert", "client_key = { file = \"client.key\" }, or another secret source: in PEM form"),
    ] {
        if !t.has(key) && (mtls || t.has(other)) {
            let what = if t.has(other) { format!(" to go with its `{other}`") } else { String::new() };
            let note = Note::error(&t.place, format!("{} has no `{key}`{what}", t.name)).follows();
            t.context.report(note.hint(hint));
        }
    }
    let (chain, key) = (raw.client_cert.as_ref()?, raw.client_key.as_ref()?);
    let file = SecretSource::File(t.context.dir.join(&chain.value));
    check_pair(t, chain, &file, key);
    if token_url.is_some_and(|url| url.scheme == Scheme::Http) {
        let place = t.key_place("token_url");
        let message = "`token_url` is plain http, where no `client_cert` is presented";
        let note = if mtls { Note::error(&place, message) } else { Note::warning(&place, message) };
        t.context.report(note.hint("https:// to the provider itself"));
    }
    Some(ClientCert { chain: file, key: key.value.clone() })
}

fn check_pair(t: &Table<'_>, chain: &At<String>, file: &SecretSource, key: &At<SecretSource>) {
    let context = t.context;
    let text = match file.read_shaped_blocking(Shape::Text) {
        Ok(text) => text,
        Err(error) => {
            context.error(&chain.span, format!("`client_cert` in {}: {error}", t.name));
            return;
        }
    };
    let (SecretSource::Env(_) | SecretSource::File(_) | SecretSource::Given { .. }) = key.value else { return };
    // What is wrong with the source itself is reported where it is read.
    let Ok(secret) = key.value.read_shaped_blocking(Shape::Text) else { return };
    let now = SystemTime::now();
    let identity = Identity::of_pem(text.expose(), &secret);
    match identity.and_then(|identity| identity.expired(now).map(|()| identity)) {
        Ok(identity) => {
            if let Some(oddity) = identity.oddity(now, now + SOON) {
                context.report(Note::warning(&chain.span, format!("the `client_cert` of {} {oddity}", t.name)));
            }
        }
        Err(error) => {
            let place = if error.blames_key() { &key.span } else { &chain.span };
            context.report(Note::error(place, format!("{}: {error}", t.name)).hint(error.hint()));
        }
    }
}
