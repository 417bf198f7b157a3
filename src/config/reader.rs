//! Reads a parsed TOML tree by asking for keys. Whatever is wrong becomes a note and reading goes on, so
//! that all problems of a file come out at once. Keys that nobody asked for are unknown.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashSet},
    path::PathBuf,
    time::Duration,
};

use toml::de::{DeTable, DeValue};

use super::{
    diagnostic::{Note, Span},
    expand::{ExpandError, expand},
    mask,
    nearest::{did_you_mean, nearest},
    not_built, units,
};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// A size, or `"none"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    None,
    Bytes(u64),
}

/// What is collected while one file is read.
pub(super) struct Context<'e> {
    env: &'e dyn Fn(&str) -> Option<String>,
    /// Relative paths start here: the directory of the file.
    pub(super) dir: PathBuf,
    /// The environment is not the process's own: secrets from it are taken now, they can't be read later.
    pub(super) capture: bool,
    notes: RefCell<Vec<Note>>,
    /// Values of unknown keys: never shown, nobody knows what they hold.
    hidden: RefCell<Vec<Span>>,
    /// Where values hold expanded variables, which messages must not quote.
    expanded: RefCell<HashSet<usize>>,
}

impl<'e> Context<'e> {
    pub(super) fn new(env: &'e dyn Fn(&str) -> Option<String>, dir: PathBuf, capture: bool) -> Self {
        let (notes, hidden, expanded) = <_>::default();
        Self { env, dir, capture, notes, hidden, expanded }
    }

    /// Nobody may see what stands here.
    pub(super) fn hide(&self, span: &Span) {
        self.hidden.borrow_mut().push(span.clone());
    }

    pub(super) fn report(&self, note: Note) {
        self.notes.borrow_mut().push(note);
    }

    pub(super) fn error(&self, span: &Span, message: impl Into<String>) {
        self.report(Note::error(span, message));
    }

    pub(super) fn env(&self, name: &str) -> Option<String> {
        (self.env)(name)
    }

    /// Whether a value may be a secret: from a variable, or by its look.
    fn is_secretive(&self, at: &At<String>) -> bool {
        self.expanded.borrow().contains(&at.span.start) || mask::looks_random(&at.value)
    }

    /// A value as a message may quote it: in backticks, or not at all.
    pub(super) fn quote(&self, at: &At<String>) -> String {
        let odd = at.value.contains("://") || at.value.len() > 80 || at.value.contains(char::is_control);
        if odd || self.is_secretive(at) { "this value".to_owned() } else { format!("`{}`", at.value) }
    }

    /// A hint that repeats (part of) a value, if the value may be shown.
    pub(super) fn hint_about(&self, at: &At<String>, hint: Option<String>) -> Option<String> {
        let hint = hint?;
        let lower = hint.to_ascii_lowercase();
        let repeats = |word: &str| word.len() > 3 && lower.contains(&word.to_ascii_lowercase());
        let telling = self.is_secretive(at) && at.value.split_whitespace().any(repeats);
        (!telling).then_some(hint)
    }

    /// The notes, and the values that nobody may see.
    pub(super) fn take(&self) -> (Vec<Note>, Vec<Span>) {
        (self.notes.take(), self.hidden.take())
    }

    /// Expands `${…}`; a variable that is not set is a problem.
    fn text(&self, raw: &str, span: &Span) -> Option<At<String>> {
        let at = |value: String| Some(At { value, span: span.clone() });
        if !raw.contains("${") {
            return at(raw.to_owned());
        }
        self.expanded.borrow_mut().insert(span.start);
        let note = match expand(raw, self.env) {
            Ok(value) => return at(value),
            Err(ExpandError::Unclosed) => {
                Note::error(span, "`${` is not closed by `}`").hint("write `$${` for a literal `${`")
            }
            Err(ExpandError::BadName) => Note::error(span, "`${…}` does not name an environment variable")
                .hint("write `${NAME}` or `${NAME:-default}`, and `$${` for a literal `${`"),
            Err(ExpandError::Unset(name)) => Note::error(span, format!("environment variable {name} is not set"))
                .hint(format!("set it, or give a default: `${{{name}:-…}}`")),
        };
        self.report(note);
        None
    }
}

/// One key with its value.
pub(super) struct Entry<'t> {
    pub(super) key: &'t str,
    pub(super) key_span: Span,
    pub(super) value: &'t DeValue<'t>,
    pub(super) span: Span,
}

/// One table of the file.
pub(super) struct Table<'t> {
    pub(super) context: &'t Context<'t>,
    /// As messages call it: `[credentials.acme]`.
    pub(super) name: String,
    /// As [`not_built`] calls it: `credentials`.
    section: &'static str,
    /// Its header or key: where a missing key is reported.
    pub(super) place: Span,
    entries: Vec<Entry<'t>>,
    asked: RefCell<BTreeSet<&'static str>>,
    /// Every span of a profile's values is that of the `provider` key that chose it.
    origin: Option<Span>,
}

