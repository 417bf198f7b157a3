//! `docs/configuration.md` against the reader: every key of every section, and no other.

use std::collections::BTreeSet;

use crate::config::{
    not_built,
    schema::{SECTIONS, learned},
};

const PAGE: &str = include_str!("../../../docs/configuration.md");

/// The keys that the page names in a section: those that work, and those that are not built.
fn documented(heading: &str) -> (BTreeSet<&'static str>, BTreeSet<&'static str>) {
    let (_, section) = PAGE.split_once(&format!("\n{heading}\n")).expect("the page has every section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let (not_built, working): (Vec<_>, Vec<_>) = rows.partition(|(_, rest)| rest.trim() == "| not built yet |");
    let keys = |rows: Vec<(&'static str, _)>| rows.into_iter().map(|(key, _)| key).collect();
    (keys(working), keys(not_built))
}

#[test]
fn every_key_stands_on_its_page_and_no_other() {
    let asked = learned();
    for (heading, section) in SECTIONS {
        let read: BTreeSet<&str> = asked.keys().filter(|(s, _)| *s == section).map(|(_, key)| *key).collect();
        let (working, planned) = documented(heading);
        assert_eq!(working, read, "{heading}: left is the page, right is the reader");
        let refused: BTreeSet<&str> = not_built::keys(section).collect();
        assert_eq!(planned, refused, "{heading}: left is the page, right is not_built.rs");
    }
}
