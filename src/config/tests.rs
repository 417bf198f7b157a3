//! Whole files in, configurations or exact diagnostics out.

use super::*;

/// A caller's key, a client's secret: nothing real.
fn env(name: &str) -> Option<String> {
    match name {
        "ID" => Some("my-client".to_owned()),
        "SECRET" => Some("not-a-secret\n".to_owned()),
        "KEY" => Some("not-a-secret-key-for-tests".to_owned()),
        _ => None,
    }
}

fn problems(text: &str) -> String {
    match parse(text, &env) {
        Ok(_) => "no problem".to_owned(),
        Err(problems) => problems.to_string(),
    }
}

const GOOD: &str = r#"
[credentials.acme]
provider = "ipxo"
client_id = "${ID}"
client_secret = { env = "SECRET" }

[[routes]]
prefix = "/ipxo/billing/"
api = "billing"
credential = "acme"
"#;

#[test]
fn a_short_file_becomes_a_whole_configuration() {
    let (config, warnings) = parse(GOOD, &env).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(warnings, []);
    let route = &config.routes[0];
    assert_eq!(route.prefix, "/ipxo/billing");
    assert_eq!(route.upstream.host, "apigw.ipxo.com");
    assert_eq!(route.upstream.base_path, "/billing");
    assert_eq!(route.token.scopes, ["billing"]);
    let credential = &config.credentials[0];
    assert_eq!(credential.client_id, "my-client");
    assert_eq!(credential.token_target, "/oauth2/token");
    assert_eq!(credential.grant_type.as_deref(), Some("client_credentials"));
    assert_eq!(config.server.listen, ["127.0.0.1:8080".parse().unwrap()]);
    assert!(config.server.workers > 0);
}

#[test]
fn a_bad_file() {
    eprintln!(
        "{}",
        problems(
            "[server]\nworkers = -1\nfoo = 'abc'\n[credentials.acme]\nprovider=\"ipx\"\nclient_secert = \"hunter2\"\nclient_secret = \"hunter2\"\n[[routes]]\ncredential='acne'\nhttp='h2'\n"
        )
    );
}
