//! Secrets and where they come from.

use std::{
    fmt,
    fs::File,
    hash::{Hash, Hasher},
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::{Zeroize, Zeroizing};

use super::{
    keyring, mask,
    program::{self, Failure},
};

/// No secret is longer; a file that is was not meant.
const MAX_LENGTH: usize = 64 * 1024;

/// Room for everything at once, and for one byte too many: growing would leave copies behind.
pub(super) const ROOM: usize = MAX_LENGTH + 1;

/// How long a file or a program may take to give its secret. There is no other limit: whoever reads several sources is
/// done after as many times this, and each that hangs fails by itself, so that what was read before can stand in for it.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

fn read_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(ROOM));
    File::open(path)?.take(ROOM as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a secret is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One line without control characters.
    Line,
    /// A key in PEM or JSON form: line breaks and tabs too.
    Text,
}

/// Text that must never be seen: no `Display`, a `Debug` that prints `****`, wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The 32 bytes of a `tokens.seal_key`, if the text is that many in base64.
    pub fn seal_bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        let bytes = Zeroizing::new(STANDARD.decode(self.0.trim()).ok()?);
        (bytes.len() == 32).then_some(bytes)
    }

    /// The text itself. Every call is a place to look at in a review.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Takes what a source gave: trailing newlines go; emptiness and control characters are refused.
    fn from_source(mut bytes: Zeroizing<Vec<u8>>, source: &SecretSource, shape: Shape) -> Result<Self, SecretError> {
        let source = || source.to_string();
        // Taken over, not copied: there is no second place that would have to be wiped.
        let text = String::from_utf8(std::mem::take(&mut *bytes)).map(Zeroizing::new).map_err(|e| {
            e.into_bytes().zeroize();
            SecretError::NotText(source())
        })?;
        let secret = Self::new(text.trim_end_matches(['\r', '\n']).to_owned());
        if secret.expose().is_empty() {
            return Err(SecretError::Empty(source()));
        }
        let lines = |c: char| shape == Shape::Text && matches!(c, '\r' | '\n' | '\t');
        if secret.expose().contains(|c: char| c.is_control() && !lines(c)) {
            return Err(SecretError::Control(source()));
        }
        Ok(secret)
    }

    /// A secret that is already here, by the same rules as one that is read from `source`.
    pub fn checked(text: String, source: &SecretSource, shape: Shape) -> Result<Self, SecretError> {
        Self::from_source(Zeroizing::new(text.into_bytes()), source, shape)
    }

    /// What makes it look like something else than a bare secret, in words that don't quote it.
    pub fn oddity(&self) -> Option<&'static str> {
        let text = self.expose();
        let quoted = |q: char| text.len() > 1 && text.starts_with(q) && text.ends_with(q);
        let assignment = text.split_once('=').is_some_and(|(name, value)| {
            let name = name.strip_prefix("export ").unwrap_or(name);
            super::expand::is_name(name) && value.contains(|c| c != '=')
        });
        if text.starts_with('\u{feff}') {
            Some("begins with a byte order mark, which is taken as part of the secret")
        } else if quoted('"') || quoted('\'') {
            Some("is in quotes, which are taken as part of the secret")
        } else if (text.starts_with('{') && text.ends_with('}')) || (text.starts_with('[') && text.ends_with(']')) {
            Some("looks like JSON; all of it is taken as the secret")
        } else if assignment {
            Some("looks like NAME=value; all of it is taken as the secret")
        } else if text.trim() != text {
            Some("starts or ends with white space, which is taken as part of the secret")
        } else {
            None
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expose().hash(state);
    }
}

