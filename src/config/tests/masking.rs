//! A secret that somebody pasted into the file is in no diagnostic, wherever it was pasted.

use super::*;

const PASTED: &str = "hunter2-pasted";
/// Looks generated: hidden even where no key tells.
const GENERATED: &str = "q7Wc1kZ0mB93xLrT5vYd8nHs";

fn shown(text: &str) -> String {
    match parse(text, &env) {
        Ok((_, warnings)) => warnings.iter().flat_map(|w| [w.to_string(), w.0.to_json().to_string()]).collect(),
        Err(problems) => {
            let json: String = problems.0.iter().map(|d| d.to_json().to_string()).collect();
            format!("{problems}\n{json}")
        }
    }
}

#[test]
fn a_pasted_secret_is_never_echoed() {
    let credential =
        |lines: &str| format!("[credentials.acme]\nclient_id = \"a\"\ntoken_url = \"https://e.com/t\"\n{lines}\n");
    let lines = [
        "client_secret = \"SECRET\"",
        "client_secret = 'SECRET'",
        "client_secret = \"\"\"\nSECRET\n\"\"\"",
        "client_secret = SECRET",
        "client_secret = \"SECRET",
        "client_secret : \"SECRET\"",
        "client_secret \"SECRET\"",
        "client_secret = [\"SECRET\", 5]",
        "client_secret = [\n  \"SECRET\",\n  5\n]",
        "client_secret = [\n  \"SECRET\n  5\n]",
        "client_secret = { env = \"SECRET\" }",
        "client_secret = { env = 5, x = \"SECRET\" }",
        "client_secret = { value = \"SECRET\" }",
        "client_secret = { env = \"NOPE\" } # \"SECRET\" = 5 \u{1}",
        "client_secret.plain = \"SECRET\"",
        "client_secert = \"SECRET\"",
        "clientSecret = \"SECRET\"",
        "password = \"SECRET\"",
        "api_key = \"SECRET\"",
        "refresh_token = \"SECRET\"",
        "whatever = \"SECRET\"",
        "whatever = { deep = [\"SECRET\"] }",
        "params = { password = \"SECRET\" }",
        "params = { pin = { value = \"SECRET\" } }",
        "headers = { authorization = \"Bearer SECRET\" }",
        "client_secret = \"SECRET\"\nclient_secret = \"SECRET\"",
        "proxy = \"http://user:SECRET@proxy:3128\"",
        "ca_file = \"https://user:SECRET@proxy:3128\"",
        "x = SECRET client_secret",
    ];
    for line in lines {
        let text = credential(&line.replace("SECRET", PASTED));
        let shown = shown(&text);
        assert!(!shown.is_empty(), "no diagnostic at all: {line}");
        assert!(!shown.contains("hunter2"), "{line}\n{shown}");
    }
}

#[test]
fn a_pasted_secret_in_a_url_is_never_echoed() {
    for line in [
        "token_url = \"https://user:hunter2-pasted@e.com/t\"",
        "token_url = \"ftp://e.com/t?client_secret=hunter2-pasted\"",
        "token_url = \"ftp://e.com/t?a=b&api_key=hunter2-pasted\"",
        "token_url = 'ftp://hunter2-pasted@e.com/t",
    ] {
        let shown = shown(&format!("[credentials.acme]\n{line}\n"));
        assert!(!shown.contains("hunter2"), "{line}\n{shown}");
    }
    for line in [
        "egress_proxy = \"http://user:hunter2-pasted@proxy:3128\"",
        "egress_proxy = \"hunter2-pasted:3128\"",
        "ca_file = \"https://user:hunter2-pasted@proxy\"",
    ] {
        let shown = shown(&format!("{BASE}{line}\n"));
        assert!(shown.contains("****") && !shown.contains("hunter2"), "{line}\n{shown}");
    }
}

#[test]
fn a_value_that_looks_generated_is_never_echoed() {
    for line in [
        "client_auth = \"GENERATED\"",
        "timeout = \"GENERATED\"",
        "scopes = \"GENERATED\"",
        "body = \"GENERATED\"",
        "provider = \"GENERATED\"",
        "local_address = \"GENERATED\"",
        "client_secret = { env = \"GENERATED\" }",
        "client_secret = { file = \"GENERATED\" }",
        "client_secret = { command = \"GENERATED\", x = 1 }",
        "headers = { \"content-type\" = \"GENERATED\" }",
    ] {
        let shown =
            shown(&format!("[credentials.acme]\nclient_id = \"a\"\n{}\n", line.replace("GENERATED", GENERATED)));
        assert!(!shown.contains(GENERATED), "{line}\n{shown}");
    }
}

#[test]
fn the_value_of_a_variable_is_never_echoed() {
    let secretive = |name: &str| (name == "V").then(|| "hunter2 pasted".to_owned());
    for line in [
        "[server]\nlisten = \"${V}\"",
        "[server]\nidle_timeout = \"${V}\"",
        "[server]\nworkers = \"${V}\"",
        "[server]\nallowed_hosts = [\"${V}\"]",
        "[credentials.a]\nclient_auth = \"${V}\"\nprovider = \"${V}\"\ntoken_url = \"${V}\"",
        "[callers.a]\ncidr = [\"${V}\"]\nallow = [\"${V}\"]\nroutes = [\"${V}\"]",
        "[[routes]]\nprefix = \"${V}\"\nupstream = \"${V}\"\ncredential = \"${V}\"\ninject = \"${V}\"\ncallers = [\"${V}\"]\napi = \"${V}\"",
        "[log]\nformat = \"${V}\"\naccess = \"${V}\"\n[tokens]\nstore = \"${V}\"\n[admin]\nlisten = \"${V}\"",
    ] {
        let problems = parse(line, &secretive).expect_err(line).to_string();
        assert!(!problems.contains("hunter2"), "{line}\n{problems}");
    }
}

#[test]
fn what_is_no_secret_is_shown() {
    let text = "[credentials.acme]\nclient_id = 5\nclient_secret = { env = \"NOT_SET\" }\nsecret_param = 7\ntoken_url = \"http://e.com/t\"\n";
    let shown = shown(text);
    for part in
        ["client_id = 5", "client_secret = { env = \"NOT_SET\" }", "secret_param = 7", "token_url = \"http://e.com/t\""]
    {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
}

#[test]
fn the_header_of_an_unknown_section_is_shown_and_what_stands_in_it_is_not() {
    for (text, header) in [
        ("[foo]\nbar = \"hunter2-pasted\"\n", "1 | [foo]"),
        ("[[foo]]\nbar = [\"hunter2-pasted\"]\n", "1 | [[foo]]"),
        ("[server.foo]\nbar = \"hunter2-pasted\"\n", "1 | [server.foo]"),
        ("foo = { hunter2-pasted = 1 }\n", "1 | foo = ****"),
        ("foo.bar = \"hunter2-pasted\"\n", "1 | foo.bar = ****"),
    ] {
        let shown = shown(text);
        assert!(shown.contains(header) && !shown.contains("hunter2"), "{text}\n{shown}");
    }
}
