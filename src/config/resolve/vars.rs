//! `vars` of a credential: what its profile leaves open.

use super::{Note, Table};
use crate::config::{diagnostic::Span, nearest::did_you_mean, profile::Variable, reader::At};

/// `vars = { NAME = "…" }` as written.
pub(super) struct Given {
    place: Option<Span>,
    /// Name and value; `None` where it is wrong, which is reported already.
    entries: Vec<(At<String>, Option<At<String>>)>,
}

/// What the credential says.
pub(super) fn given(t: &Table<'_>) -> Given {
    let place = t.has("vars").then(|| t.key_place("vars"));
    let map = t.map("vars");
    let entry = |map: &Table<'_>| {
        let name = |key: &str, span: &Span| At { value: key.to_owned(), span: span.clone() };
        map.entries().iter().map(|e| (name(e.key, &e.key_span), map.entry_text(e))).collect()
    };
    Given { place, entries: map.as_ref().map(entry).unwrap_or_default() }
}

impl Given {
    /// Where it stands, if it does.
    pub(super) fn place(&self) -> Option<&Span> {
        self.place.as_ref()
    }

    /// A value for each variable of the profile. What is missing or wrong is reported, and its example takes its
    /// place, so that nothing else is wrong because of it.
    pub(super) fn values(&self, t: &Table<'_>, provider: &str, known: &[Variable]) -> Vec<(String, String)> {
        for (name, _) in self.entries.iter().filter(|(name, _)| known.iter().all(|v| v.name != name.value)) {
            let names = || known.iter().map(|v| v.name.as_str());
            let list = || match names().collect::<Vec<_>>().join(", ") {
                none if none.is_empty() => "it has none".to_owned(),
                some => format!("it has {some}"),
            };
            let hint = did_you_mean(&name.value, names()).unwrap_or_else(list);
            let message = format!("provider {provider} has no variable `{}`", name.value);
            t.context.report(Note::error(&name.span, message).hint(hint));
        }
        let value = |variable: &Variable| {
            let value = self.value(t, variable).unwrap_or_else(|| variable.example.clone());
            (variable.name.clone(), value)
        };
        known.iter().map(value).collect()
    }

    fn value(&self, t: &Table<'_>, variable: &Variable) -> Option<String> {
        let Variable { name, about, example, kind } = variable;
        match self.entries.iter().find(|(given, _)| given.value == *name) {
            Some((_, Some(at))) if kind.allows(&at.value) => return Some(at.value.clone()),
            Some((_, Some(at))) => {
                let message = format!("`vars.{name}` in {} must {}", t.name, kind.must());
                t.context.report(Note::error(&at.span, message).hint(format!("{about}: for example \"{example}\"")));
            }
            Some((_, None)) => {}
            None => {
                let place = self.place.as_ref().unwrap_or(&t.place);
                let note = Note::error(place, format!("{} has no `vars.{name}`", t.name)).follows();
                t.context.report(note.hint(format!("vars = {{ {name} = \"{example}\" }}: {about}")));
            }
        }
        None
    }
}
