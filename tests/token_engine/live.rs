//! The engine against a small provider over real sockets.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cupbearer::{
    config::{
        model::{Budget, ClientAuth, NetSpec, Param, Scheme, Warm},
        secret::SecretSource,
    },
    token::{
        Engine, Reader,
        bearer::{Decision, FailureKind, MAX_WAITERS, Now, Rejection, Unavailable},
        endpoint::CONNECT_TIMEOUT,
        pace::Pace,
    },
};
use tokio::task::JoinSet;

use crate::support::{Provider, Reply, adopt, credential, given, log, need, quick, secret_file, token_json};

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

fn failure(result: Result<String, Unavailable>) -> (FailureKind, String) {
    match result {
        Err(Unavailable::Failed(failure)) => (failure.kind, failure.message),
        other => panic!("{other:?} is no cached failure"),
    }
}

#[tokio::test]
async fn a_provider_that_is_down_at_start_is_found_again_by_itself() {
    let provider = Provider::start([Reply::Hang]).await;
    let address = provider.address;
    provider.stop().await;
    let mut always = credential(address.port());
    always.warm = Warm::Always;
    let engine = Engine::with_pace(quick());
    let reader = engine.reader(&need(always)).unwrap();
    let (kind, message) = failure(token(&reader).await);
    assert_eq!(kind, FailureKind::Unavailable);
    assert!(
        message.contains(&format!("127.0.0.1:{} gave no token for the credential \"acme\"", address.port())),
        "{message}"
    );
    let _provider = Provider::start_at(address, [Reply::token("t1", 3600)]).await;
    eventually("a token", || carried(&reader).is_some()).await;
}

#[tokio::test]
async fn a_provider_that_is_down_costs_nobody_else_anything() {
    let (down, up) = (Provider::start([Reply::Hang]).await, Provider::start([Reply::token("t1", 3600)]).await);
    let engine = Engine::with_pace(quick());
    let hanging = engine.reader(&need(credential(down.port()))).unwrap();
    let working = engine.reader(&need(credential(up.port()))).unwrap();
    let waiting = tokio::spawn(async move { token(&hanging).await });
    eventually("the hanging request", || down.count() == 1).await;
    assert_eq!(token(&working).await.unwrap(), "t1");
    waiting.abort();
}

#[tokio::test]
async fn a_hanging_provider_is_a_timeout_after_the_credentials_own_time() {
    let provider = Provider::start([Reply::Hang]).await;
    let mut spec = credential(provider.port());
    spec.timeout = Duration::from_millis(60);
    let engine = Engine::with_pace(quick());
    let (kind, message) = failure(token(&engine.reader(&need(spec)).unwrap()).await);
    assert_eq!(kind, FailureKind::Timeout);
    assert!(message.ends_with("no complete answer within 60ms"), "{message}");
}

#[tokio::test]
async fn a_provider_that_drips_its_answer_is_a_timeout_too() {
    let provider = Provider::start([Reply::Drip]).await;
    let mut spec = credential(provider.port());
    spec.timeout = Duration::from_millis(100);
    let engine = Engine::with_pace(quick());
    let (kind, _) = failure(token(&engine.reader(&need(spec)).unwrap()).await);
    assert_eq!(kind, FailureKind::Timeout);
}

