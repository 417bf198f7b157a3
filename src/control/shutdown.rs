//! Signals: those that end the process, and those that do not.

use std::io;

use tokio::signal::unix::{self, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT.
    Stop(&'static str),
    /// SIGHUP: files may have changed, or been moved away.
    HangUp,
}

/// The signals of this process. The handlers stand as soon as it is made, not only when it is awaited.
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hang_up: unix::Signal,
    upgrade: unix::Signal,
}

impl Signals {
    /// Takes over all of them: unhandled, they would end the process and cut every running request.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next one that asks for something.
    pub async fn next(&mut self) -> Signal {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Signal::Stop("SIGTERM"),
                _ = self.interrupt.recv() => return Signal::Stop("SIGINT"),
                _ = self.hang_up.recv() => return Signal::HangUp,
                _ = self.upgrade.recv() => tracing::warn!("SIGUSR2: hand-over is not built yet in this version; restart instead"),
            }
        }
    }

    /// The next one that ends the process; others do nothing.
    pub async fn stop(&mut self) -> &'static str {
        loop {
            if let Signal::Stop(name) = self.next().await {
                return name;
            }
        }
    }
}

/// Waits for SIGTERM or SIGINT and gives its name.
pub fn stop_signal() -> io::Result<impl Future<Output = &'static str>> {
    let mut signals = Signals::listen()?;
    Ok(async move { signals.stop().await })
}
