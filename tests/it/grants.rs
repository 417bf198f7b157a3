//! Grants beyond `client_credentials`, end to end.

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cupbearer::sandbox::{IX_API_KEY, IX_API_SECRET, Provider};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use crate::support::{Cupbearer, Playground, TestDir, Upstream, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn ix_api_is_logged_into_once_and_refreshed_from_then_on() {
    let sandbox = Playground::with(&["ix-api.idp=ttl:2"]);
    let secret = "{ env = \"SECRET\" }";
    let config = sandbox.credential("ix", Provider::IxApi, IX_API_KEY, secret, "warm = \"always\"")
        + &sandbox.route("/ix", "/ix-api/api/v2", "ix", "");
    let proxy = Cupbearer::builder().env("SECRET", IX_API_SECRET).start(&config);
    eventually("three tokens", || sandbox.tokens_issued(Provider::IxApi) >= 3);
    assert_eq!(proxy.get("/ix/connections").status, 200);
    let log = sandbox.expect_clean();
    assert_eq!(log.providers[&Provider::IxApi].clients[IX_API_KEY].requests, 1, "one login");
    proxy.expect_never_printed(&[IX_API_SECRET]);
}

#[test]
fn a_static_token_is_injected_and_its_file_followed() {
    let (api, dir) = (Upstream::always(OK), TestDir::new());
    let file = dir.write("token", "not-a-token-1\n");
    let config = format!(
        "[credentials.s]\ngrant = \"static\"\ntoken = {{ file = \"{}\" }}\n\
         [[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"s\"\n",
        file.display(),
        api.url()
    );
    let proxy = Cupbearer::builder().start(&config);
    let carried = |token: &str| {
        assert_eq!(proxy.get("/api/").status, 200);
        api.requests().last().is_some_and(|r| r.header("authorization") == Some(&format!("Bearer {token}")))
    };
    assert!(carried("not-a-token-1"));
    std::fs::write(&file, "not-a-token-2\n").unwrap();
    eventually("the new token", || carried("not-a-token-2"));
    proxy.expect_never_printed(&["not-a-token-1", "not-a-token-2"]);
}

#[test]
fn a_user_and_password_get_a_token_and_a_wrong_password_is_the_providers_word() {
    let (api, dir) = (Upstream::always(OK), TestDir::new());
    let provider = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            let mut form: Vec<&[u8]> = request.body.split(|&byte| byte == b'&').collect();
            form.sort_unstable();
            // RFC 6749 section 4.3.2; whoever has no client of its own sends none.
            let own: &[&[u8]] = &[b"client_id=id", b"client_secret=not-a-secret-of-the-client"];
            let user: [&[u8]; 3] =
                [b"grant_type=password", b"password=not+a+secret%3A+100%25%26%3D%2B", b"username=ann%40example.test"];
            let known = form == user || form == [own, &user[..]].concat();
            let (status, body) = if known {
                ("200 OK", r#"{"access_token":"not-a-token-1","token_type":"Bearer","expires_in":3600}"#)
            } else {
                ("400 Bad Request", r#"{"error":"invalid_grant"}"#)
            };
            let length = body.len();
            connection.send(format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            ));
        }
    });
    let credential = |name: &str, password: &str, lines: &str| {
        format!(
            "[credentials.{name}]\ngrant = \"password\"\nusername = \"ann@example.test\"\n\
             password = {{ file = \"{}\" }}\ntoken_url = \"{}/token\"\n{lines}\n\
             [[routes]]\nprefix = \"/{name}\"\nupstream = \"{}\"\ncredential = \"{name}\"\n",
            dir.write(name, password).display(),
            provider.url(),
            api.url()
        )
    };
    let (right, wrong) = ("not a secret: 100%&=+", "not-a-secret-any-more");
    let client = "client_id = \"id\"\nclient_secret = { env = \"SECRET\" }\nclient_auth = \"post\"";
    let proxy = Cupbearer::builder().env("SECRET", "not-a-secret-of-the-client").start(
        &[
            credential("client", right, client),
            credential("none", right, "client_auth = \"none\""),
            credential("wrong", wrong, client),
        ]
        .concat(),
    );
    for target in ["/client/x", "/none/x"] {
        assert_eq!(proxy.get(target).status, 200, "{target}");
    }
    let carried = api.requests();
    assert!(carried.iter().all(|request| request.header("authorization") == Some("Bearer not-a-token-1")));
    let problem = proxy.get("/wrong/x").expect_problem(502, "idp_refused");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("invalid_grant")), "{problem}");
    assert_eq!(api.requests().len(), 2);
    // Another password in the file is tried by itself.
    dir.write("wrong", right);
    eventually("the new password", || proxy.get("/wrong/x").status == 200);
    proxy.expect_never_printed(&["not-a-token", "not-a-secret", right, "not+a+secret"]);
}

/// What Entra insists on: no secret, a signature of the uploaded certificate's key, and the certificate's name beside it.
fn is_signed_for(certificate: &str, public: &[u8], form: &str) -> bool {
    let assertion = form.split('&').find_map(|pair| pair.strip_prefix("client_assertion="));
    let Some((signed, signature)) = assertion.and_then(|jwt| jwt.rsplit_once('.')) else { return false };
    let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    let head: Value =
        serde_json::from_slice(&decoded(signed.split('.').next().unwrap_or_default())).unwrap_or_default();
    head == json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": certificate })
        && !form.contains("client_secret")
        && UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, public)
            .verify(signed.as_bytes(), &decoded(signature))
            .is_ok()
}

#[test]
fn entra_takes_a_certificate_instead_of_a_secret() {
    let (api, dir) = (Upstream::always(OK), TestDir::new());
    let pair = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let certificate = CertificateParams::default().self_signed(&pair).unwrap();
    let named = URL_SAFE_NO_PAD.encode(digest(&SHA256, certificate.der()));
    let public = pair.public_key_raw().to_vec();
    let entra = Upstream::start(move |connection| {
        while let Some(request) = connection.request() {
            let form = String::from_utf8(request.body).expect("a form");
            let (status, body) = if is_signed_for(&named, &public, &form) {
                ("200 OK", r#"{"access_token":"not-a-token","token_type":"Bearer","expires_in":3599}"#)
            } else {
                ("401 Unauthorized", r#"{"error":"invalid_client"}"#)
            };
            let length = body.len();
            connection.send(format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            ));
        }
    });
    let (key, file) = (dir.write("entra.key", pair.serialize_pem()), dir.write("entra.pem", certificate.pem()));
    let proxy = Cupbearer::builder().start(&format!(
        "[credentials.graph]\nprovider = \"microsoft-entra\"\nvars.tenant = \"contoso.example\"\ntoken_url = \"{}/token\"\n\
         client_id = \"id\"\nclient_auth = \"private_key_jwt\"\nalg = \"PS256\"\nkey = {{ file = \"{}\" }}\n\
         key_cert = {{ file = \"{}\" }}\n\
         [[routes]]\nprefix = \"/graph\"\napi = \"graph\"\nupstream = \"{}\"\ncredential = \"graph\"\n",
        entra.url(),
        key.display(),
        file.display(),
        api.url()
    ));
    assert_eq!(proxy.get("/graph/me").status, 200);
    proxy.expect_never_printed(&["not-a-token", "PRIVATE KEY"]);
}
