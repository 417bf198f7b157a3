//! Every way to say who asks, and every grant, against the certified npm `oidc-provider`: it takes each assertion once, and
//! ends a chain of refresh tokens when one comes twice.

use std::time::{Duration, Instant};

use cupbearer::{config::secret::Secret, token::jwt::Signer};
use serde_json::Value;

use crate::support::{Cupbearer, OidcProvider, PATIENCE, TestDir, eventually};

/// Long enough for HS512.
const MAC_SECRET: &str = "not-a-secret-but-long-enough-for-it, for sixty-four bytes of it";
const SEAL_KEY: &str = "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M=";

/// A credential with a route `/NAME-SCOPE` for each scope, and so a token for each.
fn credential(provider: &OidcProvider, name: &str, scopes: &[&str], lines: &str) -> String {
    let (url, ca) = (provider.url(), provider.ca_file());
    let mut text =
        format!("[credentials.{name}]\ntoken_url = \"{url}/token\"\nca_file = \"{}\"\n{lines}\n\n", ca.display());
    let route = |scope: &&str| {
        format!(
            "[[routes]]\nprefix = \"/{name}-{scope}\"\nupstream = \"{url}/api\"\ncredential = \"{name}\"\n\
             scopes = [\"{scope}\"]\n\n"
        )
    };
    text.extend(scopes.iter().map(route));
    text
}

const BOTH: &[&str] = &["read", "write"];

/// Leads to the provider's own pages with whatever token.
fn open(provider: &OidcProvider) -> String {
    let lines = "client_id = \"poster\"\nclient_secret = { env = \"SECRET\" }";
    let route = format!("[[routes]]\nprefix = \"/open\"\nupstream = \"{}\"\ncredential = \"open\"\n", provider.url());
    credential(provider, "open", &[], lines) + &route
}

fn start(config: &str) -> Cupbearer {
    Cupbearer::builder().env("SECRET", "not-a-secret").env("MAC", MAC_SECRET).env("SEAL_KEY", SEAL_KEY).start(config)
}

fn ok(proxy: &Cupbearer, target: &str) -> Value {
    let response = proxy.get(target);
    assert_eq!(response.status, 200, "{target}: {}", response.text());
    response.json()
}

fn stats(proxy: &Cupbearer) -> Value {
    proxy.get("/open/stats").json()
}

