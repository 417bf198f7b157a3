//! `[server]`, `[admin]`, `[tokens]`, `[log]`, `[telemetry]`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{Note, Table, listen, not_built, refused};
use crate::config::{
    diagnostic::Span,
    model::{AccessLog, Log, NetSpec, RedisSpec, Scheme, Server, StoreSpec, Tokens},
    nearest::nearest,
    raw::{self, RawServer},
    reader::{At, Kind, Limit},
    secret::SecretSource,
    source, url,
};

/// What `max_connections` is where it is not given.
const MAX_CONNECTIONS: u64 = 10_000;

/// `[server]`, with what later checks need.
pub(super) struct Resolved {
    pub(super) spec: Option<Server>,
    /// The first address that other hosts can reach.
    pub(super) open: Option<Span>,
}

pub(super) fn server(root: &Table<'_>) -> Resolved {
    let (listen, raw) = match root.table("server", "server") {
        Some(t) => {
            let read = (listen::listen(&t), RawServer::read(&t));
            let hosts = hosts(&t, read.1.allowed_hosts.as_ref());
            let origins = origins(&t, read.1.allowed_origins.as_ref());
            t.context.resolver.replace(resolver(&t, read.1.resolver.as_ref()));
            warn_of_useless_limit(&t, &read.1);
            if read.1.max_header_bytes == Some(Limit::None) {
                t.context.error(&t.key_place("max_header_bytes"), "`max_header_bytes` can't be \"none\"");
            }
            t.finish();
            (read.0, (read.1, hosts, origins))
        }
        None => (listen::default(), <_>::default()),
    };
    let (raw, allowed_hosts, allowed_origins) = raw;
    let open = listen.iter().find(|at| !at.value.address.ip().is_loopback()).map(|at| at.span.clone());
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let workers = raw.workers.filter(|n| *n > 0).map_or_else(cores, |n| n as usize);
    let max_header_bytes = match raw.max_header_bytes {
        Some(Limit::Bytes(size)) => size as usize,
        Some(Limit::None) | None => 32 * 1024,
    };
    let spec = (!listen.is_empty()).then(|| Server {
        listen: listen.into_iter().map(|at| at.value).collect(),
        workers,
        allowed_hosts,
        allowed_origins,
        header_timeout: raw.header_timeout.unwrap_or(Duration::from_secs(10)),
        idle_timeout: raw.idle_timeout.unwrap_or(Duration::from_secs(75)),
        drain_timeout: raw.drain_timeout.unwrap_or(Duration::from_secs(30)),
        max_connections: raw.max_connections.unwrap_or(MAX_CONNECTIONS) as usize,
        max_connections_per_peer: raw.max_connections_per_peer.map(|n| if n == 0 { usize::MAX } else { n as usize }),
        max_header_bytes,
    });
    Resolved { spec, open }
}

/// One peer never comes to a limit that all of them together stay below.
fn warn_of_useless_limit(t: &Table<'_>, raw: &RawServer) {
    let all = raw.max_connections.unwrap_or(MAX_CONNECTIONS);
    if raw.max_connections_per_peer.is_some_and(|one| one > all) {
        let what = format!("`max_connections_per_peer` is more than `max_connections`, {all}: it limits nobody");
        let note = Note::warning(&t.key_place("max_connections_per_peer"), what);
        t.context.report(note.hint("give a smaller number, or 0 for no limit"));
    }
}

/// `Host` values: `name` or `name:port`, in lower case.
fn hosts(t: &Table<'_>, list: Option<&At<Vec<At<String>>>>) -> Vec<String> {
    let check = |at: &At<String>| match url::host_and_port(&at.value) {
        _ if at.value.contains('/') => {
            t.context.error(&at.span, "an entry of `allowed_hosts` is a name or name:port, without scheme and path");
            None
        }
        Ok((host, port)) => {
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            Some(port.map_or_else(|| host.clone(), |port| format!("{host}:{port}")))
        }
        Err(reason) => {
            refused(t.context, at, "an entry of `allowed_hosts`", reason);
            None
        }
    };
    list.map(|l| l.value.iter().filter_map(check).collect()).unwrap_or_default()
}

/// Name servers: an IP address, with a port where it is not 53.
fn resolver(t: &Table<'_>, list: Option<&At<Vec<At<String>>>>) -> Vec<SocketAddr> {
    if let Some(at) = list.filter(|list| list.value.is_empty()) {
        let note = Note::error(&at.span, "`resolver` in [server] is an empty list");
        t.context.report(note.hint("leave it out for the system's resolver"));
    }
    let server = |at: &At<String>| {
        let bare = at.value.trim_start_matches('[').trim_end_matches(']');
        let address = at.value.parse().or_else(|_| bare.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)));
        let usable = address.ok().filter(|address: &SocketAddr| address.port() > 0 && !address.ip().is_unspecified());
        if usable.is_none() {
            let what = format!("an entry of `resolver`: {} is no address of a name server", t.context.quote(at));
            t.context.report(Note::error(&at.span, what).hint("\"192.0.2.53\", \"127.0.0.1:8600\" or \"[::1]:53\""));
        }
        usable
    };
    list.map(|l| l.value.iter().filter_map(server).collect()).unwrap_or_default()
}

