//! `cupbearer serve`: runs the proxy.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;

use super::{
    BAD_CONFIG, FileArgs, Global,
    output::{columns, say, tell},
};
use crate::{
    config::{self, model::Config},
    control::{Proxy, Signal, Signals, StartError},
    telemetry,
};

/// The command's own arguments.
#[derive(Debug, Default, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
}

/// Serves until SIGTERM or SIGINT: exit 0 then, 1 where it can't run, 2 for a bad configuration.
pub(super) fn run(_: &ServeArgs, global: &Global) -> ExitCode {
    let config = match global.load_and_warn() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let _log = telemetry::log::start(global.log_format().unwrap_or(config.log.format));
    let routes = route_lines(&config);
    finish(block_on(serve(config, Some(global.config.clone()), |_| say(routes.trim_end()))).and_then(|served| served))
}

/// How long the end waits for files that are being read or written: long enough for a disk, and no mount that hangs
/// keeps the process.
const LAST_FILES: Duration = Duration::from_secs(2);

/// Runs `work` on the control thread's runtime.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(LAST_FILES);
    Ok(done)
}

/// Starts, prints one line per listener, lets `started` say more, and serves until a signal. `file`: where the
/// configuration can be read again.
pub(super) async fn serve(
    config: Config,
    file: Option<PathBuf>,
    started: impl FnOnce(&Proxy),
) -> Result<(), StartError> {
    // Before the first line is printed: whoever reads it may send the signal at once.
    let mut signals = Signals::listen()?;
    let proxy = Proxy::start(config, file)?;
    for address in proxy.addresses() {
        say(format!("listening on {address}"));
    }
    if let Some(admin) = proxy.admin() {
        say(format!("admin on {admin}"));
    }
    started(&proxy);
    let signal = loop {
        match signals.next().await {
            Signal::Stop(name) => break name,
            Signal::HangUp => proxy.hang_up(),
        }
    };
    tracing::info!("{signal}: finishing what runs");
    tokio::select! {
        () = proxy.stop() => Ok(()),
        signal = signals.stop() => {
            tell(format!("{signal} again: what still runs is cut off"));
            std::process::exit(1)
        }
    }
}

/// The exit code of a run, its error told.
pub(super) fn finish(result: Result<(), StartError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format!("error: {error}"));
            ExitCode::from(if matches!(error, StartError::Config(_)) { BAD_CONFIG } else { 1 })
        }
    }
}

fn route_lines(config: &Config) -> String {
    let row = |route: &config::model::RouteSpec| {
        let prefix = if route.prefix.is_empty() { "/" } else { &route.prefix };
        vec![
            format!("route {prefix}"),
            format!("→ {}", route.upstream),
            format!("credential {}", route.token.credential.name),
        ]
    };
    columns(&config.routes.iter().map(row).collect::<Vec<_>>())
}
