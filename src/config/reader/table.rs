//! The tables of the file, and their keys.

use std::{cell::RefCell, collections::BTreeSet};

use toml::de::{DeTable, DeValue};

use super::{At, Context, Kind, article};
use crate::config::{
    diagnostic::{Note, Span},
    mask,
    nearest::did_you_mean,
    not_built,
};

/// One key with its value.
pub(in crate::config) struct Entry<'t> {
    pub(in crate::config) key: &'t str,
    pub(in crate::config) key_span: Span,
    pub(in crate::config) value: &'t DeValue<'t>,
    pub(in crate::config) span: Span,
}

/// One table of the file.
pub(in crate::config) struct Table<'t> {
    pub(in crate::config) context: &'t Context<'t>,
    /// As messages call it: `[credentials.acme]`.
    pub(in crate::config) name: String,
    /// As [`not_built`] calls it: `credentials`.
    pub(super) section: &'static str,
    /// Its header or key: where a missing key is reported.
    pub(in crate::config) place: Span,
    entries: Vec<Entry<'t>>,
    asked: RefCell<Vec<&'static str>>,
    /// Every span of a profile's values is that of the `provider` key that chose it.
    origin: Option<Span>,
}

impl<'t> Table<'t> {
    pub(in crate::config) fn new(
        context: &'t Context<'t>,
        (name, section): (String, &'static str),
        table: &'t DeTable<'t>,
        place: Span,
        origin: Option<Span>,
    ) -> Self {
        let at = |span: Span| origin.clone().unwrap_or(span);
        let entry = |(k, v): (&'t toml::Spanned<_>, &'t toml::Spanned<DeValue<'t>>)| {
            let key: &'t std::borrow::Cow<'t, str> = k.get_ref();
            (k.span().start, Entry { key, key_span: at(k.span()), value: v.get_ref(), span: at(v.span()) })
        };
        let mut entries: Vec<_> = table.iter().map(entry).collect();
        entries.sort_by_key(|(start, _)| *start);
        let entries = entries.into_iter().map(|(_, e)| e).collect();
        Self { context, name, section, place: at(place), entries, asked: RefCell::default(), origin }
    }

    /// The entry of a key, which is known from now on.
    pub(in crate::config) fn entry(&self, key: &'static str) -> Option<&Entry<'t>> {
        self.asked.borrow_mut().push(key);
        self.learn(key, || Kind::Any);
        self.entries.iter().find(|e| e.key == key)
    }

    /// Whether a key is written, rightly or wrongly.
    pub(in crate::config) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|e| e.key == key)
    }

    /// Where a key stands, for messages; the table's own place where it does not.
    pub(in crate::config) fn key_place(&self, key: &str) -> Span {
        self.entries.iter().find(|e| e.key == key).map_or(&self.place, |e| &e.key_span).clone()
    }

    /// Where a part of a value stands, for messages.
    pub(in crate::config) fn at(&self, span: Span) -> Span {
        self.origin.clone().unwrap_or(span)
    }

    /// Says that something of the interface does not work yet.
    pub(in crate::config) fn not_built(&self, span: &Span, what: &str) {
        self.context.error(span, format!("{what} in {} is not built yet in this version", self.name));
    }

