use proptest::prelude::*;

use super::{Match, Table};
use crate::rules::path::CanonicalPath;

fn found<'a>(prefixes: &[&'a str], target: &str) -> Option<&'a str> {
    let path = CanonicalPath::parse(target.as_bytes()).expect("a legal target");
    Table::new(prefixes).lookup(&path).map(|found| prefixes[found.index])
}

#[test]
fn the_longest_prefix_wins_in_whatever_order_they_stand() {
    for prefixes in [["/ipxo", "/ipxo/billing", "/ipxo/billing/v1"], ["/ipxo/billing/v1", "/ipxo/billing", "/ipxo"]] {
        assert_eq!(found(&prefixes, "/ipxo/billing/v1/x"), Some("/ipxo/billing/v1"));
        assert_eq!(found(&prefixes, "/ipxo/billing/v2"), Some("/ipxo/billing"));
        assert_eq!(found(&prefixes, "/ipxo/dns"), Some("/ipxo"));
        assert_eq!(found(&prefixes, "/other"), None);
    }
}

#[test]
fn a_prefix_ends_only_at_a_segment_boundary() {
    let prefixes = ["/ipxo"];
    for target in ["/ipxo", "/ipxo/", "/ipxo?x", "/ipxo/x", "/ipxo//x", "/%69pxo", "/ipx%6f/x"] {
        assert_eq!(found(&prefixes, target), Some("/ipxo"), "{target}");
    }
    for target in ["/ipxoo", "/ipxo;x", "/ipxo;x/y", "/ipx", "/IPXO", "/", "//ipxo", "/a/ipxo", "/ipxo%20", "/ipxo%3f"]
    {
        assert_eq!(found(&prefixes, target), None, "{target}");
    }
}

#[test]
fn the_empty_prefix_takes_what_no_other_takes() {
    assert_eq!(found(&["", "/a"], "/"), Some(""));
    assert_eq!(found(&["", "/a"], "/ab"), Some(""));
    assert_eq!(found(&["", "/a"], "//"), Some(""));
    assert_eq!(found(&["", "/a"], "/a/b"), Some("/a"));
    assert_eq!(found(&[], "/a/b"), None);
}

#[test]
fn a_prefix_and_a_path_are_compared_decoded() {
    assert_eq!(found(&["/a%20b"], "/a%20b/c"), Some("/a%20b"));
    assert_eq!(found(&["/a b"], "/a%20b/c"), Some("/a b"));
    assert_eq!(found(&["/münchen"], "/m%C3%BCnchen"), Some("/münchen"));
}

#[test]
fn the_rest_is_empty_or_begins_with_a_slash_in_both_forms() {
    let table = Table::new(&["/ipxo/billing"]);
    let lookup = |target: &'static str| {
        let path = CanonicalPath::parse(target.as_bytes()).unwrap();
        let Match { rest_raw_offset, rest_decoded_offset, .. } = table.lookup(&path).unwrap();
        (path.rest(rest_raw_offset), path.decoded()[rest_decoded_offset..].to_vec())
    };
    assert_eq!(lookup("/ipxo/billing"), (&b""[..], b"".to_vec()));
    assert_eq!(lookup("/ipxo/billing?"), (&b"?"[..], b"".to_vec()));
    assert_eq!(lookup("/%69pxo/%62illing/v1/%61?%20"), (&b"/v1/%61?%20"[..], b"/v1/a".to_vec()));
}

#[test]
fn ten_thousand_routes_are_all_found() {
    let prefixes: Vec<_> = (0..10_000).map(|number| format!("/tenant-{number}/api")).collect();
    let table = Table::new(&prefixes);
    for (number, prefix) in prefixes.iter().enumerate() {
        assert_eq!(table.longest_prefix(format!("{prefix}/v1/x").as_bytes()), Some((number, prefix.len())));
    }
    assert_eq!(table.longest_prefix(b"/tenant-10000/api"), None);
}

fn naive(prefixes: &[String], path: &[u8]) -> Option<(usize, usize)> {
    let below = |prefix: &str| {
        path.strip_prefix(prefix.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    let mut best: Option<usize> = None;
    for (index, prefix) in prefixes.iter().enumerate() {
        if below(prefix) && best.is_none_or(|best| prefixes[best].len() < prefix.len()) {
            best = Some(index);
        }
    }
    best.map(|index| (index, prefixes[index].len()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_lookup_agrees_with_trying_every_prefix(
        prefixes in prop::collection::vec("(/[ab]{1,2}){0,4}", 0..12),
        path in "/[ab/]{0,12}",
    ) {
        prop_assert_eq!(Table::new(&prefixes).longest_prefix(path.as_bytes()), naive(&prefixes, path.as_bytes()));
    }
}
