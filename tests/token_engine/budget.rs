//! Budgets, with the engine against a small provider.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cupbearer::{
    config::{
        model::{Budget, StoreSpec, TokenSpec},
        secret::Secret,
    },
    token::{
        Engine, Reader, Store,
        bearer::{FailureKind, Unavailable},
        budget::{Account, Window},
        store::Seal,
    },
};

use crate::support::{Provider, Reply, adopt, credential, need, quick};

const HOUR: Duration = Duration::from_secs(3600);

fn budget(limit: u32, window: Duration) -> Budget {
    Budget { limit, window }
}

/// What a route with this scope needs.
fn scoped(port: u16, scope: &str, budget: Budget) -> Arc<TokenSpec> {
    let mut credential = credential(port);
    credential.budget = Some(budget);
    credential.scopes = vec![scope.to_owned()];
    need(credential)
}

async fn ask(reader: &Reader) -> Result<(), FailureKind> {
    match reader.wait(0, Instant::now() + Duration::from_secs(10)).await {
        Ok(()) => Ok(()),
        Err(Unavailable::Failed(failure)) => Err(failure.kind),
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_budget_holds_over_all_keys_of_a_credential_and_is_visible() {
    let provider = Provider::start([Reply::token("t", 3600)]).await;
    let engine = Engine::with_pace(quick());
    let reader = |scope| engine.reader(&scoped(provider.port(), scope, budget(2, 12 * HOUR))).unwrap();
    assert_eq!(ask(&reader("a")).await, Ok(()));
    assert_eq!(ask(&reader("b")).await, Ok(()));
    for _ in 0..20 {
        assert_eq!(ask(&reader("c")).await, Err(FailureKind::Budget));
    }
    assert_eq!(ask(&reader("a")).await, Ok(()), "a valid token stays in use");
    assert_eq!(provider.count(), 2);
    let status = engine.status();
    assert!(status.iter().all(|s| s.budget.is_some_and(|b| (b.used, b.limit, b.window) == (2, 2, 12 * HOUR))));
    let stopped = status.iter().find(|s| s.scopes == ["c"]).unwrap();
    assert_eq!((stopped.succeeded, stopped.failed, stopped.failing), (0, 0, true));
    let error = stopped.last_error.as_ref().unwrap();
    assert!(error.message.contains("has spent its budget of 2 token requests in 12h"), "{}", error.message);
    assert!(error.retry_at.unwrap() > SystemTime::now() + 11 * HOUR);
}

/// Two realms of one host know nothing of each other's clients.
#[tokio::test]
async fn another_token_endpoint_of_the_same_host_has_a_budget_of_its_own() {
    let provider = Provider::start([Reply::token("t", 3600)]).await;
    let engine = Engine::with_pace(quick());
    let realm = |name: &str, budget| {
        let mut credential = credential(provider.port());
        credential.token_target = format!("/token/realms/{name}");
        credential.token_url.base_path.clone_from(&credential.token_target);
        (credential.name, credential.budget) = (name.to_owned(), budget);
        need(credential)
    };
    let [a, b] = adopt(&engine, [&realm("a", Some(budget(1, HOUR))), &realm("b", None)]);
    assert_eq!(ask(&a).await, Ok(()));
    assert_eq!(ask(&b).await, Ok(()), "only one of the two has a budget");
    let used: Vec<_> = engine.status().iter().map(|s| s.budget.map(|b| b.used)).collect();
    assert_eq!(used, [Some(1), None]);
}

#[tokio::test]
async fn who_shares_a_budget_is_told_whose_it_is_and_callers_no_names() {
    let provider = Provider::start([Reply::token("t", 3600)]).await;
    let engine = Engine::with_pace(quick());
    let named = |name: &str, budget| {
        let mut credential = credential(provider.port());
        (credential.name, credential.budget, credential.scopes) = (name.to_owned(), budget, vec![name.to_owned()]);
        need(credential)
    };
    let [a, b] = adopt(&engine, [&named("a", Some(budget(1, HOUR))), &named("b", Some(budget(9, HOUR)))]);
    assert_eq!(ask(&a).await, Ok(()));
    let Err(Unavailable::Failed(failure)) = b.wait(0, Instant::now() + Duration::from_secs(10)).await else {
        panic!("the stricter budget holds for both")
    };
    let start = "the budget of 1 token requests in 1h of the credential \"a\" is spent, which \"a\", \"b\" share: they are \
                 one client at one token endpoint; for the credential \"b\" nothing was sent";
    assert!(failure.message.starts_with(start), "{}", failure.message);
    assert!(failure.message.ends_with("Raise `budget` of \"a\" if the provider grants more."), "{}", failure.message);
    assert!(failure.withheld.is_some());
}

#[tokio::test]
async fn a_slot_that_the_window_frees_is_used_by_itself() {
    let provider = Provider::start([Reply::token("t", 3600)]).await;
    let engine = Engine::with_pace(quick());
    let limit = budget(1, Duration::from_millis(600));
    let began = Instant::now();
    assert_eq!(ask(&engine.reader(&scoped(provider.port(), "a", limit)).unwrap()).await, Ok(()));
    let second = engine.reader(&scoped(provider.port(), "b", limit)).unwrap();
    while ask(&second).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(began.elapsed() >= Duration::from_millis(590), "{:?}", began.elapsed());
    assert_eq!(provider.count(), 2);
}

#[tokio::test]
async fn a_reload_with_a_larger_budget_keeps_the_count_and_heals_at_once() {
    let provider = Provider::start([Reply::token("t", 3600)]).await;
    let engine = Engine::with_pace(quick());
    let (a, b) = (scoped(provider.port(), "a", budget(1, HOUR)), scoped(provider.port(), "b", budget(1, HOUR)));
    let [first, second] = adopt(&engine, [&a, &b]);
    assert_eq!(ask(&first).await, Ok(()));
    assert_eq!(ask(&second).await, Err(FailureKind::Budget));
    let (a, b) = (scoped(provider.port(), "a", budget(2, HOUR)), scoped(provider.port(), "b", budget(2, HOUR)));
    adopt(&engine, [&a, &b]);
    while ask(&second).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let budgets: Vec<_> = engine.status().iter().map(|s| s.budget.map(|b| (b.used, b.limit))).collect();
    assert_eq!(budgets, [Some((2, 2)); 2], "the same keys, one count");
}

#[tokio::test]
async fn what_never_reached_the_provider_costs_nothing() {
    let provider = Provider::start([Reply::Hang]).await;
    let address = provider.address;
    provider.stop().await;
    let engine = Engine::with_pace(quick());
    let reader = engine.reader(&scoped(address.port(), "a", budget(1, HOUR))).unwrap();
    for _ in 0..5 {
        assert_eq!(ask(&reader).await, Err(FailureKind::Unavailable));
    }
    assert_eq!(engine.status()[0].budget.map(|b| b.used), Some(0));
    let _provider = Provider::start_at(address, [Reply::token("t", 3600)]).await;
    while ask(&reader).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(engine.status()[0].budget.map(|b| b.used), Some(1));
}

/// 20 000 token requests of another process, as it keeps them.
#[tokio::test]
async fn a_huge_budget_holds_over_a_restart() {
    let provider = Provider::start([Reply::token("t", 3600)]).await;
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("huge-budget-{}", std::process::id()));
    let store = || {
        let seal = Seal::new(&Secret::new(STANDARD.encode([7; 32]))).unwrap();
        Store::open(&StoreSpec::File(directory.clone()), Some(seal)).unwrap()
    };
    let need = scoped(provider.port(), "a", budget(20_000, 24 * HOUR));
    let (before, account, now) = (store(), Account::of(&need.credential), SystemTime::now());
    let mut window = Window::of(3);
    for second in 0..20_000 {
        window.add(budget(20_000, 24 * HOUR), now - Duration::from_secs(80_000) + Duration::from_secs(4 * second));
    }
    before.save_window(account, &window).await;
    let file = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).max();
    assert!(file.unwrap() < 20_000, "{file:?}");
    let engine = Engine::with_store(store());
    assert_eq!(ask(&engine.reader(&need).unwrap()).await, Err(FailureKind::Budget));
    assert_eq!(engine.status()[0].budget.map(|b| b.used), Some(20_000));
    assert_eq!(provider.count(), 0);
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_restart_does_not_forget_what_was_used() {
    let provider = Provider::start([Reply::token("t", 3600)]).await;
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("budget-{}", std::process::id()));
    let engine = || {
        let seal = Seal::new(&Secret::new(STANDARD.encode([7; 32]))).unwrap();
        Engine::with_store(Store::open(&StoreSpec::File(directory.clone()), Some(seal)).unwrap())
    };
    let limit = budget(2, HOUR);
    let (port, first) = (provider.port(), engine());
    assert_eq!(ask(&first.reader(&scoped(port, "a", limit)).unwrap()).await, Ok(()));
    drop(first);
    let second = engine();
    assert_eq!(ask(&second.reader(&scoped(port, "b", limit)).unwrap()).await, Ok(()));
    assert_eq!(ask(&second.reader(&scoped(port, "c", limit)).unwrap()).await, Err(FailureKind::Budget));
    assert_eq!(provider.count(), 2);
    std::fs::remove_dir_all(directory).unwrap();
}
