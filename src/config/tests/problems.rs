//! Files that are wrong, and exactly what is said about them.

use super::*;

/// What is wrong in a second route behind a good one.
fn bad_route(text: &str) -> Vec<String> {
    bad(&format!("{BASE}[[routes]]\n{text}"))
}
#[test]
fn the_server_section_is_checked_value_by_value() {
    let found = bad_with(
        r#"[server]
listen = 8080
workers = 2000
header_timeout = "0s"
idle_timeout = 75
max_connections = "many"
max_header_bytes = "none"
drain_timeout = "5 minutes"
allowed_hosts = ["http://x", "a b"]
allowed_origins = ["null", "https://a.com/"]
"#,
    );
    let expected = [
        "2:10 `listen` in [server] must be a string, not an integer",
        "3:11 `workers` must be a whole number from 0 to 1024",
        r#"4:18 `header_timeout` must be from "10ms" to "1h""#,
        r#"5:16 `idle_timeout` in [server] must be a duration in quotes (a number with its unit: "500ms", "10s", "5m", "1h30m")"#,
        "6:19 `max_connections` in [server] must be a whole number, not a string",
        r#"7:1 `max_header_bytes` can't be "none""#,
        r#"8:17 `drain_timeout`: `5 minutes` is not a duration (a number with its unit: "500ms", "10s", "5m", "1h30m")"#,
        "9:18 an entry of `allowed_hosts` is a name or name:port, without scheme and path",
        "9:30 an entry of `allowed_hosts` has a host that is not a legal DNS name or address",
        "10:20 an entry of `allowed_origins` is not a URL (start it with https://)",
        "10:28 an entry of `allowed_origins` has a path; an origin is scheme://host[:port]",
    ];
    assert_eq!(found, expected);
}

