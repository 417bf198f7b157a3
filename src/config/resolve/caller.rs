//! `[callers.*]`: who may call.

use std::net::IpAddr;

use aws_lc_rs::digest;
use toml::de::DeValue;

use super::{Note, Table, check_name, refused, rules};
use crate::config::{
    model::{CallerIdentity, CallerSpec},
    raw::RawCaller,
    reader::{At, Kind},
    source, url,
};

/// A key shorter than this can be guessed.
const SHORT_KEY: usize = 16;

/// A caller, with what later checks need even where it is wrong.
pub(super) struct Resolved {
    pub(super) name: At<String>,
    /// `routes` with their places.
    pub(super) routes: Vec<At<String>>,
    pub(super) spec: Option<CallerSpec>,
}

pub(super) fn callers(root: &Table<'_>) -> Vec<Resolved> {
    let mut out: Vec<Resolved> = Vec::new();
    for (name, t) in root.tables("callers", "callers") {
        let context = t.context;
        let resolved = caller(name, &t);
        if let Some(CallerIdentity::ApiKey(hash)) = resolved.spec.as_ref().map(|s| &s.identity) {
            let same = |other: &&Resolved| matches!(&other.spec, Some(CallerSpec { identity: CallerIdentity::ApiKey(h), .. }) if h == hash);
            if let Some(other) = out.iter().find(same) {
                let message =
                    format!("callers `{}` and `{}` have the same API key", other.name.value, resolved.name.value);
                context.report(Note::error(&resolved.name.span, message).also(&other.name.span, "the other one"));
            }
        }
        out.push(resolved);
    }
    out
}

fn caller(name: At<String>, t: &Table<'_>) -> Resolved {
    check_name(t.context, "a caller", &name);
    let raw = RawCaller::read(t);
    let identity = identity(&name, t, raw.cidr);
    let routes = raw.routes.map(|list| prefixes(t, list.value));
    let allow = rules(t.context, "allow", raw.allow);
    t.finish();
    let spec = identity.map(|identity| CallerSpec {
        name: name.value.clone(),
        identity,
        routes: routes.as_ref().map(|list| list.iter().map(|at| at.value.clone()).collect()),
        allow,
    });
    Resolved { name, routes: routes.unwrap_or_default(), spec }
}

/// Exactly one of `api_key` and `cidr`.
fn identity(name: &At<String>, t: &Table<'_>, cidr: Option<At<Vec<At<String>>>>) -> Option<CallerIdentity> {
    let key = api_key(t);
    match (t.has("api_key"), t.has("cidr")) {
        (true, true) => {
            t.context.error(&t.key_place("cidr"), format!("{} has both `api_key` and `cidr`: one of them", t.name));
            None
        }
        (true, false) => key.map(CallerIdentity::ApiKey),
        (false, true) => ranges(t, cidr?),
        // Its own problem has been reported: not built yet.
        (false, false) if ["uid", "gid", "cert"].iter().any(|key| t.has(key)) => None,
        (false, false) => {
            let note = Note::error(&name.span, format!("{} has nothing to recognise it by", t.name)).follows();
            t.context.report(note.hint("api_key = { env = \"NAME\" } or cidr = [\"10.1.0.0/16\"]"));
            None
        }
    }
}

/// The key's SHA-256: from a source, which is read now, or as `{ sha256 = "hex" }`.
fn api_key(t: &Table<'_>) -> Option<[u8; 32]> {
    t.learn("api_key", || Kind::ApiKey);
    let entry = t.entry("api_key")?;
    if let DeValue::Table(table) = entry.value
        && table.contains_key("sha256")
    {
        let inner = t.below(table, "`api_key`".to_owned(), "secret", entry.key_span.clone());
        let hash = inner.string("sha256").and_then(|at| {
            let hash = from_hex(&at.value);
            if hash.is_none() {
                t.context.hide(&at.span);
                let note = Note::error(&at.span, format!("`sha256` in {} must be 64 hex digits", t.name));
                t.context.report(note.hint("printf %s \"$KEY\" | sha256sum"));
            }
            hash
        });
        inner.finish();
        return hash;
    }
    let source = source::read_here(t, "api_key")?;
    let refuse = |message: String| {
        t.context.error(&source.span, message);
        None
    };
    let key = match source.value.read_blocking() {
        Ok(key) => key,
        Err(error) => return refuse(format!("`api_key` in {}: {error}", t.name)),
    };
    if !key.expose().bytes().all(|b| b.is_ascii_graphic()) {
        return refuse(format!("`api_key` in {}: a key of visible ASCII characters without spaces is needed", t.name));
    }
    if key.expose().len() < SHORT_KEY {
        let message = format!("`api_key` in {} is shorter than {SHORT_KEY} characters", t.name);
        t.context.report(Note::warning(&source.span, message).hint("make one: openssl rand -hex 32"));
    }
    digest::digest(&digest::SHA256, key.expose().as_bytes()).as_ref().try_into().ok()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |i: usize| u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..32).map(byte).collect();
    bytes?.try_into().ok()
}

fn ranges(t: &Table<'_>, list: At<Vec<At<String>>>) -> Option<CallerIdentity> {
    if list.value.is_empty() {
        t.context.error(&list.span, format!("`cidr` in {} is empty: nobody would be recognised", t.name));
        return None;
    }
    let wanted = list.value.len();
    let ranges: Vec<_> = list.value.into_iter().filter_map(|at| range(t, &at)).collect();
    (ranges.len() == wanted).then_some(CallerIdentity::Cidr(ranges))
}

/// `ADDRESS/LENGTH`, or an address alone; bits behind the length must be 0.
fn range(t: &Table<'_>, at: &At<String>) -> Option<(IpAddr, u8)> {
    let (address, length) = at.value.split_once('/').map_or((at.value.as_str(), None), |(a, l)| (a, Some(l)));
    let parsed = address.parse::<IpAddr>().ok().and_then(|ip| {
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Some(bits), |l| l.parse::<u8>().ok().filter(|_| !l.starts_with('+')))?;
        (length <= bits).then_some((ip, length))
    });
    let Some((ip, length)) = parsed else {
        let note = Note::error(&at.span, format!("`cidr`: {} is not an address range", t.context.quote(at)));
        t.context.report(note.hint("for example \"10.1.0.0/16\", \"fd00::/8\" or \"10.1.2.3\""));
        return None;
    };
    let network = network(ip, length);
    if network != ip {
        let note = Note::error(&at.span, format!("`cidr`: {ip}/{length} has bits behind its length"));
        t.context.report(note.hint(format!("write \"{network}/{length}\"")));
        return None;
    }
    Some((ip, length))
}

fn network(ip: IpAddr, length: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let keep = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & keep).into())
        }
        IpAddr::V6(ip) => {
            let keep = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & keep).into())
        }
    }
}

fn prefixes(t: &Table<'_>, list: Vec<At<String>>) -> Vec<At<String>> {
    let check = |at: At<String>| match url::canonical_path(&at.value) {
        Ok(value) => Some(At { value, span: at.span }),
        Err(reason) => {
            refused(t.context, &at, "an entry of `routes`", reason);
            None
        }
    };
    list.into_iter().filter_map(check).collect()
}
