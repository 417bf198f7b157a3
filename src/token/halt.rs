//! 5 … the end of the engine: nothing new is begun, and who has a refresh token in its hands comes to an end.
//!
//! A provider that rotates refresh tokens has used one up as soon as it has read the request: the only good one is in its
//! answer. To go away before that is there would lose the login. A request that holds none is lost without harm.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;

/// Why nothing is begun any more.
pub(super) const ENDING: &str = "this process is ending";

/// What the engine, one task and its fetch tell each other about the end.
#[derive(Debug, Clone)]
pub struct Halt {
    ordered: watch::Receiver<bool>,
    holding: Arc<AtomicBool>,
}

/// The fetch has a refresh token in its hands, until this is dropped.
#[derive(Debug)]
pub(super) struct Holding<'a>(&'a AtomicBool);

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Halt {
    /// For one task; `ordered` turns true when the engine stops.
    pub(super) fn new(ordered: watch::Receiver<bool>) -> Self {
        Self { ordered, holding: Arc::default() }
    }

    /// Nothing new is to be begun.
    pub(super) fn is_ordered(&self) -> bool {
        *self.ordered.borrow()
    }

    /// Waits until the engine stops. Cancel-safe; for ever, where it is gone already.
    pub(super) async fn ordered(&mut self) {
        if self.ordered.wait_for(|ordered| *ordered).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// From here on a refresh token may be used up.
    pub(super) fn hold(&self) -> Holding<'_> {
        self.holding.store(true, Ordering::Release);
        Holding(&self.holding)
    }

    /// Whether the fetch must come to its end.
    pub(super) fn is_holding(&self) -> bool {
        self.holding.load(Ordering::Acquire)
    }
}
