//! Tokens that no login gives: static ones, and those that a rotating refresh token gives.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cupbearer::{
    config::{
        model::{CredentialSpec, Grant, StoreSpec, TokenSpec},
        secret::{Secret, SecretSource},
    },
    token::{
        Engine, Reader, Store,
        bearer::{Decision, Now},
        store::Seal,
    },
};

use crate::support::{Provider, Reply, adopt, credential, given, log, need, quick, secret_file};

/// The token that a reader gets within seconds, or the error as it is written down.
pub(crate) async fn token(reader: &Reader) -> Result<String, String> {
    let soon = Instant::now() + Duration::from_secs(4);
    reader.wait(0, soon).await.map_err(|e| format!("{e:?}"))?;
    Ok(carried(reader).expect("a token after waiting"))
}

fn carried(reader: &Reader) -> Option<String> {
    match reader.glance().decide(Now::read()) {
        Decision::Use(b) | Decision::WaitOr(b) => Some(b.token.expose().to_owned()),
        Decision::Wait | Decision::Fail(_) => None,
    }
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(4);
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A token with a refresh token beside it.
fn pair(token: &str, refresh: &str) -> Reply {
    Reply::json(200, &format!(r#"{{"access_token":"{token}","expires_in":3600,"refresh_token":"{refresh}"}}"#))
}

fn invalid_grant() -> Reply {
    Reply::json(400, r#"{"error":"invalid_grant"}"#)
}

fn refreshing(provider: &Provider, scope: &str) -> Arc<TokenSpec> {
    let mut c = credential(provider.port());
    c.grant = Grant::RefreshToken { first: Some(given("not-a-token-r1")) };
    c.grant_type = Some("refresh_token".to_owned());
    c.scopes = vec![scope.to_owned()];
    need(c)
}

/// The refresh tokens that came in, in turn.
fn used(provider: &Provider) -> Vec<String> {
    let field = |body: &String| body.split('&').find_map(|p| p.strip_prefix("refresh_token=")).unwrap_or("").to_owned();
    provider.requests().iter().map(field).collect()
}

#[tokio::test]
async fn a_static_token_costs_no_request_and_follows_its_file() {
    let provider = Provider::start([Reply::Hang]).await;
    let path = secret_file("not-a-token-1");
    let c = CredentialSpec {
        grant: Grant::Static { token: SecretSource::File(path.clone()) },
        default_ttl: Duration::from_secs(86_400),
        ..credential(provider.port())
    };
    let engine = Engine::with_pace(quick());
    let reader = engine.reader(&need(c)).unwrap();
    assert_eq!(token(&reader).await.unwrap(), "not-a-token-1");
    std::fs::write(&path, "not-a-token-2\n").unwrap();
    eventually("the new token", || carried(&reader).as_deref() == Some("not-a-token-2")).await;
    std::fs::remove_file(&path).unwrap();
    tokio::time::sleep(quick().secret_poll * 3).await;
    assert_eq!(carried(&reader).as_deref(), Some("not-a-token-2"), "a file that is away takes no token away");
    assert_eq!(provider.count(), 0);
}

#[tokio::test]
async fn a_static_token_that_is_none_blames_the_secret() {
    let c = CredentialSpec { grant: Grant::Static { token: given("two words") }, ..credential(1) };
    let engine = Engine::with_pace(quick());
    let error = token(&engine.reader(&need(c)).unwrap()).await.unwrap_err();
    assert!(error.contains("Secret") && error.contains("characters that no token has"), "{error}");
}

#[tokio::test]
async fn each_answer_brings_the_refresh_token_for_the_next_request_whichever_scope_asks() {
    let provider = Provider::start([pair("t1", "r2"), pair("t2", "r3"), Reply::token("t3", 3600)]).await;
    let engine = Engine::with_pace(quick());
    for (scope, wanted) in [("a", "t1"), ("b", "t2"), ("c", "t3"), ("d", "t3")] {
        let reader = engine.reader(&refreshing(&provider, scope)).unwrap();
        assert_eq!(token(&reader).await.unwrap(), wanted);
    }
    assert_eq!(used(&provider), ["not-a-token-r1", "r2", "r3", "r3"], "without a new one the old one stays");
}

#[tokio::test]
async fn one_refresh_token_is_never_used_by_two_requests_at_once() {
    let replies = (1..=8).map(|n| pair(&format!("t{n}"), &format!("r{n}")));
    let provider = Provider::start(replies).await;
    let engine = Engine::with_pace(quick());
    let readers: Vec<_> = (0..8).map(|n| engine.reader(&refreshing(&provider, &n.to_string())).unwrap()).collect();
    let mut callers = tokio::task::JoinSet::new();
    for reader in readers {
        callers.spawn(async move { token(&reader).await });
    }
    assert!(callers.join_all().await.iter().all(Result::is_ok));
    let mut all = used(&provider);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 8, "{all:?}");
}

#[tokio::test]
async fn only_invalid_grant_ends_a_refresh_token_and_the_first_one_is_tried_again() {
    let unavailable = Reply::json(503, "{}");
    let denied = Reply::json(400, r#"{"error":"invalid_client"}"#);
    let provider = Provider::start([pair("t1", "r2"), unavailable, denied, invalid_grant(), pair("t2", "r9")]).await;
    let engine = Engine::with_pace(quick());
    assert_eq!(token(&engine.reader(&refreshing(&provider, "a")).unwrap()).await.unwrap(), "t1");
    for scope in ["b", "c"] {
        let failed = engine.reader(&refreshing(&provider, scope)).unwrap();
        assert!(token(&failed).await.is_err());
    }
    let reader = engine.reader(&refreshing(&provider, "d")).unwrap();
    assert_eq!(token(&reader).await.unwrap(), "t2");
    assert_eq!(used(&provider)[..5], ["not-a-token-r1", "r2", "r2", "r2", "not-a-token-r1"]);
}

fn store(directory: &std::path::Path) -> Store {
    let key = Secret::new("c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M=".to_owned());
    Store::open(&StoreSpec::File(directory.to_owned()), Some(Seal::new(&key).unwrap())).unwrap()
}

#[tokio::test]
async fn a_rotated_refresh_token_survives_the_process_sealed_and_is_never_printed() {
    log();
    let directory = secret_file("x").with_extension("store");
    let provider = Provider::start([pair("t1", "r2-of-the-store"), pair("t2", "r3-of-the-store")]).await;
    for (scope, wanted) in [("a", "t1"), ("b", "t2")] {
        let engine = Engine::with_pace_and_store(quick(), store(&directory));
        let reader = engine.reader(&refreshing(&provider, scope)).unwrap();
        assert_eq!(token(&reader).await.unwrap(), wanted);
    }
    assert_eq!(used(&provider), ["not-a-token-r1", "r2-of-the-store"]);
    for file in std::fs::read_dir(&directory).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(memchr::memmem::find(&bytes, b"of-the-store").is_none(), "a readable refresh token");
    }
    assert!(!log().contains("of-the-store"));
}

#[tokio::test]
async fn a_refresh_token_beside_a_token_that_is_no_good_is_the_next_one_to_use() {
    let botched = r#"{"access_token":"t1","expires_in":0,"refresh_token":"r2"}"#;
    let refused = r#"{"error":"not_today","refresh_token":"r3"}"#;
    let provider = Provider::start([Reply::json(200, botched), Reply::json(200, refused), pair("t2", "r4")]).await;
    let directory = secret_file("x").with_extension("store");
    for (scope, wanted) in [("a", None), ("b", None), ("c", Some("t2"))] {
        let engine = Engine::with_pace_and_store(quick(), store(&directory));
        let got = token(&engine.reader(&refreshing(&provider, scope)).unwrap()).await;
        assert_eq!(got.ok().as_deref(), wanted);
    }
    assert_eq!(used(&provider), ["not-a-token-r1", "r2", "r3"]);
}

#[tokio::test]
async fn a_key_that_is_no_longer_wanted_ends_only_after_its_fetch() {
    let next = r#"{"access_token":"t1","expires_in":3600,"refresh_token":"r2"}"#;
    let provider = Provider::start([Reply::Gated(next.to_owned()), pair("t2", "r3")]).await;
    let engine = Engine::with_pace(quick());
    let reader = engine.reader(&refreshing(&provider, "a")).unwrap();
    let caller = tokio::spawn(async move { token(&reader).await });
    eventually("the token request", || provider.count() == 1).await;
    adopt(&engine, []);
    caller.abort();
    assert!(caller.await.is_err(), "and with it the last reader");
    tokio::time::sleep(quick().tick * 2).await; // a retired key has looked whether anybody is left
    provider.open();
    let reader = engine.reader(&refreshing(&provider, "b")).unwrap();
    assert_eq!(token(&reader).await.unwrap(), "t2");
    assert_eq!(used(&provider), ["not-a-token-r1", "r2"]);
}

#[tokio::test]
async fn a_refresh_token_that_only_memory_holds_outlives_a_configuration_without_its_credential() {
    let provider = Provider::start([pair("t1", "r2"), pair("t2", "r3")]).await;
    let (engine, spec) = (Engine::with_pace(quick()), refreshing(&provider, "a"));
    let [reader] = adopt(&engine, [&spec]);
    assert_eq!(token(&reader).await.unwrap(), "t1");
    drop(reader);
    adopt(&engine, []);
    tokio::time::sleep(quick().tick * 2).await;
    adopt(&engine, []); // whatever nobody uses goes now
    let [reader] = adopt(&engine, [&spec]);
    assert_eq!(token(&reader).await.unwrap(), "t2");
    assert_eq!(used(&provider), ["not-a-token-r1", "r2"], "the first one is spent");
}

#[tokio::test]
async fn an_engine_that_stops_keeps_the_refresh_token_that_is_on_its_way_and_begins_nothing_new() {
    let directory = secret_file("x").with_extension("store");
    let next = r#"{"access_token":"t1","expires_in":3600,"refresh_token":"r2"}"#;
    let provider = Provider::start([Reply::Gated(next.to_owned()), pair("t2", "r3")]).await;
    let engine = Engine::with_pace_and_store(quick(), store(&directory));
    let readers = ["a", "b"].map(|scope| engine.reader(&refreshing(&provider, scope)).unwrap());
    let callers = readers.map(|reader| tokio::spawn(async move { token(&reader).await }));
    eventually("the token request", || provider.count() == 1).await;
    let stopping = tokio::spawn(async move { engine.stop().await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!stopping.is_finished(), "the answer is on its way");
    provider.open();
    stopping.await.unwrap();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Err("Gone".to_owned()));
    }
    assert_eq!(used(&provider), ["not-a-token-r1"], "the other one had not begun");
    let engine = Engine::with_pace_and_store(quick(), store(&directory));
    assert_eq!(token(&engine.reader(&refreshing(&provider, "b")).unwrap()).await.unwrap(), "t2");
    assert_eq!(used(&provider), ["not-a-token-r1", "r2"]);
}

#[tokio::test]
async fn a_stored_token_that_is_about_to_end_is_not_taken_up() {
    let directory = secret_file("x").with_extension("store");
    let provider = Provider::start([Reply::token("t1", 1), Reply::token("t2", 3600)]).await;
    for wanted in ["t1", "t2", "t2"] {
        let engine = Engine::with_pace_and_store(quick(), store(&directory));
        assert_eq!(token(&engine.reader(&need(credential(provider.port()))).unwrap()).await.unwrap(), wanted);
    }
    assert_eq!(provider.count(), 2);
}

#[tokio::test]
async fn a_configured_refresh_token_that_was_replaced_begins_a_new_chain() {
    let provider = Provider::start([pair("t1", "r2"), pair("t2", "s2")]).await;
    let directory = secret_file("x").with_extension("store");
    for (first, wanted) in [("not-a-token-r1", "t1"), ("not-a-token-s1", "t2")] {
        let mut spec = (*refreshing(&provider, "a")).clone();
        let c = Arc::make_mut(&mut spec.credential);
        c.grant = Grant::RefreshToken { first: Some(given(first)) };
        let engine = Engine::with_pace_and_store(quick(), store(&directory));
        assert_eq!(token(&engine.reader(&Arc::new(spec)).unwrap()).await.unwrap(), wanted);
    }
    assert_eq!(used(&provider), ["not-a-token-r1", "not-a-token-s1"]);
}

/// A login by key and secret, whose answer brings a refresh token for another endpoint (IX-API).
fn login(provider: &Provider, scope: &str) -> Arc<TokenSpec> {
    let mut c = credential(provider.port());
    (c.grant_type, c.refresh_target) = (None, Some("/auth/refresh".to_owned()));
    c.scopes = vec![scope.to_owned()];
    need(c)
}

#[tokio::test]
async fn a_refused_refresh_of_a_login_is_followed_by_a_login() {
    let refused = Reply::json(401, r#"{"type":"authentication-error"}"#);
    let provider = Provider::start([pair("t1", "r1"), pair("t2", "r2"), refused, pair("t3", "r3")]).await;
    let engine = Engine::with_pace(quick());
    for (scope, wanted) in [("a", "t1"), ("b", "t2"), ("c", "t3")] {
        assert_eq!(token(&engine.reader(&login(&provider, scope)).unwrap()).await.unwrap(), wanted);
    }
    assert_eq!(used(&provider), ["", "r1", "r2", ""]);
}
