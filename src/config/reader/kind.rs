//! What kind of value each key takes, learned from the reading itself: the schema of the file has no other source.

use super::Table;

/// A kind of value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) enum Kind {
    /// A table, or something that is read piece by piece.
    Any,
    Text,
    Texts,
    Flag,
    Number(u64, u64),
    Numbers(u16, u16),
    Duration,
    Size,
    Budget,
    Choice(Vec<String>),
    Secret,
    /// One or several.
    Secrets,
    /// `{ env = … }` or `{ sha256 = … }`.
    ApiKey,
    /// Names and texts.
    Map,
    /// Names, and texts or secrets.
    Params,
    /// A text or several.
    TextOrTexts,
    /// A text or `false`.
    TextOrFalse,
    /// `"memory"`, or a table.
    Store,
    /// An address, a table with one, or several.
    Listen,
    /// A table of a listener's files.
    Tls,
}

impl Table<'_> {
    /// Takes note of what a key takes, if anybody wants to know; what was said first, and more than [`Kind::Any`], holds.
    pub(in crate::config) fn learn(&self, key: &'static str, kind: impl FnOnce() -> Kind) {
        let Some(learned) = &self.context.learned else { return };
        let mut learned = learned.borrow_mut();
        let known = learned.entry((self.section, key)).or_insert(Kind::Any);
        if *known == Kind::Any {
            *known = kind();
        }
    }
}
