//! `cupbearer sandbox`: only the sandbox.

use std::process::ExitCode;

use clap::Args;

use super::{Global, output::tell};

/// The command's own arguments.
#[derive(Debug, Args)]
pub(crate) struct SandboxArgs {
    /// The port on loopback; 0 = any free one.
    #[arg(long, value_name = "N", default_value_t = 9090)]
    pub(crate) port: u16,
    /// A fault to order; may be given several times.
    #[arg(long, value_name = "SPEC")]
    pub(crate) fault: Vec<String>,
}

/// Runs the command.
pub(super) fn run(args: &SandboxArgs, global: &Global) -> ExitCode {
    let _ = (args, global);
    tell("`cupbearer sandbox` is not built yet in this version");
    ExitCode::FAILURE
}
