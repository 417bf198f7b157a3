//! What is told of a request when it ends, however it ends: with an answer, broken off, or cut off with its task.
//!
//! A [`Record`] is opened for every request that is answered or dropped, and told when it goes out of scope: exactly once,
//! whatever way the request takes. Those who deal with the request only note down what they see, in its [`Tally`].

use std::{
    cell::Cell,
    time::{Duration, Instant, SystemTime},
};

use super::{
    error::Code,
    worker::{Core, Worker},
};
use crate::{
    config::model::CallerSpec,
    telemetry::{
        access::Line,
        metrics::{ERRORS, ReplayOutcome},
    },
    wire::Version,
};

/// There is a count for each code.
const _: () = assert!(Code::ALL.len() <= ERRORS);

/// What is seen of a request on its way.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// What was answered; 0 = nothing yet.
    pub(super) status: Cell<u16>,
    /// The code of an answer of our own.
    pub(super) error: Cell<Option<Code>>,
    /// The answer came to its end.
    pub(super) whole: Cell<bool>,
    /// Why it did not.
    pub(super) aborted: Cell<&'static str>,
    /// What the upstream speaks; empty = none was asked.
    pub(super) upstream_protocol: Cell<&'static str>,
    /// What the upstream answered last; 0 = nothing.
    pub(super) upstream_status: Cell<u16>,
    /// When the head of that answer was there.
    pub(super) upstream_at: Cell<Option<Instant>>,
    /// It was sent again.
    pub(super) replayed: Cell<bool>,
    /// What became of that, or why it was not.
    pub(super) replay: Cell<Option<ReplayOutcome>>,
    /// The upstream did not bring its answer to its end.
    pub(super) truncated: Cell<bool>,
    /// Bytes of the request's body that were taken from the caller.
    pub(super) request_bytes: Cell<u64>,
    /// Bytes of the answer's body that went to the caller.
    pub(super) response_bytes: Cell<u64>,
}

impl Tally {
    /// An answer of our own, with a body of so many bytes.
    pub(super) fn refused(&self, code: Code, bytes: usize) {
        self.status.set(code.status());
        self.error.set(Some(code));
        self.response_bytes.set(bytes as u64);
    }

    /// The upstream's answer begins.
    pub(super) fn answers(&self, status: u16, at: Instant) {
        self.status.set(status);
        self.upstream_at.set(Some(at));
    }
}

/// What a request asks for, as far as that can be read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked<'a> {
    pub(super) protocol: &'static str,
    pub(super) method: &'a str,
    pub(super) target: &'a [u8],
}

impl<'a> Asked<'a> {
    /// The protocol's name stands in the line as it stands in a request line.
    pub(super) fn new(version: Version, method: &'a str, target: &'a [u8]) -> Self {
        Self { protocol: version.as_str(), method, target }
    }

    /// The path, without query or fragment, and without the authority of an absolute form: what stands there is for no log.
    fn path(&self) -> &'a [u8] {
        let target = self.target;
        let end = target.iter().position(|b| matches!(b, b'?' | b'#')).unwrap_or(target.len());
        let path = &target[..end];
        if path.starts_with(b"/") || path == b"*" {
            return path;
        }
        let authority = path.windows(3).position(|w| w == b"://").map(|at| at + 3);
        authority.and_then(|at| path.get(at + memchr::memchr(b'/', &path[at..])?..)).unwrap_or_default()
    }
}

/// One request, told when it is dropped.
pub(super) struct Record<'a> {
    worker: &'a Worker,
    core: &'a Core,
    peer: &'a str,
    /// Its id.
    pub(super) id: &'a str,
    asked: Asked<'a>,
    started: Instant,
    /// Its route, once it is known.
    pub(super) route: Cell<Option<usize>>,
    /// Who asks, once that is known.
    pub(super) caller: Cell<Option<&'a CallerSpec>>,
    /// What is noted down on the way.
    pub(super) tally: Tally,
}

impl<'a> Record<'a> {
    /// Of a request whose first byte arrived at `started`.
    pub(super) fn open(
        worker: &'a Worker,
        core: &'a Core,
        peer: &'a str,
        id: &'a str,
        asked: Asked<'a>,
        started: Instant,
    ) -> Self {
        let (route, caller, tally) = <_>::default();
        Self { worker, core, peer, id, asked, started, route, caller, tally }
    }

    /// Adds to what this core counts.
    fn count(&self, duration: Duration) {
        let (tally, counters) = (&self.tally, self.core.counters(self.route.get()));
        counters.statuses.add(tally.status.get());
        counters.seconds.add(duration);
        if let Some(code) = tally.error.get() {
            counters.errors[code.index()].add(1);
        }
        if tally.truncated.get() {
            counters.truncated.add(1);
        }
        let given_up = tally.replayed.get().then_some(ReplayOutcome::Failed);
        if let Some(replay) = tally.replay.get().or(given_up) {
            counters.replays[replay as usize].add(1);
        }
    }

    fn line(&self, duration: Duration) -> Line<'_> {
        let tally = &self.tally;
        let route = self.route.get().map(|at| &self.core.snapshot.routes[at].spec);
        let told = |status: u16| Some(status).filter(|status| *status > 0);
        // Whoever drops the request without a word ends the process.
        let aborted = match tally.aborted.get() {
            "" if !tally.whole.get() => "cut off by the end of the process",
            why => why,
        };
        Line {
            at: SystemTime::now().checked_sub(duration),
            request_id: self.id,
            peer: self.peer,
            caller: self.caller.get().map(|caller| caller.name.as_str()).unwrap_or_default(),
            protocol: self.asked.protocol,
            method: self.asked.method,
            path: self.asked.path(),
            route: route.map(|route| route.prefix.as_str()),
            credential: route.map(|route| route.token.credential.name.as_str()).unwrap_or_default(),
            status: told(tally.status.get()),
            error: tally.error.get().map(Code::as_str).unwrap_or_default(),
            aborted,
            upstream_protocol: tally.upstream_protocol.get(),
            upstream_status: told(tally.upstream_status.get()),
            replayed: tally.replayed.get(),
            request_bytes: tally.request_bytes.get(),
            response_bytes: tally.response_bytes.get(),
            duration,
            upstream: tally.upstream_at.get().map(|at| at.saturating_duration_since(self.started)),
        }
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        self.count(duration);
        if let Some(pen) = &self.worker.access {
            pen.write(&self.line(duration));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_told_without_what_may_be_secret_in_a_target() {
        for (target, expected) in [
            ("/a/b?token=x", "/a/b"),
            ("/a/b#token", "/a/b"),
            ("/", "/"),
            ("*", "*"),
            ("//user:pass@host/x", "//user:pass@host/x"),
            ("http://user:pass@host/a?x", "/a"),
            ("http://user:pass@host", ""),
            ("http://user:pass@host?x=/y", ""),
            ("user:pass@host:443", ""),
            ("", ""),
        ] {
            let asked = Asked::new(Version::H11, "GET", target.as_bytes());
            assert_eq!(String::from_utf8_lossy(asked.path()), expected, "{target}");
        }
    }
}
