//! Secret rotation, with the engine against a small provider.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use cupbearer::{
    config::{
        model::{Budget, Grant, Param},
        secret::SecretSource,
    },
    token::{
        Engine, Reader,
        bearer::{FailureKind, Rejection, Unavailable},
        credential::Material,
        pace::Pace,
        sources::{Sources, Want},
    },
};

use crate::support::{Provider, Reply, credential, given, log, need, quick, secret_file};

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
    fs::write(&path, "not-a-secret-wrong").unwrap();
    renew(&reader, 1).await;
    assert_eq!(carried(&provider), ["old", "wrong", "old"]);
    assert_eq!(engine.status()[0].secret.as_deref(), Some("the one before its source changed"));
    renew(&reader, 2).await;
    assert_eq!(carried(&provider), ["old", "wrong", "old", "old"], "what was refused is not tried again");
    fs::write(&path, "not-a-secret-right").unwrap();
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

/// Files are looked at often, and a change counts at once.
fn watchful() -> Pace {
    Pace { secret_poll: Duration::from_millis(20), ..pace() }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Long enough for several looks.
async fn some_looks() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

fn fingerprint(engine: &Engine) -> Option<String> {
    engine.status()[0].fingerprint.clone()
}

#[tokio::test]
async fn a_changed_file_is_tried_while_the_old_token_stays_in_use_and_only_what_works_replaces_it() {
    let provider = Provider::start([Reply::token("t1", 3600), refused(), Reply::token("t2", 3600)]).await;
    let path = secret_file("not-a-secret-old");
    let mut spec = credential(provider.port());
    spec.client_secret = Some(SecretSource::File(path.clone()));
    let engine = Engine::with_pace(watchful());
    let reader = engine.reader(&need(spec)).unwrap();
    assert_eq!(ask(&reader, 0).await, Ok(()));
    let first = fingerprint(&engine);
    fs::write(&path, "not-a-secret-wrong").unwrap();
    until("the wrong one is tried", || provider.count() == 2).await;
    some_looks().await;
    assert_eq!(carried(&provider), ["old", "wrong"], "one attempt");
    let status = &engine.status()[0];
    assert_eq!((status.failing, status.fetching, status.last_error.is_some()), (false, false, false));
    assert_eq!((fingerprint(&engine), ask(&reader, 0).await), (first.clone(), Ok(())));
    fs::write(&path, "not-a-secret-right").unwrap();
    until("the right one is tried", || fingerprint(&engine) != first).await;
    assert_eq!(carried(&provider), ["old", "wrong", "right"]);
    renew(&reader, 2).await;
    assert_eq!(carried(&provider)[3..], ["right"]);
}

#[tokio::test]
async fn an_empty_or_missing_file_changes_nothing() {
    log();
    let provider = Provider::start([Reply::token("t1", 3600), Reply::token("t2", 3600)]).await;
    let path = secret_file("not-a-secret-old");
    let mut spec = credential(provider.port());
    spec.client_secret = Some(SecretSource::File(path.clone()));
    let engine = Engine::with_pace(watchful());
    let reader = engine.reader(&need(spec)).unwrap();
    assert_eq!(ask(&reader, 0).await, Ok(()));
    let said = path.display().to_string();
    fs::write(&path, "\n").unwrap();
    some_looks().await;
    fs::remove_file(&path).unwrap();
    some_looks().await;
    renew(&reader, 1).await;
    assert_eq!(carried(&provider), ["old", "old"]);
    let text = log();
    let lines = text.lines().filter(|line| line.contains(&said) && line.contains("stays in use")).count();
    assert_eq!(lines, 1, "said once, not at every look");
    fs::write(&path, "not-a-secret-old").unwrap();
    until("it is said", || log().lines().any(|line| line.contains(&said) && line.contains("can be read again"))).await;
    assert_eq!(provider.count(), 2);
}

#[tokio::test]
async fn what_changes_again_and_again_is_not_tried_before_it_stands_still() {
    let provider = Provider::start([Reply::token("t1", 3600)]).await;
    let path = secret_file("not-a-secret-old");
    let mut spec = credential(provider.port());
    spec.client_secret = Some(SecretSource::File(path.clone()));
    // A writer that the machine holds up for half a second would stand still.
    let pace = Pace { secret_poll: Duration::from_millis(500), ..pace() };
    let engine = Engine::with_pace(pace);
    let reader = engine.reader(&need(spec)).unwrap();
    assert_eq!(ask(&reader, 0).await, Ok(()));
    for n in 0..30 {
        fs::write(&path, format!("not-a-secret-{n}")).unwrap();
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    assert_eq!(provider.count(), 1);
    fs::write(&path, "not-a-secret-complete").unwrap();
    until("the whole one is tried", || provider.count() == 2).await;
    assert_eq!(carried(&provider), ["old", "complete"]);
}

#[tokio::test]
async fn all_tokens_of_a_credential_together_cost_one_trial() {
    let provider = Provider::start([Reply::token("t", 3600)]).await;
    let path = secret_file("not-a-secret-old");
    let engine = Engine::with_pace(watchful());
    let mut readers = Vec::new();
    for scope in ["a", "b", "c", "d"] {
        let mut spec = credential(provider.port());
        spec.client_secret = Some(SecretSource::File(path.clone()));
        spec.scopes = vec![scope.to_owned()];
        readers.push(engine.reader(&need(spec)).unwrap());
        assert_eq!(ask(readers.last().unwrap(), 0).await, Ok(()));
    }
    fs::write(&path, "not-a-secret-new").unwrap();
    until("it is tried", || provider.count() == 5).await;
    some_looks().await;
    assert_eq!(carried(&provider), ["old", "old", "old", "old", "new"]);
}

#[tokio::test]
async fn a_trial_without_a_verdict_harms_nothing_and_is_not_repeated_at_once() {
    let provider = Provider::start([Reply::token("t1", 3600), Reply::json(503, "")]).await;
    let path = secret_file("not-a-secret-old");
    let mut spec = credential(provider.port());
    spec.client_secret = Some(SecretSource::File(path.clone()));
    let engine = Engine::with_pace(watchful());
    let reader = engine.reader(&need(spec)).unwrap();
    assert_eq!(ask(&reader, 0).await, Ok(()));
    fs::write(&path, "not-a-secret-new").unwrap();
    until("it is tried", || provider.count() == 2).await;
    some_looks().await;
    assert_eq!(carried(&provider), ["old", "new"]);
    assert!(!engine.status()[0].failing);
    provider.turn_to([Reply::token("t2", 3600)]);
    renew(&reader, 1).await;
    assert_eq!(carried(&provider)[2..], ["new"], "who needs a token tries it first");
}

#[tokio::test]
async fn a_trial_waits_while_the_budget_is_nearly_spent_and_then_what_works_is_asked_with_first() {
    let provider = Provider::start([Reply::token("t", 3600)]).await;
    let path = secret_file("not-a-secret-old");
    let mut spec = credential(provider.port());
    spec.client_secret = Some(SecretSource::File(path.clone()));
    spec.budget = Some(Budget { limit: 2, window: Duration::from_secs(3600) });
    let engine = Engine::with_pace(watchful());
    let reader = engine.reader(&need(spec)).unwrap();
    assert_eq!(ask(&reader, 0).await, Ok(()));
    fs::write(&path, "not-a-secret-new").unwrap();
    some_looks().await;
    renew(&reader, 1).await;
    assert_eq!(carried(&provider), ["old", "old"], "the last request of the budget is no experiment");
}

#[tokio::test]
async fn a_changed_password_is_tried_too() {
    let invalid = Reply::json(400, r#"{"error":"invalid_grant"}"#);
    let provider = Provider::start([Reply::token("t1", 3600), invalid, Reply::token("t2", 3600)]).await;
    let path = secret_file("not-a-secret-old");
    let mut spec = credential(provider.port());
    spec.grant = Grant::Password { username: "robot".to_owned(), password: SecretSource::File(path.clone()) };
    let engine = Engine::with_pace(watchful());
    let reader = engine.reader(&need(spec)).unwrap();
    assert_eq!(ask(&reader, 0).await, Ok(()));
    fs::write(&path, "not-a-secret-wrong").unwrap();
    until("the wrong one is tried", || provider.count() == 2).await;
    some_looks().await;
    renew(&reader, 1).await;
    let with: Vec<bool> = provider.requests().iter().map(|body| body.contains("password=not-a-secret-wrong")).collect();
    assert_eq!(with, [false, true, false], "the old password goes on");
}

#[tokio::test]
async fn a_refusal_of_what_is_only_tried_ends_no_refresh_token() {
    let rotated = |number: u32| {
        let tokens =
            format!(r#"{{"access_token":"t{number}","expires_in":3600,"refresh_token":"not-a-refresh-{number}"}}"#);
        Reply::json(200, &tokens)
    };
    let invalid = Reply::json(400, r#"{"error":"invalid_grant"}"#);
    let provider = Provider::start([rotated(1), invalid, rotated(2)]).await;
    let path = secret_file("not-a-secret-old");
    let mut spec = credential(provider.port());
    spec.client_secret = Some(SecretSource::File(path.clone()));
    spec.grant = Grant::RefreshToken { first: Some(SecretSource::File(secret_file("not-a-refresh-0"))) };
    let engine = Engine::with_pace(watchful());
    let reader = engine.reader(&need(spec)).unwrap();
    assert_eq!(ask(&reader, 0).await, Ok(()));
    fs::write(&path, "not-a-secret-new").unwrap();
    until("the new secret is tried", || provider.count() == 2).await;
    some_looks().await;
    fs::write(&path, "not-a-secret-old").unwrap();
    renew(&reader, 1).await;
    let with: Vec<bool> = provider.requests().iter().map(|body| body.contains("not-a-refresh-1")).collect();
    assert_eq!(with, [false, true, true], "the refresh token that was kept goes on");
}

/// A command that gives `text` the first time, and never ends the second time.
fn hangs_at_its_second_run(text: &str) -> SecretSource {
    let ran = secret_file("");
    fs::remove_file(&ran).unwrap();
    let script = format!("[ -e {0} ] && exec sleep 60; touch {0}; echo {text}", ran.display());
    SecretSource::Command(["sh", "-c", &script].map(str::to_owned).to_vec())
}

#[tokio::test]
async fn what_was_read_before_stands_in_for_a_command_that_hangs() {
    let mut spec = credential(1);
    let slow = "sleep 0.1; echo not-a-secret-slow";
    spec.client_secret = Some(SecretSource::Command(["sh", "-c", slow].map(str::to_owned).to_vec()));
    spec.params = vec![("pin".to_owned(), Param::Secret(hangs_at_its_second_run("not-a-secret-pin")))];
    let sources = Sources::default();
    let first = Material::read(&spec, &sources, Want::Request).await.unwrap();
    let second = Material::read(&spec, &sources, Want::Request).await.expect("its last good value");
    assert_eq!(second.params, first.params);
}

#[tokio::test]
async fn what_was_read_before_stands_in_for_a_file_that_hangs() {
    let path = secret_file("not-a-secret");
    let mut spec = credential(1);
    spec.client_secret = Some(SecretSource::File(path.clone()));
    let sources = Sources::default();
    let first = Material::read(&spec, &sources, Want::Request).await.unwrap();
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let second = Material::read(&spec, &sources, Want::Request).await.expect("its last good value");
    assert_eq!(second.client_secret, first.client_secret);
    drop(fs::OpenOptions::new().write(true).open(&path).unwrap()); // lets the reader go
}
