//! A provider of which only the issuer is known.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cupbearer::{
    config::model::{CredentialSpec, Issuer, TokenSpec},
    token::{
        Engine, Key, Reader,
        bearer::{Decision, FailureKind, Now, Rejection, Unavailable},
        pace::Pace,
    },
};

use crate::support::{Provider, Reply, credential, log, need, quick, upstream};

/// A credential that knows only its issuer, `http://127.0.0.1:PORT`.
fn discovering(port: u16) -> CredentialSpec {
    let mut c = credential(port);
    let (identifier, url) = (format!("http://127.0.0.1:{port}"), upstream(port));
    c.issuer = Some(Arc::new(Issuer { identifier, url, hosts: Vec::new(), tells_token_url: true }));
    "/".clone_into(&mut c.token_target);
    c
}

fn document(issuer: u16, token: u16) -> Reply {
    let body = format!(r#"{{"issuer":"http://127.0.0.1:{issuer}","token_endpoint":"http://127.0.0.1:{token}/t"}}"#);
    Reply::json(200, &body)
}

/// A document is good for as long as these tests say.
fn pace(keep: Duration) -> Pace {
    Pace { discovery: (keep, keep), ..quick() }
}

const LONG: Duration = Duration::from_secs(3600);

async fn provider(replies: impl FnOnce(u16) -> Vec<Reply>) -> Provider {
    let provider = Provider::start([Reply::Hang]).await;
    provider.turn_to(replies(provider.port()));
    provider
}

async fn token(reader: &Reader, above: u64) -> Result<(String, u64), Unavailable> {
    reader.wait(above, Instant::now() + Duration::from_secs(4)).await?;
    match reader.glance().decide(Now::read()) {
        Decision::Use(b) | Decision::WaitOr(b) => Ok((b.token.expose().to_owned(), b.generation)),
        other => panic!("{other:?} after waiting"),
    }
}

fn failure(result: Result<(String, u64), Unavailable>) -> (FailureKind, String) {
    match result {
        Err(Unavailable::Failed(failure)) => (failure.kind, failure.message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_token_endpoint_is_discovered_once_for_all_tokens_of_the_issuer() {
    let provider =
        provider(|port| vec![document(port, port), Reply::token("t1", 3600), Reply::token("t2", 3600)]).await;
    let engine = Engine::with_pace(pace(LONG));
    let first = engine.reader(&need(discovering(provider.port()))).unwrap();
    let mut other = TokenSpec::clone(&need(discovering(provider.port())));
    other.scopes = vec!["b".to_owned()];
    let second = engine.reader(&Arc::new(other)).unwrap();
    let (one, two) = tokio::join!(token(&first, 0), token(&second, 0));
    let mut tokens = [one.unwrap().0, two.unwrap().0];
    tokens.sort();
    assert_eq!(tokens, ["t1", "t2"]);
    assert_eq!(provider.count(), 3, "one document, two tokens");
    assert_eq!(provider.requests()[0], "", "the document is asked for without anything of ours");
    assert_eq!(engine.found_endpoints().borrow().len(), 1);
}

#[tokio::test]
async fn only_where_there_is_no_openid_document_is_the_one_of_oauth_asked_for() {
    let engine = Engine::with_pace(pace(LONG));
    for status in [404, 400, 401, 403, 405] {
        let replies = |port| vec![Reply::json(status, "{}"), document(port, port), Reply::token("t1", 3600)];
        let found = provider(replies).await;
        let reader = engine.reader(&need(discovering(found.port()))).unwrap();
        assert_eq!(token(&reader, 0).await.unwrap().0, "t1", "after HTTP {status}");
    }
    let refuses = provider(|_| vec![Reply::json(403, "{}")]).await;
    let reader = engine.reader(&need(discovering(refuses.port()))).unwrap();
    assert!(failure(token(&reader, 0).await).1.contains("openid-configuration answered HTTP 403"));
    let neither = provider(|_| vec![Reply::json(404, "{}")]).await;
    let reader = engine.reader(&need(discovering(neither.port()))).unwrap();
    let (kind, message) = failure(token(&reader, 0).await);
    assert_eq!(kind, FailureKind::Unavailable);
    for part in
        ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server", "HTTP 404", "token_url"]
    {
        assert!(message.contains(part), "{message}");
    }
    let down = provider(|_| vec![Reply::json(503, "{}")]).await;
    let reader = engine.reader(&need(discovering(down.port()))).unwrap();
    assert!(failure(token(&reader, 0).await).1.contains("HTTP 503"));
    assert_eq!(down.count(), 1, "a provider that is down is not asked twice");
}

#[tokio::test]
async fn a_provider_that_is_down_heals_when_it_is_back() {
    let provider = provider(|_| vec![Reply::CutOff]).await;
    let engine = Engine::with_pace(pace(LONG));
    let reader = engine.reader(&need(discovering(provider.port()))).unwrap();
    let (kind, message) = failure(token(&reader, 0).await);
    assert_eq!(kind, FailureKind::Unavailable);
    assert!(message.contains("discovery failed"), "{message}");
    provider.turn_to([document(provider.port(), provider.port()), Reply::token("t1", 3600)]);
    let deadline = Instant::now() + Duration::from_secs(4);
    while token(&reader, 0).await.is_err() {
        assert!(Instant::now() < deadline, "it never healed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_document_of_another_issuer_is_refused_for_good_and_no_secret_is_sent() {
    let provider = provider(|port| vec![document(port + 1, port)]).await;
    let engine = Engine::with_pace(pace(LONG));
    let reader = engine.reader(&need(discovering(provider.port()))).unwrap();
    let (kind, message) = failure(token(&reader, 0).await);
    assert_eq!(kind, FailureKind::Refused);
    assert!(message.contains(&format!("http://127.0.0.1:{}", provider.port() + 1)), "{message}");
    assert!(message.contains("is configured"), "{message}");
    assert_eq!(provider.requests(), [""]);
}

#[tokio::test]
async fn redirects_html_and_huge_documents_are_failures_that_are_named() {
    let redirect =
        Reply::Answer { status: 302, headers: vec![("location", "/elsewhere".to_owned())], body: String::new() };
    let huge = Reply::json(200, &format!(r#"{{"issuer":"{}"}}"#, "x".repeat(1024 * 1024)));
    for (reply, part) in [(redirect, "redirect"), (Reply::json(200, "<html>"), "no JSON"), (huge, "larger than 1 MiB")]
    {
        let provider = provider(|_| vec![reply]).await;
        let engine = Engine::with_pace(pace(LONG));
        let reader = engine.reader(&need(discovering(provider.port()))).unwrap();
        let (kind, message) = failure(token(&reader, 0).await);
        assert!(kind == FailureKind::Unavailable && message.contains(part), "{message}");
        assert_eq!(provider.count(), 1);
    }
}

#[tokio::test]
async fn an_old_document_is_better_than_none() {
    log();
    let provider = provider(|port| vec![document(port, port), Reply::token("t1", 3600), Reply::json(500, "{}")]).await;
    let engine = Engine::with_pace(pace(Duration::ZERO));
    let reader = engine.reader(&need(discovering(provider.port()))).unwrap();
    let (_, generation) = token(&reader, 0).await.unwrap();
    tokio::time::sleep(Duration::from_millis(110)).await;
    provider.turn_to([Reply::json(500, "{}"), Reply::token("t2", 3600)]);
    assert_eq!(reader.reject(generation, Instant::now()), Rejection::Replaced);
    assert_eq!(token(&reader, generation).await.unwrap().0, "t2");
    assert!(log().contains("what was discovered before stays in use"));
}

#[tokio::test]
async fn a_token_endpoint_that_has_moved_is_looked_up_again() {
    let (old, new) = (Provider::start([Reply::Hang]).await, Provider::start([Reply::token("t2", 3600)]).await);
    old.turn_to([document(old.port(), old.port()), Reply::json(404, "{}"), document(old.port(), new.port())]);
    let engine = Engine::with_pace(pace(LONG));
    let reader = engine.reader(&need(discovering(old.port()))).unwrap();
    assert_eq!(failure(token(&reader, 0).await).0, FailureKind::Refused);
    let deadline = Instant::now() + Duration::from_secs(4);
    let found = loop {
        match token(&reader, 0).await {
            Ok((token, _)) => break token,
            Err(_) => assert!(Instant::now() < deadline, "it never healed"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(found, "t2");
    assert_eq!(engine.found_endpoints().borrow().len(), 2);
}

fn issuer(c: &mut CredentialSpec) -> &mut Issuer {
    Arc::make_mut(c.issuer.as_mut().expect("there"))
}

#[test]
fn the_issuer_is_part_of_a_tokens_identity() {
    let key = |change: fn(&mut CredentialSpec)| {
        let mut c = discovering(7);
        change(&mut c);
        Key::of(&need(c))
    };
    let keys = [
        key(|_| {}),
        key(|c| c.issuer = None),
        key(|c| issuer(c).identifier.push('/')),
        key(|c| issuer(c).hosts.push("x".to_owned())),
        key(|c| issuer(c).tells_token_url = false),
    ];
    let distinct: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
}
