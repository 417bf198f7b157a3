//! What vouches for a client or a grant: signed anew for every attempt, or ready and re-read.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest},
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    hmac,
    signature::{ECDSA_P256_SHA256_FIXED, KeyPair as _, UnparsedPublicKey},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use cupbearer::{
    config::{
        model::{Alg, Assertion, ClientAuth, CredentialSpec, Grant, Issuer, Param},
        secret::SecretSource,
    },
    token::{
        Engine,
        bearer::Now,
        grant,
        reply::{self, Answer},
    },
};
use http::{HeaderMap, header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use crate::{
    grants::token,
    support::{SECRET, credential, given, need, quick, read, secret_file},
};

/// The parameters of the form that would be sent now.
async fn params(credential: &CredentialSpec) -> BTreeMap<String, String> {
    let material = read(credential).await.unwrap();
    let request = grant::build(&need(credential.clone()), &material).unwrap();
    let body = String::from_utf8(request.body.to_vec()).unwrap();
    let pair = |p: &str| p.split_once('=').map(|(n, v)| (n.to_owned(), v.replace("%3A", ":"))).unwrap();
    body.split('&').map(pair).collect()
}

fn part(token: &str, index: usize) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap()
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&part(token, 1)).unwrap()
}

fn signed(token: &str) -> &[u8] {
    token.rsplit_once('.').unwrap().0.as_bytes()
}

/// A key file and the public key.
fn key() -> (PathBuf, Vec<u8>) {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    (secret_file(&pair.serialize_pem()), pair.public_key_raw().to_vec())
}

#[tokio::test]
async fn private_key_jwt_signs_a_new_assertion_for_every_attempt_with_the_key_that_the_file_holds_then() {
    let (file, public) = key();
    let mut c = credential(1);
    c.client_auth = ClientAuth::PrivateKeyJwt;
    (c.client_secret, c.key, c.key_id) = (None, Some(SecretSource::File(file.clone())), Some("k1".to_owned()));
    let sent = params(&c).await;
    let token = &sent["client_assertion"];
    assert_eq!(sent["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    assert_eq!(sent["client_id"], "client-1");
    assert!(!sent.contains_key("client_secret"));
    let head: Value = serde_json::from_slice(&part(token, 0)).unwrap();
    assert_eq!(head, json!({ "alg": "ES256", "typ": "JWT", "kid": "k1" }));
    let verify = |public: &[u8], token: &str| {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public).verify(signed(token), &part(token, 2))
    };
    verify(&public, token).unwrap();
    let c1 = claims(token);
    assert_eq!((&c1["iss"], &c1["sub"]), (&json!("client-1"), &json!("client-1")));
    assert_eq!(c1["aud"], "http://127.0.0.1:1/oauth2/token");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let at = |name: &str| c1[name].as_u64().unwrap();
    assert!(at("iat") <= now && at("nbf") <= now && at("exp") > now && at("exp") <= now + 60);
    let (other, other_public) = key();
    std::fs::rename(other, file).unwrap();
    let again = params(&c).await["client_assertion"].clone();
    verify(&other_public, &again).unwrap();
    assert_ne!(claims(&again)["jti"], c1["jti"]);
}

#[tokio::test]
async fn the_certificate_of_the_key_is_named_as_entra_wants_it_and_read_again_for_every_request() {
    let of = |kind| {
        let pair = KeyPair::generate_for(kind).unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
        let coded = |by| URL_SAFE_NO_PAD.encode(digest(by, certificate.der()));
        (pair.serialize_pem(), certificate.pem(), coded(&SHA256), coded(&SHA1_FOR_LEGACY_USE_ONLY))
    };
    let head = async |c: &CredentialSpec| -> Value {
        serde_json::from_slice(&part(&params(c).await["client_assertion"], 0)).unwrap()
    };
    let (key, certificate, sha256, sha1) = of(&PKCS_RSA_SHA256);
    let (key, file) = (given(&key), secret_file(&certificate));
    let mut c = credential(1);
    (c.client_auth, c.client_secret, c.alg) = (ClientAuth::PrivateKeyJwt, None, Some(Alg::Ps256));
    (c.key, c.key_cert) = (Some(key), Some(SecretSource::File(file.clone())));
    assert_eq!(head(&c).await, json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": sha256 }));
    c.alg = None;
    assert_eq!(head(&c).await, json!({ "alg": "RS256", "typ": "JWT", "x5t#S256": sha256, "x5t": sha1 }));
    let (_, other, renewed, _) = of(&PKCS_ECDSA_P256_SHA256);
    std::fs::write(&file, other).unwrap();
    assert_eq!(head(&c).await["x5t#S256"], renewed);
    std::fs::write(&file, "not-a-certificate").unwrap();
    assert_eq!(read(&c).await.unwrap_err().to_string(), "key_cert holds no certificate in PEM form");
}

#[tokio::test]
async fn client_secret_jwt_signs_with_the_secret_and_does_not_send_it() {
    let mut c = credential(1);
    (c.client_auth, c.alg) = (ClientAuth::ClientSecretJwt, Some(Alg::Hs256));
    c.assertion.claims = vec![("aud".to_owned(), "https://issuer.example".to_owned())];
    let sent = params(&c).await;
    let token = &sent["client_assertion"];
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), signed(token), &part(token, 2)).unwrap();
    assert_eq!(claims(token)["aud"], "https://issuer.example");
    assert!(!sent.values().any(|v| v.contains(SECRET)));
}

