//! `Set-Cookie` behind the prefix (RFC 6265 section 5.2, as clients read it).

/// Moves a cookie to where its route stands: `Domain` is dropped (it names the upstream's host), `Path` is
/// mapped from `base` (the upstream's base path) to `prefix` (percent-encoded; empty = everything), and set
/// where there is none. Every other byte stays, except that CR, LF and NUL become spaces (RFC 9110
/// section 5.5).
///
/// A cookie never gets a wider path than the route's prefix, so that no other upstream sees it — unless its
/// route's prefix begins with this one, which a path cannot prevent. `__Host-` cookies demand `Path=/`; they
/// lose that promise here, and browsers then drop them, which is better than showing them to every upstream.
pub fn behind_prefix(value: &[u8], prefix: &[u8], base: &[u8]) -> Vec<u8> {
    let mut parts = value.split(|&byte| byte == b';');
    let mut cookie = parts.next().unwrap_or_default().to_vec();
    let mut has_path = false;
    for attribute in parts {
        let equals = attribute.iter().position(|&byte| byte == b'=');
        let (name, path) = match equals {
            Some(equals) => (&attribute[..equals], attribute[equals + 1..].trim_ascii()),
            None => (attribute, &b""[..]),
        };
        let name = name.trim_ascii();
        if name.eq_ignore_ascii_case(b"domain") {
            continue;
        }
        cookie.push(b';');
        if name.eq_ignore_ascii_case(b"path") {
            has_path = true;
            cookie.extend_from_slice(&attribute[..equals.unwrap_or(attribute.len())]);
            cookie.push(b'=');
            push_path(&mut cookie, path, prefix, base);
        } else {
            cookie.extend_from_slice(attribute);
        }
    }
    if !has_path {
        cookie.extend_from_slice(b"; Path=");
        push_path(&mut cookie, b"", prefix, base);
    }
    for byte in &mut cookie {
        if matches!(byte, b'\r' | b'\n' | 0) {
            *byte = b' ';
        }
    }
    cookie
}

/// A path within the base keeps its rest; all others (a parent of the base, another place on the host,
/// none at all) become the prefix, the narrowest place that the route's callers use.
fn push_path(cookie: &mut Vec<u8>, path: &[u8], prefix: &[u8], base: &[u8]) {
    let rest = match path.strip_prefix(base) {
        // `/prefix/` would not match a request for `/prefix`.
        Some(b"" | b"/") | None => b"",
        Some(rest) if rest.starts_with(b"/") => rest,
        Some(_) => b"",
    };
    cookie.extend_from_slice(prefix);
    cookie.extend_from_slice(if prefix.is_empty() && rest.is_empty() { b"/" } else { rest });
}

#[cfg(test)]
mod tests;
