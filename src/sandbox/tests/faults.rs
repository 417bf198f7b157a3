//! Every fault does what its name says.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::client::{FORM, bearer, ipxo_login, raw, sandbox, send, try_send};
use crate::sandbox::{IPXO_CLIENT_ID, Provider, Sandbox};

const LOGIN: &[u8] = b"POST /ipxo/oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

async fn login(at: &Sandbox, fault: &str) -> (String, std::io::Result<usize>) {
    at.clear_faults();
    at.fault(&format!("ipxo.idp={fault}")).unwrap();
    raw(at, LOGIN).await
}

fn split(answer: &str) -> (&str, &str) {
    answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"))
}

#[tokio::test]
async fn a_connection_that_is_down_is_reset_and_one_that_is_closed_just_ends() {
    let at = sandbox(&[]).await;
    let (answer, end) = login(&at, "down").await;
    assert_eq!((answer.as_str(), end.unwrap_err().kind()), ("", std::io::ErrorKind::ConnectionReset));
    let (answer, end) = login(&at, "close").await;
    assert_eq!((answer.as_str(), end.unwrap()), ("", 0));
}

#[tokio::test]
async fn a_hanging_provider_answers_nothing_until_the_caller_gives_up() {
    let at = sandbox(&["ipxo.idp=hang"]).await;
    let mut stream = TcpStream::connect(at.address()).await.unwrap();
    stream.write_all(LOGIN).await.unwrap();
    let mut byte = [0];
    let waited = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut byte)).await;
    assert!(waited.is_err());
    assert_eq!(at.log().providers[&Provider::Ipxo].token_requests, 1);
    drop(stream);
    at.clear_faults();
    assert_eq!(ipxo_login(&at, "billing").await.status, StatusCode::OK);
}

#[tokio::test]
async fn truncated_answers_promise_more_than_they_hold() {
    let at = sandbox(&[]).await;
    let (answer, end) = login(&at, "truncated,status:200").await;
    let (head, body) = split(&answer);
    assert!(end.is_ok() && head.contains(&format!("Content-Length: {}", body.len() + 100)), "{head}");
    let (answer, end) = login(&at, "truncated-chunked,html").await;
    let (head, body) = split(&answer);
    assert!(end.is_ok() && head.contains("Transfer-Encoding: chunked") && body.ends_with("</html>\n\r\n"), "{answer}");
    let (answer, end) = login(&at, "reset,html").await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert!(answer.contains("<!DOCTYPE") && !answer.contains("</html>"), "{answer}");
}

#[tokio::test]
async fn answers_that_are_not_http_as_it_should_be() {
    let at = sandbox(&[]).await;
    let (answer, _) = login(&at, "garbage").await;
    assert!(!answer.starts_with("HTTP/"));
    let (answer, _) = login(&at, "conflict,html").await;
    let (head, body) = split(&answer);
    assert!(head.contains("Content-Length:") && head.contains("Transfer-Encoding:") && body.ends_with("\r\n0\r\n\r\n"));
    at.clear_faults();
    for (fault, found) in
        [("upgrade", "HTTP/1.1 101 "), ("surplus,html", "\r\n\r\npoison"), ("early,status:413", "413")]
    {
        at.fault(&format!("ipxo.api={fault},times:1")).unwrap();
        let mut stream = TcpStream::connect(at.address()).await.unwrap();
        // A body of which nothing was sent yet.
        let head = b"POST /ipxo/billing/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n";
        let whole: &[u8] = if fault.starts_with("early") { b"" } else { b"hello" };
        stream.write_all(head).await.unwrap();
        stream.write_all(whole).await.unwrap();
        let mut back = Vec::new();
        while !String::from_utf8_lossy(&back).contains(found) {
            assert!(stream.read_buf(&mut back).await.unwrap() > 0, "{fault}: {}", String::from_utf8_lossy(&back));
        }
    }
}

#[tokio::test]
async fn bytes_drip_one_by_one() {
    let at = sandbox(&["ipxo.idp=drip:5ms,empty", "ipxo.idp=drip:5ms,error-200,times:1"]).await;
    let begun = Instant::now();
    let dripped = send(&at, "POST /ipxo/oauth2/token", &[], "").await;
    assert!(begun.elapsed() > Duration::from_millis(5) * u32::try_from(dripped.body.len() - 1).unwrap());
    assert_eq!(dripped.json()["error"], "temporarily_unavailable");
    assert_eq!(send(&at, "POST /ipxo/oauth2/token", &[], "").await.body.len(), 0);
}

