//! The arrows of `ARCHITECTURE.md`, checked on the source text.
//!
//! Every path in `src/` (`use` trees, nested groups, `super::`, paths in expressions) is read by a small
//! tokenizer and held against the rules below: which module may name which, and what a pure or a
//! lock-free module must never touch. Test code (`#[cfg(test)]`) is exempt.

#[path = "architecture/paths.rs"]
mod paths;
#[path = "architecture/rules.rs"]
mod rules;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use paths::SourceFile;
use rules::{Violation, circles, judge};

/// Every `.rs` file below `src/` as (path below `src/`, text), in order.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut pending = vec![root.clone()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).expect("src/ is readable") {
            let path: PathBuf = entry.expect("an entry").path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(&root).expect("below src/").to_string_lossy().replace('\\', "/");
                found.push((name, fs::read_to_string(&path).expect("source is UTF-8")));
            }
        }
    }
    found.sort();
    found
}

/// All that is wrong with these files.
fn check(sources: &[(String, String)]) -> Vec<Violation> {
    let files: Vec<SourceFile> = sources.iter().map(|(name, text)| SourceFile::read(name, text)).collect();
    let test_files: BTreeSet<String> = files.iter().flat_map(|file| file.test_modules.iter().cloned()).collect();
    let is_test = |file: &&SourceFile| test_files.iter().any(|module| file.is_within(module));
    let judged: Vec<&SourceFile> = files.iter().filter(|file| !is_test(file)).collect();
    let mut violations: Vec<Violation> = judged.iter().flat_map(|file| judge(file)).collect();
    violations.extend(circles(&judged));
    violations
}

/// What [`check`] says about one file.
fn check_one(name: &str, text: &str) -> Vec<String> {
    check(&[(name.to_owned(), text.to_owned())]).iter().map(ToString::to_string).collect()
}

#[test]
fn every_arrow_points_down() {
    let sources = sources();
    assert!(sources.len() > 10, "src/ was not found");
    let violations: Vec<String> = check(&sources).iter().map(ToString::to_string).collect();
    assert!(violations.is_empty(), "{} broken:\n{}\n", violations.len(), violations.join("\n"));
}

#[test]
fn a_planted_violation_is_found_with_its_file_and_line() {
    let found = check_one("rules/path.rs", "//! Rules.\n\nuse crate::token::bearer::Reader;\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("src/rules/path.rs:3: `crate::token::bearer::Reader`: rules may use only"),
        "{found:?}"
    );
}

#[test]
fn every_way_to_write_a_path_is_seen() {
    for text in [
        "use crate::control::reload;",
        "use crate::{config::model::Config, control};",
        "use crate::{config::{model::{A, B}}, control::{self as c}};",
        "pub(crate) use crate::control::*;",
        "fn f() { crate::control::stop(); }",
        "fn f(x: &crate::control::X) {}",
        "use super::super::control::X;",
        "use super::{forward::F, super::control};",
        "fn f() { super::super::control::stop() }",
        "mod inner { use super::super::super::control::X; }",
        "macro_rules! m { () => { $crate::control::stop() } }",
        "fn f() { let lifetime: &'static str = \"x\"; crate :: control :: stop() }",
        "fn f() { let quote = '\"'; crate::control::stop(); let other = '\\''; }",
        "fn f() { let raw = r#\"\"quoted\" \"#; crate::control::stop(); }",
    ] {
        assert_eq!(check_one("proxy/forward.rs", text).len(), 1, "{text}");
    }
}

#[test]
fn what_only_looks_like_a_path_is_not_seen() {
    for text in [
        "// use crate::control::X;",
        "/* /* nested */ use crate::control::X; */",
        "/// See [`crate::control`].\nfn f() {}",
        "const A: &str = \"crate::control\";",
        "const A: &str = r##\"\"# crate::control\"##;",
        "const A: &[u8] = b\"\\\" crate::control\";",
        "#[cfg(test)]\nmod tests { use crate::control::X; fn f() { { } } }",
        "#[cfg(test)]\nuse crate::control::X;",
        "#[cfg(any(test, feature = \"x\"))]\n#[derive(Debug)]\nfn f(x: [u8; 2]) { crate::control::stop() }",
        "use super::forward::F;",
        "mod inner { use super::super::forward::F; }",
        "use crate::{config::model::{self, Config}, rules, snapshot::Reader, token::bearer, wire};",
    ] {
        assert_eq!(check_one("proxy/forward.rs", text), [""; 0], "{text}");
    }
}

