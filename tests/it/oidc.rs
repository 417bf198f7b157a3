//! Against the certified npm `oidc-provider`, over TLS, with a resource behind it that verifies each token.

use std::{path::PathBuf, thread, time::Duration};

use serde_json::Value;

use crate::support::{Cupbearer, OidcProvider, noise, sha256, thumbprint};

const POST_SECRET: &str = "not-a-secret";
/// As in tests/peers/oidc/server.mjs: every character breaks whoever forgets the form-encoding.
const AWKWARD_SECRET: &str = r#"not a secret: 100%+/?&=~%3A"\"#;

/// A proxy in front of the provider: `/post`, `/basic`, `/jwt`, `/opaque`, `/wrong`, and `/open`, which
/// leads to the provider's own pages with whatever token.
fn proxy(provider: &OidcProvider) -> Cupbearer {
    let (url, ca) = (provider.url(), provider.ca_file());
    let credential = |name: &str, id: &str, auth: &str, secret: &str| {
        format!(
            "[credentials.{name}]\nclient_id = '{id}'\nclient_secret = {{ env = \"{secret}\" }}\n\
             token_url = \"{url}/token\"\nclient_auth = \"{auth}\"\nca_file = \"{}\"\n\n",
            ca.display()
        )
    };
    let route = |prefix: &str, base: &str, credential: &str, more: &str| {
        format!(
            "[[routes]]\nprefix = \"{prefix}\"\nupstream = \"{url}{base}\"\ncredential = \"{credential}\"\n{more}\n\n"
        )
    };
    let config = [
        credential("post", "poster", "post", "POST_SECRET"),
        credential("basic", "awkward client %2B", "basic", "AWKWARD_SECRET"),
        credential("raw", "awkward client %2B", "basic_raw", "AWKWARD_SECRET"),
        credential("wrong", "poster", "post", "AWKWARD_SECRET"),
        route("/post", "/api", "post", "scopes = [\"read\"]"),
        route("/basic", "/api", "basic", ""),
        route("/jwt", "/api", "post", "resource = [\"https://api.example.test/jwt\"]\nscopes = [\"read\", \"write\"]"),
        route("/opaque", "/api", "basic", "resource = [\"https://api.example.test/opaque\"]"),
        route("/nowhere", "/api", "post", "resource = [\"https://api.example.test/nowhere\"]"),
        route("/raw", "/api", "raw", ""),
        route("/wrong", "/api", "wrong", ""),
        route("/open", "", "post", "scopes = [\"read\"]"),
    ]
    .concat();
    Cupbearer::builder().env("POST_SECRET", POST_SECRET).env("AWKWARD_SECRET", AWKWARD_SECRET).start(&config)
}

fn stats(proxy: &Cupbearer) -> Value {
    proxy.get("/open/stats").json()
}

