//! A new configuration for the running process: read, checked and compiled here, off the cores, then published whole; or the
//! one before stays, untouched.
//!
//! One task does it, the only one that publishes: reloads and newly discovered token endpoints cannot overtake each other. What
//! asks for a reload (a signal, the admin address, the changed file) only sends it a [`Request`].

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::MissedTickBehavior,
};

use super::{compile, turn::Turn};
use crate::{
    config::{
        self, Problems,
        model::{Config, CredentialSpec, Upstream},
    },
    snapshot::{Publisher, Reader, Snapshot},
    token::Engine,
};

/// How often the file is looked at; a change counts once it has stood for as long.
const LOOK: Duration = Duration::from_millis(500);
/// Requests that may wait for one another.
pub(super) const QUEUE: usize = 16;

/// What came of a reload.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It holds now; what has changed of these keys holds only after a restart.
    Applied { generation: u64, restart: Vec<&'static str> },
    /// The file is wrong; nothing has changed.
    Problems(Problems),
    /// It cannot be used here and now; nothing has changed.
    Refused(String),
}

/// Somebody wants a reload.
pub(super) struct Request {
    /// Who, for the log.
    pub(super) why: &'static str,
    /// Who wants to know what came of it.
    pub(super) reply: Option<oneshot::Sender<Outcome>>,
}

/// How many reloads there were.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) applied: AtomicU64,
    pub(super) rejected: AtomicU64,
}

/// The file as it was seen, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    place: (u64, u64),
}

impl Stamp {
    async fn of(path: PathBuf) -> Option<Self> {
        let about = tokio::fs::metadata(path).await.ok()?;
        let place = (about.dev(), about.ino());
        Some(Self { modified: about.modified().ok(), length: about.len(), place })
    }
}

/// Notices that the file was changed and left alone again.
struct Watch {
    path: PathBuf,
    loaded: Option<Stamp>,
    seen: Option<Stamp>,
}

impl Watch {
    /// Whether it is another one than was loaded last, and the same as at the last look. A file that is gone is no change.
    fn sees_change(&mut self, now: Option<Stamp>) -> bool {
        let settled = now.is_some() && now == self.seen;
        self.seen = now;
        settled && now != self.loaded
    }
}

/// Publishes, alone. It waits for nothing but through [`Keeper::meanwhile`].
pub(super) struct Keeper {
    watch: Option<Watch>,
    publisher: Publisher,
    snapshots: Reader,
    engine: Arc<Engine>,
    /// Every token endpoint that was discovered so far.
    found: watch::Receiver<Vec<(String, Upstream)>>,
    counts: Arc<Counts>,
    /// Replaced, but perhaps still in use by a core: the last one to let go of a large one would be held up.
    retired: Vec<Arc<Snapshot>>,
}

impl Keeper {
    /// `file`: what the configuration was loaded from; without one there is nothing to reload.
    pub(super) fn new(
        file: Option<PathBuf>,
        publisher: Publisher,
        snapshots: Reader,
        engine: Arc<Engine>,
        counts: Arc<Counts>,
    ) -> Self {
        let watch = file.map(|path| Watch { path, loaded: None, seen: None });
        let found = engine.found_endpoints();
        Self { watch, publisher, snapshots, engine, found, counts, retired: Vec::new() }
    }

