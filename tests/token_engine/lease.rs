//! The lease among replicas: the real algorithm over a simulated Redis and a virtual clock.
//!
//! Replicas renew at arbitrary moments, fetch for arbitrary times, fail, and crash in the middle; Redis is slow and away
//! as it pleases. Whatever happens: as long as Redis answers, no two of them ask the provider at once, what one has
//! fetched the others take, and nobody waits for ever.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant, SystemTime},
};

use cupbearer::token::{
    Key,
    bearer::Now,
    credential::Version,
    reply::Minted,
    share::{Claim, Common, LEASE_SLACK, Last, Terms, Turn, turn},
    store::Away,
};
use proptest::prelude::*;

use crate::support::{self, credential, need, read};

/// What a provider takes for an answer at most.
const WORST: u64 = 4_000;
/// What a command of a Redis that is not away takes at most.
const SLOWEST: u64 = 900;
/// What a token request may take: with a slow Redis before and behind it.
const REQUEST: u64 = WORST + 5 * SLOWEST;
/// What a fetch may take: with the one client secret, and once more with the one before.
const FETCH: u64 = 2 * REQUEST;
const TERMS: Terms = Terms::new(Duration::from_millis(REQUEST), Duration::from_millis(FETCH));

/// All that the replicas share; times are milliseconds.
#[derive(Default)]
struct World {
    now: AtomicU64,
    /// Who is woken when.
    timers: Mutex<BTreeMap<(u64, u64), Waker>>,
    count: AtomicU64,
    redis: Mutex<Redis>,
}

#[derive(Default)]
struct Redis {
    /// The newest token: its number, and when it was issued.
    token: Option<(u64, u64)>,
    /// Owner and end.
    lease: Option<(u64, u64)>,
    owners: u64,
    /// How long the next commands take, in turn.
    delays: Vec<u64>,
    commands: usize,
    /// When it does not answer: from, until.
    away: Vec<(u64, u64)>,
}

impl World {
    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    fn redis(&self) -> MutexGuard<'_, Redis> {
        self.redis.lock().expect("not poisoned")
    }

    fn sleep(self: &Arc<Self>, ms: u64) -> Sleep {
        Sleep { world: Arc::clone(self), until: self.now() + ms, number: self.count.fetch_add(1, Ordering::Relaxed) }
    }

    /// A command: half of its time passes before it is carried out, half before the answer is there.
    async fn command<T>(self: &Arc<Self>, act: impl FnOnce(&mut Redis, u64) -> T) -> Result<T, Away> {
        let (delay, away) = {
            let mut redis = self.redis();
            redis.commands += 1;
            let delay = if redis.delays.is_empty() { 0 } else { redis.delays[redis.commands % redis.delays.len()] };
            let now = self.now();
            (delay, redis.away.iter().any(|(from, until)| (*from..*until).contains(&now)))
        };
        if away {
            self.sleep(SLOWEST).await;
            return Err(Away);
        }
        self.sleep(delay / 2).await;
        let now = self.now();
        let answer = act(&mut self.redis(), now);
        self.sleep(delay / 2).await;
        Ok(answer)
    }
}

struct Sleep {
    world: Arc<World>,
    until: u64,
    number: u64,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.world.now() >= self.until {
            return Poll::Ready(());
        }
        let mut timers = self.world.timers.lock().expect("not poisoned");
        timers.insert((self.until, self.number), context.waker().clone());
        Poll::Pending
    }
}

/// One replica's way to the simulated Redis.
struct Link {
    world: Arc<World>,
    base: Instant,
}

impl Common for Link {
    type Lease = u64;

    async fn load(&self, _: Key, _: Version) -> Result<Option<Minted>, Away> {
        let found = self.world.command(|redis, _| redis.token).await?;
        Ok(found.map(|(number, issued)| minted(number, issued)))
    }

    async fn forget(&self, _: Key, rejected: &str) -> Result<(), Away> {
        let act = |redis: &mut Redis, _| {
            redis.token = redis.token.filter(|(number, issued)| minted(*number, *issued).fingerprint != rejected);
        };
        self.world.command(act).await
    }

    async fn lease(&self, _: Key, length: Duration, from: Option<&str>) -> Result<Claim<u64>, Away> {
        let from = from.map(str::to_owned);
        let act = |redis: &mut Redis, now| {
            let holder = redis.lease.filter(|(_, until)| now < *until).map(|(owner, _)| owner.to_string());
            if let Some(holder) = holder.filter(|holder| from.as_ref() != Some(holder)) {
                return Claim::Theirs(holder);
            }
            redis.owners += 1;
            redis.lease = Some((redis.owners, now + length.as_millis() as u64));
            Claim::Ours(redis.owners)
        };
        self.world.command(act).await
    }