/// Origins: `scheme://host[:port]`, in lower case, the port only where it is not the default.
fn origins(t: &Table<'_>, list: Option<&At<Vec<At<String>>>>) -> Vec<String> {
    let check = |at: &At<String>| match url::upstream(&at.value) {
        Ok(origin) if origin.base_path.is_empty() && !at.value.ends_with('/') => {
            Some(format!("{}://{}", origin.scheme.as_str(), origin.authority))
        }
        Ok(_) => {
            t.context.error(&at.span, "an entry of `allowed_origins` has a path; an origin is scheme://host[:port]");
            None
        }
        Err(reason) => {
            refused(t.context, at, "an entry of `allowed_origins`", reason);
            None
        }
    };
    list.map(|l| l.value.iter().filter_map(check).collect()).unwrap_or_default()
}

/// Where health, readiness and metrics are told unless the file says otherwise.
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

/// `[admin]`: `listen = false`, or an address that is none of the proxy's.
pub(super) fn admin(root: &Table<'_>, server: &Resolved) -> Option<SocketAddr> {
    let Some(t) = root.table("admin", "admin") else { return Some(ADMIN) };
    t.learn("listen", || Kind::TextOrFalse);
    let Some(entry) = t.entry("listen") else {
        t.finish();
        return Some(ADMIN);
    };
    let span = entry.span.clone();
    let written = if entry.value.as_bool() == Some(false) { None } else { t.string("listen") };
    let address = written.and_then(|at| listen::address(&t, &at));
    t.finish();
    let own = server.spec.iter().flat_map(|spec| &spec.listen).map(|listen| listen.address);
    if let Some(address) = address.filter(|address| address.port() != 0 && own.into_iter().any(|own| own == *address)) {
        let note = Note::error(&span, format!("`listen` in [admin] is {address}, where the proxy listens"));
        t.context.report(note.hint("the admin address is another one, such as \"127.0.0.1:8081\""));
    } else if address.is_some_and(|address| !address.ip().is_loopback()) {
        let note =
            Note::warning(&span, "other hosts can reach the admin address, and nobody has to identify himself there");
        t.context.report(note.hint("it tells names of routes, credentials and their states, no secrets"));
    }
    address
}

/// `[tokens]`: `store = "memory"`, `{ file = "DIRECTORY" }` or `{ redis = "URL" }`, and the key that seals it.
pub(super) fn tokens(root: &Table<'_>) -> Option<Tokens> {
    let Some(t) = root.table("tokens", "tokens") else { return Some(Tokens::default()) };
    let seal_key = source::read_here(&t, "seal_key").and_then(|at| seal_key(&t, at));
    let store = store(&t);
    if let Some(entry) = t
        .entry("store")
        .filter(|_| matches!(store, Some(StoreSpec::File(_) | StoreSpec::Redis(_))) && !t.has("seal_key"))
    {
        let note = Note::error(&entry.span, "this `store` in [tokens] needs a `seal_key`: no token is stored readable");
        let hint = "make one with `openssl rand -base64 32`, then seal_key = { env = \"CUPBEARER_SEAL_KEY\" }";
        t.context.report(note.hint(hint));
    }
    t.finish();
    Some(Tokens { store: store?, seal_key })
}

/// A key that is there already is looked at; a command is run only when the store is opened.
fn seal_key(t: &Table<'_>, at: At<SecretSource>) -> Option<SecretSource> {
    let known = match &at.value {
        SecretSource::Command(_) | SecretSource::Keyring { .. } => None,
        source => source.read_blocking().ok(),
    };
    if known.is_some_and(|key| key.seal_bytes().is_none()) {
        let note = Note::error(&at.span, "`seal_key` in [tokens] is not 32 bytes in base64");
        t.context.report(note.hint("make one with: openssl rand -base64 32"));
        return None;
    }
    Some(at.value)
}

