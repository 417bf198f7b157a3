//! Secret rotation, with the engine against a small provider.

use std::time::{Duration, Instant};

use cupbearer::{
    config::secret::SecretSource,
    token::{
        Engine, Reader,
        bearer::{FailureKind, Rejection, Unavailable},
        pace::Pace,
    },
};

use crate::support::{Provider, Reply, credential, given, need, quick, secret_file};

fn refused() -> Reply {
    Reply::json(401, r#"{"error":"invalid_client"}"#)
}

/// Long negative caches, so that no trial comes unasked.
fn pace() -> Pace {
    Pace {
        permanent: (Duration::from_secs(300), Duration::from_secs(300)),
        secret_poll: Duration::from_secs(3600),
        ..quick()
    }
}

async fn ask(reader: &Reader, above: u64) -> Result<(), FailureKind> {
    match reader.wait(above, Instant::now() + Duration::from_secs(10)).await {
        Ok(()) => Ok(()),
        Err(Unavailable::Failed(failure)) => Err(failure.kind),
        Err(other) => panic!("{other:?}"),
    }
}

/// An upstream rejects the token of this generation, and a new one is waited for.
async fn renew(reader: &Reader, generation: u64) {
    while reader.reject(generation, Instant::now()) == Rejection::TooFresh {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ask(reader, generation).await, Ok(()));
}

/// Which secret each token request carried.
fn carried(provider: &Provider) -> Vec<String> {
    let secret =
        |body: String| body.split("client_secret=not-a-secret-").nth(1).map(|s| s.split('&').next().map(str::to_owned));
    provider.requests().into_iter().filter_map(|body| secret(body).flatten()).collect()
}

#[tokio::test]
async fn the_next_secret_of_a_list_is_tried_and_the_one_that_works_is_preferred_from_then_on() {
    let provider = Provider::start([refused(), Reply::token("t", 3600)]).await;
    let mut spec = credential(provider.port());
    spec.client_secret = Some(given("not-a-secret-new"));
    spec.more_secrets = vec![given("not-a-secret-old"), given("not-a-secret-older")];
    let engine = Engine::with_pace(pace());
    let reader = engine.reader(&need(spec)).unwrap();
    assert_eq!(ask(&reader, 0).await, Ok(()));
    assert_eq!(carried(&provider), ["new", "old"]);
    let status = &engine.status()[0];
    assert_eq!(status.secret.as_deref(), Some("2 of 3: environment variable GIVEN"));
    assert_eq!((status.succeeded, status.failed), (1, 0));
    renew(&reader, 1).await;
    assert_eq!(carried(&provider), ["new", "old", "old"]);
}

#[tokio::test]
async fn each_listed_secret_costs_one_attempt_and_then_there_is_peace() {
    let provider = Provider::start([refused()]).await;
    let mut spec = credential(provider.port());
    spec.client_secret = Some(given("not-a-secret-one"));
    spec.more_secrets = vec![given("not-a-secret-two")];
    let engine =
        Engine::with_pace(Pace { permanent: (Duration::from_millis(200), Duration::from_secs(300)), ..pace() });
    let reader = engine.reader(&need(spec)).unwrap();
    for _ in 0..20 {
        assert_eq!(ask(&reader, 0).await, Err(FailureKind::Refused));
    }
    assert_eq!(carried(&provider), ["one", "two"]);
    while provider.count() < 3 {
        let _ = ask(&reader, 0).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ask(&reader, 0).await, Err(FailureKind::Refused));
    assert_eq!(carried(&provider), ["one", "two", "one"], "a later trial is a single one");
}

#[tokio::test]
async fn other_failures_try_no_other_secret() {
    let provider = Provider::start([Reply::json(400, r#"{"error":"invalid_scope"}"#)]).await;
    let mut spec = credential(provider.port());
    spec.client_secret = Some(given("not-a-secret-one"));
    spec.more_secrets = vec![given("not-a-secret-two")];
    let engine = Engine::with_pace(pace());
    assert_eq!(ask(&engine.reader(&need(spec)).unwrap(), 0).await, Err(FailureKind::Refused));
    assert_eq!(carried(&provider), ["one"]);
}

#[tokio::test]
async fn a_changed_secret_file_is_tried_and_where_it_is_refused_the_old_secret_stays() {
    let provider = Provider::start([Reply::token("t1", 3600), refused(), Reply::token("t2", 3600)]).await;
    let path = secret_file("not-a-secret-old");
    let mut spec = credential(provider.port());
    spec.client_secret = Some(SecretSource::File(path.clone()));
    let engine = Engine::with_pace(pace());
    let reader = engine.reader(&need(spec)).unwrap();
    assert_eq!(ask(&reader, 0).await, Ok(()));
    std::fs::write(&path, "not-a-secret-wrong").unwrap();
    renew(&reader, 1).await;
    assert_eq!(carried(&provider), ["old", "wrong", "old"]);
    assert_eq!(engine.status()[0].secret.as_deref(), Some("the one before its source changed"));
    renew(&reader, 2).await;
    assert_eq!(carried(&provider), ["old", "wrong", "old", "old"], "what was refused is not tried again");
    std::fs::write(&path, "not-a-secret-right").unwrap();
    renew(&reader, 3).await;
    assert_eq!(carried(&provider)[4..], ["right"]);
    assert!(engine.status()[0].secret.as_deref().is_some_and(|name| name.starts_with("file ")));
}

#[tokio::test]
async fn one_readable_secret_of_a_list_is_enough() {
    let provider = Provider::start([Reply::token("t", 3600)]).await;
    let mut spec = credential(provider.port());
    spec.client_secret = Some(SecretSource::File("/does/not/exist".into()));
    spec.more_secrets = vec![given("not-a-secret-old")];
    let engine = Engine::with_pace(pace());
    assert_eq!(ask(&engine.reader(&need(spec)).unwrap(), 0).await, Ok(()));
    assert_eq!(engine.status()[0].secret.as_deref(), Some("2 of 2: environment variable GIVEN"));
}