    async fn release(&self, lease: u64) {
        let act = |redis: &mut Redis, _| redis.lease = redis.lease.filter(|(owner, _)| *owner != lease);
        let _ = self.world.command(act).await;
    }

    fn now(&self) -> Instant {
        self.base + Duration::from_millis(self.world.now())
    }

    async fn sleep(&self, length: Duration) {
        self.world.sleep(length.as_millis() as u64).await;
    }
}

fn minted(number: u64, issued: u64) -> Minted {
    let issued = Now { wall: SystemTime::UNIX_EPOCH + Duration::from_millis(1 + issued), ..Now::read() };
    support::minted(&format!("not-a-token-{number}"), issued, Duration::from_secs(3600))
}

/// What a replica does at one of its renewals.
#[derive(Debug, Clone)]
struct Renewal {
    /// After the one before.
    pause: u64,
    fetch: u64,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Token,
    Refused,
    /// It dies while it fetches: no token, no release, and no more renewals.
    Crash,
}

/// What happened, in order.
#[derive(Debug, Default)]
struct Report {
    /// Token requests: from, until, and whether by the right of a lease.
    fetches: Vec<(u64, u64, bool)>,
    /// The longest that anybody waited for its turn.
    longest: u64,
    /// Tokens taken from others.
    taken: usize,
    crashes: usize,
    refusals: usize,
}

async fn replica(link: Link, key: Key, version: Version, plan: Vec<Renewal>, report: Arc<Mutex<Report>>) {
    let world = Arc::clone(&link.world);
    let mut last = Last::default();
    for renewal in plan {
        world.sleep(renewal.pause).await;
        let began = world.now();
        let turn = turn(&link, key, version, &last, TERMS).await;
        {
            let mut report = report.lock().expect("not poisoned");
            report.longest = report.longest.max(world.now() - began);
        }
        let lease = match turn {
            Turn::Take(minted) => {
                report.lock().expect("not poisoned").taken += 1;
                last = Last { issued: Some(minted.issued.wall), fingerprint: minted.fingerprint, rejected: false };
                continue;
            }
            Turn::Fetch(lease) => Some(lease),
            Turn::Alone => None,
        };
        let sent = world.now();
        let crashes = renewal.fate == Fate::Crash;
        world.sleep(if crashes { renewal.fetch / 2 } else { renewal.fetch }).await;
        {
            let mut report = report.lock().expect("not poisoned");
            report.fetches.push((sent, world.now(), lease.is_some()));
            report.crashes += usize::from(crashes);
            report.refusals += usize::from(renewal.fate == Fate::Refused);
        }
        match renewal.fate {
            Fate::Crash => return,
            Fate::Refused => {}
            Fate::Token => {
                let number = world.count.fetch_add(1, Ordering::Relaxed);
                let saved = world.command(|redis, _| {
                    if redis.token.is_none_or(|(_, issued)| issued < sent) {
                        redis.token = Some((number, sent));
                    }
                });
                let _ = saved.await;
                let minted = minted(number, sent);
                last = Last { issued: Some(minted.issued.wall), fingerprint: minted.fingerprint, rejected: false };
            }
        }
        if let Some(lease) = lease {
            link.release(lease).await;
        }
    }
}

/// Wakes one task.
struct Flag(Mutex<bool>);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        *self.0.lock().expect("not poisoned") = true;
    }
}

/// Runs all replicas to their end, jumping from timer to timer.
fn run(world: &Arc<World>, mut tasks: Vec<Pin<Box<dyn Future<Output = ()>>>>) {
    let flags: Vec<Arc<Flag>> = tasks.iter().map(|_| Arc::new(Flag(Mutex::new(true)))).collect();
    let mut ended = vec![false; tasks.len()];
    while ended.contains(&false) {
        for ((task, flag), ended) in tasks.iter_mut().zip(&flags).zip(&mut ended) {
            if !*ended && std::mem::take(&mut *flag.0.lock().expect("not poisoned")) {
                let waker = Waker::from(Arc::clone(flag));
                *ended = task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
            }
        }
        if flags.iter().any(|flag| *flag.0.lock().expect("not poisoned")) {
            continue;
        }
        let next = world.timers.lock().expect("not poisoned").pop_first();
        let Some(((at, _), waker)) = next else { return };
        world.now.fetch_max(at, Ordering::Relaxed);
        waker.wake();
    }
}

