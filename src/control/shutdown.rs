//! Signals that end the process.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGTERM or SIGINT and gives its name. The handlers stand as soon as this was called, not
/// only when it is awaited.
pub fn stop_signal() -> io::Result<impl Future<Output = &'static str>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Unhandled, these would end the process and cut every running request.
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut upgrade = signal(SignalKind::user_defined2())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => return "SIGTERM",
                _ = interrupt.recv() => return "SIGINT",
                _ = hang_up.recv() => tracing::warn!("SIGHUP: reload is not built yet in this version; restart instead"),
                _ = upgrade.recv() => tracing::warn!("SIGUSR2: hand-over is not built yet in this version; restart instead"),
            }
        }
    })
}
