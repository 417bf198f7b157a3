use super::{Reference, without_dot_segments};
use crate::config::model::Scheme;

#[test]
fn references_are_taken_apart() {
    let parsed = Reference::parse(b"HTTPS://API.example:8443/a/b?c=/d#e").expect("a reference");
    assert_eq!(parsed.scheme, Some(Scheme::Https));
    assert_eq!(parsed.authority, Some((&b"API.example"[..], Some(8443))));
    assert_eq!((&*parsed.path, parsed.tail), (&b"/a/b"[..], &b"?c=/d#e"[..]));
    let parsed = Reference::parse(b"//[::1]").expect("a reference");
    assert_eq!((parsed.scheme, parsed.authority, &*parsed.path), (None, Some((&b"::1"[..], None)), &b""[..]));
    let parsed = Reference::parse(b"/a").expect("a reference");
    assert_eq!((parsed.scheme, parsed.authority, &*parsed.path), (None, None, &b"/a"[..]));
    assert_eq!(Reference::parse(b"http://h:/x").expect("a reference").authority, Some((&b"h"[..], None)));
    assert_eq!(Reference::parse(b"http://h?x").expect("a reference").tail, b"?x");
}

#[test]
fn what_two_parsers_might_read_as_two_hosts_is_left_alone() {
    for value in [
        "",
        "a",
        "../a",
        "?q",
        "#f",
        "https:/h/x",
        "https:h",
        "https:",
        "ftp://h/x",
        "javascript:x",
        "httpsx://h/",
        "https://",
        "///x",
        "https:///x",
        "https://u@h/",
        "https://h@evil/",
        "https://h\\@evil/",
        "/\\evil",
        "\\\\evil",
        "https://h%2e/",
        "https://h x/",
        "https://h:x/",
        "https://h:-1/",
        "https://h:99999/",
        "https://[::1",
        "https://[::1]x/",
        "/a\r\nb",
        "/a\tb",
        " /a",
        "/a?b\0",
    ] {
        assert_eq!(Reference::parse(value.as_bytes()), None, "{value:?}");
    }
}

#[test]
fn dot_segments_are_resolved_as_a_client_would() {
    for (path, resolved) in [
        ("", ""),
        ("/", "/"),
        ("/a/b/", "/a/b/"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/b/.", "/a/b/"),
        ("/../../a", "/a"),
        ("/..", "/"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/.%2e/b/%2e", "/b/"),
        ("/a//../b", "/a/b"),
        ("/a/.../b", "/a/.../b"),
        ("/a/..b/.c", "/a/..b/.c"),
    ] {
        assert_eq!(&*without_dot_segments(path.as_bytes()), resolved.as_bytes(), "{path}");
    }
}
