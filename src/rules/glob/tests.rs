use std::time::Instant;

use proptest::prelude::*;

use super::{Loose, allows, denies, glob_matches, reads_one_way};
use crate::{
    config::model::GlobSegment,
    rules::testing::{glob_segments, rule},
};

fn matches(glob: &str, path: &str) -> bool {
    glob_matches(&glob_segments(glob), path.as_bytes())
}

#[test]
fn globs_cover_what_they_say() {
    for (glob, covered, not_covered) in [
        ("/", &["", "/"][..], &["/a", "//"][..]),
        ("/a", &["/a"], &["", "/", "/a/", "/a/b", "/A", "/ab", "/b"]),
        ("/a/", &["/a/"], &["/a", "/a/b"]),
        ("/*", &["/a", "/a.b;c=d"], &["", "/", "/a/", "/a/b"]),
        ("/**", &["", "/", "/a", "/a/", "/a/b/c", "//"], &[]),
        ("/v1/**", &["/v1", "/v1/", "/v1/a", "/v1/a/b"], &["/", "/v2/a", "/v1a"]),
        (
            "/v1/*/invoices/search",
            &["/v1/T/invoices/search"],
            &["/v1/invoices/search", "/v1/a/b/invoices/search", "/v1//invoices/search"],
        ),
        ("/**/b", &["/b", "/a/b", "/a/a/b", "/b/b"], &["/", "/b/a", "/ab"]),
        ("/a/**/b", &["/a/b", "/a/x/b", "/a/x/y/b", "/a/b/b"], &["/a", "/b", "/a/b/c"]),
        ("/**/a/**/b/**", &["/a/b", "/x/a/y/b/z", "/a/a/b/b"], &["/b/a", "/a", "/b"]),
        ("/**/**", &["", "/a", "/a/b"], &[]),
        ("/a*b", &["/ab", "/axb", "/aab", "/abb"], &["/a", "/b", "/aba", "/a/b"]),
        ("/a*", &["/a", "/ab"], &["/", "/ba", "/a/b"]),
        ("/*.json", &["/.json", "/a.json"], &["/a.jsonx", "/json"]),
        ("/a*b*c", &["/abc", "/axbxc", "/abbcc"], &["/acb", "/ab", "/ac"]),
        ("/*ab*ab*", &["/abab", "/xabxabx"], &["/ab", "/aab"]),
        ("/aa*aa", &["/aaaa", "/aaxaa"], &["/aaa", "/aa"]),
        ("/**x", &["/x", "/ax"], &["/a/x"]),
        ("/é*", &["/é", "/éa"], &["/e"]),
    ] {
        for path in covered {
            assert!(matches(glob, path), "{glob} should cover {path:?}");
        }
        for path in not_covered {
            assert!(!matches(glob, path), "{glob} should not cover {path:?}");
        }
    }
}

#[test]
fn a_glob_slash_may_also_come_as_one_empty_segment() {
    let root = [GlobSegment::Parts(vec![String::new()])];
    assert!(glob_matches(&root, b"/") && glob_matches(&root, b"") && !glob_matches(&root, b"/a"));
}

#[test]
fn a_rule_for_get_covers_head_and_no_other_rule_does() {
    let allowed = |text: &str, method: &str| allows(&rule(text), method, b"/a");
    assert!(allowed("GET /**", "GET") && allowed("GET /**", "HEAD"));
    assert!(allowed("HEAD /**", "HEAD") && !allowed("HEAD /**", "GET"));
    assert!(!allowed("POST /**", "HEAD"));
    assert!(allowed("GET,POST /**", "POST") && !allowed("GET,POST /**", "PUT"));
    assert!(allowed("* /**", "PURGE"));
    // Methods are case-sensitive: `get` is not what the operator allowed …
    assert!(!allowed("GET /**", "get"));
}

