//! `local_address`, `ip_family`, `ca_file` and `egress_proxy`: how connections leave, of a credential or of a route.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{Context, Note, Table, refused};
use crate::config::{
    model::{CredentialSpec, EgressKind, EgressProxy, NetSpec, Upstream},
    raw::RawNet,
    reader::At,
    url,
};

/// Takes away what a route would have of its credential.
const NONE: &str = "none";

/// A credential's way out.
pub(super) fn of_credential(t: &Table<'_>, raw: &RawNet) -> NetSpec {
    let base = NetSpec { resolver: t.context.resolver.borrow().clone(), ..NetSpec::default() };
    let net = over(t, raw, base);
    if contradicts(&net)
        && let Some(at) = &raw.local_address
    {
        t.context.report(
            Note::error(&at.span, "`local_address` is not of the family that `ip_family` asks for")
                .hint("give both, or only local_address with ip_family = \"any\""),
        );
    }
    net
}

/// A route's way out: its credential's, but for what the route says itself. `None` where its credential is wrong; its own
/// values are looked at all the same.
pub(super) fn of_route(t: &Table<'_>, raw: &RawNet, credential: Option<&CredentialSpec>) -> Option<Arc<NetSpec>> {
    let Some(credential) = credential else {
        over(t, raw, NetSpec::default());
        return None;
    };
    if !raw.says_anything() {
        return Some(Arc::clone(&credential.net));
    }
    let net = over(t, raw, NetSpec::clone(&credential.net));
    if contradicts(&net) {
        report_contradiction(t, raw, credential);
    }
    // A token that is not asked for is bound to no address of ours.
    if !credential.grant.is_local() && !credential.share && !net.has_same_source(&credential.net) {
        warn_of_bound_token(t, &net, credential);
    }
    Some(Arc::new(net))
}

fn over(t: &Table<'_>, raw: &RawNet, mut net: NetSpec) -> NetSpec {
    let context = t.context;
    if let Some(family) = raw.ip_family {
        net.ip_family = family;
    }
    match &raw.local_address {
        Some(at) if at.value == NONE => net.local_address = None,
        Some(at) => match at.value.parse::<IpAddr>() {
            Ok(ip) => net.local_address = Some(ip),
            Err(_) => context.error(&at.span, "`local_address` must be an IP address of this host, without a port"),
        },
        None => {}
    }
    match &raw.ca_file {
        Some(at) if at.value == NONE => net.ca_file = None,
        Some(at) => net.ca_file = Some(ca_file(context, at)),
        None => {}
    }
    match &raw.egress_proxy {
        Some(at) if at.value == NONE => net.egress_proxy = None,
        Some(at) => net.egress_proxy = egress_proxy(context, at).or(net.egress_proxy),
        None => {}
    }
    net
}

/// An address in a URL that no connection of this way can lead to is a mistake in the file; with an egress proxy only that
/// one's address counts. `key` names the URL.
pub(super) fn check_family(t: &Table<'_>, net: &NetSpec, url: &Upstream, key: &str) {
    let (host, what) = match &net.egress_proxy {
        Some(proxy) => (&proxy.host, "the address in `egress_proxy`".to_owned()),
        None => (&url.host, format!("the address in `{key}`")),
    };
    let Ok(ip) = host.parse::<IpAddr>() else { return };
    let (admits, by) = match net.local_address {
        Some(local) => (local.is_ipv4() == ip.is_ipv4(), "local_address"),
        None => (net.ip_family.admits(ip), "ip_family"),
    };
    if admits || contradicts(net) {
        return;
    }
    let own = [by, key].into_iter().find(|key| t.has(key)).unwrap_or(key);
    let note = Note::error(&t.key_place(own), format!("{what}, {ip}, is not of the family that `{by}` leaves"));
    t.context.report(note.hint(format!("change `{by}`, or write a name or an address of the other family")));
}

fn contradicts(net: &NetSpec) -> bool {
    net.local_address.is_some_and(|ip| !net.ip_family.admits(ip))
}

/// One of the two is the route's own, else the credential's contradiction is told there.
fn report_contradiction(t: &Table<'_>, raw: &RawNet, credential: &CredentialSpec) {
    let of = format!("[credentials.{}]", credential.name);
    let note = match (&raw.local_address, raw.ip_family) {
        (Some(at), Some(_)) => Note::error(&at.span, "`local_address` is not of the family that `ip_family` asks for")
            .hint("give both, or only local_address with ip_family = \"any\""),
        (Some(at), None) => {
            Note::error(&at.span, format!("`local_address` is not of the family that `ip_family` of {of} asks for"))
                .hint("give this route an `ip_family` too")
        }
        (None, Some(_)) => {
            let message = format!("`ip_family` does not go with the `local_address` of {of}, which this route has too");
            Note::error(&t.key_place("ip_family"), message)
                .hint("give this route a `local_address` too; \"none\" is without one")
        }
        (None, None) => return,
    };
    t.context.report(note);
}

/// A provider that looks at addresses would see another one than the upstream does.
fn warn_of_bound_token(t: &Table<'_>, net: &NetSpec, credential: &CredentialSpec) {
    let key = match &credential.net {
        of_tokens if of_tokens.egress_proxy != net.egress_proxy => "egress_proxy",
        of_tokens if of_tokens.local_address != net.local_address => "local_address",
        _ => "ip_family",
    };
    let name = &credential.name;
    let message = format!(
        "`{key}` lets this route leave by another way than the token requests of [credentials.{name}], whose tokens are \
         bound to the address that asks (share = false)"
    );
    let hint = format!(
        "the upstream may refuse such tokens: leave `{key}` out here; what [credentials.{name}] says of it holds for both"
    );
    t.context.report(Note::warning(&t.key_place(key), message).hint(hint));
}

/// A file of certificates, looked at now.
pub(super) fn ca_file(context: &Context<'_>, at: &At<String>) -> PathBuf {
    let path = context.dir.join(&at.value);
    match CertificateDer::pem_file_iter(&path).map(Iterator::collect::<Result<Vec<_>, _>>) {
        Ok(Ok(certs)) if !certs.is_empty() => {}
        Ok(Ok(_)) => context.error(&at.span, "`ca_file` holds no certificate in PEM form"),
        Ok(Err(e)) | Err(e) => context.error(&at.span, format!("`ca_file` can't be read: {e}")),
    }
    path
}

/// `http://HOST:PORT` or `socks5://HOST:PORT`.
fn egress_proxy(context: &Context<'_>, at: &At<String>) -> Option<EgressProxy> {
    let refuse = |why: &str, hint: &str| {
        context.hide(&at.span);
        context.report(Note::error(&at.span, format!("`egress_proxy` {why}")).hint(hint));
    };
    let (kind, rest) = match at.value.split_once("://") {
        Some(("http", rest)) => (EgressKind::Http, rest),
        Some(("socks5" | "socks5h", rest)) => (EgressKind::Socks5, rest),
        _ => {
            let hint = "\"http://HOST:3128\" or \"socks5://HOST:1080\"; \"none\" is without one";
            refuse("is neither http:// nor socks5://", hint);
            return None;
        }
    };
    if rest.contains('@') {
        refuse("holds a user or password, which are not sent", "use a proxy that knows this host by its address");
        return None;
    }
    let default = if kind == EgressKind::Http { 80 } else { 1080 };
    match url::host_and_port(rest.strip_suffix('/').unwrap_or(rest)) {
        Ok((host, port)) => Some(EgressProxy { kind, host, port: port.unwrap_or(default) }),
        Err(reason) => {
            refused(context, at, "`egress_proxy`", reason);
            None
        }
    }
}
