//! Reads `{ env | file | command | keyring | systemd | vault = … }`, and looks at once whether the secret is there.

use std::path::PathBuf;

use toml::de::DeValue;

use super::{
    diagnostic::Note,
    expand::is_name,
    reader::{At, Context, Entry, Kind, Table},
    secret::{Secret, SecretError, SecretSource, Shape, VaultSecret},
};

/// The secret source at `key`. Environment and files are looked at now; a command is not run.
pub(super) fn read(table: &Table<'_>, key: &'static str) -> Option<At<SecretSource>> {
    table.learn(key, || Kind::Secret);
    of_entry(table, table.entry(key)?)
}

/// The same for what is needed before Vault can be asked.
pub(super) fn read_here(table: &Table<'_>, key: &'static str) -> Option<At<SecretSource>> {
    let at = read(table, key)?;
    if !matches!(at.value, SecretSource::Vault(_)) {
        return Some(at);
    }
    let note = Note::error(&at.span, format!("`{key}` in {} cannot come from `vault`", table.name));
    let hint =
        "only [credentials.*] can; here { command = [\"vault\", \"kv\", \"get\", \"-field=…\", \"…\"] } does the same";
    table.context.report(note.hint(hint));
    None
}

/// The secret sources at `key`: one, or a list of them. Empty where there is none, or a wrong one.
pub(super) fn read_list(table: &Table<'_>, key: &'static str) -> Vec<At<SecretSource>> {
    table.learn(key, || Kind::Secrets);
    let Some(entry) = table.entry(key) else { return Vec::new() };
    let DeValue::Array(items) = entry.value else { return of_entry(table, entry).into_iter().collect() };
    if items.is_empty() {
        table.context.error(&entry.span, format!("`{key}` in {} is an empty list", table.name));
    }
    let of_item = |item: &toml::Spanned<DeValue<'_>>| {
        let (key_span, span) = (entry.key_span.clone(), table.at(item.span()));
        of_entry(table, &Entry { key: entry.key, key_span, value: item.get_ref(), span })
    };
    let all: Vec<_> = items.iter().map(of_item).collect();
    // One that is wrong spoils the list: the order counts.
    if all.iter().any(Option::is_none) { Vec::new() } else { all.into_iter().flatten().collect() }
}

/// The same for a key, which has several lines.
pub(super) fn read_text(table: &Table<'_>, key: &'static str) -> Option<At<SecretSource>> {
    table.learn(key, || Kind::Secret);
    let entry = table.entry(key)?;
    check(table, entry, written(table, entry)?, Shape::Text)
}

/// The secret source at an entry.
pub(super) fn of_entry(table: &Table<'_>, entry: &Entry<'_>) -> Option<At<SecretSource>> {
    let source = written(table, entry)?;
    check(table, entry, source, Shape::Line)
}

/// What an entry says, without a look at whether the secret is there.
fn written(table: &Table<'_>, entry: &Entry<'_>) -> Option<SecretSource> {
    let context = table.context;
    let key = entry.key;
    let inner = match entry.value {
        DeValue::Table(inner) => table.below(inner, format!("`{key}`"), "secret", entry.key_span.clone()),
        DeValue::Array(_) => {
            context.error(&entry.span, format!("`{key}` in {} takes one source, not a list", table.name));
            return None;
        }
        other => {
            context.hide(&entry.span);
            let note = Note::error(
                &entry.span,
                format!("`{key}` in {} is a plain value: secrets don't belong in this file", table.name),
            );
            let name = other.as_str().and_then(|s| s.strip_prefix("${")?.strip_suffix('}')).filter(|n| is_name(n));
            let name = name.map_or_else(|| suggested_variable(&table.name, key), str::to_owned);
            context.report(note.hint(format!(
                "say where the secret is: {key} = {{ env = \"{name}\" }}, {{ file = \"…\" }} or {{ command = [\"…\"] }}"
            )));
            return None;
        }
    };
    let sources = [environment(&inner), file(&inner), command(&inner), keyring(&inner), systemd(&inner), vault(&inner)];
    let given = SOURCES.into_iter().filter(|k| inner.has(k)).count();
    let with_it = ["field", "mount"].into_iter().filter(|k| inner.has("vault") && inner.has(k)).count();
    let known_only = inner.entries().len() == given + with_it;
    inner.finish();
    if given != 1 {
        if known_only {
            let message = format!("`{key}` in {} needs exactly one source", table.name);
            context.report(Note::error(&entry.span, message).hint(format!("one of {}", SOURCES.join(", "))));
        }
        return None;
    }
    sources.into_iter().flatten().next()
}

