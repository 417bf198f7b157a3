//! `METHOD[,METHOD] GLOB` → [`Rule`].

use super::{
    model::{GlobSegment, Rule},
    url::{Refused, canonical_path, decoded},
};

/// Parses one rule. Globs are matched on decoded paths, so escapes in a glob are decoded here.
pub(super) fn parse(text: &str) -> Result<Rule, Refused> {
    let mut words = text.split_whitespace();
    let (Some(methods), Some(glob), None) = (words.next(), words.next(), words.next()) else {
        return Err(refused("is not METHOD and GLOB", "for example \"GET /v1/**\" or \"GET,POST /v1/*/search\""));
    };
    Ok(Rule { text: format!("{methods} {glob}"), methods: parse_methods(methods)?, segments: parse_glob(glob)? })
}

fn refused(why: &str, hint: &str) -> Refused {
    Refused { why: why.to_owned(), hint: Some(hint.to_owned()) }
}

fn parse_methods(text: &str) -> Result<Vec<String>, Refused> {
    if text == "*" {
        return Ok(Vec::new());
    }
    let legal = |m: &str| !m.is_empty() && m.bytes().all(|b| b.is_ascii_uppercase() || b == b'-' || b == b'_');
    if text.split(',').all(legal) {
        return Ok(text.split(',').map(str::to_owned).collect());
    }
    if text.starts_with('/') {
        return Err(refused("does not start with a method", &format!("for any method write \"* {text}\"")));
    }
    if text.split(',').all(|m| legal(&m.to_ascii_uppercase())) {
        return Err(refused("has a method in small letters", &format!("write {}", text.to_ascii_uppercase())));
    }
    Err(refused("does not start with a method", "methods are GET, POST, …, joined by commas, or `*` for any"))
}

fn parse_glob(glob: &str) -> Result<Vec<GlobSegment>, Refused> {
    let Some(inner) = glob.strip_prefix('/') else {
        return Err(refused("has a path that does not start with a slash", &format!("write \"/{glob}\"")));
    };
    canonical_path(glob)?;
    inner.split('/').map(parse_segment).collect()
}

fn parse_segment(segment: &str) -> Result<GlobSegment, Refused> {
    if segment == "**" {
        return Ok(GlobSegment::AnyDepth);
    }
    if segment.contains("**") {
        return Err(refused(
            "has `**` inside a segment",
            "`**` stands alone between slashes; `*` is any text inside one",
        ));
    }
    Ok(GlobSegment::Parts(segment.split('*').map(decoded).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(list: &[&str]) -> GlobSegment {
        GlobSegment::Parts(list.iter().map(|s| (*s).to_owned()).collect())
    }

    #[test]
    fn a_rule_is_methods_and_a_glob_over_decoded_segments() {
        let rule = parse("GET,POST /v1/*/inv*/**").unwrap();
        assert_eq!(rule.methods, ["GET", "POST"]);
        let expected = [parts(&["v1"]), parts(&["", ""]), parts(&["inv", ""]), GlobSegment::AnyDepth];
        assert_eq!(rule.segments, expected);
        assert_eq!(parse("* /a%20b").unwrap().segments, [parts(&["a b"])]);
        assert_eq!(parse("* /a%2Ab").unwrap().segments, [parts(&["a*b"])], "an escaped star is a star");
        assert_eq!(parse("GET /").unwrap().segments, [parts(&[""])]);
        assert_eq!(parse("GET /a/").unwrap().segments, [parts(&["a"]), parts(&[""])]);
    }

    #[test]
    fn a_rule_that_would_match_nothing_is_refused() {
        for bad in [
            "",
            "GET",
            "/v1",
            "get /v1",
            "GET v1",
            "GET /a/../b",
            "GET /a//b",
            "GET /a**",
            "G T /x",
            "GET, /x",
            "GET /x?y",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
