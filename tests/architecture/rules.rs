//! The floors, the arrows, and what some modules must never touch.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::paths::{Named, SourceFile};

/// Modules from the ground up. A module may use those on lower floors, and its neighbours as long as that
/// makes no circle; [`LIMITS`] takes more away from some.
const FLOORS: &[&[&str]] = &[
    &["config", "telemetry", "wire"],
    &["rules", "net", "sandbox"],
    &["token"],
    &["snapshot"],
    &["proxy"],
    &["control"],
    &["cli"],
];

/// The only paths of this crate, beside its own, that a module may use.
const LIMITS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("rules", &["config::model", "wire"]),
    ("token", &["config::model", "config::secret", "config::signing_key", "net", "telemetry"]),
    ("snapshot", &["config::model", "rules", "net", "telemetry", "token::bearer"]),
    ("proxy", &["snapshot", "rules", "wire", "net", "config::model", "token::bearer", "telemetry"]),
];

/// Pure modules: no I/O, no clock, no async. What is pure can be tested, fuzzed and explained offline.
const PURE: &[&str] = &[
    "rules",
    "wire",
    "net::names::message",
    "token::state",
    "token::grant",
    "token::reply",
    "token::key",
    "token::known",
    "token::claims",
    "token::clock",
    "token::consent",
    "token::curl",
    "token::lifetime",
    "token::metadata",
    "token::overlap",
    "token::pace",
    "token::params",
    "token::refusal",
];

/// What does I/O, reads a clock or waits; any run of these segments in a path.
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "hyper_util",
    "tracing",
    "std::fs",
    "std::process",
    "std::env",
    "std::thread",
    "io::stdin",
    "io::stdout",
    "io::stderr",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "Instant::now",
    "SystemTime::now",
    "sync::Mutex",
    "sync::RwLock",
];

/// What the data plane never does: block its core, lock, or hand work to another core.
const NEVER_IN_PROXY: &[&str] = &[
    "tokio::spawn",
    "task::spawn",
    "task::spawn_blocking",
    "sync::Mutex",
    "sync::RwLock",
    "parking_lot",
    "std::fs",
    "tokio::fs",
];

/// A broken rule, as a line for a person.
pub(crate) struct Violation {
    place: String,
    what: String,
    rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.what, self.rule)
    }
}

/// Every rule that one file breaks, at most one per path.
pub(crate) fn judge(file: &SourceFile) -> Vec<Violation> {
    let Some(own) = file.module.first() else {
        return Vec::new(); // lib.rs and main.rs stand on the roof
    };
    let place = |line: usize| format!("src/{}:{line}", file.name);
    let Some(floor) = floor_of(own) else {
        let rule = format!("has no floor: give it one in tests/architecture/rules.rs and {DOC}");
        return vec![Violation { place: place(1), what: format!("module `{own}`"), rule }];
    };
    let mut violations = Vec::new();
    for path in &file.paths {
        let rule = arrow(own, floor, path).or_else(|| never(&file.module, path));
        if let Some(rule) = rule {
            let what = format!("`{}`", path.segments.join("::"));
            violations.push(Violation { place: place(path.line), what, rule });
        }
    }
    if let Some(pure) = pure(&file.module) {
        for &line in &file.async_lines {
            let rule = format!("{pure} is pure: no I/O, no clock, no async ({DOC})");
            violations.push(Violation { place: place(line), what: "async".to_owned(), rule });
        }
    }
    violations
}

/// Circles between neighbours on one floor; arrows between floors cannot make one.
pub(crate) fn circles(files: &[&SourceFile]) -> Vec<Violation> {
    let mut arrows: BTreeMap<&str, BTreeMap<&str, String>> = BTreeMap::new();
    for file in files {
        let Some(own) = file.module.first() else { continue };
        for path in &file.paths {
            if let Some(used) = used_module(path).filter(|used| used != own && floor_of(used) == floor_of(own)) {
                let place = || format!("src/{}:{}", file.name, path.line);
                arrows.entry(own).or_default().entry(used).or_insert_with(place);
            }
        }
    }
    let mut found = BTreeMap::new();
    for &start in arrows.keys() {
        if let Some(circle) = circle_from(start, &arrows) {
            let members: BTreeSet<&str> = circle.iter().copied().collect();
            let place = arrows[circle[0]][circle[1]].clone();
            let rule = format!("no circle anywhere ({DOC})");
            found.entry(members).or_insert(Violation { place, what: circle.join(" → "), rule });
        }
    }
    found.into_values().collect()
}

const DOC: &str = "ARCHITECTURE.md, \"Arrows\"";

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// The module of this crate that a path leads into; `None` for other crates and for names of `lib.rs`.
fn used_module(path: &Named) -> Option<&str> {
    match path.segments.as_slice() {
        [root, module, ..] if root == "crate" && floor_of(module).is_some() => Some(module),
        _ => None,
    }
}

/// The rule that an arrow breaks.
fn arrow(own: &str, floor: usize, path: &Named) -> Option<String> {
    if path.segments[0] == "crate" && path.segments[1] == "*" {
        return Some("a glob over the whole crate hides its arrows".to_owned());
    }
    let used = used_module(path).filter(|used| *used != own)?;
    if let Some((_, allowed)) = LIMITS.iter().find(|(module, _)| *module == own) {
        let inside = &path.segments[1..];
        let may = allowed.iter().any(|allowed| starts_with(inside, allowed));
        let list = if allowed.is_empty() { "nothing of this crate".to_owned() } else { allowed.join(", ") };
        return (!may).then(|| format!("{own} may use only {list} ({DOC})"));
    }
    let up = floor_of(used).is_some_and(|used| used > floor);
    up.then(|| format!("{own} stands below {used}, and no arrow runs up ({DOC})"))
}

/// The rule that touching this path breaks, whoever provides it.
fn never(module: &[String], path: &Named) -> Option<String> {
    if path.segments[0] == "crate" {
        return None;
    }
    if let Some(pure) = pure(module)
        && touches(path, IMPURE)
    {
        return Some(format!("{pure} is pure: no I/O, no clock, no async ({DOC})"));
    }
    let in_proxy = module[0] == "proxy" && touches(path, NEVER_IN_PROXY);
    in_proxy.then(|| format!("proxy never locks, blocks, or leaves its core; spawn_local is fine ({DOC})"))
}

fn pure(module: &[String]) -> Option<&'static str> {
    PURE.iter().find(|pure| starts_with(module, pure)).copied()
}

fn starts_with(segments: &[String], prefix: &str) -> bool {
    let prefix: Vec<&str> = prefix.split("::").collect();
    segments.len() >= prefix.len() && segments.iter().zip(&prefix).all(|(segment, wanted)| segment == wanted)
}

/// Whether any of these runs of segments stands anywhere in the path.
fn touches(path: &Named, runs: &[&str]) -> bool {
    (0..path.segments.len()).any(|from| runs.iter().any(|run| starts_with(&path.segments[from..], run)))
}

/// The way from `start` back to itself, both ends included.
fn circle_from<'a>(start: &'a str, arrows: &BTreeMap<&'a str, BTreeMap<&'a str, String>>) -> Option<Vec<&'a str>> {
    let mut ways = vec![vec![start]];
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop() {
        for &next in arrows.get(way[way.len() - 1]).into_iter().flat_map(BTreeMap::keys) {
            let longer = [way.clone(), vec![next]].concat();
            if next == start {
                return Some(longer);
            }
            if seen.insert(next) {
                ways.push(longer);
            }
        }
    }
    None
}
