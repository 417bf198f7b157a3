//! What each grant needs: keys, issuers, logins, refresh tokens.

use super::*;

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
key_cert = { env = "BAD_PEM" }
"#,
    );
    let expected = [
        "1:14 [credentials.a] has no `key` (key = { file = \"key.pem\" }, or a ready one: assertion = { file = \"…\" })",
        "5:1 this `alg` does not go with what signs here (HS256, HS384 and HS512 sign with the client secret, all others with a key)",
        "6:15 `exp` of an assertion is set for each request",
        "11:1 `key_id` in [credentials.b] is of no use: nothing is signed (it belongs to \"private_key_jwt\", \"client_secret_jwt\", \"jwt_bearer\" and \"self_signed\")",
        "12:1 `key_cert` in [credentials.b] is of no use: nothing is signed with its key (it belongs to \"private_key_jwt\", \"jwt_bearer\" and \"self_signed\"; TLS presents client_cert)",
    ];
    assert_eq!(found, expected);
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
            "7:1 `key` in [credentials.c] cannot sign: alg = \"EdDSA\" does not go with this kind of key (RSA signs by RS256, \
          RS384, RS512 or PS256, P-256 by ES256, P-384 by ES384, P-521 by ES512, Ed25519 by EdDSA)"
        ]
    );
    let signed = "client_auth = \"private_key_jwt\"\nkey.env = \"PEM\"\nkey_cert.env = \"BAD_PEM\"";
    assert_eq!(
        file(signed, ""),
        ["6:1 `key_cert` in [credentials.c] is no good: key_cert holds no certificate in PEM form (blocks of \
          -----BEGIN CERTIFICATE-----, our own first)"]
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
