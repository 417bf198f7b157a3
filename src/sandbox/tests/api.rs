//! What the APIs answer.

use http::StatusCode;
use serde_json::json;

use super::client::{JSON, bearer, sandbox, send};
use crate::sandbox::{Options, Provider, Sandbox};

#[tokio::test]
async fn every_provider_shows_something_sensible_to_a_newcomer() {
    let at = sandbox(&[]).await;
    for (provider, grant, path, found) in [
        (Provider::Ipxo, "billing", "/ipxo/billing/v1/acme/invoices", "/data/0/number"),
        (Provider::Ipxo, "credits", "/ipxo/credits/public/acme/balances", "/data/0/balance"),
        (Provider::DigitalRealty, "", "/digital-realty/ixapi/v2/connections", "/0/name"),
        (Provider::IxApi, "", "/ix-api/api/v2/accounts", "/0/name"),
        (Provider::Pax8, "https://api.pax8.com", "/pax8/v1/companies", "/content/0/name"),
        (Provider::Pax8, "api://provisioning", "/pax8/v2/provision-requests", "/content/0/status"),
        (Provider::MythicBeasts, "", "/mythic/dns/v2/zones", "/zones/0"),
        (Provider::MythicBeasts, "", "/mythic/beta/vps/servers", "/web1/status"),
    ] {
        let auth = bearer(&at, provider, grant).await;
        let answer = send(&at, &format!("GET {path}"), &[&auth], "").await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert!(answer.json().pointer(found).is_some(), "{path}: {:#}", answer.json());
    }
}

#[tokio::test]
async fn bodies_on_get_and_delete_arrive_and_204_has_none() {
    let at = sandbox(&[]).await;
    let auth = bearer(&at, Provider::Ipxo, "ecommerce").await;
    let credits = "DELETE /ipxo/ecommerce/public/acme/cart/c1/credits";
    let removed = send(&at, credits, &[&auth, JSON], r#"{"amount":42}"#).await.json();
    assert_eq!(removed["removed"], 42);
    assert_eq!(removed["_echo"]["body"]["length"], 13);
    let added = send(&at, "POST /ipxo/ecommerce/public/acme/cart", &[&auth, JSON], "{}").await;
    assert_eq!((added.status, added.body.len()), (StatusCode::NO_CONTENT, 0));
    let mythic = bearer(&at, Provider::MythicBeasts, "").await;
    let zones = send(&at, "GET /mythic/dns/v2/zones", &[&mythic, JSON], "{}").await.json();
    assert_eq!(zones["_echo"]["body"]["text"], "{}");
}

#[tokio::test]
async fn a_new_server_is_polled_at_an_absolute_location_until_it_is_there() {
    let at = Sandbox::start(Options { queue_polls: 2, ..Options::default() }).await.unwrap();
    let auth = bearer(&at, Provider::MythicBeasts, "").await;
    let made = send(&at, "POST /mythic/beta/vps/servers/web9", &[&auth, JSON], "{}").await;
    assert_eq!(made.status, StatusCode::ACCEPTED);
    let location = made.header("location").to_owned();
    let queue = location.strip_prefix(at.base_url()).unwrap();
    assert!(queue.starts_with("/mythic/queue/vps/"), "{location}");
    for _ in 0..2 {
        assert_eq!(send(&at, &format!("GET {queue}"), &[&auth], "").await.json()["status"], "pending");
    }
    let done = send(&at, &format!("GET {queue}"), &[&auth], "").await;
    let server = format!("{}/mythic/beta/vps/servers/web9", at.base_url());
    assert_eq!((done.status, done.header("location")), (StatusCode::SEE_OTHER, server.as_str()));
    assert_eq!(send(&at, "GET /mythic/queue/vps/7", &[&auth], "").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_tools_stand_below_every_api() {
    let at = sandbox(&[]).await;
    let auth = bearer(&at, Provider::DigitalRealty, "").await;
    let ask = |path: &'static str| {
        let (at, auth) = (&at, &auth);
        async move { send(at, &format!("GET /digital-realty/ixapi/v2/{path}"), &[auth], "").await }
    };
    assert_eq!(ask("status/418").await.status.as_u16(), 418);
    assert_eq!(ask("status/304").await.body.len(), 0);
    assert_eq!(ask("status/101").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(ask("cookies").await.headers.get_all("set-cookie").iter().count(), 2);
    let links = ask("some/links").await;
    let here = format!("{}/digital-realty/ixapi/v2/some/links", at.base_url());
    assert_eq!(links.header("content-location"), here);
    assert!(links.header("link").contains(&format!("<{here}?page=2>; rel=\"next\"")));
    let moved = ask("a/redirect?status=307").await;
    assert_eq!(moved.status, StatusCode::TEMPORARY_REDIRECT);
    let beside = format!("{}/digital-realty/ixapi/v2/a/echo?redirected", at.base_url());
    assert_eq!(moved.header("location"), beside);
    let events = ask("events?count=3&interval=1").await;
    assert_eq!((events.header("content-type"), events.header("content-length")), ("text/event-stream", ""));
    assert_eq!(String::from_utf8_lossy(&events.body).matches("event: tick").count(), 3);
    let anything = ask("what/ever?a[]=1&b").await.json();
    assert_eq!(anything["target"], "/digital-realty/ixapi/v2/what/ever?a[]=1&b");
}

#[tokio::test]
async fn downloads_of_any_size_are_the_same_every_time() {
    let at = sandbox(&[]).await;
    let auth = bearer(&at, Provider::Ipxo, "billing").await;
    let get = |query: &'static str| {
        let (at, auth) = (&at, &auth);
        async move { send(at, &format!("GET /ipxo/billing/v1/acme/invoices/1/download?{query}"), &[auth], "").await }
    };
    let sized = get("size=3000001").await;
    let chunked = get("size=3000001&chunked&type=zip").await;
    assert_eq!((sized.header("content-length"), sized.header("content-type")), ("3000001", "application/pdf"));
    assert_eq!((chunked.header("content-length"), chunked.header("content-type")), ("", "application/zip"));
    assert_eq!(sized.body, chunked.body);
    let digest = crate::sandbox::digest::hex(&crate::sandbox::digest::sha256(&sized.body));
    assert_eq!(sized.header("x-sha256"), digest);
    assert_eq!(at.download_digest(3_000_001).await, digest);
    assert_eq!(get("size=0").await.body.len(), 0);
    assert_eq!(get("size=-1").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(sized.body[..1000], sized.body[1_048_573..1_049_573]);
    assert_ne!(sized.body[..1000], sized.body[1_048_576..1_049_576]);
}

#[tokio::test]
async fn a_multipart_upload_is_echoed_by_its_digest() {
    let at = sandbox(&[]).await;
    let auth = bearer(&at, Provider::Ipxo, "billing").await;
    let media = "content-type: multipart/form-data; boundary=XX";
    let logo: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut body = b"--XX\r\nContent-Disposition: form-data; name=\"logo\"; filename=\"l.png\"\r\n\r\n".to_vec();
    body.extend_from_slice(&logo);
    body.extend_from_slice(b"\r\n--XX--\r\n");
    let digest = crate::sandbox::digest::hex(&crate::sandbox::digest::sha256(&body));
    let echo = send(&at, "POST /ipxo/billing/v1/acme/upload", &[&auth, media], body.clone()).await.json();
    assert_eq!((&echo["body"]["length"], &echo["body"]["sha256"]), (&json!(body.len()), &json!(digest)));
    assert_eq!(echo["body"]["text"], json!(null));
}
