//! The time as a core knows it: read a few times a turn, not once a use.
//!
//! A turn of a core, from one wait for its sockets to the next, takes a millisecond or so. Whatever counts in seconds (idle
//! times, time limits, how long a kept connection is good for) needs nothing better, and a reading costs some 30 ns, of which a
//! request would take a dozen. What was read is forgotten with each wait and after [`USES`], since a core that always has
//! something to do never waits. The deadlines of a token are judged by the clocks themselves, at the last moment before it is
//! sent.

use std::{cell::Cell, io, time::Instant};

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use crate::token::bearer::Now;

/// How often a reading is used: a few requests' worth.
const USES: u32 = 64;

/// What a thread knows of the time.
#[derive(Clone, Copy)]
enum Known {
    /// It runs no core, as in tests of parts: nothing tells when it has waited.
    Never,
    /// Nothing since it has waited.
    Not,
    /// This, for so many uses more.
    For(Now, u32),
}

thread_local! {
    static KNOWN: Cell<Known> = const { Cell::new(Known::Never) };
}

/// A runtime for a core on this thread, which forgets the time whenever it has waited.
pub(super) fn runtime() -> io::Result<LocalRuntime> {
    let forget = || KNOWN.set(Known::Not);
    forget();
    Builder::new_current_thread().enable_all().on_thread_unpark(forget).build_local(LocalOptions::default())
}

/// Now, or a moment ago, on the monotonic clock.
pub(super) fn now() -> Instant {
    turn().mono
}

/// Now, or a moment ago, on both clocks.
pub(super) fn turn() -> Now {
    match KNOWN.get() {
        Known::For(now, left) if left > 0 => {
            KNOWN.set(Known::For(now, left - 1));
            now
        }
        Known::Never => Now::read(),
        Known::Not | Known::For(..) => {
            let now = Now::read();
            KNOWN.set(Known::For(now, USES - 1));
            now
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::{spawn_local, yield_now};

    use super::*;

    fn pass(time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {}
    }

    #[test]
    fn time_stands_still_within_a_turn_and_goes_on_however_busy_the_core_is() {
        let busy = async {
            let began = now();
            pass(Duration::from_millis(1));
            assert_eq!(now(), began, "the same turn");
            // Never idle: the core has always something to do, and never waits for the kernel.
            for _ in 0..USES {
                yield_now().await;
                if now() > began {
                    return true;
                }
            }
            false
        };
        let went_on = runtime().unwrap().block_on(async { spawn_local(busy).await.unwrap() });
        assert!(went_on);
    }

    #[test]
    fn a_core_that_has_waited_reads_the_time_anew() {
        let waits = Duration::from_millis(5);
        let waiting = async move {
            let began = now();
            tokio::time::sleep(waits).await;
            now() - began
        };
        let passed = runtime().unwrap().block_on(async { spawn_local(waiting).await.unwrap() });
        assert!(passed >= waits, "{passed:?}");
    }

    #[test]
    fn without_a_core_every_use_reads_the_time() {
        let began = now();
        pass(Duration::from_micros(10));
        assert!(now() > began);
    }
}
