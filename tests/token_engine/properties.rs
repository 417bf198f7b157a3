//! Whatever happens, in whatever order: one token request at a time, an answer for everybody who waits,
//! never an expired or rejected token, and no storm.

use std::time::{Duration, Instant, SystemTime};

use cupbearer::{
    config::model::Warm,
    token::{
        bearer::{self, Bearer, Decision, FailureKind, Now, Reader, Writer},
        pace::Pace,
        refusal::{Refusal, Severity},
        state::{Event, Phase, Policy, State},
    },
};
use proptest::prelude::*;

use crate::support::{credential, minted};

/// One thing that may happen.
#[derive(Debug, Clone)]
enum Act {
    /// Time goes by, in ms.
    Pass(u64),
    Ask,
    Use,
    /// Some token was rejected: the current one, or one that many before it.
    Reject(u64),
    Mint(u64),
    Fail {
        permanent: bool,
        retry_after: Option<u64>,
    },
    SecretChange,
    /// The wall clock jumps by so many seconds.
    Jump(i64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => prop_oneof![0..500_u64, 0..60_000_u64, 0..4_000_000_u64].prop_map(Act::Pass),
        4 => Just(Act::Ask),
        2 => Just(Act::Use),
        2 => (0..3_u64).prop_map(Act::Reject),
        4 => prop_oneof![1..10_u64, 1..4000_u64, 1..100_000_u64].prop_map(Act::Mint),
        2 => (any::<bool>(), prop::option::of(0..10_000_u64))
            .prop_map(|(permanent, retry_after)| Act::Fail { permanent, retry_after }),
        1 => Just(Act::SecretChange),
        1 => (-4000..4000_i64).prop_map(Act::Jump),
    ]
}

struct World {
    policy: Policy,
    state: State,
    writer: Writer,
    reader: Reader,
    now: Now,
    wake: Option<Instant>,
    fetching: Option<Now>,
    starts: Vec<Instant>,
    /// Somebody waits whose result has not come.
    waiting: bool,
    asked_silently: bool,
    forgiven: u64,
    jumps: u64,
    rejections: u64,
}

impl World {
    fn new(sliding: bool, always: bool, seed: u64) -> Self {
        let (writer, reader) = bearer::cell();
        let warm = if always { Warm::Always } else { Warm::OnUse };
        let late = Refusal::unavailable(&credential(1), "late");
        let mut world = Self {
            policy: Policy { pace: Pace::default(), warm, sliding, seed, late },
            state: State::default(),
            writer,
            reader,
            now: Now { mono: Instant::now(), wall: SystemTime::now() },
            wake: None,
            fetching: None,
            starts: Vec::new(),
            waiting: false,
            asked_silently: false,
            forgiven: 0,
            jumps: 0,
            rejections: 0,
        };
        world.event(Event::Look, false);
        world
    }

    fn event(&mut self, event: Event, wanted: bool) {
        let mut seen = self.writer.take_signals();
        seen.wanted |= wanted | std::mem::take(&mut self.asked_silently);
        let (state, todo) = std::mem::take(&mut self.state).on(&self.policy, event, seen, self.now);
        self.state = state;
        self.wake = todo.wake;
        if todo.publish {
            self.writer.publish(self.state.view());
            // Everybody who waits looks again.
            let usable = matches!(self.reader.glance().decide(self.now), Decision::Use(_) | Decision::WaitOr(_));
            self.waiting &= !usable;
        }
        if todo.fetch {
            assert!(self.fetching.is_none(), "two fetches in flight");
            self.fetching = Some(self.now);
            self.starts.push(self.now.mono);
        }
        assert_eq!(self.state.is_fetching(), self.fetching.is_some());
        let braked = self.starts.last().is_some_and(|at| self.now.mono < *at + self.policy.pace.brake);
        assert!(todo.wake.is_none_or(|wake| wake > self.now.mono), "a wake in the past spins: {todo:?}");
        if self.waiting && matches!(self.state.phase(self.reader.last_use(), self.now), Phase::Empty | Phase::Expired) {
            let failing = self.state.failure().is_some_and(|f| self.now.mono < f.until);
            assert!(self.fetching.is_some() || failing || (braked && todo.wake.is_some()), "a waiter is forgotten");
        }
    }

    fn pass(&mut self, by: Duration) {
        let end = self.now.mono + by;
        let mut looks = 0;
        while let Some(wake) = self.wake.filter(|wake| *wake <= end) {
            self.go(wake);
            self.event(Event::Look, false);
            looks += 1;
            assert!(looks < 10_000 + by.as_secs(), "it spins");
        }
        self.go(end);
    }

