//! Header names, header values and the `inject` template.

use super::{model::Inject, url::Refused};

/// Names that frame messages or manage connections: nobody may set or remove them by hand.
const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn refused(why: impl Into<String>, hint: Option<&str>) -> Refused {
    Refused { why: why.into(), hint: hint.map(str::to_owned) }
}

/// A legal field name (RFC 9110 section 5.1) in lower case that does not frame messages.
pub(super) fn name(text: &str) -> Result<String, Refused> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || !text.bytes().all(token) {
        return Err(refused("is not a legal header name", None));
    }
    let name = text.to_ascii_lowercase();
    if name == "host" {
        return Err(refused("can't be set or removed here", None));
    }
    if FRAMING.contains(&name.as_str()) {
        return Err(refused("can't be set or removed: it belongs to the connection, not to the request", None));
    }
    Ok(name)
}

/// A legal field value (RFC 9110 section 5.5): visible characters, inner spaces and tabs.
pub(super) fn value(text: &str) -> Result<(), Refused> {
    let legal = |b: u8| b == b'\t' || (b >= 0x20 && b != 0x7f);
    if !text.bytes().all(legal) {
        return Err(refused("holds control characters", None));
    }
    if text.trim_matches([' ', '\t']) != text {
        return Err(refused("starts or ends with white space", None));
    }
    Ok(())
}

/// Replaces `{client_id}`; any other `{word}` but the ones in `kept` is refused.
pub(super) fn fill(text: &str, client_id: &str, kept: &[&str]) -> Result<String, Refused> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        let inside = &rest[open + 1..];
        let close =
            inside.find('}').filter(|end| inside[..*end].bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        match close.map(|end| &inside[..end]) {
            Some("client_id") => out.push_str(client_id),
            Some(word) if kept.contains(&word) => {
                out.push('{');
                out.push_str(word);
                out.push('}');
            }
            Some("token") => return Err(refused("has `{token}`", Some("the token is set by the route's `inject`"))),
            Some(word) if !word.is_empty() => {
                let why = format!("has the unknown placeholder `{{{word}}}`");
                return Err(refused(why, Some("`{client_id}` is known, and in `inject` `{token}`")));
            }
            _ => {
                out.push('{');
                rest = inside;
                continue;
            }
        }
        rest = &inside[close.unwrap_or(0) + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// What a template for a header of the token request holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// `{client_id}` alone.
    Id,
    /// `{client_secret}` or `{basic}`.
    Secret,
    /// `{assertion}`.
    Assertion,
}

/// Whether a header of the token request is a template; another `{word}` than the known ones is refused.
pub(super) fn template(text: &str) -> Result<Option<Holds>, Refused> {
    let mut holds = None;
    for part in text.split('{').skip(1) {
        let word = part.split_once('}').map_or("", |(word, _)| word);
        match word {
            "client_id" => holds = holds.or(Some(Holds::Id)),
            "client_secret" | "basic" => holds = Some(Holds::Secret),
            "assertion" => holds = Some(Holds::Assertion),
            _ if !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => {
                let why = format!("has the unknown placeholder `{{{word}}}`");
                let hint =
                    "`{client_id}`, `{client_secret}`, `{basic}` (base64 of id:secret) and `{assertion}` are known";
                return Err(refused(why, Some(hint)));
            }
            _ => {}
        }
    }
    Ok(holds)
}

/// `Name: text{token}text`.
pub(super) fn inject(text: &str, client_id: &str) -> Result<Inject, Refused> {
    let example = Some("for example \"Authorization: Bearer {token}\"");
    let Some((header, template)) = text.split_once(':') else {
        return Err(refused("is not a header", example));
    };
    let name = name(header.trim_end_matches(' '))?;
    if template.matches("{token}").count() != 1 {
        return Err(refused("must hold `{token}` exactly once", example));
    }
    let filled = fill(template.trim_matches([' ', '\t']), client_id, &["token"])?;
    value(&filled)?;
    let Some((prefix, suffix)) = filled.split_once("{token}") else {
        return Err(refused("must hold `{token}` exactly once", example));
    };
    Ok(Inject { name, prefix: prefix.to_owned(), suffix: suffix.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inject_is_a_header_around_one_token() {
        let parsed = |text| inject(text, "my-id");
        let usual = parsed("Authorization: Bearer {token}").unwrap();
        assert_eq!(
            (usual.name.as_str(), usual.prefix.as_str(), usual.suffix.as_str()),
            ("authorization", "Bearer ", "")
        );
        let odd = parsed("X-Auth:{client_id}/{token};v=1").unwrap();
        assert_eq!((odd.prefix.as_str(), odd.suffix.as_str()), ("my-id/", ";v=1"));
        for bad in [
            "{token}",
            "A: b",
            "A: {token}{token}",
            "A b: {token}",
            "Host: {token}",
            "A: {tokn}{token}",
            "A: {token}\r\nB: c",
        ] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn braces_that_are_no_placeholder_stay() {
        assert_eq!(fill("{\"a\": {client_id}}", "id", &[]).unwrap(), "{\"a\": id}");
        assert_eq!(fill("{", "id", &[]).unwrap(), "{");
        assert!(fill("{token}", "id", &[]).is_err());
        assert!(fill("{secret}", "id", &[]).is_err());
    }

    #[test]
    fn a_template_is_told_from_a_plain_value_by_its_known_words() {
        assert_eq!(template("a"), Ok(None));
        assert_eq!(template("{\"a\": {}}"), Ok(None));
        assert_eq!(template("x {client_id}"), Ok(Some(Holds::Id)));
        assert_eq!(template("{client_id}:{client_secret}"), Ok(Some(Holds::Secret)));
        assert_eq!(template("ID {basic}"), Ok(Some(Holds::Secret)));
        assert_eq!(template("Bearer {assertion}"), Ok(Some(Holds::Assertion)));
        assert!(template("Bearer {token}").is_err());
    }

    #[test]
    fn names_and_values_are_legal_or_refused() {
        assert_eq!(name("X-Api-Key").unwrap(), "x-api-key");
        for bad in ["", "a b", "a:", "ä", "Connection", "content-length", "Transfer-Encoding", "HOST"] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert!(value("a b").is_ok());
        for bad in ["a\r\nb", "a\0", " a", "a\u{7f}"] {
            assert!(value(bad).is_err(), "{bad:?}");
        }
    }
}
