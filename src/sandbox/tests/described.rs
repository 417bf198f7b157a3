//! Providers that a file describes: exactly that, and in their own words.

use http::StatusCode;
use serde_json::{Value, json};

use super::client::{FORM, JSON, sandbox, send};
use crate::sandbox::Sandbox;

const TWITCH: &str = "POST /twitch/oauth2/token";
const RIGHT: &str = "grant_type=client_credentials&client_id=sandboxtwitch&client_secret=not-a-secret-twitch";

/// Status and description of the answer to a token request.
async fn told(at: &Sandbox, request: &str, headers: &[&str], body: &str) -> (u16, String) {
    let answer = send(at, request, headers, body.to_owned()).await;
    let why = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
    (answer.status.as_u16(), why["error_description"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_request_that_differs_in_anything_is_refused_with_the_difference() {
    let at = sandbox(&[]).await;
    assert_eq!(told(&at, TWITCH, &[FORM], RIGHT).await.0, 200);
    let more = |more: &str| format!("{RIGHT}{more}");
    let without = |name: &str| RIGHT.split('&').filter(|p| !p.starts_with(name)).collect::<Vec<_>>().join("&");
    for (request, headers, body, why) in [
        (TWITCH, &[FORM][..], more("&scope=a"), "parameter scope must not be there"),
        (TWITCH, &[FORM], more("&grant_type=a"), "a parameter is included more than once"),
        (TWITCH, &[FORM], without("client_id"), "parameter client_id is missing"),
        (TWITCH, &[FORM], RIGHT.replace("client_credentials", "password"), "parameter grant_type must be"),
        (TWITCH, &[FORM, "authorization: Basic YTpi"], RIGHT.to_owned(), "there must be no Authorization"),
        (TWITCH, &[JSON], "{}".to_owned(), "Content-Type must be application/x-www-form-urlencoded"),
        ("POST /twitch/oauth2/token?a=b", &[FORM], RIGHT.to_owned(), "query parameter a must not be there"),
        (
            "POST /toast/authentication/v1/authentication/login",
            &[JSON],
            "{\"clientId\":1}".to_owned(),
            "member /clientId",
        ),
        ("POST /jamf/api/v1/auth/token", &["authorization: Basic YTpi"], "a=b".to_owned(), "no body here"),
        ("POST /adobe/ims/token/v3", &[FORM], "scope=openid+AdobeID".to_owned(), "parameter client_id is missing"),
    ] {
        let (status, told) = told(&at, request, headers, &body).await;
        assert!(status == 400 && told.contains(why), "{request} {body}: {status} {told}");
    }
    assert_eq!(told(&at, "GET /twitch/oauth2/token", &[FORM], "").await.0, 405);
    let log = at.log();
    assert_eq!(log.providers.values().map(|p| p.tokens_issued).sum::<u64>(), 1);
}

#[tokio::test]
async fn a_wrong_secret_is_refused_in_the_providers_own_words_and_locks_where_it_would() {
    let at = sandbox(&[]).await;
    let wrong = send(&at, TWITCH, &[FORM], RIGHT.replace("not-a", "no")).await;
    assert_eq!(wrong.status, StatusCode::FORBIDDEN);
    assert_eq!(wrong.json(), json!({ "status": 403, "message": "invalid client secret" }));
    let equinix = |secret: &str| {
        let body =
            json!({ "grant_type": "client_credentials", "client_id": "sandboxequinix", "client_secret": secret });
        let at = &at;
        async move { send(at, "POST /equinix/oauth2/v1/token", &[JSON], body.to_string()).await }
    };
    assert_eq!(equinix("not-a-secret-equinix").await.json()["token_timeout"], "3600");
    for _ in 0..5 {
        assert_eq!(equinix("no-secret").await.json()["errorCode"], "S1006");
    }
    let locked = equinix("not-a-secret-equinix").await;
    assert_eq!(locked.status, StatusCode::UNAUTHORIZED);
    assert!(locked.json()["developerMessage"].as_str().unwrap().contains("locked"));
}

#[tokio::test]
async fn an_api_takes_the_token_only_in_its_place_and_with_its_companions() {
    let at = sandbox(&[]).await;
    let granted = send(&at, TWITCH, &[FORM], RIGHT).await.json();
    let token = granted["access_token"].as_str().unwrap();
    assert_eq!(granted["scope"], json!([]));
    let bearer = format!("authorization: Bearer {token}");
    let status = |headers: Vec<String>| {
        let at = &at;
        async move {
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            send(at, "GET /twitch/helix/users", &headers, "").await.status.as_u16()
        }
    };
    let id = |id: &str| format!("client-id: {id}");
    assert_eq!(status(vec![bearer.clone(), id("sandboxtwitch")]).await, 200);
    assert_eq!(status(vec![bearer.clone()]).await, 400);
    assert_eq!(status(vec![bearer.clone(), id("other")]).await, 400);
    assert_eq!(status(vec![bearer, id("sandboxtwitch"), id("sandboxtwitch")]).await, 400);
    assert_eq!(status(vec![format!("authorization: OAuth {token}"), id("sandboxtwitch")]).await, 401);
    let log = at.log();
    let seen = &log.providers[&crate::sandbox::Provider::from_name("twitch").unwrap()];
    assert_eq!((seen.wrong_grants, seen.without_token), (3, 1));
}

#[tokio::test]
async fn people_are_told_of_all_of_them_and_of_the_key_to_sign_with() {
    let at = sandbox(&[]).await;
    let listing = send(&at, "GET /_sandbox/providers", &[], "").await;
    let listing = String::from_utf8(listing.body.to_vec()).unwrap();
    let shopify = format!("{}/shopify/admin/api  x-shopify-access-token: {{token}}", at.base_url());
    assert!(listing.contains("\nsnowflake\n") && listing.contains(&shopify), "{listing}");
    let key = send(&at, "GET /_sandbox/key", &[], "").await;
    assert!(key.body.starts_with(b"-----BEGIN PRIVATE KEY-----\n") && key.body == at.private_key());
}
