//! What the readers of a cell wait for, and how long; the writer's side is played by the test.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use cupbearer::{
    config::secret::Secret,
    token::bearer::{
        self, Bearer, Deadline, Decision, Failure, FailureKind, MANDATORY_PATIENCE, Now, Reader, Unavailable, View,
        Writer,
    },
};
use tokio::task::JoinHandle;

fn second(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A token that was issued `age` ago, of 100 s, the last 10 of them mandatory.
fn aged(generation: u64, age: Duration) -> Arc<Bearer> {
    let now = Now::read();
    let issued =
        Now { mono: now.mono.checked_sub(age).expect("a machine that is up long enough"), wall: now.wall - age };
    let [mandatory, expires] = [90, 100].map(|n| Deadline::after(issued, second(n)));
    let token = Secret::new("not-a-token".to_owned());
    Arc::new(Bearer::new(token, "00000000".to_owned(), generation, issued, mandatory, expires, false, issued.mono))
}

fn failure(until: Instant) -> Failure {
    let message = "down".to_owned();
    Failure { kind: FailureKind::Unavailable, message, withheld: None, at: SystemTime::now(), until }
}

/// A reader that waits already.
async fn waiter(writer: &Writer, reader: &Reader, above: u64) -> JoinHandle<Result<(), Unavailable>> {
    let reader = reader.clone();
    let waiter = tokio::spawn(async move { reader.wait(above, Instant::now() + second(4)).await });
    writer.signalled().await;
    assert!(writer.take_signals().wanted);
    waiter
}

#[tokio::test]
async fn who_waited_for_a_fetch_gets_its_failure_even_if_the_back_off_is_over_already() {
    let (writer, reader) = bearer::cell();
    let waiting = waiter(&writer, &reader, 0).await;
    writer.publish(View { failure: Some(failure(Instant::now())), ..View::default() });
    assert!(matches!(waiting.await.unwrap(), Err(Unavailable::Failed(f)) if f.message == "down"));
}

#[tokio::test]
async fn a_failure_whose_back_off_is_over_is_not_the_next_callers_result() {
    let (writer, reader) = bearer::cell();
    let view = View { failure: Some(failure(Instant::now())), ..View::default() };
    writer.publish(view.clone());
    let waiting = waiter(&writer, &reader, 0).await;
    writer.publish(view);
    writer.signalled().await; // it still waits
    writer.publish(View { bearer: Some(aged(1, second(0))), ..View::default() });
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn in_the_mandatory_window_nobody_waits_longer_than_two_seconds() {
    let (writer, reader) = bearer::cell();
    writer.publish(View { bearer: Some(aged(1, second(91))), ..View::default() });
    let began = Instant::now();
    waiter(&writer, &reader, 0).await.await.unwrap().unwrap();
    assert!(began.elapsed() >= MANDATORY_PATIENCE && began.elapsed() < MANDATORY_PATIENCE + second(1));
}

#[tokio::test]
async fn in_the_mandatory_window_a_failed_refresh_ends_the_wait_at_once() {
    let (writer, reader) = bearer::cell();
    let bearer = Some(aged(1, second(91)));
    writer.publish(View { bearer: bearer.clone(), ..View::default() });
    let waiting = waiter(&writer, &reader, 0).await;
    let began = Instant::now();
    writer.publish(View { bearer, failure: Some(failure(began)), ..View::default() });
    waiting.await.unwrap().unwrap();
    assert!(began.elapsed() < second(1));
}

#[tokio::test]
async fn a_token_that_expires_in_the_patience_does_not_end_the_wait() {
    let (writer, reader) = bearer::cell();
    writer.publish(View { bearer: Some(aged(1, second(99) + second(1) / 2)), ..View::default() });
    let waiting = waiter(&writer, &reader, 0).await;
    tokio::time::sleep(MANDATORY_PATIENCE + second(1) / 5).await;
    assert!(!waiting.is_finished());
    writer.publish(View { bearer: Some(aged(2, second(0))), ..View::default() });
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_was_rejected_waits_for_a_newer_token() {
    let (writer, reader) = bearer::cell();
    writer.publish(View { bearer: Some(aged(1, second(0))), ..View::default() });
    let waiting = waiter(&writer, &reader, 1).await;
    writer.publish(View { bearer: Some(aged(2, second(0))), rejected: 1, ..View::default() });
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_fails_on_a_cached_reason_is_heard_all_the_same_but_wakes_nobody() {
    let (writer, reader) = bearer::cell();
    writer.publish(View { failure: Some(failure(Instant::now() + second(9))), ..View::default() });
    let result = reader.wait(0, Instant::now() + second(4)).await;
    assert!(matches!(result, Err(Unavailable::Failed(_))));
    assert!(tokio::time::timeout(Duration::from_millis(20), writer.signalled()).await.is_err());
    assert!(writer.take_signals().wanted);
}

#[tokio::test]
async fn without_a_writer_a_valid_token_still_serves_and_nothing_else_does() {
    let (writer, reader) = bearer::cell();
    writer.publish(View { bearer: Some(aged(1, second(95))), ..View::default() });
    let waiting = waiter(&writer, &reader, 1).await;
    drop(writer);
    assert!(matches!(waiting.await.unwrap(), Err(Unavailable::Gone)));
    reader.wait(0, Instant::now() + second(4)).await.unwrap();
}

#[test]
fn the_first_use_of_a_token_is_recorded_however_soon_after_the_last_tokens() {
    let (writer, reader) = bearer::cell();
    let start = Instant::now();
    writer.publish(View { bearer: Some(aged(1, second(0))), ..View::default() });
    reader.used(1, start);
    assert!(writer.take_signals().accepted);
    writer.publish(View { bearer: Some(aged(2, second(0))), rejected: 1, ..View::default() });
    assert!(!writer.take_signals().accepted);
    reader.used(1, start + second(5));
    assert!(!writer.take_signals().accepted, "an older token's use counts nothing");
    let soon = start + Duration::from_millis(100);
    reader.used(2, soon);
    let seen = writer.take_signals();
    assert!(seen.accepted && seen.last_use.is_some_and(|used| soon - used < Duration::from_millis(2)));
}

#[test]
fn a_failure_is_published_beside_the_very_same_token() {
    let (writer, reader) = bearer::cell();
    let bearer = aged(1, second(0));
    writer.publish(View { bearer: Some(Arc::clone(&bearer)), ..View::default() });
    let glance = reader.glance();
    writer.publish(View {
        bearer: Some(bearer),
        failure: Some(failure(Instant::now() + second(9))),
        ..View::default()
    });
    assert!(matches!(glance.decide(Now::read()), Decision::Use(_)));
    reader.used(1, Instant::now());
    assert!(writer.take_signals().accepted);
    assert!(matches!(reader.glance().decide(Now::read()), Decision::Use(_)));
}