#[test]
fn code_after_a_test_module_is_still_judged() {
    let text = "#[cfg(test)]\nmod tests { fn f() {} }\n\n#[cfg(not(test))]\nuse crate::control::X;\n";
    assert_eq!(check_one("proxy/forward.rs", text).len(), 1);
}

#[test]
fn a_file_that_is_a_test_module_is_exempt() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let parent = file("proxy/forward.rs", "#[cfg(test)]\nmod tests;");
    let child = file("proxy/forward/tests.rs", "use crate::control::X;");
    assert!(check(&[parent, child.clone()]).is_empty());
    assert_eq!(check(&[child]).len(), 1);
}

#[test]
fn each_module_has_its_own_limits() {
    for (name, text) in [
        ("proxy/a.rs", "use crate::token::endpoint::Endpoint;"),
        ("proxy/a.rs", "use crate::token::{self, bearer};"),
        ("proxy/a.rs", "use crate::token;"),
        ("proxy/a.rs", "use crate::config::resolve;"),
        ("proxy/a.rs", "use crate::config::Config;"),
        ("proxy/a.rs", "fn f() { tokio::spawn(async {}); }"),
        ("proxy/a.rs", "use tokio::task::spawn;"),
        ("proxy/a.rs", "use std::sync::{Arc, Mutex};"),
        ("proxy/a.rs", "use std::{sync::{self, RwLock}, fmt};"),
        ("proxy/a.rs", "use std::sync; fn f(x: sync::Mutex<u8>) {}"),
        ("proxy/a.rs", "use std::{fs, io};"),
        ("token/a.rs", "use crate::proxy::X;"),
        ("token/a.rs", "use crate::rules::X;"),
        ("token/a.rs", "use crate::config::resolve;"),
        ("token/state.rs", "fn f() { let now = std::time::Instant::now(); }"),
        ("token/grant.rs", "async fn f() {}"),
        ("rules/a.rs", "use crate::config::secret::Secret;"),
        ("rules/a.rs", "use tokio::time;"),
        ("rules/a.rs", "fn f() { SystemTime::now() }"),
        ("rules/a.rs", "use std::net::{IpAddr, TcpStream};"),
        ("wire/a.rs", "use crate::config::model::X;"),
        ("wire/a.rs", "async fn f() {}"),
        ("snapshot.rs", "use crate::proxy::X;"),
        ("snapshot.rs", "use crate::token::key;"),
        ("net/a.rs", "use crate::token::bearer;"),
        ("config/a.rs", "use crate::net::Connector;"),
        ("control/a.rs", "use crate::cli;"),
        ("newcomer/mod.rs", ""),
    ] {
        assert_eq!(check_one(name, text).len(), 1, "{name}: {text}: {:?}", check_one(name, text));
    }
    for (name, text) in [
        ("proxy/a.rs", "use tokio::task::spawn_local; fn f() { tokio::task::spawn_local(g()); }"),
        ("proxy/a.rs", "use std::sync::{Arc, atomic::AtomicU64}; use crate::{net::Connector, telemetry::Shard};"),
        ("token/a.rs", "use crate::{config::{model::Grant, secret::Secret}, net, telemetry}; use std::sync::Mutex;"),
        ("token/a.rs", "use super::endpoint::Endpoint; use crate::token::key;"),
        (
            "rules/a.rs",
            "use crate::{config::model::Rule, rules::path, wire::Span}; use std::{net::IpAddr, time::Duration};",
        ),
        ("snapshot.rs", "use crate::{config::model::Config, rules::table, token::bearer::Reader};"),
        ("control/mod.rs", "use crate::{config, proxy, snapshot, token}; use std::fs;"),
        ("cli/serve.rs", "use crate::control;"),
        ("main.rs", "fn main() { cupbearer::cli::run() }"),
    ] {
        assert_eq!(check_one(name, text), [""; 0], "{name}: {text}");
    }
}

#[test]
fn a_circle_on_one_floor_is_found() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let net = file("net/mod.rs", "use crate::sandbox::X;");
    let sandbox = file("sandbox/a.rs", "\nuse crate::net::Y;");
    let found: Vec<String> = check(&[net.clone(), sandbox]).iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("net → sandbox → net"), "{found:?}");
    assert!(check(&[net]).is_empty(), "one arrow is no circle");
}
