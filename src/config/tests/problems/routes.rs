//! `[[routes]]` and `[callers.*]`.

use super::*;

/// What is wrong in a second route behind a good one.
fn bad_route(text: &str) -> Vec<String> {
    bad(&format!("{BASE}[[routes]]\n{text}"))
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
