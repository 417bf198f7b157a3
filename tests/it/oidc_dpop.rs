//! `DPoP` against the certified npm `oidc-provider`, which wants a nonce in every proof, and a resource that judges each proof by `jose`.

use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use serde_json::Value;

use crate::support::{Cupbearer, OidcProvider, TestDir, noise, sha256};

/// `/NAME-opaque` and `/NAME-jwt` with a bound token of either format, and `/open` to the provider's own pages.
fn proxy(provider: &OidcProvider, lines: &str) -> Cupbearer {
    let (url, ca) = (provider.url(), provider.ca_file().display().to_string());
    let secret = "client_secret = { env = \"SECRET\" }";
    let config = format!(
        "[credentials.bound]\nclient_id = \"binder\"\n{secret}\ntoken_url = \"{url}/token\"\nca_file = \"{ca}\"\ndpop = true\n{lines}\n\
         [credentials.open]\nclient_id = \"poster\"\n{secret}\ntoken_url = \"{url}/token\"\nca_file = \"{ca}\"\n\
         [[routes]]\nprefix = \"/opaque\"\nupstream = \"{url}/api\"\ncredential = \"bound\"\nscopes = [\"read\"]\n\
         [[routes]]\nprefix = \"/jwt\"\nupstream = \"{url}/api\"\ncredential = \"bound\"\n\
         resource = [\"https://api.example.test/jwt\"]\n\
         [[routes]]\nprefix = \"/open\"\nupstream = \"{url}\"\ncredential = \"open\"\n"
    );
    Cupbearer::builder().env("SECRET", "not-a-secret").start(&config)
}

fn ok(proxy: &Cupbearer, target: &str) -> Value {
    let response = proxy.get(target);
    assert_eq!(response.status, 200, "{target}: {}", response.text());
    assert_eq!(response.header("dpop-nonce"), None);
    response.json()
}

fn stats(proxy: &Cupbearer) -> Value {
    proxy.get("/open/stats").json()
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn bound_tokens_of_both_formats_are_taken_with_their_proofs() {
    let provider = OidcProvider::start();
    let proxy = proxy(&provider, "");
    let (opaque, jwt) = (ok(&proxy, "/opaque/a?b=c"), ok(&proxy, "/jwt/%61/b?c"));
    assert_eq!((&opaque["token"]["format"], &jwt["token"]["format"]), (&"opaque".into(), &"jwt".into()));
    assert_eq!(opaque["token"]["jkt"], jwt["token"]["jkt"], "one key for one credential");
    let body = noise(40_000);
    let echo = proxy.request("PUT", "/jwt/upload", "", &body).json();
    assert_eq!(echo["body"]["sha256"], sha256(&body));
    let stats = stats(&proxy);
    assert_eq!(stats["proofs"]["accepted"], 3);
    // The first request to each had no nonce yet. The token requests ran one after the other, so the second one knew.
    assert_eq!(stats["proofs"]["refused"], serde_json::json!(["use_dpop_nonce: nonce"]));
    assert_eq!((&stats["granted"], &stats["refused"]), (&3.into(), &1.into()), "{stats}");
    proxy.expect_never_printed(&["not-a-secret"]);
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn nonces_that_change_on_both_sides_are_followed_and_no_caller_notices() {
    let provider = OidcProvider::start();
    let proxy = proxy(&provider, "");
    for round in 0..4 {
        let (opaque, body) = (ok(&proxy, "/opaque/"), noise(20_000));
        let sent = proxy.request("POST", "/opaque/x", "", &body);
        assert_eq!((sent.status, sent.json()["body"]["sha256"] == sha256(&body)), (200, true), "{round}");
        assert_eq!(ok(&proxy, "/opaque/")["token"]["fingerprint"], opaque["token"]["fingerprint"], "the token is kept");
        assert_eq!(proxy.request("POST", "/open/rotate", "", b"").status, 200);
    }
    ok(&proxy, "/jwt/"); // a token request with a nonce of before
    let stats = stats(&proxy);
    assert_eq!(stats["proofs"]["refused"].as_array().map(Vec::len), Some(5), "{stats}");
    assert_eq!(stats["refused"], 2, "once at first, once after the nonces changed: {stats}");
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn keys_of_other_kinds_sign_proofs_too() {
    let provider = OidcProvider::start();
    let dir = TestDir::new();
    for (alg, kind) in [("ES384", &PKCS_ECDSA_P384_SHA384), ("EdDSA", &PKCS_ED25519)] {
        let pem = KeyPair::generate_for(kind).unwrap().serialize_pem();
        let key = dir.write(alg, pem);
        let proxy = proxy(&provider, &format!("key = {{ file = \"{}\" }}\nalg = \"{alg}\"", key.display()));
        ok(&proxy, "/opaque/");
    }
    for alg in ["RS256", "PS256"] {
        let key = provider.key_file(alg).display().to_string();
        ok(&proxy(&provider, &format!("key = {{ file = \"{key}\" }}\nalg = \"{alg}\"")), "/jwt/");
    }
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn the_key_that_signs_assertions_may_sign_proofs_too() {
    let provider = OidcProvider::start();
    let key = provider.key_file("ES256").display().to_string();
    let lines = format!("client_auth = \"private_key_jwt\"\nkey = {{ file = \"{key}\" }}\nkey_id = \"ES256\"");
    let url = provider.url();
    let config = format!(
        "[credentials.c]\nclient_id = \"signer-ES256\"\ntoken_url = \"{url}/token\"\nca_file = \"{}\"\ndpop = true\n{lines}\n\
         [[routes]]\nprefix = \"/api\"\nupstream = \"{url}/api\"\ncredential = \"c\"\n",
        provider.ca_file().display()
    );
    let proxy = Cupbearer::builder().start(&config);
    assert_eq!(ok(&proxy, "/api/")["token"]["client_id"], "signer-ES256");
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn a_refresh_token_that_is_bound_to_the_key_is_rotated_with_it() {
    let provider = OidcProvider::start();
    let open = proxy(&provider, "");
    let dir = TestDir::new();
    let pem = KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_pem();
    let key =
        cupbearer::config::signing_key::SigningKey::of_text(&cupbearer::config::secret::Secret::new(pem.clone()), None);
    let jkt = cupbearer::token::dpop::ProofKey::new(key.unwrap()).thumbprint().to_owned();
    let first = open.get(&format!("/open/refresh-token?client=public-binder&jkt={jkt}")).json();
    let url = provider.url();
    let config = format!(
        "[credentials.c]\ngrant = \"refresh_token\"\nclient_id = \"public-binder\"\nclient_auth = \"none\"\ntoken_url = \"{url}/token\"\n\
         ca_file = \"{}\"\ndpop = true\nkey = {{ file = \"{}\" }}\nrefresh_token = {{ env = \"FIRST\" }}\n\
         [[routes]]\nprefix = \"/api\"\nupstream = \"{url}/api\"\ncredential = \"c\"\n",
        provider.ca_file().display(),
        dir.write("key.pem", pem).display()
    );
    let proxy = Cupbearer::builder().env("FIRST", first["token"].as_str().unwrap()).start(&config);
    let token = ok(&proxy, "/api/")["token"].clone();
    assert_eq!((&token["jkt"], &token["client_id"]), (&jkt.as_str().into(), &"public-binder".into()));
    // It lives for three seconds.
    crate::support::eventually("a rotation", || ok(&proxy, "/api/")["token"]["fingerprint"] != token["fingerprint"]);
    let errors = stats(&open)["errors"].to_string();
    assert!(!errors.contains("invalid_grant"), "{errors}");
}
