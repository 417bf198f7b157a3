//! `cupbearer sandbox`: only the sandbox.

use std::process::ExitCode;

use clap::Args;

use super::{
    BAD_CONFIG,
    output::{columns, say, tell},
};
use crate::{
    control::stop_signal,
    sandbox::{GRAMMAR, Options, Provider, Sandbox},
};

/// The command's own arguments.
#[derive(Debug, Args)]
#[command(after_help = format!("Faults:\n{GRAMMAR}"))]
pub(crate) struct SandboxArgs {
    /// The port on loopback; 0 = any free one.
    #[arg(long, value_name = "N", default_value_t = 9090)]
    pub(crate) port: u16,
    /// A fault to order; may be given several times.
    #[arg(long, value_name = "SPEC")]
    pub(crate) fault: Vec<String>,
}

/// Runs the command until SIGINT or SIGTERM.
pub(super) fn run(args: &SandboxArgs) -> ExitCode {
    let mut options = Options::default().port(args.port);
    for spec in &args.fault {
        options = match options.fault(spec) {
            Ok(options) => options,
            Err(error) => {
                tell(format_args!("error: {error}"));
                return ExitCode::from(BAD_CONFIG);
            }
        };
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(serve(options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("error: {error}"));
            if error.kind() == std::io::ErrorKind::AddrInUse {
                tell("hint: --port 0 picks a free port");
            }
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: Options) -> std::io::Result<()> {
    let stopped = stop_signal()?;
    let sandbox = Sandbox::start(options).await?;
    say(introduction(&sandbox));
    let signal = stopped.await;
    tell(format_args!("sandbox: stopped by {signal}"));
    Ok(())
}

/// Where everything is, whom it knows, and how to order faults. The secrets are well-known fakes.
fn introduction(sandbox: &Sandbox) -> String {
    let base = sandbox.base_url();
    let mut rows = vec![["TOKEN ENDPOINT", "CLIENT ID", "SECRET (FAKE)"].map(str::to_owned).to_vec()];
    for client in sandbox.clients().iter().filter(|c| Provider::FOUNDING.contains(&c.provider)) {
        rows.push(vec![sandbox.token_url(client.provider), client.id.clone(), client.secret.clone()]);
    }
    let clients = columns(&rows);
    let apis = columns(&sandbox.apis().map(|(url, about)| vec![url, about.to_owned()]).collect::<Vec<_>>());
    let others = wrapped(Provider::all().filter(|p| !Provider::FOUNDING.contains(p)).map(Provider::name), 110);
    format!(
        "cupbearer sandbox on {base}: providers and APIs that behave like the real ones; nothing leaves this machine\n\n\
         {clients}\nAPIs (any path below answers with what it received; …/echo, …/status/N, …/download?size=N, …)\n{apis}\n\
         And below /NAME, at the paths of the real ones (token endpoints, clients, APIs: curl {base}/_sandbox/providers)\n\
         {others}\n\n\
         Order faults while it runs:\n  \
         curl -d mythic.idp=down {base}/_sandbox/fault                what there is: curl {base}/_sandbox/fault\n  \
         curl -X DELETE {base}/_sandbox/fault                         all well again\n  \
         curl -X POST '{base}/_sandbox/revoke?provider=ipxo'          all its tokens are void now\n  \
         curl {base}/_sandbox/log                                     what came in\n  \
         curl {base}/_sandbox/key                                     the private key that some clients sign with\n\n\
         Ctrl-C ends it."
    )
}

/// Words with commas, in indented lines of about this width.
fn wrapped<'w>(words: impl Iterator<Item = &'w str>, width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut().filter(|line| line.len() + word.len() < width) {
            Some(line) => *line = format!("{line}, {word}"),
            None => lines.push(format!("  {word}")),
        }
    }
    lines.join(",\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_introduction_names_every_url_and_client() {
        let sandbox = Sandbox::start(Options::default()).await.unwrap();
        let text = introduction(&sandbox);
        for client in sandbox.clients().iter().filter(|c| Provider::FOUNDING.contains(&c.provider)) {
            assert!(text.contains(&sandbox.token_url(client.provider)) && text.contains(&client.id), "{text}");
        }
        assert!(text.contains(&format!("{}/pax8/v2/usage", sandbox.base_url())));
        for provider in Provider::all().filter(|p| !Provider::FOUNDING.contains(p)) {
            assert!(text.contains(&format!(" {}", provider.name())), "{text}");
        }
    }

    #[test]
    fn a_fault_that_is_not_understood_is_bad_usage() {
        let args = SandboxArgs { port: 0, fault: vec!["ipxo.api=dwn".to_owned()] };
        assert_eq!(run(&args), ExitCode::from(BAD_CONFIG));
    }
}
