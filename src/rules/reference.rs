//! URI references (RFC 3986 section 4.1) as upstreams send them in headers: taken apart, never normalised
//! beyond dot segments.

use std::borrow::Cow;

use memchr::memchr3;

use crate::config::model::Scheme;

/// A reference that may be moved behind a prefix.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reference<'a> {
    /// `http:` or `https:`, where it is an absolute URL.
    pub(super) scheme: Option<Scheme>,
    /// Host (IPv6 without brackets) and port, where `//` says so.
    pub(super) authority: Option<(&'a [u8], Option<u16>)>,
    /// Empty, or begins with `/`; without dot segments.
    pub(super) path: Cow<'a, [u8]>,
    /// Query and fragment, with their `?` and `#`.
    pub(super) tail: &'a [u8],
}

impl<'a> Reference<'a> {
    /// `None` for whatever is not to be touched: relative to the current path, another scheme, and all that
    /// two parsers might read as two hosts (user info, backslashes, controls, odd ports).
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        let tail_at = value.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(value.len());
        let (head, tail) = value.split_at(tail_at);
        if head.contains(&b'\\') || value.iter().any(u8::is_ascii_control) {
            return None;
        }
        let (scheme, rest) = split_scheme(head);
        let (authority, path) = match (scheme, rest.strip_prefix(b"//")) {
            (_, Some(rest)) => {
                let (authority, path) = rest.split_at(rest.iter().position(|&b| b == b'/').unwrap_or(rest.len()));
                (Some(split_authority(authority)?), path)
            }
            (None, None) if rest.starts_with(b"/") => (None, rest),
            _ => return None,
        };
        Some(Self { scheme, authority, path: without_dot_segments(path), tail })
    }
}

fn split_scheme(head: &[u8]) -> (Option<Scheme>, &[u8]) {
    for scheme in [Scheme::Https, Scheme::Http] {
        let name = scheme.as_str().as_bytes();
        if let Some((start, rest)) = head.split_at_checked(name.len())
            && start.eq_ignore_ascii_case(name)
            && let Some(rest) = rest.strip_prefix(b":")
        {
            return (Some(scheme), rest);
        }
    }
    (None, head)
}

fn split_authority(authority: &[u8]) -> Option<(&[u8], Option<u16>)> {
    // User info changes the host (`https://api.example@evil/`); an escape might, to some.
    if authority.is_empty() || memchr3(b'@', b'%', b' ', authority).is_some() {
        return None;
    }
    let (host, port) = if let Some(rest) = authority.strip_prefix(b"[") {
        let end = rest.iter().position(|&byte| byte == b']')?;
        (&rest[..end], &rest[end + 1..])
    } else {
        authority.split_at(authority.iter().position(|&byte| byte == b':').unwrap_or(authority.len()))
    };
    match port {
        // RFC 3986 section 6.2.3: an empty port is the default one.
        [] | [b':'] => Some((host, None)),
        [b':', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => {
            Some((host, Some(std::str::from_utf8(digits).ok()?.parse().ok()?)))
        }
        _ => None,
    }
}

/// RFC 3986 section 5.2.4, for `%2e` as well (as browsers read it). A client would do the same, but after
/// the prefix stands in front, where `..` would leave it.
fn without_dot_segments(path: &[u8]) -> Cow<'_, [u8]> {
    let segments = || path.get(1..).unwrap_or_default().split(|&byte| byte == b'/');
    if segments().all(|segment| dots(segment) == 0) {
        return Cow::Borrowed(path);
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in segments() {
        match dots(segment) {
            0 => kept.push(segment),
            1 => {}
            _ => {
                kept.pop();
            }
        }
    }
    let last_is_dots = segments().next_back().is_some_and(|segment| dots(segment) > 0);
    let mut resolved = kept.iter().flat_map(|segment| [b"/", *segment].concat()).collect::<Vec<u8>>();
    if last_is_dots {
        resolved.push(b'/');
    }
    Cow::Owned(resolved)
}

/// 1 for `.`, 2 for `..`, 0 for every other segment.
fn dots(mut segment: &[u8]) -> usize {
    let mut count = 0;
    while let Some(rest) =
        [&b"."[..], b"%2e", b"%2E"].iter().find_map(|spelling| segment.strip_prefix(*spelling)).filter(|_| count < 3)
    {
        segment = rest;
        count += 1;
    }
    if segment.is_empty() && count <= 2 { count } else { 0 }
}

#[cfg(test)]
mod tests;