#[tokio::test]
async fn jwt_bearer_asks_with_an_assertion_that_holds_the_scopes() {
    let (file, _) = key();
    let mut c = credential(1);
    (c.grant, c.client_auth) = (Grant::JwtBearer, ClientAuth::None);
    (c.client_id, c.client_secret, c.key) = (String::new(), None, Some(SecretSource::File(file)));
    c.grant_type = Some(Grant::JwtBearer.grant_type().to_owned());
    c.scopes = vec!["a".to_owned(), "b".to_owned()];
    let claim = |n: &str, v: &str| (n.to_owned(), v.to_owned());
    c.assertion.claims = vec![claim("iss", "robot@example"), claim("scope", "{scopes}"), claim("sub", "ann@example")];
    let sent = params(&c).await;
    assert_eq!(sent.keys().collect::<Vec<_>>(), ["assertion", "grant_type"]);
    assert_eq!(sent["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let told = claims(&sent["assertion"]);
    assert_eq!(
        (&told["iss"], &told["sub"], &told["scope"]),
        (&json!("robot@example"), &json!("ann@example"), &json!("a b"))
    );
}

#[tokio::test]
async fn a_ready_assertion_is_read_again_for_every_request() {
    let file = secret_file("not.a.jwt-1");
    let mut c = credential(1);
    (c.client_auth, c.client_secret) = (ClientAuth::PrivateKeyJwt, None);
    c.assertion.ready = Some(SecretSource::File(file.clone()));
    assert_eq!(params(&c).await["client_assertion"], "not.a.jwt-1");
    std::fs::write(file, "not.a.jwt-2\n").unwrap();
    assert_eq!(params(&c).await["client_assertion"], "not.a.jwt-2");
}

#[tokio::test]
async fn token_exchange_hands_in_the_subject_token() {
    let mut c = credential(1);
    c.grant = Grant::TokenExchange {
        subject_token: given("not-a-subject-token"),
        subject_token_type: "urn:ietf:params:oauth:token-type:jwt".to_owned(),
        requested_token_type: None,
    };
    c.grant_type = Some(c.grant.grant_type().to_owned());
    let sent = params(&c).await;
    assert_eq!(sent["grant_type"], "urn:ietf:params:oauth:grant-type:token-exchange");
    assert_eq!(sent["subject_token"], "not-a-subject-token");
    assert_eq!(sent["subject_token_type"], "urn:ietf:params:oauth:token-type:jwt");
    assert!(!sent.contains_key("requested_token_type"));
}

#[tokio::test]
async fn a_key_that_is_none_is_told_without_quoting_it() {
    let mut c = credential(1);
    (c.client_auth, c.key) = (ClientAuth::PrivateKeyJwt, Some(given("not-a-key")));
    let material = read(&c).await.unwrap();
    let error = grant::build(&need(c), &material).err().unwrap().to_string();
    assert!(error.starts_with("key is neither") && !error.contains("not-a-key"), "{error}");
}

#[tokio::test]
async fn an_assertion_is_made_out_to_the_issuer_where_it_is_known_or_to_the_token_url_on_request() {
    let mut c = credential(1);
    c.client_auth = ClientAuth::ClientSecretJwt;
    c.client_secret = Some(given("not-a-secret-but-long-enough-for-it"));
    let (identifier, url) = ("https://id.example/".to_owned(), c.token_url.clone());
    c.issuer = Some(Arc::new(Issuer { identifier, url, hosts: Vec::new(), tells_token_url: true }));
    assert_eq!(claims(&params(&c).await["client_assertion"])["aud"], "https://id.example/");
    c.assertion.claims = vec![("aud".to_owned(), "{token_url}".to_owned())];
    assert_eq!(claims(&params(&c).await["client_assertion"])["aud"], "http://127.0.0.1:1/oauth2/token");
}

#[tokio::test]
async fn a_header_of_the_request_may_hold_the_assertion_and_nothing_else_says_who_asks() {
    let (file, public) = key();
    let mut c = credential(1);
    (c.client_auth, c.client_secret, c.grant_type) = (ClientAuth::None, None, None);
    c.key = Some(SecretSource::File(file));
    c.headers = vec![("authorization".to_owned(), Param::Template("Bearer {assertion}".to_owned()))];
    let material = read(&c).await.unwrap();
    let request = grant::build(&need(c), &material).unwrap();
    assert_eq!(request.body.as_slice(), b"");
    let value = &request.headers["authorization"];
    assert!(value.is_sensitive());
    let token = value.to_str().unwrap().strip_prefix("Bearer ").unwrap();
    assert_eq!(claims(token)["iss"], "client-1");
    let verified = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public).verify(signed(token), &part(token, 2));
    verified.unwrap();
}

#[tokio::test]
async fn a_header_from_a_secret_is_no_template_whatever_it_holds() {
    let (file, _) = key();
    let mut c = credential(1);
    c.key = Some(SecretSource::File(file));
    c.headers = vec![("x-a".to_owned(), Param::Secret(given("{assertion}")))];
    let material = read(&c).await.unwrap();
    assert_eq!(grant::build(&need(c), &material).unwrap().headers["x-a"], "{assertion}");
}

#[tokio::test]
async fn a_claim_that_is_written_as_empty_is_left_out() {
    let (file, _) = key();
    let mut c = credential(1);
    (c.client_auth, c.client_secret, c.key) = (ClientAuth::PrivateKeyJwt, None, Some(SecretSource::File(file)));
    c.assertion.claims = vec![("sub".to_owned(), String::new()), ("a".to_owned(), "b".to_owned())];
    let told = claims(&params(&c).await["client_assertion"]);
    assert_eq!((told.get("sub"), &told["a"], &told["iss"]), (None, &json!("b"), &json!("client-1")));
}

/// The token of a credential that signs its own, with this key and these claims.
async fn self_signed(key: PathBuf, claims: &[(&str, &str)]) -> Result<String, String> {
    let claims = claims.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let c = CredentialSpec {
        grant: Grant::SelfSigned,
        client_auth: ClientAuth::None,
        client_secret: None,
        key: Some(SecretSource::File(key)),
        assertion: Assertion { claims, ready: None },
        default_ttl: Duration::from_secs(600),
        ..credential(1)
    };
    let engine = Engine::with_pace(quick());
    token(&engine.reader(&need(c)).unwrap()).await
}

#[tokio::test]
async fn a_self_signed_token_is_signed_here_for_its_default_ttl_and_for_nobody_in_particular() {
    let (file, public) = key();
    let token = self_signed(file, &[("iss", "me")]).await.unwrap();
    let verified = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public).verify(signed(&token), &part(&token, 2));
    verified.unwrap();
    let told = claims(&token);
    assert_eq!((&told["iss"], &told["sub"], told.get("aud")), (&json!("me"), &json!("me"), None));
    assert_eq!(told["exp"].as_u64().unwrap() - told["iat"].as_u64().unwrap(), 600);
    let (file, _) = key();
    assert_eq!(claims(&self_signed(file, &[("aud", "you")]).await.unwrap())["aud"], "you");
}