fn store(t: &Table<'_>) -> Option<StoreSpec> {
    t.learn("store", || Kind::Store);
    let Some(entry) = t.entry("store") else { return Some(StoreSpec::default()) };
    let Some(table) = entry.value.as_table() else {
        return t.choice("store", &[("memory", ())]).map(|()| StoreSpec::Memory);
    };
    let inner = t.below(table, "`store`".to_owned(), "store", entry.key_span.clone());
    let (directory, redis) = (inner.word("file"), inner.word("redis"));
    let (username, password) = (inner.word("username"), source::read_here(&inner, "password").map(|at| at.value));
    let ca_file = inner.word("ca_file").map(|at| super::net::ca_file(t.context, &at));
    let one = inner.has("file") != inner.has("redis");
    if !one {
        let hint = "\"memory\", { file = \"DIRECTORY\" } or { redis = \"redis://HOST:6379/0\" }";
        t.context.report(Note::error(&entry.span, "`store` in [tokens] must name one place").hint(hint));
    }
    if !inner.has("redis") {
        for key in ["username", "password", "ca_file"].into_iter().filter(|key| inner.has(key)) {
            t.context.error(&inner.key_place(key), format!("`{key}` in `store` goes with `redis`"));
        }
    }
    inner.finish();
    if !one {
        return None;
    }
    match (directory, redis) {
        (Some(at), _) => Some(StoreSpec::File(t.context.dir.join(at.value))),
        (None, Some(at)) => {
            let (scheme, host, port, database) = redis_url(t, &at)?;
            if scheme == Scheme::Http && password.is_some() && !url::is_loopback(&host) {
                let note = Note::warning(&at.span, "the password of Redis travels in plain text");
                t.context.report(note.hint("rediss://… speaks TLS"));
            }
            if scheme == Scheme::Http && ca_file.is_some() {
                t.context.error(&inner.key_place("ca_file"), "`ca_file` in `store` goes with rediss://");
            }
            let net =
                Arc::new(NetSpec { ca_file, resolver: t.context.resolver.borrow().clone(), ..NetSpec::default() });
            let username = username.map(|at| at.value);
            Some(StoreSpec::Redis(RedisSpec { scheme, net, host, port, database, username, password }))
        }
        (None, None) => None,
    }
}

/// `redis://HOST[:PORT][/DATABASE]`, or `rediss://` for TLS.
fn redis_url(t: &Table<'_>, at: &At<String>) -> Option<(Scheme, String, u16, u32)> {
    let refuse = |why: &str, hint: &str| {
        t.context.hide(&at.span);
        t.context.report(Note::error(&at.span, format!("`redis` in `store` {why}")).hint(hint));
    };
    let (scheme, rest) = match at.value.split_once("://") {
        Some(("redis", rest)) => (Scheme::Http, rest),
        Some(("rediss", rest)) => (Scheme::Https, rest),
        _ => {
            refuse("must be a URL", "redis = \"redis://HOST:6379/0\", or rediss:// for TLS");
            return None;
        }
    };
    if rest.contains('@') {
        refuse("holds a user or password", "username = \"…\" and password = { env = \"NAME\" } stand beside it");
        return None;
    }
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let database = if database.is_empty() { Some(0) } else { database.parse().ok() };
    let Some(database) = database else {
        refuse("has a path that is no number of a database", "redis = \"redis://HOST:6379/0\"");
        return None;
    };
    match url::host_and_port(authority) {
        Ok((host, port)) => Some((scheme, host, port.unwrap_or(6379), database)),
        Err(reason) => {
            t.context.hide(&at.span);
            refused(t.context, at, "`redis` in `store`", reason);
            None
        }
    }
}

/// `[log]`
pub(super) fn log(root: &Table<'_>) -> Option<Log> {
    let t = root.table("log", "log")?;
    let format = raw::log_format(&t).unwrap_or_default();
    let access = log_target(&t, "access");
    // Not stored anywhere before it is built; "off" is what happens.
    let _ = log_target(&t, "audit");
    t.finish();
    Some(Log { format, access: access.unwrap_or_default() })
}

/// `"off"`, a standard stream, or a file that can stand where it is named.
fn log_target(t: &Table<'_>, key: &'static str) -> Option<AccessLog> {
    const WORDS: [&str; 3] = ["off", "stdout", "stderr"];
    let at = t.word(key)?;
    if at.value != "off" && not_built::value(&format!("log.{key}"), &at.value) {
        t.not_built(&at.span, &format!("`{key}` (other than \"off\")"));
        return None;
    }
    let refuse = |why: &str, hint: &str| {
        let note = Note::error(&at.span, format!("`{key}` in [log] {why}"));
        t.context.report(note.hint(hint.to_owned()));
        None
    };
    let path = match at.value.as_str() {
        "off" => return Some(AccessLog::Off),
        "stdout" => return Some(AccessLog::Stdout),
        "stderr" => return Some(AccessLog::Stderr),
        "-" | "on" | "true" => return refuse("is a file or a word", "use \"stdout\""),
        path => path,
    };
    let is_bare = !path.contains(['/', '.']);
    if let Some(near) = nearest(path, WORDS.to_vec()).filter(|_| is_bare) {
        return refuse(
            "names a file without a directory",
            &format!("did you mean \"{near}\"? A file can be named with ./"),
        );
    }
    let path = t.context.dir.join(path);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if path.is_dir() {
        return refuse("names a directory", "name a file in it");
    }
    if directory.is_some_and(|parent| !parent.is_dir()) {
        return refuse("names a file in a directory that is not there", "make the directory first");
    }
    Some(AccessLog::File(path))
}

/// `[telemetry]`: nothing yet.
pub(super) fn telemetry(root: &Table<'_>) {
    if let Some(t) = root.table("telemetry", "telemetry") {
        t.finish();
    }
}
