//! What a diagnostic must never echo: every value that may be a secret somebody pasted into the file.
//!
//! It is found by the names of keys, by the look of values, and (where the syntax is broken and keys
//! can't be trusted) by the text of the line.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::diagnostic::Span;

/// Keys whose names look secret and whose values are not.
const HARMLESS: &[&str] = &[
    "secret_param",
    "token_url",
    "token_field",
    "token_endpoint",
    "refresh_url",
    "key_id",
    "tokens",
    "subject_token_type",
    "requested_token_type",
];

/// What names of secret keys have in them.
const TELLING: &[&str] =
    &["secret", "secert", "sercet", "secrt", "pass", "pwd", "token", "private", "assertion", "authorization", "cookie"];

/// Ranges of the file that are shown as `****`: sorted, not overlapping.
#[derive(Debug, Default)]
pub(super) struct Mask(Vec<Span>);

impl Mask {
    /// `unknown` are values of keys that nobody knows; `broken` are the places of syntax errors.
    pub(super) fn of(text: &str, tree: &DeTable<'_>, unknown: &[Span], broken: &[Span]) -> Self {
        let mut found: Vec<Span> = unknown.to_vec();
        walk_table(text, tree, false, &mut found);
        user_info(text, &mut found);
        query_values(text, &mut found);
        for span in broken {
            found.extend(broken_line(text, span.start));
        }
        let mut merged: Vec<Span> = Vec::new();
        found.retain(|s| s.start < s.end && text.is_char_boundary(s.start) && text.is_char_boundary(s.end));
        found.sort_by_key(|s| (s.start, s.end));
        for span in found {
            match merged.last_mut() {
                Some(last) if span.start < last.end => last.end = last.end.max(span.end),
                _ => merged.push(span),
            }
        }
        Self(merged)
    }

    /// The hidden range that holds this byte.
    pub(super) fn covering(&self, at: usize) -> Option<Span> {
        let after = self.0.partition_point(|s| s.end <= at);
        self.0.get(after).filter(|s| s.contains(&at)).cloned()
    }
}

/// Whether a key of this name may hold a secret.
pub(super) fn looks_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    !HARMLESS.contains(&key.as_str())
        && (TELLING.iter().any(|part| key.contains(part)) || key.ends_with("key") || key.ends_with("keys"))
}

/// Whether a value looks like a generated secret: long, letters and digits, nothing that names or paths have.
pub(super) fn looks_random(value: &str) -> bool {
    let has = |test: fn(char) -> bool| value.chars().any(test);
    value.len() >= 20
        && !value.contains(['/', ':', '.', ' ', '$', '{', '*'])
        && has(|c| c.is_ascii_digit())
        && has(|c| c.is_ascii_alphabetic())
        && !value.split(['-', '_']).all(|word| word.len() < 13)
}

/// Whether a text may be shown as the name of an environment variable; a secret pasted there may not.
pub(super) fn is_plain_env_name(name: &str) -> bool {
    let legal = name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    legal && !name.starts_with(|c: char| c.is_ascii_digit()) && (name.contains('_') || name.len() < 16)
}

fn walk_table(text: &str, table: &DeTable<'_>, secret: bool, found: &mut Vec<Span>) {
    for (key, value) in table {
        let key = key.get_ref().as_ref();
        if matches!(key, "client_id" | "sha256") && !secret {
            continue;
        }
        if secret && shown_source(key, value.get_ref()) {
            continue;
        }
        walk(text, value.get_ref(), &value.span(), secret || looks_secret(key), found);
    }
}

/// `{ env = "NAME" }` and `{ file = "path" }` are shown, if that is what they look like.
fn shown_source(key: &str, value: &DeValue<'_>) -> bool {
    match (key, value.as_str()) {
        ("env", Some(name)) => is_plain_env_name(name),
        ("file", Some(path)) => !looks_random(path),
        ("sha256", _) => true,
        _ => false,
    }
}

fn walk(text: &str, value: &DeValue<'_>, span: &Span, secret: bool, found: &mut Vec<Span>) {
    match value {
        DeValue::Table(table) => walk_table(text, table, secret, found),
        DeValue::Array(array) => {
            for item in array {
                walk(text, item.get_ref(), &item.span(), secret, found);
            }
        }
        DeValue::String(s) => {
            if secret || looks_random(s) {
                found.push(span.clone());
            }
        }
        _ => {
            if secret {
                found.push(span.clone());
            }
        }
    }
}

/// The places of all that stands in a value, and of no header above it.
pub(super) fn leaves(value: &DeValue<'_>, span: &Span, found: &mut dyn FnMut(&Span)) {
    match value {
        DeValue::Table(table) => table.values().for_each(|value| leaves(value.get_ref(), &value.span(), found)),
        DeValue::Array(array) => array.iter().for_each(|value| leaves(value.get_ref(), &value.span(), found)),
        _ => found(span),
    }
}

/// `scheme://USER:PASSWORD@host`
fn user_info(text: &str, found: &mut Vec<Span>) {
    for (at, mark) in text.match_indices("://") {
        let start = at + mark.len();
        let rest = &text[start..];
        let end = rest.find(['/', '"', '\'', '?', '#', '\n']).unwrap_or(rest.len());
        if let Some(sign) = rest[..end].rfind('@') {
            found.push(start..start + sign);
        }
    }
}

/// `?client_secret=VALUE`
fn query_values(text: &str, found: &mut Vec<Span>) {
    for (at, _) in text.match_indices(['?', '&']) {
        let rest = &text[at + 1..];
        let end = rest.find(['&', '"', '\'', '#', '\n']).unwrap_or(rest.len());
        if let Some((name, value)) = rest[..end].split_once('=')
            && looks_secret(name)
        {
            let start = at + 1 + name.len() + 1;
            found.push(start..start + value.len());
        }
    }
}

/// A line with broken syntax: nobody knows where its values start and end.
fn broken_line(text: &str, at: usize) -> Option<Range<usize>> {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let start = text[..at].rfind('\n').map_or(0, |n| n + 1);
    let end = text[at..].find('\n').map_or(text.len(), |n| at + n);
    let line = &text[start..end];
    match line.find('=') {
        _ if line.trim_start().starts_with('[') => None,
        // The middle of something that spans lines: it may be a secret.
        None => Some(start..end),
        Some(equals) => {
            let mut words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
            let telling = words.any(|w| looks_secret(w) || looks_random(w));
            telling.then_some(start + equals + 1..end)
        }
    }
}
