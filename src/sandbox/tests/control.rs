//! Faults, revocation and counts, ordered while it runs; several sandboxes side by side.

use http::StatusCode;

use super::client::{bearer, ipxo_login, raw, sandbox, send, try_send};
use crate::sandbox::{IPXO_CLIENT_ID, Options, Provider, Sandbox};

#[tokio::test]
async fn a_token_for_billing_opens_billing_and_nothing_else() {
    let at = sandbox(&[]).await;
    let auth = bearer(&at, Provider::Ipxo, "billing").await;
    let invoices = send(&at, "GET /ipxo/billing/v1/acme/invoices?filter[status]=paid&x", &[&auth], "").await;
    assert_eq!(invoices.status, StatusCode::OK);
    assert_eq!(invoices.json()["meta"]["total"], 2);
    assert_eq!(invoices.json()["_echo"]["target"], "/ipxo/billing/v1/acme/invoices?filter[status]=paid&x");
    let cart = send(&at, "GET /ipxo/ecommerce/public/acme/cart", &[&auth], "").await;
    assert_eq!(cart.status, StatusCode::FORBIDDEN);
    assert!(cart.header("www-authenticate").contains("insufficient_scope"));
    let none = send(&at, "GET /ipxo/billing/v1", &[], "").await;
    assert_eq!(none.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn no_token_stands_in_an_echo_wherever_the_caller_put_it() {
    let at = sandbox(&[]).await;
    let auth = bearer(&at, Provider::Ipxo, "billing").await;
    let token = auth.rsplit(' ').next().unwrap();
    let target = format!("POST /ipxo/billing/v1/echo?token={token}");
    let also = format!("x-auth: Token {token}");
    let echo = send(&at, &target, &[&auth, &also], format!("body {token}")).await;
    let text = String::from_utf8(echo.body.to_vec()).unwrap();
    assert!(!text.contains(token));
    let shown = format!("Bearer sha256:{}", crate::sandbox::fingerprint(token));
    assert!(echo.json()["headers"].as_array().unwrap().iter().any(|h| h[1] == shown.as_str()), "{text}");
    // Nor where it came without an Authorization, or in the log.
    let bare = send(&at, "GET /_sandbox/echo", &[&also], "").await;
    let log = send(&at, "GET /_sandbox/log", &[], "").await;
    for answer in [bare, log] {
        assert!(!String::from_utf8(answer.body.to_vec()).unwrap().contains(token));
    }
}

#[tokio::test]
async fn the_echo_shows_fields_in_the_order_and_spelling_of_the_wire() {
    let at = sandbox(&[]).await;
    let (answer, _) = raw(
        &at,
        b"PUT /_sandbox/echo?a[b]&c=%2f HTTP/1.1\r\nX-B: 1\r\nhOST: x\r\nx-a:2\r\nX-b: 3\r\nConnection: close\r\n\
          Content-Length: 2\r\n\r\nhi",
    )
    .await;
    let echo: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(echo["target"], "/_sandbox/echo?a[b]&c=%2f");
    assert_eq!(echo["body"]["text"], "hi");
    let names: Vec<_> = echo["headers"].as_array().unwrap().iter().map(|h| h[0].as_str().unwrap()).collect();
    assert_eq!(names, ["X-B", "hOST", "x-a", "X-b", "Connection", "Content-Length"]);
}

#[tokio::test]
async fn faults_are_armed_and_cleared_while_it_runs() {
    let at = sandbox(&[]).await;
    for order in [
        "ipxo.idp=status:503,retry-after:7,times:1",
        r#"{"fault": "ipxo.idp=status:503,retry-after:7,times:1"}"#,
        r#"{"provider": "ipxo", "side": "idp", "fault": "status:503,retry-after:7,times:1"}"#,
    ] {
        assert_eq!(send(&at, "POST /_sandbox/fault", &[], order).await.status, StatusCode::OK);
        let refused = ipxo_login(&at, "billing").await;
        assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "7"));
        assert_eq!(ipxo_login(&at, "billing").await.status, StatusCode::OK);
    }
    let unknown = send(&at, "POST /_sandbox/fault", &[], "ipxo.idp=dwn").await;
    assert_eq!(unknown.status, StatusCode::BAD_REQUEST);
    assert!(String::from_utf8_lossy(&unknown.body).contains("truncated-chunked"));
    at.fault("*.*=down").unwrap();
    assert!(try_send(at.address(), None, "GET /ipxo/billing/v1", &[], "".into()).await.is_err());
    assert_eq!(send(&at, "DELETE /_sandbox/fault?target=*.*", &[], "").await.json()["armed"], 0);
    assert_eq!(ipxo_login(&at, "billing").await.status, StatusCode::OK);
}

