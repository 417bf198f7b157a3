//! What was written → what may run.
//!
//! [`load`] is the only door: it gives a whole [`model::Config`], or every problem of the file at once.
//!
//! 1. `reader`: the file's tree, asked key by key; whatever is wrong becomes a note and reading goes on
//! 2. `raw`: the sections, typed and placed
//! 3. `profile`: what is built in about providers
//! 4. `resolve`: both together, checked; the result is made of [`model`] types only
//! 5. `diagnostic` and `mask`: notes as people read them, without any secret in them

mod diagnostic;
mod expand;
mod header;
pub mod identity;
mod keyring;
mod mask;
pub mod model;
mod nearest;
mod not_built;
pub mod profile;
mod program;
mod raw;
mod reader;
mod resolve;
mod rule;
mod schema;
pub mod secret;
pub mod signing_key;
mod source;
mod units;
mod url;

use std::path::{Path, PathBuf};

use toml::de::DeTable;

pub use self::diagnostic::{Diagnostic, Place, Problems, Severity, Warning};
pub(crate) use self::nearest::did_you_mean;
pub use self::schema::schema;
use self::{
    diagnostic::{Note, Renderer, Span},
    mask::Mask,
    model::Config,
    reader::{Context, Table},
};

/// Reads and checks a file, with this process's environment. Relative paths in it start at its directory.
///
/// Environment variables and files that secrets come from are looked at; commands are run only for the
/// API keys of callers, which are needed now.
pub fn load(path: &Path) -> Result<(Config, Vec<Warning>), Problems> {
    load_pausing(path, &|| ())
}

/// The same, calling `pause` between routes: ten thousand of them take a tenth of a second, which others on the same core may
/// need meanwhile.
pub fn load_pausing(path: &Path, pause: &dyn Fn()) -> Result<(Config, Vec<Warning>), Problems> {
    let name = path.display().to_string();
    let text = std::fs::read(path).map_err(|e| {
        let hint =
            (e.kind() == std::io::ErrorKind::NotFound).then(|| "`cupbearer init PROVIDER` writes one".to_owned());
        Problems(vec![Diagnostic::of_file(&name, format!("can't read {name}: {e}"), hint)])
    })?;
    let text = String::from_utf8(text)
        .map_err(|_| Problems(vec![Diagnostic::of_file(&name, format!("{name} is not text (UTF-8)"), None)]))?;
    let dir = path.parent().map(Path::to_owned).unwrap_or_default();
    let env = |name: &str| std::env::var(name).ok();
    examine(&text, &name, &Context::new(&env, dir, false).pausing(pause))
}

/// Checks a text, called `proxy.toml` in messages, with an environment of its own: for the demo and for tests.
///
/// Secrets from environment variables are taken from `env` now. Relative paths start at the current directory.
pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<(Config, Vec<Warning>), Problems> {
    examine(text, "proxy.toml", &Context::new(env, PathBuf::new(), true))
}

fn examine(text: &str, file: &str, context: &Context<'_>) -> Result<(Config, Vec<Warning>), Problems> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let broken: Vec<Span> = errors.iter().map(|e| e.span().unwrap_or_default()).collect();
    let root = Table::new(context, ("the file".to_owned(), ""), tree.get_ref(), 0..0, None);
    let config = resolve::resolve(context, &root);
    let (mut notes, hidden) = context.take();
    // Nothing is shown of a file that is right.
    let mask = if notes.is_empty() && errors.is_empty() {
        Mask::default()
    } else {
        Mask::of(text, tree.get_ref(), &hidden, &broken)
    };
    if !errors.is_empty() {
        notes = among_syntax_errors(text, notes, &errors);
    }
    notes.sort_by_key(|n| (n.span.start, n.severity == Severity::Warning));
    let renderer = Renderer { file, text, mask: &mask };
    let failed = notes.iter().any(|n| n.severity == Severity::Error);
    // "No route uses it" may only mean that the route is wrong.
    notes.retain(|n| !(failed && n.follows && n.severity == Severity::Warning));
    let mut diagnostics: Vec<Diagnostic> = notes.into_iter().map(|n| renderer.render(n)).collect();
    diagnostics.dedup();
    match config {
        Some(config) if !failed => Ok((config, diagnostics.into_iter().map(Warning).collect())),
        _ if failed => Err(Problems(diagnostics)),
        _ => Err(Problems(vec![Diagnostic::of_file(file, "this configuration can't be used".to_owned(), None)])),
    }
}

/// The syntax errors themselves, one a line, and those other problems that are certainly not their consequence.
fn among_syntax_errors(text: &str, notes: Vec<Note>, errors: &[toml::de::Error]) -> Vec<Note> {
    let line_of = |at: usize| text.bytes().take(at).filter(|b| *b == b'\n').count();
    let mut sorted: Vec<(Span, &str)> = errors.iter().map(|e| (e.span().unwrap_or_default(), e.message())).collect();
    sorted.sort_by_key(|(span, _)| span.start);
    let mut out: Vec<Note> = Vec::new();
    let mut lines: Vec<usize> = Vec::new();
    let mut trusted = usize::MAX;
    for (span, message) in sorted {
        let line = line_of(span.start);
        if lines.contains(&line) {
            continue;
        }
        lines.push(line);
        let note = Note::error(&span, format!("not TOML: {message}"));
        out.push(
            note.maybe_hint(unquoted(text, span.start).then(|| "text stands in quotes: key = \"value\"".to_owned())),
        );
        // What follows an array that is not closed is read as part of it.
        if message.contains("array") {
            trusted = span.start;
            break;
        }
    }
    let certain = |n: &Note| !n.follows && n.span.start < trusted && !lines.contains(&line_of(n.span.start));
    out.extend(notes.into_iter().filter(certain));
    out
}

/// Whether the line's value starts like text that lacks its quotes.
fn unquoted(text: &str, at: usize) -> bool {
    let start = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |n| n + 1);
    let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let value = line.split_once('=').map(|(_, value)| value.trim_start());
    value.is_some_and(|v| v.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '/' | '$' | '.' | '*')))
}

#[cfg(test)]
pub(crate) mod tests;
