//! `METHOD GLOB` rules against a request.
//!
//! A path below its prefix has these segments: `/` and nothing at all have none, `/a` has one, `/a/` has
//! two (the last one empty). `*` inside a segment stands for any text, also none; `*` alone stands for
//! one segment that is not empty; `**` for any number of segments, also none.

use memchr::{memchr, memmem};

use crate::config::model::{GlobSegment, Rule};

use super::{escape::decode_fully, path::without_params};

/// Whether an allow-rule covers the request, read exactly as it stands.
pub fn allows(rule: &Rule, method: &str, path: &[u8]) -> bool {
    covers_method(rule, |known| known == method) && matches(&rule.segments, Segments::exact(path))
}

/// Whether a deny-rule covers the request, in any way in which the upstream might read it: methods in any
/// case, and the path also as [`Loose`] has it. (An allow-rule that is read too narrowly refuses a request;
/// a deny-rule that is read too narrowly lets one through.)
pub fn denies(rule: &Rule, method: &str, path: &[u8], loose: &Loose) -> bool {
    covers_method(rule, |known| known.eq_ignore_ascii_case(method))
        && (matches(&rule.segments, Segments::exact(path))
            || loose.0.as_deref().is_some_and(|path| matches(&rule.segments, Segments::exact(path))))
}

/// The path as the most forgiving server would read it: escapes decoded to the end, path parameters, empty
/// segments and a trailing slash dropped. `None` inside: it reads the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loose(Option<Vec<u8>>);

impl Loose {
    /// Where no deny-rule asks for another reading.
    pub fn unneeded() -> Self {
        Self(None)
    }

    /// The loose reading of a decoded path below its prefix. No allocation for a plain path.
    pub fn of(path: &[u8]) -> Self {
        if reads_one_way(path) {
            return Self(None);
        }
        let decoded = decode_fully(path).bytes;
        let mut loose = Vec::with_capacity(decoded.len());
        for segment in decoded.split(|&byte| byte == b'/').map(without_params).filter(|segment| !segment.is_empty()) {
            loose.push(b'/');
            loose.extend_from_slice(segment);
        }
        Self(Some(loose))
    }

    /// Whether it reads otherwise than the path that it was made of.
    pub fn differs(&self) -> bool {
        self.0.is_some()
    }

    /// The reading itself; `path` is what it was made of.
    pub fn reading<'a>(&'a self, path: &'a [u8]) -> &'a [u8] {
        self.0.as_deref().unwrap_or(path)
    }
}

/// Whether a decoded path has nothing that a forgiving server drops or decodes. Looks at all of it: without an early end the
/// compiler takes many bytes at a time.
fn reads_one_way(path: &[u8]) -> bool {
    let (mut odd, mut before) = (false, 0);
    for &byte in path {
        odd |= byte == b';' || byte == b'%' || (byte == b'/' && before == b'/');
        before = byte;
    }
    !odd && (path.len() <= 1 || before != b'/')
}

fn covers_method(rule: &Rule, same: impl Fn(&str) -> bool) -> bool {
    rule.methods.is_empty() || rule.methods.iter().any(|known| same(known)) || {
        // RFC 9110 section 9.3.2: HEAD is GET without the content.
        same("HEAD") && rule.methods.iter().any(|known| known == "GET")
    }
}

/// Whether the glob matches the path below its prefix. Time is bounded by glob segments × path length:
/// only the last `**` is ever tried again, as an earlier one could not lead further.
pub fn glob_matches(glob: &[GlobSegment], path: &[u8]) -> bool {
    matches(glob, Segments::exact(path))
}

fn matches<'a>(glob: &[GlobSegment], mut path: Segments<'a>) -> bool {
    let mut at = 0;
    let mut last_any_depth: Option<(usize, Segments<'a>)> = None;
    // A glob `/` may come as one empty segment; the root path has none.
    let glob = if matches!(glob, [GlobSegment::Parts(parts)] if literal(parts) == Some("")) { &[] } else { glob };
    loop {
        let mut after = path;
        match (glob.get(at), after.take_first()) {
            (Some(GlobSegment::AnyDepth), _) => {
                at += 1;
                if at == glob.len() {
                    return true;
                }
                last_any_depth = Some((at, path));
            }
            (None, None) => return true,
            // What is left of the glob wants more segments than there are; fewer will not help.
            (Some(GlobSegment::Parts(_)), None) => return false,
            (Some(GlobSegment::Parts(parts)), Some(segment)) if segment_matches(parts, segment) => {
                at += 1;
                path = after;
            }
            (_, Some(_)) => {
                let Some((resume, from)) = &mut last_any_depth else { return false };
                from.take_first();
                (at, path) = (*resume, *from);
            }
        }
    }
}

fn literal(parts: &[String]) -> Option<&str> {
    match parts {
        [text] => Some(text),
        _ => None,
    }
}

/// One segment against the texts between the stars. The first must begin it, the last must end it, and
/// each of the others is taken where it is found first: what is left is then longest.
fn segment_matches(parts: &[String], segment: &[u8]) -> bool {
    let [first, middle @ .., last] = parts else {
        return literal(parts).is_some_and(|text| text.as_bytes() == segment);
    };
    if parts.iter().all(String::is_empty) {
        return !segment.is_empty();
    }
    let Some(mut text) = segment.strip_prefix(first.as_bytes()).and_then(|text| text.strip_suffix(last.as_bytes()))
    else {
        return false;
    };
    for part in middle {
        let Some(at) = memmem::find(text, part.as_bytes()) else { return false };
        text = &text[at + part.len()..];
    }
    true
}

/// The segments of a path; copied to remember a place.
#[derive(Debug, Clone, Copy)]
struct Segments<'a>(Option<&'a [u8]>);

impl<'a> Segments<'a> {
    fn exact(path: &'a [u8]) -> Self {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        Self(if path.is_empty() { None } else { Some(path) })
    }

    fn take_first(&mut self) -> Option<&'a [u8]> {
        let rest = self.0?;
        if let Some(slash) = memchr(b'/', rest) {
            self.0 = Some(&rest[slash + 1..]);
            Some(&rest[..slash])
        } else {
            self.0 = None;
            Some(rest)
        }
    }
}

#[cfg(test)]
mod tests;