#[tokio::test]
async fn revoked_tokens_are_refused_before_they_expire() {
    let at = sandbox(&[]).await;
    let auth = bearer(&at, Provider::Ipxo, "billing").await;
    let path = "GET /ipxo/billing/v1";
    assert_eq!(send(&at, path, &[&auth], "").await.status, StatusCode::OK);
    let revoked = send(&at, "POST /_sandbox/revoke?provider=ipxo", &[], "").await;
    assert_eq!(revoked.json()["revoked"], 1);
    let refused = send(&at, path, &[&auth], "").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(refused.header("www-authenticate").contains("invalid_token"));
    at.fault("ipxo.api=reject").unwrap();
    let fresh = bearer(&at, Provider::Ipxo, "billing").await;
    assert_eq!(send(&at, path, &[&fresh], "").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn everything_is_counted() {
    let at = sandbox(&[]).await;
    let auth = bearer(&at, Provider::Ipxo, "billing").await;
    ipxo_login(&at, "nonsense").await;
    for _ in 0..3 {
        send(&at, "GET /ipxo/billing/v1?page=1", &[&auth, "x-request-id: r1"], "").await;
    }
    send(&at, "GET /pax8/v1/companies", &[&auth], "").await;
    let log = at.log();
    let ipxo = &log.providers[&Provider::Ipxo];
    assert_eq!((ipxo.token_requests, ipxo.tokens_issued, ipxo.tokens_refused), (2, 1, 1));
    assert_eq!((ipxo.clients[IPXO_CLIENT_ID].requests, ipxo.clients[IPXO_CLIENT_ID].issued), (2, 1));
    assert_eq!((ipxo.api_requests, ipxo.api_requests_at_once), (3, 1));
    assert_eq!(log.providers[&Provider::Pax8].foreign_tokens, 1);
    assert_eq!((log.paths["/ipxo/billing/v1"], log.request_ids["r1"]), (3, 3));
    let token = &log.tokens[&crate::sandbox::fingerprint(auth.rsplit(' ').next().unwrap())];
    assert_eq!((token.requests, token.client.as_str(), token.grant.as_str()), (3, IPXO_CLIENT_ID, "billing"));
    let told = send(&at, "GET /_sandbox/log", &[], "").await.json();
    assert_eq!(told["providers"]["ipxo"]["api_requests"], 3);
    at.clear_log();
    assert!(at.log().providers.is_empty());
}

#[tokio::test]
async fn several_sandboxes_know_nothing_of_each_other_and_stop_when_dropped() {
    let (one, other) = (sandbox(&[]).await, sandbox(&["ipxo.idp=status:503"]).await);
    assert_eq!(ipxo_login(&other, "billing").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let auth = bearer(&one, Provider::Ipxo, "billing").await;
    assert_eq!(send(&other, "GET /ipxo/billing/v1", &[&auth], "").await.status, StatusCode::UNAUTHORIZED);
    let address = one.address();
    drop(one);
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(ipxo_login(&other, "billing").await.status.is_server_error());
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_clear_error() {
    let one = sandbox(&[]).await;
    let error = Sandbox::start(Options::default().port(one.address().port())).await.unwrap_err();
    assert!(error.to_string().contains(&format!("cannot listen on {}", one.address())), "{error}");
}