    /// A table below this one.
    pub(in crate::config) fn table(&self, key: &'static str, section: &'static str) -> Option<Table<'t>> {
        let entry = self.entry(key)?;
        let DeValue::Table(table) = entry.value else {
            self.wrong_type(key, "a table", entry);
            return None;
        };
        Some(self.below(table, format!("[{key}]"), section, entry.key_span.clone()))
    }

    /// The tables `[key.NAME]`, in file order.
    pub(in crate::config) fn tables(&self, key: &'static str, section: &'static str) -> Vec<(At<String>, Table<'t>)> {
        let Some(entry) = self.entry(key) else { return Vec::new() };
        let DeValue::Table(tables) = entry.value else {
            self.wrong_type(key, "tables", entry);
            return Vec::new();
        };
        let outer = self.below(tables, format!("[{key}]"), section, entry.key_span.clone());
        let mut out = Vec::new();
        for e in &outer.entries {
            let DeValue::Table(table) = e.value else {
                self.context.hide(&e.span);
                let note = Note::error(&e.key_span, format!("`{}` in [{key}] must be a table", e.key));
                self.context.report(note.hint(format!("[{key}] holds tables, one for each name: [{key}.NAME]")));
                continue;
            };
            let name = At { value: e.key.to_owned(), span: e.key_span.clone() };
            out.push((name, self.below(table, format!("[{key}.{}]", e.key), section, e.key_span.clone())));
        }
        out
    }

    /// The tables of `[[key]]`, one by one.
    pub(in crate::config) fn array_of_tables(&self, key: &'static str) -> impl Iterator<Item = Table<'t>> {
        let items: &[_] = match self.entry(key) {
            None => &[],
            Some(Entry { value: DeValue::Array(items), .. }) => items,
            Some(entry) => {
                let note = Note::error(&entry.span, format!("`{key}` must be a list of tables"));
                self.context.report(note.hint(format!("start each with a line [[{key}]]")));
                &[]
            }
        };
        items.iter().filter_map(move |item| {
            let span = self.at(item.span());
            if let DeValue::Table(table) = item.get_ref() {
                return Some(self.below(table, format!("[[{key}]]"), key, span));
            }
            self.context.error(&span, format!("every entry of `{key}` must be a table"));
            None
        })
    }

    /// The entries of `key = { NAME = … }`, in file order.
    pub(in crate::config) fn map(&self, key: &'static str) -> Option<Table<'t>> {
        self.learn(key, || Kind::Map);
        let entry = self.entry(key)?;
        let DeValue::Table(table) = entry.value else {
            self.wrong_type(key, "a table", entry);
            return None;
        };
        Some(self.below(table, format!("`{key}`"), "", entry.key_span.clone()))
    }

    /// A table at an entry's value, read as something of its own.
    pub(in crate::config) fn below(
        &self,
        table: &'t DeTable<'t>,
        name: String,
        section: &'static str,
        place: Span,
    ) -> Table<'t> {
        Table::new(self.context, (name, section), table, place, self.origin.clone())
    }

    /// All entries, for maps with free keys.
    pub(in crate::config) fn entries(&self) -> &[Entry<'t>] {
        &self.entries
    }

    /// The text of an entry of a map with free keys.
    pub(in crate::config) fn entry_text(&self, entry: &Entry<'_>) -> Option<At<String>> {
        match entry.value {
            DeValue::String(text) => self.context.text(text, &entry.span),
            other => {
                let found = article(other.type_str());
                let message = format!("`{}` in {} must be a string, not {found}", entry.key, self.name);
                self.context.error(&entry.span, message);
                None
            }
        }
    }

    /// Reports every key that was not asked for.
    pub(in crate::config) fn finish(&self) {
        let asked = self.asked.borrow();
        for entry in self.entries.iter().filter(|e| !asked.contains(&e.key)) {
            // A section's header holds nothing but its name, which is told anyway.
            let is_section = entry.span.contains(&entry.key_span.start);
            if !is_section {
                self.context.hide(&entry.span);
            }
            mask::leaves(entry.value, &entry.span, &mut |span| self.context.hide(span));
            if not_built::key(self.section, entry.key) {
                self.not_built(&entry.key_span, &format!("`{}`", entry.key));
                continue;
            }
            // In order: of keys that are equally near, the hint names the first.
            let known: BTreeSet<_> = asked.iter().copied().chain(not_built::keys(self.section)).collect();
            let note = Note::error(&entry.key_span, format!("unknown key `{}` in {}", clipped(entry.key), self.name));
            let note = note.maybe_hint(did_you_mean(entry.key, known));
            // A broken header makes every key behind it a key of the file itself.
            self.context.report(if self.section.is_empty() { note.follows() } else { note });
        }
    }
}

fn clipped(key: &str) -> String {
    key.chars().filter(|c| !c.is_control()).take(60).collect()
}