/// Why a source gives no secret. The texts name the source and never hold what was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// No such environment variable.
    #[error("{0} is not set")]
    Unset(String),
    /// The file can't be read.
    #[error("{source_name} can't be read: {why}")]
    Unreadable {
        /// The source.
        source_name: String,
        /// The system's words.
        why: String,
    },
    /// The command can't be started, failed, or took too long.
    #[error("{source_name} {why}")]
    Command {
        /// The source.
        source_name: String,
        /// What happened.
        why: String,
    },
    /// The keyring gave no secret.
    #[error("{source_name}: {why}")]
    Keyring {
        /// The source.
        source_name: String,
        /// What happened.
        why: String,
    },
    /// Vault gave no secret.
    #[error("{source_name}: {why}")]
    Vault {
        /// The source.
        source_name: String,
        /// What happened, whose fault it is.
        why: String,
    },
    /// Nothing but newlines.
    #[error("{0} is empty")]
    Empty(String),
    /// Not UTF-8.
    #[error("{0} is not text (UTF-8)")]
    NotText(String),
    /// Control characters inside.
    #[error("{0} holds control characters")]
    Control(String),
    /// More than 64 KiB.
    #[error("{0} is longer than any secret (64 KiB)")]
    TooLong(String),
}

/// `{ env = … }`, `{ file = … }`, `{ keyring = … }`, `{ vault = … }` or `{ command = … }`: where a secret is read from, at every use.
///
/// Its `Display` names it for messages: `environment variable NAME`, `file PATH`, `command PROGRAM`
/// (without arguments, which may hold secrets).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// An environment variable.
    Env(String),
    /// A file, its trailing newline trimmed.
    File(PathBuf),
    /// A field of a secret in Vault; read by those who can ask it ([`crate::token::sources`]).
    Vault(VaultSecret),
    /// The secret of an account at a service in the keyring of the session.
    Keyring {
        /// `service`
        service: String,
        /// `username`
        account: String,
    },
    /// A command (no shell), its standard output with the trailing newline trimmed.
    Command(Vec<String>),
    /// Taken while parsing, from an environment that is not the process's own ([`super::parse`]).
    Given {
        /// The variable.
        name: String,
        /// Its value.
        value: Secret,
    },
}

/// `{ vault = "MOUNT/PATH#FIELD" }`: one field of a secret in a KV store, version 2.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VaultSecret {
    /// Where the store is mounted, without slashes at its ends.
    pub mount: String,
    /// The secret's path below it.
    pub path: String,
    /// The field of it.
    pub field: String,
}

impl fmt::Display for VaultSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vault {}/{}#{}", self.mount, self.path, self.field)
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) | Self::Given { name, .. } if mask::is_plain_env_name(name) => {
                write!(f, "environment variable {name}")
            }
            // Somebody may have pasted the secret where its variable's name belongs.
            Self::Env(_) | Self::Given { .. } => f.write_str("the environment variable named here"),
            Self::File(path) if path.file_name().is_some_and(|n| mask::looks_random(&n.to_string_lossy())) => {
                f.write_str("the file named here")
            }
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Vault(secret) => secret.fmt(f),
            Self::Keyring { service, account } => write!(f, "keyring {service}/{account}"),
            Self::Command(argv) => write!(f, "command {}", argv.first().map_or("", String::as_str)),
        }
    }
}

/// Whether a plain value of this name should not be shown: somebody may have put a secret where none belongs.
pub fn hides(name: &str, value: &str) -> bool {
    mask::looks_secret(name) || mask::looks_random(value)
}

impl SecretSource {
    /// What a shell writes in its place, inside of double quotes: `$NAME` or `$(cat 'PATH')`. `None` for what is
    /// not to be shown, or has no such form.
    pub fn shell(&self) -> Option<String> {
        match self {
            Self::Env(name) | Self::Given { name, .. } if mask::is_plain_env_name(name) => Some(format!("${name}")),
            Self::File(path) => {
                let shown = path.to_str().filter(|path| !path.contains('\'') && !path.contains(char::is_control))?;
                let random = path.file_name().is_some_and(|name| mask::looks_random(&name.to_string_lossy()));
                (!random).then(|| format!("$(cat '{shown}')"))
            }
            _ => None,
        }
    }

