//! The log: to standard error, as text or JSON, filtered by `CUPBEARER_LOG`.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::config::model::LogFormat;

/// Libraries that see bytes of requests and token calls: whatever the filter says, they stay below the
/// level at which they would print them.
const QUIET: [&str; 4] = ["hyper=info", "hyper_util=info", "rustls=info", "tokio_rustls=info"];

/// Starts the log. `CUPBEARER_LOG` takes directives such as `debug` or `cupbearer::token=trace`; the
/// default is `info`. A second call changes nothing.
pub fn start(format: LogFormat) {
    let filter = std::env::var("CUPBEARER_LOG").unwrap_or_default();
    let mut filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse_lossy(filter);
    for directive in QUIET {
        if let Ok(directive) = directive.parse() {
            filter = filter.add_directive(directive);
        }
    }
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error means that a log is running already; then that one goes on.
    let _ = match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
}
