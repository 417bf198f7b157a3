//! The commands: one file each, no logic of their own.
//!
//! Exit codes: 0 done, 1 failed while running, 2 bad usage or bad configuration, 3 a provider gave no token (`check
//! --online`, `token`, `login`), 4 denied or no route (`explain`). What a program may read goes to standard output, everything else to standard error.
#![allow(clippy::print_stdout, clippy::print_stderr)] // printing is what this floor is for

mod check;
mod completions;
mod demo;
mod explain;
mod init;
mod login;
mod online;
mod output;
mod providers;
mod reload;
mod sandbox;
mod schema;
mod serve;
mod token;
mod told;

use std::{path::PathBuf, process::ExitCode};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    error::{ContextKind, ContextValue},
};

use crate::config::{
    self, Warning,
    model::{Config, LogFormat},
};

/// Bad usage or bad configuration.
const BAD_CONFIG: u8 = 2;
/// `check --online`, `token`, `login`: a provider refused, or could not be reached.
const REFUSED: u8 = 3;
/// `explain`: denied, or no route.
const DENIED: u8 = 4;

/// Where the configuration is unless `-c` says so.
const DEFAULT_FILE: &str = "proxy.toml";

/// Commands that are planned: refused by name, not as if nobody had heard of them.
const NOT_BUILT: &[&str] = &["status"];

#[allow(clippy::doc_markdown)] // this comment is the help text
/// An authenticating reverse proxy: plain requests in, OAuth2 bearer tokens injected.
///
/// Without a command it serves, like `cupbearer serve`.
#[derive(Debug, Parser)]
#[command(name = "cupbearer", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    file: FileArgs,
    /// How log lines are written; overrides `log.format` of the file.
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<Format>,
}

/// `-c`, before the command or behind it; only commands that read the file take it behind.
#[derive(Debug, Default, Args)]
pub(crate) struct FileArgs {
    /// The configuration file [default: proxy.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What commands share.
#[derive(Debug)]
pub(crate) struct Global {
    /// The configuration file.
    pub(crate) config: PathBuf,
    log_format: Option<Format>,
}

impl Global {
    /// The configuration; else the exit code, its problems told.
    fn load(&self) -> Result<(Config, Vec<Warning>), ExitCode> {
        config::load(&self.config).map_err(|problems| {
            output::tell(problems);
            ExitCode::from(BAD_CONFIG)
        })
    }

    /// The same, its warnings told.
    fn load_and_warn(&self) -> Result<Config, ExitCode> {
        let (config, warnings) = self.load()?;
        for Warning(diagnostic) in &warnings {
            output::tell(format!("{diagnostic}\n"));
        }
        Ok(config)
    }

    /// `--log-format`, if it is given.
    pub(crate) fn log_format(&self) -> Option<LogFormat> {
        self.log_format.map(|format| match format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        })
    }
}

/// For people or for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `--format`
#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// How the output is written.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the proxy (also without a command).
    Serve(serve::ServeArgs),
    /// Shows everything on this machine alone: a sandbox of all providers and a proxy in front of it.
    Demo(demo::DemoArgs),
    /// Runs only the sandbox: identity providers and APIs that behave like the real ones, faults to order.
    Sandbox(sandbox::SandboxArgs),
    /// Checks the configuration file without any network: what it would do, or all its problems; with --online it
    /// asks each provider for a token.
    Check(check::CheckArgs),
    /// Says what would happen to a request: route, verdict, credential, headers.
    Explain(explain::ExplainArgs),
    /// Writes a starter configuration for one or more providers.
    Init(init::InitArgs),
    /// Logs a user in, once, for a credential that needs that; the refresh token goes into the store.
    Login(login::LoginArgs),
    /// Lists the built-in providers, or describes one.
    Providers(providers::ProvidersArgs),
    /// Asks for a token now and describes it; shows the token itself only with --reveal.
    Token(token::TokenArgs),
    /// Asks the running instance to read its configuration again.
    Reload(reload::ReloadArgs),
    /// Prints the JSON Schema of the configuration file, for editors.
    Schema,
    /// Prints a script that completes commands and options in a shell.
    Completions(completions::CompletionsArgs),
}

impl Command {
    /// Its `-c`, where it reads the file.
    fn file(&self) -> Option<&FileArgs> {
        match self {
            Self::Serve(args) => Some(&args.file),
            Self::Check(args) => Some(&args.file),
            Self::Explain(args) => Some(&args.file),
            Self::Login(args) => Some(&args.file),
            Self::Token(args) => Some(&args.file),
            Self::Reload(args) => Some(&args.file),
            Self::Demo(_)
            | Self::Sandbox(_)
            | Self::Init(_)
            | Self::Providers(_)
            | Self::Schema
            | Self::Completions(_) => None,
        }
    }
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    let of_command = cli.command.as_ref().and_then(Command::file).and_then(|file| file.config.clone());
    let config = of_command.or(cli.file.config).unwrap_or_else(|| DEFAULT_FILE.into());
    let global = &Global { config, log_format: cli.log_format };
    match cli.command {
        None => serve::run(&serve::ServeArgs::default(), global),
        Some(Command::Serve(args)) => serve::run(&args, global),
        Some(Command::Demo(args)) => demo::run(&args, global),
        Some(Command::Sandbox(args)) => sandbox::run(&args),
        Some(Command::Check(args)) => check::run(&args, global),
        Some(Command::Explain(args)) => explain::run(&args, global),
        Some(Command::Init(args)) => init::run(&args),
        Some(Command::Login(args)) => login::run(&args, global),
        Some(Command::Providers(args)) => providers::run(&args),
        Some(Command::Token(args)) => token::run(&args, global),
        Some(Command::Reload(args)) => reload::run(&args, global),
        Some(Command::Schema) => schema::run(),
        Some(Command::Completions(args)) => completions::run(&args),
    }
}

/// Help, version, or what is wrong with the command line.
fn refused(error: &clap::Error) -> ExitCode {
    if let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand)
        && NOT_BUILT.contains(&name.as_str())
    {
        output::tell(format_args!(
            "error: `cupbearer {name}` is not built yet\n  hint: `cupbearer --help` lists what is"
        ));
        return ExitCode::from(BAD_CONFIG);
    }
    // Nobody is there to be told that printing failed.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(BAD_CONFIG))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