    /// Runs until nobody can ask any more.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.note_as_loaded().await;
        loop {
            tokio::select! {
                changed = self.found.changed() => match changed {
                    Ok(()) => self.forbid_found_endpoints(),
                    Err(_) => return,
                },
                request = requests.recv() => {
                    let Some(Request { why, reply }) = request else { return };
                    let outcome = self.reload(why).await;
                    // Who asked may have gone.
                    let _ = reply.map(|reply| reply.send(outcome));
                }
                _ = look.tick() => {
                    self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
                    let now = self.stamp().await;
                    if self.watch.as_mut().is_some_and(|watch| watch.sees_change(now)) {
                        self.reload("the file has changed").await;
                    }
                }
            }
        }
    }

    /// A token endpoint that is discovered while the proxy runs is out of reach before the first token from there is used: it
    /// is published in a snapshot of its own.
    fn forbid_found_endpoints(&mut self) {
        let endpoints = self.found.borrow().clone();
        if let Some(next) = self.snapshots.snapshot().forbidding(&endpoints) {
            self.publish(next);
        }
    }

    /// The outcome of `work`, which may take long, or hang, as commands and files on other hosts do. Token endpoints are put
    /// out of reach all the time.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                Ok(()) = self.found.changed() => self.forbid_found_endpoints(),
            }
        }
    }

    async fn stamp(&mut self) -> Option<Stamp> {
        let path = self.watch.as_ref()?.path.clone();
        self.meanwhile(Stamp::of(path)).await
    }

    async fn note_as_loaded(&mut self) {
        let now = self.stamp().await;
        if let Some(watch) = &mut self.watch {
            watch.loaded = now;
        }
    }

    fn publish(&mut self, next: Snapshot) {
        self.retired.push(self.snapshots.snapshot());
        self.publisher.publish(next);
    }

    /// Reads the file and applies it, or says why not.
    async fn reload(&mut self, why: &str) -> Outcome {
        let outcome = self.outcome().await;
        let count =
            if matches!(outcome, Outcome::Applied { .. }) { &self.counts.applied } else { &self.counts.rejected };
        count.fetch_add(1, Ordering::Relaxed);
        match &outcome {
            Outcome::Applied { generation, restart } => {
                let routes = self.snapshots.snapshot().routes.len();
                tracing::info!(generation, routes, "configuration applied ({why})");
                if !restart.is_empty() {
                    let keys = restart.join(", ");
                    tracing::warn!("what has changed of {keys} holds only after a restart; all else is applied");
                }
            }
            Outcome::Problems(problems) => {
                tracing::error!("configuration not applied ({why}); the one before stays:\n{problems}");
            }
            Outcome::Refused(text) => {
                tracing::error!("configuration not applied ({why}); the one before stays: {text}");
            }
        }
        outcome
    }

    async fn outcome(&mut self) -> Outcome {
        let Some(path) = self.watch.as_ref().map(|watch| watch.path.clone()) else {
            return Outcome::Refused("it came from no file".to_owned());
        };
        // Before it is read: what is written meanwhile is noticed at the next look.
        self.note_as_loaded().await;
        let (config, warnings) = match self.meanwhile(load(path)).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(problems)) => return Outcome::Problems(problems),
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        for config::Warning(warning) in warnings {
            tracing::warn!("{warning}");
        }
        match self.apply(config) {
            Ok((generation, restart)) => Outcome::Applied { generation, restart },
            Err(why) => Outcome::Refused(why),
        }
    }

    /// Compiles and publishes it; an error leaves all as it was.
    fn apply(&mut self, mut config: Config) -> Result<(u64, Vec<&'static str>), String> {
        let before = self.snapshots.snapshot();
        let restart = keep_until_restart(&mut config, &before.config)?;
        let endpoints = self.found.borrow().clone();
        let generation = before.generation + 1;
        let next = compile(config, generation, Some(&before), &self.engine).map_err(|e| e.to_string())?;
        self.publish(next.forbidding(&endpoints).unwrap_or(next));
        Ok((generation, restart))
    }
}

/// Loads the file on a thread of its own. Reading may run commands, for keys of callers, so not on the thread that keeps the tokens; and ten
/// thousand routes are a tenth of a second's work.
async fn load(path: PathBuf) -> io::Result<Result<(Config, Vec<config::Warning>), Problems>> {
    let (tell, told) = oneshot::channel();
    thread::Builder::new().name("reload".to_owned()).spawn(move || {
        // Who asked may have gone.
        let turn = Turn::begin();
        let _ = tell.send(config::load_pausing(&path, &|| turn.pause()));
    })?;
    told.await.map_err(io::Error::other)
}

/// Puts back what only a restart can change; gives the names of the keys that have changed.
///
/// Rules for who may call are checked against the addresses of the file. Where another address is open, they must not be loosened:
/// then nothing is applied. Nor is a file that has lost all its routes, nor one whose secrets or refresh tokens need the
/// `[vault]` or the store that only a restart brings: it was judged with those, and would run without.
fn keep_until_restart(config: &mut Config, running: &Config) -> Result<Vec<&'static str>, String> {
    let is_open = running.server.listen.iter().any(|listen| !listen.address.ip().is_loopback());
    if is_open && config.server.listen != running.server.listen {
        let why = "`listen` in [server] has changed, and rules that are safe there may not be safe at the address that other \
                   hosts can reach now. Restart instead";
        return Err(why.to_owned());
    }
    if config.routes.is_empty() && !running.routes.is_empty() {
        let why = "it has no routes at all, as a file has that is being written. Restart if that is meant";
        return Err(why.to_owned());
    }
    let is_kept = |c: &Arc<CredentialSpec>| c.keeps_refresh_token() && !c.logs_itself_in();
    if config.tokens != running.tokens
        && let Some(credential) = config.credentials.iter().find(|c| is_kept(c))
    {
        return Err(format!(
            "[tokens] has changed, and credential {:?} keeps a refresh token: one that came before the restart would be \
             missing after it. Restart instead",
            credential.name
        ));
    }
    if config.uses_vault && config.vault != running.vault {
        let why = "[vault] has changed, and a secret comes from there, which cannot be asked before a restart. Restart instead";
        return Err(why.to_owned());
    }
    let mut changed = Vec::new();
    macro_rules! keep {
        ($($name:literal $($field:ident).+;)*) => {
            $(if config.$($field).+ != running.$($field).+ {
                changed.push($name);
                config.$($field).+ = running.$($field).+.clone();
            })*
        };
    }
    keep! {
        "server.listen" server.listen;
        "server.workers" server.workers;
        "admin.listen" admin;
        "tokens" tokens;
        "vault" vault;
        "log" log;
    }
    Ok(changed)
}
