//! `cupbearer serve`: runs the proxy.

use std::process::ExitCode;

use clap::Args;

use super::{Global, output::tell};

/// The command's own arguments.
#[derive(Debug, Default, Args)]
pub(crate) struct ServeArgs {}

/// Runs the command.
pub(super) fn run(args: &ServeArgs, global: &Global) -> ExitCode {
    let _ = (args, global);
    tell("`cupbearer serve` is not built yet in this version");
    ExitCode::FAILURE
}