impl<'t> Table<'t> {
    pub(super) fn new(
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
    pub(super) fn entry(&self, key: &'static str) -> Option<&Entry<'t>> {
        self.asked.borrow_mut().insert(key);
        self.entries.iter().find(|e| e.key == key)
    }

    /// Whether a key is written, rightly or wrongly.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|e| e.key == key)
    }

    /// Where a key stands, for messages; the table's own place where it does not.
    pub(super) fn key_place(&self, key: &str) -> Span {
        self.entries.iter().find(|e| e.key == key).map_or(&self.place, |e| &e.key_span).clone()
    }

    fn at(&self, span: Span) -> Span {
        self.origin.clone().unwrap_or(span)
    }

    fn wrong_type(&self, key: &str, wanted: &str, entry: &Entry<'_>) {
        let found = article(entry.value.type_str());
        let note = Note::error(&entry.span, format!("`{key}` in {} must be {wanted}, not {found}", self.name));
        let list_for_text = wanted.starts_with("a list") && entry.value.is_str();
        self.context.report(note.maybe_hint(list_for_text.then(|| format!("write `{key} = [\"…\"]`"))));
    }

    pub(super) fn string(&self, key: &'static str) -> Option<At<String>> {
        let entry = self.entry(key)?;
        let DeValue::String(text) = entry.value else {
            self.wrong_type(key, "a string", entry);
            return None;
        };
        self.context.text(text, &entry.span)
    }

    /// A string that is not empty.
    pub(super) fn word(&self, key: &'static str) -> Option<At<String>> {
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
    pub(super) fn strings(&self, key: &'static str) -> Option<At<Vec<At<String>>>> {
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
    pub(super) fn boolean(&self, key: &'static str) -> Option<At<bool>> {
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
    pub(super) fn integer(&self, key: &'static str, min: u64, max: u64) -> Option<At<u64>> {
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
    pub(super) fn integers(&self, key: &'static str, min: u16, max: u16) -> Option<Vec<u16>> {
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
    pub(super) fn duration(&self, key: &'static str, min: Duration, max: Duration) -> Option<Duration> {
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

    /// A size in bytes within bounds, or `"none"`.
    pub(super) fn size(&self, key: &'static str, min: u64, max: u64) -> Option<Limit> {
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
    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
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

    /// Says that something of the interface does not work yet.
    pub(super) fn not_built(&self, span: &Span, what: &str) {
        self.context.error(span, format!("{what} in {} is not built yet in this version", self.name));
    }

    /// A table below this one.
    pub(super) fn table(&self, key: &'static str, section: &'static str) -> Option<Table<'t>> {
        let entry = self.entry(key)?;
        let DeValue::Table(table) = entry.value else {
            self.wrong_type(key, "a table", entry);
            return None;
        };
        Some(self.below(table, format!("[{key}]"), section, entry.key_span.clone()))
    }

    /// The tables `[key.NAME]`, in file order.
    pub(super) fn tables(&self, key: &'static str, section: &'static str) -> Vec<(At<String>, Table<'t>)> {
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

    /// The tables of `[[key]]`.
    pub(super) fn array_of_tables(&self, key: &'static str) -> Vec<Table<'t>> {
        let Some(entry) = self.entry(key) else { return Vec::new() };
        let DeValue::Array(items) = entry.value else {
            let note = Note::error(&entry.span, format!("`{key}` must be a list of tables"));
            self.context.report(note.hint(format!("start each with a line [[{key}]]")));
            return Vec::new();
        };
        let read = |item: &'t toml::Spanned<DeValue<'t>>| {
            let span = self.at(item.span());
            if let DeValue::Table(table) = item.get_ref() {
                return Some(self.below(table, format!("[[{key}]]"), key, span));
            }
            self.context.error(&span, format!("every entry of `{key}` must be a table"));
            None
        };
        items.iter().filter_map(read).collect()
    }

    /// The entries of `key = { NAME = … }`, in file order.
    pub(super) fn map(&self, key: &'static str) -> Option<Table<'t>> {
        let entry = self.entry(key)?;
        let DeValue::Table(table) = entry.value else {
            self.wrong_type(key, "a table", entry);
            return None;
        };
        Some(self.below(table, format!("`{key}`"), "", entry.key_span.clone()))
    }

    /// A table at an entry's value, read as something of its own.
    pub(super) fn below(&self, table: &'t DeTable<'t>, name: String, section: &'static str, place: Span) -> Table<'t> {
        Table::new(self.context, (name, section), table, place, self.origin.clone())
    }

    /// All entries, for maps with free keys.
    pub(super) fn entries(&self) -> &[Entry<'t>] {
        &self.entries
    }

    /// The text of an entry of a map with free keys.
    pub(super) fn entry_text(&self, entry: &Entry<'_>) -> Option<At<String>> {
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
    pub(super) fn finish(&self) {
        let asked = self.asked.borrow();
        for entry in self.entries.iter().filter(|e| !asked.contains(e.key)) {
            self.context.hide(&entry.span);
            if not_built::key(self.section, entry.key) {
                self.not_built(&entry.key_span, &format!("`{}`", entry.key));
                continue;
            }
            let known = asked.iter().copied().chain(not_built::keys(self.section));
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

/// `a string`, `an array`.
fn article(type_name: &str) -> String {
    let vowel = type_name.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {type_name}", if vowel { "an" } else { "a" })
}
