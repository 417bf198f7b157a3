//! The access log: one line a request, metadata only.
//!
//! 1. A core writes each [`Line`] into a block of its own memory ([`Pen`]): no allocation, no lock, no system call.
//! 2. A block that is full, or has waited for a moment, goes through a bounded queue
//! 3. to the one `writer`, a thread, which writes it to the `target`: a file that it reopens when it is rotated, standard
//!    output or standard error.
//!
//! Where the target takes lines more slowly than requests come, lines are dropped, counted and told. No request waits
//! for its line.

mod line;
mod pen;
mod target;
mod writer;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use crate::config::model::{AccessLog, Log, LogFormat};

pub use line::Line;
pub use pen::Pen;
use target::Target;

/// Blocks that may wait to be written, over all cores: some megabytes at most.
const QUEUE: usize = 128;
/// How long the end of the process waits for a target that takes nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// What cores send to the writer.
enum Message {
    /// Whole lines, and how many.
    Block(Vec<u8>, u64),
    /// The file may have been moved away.
    Reopen,
}

/// Lines that nobody will read.
#[derive(Debug, Clone, Default)]
pub struct Lost(Arc<AtomicU64>);

impl Lost {
    /// So many more; returns how many there are now.
    fn add(&self, lines: u64) -> u64 {
        self.0.fetch_add(lines, Ordering::Relaxed) + lines
    }

    /// How many lines were lost since the start.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a core makes its [`Pen`] from.
#[derive(Clone)]
pub struct Handle {
    format: LogFormat,
    queue: SyncSender<Message>,
    lost: Lost,
}

/// The running access log. Dropping it, after all pens, writes what still waits.
pub struct Access {
    handle: Option<Handle>,
    ended: Receiver<()>,
}

impl Access {
    /// Opens the target and starts the writer; `None` where the log is off.
    pub fn start(log: &Log) -> io::Result<Option<Self>> {
        let Some(target) = Target::open(&log.access)? else { return Ok(None) };
        let (queue, blocks) = sync_channel(QUEUE);
        let (end, ended) = sync_channel(1);
        let handle = Handle { format: log.format, queue, lost: Lost::default() };
        let lost = handle.lost.clone();
        thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            writer::run(target, &blocks, &lost);
            let _ = end.send(()); // nobody waits any more
        })?;
        Ok(Some(Self { handle: Some(handle), ended }))
    }

    /// For one core.
    pub fn handle(&self) -> Option<Handle> {
        self.handle.clone()
    }

    /// What counts lines that could not be written.
    pub fn lost(&self) -> Option<Lost> {
        self.handle.as_ref().map(|handle| handle.lost.clone())
    }

    /// Lets go of a file that may have been moved away. Where the queue is full the writer looks for itself soon.
    pub fn reopen(&self) {
        if let Some(handle) = &self.handle {
            let _ = handle.queue.try_send(Message::Reopen);
        }
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        let Some(Handle { queue, lost, .. }) = self.handle.take() else { return };
        drop(queue);
        let written = self.ended.recv_timeout(PATIENCE).is_ok();
        if !written || lost.count() > 0 {
            tracing::warn!(lost = lost.count(), written, "lines of the access log were lost");
        }
    }
}

/// Whether the log can be opened with these settings; the error names the file.
pub fn describe(access: &AccessLog, error: &io::Error) -> String {
    match access {
        AccessLog::File(path) => format!("cannot open the access log {}: {error}", path.display()),
        _ => format!("cannot write the access log: {error}"),
    }
}
