//! `cupbearer login`: a user logs in, once, and `serve` works from then on.

use std::{pin::pin, process::ExitCode, sync::Arc, time::Duration};

use clap::Args;

use super::{
    BAD_CONFIG, FileArgs, Global, REFUSED,
    output::{say, tell},
    serve::block_on,
};
use crate::{
    config::{
        self,
        model::{Config, CredentialSpec, Grant},
    },
    control::{self, Signals, StartError},
    telemetry,
    token::login::{Done, Login, LoginError, Prompt, Way},
};

/// The command's own arguments.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// The credential, as its section [credentials.NAME] names it.
    #[arg(value_name = "CREDENTIAL")]
    credential: String,
    /// Without a browser on this machine: shows a code to enter on any other device.
    #[arg(long)]
    device: bool,
    /// How long to wait for the user [default: 300; with --device as long as the code is good].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: Option<u64>,
}

/// Exit 0 once the refresh token is stored, 1 where that failed, 2 for a bad configuration or credential, 3 where the
/// provider or the user said no.
pub(super) fn run(args: &LoginArgs, global: &Global) -> ExitCode {
    let config = match global.load_and_warn() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let _log = telemetry::log::start_for_people(global.log_format().unwrap_or(config.log.format));
    let outcome = block_on(log_in(args, &config)).map_err(|e| settings_or_failed(&e)).and_then(|done| done);
    let (error, code) = match outcome {
        Ok(done) => {
            say(told(&args.credential, &config, &done));
            return ExitCode::SUCCESS;
        }
        Err(LoginError::Settings(text)) => (text, BAD_CONFIG),
        Err(LoginError::Refused(text)) => (text, REFUSED),
        Err(LoginError::Failed(text)) => (text, 1),
    };
    tell(format!("error: {error}"));
    ExitCode::from(code)
}

async fn log_in(args: &LoginArgs, config: &Config) -> Result<Done, LoginError> {
    let credential = find(config, &args.credential)?;
    let mut signals = Signals::listen().map_err(|e| LoginError::Failed(e.to_string()))?;
    let way = if args.device || credential.grant == Grant::DeviceCode { Way::Device } else { Way::Browser };
    let patience = args.timeout.map(Duration::from_secs);
    let engine = control::engine(config, true).map_err(|e| settings_or_failed(&e))?;
    let login = tokio::select! {
        login = Login::prepare(config, credential, &engine) => login?,
        signal = signals.stop() => return Err(LoginError::Failed(format!("{signal}: given up, nothing was stored"))),
    };
    let mut tell_user = |prompt| say(prompted(&prompt));
    let mut done = pin!(login.run(way, patience, &mut tell_user));
    tokio::select! {
        done = &mut done => {
            engine.stop().await;
            done
        }
        signal = signals.stop() => {
            let end = async {
                let ((), done) = tokio::join!(engine.stop(), done);
                engine.stop().await; // what came meanwhile
                done
            };
            tokio::select! {
                done = end => done.map_err(|error| after(signal, error)),
                again = signals.stop() => {
                    tell(format!("{again} again: what still runs is cut off"));
                    std::process::exit(1)
                }
            }
        }
    }
}

/// The same error, with the signal that made it.
fn after(signal: &str, error: LoginError) -> LoginError {
    let text = |text: String| format!("{signal}: {text}");
    match error {
        LoginError::Settings(why) => LoginError::Settings(text(why)),
        LoginError::Refused(why) => LoginError::Refused(text(why)),
        LoginError::Failed(why) => LoginError::Failed(text(why)),
    }
}

fn find<'c>(config: &'c Config, name: &str) -> Result<&'c Arc<CredentialSpec>, LoginError> {
    let found = config.credentials.iter().find(|credential| credential.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = config.credentials.iter().map(|credential| credential.name.as_str()).collect();
        LoginError::Settings(format!("no credential is called {name:?}\nhint: there is {}", names.join(", ")))
    })
}

fn settings_or_failed(error: &StartError) -> LoginError {
    match error {
        StartError::Config(text) => LoginError::Settings(text.clone()),
        other => LoginError::Failed(other.to_string()),
    }
}

fn prompted(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Browser { url, port, patience } => format!(
            "Open this address in a browser and log in:\n\n  {url}\n\n\
             The browser then comes back to http://127.0.0.1:{port}; that is waited for {}.\n\
             If the browser runs on another machine, let it come back here: ssh -L {port}:127.0.0.1:{port} THIS-HOST\n\
             (or use --device, where the provider offers that).",
            spelled(*patience)
        ),
        Prompt::Device { url, complete, code, patience } => {
            let complete =
                complete.as_ref().map_or_else(String::new, |url| format!("\nor open this one:\n\n  {url}\n"));
            format!(
                "Open this address in a browser on any device:\n\n  {url}\n\nand enter the code  {code}\n{complete}\n\
                 The code is good for {}.",
                spelled(*patience)
            )
        }
    }
}

fn spelled(time: Duration) -> String {
    match time.as_secs() {
        minutes if minutes >= 120 && minutes % 60 == 0 => format!("{} minutes", minutes / 60),
        seconds => format!("{seconds} seconds"),
    }
}

fn told(name: &str, config: &Config, done: &Done) -> String {
    let granted = done.scope.as_ref().map_or_else(String::new, |scope| format!(" It was granted: {scope}."));
    let missing = if done.missing.is_empty() {
        String::new()
    } else {
        let missing = done.missing.join(" ");
        format!(
            "\nNot among that: {missing}. A route whose own scopes name it is refused until a login brings it; the others do with \
             what was granted."
        )
    };
    let place = match &config.tokens.store {
        config::model::StoreSpec::File(path) => path.display().to_string(),
        _ => "the store".to_owned(),
    };
    format!(
        "Logged in: {name} has a new refresh token, sealed in {place}.{granted}{missing}\n\
         A running cupbearer with this store that waits for it takes it up by itself."
    )
}
