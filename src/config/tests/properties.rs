//! Whatever stands in the file: no panic, and no pasted secret in any diagnostic.

use proptest::prelude::*;

use super::*;

/// Pieces from which files are made that are nearly right.
const PIECES: &[&str] = &[
    "[server]",
    "[credentials.a]",
    "[credentials]",
    "[[routes]]",
    "[callers.b]",
    "[log]",
    "\n",
    " = ",
    "\"",
    "'",
    "\"\"\"",
    "[",
    "]",
    "{",
    "}",
    ",",
    ".",
    "listen",
    "client_id",
    "client_secret",
    "token_url",
    "provider",
    "\"ipxo\"",
    "prefix",
    "\"/a\"",
    "upstream",
    "\"https://e.com/x\"",
    "credential",
    "\"a\"",
    "env",
    "\"SECRET\"",
    "allow",
    "[\"GET /**\"]",
    "5",
    "-1",
    "0x",
    "1e9",
    "true",
    "1979-05-27",
    "${",
    "}",
    "${ID}",
    "$${",
    ":-",
    "é",
    "\u{1}",
    "\\u0000",
    "#",
    "\t",
    "\r\n",
    "api_key",
    "sha256",
    "timeout",
    "\"10s\"",
    "scopes",
    "inject",
    "\"A: {token}\"",
    "{token}",
    "params",
    "headers",
    "%",
    "%2e",
    "..",
    "//",
    "?",
    "*",
];

fn nearly_toml() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES), 0..60).prop_map(|pieces| pieces.concat())
}

fn check(text: &str) -> String {
    match parse(text, &env) {
        Ok((config, warnings)) => format!("{}{warnings:?}", config.routes.len()),
        Err(problems) => {
            assert!(problems.0.iter().any(|d| d.severity == Severity::Error));
            let json: String = problems.0.iter().map(|d| d.to_json().to_string()).collect();
            format!("{problems}{json}")
        }
    }
}

proptest! {
    #[test]
    fn any_text_gives_a_configuration_or_problems(text in ".{0,200}") {
        check(&text);
    }

    #[test]
    fn nearly_right_text_gives_a_configuration_or_problems(text in nearly_toml()) {
        check(&text);
    }

    #[test]
    fn a_damaged_file_gives_a_configuration_or_problems(
        cut in 0_usize..300, length in 0_usize..40, piece in prop::sample::select(PIECES),
    ) {
        let mut text: Vec<char> = BASE.chars().collect();
        let cut = cut.min(text.len());
        let end = (cut + length).min(text.len());
        text.splice(cut..end, piece.chars());
        check(&text.into_iter().collect::<String>());
    }

    #[test]
    fn damage_around_a_pasted_secret_does_not_bring_it_to_light(
        before in nearly_toml(), after in nearly_toml(), quote in prop::sample::select(&["\"", "'", "", "\"\"\""][..]),
    ) {
        let text = format!("{before}\nclient_secret = {quote}hunter2{quote}{after}\n{BASE}");
        let shown = check(&text);
        prop_assert!(!shown.contains("hunter2"), "{text}\n=====\n{shown}");
    }
}
