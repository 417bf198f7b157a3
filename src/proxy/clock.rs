//! The time as a core knows it: read once a turn, not once a use.
//!
//! A turn of a core, between two looks at its sockets, runs at most 61 tasks and takes a millisecond or so. Whatever counts in
//! seconds (idle times, time limits, how long a kept connection is good for) needs nothing better, and a reading costs some
//! 30 ns, of which a request would take a dozen. The deadlines of a token are judged by the clocks themselves, at the last
//! moment before it is sent.

use std::{cell::Cell, future::poll_fn, pin::pin, time::Instant};

use crate::token::bearer::Now;

thread_local! {
    static TURN: Cell<Option<Now>> = const { Cell::new(None) };
}

/// Drives a core's main future, which its local tasks wait behind: it is polled at the beginning of each turn.
pub(super) async fn kept<T>(main: impl Future<Output = T>) -> T {
    let mut main = pin!(main);
    poll_fn(|cx| {
        TURN.set(Some(Now::read()));
        main.as_mut().poll(cx)
    })
    .await
}

/// When this turn began, on the monotonic clock.
pub(super) fn now() -> Instant {
    turn().mono
}

/// When this turn began, on both clocks.
pub(super) fn turn() -> Now {
    // Without a core, as in tests of parts, there are no turns.
    TURN.get().unwrap_or_else(Now::read)
}

#[cfg(test)]
mod tests {
    use tokio::task::{LocalSet, yield_now};

    use super::*;

    #[test]
    fn time_stands_still_within_a_turn_and_goes_on_with_the_next_one_however_busy_the_core_is() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let busy = async {
            let began = now();
            while Instant::now() == began {}
            assert_eq!(now(), began, "the same turn");
            // Never idle: the core has always something to do, and never waits for the kernel.
            for _ in 0..10_000 {
                yield_now().await;
                if now() > began {
                    return true;
                }
            }
            false
        };
        let went_on = LocalSet::new().block_on(&runtime, kept(async { tokio::task::spawn_local(busy).await.unwrap() }));
        assert!(went_on);
    }
}
