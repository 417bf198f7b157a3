//! Happy eyeballs (RFC 8305): several addresses, tried one a moment after the other, and the first that connects wins.
//!
//! Nothing here knows of sockets or clocks: what connects and what waits is handed in.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// What became of those that did not win; kept up to date also where the race itself is given up.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// So many were begun, in their order.
    pub(super) begun: usize,
    /// These failed.
    pub(super) failed: Vec<(usize, io::Error)>,
}

/// Somebody who has begun and not yet arrived.
struct Runner<A> {
    index: usize,
    attempt: Pin<Box<A>>,
}

/// Runs `dial(0)`, `dial(1)`, … up to `count`: each `stagger` after the one before, or as soon as one has failed. The
/// first that succeeds is returned with its index, the others are dropped; `None` = all have failed.
pub(super) async fn race<T, A, S>(
    count: usize,
    stagger: Duration,
    dial: impl Fn(usize) -> A,
    sleep: impl Fn(Duration) -> S,
    report: &mut Report,
) -> Option<(usize, T)>
where
    A: Future<Output = io::Result<T>>,
    S: Future<Output = ()>,
{
    let mut running: Vec<Runner<A>> = Vec::new();
    let mut pause: Option<Pin<Box<S>>> = None;
    poll_fn(|cx| {
        loop {
            if pause.as_mut().is_some_and(|pause| pause.as_mut().poll(cx).is_ready()) {
                pause = None;
            }
            let begins = report.begun < count && pause.is_none();
            if begins {
                running.push(Runner { index: report.begun, attempt: Box::pin(dial(report.begun)) });
                report.begun += 1;
                pause = (report.begun < count).then(|| Box::pin(sleep(stagger)));
            }
            if running.is_empty() && report.begun == count {
                return Poll::Ready(None);
            }
            let failures = report.failed.len();
            if let Some(won) = poll_runners(&mut running, &mut report.failed, cx) {
                return Poll::Ready(Some(won));
            }
            if report.failed.len() > failures {
                pause = None;
            } else if !begins {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// The first that has arrived; those that have failed are taken out.
fn poll_runners<T, A: Future<Output = io::Result<T>>>(
    running: &mut Vec<Runner<A>>,
    failed: &mut Vec<(usize, io::Error)>,
    cx: &mut Context<'_>,
) -> Option<(usize, T)> {
    let mut won = None;
    running.retain_mut(|runner| {
        if won.is_some() {
            return true;
        }
        match runner.attempt.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(Ok(value)) => {
                won = Some((runner.index, value));
                false
            }
            Poll::Ready(Err(error)) => {
                failed.push((runner.index, error));
                false
            }
        }
    });
    won
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        pin::pin,
        rc::Rc,
        task::Waker,
    };

    use super::*;

    const STAGGER: u64 = 250;

    /// A clock that moves on when everybody waits, in milliseconds.
    #[derive(Default)]
    struct Clock {
        now: Cell<u64>,
        alarms: RefCell<Vec<u64>>,
    }

    impl Clock {
        async fn sleep(self: Rc<Self>, ms: u64) {
            let end = self.now.get() + ms;
            self.alarms.borrow_mut().push(end);
            poll_fn(|_| if self.now.get() >= end { Poll::Ready(()) } else { Poll::Pending }).await;
        }

        fn run<T>(&self, future: impl Future<Output = T>) -> T {
            let mut future = pin!(future);
            loop {
                if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    return done;
                }
                let mut alarms = self.alarms.borrow_mut();
                alarms.retain(|at| *at > self.now.get());
                self.now.set(alarms.iter().copied().min().expect("nobody waits for ever"));
            }
        }
    }

    #[derive(Clone, Copy)]
    enum Address {
        Connects(u64),
        Refuses(u64),
        Silent,
    }
    use Address::{Connects, Refuses, Silent};

    /// Who won and when, when each was begun, and who failed.
    fn run(addresses: &[Address], give_up: u64) -> (Option<usize>, u64, Vec<u64>, Vec<usize>) {
        let clock = Rc::new(Clock::default());
        let begun = RefCell::new(Vec::new());
        let (held, mut report) = (Rc::new(()), Report::default());
        let dial = |index: usize| {
            begun.borrow_mut().push(clock.now.get());
            let (clock, held) = (Rc::clone(&clock), Rc::clone(&held));
            async move {
                let (ms, result) = match addresses[index] {
                    Connects(ms) => (ms, Ok(())),
                    Refuses(ms) => (ms, Err(io::ErrorKind::ConnectionRefused.into())),
                    Silent => (u64::MAX / 2, Ok(())),
                };
                clock.sleep(ms).await;
                drop(held);
                result
            }
        };
        let sleep = |of: Duration| Rc::clone(&clock).sleep(of.as_millis() as u64);
        let won = {
            let racing = race(addresses.len(), Duration::from_millis(STAGGER), dial, sleep, &mut report);
            let mut racing = pin!(racing);
            let mut limit = pin!(Rc::clone(&clock).sleep(give_up));
            clock.run(poll_fn(|cx| {
                if let Poll::Ready(won) = racing.as_mut().poll(cx) {
                    return Poll::Ready(won);
                }
                limit.as_mut().poll(cx).map(|()| None)
            }))
        };
        assert_eq!(Rc::strong_count(&held), 1, "who lost is closed");
        assert_eq!(report.begun, begun.borrow().len());
        let failed = report.failed.iter().map(|(index, _)| *index).collect();
        (won.map(|(index, ())| index), clock.now.get(), begun.into_inner(), failed)
    }

    #[test]
    fn a_first_that_connects_in_time_is_the_only_one_that_is_tried() {
        assert_eq!(run(&[Connects(249), Connects(0)], 5000), (Some(0), 249, vec![0], vec![]));
    }

    #[test]
    fn the_next_begins_a_moment_later_and_the_faster_one_wins() {
        assert_eq!(run(&[Silent, Connects(30)], 5000), (Some(1), 280, vec![0, 250], vec![]));
        assert_eq!(run(&[Connects(300), Connects(90)], 5000), (Some(0), 300, vec![0, 250], vec![]));
        assert_eq!(run(&[Silent, Silent, Silent, Connects(1)], 5000), (Some(3), 751, vec![0, 250, 500, 750], vec![]));
    }

    #[test]
    fn a_refusal_is_followed_by_the_next_at_once() {
        assert_eq!(run(&[Refuses(10), Connects(5)], 5000), (Some(1), 15, vec![0, 10], vec![0]));
        // The pause counts anew from there.
        let (won, at, begun, failed) = run(&[Refuses(10), Silent, Refuses(7), Connects(1)], 5000);
        assert_eq!((won, at, begun, failed), (Some(3), 268, vec![0, 10, 260, 267], vec![0, 2]));
    }

    #[test]
    fn all_that_fail_are_told_and_nobody_is_waited_for() {
        assert_eq!(run(&[Refuses(1), Refuses(1), Refuses(1)], 5000), (None, 3, vec![0, 1, 2], vec![0, 1, 2]));
        assert_eq!(run(&[], 5000), (None, 0, vec![], vec![]));
    }

    #[test]
    fn one_that_is_silent_does_not_use_up_the_time_of_the_others() {
        assert_eq!(run(&[Silent, Silent], 1000), (None, 1000, vec![0, 250], vec![]));
        assert_eq!(run(&[Silent, Refuses(10), Connects(600)], 1000), (Some(2), 860, vec![0, 250, 260], vec![1]));
    }
}
