//! Keeps `README.md` true: whatever it names exists, and no story is missing.

use std::{collections::BTreeSet, fs, path::Path};

const TEXT: &str = include_str!("README.md");

/// Every `FILE` NAME of the tables.
fn named() -> Vec<(&'static str, &'static str)> {
    let rows = TEXT.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| rule "));
    let mut all = Vec::new();
    for row in rows {
        let (_, shown) = row.trim_end_matches(" |").rsplit_once(" | ").expect("two columns");
        for entry in shown.split("<br>") {
            let (file, name) = entry.strip_prefix('`').and_then(|rest| rest.split_once("` ")).expect("`FILE` NAME");
            all.push((file, name));
        }
    }
    all
}

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn path_of(file: &str) -> String {
    match file {
        _ if file.starts_with("it/") => format!("tests/{file}"),
        _ if file.starts_with("src/") => file.to_owned(),
        "replies.toml" | "requests.toml" => format!("tests/token_engine/{file}"),
        _ if is_toml(file) => format!("tests/token_engine/cases/{file}"),
        _ => format!("tests/token_engine/{file}"),
    }
}

/// Stories and rows; what is no TOML is a file of test functions.
fn is_toml(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|extension| extension == "toml")
}

fn names_of(text: &str) -> BTreeSet<String> {
    let table: toml::Table = toml::from_str(text).expect("legal TOML");
    let rows = table.values().filter_map(toml::Value::as_array).flatten();
    rows.filter_map(|row| Some(row.get("name")?.as_str()?.to_owned())).collect()
}

#[test]
fn every_test_that_the_readme_names_exists() {
    let all = named();
    assert!(all.len() > 150, "only {} were found", all.len());
    let missing: Vec<String> = all
        .iter()
        .filter(|(file, name)| {
            let text = read(path_of(file));
            !if is_toml(file) { names_of(&text).contains(*name) } else { text.contains(&format!("fn {name}(")) }
        })
        .map(|(file, name)| format!("{file}: {name}"))
        .collect();
    assert!(missing.is_empty(), "\n{}\n", missing.join("\n"));
}

#[test]
fn every_story_stands_in_the_readme() {
    let named: BTreeSet<String> = named().into_iter().map(|(_, name)| name.to_owned()).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/token_engine/cases");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let stories =
        files.filter(|path| path.extension().is_some_and(|e| e == "toml")).flat_map(|path| names_of(&read(path)));
    let missing: Vec<String> = stories.filter(|story| !named.contains(story)).collect();
    assert!(missing.is_empty(), "\n{}\n", missing.join("\n"));
}
