//! The file itself: its sections and its syntax; and how problems are shown.

use super::*;

#[test]
fn what_is_still_to_come_is_refused_by_name() {
    let found = bad_with(
        r#"[log]
format = "xml"
audit = "stderr"
[telemetry]
otlp = "http://127.0.0.1:4317"
"#,
    );
    let expected = [
        r#"2:10 `format` in [log] can't be `xml` (use one of "text", "json")"#,
        r#"3:9 `audit` (other than "off") in [log] is not built yet in this version"#,
        "5:1 `otlp` in [telemetry] is not built yet in this version",
    ];
    assert_eq!(found, expected);
}

#[test]
fn an_unknown_section_is_a_typo() {
    let found = bad_with(
        r"[sevrer]
listen = 1
[admni]
",
    );
    let expected = [
        "1:2 unknown key `sevrer` in the file (did you mean `server`?)",
        "3:2 unknown key `admni` in the file (did you mean `admin`?)",
    ];
    assert_eq!(found, expected);
}

#[test]
fn sections_of_the_wrong_type_are_told() {
    let found = bad(r#"credentials = 1
routes = 2
callers = 3
server = "x"
"#);
    let expected = [
        "1:15 `credentials` in the file must be tables, not an integer",
        "2:10 `routes` must be a list of tables (start each with a line [[routes]])",
        "3:11 `callers` in the file must be tables, not an integer",
        "4:10 `server` in the file must be a table, not a string",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_credential_without_its_name_is_told() {
    let found = bad(r#"[credentials]
client_id = "x"
"#);
    let expected = [
        "2:1 `client_id` in [credentials] must be a table ([credentials] holds tables, one for each name: [credentials.NAME])",
    ];
    assert_eq!(found, expected);
}

#[test]
fn syntax_errors_come_together_with_what_is_certain_beside_them() {
    let found = bad(r#"[server]
listen = 127.0.0.1:8080
workrs = 3
[credentials.acme]
client_secret = hunter2
client_id = "a
client_id = "b"
"#);
    let expected = [
        r#"2:15 not TOML: invalid float, expected nothing (text stands in quotes: key = "value")"#,
        "3:1 unknown key `workrs` in [server] (did you mean `workers`?)",
        r#"5:17 not TOML: string values must be quoted, expected literal string (text stands in quotes: key = "value")"#,
        r#"6:15 not TOML: invalid basic string, expected `"`"#,
        "7:1 not TOML: duplicate key",
    ];
    assert_eq!(found, expected);
}

#[test]
fn nothing_behind_an_open_bracket_is_believed() {
    let found = bad(r#"[server]
workrs = 3
allowed_hosts = ["a", "b"
[credentials.acme]
client_idd = "x"
"#);
    let expected = [
        "2:1 unknown key `workrs` in [server] (did you mean `workers`?)",
        "4:1 not TOML: missing comma between array elements, expected `,`",
    ];
    assert_eq!(found, expected);
}

#[test]
fn problems_are_shown_with_their_place_their_line_and_a_hint() {
    let text = "[credentials.acme]\nprovider = \"ipxo\"\nclient_id = \"a\"\nclient_secert = \"hunter2\"\n\n[[routes]]\nprefix = \"/a\"\napi = \"dns\"\ncredential = \"acme\"\n\n[[routes]]\nprefix = \"/a/\"\napi = \"dns\"\ncredential = \"acme\"\n";
    let expected = r#"error: [credentials.acme] has no `client_secret`
 --> proxy.toml:1:14
  |
1 | [credentials.acme]
  |              ^^^^
  hint: client_secret = { env = "NAME" }, { file = "…" } or { command = ["…"] }

error: unknown key `client_secert` in [credentials.acme]
 --> proxy.toml:4:1
  |
4 | client_secert = ****
  | ^^^^^^^^^^^^^
  hint: did you mean `client_secret`?

error: two routes have the prefix `/a`
  --> proxy.toml:12:10
   |
12 | prefix = "/a/"
   |          ^^^^^
  ::: proxy.toml:7:10
   |
 7 | prefix = "/a"
   |          ^^^^ the first
3 problems"#;
    let shown = parse(text, &env).unwrap_err().to_string();
    assert_eq!(shown.replace("\n\n3 problems", "\n3 problems"), expected);
}

#[test]
fn a_problem_as_json_has_the_same_parts() {
    let Problems(list) = parse("[[routes]]\nprefx = \"/a\"\n", &env).unwrap_err();
    let unknown = list.iter().find(|d| d.message.starts_with("unknown")).unwrap();
    let expected = serde_json::json!({
        "severity": "error",
        "file": "proxy.toml",
        "line": 2,
        "column": 1,
        "source": "prefx = ****",
        "message": "unknown key `prefx` in [[routes]]",
        "hint": "did you mean `prefix`?",
    });
    assert_eq!(unknown.to_json(), expected);
}

#[test]
fn a_long_or_odd_line_is_clipped_around_its_mark() {
    let many = vec!["\"y\""; 200].join(", ");
    let text = format!("[server]\nallowed_hosts = [\"é\\u0000\",\t{many}, \"a b\", {many}]\n{BASE}");
    let Problems(list) = parse(&text, &env).unwrap_err();
    let place = list.iter().find(|d| d.message.contains("legal DNS name")).and_then(|d| d.place.clone()).unwrap();
    assert!(place.source.chars().count() <= 162, "{place:?}");
    let marked: String = place.source.chars().skip(place.mark).take(place.width).collect();
    assert_eq!(marked, "\"a b\"");
    assert_eq!(place.line, 2);
}
