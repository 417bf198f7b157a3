//! Secrets and where they come from.

use std::{fmt, path::PathBuf};

use zeroize::Zeroizing;

/// Text that must never be seen: no `Display`, a `Debug` that prints `****`, wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself. Every call is a place to look at in a review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

/// `{ env = … }`, `{ file = … }` or `{ command = … }`: where a secret is read from, at every use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// An environment variable.
    Env(String),
    /// A file, its trailing newline trimmed.
    File(PathBuf),
    /// A command (no shell), its standard output with the trailing newline trimmed.
    Command(Vec<String>),
}
