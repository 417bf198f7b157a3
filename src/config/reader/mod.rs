//! Reads a parsed TOML tree by asking for keys. Whatever is wrong becomes a note and reading goes on, so
//! that all problems of a file come out at once. Keys that nobody asked for are unknown.
//!
//! `table` walks the tree, `value` turns its leaves into typed values, `kind` remembers what each key takes; here stands
//! what they share.

mod kind;
mod table;
mod value;

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    path::PathBuf,
};

pub(super) use self::{
    kind::Kind,
    table::{Entry, Table},
};
use super::{
    diagnostic::{Note, Span},
    expand::{ExpandError, expand},
    mask,
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
    /// `[server] resolver`, which holds for all connections.
    pub(super) resolver: RefCell<Vec<SocketAddr>>,
    /// Where the first secret stands that comes from Vault.
    pub(super) uses_vault: RefCell<Option<Span>>,
    notes: RefCell<Vec<Note>>,
    /// Values of unknown keys: never shown, nobody knows what they hold.
    hidden: RefCell<Vec<Span>>,
    /// Where values hold expanded variables, which messages must not quote.
    expanded: RefCell<HashSet<usize>>,
    /// Every key that was asked for, by section, and what it takes: for the schema, and what the documentation has
    /// to name. Nothing is noted while a file is loaded.
    learned: Option<RefCell<Learned>>,
    /// Called between routes: loading many takes long, and others may need the core.
    pub(super) pause: &'e dyn Fn(),
}

/// Keys by section.
pub(super) type Learned = BTreeMap<(&'static str, &'static str), Kind>;

impl<'e> Context<'e> {
    pub(super) fn new(env: &'e dyn Fn(&str) -> Option<String>, dir: PathBuf, capture: bool) -> Self {
        let (resolver, uses_vault, notes, hidden, expanded) = <_>::default();
        Self { env, dir, capture, resolver, uses_vault, notes, hidden, expanded, learned: None, pause: &|| () }
    }

    /// The same, pausing between routes.
    pub(super) fn pausing(self, pause: &'e dyn Fn()) -> Self {
        Self { pause, ..self }
    }

    /// The same, taking note of the keys.
    pub(super) fn learning(self) -> Self {
        Self { learned: Some(RefCell::default()), ..self }
    }

    /// The keys that were asked for.
    pub(super) fn learned(&self) -> Learned {
        self.learned.as_ref().map(RefCell::take).unwrap_or_default()
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
    pub(in crate::config) fn text(&self, raw: &str, span: &Span) -> Option<At<String>> {
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

/// `a string`, `an array`.
pub(in crate::config) fn article(type_name: &str) -> String {
    let vowel = type_name.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {type_name}", if vowel { "an" } else { "a" })
}
