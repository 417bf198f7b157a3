//! What a profile leaves open: `{tenant}` in its values, filled in by `vars = { tenant = "…" }` of the credential.
//!
//! A value can never change where a URL leads beyond the place that the profile left open for it: each kind
//! allows only letters that mean nothing there.

use toml::de::{DeTable, DeValue};

use crate::config::{reader::Table, url};

/// A variable of a profile.
#[derive(Debug, Clone)]
pub struct Variable {
    /// As `{NAME}` stands in the profile and `vars.NAME` in the file.
    pub name: String,
    /// What it is and where to find it.
    pub about: String,
    /// A value that would do.
    pub example: String,
    /// What it may be.
    pub kind: Kind,
}

/// What a variable may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One label of a DNS name: no dot.
    Label,
    /// A whole DNS name, without a port.
    Host,
    /// One segment of a path.
    Segment,
    /// Anything visible without spaces; never part of a URL.
    Text,
}

impl Kind {
    /// What a value must be, as the end of a sentence.
    pub fn must(self) -> &'static str {
        match self {
            Self::Label => "be one label of a DNS name: letters, digits and inner hyphens",
            Self::Host => "be a DNS name, without scheme, port and path",
            Self::Segment => "be one segment of a path: letters, digits, `-`, `_`, `.` and `~`",
            Self::Text => "be visible text without spaces, quotes, backslashes, `$` and braces",
        }
    }

    /// Whether it may be this.
    pub fn allows(self, value: &str) -> bool {
        let label = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        match self {
            Self::Label => value.bytes().all(label) && url::host_and_port(value).is_ok(),
            Self::Host => {
                value.bytes().all(|c| label(c) || c == b'.')
                    && value.bytes().any(|c| c.is_ascii_alphabetic())
                    && url::host_and_port(value).is_ok()
            }
            Self::Segment => {
                let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.~".contains(&c);
                !matches!(value, "" | "." | "..") && value.len() <= 256 && value.bytes().all(plain)
            }
            Self::Text => {
                let plain = |c: u8| c.is_ascii_graphic() && !b"\"'\\`${}".contains(&c);
                !value.is_empty() && value.len() <= 1024 && value.bytes().all(plain)
            }
        }
    }
}

/// `[vars.NAME]` of a profile.
pub(super) fn read(root: &Table<'_>) -> Vec<Variable> {
    let variable = |(name, t): (crate::config::reader::At<String>, Table<'_>)| {
        let word = |key| t.word(key).map(|at| at.value).unwrap_or_default();
        let kinds = [("label", Kind::Label), ("host", Kind::Host), ("segment", Kind::Segment), ("text", Kind::Text)];
        let variable = Variable {
            name: name.value,
            about: word("about"),
            example: word("example"),
            kind: t.choice("kind", &kinds).unwrap_or(Kind::Label),
        };
        t.finish();
        variable
    };
    root.tables("vars", "").into_iter().map(variable).collect()
}

/// The sections that may hold variables.
const FILLED: [&str; 4] = ["credential", "apis", "environments", "route"];

/// Fills `{NAME}` in with its value, everywhere in the sections that may hold it. One pass: what was filled in is
/// not looked at again.
pub(super) fn fill(root: &mut DeTable<'_>, values: &[(String, String)]) {
    for (name, value) in root.iter_mut() {
        if FILLED.contains(&name.get_ref().as_ref()) {
            fill_value(value.get_mut(), values);
        }
    }
}

fn fill_value(value: &mut DeValue<'_>, values: &[(String, String)]) {
    match value {
        DeValue::String(text) if text.contains('{') => *text = filled(text, values).into(),
        DeValue::Array(items) => items.iter_mut().for_each(|item| fill_value(item.get_mut(), values)),
        DeValue::Table(table) => table.iter_mut().for_each(|(_, item)| fill_value(item.get_mut(), values)),
        _ => {}
    }
}

/// A text with its variables filled in; other braces stay.
pub fn filled(text: &str, values: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        let inside = &rest[open + 1..];
        let word = inside.split_once('}').map(|(word, _)| word);
        let known = word.and_then(|word| values.iter().find(|(name, _)| name == word));
        out.push_str(known.map_or("{", |(_, value)| value));
        rest = known.map_or(inside, |(name, _)| &inside[name.len() + 1..]);
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_can_mean_more_than_its_place() {
        for bad in ["", "a.b", "a/b", "a:1", "a@b", "a?b", "a#b", "-a", "a b", "{a}", "a%2e", "\u{e4}", "..", "a\\b"] {
            assert!(!Kind::Label.allows(bad), "label {bad:?}");
        }
        for bad in ["", "a/b", "a.b:443", "a@b", "https://a", "a..b", ".a", "1.2.3.4", "127.1", "a b", "[::1]"] {
            assert!(!Kind::Host.allows(bad), "host {bad:?}");
        }
        for bad in ["", ".", "..", "a/b", "a%2fb", "a?b", "a#b", "a b", "a\\b", "a;b", "a@b"] {
            assert!(!Kind::Segment.allows(bad), "segment {bad:?}");
        }
        for bad in ["", "a b", "a\nb", "${A}", "{client_secret}", "a\"b", "\u{e4}"] {
            assert!(!Kind::Text.allows(bad), "text {bad:?}");
        }
        assert!(Kind::Label.allows("acme-1") && Kind::Host.allows("wd3-impl.workday.com"));
        assert!(Kind::Segment.allows("contoso.onmicrosoft.com") && Kind::Text.allows("a@b.c/d?e=f:1+2"));
    }

    #[test]
    fn what_was_filled_in_is_not_filled_again() {
        let values = [("a".to_owned(), "{b}".to_owned()), ("b".to_owned(), "x".to_owned())];
        assert_eq!(filled("{a}/{b}/{c}/{", &values), "{b}/x/{c}/{");
    }
}