fn ok(proxy: &Cupbearer, target: &str) -> Value {
    let response = proxy.get(target);
    assert_eq!(response.status, 200, "{target}: {}", response.text());
    response.json()
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn client_secret_post_gets_a_token_that_the_resource_accepts() {
    let provider = OidcProvider::start();
    let proxy = proxy(&provider);
    let echo = ok(&proxy, "/post/things?a&b[]=%20");
    assert_eq!(echo["target"], "/api/things?a&b[]=%20");
    assert_eq!(echo["token"]["client_id"], "poster");
    assert_eq!(echo["token"]["scope"], "read");
    assert_eq!(echo["token"]["format"], "opaque");
    assert_eq!(stats(&proxy)["methods"], serde_json::json!(["client_secret_post"]));
    proxy.expect_never_printed(&[POST_SECRET]);
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn client_secret_basic_is_form_encoded_first_as_rfc_6749_wants() {
    let provider = OidcProvider::start();
    let proxy = proxy(&provider);
    assert_eq!(ok(&proxy, "/basic/")["token"]["client_id"], "awkward client %2B");
    proxy.get("/raw/").expect_problem(502, "idp_refused");
    proxy.expect_never_printed(&[AWKWARD_SECRET]);
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn each_resource_gets_its_own_token_in_the_format_it_wants() {
    let provider = OidcProvider::start();
    let proxy = proxy(&provider);
    let (jwt, opaque, none) = (ok(&proxy, "/jwt/"), ok(&proxy, "/opaque/"), ok(&proxy, "/post/"));
    assert_eq!(jwt["token"]["format"], "jwt");
    assert_eq!(jwt["token"]["audience"], "https://api.example.test/jwt");
    assert_eq!(jwt["token"]["scope"], "read write");
    assert_eq!(opaque["token"]["format"], "opaque");
    assert_eq!(opaque["token"]["audience"], "https://api.example.test/opaque");
    assert_eq!(none["token"]["audience"], Value::Null);
    assert_eq!(ok(&proxy, "/jwt/again")["token"]["fingerprint"], jwt["token"]["fingerprint"], "it is kept");
    assert_eq!(stats(&proxy)["granted"], 3);
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn a_refused_client_or_resource_is_the_providers_word_and_harms_no_other_route() {
    let provider = OidcProvider::start();
    let proxy = proxy(&provider);
    let problem = proxy.get("/wrong/").expect_problem(502, "idp_refused");
    assert_eq!(problem["blame"], "idp");
    assert_eq!(problem["credential"], "wrong");
    assert!(problem["detail"].as_str().is_some_and(|d| d.contains("invalid_client")), "{problem}");
    proxy.get("/nowhere/").expect_problem(502, "idp_refused");
    ok(&proxy, "/post/");
    proxy.expect_never_printed(&[POST_SECRET, AWKWARD_SECRET]);
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn many_cold_callers_cost_one_token_request() {
    let provider = OidcProvider::start();
    let proxy = proxy(&provider);
    thread::scope(|scope| {
        for caller in 0..50 {
            let proxy = &proxy;
            scope.spawn(move || ok(proxy, &format!("/jwt/{caller}")));
        }
    });
    assert_eq!(ok(&proxy, "/jwt/last")["token"]["format"], "jwt");
    let stats = stats(&proxy);
    assert_eq!(stats["granted"], 2, "one for /jwt, one for /open: {stats}");
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn revoked_tokens_are_replaced_and_no_caller_notices() {
    let provider = OidcProvider::start();
    let proxy = proxy(&provider);
    let before = (ok(&proxy, "/jwt/"), ok(&proxy, "/basic/"));
    // A token younger than five seconds is not renewed for a 401.
    thread::sleep(Duration::from_millis(5500));
    assert_eq!(proxy.request("POST", "/open/revoke", "", b"").json()["revoked"], 2);
    thread::scope(|scope| {
        for caller in 0..20 {
            let proxy = &proxy;
            let route = if caller % 2 == 0 { "jwt" } else { "basic" };
            scope.spawn(move || ok(proxy, &format!("/{route}/{caller}")));
        }
    });
    let after = (ok(&proxy, "/jwt/"), ok(&proxy, "/basic/"));
    assert_ne!(before.0["token"]["fingerprint"], after.0["token"]["fingerprint"]);
    assert_ne!(before.1["token"]["fingerprint"], after.1["token"]["fingerprint"]);
    assert_eq!(stats(&proxy)["granted"], 5, "one for /open, two before, two after");
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn a_body_arrives_whole_whatever_its_framing() {
    let provider = OidcProvider::start();
    let proxy = proxy(&provider);
    let body = noise(1_000_000);
    let sent = proxy.request("PUT", "/post/upload", "Content-Type: application/pdf\r\n", &body).json();
    assert_eq!(sent["body"]["sha256"], sha256(&body));
    assert_eq!(sent["method"], "PUT");

    let mut client = proxy.connect();
    client.send(format!("DELETE /post/x HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n", proxy.address()));
    for chunk in body.chunks(77_777) {
        client.send(format!("{:x}\r\n", chunk.len()));
        client.send(chunk);
        client.send("\r\n");
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.response().json()["body"]["sha256"], sha256(&body));
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn the_callers_own_credentials_never_reach_the_resource() {
    let provider = OidcProvider::start();
    let proxy = proxy(&provider);
    for fields in [
        "Authorization: Bearer from-the-caller\r\n",
        "Authorization: Basic eDp5\r\nAuthorization: Bearer twice\r\n",
        "Connection: authorization\r\n",
        "Connection: keep-alive, Authorization\r\nConnection: AUTHORIZATION\r\n",
    ] {
        let response = proxy.request("GET", "/post/", fields, b"");
        assert_eq!(response.status, 200, "{fields:?}: {}", response.text());
    }
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn a_provider_with_a_foreign_certificate_gets_no_secret() {
    let provider = OidcProvider::start();
    let config = format!(
        "[credentials.post]\nclient_id = \"poster\"\nclient_secret = {{ env = \"POST_SECRET\" }}\n\
         token_url = \"{url}/token\"\nclient_auth = \"post\"\n\
         [[routes]]\nprefix = \"/post\"\nupstream = \"{url}/api\"\ncredential = \"post\"\n",
        url = provider.url()
    );
    let proxy = Cupbearer::builder().env("POST_SECRET", POST_SECRET).start(&config);
    proxy.get("/post/").expect_problem(503, "idp_unavailable");
    assert!(!provider.output().contains("Error"), "{}", provider.output());
}

/// A credential with a client certificate and a route `/NAME`.
fn certified(provider: &OidcProvider, name: &str, id: &str, lines: &str, (chain, key): &(PathBuf, PathBuf)) -> String {
    let (url, ca) = (provider.url(), provider.ca_file());
    format!(
        "[credentials.{name}]\nclient_id = \"{id}\"\ntoken_url = \"{url}/token\"\nca_file = \"{}\"\n{lines}\n\
         client_cert = \"{}\"\nclient_key = {{ file = \"{}\" }}\n\
         [[routes]]\nprefix = \"/{name}\"\nupstream = \"{url}/api\"\ncredential = \"{name}\"\n\n",
        ca.display(),
        chain.display(),
        key.display()
    )
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn certificate_bound_tokens_reach_the_resource_on_connections_with_their_certificate() {
    let provider = OidcProvider::start();
    let (own, other) = (provider.client_pair(), provider.issue("client.example.test"));
    let (mtls, jwt) =
        ("client_auth = \"mtls\"", "client_auth = \"mtls\"\nresource = [\"https://api.example.test/jwt\"]");
    let secret = "client_auth = \"post\"\nclient_secret = { env = \"POST_SECRET\" }";
    let config = [
        certified(&provider, "self", "self-signed", mtls, &own),
        certified(&provider, "jwt", "self-signed", jwt, &own),
        certified(&provider, "named", "named", mtls, &other),
        certified(&provider, "both", "poster-bound", secret, &other),
    ]
    .concat();
    let proxy = Cupbearer::builder().env("POST_SECRET", POST_SECRET).start(&config);
    let prints = [&own, &other].map(|(chain, _)| thumbprint(&std::fs::read_to_string(chain).unwrap()));
    // Side by side, so that connections would be mixed up if they could be.
    thread::scope(|scope| {
        for n in 0..4 {
            let (proxy, prints) = (&proxy, &prints);
            scope.spawn(move || {
                for _ in 0..10 {
                    let (name, print) = [("self", 0), ("jwt", 0), ("named", 1), ("both", 1)][n];
                    assert_eq!(ok(proxy, &format!("/{name}/x"))["token"]["bound"], prints[print]);
                }
            });
        }
    });
    proxy.expect_never_printed(&[POST_SECRET, "PRIVATE KEY"]);
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn the_wrong_certificate_is_refused_in_the_providers_words_and_a_new_pair_heals_it() {
    let provider = OidcProvider::start();
    let pair = provider.issue("somebody.example.test");
    let config = certified(&provider, "named", "named", "client_auth = \"mtls\"", &pair)
        + &certified(&provider, "self", "self-signed", "client_auth = \"mtls\"", &pair);
    let proxy = Cupbearer::builder().start(&config);
    for name in ["named", "self"] {
        let problem = proxy.get(&format!("/{name}/x")).expect_problem(502, "idp_refused");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("invalid_client") && detail.contains("client_cert"), "{problem}");
    }
    let right = provider.client_pair();
    std::fs::copy(&right.1, &pair.1).unwrap();
    std::fs::copy(&right.0, &pair.0).unwrap();
    for name in ["named", "self"] {
        crate::support::eventually("the right pair", || proxy.get(&format!("/{name}/x")).status == 200);
    }
    proxy.expect_never_printed(&["PRIVATE KEY"]);
}