#[tokio::test]
async fn an_answer_beyond_a_mebibyte_is_not_read() {
    let body = format!(r#"{{"access_token":"t1","pad":"{}"}}"#, "x".repeat(1024 * 1024));
    let provider = Provider::start([Reply::json(200, &body)]).await;
    let engine = Engine::with_pace(quick());
    let (kind, message) = failure(token(&engine.reader(&need(credential(provider.port()))).unwrap()).await);
    assert_eq!(kind, FailureKind::Unavailable);
    assert!(message.ends_with("its answer is larger than 1 MiB"), "{message}");
}

#[tokio::test]
async fn what_is_no_answer_is_tried_again_until_a_token_comes() {
    let html = Reply::Answer { status: 200, headers: Vec::new(), body: "<html>".to_owned() };
    let replies = [html, Reply::json(200, ""), Reply::CutOff, Reply::NoHttp, Reply::token("t1", 3600)];
    let provider = Provider::start(replies).await;
    let mut always = credential(provider.port());
    always.warm = Warm::Always;
    let engine = Engine::with_pace(quick());
    let reader = engine.reader(&need(always)).unwrap();
    eventually("a token", || carried(&reader).is_some()).await;
    let status = &engine.status()[0];
    assert_eq!((status.state, status.succeeded, status.failed), ("fresh", 1, 4));
    assert!(!status.failing && status.last_error.is_some());
}

#[tokio::test]
async fn retry_after_keeps_everybody_away() {
    let limited = Reply::Answer { status: 429, headers: vec![("retry-after", "1".to_owned())], body: String::new() };
    let provider = Provider::start([limited, Reply::token("t1", 3600)]).await;
    let engine = Engine::with_pace(quick());
    let reader = engine.reader(&need(credential(provider.port()))).unwrap();
    let asked = Instant::now();
    for _ in 0..100 {
        failure(token(&reader).await);
    }
    assert_eq!(provider.count(), 1);
    eventually("the token, by itself", || carried(&reader).is_some()).await;
    assert!(asked.elapsed() >= Duration::from_secs(1));
    assert_eq!(provider.count(), 2);
}

#[tokio::test]
async fn a_refused_secret_is_cached_until_its_file_changes() {
    let provider = Provider::start([Reply::json(401, r#"{"error":"invalid_client"}"#)]).await;
    let path = secret_file("not-a-secret-old");
    let mut spec = credential(provider.port());
    spec.client_secret = Some(SecretSource::File(path.clone()));
    let engine = Engine::with_pace(Pace { permanent: (Duration::from_secs(300), Duration::from_secs(300)), ..quick() });
    let reader = engine.reader(&need(spec)).unwrap();
    for _ in 0..20 {
        let (kind, message) = failure(token(&reader).await);
        assert_eq!(kind, FailureKind::Refused);
        assert!(
            message.contains("refused the credential \"acme\": invalid_client (HTTP 401). Check client_id"),
            "{message}"
        );
    }
    assert_eq!(provider.count(), 1);
    provider.turn_to([Reply::token("t1", 3600)]);
    std::fs::write(path, "not-a-secret-new").unwrap();
    eventually("the token, by itself", || carried(&reader).is_some()).await;
    assert!(provider.requests()[1].contains("client_secret=not-a-secret-new"));
}

#[tokio::test]
async fn a_secret_that_appears_later_is_found() {
    let provider = Provider::start([Reply::token("t1", 3600)]).await;
    let path = secret_file("not-a-secret");
    std::fs::remove_file(&path).unwrap();
    let mut spec = credential(provider.port());
    spec.client_secret = Some(SecretSource::File(path.clone()));
    let engine = Engine::with_pace(quick());
    let reader = engine.reader(&need(spec)).unwrap();
    let (kind, message) = failure(token(&reader).await);
    assert_eq!(kind, FailureKind::Secret);
    assert!(message.contains("client_secret cannot be read"), "{message}");
    assert_eq!(provider.count(), 0);
    std::fs::write(path, "not-a-secret").unwrap();
    eventually("the token, by itself", || carried(&reader).is_some()).await;
}

#[tokio::test]
async fn a_token_in_use_is_replaced_before_it_ends_and_no_request_ever_waits() {
    let provider = Provider::start([Reply::token("t1", 1), Reply::token("t2", 3600)]).await;
    let engine = Engine::with_pace(quick());
    let reader = engine.reader(&need(credential(provider.port()))).unwrap();
    assert_eq!(token(&reader).await.unwrap(), "t1");
    let mut seen = Vec::new();
    eventually("the second token", || {
        let glance = reader.glance();
        let Decision::Use(bearer) = glance.decide(Now::read()) else { panic!("a request would wait") };
        reader.used(bearer.generation, Instant::now());
        seen.push(bearer.generation);
        bearer.generation == 2
    })
    .await;
    assert!(seen.len() > 10, "{} looks", seen.len());
    assert_eq!(provider.count(), 2);
}

#[tokio::test]
async fn equal_needs_share_one_token_and_a_reload_keeps_it() {
    let provider = Provider::start([Reply::token("t1", 3600), Reply::token("t2", 3600)]).await;
    let engine = Engine::with_pace(quick());
    let (one, mut other) = (credential(provider.port()), credential(provider.port()));
    other.name = "acme-again".to_owned();
    let (one, other) = (need(one), need(other));
    assert_eq!(token(&engine.reader(&one).unwrap()).await.unwrap(), "t1");
    assert_eq!(token(&engine.reader(&other).unwrap()).await.unwrap(), "t1");
    let names: Vec<_> = engine.status().into_iter().map(|s| (s.credential, s.fingerprint.is_some())).collect();
    assert_eq!(names, [("acme".to_owned(), true), ("acme-again".to_owned(), true)]);
    let [kept] = adopt(&engine, [&one]);
    assert_eq!(token(&kept).await.unwrap(), "t1");
    let names: Vec<_> = engine.status().into_iter().map(|s| s.credential).collect();
    assert_eq!(names, ["acme"], "the other name has gone");
    assert_eq!(provider.count(), 1);
}

#[tokio::test]
async fn a_key_that_no_configuration_names_serves_its_last_readers_and_ends() {
    let provider = Provider::start([Reply::token("t1", 3600), Reply::token("t2", 3600)]).await;
    let engine = Engine::with_pace(quick());
    let spec = need(credential(provider.port()));
    let reader = engine.reader(&spec).unwrap();
    adopt(&engine, []);
    assert!(engine.status().is_empty());
    assert_eq!(token(&reader).await.unwrap(), "t1");
    drop(reader);
    // The task finds out within a tick, and its end shows in what it held.
    let begun = Instant::now();
    let fresh = loop {
        let fresh = engine.reader(&spec).unwrap();
        if carried(&fresh).is_none() {
            break fresh;
        }
        adopt(&engine, []);
        drop(fresh);
        assert!(begun.elapsed() < Duration::from_secs(4), "it never ended");
        tokio::time::sleep(quick().tick * 2).await;
    };
    assert_eq!(token(&fresh).await.unwrap(), "t2");
}

#[tokio::test]
async fn a_key_that_comes_back_while_somebody_uses_it_is_the_same_one_and_is_kept_warm_again() {
    let provider = Provider::start([Reply::token("t1", 2), Reply::token("t2", 3600)]).await;
    let mut always = credential(provider.port());
    always.warm = Warm::Always;
    let (engine, spec) = (Engine::with_pace(quick()), need(always));
    let [old] = adopt(&engine, [&spec]);
    assert_eq!(token(&old).await.unwrap(), "t1");
    adopt(&engine, []);
    let [back] = adopt(&engine, [&spec]);
    assert_eq!(carried(&back).map(|(token, _)| token).as_deref(), Some("t1"));
    drop(old);
    eventually("the next one, unasked", || carried(&back).is_some_and(|(token, _)| token == "t2")).await;
    assert_eq!((provider.count(), engine.status().len()), (2, 1));
}

#[tokio::test]
async fn a_configuration_that_is_rejected_changes_nothing() {
    let provider = Provider::start([Reply::token("t1", 3600), Reply::token("t2", 3600)]).await;
    let engine = Engine::with_pace(quick());
    let mut limited = credential(provider.port());
    limited.budget = Some(Budget { limit: 5, window: Duration::from_secs(3600) });
    let spec = need(limited.clone());
    let [reader] = adopt(&engine, [&spec]);
    assert_eq!(token(&reader).await.unwrap(), "t1");
    let before = engine.status();
    {
        let mut plan = engine.plan();
        let mut other = limited.clone();
        (other.name, other.budget) = ("renamed".to_owned(), None);
        assert_eq!(token(&plan.reader(&need(other)).unwrap()).await.unwrap(), "t1", "the same cell");
        let mut new = limited.clone();
        (new.warm, new.scopes) = (Warm::Always, vec!["more".to_owned()]);
        plan.reader(&need(new)).unwrap();
    }
    tokio::time::sleep(quick().tick).await;
    assert_eq!(provider.count(), 1, "nobody asked for the new one");
    let (before, after) = (&before[0], engine.status());
    assert_eq!((after.len(), &after[0].credential, after[0].budget), (1, &before.credential, before.budget));
}

#[tokio::test]
async fn a_changed_credential_gets_a_new_token_and_an_unchanged_one_keeps_its_own() {
    let provider =
        Provider::start([Reply::token("t1", 3600), Reply::token("t2", 3600), Reply::token("t3", 3600)]).await;
    let engine = Engine::with_pace(quick());
    let scoped = |scope: &str, secret: &str| {
        let mut spec = credential(provider.port());
        (spec.scopes, spec.client_secret) = (vec![scope.to_owned()], Some(given(secret)));
        need(spec)
    };
    let [one, two] = adopt(&engine, [&scoped("a", "not-a-secret-1"), &scoped("b", "not-a-secret-1")]);
    assert_eq!((token(&one).await.unwrap(), token(&two).await.unwrap()), ("t1".to_owned(), "t2".to_owned()));
    let [same, changed] = adopt(&engine, [&scoped("a", "not-a-secret-1"), &scoped("b", "not-a-secret-2")]);
    assert_eq!((token(&same).await.unwrap(), token(&changed).await.unwrap()), ("t1".to_owned(), "t3".to_owned()));
    assert_eq!(token(&two).await.unwrap(), "t2", "who still holds the old one goes on with it");
    assert!(provider.requests()[2].contains("not-a-secret-2"));
    assert_eq!(engine.status().len(), 2);
}

#[tokio::test]
async fn who_waits_when_the_engine_ends_is_told_so_and_nothing_is_left_behind() {
    let provider = Provider::start([Reply::Hang]).await;
    let engine = Engine::with_pace(quick());
    let reader = engine.reader(&need(credential(provider.port()))).unwrap();
    let waiting = tokio::spawn(async move { token(&reader).await });
    eventually("the token request", || provider.count() == 1).await;
    assert_eq!(provider.open_connections(), 1);
    drop(engine);
    assert!(matches!(waiting.await.unwrap(), Err(Unavailable::Gone)));
    eventually("the connection's end", || provider.open_connections() == 0).await;
}

#[tokio::test]
async fn too_many_waiters_are_turned_away() {
    let provider = Provider::start([Reply::Hang]).await;
    let engine = Engine::with_pace(quick());
    let reader = engine.reader(&need(credential(provider.port()))).unwrap();
    let mut waiting = JoinSet::new();
    for _ in 0..MAX_WAITERS {
        let reader = reader.clone();
        waiting.spawn(async move { token(&reader).await });
    }
    eventually("the token request", || provider.count() == 1).await;
    assert!(matches!(token(&reader).await, Err(Unavailable::Crowded)));
    waiting.shutdown().await;
    assert!(matches!(reader.wait(0, Instant::now()).await, Err(Unavailable::TimedOut)));
}

#[tokio::test]
async fn neither_secret_nor_token_is_in_any_log_at_trace_level() {
    log();
    let refused = r#"{"error":"invalid_client","error_description":"not-a-secret-for-the-log?"}"#;
    let provider = Provider::start([Reply::json(401, refused), Reply::token("not-a-token-for-the-log", 3600)]).await;
    let mut spec = credential(provider.port());
    spec.name = "logged".to_owned();
    spec.client_auth = ClientAuth::Basic;
    spec.client_secret = Some(given("not-a-secret-for-the-log"));
    spec.params = vec![("key".to_owned(), Param::Secret(given("not-a-key-for-the-log")))];
    let engine = Engine::with_pace(quick());
    let reader = engine.reader(&need(spec)).unwrap();
    let (_, message) = failure(token(&reader).await);
    eventually("the next trial", || carried(&reader).is_some() || reader_asks(&reader)).await;
    let minted = token(&reader).await.unwrap();
    assert_eq!(minted, "not-a-token-for-the-log");
    let shown = format!("{} {message} {reader:?} {:?}", log(), engine.status());
    assert!(shown.contains("token fetched") && shown.contains("invalid_client"));
    for secret in ["for-the-log", "Y2xpZW50LTE6bm90LWEtc2VjcmV0LWZvci10aGUtbG9n"] {
        assert!(!shown.contains(secret), "{secret} was shown");
    }
}

/// Whether the negative cache has ended, so that the next request would ask again.
fn reader_asks(reader: &Reader) -> bool {
    matches!(reader.glance().decide(Now::read()), Decision::Wait)
}

#[tokio::test]
async fn over_tls_the_provider_must_be_one_that_ca_file_vouches_for_and_no_log_shows_what_was_said() {
    log();
    let provider = Provider::start_tls([Reply::token("not-a-token-over-tls", 3600)]).await;
    let mut spec = credential(provider.port());
    spec.name = "sealed".to_owned();
    spec.token_url.scheme = Scheme::Https;
    spec.client_secret = Some(given("not-a-secret-over-tls"));
    let engine = Engine::with_pace(quick());
    let (kind, message) = failure(token(&engine.reader(&need(spec.clone())).unwrap()).await);
    assert_eq!(kind, FailureKind::Unavailable);
    assert!(
        message.contains("TLS with 127.0.0.1") && message.contains("issued by nobody who is trusted here"),
        "{message}"
    );
    assert_eq!(provider.count(), 0);
    spec.net = Arc::new(NetSpec { ca_file: provider.ca_file.clone(), ..NetSpec::default() });
    let minted = token(&engine.reader(&need(spec)).unwrap()).await.unwrap();
    assert_eq!(minted, "not-a-token-over-tls");
    assert!(log().contains("rustls::client"), "the log goes down to trace");
    assert!(!log().contains("over-tls"));
}

#[tokio::test]
async fn what_failed_is_tried_anew_where_a_reload_brings_another_ca_file_and_only_there() {
    let (provider, other) =
        (Provider::start_tls([Reply::token("t", 3600)]).await, Provider::start_tls([Reply::Hang]).await);
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ca-{}.pem", std::process::id()));
    let trust = |provider: &Provider| std::fs::copy(provider.ca_file.as_ref().unwrap(), &file).unwrap();
    trust(&other);
    let mut spec = credential(provider.port());
    spec.token_url.scheme = Scheme::Https;
    spec.net = Arc::new(NetSpec { ca_file: Some(file.clone()), ..NetSpec::default() });
    let (need, hour) = (need(spec), Duration::from_secs(3600));
    let engine = Engine::with_pace(Pace { transient: (hour, hour), ..quick() });
    let [reader] = adopt(&engine, [&need]);
    assert_eq!(failure(token(&reader).await).0, FailureKind::Unavailable);
    let [reader] = adopt(&engine, [&need]);
    assert_eq!(failure(token(&reader).await).0, FailureKind::Unavailable);
    assert_eq!(engine.status()[0].failed, 1, "nothing has changed");
    trust(&provider);
    let [reader] = adopt(&engine, [&need]);
    while token(&reader).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn a_ca_file_that_is_missing_is_named_when_the_engine_is_asked() {
    let mut spec = credential(1);
    spec.net = Arc::new(NetSpec { ca_file: Some("no-such-ca.pem".into()), ..NetSpec::default() });
    let error = Engine::new().reader(&need(spec)).unwrap_err().to_string();
    assert!(error.contains("acme") && error.contains("no-such-ca.pem"), "{error}");
}

#[tokio::test]
async fn a_provider_that_tells_no_lifetime_is_warned_of_once() {
    log();
    let provider = Provider::start([Reply::json(200, r#"{"access_token":"t1"}"#)]).await;
    let mut spec = credential(provider.port());
    (spec.name, spec.default_ttl, spec.warm) = ("told-nothing".to_owned(), Duration::from_secs(1), Warm::Always);
    let engine = Engine::with_pace(quick());
    let _reader = engine.reader(&need(spec)).unwrap();
    eventually("three tokens", || provider.count() >= 3).await;
    let warned = log().lines().filter(|l| l.contains("default_ttl holds") && l.contains("told-nothing")).count();
    assert_eq!(warned, 1);
}

#[tokio::test]
async fn a_provider_that_takes_no_connection_is_a_timeout() {
    assert_eq!(CONNECT_TIMEOUT, Duration::from_secs(5));
    // Its queue is full, so the kernel drops what knocks.
    let hole = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    hole.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    hole.listen(0).unwrap();
    let address = hole.local_addr().unwrap().as_socket().unwrap();
    let mut knocking = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        knocking.push(stream);
    }
    let mut spec = credential(address.port());
    spec.timeout = Duration::from_millis(300);
    let engine = Engine::with_pace(quick());
    let reader = engine.reader(&need(spec)).unwrap();
    let Err(Unavailable::Failed(failure)) = token(&reader).await else { panic!("no token can come") };
    assert_eq!(failure.kind, FailureKind::Timeout);
    assert!(failure.message.contains("did not answer in time"), "{}", failure.message);
}
