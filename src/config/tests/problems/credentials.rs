//! `[credentials.*]` with their providers.

use super::*;

#[test]
fn a_credential_has_every_problem_told_at_once() {
    let found = bad(r#"[credentials.acme]
client_id = "${NOPE}"
client_secret = "hunter2"
token_url = "http://example.com/token"
client_auth = "bsic"
body = "json"
method = "GET"
headers = { authorization = "ID {basics}" }
grant = "device_code"
issuer = "http://x.example"
"#);
    let expected = [
        "2:13 environment variable NOPE is not set (set it, or give a default: `${NOPE:-…}`)",
        r#"3:17 `client_secret` in [credentials.acme] is a plain value: secrets don't belong in this file (say where the secret is: client_secret = { env = "ACME_CLIENT_SECRET" }, { file = "…" } or { command = ["…"] })"#,
        "4:13 `token_url` would send the client secret over plain http (use https://; http:// is only possible to this machine itself)",
        r#"5:15 `client_auth` in [credentials.acme] can't be `bsic` (did you mean "basic"?)"#,
        r#"6:1 a token request with method = "GET" has no body (body = "query" puts the parameters into the query)"#,
        "8:29 the value of header `authorization` has the unknown placeholder `{basics}` (`{client_id}`, `{client_secret}`, `{basic}` (base64 of id:secret) and `{assertion}` are known)",
        "10:10 `issuer` over plain http could be anybody (use https://; http:// is only possible to this machine itself)",
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_values_of_a_credential_are_checked_one_by_one() {
    let found = bad(r#"[credentials.acme]
client_id = 5
client_secret = { env = "A", file = "b" }
token_url = "https://a@b/token"
scopes = "billing"
token_field = "data.token"
expiry = "slidng"
default_ttl = "0s"
local_address = "eth0"
ip_family = "4"
ca_file = "/does/not/exist.pem"
timeout = "10"
"#);
    let expected = [
        "2:13 `client_id` in [credentials.acme] must be a string, not an integer",
        "3:17 `client_secret` in [credentials.acme] needs exactly one source (one of env, file, command, keyring, systemd, vault)",
        "4:13 `token_url` holds a user name or password (credentials belong into [credentials.NAME])",
        r#"5:10 `scopes` in [credentials.acme] must be a list of strings, not a string (write `scopes = ["…"]`)"#,
        r#"6:15 `token_field` must be a JSON pointer (it starts with a slash: "/data/token")"#,
        r#"7:10 `expiry` in [credentials.acme] can't be `slidng` (did you mean "sliding"?)"#,
        r#"8:15 `default_ttl` must be from "1s" to "366d""#,
        "9:17 `local_address` must be an IP address of this host, without a port",
        r#"10:13 `ip_family` in [credentials.acme] can't be `4` (did you mean "v4"?)"#,
        "11:11 `ca_file` can't be read: I/O error: No such file or directory (os error 2)",
        r#"12:11 `timeout`: `10` is not a duration (a number with its unit: "500ms", "10s", "5m", "1h30m")"#,
    ];
    assert_eq!(found, expected);
}

#[test]
fn parameters_and_headers_that_the_token_request_sets_itself_are_refused() {
    let found = bad(r#"[credentials.acme]
client_id = "a"
client_secret = [{ env = "A" }]
token_url = "example.com/token"
params = { scope = "a", client_id = "b", grant_type = "c", n = 5 }
headers = { "Content-Type" = "x", "Host" = "y", "a b" = "z", "X-A" = "1", "x-a" = "2" }
"#);
    let expected = [
        "3:18 `client_secret` in [credentials.acme]: environment variable A is not set (set it in the environment of cupbearer)",
        "4:13 `token_url` is not a URL (start it with https://)",
        "5:12 parameter `scope` has a key of its own (use `scopes` of the credential)",
        "5:25 parameter `client_id` has a key of its own (use `client_id` of the credential)",
        "5:42 parameter `grant_type` has a key of its own (use `grant_type` of the credential)",
        "5:64 `n` in `params` must be a string, not an integer",
        "6:13 header `content-type` is set by the token request itself",
        "6:35 header `Host` can't be set or removed here",
        "6:49 header `a b` is not a legal header name",
        "6:75 header `x-a` is given twice",
    ];
    assert_eq!(found, expected);
}

#[test]
fn providers_and_environments_are_looked_up() {
    let found = bad(r#"[credentials.a]
provider = "ixpo"
client_id = "a"
client_secret = { env = "SECRET" }
[credentials.b]
provider = "ix-api"
client_id = "a"
client_secret = { env = "SECRET" }
[credentials.c]
provider = "digital-realty"
environment = "acceptanc"
client_id = "a"
client_secret = { env = "SECRET" }
[credentials.d]
provider = "digital-realty"
environment = "acceptance"
client_id = "a"
client_secret = { env = "SECRET" }
[credentials.e]
provider = "ipxo"
environment = "test"
client_id = "a"
client_secret = { env = "SECRET" }
[[routes]]
prefix = "/a"
credential = "d"
api = "ix-api"
"#);
    let expected = [
        "2:12 no provider is called `ixpo` (did you mean `ipxo`?)",
        r#"5:14 [credentials.b] has no `token_url` (token_url = "https://…": your exchange's BASE/auth/token, for DE-CIX "https://api.de-cix.net/api/v2/auth/token")"#,
        "11:15 no environment is called `acceptanc` (did you mean `acceptance`?)",
        r#"14:14 [credentials.d] has no `token_url` (token_url = "https://…": Digital Realty sends it by e-mail together with the client id)"#,
        "21:15 no environment is called `test` (provider ipxo has only one environment: leave this key out)",
        r#"27:7 the address of `ix-api` at digital-realty in the acceptance environment is not fixed (give this route upstream = "https://…": Digital Realty sends it by e-mail together with the client id)"#,
    ];
    assert_eq!(found, expected);
}

#[test]
fn an_id_with_a_colon_is_not_sent_raw() {
    let text = BASE.replace("\"my-client\"", "\"a:b\"\nclient_auth = \"basic_raw\"");
    assert_eq!(
        bad(&text),
        ["4:13 `client_id` holds a colon, which client_auth = \"basic_raw\" can't send (\"basic\" encodes it)"]
    );
}

#[test]
fn a_budget_is_a_number_of_requests_in_a_time() {
    for wrong in ["50", "0/12h", "50/0s", "50/12", "many/h", "5/400d"] {
        let found = bad(&BASE.replace("provider", &format!("budget = \"{wrong}\"\nprovider")));
        let expected = format!(
            "3:10 `budget`: `{wrong}` is no budget (how many token requests in which time: \"50/12h\", \"1000/d\")"
        );
        assert_eq!(found, [expected], "{wrong}");
    }
}

#[test]
fn a_variable_of_a_profile_is_given_once_and_can_mean_nothing_else() {
    let shop = |vars: &str| {
        bad_with(&format!(
            "[credentials.shop]\nprovider = \"shopify\"\nclient_id = \"i\"\nclient_secret.env = \"SECRET\"\n{vars}"
        ))
    };
    let about = "the shop's name before .myshopify.com";
    assert_eq!(
        shop(""),
        [format!("1:14 [credentials.shop] has no `vars.shop` (vars = {{ shop = \"acme-store\" }}: {about})")]
    );
    for sly in ["a.evil.example/x", "a@b", "evil.example#", "a:1", "a/b", "", "a b", "{client_secret}", "\u{e4}"] {
        assert_eq!(
            shop(&format!("vars = {{ shop = \"{sly}\" }}")),
            [format!(
                "5:17 `vars.shop` in [credentials.shop] must be one label of a DNS name: letters, digits and inner \
                 hyphens ({about}: for example \"acme-store\")"
            )],
            "{sly}"
        );
    }
    assert_eq!(
        shop("vars = { shop = \"a\", shpo = \"b\" }"),
        ["5:22 provider shopify has no variable `shpo` (did you mean `shop`?)"]
    );
    assert_eq!(shop("vars.shop = 5"), ["5:13 `shop` in `vars` must be a string, not an integer"]);
    assert_eq!(shop("vars.shop = \"${NOPE}\"").len(), 1);
    assert_eq!(
        bad_with(
            "[credentials.a]\nclient_id = \"i\"\nclient_secret.env = \"SECRET\"\ntoken_url = \"https://a.example/\"\nvars = { a = \"b\" }"
        ),
        ["5:1 `vars` in [credentials.a] needs a `provider`"]
    );
    assert_eq!(
        bad_with(
            "[credentials.a]\nprovider = \"pax8\"\nclient_id = \"i\"\nclient_secret.env = \"SECRET\"\nvars.a = \"b\""
        ),
        ["5:6 provider pax8 has no variable `a` (it has none)"]
    );
}
