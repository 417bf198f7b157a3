//! One core's share of the access log.

use std::{
    cell::{Cell, RefCell},
    sync::mpsc::TrySendError,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    Handle, Line, Message,
    line::{LONGEST, Stamp},
};

/// What a block holds at most.
const BLOCK: usize = 32 * 1024;
/// How long a line waits for its block to fill.
const LATEST: Duration = Duration::from_millis(50);
/// How often a loss is told, at most.
const TELL: Duration = Duration::from_secs(10);

/// Writes the lines of one core. Dropping it hands on what it holds.
pub struct Pen {
    handle: Handle,
    block: RefCell<Vec<u8>>,
    lines: Cell<u64>,
    stamp: RefCell<Stamp>,
    begun: Notify,
    told: Cell<Option<Instant>>,
}

impl Pen {
    /// A core's own.
    pub fn new(handle: Handle) -> Self {
        let (block, stamp) = (RefCell::default(), RefCell::default());
        Self { handle, block, lines: Cell::new(0), stamp, begun: Notify::new(), told: Cell::new(None) }
    }

    /// Adds a line.
    pub fn write(&self, line: &Line<'_>) {
        let mut block = self.block.borrow_mut();
        if block.is_empty() {
            block.reserve(BLOCK);
            self.begun.notify_one();
        }
        line.write(&mut block, self.handle.format, &mut self.stamp.borrow_mut());
        self.lines.set(self.lines.get() + 1);
        let full = block.len() + LONGEST > BLOCK;
        drop(block);
        if full {
            self.hand_on(true);
        }
    }

    /// Hands blocks on that do not fill in time; for a task of its own. Costs nothing while there are no lines.
    pub async fn keep_handing_on(&self) {
        loop {
            self.begun.notified().await;
            while !self.block.borrow().is_empty() {
                tokio::time::sleep(LATEST).await;
                self.hand_on(false);
            }
        }
    }

    /// Gives the block to the writer. Where the queue is full it is kept for the next time, or, where it `must` go, lost.
    fn hand_on(&self, must: bool) {
        let mut block = self.block.borrow_mut();
        if block.is_empty() {
            return;
        }
        let message = Message::Block(std::mem::take(&mut *block), self.lines.get());
        match self.handle.queue.try_send(message) {
            Ok(()) => self.lines.set(0),
            Err(TrySendError::Full(Message::Block(kept, _))) if !must => *block = kept,
            Err(_) => {
                let lost = self.handle.lost.add(self.lines.replace(0));
                if self.told.get().is_none_or(|at| at.elapsed() > TELL) {
                    self.told.set(Some(Instant::now()));
                    tracing::warn!(
                        lost,
                        "lines of the access log are lost: its target takes them more slowly than requests come"
                    );
                }
            }
        }
    }
}

impl Drop for Pen {
    fn drop(&mut self) {
        self.hand_on(true);
    }
}
