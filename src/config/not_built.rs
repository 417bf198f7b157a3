//! What the interface describes and this version does not do yet: refused by name, never ignored.
//!
//! Building a feature means deleting its row (and reading the key).

/// `SECTION.KEY`, or `SECTION.KEY=VALUE` for one value of a key that is otherwise known. A `*` ends a prefix.
const NOT_BUILT: &[&str] = &[
    "server.listen=unix:*",
    "server.listen=systemd",
    "tls.client_ca",
    "callers.uid",
    "callers.gid",
    "callers.cert",
    "routes.rate_limit",
    "routes.token_endpoint",
    "log.audit=*",
    "telemetry.otlp",
];

/// Whether this key of this section is still to come.
pub(super) fn key(section: &str, key: &str) -> bool {
    keys(section).any(|k| k == key)
}

/// Whether this value of this key is still to come; what works must be asked for first.
pub(super) fn value(section_and_key: &str, value: &str) -> bool {
    let values = NOT_BUILT.iter().filter_map(|row| row.strip_prefix(section_and_key)?.strip_prefix('='));
    values.into_iter().any(|v| match v.strip_suffix('*') {
        Some(start) => value.starts_with(start),
        None => v == value,
    })
}

/// The keys of a section that are still to come.
pub(super) fn keys(section: &str) -> impl Iterator<Item = &'static str> + use<'_> {
    NOT_BUILT
        .iter()
        .filter(|row| !row.contains('='))
        .filter_map(move |row| row.strip_prefix(section)?.strip_prefix('.'))
}
