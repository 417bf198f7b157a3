//! The log: to standard error, as text or JSON, filtered by `CUPBEARER_LOG`.
//!
//! A thread of its own writes it. Where nobody reads standard error, lines are lost and counted; no request
//! waits for a log line.

use std::io::IsTerminal as _;

use tracing::{Level, Metadata};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter,
    filter::{LevelFilter, filter_fn},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::config::model::LogFormat;

/// Libraries that see bytes of requests and token calls: whatever the filter says, they stay below the
/// level at which they would print them.
const QUIET: [&str; 5] = ["h2", "hyper", "hyper_util", "rustls", "tokio_rustls"];

/// A filter of its own, since any directive for a longer path, or for a span, would go before one for the library.
fn may_speak(what: &Metadata<'_>) -> bool {
    let is_quiet =
        |name: &&str| what.target().strip_prefix(*name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    *what.level() <= Level::INFO || !QUIET.iter().any(is_quiet)
}

/// Lines that may wait to be written.
const QUEUE: usize = 16 * 1024;

/// While it lives, the log is written; dropping it writes what still waits.
pub struct Log {
    _writer: WorkerGuard,
    lost: ErrorCounter,
}

impl Drop for Log {
    fn drop(&mut self) {
        let lost = self.lost.dropped_lines();
        if lost > 0 {
            tracing::warn!(lost, "log lines were lost because nobody took them");
        }
    }
}

/// Starts the log. `CUPBEARER_LOG` takes directives such as `debug` or `cupbearer::token=trace`; the
/// default is `info`. A second call changes nothing.
#[must_use = "the log ends with it"]
pub fn start(format: LogFormat) -> Log {
    from(LevelFilter::INFO, format)
}

/// The same for a command that somebody talks with: what it does it tells by itself, so the default is `error`.
#[must_use = "the log ends with it"]
pub fn start_for_people(format: LogFormat) -> Log {
    from(LevelFilter::ERROR, format)
}

fn from(least: LevelFilter, format: LogFormat) -> Log {
    let filter = std::env::var("CUPBEARER_LOG").unwrap_or_default();
    let filter = EnvFilter::builder().with_default_directive(least.into()).parse_lossy(filter);
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(QUEUE)
        .thread_name("log")
        .finish(std::io::stderr());
    let lost = writer.error_counter();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    // An error means that a log is running already; then that one goes on.
    let _ = match format {
        LogFormat::Text => {
            log.with_ansi(std::io::stderr().is_terminal()).finish().with(filter_fn(may_speak)).try_init()
        }
        LogFormat::Json => log.json().flatten_event(true).finish().with(filter_fn(may_speak)).try_init(),
    };
    Log { _writer: guard, lost }
}
