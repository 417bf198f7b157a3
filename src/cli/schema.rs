//! `cupbearer schema`: the JSON Schema of the file, for editors.

use std::process::ExitCode;

use super::output::say;
use crate::config;

/// Prints it.
pub(super) fn run() -> ExitCode {
    say(format!("{:#}", config::schema()));
    ExitCode::SUCCESS
}
