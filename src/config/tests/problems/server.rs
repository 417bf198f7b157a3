//! `[server]`, `[admin]`, `[tokens]` and `[log]`.

use super::*;

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
fn a_file_without_routes_and_a_limit_that_limits_nobody_are_warned_of() {
    let expected = "1:1 there are no routes: every request will be answered 404 (give it [[routes]] with prefix, upstream and \
                    credential)";
    assert_eq!(good("").1, [expected]);
    let limits = |text: &str| good(&format!("[server]\n{text}\n{BASE}")).1;
    let expected = "2:1 `max_connections_per_peer` is more than `max_connections`, 10000: it limits nobody (give a smaller \
                    number, or 0 for no limit)";
    assert_eq!(limits("max_connections_per_peer = 20000"), [expected]);
    for fine in ["max_connections_per_peer = 10000", "max_connections_per_peer = 0\nmax_connections = 5"] {
        assert!(limits(fine).is_empty(), "{fine}");
    }
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
