//! `issuer` and `endpoint_hosts`: a provider whose endpoints are discovered.

use super::{Note, Table, refused};
use crate::config::{
    model::{Issuer, Scheme},
    raw::{GrantName, RawCredential},
    reader::At,
    url,
};

/// The issuer, if one is written and right.
pub(super) fn issuer(t: &Table<'_>, kind: GrantName, raw: &RawCredential) -> Option<Issuer> {
    let hosts = raw.endpoint_hosts.as_ref().map(|list| list.value.iter().filter_map(|at| host(t, at)).collect());
    let Some(at) = &raw.issuer else {
        if raw.endpoint_hosts.is_some() && !t.has("issuer") {
            let note = Note::error(&t.key_place("endpoint_hosts"), "`endpoint_hosts` is of no use without `issuer`");
            t.context.report(note.hint("it says where discovered endpoints may be"));
        }
        return None;
    };
    if matches!(kind, GrantName::Static | GrantName::SelfSigned) {
        let note = Note::error(&t.key_place("issuer"), format!("`issuer` in {} is of no use to its grant", t.name));
        t.context.report(note.hint("it asks nobody"));
        return None;
    }
    let tells_token_url = raw.token_url.is_none() && !raw.has_token_url;
    if raw.refresh_url.is_some() && tells_token_url {
        let note = Note::error(&t.key_place("refresh_url"), "`refresh_url` needs a `token_url`");
        t.context.report(note.hint("a discovered provider refreshes at its token endpoint"));
    }
    let (url, _) = match url::endpoint(&at.value) {
        Ok(found) => found,
        Err(reason) => {
            refused(t.context, at, "`issuer`", reason);
            return None;
        }
    };
    if at.value.contains('?') {
        t.context.error(&at.span, "`issuer` has a query, which no issuer has");
        return None;
    }
    if url.scheme == Scheme::Http && !url::is_loopback(&url.host) {
        let note = Note::error(&at.span, "`issuer` over plain http could be anybody");
        t.context.report(note.hint("use https://; http:// is only possible to this machine itself"));
        return None;
    }
    Some(Issuer { identifier: at.value.clone(), url, hosts: hosts.unwrap_or_default(), tells_token_url })
}

/// A bare name or address.
fn host(t: &Table<'_>, at: &At<String>) -> Option<String> {
    match url::host_and_port(&at.value) {
        Ok((host, None)) => Some(host),
        Ok((_, Some(_))) => {
            t.context.error(&at.span, "an entry of `endpoint_hosts` is a host without a port");
            None
        }
        Err(reason) => {
            refused(t.context, at, "an entry of `endpoint_hosts`", reason);
            None
        }
    }
}