#[tokio::test]
async fn a_claim_may_hold_the_fingerprint_of_an_rsa_key_and_of_no_other() {
    let (file, _) = key();
    let error = self_signed(file, &[("iss", "a.{key_fingerprint}")]).await.unwrap_err();
    assert!(error.contains("Secret") && error.contains("does not go with this kind of key"), "{error}");
    let rsa = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der.as_ref()));
    let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(rsa.public_key()).unwrap();
    let wanted = STANDARD.encode(digest(&SHA256, spki.as_ref()));
    let token = self_signed(secret_file(&pem), &[("iss", "a.{key_fingerprint}")]).await.unwrap();
    assert_eq!(claims(&token)["iss"], format!("a.SHA256:{wanted}"));
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_named_where_an_assertion_is_refused() {
    let mut spec = credential(1);
    (spec.client_auth, spec.key) = (ClientAuth::PrivateKeyJwt, Some(SecretSource::File(key().0)));
    spec.client_secret = None;
    let sent = Now { mono: Instant::now(), wall: UNIX_EPOCH + Duration::from_secs(1_734_627_600) };
    let refused = async |spec: &CredentialSpec, date: &str| {
        let headers = HeaderMap::from_iter([(header::DATE, date.parse().unwrap())]);
        let body = r#"{"error":"invalid_client"}"#.into();
        let answer = Answer { status: 401, headers, body, sent, received: sent.wall };
        reply::read(spec, &read(spec).await.unwrap(), &answer).unwrap_err().message
    };
    let message = refused(&spec, "Thu, 19 Dec 2024 17:10:00 GMT").await;
    assert!(message.contains("Its clock is 600 s ahead of ours"), "{message}");
    let message = refused(&spec, "Thu, 19 Dec 2024 16:50:00 GMT").await;
    assert!(message.contains("Its clock is 600 s behind ours"), "{message}");
    assert!(!refused(&spec, "Thu, 19 Dec 2024 17:00:10 GMT").await.contains("clock"));
    assert!(!refused(&credential(1), "Thu, 19 Dec 2024 17:10:00 GMT").await.contains("clock"), "it signs nothing");
}
