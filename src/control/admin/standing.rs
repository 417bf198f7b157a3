//! The connections that stand at the admin address. Where there are too many, the one that was quiet longest makes room: who
//! opens many and says nothing must not keep a health check away.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio::task::AbortHandle;

/// Connections at a time.
const MOST: usize = 64;

/// Since when a connection has had no request that is being answered.
#[derive(Debug)]
pub(super) struct Quiet(Mutex<Option<Instant>>);

impl Quiet {
    /// A new connection.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(Instant::now()))))
    }

    /// Runs `answering` as one that is not to be disturbed.
    pub(super) async fn busy<T>(&self, answering: impl Future<Output = T>) -> T {
        self.set(None);
        let answered = answering.await;
        self.set(Some(Instant::now()));
        answered
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Standing(Vec<(Arc<Quiet>, AbortHandle)>);

impl Standing {
    /// Makes room for one more where there is none; whether there is any now. A request that is being answered is not cut off.
    pub(super) fn has_room(&mut self) -> bool {
        self.0.retain(|(_, task)| !task.is_finished());
        if self.0.len() < MOST {
            return true;
        }
        let quiet = self.0.iter().enumerate().filter_map(|(at, (quiet, _))| Some((quiet.since()?, at)));
        let Some((_, longest)) = quiet.min() else { return false };
        self.0.swap_remove(longest).1.abort();
        true
    }

    /// One more.
    pub(super) fn add(&mut self, quiet: Arc<Quiet>, task: AbortHandle) {
        self.0.push((quiet, task));
    }
}
