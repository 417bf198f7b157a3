//! `cupbearer token CREDENTIAL`: asks for a token now and describes it.

use std::process::ExitCode;

use clap::Args;

use super::{
    BAD_CONFIG, FileArgs, Format, Global, OutputArgs,
    online::{ask, exit_code, question},
    output::{say, tell},
    serve,
    told::Told,
};

/// The command's own arguments.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// The name of a `[credentials.NAME]`.
    #[arg(value_name = "CREDENTIAL")]
    credential: String,
    /// For this route's scopes, audience and resource [default: those of the credential's first route]
    #[arg(long, value_name = "PREFIX")]
    route: Option<String>,
    /// Prints the token itself, and nothing else, to standard output; the description goes to standard error.
    #[arg(long)]
    reveal: bool,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Exit 0 with a token, 2 for a bad file, an unknown credential or route, and where something here is missing (a secret, a
/// login), 3 without a token.
pub(super) fn run(args: &TokenArgs, global: &Global) -> ExitCode {
    let config = match global.load() {
        Ok((config, _)) => config,
        Err(code) => return code,
    };
    let question = match question(&config, &args.credential, args.route.as_deref()) {
        Ok(question) => question,
        Err(error) => {
            tell(format_args!("error: {error}"));
            return ExitCode::from(BAD_CONFIG);
        }
    };
    let mut code = 0;
    let questions = [question];
    let asking = ask(&config, &questions, |question, inquiry| {
        let told = Told { question, inquiry: &inquiry };
        let text = match args.output.format {
            Format::Text => told.text().trim_end().to_owned(),
            Format::Json => format!("{:#}", told.json()),
        };
        if args.reveal {
            tell(text);
        } else {
            say(text);
        }
        if let Ok(granted) = &inquiry.result
            && args.reveal
        {
            say(granted.token.expose());
        }
        code = exit_code(code, &inquiry);
    });
    let asked = serve::block_on(asking).map_err(|e| e.to_string()).and_then(|asked| asked);
    match asked {
        Ok(()) => ExitCode::from(code),
        Err(error) => {
            tell(format_args!("error: {error}"));
            ExitCode::from(BAD_CONFIG)
        }
    }
}
