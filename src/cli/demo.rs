//! `cupbearer demo`: the sandbox and a proxy in front of it.

use std::process::ExitCode;

use clap::Args;

use super::{Global, output::tell};

/// The command's own arguments.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// The proxy's port on loopback; 0 = any free one.
    #[arg(long, value_name = "N", default_value_t = 8080)]
    pub(crate) port: u16,
}

/// Runs the command.
pub(super) fn run(args: &DemoArgs, global: &Global) -> ExitCode {
    let _ = (args, global);
    tell("`cupbearer demo` is not built yet in this version");
    ExitCode::FAILURE
}