#[test]
fn an_address_to_listen_on_is_an_ip_address_and_a_port() {
    let found = bad_with(
        r#"[server]
listen = [
  "localhost:8080",
  ":9090",
  "unix:/run/x.sock",
  "systemd",
  "127.0.0.1:8080",
  "127.0.0.1:8080",
  5,
]
"#,
    );
    let expected = [
        r#"3:3 `listen`: `localhost:8080` is not an address and port (an IP address and a port: "127.0.0.1:8080" or "[::1]:8080")"#,
        r#"4:3 `listen`: `:9090` is not an address and port (for this machine only write "127.0.0.1:9090", for all hosts "0.0.0.0:9090")"#,
        r#"5:3 `listen = "unix:/run/x.sock"` in [server] is not built yet in this version"#,
        r#"6:3 `listen = "systemd"` in [server] is not built yet in this version"#,
        "8:3 `listen` names 127.0.0.1:8080 twice",
        "9:3 every entry of `listen` must be a string, not an integer",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_listener_with_tls_needs_an_address_and_a_pair_that_can_be_used() {
    let found = bad_with(
        r#"[server]
listen = [
  { tls = { cert = "absent.pem", key = "absent.key" } },
  { address = "127.0.0.1:1", tls = { cert = "absent.pem" } },
  { address = "127.0.0.1:2", tls = { cert = "a", key = "b", client_ca = "c" } },
  { address = "127.0.0.1:3", tsl = {} },
]
"#,
    );
    let starts = [
        "3:3 a table in `listen` has no `address`",
        "3:20 `cert` in `tls`: file absent.pem can't be read",
        "4:30 `tls` in `listen` has no `key`",
        "5:61 `client_ca` in",
        "6:30 unknown key `tsl` in `listen`",
    ];
    for start in starts {
        assert!(found.iter().any(|problem| problem.starts_with(start)), "{start}: {found:#?}");
    }
}

#[test]
fn nowhere_to_listen_is_a_problem() {
    let found = bad_with(
        r"[server]
listen = []
",
    );
    let expected = ["2:10 `listen` in [server] is empty: there must be an address to listen on"];
    assert_eq!(found, expected);
}

#[test]
fn an_address_that_other_hosts_reach_needs_callers_who_identify_themselves() {
    let found = bad_with(
        r#"[server]
listen = "0.0.0.0:8080"
"#,
    );
    let expected = [
        r#"2:10 other hosts can reach this address, and no caller has to identify itself (listen on 127.0.0.1, or define [callers.NAME] with api_key = { env = "NAME" })"#,
    ];
    assert_eq!(found, expected);
}

#[test]
fn anyone_on_an_address_that_other_hosts_reach_is_refused() {
    let found = bad(r#"[server]
listen = ["127.0.0.1:1", "[::]:8080"]
[callers.erp]
api_key = { env = "KEY" }
[credentials.acme]
provider = "ipxo"
client_id = "a"
client_secret = { env = "SECRET" }
[[routes]]
prefix = "/a"
api = "dns"
credential = "acme"
callers = ["*"]
"#);
    let expected = [
        r#"13:12 callers = ["*"] lets anyone in, and other hosts can reach the address (name the callers, or listen on 127.0.0.1)"#,
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_store_outside_of_memory_needs_its_key_and_a_directory() {
    let found = bad_with("[tokens]\nstore = { file = \"x\" }\n");
    let expected = "2:9 this `store` in [tokens] needs a `seal_key`: no token is stored readable (make one with ";
    assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
    let found = bad_with("[tokens]\nstore = { file = \"x\" }\nseal_key = { env = \"SECRET\" }\n");
    assert!(found.len() == 1 && found[0].contains("`seal_key` in [tokens] is not 32 bytes in base64"), "{found:?}");
    let found = bad_with("[tokens]\nstore = { flie = \"x\" }\n");
    assert_eq!(found.len(), 2, "{found:?}");
    let found = bad_with("[tokens]\nstore = \"disk\"\n");
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn the_admin_address_is_another_one_than_the_proxys() {
    for (value, expected) in [
        (
            "\"127.0.0.1:8080\"",
            "2:10 `listen` in [admin] is 127.0.0.1:8080, where the proxy listens (the admin address is another one, such as \"127.0.0.1:8081\")",
        ),
        ("true", "2:10 `listen` in [admin] must be a string, not a boolean"),
    ] {
        assert_eq!(bad_with(&format!("[admin]\nlisten = {value}\n")), [expected]);
    }
}

#[test]
fn a_log_goes_where_a_file_can_stand() {
    for (value, expected) in [
        (
            "stdotu",
            "2:10 `access` in [log] names a file without a directory (did you mean \"stdout\"? A file can be named with ./)",
        ),
        ("-", "2:10 `access` in [log] is a file or a word (use \"stdout\")"),
        ("/", "2:10 `access` in [log] names a directory (name a file in it)"),
        ("on", "2:10 `access` in [log] is a file or a word (use \"stdout\")"),
        (
            "/nowhere/access.log",
            "2:10 `access` in [log] names a file in a directory that is not there (make the directory first)",
        ),
    ] {
        assert_eq!(bad_with(&format!("[log]\naccess = \"{value}\"\n")), [expected]);
    }
}

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
fn a_plain_secret_that_names_a_variable_gets_that_variable_in_its_hint() {
    let found = bad(r#"[credentials.acme]
provider = "ipxo"
client_id = "a"
client_secret = "${ACME}"
"#);
    let expected = [
        r#"4:17 `client_secret` in [credentials.acme] is a plain value: secrets don't belong in this file (say where the secret is: client_secret = { env = "ACME" }, { file = "…" } or { command = ["…"] })"#,
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
fn each_way_to_miss_a_secret_has_its_own_words() {
    let found = bad(r#"[credentials.a]
client_id = "a"
token_url = "https://e.com/t"
client_secret = { keyring = "x" }
[credentials.b]
client_id = "a"
token_url = "https://e.com/t"
client_secret = { envv = "SECRET" }
[credentials.c]
client_id = "a"
token_url = "https://e.com/t"
client_secret = {}
[credentials.d]
client_id = "a"
token_url = "https://e.com/t"
client_secret = { env = "MISSING_ONE" }
[credentials.e]
client_id = "a"
token_url = "https://e.com/t"
client_secret = { file = "/does/not/exist" }
[credentials.f]
client_id = "a"
token_url = "https://e.com/t"
client_secret = { env = "EMPTY" }
[credentials.g]
client_id = "a"
token_url = "https://e.com/t"
client_secret = { command = [] }
[credentials.h]
client_id = "a"
token_url = "https://e.com/t"
client_secret = { env = "$SECRET" }
[credentials.i]
client_id = "a"
token_url = "https://e.com/t"
client_secret = { env = "pasted" }
[credentials.j]
client_id = "a"
token_url = "https://e.com/t"
"#);
    let expected = [
        "4:29 `keyring` of `client_secret` must be SERVICE/ACCOUNT (as in: secret-tool store --label=… service SERVICE username ACCOUNT)",
        "8:19 unknown key `envv` in `client_secret` (did you mean `env`?)",
        "12:17 `client_secret` in [credentials.c] needs exactly one source (one of env, file, command, keyring, systemd, vault)",
        "16:17 `client_secret` in [credentials.d]: environment variable MISSING_ONE is not set (set it in the environment of cupbearer)",
        "20:17 `client_secret` in [credentials.e]: file /does/not/exist can't be read: No such file or directory (os error 2)",
        "24:17 `client_secret` in [credentials.f]: environment variable EMPTY is empty",
        "28:29 `command` of `client_secret` must be a program and its arguments (a list of strings, or one string that is split at spaces; no shell)",
        r#"32:25 `env` of `client_secret` must be the name of an environment variable (the name alone, without `$`: { env = "NAME" })"#,
        "36:17 `client_secret` in [credentials.i]: the environment variable named here is not set (set it in the environment of cupbearer)",
        r#"37:14 [credentials.j] has no `client_secret` (client_secret = { env = "NAME" }, { file = "…" } or { command = ["…"] })"#,
    ];
    assert_eq!(found, expected);
}

#[test]
fn no_secret_is_sent_and_one_is_given() {
    let found = bad(r#"[credentials.a]
client_id = "a"
token_url = "https://e.com/t"
client_auth = "none"
client_secret = { env = "SECRET" }
"#);
    let expected = [r#"5:1 [credentials.a] has a `client_secret`, but client_auth = "none" sends none"#];
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
fn two_equal_prefixes_are_an_error() {
    let found = bad_route(
        r#"prefix = "/ipxo/"
api = "billing"
credential = "acme"
"#,
    );
    let expected = ["12:10 two routes have the prefix `/ipxo`"];
    assert_eq!(found, expected);
}

#[test]
fn an_empty_route_misses_all_three() {
    let found = bad_route("");
    let expected = [
        r#"11:1 this route has no `prefix` (prefix = "/name": what callers write before the API's own path)"#,
        "11:1 this route has no `credential` (there is `acme`)",
        r#"11:1 this route leads nowhere: it has neither `api` nor `upstream` (api = "NAME" of the credential's provider, or upstream = "https://…")"#,
    ];
    assert_eq!(found, expected);
}

#[test]
fn names_in_a_route_are_looked_up() {
    let found = bad_route(
        r#"prefix = "ipxo"
api = "biling"
credential = "acme"
"#,
    );
    let expected = [
        r#"12:10 `prefix` does not start with a slash (write "/ipxo")"#,
        "13:7 provider ipxo has no API called `biling` (did you mean `billing`?)",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_route_to_elsewhere_is_checked_without_its_credential() {
    let found = bad_route(
        r#"prefix = "/a/../b"
upstream = "http://example.com"
credential = "acne"
"#,
    );
    let expected = [
        "12:10 `prefix` has a dot segment (`.` or `..`)",
        "13:12 `upstream` would send the token over plain http to another host (use https://, or accept it with insecure_http = true)",
        "14:14 no credential is called `acne` (did you mean `acme`?)",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_route_has_every_problem_told_at_once() {
    let found = bad_route(
        r#"prefix = "/a/*"
upstream = "https://example.com?x"
credential = "acme"
callers = ["erp"]
allow = ["get /x", "/x", "GET x"]
deny = ["DELETE"]
mode = "reprot"
inject = "Authorization: Bearer"
set_headers = { authorization = "x", connection = "y", "x-y" = "{token}" }
remove_headers = ["host", "a b"]
host = "keep"
connect_timeout = "0s"
max_body = "lots"
replay_buffer = "1GiB"
retry_on = [200]
max_in_flight = 0
http = "h3"
insecure_http = "yes"
rate_limit = "1/min"
token_endpoint = "/t"
scope = ["x"]
"#,
    );
    let expected = [
        "12:10 `prefix` holds a wildcard (a prefix covers everything below it; wildcards belong into `allow` and `deny`)",
        "13:12 `upstream` has a query; only scheme, host, port and base path are possible",
        "15:12 no caller is called `erp` (define it: [callers.NAME])",
        "16:10 an entry of `allow` has a method in small letters (write GET)",
        r#"16:20 an entry of `allow` is not METHOD and GLOB (for example "GET /v1/**" or "GET,POST /v1/*/search")"#,
        r#"16:26 an entry of `allow` has a path that does not start with a slash (write "/x")"#,
        r#"17:9 an entry of `deny` is not METHOD and GLOB (for example "GET /v1/**" or "GET,POST /v1/*/search")"#,
        r#"18:8 `mode` in [[routes]] can't be `reprot` (did you mean "report"?)"#,
        r#"19:10 `inject` must hold `{token}` exactly once (for example "Authorization: Bearer {token}")"#,
        "20:38 header `connection` in `set_headers` can't be set or removed: it belongs to the connection, not to the request",
        "20:64 the value of header `x-y` has `{token}` (the token is set by the route's `inject`)",
        "21:19 an entry of `remove_headers` can't be set or removed here",
        "21:27 an entry of `remove_headers` is not a legal header name",
        r#"22:8 `host` in [[routes]] can't be `keep` (use one of "upstream", "preserve")"#,
        r#"23:19 `connect_timeout` must be from "1ms" to "1h""#,
        r#"24:12 `max_body` in [[routes]] must be a size (bytes, or a number with its unit: 1024, "64KiB", "1MiB", "10MB")"#,
        "25:17 `replay_buffer` must be from 0 to 16MiB",
        "26:13 every entry of `retry_on` must be a whole number from 400 to 599",
        "27:17 `max_in_flight` must be a whole number from 1 to 1000000",
        r#"28:8 `http` in [[routes]] can't be `h3` (did you mean "h1"?)"#,
        "29:17 `insecure_http` in [[routes]] must be `true` or `false`, not a string",
        "30:1 `rate_limit` in [[routes]] is not built yet in this version",
        "31:1 `token_endpoint` in [[routes]] is not built yet in this version",
        "32:1 unknown key `scope` in [[routes]] (did you mean `scopes`?)",
    ];
    assert_eq!(found, expected);
}

#[test]
fn empty_values_are_told() {
    let found = bad_route(
        r#"prefix = ""
upstream = "https://e.com"
credential = "acme"
callers = []
scopes = [""]
audience = ""
"#,
    );
    let expected = [
        r#"12:10 `prefix` is empty (for everything write "/")"#,
        "15:11 `callers` is empty: nobody could use this route (leave it out for any known caller)",
        "16:11 an entry of `scopes` is empty or holds control characters",
        "17:12 `audience` in [[routes]] is empty",
    ];
    assert_eq!(found, expected);
}

#[test]
fn callers_are_recognised_by_exactly_one_thing() {
    let found = bad_with(
        r#"[callers.erp]
[callers.b]
api_key = "abc"
[callers.c]
api_key = { sha256 = "12" }
[callers.d]
cidr = ["10.0.0.1/8", "x", "1.2.3.4/33"]
[callers.e]
uid = 1000
[callers.f]
api_key = { env = "KEY" }
cidr = ["10.0.0.0/8"]
[callers.g]
api_key = { env = "KEY" }
[callers.h]
api_key = { env = "KEY" }
routes = ["x"]
allow = ["GET"]
[callers."*"]
cidr = []
"#,
    );
    let expected = [
        r#"1:10 [callers.erp] has nothing to recognise it by (api_key = { env = "NAME" } or cidr = ["10.1.0.0/16"])"#,
        r#"3:11 `api_key` in [callers.b] is a plain value: secrets don't belong in this file (say where the secret is: api_key = { env = "B_API_KEY" }, { file = "…" } or { command = ["…"] })"#,
        r#"5:22 `sha256` in [callers.c] must be 64 hex digits (printf %s "$KEY" | sha256sum)"#,
        r#"7:9 `cidr`: 10.0.0.1/8 has bits behind its length (write "10.0.0.0/8")"#,
        r#"7:23 `cidr`: `x` is not an address range (for example "10.1.0.0/16", "fd00::/8" or "10.1.2.3")"#,
        r#"7:28 `cidr`: `1.2.3.4/33` is not an address range (for example "10.1.0.0/16", "fd00::/8" or "10.1.2.3")"#,
        "9:1 `uid` in [callers.e] is not built yet in this version",
        "12:1 [callers.f] has both `api_key` and `cidr`: one of them",
        "15:10 callers `g` and `h` have the same API key",
        r#"17:11 an entry of `routes` does not start with a slash (write "/x")"#,
        r#"18:10 an entry of `allow` is not METHOD and GLOB (for example "GET /v1/**" or "GET,POST /v1/*/search")"#,
        "19:10 the name of a caller has up to 64 letters, digits, `-`, `_` and `.`",
        "20:8 `cidr` in [callers.*] is empty: nobody would be recognised",
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
fn an_id_with_a_colon_is_not_sent_raw() {
    let text = BASE.replace("\"my-client\"", "\"a:b\"\nclient_auth = \"basic_raw\"");
    assert_eq!(
        bad(&text),
        ["4:13 `client_id` holds a colon, which client_auth = \"basic_raw\" can't send (\"basic\" encodes it)"]
    );
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
fn a_list_of_secrets_is_for_client_secret_alone_and_none_of_it_may_be_wrong() {
    let list = |text: &str| bad(&BASE.replace("{ env = \"SECRET\" }", text));
    assert_eq!(list("[]"), ["5:17 `client_secret` in [credentials.acme] is an empty list"]);
    assert_eq!(
        list("[{ env = \"SECRET\" }, { env = \"MISSING_ONE\" }]"),
        ["5:38 `client_secret` in [credentials.acme]: environment variable MISSING_ONE is not set (set it in the \
          environment of cupbearer)"]
    );
    let plain = list("[\"hunter2\"]");
    assert!(plain.len() == 1 && plain[0].contains("secrets don't belong in this file"), "{plain:?}");
    assert!(!plain[0].contains("hunter2"));
    let param = bad(&BASE.replace("provider", "params = { pin = { env = [\"A\"] } }\nprovider"));
    assert_eq!(param.len(), 1, "{param:?}");
}

#[test]
fn a_systemd_credential_is_a_name_within_the_services_own_directory() {
    let systemd = |text: &str| bad(&BASE.replace("env = \"SECRET\"", text));
    assert_eq!(
        systemd("systemd = \"acme\""),
        ["5:29 `systemd` of `client_secret`: CREDENTIALS_DIRECTORY is not set (systemd sets it for a service with \
          LoadCredential= or LoadCredentialEncrypted=)"]
    );
    assert_eq!(
        systemd("systemd = \"../acme\""),
        ["5:29 `systemd` of `client_secret` must be the name of a credential, not a path"]
    );
}

#[test]
fn a_redis_store_is_a_place_without_secrets_in_it() {
    let store = |text: &str| bad_with(&format!("[tokens]\nseal_key = {{ env = \"SEAL_KEY\" }}\nstore = {text}\n"));
    for (text, expected) in [
        (
            "{ redis = \"127.0.0.1:6379\" }",
            "3:19 `redis` in `store` must be a URL (redis = \"redis://HOST:6379/0\", or rediss:// for TLS)",
        ),
        (
            "{ redis = \"redis://:hunter2@127.0.0.1\" }",
            "3:19 `redis` in `store` holds a user or password (username = \"…\" and password = { env = \"NAME\" } stand \
             beside it)",
        ),
        (
            "{ redis = \"redis://127.0.0.1/x\" }",
            "3:19 `redis` in `store` has a path that is no number of a database (redis = \"redis://HOST:6379/0\")",
        ),
        ("{ file = \"t\", username = \"u\" }", "3:23 `username` in `store` goes with `redis`"),
        (
            "{ file = \"t\", redis = \"redis://h\" }",
            "3:9 `store` in [tokens] must name one place (\"memory\", { file = \"DIRECTORY\" } or { redis = \
             \"redis://HOST:6379/0\" })",
        ),
    ] {
        assert_eq!(store(text), [expected], "{text}");
    }
    let unsealed = bad_with("[tokens]\nstore = { redis = \"redis://127.0.0.1\" }\n");
    assert!(unsealed.len() == 1 && unsealed[0].contains("needs a `seal_key`"), "{unsealed:?}");
}

#[test]
fn what_belongs_to_another_grant_or_is_missing_is_told() {
    let found = bad_with(
        r#"[credentials.a]
client_id = "a"
client_secret = { env = "SECRET" }
token_url = "https://a.example/t"
username = "ann"
refresh_url = "https://b.example/t"
[credentials.b]
grant = "password"
token_url = "https://a.example/t"
client_auth = "none"
[credentials.c]
grant = "static"
token = "hunter2"
"#,
    );
    let expected = [
        "5:1 `username` in [credentials.a] is of no use to its grant (it belongs to grant = \"password\")",
        "6:15 `refresh_url` must have the scheme, host and port of `token_url` (\"./refresh\" stands beside token_url's last path segment)",
        "7:14 [credentials.b] has no `username` (a plain string)",
        "7:14 [credentials.b] has no `password` (password = { env = \"NAME\" }, { file = \"…\" } or { command = [\"…\"] })",
    ];
    assert_eq!(found[..4], expected);
    assert!(found.len() == 5 && found[4].starts_with("13:9 `token` in [credentials.c] is a plain value"), "{found:?}");
}

#[test]
fn whoever_signs_needs_a_key_and_a_key_somebody_who_signs() {
    let found = bad_with(
        r#"[credentials.a]
client_id = "a"
client_auth = "private_key_jwt"
token_url = "https://a.example/t"
alg = "HS256"
assertion = { exp = "1" }
[credentials.b]
client_id = "b"
client_secret = { env = "SECRET" }
token_url = "https://b.example/t"
key_id = "k"
"#,
    );
    let expected = [
        "1:14 [credentials.a] has no `key` (key = { file = \"key.pem\" }, or a ready one: assertion = { file = \"…\" })",
        "5:1 this `alg` does not go with what signs here (HS256, HS384 and HS512 sign with the client secret, all others with a key)",
        "6:15 `exp` of an assertion is set for each request",
        "11:1 `key_id` in [credentials.b] is of no use: nothing is signed (it belongs to \"private_key_jwt\", \"client_secret_jwt\", \"jwt_bearer\" and \"self_signed\")",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_secret_in_vault_needs_a_place_a_server_and_a_login() {
    let with = |source: &str, section: &str| {
        bad(&format!("{}{section}", BASE.replace("{ env = \"SECRET\" }", source)))
            .into_iter()
            .map(|line| line.split_once(' ').map_or_else(String::new, |(_, text)| text.to_owned()))
            .collect::<Vec<_>>()
    };
    let vault = "[vault]\naddress = \"https://vault.example\"\ntoken = { env = \"SECRET\" }\n";
    let hint = "(\"MOUNT/PATH#FIELD\", or { vault = \"MOUNT/PATH\", field = \"FIELD\" })";
    for (source, part) in [
        ("{ vault = \"secret/ipxo\" }", "names no field"),
        ("{ vault = \"secret/ipxo#a\", field = \"b\" }", "names its field twice"),
        ("{ vault = \"ipxo#a\" }", "is no path of a secret"),
        ("{ vault = \"secret/../sys#a\" }", "is no path of a secret"),
        ("{ vault = \"secret/a%2fb#a\" }", "is no path of a secret"),
        ("{ vault = \"secret/ipxo?version=1#a\" }", "is no path of a secret"),
    ] {
        assert_eq!(with(source, vault), [format!("`vault` of `client_secret` {part} {hint}")], "{source}");
    }
    let good = "{ vault = \"secret/ipxo#client_secret\" }";
    let no_server = "this secret comes from Vault, but there is no address of it ([vault] address = \"https://…:8200\", or \
                     VAULT_ADDR in the environment)";
    assert_eq!(with(good, ""), [no_server]);
    for (section, part) in [
        ("[vault]\ntoken = { env = \"SECRET\" }\n", "[vault] has no `address`"),
        ("[vault]\naddress = \"https://vault.example\"\n", "there is nothing to log in to Vault with"),
        (
            "[vault]\naddress = \"http://vault.example\"\ntoken = { env = \"SECRET\" }\n",
            "would send secrets over plain http",
        ),
        ("[vault]\naddress = \"https://vault.example\"\ntoken = \"hvs.x\"\n", "secrets don't belong in this file"),
        (
            "[vault]\naddress = \"https://vault.example\"\ntoken = { env = \"SECRET\" }\nrole_id = \"a\"\n",
            "has a `token` and a `role_id`",
        ),
        (
            "[vault]\naddress = \"https://vault.example\"\ntoken = { env = \"SECRET\" }\nsecret_id = { env = \"SECRET\" }\n",
            "`secret_id` in [vault] goes with `role_id`",
        ),
        ("[vault]\naddress = \"https://vault.example\"\ntoken = { vault = \"a/b#c\" }\n", "cannot come from `vault`"),
        ("[vault]\naddres = \"https://vault.example\"\ntoken = { env = \"SECRET\" }\n", "unknown key `addres`"),
    ] {
        let found = with(good, section);
        assert!(found.iter().any(|line| line.contains(part)), "{section}: {found:?}");
    }
    let found = bad(&format!("[tokens]\nstore = {{ file = \"x\" }}\nseal_key = {good}\n{vault}{BASE}"));
    assert!(found.len() == 1 && found[0].contains("`seal_key` in [tokens] cannot come from `vault`"), "{found:?}");
}

#[test]
fn an_issuer_is_a_place_that_can_vouch_for_itself() {
    let issuer = |line: &str| {
        bad_with(&format!(
            "[credentials.a]\nclient_id = \"a\"\nclient_secret = {{ env = \"SECRET\" }}\n{line}\nendpoint_hosts = [\"b.example\"]\n"
        ))
    };
    for (line, expected) in [
        (
            "issuer = \"http://id.example\"",
            "4:10 `issuer` over plain http could be anybody (use https://; http:// is only possible to this machine itself)",
        ),
        ("issuer = \"https://id.example?x\"", "4:10 `issuer` has a query, which no issuer has"),
        ("issuer = \"https://id.example#x\"", "4:10 `issuer` has a fragment"),
        ("issuer = \"id.example\"", "4:10 `issuer` is not a URL (start it with https://)"),
    ] {
        assert_eq!(issuer(line), [expected], "{line}");
    }
    let expected = [
        "5:1 `endpoint_hosts` is of no use without `issuer` (it says where discovered endpoints may be)",
        "1:14 [credentials.a] has no `token_url` (token_url = \"https://…\", or issuer = \"https://…\", or a `provider` that knows it)",
    ];
    let mut found = issuer("");
    found.sort_by_key(|text| !text.starts_with('5'));
    assert_eq!(found, expected);
    let hosts = "issuer = \"https://id.example\"\nendpoint_hosts = [\"https://x\", \"x:1\", \"-\"]";
    let found = bad(&BASE.replace("provider = \"ipxo\"", &format!("provider = \"ipxo\"\n{hosts}")));
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn a_login_needs_its_places_and_nobody_else_has_use_for_them() {
    let credential = |lines: &str| {
        bad_with(&format!(
            "[credentials.a]\nclient_id = \"a\"\nclient_auth = \"none\"\ntoken_url = \"https://a.example/t\"\n{lines}\n"
        ))
    };
    for (lines, expected) in [
        (
            "grant = \"authorization_code\"",
            "1:14 [credentials.a] has no `authorize_url` (authorize_url = \"https://…\", or issuer = \"https://…\", which tells it)",
        ),
        (
            "grant = \"device_code\"",
            "1:14 [credentials.a] has no `device_url` (device_url = \"https://…\", or issuer = \"https://…\", which tells it)",
        ),
        (
            "grant = \"authorization_code\"\nauthorize_url = \"http://a.example/\"",
            "6:17 `authorize_url` would let others on the way see the login (use https://; http:// is only possible to this machine itself)",
        ),
        ("grant = \"device_code\"\ndevice_url = \"https://a.example/#x\"", "6:14 `device_url` has a fragment"),
        (
            "grant = \"authorization_code\"\nauthorize_url = \"https://a.example/\"\nauthorize_params = { scope = \"x\" }",
            "7:22 `scope` of the login is set by cupbearer itself (use `scopes` of the credential)",
        ),
        (
            "grant = \"authorization_code\"\nauthorize_url = \"https://a.example/\"\nauthorize_params = { dpop_jkt = \"x\" }",
            "7:22 `dpop_jkt` of the login is set by cupbearer itself (use `key` of the credential)",
        ),
        (
            "grant = \"authorization_code\"\nauthorize_url = \"https://a.example/\"\nredirect_port = 65536",
            "7:17 `redirect_port` must be a whole number from 0 to 65535",
        ),
        (
            "grant = \"authorization_code\"\nauthorize_url = \"https://a.example/\"\ndpop = true",
            "1:14 [credentials.a] has no `key` (the key that the token is bound to: key = { file = \"key.pem\" })",
        ),
        (
            "grant = \"refresh_token\"\nrefresh_token.env = \"SECRET\"\ndpop = true",
            "1:14 [credentials.a] has no `key` (the key that the token is bound to: key = { file = \"key.pem\" })",
        ),
        (
            "redirect_port = 1",
            "5:1 `redirect_port` in [credentials.a] is of no use to its grant (it belongs to grant = \"authorization_code\" and \"device_code\")",
        ),
    ] {
        assert_eq!(credential(lines), [expected], "{lines}");
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

#[test]
fn who_signs_tokens_needs_a_key_and_no_secret() {
    assert_eq!(
        bad_with("[credentials.a]\ngrant = \"self_signed\"\nclient_secret.env = \"SECRET\""),
        [
            "1:14 [credentials.a] has no `key` (key = { file = \"key.pem\" }, or a ready one: assertion = { file = \"…\" })",
            "3:1 [credentials.a] has a `client_secret`, but client_auth = \"none\" sends none",
        ]
    );
    assert_eq!(
        bad_with("[credentials.a]\ngrant = \"self_signed\"\nassertion = { file = \"a.jwt\" }")[0],
        "3:1 a token that is ready is not signed here (grant = \"static\" with token = { file = \"…\" })"
    );
    assert_eq!(
        bad_with(
            "[credentials.a]\nclient_id = \"i\"\nclient_auth = \"none\"\ntoken_url = \"https://a.example/\"\nheaders = { authorization = \"Bearer {assertion}\" }"
        ),
        [
            "1:14 [credentials.a] has no `key` (key = { file = \"key.pem\" }, or a ready one: assertion = { file = \"…\" })"
        ]
    );
}

#[test]
fn a_key_that_cannot_sign_and_a_proof_that_has_no_room_are_told_in_the_file() {
    let file = |credential: &str, route: &str| {
        bad(&format!(
            "[credentials.c]\nclient_id = \"i\"\ntoken_url = \"https://a.example/t\"\n{credential}\n\
             [[routes]]\nprefix = \"/a\"\nupstream = \"https://a.example\"\ncredential = \"c\"\n{route}\n"
        ))
    };
    let secret = "client_secret.env = \"SECRET\"\ndpop = true";
    assert_eq!(
        file(&format!("{secret}\nkey.env = \"BAD_PEM\""), ""),
        [
            "6:1 `key` in [credentials.c] cannot sign: key is neither a private key in PEM form (PKCS#8, PKCS#1 or SEC1, not \
          encrypted) nor a private JWK (openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 makes one)"
        ]
    );
    assert_eq!(
        file(&format!("{secret}\nkey.env = \"PEM\"\nalg = \"EdDSA\""), ""),
        [
            "7:1 `key` in [credentials.c] cannot sign: alg = \"EdDSA\" does not go with this kind of key (RSA signs by RS256 or \
          PS256, P-256 by ES256, P-384 by ES384, Ed25519 by EdDSA)"
        ]
    );
    assert_eq!(
        file(&format!("{secret}\nalg = \"HS256\""), ""),
        [
            "6:1 this `alg` does not go with what signs here (HS256, HS384 and HS512 sign with the client secret, all others \
          with a key)"
        ]
    );
    assert_eq!(
        file(&format!("{secret}\nkey_id = \"k\"\nheaders = {{ DPoP = \"x\" }}"), ""),
        [
            "6:1 `key_id` in [credentials.c] is of no use: nothing is signed (it belongs to \"private_key_jwt\", \
             \"client_secret_jwt\", \"jwt_bearer\" and \"self_signed\")",
            "7:13 header `dpop` is set by the token request itself",
        ]
    );
    assert_eq!(
        file("grant = \"static\"\ntoken.env = \"SECRET\"\ndpop = true", ""),
        ["1:14 [credentials.c] has no `key` (the key that the token is bound to: key = { file = \"key.pem\" })"]
    );
    assert_eq!(
        file(secret, "set_headers = { DPoP = \"x\" }\ninject = \"DPoP: {token}\""),
        [
            "10:17 header `dpop` carries the proof of dpop = true",
            "11:10 header `dpop` carries the proof of dpop = true, not the token",
        ]
    );
    assert_eq!(
        file("client_secret.env = \"SECRET\"\ndpop = \"yes\"", ""),
        ["5:8 `dpop` in [credentials.c] must be `true` or `false`, not a string"]
    );
}

#[test]
fn refresh_tokens_that_are_not_to_be_shared_need_a_store_of_their_own() {
    let found = bad_with(
        "[tokens]\nstore = { redis = \"redis://127.0.0.1/0\" }\nseal_key.env = \"SEAL_KEY\"\n[credentials.a]\nclient_id = \"i\"\n\
         client_secret.env = \"SECRET\"\ntoken_url = \"https://a.example/t\"\ngrant = \"refresh_token\"\n\
         refresh_token.env = \"SECRET\"\nshare = false\n",
    );
    let message = "with `share = false` its refresh tokens would be in no store: `tokens.store` is shared";
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains(message), "{found:?}");
}

#[test]
fn a_refresh_token_that_is_nowhere_is_a_problem() {
    let found = bad_with(
        "[credentials.a]\nclient_id = \"i\"\nclient_secret.env = \"SECRET\"\ntoken_url = \"https://a.example/t\"\n\
         grant = \"refresh_token\"\n",
    );
    let message = "1:14 this credential has no `refresh_token`, and no store that one could be in";
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains(message), "{found:?}");
}
