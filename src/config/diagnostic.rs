//! What is wrong with a file, and where: collected first, shown together.

use std::{fmt, ops::Range};

use super::mask::Mask;

/// Bytes of the file.
pub(super) type Span = Range<usize>;

/// Longest piece of a source line that is shown.
const SHOWN: usize = 160;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file may run; somebody should look at it.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// Something to report, as the resolver sees it: bytes of the file and words.
#[derive(Debug, Clone)]
pub(super) struct Note {
    pub(super) severity: Severity,
    pub(super) span: Span,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    pub(super) also: Option<(Span, String)>,
    /// May be only the consequence of another problem (a missing key, a dangling name).
    pub(super) follows: bool,
}

impl Note {
    pub(super) fn error(span: &Span, message: impl Into<String>) -> Self {
        let (severity, span, message) = (Severity::Error, span.clone(), message.into());
        Self { severity, span, message, hint: None, also: None, follows: false }
    }

    pub(super) fn warning(span: &Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message) }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    pub(super) fn also(mut self, span: &Span, label: impl Into<String>) -> Self {
        self.also = Some((span.clone(), label.into()));
        self
    }

    pub(super) fn follows(mut self) -> Self {
        self.follows = true;
        self
    }
}

/// A place in the file, with its line as it may be shown: secrets are masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters of the file (not of the masked line).
    pub column: usize,
    /// The line, values that may be secret masked, control characters replaced.
    pub source: String,
    /// Where the underline starts in `source`, in characters from 0.
    pub mark: usize,
    /// How long the underline is; at least 1.
    pub width: usize,
}

/// One problem or warning, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file's name as given.
    pub file: String,
    /// Where; `None` where the file could not be read at all.
    pub place: Option<Place>,
    /// A sentence that names the key.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// A second place that belongs to it, and what is there.
    pub also: Option<(Place, String)>,
}

impl Diagnostic {
    /// A problem with the file as a whole.
    pub(super) fn of_file(file: &str, message: String, hint: Option<String>) -> Self {
        Self { severity: Severity::Error, file: file.to_owned(), place: None, message, hint, also: None }
    }

    /// As one JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        let place = |p: &Place| serde_json::json!({ "line": p.line, "column": p.column, "source": p.source });
        let mut object = serde_json::json!({
            "severity": self.severity.as_str(),
            "file": self.file,
            "message": self.message,
            "hint": self.hint,
        });
        if let Some(p) = &self.place {
            object["line"] = p.line.into();
            object["column"] = p.column.into();
            object["source"] = p.source.clone().into();
        }
        if let Some((p, label)) = &self.also {
            object["also"] = place(p);
            object["also"]["message"] = label.clone().into();
        }
        object
    }
}

impl fmt::Display for Diagnostic {
    /// Several lines, without a newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity.as_str(), self.message)?;
        let last_line = self.also.iter().map(|(p, _)| p).chain(&self.place).map(|p| p.line).max().unwrap_or(0);
        let gutter = last_line.to_string().len();
        match &self.place {
            None => write!(f, "\n{:gutter$}--> {}", "", self.file)?,
            Some(place) => show_place(f, &self.file, place, "-->", "", gutter)?,
        }
        if let Some((place, label)) = &self.also {
            show_place(f, &self.file, place, ":::", label, gutter)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n{:gutter$} hint: {hint}", "")?;
        }
        Ok(())
    }
}

fn show_place(
    f: &mut fmt::Formatter<'_>,
    file: &str,
    place: &Place,
    arrow: &str,
    label: &str,
    gutter: usize,
) -> fmt::Result {
    let Place { line, column, source, mark, width } = place;
    write!(f, "\n{:gutter$}{arrow} {file}:{line}:{column}", "")?;
    write!(f, "\n{:gutter$} |", "")?;
    write!(f, "\n{line:gutter$} | {source}")?;
    write!(f, "\n{:gutter$} | {:mark$}{}", "", "", "^".repeat(*width))?;
    if label.is_empty() { Ok(()) } else { write!(f, " {label}") }
}

/// Something worth a look in a file that may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(pub Diagnostic);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Everything that is wrong with a file, in file order; never empty. Warnings stand among the problems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Diagnostic>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.0 {
            write!(f, "{diagnostic}\n\n")?;
        }
        let errors = self.0.iter().filter(|d| d.severity == Severity::Error).count();
        write!(f, "{errors} {}", if errors == 1 { "problem" } else { "problems" })
    }
}

impl std::error::Error for Problems {}

/// Turns notes into what may be shown.
pub(super) struct Renderer<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
    pub(super) mask: &'a Mask,
}

impl Renderer<'_> {
    pub(super) fn render(&self, note: Note) -> Diagnostic {
        Diagnostic {
            severity: note.severity,
            file: self.file.to_owned(),
            place: Some(self.place(&note.span)),
            message: printable(&note.message),
            hint: note.hint.as_deref().map(printable),
            also: note.also.map(|(span, label)| (self.place(&span), label)),
        }
    }

    fn place(&self, span: &Span) -> Place {
        let start = floor(self.text, span.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let end = floor(self.text, span.end).clamp(start, line_end);
        let (source, mark, width) = self.shown(line_start..line_end, start..end);
        Place {
            line: self.text[..line_start].matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            source,
            mark,
            width,
        }
    }

    /// The line with its masks, and where the underline goes in it.
    fn shown(&self, line: Span, marked: Span) -> (String, usize, usize) {
        let mut out: Vec<char> = Vec::new();
        let (mut from, mut to) = (None, None);
        let mut at = line.start;
        while at < line.end {
            if at >= marked.start {
                from.get_or_insert(out.len());
            }
            if at >= marked.end {
                to.get_or_insert(out.len());
            }
            if let Some(hidden) = self.mask.covering(at) {
                // A mark inside what is hidden must not tell where in it.
                if hidden.contains(&marked.start) {
                    from.get_or_insert(out.len());
                }
                out.extend("****".chars());
                at = hidden.end.min(line.end);
                continue;
            }
            let Some(c) = self.text[at..].chars().next() else { break };
            if c != '\r' {
                out.push(match c {
                    '\t' => ' ',
                    c if c.is_control() => char::REPLACEMENT_CHARACTER,
                    c => c,
                });
            }
            at += c.len_utf8();
        }
        let from = from.unwrap_or(out.len());
        let to = to.unwrap_or(out.len()).max(from + 1);
        clip(&out, from, to)
    }
}

/// Cuts a long line to a window around the mark.
fn clip(line: &[char], from: usize, to: usize) -> (String, usize, usize) {
    if line.len() <= SHOWN {
        let text: String = line.iter().collect();
        return (text.trim_end().to_owned(), from, to - from);
    }
    let start = if to < SHOWN { 0 } else { from.saturating_sub(SHOWN / 4) };
    let end = (start + SHOWN).min(line.len());
    let mut text: String = line[start..end].iter().collect();
    let mut mark = from - start;
    if start > 0 {
        text.insert(0, '…');
        mark += 1;
    }
    if end < line.len() {
        text.push('…');
    }
    (text, mark, (to - from).min(end.saturating_sub(from)).max(1))
}

/// Keys and names of the file stand in messages: nothing in them may steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The next character boundary at or below `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