#[test]
fn a_deny_rule_covers_every_way_in_which_an_upstream_might_read_the_request() {
    let denied = |text: &str, method: &str, path: &str| {
        denies(&rule(text), method, path.as_bytes(), &Loose::of(path.as_bytes()))
    };
    // … but `delete` may well be what he denied.
    assert!(denied("DELETE /**", "delete", "/a") && denied("GET /**", "head", "/a"));
    for path in ["/admin", "/admin/", "/admin;x", "/admin;x/", "//admin", "/;x/admin", "/admin//", "/%61dmin"] {
        assert!(denied("* /admin", "GET", path), "{path}");
    }
    for path in ["/admin/x", "/admin;y/x", "//admin//x", "/%2561dmin/x/"] {
        assert!(denied("* /admin/**", "GET", path), "{path}");
        assert!(denied("* /*/x", "GET", path), "{path}");
    }
    assert!(denied("* /a/", "GET", "/a/"), "the exact reading counts as well");
    assert!(denied("* /a;b", "GET", "/a;b"));
    assert!(!denied("* /admin", "GET", "/Admin") && !denied("* /admin", "GET", "/administrator"));
}

#[test]
fn a_plain_path_has_no_second_reading() {
    for path in ["", "/", "/a", "/a/b.c"] {
        assert_eq!(Loose::of(path.as_bytes()), Loose(None));
    }
    assert_eq!(Loose::of(b"/a;x//b/").reading(b""), b"/a/b");
}

#[test]
fn a_pathological_glob_costs_no_exponential_time() {
    let started = Instant::now();
    let depths = glob_segments(&format!("/{}x", "**/a/".repeat(30)));
    assert!(!glob_matches(&depths, "/a".repeat(2_000).as_bytes()));
    let stars = glob_segments(&format!("/{}b", "a*".repeat(30)));
    assert!(!glob_matches(&stars, format!("/{}", "a".repeat(10_000)).as_bytes()));
    // Exponential would be years; this bound only has to be far from both.
    assert!(started.elapsed().as_secs() < 20);
}

fn naive(glob: &[GlobSegment], path: &[&str]) -> bool {
    match (glob, path) {
        ([], []) => true,
        ([GlobSegment::AnyDepth, later @ ..], _) => {
            naive(later, path) || path.split_first().is_some_and(|(_, path)| naive(glob, path))
        }
        ([GlobSegment::Parts(parts), later @ ..], [segment, path @ ..]) => {
            let pattern = parts.join("*");
            let whole_star = !pattern.is_empty() && pattern.bytes().all(|byte| byte == b'*');
            naive_text(pattern.as_bytes(), segment.as_bytes())
                && !(whole_star && segment.is_empty())
                && naive(later, path)
        }
        _ => false,
    }
}

fn naive_text(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', later @ ..], _) => {
            naive_text(later, text) || text.split_first().is_some_and(|(_, text)| naive_text(pattern, text))
        }
        ([wanted, pattern @ ..], [byte, text @ ..]) => wanted == byte && naive_text(pattern, text),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn matching_agrees_with_trying_everything(
        glob in "/((\\*\\*|[ab*]{1,4})(/(\\*\\*|[ab*]{1,4})){0,4})?",
        path in "/([ab]{0,3}(/[ab]{0,3}){0,5})?",
    ) {
        let segments: Vec<_> = match &path[1..] {
            "" => Vec::new(),
            rest => rest.split('/').collect(),
        };
        let glob = glob_segments(&glob);
        prop_assert_eq!(glob_matches(&glob, path.as_bytes()), naive(&glob, &segments));
    }

    #[test]
    fn a_path_reads_one_way_where_its_loose_reading_is_the_same(path in "(/|[ab;%]|%61){0,16}") {
        let path = path.as_bytes();
        let odd = path.contains(&b';') || path.contains(&b'%') || path.windows(2).any(|pair| pair == b"//");
        let trails = path.len() > 1 && path.ends_with(b"/");
        prop_assert_eq!(reads_one_way(path), !(odd || trails));
    }
}
