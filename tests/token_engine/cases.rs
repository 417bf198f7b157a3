//! Runs the stories in `tests/token_engine/cases/*.toml`: see `README.md` there for how they read.
//!
//! What runs is the real state machine and the real cell; only the clock is virtual and the provider is a word.

use std::{
    fmt::Write as _,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use cupbearer::{
    config::model::Warm,
    token::{
        bearer::{self, Decision, FailureKind, Now, Reader, Rejection, Writer},
        pace::Pace,
        refusal::{Refusal, Severity},
        reply::Minted,
        state::{Event, Policy, State},
    },
};
use serde::Deserialize;

use crate::support::{credential, duration, minted};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    given: Given,
    story: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Given {
    #[serde(default)]
    warm: Option<String>,
    #[serde(default)]
    expiry: Option<String>,
}

#[test]
fn every_story_in_the_case_files_comes_true() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/token_engine/cases");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    files.sort();
    let (mut count, mut wrong) = (0, String::new());
    for path in files {
        let file: File = toml::from_str(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for case in file.case {
            count += 1;
            if let Err(why) = run(&case) {
                let name = path.file_name().unwrap_or_default().display();
                let _ = writeln!(wrong, "{name}: {}\n    {why}\n", case.name);
            }
        }
    }
    assert!(count >= 40, "only {count} cases were found");
    assert!(wrong.is_empty(), "\n{wrong}");
}

fn run(case: &Case) -> Result<(), String> {
    let mut world = World::new(&case.given)?;
    for line in case.story.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let in_line = |why: String| format!("{line}\n    → {why}");
        let mut parts = line.split('|').map(str::trim);
        let (Some(at), Some(when), then) = (parts.next(), parts.next(), parts.next().unwrap_or("")) else {
            return Err(in_line("a line is `at | when | then`".to_owned()));
        };
        world.advance(duration(at).map_err(in_line)?);
        world.happen(when).map_err(in_line)?;
        for clause in then.split(';').map(str::trim).filter(|clause| !clause.is_empty()) {
            world.check(clause).map_err(in_line)?;
        }
        world.began = 0;
    }
    Ok(())
}

/// One key under a virtual clock.
struct World {
    policy: Policy,
    state: State,
    writer: Writer,
    reader: Reader,
    start: Now,
    /// Since `start`; the wall clock may be ahead of it by `wall_ahead` (in ms).
    elapsed: Duration,
    wall_ahead: i64,
    wake: Option<Instant>,
    /// When the fetch that runs was started.
    fetching: Option<Now>,
    /// Different tokens that the provider has given.
    texts: usize,
    /// Token requests that began since the last line.
    began: usize,
    /// What the last request was told.
    told: String,
    /// A request failed on a cached reason: heard at the next event.
    asked_silently: bool,
}

impl World {
    fn new(given: &Given) -> Result<Self, String> {
        let (writer, reader) = bearer::cell();
        let warm = match given.warm.as_deref() {
            None | Some("on_use") => Warm::OnUse,
            Some("always") => Warm::Always,
            Some(other) => return Err(format!("no such warm: {other}")),
        };
        let policy = Policy {
            pace: Pace::default(),
            warm,
            sliding: given.expiry.as_deref() == Some("sliding"),
            seed: 0, // the seed that gives a jitter of 0
            late: refusal(Severity::Transient, FailureKind::Unavailable, None),
        };
        let mut world = Self {
            policy,
            state: State::default(),
            writer,
            reader,
            start: Now { mono: Instant::now(), wall: SystemTime::now() },
            elapsed: Duration::ZERO,
            wall_ahead: 0,
            wake: None,
            fetching: None,
            texts: 0,
            began: 0,
            told: String::new(),
            asked_silently: false,
        };
        world.event(Event::Look, false);
        Ok(world)
    }

    fn now(&self) -> Now {
        let ahead = Duration::from_millis(self.wall_ahead.unsigned_abs());
        let wall = self.start.wall + self.elapsed;
        let wall = if self.wall_ahead < 0 { wall - ahead } else { wall + ahead };
        Now { mono: self.start.mono + self.elapsed, wall }
    }

    fn event(&mut self, event: Event, wanted: bool) {
        let now = self.now();
        let mut seen = self.writer.take_signals();
        seen.wanted |= wanted | std::mem::take(&mut self.asked_silently);
        let (state, todo) = std::mem::take(&mut self.state).on(&self.policy, event, seen, now);
        self.state = state;
        self.wake = todo.wake;
        if todo.publish {
            self.writer.publish(self.state.view());
        }
        if todo.fetch {
            assert!(self.fetching.is_none(), "two token requests at once");
            self.fetching = Some(now);
            self.began += 1;
        }
    }

    /// Lets time pass, stopping wherever the machine wanted to be woken.
    fn advance(&mut self, to: Duration) {
        assert!(to >= self.elapsed, "time runs forward");
        while let Some(wake) = self.wake.filter(|wake| *wake <= self.start.mono + to) {
            self.elapsed = self.elapsed.max(wake.saturating_duration_since(self.start.mono));
            self.event(Event::Look, false);
        }
        self.elapsed = to;
    }

