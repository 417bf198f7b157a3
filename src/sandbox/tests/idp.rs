//! Each provider's own rules for token requests.

use std::net::{IpAddr, Ipv4Addr};

use http::StatusCode;
use serde_json::{Value, json};

use super::client::{FORM, JSON, bearer, ipxo_login, mythic_basic, raw, sandbox, send, try_send};
use crate::sandbox::{
    Client, DIGITAL_REALTY_CLIENT_ID, DIGITAL_REALTY_CLIENT_SECRET, IPXO_CLIENT_ID, IPXO_CLIENT_SECRET, IX_API_KEY,
    IX_API_SECRET, MYTHIC_KEY_ID, MYTHIC_SECRET, Options, PAX8_CLIENT_ID, PAX8_CLIENT_SECRET, Provider, Sandbox,
};

const IPXO: &str = "POST /ipxo/oauth2/token";

fn basic(id: &str, secret: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    format!("authorization: Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

fn ipxo_form(more: &str) -> String {
    format!("grant_type=client_credentials&client_id={IPXO_CLIENT_ID}&client_secret={IPXO_CLIENT_SECRET}{more}")
}

#[tokio::test]
async fn ipxo_answers_like_hydra() {
    let at = sandbox(&[]).await;
    let granted = ipxo_login(&at, "billing+ecommerce").await;
    let answer = granted.json();
    assert_eq!((granted.status, granted.header("cache-control")), (StatusCode::OK, "no-store"));
    assert_eq!((&answer["expires_in"], &answer["token_type"]), (&json!(86_399), &json!("bearer")));
    assert_eq!(answer["scope"], "billing ecommerce");
    let unknown = ipxo_login(&at, "billing+everything").await;
    assert_eq!((unknown.status, &unknown.json()["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_scope")));
    let wrong = send(&at, IPXO, &[FORM], "grant_type=client_credentials&client_id=x&client_secret=y").await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert_eq!((&wrong.json()["error"], &wrong.json()["status_code"]), (&json!("invalid_client"), &json!(401)));
}

#[tokio::test]
async fn ipxo_takes_a_client_only_by_the_one_method_it_is_registered_for() {
    let other = Client { basic: true, ..Client::new(Provider::Ipxo, "by header", "not-a-secret &%+") };
    let at = Sandbox::start(Options::default().client(other)).await.unwrap();
    let grant = "grant_type=client_credentials&scope=billing";
    let by_header = send(&at, IPXO, &[FORM, &basic(IPXO_CLIENT_ID, IPXO_CLIENT_SECRET)], grant).await;
    assert_eq!(by_header.status, StatusCode::UNAUTHORIZED);
    assert!(by_header.json()["error_description"].as_str().unwrap().contains("'client_secret_post'"));
    let both = send(&at, IPXO, &[FORM, &basic(IPXO_CLIENT_ID, IPXO_CLIENT_SECRET)], ipxo_form("")).await;
    assert_eq!(both.status, StatusCode::BAD_REQUEST);
    // RFC 6749 section 2.3.1: id and secret are form-encoded inside the header.
    let encoded = basic("by+header", "not-a-secret+%26%25%2B");
    assert_eq!(send(&at, IPXO, &[FORM, &encoded], grant).await.status, StatusCode::OK);
    let bare = basic("by header", "not-a-secret &%+");
    assert_eq!(send(&at, IPXO, &[FORM, &bare], grant).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_token_request_that_is_not_quite_one_is_refused() {
    let at = sandbox(&[]).await;
    let status = |request, headers, body| {
        let at = &at;
        async move { send(at, request, headers, body).await.status.as_u16() }
    };
    assert_eq!(status("GET /ipxo/oauth2/token", &[], String::new()).await, 405);
    assert_eq!(status(IPXO, &[JSON], "{}".to_owned()).await, 400);
    assert_eq!(status(IPXO, &[FORM], ipxo_form("&scope=billing&scope=dns")).await, 400);
    assert_eq!(status(IPXO, &[FORM, FORM], ipxo_form("")).await, 400);
    let twice = mythic_basic();
    let doubled = send(&at, "POST /mythic/login", &[FORM, &twice, &twice], "grant_type=client_credentials").await;
    assert_eq!(doubled.status, StatusCode::BAD_REQUEST);
    assert_eq!(status(IPXO, &[FORM], "x".repeat(100_000)).await, 413);
    let password = ipxo_form("").replace("client_credentials", "password");
    assert_eq!(status(IPXO, &[FORM], password).await, 400);
    assert_eq!(at.log().providers[&Provider::Ipxo].tokens_issued, 0);
}

#[tokio::test]
async fn digital_realty_gives_its_own_scopes_for_a_form() {
    let at = sandbox(&["digital-realty.idp=ttl:1800"]).await;
    let path = "POST /digital-realty/connect/token";
    let form = format!(
        "grant_type=client_credentials&client_id={DIGITAL_REALTY_CLIENT_ID}&client_secret={DIGITAL_REALTY_CLIENT_SECRET}"
    );
    let answer = send(&at, path, &[FORM], form.clone()).await.json();
    assert_eq!((&answer["expires_in"], &answer["token_type"]), (&json!(1800), &json!("Bearer")));
    assert_eq!(answer["scope"], "resource.api resource.ixapi resource.productcatalogapi");
    assert_eq!(answer["access_token"].as_str().unwrap().split('.').count(), 3);
    let wrong = send(&at, path, &[FORM], form.replace("not-a", "no")).await;
    assert_eq!((wrong.status, wrong.json()), (StatusCode::BAD_REQUEST, json!({ "error": "invalid_client" })));
    let header = basic(DIGITAL_REALTY_CLIENT_ID, DIGITAL_REALTY_CLIENT_SECRET);
    assert!(send(&at, path, &[FORM, &header], "grant_type=client_credentials").await.status.is_client_error());
}

#[tokio::test]
async fn ix_api_answers_201_with_a_rotating_pair_and_no_lifetime() {
    let at = sandbox(&[]).await;
    let (login, refresh) = ("POST /ix-api/api/v2/auth/token", "POST /ix-api/api/v2/auth/refresh");
    let body = json!({ "api_key": IX_API_KEY, "api_secret": IX_API_SECRET }).to_string();
    let granted = send(&at, login, &["content-type: application/json;"], body.clone()).await;
    let pair = granted.json();
    assert_eq!(granted.status, StatusCode::CREATED);
    assert_eq!(pair.as_object().unwrap().keys().collect::<Vec<_>>(), ["access_token", "refresh_token"]);
    let rotate = |pair: &Value| json!({ "refresh_token": pair["refresh_token"] }).to_string();
    let second = send(&at, refresh, &[JSON], rotate(&pair)).await;
    assert_eq!(second.status, StatusCode::CREATED);
    assert_ne!(second.json()["refresh_token"], pair["refresh_token"]);
    let again = send(&at, refresh, &[JSON], rotate(&pair)).await;
    assert_eq!(again.status, StatusCode::UNAUTHORIZED);
    // An access token refreshes nothing, a refresh token opens nothing, a form is no JSON.
    let access = json!({ "refresh_token": pair["access_token"] }).to_string();
    assert_eq!(send(&at, refresh, &[JSON], access).await.status, StatusCode::UNAUTHORIZED);
    let auth = format!("authorization: Bearer {}", second.json()["refresh_token"].as_str().unwrap());
    assert_eq!(send(&at, "GET /ix-api/api/v2/accounts", &[&auth], "").await.status, StatusCode::UNAUTHORIZED);
    let form = format!("api_key={IX_API_KEY}&api_secret={IX_API_SECRET}");
    assert_eq!(send(&at, login, &[FORM], form).await.status, StatusCode::BAD_REQUEST);
    let wrong = send(&at, login, &[JSON], body.replace("not-a", "no")).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert_eq!(wrong.json()["type"], "https://errors.ix-api.net/v2/authentication-error.html");
}

#[tokio::test]
async fn an_expired_token_of_ix_api_is_a_problem_called_signature_expired() {
    let at = sandbox(&["ix-api.idp=ttl:0"]).await;
    let auth = bearer(&at, Provider::IxApi, "").await;
    let refused = send(&at, "GET /ix-api/api/v2/accounts", &[&auth], "").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.json()["type"], "https://errors.ix-api.net/v2/signature-expired.html");
    assert_eq!(send(&at, "GET /ix-api/api/v2/health", &[], "").await.json()["status"], "pass");
}

#[tokio::test]
async fn pax8_wants_json_with_an_audience_and_says_access_denied() {
    let at = sandbox(&[]).await;
    let path = "POST /pax8/v1/token";
    let ask = |audience: Value| {
        let mut body = json!({
            "client_id": PAX8_CLIENT_ID, "client_secret": PAX8_CLIENT_SECRET, "grant_type": "client_credentials",
        });
        if !audience.is_null() {
            body["audience"] = audience;
        }
        body.to_string()
    };
    let answer = send(&at, path, &[JSON], ask(json!("api://usage"))).await.json();
    assert_eq!((&answer["expires_in"], &answer["scope"]), (&json!(86_400), &json!("read:usageLine write:usageLine")));
    assert!(answer["expires_at"].as_str().unwrap().ends_with("+00:00"));
    for audience in [Value::Null, json!("https://elsewhere.example")] {
        let denied = send(&at, path, &[JSON], ask(audience)).await;
        assert_eq!(denied.status, StatusCode::UNAUTHORIZED);
        assert_eq!(denied.json(), json!({ "error": "access_denied", "error_description": "Unauthorized" }));
    }
    assert_eq!(send(&at, path, &[FORM], "a=b").await.status, StatusCode::BAD_REQUEST);
    // One host, three audiences by path.
    let usage = bearer(&at, Provider::Pax8, "api://usage").await;
    assert_eq!(send(&at, "GET /pax8/v2/usage/lines", &[&usage], "").await.status, StatusCode::OK);
    let refused = send(&at, "GET /pax8/v1/companies", &[&usage], "").await;
    assert_eq!((refused.status, &refused.json()["type"]), (StatusCode::FORBIDDEN, &json!("FORBIDDEN")));
}

#[tokio::test]
async fn mythic_beasts_takes_basic_alone() {
    let at = sandbox(&[]).await;
    let (path, grant) = ("POST /mythic/login", "grant_type=client_credentials");
    let granted = send(&at, path, &[FORM, &mythic_basic()], grant).await;
    let answer = granted.json();
    assert_eq!((&answer["expires_in"], &answer["token_type"]), (&json!(300), &json!("bearer")));
    assert_eq!(granted.header("keep-alive"), "timeout=5, max=100");
    let in_body = format!("{grant}&client_id={MYTHIC_KEY_ID}&client_secret={MYTHIC_SECRET}");
    let refused = send(&at, path, &[FORM], in_body.clone()).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.json(), json!({ "error": "invalid_client", "error_description": "Invalid credentials" }));
    let both = send(&at, path, &[FORM, &mythic_basic()], in_body).await;
    assert_eq!(both.status, StatusCode::BAD_REQUEST);
    assert_eq!(send(&at, path, &[JSON, &mythic_basic()], "{}").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_token_of_mythic_beasts_works_only_from_the_address_that_asked_for_it() {
    let at = sandbox(&[]).await;
    let auth = bearer(&at, Provider::MythicBeasts, "").await;
    let zones = "GET /mythic/dns/v2/zones";
    assert_eq!(send(&at, zones, &[&auth], "").await.status, StatusCode::OK);
    let elsewhere = Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)));
    let refused = try_send(at.address(), elsewhere, zones, &[&auth], "".into()).await.unwrap();
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_token_of_mythic_beasts_lives_from_its_last_use_or_from_its_issue_as_ordered() {
    use std::time::{Duration, Instant};
    let life = Duration::from_millis(400);
    for sliding in [true, false] {
        let options = Options { mythic_sliding: sliding, ..Options::default() };
        let at = Sandbox::start(options.fault("mythic.idp=ttl:400ms").unwrap()).await.unwrap();
        let (mut statuses, mut widest_gap, mut tries) = (Vec::new(), life, 0);
        // Used all the time, well past its life; again where this machine was too busy for that.
        while widest_gap >= life {
            tries += 1;
            assert!(tries <= 10, "this machine is too busy to use a token every {life:?}");
            let auth = bearer(&at, Provider::MythicBeasts, "").await;
            let (issued, mut last) = (Instant::now(), Instant::now());
            (statuses, widest_gap) = (Vec::new(), Duration::ZERO);
            while issued.elapsed() < life * 3 / 2 {
                statuses.push(send(&at, "GET /mythic/dns/v2/zones", &[&auth], "").await.status);
                widest_gap = widest_gap.max(last.elapsed());
                last = Instant::now();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        assert_eq!(statuses.iter().all(|s| *s == StatusCode::OK), sliding);
        // Unused for its whole life.
        let unused = bearer(&at, Provider::MythicBeasts, "").await;
        tokio::time::sleep(life).await;
        assert_eq!(send(&at, "GET /mythic/dns/v2/zones", &[&unused], "").await.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn mythic_beasts_closes_an_idle_connection_and_keeps_a_busy_one() {
    use std::time::{Duration, Instant};
    let options = Options { mythic_keep_alive: Duration::from_millis(100), ..Options::default() };
    let at = Sandbox::start(options.fault("mythic.api=slow:300ms").unwrap()).await.unwrap();
    let begun = Instant::now();
    let request = "GET /mythic/dns/v2/zones HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2);
    let (answers, end) = raw(&at, request.as_bytes()).await;
    assert_eq!(answers.matches("HTTP/1.1 401").count(), 2);
    assert!(end.is_ok() && begun.elapsed() >= Duration::from_millis(700));
}
