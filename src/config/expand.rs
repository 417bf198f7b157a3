//! `${ENV_NAME}` and `${ENV_NAME:-default}` in values.
//!
//! `$${` stands for a literal `${`; any other `$` is just a `$`. As in a shell, the default also applies
//! where the variable is set but empty. Expansions don't nest and their results are not expanded again.

/// Why a text can't be expanded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ExpandError {
    /// `${` without `}`.
    Unclosed,
    /// Not the name of a variable.
    BadName,
    /// Not set, and no default.
    Unset(String),
}

/// The expanded text.
pub(super) fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, ExpandError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if at > 0 && rest.as_bytes()[at - 1] == b'$' {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let end = inside.find('}').ok_or(ExpandError::Unclosed)?;
        let (name, default) = match inside[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inside[..end], None),
        };
        if !is_name(name) {
            return Err(ExpandError::BadName);
        }
        match (env(name), default) {
            (Some(value), None) => out.push_str(&value),
            (Some(value), Some(_)) if !value.is_empty() => out.push_str(&value),
            (_, Some(default)) => out.push_str(default),
            (None, None) => return Err(ExpandError::Unset(name.to_owned())),
        }
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// A legal name of an environment variable: letters, digits and `_`, not starting with a digit.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<String, ExpandError> {
        expand(text, &|name| match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            "SLY" => Some("${A}".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn variables_defaults_and_escapes_expand_once() {
        assert_eq!(run("x${A}y${NOPE:-two}").as_deref(), Ok("xoneytwo"));
        assert_eq!(run("${EMPTY:-d}").as_deref(), Ok("d"));
        assert_eq!(run("${EMPTY}").as_deref(), Ok(""));
        assert_eq!(run("$${A} $A 5$").as_deref(), Ok("${A} $A 5$"));
        assert_eq!(run("${SLY}").as_deref(), Ok("${A}"));
    }

    #[test]
    fn what_cannot_be_expanded_says_why() {
        assert_eq!(run("${NOPE}"), Err(ExpandError::Unset("NOPE".to_owned())));
        assert_eq!(run("${A"), Err(ExpandError::Unclosed));
        assert_eq!(run("${A B}"), Err(ExpandError::BadName));
        assert_eq!(run("${}"), Err(ExpandError::BadName));
    }
}
