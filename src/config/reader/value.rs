//! The values of keys, typed and within bounds.

use std::time::Duration;

use toml::de::DeValue;

use super::{At, Entry, Kind, Limit, Table, article};
use crate::config::{diagnostic::Note, model::Budget, nearest::nearest, not_built, units};

impl Table<'_> {
    pub(super) fn wrong_type(&self, key: &str, wanted: &str, entry: &Entry<'_>) {
        let found = article(entry.value.type_str());
        let note = Note::error(&entry.span, format!("`{key}` in {} must be {wanted}, not {found}", self.name));
        let list_for_text = wanted.starts_with("a list") && entry.value.is_str();
        self.context.report(note.maybe_hint(list_for_text.then(|| format!("write `{key} = [\"…\"]`"))));
    }

    pub(in crate::config) fn string(&self, key: &'static str) -> Option<At<String>> {
        self.learn(key, || Kind::Text);
        let entry = self.entry(key)?;
        let DeValue::String(text) = entry.value else {
            self.wrong_type(key, "a string", entry);
            return None;
        };
        self.context.text(text, &entry.span)
    }

    /// A string that is not empty.
    pub(in crate::config) fn word(&self, key: &'static str) -> Option<At<String>> {
        let text = self.string(key)?;
        if text.value.trim().is_empty() {
            self.context.error(&text.span, format!("`{key}` in {} is empty", self.name));
            return None;
        }
        if text.value.contains(char::is_control) {
            self.context.error(&text.span, format!("`{key}` in {} holds control characters", self.name));
            return None;
        }
        Some(text)
    }

    /// A list of strings, none of them empty.
    pub(in crate::config) fn strings(&self, key: &'static str) -> Option<At<Vec<At<String>>>> {
        self.learn(key, || Kind::Texts);
        let entry = self.entry(key)?;
        let DeValue::Array(items) = entry.value else {
            self.wrong_type(key, "a list of strings", entry);
            return None;
        };
        let mut out = Vec::new();
        for item in items {
            let span = self.at(item.span());
            match item.get_ref() {
                DeValue::String(text) => match self.context.text(text, &span) {
                    Some(text) if text.value.trim().is_empty() || text.value.contains(char::is_control) => {
                        self.context.error(&span, format!("an entry of `{key}` is empty or holds control characters"));
                    }
                    text => out.extend(text),
                },
                other => {
                    let found = article(other.type_str());
                    self.context.error(&span, format!("every entry of `{key}` must be a string, not {found}"));
                }
            }
        }
        Some(At { value: out, span: entry.span.clone() })
    }

    /// `true` or `false`, also as the value of a variable.
    pub(in crate::config) fn boolean(&self, key: &'static str) -> Option<At<bool>> {
        self.learn(key, || Kind::Flag);
        let entry = self.entry(key)?;
        let value = match entry.value {
            DeValue::Boolean(value) => Some(*value),
            DeValue::String(raw) if raw.contains("${") => self.context.text(raw, &entry.span)?.value.parse().ok(),
            _ => None,
        };
        if value.is_none() {
            self.wrong_type(key, "`true` or `false`", entry);
        }
        value.map(|value| At { value, span: entry.span.clone() })
    }

    /// A whole number within bounds, also as the value of a variable.
    pub(in crate::config) fn integer(&self, key: &'static str, min: u64, max: u64) -> Option<At<u64>> {
        self.learn(key, || Kind::Number(min, max));
        let entry = self.entry(key)?;
        let value = match entry.value {
            DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix()).ok().map(|i| u64::try_from(i).ok()),
            DeValue::String(raw) if raw.contains("${") => {
                Some(self.context.text(raw, &entry.span)?.value.trim().parse().ok())
            }
            _ => {
                self.wrong_type(key, "a whole number", entry);
                return None;
            }
        };
        match value.flatten() {
            Some(value) if (min..=max).contains(&value) => Some(At { value, span: entry.span.clone() }),
            _ => {
                self.context.error(&entry.span, format!("`{key}` must be a whole number from {min} to {max}"));
                None
            }
        }
    }

    /// A list of whole numbers within bounds.
    pub(in crate::config) fn integers(&self, key: &'static str, min: u16, max: u16) -> Option<Vec<u16>> {
        self.learn(key, || Kind::Numbers(min, max));
        let entry = self.entry(key)?;
        let DeValue::Array(items) = entry.value else {
            self.wrong_type(key, "a list of whole numbers", entry);
            return None;
        };
        let mut out = Vec::new();
        for item in items {
            let number = item.get_ref().as_integer().and_then(|i| u16::from_str_radix(i.as_str(), i.radix()).ok());
            match number {
                Some(number) if (min..=max).contains(&number) => out.push(number),
                _ => self.context.error(
                    &self.at(item.span()),
                    format!("every entry of `{key}` must be a whole number from {min} to {max}"),
                ),
            }
        }
        Some(out)
    }

    /// A duration within bounds.
    pub(in crate::config) fn duration(&self, key: &'static str, min: Duration, max: Duration) -> Option<Duration> {
        self.learn(key, || Kind::Duration);
        let entry = self.entry(key)?;
        let hint = "a number with its unit: \"500ms\", \"10s\", \"5m\", \"1h30m\"";
        let DeValue::String(raw) = entry.value else {
            let note = Note::error(&entry.span, format!("`{key}` in {} must be a duration in quotes", self.name));
            self.context.report(note.hint(hint));
            return None;
        };
        let text = self.context.text(raw, &entry.span)?;
        match units::duration(&text.value) {
            Some(duration) if (min..=max).contains(&duration) => Some(duration),
            Some(_) => {
                let (min, max) = (units::show_duration(min), units::show_duration(max));
                self.context.error(&text.span, format!("`{key}` must be from \"{min}\" to \"{max}\""));
                None
            }
            None => {
                let shown = self.context.quote(&text);
                let note = Note::error(&text.span, format!("`{key}`: {shown} is not a duration"));
                self.context.report(note.hint(hint));
                None
            }
        }
    }

    /// A number of token requests in a time of at most a year.
    pub(in crate::config) fn budget(&self, key: &'static str) -> Option<Budget> {
        self.learn(key, || Kind::Budget);
        let text = self.string(key)?;
        let year = Duration::from_secs(366 * 86_400);
        let budget = units::rate(&text.value).filter(|(limit, window)| *limit <= 1_000_000 && *window <= year);
        if budget.is_none() {
            let note = Note::error(&text.span, format!("`{key}`: {} is no budget", self.context.quote(&text)));
            self.context.report(note.hint("how many token requests in which time: \"50/12h\", \"1000/d\""));
        }
        budget.map(|(limit, window)| Budget { limit, window })
    }

    /// A size in bytes within bounds, or `"none"`.
    pub(in crate::config) fn size(&self, key: &'static str, min: u64, max: u64) -> Option<Limit> {
        self.learn(key, || Kind::Size);
        let entry = self.entry(key)?;
        let size = match entry.value {
            DeValue::Integer(i) => u64::from_str_radix(i.as_str(), i.radix()).ok(),
            DeValue::String(raw) => {
                let text = self.context.text(raw, &entry.span)?;
                if text.value == "none" {
                    return Some(Limit::None);
                }
                units::size(&text.value)
            }
            _ => None,
        };
        match size {
            Some(size) if (min..=max).contains(&size) => Some(Limit::Bytes(size)),
            Some(_) => {
                let (min, max) = (units::show_size(min), units::show_size(max));
                self.context.error(&entry.span, format!("`{key}` must be from {min} to {max}"));
                None
            }
            None => {
                let note = Note::error(&entry.span, format!("`{key}` in {} must be a size", self.name));
                self.context.report(note.hint("bytes, or a number with its unit: 1024, \"64KiB\", \"1MiB\", \"10MB\""));
                None
            }
        }
    }

    /// One of a few words.
    pub(in crate::config) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        self.learn(key, || Kind::Choice(choices.iter().map(|(word, _)| (*word).to_owned()).collect()));
        let text = self.string(key)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text.value) {
            return Some(*value);
        }
        if not_built::value(&format!("{}.{key}", self.section), &text.value) {
            self.not_built(&text.span, &format!("`{key} = \"{}\"`", text.value));
            return None;
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let list = words.iter().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(", ");
        let message = format!("`{key}` in {} can't be {}", self.name, self.context.quote(&text));
        let meant = nearest(&text.value, words).map(|near| format!("did you mean \"{near}\"?"));
        let hint = meant.unwrap_or_else(|| format!("use {}{list}", if choices.len() > 1 { "one of " } else { "" }));
        self.context.report(Note::error(&text.span, message).hint(hint));
        None
    }
}