fn simulate(plans: Vec<Vec<Renewal>>, delays: Vec<u64>, away: Vec<(u64, u64)>) -> Report {
    let world = Arc::new(World::default());
    {
        let mut redis = world.redis();
        (redis.delays, redis.away) = (delays, away);
    }
    let spec = need(credential(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let version = runtime.block_on(read(&spec.credential)).expect("a given secret").version();
    let (key, report, base) = (Key::of(&spec), Arc::new(Mutex::new(Report::default())), Instant::now());
    let tasks = plans
        .into_iter()
        .map(|plan| {
            let link = Link { world: Arc::clone(&world), base };
            Box::pin(replica(link, key, version, plan, Arc::clone(&report))) as Pin<Box<dyn Future<Output = ()>>>
        })
        .collect();
    run(&world, tasks);
    std::mem::take(&mut *report.lock().expect("not poisoned"))
}

fn renewal() -> impl Strategy<Value = Renewal> {
    let fate = prop_oneof![8 => Just(Fate::Token), 1 => Just(Fate::Refused), 1 => Just(Fate::Crash)];
    (0..20_000_u64, 1..WORST, fate).prop_map(|(pause, fetch, fate)| Renewal { pause, fetch, fate })
}

fn plans() -> impl Strategy<Value = Vec<Vec<Renewal>>> {
    prop::collection::vec(prop::collection::vec(renewal(), 1..6), 2..6)
}

/// Nobody waits longer for its turn than two leases, a look more, and what the commands take.
fn patience() -> u64 {
    2 * (FETCH + LEASE_SLACK.as_millis() as u64) + 500 + 5 * SLOWEST
}

/// Whether two requests that a lease allowed were under way at once.
fn overlap(report: &Report) -> bool {
    let mut leased: Vec<_> = report.fetches.iter().filter(|(.., leased)| *leased).collect();
    leased.sort();
    leased.windows(2).any(|pair| pair[1].0 < pair[0].1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn while_redis_answers_however_slowly_at_most_one_replica_asks_and_nobody_waits_for_ever(
        plans in plans(),
        delays in prop::collection::vec(0..SLOWEST, 0..8),
    ) {
        let report = simulate(plans, delays, Vec::new());
        prop_assert!(!overlap(&report), "{report:?}");
        let got_none = report.crashes + report.refusals;
        let alone = report.fetches.iter().any(|(.., leased)| !leased);
        prop_assert!(got_none > 1 || !alone, "nobody has to ask for itself: {report:?}");
        prop_assert!(report.longest <= patience(), "{report:?}");
    }

    #[test]
    fn when_all_renew_at_once_one_asks_and_one_more_if_that_died_or_was_refused(
        mut round in prop::collection::vec(renewal(), 2..8),
        delays in prop::collection::vec(0..SLOWEST, 0..8),
    ) {
        for renewal in &mut round {
            renewal.pause %= 100;
        }
        let replicas = round.len();
        let report = simulate(round.into_iter().map(|renewal| vec![renewal]).collect(), delays, Vec::new());
        let got_none = report.crashes + report.refusals;
        prop_assert!(got_none > 1 || report.fetches.len() <= 1 + got_none, "{report:?}");
        prop_assert_eq!(report.taken + report.fetches.len(), replicas);
    }

    #[test]
    fn a_redis_that_comes_and_goes_delays_nobody_for_long_and_gives_no_lease_twice(
        plans in plans(),
        delays in prop::collection::vec(0..SLOWEST, 0..8),
        away in prop::collection::vec((0..60_000_u64, 1..10_000_u64), 1..5),
    ) {
        let away = away.into_iter().map(|(from, length)| (from, from + length)).collect();
        let report = simulate(plans, delays, away);
        prop_assert!(!overlap(&report), "{report:?}");
        prop_assert!(report.longest <= patience(), "{report:?}");
    }
}

#[test]
fn the_simulation_itself_notices_a_lease_that_is_too_short() {
    let plan = |pause| vec![Renewal { pause, fetch: 10 * FETCH, fate: Fate::Token }];
    let report = simulate(vec![plan(0), plan(1), plan(2)], vec![10], Vec::new());
    assert!(overlap(&report), "{report:?}");
}