    fn go(&mut self, to: Instant) {
        self.now.wall += to - self.now.mono;
        self.now.mono = to;
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Pass(ms) => self.pass(Duration::from_millis(ms)),
            Act::Ask => self.ask(),
            Act::Use => {
                if let Some(generation) = self.carried() {
                    self.reader.used(generation, self.now.mono);
                }
            }
            Act::Reject(before) => {
                if let Some(generation) = self.carried() {
                    let current = self.state.view().bearer.map(|b| b.generation);
                    self.reader.reject(generation.saturating_sub(before), self.now.mono);
                    self.event(Event::Look, false);
                    self.rejections += u64::from(current != self.state.view().bearer.map(|b| b.generation));
                }
            }
            Act::Mint(seconds) => {
                let life = Duration::from_secs(seconds);
                if let Some(issued) = self.fetching.take() {
                    let minted = minted("not-a-token", issued, life);
                    self.waiting = false;
                    self.event(Event::Fetched(Box::new(Ok(minted))), false);
                }
            }
            Act::Fail { permanent, retry_after } => {
                if self.fetching.take().is_some() {
                    let mut refusal = Refusal::unavailable(&credential(1), "so it goes");
                    if permanent {
                        (refusal.severity, refusal.kind) = (Severity::Permanent, FailureKind::Refused);
                    }
                    refusal.retry_after = retry_after.map(Duration::from_secs);
                    self.waiting = false;
                    self.event(Event::Fetched(Box::new(Err(refusal))), false);
                }
            }
            Act::SecretChange => {
                self.forgiven += 1;
                self.event(Event::SecretChanged, false);
            }
            Act::Jump(by) => {
                self.jumps += 1;
                let step = Duration::from_secs(by.unsigned_abs());
                self.now.wall = if by < 0 { self.now.wall - step } else { self.now.wall + step };
            }
        }
    }

    /// The generation that a request would carry now, which must be a good one.
    fn carried(&self) -> Option<u64> {
        let glance = self.reader.glance();
        let (Decision::Use(bearer) | Decision::WaitOr(bearer)) = glance.decide(self.now) else { return None };
        self.assert_usable(bearer);
        Some(bearer.generation)
    }

    fn assert_usable(&self, bearer: &Bearer) {
        let slid = bearer.slid(self.reader.last_use());
        assert!(!bearer.expires.later_by(slid).passed(self.now), "an expired token is handed out");
        assert!(bearer.generation > self.state.view().rejected, "a rejected token is handed out");
        if !self.policy.sliding {
            assert!(slid.is_zero());
        }
    }

    fn ask(&mut self) {
        let wanted = match self.reader.glance().decide(self.now) {
            Decision::Use(bearer) => {
                self.assert_usable(bearer);
                false
            }
            Decision::WaitOr(bearer) => {
                self.assert_usable(bearer);
                true
            }
            Decision::Wait => {
                self.waiting = true;
                true
            }
            Decision::Fail(_) => {
                self.asked_silently = true;
                false
            }
        };
        if wanted {
            self.event(Event::Look, true);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// The assertions are in [`World`]: they hold after every single event.
    #[test]
    fn nothing_that_happens_breaks_the_rules(
        sliding in any::<bool>(), always in any::<bool>(), seed in any::<u64>(),
        acts in prop::collection::vec(act(), 1..120),
    ) {
        let mut world = World::new(sliding, always, seed);
        for act in &acts {
            world.act(act);
            world.carried();
        }
        for pair in world.starts.windows(2) {
            prop_assert!(pair[1] - pair[0] >= world.policy.pace.brake);
        }
    }

    /// Requests without pause, a provider that fails as it likes, a wall clock that jumps: over an hour, no more token
    /// requests than back-off, lifetimes, jumps and rejections account for.
    #[test]
    fn no_storm_reaches_the_provider(
        seed in any::<u64>(), always in any::<bool>(),
        answers in prop::collection::vec((0..4_u8, 60..4000_u64), 1..20),
        jumps in prop::collection::vec(-4000..4000_i64, 0..6),
    ) {
        let mut world = World::new(false, always, seed);
        let mut answers = answers.iter().cycle();
        for second in 0..3600_u64 {
            world.ask();
            if world.fetching.is_some() {
                match *answers.next().expect("a cycle") {
                    (0, life) => world.act(&Act::Mint(life)),
                    (1, after) => world.act(&Act::Fail { permanent: false, retry_after: Some(after) }),
                    (kind, _) => world.act(&Act::Fail { permanent: kind == 2, retry_after: None }),
                }
            }
            world.act(&Act::Reject(0));
            if let Some(by) = jumps.get((second / 600) as usize).filter(|_| second % 600 == 300) {
                world.act(&Act::Jump(*by));
            }
            world.pass(Duration::from_secs(1));
        }
        // Mints: at most one in 45 s by lifetime (75 % of 60 s), or one a jump, or one a rejection. Between two
        // mints, failures in the hour are bounded by the back-off's growth: 0.5 s doubling, with full jitter.
        let mints = 3600 / 45 + world.jumps + world.rejections + 1;
        prop_assert!(world.rejections < 200, "{} rejections cost a token", world.rejections);
        prop_assert!((world.starts.len() as u64) < 20 * mints + 400, "{} requests", world.starts.len());
    }

    /// A provider that gives no usable token at all is asked rarely, however many ask.
    #[test]
    fn a_provider_that_only_fails_is_left_in_peace(seed in any::<u64>(), permanent in any::<bool>()) {
        let mut world = World::new(false, true, seed);
        for _ in 0..3600 {
            world.ask();
            world.act(&Act::Fail { permanent, retry_after: None });
            world.pass(Duration::from_secs(1));
        }
        // Permanent: 1, 4, 16, 64, 256, then every 300 s. Transient: full jitter below a minute, 30 s on average.
        let limit = if permanent { 18 } else { 240 };
        prop_assert!(world.starts.len() <= limit, "{} requests", world.starts.len());
    }

    /// From any state: once the provider answers again, a caller who keeps asking is served within the longest back-off.
    #[test]
    fn it_always_heals(
        sliding in any::<bool>(), seed in any::<u64>(), acts in prop::collection::vec(act(), 1..60),
    ) {
        let mut world = World::new(sliding, false, seed);
        for act in &acts {
            world.act(act);
        }
        let mut served = false;
        for _ in 0..=3600 {
            world.act(&Act::Mint(3600));
            world.ask();
            if matches!(world.reader.glance().decide(world.now), Decision::Use(_)) {
                served = true;
                break;
            }
            world.pass(Duration::from_secs(1));
        }
        prop_assert!(served);
    }
}
