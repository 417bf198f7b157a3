//! `listen`: where callers connect, plain or with TLS.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use toml::de::DeValue;

use super::{Note, Table, not_built};
use crate::config::{
    diagnostic::Span,
    identity::Identity,
    model::{Listen, ListenTls},
    reader::{At, Kind},
    secret::{SecretSource, Shape},
};

const DEFAULT: &str = "127.0.0.1:8080";
/// How long before its end a certificate is warned of.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// The address that holds where none is given.
pub(super) fn default() -> Vec<At<Listen>> {
    let address = DEFAULT.parse().ok();
    address.into_iter().map(|address| At { value: Listen { address, tls: None }, span: 0..0 }).collect()
}

/// A string, a table, or a list of them.
pub(super) fn listen(t: &Table<'_>) -> Vec<At<Listen>> {
    t.learn("listen", || Kind::Listen);
    let Some(entry) = t.entry("listen") else { return default() };
    let (span, value) = (entry.span.clone(), entry.value);
    let mut found: Vec<At<Listen>> = Vec::new();
    match value {
        DeValue::Array(items) if items.iter().next().is_none() => {
            t.context.error(&span, "`listen` in [server] is empty: there must be an address to listen on");
        }
        DeValue::Array(items) => {
            for item in items {
                let span = t.at(item.span());
                add(t, &mut found, one(t, item.get_ref(), &span, true));
            }
        }
        one_value => add(t, &mut found, one(t, one_value, &span, false)),
    }
    found
}

fn add(t: &Table<'_>, found: &mut Vec<At<Listen>>, new: Option<At<Listen>>) {
    let Some(new) = new else { return };
    let address = new.value.address;
    match found.iter().find(|other| other.value.address == address && address.port() != 0) {
        Some(first) => {
            let note = Note::error(&new.span, format!("`listen` names {address} twice"));
            t.context.report(note.also(&first.span, "the first"));
        }
        None => found.push(new),
    }
}

fn one(t: &Table<'_>, value: &DeValue<'_>, span: &Span, listed: bool) -> Option<At<Listen>> {
    match value {
        DeValue::String(text) => {
            let at = t.context.text(text, span)?;
            let address = address(t, &at)?;
            Some(At { value: Listen { address, tls: None }, span: at.span })
        }
        DeValue::Table(table) => {
            let inner = t.below(table, "`listen`".to_owned(), "listen", span.clone());
            let written = inner.string("address");
            if !inner.has("address") {
                let note = Note::error(span, "a table in `listen` has no `address`");
                t.context.report(
                    note.hint("{ address = \"127.0.0.1:8443\", tls = { cert = \"tls.crt\", key = \"tls.key\" } }"),
                );
            }
            inner.learn("tls", || Kind::Tls);
            let tls = inner.table("tls", "tls").map(|tls| self::tls(&tls));
            inner.finish();
            let address = address(t, &written?)?;
            let tls = match tls {
                None => None,
                Some(tls) => Some(tls?),
            };
            Some(At { value: Listen { address, tls }, span: span.clone() })
        }
        other => {
            t.context.hide(span);
            let found = crate::config::reader::article(other.type_str());
            let what = if listed { "every entry of `listen`" } else { "`listen` in [server]" };
            t.context.error(span, format!("{what} must be a string, not {found}"));
            None
        }
    }
}

/// `tls = { cert = "FILE", key = "FILE" }`: a pair that can be used.
fn tls(t: &Table<'_>) -> Option<ListenTls> {
    let (cert, key) = (t.word("cert"), t.word("key"));
    for name in ["cert", "key"].into_iter().filter(|name| !t.has(name)) {
        let note = Note::error(&t.place, format!("`tls` in `listen` has no `{name}`"));
        t.context
            .report(note.hint("tls = { cert = \"tls.crt\", key = \"tls.key\" }: chain and private key, in PEM form"));
    }
    t.finish();
    let (cert, key) = (cert?, key?);
    let file = |at: &At<String>| t.context.dir.join(&at.value);
    let read = |at: &At<String>, name: &str| {
        let source = SecretSource::File(file(at));
        source
            .read_shaped_blocking(Shape::Text)
            .inspect_err(|error| t.context.error(&at.span, format!("`{name}` in `tls`: {error}")))
            .ok()
    };
    let (chain, secret) = (read(&cert, "cert")?, read(&key, "key")?);
    let now = SystemTime::now();
    let pair = Identity::of_pem(chain.expose(), &secret);
    match pair.and_then(|pair| pair.expired(now).map(|()| pair)) {
        Ok(pair) => {
            if let Some(oddity) = pair.oddity(now, now + SOON) {
                t.context.report(Note::warning(&cert.span, format!("the certificate of `tls` {oddity}")));
            }
        }
        Err(error) => {
            let place = if error.blames_key() { &key.span } else { &cert.span };
            t.context.report(Note::error(place, format!("`tls`: {}", error.told_of("cert", "key"))).hint(error.hint()));
            return None;
        }
    }
    Some(ListenTls { cert: file(&cert), key: file(&key) })
}

/// An IP address and a port.
pub(super) fn address(t: &Table<'_>, at: &At<String>) -> Option<SocketAddr> {
    if not_built::value("server.listen", &at.value) {
        t.not_built(&at.span, &format!("`listen = \"{}\"`", at.value));
        return None;
    }
    if let Ok(address) = at.value.parse() {
        return Some(address);
    }
    let note = Note::error(&at.span, format!("`listen`: {} is not an address and port", t.context.quote(at)));
    let (host, port) = at.value.rsplit_once(':').unwrap_or((&at.value, "8080"));
    let port = if port.parse::<u16>().is_ok() { port } else { "8080" };
    t.context.report(note.hint(match host {
        "" | "*" => format!("for this machine only write \"127.0.0.1:{port}\", for all hosts \"0.0.0.0:{port}\""),
        _ => format!("an IP address and a port: \"127.0.0.1:{port}\" or \"[::1]:{port}\""),
    }));
    None
}
