//! The thread that writes what the cores hand on. It alone waits for a slow disk or a full pipe.

use std::{
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use super::{Lost, Message, Target};

/// How often a failure is told, at most.
const TELL: Duration = Duration::from_secs(10);

/// Writes until all who could send are gone.
pub(super) fn run(mut target: Target, blocks: &Receiver<Message>, lost: &Lost) {
    let (mut torn, mut told) = (false, None::<Instant>);
    while let Ok(message) = blocks.recv() {
        let result = match message {
            Message::Reopen => target.reopen().map_err(|error| (0, error)),
            Message::Block(block, lines) => write(&mut target, &block, &mut torn).inspect_err(|(written, _)| {
                let whole = memchr::memchr_iter(b'\n', &block[..*written]).count();
                lost.add(lines - whole as u64);
            }),
        };
        let Err((_, error)) = result else { continue };
        if told.is_none_or(|at| at.elapsed() > TELL) {
            told = Some(Instant::now());
            tracing::warn!(lost = lost.count(), "the access log cannot be written: {error}");
        }
    }
}

/// Writes a block; after one that broke off within a line, on a line of its own.
fn write(target: &mut Target, block: &[u8], torn: &mut bool) -> Result<(), (usize, std::io::Error)> {
    if *torn {
        target.write(b"\n").map_err(|(_, error)| (0, error))?;
        *torn = false;
    }
    target.write(block).inspect_err(|(written, _)| *torn = *written > 0 && block[written - 1] != b'\n')
}