    /// Reads the secret now. Needs a tokio runtime with I/O and time for files and commands.
    ///
    /// A command gets no standard input, its standard error is thrown away, and it is killed after
    /// 10 s. A file that does not come within that time (a pipe, a mount that hangs) is given up.
    pub async fn read(&self) -> Result<Secret, SecretError> {
        self.read_shaped(Shape::Line).await
    }

    /// The same for a key, which has several lines.
    pub async fn read_shaped(&self, shape: Shape) -> Result<Secret, SecretError> {
        match self {
            Self::Given { value, .. } => Ok(value.clone()),
            Self::Env(name) => {
                let value = std::env::var_os(name).ok_or_else(|| SecretError::Unset(self.to_string()))?;
                Secret::from_source(Zeroizing::new(value.into_encoded_bytes()), self, shape)
            }
            Self::File(path) => {
                let path = path.clone();
                // Not through tokio's file, whose own buffer would keep a copy.
                let read = tokio::task::spawn_blocking(move || read_file(&path));
                let bytes = match tokio::time::timeout(TIMEOUT, read).await {
                    Ok(Ok(bytes)) => bytes,
                    Ok(Err(_)) => Err(io::Error::other("reading it failed")),
                    Err(_) => Err(io::Error::other(format!("it did not come within {} s", TIMEOUT.as_secs()))),
                };
                Secret::from_source(self.checked_length(bytes)?, self, shape)
            }
            Self::Vault(_) => Err(self.of_vault("it cannot be asked for this".to_owned())),
            Self::Command(argv) => Secret::from_source(self.output(argv).await?, self, shape),
            Self::Keyring { service, account } => {
                let text = keyring::lookup(service, account).await;
                let text = text.map_err(|why| SecretError::Keyring { source_name: self.to_string(), why })?;
                Secret::from_source(self.checked_length(Ok(text))?, self, shape)
            }
        }
    }

    /// [`SecretSource::read`] for code that is not async, inside a runtime or not: on a thread of its own.
    pub fn read_blocking(&self) -> Result<Secret, SecretError> {
        self.read_shaped_blocking(Shape::Line)
    }

    /// [`SecretSource::read_shaped`], the same way.
    pub fn read_shaped_blocking(&self, shape: Shape) -> Result<Secret, SecretError> {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
        let read = || match runtime() {
            Ok(runtime) => {
                let read = runtime.block_on(self.read_shaped(shape));
                runtime.shutdown_background(); // a file that hangs would hold it
                read
            }
            Err(e) => Err(self.unreadable(&e)),
        };
        std::thread::scope(|scope| scope.spawn(read).join())
            .unwrap_or_else(|_| Err(self.unreadable(&io::Error::other("reading it failed"))))
    }

    async fn output(&self, argv: &[String]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let words: Vec<&str> = argv.iter().map(String::as_str).collect();
        let output = program::run(&words, false).await.map_err(|failure| {
            self.failed(match failure {
                Failure::Start(e) => format!("can't be started: {e}"),
                Failure::Broke(e) => format!("failed: {e}"),
                Failure::Late => format!("did not end within {} s", TIMEOUT.as_secs()),
            })
        })?;
        let text = self.checked_length(Ok(output.text))?;
        if output.status.success() { Ok(text) } else { Err(self.failed(format!("failed: {}", output.status))) }
    }

    fn checked_length(&self, bytes: io::Result<Zeroizing<Vec<u8>>>) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let bytes = bytes.map_err(|e| self.unreadable(&e))?;
        if bytes.len() > MAX_LENGTH { Err(SecretError::TooLong(self.to_string())) } else { Ok(bytes) }
    }

    fn unreadable(&self, error: &io::Error) -> SecretError {
        SecretError::Unreadable { source_name: self.to_string(), why: error.to_string() }
    }

    /// Vault gave none, and why.
    pub fn of_vault(&self, why: String) -> SecretError {
        SecretError::Vault { source_name: self.to_string(), why }
    }

    fn failed(&self, why: String) -> SecretError {
        SecretError::Command { source_name: self.to_string(), why }
    }
}