#[tokio::test]
async fn ordered_answers_replace_the_real_one() {
    let at = sandbox(&[]).await;
    let ask = |fault: &'static str| {
        at.clear_faults();
        at.fault(&format!("ipxo.idp={fault}")).unwrap();
        ipxo_login(&at, "billing")
    };
    let limited = ask("status:429,retry-after:date:60").await;
    assert_eq!(limited.status, StatusCode::TOO_MANY_REQUESTS);
    let date = jiff::fmt::rfc2822::parse(limited.header("retry-after")).unwrap().timestamp();
    let ahead = date.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((55..=60).contains(&ahead), "{ahead}");
    assert_eq!(ask("status:503,retry-after:garbage").await.header("retry-after"), "soon");
    assert_eq!(ask("status:401,error:unauthorized_client").await.json()["error"], "unauthorized_client");
    assert_eq!(ask("html").await.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(ask("empty").await.body.len(), 0);
    let error = ask("error-200").await;
    assert_eq!((error.status, error.json()["error"].is_string()), (StatusCode::OK, true));
    let big = ask("big").await;
    assert!(big.body.len() > 10 * 1024 * 1024 && big.json()["padding"].is_string());
    let moved = ask("redirect").await;
    let followed = send(&at, "GET /_sandbox/redirected", &["authorization: Bearer not-a-secret"], "").await;
    assert_eq!((moved.status, followed.status), (StatusCode::FOUND, StatusCode::OK));
    assert!(moved.header("location").ends_with("/_sandbox/redirected"));
    assert_eq!((at.log().redirects_followed, at.log().redirected_authorizations), (1, 1));
    let slow = Instant::now();
    assert_eq!(ask("slow:150ms").await.status, StatusCode::OK);
    assert!(slow.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn lifetimes_are_told_in_every_odd_way() {
    let at = sandbox(&[]).await;
    for (expires, told) in [
        ("string", json!("60")),
        ("ms", json!(60_000)),
        ("float", json!(60.0)),
        ("missing", Value::Null),
        ("zero", json!(0)),
        ("negative", json!(-3600)),
        ("garbage", json!("3600abc")),
    ] {
        at.clear_faults();
        at.fault(&format!("ipxo.idp=ttl:60,expires:{expires}")).unwrap();
        assert_eq!(ipxo_login(&at, "billing").await.json()["expires_in"], told, "{expires}");
    }
}

#[tokio::test]
async fn tokens_come_in_odd_wrappings() {
    let at = sandbox(&["ipxo.idp=nested,token-type"]).await;
    let nested = ipxo_login(&at, "billing").await.json();
    assert!(nested["data"]["token"].is_string() && nested["access_token"].is_null());
    assert_eq!(nested["token_type"], "Application Access Token");
    at.clear_faults();
    at.fault("ipxo.idp=form-reply").unwrap();
    let form = ipxo_login(&at, "billing").await;
    assert_eq!(form.header("content-type"), "application/x-www-form-urlencoded");
    assert!(String::from_utf8_lossy(&form.body).starts_with("access_token="));
    at.clear_faults();
    at.fault("ipxo.idp=shared").unwrap();
    let (first, again) = (ipxo_login(&at, "billing").await.json(), ipxo_login(&at, "billing").await.json());
    assert_eq!(first["access_token"], again["access_token"]);
    assert!(again["expires_in"].as_f64() < first["expires_in"].as_f64());
    assert_ne!(ipxo_login(&at, "dns").await.json()["access_token"], first["access_token"]);
}

#[tokio::test]
async fn a_client_is_locked_after_five_failed_logins() {
    let at = sandbox(&["ipxo.idp=lock"]).await;
    let wrong = format!("grant_type=client_credentials&client_id={IPXO_CLIENT_ID}&client_secret=wrong");
    for _ in 0..5 {
        assert_eq!(ipxo_login(&at, "billing").await.status, StatusCode::OK);
        send(&at, "POST /ipxo/oauth2/token", &[FORM], wrong.clone()).await;
    }
    // The fifth in a row.
    for _ in 0..4 {
        send(&at, "POST /ipxo/oauth2/token", &[FORM], wrong.clone()).await;
    }
    let locked = ipxo_login(&at, "billing").await;
    assert_eq!(locked.status, StatusCode::UNAUTHORIZED);
    assert!(locked.json()["error_description"].as_str().unwrap().contains("locked"));
    at.clear_faults();
    assert_eq!(ipxo_login(&at, "billing").await.status, StatusCode::OK);
}

#[tokio::test]
async fn revoking_is_a_fault_too() {
    let at = sandbox(&[]).await;
    let auth = bearer(&at, Provider::Ipxo, "billing").await;
    at.fault("ipxo.api=revoke").unwrap();
    assert_eq!(send(&at, "GET /ipxo/billing/v1", &[&auth], "").await.status, StatusCode::UNAUTHORIZED);
    let fresh = bearer(&at, Provider::Ipxo, "billing").await;
    assert_eq!(send(&at, "GET /ipxo/billing/v1", &[&fresh], "").await.status, StatusCode::OK);
    assert_eq!(at.log().providers[&Provider::Ipxo].stale_tokens, 1);
}

#[tokio::test]
async fn what_no_strict_server_takes_is_refused_and_counted() {
    let at = sandbox(&[]).await;
    for head in [
        "GET /ipxo/billing/v1 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /ipxo/billing/v1 HTTP/1.1\r\n\r\n",
        "GET /ipxo/billing/v1 HTTP/1.1\r\nHost: a\n\r\n",
        "POST /ipxo/billing/v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET http://elsewhere/ipxo/billing/v1 HTTP/1.1\r\nHost: elsewhere\r\n\r\n",
        "GET /ipxo/billing/v1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\nauthorization: Bearer x\r\n\r\n",
        "PATCH /mythic/dns/v2/zones HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\ncontent-type: c/d\r\n\r\n",
    ] {
        let (answer, _) = raw(&at, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head:?}: {answer}");
    }
    assert!(at.log().providers.is_empty());
    assert_eq!(at.log().strict_refusals.values().sum::<u64>(), 7);
    assert!(try_send(at.address(), None, "GET /nowhere", &[], "".into()).await.unwrap().status.is_client_error());
}
