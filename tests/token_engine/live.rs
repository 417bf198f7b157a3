//! The engine against a small provider over real sockets.

use std::time::{Duration, Instant};

use cupbearer::token::{
    Engine, Reader,
    bearer::{Decision, FailureKind, Now, Rejection, Unavailable},
};
use tokio::task::JoinSet;

use crate::support::{Provider, Reply, credential, need, quick, token_json};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(4)
}

/// The token that a request would carry now.
fn carried(reader: &Reader) -> Option<(String, u64)> {
    match reader.glance().decide(Now::read()) {
        Decision::Use(b) | Decision::WaitOr(b) => Some((b.token.expose().to_owned(), b.generation)),
        Decision::Wait | Decision::Fail(_) => None,
    }
}

async fn token(reader: &Reader) -> Result<String, Unavailable> {
    reader.wait(0, soon()).await.map(|()| carried(reader).expect("a token after waiting").0)
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = soon();
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn six_hundred_callers_half_of_whom_go_away_cost_one_token_request() {
    let provider = Provider::start([Reply::Gated(token_json("t1", 3600))]).await;
    let engine = Engine::with_pace(quick());
    let reader = engine.reader(&need(credential(provider.port()))).unwrap();
    let (mut staying, mut leaving) = (JoinSet::new(), JoinSet::new());
    for n in 0..600 {
        let reader = reader.clone();
        let caller = async move { token(&reader).await };
        if n % 2 == 0 {
            staying.spawn(caller)
        } else {
            leaving.spawn(caller)
        };
    }
    eventually("the token request", || provider.count() == 1).await;
    leaving.shutdown().await;
    provider.open();
    let all = staying.join_all().await;
    assert_eq!(all.len(), 300);
    assert!(all.iter().all(|token| token.as_deref().ok() == Some("t1")));
    assert_eq!(provider.count(), 1);
}

#[tokio::test]
async fn all_who_wait_get_the_same_failure() {
    let provider = Provider::start([Reply::json(503, "{}")]).await;
    let engine = Engine::with_pace(quick());
    let reader = engine.reader(&need(credential(provider.port()))).unwrap();
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let reader = reader.clone();
        callers.spawn(async move { token(&reader).await });
    }
    for result in callers.join_all().await {
        assert!(matches!(result, Err(Unavailable::Failed(f)) if f.kind == FailureKind::Unavailable));
    }
    assert_eq!(provider.count(), 1);
}

#[tokio::test]
async fn a_hundred_parallel_rejections_cost_one_token_request() {
    let provider = Provider::start([Reply::token("t1", 3600), Reply::token("t2", 3600)]).await;
    let engine = Engine::with_pace(quick());
    let reader = engine.reader(&need(credential(provider.port()))).unwrap();
    assert_eq!(token(&reader).await.unwrap(), "t1");
    assert_eq!(reader.reject(1, Instant::now()), Rejection::TooFresh);
    tokio::time::sleep(quick().hold.0).await;
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let reader = reader.clone();
        callers.spawn(async move {
            assert_eq!(reader.reject(1, Instant::now()), Rejection::Replaced);
            reader.wait(1, soon()).await.map(|()| carried(&reader).expect("a token"))
        });
    }
    for result in callers.join_all().await {
        assert_eq!(result.unwrap(), ("t2".to_owned(), 2));
    }
    assert_eq!(provider.count(), 2);
}