const SOURCES: [&str; 6] = ["env", "file", "command", "keyring", "systemd", "vault"];

/// `[credentials.acme]`, `client_secret` → `ACME_CLIENT_SECRET`.
fn suggested_variable(table: &str, key: &str) -> String {
    let name = table.trim_matches(['[', ']', '`']).rsplit('.').next().unwrap_or_default();
    let name = format!("{name}_{key}").to_ascii_uppercase();
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn environment(inner: &Table<'_>) -> Option<SecretSource> {
    inner.learn("env", || Kind::Text);
    let entry = inner.entry("env")?;
    match entry.value.as_str() {
        Some(name) if is_name(name) => Some(SecretSource::Env(name.to_owned())),
        _ => {
            inner.context.hide(&entry.span);
            inner.context.report(
                Note::error(
                    &entry.span,
                    format!("`env` of {} must be the name of an environment variable", inner.name),
                )
                .hint("the name alone, without `$`: { env = \"NAME\" }"),
            );
            None
        }
    }
}

fn file(inner: &Table<'_>) -> Option<SecretSource> {
    // A path is no secret: unlike the others it may hold `${CREDENTIALS_DIRECTORY}`.
    let path = inner.word("file")?;
    Some(SecretSource::File(inner.context.dir.join(path.value)))
}

/// The secret in a well-known variable, if it is set.
pub(super) fn variable(context: &Context<'_>, name: &str) -> Option<SecretSource> {
    let text = context.env(name).filter(|text| !text.is_empty())?;
    let source = SecretSource::Env(name.to_owned());
    if !context.capture {
        return Some(source);
    }
    let value = Secret::checked(text, &source, Shape::Line).ok()?;
    Some(SecretSource::Given { name: name.to_owned(), value })
}

/// A credential that systemd passed to the service: a file of its own directory.
fn systemd(inner: &Table<'_>) -> Option<SecretSource> {
    const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";
    let name = inner.word("systemd")?;
    let context = inner.context;
    if name.value.contains('/') || name.value.starts_with('.') {
        context.error(&name.span, format!("`systemd` of {} must be the name of a credential, not a path", inner.name));
        return None;
    }
    let Some(directory) = context.env(DIRECTORY).filter(|directory| !directory.is_empty()) else {
        let note = Note::error(&name.span, format!("`systemd` of {}: {DIRECTORY} is not set", inner.name));
        context.report(note.hint("systemd sets it for a service with LoadCredential= or LoadCredentialEncrypted="));
        return None;
    };
    Some(SecretSource::File(PathBuf::from(directory).join(name.value)))
}

/// `SERVICE/ACCOUNT`; the service may have slashes of its own.
fn keyring(inner: &Table<'_>) -> Option<SecretSource> {
    let at = inner.word("keyring")?;
    // A word that starts with a hyphen would be an option of the tool that is asked.
    let legal = |part: &str| !part.is_empty() && !part.starts_with('-') && !part.contains(char::is_control);
    if let Some((service, account)) = at.value.rsplit_once('/').filter(|(s, a)| legal(s) && legal(a)) {
        return Some(SecretSource::Keyring { service: service.to_owned(), account: account.to_owned() });
    }
    let note = Note::error(&at.span, format!("`keyring` of {} must be SERVICE/ACCOUNT", inner.name));
    inner.context.report(note.hint("as in: secret-tool store --label=… service SERVICE username ACCOUNT"));
    None
}

/// `MOUNT/PATH#FIELD`, as `vault kv get` names it, or `MOUNT/data/PATH#FIELD`, as the API does.
fn vault(inner: &Table<'_>) -> Option<SecretSource> {
    let at = inner.word("vault");
    let (field, mount) = (inner.word("field"), inner.word("mount"));
    let at = at?;
    inner.context.uses_vault.borrow_mut().get_or_insert_with(|| at.span.clone());
    let refuse = |why: &str| {
        let note = Note::error(&at.span, format!("`vault` of {} {why}", inner.name));
        inner.context.report(note.hint("\"MOUNT/PATH#FIELD\", or { vault = \"MOUNT/PATH\", field = \"FIELD\" }"));
        None
    };
    let (path, field) = match (at.value.split_once('#'), field) {
        (Some(_), Some(_)) => return refuse("names its field twice"),
        (Some((path, field)), None) => (path, field.to_owned()),
        (None, Some(field)) => (at.value.as_str(), field.value),
        (None, None) => return refuse("names no field"),
    };
    let (mount, path) = match &mount {
        Some(mount) => (mount.value.trim_matches('/'), path),
        None => path.trim_start_matches('/').split_once('/').unwrap_or((path, "")),
    };
    let path = path.trim_matches('/');
    let path = path.strip_prefix("data/").unwrap_or(path);
    let legal = |part: &str| {
        let segment = |s: &str| !matches!(s, "" | "." | "..");
        part.split('/').all(segment) && !part.contains(|c: char| c.is_control() || matches!(c, '?' | '#' | '%' | '\\'))
    };
    if !legal(mount) || !legal(path) || field.is_empty() {
        return refuse("is no path of a secret");
    }
    Some(SecretSource::Vault(VaultSecret { mount: mount.to_owned(), path: path.to_owned(), field }))
}

fn command(inner: &Table<'_>) -> Option<SecretSource> {
    inner.learn("command", || Kind::TextOrTexts);
    let entry = inner.entry("command")?;
    let words: Option<Vec<String>> = match entry.value {
        DeValue::String(line) => Some(line.split_whitespace().map(str::to_owned).collect()),
        DeValue::Array(items) => items.iter().map(|i| i.get_ref().as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    let Some(words) = words.filter(|words| words.first().is_some_and(|program| !program.is_empty())) else {
        let note = Note::error(&entry.span, format!("`command` of {} must be a program and its arguments", inner.name));
        inner.context.report(note.hint("a list of strings, or one string that is split at spaces; no shell"));
        return None;
    };
    Some(SecretSource::Command(words))
}

/// Looks at the environment or the file now, so that a missing secret shows before the first request.
fn check(table: &Table<'_>, entry: &Entry<'_>, source: SecretSource, shape: Shape) -> Option<At<SecretSource>> {
    let context = table.context;
    let (secret, source) = match source {
        SecretSource::Env(name) if context.capture => {
            let secret =
                context.env(&name).ok_or_else(|| SecretError::Unset(SecretSource::Env(name.clone()).to_string()));
            let given = |value| SecretSource::Given { name: name.clone(), value };
            let secret = secret.and_then(|text| Secret::checked(text, &SecretSource::Env(name.clone()), shape));
            let source = secret.clone().map_or_else(|_| SecretSource::Env(name.clone()), given);
            (secret, source)
        }
        SecretSource::Command(_) | SecretSource::Keyring { .. } | SecretSource::Vault(_) => {
            return Some(At { value: source, span: entry.span.clone() });
        }
        source => (source.read_shaped_blocking(shape), source),
    };
    let (key, name) = (entry.key, &table.name);
    match secret {
        Ok(secret) => {
            if let Some(oddity) = secret.oddity().filter(|_| shape == Shape::Line) {
                context.report(Note::warning(&entry.span, format!("`{key}` in {name}: {source} {oddity}")));
            }
            Some(At { value: source, span: entry.span.clone() })
        }
        Err(error) => {
            let note = Note::error(&entry.span, format!("`{key}` in {name}: {error}"));
            let hint =
                matches!(error, SecretError::Unset(_)).then(|| "set it in the environment of cupbearer".to_owned());
            context.report(note.maybe_hint(hint));
            None
        }
    }
}
