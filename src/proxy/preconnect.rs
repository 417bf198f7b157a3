//! Connections that are made before anybody asks for one (`preconnect`): TCP, the TLS handshake and, over HTTP/2, its
//! preface, but nothing of a request. Nobody waits for them: what fails here fails no start and no request.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    authorize::identity,
    clock,
    upstream::Pool,
    worker::{Core, Worker},
};

/// The first pause after a failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// Who closes an unused connection within that time does not want to keep any: that counts as a failure.
const KEPT: Duration = Duration::from_secs(30);

/// When the connections of one pool are made ready again.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// They are being made now.
    running: bool,
    /// Times in a row that it was in vain.
    failures: u32,
    /// When the last one was made, unless requests came since.
    unused_since: Option<Instant>,
    not_before: Option<Instant>,
}

impl Pace {
    /// Some are missing: whether to make them now.
    fn may_begin(&mut self, now: Instant) -> bool {
        if self.running {
            return false;
        }
        match self.unused_since.take() {
            Some(made) if now < made + KEPT => self.failed(now),
            Some(_) => self.failures = 0,
            None => {}
        }
        self.running = self.not_before.is_none_or(|at| at <= now);
        self.running
    }

    /// They were made, or not.
    fn ended(&mut self, made: bool, now: Instant) {
        self.running = false;
        if made {
            self.unused_since = Some(now);
        } else {
            self.failed(now);
        }
    }

    /// Requests came: whatever is missing now is missing because they use it.
    pub(super) fn used(&mut self) {
        self.unused_since = None;
        if !self.running {
            (self.failures, self.not_before) = (0, None);
        }
    }

    /// Whether it knows something that one begun anew would not: a pause that is not long over, or connections that may have
    /// ended too soon.
    pub(super) fn is_worth_keeping(&self, now: Instant) -> bool {
        [self.not_before, self.unused_since].into_iter().flatten().any(|at| now < at + KEPT)
    }

    fn failed(&mut self, now: Instant) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures += 1;
        self.not_before = Some(now + pause);
    }
}

/// Makes ready what is missing on this core, in tasks of its own.
pub(super) fn prepare(worker: &Rc<Worker>) {
    let core = worker.core();
    for (index, route) in core.snapshot.routes.iter().enumerate().filter(|(_, route)| route.spec.preconnect > 0) {
        let now = clock::turn();
        let identity = identity(route, now);
        // The certificate comes with the first token.
        let is_early = identity.is_none() && route.spec.token.credential.presents_certificate();
        let pool = worker.pool(&core, route, identity.as_ref());
        let lacks = !worker.is_draining() && !is_early && pool.lacks(route.spec.preconnect, now.mono);
        if lacks && pool.pace.borrow_mut().may_begin(now.mono) {
            tokio::task::spawn_local(fill(Rc::clone(&core), index, pool));
        }
    }
}

/// One after the other, until enough are ready or one fails.
async fn fill(core: Rc<Core>, route: usize, pool: Rc<Pool>) {
    let route = &core.snapshot.routes[route];
    let origin = &core.snapshot.origins[route.origin];
    let mut made = 0;
    let result = loop {
        // No more than were wanted, where the upstream ends them as fast as they are made.
        if made == route.spec.preconnect || !pool.lacks(route.spec.preconnect, clock::now()) {
            break Ok(());
        }
        match pool.prepare(route, origin).await {
            Ok(()) => made += 1,
            Err(error) => break Err(error),
        }
    };
    pool.pace.borrow_mut().ended(result.is_ok(), clock::now());
    match result {
        Ok(()) => tracing::debug!(upstream = %origin.upstream, made, "connections made ready"),
        Err(error) => tracing::debug!(upstream = %origin.upstream, made, "no connection made ready: {}", error.detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_and_unwanted_connections_are_tried_again_ever_more_rarely() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::default();
        assert!(!pace.is_worth_keeping(at(0)), "nothing was made");
        assert!(pace.may_begin(at(0)));
        assert!(!pace.may_begin(at(0)), "one at a time");
        pace.ended(false, at(0));
        assert!(!pace.may_begin(at(1)));
        assert!(pace.may_begin(at(2)));
        pace.ended(true, at(2));
        assert!(pace.is_worth_keeping(at(31)) && !pace.is_worth_keeping(at(32)));
        // The upstream closes it at once: as good as a failure.
        assert!(!pace.may_begin(at(3)));
        assert!(!pace.may_begin(at(6)));
        assert!(pace.may_begin(at(7)));
        pace.ended(true, at(7));
        // One that was kept for long enough is replaced when it ends.
        assert!(pace.may_begin(at(62)));
        pace.ended(true, at(62));
        // What requests use is replaced too.
        pace.used();
        assert!(pace.may_begin(at(63)));
        for _ in 0..40 {
            pace.ended(false, at(63));
        }
        assert!(!pace.may_begin(at(63 + 119)));
        assert!(pace.is_worth_keeping(at(63 + 121)) && !pace.is_worth_keeping(at(63 + 150)));
        assert!(pace.may_begin(at(63 + 120)));
    }
}