    fn happen(&mut self, when: &str) -> Result<(), String> {
        let words: Vec<&str> = when.split_whitespace().collect();
        match words[..] {
            ["time", "passes"] => {}
            ["a", "request", "comes"] => self.request(),
            [n, "requests", "come"] => {
                for _ in 0..n.parse().map_err(|_| format!("how many is {n}?"))? {
                    self.request();
                }
            }
            ["token", n, "is", "accepted"] => self.reader.used(number(n)?, self.now().mono),
            ["token", n, "is", "rejected"] => {
                let rejection = self.reader.reject(number(n)?, self.now().mono);
                self.told = match rejection {
                    Rejection::Replaced => "is replayed".to_owned(),
                    Rejection::TooFresh => "passes the 401 on".to_owned(),
                };
                self.event(Event::Look, false);
            }
            ["the", "provider", "gives", life] | ["the", "provider", "gives", "the", "same", "for", life] => {
                self.texts += usize::from(words.len() == 4);
                let minted = self.minted(duration(life)?)?;
                self.event(Event::Fetched(Box::new(Ok(minted))), false);
            }
            ["the", "provider", "is", "down"] => self.fail(Severity::Transient, FailureKind::Unavailable, None)?,
            ["the", "provider", "hangs"] => self.fail(Severity::Transient, FailureKind::Timeout, None)?,
            ["the", "provider", "refuses"] => self.fail(Severity::Permanent, FailureKind::Refused, None)?,
            ["the", "secret", "is", "unreadable"] => self.fail(Severity::Transient, FailureKind::Secret, None)?,
            ["the", "provider", "says", "retry", "after", after] => {
                self.fail(Severity::Transient, FailureKind::Unavailable, Some(duration(after)?))?;
            }
            ["the", "budget", "is", "spent", "for", time] => {
                self.fail(Severity::Transient, FailureKind::Budget, Some(duration(time)?))?;
            }
            ["the", "budget", "changes"] => self.event(Event::BudgetChanged, false),
            ["the", "secret", "changes"] => self.event(Event::SecretChanged, false),
            // Of a sleeping machine the monotonic clock sleeps too.
            ["the", "wall", "clock", "jumps", by] | ["the", "machine", "sleeps", by] => self.jump(by)?,
            _ => return Err(format!("nobody knows what \"{when}\" means")),
        }
        Ok(())
    }

    fn request(&mut self) {
        let now = self.now();
        let glance = self.reader.glance();
        let (told, wanted) = match glance.decide(now) {
            Decision::Use(bearer) => (format!("gets token {}", bearer.generation), false),
            Decision::WaitOr(bearer) => (format!("waits with token {} at hand", bearer.generation), true),
            Decision::Wait => ("waits".to_owned(), true),
            Decision::Fail(failure) => {
                self.asked_silently = true;
                (format!("fails: {:?}", failure.kind).to_lowercase(), false)
            }
        };
        drop(glance);
        self.told = told;
        if wanted {
            self.event(Event::Look, true);
        }
    }

    fn minted(&mut self, life: Duration) -> Result<Minted, String> {
        let issued = self.fetching.take().ok_or("no token request runs")?;
        Ok(minted(&format!("not-a-token-{}", self.texts), issued, life))
    }

    fn fail(&mut self, severity: Severity, kind: FailureKind, after: Option<Duration>) -> Result<(), String> {
        self.fetching.take().ok_or("no token request runs")?;
        self.event(Event::Fetched(Box::new(Err(refusal(severity, kind, after)))), false);
        Ok(())
    }

    fn jump(&mut self, by: &str) -> Result<(), String> {
        let (back, by) = by.strip_prefix('-').map_or((false, by), |by| (true, by));
        let by = i64::try_from(duration(by)?.as_millis()).map_err(|e| e.to_string())?;
        self.wall_ahead += if back { -by } else { by };
        Ok(())
    }

    fn check(&self, clause: &str) -> Result<(), String> {
        let now = self.now();
        let expect = |right: bool, instead: String| if right { Ok(()) } else { Err(instead) };
        let words: Vec<&str> = clause.split_whitespace().collect();
        let until = self.state.failure().map(|failure| failure.until.saturating_duration_since(now.mono));
        match words[..] {
            ["it", ..] => {
                let told = clause.trim_start_matches("it").trim();
                expect(told == self.told, format!("it {} instead", self.told))
            }
            ["a", "token", "request", "starts"] => expect(self.began == 1, format!("{} started", self.began)),
            ["no", "token", "request"] => expect(self.began == 0, format!("{} started", self.began)),
            ["the", "state", "is", name] => {
                let state = self.state.phase(self.reader.last_use(), now).as_str();
                expect(state == name, format!("the state is {state}"))
            }
            ["next", "attempt", "in", time] => expect(until == Some(duration(time)?), format!("it is in {until:?}")),
            ["next", "attempt", "within", time] => {
                let time = duration(time)?;
                expect(until.is_some_and(|until| until <= time), format!("it is in {until:?}"))
            }
            ["the", "401", "of", "token", n, "goes", "through"] => {
                expect(self.reader.is_repeat(number(n)?), "there is another token to try".to_owned())
            }
            ["there", "is", "another", "than", "token", n] => {
                expect(!self.reader.is_repeat(number(n)?), "it is the same".to_owned())
            }
            ["no", "failure", "stands"] => expect(until.is_none(), "one stands".to_owned()),
            _ => Err(format!("nobody knows what \"{clause}\" means")),
        }
    }
}

fn refusal(severity: Severity, kind: FailureKind, retry_after: Option<Duration>) -> Refusal {
    let mut refusal = Refusal::unavailable(&credential(1), "as the story says");
    (refusal.severity, refusal.kind, refusal.retry_after) = (severity, kind, retry_after);
    refusal
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}