/// A signing client of the provider's.
fn signer(provider: &OidcProvider, alg: &str) -> String {
    let key = provider.key_file(alg).display().to_string();
    format!(
        "client_id = \"signer-{alg}\"\nclient_auth = \"private_key_jwt\"\nalg = \"{alg}\"\nkey_id = \"{alg}\"\n\
         key = {{ file = \"{key}\" }}"
    )
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn signed_assertions_of_every_algorithm_are_accepted_and_each_request_has_its_own() {
    let provider = OidcProvider::start();
    let mut config = open(&provider);
    let (private, shared) = (["RS256", "PS256", "ES256", "ES384", "EdDSA"], ["HS256", "HS384", "HS512"]);
    for alg in private {
        config += &credential(&provider, alg, BOTH, &signer(&provider, alg));
    }
    for alg in shared {
        let lines = format!(
            "client_id = \"macer-{alg}\"\nclient_auth = \"client_secret_jwt\"\nclient_secret = {{ env = \"MAC\" }}\n\
             alg = \"{alg}\"\nassertion = {{ aud = \"{}\" }}",
            provider.url()
        );
        config += &credential(&provider, alg, BOTH, &lines);
    }
    let proxy = start(&config);
    for alg in private.iter().chain(&shared) {
        for scope in BOTH {
            assert_eq!(ok(&proxy, &format!("/{alg}-{scope}/"))["token"]["scope"], *scope);
        }
    }
    let stats = stats(&proxy);
    assert_eq!((&stats["granted"], &stats["refused"]), (&17.into(), &0.into()), "{stats}");
    proxy.expect_never_printed(&[MAC_SECRET, "PRIVATE KEY"]);
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn a_client_without_a_secret_says_only_who_it_is() {
    let provider = OidcProvider::start();
    let lines = "client_id = \"public\"\nclient_auth = \"none\"";
    let proxy = start(&(open(&provider) + &credential(&provider, "public", &["read"], lines)));
    assert_eq!(ok(&proxy, "/public-read/")["token"]["client_id"], "public");
    assert_eq!(stats(&proxy)["methods"][0], "none");
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn a_refused_client_is_asked_for_with_a_new_assertion_each_time() {
    let provider = OidcProvider::start();
    // The wrong key: the provider refuses each, and never because it has seen it before.
    let lines = signer(&provider, "ES256").replace("ES256.key", "other.key");
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    std::fs::write(provider.key_file("other"), other).unwrap();
    let proxy = start(&(open(&provider) + &credential(&provider, "wrong", &["read"], &lines)));
    let began = Instant::now();
    while stats(&proxy)["refused"].as_u64().unwrap() < 3 {
        proxy.get("/wrong-read/").expect_problem(502, "idp_refused");
        assert!(began.elapsed() < PATIENCE, "the negative cache ends after 1 s and 4 s");
        std::thread::sleep(Duration::from_millis(50));
    }
    let stats = stats(&proxy);
    assert!(!stats["errors"].to_string().contains("used once"), "{stats}");
    std::fs::copy(provider.key_file("ES256"), provider.key_file("other")).unwrap();
    eventually("the right key is tried at once", || proxy.get("/wrong-read/").status == 200);
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn a_jwt_bearer_assertion_is_what_is_asked_with_and_holds_the_scopes() {
    let provider = OidcProvider::start();
    let key = provider.key_file("PS256").display().to_string();
    let lines = format!(
        "grant = \"jwt_bearer\"\nclient_id = \"poster\"\nclient_secret = {{ env = \"SECRET\" }}\nkey = {{ file = \"{key}\" }}\n\
         alg = \"PS256\"\nkey_id = \"PS256\"\nassertion = {{ iss = \"robot\", sub = \"ann\", scope = \"{{scopes}}\" }}"
    );
    let proxy = start(&credential(&provider, "robot", BOTH, &lines));
    for scope in BOTH {
        assert_eq!(ok(&proxy, &format!("/robot-{scope}/"))["token"]["scope"], *scope);
    }
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn a_subject_token_is_exchanged() {
    let provider = OidcProvider::start();
    let dir = TestDir::new();
    let file = dir.write("subject", "not-a-token");
    let lines = format!(
        "grant = \"token_exchange\"\nclient_id = \"poster\"\nclient_secret = {{ env = \"SECRET\" }}\n\
         subject_token = {{ file = \"{}\" }}\nrequested_token_type = \"access_token\"",
        file.display()
    );
    let proxy = start(&(open(&provider) + &credential(&provider, "exchange", &["read"], &lines)));
    let problem = proxy.get("/exchange-read/").expect_problem(502, "idp_refused");
    assert!(problem["detail"].as_str().is_some_and(|d| d.contains("invalid_grant")), "{problem}");
    // A token of the provider's own, which the tests of static tokens would use too.
    let subject = proxy.get("/open/subject-token").json()["token"].as_str().unwrap().to_owned();
    std::fs::write(&file, &subject).unwrap();
    eventually("the new subject token", || proxy.get("/exchange-read/").status == 200);
    proxy.expect_never_printed(&[&subject]);
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn a_chain_of_refresh_tokens_survives_rotations_and_kill_9_without_one_coming_twice() {
    let provider = OidcProvider::start();
    let stats_proxy = start(&open(&provider));
    let first = stats_proxy.get("/open/refresh-token?client=rotator").json()["token"].as_str().unwrap().to_owned();
    let store = TestDir::new();
    let lines = format!(
        "grant = \"refresh_token\"\nclient_id = \"rotator\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"basic\"\n\
         refresh_token = {{ file = \"{}\" }}",
        store.write("first", &first).display()
    );
    let tokens = format!(
        "[tokens]\nstore = {{ file = \"{}\" }}\nseal_key = {{ env = \"SEAL_KEY\" }}\n",
        store.path().join("tokens").display()
    );
    let config = tokens + &credential(&provider, "ann", &["read"], &lines);
    let mut last = String::new();
    for _ in 0..3 {
        let proxy = start(&config);
        // Tokens live for three seconds, so another one comes every two.
        for _ in 0..2 {
            eventually("a rotation", || {
                let now = ok(&proxy, "/ann-read/")["token"]["fingerprint"].to_string();
                std::mem::replace(&mut last, now.clone()) != now
            });
        }
        // Now is right after a rotation: no request is under way.
        proxy.process().signal("KILL");
        proxy.expect_never_printed(&[&first]);
    }
    let told = stats(&stats_proxy);
    assert_eq!(told["refused"], 0, "{told}");
    assert!(told["granted"].as_u64() >= Some(6), "{told}");
    // The provider does see a token that comes twice: somebody else spends the first one again, and that ends the chain
    // for its owner too.
    let thief = start(&credential(&provider, "ann", &["read"], &lines));
    thief.get("/ann-read/").expect_problem(502, "idp_refused");
    let owner = start(&config);
    eventually("the chain has ended", || owner.get("/ann-read/").status == 502);
    assert!(stats(&stats_proxy)["refused"].as_u64() >= Some(2));
}

#[test]
#[ignore = "needs npm oidc-provider: run tests/run"]
fn a_ready_assertion_that_was_used_before_is_refused_and_a_new_one_in_its_file_is_read() {
    let provider = OidcProvider::start();
    let key = std::fs::read_to_string(provider.key_file("ES256")).unwrap();
    let fresh = |id: &str| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let claims = serde_json::json!({
            "iss": "signer-ES256", "sub": "signer-ES256", "aud": provider.url(), "exp": now + 60, "jti": id,
        });
        let signer = Signer::with_key(&Secret::new(key.clone()), None).unwrap();
        signer.sign(Some("ES256"), None, claims.as_object().unwrap()).unwrap().expose().to_owned()
    };
    let file = provider.key_file("ES256").with_extension("jwt");
    std::fs::write(&file, fresh("first")).unwrap();
    let lines = format!(
        "client_id = \"signer-ES256\"\nclient_auth = \"private_key_jwt\"\nassertion = {{ file = \"{}\" }}",
        file.display()
    );
    let proxy = start(&credential(&provider, "ready", BOTH, &lines));
    ok(&proxy, "/ready-read/");
    proxy.get("/ready-write/").expect_problem(502, "idp_refused");
    std::fs::write(&file, fresh("second")).unwrap();
    eventually("the new assertion", || proxy.get("/ready-write/").status == 200);
}
